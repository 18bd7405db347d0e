"""Checks of the training stage."""

import math

import dagster as dg
import polars as pl

from mkailin_assets.training.assets import finetuned_checkpoint
from mkailin_assets.training.checkpoints import WEIGHTS, read_record
from mkailin_resources.storage import Storage
from mkailin_resources.training_checkpoints import sha256


@dg.asset_check(asset=finetuned_checkpoint, blocking=True)
def losses_are_finite(finetuned_checkpoint: pl.DataFrame) -> dg.AssetCheckResult:
    """Training and validation losses are numbers."""
    losses = finetuned_checkpoint.select("first_loss", "last_loss", "validation_loss").row(0, named=True)
    wrong = [name for name, loss in losses.items() if loss is not None and not math.isfinite(loss)]
    return dg.AssetCheckResult(
        passed=not wrong, description=f"not finite: {', '.join(wrong)}" if wrong else None, metadata=losses
    )


@dg.asset_check(asset=finetuned_checkpoint)
def training_lowers_the_loss(finetuned_checkpoint: pl.DataFrame) -> dg.AssetCheckResult:
    """The last training loss is below the first."""
    first, last = finetuned_checkpoint.select("first_loss", "last_loss").row(0)
    return dg.AssetCheckResult(
        passed=last < first,
        description=f"loss on the answers went from {first:.3f} to {last:.3f} nats a token",
    )


@dg.asset_check(asset=finetuned_checkpoint, blocking=True)
def weights_are_those_trained(finetuned_checkpoint: pl.DataFrame, storage: Storage) -> dg.AssetCheckResult:
    """The adapter file is the one that the table and the checkpoint's record name."""
    uri, expected = finetuned_checkpoint.select("uri", "weights_sha256").row(0)
    folder = storage.local_folder(uri)
    found = {"file": sha256(folder / WEIGHTS), "record": read_record(folder).sha256[WEIGHTS]}
    wrong = [name for name, value in found.items() if value != expected]
    return dg.AssetCheckResult(
        passed=not wrong,
        description=f"{uri}: {' and '.join(wrong)} differ from {expected}; train again" if wrong else None,
        metadata={"table": expected, **found},
    )
