"""Checkpoints of trainings on the corpus: what names them, what they hold, and how a model is read back.

model/          method full: the whole model, its tokenizer and chat template
adapter/        methods lora and qlora: the adapter, and tokenizer and chat template of its base
base/           of the small Llama, its weights before any training; or what an adapter sits on that is a
                model of the platform's own
README.md       model card
training.json   `TrainingRecord`, written last
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
from pydantic import Field, ValidationError

from mkailin_assets import adapters
from mkailin_assets.adapters import ADAPTER, BASE, MODEL, WEIGHTS, CheckpointRecord
from mkailin_assets.corpus.recalls import trained_on
from mkailin_assets.training.embedded_llama import SMALL
from mkailin_assets.training.recipes import STAGES, Kind, Method, Recipe, Stage
from mkailin_assets.training.tables import Checkpoint
from mkailin_resources.models import model_files
from mkailin_resources.models.model_name import ModelName

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# Part of every fingerprint, and the version of what trains: raise it when the same data and settings are to
# give another model.
RECIPE = "4"
Template = Literal["own", "plain"]
SMALL_LLAMA = "small Llama of random weights"


class TrainingRecord(CheckpointRecord):
    """What a checkpoint's `training.json` says."""

    data_fingerprint: str = Field(description="Of the examples trained and validated on")
    recipe_name: str
    started_from: str = Field(description="Fingerprint of the checkpoint it began with; empty: the base")
    method: Method
    settings: Stage
    lora_rank: int
    lora_alpha: int
    examples: int = Field(description="Examples trained on")
    validation_examples: int
    left_out: dict[str, int] = Field(description="Examples that were not trained on, by reason")
    cut_to_fit: int = Field(description="Examples whose context or answer lost its end to the length limit")
    processes: int = Field(description="Processes that trained together and shared each optimizer step")
    tokenizer_sha256: str = Field(description="Of tokenizer and chat template")
    template: Template = Field(description="own: the base's chat template; plain: ours, as it has none")

    @property
    def tokens(self) -> int:
        """Tokens trained on, repetitions counted."""
        return self.course.tokens


class CheckpointError(RuntimeError):
    """A checkpoint is not there, or not as it was written, or cannot be exported; says what to do."""


class OtherBase(ValueError):
    """A recipe and the checkpoint it is to go on from do not begin with the same base."""


def fingerprint(kind: Kind, corpus: pl.LazyFrame, recipe: Recipe, started_from: str) -> str:
    """Hash of data, base or checkpoint it starts from, settings and code: the name of a checkpoint's folder.

    `started_from` is the fingerprint of that checkpoint; empty: the recipe's base. Left out: package versions
    and the machine, which move the last digits of weights, what the recipe is called, and how often it saves.
    Raises `ModelUnavailable` where the commit of a base cannot be found out.
    """
    settings = recipe.model_dump(exclude={*STAGES.values(), "name", "base", "gradient_checkpointing"})
    start: object = started_from
    if not started_from:
        small = {"small Llama": SMALL, "positions": positions(recipe)}
        start = model_files.identity(ModelName.parse(recipe.base)) if recipe.base else small
    stage: Stage = getattr(recipe, STAGES[kind])
    decides = stage.model_dump(exclude={"checkpoint_steps"})
    return adapters.fingerprint(RECIPE, kind, trained_on(corpus), start, settings, decides)


def positions(recipe: Recipe) -> int:
    """Tokens that the small Llama of a recipe reads: what the longer of its stages needs."""
    return max(recipe.pretraining.max_length, recipe.finetuning.max_length)


def read_record(folder: Path) -> TrainingRecord:
    """The record of a checkpoint folder."""
    return adapters.read_record(folder, TrainingRecord)


def checked(checkpoint: Path) -> TrainingRecord:
    """The record of a checkpoint whose files are as it lists them; raises `CheckpointError`."""
    try:
        record = read_record(checkpoint)
        altered = adapters.altered_files(checkpoint)
    except (OSError, ValidationError) as error:
        raise CheckpointError(
            f"{checkpoint}: is no checkpoint of a training on the corpus: {model_files.first_line(error)}"
        ) from error
    if altered:
        raise CheckpointError(
            f"{checkpoint / altered[0]}: is missing, or not as it was written"
            + (f", as are {len(altered) - 1} other files" if len(altered) > 1 else "")
            + "; remove the checkpoint's folder and materialize its asset again"
        )
    base = adapters.named_base(record)
    sits_on_folder = record.method != "full" and base.is_folder and not (checkpoint / BASE).is_dir()
    if sits_on_folder and model_files.identity(base)[1] != record.revision:
        raise CheckpointError(
            f"{base}: was changed since the adapter {checkpoint} was trained on it; put the model back "
            "that was there, or train again"
        )
    return record


