"""Each check of what learns from preferences passes on sound tables and fails on broken ones."""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import polars as pl
import pytest

from mkailin_assets.corpus import checks as corpus
from mkailin_assets.corpus.tables import DistilledContexts, DistilledQuestion
from mkailin_assets.evaluation import checks as evaluation
from mkailin_assets.evaluation.pubmedqa import read_pubmedqa
from mkailin_assets.evaluation.tables import EvaluatorAudit
from mkailin_assets.preferences import checks as preferences
from mkailin_assets.preferences.tables import (
    ColdStartPreference,
    EvaluatorCheckpoint,
    PreferredGenerator,
    QuestionChampion,
    QuestionPreference,
)
from mkailin_assets.pubmed.tables import BranchCitation
from mkailin_assets.questions import checks as questions
from mkailin_assets.questions.tables import GeneratorCheckpoint, QuestionExemplar
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.sample import PUBMEDQA_FILE

Outcome = Callable[..., dg.AssetCheckResult]
BENCHMARKS = BenchmarkFiles(pubmedqa=str(PUBMEDQA_FILE), retrieval="")
# Does a modified Atkins diet improve quality of life in people with drug-resistant epilepsy?
ITEM = read_pubmedqa(PUBMEDQA_FILE).items[2]
ASKED = "Does amarin prevent stroke in the old?"


def table(schema: Any, *rows: dict[str, Any]) -> pl.DataFrame:
    """These rows; what a row leaves out is null."""
    return pl.DataFrame(list(rows), schema=schema.create_empty().schema)


@pytest.fixture(scope="module")
def outcome() -> Iterator[Outcome]:
    """What a check says of tables; in one context, as Dagster makes a database for each call without."""
    with dg.build_op_context() as context:

        def call(
            check: dg.AssetChecksDefinition, *tables: pl.DataFrame, **resources: Any
        ) -> dg.AssetCheckResult:
            result = check(context, *tables, **resources)
            assert isinstance(result, dg.AssetCheckResult)
            return result

        yield call


def wrong_rows(result: dg.AssetCheckResult) -> int:
    """How many rows a check found wrong; with any it must have failed, as an error."""
    rows = result.metadata["rows"].value
    assert isinstance(rows, int)
    assert result.severity is dg.AssetCheckSeverity.ERROR
    assert result.passed == (rows == 0)
    return rows


def exemplar(pmid: int, **changes: Any) -> dict[str, Any]:
    row = {"exemplar_id": f"e{pmid}", "source": "title", "pmid": pmid, "question": ASKED, "split": "train"}
    return row | {"abstract": abstract("We gave amarin or placebo for two years.")} | changes


def abstract(text: str) -> list[dict[str, Any]]:
    return [{"label": None, "category": None, "text": text}]


LEAKS = pytest.mark.parametrize(
    "leak",
    [
        {"pmid": ITEM.pmid},
        {"question": ITEM.question.upper().replace("?", " ?!")},
        {"question": "Is it so that a modified Atkins diet improve quality of life or not?"},
        {"source": "bioasq", "title": f"A reply: {ITEM.question}"},
        {"abstract": abstract(f"We asked a lot. {ITEM.question} We cannot tell.")},
    ],
    ids=["its citation", "its question", "eight words of its question", "in a title", "in a text"],
)


@LEAKS
def test_a_benchmark_item_in_an_exemplar_that_is_used_is_found(
    outcome: Outcome, leak: dict[str, Any]
) -> None:
    check, sound = questions.exemplars_hold_no_benchmark, [exemplar(1), exemplar(2)]
    assert wrong_rows(outcome(check, table(QuestionExemplar, *sound), benchmarks=BENCHMARKS)) == 0
    planted = exemplar(3) | {"exemplar_id": "planted"} | leak
    result = outcome(check, table(QuestionExemplar, *sound, planted), benchmarks=BENCHMARKS)
    assert wrong_rows(result) == 1
    assert "planted" in str(result.metadata["first"].value)


@LEAKS
def test_a_benchmark_item_in_an_exemplar_that_is_left_out_is_right(
    outcome: Outcome, leak: dict[str, Any]
) -> None:
    left_out = table(QuestionExemplar, exemplar(3) | {"reason": "gives the benchmark away"} | leak)
    assert wrong_rows(outcome(questions.exemplars_hold_no_benchmark, left_out, benchmarks=BENCHMARKS)) == 0


