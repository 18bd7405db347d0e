"""Checks of the training stage."""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from mkailin_assets.checkpoints import finite, unaltered
from mkailin_assets.training.assets import finetuned_checkpoint, pretrained_checkpoint
from mkailin_resources.storage import Storage

_LOSSES = ("first_loss", "last_loss", "first_validation_loss", "validation_loss")
_FALLS = (("first_loss", "last_loss", "training"), ("first_validation_loss", "validation_loss", "held-out"))


def _told(checkpoint: pl.DataFrame) -> Iterator[dg.AssetCheckResult]:
    """What the losses of a checkpoint must be; a warning where training has not lowered one."""
    losses = checkpoint.select(_LOSSES).row(0, named=True)
    yield finite(losses)
    for before, after, name in _FALLS:
        first, last = losses[before], losses[after]
        told = (
            "there is no held-out split" if first is None else f"from {first:.3f} to {last:.3f} nats a token"
        )
        yield dg.AssetCheckResult(
            check_name=f"{name.replace('-', '_')}_loss_falls",
            passed=first is None or last < first,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{name} loss: {told}",
        )


def _specs(asset: dg.AssetsDefinition) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec("losses_are_finite", asset=asset, blocking=True, description="Losses are numbers."),
        dg.AssetCheckSpec(
            "training_loss_falls", asset=asset, description="The last loss is below the first."
        ),
        dg.AssetCheckSpec(
            "held_out_loss_falls",
            asset=asset,
            description="The loss on the validation split is lower than before training.",
        ),
    ]


@dg.multi_asset_check(specs=_specs(pretrained_checkpoint))
def pretraining_went_well(pretrained_checkpoint: pl.DataFrame) -> Iterator[dg.AssetCheckResult]:
    """Losses are numbers and fall."""
    yield from _told(pretrained_checkpoint)


@dg.multi_asset_check(specs=_specs(finetuned_checkpoint))
def finetuning_went_well(finetuned_checkpoint: pl.DataFrame) -> Iterator[dg.AssetCheckResult]:
    """Losses are numbers and fall."""
    yield from _told(finetuned_checkpoint)


@dg.asset_check(asset=pretrained_checkpoint, blocking=True)
def pretrained_files_are_those_written(
    pretrained_checkpoint: pl.DataFrame, storage: Storage
) -> dg.AssetCheckResult:
    """The files of the checkpoint are as its record lists them."""
    return unaltered(pretrained_checkpoint, storage)


@dg.asset_check(asset=finetuned_checkpoint, blocking=True)
def finetuned_files_are_those_written(
    finetuned_checkpoint: pl.DataFrame, storage: Storage
) -> dg.AssetCheckResult:
    """The files of the checkpoint are as its record lists them."""
    return unaltered(finetuned_checkpoint, storage)
