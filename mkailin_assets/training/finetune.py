"""Supervised fine-tuning: LoRA on instruction pairs, loss on the answer alone, repeatable by its seed.

TRL and PEFT do the work; this module decides what they are given. The base is random, and low-rank updates
of random matrices cannot teach a model words, so the input and output embeddings are trained in full beside
the adapters and saved with them.
"""

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import BaseModel, Field

from mkailin_assets.trainer import LossCurve, curve_of, one_thread, watch
from mkailin_assets.training.encoding import UNSUPERVISED, EncodedExample, QuestionTooLong, encode_example

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

LEAST_EXAMPLES = 8


class FinetuneSettings(BaseModel):
    """What decides a fine-tuning beside its data; all of it is in the checkpoint's fingerprint."""

    seed: int = Field(default=20, description="Seed of the random base, the adapters and the order")
    vocabulary: int = Field(default=4096, ge=300, description="Most tokens of the embedded tokenizer")
    max_length: int = Field(default=512, ge=64, description="Tokens of prompt and answer together")
    epochs: int = Field(default=3, ge=1, description="Passes over the training split, up to max_steps")
    max_steps: int = Field(default=240, ge=1, description="Most optimizer steps: what bounds the time")
    batch_size: int = Field(default=8, ge=1, description="Examples an optimizer step")
    learning_rate: float = Field(default=3e-3, gt=0, description="Peak of the cosine schedule")
    lora_rank: int = Field(default=16, ge=1, description="Rank of the adapters; alpha is twice that")


class TooFewExamples(ValueError):
    """There is not enough to train on."""


@dataclass(frozen=True)
class EncodedSplits:
    """What is trained and validated on, in tokens, and which examples are not, with the reason."""

    train: list[EncodedExample]
    validation: list[EncodedExample]
    left_out: dict[str, str]


class TrainingMetrics(BaseModel):
    """What a training cost and came to."""

    examples: int
    validation_examples: int
    left_out: dict[str, str]
    cut_to_fit: int
    parameters: int
    trained_parameters: int
    steps: int
    tokens: int
    seconds: float
    curve: LossCurve


def encode_splits(
    examples: pl.DataFrame, tokenizer: "PreTrainedTokenizerFast", max_length: int
) -> EncodedSplits:
    """Splits "train" and "validation" of a TrainingExample table, in the order of their ids.

    Raises `TooFewExamples` under eight rows of the training split.
    """
    encoded: dict[str, list[EncodedExample]] = {"train": [], "validation": []}
    left_out: dict[str, str] = {}
    for row in examples.filter(pl.col("split").is_in(list(encoded))).sort("example_id").iter_rows(named=True):
        try:
            example = encode_example(tokenizer, row["messages"], row["context"], max_length)
        except QuestionTooLong as error:
            left_out[row["example_id"]] = str(error)
        else:
            encoded[row["split"]].append(example)
    if len(encoded["train"]) < LEAST_EXAMPLES:
        raise TooFewExamples(
            f"fine-tuning needs at least {LEAST_EXAMPLES} examples in the split 'train' of training_corpus; "
            f"it has {len(encoded['train'])} and {len(left_out)} too long: materialize more branches first"
        )
    return EncodedSplits(**encoded, left_out=left_out)


def finetune(
    base: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerFast",
    splits: EncodedSplits,
    settings: FinetuneSettings,
    log: Callable[[str], None],
) -> tuple["PeftModel", TrainingMetrics]:
    """Train LoRA adapters on every linear layer of `base`, on one thread of a CPU so that it can be repeated.

    Raises `TrainingDiverged` as soon as a loss is not finite.
    """
    from transformers import PrinterCallback

    with one_thread(), tempfile.TemporaryDirectory() as scratch:
        trainer = _trainer_class()(
            model=base,
            args=_arguments(settings, len(splits.train), bool(splits.validation), scratch),
            train_dataset=_dataset(splits.train),
            eval_dataset=_dataset(splits.validation) if splits.validation else None,
            processing_class=tokenizer,
            peft_config=_adapters(settings.lora_rank),
            callbacks=[watch(log)],
        )
        trainer.remove_callback(PrinterCallback)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    history = trainer.state.log_history
    trained, parameters = trainer.model.get_nb_trainable_parameters()
    metrics = TrainingMetrics(
        examples=len(splits.train),
        validation_examples=len(splits.validation),
        left_out=splits.left_out,
        cut_to_fit=sum(len(example.input_ids) == settings.max_length for example in splits.train),
        parameters=parameters,
        trained_parameters=trained,
        steps=trainer.state.global_step,
        tokens=int(trainer.state.num_input_tokens_seen),
        seconds=seconds,
        curve=LossCurve(train=curve_of(history, "loss"), validation=curve_of(history, "eval_loss")),
    )
    return trainer.model, metrics


def _trainer_class() -> Any:
    from trl import SFTTrainer

    class AnswerTrainer(SFTTrainer):
        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            """On a CPU TRL 1.16 projects the prompt onto the vocabulary too, at twice the time of a step."""
            labels = inputs.pop("labels")
            answers = (labels != UNSUPERVISED).any(dim=0).nonzero()
            window = labels.shape[1] - int(answers[0]) + 1
            outputs = model(
                **inputs,
                labels=labels[:, -window:],
                logits_to_keep=window,
                num_items_in_batch=num_items_in_batch,
            )
            return (outputs.loss, outputs) if return_outputs else outputs.loss

        def _send_telemetry(self) -> None:
            """TRL 1.16 reports each training to the Hub unless a variable was set before its import."""

    return AnswerTrainer


def _dataset(examples: list[EncodedExample]) -> "Dataset":
    from datasets import Dataset

    return Dataset.from_list(
        [{"input_ids": example.input_ids, "labels": example.labels} for example in examples]
    )


def _adapters(rank: int) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules="all-linear",
        modules_to_save=["embed_tokens", "lm_head"],
        task_type="CAUSAL_LM",
    )


def _arguments(settings: FinetuneSettings, examples: int, validate: bool, scratch: str) -> Any:
    from trl import SFTConfig

    steps = min(settings.max_steps, settings.epochs * math.ceil(examples / settings.batch_size))
    return SFTConfig(
        output_dir=scratch,
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, steps // 20),
        max_length=settings.max_length,
        # Encoded already; TRL's own preparation drops an example whose answer its truncation cut off.
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="group_by_length",
        logging_steps=max(1, steps // 25),
        # The default replaces a loss that is not a number by a mean that is.
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="non_padding",
        eval_strategy="steps" if validate else "no",
        eval_steps=max(1, math.ceil(steps / 4)),
        eval_on_start=validate,
        save_strategy="no",
        seed=settings.seed,
        data_seed=settings.seed,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        report_to="none",
        disable_tqdm=True,
    )