def test_a_question_on_both_sides_is_found_whatever_its_case_and_punctuation(outcome: Outcome) -> None:
    check = questions.no_question_is_trained_on_and_held_out
    sound = [exemplar(1), exemplar(2), exemplar(3, question="Is amarin safe?", split="held_out")]
    assert wrong_rows(outcome(check, table(QuestionExemplar, *sound))) == 0
    other_side = {"question": "does AMARIN prevent stroke, in the old", "split": "held_out"}
    assert wrong_rows(outcome(check, table(QuestionExemplar, *sound, exemplar(4, **other_side)))) == 3
    left_out = exemplar(4, **other_side, reason="it is too short")
    assert wrong_rows(outcome(check, table(QuestionExemplar, *sound, left_out))) == 0


def generator(role: str, **changes: Any) -> dict[str, Any]:
    """A generator that was tuned, is better than its start by more than chance, and asks."""
    row = {"role": role, "generator": "tuned", "asks": "tuned", "start": "agent", "documents": 40}
    lead = {"start_score": 0.25, "tuned_score": 0.5, "lead": 0.25, "lead_low": 0.125, "lead_high": 0.375}
    return row | lead | changes


NO_BETTER = {"start_score": 0.25, "tuned_score": 0.375, "lead": 0.125, "lead_low": -0.125}
GENERATORS = pytest.mark.parametrize(
    ("check", "role"),
    [
        (questions.the_domain_generator_asks_for_a_reason, "domain"),
        (questions.the_general_generator_asks_for_a_reason, "general"),
    ],
    ids=["domain", "general"],
)


@GENERATORS
@pytest.mark.parametrize(
    "changes",
    [
        {},
        NO_BETTER | {"asks": "agent", "reason": "it scores no higher"},
        {"generator": None, "asks": "agent", "lead_low": None, "reason": "there are too few exemplars"},
    ],
    ids=["the better one", "the start, for a reason", "the start, for want of another"],
)
def test_a_generator_that_asks_for_a_reason_passes(
    outcome: Outcome, check: dg.AssetChecksDefinition, role: str, changes: dict[str, Any]
) -> None:
    assert wrong_rows(outcome(check, table(GeneratorCheckpoint, generator(role, **changes)))) == 0


@GENERATORS
@pytest.mark.parametrize(
    "changes",
    [
        NO_BETTER,
        {"lead_low": 0.0},
        {"tuned_score": None, "lead": None, "lead_low": None, "lead_high": None},
        {"reason": "it scores no higher"},
        {"asks": "agent"},
        {"generator": None, "asks": "agent"},
    ],
    ids=[
        "no better",
        "no better than chance",
        "never tried",
        "against a reason",
        "the start, for no reason",
        "the start, no reason why it is alone",
    ],
)
def test_a_generator_that_asks_for_no_reason_is_found(
    outcome: Outcome, check: dg.AssetChecksDefinition, role: str, changes: dict[str, Any]
) -> None:
    assert wrong_rows(outcome(check, table(GeneratorCheckpoint, generator(role, **changes)))) == 1


@pytest.mark.parametrize(
    ("lead_low", "trials", "judges", "wrong"),
    [
        (0.125, 40, True, 0),
        (0.125, 5, False, 0),
        (-0.125, 40, False, 0),
        (0.0, 40, False, 0),
        (None, 0, False, 0),
        (-0.125, 40, True, 1),
        (0.0, 40, True, 1),
        (None, 0, True, 1),
        (0.125, 5, True, 1),
        (0.125, 40, False, 1),
    ],
)
def test_an_evaluator_that_judges_though_it_is_no_better_or_does_not_though_it_is_is_found(
    outcome: Outcome, lead_low: float | None, trials: int, judges: bool, wrong: int
) -> None:
    row = {"kind": "reward", "evaluator": "e", "trials": trials, "lead_low": lead_low, "judges": judges}
    check = preferences.an_evaluator_judges_only_where_it_beats_the_cold_start
    assert wrong_rows(outcome(check, table(EvaluatorCheckpoint, row))) == wrong


