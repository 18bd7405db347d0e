"""The retrieval stage: the encoder and the searchable index over all current citations."""

import time
from typing import Any

import dagster as dg
import polars as pl

from mkailin_assets.evaluation.benchmark_files import benchmark_items
from mkailin_assets.freshness import FIXED_TAG
from mkailin_assets.gpu import ON_GPU
from mkailin_assets.metadata import bars, counts, curves, preview
from mkailin_assets.partitions import ALL_PARTITIONS
from mkailin_assets.retrieval.checkpoint import (
    Tuned,
    learnt_checkpoint,
    named_checkpoint,
    tuned_checkpoint,
)
from mkailin_assets.retrieval.tables import ContextIndex, RetrieverCheckpoint
from mkailin_assets.retrieval.update import findable, sample_search, update_index
from mkailin_assets.tables import table
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.embeddings.interface import LEARNT, EncoderSettings
from mkailin_resources.index import ContextStore, IndexUpdate
from mkailin_resources.storage import Storage


@dg.asset(
    **table(RetrieverCheckpoint),
    **ON_GPU,
    ins={"pubmed_citations": ALL_PARTITIONS},
    group_name="retrieval",
    kinds={"scikitlearn", "huggingface"},
    tags={FIXED_TAG: ""},
    code_version="2",
)
def retriever_checkpoint(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    context: dg.AssetExecutionContext,
    current_citations: pl.DataFrame,
    pubmed_citations: dict[str, pl.LazyFrame],
    encoder: EncoderSettings,
    benchmarks: BenchmarkFiles,
    storage: Storage,
) -> dg.Output[pl.DataFrame]:
    """The encoder of questions and citations: learnt from the citations, or named, and tuned on them."""
    began = time.perf_counter()
    metadata: dict[str, Any] = {}
    if encoder.name == LEARNT:
        checkpoint = learnt_checkpoint(encoder, current_citations, pubmed_citations, storage)
    elif encoder.tuning is None:
        checkpoint = named_checkpoint(encoder, storage)
    else:
        tuned = tuned_checkpoint(
            encoder,
            current_citations,
            pubmed_citations,
            benchmark_items(benchmarks).table,
            storage=storage,
            log=context.log.info,
        )
        checkpoint, metadata = tuned.row, _tuning_metadata(tuned)
    metadata |= {"seconds": time.perf_counter() - began, "preview": preview(checkpoint)}
    return dg.Output(checkpoint, metadata=metadata)


@dg.asset(
    **table(ContextIndex),
    **ON_GPU,
    ins={"pubmed_citations": ALL_PARTITIONS},
    group_name="retrieval",
    kinds={"lancedb"},
    code_version="2",
)
def context_index(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    context: dg.AssetExecutionContext,
    retriever_checkpoint: pl.DataFrame,
    current_citations: pl.DataFrame,
    pubmed_citations: dict[str, pl.LazyFrame],
    context_store: ContextStore,
    storage: Storage,
) -> dg.Output[pl.DataFrame]:
    """The searchable index over all current citations, dense and lexical, updated by what changed."""
    began = time.perf_counter()
    recorded = storage.read_table("context_index")
    index, done = update_index(
        context_store, retriever_checkpoint, current_citations, pubmed_citations, recorded, context.log.info
    )
    seconds = time.perf_counter() - began
    metadata = _index_metadata(current_citations, done, seconds)
    found = sample_search(context_store, index, findable(current_citations)["pmid"].bottom_k(1))
    return dg.Output(index, metadata=metadata | {"sample_search": preview(found)})


def _tuning_metadata(tuned: Tuned) -> dict[str, Any]:
    record, verdict = tuned.record, tuned.verdict
    steps, losses = zip(*record.course.curve.train, strict=True)
    found = [{"encoder": name, **getattr(verdict, name).model_dump()} for name in ("base", "tuned")]
    asked = tuned.pairs.filter(pl.col("reason").is_null())
    return {
        "verdict": str(verdict),
        "held_out": preview(pl.DataFrame(found)),
        "loss": curves(
            "Loss of the fine-tuning", {"training": (steps, losses)}, x="optimizer step", y="nats"
        ),
        "pairs": record.pairs,
        "left_out": counts(tuned.pairs.drop_nulls("reason"), "reason"),
        "steps": record.course.steps,
        "training_seconds": round(record.course.seconds, 1),
        "resumed_at": record.course.resumed_at or "no",
        "examples": preview(asked.select("pmid", "source", "question", "text"), rows=10),
    }


def _index_metadata(current_citations: pl.DataFrame, done: IndexUpdate, seconds: float) -> dict[str, Any]:
    held = findable(current_citations)
    left_out = current_citations.join(held, on="pmid", how="anti")
    return {
        "citations": done.citations,
        "added": done.added,
        "replaced": done.replaced,
        "removed": done.removed,
        "embedded": done.embedded,
        "embedded_per_second": round(done.embedded / max(done.embedding_seconds, 1e-9), 1),
        "without_vector": preview(done.unembedded, rows=20),
        "left_out": {**counts(left_out, "state"), "without text in the parsed files": len(done.unread)},
        "seconds": seconds,
        "citations_per_second": round((done.added + done.replaced) / seconds, 1),
        "branches": bars("Citations in the index by home branch", counts(held, "home_branch")),
    }
