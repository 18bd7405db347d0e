"""The evaluation stage: what the models know, what searches find, and what evaluators prefer."""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import dagster as dg
import polars as pl
from pydantic import Field

from mkailin_assets.evaluation import audit, retrieval
from mkailin_assets.evaluation import benchmark as report
from mkailin_assets.evaluation.answers import Answers, answers_of
from mkailin_assets.evaluation.baselines import baselines
from mkailin_assets.evaluation.benchmark_files import benchmark_items
from mkailin_assets.evaluation.benchmark_pictures import pictures
from mkailin_assets.evaluation.contamination import recheck, strangers
from mkailin_assets.evaluation.contestants import contestants
from mkailin_assets.evaluation.items import asked_items
from mkailin_assets.evaluation.judgements import JudgedSets, judged_sets, sample_of
from mkailin_assets.evaluation.predict import predict_with_generator
from mkailin_assets.evaluation.pubmedqa import read_pubmedqa
from mkailin_assets.evaluation.rules import EvaluationRules
from mkailin_assets.evaluation.scores import comparisons, results
from mkailin_assets.evaluation.tables import (
    BenchmarkAnswer,
    BenchmarkComparison,
    BenchmarkResult,
    EvaluatorAudit,
    RetrievalResult,
)
from mkailin_assets.generations import generation_metadata
from mkailin_assets.gpu import ON_GPU
from mkailin_assets.mesh.hierarchy import MeshHierarchy
from mkailin_assets.metadata import counts, intervals, picture, preview
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
    **table(BenchmarkAnswer),
    **ON_GPU,
    group_name="evaluation",
    kinds={"pytorch", "huggingface"},
    code_version="2",
)
def benchmark_answers(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    context: dg.AssetExecutionContext,
    training_corpus: pl.LazyFrame,
    pretrained_checkpoint: pl.DataFrame,
    finetuned_checkpoint: pl.DataFrame,
    benchmarks: BenchmarkFiles,
    answer_model: dg.ResourceParam[TextGenerator],
    evaluation_rules: dg.ResourceParam[EvaluationRules],
    vllm_arguments: dg.ResourceParam[Mapping[str, Any]],
    generation: Generation,
    storage: Storage,
) -> dg.Output[pl.DataFrame]:
    """What base, pre-trained and fine-tuned model, and the agent that answers, say to every item."""
    asked_for = asked_items(benchmarks, training_corpus)
    items = asked_for.table
    uris = pl.concat([pretrained_checkpoint, finetuned_checkpoint])["uri"]
    asked = [
        answers_of(
            contestant,
            items,
            storage,
            rules=evaluation_rules,
            vllm=vllm_arguments,
            log=context.log.info,
        )
        for contestant in contestants([storage.local_folder(uri) for uri in uris])
    ]
    # What an agent fails on is a result here, not a fault of the run.
    ask = generation.asking(context, max_failed_share=1.0)
    of_agent = predict_with_generator(answer_model, items, ask)
    answers = pl.concat([*(one.table for one in asked), of_agent])
    return dg.Output(
        answers,
        metadata={
            **_answer_metadata(answers, asked),
            **generation_metadata(ask.tallies, generation),
            "not_measured": asked_for.skipped,
        },
    )


def _written(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def _harness() -> str:
    return f"lm-evaluation-harness {version('lm-eval')}"


def _answer_metadata(answers: pl.DataFrame, asked: Sequence[Answers]) -> dict[str, Any]:
    cut = {f"{one.table['model'][0]}: {task}": count for one in asked for task, count in one.cut.items()}
    return {
        "items": answers.unique(["benchmark", "item"]).height,
        "answers": counts(answers, "model"),
        "tasks": counts(answers, "task"),
        "tasks_asked_now": sum(one.asked for one in asked),
        "tasks_asked_before": sum(one.reused for one in asked),
        "cut_to_fit": cut,
        "failures": counts(answers.drop_nulls("failure"), "failure"),
        "harness": _harness(),
    }


@dg.multi_asset(
    outs={
        "benchmark_report": dg.AssetOut(
            **table(BenchmarkResult),
            description="Whether the corpus helped: scores of all models and baselines, with 95% intervals.",
            group_name="evaluation",
            kinds={"polars"},
            code_version="3",
        ),
        "benchmark_comparisons": dg.AssetOut(
            **table(BenchmarkComparison),
            description="How far a model is ahead of another on the same items, with 95% intervals.",
            group_name="evaluation",
            kinds={"polars"},
            code_version="2",
        ),
    },
)
def scored_benchmarks(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    benchmark_answers: pl.DataFrame,
    training_corpus: pl.LazyFrame,
    pretrained_checkpoint: pl.DataFrame,
    finetuned_checkpoint: pl.DataFrame,
    benchmarks: BenchmarkFiles,
    storage: Storage,
) -> Iterator[dg.Output[pl.DataFrame]]:
    """Scores and differences, the contamination of the benchmarks, and the report on all of it."""
    asked_for = asked_items(benchmarks, training_corpus)
    items = asked_for.table
    answers = pl.concat([benchmark_answers, baselines(benchmark_answers, items)])
    checkpoints = pl.concat([pretrained_checkpoint, finetuned_checkpoint])
    others = strangers(training_corpus, checkpoints)
    checked = recheck(training_corpus, items, benchmark_items(benchmarks).table, others)
    evaluated = report.Evaluated(
        answers=answers,
        results=results(answers, items, checked.leaks),
        comparisons=comparisons(answers, items, checked.leaks),
        recheck=checked,
        checkpoints=checkpoints,
        harness=_harness(),
        skipped=asked_for.skipped,
    )
    drawn = pictures(evaluated.results)
    for name, content in report.files(evaluated, drawn).items():
        storage.publish_file(storage.path("reports", name), partial(_written, content))
    about: dict[str, Any] = {
        "contamination": report.contamination_verdict(checked),
        "did_the_corpus_help": str(report.corpus_verdict(evaluated.comparisons, checked)),
        "report": dg.MetadataValue.path(str(storage.path("reports", report.REPORT))),
    }
    shown = {one.name.removesuffix(".png"): picture(one.png, one.alt) for one in drawn}
    all_items = pl.col("cohort") == "all"
    yield dg.Output(
        evaluated.results,
        "benchmark_report",
        metadata=about | shown | {"results": preview(evaluated.results.filter(all_items), rows=200)},
    )
    yield dg.Output(
        evaluated.comparisons,
        "benchmark_comparisons",
        metadata=about | {"comparisons": preview(evaluated.comparisons.filter(all_items), rows=200)},
    )


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