def preference(pmid: int, chosen: str | None, rejected: str | None, **changes: Any) -> dict[str, Any]:
    row = {"pmid": pmid, "branch": "C04", "chosen_question": chosen, "rejected_question": rejected}
    return row | {"kept": True} | changes


@pytest.mark.parametrize(
    ("now", "wrong"),
    [
        ([preference(1, "A?", "B?"), preference(2, "C?", None)], 0),
        ([preference(1, "B?", "A?"), preference(2, None, "C?")], 0),
        ([preference(1, "A?", "D?"), preference(2, "C?", None)], 1),
        ([preference(1, "A?", None), preference(2, "C?", None)], 1),
        ([preference(1, "A?", "B?"), preference(2, None, None)], 1),
        ([preference(1, "A?", "A?"), preference(2, "C?", "C?")], 2),
        ([preference(1, "A?", "B?")], 1),
        ([preference(1, "A?", "B?"), preference(2, "C?", None), preference(3, "E?", "F?")], 1),
        ([preference(1, "A?", "B?"), preference(2, "C?", None), preference(3, None, None)], 1),
    ],
    ids=[
        "as before",
        "turned",
        "another question",
        "a question lost",
        "the only question lost",
        "one question twice",
        "a citation lost",
        "a citation from nowhere",
        "a citation from nowhere, without questions",
    ],
)
def test_a_pair_that_is_not_the_one_of_the_cold_start_is_found(
    outcome: Outcome, now: list[dict[str, Any]], wrong: int
) -> None:
    before = table(ColdStartPreference, preference(1, "A?", "B?"), preference(2, "C?", None))
    check = preferences.preferences_are_between_the_same_two_questions
    assert wrong_rows(outcome(check, table(QuestionPreference, *now), before)) == wrong


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        (preference(1, "A?", "B?"), 0),
        (preference(1, "A?", None, kept=False, reason="one question is missing"), 0),
        (preference(1, "A?", "B?", kept=False, reason="tie"), 0),
        (preference(1, "A?", None), 1),
        (preference(1, None, "B?"), 1),
        (preference(1, "A?", "B?", reason="tie"), 1),
        (preference(1, "A?", "B?", kept=False), 1),
    ],
    ids=[
        "kept",
        "dropped, a question is missing",
        "dropped, a tie",
        "kept without a rejected question",
        "kept without a chosen question",
        "kept against a reason",
        "dropped for no reason",
    ],
)
def test_a_preference_that_cannot_teach_is_found(outcome: Outcome, row: dict[str, Any], wrong: int) -> None:
    check = preferences.preferences_that_teach_have_two_questions
    assert wrong_rows(outcome(check, table(QuestionPreference, row))) == wrong


def of_round(number: int, lead_low: float | None, is_current: bool = False) -> dict[str, Any]:
    """A round of the loop; the later, the higher its score."""
    row = {"round": number, "generator": f"round {number}", "documents": 40, "is_current": is_current}
    if lead_low is None:
        return row
    score = 0.25 + number / 8
    return row | {"score": score, "lead": number / 8, "lead_low": lead_low, "lead_high": 0.75}


START, CURRENT_START = of_round(0, None), of_round(0, None, is_current=True)


@pytest.mark.parametrize(
    ("rounds", "number"),
    [
        ([START, of_round(1, 0.0625, is_current=True)], 1),
        ([START, of_round(1, 0.0625, is_current=True), of_round(2, -0.25)], 1),
        ([START, of_round(1, -0.25), of_round(2, 0.125, is_current=True)], 2),
    ],
    ids=["one round", "a later one has a higher score, by chance", "the second round"],
)
def test_a_preferred_generator_that_beats_its_start_passes(
    outcome: Outcome, rounds: list[Any], number: int
) -> None:
    result = outcome(preferences.preferred_generator_beats_its_start, table(PreferredGenerator, *rounds))
    assert result.passed
    assert f"round {number}:" in str(result.description)


