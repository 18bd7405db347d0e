"""The training stage: the corpus becomes a model, by continued pre-training and fine-tuning."""

from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from mkailin_assets.checkpoints import TrainingOverrides, on_storage, publish_once
from mkailin_assets.gpu import ON_GPU
from mkailin_assets.metadata import curves, preview
from mkailin_assets.tables import table
from mkailin_assets.training.checkpoints import (
    RECIPE,
    TrainingRecord,
    checkpoint_row,
    fingerprint,
    read_record,
)
from mkailin_assets.training.job import train
from mkailin_assets.training.recipes import RECIPES, STAGES, Kind, Recipe, changed, recipe_of
from mkailin_assets.training.tables import Checkpoint
from mkailin_resources.compute import Compute
from mkailin_resources.storage import Storage

WEAK = (
    "A Llama of a few million parameters with random weights, trained for minutes: it shows that corpus, "
    "tokenizer, training, checkpoint and evaluation work together. It knows no medicine."
)


class TrainingConfig(TrainingOverrides):
    """What a person changes of the recipe in the launchpad; what is left out is the recipe's."""

    recipe: str | None = Field(None, description=f"Another recipe: {', '.join(RECIPES)}")
    base: str | None = Field(None, description="Model of the hub or folder; of both trainings the same")
    method: str | None = Field(None, description="full, lora or qlora")
    lora_rank: int | None = Field(None, ge=1, description="Rank of the adapters")
    lora_alpha: int | None = Field(None, ge=1, description="Scale of the adapters: alpha / rank")
    gradient_checkpointing: bool | None = Field(
        None, description="On a GPU: compute activations twice, to hold fewer of them"
    )
    vocabulary: int | None = Field(None, ge=300, description="Most tokens of the small Llama's tokenizer")
    packing: str | None = Field(None, description="How texts share a sequence: none, wrapped, bfd, bfd_split")
    evaluations: int | None = Field(None, ge=1, description="Looks at the held-out split")
    patience: int | None = Field(None, ge=0, description="Looks without gain until it stops; 0: never")
    checkpoint_steps: int | None = Field(None, ge=1, description="Steps between two checkpoints")

    def changed(self, recipe: Recipe, kind: Kind) -> Recipe:
        """The recipe with what was changed of it and of one of its stages; raises `NoRecipe`."""
        chosen = recipe_of(self.recipe) if self.recipe else recipe
        given = self.model_dump(exclude={"recipe"}, exclude_none=True)
        shared = {name: given.pop(name) for name in Recipe.model_fields if name in given}
        return changed(chosen, shared | {STAGES[kind]: given})


@dg.asset(
    **table(Checkpoint),
    **ON_GPU,
    group_name="training",
    kinds={"pytorch", "huggingface"},
    code_version=RECIPE,
)
def pretrained_checkpoint(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    context: dg.AssetExecutionContext,
    training_corpus: pl.LazyFrame,
    recipe: dg.ResourceParam[Recipe],
    compute: dg.ResourceParam[Compute],
    config: TrainingConfig,
    storage: Storage,
) -> dg.Output[pl.DataFrame]:
    """The base model after continued pre-training on the texts of the corpus."""
    chosen = config.changed(recipe, "pretrained")
    return _trained(context, "pretrained", training_corpus, chosen, None, compute, storage)


@dg.asset(
    **table(Checkpoint),
    **ON_GPU,
    group_name="training",
    kinds={"pytorch", "huggingface"},
    code_version=RECIPE,
)
def finetuned_checkpoint(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    context: dg.AssetExecutionContext,
    training_corpus: pl.LazyFrame,
    pretrained_checkpoint: pl.DataFrame,
    recipe: dg.ResourceParam[Recipe],
    compute: dg.ResourceParam[Compute],
    config: TrainingConfig,
    storage: Storage,
) -> dg.Output[pl.DataFrame]:
    """The pre-trained model after fine-tuning on the instruction pairs of the corpus."""
    chosen = config.changed(recipe, "finetuned")
    return _trained(context, "finetuned", training_corpus, chosen, pretrained_checkpoint, compute, storage)


def _trained(  # noqa: PLR0917
    context: dg.AssetExecutionContext,
    kind: Kind,
    corpus: pl.LazyFrame,
    recipe: Recipe,
    started: pl.DataFrame | None,
    compute: Compute,
    storage: Storage,
) -> dg.Output[pl.DataFrame]:
    compute = on_storage(compute, storage)
    start = None if started is None else storage.local_folder(started["uri"][0])
    name = fingerprint(kind, corpus, recipe, "" if started is None else started["fingerprint"][0])
    published = publish_once(
        storage,
        kind,
        name,
        lambda folder, work: train(kind, corpus, recipe, start, folder, work, compute, context.log.info),
    )
    record = read_record(storage.local_folder(published.uri))
    checkpoint = checkpoint_row(published.uri, record)
    metadata = {
        "trained_now": published.trained_now,
        "path": dg.MetadataValue.path(published.uri),
        **({} if compute.tracker == "none" else {"tracked_in": dg.MetadataValue.path(compute.tracking)}),
        **_training_metadata(record),
        "preview": preview(checkpoint),
    }
    return dg.Output(checkpoint, metadata=metadata)


def _training_metadata(record: TrainingRecord) -> dict[str, Any]:
    course = record.course
    lines = {
        name: ([step for step, _ in points], [loss for _, loss in points])
        for name, points in (("training", course.curve.train), ("held out", course.curve.validation))
        if points
    }
    weak = {} if record.base else {"read_this_first": WEAK}
    return {
        **weak,
        "loss": curves("Loss", lines, x="optimizer step", y="nats a token"),
        "recipe": record.recipe_name,
        "method": record.method,
        "settings": record.settings.model_dump(),
        "chat_template": record.template,
        "training_examples": record.examples,
        "validation_examples": record.validation_examples,
        "left_out": record.left_out,
        "cut_to_fit": record.cut_to_fit,
        "parameters": record.parameters,
        "trained_parameters": record.trained_parameters,
        "steps": course.steps,
        "kept_step": course.kept_step,
        "resumed_at": course.resumed_at or "never cut off",
        "tokens": record.tokens,
        "tokens_per_second": course.tokens_per_second and round(course.tokens_per_second),
        "training_seconds": round(course.seconds, 1),
    }
