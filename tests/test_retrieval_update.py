"""The retrieval assets: what enters the index, what leaves it, and the checks that say so."""

from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from mkailin_assets.partitions import pubmed_files
from mkailin_assets.pubmed.tables import CurrentCitation, PubmedRecord, pubmed_records
from mkailin_assets.retrieval.assets import context_index, retriever_checkpoint
from mkailin_assets.retrieval.checkpoint import learnt_checkpoint
from mkailin_assets.retrieval.checks import (
    citations_have_vectors,
    encoder_loads_and_encodes,
    index_holds_the_current_citations,
    index_vectors_are_the_encoders,
    tuning_does_not_harm,
)
from mkailin_assets.retrieval.inspection import index_differences, vector_faults
from mkailin_assets.retrieval.tables import ContextIndex, RetrieverCheckpoint
from mkailin_assets.retrieval.update import sample_texts, texts_of, update_index
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.embeddings.interface import EncoderSettings
from mkailin_resources.index import ContextStore
from mkailin_resources.sample import PUBMEDQA_FILE
from mkailin_resources.storage import ParquetTables, Storage

SUBJECTS = ("measles", "stroke", "asthma", "insomnia", "anaemia", "migraine", "gout", "malaria")


def record(pmid: int, position: int, text: str | None, file: str = "pubmed26n0001") -> dict[str, Any]:
    sections = [{"label": "RESULTS", "category": "RESULTS", "text": text}] if text else []
    return {
        "record": "citation",
        "position": position,
        "pmid": pmid,
        "pubmed_file": file,
        "title": f"Care of {SUBJECTS[pmid % 8]}",
        "abstract": sections,
        "headings": [
            {"ui": "D000002", "name": "b", "major": True, "qualifiers": []},
            {"ui": None, "name": "no identifier", "major": False, "qualifiers": []},
            {"ui": "D000001", "name": "a", "major": False, "qualifiers": []},
            {"ui": "D000002", "name": "b", "major": False, "qualifiers": []},
        ],
        "content_hash": f"hash of {text}",
        "year": 1997 + pmid,
        "language": ["eng"],
    }


def records(rows: list[dict[str, Any]]) -> pl.LazyFrame:
    return PubmedRecord.validate(pubmed_records(rows)).lazy()


def current(rows: list[dict[str, Any]], **state: str) -> pl.DataFrame:
    made = [
        {
            "pmid": row["pmid"],
            "state": state.get(f"p{row['pmid']}", "current"),
            "pubmed_file": row["pubmed_file"],
            "position": row["position"],
            "home_branch": "C01",
            "has_abstract": bool(row["abstract"]),
            "content_hash": row["content_hash"],
        }
        for row in rows
    ]
    return CurrentCitation.validate(pl.DataFrame(made, schema=CurrentCitation.create_empty().schema))


FIRST = [record(pmid, pmid, f"Outcome {pmid} of {SUBJECTS[pmid % 8]} in children") for pmid in range(1, 7)]
SECOND = [
    record(2, 0, "Revised outcome of asthma", "pubmed26n0002"),
    record(7, 1, "New outcome of malaria", "pubmed26n0002"),
    record(8, 2, None, "pubmed26n0002"),
]
FILES = {"pubmed26n0001": records(FIRST), "pubmed26n0002": records(SECOND)}
BEFORE = current(FIRST)
# 2 is revised, 3 retracted, 4 deleted, 7 new, 8 without abstract
AFTER = current([row for row in FIRST if row["pmid"] != 2] + SECOND, p3="retracted", p4="deleted")


@pytest.fixture
def store(tmp_path: Path) -> ContextStore:
    return ContextStore(storage=Storage(root=str(tmp_path)), retriever="hybrid")


@pytest.fixture
def checkpoint(store: ContextStore) -> pl.DataFrame:
    return RetrieverCheckpoint.validate(learnt_checkpoint(EncoderSettings(), BEFORE, FILES, store.storage))


def contents(store: ContextStore, row: pl.DataFrame) -> list[dict[str, Any]]:
    held = pl.concat(store.contents(row)).sort("pmid")
    texts = store.open(row).texts(held["pmid"])
    return held.join(texts, on="pmid", how="left").sort("pmid").to_dicts()


