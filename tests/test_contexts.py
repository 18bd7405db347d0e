"""Contexts of candidate questions: the source is left out, and no question vanishes."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mkailin_assets.pubmed.tables import BranchCitation
from mkailin_assets.questions.contexts import NO_CONTEXT, NO_SOURCE, find_contexts, still_found
from mkailin_assets.questions.tables import CandidateContexts, CandidateQuestion
from mkailin_resources.embeddings.corpus import CorpusEncoder
from mkailin_resources.index import CITATION, ContextStore
from mkailin_resources.searcher import Searcher
from mkailin_resources.storage import Storage

TEXTS = {
    1: "Measles vaccination prevents outbreaks in schools",
    2: "Measles vaccination protects adults",
    3: "Measles outbreaks in hospitals",
    4: "Measles immunity after vaccination",
    5: "Measles vaccination of nurses",
    6: "Measles vaccination coverage in cities",
    7: "Sleep and memory in students",
}


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    folder: Path = tmp_path_factory.mktemp("contexts")
    encoder = CorpusEncoder.learn(list(TEXTS.values()))
    store = ContextStore(storage=Storage(root=str(folder)), retriever="hybrid")
    frame = pl.DataFrame(
        {
            "pmid": list(TEXTS),
            "content_hash": [f"h{pmid}" for pmid in TEXTS],
            "title": "",
            "text": [f"\n{text}" for text in TEXTS.values()],
            "heading_uis": [[f"D{pmid}"] for pmid in TEXTS],
            "pubmed_file": "pubmed26n0001",
            "branch": "C01",
            "year": 2020,
            "languages": [["eng"]] * len(TEXTS),
        },
        schema_overrides=CITATION,
    )
    return store.over(frame, encoder, folder / "index")


def questions(*rows: tuple[int, str, str | None, str | None]) -> pl.DataFrame:
    made: list[dict[str, Any]] = [
        {
            "pmid": pmid,
            "role": role,
            "branch": "C01",
            "pubmed_file": "pubmed26n0001",
            "content_hash": f"h{pmid}",
            "question": question,
            "failure": failure,
            "generator": "g",
            "prompt_version": "1",
            "fingerprint": "f",
        }
        for pmid, role, question, failure in rows
    ]
    return CandidateQuestion.validate(pl.DataFrame(made, schema=CandidateQuestion.create_empty().schema))


def citations(*pmids: int) -> pl.DataFrame:
    headings = [{"ui": ui, "name": "n", "major": False, "qualifiers": []} for ui in ("D9", None, "D8", "D9")]
    made = [
        {
            "pmid": pmid,
            "branch": "C01",
            "pubmed_file": "pubmed26n0001",
            "abstract": [],
            "headings": headings,
            "publication_types": [],
            "content_hash": f"h{pmid}",
        }
        for pmid in pmids
    ]
    return BranchCitation.validate(pl.DataFrame(made, schema=BranchCitation.create_empty().schema))


def find(asked: pl.DataFrame, branch: pl.DataFrame, searcher: Searcher, k: int = 4) -> list[dict[str, Any]]:
    return CandidateContexts.validate(find_contexts(asked, branch, searcher, k)).to_dicts()


def test_the_source_is_left_out_of_its_contexts_and_its_rank_is_kept(searcher: Searcher) -> None:
    (row,) = find(questions((1, "domain", TEXTS[1], None)), citations(1), searcher)
    assert row["source_rank"] == 1
    assert len(row["contexts"]) == 4
    assert 1 not in [context["pmid"] for context in row["contexts"]]
    assert [context["rank"] for context in row["contexts"]] == [1, 2, 3, 4]
    assert row["heading_uis"] == ["D8", "D9", "n"]


def test_contexts_are_the_searchers_hits_in_their_order(searcher: Searcher) -> None:
    (row,) = find(
        questions((7, "general", "Does measles vaccination work?", None)), citations(7), searcher, k=2
    )
    hits = searcher.search(["Does measles vaccination work?"], 2)[0]
    assert [
        (c["pmid"], c["score"], c["found_by"], c["content_hash"], c["heading_uis"]) for c in row["contexts"]
    ] == [(hit.pmid, hit.score, hit.found_by, hit.content_hash, list(hit.heading_uis)) for hit in hits]
    assert row["source_rank"] is None, "the source is about sleep"
    assert row["failure"] is None


def test_a_question_that_failed_keeps_its_failure_and_stops_no_other(searcher: Searcher) -> None:
    asked = questions((1, "domain", None, "the title is no statement"), (1, "general", "Measles?", None))
    failed, found = find(asked, citations(1), searcher)
    assert (failed["failure"], failed["contexts"], failed["source_rank"]) == (
        "the title is no statement",
        [],
        None,
    )
    assert (found["failure"], found["role"]) == (None, "general")


def test_a_question_that_finds_nothing_says_so(searcher: Searcher) -> None:
    (row,) = find(questions((1, "domain", "xyzzy?", None)), citations(1), searcher)
    assert (row["failure"], row["contexts"]) == (NO_CONTEXT, [])


def test_a_question_that_finds_only_its_source_says_so_and_keeps_the_rank(searcher: Searcher) -> None:
    (row,) = find(questions((7, "domain", "sleep memory students", None)), citations(7), searcher)
    assert (row["failure"], row["source_rank"]) == (NO_CONTEXT, 1)


def test_a_question_whose_citation_left_the_branch_says_so(searcher: Searcher) -> None:
    (row,) = find(questions((1, "domain", TEXTS[1], None)), citations(2), searcher)
    assert (row["failure"], row["contexts"], row["heading_uis"]) == (NO_SOURCE, [], [])


def test_a_branch_without_questions_gives_an_empty_table(searcher: Searcher) -> None:
    assert find(questions(), citations(), searcher) == []


def found_before(searcher: Searcher, **changes: Any) -> pl.DataFrame:
    """What an earlier index had found for the question of citation 1: 7, no match any more, and 2."""
    contexts = [
        {"rank": rank, "pmid": pmid, "content_hash": f"h{pmid}", "score": 0.5, "found_by": "both"}
        | {"heading_uis": [f"D{pmid}"]}
        for rank, pmid in enumerate((7, 2), 1)
    ]
    row = {"pmid": 1, "role": "domain", "branch": "C01", "question": TEXTS[1], "heading_uis": []}
    row |= {"contexts": contexts, "source_rank": 3, "failure": None}
    row |= {"encoder": searcher.encoder, "search_kind": searcher.search_kind}
    return CandidateContexts.validate(
        pl.DataFrame([row | changes], schema=CandidateContexts.create_empty().schema)
    )


def test_contexts_that_still_stand_are_kept_whatever_is_in_the_index_by_now(searcher: Searcher) -> None:
    asked = questions((1, "domain", TEXTS[1], None), (1, "general", TEXTS[1], None))
    recorded = found_before(searcher)
    kept = still_found(recorded, asked, searcher, k=2)
    first, second = find_contexts(asked, citations(1), searcher, 2, kept).to_dicts()
    assert first["contexts"] == recorded["contexts"].to_list()[0]
    assert first["source_rank"] == 3
    assert first["heading_uis"] == ["D8", "D9", "n"], "those of the source as it is"
    assert 7 not in [context["pmid"] for context in second["contexts"]], "the other question is searched for"


def test_contexts_are_looked_up_again_when_one_of_them_changed_or_the_question_did(
    searcher: Searcher,
) -> None:
    asked = questions((1, "domain", TEXTS[1], None))
    recorded = found_before(searcher)
    old = recorded["contexts"].to_list()[0]
    gone, revised = [old[0], old[1] | {"pmid": 99}], [old[0], old[1] | {"content_hash": "earlier"}]
    for changes in (
        {"contexts": gone},
        {"contexts": revised},
        {"contexts": old[:1]},
        {"question": "Another?"},
        {"role": "general"},
        {"encoder": "another"},
        {"search_kind": "dense"},
        {"search_kind": "hybrid; years 2000-"},
    ):
        assert still_found(found_before(searcher, **changes), asked, searcher, k=2).is_empty(), changes
    assert still_found(recorded, asked, searcher, k=3).is_empty()
    assert still_found(recorded.drop("encoder"), asked, searcher, k=2).is_empty(), (
        "a table of an older release"
    )
    assert still_found(None, asked, searcher, k=2).is_empty()
    assert still_found(recorded, asked, searcher, k=2).equals(recorded)
