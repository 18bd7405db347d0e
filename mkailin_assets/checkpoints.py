"""Checkpoints of the platform's own trainings: trained once, published whole, taken up after a kill."""

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import dagster as dg
from pydantic import BaseModel, Field

from mkailin_assets.adapters import AdapterRecord, AdapterTuning, model_of, read_record
from mkailin_resources.models.engines import release_engines
from mkailin_resources.models.interface import TextGenerator
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.storage import Storage, StorageError
from mkailin_resources.trainees import Trainees

Tuning = TypeVar("Tuning", bound=AdapterTuning)
# Writes a checkpoint to the first folder; the second outlives a kill, for the training to go on from.
Train = Callable[[Path, Path], object]


class TrainingOverrides(dg.Config):
    """What a person changes of a training's settings in the launchpad; what is left out is the recipe's."""

    seed: int | None = Field(None, description="Seed of adapters, order and small Llama")
    epochs: int | None = Field(None, ge=1, description="Passes over what is trained on, up to max_steps")
    max_steps: int | None = Field(None, ge=1, description="Most optimizer steps: what bounds the time")
    batch_size: int | None = Field(None, ge=1, description="Examples in memory at once")
    accumulation: int | None = Field(None, ge=1, description="Batches an optimizer step")
    learning_rate: float | None = Field(None, gt=0, description="Peak of the cosine schedule")
    max_length: int | None = Field(None, ge=64, description="Tokens of an example, at most")

    def over(self, recipe: Tuning) -> Tuning:
        """The recipe with what was changed."""
        changed = {name: getattr(self, name) for name in TrainingOverrides.model_fields}
        given = {name: value for name, value in changed.items() if value is not None}
        return type(recipe).model_validate(recipe.model_dump() | given)


class Published(BaseModel):
    """A checkpoint in the storage root, and whether it was trained just now."""

    uri: str
    trained_now: bool


def publish_once(storage: Storage, kind: str, fingerprint: str, train: Train) -> Published:
    """The checkpoint of that fingerprint: what is there, else what `train` makes.

    Two runs that want the same one train it once. Raises what `train` raises; its work stays then.
    """
    uri = str(storage.path("checkpoints", kind, fingerprint))
    work = storage.scratch() / f"{kind}_training"
    with storage.turn(work.name):
        try:
            storage.local_folder(uri)
        except StorageError:
            release_engines()
            with TemporaryDirectory() as scratch:
                train(Path(scratch), work)
                storage.publish_folder(Path(scratch), "checkpoints", kind, fingerprint)
            shutil.rmtree(work, ignore_errors=True)
            return Published(uri=uri, trained_now=True)
    return Published(uri=uri, trained_now=False)


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