def test_the_index_keeps_title_abstract_and_distinct_headings_by_name_where_there_is_no_ui() -> None:
    frame = pl.concat(texts_of(BEFORE.head(1), FILES))
    assert frame.to_dicts() == [
        {
            "pmid": 1,
            "content_hash": FIRST[0]["content_hash"],
            "title": "Care of stroke",
            "text": "Care of stroke\nRESULTS: Outcome 1 of stroke in children",
            "heading_uis": ["D000001", "D000002", "no identifier"],
            "pubmed_file": "pubmed26n0001",
            "branch": "C01",
            "year": 1998,
            "languages": ["eng"],
        }
    ]


def test_a_retracted_or_deleted_citation_leaves_the_index_and_a_revised_one_is_replaced(
    store: ContextStore, checkpoint: pl.DataFrame
) -> None:
    before, _ = update_index(store, checkpoint, BEFORE, FILES, None)
    after, done = update_index(store, checkpoint, AFTER, FILES, before)
    ContextIndex.validate(after)
    assert {row["pmid"]: row["text"] for row in contents(store, after)} == {
        1: "RESULTS: Outcome 1 of stroke in children",
        2: "RESULTS: Revised outcome of asthma",
        5: "RESULTS: Outcome 5 of migraine in children",
        6: "RESULTS: Outcome 6 of gout in children",
        7: "RESULTS: New outcome of malaria",
    }
    assert (done.added, done.replaced, done.removed) == (1, 1, 2)
    assert after.item(0, "without_abstract") == 1


def test_an_updated_index_equals_a_rebuilt_one(
    store: ContextStore, checkpoint: pl.DataFrame, tmp_path: Path
) -> None:
    before, _ = update_index(store, checkpoint, BEFORE, FILES, None)
    updated, _ = update_index(store, checkpoint, AFTER, FILES, before)
    elsewhere = ContextStore(storage=Storage(root=str(tmp_path / "elsewhere")), retriever="hybrid")
    rebuilt, _ = update_index(elsewhere, checkpoint, AFTER, FILES, None)
    assert contents(store, updated) == contents(elsewhere, rebuilt)
    questions = ["outcome of malaria", "children with migraine", "asthma"]
    assert store.open(updated).search(questions, 4) == elsewhere.open(rebuilt).search(questions, 4)


def test_an_update_without_changes_returns_the_recorded_row(
    store: ContextStore, checkpoint: pl.DataFrame
) -> None:
    before, _ = update_index(store, checkpoint, BEFORE, FILES, None)
    again, done = update_index(store, checkpoint, BEFORE, FILES, before)
    assert again.equals(before)
    assert (done.added, before.item(0, "added")) == (0, 6)


def test_an_update_reads_only_the_files_that_hold_changes(
    store: ContextStore, checkpoint: pl.DataFrame
) -> None:
    before, _ = update_index(store, checkpoint, BEFORE, FILES, None)
    only_second = {"pubmed26n0002": FILES["pubmed26n0002"]}
    _, done = update_index(store, checkpoint, AFTER, only_second, before)
    assert (done.citations, done.unread) == (5, ())


def test_a_citation_whose_file_is_not_parsed_is_named(store: ContextStore, checkpoint: pl.DataFrame) -> None:
    only_first = {"pubmed26n0001": FILES["pubmed26n0001"]}
    row, done = update_index(store, checkpoint, AFTER, only_first, None)
    assert done.unread == (2, 7)
    assert index_differences(store.contents(row), AFTER).rows() == [(2, "missing"), (7, "missing")]


def test_a_new_encoder_gets_an_index_of_its_own(store: ContextStore, checkpoint: pl.DataFrame) -> None:
    before, _ = update_index(store, checkpoint, AFTER, FILES, None)
    other = learnt_checkpoint(EncoderSettings(), AFTER, FILES, store.storage)
    after, done = update_index(store, other, AFTER, FILES, before)
    assert after.item(0, "uri") != before.item(0, "uri")
    assert done.added == 5
    assert store.open(before).search(["malaria"], 1) == store.open(before).search(["malaria"], 1) != [[]]


def test_the_encoder_is_learnt_from_a_seeded_sample_of_findable_citations() -> None:
    assert len(sample_texts(AFTER, FILES, 100)) == 5
    sample = sample_texts(AFTER, FILES, 3)
    assert len(sample) == 3
    assert sample == sample_texts(AFTER.reverse(), dict(reversed(FILES.items())), 3)


