"""Tables of the ablations."""

import dataframely as dy

from mkailin_assets.ablation.ablations import ABLATIONS
from mkailin_assets.corpus.tables import TrainingExample
from mkailin_assets.evaluation.tables import FORMS, METRICS
from mkailin_assets.tables import one_of
from mkailin_assets.training.tables import METHODS


class AblatedExample(TrainingExample):
    """Rows of a corpus made without one of the agents; validation and test are those of training_corpus."""

    fingerprint = dy.String(
        nullable=True, description="Hash of what decided the answer; null: a row of training_corpus"
    )
    entailment_fingerprint = dy.String(nullable=True, description="Hash of what decided the entailment")


class AblatedCheckpoint(dy.Schema):
    """The model that was pre-trained and fine-tuned on the corpus without one of the agents. One row."""

    ablation = one_of(ABLATIONS, primary_key=True, description="Which agent was taken out")
    taken_out = dy.String(description="In words, what it was trained without")
    uri = dy.String(description="Folder of the fine-tuned model: weights, tokenizer, card, training.json")
    fingerprint = dy.String(description="Hash of data, base, settings and code; the same: the same model")
    pretrained_uri = dy.String(description="Folder of the model as it was before fine-tuning")
    pretrained_fingerprint = dy.String(description="The same hash of the pre-trained model")
    data_fingerprint = dy.String(description="Hash of the examples trained and validated on")
    base_model = dy.String(description="Base model and revision, the same for all ablations")
    recipe = dy.String(description="Name of the recipe")
    conditions = dy.String(description="Hash of base, settings and seed, which all ablations share")
    method = one_of(METHODS, description="full: all weights; lora, qlora: adapters")
    examples = dy.Int64(min=0, description="Examples pre-trained on")
    pretraining_steps = dy.Int64(min=0, description="Optimizer steps of pre-training")
    pretraining_budget = dy.Int64(
        min=0, description="Tokens these steps have room for: steps, sequences a step, tokens a sequence"
    )
    pretraining_tokens = dy.Int64(min=0, description="Tokens they read, repetitions counted")
    pretraining_loss = dy.Float64(description="Loss of the last logged step, nats a token")
    pretraining_validation_loss = dy.Float64(
        nullable=True, description="Loss on the validation split in the end; null: it is empty"
    )
    finetuning_steps = dy.Int64(min=0, description="Optimizer steps of fine-tuning")
    finetuning_budget = dy.Int64(min=0, description="Tokens these steps have room for")
    finetuning_tokens = dy.Int64(min=0, description="Tokens they read, repetitions counted")
    finetuning_loss = dy.Float64(description="Loss of the last logged step, nats a token of the answer")
    finetuning_validation_loss = dy.Float64(
        nullable=True, description="Loss on the validation split in the end; null: it is empty"
    )


class AblationResult(dy.Schema):
    """A score of a model that was trained without one of the agents, and its lead over the one with all."""

    ablation = one_of(ABLATIONS, primary_key=True, description="Which agent was taken out")
    same_as = one_of(
        ABLATIONS, nullable=True, description="An earlier ablation that has the same model; null: none has"
    )
    examples = dy.Int64(min=0, description="Examples of its corpus that are trained on")
    tokens = dy.Int64(min=0, description="Tokens read in both trainings, repetitions counted")
    benchmark = dy.String(primary_key=True, description="Name of the benchmark file, or corpus")
    task = dy.String(primary_key=True, description="What was asked")
    form = one_of(FORMS, primary_key=True, description="likelihood or generation")
    metric = one_of(
        METRICS,
        primary_key=True,
        description="accuracy; macro_f1 of yes, no and maybe; bits_per_byte of a text, lower is better",
    )
    items = dy.Int64(min=1, description="Items asked")
    failures = dy.Int64(min=0, description="Items without an answer: wrong choices, texts left out")
    value = dy.Float64(min=0, description="The score")
    low = dy.Float64(min=0, description="Lower end of its 95% interval")
    high = dy.Float64(min=0, description="Upper end of its 95% interval")
    difference = dy.Float64(
        nullable=True, description="Score minus that of the model with all agents; null: it is the same model"
    )
    difference_low = dy.Float64(
        nullable=True, description="Lower end of its 95% interval, paired bootstrap over the items"
    )
    difference_high = dy.Float64(nullable=True, description="Upper end of its 95% interval")
    better = dy.Bool(
        nullable=True,
        description="Whether it is better by more than chance: its interval is without 0, and another seed "
        "made no such difference, where that was measured; null: nobody can tell",
    )
