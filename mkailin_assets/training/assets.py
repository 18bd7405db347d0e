"""The training stage: the corpus becomes a model."""

from typing import Any

import dagster as dg
import polars as pl

from mkailin_assets.checkpoints import publish_once
from mkailin_assets.gpu import ON_GPU
from mkailin_assets.metadata import curves, preview
from mkailin_assets.tables import table
from mkailin_assets.training.checkpoints import (
    WEIGHTS,
    TrainingRecord,
    checkpoint_row,
    fingerprint,
    read_record,
    train_checkpoint,
)
from mkailin_assets.training.finetune import FinetuneSettings
from mkailin_assets.training.tables import Checkpoint
from mkailin_resources.storage import Storage

WEAK = (
    "A Llama of about a million parameters with random weights, trained for minutes: it shows that corpus, "
    "tokenizer, LoRA, checkpoint and evaluation work together. It knows no medicine."
)


class FinetuneConfig(FinetuneSettings, dg.Config):
    """Settings of the fine-tuning."""


@dg.asset(
    **table(Checkpoint),
    **ON_GPU,
    group_name="training",
    kinds={"pytorch", "huggingface"},
    code_version="1",
)
def finetuned_checkpoint(
    context: dg.AssetExecutionContext, training_corpus: pl.DataFrame, config: FinetuneConfig, storage: Storage
) -> dg.Output[pl.DataFrame]:
    """A small Llama after supervised fine-tuning on the corpus: LoRA adapter, base and record in a folder."""
    settings = FinetuneSettings(**config.model_dump())
    name = fingerprint(training_corpus, settings)
    published = publish_once(
        storage,
        "finetuned",
        name,
        lambda folder, _: train_checkpoint(training_corpus, settings, folder, context.log.info),
    )
    uri, trained_now = published.uri, published.trained_now
    record = read_record(storage.local_folder(uri))
    checkpoint = checkpoint_row(uri, record)
    return dg.Output(
        checkpoint,
        metadata={
            "trained_now": trained_now,
            "path": dg.MetadataValue.path(uri),
            **_training_metadata(record),
            "preview": preview(checkpoint),
        },
    )


def _training_metadata(record: TrainingRecord) -> dict[str, Any]:
    metrics = record.metrics
    lines = {
        name: ([step for step, _ in points], [loss for _, loss in points])
        for name, points in (("training", metrics.curve.train), ("validation", metrics.curve.validation))
        if points
    }
    return {
        "read_this_first": WEAK,
        "loss": curves("Loss on the answers", lines, x="optimizer step", y="nats a token"),
        "adapter": WEIGHTS,
        "training_examples": metrics.examples,
        "validation_examples": metrics.validation_examples,
        "left_out": metrics.left_out,
        "cut_to_fit": metrics.cut_to_fit,
        "parameters": metrics.parameters,
        "trained_parameters": metrics.trained_parameters,
        "steps": metrics.steps,
        "tokens": metrics.tokens,
        "tokens_per_second": round(metrics.tokens / metrics.seconds),
        "training_seconds": round(metrics.seconds, 1),
    }
