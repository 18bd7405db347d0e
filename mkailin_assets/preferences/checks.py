"""Checks on the preferences stage."""

import dagster as dg
import polars as pl

from mkailin_assets.checkpoints import unaltered
from mkailin_assets.metadata import none_may_be
from mkailin_assets.partitions import mesh_branches
from mkailin_assets.preferences.agreement import LEAST_TRIALS
from mkailin_assets.preferences.assets import (
    cold_start_preferences,
    evaluator_checkpoint,
    preferred_generator,
    question_champion,
    question_preferences,
)
from mkailin_assets.preferences.trial import LEAST_CITATIONS
from mkailin_resources.storage import Storage

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


@dg.asset_check(asset=evaluator_checkpoint)
def an_evaluator_judges_only_where_it_beats_the_cold_start(
    evaluator_checkpoint: pl.DataFrame,
) -> dg.AssetCheckResult:
    """The evaluator judges where its lead in trials of known truth lies above 0 with all of its interval."""
    better = ((pl.col("lead_low") > 0) & (pl.col("trials") >= LEAST_TRIALS)).fill_null(False)
    wrong = evaluator_checkpoint.filter(pl.col("judges") != better)
    return none_may_be(wrong.select("evaluator", "lead", "lead_low", "judges"), "evaluators judge wrongly")


@dg.asset_check(
    asset=question_preferences,
    partitions_def=mesh_branches,
    additional_ins={"cold_start_preferences": dg.AssetIn("cold_start_preferences")},
)
def preferences_are_between_the_same_two_questions(
    question_preferences: pl.DataFrame, cold_start_preferences: pl.DataFrame
) -> dg.AssetCheckResult:
    """Whoever judges, the two questions of a citation are those of the cold start; none is lost."""
    both = question_preferences.join(
        cold_start_preferences, on="pmid", how="full", suffix="_before", coalesce=True
    )
    now, before = (
        pl.concat_list(f"chosen_question{suffix}", f"rejected_question{suffix}").list.sort()
        for suffix in ("", "_before")
    )
    missing = pl.col("branch").is_null() | pl.col("branch_before").is_null()
    return none_may_be(both.filter(missing | now.ne_missing(before)).select("pmid"), "pairs were changed")


@dg.asset_check(asset=question_preferences, partitions_def=mesh_branches)
def preferences_that_teach_have_two_questions(question_preferences: pl.DataFrame) -> dg.AssetCheckResult:
    """A kept preference has two questions and no reason against it; a dropped one has a reason."""
    complete = pl.all_horizontal(pl.col("chosen_question", "rejected_question").is_not_null())
    without_reason = pl.col("reason").is_null()
    right = pl.when("kept").then(complete & without_reason).otherwise(~without_reason)
    return none_may_be(question_preferences.filter(~right), "preferences whose verdict and reason disagree")


@dg.asset_check(asset=preferred_generator)
def preferred_generator_beats_its_start(preferred_generator: pl.DataFrame) -> dg.AssetCheckResult:
    """A generator after DPO asks better than its start on held-out citations, by more than chance."""
    rounds = preferred_generator.filter(pl.col("round") > 0)
    best = rounds.sort("is_current", "score", descending=True, nulls_last=True).head(1)
    if best.is_empty() or best.item(0, "lead") is None:
        return dg.AssetCheckResult(
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description="no generator was optimized and tried; the metadata of the asset say why",
        )
    row = best.row(0, named=True)
    return dg.AssetCheckResult(
        passed=row["is_current"] and row["lead_low"] > 0 and row["documents"] >= LEAST_CITATIONS,
        severity=dg.AssetCheckSeverity.WARN,
        description=(
            f"round {row['round']}: MeSH score {row['score']:.3f}, lead over its start {row['lead']:+.3f} "
            f"(95% interval {row['lead_low']:+.3f} to {row['lead_high']:+.3f}), {row['documents']} citations"
        ),
    )


@dg.asset_check(asset=question_champion)
def there_is_one_champion_and_it_is_better_than_two(question_champion: pl.DataFrame) -> dg.AssetCheckResult:
    """One contestant asks; a trained generator only where its lead over best of two is above chance."""
    champions = question_champion.filter("is_champion")
    trained = champions.filter(pl.col("uri").is_not_null(), ~_is_better())
    wrong = champions if champions.height != 1 else trained
    if question_champion.is_empty() or champions.is_empty():
        return dg.AssetCheckResult(passed=False, description="there is no champion")
    return none_may_be(wrong.select("contestant", "score", "lead", "lead_low"), "champions are not the best")


@dg.asset_check(asset=evaluator_checkpoint)
def the_evaluator_is_as_it_was_trained(
    evaluator_checkpoint: pl.DataFrame, storage: Storage
) -> dg.AssetCheckResult:
    """Every file of a learned evaluator has the SHA-256 that its record lists."""
    return unaltered(evaluator_checkpoint, storage)


@dg.asset_check(asset=preferred_generator)
def the_preferred_generators_are_as_they_were_trained(
    preferred_generator: pl.DataFrame, storage: Storage
) -> dg.AssetCheckResult:
    """Every file of each round's checkpoint has the SHA-256 that its record lists."""
    return unaltered(preferred_generator, storage)


def _is_better() -> pl.Expr:
    return ((pl.col("lead_low") > 0) & (pl.col("documents") >= LEAST_CITATIONS)).fill_null(False)
