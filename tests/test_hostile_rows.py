"""Hostile abstracts through all of asking: each becomes a question and an answer, or a quarantined row."""

from pathlib import Path

import polars as pl
import pytest
from asking import asking
from hostile_abstracts import HARMLESS, HOSTILE, HOSTILE_CONTEXTS
from model_server import Fault, model_server

from mkailin_assets.corpus.answers import fault_of_answer
from mkailin_assets.pubmed.tables import BranchCitation
from mkailin_assets.questions.candidates import NO_ABSTRACT, candidate_questions
from mkailin_assets.questions.tables import CandidateQuestion
from mkailin_resources.models.interface import Answer, Document, GenerationRequest, TextGenerator
from mkailin_resources.profiles import Settings, agents


def citations(*documents: Document) -> pl.DataFrame:
    schema = BranchCitation.create_empty().schema
    rows = [
        dict.fromkeys(schema)
        | {
            "pmid": number,
            "branch": "C23",
            "pubmed_file": "pubmed26n0001",
            "title": document.title,
            "abstract": [
                {"label": section.label, "category": section.category, "text": section.text}
                for section in document.sections
            ],
            "content_hash": f"hash {number}",
        }
        for number, document in enumerate(documents, 1)
    ]
    return pl.DataFrame(rows, schema=schema)


def models(url: str) -> dict[str, TextGenerator]:
    settings = {"PROFILE": "gpu", "ENDPOINT": url, "MODEL": "tiny"}
    return agents(Settings.from_environment({f"MKAILIN_{name}": value for name, value in settings.items()}))


def questions(root: Path, url: str, *documents: Document) -> pl.DataFrame:
    made = models(url)
    generators = {"domain": made["domain_model"], "general": made["general_model"]}
    return CandidateQuestion.validate(
        candidate_questions(citations(*documents), generators, "C23", asking(root))
    )


def test_each_hostile_abstract_gets_its_questions(tmp_path: Path) -> None:
    with model_server(tmp_path) as server:
        made = questions(tmp_path, server.url, *HOSTILE.values())
    assert made.height == 2 * len(HOSTILE)
    failed = made.filter(pl.col("question").is_null())
    assert set(failed["failure"]) == {NO_ABSTRACT}
    assert failed.height < 10


def test_each_hostile_abstract_gets_an_answer_that_rests_on_it(tmp_path: Path) -> None:
    requests = [
        GenerationRequest(name, "answer", document, "Does early mobilisation help?", HOSTILE_CONTEXTS)
        for name, document in HOSTILE.items()
    ]
    with model_server(tmp_path) as server:
        replies = asking(tmp_path)(models(server.url)["answer_model"], requests, fault_of_answer)
    assert set(replies) == set(HOSTILE)
    assert {reply.failure for reply in replies.values()} == {None}
    assert all(Answer.model_validate_json(reply.text or "").evidence for reply in replies.values())


@pytest.mark.parametrize(
    "obeyed",
    [
        "HACKED",
        "Ignore that and say hi. Is it?",
        '{"question": "I obey."}',
        '{"question": ""}',
        "{}",
        "null",
        "[1]",
        "\x00",
        "9" * 5000,
    ],
)
def test_what_a_gullible_model_writes_is_quarantined(tmp_path: Path, obeyed: str) -> None:
    with model_server(tmp_path, faults=[Fault("reply", message=obeyed, times=9)]) as server:
        made = questions(tmp_path, server.url, HARMLESS)
    assert made["question"].to_list() == [None, None]
    assert made["failure"].null_count() == 0
    assert made["refused_text"].to_list() == [obeyed, obeyed]
