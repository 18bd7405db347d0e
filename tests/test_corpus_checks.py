"""Each check of the corpus stage passes on sound tables and fails on broken ones."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from corpus_tables import became, corpus_of, current, evaluated, generated, qa

from mkailin_assets.corpus import checks
from mkailin_assets.corpus.assembly import CorpusRules
from mkailin_assets.corpus.assets import (
    LEDGER,
    assembled_corpus,
    corpus_recalls,
    evaluated_qa,
    ledgers_of,
)
from mkailin_assets.corpus.assets import generated_qa as generated_qa_asset
from mkailin_assets.corpus.decontamination import benchmark_questions
from mkailin_assets.corpus.lengths import corpus_lengths, tokenizer_of
from mkailin_assets.corpus.quality import QualityRules
from mkailin_assets.corpus.recalls import ledger, recalls
from mkailin_assets.corpus.tables import (
    CorpusRecall,
    DistilledContexts,
    DistilledQuestion,
    EvaluatedQA,
    GeneratedQA,
    MeshCoverage,
    TrainingExample,
)
from mkailin_assets.mesh.tables import MeshDescriptor, MeshInformationContent
from mkailin_assets.partitions import mesh_branches
from mkailin_assets.preferences.cold_start import ColdStartRules
from mkailin_assets.preferences.tables import QuestionPreference
from mkailin_assets.pubmed.tables import BranchCitation
from mkailin_assets.retrieval.tables import ContextIndex
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.embeddings.checkpoint import EncoderRecord, publish_encoder
from mkailin_resources.embeddings.corpus import CorpusEncoder
from mkailin_resources.generation import Generation
from mkailin_resources.index import CITATION, ContextStore
from mkailin_resources.models.extractive.agents import ConclusionAnswerer
from mkailin_resources.storage import ParquetTables, Storage

ROWS = [qa(pmid) for pmid in range(1, 8)]
CORPUS, EXCLUSIONS = corpus_of(
    {"C04": evaluated(*ROWS, qa(8, question="So?")).lazy()},
    current(*ROWS, qa(8)),
    benchmark_questions([]),
    CorpusRules(min_duplicate_similarity=0.9),
)


def failing(**changes: Any) -> pl.DataFrame:
    """The corpus with its first row changed."""
    first = CORPUS.head(1).with_columns(
        **{name: pl.lit(value, CORPUS.schema[name]) for name, value in changes.items()}
    )
    return pl.concat([first, CORPUS.slice(1)])


@pytest.fixture
def benchmarks(tmp_path: Path) -> BenchmarkFiles:
    """A benchmark of one item, about the citation 7777."""
    item = {
        "QUESTION": "Does iron make people happier?",
        "CONTEXTS": ["We gave iron."],
        "LABELS": ["METHODS"],
        "MESHES": ["Iron"],
        "YEAR": "2010",
        "reasoning_required_pred": "no",
        "reasoning_free_pred": "no",
        "final_decision": "no",
        "LONG_ANSWER": "It did not.",
    }
    path = tmp_path / "pubmedqa.json"
    path.write_text(json.dumps({"7777": item}))
    return BenchmarkFiles(pubmedqa=str(path))


def test_a_citation_without_a_row_is_found() -> None:
    citations = pl.DataFrame([{"pmid": 1}, {"pmid": 2}], schema=BranchCitation.create_empty().schema)
    assert checks.every_citation_has_a_row(generated(qa(1), qa(2)), citations).passed
    result = checks.every_citation_has_a_row(generated(qa(1)), citations)
    assert not result.passed
    assert result.metadata["rows"].value == 1


def test_many_failures_are_a_warning() -> None:
    sound, failed = [qa(pmid) for pmid in range(1, 5)], qa(5, question=None, failure="no verb")
    assert checks.few_generations_failed(generated(*sound, failed)).passed
    result = checks.few_generations_failed(generated(*sound[:3], failed))
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.WARN


def test_a_verdict_that_its_reasons_do_not_bear_out_is_found() -> None:
    table = evaluated(qa(1), qa(2, question="So?"))
    assert checks.verdict_and_reasons_agree(table).passed
    assert not checks.verdict_and_reasons_agree(table.with_columns(kept=True)).passed
    assert not checks.verdict_and_reasons_agree(table.with_columns(kept=False)).passed


def test_a_branch_that_gives_the_corpus_nothing_is_a_warning() -> None:
    assert checks.some_pairs_are_kept(evaluated(qa(1))).passed
    result = checks.some_pairs_are_kept(evaluated(qa(1, question="So?")))
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.WARN


def test_a_benchmark_item_in_the_corpus_is_found(benchmarks: BenchmarkFiles) -> None:
    check = checks.no_benchmark_item_is_trained_on
    assert check(CORPUS.lazy(), benchmarks=benchmarks).passed
    assert not check(failing(pmid=7777).lazy(), benchmarks=benchmarks).passed
    assert not check(failing(question="does iron make people HAPPIER").lazy(), benchmarks=benchmarks).passed


def test_a_citation_in_two_splits_is_found() -> None:
    assert checks.no_citation_is_in_two_splits(CORPUS.lazy()).passed
    second = failing(split="test", question="Is there another question?", example_id="other").head(1)
    assert not checks.no_citation_is_in_two_splits(pl.concat([CORPUS, second]).lazy()).passed


def test_a_held_out_citation_read_as_context_in_training_is_found() -> None:
    held_out = CORPUS.head(1).with_columns(
        pmid=pl.lit(999_999, pl.Int64), split=pl.lit("test"), example_id=pl.lit("held out")
    )
    reading = CORPUS.with_columns(split=pl.lit("train"), context_pmids=pl.lit([999_999], pl.List(pl.Int64)))
    assert not checks.no_citation_is_in_two_splits(pl.concat([reading, held_out]).lazy()).passed


def test_lengths_that_leave_examples_out_are_found() -> None:
    tokenizer, name = tokenizer_of(CORPUS.lazy(), "")
    lengths = corpus_lengths([CORPUS], tokenizer, name, 4096)
    assert checks.lengths_are_of_every_example(lengths, CORPUS.lazy()).passed
    assert not checks.lengths_are_of_every_example(lengths, CORPUS.slice(1).lazy()).passed
    assert not checks.lengths_are_of_every_example(lengths.with_columns(sequences=0), CORPUS.lazy()).passed


def test_shares_that_do_not_add_up_are_found() -> None:
    empty = MeshCoverage.create_empty()
    assert checks.shares_add_up(empty).passed
    rows = pl.DataFrame(
        [
            {"level": "branch", "place": place, "share_of_pubmed": 0.5, "share_of_corpus": 0.5}
            for place in "ab"
        ]
    )
    assert checks.shares_add_up(rows).passed
    assert not checks.shares_add_up(rows.head(1)).passed


def test_a_gap_that_the_corpus_fills_already_is_found() -> None:
    gaps = pl.DataFrame({"descriptor_ui": ["D1"], "name": ["One"], "pmids": [[900, 901]]})
    assert checks.what_fills_a_gap_is_not_in_the_corpus(gaps, CORPUS.lazy()).passed
    filled = gaps.with_columns(pmids=pl.lit([900, CORPUS["pmid"][0]], pl.List(pl.Int64)))
    assert not checks.what_fills_a_gap_is_not_in_the_corpus(filled, CORPUS.lazy()).passed


def test_a_question_asked_twice_is_found() -> None:
    assert checks.no_question_is_asked_twice(CORPUS.lazy()).passed
    repeated = failing(question=CORPUS["question"][1].upper())
    assert not checks.no_question_is_asked_twice(repeated.lazy()).passed


@pytest.mark.parametrize("cited", [1, 5001])
@pytest.mark.parametrize(
    "change",
    [
        {"state": "retracted"},
        {"state": "deleted", "content_hash": None},
        {"content_hash": "new"},
        {"pmid": 99},
    ],
)
def test_a_source_or_context_that_no_longer_stands_is_found(cited: int, change: dict[str, Any]) -> None:
    check = checks.every_source_and_context_stands
    assert check(CORPUS.lazy(), current(*ROWS)).passed
    result = check(CORPUS.lazy(), became(current(*ROWS), cited, **change))
    assert not result.passed
    assert result.metadata["rows"].value == 1


def test_a_recall_that_is_missing_is_found(tmp_path: Path) -> None:
    storage = Storage(root=str(tmp_path))
    storage.write_table(ledger(CORPUS), LEDGER, "first")
    citations = became(current(*ROWS), 5001, state="retracted")
    check = checks.recalls_are_complete
    complete = recalls(ledgers_of(storage), citations, None)
    assert complete.height == 1
    assert check(complete, citations, storage=storage).passed
    assert not check(complete.clear(), citations, storage=storage).passed
    storage.write_table(ledger(CORPUS), LEDGER, "second")
    assert not check(complete, citations, storage=storage).passed


def test_a_pair_that_is_lost_invented_or_placed_twice_is_found() -> None:
    everything = {"C04": evaluated(*ROWS, qa(8)).lazy()}
    check = checks.every_pair_is_in_or_out
    assert check(EXCLUSIONS, CORPUS.lazy(), everything).passed
    assert not check(EXCLUSIONS, CORPUS.slice(1).lazy(), everything).passed
    assert not check(EXCLUSIONS.clear(), CORPUS.lazy(), everything).passed
    assert not check(EXCLUSIONS, CORPUS.lazy(), {"C04": evaluated(*ROWS).lazy()}).passed
    both = EXCLUSIONS.with_columns(pmid=pl.lit(CORPUS["pmid"][0], pl.Int64))
    assert not check(pl.concat([EXCLUSIONS, both]), CORPUS.lazy(), everything).passed
    assert not check(EXCLUSIONS, CORPUS.lazy(), {}).passed


def test_the_generation_asset_answers_the_chosen_question_with_the_text_of_its_contexts(
    tmp_path: Path,
) -> None:
    texts = ["Zinc shortens colds\nColds were shorter.", "Zinc in adults\nAdults recovered sooner."]
    encoder = CorpusEncoder.learn(texts)
    storage = Storage(root=str(tmp_path))
    uri = publish_encoder(encoder, EncoderRecord(kind="corpus", name="corpus"), storage)
    store = ContextStore(storage=storage, retriever="hybrid")
    held = pl.DataFrame(
        {
            "pmid": [1, 2],
            "content_hash": ["h1", "h2"],
            "title": [text.split("\n")[0] for text in texts],
            "text": texts,
            "heading_uis": [["D1"], ["D2"]],
            "pubmed_file": "pubmed26n0001",
            "branch": "C01",
            "year": 2020,
            "languages": [["eng"], ["eng"]],
        },
        schema_overrides=CITATION,
    )
    update = store.update(held, lambda pmids: [held], encoder, None)
    index = {
        "uri": update.uri,
        "table_version": update.table_version,
        "encoder": "corpus",
        "encoder_uri": uri,
        "encoder_fingerprint": encoder.fingerprint,
        "citations": update.citations,
    }
    sections = [
        {
            "label": "RESULTS",
            "category": "RESULTS",
            "text": "Colds lasted six days with zinc, eight without.",
        },
        {"label": "CONCLUSION", "category": "CONCLUSIONS", "text": "Zinc shortens colds in adults."},
    ]
    key = {"pmid": 1, "branch": "C01"}
    asked = key | {"role": "domain", "question": "Does zinc shorten colds?", "generator": "asker"}
    rows = {
        "distilled_questions": (DistilledQuestion, asked),
        "distilled_contexts": (
            DistilledContexts,
            asked | {"contexts": [{"rank": 1, "pmid": 2, "content_hash": "h2"}]},
        ),
        "branch_citations": (
            BranchCitation,
            key
            | {
                "pubmed_file": "f",
                "content_hash": "h1",
                "title": "Zinc shortens colds",
                "abstract": sections,
            },
        ),
        "context_index": (ContextIndex, index),
    }
    tables = {
        name: pl.DataFrame(
            [{c: row.get(c) for c in schema.column_names()}], schema=schema.create_empty().schema
        )
        for name, (schema, row) in rows.items()
    }
    output = generated_qa_asset(
        dg.build_asset_context(partition_key="C01"),
        **tables,
        answer_model=ConclusionAnswerer(),
        context_store=store,
        generation=Generation(storage=store.storage),
    )
    (row,) = GeneratedQA.validate(output.value).iter_rows(named=True)
    assert row["question"] == "Does zinc shorten colds?"
    assert row["contexts"] == [
        {
            "rank": 1,
            "pmid": 2,
            "content_hash": "h2",
            "title": "Zinc in adults",
            "text": "Adults recovered sooner.",
        }
    ]
    assert "shortens colds in adults" in row["long_answer"]
    assert output.metadata["answered"].value == 1


def test_the_evaluation_asset_keeps_every_row_and_counts_its_reasons(tmp_path: Path) -> None:
    rules = QualityRules(min_question_words=3, min_question_support=None)
    context = dg.build_asset_context(partition_key="C04")
    output = evaluated_qa(
        context,
        generated(qa(1), qa(2, question="So?")),
        DistilledContexts.create_empty(),
        QuestionPreference.create_empty(),
        MeshDescriptor.create_empty(),
        MeshInformationContent.create_empty(),
        mesh_rules=ColdStartRules(),
        quality_rules=rules,
        entailment_model=None,
        generation=Generation(storage=Storage(root=str(tmp_path))),
    )
    assert EvaluatedQA.validate(output.value)["kept"].to_list() == [True, False]
    assert output.metadata["kept"].value == 1
    assert output.metadata["dropped"].value == {"question of fewer than 3 words": 1}


def test_the_corpus_is_made_in_dagster_of_the_branches_that_exist_and_passes_its_checks(
    tmp_path: Path, benchmarks: BenchmarkFiles
) -> None:
    tables = {
        "C04": evaluated(*ROWS),
        "F03": evaluated(qa(11, branch="F03"), qa(12, branch="F03", question="So?")),
    }

    @dg.asset(partitions_def=mesh_branches)
    def evaluated_qa(context: dg.AssetExecutionContext) -> pl.DataFrame:
        return tables[context.partition_key]

    @dg.asset
    def current_citations() -> pl.DataFrame:
        everything = current(*ROWS, qa(11, branch="F03"), qa(12, branch="F03"))
        return became(everything, 3, state="retracted")

    storage = Storage(root=str(tmp_path))
    resources = {
        "io_manager": ParquetTables(storage=storage),
        "storage": storage,
        "benchmarks": benchmarks,
        "generation": Generation(storage=storage),
        "corpus_rules": CorpusRules(max_decision_share=1, min_duplicate_similarity=0.9),
    }
    of_the_corpus = [
        checks.no_benchmark_item_is_trained_on,
        checks.no_citation_is_in_two_splits,
        checks.no_question_is_asked_twice,
        checks.every_source_and_context_stands,
        checks.every_pair_is_in_or_out,
        checks.recalls_are_complete,
    ]
    everything = [evaluated_qa, current_citations, assembled_corpus, corpus_recalls, *of_the_corpus]
    with dg.DagsterInstance.ephemeral(str(tmp_path)) as instance:
        for branch in tables:
            assert dg.materialize(
                everything,
                instance=instance,
                resources=resources,
                partition_key=branch,
                selection=[evaluated_qa],
            ).success
        result = dg.materialize(
            everything,
            instance=instance,
            resources=resources,
            selection=dg.AssetSelection.assets(
                "current_citations", "training_corpus", "corpus_exclusions", "corpus_recalls"
            ),
        )
    assert result.success
    evaluations = result.get_asset_check_evaluations()
    assert len(evaluations) == len(of_the_corpus)
    assert all(evaluation.passed for evaluation in evaluations)
    corpus = TrainingExample.validate(pl.read_parquet(tmp_path / "tables" / "training_corpus.parquet"))
    assert corpus["pmid"].to_list() == [1, 2, 4, 5, 6, 7, 11]
    recalled = pl.read_parquet(tmp_path / "tables" / "corpus_recalls.parquet")
    assert CorpusRecall.validate(recalled).is_empty(), "nothing was published before"
    metadata = result.asset_materializations_for_node("assembled_corpus")[0].metadata
    assert metadata["pairs_evaluated"].value == 9
    assert str(metadata["branches_without_pairs"].value).startswith("113 of 115: A01, ")
