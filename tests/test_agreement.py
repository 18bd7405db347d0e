"""How far verdicts on pairs of questions can be trusted: agreement, calibration, order, and known truth."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from mkailin_assets.preferences import agreement as module
from mkailin_assets.preferences.agreement import (
    ALL,
    agreement,
    calibration,
    compare,
    credits_of,
    identification_trials,
    identified,
    position_bias,
    preferred_by_score,
)

NAN = float("nan")


def scores(*values: float | None) -> pl.Series:
    return pl.Series(values, dtype=pl.Float64)


@pytest.mark.parametrize(
    ("first", "second", "verdict", "credit"),
    [
        (0.6, 0.4, "first", 1.0),
        (0.4, 0.6, "second", 0.0),
        (0.5, 0.5, None, 0.5),
        (0.5, 0.5 + 1e-9, None, 0.5),
        (0.0, None, "first", 1.0),
        (NAN, 0.0, "second", 0.0),
        (None, NAN, None, 0.5),
    ],
)
def test_the_higher_score_is_preferred_and_any_score_to_none(
    first: float | None, second: float | None, verdict: str | None, credit: float
) -> None:
    pair = scores(first), scores(second)
    assert preferred_by_score(*pair).to_list() == [verdict]
    assert identified(*pair).to_list() == [credit]
    assert credits_of(preferred_by_score(*pair)).to_list() == [credit]


def verdicts(**preferred: list[str | None]) -> pl.DataFrame:
    rows = [{"branch": branch, "preferred": one} for branch, some in preferred.items() for one in some]
    return pl.DataFrame(rows, schema={"branch": pl.String, "preferred": pl.String})


def test_agreement_counts_decided_pairs_by_branch_and_for_all() -> None:
    table = agreement(verdicts(F03=["first"] * 4, C04=["first", "second", None, "second"], C10=[None, None]))
    rows = {row["branch"]: row for row in table.iter_rows(named=True)}
    assert list(rows) == [ALL, "C04", "C10", "F03"]
    assert [rows[ALL][name] for name in ("pairs", "decided", "agreeing")] == [10, 7, 5]
    assert rows[ALL]["agreement"] == pytest.approx(5 / 7)
    assert rows["C04"]["agreement"] == pytest.approx(1 / 3)
    assert rows["C04"]["low"] < 1 / 3 < rows["C04"]["high"]
    # Four of four are not certainty: Wilson's interval for them begins at 0.51.
    assert (rows["F03"]["low"], rows["F03"]["high"]) == (pytest.approx(0.5101, abs=1e-3), 1)


@pytest.mark.parametrize("some", [{}, {"C04": [None] * 10}], ids=["no pairs", "all ties"])
def test_where_nothing_is_decided_there_is_no_share(some: dict[str, list[str | None]]) -> None:
    table = agreement(verdicts(**some))
    assert table["decided"].sum() == 0
    assert table.select("agreement", "low", "high").null_count().row(0) == (table.height,) * 3


def drawn(certainty: float, pairs: int = 20_000) -> np.ndarray:
    """Score differences of an evaluator that believes itself `certainty` times as sure as it may be."""
    rng = np.random.default_rng(1)
    true = rng.normal(0, 1.5, pairs)
    is_right = rng.random(pairs) < 1 / (1 + np.exp(-np.abs(true)))
    return certainty * np.where(is_right, 1, -1) * np.abs(true)


def test_an_evaluator_as_sure_as_it_is_right_is_calibrated_and_a_surer_one_is_not() -> None:
    honest, boasting = calibration(drawn(1)), calibration(drawn(3))
    assert honest.expected_error is not None
    assert honest.expected_error < 0.015
    assert boasting.expected_error is not None
    assert boasting.expected_error > 0.1
    assert honest.bins["pairs"].sum() == 20_000
    assert (honest.bins["confidence"] - honest.bins["agreement"]).abs().max() < 0.03  # type: ignore[operator]
    last = boasting.bins.row(-1, named=True)
    assert last["agreement"] < last["confidence"] - 0.1


def test_calibration_is_that_of_hand_counted_bins() -> None:
    found = calibration([0.0, np.log(3), -np.log(3), np.log(3), 40.0, -40.0])
    assert found.bins["from"].to_list() == [0.5, 0.6, 0.7, 0.8, 0.9]
    assert found.bins["pairs"].to_list() == [1, 0, 3, 0, 2]
    assert found.bins["confidence"].to_list() == [0.5, None, pytest.approx(0.75), None, 1.0]
    assert found.bins["agreement"].to_list() == [0.5, None, pytest.approx(2 / 3), None, 0.5]
    assert found.expected_error == pytest.approx((0 + 3 * (0.75 - 2 / 3) + 2 * 0.5) / 6)


def test_all_ties_are_a_calibrated_coin_and_no_pairs_have_no_error() -> None:
    assert calibration([0.0] * 10).expected_error == 0
    assert calibration([]).expected_error is None


def in_orders(*pairs: tuple[str | None, str | None]) -> pl.DataFrame:
    schema = {"in_order": pl.String, "swapped": pl.String}
    return pl.DataFrame(list(pairs), schema=schema, orient="row")


def test_position_bias_is_the_share_of_verdicts_that_the_order_changes() -> None:
    same, first, last = ("second", "second"), ("first", "second"), ("second", "first")
    bias = position_bias(in_orders(same, same, same, first, last, first, same, same, (None, "first")))
    assert bias.pairs == 8
    assert bias.changed is not None
    assert bias.changed.value == pytest.approx(3 / 8)
    assert 0.1 < bias.changed.low < 3 / 8 < bias.changed.high < 0.8
    assert (bias.prefers_first, bias.prefers_second) == (2 / 8, 1 / 8)


def test_without_verdicts_in_both_orders_nothing_is_said_of_the_order() -> None:
    assert position_bias(in_orders(("first", None), (None, None))).changed is None
    assert position_bias(in_orders()).pairs == 0


def asked(branch: str, *pmids: int, **changes: Any) -> list[dict[str, Any]]:
    return [
        {"pmid": pmid, "branch": branch, "question": f"Is it {pmid}?", "context_titles": [f"On {pmid}"]}
        | changes
        for pmid in pmids
    ]


SCHEMA = {
    "pmid": pl.Int64,
    "branch": pl.String,
    "question": pl.String,
    "context_titles": pl.List(pl.String),
}
QUESTIONS = pl.DataFrame([*asked("C04", *range(1, 31)), *asked("F03", *range(101, 111))], schema=SCHEMA)


def test_each_question_stands_against_that_of_another_citation_of_its_branch() -> None:
    trials = identification_trials(QUESTIONS, seed=1)
    assert trials["pmid"].to_list() == QUESTIONS["pmid"].to_list()
    assert trials["reason"].null_count() == 40
    assert trials.filter(pl.col("pmid") == pl.col("other_pmid")).is_empty()
    assert trials.select((pl.col("pmid") < 100) == (pl.col("other_pmid") < 100)).to_series().all()
    # Every question is once the right one and once the wrong one.
    assert sorted(trials["other_pmid"]) == QUESTIONS["pmid"].to_list()
    for row in trials.iter_rows(named=True):
        assert row["own_question"] == f"Is it {row['pmid']}?"
        assert row["other_question"] == f"Is it {row['other_pmid']}?"
        assert row["other_context_titles"] == [f"On {row['other_pmid']}"]


def test_the_trials_depend_on_the_seed_and_not_on_the_order_of_rows() -> None:
    trials = identification_trials(QUESTIONS, seed=1)
    assert trials.equals(identification_trials(QUESTIONS.sample(fraction=1, shuffle=True, seed=3), seed=1))
    assert not trials.equals(identification_trials(QUESTIONS, seed=2))


def test_of_several_questions_of_a_citation_one_is_drawn_and_not_always_the_same_one() -> None:
    of_two = [
        QUESTIONS.with_columns(
            question=pl.format("Asks {} so of {}?", pl.lit(role), "pmid"), role=pl.lit(role)
        )
        for role in ("domain", "general")
    ]
    trials = identification_trials(pl.concat(of_two), seed=1)
    assert trials.equals(identification_trials(pl.concat(of_two[::-1]), seed=1))
    assert trials["pmid"].to_list() == QUESTIONS["pmid"].to_list()
    assert 8 < trials.filter(own_role="domain").height < 32


def test_a_citation_that_makes_no_trial_has_a_reason() -> None:
    rows = [
        *asked("C04", 1, 2),
        *asked("C04", 3, question=None),
        *asked("D12", 4),
        *asked("F03", 5, question="Is it so?"),
        *asked("F03", 6, question="is it  so?"),
    ]
    trials = identification_trials(pl.DataFrame(rows, schema=SCHEMA), seed=1)
    alone = "no question of its branch can stand against it"
    assert trials["reason"].to_list() == [None, None, "it has no question", alone, alone, alone]
    assert trials["other_pmid"].to_list() == [2, 1, None, None, None, None]
    assert identification_trials(QUESTIONS.clear(), seed=1).is_empty()


def test_the_same_question_of_another_citation_is_passed_over() -> None:
    rows = [*asked("C04", *range(1, 9), question="Is it so?"), *asked("C04", 9)]
    trials = identification_trials(pl.DataFrame(rows, schema=SCHEMA), seed=1)
    assert trials["other_pmid"].to_list()[:8] == [9] * 8
    assert trials["reason"].null_count() == 9


def test_a_question_that_found_the_citation_itself_does_not_stand_against_it() -> None:
    rows = asked("C04", *range(1, 6))
    for row in rows:
        row["contexts"] = [] if row["pmid"] == 4 else [{"pmid": pmid} for pmid in (1, 2, 3, 9)]
    contexts = pl.List(pl.Struct({"pmid": pl.Int64}))
    trials = identification_trials(pl.DataFrame(rows, schema=SCHEMA | {"contexts": contexts}), seed=1)
    assert trials["other_pmid"].to_list()[:3] == [4, 4, 4]
    assert trials["reason"].null_count() == 5
    assert trials.filter(pmid=1)["own_contexts"].to_list() == [
        [{"pmid": 1}, {"pmid": 2}, {"pmid": 3}, {"pmid": 9}]
    ]
    everywhere = pl.DataFrame(rows, schema=SCHEMA | {"contexts": contexts}).filter(pl.col("pmid") != 4)
    assert identification_trials(everywhere, seed=1)["other_pmid"].to_list()[:3] == [None] * 3


def test_trials_beyond_the_most_are_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_TRIALS", 25)
    rows = pl.concat([pl.DataFrame(asked("D12", 0), schema=SCHEMA), QUESTIONS])
    reasons = identification_trials(rows, seed=1)["reason"].value_counts()
    assert dict(reasons.iter_rows())["25 trials are enough"] == 15
    assert dict(reasons.iter_rows())[None] == 25


def test_an_evaluator_beats_the_cold_start_only_where_its_lead_is_sure() -> None:
    cold_start = pl.Series([1.0] * 60 + [0.0] * 40)
    much, little = pl.Series([1.0] * 80 + [0.0] * 20), pl.Series([0.0, 0.5] + [1.0] * 62 + [0.0] * 36)
    better = compare(much, cold_start)
    assert better.beats_cold_start
    assert better.lead is not None
    assert better.lead.value == pytest.approx(0.2)
    assert 0.1 < better.lead.low < 0.2 < better.lead.high < 0.3
    assert "in 80.0% of 100 trials, the cold start in 60.0%, difference +20.0 points" in str(better)
    assert str(better).endswith("the evaluator judges")
    unsure = compare(little, cold_start)
    assert unsure.lead is not None
    assert unsure.lead.value > 0
    assert not unsure.beats_cold_start
    assert str(unsure).endswith("the cold start judges")
    assert not compare(cold_start, cold_start).beats_cold_start
    assert not compare(cold_start, much).beats_cold_start


def test_without_trials_the_cold_start_judges() -> None:
    nothing = compare(scores(), scores())
    assert (nothing.trials, nothing.lead, nothing.beats_cold_start) == (0, None, False)
    assert "materialize more branches" in str(nothing)
    with pytest.raises(ValueError, match="1 trials of the evaluator, 0 of the cold start"):
        compare(scores(1), scores())
