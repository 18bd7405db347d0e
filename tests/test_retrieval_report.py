"""Retrieval is measured: judged data is read, questions are searched, and the report says how sure it is."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from mkailin_assets.evaluation import checks
from mkailin_assets.evaluation.assets import retrieval_report
from mkailin_assets.evaluation.judgements import (
    TITLES,
    NotJudged,
    question_titles,
    read_beir,
    sample_of,
    source_abstracts,
)
from mkailin_assets.evaluation.pubmedqa import read_pubmedqa
from mkailin_assets.evaluation.ranking import MEASURES, differences, means, measured
from mkailin_assets.evaluation.retrieval import encoders_of, leads, rank, score
from mkailin_assets.evaluation.tables import RetrievalResult
from mkailin_assets.intervals import Estimate
from mkailin_assets.partitions import pubmed_files
from mkailin_assets.pubmed.tables import CurrentCitation, PubmedRecord, pubmed_records
from mkailin_assets.retrieval.assets import context_index, retriever_checkpoint
from mkailin_assets.retrieval.pairs import is_held_out
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.embeddings.checkpoint import EncoderRecord, publish_encoder
from mkailin_resources.embeddings.corpus import CorpusEncoder
from mkailin_resources.embeddings.interface import EncoderSettings
from mkailin_resources.index import ContextStore
from mkailin_resources.storage import ParquetTables, Storage

FILE = "pubmed26n0001"
SUBJECTS = ("measles", "stroke", "asthma", "insomnia", "anaemia", "migraine", "gout", "malaria")
HELD_OUT = [pmid for pmid in range(1, 400) if is_held_out(pmid)]
TUNED_ON = [pmid for pmid in range(1, 400) if not is_held_out(pmid)]
# One of each asks, one of each states.
ASKING = {HELD_OUT[0]: "Does rest help against measles?", TUNED_ON[0]: "Does exercise prevent a stroke?"}
STATING = {HELD_OUT[1]: "Diet and asthma", TUNED_ON[1]: "Light in insomnia"}
ABSTRACTS = {
    HELD_OUT[0]: "Children with measles rested for a week and recovered sooner.",
    TUNED_ON[0]: "Adults who trained each week had a stroke less often.",
    HELD_OUT[1]: "A diet rich in fish lowered the need of asthma drugs.",
    TUNED_ON[1]: "Bright light in the morning shortened insomnia in nurses.",
}


# A folder in the form of BEIR

Lines = list[Any]
DOCUMENTS: Lines = [
    {"_id": "d1", "title": "Measles", "text": "Rest cures measles."},
    {"_id": "d2", "title": "Stroke", "text": "Training prevents a stroke."},
    {"_id": "d3", "text": "Malaria comes from mosquitoes."},
]
QUERIES: Lines = [{"_id": "q1", "text": "rest in measles"}, {"_id": "q2", "text": "preventing stroke"}]
JUDGEMENTS: Lines = ["query-id\tcorpus-id\tscore", "q1\td1\t2", "q1\td3\t0", "q2\td2\t1"]


def beir(
    folder: Path, documents: Lines = DOCUMENTS, queries: Lines = QUERIES, judgements: Lines = JUDGEMENTS
) -> Path:
    """The three files; a line that is a text is written as it is."""
    (folder / "qrels").mkdir(parents=True)
    for name, lines in (("corpus", documents), ("queries", queries)):
        written = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (folder / f"{name}.jsonl").write_text("\n".join(written))
    (folder / "qrels" / "test.tsv").write_text("\n".join(judgements) + "\n")
    return folder


def test_a_judged_folder_gives_documents_questions_and_what_answers_them(tmp_path: Path) -> None:
    judged = read_beir(beir(tmp_path / "tiny"))
    assert judged.name == "tiny"
    assert judged.documents.select("pmid", "title", "text").rows() == [
        (1, "Measles", "Measles\nRest cures measles."),
        (2, "Stroke", "Stroke\nTraining prevents a stroke."),
        (3, "", "\nMalaria comes from mosquitoes."),
    ]
    assert judged.questions == {1: "rest in measles", 2: "preventing stroke"}
    assert judged.relevant == {1: {1: 2}, 2: {2: 1}}
    assert judged.left_out == {}


def test_judgements_that_fit_nothing_are_set_aside_and_counted(tmp_path: Path) -> None:
    odd = ["q9\td1\t1", "q1\td9\t1", "q1\td1\t1", "q3\td1\t0"]
    queries = [*QUERIES, {"_id": "q3", "text": "answered by nothing"}]
    judged = read_beir(beir(tmp_path / "tiny", queries=queries, judgements=JUDGEMENTS + odd))
    assert judged.relevant == {1: {1: 2}, 2: {2: 1}}
    assert judged.left_out == {
        "judgements of a question that is not there": 1,
        "judgements of a document that is not there": 1,
        "judgements that are given twice": 1,
        "questions without a relevant document": 1,
    }


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"documents": [*DOCUMENTS, '{"_id": "d4", ']}, r"corpus\.jsonl, line 4: .*JSON"),
        ({"documents": [*DOCUMENTS, {"_id": "d4"}]}, r"corpus\.jsonl, line 4: text: Field required"),
        ({"documents": [*DOCUMENTS, DOCUMENTS[0]]}, r"corpus\.jsonl, line 4: the _id 'd1' is that of an"),
        ({"queries": [*QUERIES, ["q3"]]}, r"queries\.jsonl, line 3: "),
        ({"queries": [*QUERIES, QUERIES[1]]}, r"queries\.jsonl, line 3: the _id 'q2'"),
        ({"judgements": JUDGEMENTS[1:]}, r"test\.tsv, line 1: .*header"),
        ({"judgements": [*JUDGEMENTS, "q1 0 d2 1"]}, r"test\.tsv, line 5: 'q1 0 d2 1' is not"),
        ({"judgements": [*JUDGEMENTS, "q1\td2\thigh"]}, r"test\.tsv, line 5: .*whole number"),
        (
            {"judgements": [JUDGEMENTS[0], "q1\td3\t0", "q9\td1\t1"]},
            r"none says .*1 judgements of a question",
        ),
        ({"judgements": []}, r"none says .*there are none"),
    ],
)
def test_a_broken_judged_folder_is_refused_by_file_line_and_cause(
    tmp_path: Path, broken: dict[str, Lines], message: str
) -> None:
    with pytest.raises(NotJudged, match=message):
        read_beir(beir(tmp_path / "tiny", **broken))


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_a_missing_file_is_named_and_what_belongs_there(tmp_path: Path, name: str) -> None:
    folder = beir(tmp_path / "tiny")
    (folder / name).unlink()
    with pytest.raises(NotJudged, match=rf"{name}.*MKAILIN_RETRIEVAL_BENCHMARK.*corpus\.jsonl"):
        read_beir(folder)


def test_at_most_500_questions_are_asked_and_the_same_ones_each_time(tmp_path: Path) -> None:
    queries = [{"_id": f"q{place}", "text": f"question {place}"} for place in range(600)]
    judgements = [JUDGEMENTS[0], *(f"q{place}\td1\t1" for place in range(600))]
    judged = read_beir(beir(tmp_path / "tiny", queries=queries, judgements=judgements))
    assert (len(judged.questions), judged.left_out) == (500, {"questions beyond 500": 100})
    assert judged.relevant.keys() == judged.questions.keys()
    assert judged.questions == read_beir(tmp_path / "tiny").questions


def test_the_real_judgements_are_read(real_data: Path) -> None:
    judged = read_beir(real_data / "retrieval" / "scifact")
    assert (judged.documents.height, len(judged.questions)) == (5_183, 300)
    assert sum(map(len, judged.relevant.values())) == 339
    assert judged.left_out == {"questions without a relevant document": 809}


# The corpus and PubMedQA


def records(titles: Mapping[int, str]) -> pl.DataFrame:
    rows = [
        {
            "record": "citation",
            "position": position,
            "pmid": pmid,
            "pubmed_file": FILE,
            "title": title,
            "abstract": [
                {"label": "RESULTS", "category": "RESULTS", "text": ABSTRACTS.get(pmid, "Nothing.")}
            ],
            "content_hash": f"hash {pmid}",
        }
        for position, (pmid, title) in enumerate(titles.items())
    ]
    return PubmedRecord.validate(pubmed_records(rows))


def current(titles: Mapping[int, str]) -> pl.DataFrame:
    rows = [
        {
            "pmid": pmid,
            "state": "current",
            "pubmed_file": FILE,
            "position": position,
            "home_branch": "C01",
            "has_abstract": True,
            "content_hash": f"hash {pmid}",
        }
        for position, pmid in enumerate(titles)
    ]
    return CurrentCitation.validate(pl.DataFrame(rows, schema=CurrentCitation.create_empty().schema))


def corpus(titles: Mapping[int, str]) -> pl.DataFrame:
    citations, left_out = sample_of(current(titles), {FILE: records(titles).lazy()})
    assert left_out == {}
    return citations


def pubmedqa(path: Path, *pmids: int) -> Path:
    item = {
        "QUESTION": "Is gout more frequent after feasts?",
        "CONTEXTS": ["We asked 200 patients about feasts.", "Attacks of gout followed feasts."],
        "LABELS": ["METHODS", "RESULTS"],
        "final_decision": "yes",
        "LONG_ANSWER": "Feasts bring on gout.",
    }
    path.write_text(json.dumps({str(pmid): item for pmid in pmids}))
    return path


def test_a_source_abstract_has_neither_its_title_nor_its_conclusion(tmp_path: Path) -> None:
    judged = source_abstracts(read_pubmedqa(pubmedqa(tmp_path / "pqa.json", 900)), corpus(STATING))
    assert judged.name == "source abstracts of pqa"
    assert judged.questions == {900: "Is gout more frequent after feasts?"}
    assert judged.relevant == {900: {900: 1}}
    assert judged.documents.filter(pmid=900).select("title", "text").row(0) == (
        "",
        "\nMETHODS: We asked 200 patients about feasts.\nRESULTS: Attacks of gout followed feasts.",
    )
    assert judged.documents.height == 1 + len(STATING)


def test_a_citation_that_is_an_item_of_the_benchmark_does_not_stand_there_twice(tmp_path: Path) -> None:
    item = next(iter(STATING))
    judged = source_abstracts(read_pubmedqa(pubmedqa(tmp_path / "pqa.json", 900, item)), corpus(STATING))
    assert judged.documents["pmid"].is_unique().all()
    assert "feasts" in judged.documents.filter(pmid=item).item(0, "text")
    assert judged.left_out == {"citations that are items themselves": 1}


def test_a_title_that_asks_is_taken_from_the_abstract_that_answers_it() -> None:
    judged = question_titles(corpus(ASKING | STATING), tuned=False)
    assert judged.questions == ASKING
    assert judged.relevant == {pmid: {pmid: 1} for pmid in ASKING}
    texts = dict(judged.documents.select("pmid", "text").iter_rows())
    for pmid in ASKING:
        assert texts[pmid] == f"\nRESULTS: {ABSTRACTS[pmid]}"
    for pmid, title in STATING.items():
        assert texts[pmid] == f"{title}\nRESULTS: {ABSTRACTS[pmid]}"


def test_a_tuned_encoder_is_not_asked_titles_it_may_have_been_tuned_on() -> None:
    judged = question_titles(corpus(ASKING | STATING), tuned=True)
    assert list(judged.questions) == [HELD_OUT[0]]
    assert judged.left_out == {"titles that an encoder may be tuned on": 1}
    assert judged.documents.filter(pmid=TUNED_ON[0]).item(0, "title") == ASKING[TUNED_ON[0]]


def test_a_title_that_several_citations_have_asks_for_none_of_them() -> None:
    asked = "What is the diagnosis here?"
    judged = question_titles(corpus({901: asked, 902: asked} | STATING), tuned=False)
    assert (judged.questions, judged.left_out) == ({}, {"titles that several citations have": 2})


def test_the_sample_begins_with_what_no_encoder_is_tuned_on_and_counts_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mkailin_assets.evaluation.judgements.MOST_CITATIONS", len(HELD_OUT))
    titles = {pmid: "A study" for pmid in HELD_OUT + TUNED_ON}
    citations, left_out = sample_of(current(titles), {FILE: records(titles).lazy()})
    beyond = {f"citations beyond {len(HELD_OUT)}": len(TUNED_ON)}
    assert citations["pmid"].to_list() == HELD_OUT
    assert left_out == beyond
    unread = {"citations without text in the parsed files": len(HELD_OUT)}
    assert sample_of(current(titles), {})[1] == beyond | unread


# Measures


def test_measures_are_those_computed_by_hand() -> None:
    [row] = measured({7: [5, 11, 10]}, {7: {10: 2, 11: 1}}).to_dicts()
    gain, ideal = 1 / math.log2(3) + 2 / math.log2(4), 2 / math.log2(2) + 1 / math.log2(3)
    assert row == {
        "question": 7,
        "recall_1": 0,
        "recall_4": 1,
        "recall_10": 1,
        "mrr_10": 0.5,
        "ndcg_10": pytest.approx(gain / ideal),
    }


def test_what_comes_after_the_tenth_counts_nothing() -> None:
    [row] = measured({1: [*range(100, 110), 5]}, {1: {5: 1}}).drop("question").to_dicts()
    assert row == dict.fromkeys(MEASURES, 0.0)


@pytest.mark.parametrize("found", [{1: [5], 2: []}, {1: [5]}])
def test_a_question_that_nothing_is_found_for_counts_0(found: dict[int, list[int]]) -> None:
    scores = measured(found, {1: {5: 1}, 2: {6: 1}})
    assert scores.select("question", "recall_4", "ndcg_10").rows() == [(1, 1.0, 1.0), (2, 0.0, 0.0)]
    assert means(scores)["recall_10"].value == 0.5


def test_a_mean_and_a_lead_have_the_interval_of_their_questions() -> None:
    relevant = {question: {question: 1} for question in range(200)}
    half = {question: [question] if question % 2 else [-1] for question in relevant}
    ours, theirs = measured({q: [q] for q in relevant}, relevant), measured(half, relevant)
    found = means(theirs)["recall_1"]
    error = 1.96 * math.sqrt(0.25 / 200)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5 - error, 0.5 + error), abs=0.011)
    assert differences(ours, theirs)["recall_1"].value == 0.5
    assert differences(ours, ours)["ndcg_10"] == Estimate(0.0, 0.0, 0.0)


# The asset


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("judged")
    return pubmedqa(root / "pqa.json", 900), beir(root / "tiny")


def materialize(
    root: Path, benchmarks: BenchmarkFiles, titles: Mapping[int, str]
) -> dg.ExecuteInProcessResult:
    storage = Storage(root=str(root))
    storage.write_table(current(titles), "current_citations")
    storage.write_table(records(titles), "pubmed_citations", FILE)
    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions("pubmed_files", [FILE])
    return dg.materialize(
        [
            dg.AssetSpec("current_citations"),
            dg.AssetSpec("pubmed_citations", partitions_def=pubmed_files),
            retriever_checkpoint,
            context_index,
            retrieval_report,
            checks.measures_lie_within_their_intervals,
            checks.every_retriever_is_measured_on_every_set,
            checks.the_retriever_in_use_is_not_worse_than_the_best,
        ],
        instance=instance,
        resources={
            "io_manager": ParquetTables(storage=storage),
            "storage": storage,
            "context_store": ContextStore(storage=storage, retriever="hybrid"),
            "encoder": EncoderSettings(),
            "benchmarks": benchmarks,
        },
    )


@pytest.fixture(scope="module")
def materialized(
    tmp_path_factory: pytest.TempPathFactory, folders: tuple[Path, Path]
) -> tuple[dg.ExecuteInProcessResult, Path]:
    root = tmp_path_factory.mktemp("storage")
    benchmarks = BenchmarkFiles(pubmedqa=str(folders[0]), retrieval=str(folders[1]))
    return materialize(root, benchmarks, ASKING | STATING), root


def test_the_report_measures_each_retriever_on_each_set(
    materialized: tuple[dg.ExecuteInProcessResult, Path],
) -> None:
    run, root = materialized
    results = RetrievalResult.validate(run.output_for_node("retrieval_report"))
    sets = ["tiny", "source abstracts of pqa", TITLES]
    assert results.select("judged_set", "retriever").rows() == [
        (name, retriever) for name in sets for retriever in ("lexical", "dense", "hybrid")
    ]
    assert results.select("questions", "documents").unique(maintain_order=True).rows() == [
        (2, 3),
        (1, 5),
        (2, 4),
    ]
    assert results.filter(retriever="lexical")["encoder"].null_count() == len(sets)
    # Each question shares its rare words with its answer alone.
    assert results.filter(retriever="lexical")["recall_1"].to_list() == [1.0, 1.0, 1.0]
    assert all(check.passed for check in run.get_asset_check_evaluations())
    text = (root / "reports" / "retrieval_report.md").read_text()
    assert "## source abstracts of pqa" in text
    assert "| lexical | 1.000 (1.000 to 1.000) |" in text
    assert "| hybrid - dense |" in text


def test_the_metadata_shows_scores_leads_and_whether_the_best_is_in_use(
    materialized: tuple[dg.ExecuteInProcessResult, Path],
) -> None:
    metadata = materialized[0].asset_materializations_for_node("retrieval_report")[0].metadata
    assert metadata["ndcg_10"].value.startswith("![nDCG@10, 95% intervals")
    assert "| tiny | hybrid - lexical |" in metadata["differences"].value
    assert "| tiny | lexical |" in metadata["results"].value
    assert metadata["retriever_in_use"].value == "hybrid"
    assert metadata["is_it_the_best"].value["tiny"] == "hybrid is in use, the best one measured"
    assert metadata["not_measured"].value == {}


def test_without_a_folder_and_without_questions_the_report_says_what_is_missing(
    tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    run = materialize(tmp_path, BenchmarkFiles(pubmedqa=str(folders[0])), STATING)
    assert set(run.output_for_node("retrieval_report")["judged_set"]) == {"source abstracts of pqa"}
    missing = run.asset_materializations_for_node("retrieval_report")[0].metadata["not_measured"].value
    assert "MKAILIN_RETRIEVAL_BENCHMARK" in missing["judged folder"]
    assert "no title" in missing[TITLES]
    assert missing["judged folder"] in (tmp_path / "reports" / "retrieval_report.md").read_text()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[pl.DataFrame, Storage]:
    """A checkpoint that says it was tuned: two encoders, of which the base knows no word of the questions."""
    storage = Storage(root=str(tmp_path_factory.mktemp("tuned")))
    texts = [line["text"] for line in [*DOCUMENTS, *QUERIES]]
    tuned, base = CorpusEncoder.learn(texts), CorpusEncoder.learn(["unrelated words", "other ones"])
    record = EncoderRecord(kind="corpus", name="corpus")
    row = {
        "uri": publish_encoder(tuned, record, storage),
        "fingerprint": tuned.fingerprint,
        "base_uri": publish_encoder(base, record, storage),
        "base_fingerprint": base.fingerprint,
    }
    return pl.DataFrame([row]), storage


def test_a_tuned_encoder_is_measured_beside_its_base(
    checkpoint: tuple[pl.DataFrame, Storage], folders: tuple[Path, Path]
) -> None:
    made, storage = checkpoint
    rankings = rank(read_beir(folders[1]), encoders_of(made, storage), storage, lambda line: None)
    results = score(rankings)
    assert dict(results.select("retriever", "encoder").iter_rows()) == {
        "lexical": None,
        "dense": made.item(0, "base_fingerprint"),
        "hybrid": made.item(0, "base_fingerprint"),
        "tuned dense": made.item(0, "fingerprint"),
        "tuned hybrid": made.item(0, "fingerprint"),
    }
    gained = leads(rankings).filter(difference="tuned dense - dense")
    assert gained.select("recall_1", "recall_1_low").row(0) == (1.0, 1.0)


def test_an_encoder_whose_tuning_was_refused_is_measured_once(
    checkpoint: tuple[pl.DataFrame, Storage],
) -> None:
    made, storage = checkpoint
    refused = made.with_columns(base_uri="uri", base_fingerprint="fingerprint")
    never = made.with_columns(base_uri=pl.lit(None), base_fingerprint=pl.lit(None))
    for row in (refused, never):
        assert [encoder.fingerprint for encoder in encoders_of(row, storage).values()] == [
            made.item(0, "fingerprint")
        ]


def test_a_report_made_again_embeds_no_document_again(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    judged, storage = read_beir(folders[1]), Storage(root=str(tmp_path))
    learnt = CorpusEncoder.learn(judged.documents["text"].to_list())
    embedded: list[str] = []

    class Counting:
        fingerprint, dimension = learnt.fingerprint, learnt.dimension
        encode_queries = staticmethod(learnt.encode_queries)

        def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
            embedded.extend(texts)
            return learnt.encode_documents(texts)

    encoder = Counting()
    first = score(rank(judged, {"": encoder}, storage, lambda line: None))
    assert sorted(embedded) == judged.documents["text"].sort().to_list()
    embedded.clear()
    assert score(rank(judged, {"": encoder}, storage, lambda line: None)).equals(first)
    assert embedded == []


# Checks


@pytest.fixture
def results(materialized: tuple[dg.ExecuteInProcessResult, Path]) -> pl.DataFrame:
    return materialized[0].output_for_node("retrieval_report")


def test_a_measure_outside_its_interval_fails_its_check(results: pl.DataFrame) -> None:
    broken = results.with_columns(ndcg_10=pl.lit(0.5), ndcg_10_low=pl.lit(0.6))
    result = checks.measures_lie_within_their_intervals(broken)
    assert not result.passed
    assert "lexical under tiny" in str(result.description)


def test_a_retriever_that_is_missing_on_a_set_fails_its_check(results: pl.DataFrame) -> None:
    check = checks.every_retriever_is_measured_on_every_set
    missing = results.filter((pl.col("judged_set") != "tiny") | (pl.col("retriever") != "dense"))
    assert check(missing).description == "not measured: dense on tiny"
    assert not check(results.clear()).passed


def test_a_retriever_in_use_that_another_one_beats_is_warned_of(
    results: pl.DataFrame, tmp_path: Path
) -> None:
    check = checks.the_retriever_in_use_is_not_worse_than_the_best
    store = ContextStore(storage=Storage(root=str(tmp_path)), retriever="dense")
    low, high = {"ndcg_10": 0.3, "ndcg_10_high": 0.4}, {"ndcg_10": 0.9, "ndcg_10_high": 1.0}
    tiny = results.filter(judged_set="tiny")
    apart = tiny.with_columns(
        pl.when(pl.col("retriever") == "dense").then(low[name]).otherwise(high[name]).alias(name)
        for name in low
    )
    result = check(apart, context_store=store)
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert result.description == "tiny: dense at most 0.400, lexical 0.900"
    near = apart.with_columns(ndcg_10_high=pl.lit(1.0))
    assert check(near, context_store=store).passed
    # Where the encoder was tuned, it is the tuned one that is in use.
    tuned = apart.with_columns(retriever=pl.col("retriever").replace({"hybrid": "tuned dense"}))
    assert check(tuned, context_store=store).passed
