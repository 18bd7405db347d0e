"""Generated pairs: every citation has a row, and an answer rests on what it was given."""

import json
from typing import Any

import polars as pl
import pytest
from asking import Writer, says, unpaid

from mkailin_assets.corpus.answers import NOT_DISTILLED, generated_qa
from mkailin_assets.corpus.tables import DistilledContexts, DistilledQuestion, GeneratedQA
from mkailin_assets.pubmed.tables import BranchCitation
from mkailin_resources.models.extractive import ConclusionAnswerer
from mkailin_resources.models.interface import GeneratorFault, TextGenerator

QUESTION = "Does willow tea reduce fever?"
BODY = "We gave willow tea to 40 adults. Fever fell by one degree with willow tea."
CONCLUSION = "Willow tea reduces fever."
CONTEXT = "Willow bark holds salicin."


def table(schema: Any, *rows: dict[str, Any]) -> pl.DataFrame:
    empty = {name: None for name in schema.create_empty().columns}
    return pl.DataFrame([empty | row for row in rows], schema=schema.create_empty().schema)


def generate(
    answerer: TextGenerator,
    question: str | None = QUESTION,
    texts: dict[int, str | None] | None = None,
    questions: pl.DataFrame | None = None,
) -> dict[str, Any]:
    """The row of citation 1, whose question has contexts 7 and 8."""
    sections = [("RESULTS", "RESULTS", BODY), ("CONCLUSIONS", "CONCLUSIONS", CONCLUSION)]
    citations = table(
        BranchCitation,
        {
            "pmid": 1,
            "branch": "C23",
            "pubmed_file": "pubmed26n0001",
            "title": "Willow tea and fever.",
            "abstract": [{"label": a, "category": b, "text": c} for a, b, c in sections],
            "content_hash": "hash",
        },
    )
    asked = (
        {"question": question, "role": "domain", "generator": "asker"}
        if question
        else {"failure": "no question to answer: no claim"}
    )
    distilled = table(DistilledQuestion, {"pmid": 1, **asked})
    contexts = table(
        DistilledContexts,
        {
            "pmid": 1,
            "question": question,
            "contexts": [
                {"rank": 1, "pmid": 7, "content_hash": "seven"},
                {"rank": 2, "pmid": 8, "content_hash": "eight"},
            ],
        },
    )
    texts = {7: CONTEXT, 8: "Tea is a drink."} if texts is None else texts
    found = pl.DataFrame(
        {"pmid": list(texts), "title": ["Bark"] * len(texts), "text": list(texts.values())},
        schema={"pmid": pl.Int64, "title": pl.String, "text": pl.String},
    )
    made = generated_qa(
        distilled if questions is None else questions,
        contexts,
        citations,
        found,
        answerer,
        "C23",
        unpaid,
    )
    return GeneratedQA.validate(made).row(0, named=True)


def answer(**changes: Any) -> str:
    return json.dumps({"long_answer": CONCLUSION, "decision": "yes", "evidence": [CONCLUSION]} | changes)


def test_a_pair_holds_question_contexts_answer_and_decision() -> None:
    row = generate(ConclusionAnswerer())
    assert row["failure"] is None
    assert (row["question"], row["question_role"], row["generator"]) == (QUESTION, "domain", "asker")
    assert (row["long_answer"], row["decision"]) == (CONCLUSION, "yes")
    assert row["evidence"] == [CONCLUSION, "Fever fell by one degree with willow tea."]
    assert row["contexts"] == [
        {"rank": 1, "pmid": 7, "content_hash": "seven", "title": "Bark", "text": CONTEXT},
        {"rank": 2, "pmid": 8, "content_hash": "eight", "title": "Bark", "text": "Tea is a drink."},
    ]
    assert row["fingerprint"]


def test_the_context_of_the_source_does_not_hold_its_conclusion() -> None:
    assert generate(ConclusionAnswerer())["source_context"] == BODY


def test_a_citation_without_question_is_a_row_with_the_reason() -> None:
    row = generate(ConclusionAnswerer(), question=None)
    assert (row["question"], row["long_answer"], row["fingerprint"]) == (None, None, None)
    assert row["failure"] == "no question to answer: no claim"


def test_a_citation_that_was_not_distilled_is_a_row_with_the_reason() -> None:
    row = generate(ConclusionAnswerer(), questions=DistilledQuestion.create_empty())
    assert row["failure"] == NOT_DISTILLED


def test_contexts_of_another_question_are_not_taken() -> None:
    other = table(DistilledQuestion, {"pmid": 1, "question": "Is willow tea safe?", "role": "champion"})
    assert generate(ConclusionAnswerer(), questions=other)["contexts"] == []


def test_a_context_whose_text_is_gone_is_left_out() -> None:
    row = generate(ConclusionAnswerer(), texts={8: "Tea is a drink."})
    assert [context["pmid"] for context in row["contexts"]] == [8]
    assert row["failure"] is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I think so.", "not the JSON of an answer"),
        (answer(decision="perhaps"), "decision"),
        (answer(evidence=[]), "evidence"),
        (answer(long_answer=" "), "blank"),
        (answer(evidence=["Willow tea cures gout."]), "neither the citation nor a context"),
        (answer(evidence=[" "]), "neither the citation nor a context"),
    ],
)
def test_an_invalid_answer_is_a_failure_with_its_text(text: str, reason: str) -> None:
    row = generate(Writer(says(text)))
    assert row["long_answer"] is None
    assert row["refused_text"] == text
    assert reason in row["failure"]


def test_evidence_may_come_from_a_context_in_other_white_space_and_case() -> None:
    row = generate(Writer(says(answer(evidence=["willow  bark\nholds SALICIN."]))))
    assert row["failure"] is None
    assert row["evidence"] == ["willow bark holds SALICIN."]


def test_an_answerer_that_leaves_a_request_without_result_is_an_error() -> None:
    with pytest.raises(GeneratorFault, match="scripted left 1 of 1"):
        generate(Writer(lambda _: None))
