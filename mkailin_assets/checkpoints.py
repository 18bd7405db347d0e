"""Checkpoints of the platform's own trainings: trained once, published whole, taken up after a kill."""

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import dagster as dg
import polars as pl
from pydantic import BaseModel, Field

from mkailin_assets.adapters import AdapterRecord, AdapterTuning, altered_files, model_of, read_record
from mkailin_assets.metadata import none_may_be
from mkailin_resources.compute import Compute
from mkailin_resources.models.engines import release_engines
from mkailin_resources.models.interface import TextGenerator
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.storage import Storage
from mkailin_resources.trainees import Trainees

Tuning = TypeVar("Tuning", bound=AdapterTuning)
# Writes a checkpoint to the first folder; the second outlives a kill, and has a folder of the fingerprint's
# name for the training to go on from.
Train = Callable[[Path, Path], object]


class TrainingOverrides(dg.Config):
    """What a person changes of a training's settings in the launchpad; what is left out is the recipe's."""

    seed: int | None = Field(None, description="Seed of adapters, order and small Llama")
    epochs: int | None = Field(None, ge=1, description="Passes over what is trained on, up to max_steps")
    max_steps: int | None = Field(None, ge=1, description="Most optimizer steps: what bounds the time")
    batch_size: int | None = Field(None, ge=1, description="Examples in memory at once")
    accumulation: int | None = Field(None, ge=1, description="Batches an optimizer step")
    learning_rate: float | None = Field(None, gt=0, description="Peak of the cosine schedule")
    warmup_steps: int | None = Field(None, ge=0, description="Steps up to the peak, a tenth of all at most")
    max_length: int | None = Field(None, ge=64, description="Tokens of an example, at most")

    def over(self, recipe: Tuning) -> Tuning:
        """The recipe with what was changed."""
        changed = {name: getattr(self, name, None) for name in type(recipe).model_fields}
        given = {name: value for name, value in changed.items() if value is not None}
        return type(recipe).model_validate(recipe.model_dump() | given)


class AdapterOverrides(TrainingOverrides):
    """The same where a new adapter is put on a base."""

    lora_rank: int | None = Field(None, ge=1, description="Rank of the adapters")
    lora_alpha: int | None = Field(None, ge=1, description="Scale of the adapters: alpha / rank")
    max_characters: int | None = Field(None, ge=200, description="Characters of a document that are shown")


class Published(BaseModel):
    """A checkpoint in the storage root, and whether it was trained just now."""

    uri: str
    trained_now: bool


def publish_once(storage: Storage, kind: str, fingerprint: str, train: Train) -> Published:
    """The checkpoint of that fingerprint: what is there, else what `train` makes.

    Two runs that want the same one train it once. Raises what `train` raises; its work stays then.
    """
    parts = ("checkpoints", kind, fingerprint)
    work = storage.scratch() / f"{kind}_training"
    with storage.turn(work.name):
        trained_now = not storage.has_folder(*parts)
        if trained_now:
            release_engines()
            with storage.scratch_folder(f"{kind}_checkpoint") as folder:
                train(folder, work)
                storage.publish_folder(folder, *parts)
            # That of other trainings of the kind, which a kill may have left, stays.
            shutil.rmtree(work / fingerprint, ignore_errors=True)
    return Published(uri=str(storage.path(*parts)), trained_now=trained_now)


def name_of(record: AdapterRecord) -> str:
    """What rows call a trained model."""
    # A base in a folder is called by that alone: where it lies is nobody's business.
    folder = ModelName(record.base).is_folder if record.base else False
    base = (Path(record.base).name if folder else record.base) or "random weights"
    return f"mkailin-{record.name}-{record.fingerprint[:8]} ({base})"


def trained_generator(uri: str, trainees: Trainees, storage: Storage) -> TextGenerator:
    """The question generator of a checkpoint, as it can be asked."""
    folder = storage.local_folder(uri)
    record = read_record(folder, AdapterRecord)
    return trainees.generator(model_of(folder), name_of(record), record.max_characters)


def unaltered(checkpoints: pl.DataFrame, storage: Storage) -> dg.AssetCheckResult:
    """A check that passes when the files of checkpoints (column `uri`) are as their records list them."""
    wrong = [
        {"uri": uri, "file": name}
        for uri in checkpoints["uri"].drop_nulls()
        for name in altered_files(storage.local_folder(uri))
    ]
    return none_may_be(
        pl.DataFrame(wrong, schema={"uri": pl.String, "file": pl.String}), "files were changed"
    )


def finite(losses: Mapping[str, float | None]) -> dg.AssetCheckResult:
    """A check, `losses_are_finite`, that passes when all losses that there are are numbers."""
    wrong = [name for name, loss in losses.items() if loss is not None and not math.isfinite(loss)]
    return dg.AssetCheckResult(
        check_name="losses_are_finite",
        passed=not wrong,
        description=f"not finite: {', '.join(wrong)}" if wrong else None,
        metadata=dict(losses),
    )


def on_storage(compute: Compute, storage: Storage) -> Compute:
    """What trains, with a folder of the storage for its tracker; raises `ComputeUnavailable`."""
    placed = replace(compute, tracking=str(storage.scratch() / "tracking"))
    placed.check()
    return placed
