"""The question of each citation that enters the corpus: the preferred candidate, or the champion's own."""

from pathlib import Path
from typing import Any

import polars as pl
from asking import Writer, asking, says

from mkailin_assets.corpus import distilled
from mkailin_assets.corpus.tables import DistilledContexts, DistilledQuestion
from mkailin_assets.preferences.tables import QuestionPreference
from mkailin_assets.pubmed.tables import BranchCitation
from mkailin_assets.questions.tables import CandidateContexts, CandidateQuestion
from mkailin_resources.models.interface import GenerationRequest, GenerationResult

OWN = "Does the champion ask?"


def table(schema: Any, *rows: dict[str, Any]) -> pl.DataFrame:
    empty = dict.fromkeys(schema.create_empty().columns)
    return pl.DataFrame([empty | row for row in rows], schema=schema.create_empty().schema)


def citation(pmid: int) -> dict[str, Any]:
    text = {"label": None, "category": None, "text": f"Abstract of {pmid}."}
    made = {"pubmed_file": "f", "content_hash": f"h{pmid}", "headings": [], "publication_types": []}
    return made | {"pmid": pmid, "branch": "C04", "title": f"Paper {pmid}", "abstract": [text]}


def candidate(pmid: int, role: str, **changes: Any) -> dict[str, Any]:
    asked = {"pmid": pmid, "role": role, "branch": "C04", "question": f"Does {role} ask of {pmid}?"}
    return asked | {"generator": role, "prompt_version": "1", "fingerprint": f"{role} {pmid}"} | changes


def context(pmid: int, role: str | None, cited: int, **changes: Any) -> dict[str, Any]:
    found = {"rank": 1, "pmid": cited, "content_hash": "h", "score": 1.0, "found_by": "both"}
    row = {"pmid": pmid, "role": role, "branch": "C04", "question": f"Does {role} ask of {pmid}?"}
    return (
        row | {"heading_uis": ["D1"], "contexts": [found | {"heading_uis": []}], "source_rank": 2} | changes
    )


CITATIONS = table(BranchCitation, citation(3), citation(1), citation(2))
CANDIDATES = table(
    CandidateQuestion,
    *(candidate(pmid, role) for pmid in (3, 1) for role in ("domain", "general")),
    candidate(2, "domain", question=None, failure="no verb"),
    candidate(2, "general", question=None, failure="no claim"),
)
PREFERENCES = table(
    QuestionPreference,
    {"pmid": 3, "judge": "cold start", "chosen_role": "domain", "chosen_question": "Does domain ask of 3?"}
    | {"chosen_score": 0.5, "margin": 0.25},
    {"pmid": 1, "judge": "an evaluator", "chosen_role": "general"}
    | {"chosen_question": "Does general ask of 1?", "chosen_score": 0.75, "margin": -0.125},
    {"pmid": 2, "judge": "cold start"},
)


def best_of_two() -> pl.DataFrame:
    made = distilled.best_of_two(PREFERENCES, CANDIDATES, CITATIONS)
    return DistilledQuestion.validate(made)


def test_best_of_two_takes_the_preferred_candidate_and_says_who_asked_and_what_chose() -> None:
    rows = {row["pmid"]: row for row in best_of_two().to_dicts()}
    assert list(rows) == [3, 1, 2]
    first = rows[3]
    assert (first["question"], first["role"], first["generator"]) == (
        "Does domain ask of 3?",
        "domain",
        "domain",
    )
    assert (first["chosen_by"], first["fingerprint"], first["content_hash"]) == (
        "cold start",
        "domain 3",
        "h3",
    )
    assert (rows[1]["role"], rows[1]["chosen_by"]) == ("general", "an evaluator")


def test_a_citation_without_a_question_keeps_the_reasons_of_both_generators() -> None:
    assert best_of_two().filter(pmid=2)["failure"].to_list() == ["no question to answer: no verb; no claim"]


