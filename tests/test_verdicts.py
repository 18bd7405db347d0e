"""Which of two questions is preferred, and by whom: the evaluator, or the cold start."""

from typing import Any

import polars as pl

from mkailin_assets.preferences.tables import ColdStartPreference, QuestionPreference
from mkailin_assets.preferences.verdicts import by_cold_start, by_evaluator, to_judge

ABOUT = {
    "branch": "C04",
    "mode": "corrected",
    "measure": "lin",
    "ic_source": "corpus",
    "mention_weight": 2.0,
    "ic_snapshot": "MeSH 2026, 9 citations",
}


def pair(pmid: int, **changes: Any) -> dict[str, Any]:
    one = {"chosen_role": "domain", "chosen_question": "Is one?", "chosen_score": 0.75}
    other = {"rejected_role": "general", "rejected_question": "Is two?", "rejected_score": 0.5}
    return ABOUT | one | other | {"pmid": pmid, "margin": 0.25, "kept": True, "reason": None} | changes


def preferences(*rows: dict[str, Any]) -> pl.DataFrame:
    schema = ColdStartPreference.create_empty().schema
    empty = dict.fromkeys(schema)
    return pl.DataFrame([empty | row for row in rows], schema=schema)


def verdicts(*rows: tuple[int, str | None, float | None]) -> pl.DataFrame:
    schema = {"pmid": pl.Int64, "preferred": pl.String, "difference": pl.Float64}
    told = pl.DataFrame(rows, schema=schema, orient="row")
    why = pl.when(pl.col("preferred").is_null()).then(pl.lit("prefers whichever comes first"))
    return told.with_columns(reason=why, fingerprints=pl.concat_list(pl.format("text {}", "pmid")))


TIE = {"margin": 0.001, "kept": False, "reason": "tie: the scores are within 0.01"}


def test_without_an_evaluator_the_cold_start_has_the_word() -> None:
    made = QuestionPreference.validate(by_cold_start(preferences(pair(1), pair(2, **TIE))))
    assert made["judge"].to_list() == ["cold start"] * 2
    assert made["kept"].to_list() == [True, False]


def test_an_evaluator_may_turn_a_pair_round_and_every_row_says_who_judged() -> None:
    rows = preferences(pair(1), pair(2), pair(3))
    made = by_evaluator(rows, verdicts((1, "second", -1.5), (2, "first", 0.5)), "learned")
    turned, same, unjudged = QuestionPreference.validate(made).to_dicts()
    assert (turned["chosen_role"], turned["chosen_question"], turned["chosen_score"]) == (
        "general",
        "Is two?",
        0.5,
    )
    assert (turned["rejected_question"], turned["margin"], turned["evaluator_margin"]) == (
        "Is one?",
        -0.25,
        1.5,
    )
    assert (same["chosen_question"], same["margin"], same["evaluator_margin"]) == ("Is one?", 0.25, 0.5)
    assert [row["judge"] for row in (turned, same, unjudged)] == ["learned", "learned", "cold start"]
    assert unjudged["evaluator_margin"] is None
    assert [row["fingerprints"] for row in (turned, unjudged)] == [["text 1"], []]


def test_a_tie_of_the_cold_start_teaches_what_the_evaluator_prefers() -> None:
    (row,) = by_evaluator(preferences(pair(1, **TIE)), verdicts((1, "second", None)), "a judge").to_dicts()
    assert (row["kept"], row["reason"], row["chosen_question"]) == (True, None, "Is two?")


def test_where_the_evaluator_prefers_neither_the_reason_of_the_cold_start_stays() -> None:
    (row,) = by_evaluator(preferences(pair(1, **TIE)), verdicts((1, None, 0.0)), "a judge").to_dicts()
    assert (row["kept"], row["reason"], row["judge"]) == (False, TIE["reason"], "cold start")
    assert row["evaluator_reason"] == "prefers whichever comes first"


def test_only_pairs_that_teach_and_ties_are_judged() -> None:
    def dropped(pmid: int, reason: str) -> dict[str, Any]:
        return pair(pmid, kept=False, reason=reason)

    rows = preferences(
        pair(1),
        pair(2, **TIE),
        dropped(3, "only the domain generator wrote a question"),
        dropped(4, "both generators wrote the same question"),
        dropped(5, "a score lies outside 0.2 to 0.7"),
        dropped(6, "the source has no heading with a place in the hierarchy"),
    )
    assert to_judge(rows)["pmid"].to_list() == [1, 2]