@pytest.mark.parametrize(
    "rounds",
    [
        [],
        [CURRENT_START],
        [CURRENT_START, of_round(1, None)],
        [CURRENT_START, of_round(1, -0.25)],
        [CURRENT_START, of_round(1, -0.25), of_round(2, 0.0)],
        [CURRENT_START, of_round(1, 0.0625)],
        [START, of_round(1, 0.0625)],
        [START, of_round(1, -0.25, is_current=True)],
        [START, of_round(1, 0.0625), of_round(2, -0.25, is_current=True)],
        [START, of_round(1, None, is_current=True)],
    ],
    ids=[
        "nothing was optimized",
        "the start alone",
        "never tried",
        "no better",
        "no round better than chance",
        "too few citations to tell",
        "none is current",
        "current, and no better",
        "current, and no better, beside one that is",
        "current, and never tried",
    ],
)
def test_a_preferred_generator_that_does_not_beat_its_start_is_warned_of(
    outcome: Outcome, rounds: list[Any]
) -> None:
    result = outcome(preferences.preferred_generator_beats_its_start, table(PreferredGenerator, *rounds))
    assert not result.passed
    assert result.severity is dg.AssetCheckSeverity.WARN


def contestant(name: str, lead_low: float | None = None, is_champion: bool = False) -> dict[str, Any]:
    """A contestant; all but best of two were trained, and have a folder."""
    trained = {"uri": f"generators/{name}", "lead": 0.125, "lead_low": lead_low, "lead_high": 0.5}
    row = {"contestant": name, "documents": 40, "questions": 40, "score": 0.5, "is_champion": is_champion}
    return row if name == "best of two" else row | trained


TWO = contestant("best of two")
TWO_ASK = contestant("best of two", is_champion=True)


@pytest.mark.parametrize(
    "rows",
    [
        [TWO_ASK],
        [TWO_ASK, contestant("tuned", -0.25)],
        [contestant("tuned", 0.0625, is_champion=True), TWO, contestant("preferred", -0.25)],
    ],
    ids=["best of two alone", "best of two", "a trained generator"],
)
def test_one_champion_that_is_better_than_two_passes(outcome: Outcome, rows: list[dict[str, Any]]) -> None:
    check = preferences.there_is_one_champion_and_it_is_better_than_two
    assert wrong_rows(outcome(check, table(QuestionChampion, *rows))) == 0


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [TWO, contestant("tuned", 0.0625)],
        [TWO_ASK, contestant("tuned", 0.0625, is_champion=True)],
        [TWO, contestant("tuned", 0.0, is_champion=True)],
        [TWO, contestant("tuned", -0.25, is_champion=True), contestant("preferred", 0.0625)],
        [TWO, contestant("tuned", None, is_champion=True)],
    ],
    ids=[
        "no contestant",
        "no champion",
        "two champions",
        "no better than chance",
        "no better",
        "never tried",
    ],
)
def test_a_champion_that_is_missing_double_or_no_better_than_two_is_found(
    outcome: Outcome, rows: list[dict[str, Any]]
) -> None:
    result = outcome(
        preferences.there_is_one_champion_and_it_is_better_than_two, table(QuestionChampion, *rows)
    )
    assert not result.passed
    assert result.severity is dg.AssetCheckSeverity.ERROR


@pytest.mark.parametrize(
    ("second", "wrong"),
    [
        ([{"pmid": 2, "failure": "no question to answer"}], 0),
        ([], 1),
        ([{"pmid": 2}], 1),
        ([{"pmid": 2, "question": "B?", "failure": "no question to answer"}], 1),
        ([{"pmid": 3, "question": "B?"}], 1),
    ],
    ids=["a reason", "no row", "neither", "a question and a reason", "of another citation"],
)
def test_a_citation_without_question_and_reason_is_found(
    outcome: Outcome, second: list[dict[str, Any]], wrong: int
) -> None:
    citations = table(BranchCitation, {"pmid": 1}, {"pmid": 2})
    distilled = table(DistilledQuestion, {"pmid": 1, "question": "A?"}, *second)
    check = corpus.every_citation_has_a_question_or_a_reason
    assert wrong_rows(outcome(check, distilled, citations)) == wrong


def found(pmid: int, question: str | None, *cited: int) -> dict[str, Any]:
    contexts = [{"rank": rank, "pmid": of, "heading_uis": []} for rank, of in enumerate(cited, start=1)]
    return {"pmid": pmid, "question": question, "heading_uis": [], "contexts": contexts}