def test_a_citation_without_preference_says_what_to_materialize() -> None:
    made = distilled.best_of_two(PREFERENCES.filter(pmid=3), CANDIDATES, CITATIONS)
    assert made.filter(pmid=1)["failure"].to_list() == [distilled.NO_PREFERENCE]


def test_a_champion_asks_and_where_it_cannot_the_better_candidate_stays(tmp_path: Path) -> None:
    def write(request: GenerationRequest) -> GenerationResult:
        return GenerationResult(request.key, text=OWN if request.key == "3" else "No question.")

    made = distilled.by_champion(
        best_of_two(), CITATIONS, Writer(write, name="champ"), "C04", asking(tmp_path)
    )
    rows = {row["pmid"]: row for row in DistilledQuestion.validate(made).to_dicts()}
    assert list(rows) == [3, 1, 2]
    assert [rows[3][name] for name in ("question", "role", "chosen_by", "generator")] == [
        OWN,
        "champion",
        "champion",
        "champ",
    ]
    assert (rows[1]["question"], rows[1]["chosen_by"]) == ("Does general ask of 1?", "an evaluator")
    assert rows[1]["refused_text"] == "No question."
    assert rows[2]["failure"] == "no question to answer: no verb; no claim"


def test_contexts_of_a_candidate_are_those_found_before_with_its_preferred_score() -> None:
    found = table(
        CandidateContexts,
        *(context(pmid, role, pmid * 10) for pmid in (3, 1) for role in ("domain", "general")),
        context(2, "domain", 0, question=None, contexts=[], failure="no verb"),
    )
    scores = distilled.preferred_scores(PREFERENCES)
    made = distilled.distilled_contexts(best_of_two(), found, distilled.NOTHING_FOUND, scores)
    rows = {row["pmid"]: row for row in DistilledContexts.validate(made).to_dicts()}
    assert list(rows) == [3, 1, 2]
    assert [one["pmid"] for one in rows[3]["contexts"]] == [30]
    assert (rows[3]["mesh_score"], rows[3]["mesh_margin"], rows[3]["source_rank"]) == (0.5, 0.25, 2)
    assert (rows[1]["role"], rows[1]["mesh_score"], rows[1]["mesh_margin"]) == ("general", 0.75, -0.125)
    assert (rows[2]["contexts"], rows[2]["mesh_score"]) == ([], None)
    assert "no question to answer" in rows[2]["failure"]


def test_contexts_of_the_champions_own_question_are_found_and_scored(tmp_path: Path) -> None:
    questions = distilled.by_champion(
        best_of_two(), CITATIONS.filter(pmid=3), Writer(says(OWN)), "C04", asking(tmp_path)
    )
    assert distilled.written_by_champion(questions)["pmid"].to_list() == [3]
    candidates = table(CandidateContexts, context(3, "domain", 30))
    own = table(CandidateContexts, context(3, "champion", 77, question=OWN))
    scores = pl.concat(
        [
            distilled.preferred_scores(PREFERENCES),
            pl.DataFrame({"pmid": [3], "role": ["champion"], "score": [0.875]}),
        ],
        how="diagonal",
    )
    (row,) = distilled.distilled_contexts(questions, candidates, own, scores).to_dicts()
    assert ([one["pmid"] for one in row["contexts"]], row["question"]) == ([77], OWN)
    assert (row["mesh_score"], row["mesh_margin"]) == (0.875, None)


def test_what_was_found_for_the_champion_before_is_known_and_other_rows_are_not() -> None:
    made = table(DistilledContexts, context(3, "champion", 77), context(1, "general", 30))
    before = distilled.as_candidates(made)
    assert before is not None
    assert before.columns == CandidateContexts.create_empty().columns
    assert before["pmid"].to_list() == [3]
    assert distilled.as_candidates(None) is None
    assert distilled.as_candidates(made.drop("mesh_score")) is None
