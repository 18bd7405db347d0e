"""The preferences of a branch: the evaluator's verdict on each pair, or that of the cold start."""

import polars as pl

from mkailin_assets.preferences.cold_start import TIE
from mkailin_assets.preferences.tables import COLD_START, QuestionPreference


def by_cold_start(preferences: pl.DataFrame) -> pl.DataFrame:
    """A `QuestionPreference` table that says what a `ColdStartPreference` table says."""
    return preferences.with_columns(
        judge=pl.lit(COLD_START),
        evaluator_margin=pl.lit(None, pl.Float64),
        evaluator_reason=pl.lit(None, pl.String),
        fingerprints=pl.lit([], pl.List(pl.String)),
    ).select(QuestionPreference.create_empty().columns)


def to_judge(preferences: pl.DataFrame) -> pl.DataFrame:
    """The pairs of a `ColdStartPreference` table that an evaluator may judge: those that teach, and ties.

    What teaches nothing for another reason (a question is missing, both are the same, a score lies outside
    the window, nothing could be scored) teaches nothing, whoever judges.
    """
    return preferences.filter(pl.col("kept") | pl.col("reason").str.starts_with(TIE))


def by_evaluator(preferences: pl.DataFrame, verdicts: pl.DataFrame, evaluator: str) -> pl.DataFrame:
    """A `QuestionPreference` table in which an evaluator has the word where it has a verdict.

    `verdicts` has a row for some of the citations of `preferences` (`ColdStartPreference`): pmid, preferred
    ("first" for the question that the cold start chose, "second" for the other, null for neither),
    `difference` (the evaluator's score of the first minus the second, null where it gives none), `reason`
    (why it prefers neither) and `fingerprints` of what a language model wrote. A pair with a verdict is one
    to learn from, whatever the margin of its MeSH scores; where the evaluator has none, the cold start's
    verdict and reason stand, and `evaluator_reason` says why it has none.
    """
    given = verdicts.select("pmid", "preferred", "difference", why="reason", written="fingerprints")
    rows = by_cold_start(preferences).join(
        given,
        on="pmid",
        how="left",
        validate="1:1",
        maintain_order="left",
    )
    judged, turned = pl.col("preferred").is_not_null(), pl.col("preferred") == "second"

    def either(verdict: str, other: str) -> list[pl.Expr]:
        return [
            pl.when(turned).then(f"{other}_{name}").otherwise(f"{verdict}_{name}").alias(f"{verdict}_{name}")
            for name in ("role", "question", "score")
        ]

    return rows.with_columns(
        *either("chosen", "rejected"),
        *either("rejected", "chosen"),
        margin=pl.when(turned).then(-pl.col("margin")).otherwise("margin"),
        kept=judged | pl.col("kept"),
        reason=pl.when(~judged).then("reason"),
        evaluator_reason="why",
        fingerprints=pl.coalesce("written", "fingerprints"),
        judge=pl.when(judged).then(pl.lit(evaluator)).otherwise("judge"),
        evaluator_margin=pl.when(turned).then(-pl.col("difference")).when(judged).then("difference"),
    ).select(QuestionPreference.create_empty().columns)
