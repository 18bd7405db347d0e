"""Checkpoint folders: what made them, what is in them, and how a model is read back.

adapter/        LoRA weights and the trained embeddings, safetensors
base/           the model they sit on, and the tokenizer with its chat template
training.json   `TrainingRecord`
"""

import hashlib
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, cast

import polars as pl
from pydantic import BaseModel

from mkailin_assets.corpus.recalls import trained_on
from mkailin_assets.training.embedded_llama import build_base
from mkailin_assets.training.finetune import FinetuneSettings, TrainingMetrics, encode_splits, finetune
from mkailin_assets.training.tables import Checkpoint
from mkailin_assets.training.tokenizer import corpus_tokenizer
from mkailin_resources.training_checkpoints import sha256

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

WEIGHTS = "adapter/adapter_model.safetensors"
RECORD = "training.json"
# Part of every fingerprint: raise it when the same data and settings are to give another model.
RECIPE = "1"
PACKAGES = ("torch", "transformers", "peft", "trl", "tokenizers")


class TrainingRecord(BaseModel):
    """What a checkpoint's `training.json` says."""

    name: str
    fingerprint: str
    data_fingerprint: str
    recipe: str
    base_model: str
    settings: FinetuneSettings
    packages: dict[str, str]
    metrics: TrainingMetrics
    sha256: dict[str, str]


def fingerprint(examples: pl.DataFrame, settings: FinetuneSettings) -> str:
    """Hash of data, settings (seed and base among them) and recipe: the name of the checkpoint's folder.

    Left out: package versions and the machine, which move the last digits of weights and no conclusion;
    the record names the versions.
    """
    made_of = [RECIPE, trained_on(examples.lazy()), settings.model_dump()]
    return hashlib.blake2b(json.dumps(made_of, sort_keys=True).encode(), digest_size=16).hexdigest()


def train_checkpoint(
    examples: pl.DataFrame, settings: FinetuneSettings, folder: Path, log: Callable[[str], None]
) -> TrainingRecord:
    """Fine-tune a small Llama on a TrainingExample table and write the checkpoint to an empty `folder`.

    Raises `TooFewExamples` or `TrainingDiverged`, and then there is no record in the folder.
    """
    _without_progress_bars()
    tokenizer = corpus_tokenizer(examples.lazy(), settings.vocabulary)
    splits = encode_splits(examples, tokenizer, settings.max_length)
    base = build_base(tokenizer, settings.max_length, settings.seed)
    base_model = f"random Llama, {base.num_parameters():,} parameters, seed {settings.seed}"
    base.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")

    model, metrics = finetune(base, tokenizer, splits, settings, log)
    model.peft_config["default"].base_model_name_or_path = "../base"
    # "auto" would ask the Hub whether the base's vocabulary was resized.
    model.save_pretrained(str(folder / "adapter"), save_embedding_layers=False)
    (folder / "adapter" / "README.md").unlink()  # PEFT's template of a model card, unfilled

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        path.chmod(0o644)  # safetensors 0.8 writes files that only their owner can read
    record = TrainingRecord(
        name="finetuned",
        fingerprint=fingerprint(examples, settings),
        data_fingerprint=trained_on(examples.lazy()),
        recipe=RECIPE,
        base_model=base_model,
        settings=settings,
        packages={package: version(package) for package in PACKAGES},
        metrics=metrics,
        sha256={str(path.relative_to(folder)): sha256(path) for path in files},
    )
    (folder / RECORD).write_text(record.model_dump_json(indent=2))
    return record


def read_record(folder: Path) -> TrainingRecord:
    """The record of a checkpoint folder."""
    return TrainingRecord.model_validate_json((folder / RECORD).read_text())


def load_base(folder: Path) -> tuple["PreTrainedModel", "PreTrainedTokenizerFast"]:
    """The model a checkpoint was trained from, in single precision, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _without_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(folder / "base", local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32, local_files_only=True)
    return model.eval(), cast("PreTrainedTokenizerFast", tokenizer)


def load_finetuned(folder: Path) -> tuple["PeftModel", "PreTrainedTokenizerFast"]:
    """The fine-tuned model of a checkpoint, base and adapter, and its tokenizer."""
    from peft import PeftModel

    base, tokenizer = load_base(folder)
    return PeftModel.from_pretrained(base, folder / "adapter", local_files_only=True).eval(), tokenizer


def checkpoint_row(uri: str, record: TrainingRecord) -> pl.DataFrame:
    """The `Checkpoint` table of one checkpoint."""
    curve = record.metrics.curve
    return pl.DataFrame(
        [
            {
                "name": record.name,
                "uri": uri,
                "fingerprint": record.fingerprint,
                "base_model": record.base_model,
                "examples": record.metrics.examples,
                "steps": record.metrics.steps,
                "first_loss": curve.train[0][1],
                "last_loss": curve.train[-1][1],
                "validation_loss": curve.validation[-1][1] if curve.validation else None,
                "weights_sha256": record.sha256[WEIGHTS],
            }
        ],
        schema=Checkpoint.create_empty().schema,
    )


def _without_progress_bars() -> None:
    """Files of a small model are written at once; bars for them would break into the run's own lines."""
    from transformers.utils import logging

    logging.disable_progress_bar()
