"""The evaluation stage: what the models know, what searches find, and what evaluators prefer."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from mkailin_assets.evaluation import audit, retrieval
from mkailin_assets.evaluation import benchmark as report
from mkailin_assets.evaluation.judgements import JudgedSets, judged_sets, sample_of
from mkailin_assets.evaluation.pubmedqa import Benchmark, read_pubmedqa
from mkailin_assets.evaluation.tables import BenchmarkResult, EvaluatorAudit, RetrievalResult
from mkailin_assets.generations import generation_metadata
from mkailin_assets.gpu import ON_GPU
from mkailin_assets.mesh.hierarchy import MeshHierarchy
from mkailin_assets.metadata import intervals, preview
from mkailin_assets.partitions import ALL_PARTITIONS
from mkailin_assets.preferences import evaluating
from mkailin_assets.preferences.cold_start import ColdStartRules
from mkailin_assets.tables import table
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.generation import Generation
from mkailin_resources.index import ContextStore
from mkailin_resources.models.interface import TextGenerator
from mkailin_resources.storage import Storage
from mkailin_resources.trainees import Trainees


@dg.asset(
    **table(BenchmarkResult),
    **ON_GPU,
    group_name="evaluation",
    kinds={"pytorch", "polars"},
    code_version="1",
)
def benchmark_report(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    context: dg.AssetExecutionContext,
    finetuned_checkpoint: pl.DataFrame,
    storage: Storage,
    benchmarks: BenchmarkFiles,
    answer_model: dg.ResourceParam[TextGenerator],
    generation: Generation,
) -> dg.Output[pl.DataFrame]:
    """Accuracy and macro-F1 of majority, answerer, base and fine-tuned model, with 95% intervals."""
    start = time.perf_counter()
    benchmark = read_pubmedqa(benchmarks.pubmedqa)
    uri, trained_from = finetuned_checkpoint.select("uri", "base_model").row(0)
    # What a model fails on is a result here, and counts as maybe.
    ask = generation.asking(context, max_failed_share=1.0)
    predictions = report.predict_all(benchmark, storage.local_folder(uri), answer_model, ask)
    text = report.render(benchmark, predictions, trained=f"{uri} ({trained_from})")
    path = storage.publish_file(
        storage.path("reports", "benchmark_report.md"), lambda file: file.write(text.encode())
    )
    results = report.score(benchmark, predictions)
    return dg.Output(
        results,
        metadata={
            "report": dg.MetadataValue.path(str(path)),
            "seconds": round(time.perf_counter() - start, 1),
            **generation_metadata(ask.tallies, generation),
            **_result_metadata(benchmark, predictions, results),
        },
    )


def _result_metadata(
    benchmark: Benchmark, predictions: list[report.Predictions], results: pl.DataFrame
) -> dict[str, Any]:
    accuracy = {
        f"{model}, {protocol}": (value, low, high)
        for model, protocol, value, low, high in results.select(
            "model", "protocol", "accuracy", "accuracy_low", "accuracy_high"
        ).iter_rows()
    }
    gains = [
        (protocol, score, lead.value, lead.low, lead.high)
        for protocol, leads in report.gains(benchmark, predictions).items()
        for score, lead in leads.items()
    ]
    gained = pl.DataFrame(gains, schema=["protocol", "score", "difference", "low", "high"], orient="row")
    return {
        "read_this_first": report.READ_THIS_FIRST,
        "accuracy": intervals(f"Accuracy on {benchmark.name}, 95% intervals", accuracy),
        "items": len(benchmark.items),
        "refused_items": benchmark.refused,
        "failures": report.failures(predictions),
        "finetuned_minus_base": preview(gained, rows=gained.height),
        "results": preview(results, rows=results.height),
    }


@dg.asset(
    **table(RetrievalResult),
    **ON_GPU,
    ins={"pubmed_citations": ALL_PARTITIONS},
    deps=["context_index"],
    group_name="evaluation",
    kinds={"lancedb", "polars"},
    code_version="1",
)
def retrieval_report(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    context: dg.AssetExecutionContext,
    retriever_checkpoint: pl.DataFrame,
    current_citations: pl.DataFrame,
    pubmed_citations: dict[str, pl.LazyFrame],
    storage: Storage,
    context_store: ContextStore,
    benchmarks: BenchmarkFiles,
) -> dg.Output[pl.DataFrame]:
    """Recall, MRR and nDCG of lexical, dense and hybrid search on judged data, with 95% intervals."""
    start = time.perf_counter()
    encoders = retrieval.encoders_of(retriever_checkpoint, storage)
    judged = judged_sets(current_citations, pubmed_citations, benchmarks, tuned=len(encoders) > 1)
    rankings = [
        ranking for one in judged.sets for ranking in retrieval.rank(one, encoders, storage, context.log.info)
    ]
    results, ahead = retrieval.score(rankings), retrieval.leads(rankings)
    text = retrieval.render(judged, results, ahead, context_store.retriever)
    path = storage.publish_file(
        storage.path("reports", "retrieval_report.md"), lambda file: file.write(text.encode())
    )
    metadata = {
        "report": dg.MetadataValue.path(str(path)),
        "seconds": round(time.perf_counter() - start, 1),
        **_retrieval_metadata(judged, results, ahead, context_store.retriever),
    }
    return dg.Output(results, metadata=metadata)


def _retrieval_metadata(
    judged: JudgedSets, results: pl.DataFrame, ahead: pl.DataFrame, retriever: str
) -> dict[str, Any]:
    gained = {
        f"{one}, {name}": (value, low, high)
        for one, name, value, low, high in results.select(
            "judged_set", "retriever", "ndcg_10", "ndcg_10_low", "ndcg_10_high"
        ).iter_rows()
    }
    return {
        "read_this_first": retrieval.READ_THIS_FIRST,
        "retriever_in_use": retriever,
        "is_it_the_best": retrieval.verdicts(results, retriever),
        "ndcg_10": intervals("nDCG@10, 95% intervals", gained),
        "results": preview(retrieval.readable(results), rows=results.height),
        "differences": preview(retrieval.readable(ahead, "+.3f"), rows=ahead.height),
        "left_out": judged.left_out,
        "not_measured": judged.absent,
    }


class AuditConfig(dg.Config):
    """How the trials of the audit are drawn and their contexts found."""

    seed: int = Field(20, description="Seed of the order in which questions stand against one another")
    k: int = Field(4, ge=1, le=20, description="Contexts of a question, at most")


@dg.asset(
    **table(EvaluatorAudit),
    **ON_GPU,
    ins={"pubmed_citations": ALL_PARTITIONS},
    group_name="evaluation",
    kinds={"lancedb", "polars"},
    code_version="1",
)
def evaluator_audit(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    context: dg.AssetExecutionContext,
    evaluator_checkpoint: pl.DataFrame,
    retriever_checkpoint: pl.DataFrame,
    current_citations: pl.DataFrame,
    pubmed_citations: dict[str, pl.LazyFrame],
    mesh_descriptors: pl.DataFrame,
    mesh_information_content: pl.DataFrame,
    context_store: ContextStore,
    benchmarks: BenchmarkFiles,
    generation: Generation,
    trainees: dg.ResourceParam[Trainees],
    mesh_rules: dg.ResourceParam[ColdStartRules],
    storage: Storage,
    config: AuditConfig,
) -> dg.Output[pl.DataFrame]:
    """How often the evaluators prefer a document's real question to one asked of another document."""
    hierarchy = MeshHierarchy.from_descriptors(mesh_descriptors)
    encoders = retrieval.encoders_of(retriever_checkpoint, storage)
    encoder = encoders.get(retrieval.TUNED, encoders[""])
    made, ask = evaluator_checkpoint.row(0, named=True), generation.asking(context)
    learnt = evaluating.judge_of(made, trainees, storage, ask) if made["kind"] != "cold_start" else None
    citations, _ = sample_of(current_citations, pubmed_citations)
    benchmark = read_pubmedqa(benchmarks.pubmedqa)
    tuned = len(encoders) > 1 or made["pairs"] > 0
    tables = []
    for source, judged in audit.audited_sets(benchmark, citations, hierarchy, tuned).items():
        trials = audit.trials_of(judged, config.seed)
        context.log.info(f"{source}: {trials['reason'].null_count():,} trials")
        with TemporaryDirectory() as folder:
            searcher = context_store.over(judged.documents, encoder, Path(folder))
            contexts = audit.trial_contexts(trials, judged, searcher, config.k)
        told = audit.cold_start_judgements(trials, contexts, hierarchy, mesh_information_content, mesh_rules)
        if learnt:
            told.append(audit.judgement_of(made["evaluator"], learnt, trials, contexts, judged.documents))
        tables.append(audit.evaluator_audit(source, trials, told))
    audited = pl.concat(tables)
    metadata = _audit_metadata(audited) | (
        generation_metadata(ask.tallies, generation) if ask.tallies else {}
    )
    return dg.Output(audited, metadata=metadata)


def _audit_metadata(audited: pl.DataFrame) -> dict[str, Any]:
    pictures = {
        f"{source} {distractor}".replace(" ", "_"): intervals(
            f"{source}, {distractor}",
            {row["judge"]: (row["accuracy"], row["low"], row["high"]) for row in rows.to_dicts()},
        )
        for (source, distractor), rows in audited.drop_nulls("accuracy").group_by(
            "source", "distractor", maintain_order=True
        )
    }
    return {
        "read_this_first": "Share of documents whose real question is preferred, with 95% intervals",
        **pictures,
        "audit": preview(audited, rows=audited.height),
    }