def check_base(recipe: Recipe, record: TrainingRecord) -> None:
    """Raise `OtherBase` where a recipe does not begin with the base of a checkpoint.

    A base is known by its commit or, in a folder, by its content. Raises `ModelUnavailable` where these
    cannot be found out.
    """
    is_same = bool(recipe.base) == bool(record.base)
    if is_same and recipe.base:
        is_same = model_files.identity(ModelName.parse(recipe.base))[1] == record.revision
    if not is_same:
        raise OtherBase(
            f"recipe {recipe.name} begins with {recipe.base or SMALL_LLAMA}, and pretrained_checkpoint was "
            f"trained from {base_model(record)}: materialize pretrained_checkpoint by that recipe, or take "
            "the recipe that it was trained by"
        )


def base_of(folder: Path) -> ModelName:
    """The model before any training; raises `ValueError` where the folder does not hold it.

    A small Llama of random weights is in the folder of the first training alone.
    """
    record = read_record(folder)
    if record.base:
        return adapters.named_base(record)
    if record.started_from:
        raise ValueError(
            f"{folder}: the small Llama as it was before any training is in the folder of the checkpoint it "
            f"started from, {record.started_from}"
        )
    return ModelName(str(folder / BASE))


def tokenizer_folder(folder: Path) -> Path:
    """Where the tokenizer of a checkpoint lies, with the chat template it was trained with."""
    return folder / (MODEL if (folder / MODEL).is_dir() else ADAPTER)


def load(model: ModelName, tokenizer: Path) -> "tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerFast]":
    """A model to ask, with the tokenizer of a folder.

    On the GPUs, if there are any, in bfloat16, its layers on as many as they need; else in single precision.
    Raises `ModelUnavailable`.
    """
    import torch
    from peft import PeftModel

    places = "auto" if torch.cuda.is_available() else None
    bare = ModelName(model.name, model.revision)
    network: Any = adapters.load_base(bare, "CAUSAL_LM", 0, in_4_bits=False, device_map=places)
    if model.adapter:
        network = PeftModel.from_pretrained(network, model.adapter)
    return network.eval(), adapters.load_tokenizer(ModelName(str(tokenizer)))


def checkpoint_row(uri: str, record: TrainingRecord) -> pl.DataFrame:
    """The `Checkpoint` table of one checkpoint."""
    curve = record.course.curve
    looks = dict(curve.validation)
    return pl.DataFrame(
        [
            {
                "name": record.name,
                "uri": uri,
                "fingerprint": record.fingerprint,
                "started_from": record.started_from or None,
                "data_fingerprint": record.data_fingerprint,
                "base_model": base_model(record),
                "recipe": record.recipe_name,
                "method": record.method,
                "examples": record.examples,
                "tokens": record.tokens,
                "steps": record.course.steps,
                "first_loss": curve.train[0][1],
                "last_loss": curve.train[-1][1],
                "first_validation_loss": looks.get(0),
                "validation_loss": looks.get(record.course.kept_step or record.course.steps),
                "tokenizer_sha256": record.tokenizer_sha256,
                "weights_sha256": weights_sha256(record),
            }
        ],
        schema=Checkpoint.create_empty().schema,
    )


def base_model(record: TrainingRecord) -> str:
    """The base of a record and its revision, in words; where a folder lies is nobody's business."""
    if record.base:
        return ModelName(record.base, record.revision).shown
    return f"{SMALL_LLAMA}, {record.parameters:,} parameters"


def is_small(base_models: pl.Series) -> bool:
    """Whether one of the bases, as `base_model` tells them, is the small Llama."""
    return bool(base_models.str.starts_with(SMALL_LLAMA).any())


def weights_sha256(record: TrainingRecord) -> str:
    """SHA-256 of an adapter's weights, or of those of all files of a whole model's."""
    if WEIGHTS in record.sha256:
        return record.sha256[WEIGHTS]
    listed = {name: digest for name, digest in record.sha256.items() if name.startswith(f"{MODEL}/")}
    weights = {name: digest for name, digest in listed.items() if name.endswith(".safetensors")}
    return hashlib.sha256(json.dumps(weights, sort_keys=True).encode()).hexdigest()
