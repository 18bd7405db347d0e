"""Checks on the retrieval stage."""

import dagster as dg
import polars as pl

from mkailin_assets.metadata import none_may_be, preview
from mkailin_assets.retrieval.assets import context_index, retriever_checkpoint
from mkailin_assets.retrieval.inspection import encoder_fault, index_differences, vector_faults
from mkailin_resources.index import ContextStore
from mkailin_resources.storage import Storage


@dg.asset_check(asset=retriever_checkpoint)
def encoder_loads_and_encodes(retriever_checkpoint: pl.DataFrame, storage: Storage) -> dg.AssetCheckResult:
    """The encoder loads, is the one recorded, and gives finite vectors of its dimension."""
    fault = encoder_fault(retriever_checkpoint, storage)
    return dg.AssetCheckResult(passed=fault is None, description=fault or "the encoder loads and encodes")


@dg.asset_check(asset=retriever_checkpoint)
def tuning_does_not_harm(retriever_checkpoint: pl.DataFrame) -> dg.AssetCheckResult:
    """A tuned encoder finds held-out abstracts at least as well as its base; else the base is current."""
    made = retriever_checkpoint.row(0, named=True)
    if made["tuned_mrr"] is None:
        return dg.AssetCheckResult(passed=True, description="no encoder was tuned")
    better = made["tuned_mrr"] >= made["base_mrr"]
    return dg.AssetCheckResult(
        passed=better,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"MRR@10 on {made['held_out_pairs']} held-out pairs: tuned {made['tuned_mrr']:.3f}, "
        f"base {made['base_mrr']:.3f}; the {'tuned' if better else 'base'} encoder is current",
        metadata={"base": made["base_mrr"], "tuned": made["tuned_mrr"]},
    )


@dg.asset_check(asset=context_index, additional_ins={"current_citations": dg.AssetIn()})
def index_holds_the_current_citations(
    context_index: pl.DataFrame, current_citations: pl.DataFrame, context_store: ContextStore
) -> dg.AssetCheckResult:
    """Searches find exactly the current citations with an abstract, each with its current content."""
    wrong = index_differences(context_store.contents(context_index), current_citations)
    return none_may_be(wrong, "citations missing, outdated, there twice or there no longer")


@dg.asset_check(asset=context_index, additional_ins={"retriever_checkpoint": dg.AssetIn()})
def index_vectors_are_the_encoders(
    context_index: pl.DataFrame, retriever_checkpoint: pl.DataFrame, context_store: ContextStore
) -> dg.AssetCheckResult:
    """Every vector is finite, of the encoder's dimension, and of length 1 or zero."""
    held = context_store.contents(context_index, ("pmid", "vector"))
    wrong = vector_faults(held, retriever_checkpoint.item(0, "dimension"))
    return none_may_be(wrong, "vectors that the encoder cannot have made")


@dg.asset_check(asset=context_index)
def citations_have_vectors(context_index: pl.DataFrame, context_store: ContextStore) -> dg.AssetCheckResult:
    """Dense search can find every citation; where the encoder failed on one, its words alone find it."""
    held = context_store.contents(context_index, ("pmid", "vector_fault"))
    none = pl.DataFrame(schema={"pmid": pl.Int64, "vector_fault": pl.String})
    wrong = pl.concat([none, *(batch.drop_nulls("vector_fault") for batch in held)])
    return dg.AssetCheckResult(
        passed=wrong.is_empty(),
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{wrong.height} citations without a sound vector",
        metadata={"rows": wrong.height, "first": preview(wrong, rows=20)},
    )