@pytest.mark.parametrize(
    ("contexts", "wrong"),
    [
        ([found(1, "A?", 5, 6), found(2, None)], 0),
        ([found(1, "A?"), found(2, None)], 0),
        ([found(1, "A?", 5, 6)], 1),
        ([found(2, None)], 1),
        ([found(1, "B?", 5, 6), found(2, None)], 2),
        ([found(1, None), found(2, "A?", 5, 6)], 4),
        ([found(1, "A?", 5, 6), found(2, None), found(9, "A?", 5)], 1),
        ([found(1, "A?", 5, 1), found(2, None)], 1),
    ],
    ids=[
        "of the questions",
        "none was found",
        "no row where there is no question",
        "no row of a question",
        "of another question",
        "of another citation",
        "of a citation that was not distilled",
        "of its own citation",
    ],
)
def test_contexts_that_are_not_of_a_distilled_question_are_found(
    outcome: Outcome, contexts: list[dict[str, Any]], wrong: int
) -> None:
    distilled = table(
        DistilledQuestion, {"pmid": 1, "question": "A?"}, {"pmid": 2, "failure": "no question to answer"}
    )
    check = corpus.contexts_are_of_the_distilled_questions
    assert wrong_rows(outcome(check, table(DistilledContexts, *contexts), distilled)) == wrong


def audited(accuracy: float | None, **changes: Any) -> dict[str, Any]:
    """A judge's share, with an interval around it; the cold start in use unless a test says otherwise."""
    row = {"judge": "in use", "source": "pubmedqa", "distractor": "other branch", "trials": 100}
    ends = {} if accuracy is None else {"low": accuracy - 0.0625, "high": accuracy + 0.0625}
    return row | {"accuracy": accuracy} | ends | changes


@pytest.mark.parametrize(
    "rows",
    [
        [audited(0.8)],
        [audited(0.9), audited(0.5, distractor="same branch"), audited(0.3, judge="another measure")],
        [audited(0.9), audited(0.95, source="title")],
        [audited(0.9), audited(None, source="title", trials=0)],
    ],
    ids=["as few as may be", "only the judge in use counts", "of both sources", "one source has no trials"],
)
def test_an_evaluator_that_tells_real_questions_passes(outcome: Outcome, rows: list[dict[str, Any]]) -> None:
    assert outcome(evaluation.the_evaluators_tell_real_questions, table(EvaluatorAudit, *rows)).passed


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [audited(None, trials=0)],
        [audited(0.79)],
        [audited(0.5), audited(0.9, judge="another measure")],
        [audited(0.9), audited(0.5, source="title"), audited(0.9, source="title", judge="another measure")],
        [audited(0.9, distractor="same branch")],
    ],
    ids=[
        "no audit",
        "no trials",
        "too few",
        "only a judge not in use does",
        "of one source only",
        "no trial with another branch",
    ],
)
def test_an_evaluator_that_does_not_tell_real_questions_is_warned_of(
    outcome: Outcome, rows: list[dict[str, Any]]
) -> None:
    result = outcome(evaluation.the_evaluators_tell_real_questions, table(EvaluatorAudit, *rows))
    assert not result.passed
    assert result.severity is dg.AssetCheckSeverity.WARN


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        (audited(0.5), 0),
        (audited(1.0, high=1.0), 0),
        (audited(0.5, low=0.5, high=0.5), 0),
        (audited(None, trials=0), 0),
        (audited(0.5, low=0.5625, high=0.75), 1),
        (audited(0.5, low=0.25, high=0.4375), 1),
        (audited(0.5, low=0.75, high=0.25), 1),
        (audited(float("nan"), low=0.25, high=0.75), 1),
    ],
    ids=["within", "at the end", "at both ends", "no trials", "below", "above", "ends turned", "no number"],
)
def test_an_audited_share_outside_its_interval_is_found(
    outcome: Outcome, row: dict[str, Any], wrong: int
) -> None:
    both = table(EvaluatorAudit, audited(0.75), row)
    assert wrong_rows(outcome(evaluation.audited_shares_lie_in_their_intervals, both)) == wrong
