"""Checks on the preferences stage."""

import dagster as dg
import polars as pl

from mkailin_assets.metadata import none_may_be
from mkailin_assets.partitions import mesh_branches
from mkailin_assets.preferences.assets import cold_start_preferences

ROUNDING = 1e-9


@dg.asset_check(asset=cold_start_preferences, partitions_def=mesh_branches)
def chosen_question_scores_at_least_as_high(cold_start_preferences: pl.DataFrame) -> dg.AssetCheckResult:
    """No rejected question scores higher than the chosen one; a question with a score beats one without."""
    chosen, rejected = pl.col("chosen_score"), pl.col("rejected_score")
    wrong = cold_start_preferences.filter((rejected > chosen) | (rejected.is_not_null() & chosen.is_null()))
    return none_may_be(wrong, "pairs whose rejected question scores higher")


@dg.asset_check(asset=cold_start_preferences, partitions_def=mesh_branches)
def mesh_scores_lie_between_0_and_1(cold_start_preferences: pl.DataFrame) -> dg.AssetCheckResult:
    """Every score is a number from 0 to 1."""
    inside = pl.col("chosen_score", "rejected_score").is_between(-ROUNDING, 1 + ROUNDING)
    wrong = cold_start_preferences.filter(~pl.all_horizontal(inside.fill_null(True)))
    return none_may_be(wrong, "pairs with a score outside 0 to 1")


@dg.asset_check(asset=cold_start_preferences, partitions_def=mesh_branches)
def dropped_pairs_have_a_reason(cold_start_preferences: pl.DataFrame) -> dg.AssetCheckResult:
    """A kept pair has two questions, two scores and no reason; a dropped one has a reason."""
    complete = pl.all_horizontal(
        pl.col("chosen_question", "rejected_question", "chosen_score", "rejected_score").is_not_null()
    )
    without_reason = pl.col("reason").is_null()
    right = pl.when("kept").then(complete & without_reason).otherwise(~without_reason)
    return none_may_be(cold_start_preferences.filter(~right), "pairs whose verdict and reason disagree")


@dg.asset_check(asset=cold_start_preferences, partitions_def=mesh_branches)
def some_preferences_are_kept(cold_start_preferences: pl.DataFrame) -> dg.AssetCheckResult:
    """A branch teaches something: a share of its pairs is kept."""
    kept = int(cold_start_preferences["kept"].sum())
    return dg.AssetCheckResult(
        passed=kept > 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{kept} of {cold_start_preferences.height} pairs are preferences to learn from",
        metadata={"kept": kept, "share": kept / max(cold_start_preferences.height, 1)},
    )