@pytest.fixture
def materialized(tmp_path: Path) -> tuple[dg.ExecuteInProcessResult, Storage]:
    storage = Storage(root=str(tmp_path))
    storage.write_table(AFTER, "current_citations")
    for name, frame in FILES.items():
        storage.write_table(frame.collect(), "pubmed_citations", name)
    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions("pubmed_files", list(FILES))
    checks = [
        tuning_does_not_harm,
        encoder_loads_and_encodes,
        index_holds_the_current_citations,
        index_vectors_are_the_encoders,
        citations_have_vectors,
    ]
    upstream = [
        dg.AssetSpec("current_citations"),
        dg.AssetSpec("pubmed_citations", partitions_def=pubmed_files),
    ]
    result = dg.materialize(
        [*upstream, retriever_checkpoint, context_index, *checks],
        instance=instance,
        resources={
            "io_manager": ParquetTables(storage=storage),
            "storage": storage,
            "context_store": ContextStore(storage=storage, retriever="hybrid"),
            "benchmarks": BenchmarkFiles(pubmedqa=str(PUBMEDQA_FILE)),
            "encoder": EncoderSettings(),
        },
    )
    return result, storage


def test_the_assets_materialize_through_dagster_and_pass_their_checks(
    materialized: tuple[dg.ExecuteInProcessResult, Storage],
) -> None:
    result, storage = materialized
    assert [check.passed for check in result.get_asset_check_evaluations()] == [True] * 5
    metadata = result.asset_materializations_for_node("context_index")[0].metadata
    assert metadata["citations"].value == 5
    assert metadata["left_out"].value == {
        "current": 1, "deleted": 1, "retracted": 1, "without text in the parsed files": 0
    }  # fmt: skip
    assert "Care of stroke" in metadata["sample_search"].value
    row = storage.read_table("context_index")
    assert row is not None
    assert ContextStore(storage=storage, retriever="hybrid").open(row).search(["malaria"], 1)[0][0].pmid == 7


def test_the_encoder_check_fails_when_the_weights_change(
    store: ContextStore, checkpoint: pl.DataFrame
) -> None:
    def check(row: pl.DataFrame) -> dg.AssetCheckResult:
        return encoder_loads_and_encodes(row, storage=store.storage)

    assert check(checkpoint).passed
    assert not check(checkpoint.with_columns(dimension=pl.lit(3, pl.Int32))).passed
    (Path(checkpoint.item(0, "uri")) / "vocabulary.json").write_text('{"a": 0}')
    failed = check(checkpoint)
    assert not failed.passed
    assert "materialize" in str(failed.description)


def test_the_content_check_fails_for_missing_outdated_and_departed_citations(
    store: ContextStore, checkpoint: pl.DataFrame
) -> None:
    row, _ = update_index(store, checkpoint, BEFORE, FILES, None)
    right = index_holds_the_current_citations(row, BEFORE, context_store=store)
    wrong = index_holds_the_current_citations(row, AFTER, context_store=store)
    assert (right.passed, wrong.passed) == (True, False)
    assert dict(index_differences(store.contents(row), AFTER).iter_rows()) == {
        2: "outdated",
        3: "no longer current",
        4: "no longer current",
        7: "missing",
    }
    twice = [*store.contents(row), *store.contents(row)]
    assert index_differences(twice, BEFORE)["fault"].unique().to_list() == ["there more than once"]


def test_the_vector_check_fails_for_vectors_the_encoder_cannot_have_made(
    store: ContextStore, checkpoint: pl.DataFrame
) -> None:
    row, _ = update_index(store, checkpoint, BEFORE, FILES, None)
    assert index_vectors_are_the_encoders(row, checkpoint, context_store=store).passed
    other = checkpoint.with_columns(dimension=pl.lit(3, pl.Int32))
    assert not index_vectors_are_the_encoders(row, other, context_store=store).passed
    vectors = np.array([[1, 0], [0, 0], [np.nan, 0], [2, 0], [np.inf, 0]], np.float32)
    batch = pl.DataFrame({"pmid": [1, 2, 3, 4, 5], "content_hash": "x", "vector": vectors})
    assert vector_faults([batch], 2)["pmid"].to_list() == [3, 4, 5]
