"""Tables of the training stage."""

import dataframely as dy

from mkailin_assets.tables import one_of

METHODS = ("full", "lora", "qlora")


class Checkpoint(dy.Schema):
    """A trained model: where its folder is and what made it. One row (docs/training.md)."""

    name = dy.String(description="What it is: pretrained, finetuned")
    uri = dy.String(description="Folder: weights, tokenizer, card, training.json")
    fingerprint = dy.String(description="Hash of data, base, recipe, seed and code")
    started_from = dy.String(
        nullable=True, description="Fingerprint of the checkpoint it began with; null: the base itself"
    )
    data_fingerprint = dy.String(description="Hash of the examples trained and validated on")
    base_model = dy.String(description="Base model and revision, or what the small Llama is like")
    recipe = dy.String(description="Name of the recipe")
    method = one_of(METHODS, description="full: all weights; lora, qlora: adapters")
    examples = dy.Int64(min=0, description="Examples trained on")
    tokens = dy.Int64(min=0, description="Tokens trained on, repetitions counted")
    steps = dy.Int64(min=0, description="Optimizer steps")
    first_loss = dy.Float64(description="Training loss of the first logged step, nats a token")
    last_loss = dy.Float64(description="Training loss of the last logged step")
    first_validation_loss = dy.Float64(
        nullable=True, description="Loss on the validation split before training; null: it is empty"
    )
    validation_loss = dy.Float64(
        nullable=True, description="Loss on the validation split of the weights that were kept"
    )
    tokenizer_sha256 = dy.String(description="SHA-256 of tokenizer and chat template")
    weights_sha256 = dy.String(
        description="SHA-256 of the weights: of the adapter, or of all files of a whole model"
    )
