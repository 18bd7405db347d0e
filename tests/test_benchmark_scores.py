"""Answers become scores: baselines, cohorts, accuracy, macro-F1, bits a byte, and who is ahead of whom."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from benchmark_answers import WITH_ABSTRACT, answer, answers, asked_in, choices, item, items, texts

from mkailin_assets import intervals
from mkailin_assets.evaluation.baselines import baselines
from mkailin_assets.evaluation.cohorts import MESH, PERIODS, cohorts
from mkailin_assets.evaluation.items import measured_items
from mkailin_assets.evaluation.scores import comparisons, results
from mkailin_assets.evaluation.tables import BenchmarkAnswer, BenchmarkComparison, BenchmarkResult
from mkailin_assets.intervals import macro_f1, macro_f1_difference, mcnemar, ratio, share
from mkailin_resources.benchmarks import BenchmarkFiles

YES, NO, MAYBE = "yes", "no", "maybe"


def scored(table: pl.DataFrame, known: pl.DataFrame | None = None, **other: Any) -> pl.DataFrame:
    return BenchmarkResult.validate(results(table, asked_in(table) if known is None else known, **other))


def compared(table: pl.DataFrame, known: pl.DataFrame | None = None, **other: Any) -> pl.DataFrame:
    known = asked_in(table) if known is None else known
    return BenchmarkComparison.validate(comparisons(table, known, **other))


def only(table: pl.DataFrame, **where: Any) -> dict[str, Any]:
    return table.filter(**where).row(0, named=True) if table.filter(**where).height == 1 else {}


def guesses(seed: int, size: int, kept: float) -> tuple[list[str], list[str]]:
    """Right answers, and answers that keep a share of them."""
    rng = np.random.default_rng(seed)
    gold = rng.choice([YES, NO, MAYBE], size=size, p=[0.55, 0.35, 0.1])
    return list(gold), list(np.where(rng.random(size) < kept, gold, rng.choice([YES, NO, MAYBE], size=size)))


# Baselines


def test_a_random_answer_depends_on_its_item_alone() -> None:
    table = answers(*choices([YES] * 300, [YES] * 300))
    drawn = baselines(table, asked_in(table)).filter(model="random")
    counts = dict(drawn["answer"].value_counts().iter_rows())
    assert set(counts) == {YES, NO, MAYBE}
    assert all(75 < count < 125 for count in counts.values())
    again = baselines(table.tail(10), asked_in(table)).filter(model="random")
    assert again["answer"].to_list() == drawn["answer"].tail(10).to_list()
    assert BenchmarkAnswer.validate(drawn)["model_fingerprint"].null_count() == 300


@pytest.mark.parametrize(
    ("gold", "frequent"), [([YES, NO, NO], NO), ([YES, NO, NO, YES], NO), ([MAYBE, YES], MAYBE)]
)
def test_the_most_frequent_answer_is_the_first_of_equals(gold: list[str], frequent: str) -> None:
    table = answers(*choices(gold, gold), *choices(gold, gold, model="base"))
    majority = baselines(table, asked_in(table)).filter(model="majority")
    assert majority["answer"].to_list() == [frequent] * len(gold)


def test_letters_are_drawn_for_letters_and_no_text_is_guessed() -> None:
    table = answers(*choices(list("ABCD") * 10, list("AAAA") * 10, task="medqa"), *texts([1.0], 10, "base"))
    made = baselines(table, asked_in(table))
    assert set(made["task"]) == {"medqa"}
    assert set(made.filter(model="random")["answer"]) == set("ABCD")


def test_a_person_answers_only_what_the_file_says_and_only_with_the_abstract() -> None:
    rows = [*choices([YES, NO], [YES, NO]), *choices([YES, NO], [YES, NO], task="pubmedqa_question_only")]
    made = baselines(answers(*rows), items(item("1", human=NO), item("2", human=None)))
    [person] = made.filter(model="human").iter_rows(named=True)
    assert (person["task"], person["item"], person["answer"]) == (WITH_ABSTRACT, "1", NO)
    assert person["right"] is False


def test_the_baselines_of_the_real_benchmark_are_as_its_data_has_them(real_data: Path) -> None:
    file = real_data / "pubmedqa" / "pqal_dev500.json"
    known = measured_items(BenchmarkFiles(pubmedqa=str(file))).table
    asked = known.select("item", "gold").iter_rows()
    rows = [answer(name, gold, gold, benchmark="pqal_dev500") for name, gold in asked]
    found = scored(baselines(answers(*rows), known), known).filter(cohort="all")
    values = {(row["model"], row["metric"]): row["value"] for row in found.iter_rows(named=True)}
    assert values["majority", "accuracy"] == pytest.approx(0.552)
    assert values["majority", "macro_f1"] == pytest.approx(2 * 276 / (500 + 276) / 3)
    assert values["human", "accuracy"] == pytest.approx(0.782)
    assert values["human", "macro_f1"] == pytest.approx(0.694557, abs=1e-6)


# Cohorts


def cohorts_of(**columns: Any) -> set[str]:
    return set(cohorts(items(item("1", **columns)))["cohort"])


def test_a_heading_is_matched_whole_and_as_it_is_written() -> None:
    assert cohorts_of(headings=["Female", "Middle Aged", "Humans"]) == {"Female", "Middle Aged"}
    assert cohorts_of(headings=["Male"]) == {"Male"}
    assert cohorts_of(headings=["Aged, 80 and over", "Young Adult", "female", "Males"]) == set()
    assert cohorts_of(headings=list(MESH)) == set(MESH)


def test_periods_do_not_overlap_and_leave_the_years_between_none() -> None:
    assert [period for year in range(1980, 2027) for period in cohorts_of(year=year)] == [
        f"{first}-{last}" for first, last in PERIODS for _ in range(first, last + 1)
    ]
    assert cohorts_of(year=2000) == {"1989-2000"}
    assert cohorts_of(year=2001) == {"2001-2004"}
    assert cohorts_of(year=1988) == cohorts_of(year=2018) == cohorts_of(year=None) == set()


def test_only_pubmedqa_has_cohorts() -> None:
    assert cohorts(items(item("1", kind="bioasq", year=2010, headings=["Female"]))).is_empty()


def test_a_cohort_has_a_score_from_ten_items_on() -> None:
    table = answers(*choices([YES] * 20, [YES] * 15 + [NO] * 5))
    headed = [["Male"]] * 10 + [["Female", "Aged"]] * 9
    known = items(
        *(item(str(place), year=2010, headings=of) for place, of in enumerate(headed, 1)),
        item("20", headings=["Female"]),
    )
    found = scored(table, known).filter(metric="accuracy")
    sizes = {cohort: (n, value) for cohort, n, value in found.select("cohort", "items", "value").iter_rows()}
    assert sizes == {
        "all": (20, 0.75),
        "2010-2011": (19, pytest.approx(15 / 19)),
        "Female": (10, 0.5),
        "Male": (10, 1.0),
    }
    assert set(compared(table, known, pairs=[("finetuned", "finetuned")])["cohort"]) == set(sizes)


# Scores


def test_accuracy_is_the_share_of_right_answers_with_wilsons_interval() -> None:
    found = only(scored(answers(*choices(list("ABCD"), list("ABCC"), task="medqa"))), metric="accuracy")
    assert (found["items"], found["failures"], found["value"]) == (4, 0, 0.75)
    assert (found["low"], found["high"]) == pytest.approx((0.30064, 0.95441), abs=1e-5)


def test_letters_have_no_f1() -> None:
    assert scored(answers(*choices(list("AB"), list("AB"), task="medqa")))["metric"].to_list() == ["accuracy"]


def test_a_missing_answer_is_wrong_and_nobodys_false_find() -> None:
    found = scored(answers(*choices([YES, YES, NO, MAYBE], [YES, None, NO, YES])))
    # yes: found 1 of 2 and once too often; no: found; maybe: missed.
    expected = {"accuracy": 0.5, "macro_f1": (2 / 4 + 2 / 2 + 0) / 3}
    assert dict(found.select("metric", "value").iter_rows()) == pytest.approx(expected)
    assert found["failures"].to_list() == [1, 1]
    silent = scored(answers(answer("1", YES, None, right=None)))
    assert silent.select("metric", "value").rows() == [("accuracy", 0), ("macro_f1", 0)]
    guessed = scored(answers(*choices([YES, YES, NO, MAYBE], [YES, NO, NO, YES]))).filter(metric="macro_f1")
    assert guessed["value"][0] < expected["macro_f1"]


@pytest.mark.parametrize("seed", range(3))
def test_f1_without_an_answer_is_that_of_scikit_learn(seed: int) -> None:
    from sklearn.metrics import f1_score

    gold, said = guesses(seed, 60, 0.6)
    answered = [None if place % 7 == 0 else one for place, one in enumerate(said)]
    told = [one or "nothing" for one in answered]
    expected = f1_score(gold, told, labels=[YES, NO, MAYBE], average="macro", zero_division=0)
    assert macro_f1(gold, answered).value == pytest.approx(expected)


@pytest.mark.parametrize("gold", [[YES, NO], [YES, MAYBE, NO]])
def test_a_label_that_nobody_uses_has_no_f1(gold: list[str]) -> None:
    from sklearn.metrics import f1_score

    right, other = gold * 20, [YES, *gold[1:]] * 10 + [NO] * (10 * len(gold))
    assert macro_f1(right, right).value == 1
    assert macro_f1(right, other).value == pytest.approx(f1_score(right, other, average="macro"))
    lead = macro_f1_difference(right, right, other)
    assert lead.value == pytest.approx(1 - macro_f1(right, other).value)
    assert lead.low <= lead.value <= lead.high


def test_bioasq_has_the_mean_f1_of_yes_and_no() -> None:
    table = answers(*choices([YES, YES, NO], [YES, NO, NO], task="bioasq_yesno"))
    found = only(scored(table), metric="macro_f1")
    assert found["value"] == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_bits_a_byte_are_nats_over_bytes_of_all_texts_that_could_be_read() -> None:
    [found] = scored(answers(*texts([70.0, 30.0, None], 50, "base"))).iter_rows(named=True)
    assert (found["metric"], found["items"], found["failures"]) == ("bits_per_byte", 3, 1)
    assert found["value"] == pytest.approx(100 / math.log(2) / 100)
    assert (found["low"], found["high"]) == pytest.approx((60 / math.log(2) / 100, 140 / math.log(2) / 100))


def test_who_reads_no_text_has_no_score_and_who_answers_nothing_has_0() -> None:
    assert scored(answers(*texts([None], 50, "base"))).is_empty()
    silent = only(scored(answers(*choices([YES, NO], [None, None]))), metric="accuracy")
    assert (silent["failures"], silent["value"]) == (2, 0.0)


def test_the_subjects_of_mmlu_are_scored_together_for_who_was_asked_all() -> None:
    anatomy = {"benchmark": "mmlu/anatomy_test", "task": "mmlu_anatomy"}
    biology = {"benchmark": "mmlu/biology_test", "task": "mmlu_biology"}
    table = answers(
        *choices(list("AB"), list("AA"), **anatomy),
        *choices(list("CDA"), list("CDA"), **biology),
        *choices(list("AB"), list("AB"), **anatomy, model="base"),
    )
    together = scored(table).filter(task="mmlu")
    assert together.select("benchmark", "model", "items", "value").rows() == [("mmlu", "finetuned", 5, 0.8)]
    assert set(scored(table)["task"]) == {"mmlu", "mmlu_anatomy", "mmlu_biology"}
    alone = answers(*choices(list("AB"), list("AA"), **anatomy))
    assert set(scored(alone)["task"]) == {"mmlu_anatomy"}


def test_a_contaminated_benchmark_has_a_score_without_the_items_given_away() -> None:
    gold = [YES, NO, NO]
    table = answers(
        *choices(gold, [YES, NO, YES]),
        *choices(gold, [NO] * 3, model="base"),
        *choices([YES, NO], [YES, YES], benchmark="other"),
    )
    leaks = pl.DataFrame({"benchmark": ["pqa", "pqa"], "item": ["1", "1"]})
    found = scored(table, leaks=leaks).filter(metric="accuracy", model="finetuned")
    assert found.select("benchmark", "cohort", "items", "value").rows() == [
        ("other", "all", 2, 0.5),
        ("pqa", "all", 3, pytest.approx(2 / 3)),
        ("pqa", "clean", 2, 0.5),
    ]
    leads = compared(table, leaks=leaks).filter(metric="accuracy")
    assert dict(leads.select("cohort", "difference").iter_rows()) == {"all": pytest.approx(0), "clean": -0.5}
    assert "clean" not in scored(table, leaks=leaks.clear())["cohort"]


# Comparisons


@pytest.mark.parametrize("seed", range(4))
def test_a_model_is_no_better_than_itself(seed: int) -> None:
    gold, said = guesses(seed, 40 + seed, 0.5)
    table = answers(*choices(gold, [None, *said[1:]]), *texts([4.0, 9.0, 2.0], 10, "finetuned"))
    for row in compared(table, pairs=[("finetuned", "finetuned")]).iter_rows(named=True):
        assert (row["difference"], row["low"], row["high"], row["better"]) == (0, 0, 0, None)
        assert row["mcnemar"] == (1.0 if row["metric"] == "accuracy" else None)


def test_mcnemars_p_is_that_of_the_binomial() -> None:
    # 10 and 2 of 12: 2 (1 + 12 + 66) / 2^12.
    assert mcnemar(10, 2) == pytest.approx(2 * 79 / 4096)
    assert mcnemar(2, 10) == mcnemar(10, 2)
    assert mcnemar(0, 0) == 1.0


def test_a_lead_is_the_difference_of_the_scores_on_the_same_items() -> None:
    gold, worse = guesses(5, 200, 0.2)
    better = [right if place % 4 else one for place, (right, one) in enumerate(zip(gold, worse, strict=True))]
    table = answers(*choices(gold, better), *choices(gold, worse, model="base"))
    found, leads = scored(table), compared(table)
    for metric in ("accuracy", "macro_f1"):
        ours, theirs = (only(found, model=model, metric=metric)["value"] for model in ("finetuned", "base"))
        lead = only(leads, metric=metric)
        assert lead["difference"] == pytest.approx(ours - theirs)
        assert 0 < lead["low"] < lead["difference"] < lead["high"]
        assert lead["better"] is True
    pairs = list(zip(gold, better, worse, strict=True))
    gained = sum(right == one != other for right, one, other in pairs)
    assert only(leads, metric="accuracy")["mcnemar"] == pytest.approx(2 * 0.5**gained)
    [swapped] = compared(table, pairs=[("base", "finetuned")]).filter(metric="accuracy").iter_rows(named=True)
    assert swapped["better"] is False


def test_fewer_bits_are_better() -> None:
    table = answers(*texts([5.0, 6.0, 7.0], 10, "base"), *texts([4.0, 5.0, 6.0], 10, "pretrained"))
    [lead] = compared(table).iter_rows(named=True)
    assert (lead["model"], lead["other"], lead["mcnemar"]) == ("pretrained", "base", None)
    assert lead["better"] is True
    assert lead["difference"] == pytest.approx(-0.1 / math.log(2))
    [lead] = compared(table, pairs=[("base", "pretrained")]).iter_rows(named=True)
    assert lead["better"] is False


def test_only_shared_items_count_in_a_comparison() -> None:
    table = answers(*choices([YES] * 4, [YES] * 4), *choices([YES] * 3, [NO, YES, YES], model="base"))
    lead = only(compared(table), metric="accuracy")
    assert (lead["items"], lead["difference"]) == (3, pytest.approx(1 / 3))


def test_the_most_frequent_answer_stands_against_both_forms() -> None:
    gold = [YES, YES, NO]
    table = answers(*choices(gold, gold), *choices(gold, [YES, NO, NO], form="generation"))
    leads = compared(pl.concat([table, baselines(table, asked_in(table))])).filter(metric="accuracy")
    assert leads.select("form", "model", "other", "difference").rows() == [
        ("likelihood", "finetuned", "majority", pytest.approx(1 / 3)),
        ("generation", "finetuned", "majority", 0),
    ]


# How sure


def test_draws_in_parts_are_the_draws_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, wholes = np.random.default_rng(0).gamma(2.0, size=(2, 31))
    whole = ratio(parts, wholes)
    monkeypatch.setattr(intervals, "_DRAWN_AT_ONCE", 700)
    assert ratio(parts, wholes) == whole


def test_the_interval_of_a_ratio_is_that_of_drawing_items() -> None:
    rng = np.random.default_rng(1)
    parts, wholes = rng.gamma(3.0, size=80), rng.gamma(5.0, size=80)
    drawn = rng.integers(80, size=(4000, 80))
    low, high = np.quantile(parts[drawn].sum(1) / wholes[drawn].sum(1), [0.025, 0.975])
    found = ratio(parts, wholes)
    assert found.value == pytest.approx(parts.sum() / wholes.sum())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)


def test_a_share_has_wilsons_interval() -> None:
    found = share(7, 10)
    assert (found.low, found.high) == pytest.approx((0.396778, 0.892209), abs=1e-5)
