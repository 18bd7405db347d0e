"""Whether the encoder and the index are what their tables say."""

from collections.abc import Iterable

import numpy as np
import polars as pl

from mkailin_assets.retrieval.update import findable
from mkailin_resources.embeddings.checkpoint import open_encoder
from mkailin_resources.embeddings.interface import EncoderError
from mkailin_resources.index import CITATION, STATE
from mkailin_resources.storage import Storage, StorageError

_PROBES = ["Does exercise lower blood pressure?", ""]


def encoder_fault(checkpoint: pl.DataFrame, storage: Storage) -> str | None:
    """What is wrong with the encoder of a RetrieverCheckpoint row; None if it loads and encodes."""
    made = checkpoint.row(0, named=True)
    try:
        encoder = open_encoder(made["uri"], made["fingerprint"], storage)
    except (EncoderError, StorageError) as error:
        return str(error)
    expected = (len(_PROBES), made["dimension"])
    for vectors in (encoder.encode_documents(_PROBES), encoder.encode_queries(_PROBES)):
        if vectors.shape != expected or not np.isfinite(vectors).all():
            return f"the encoder gave vectors of shape {vectors.shape}, expected finite ones of {expected}"
    return None


def index_differences(contents: Iterable[pl.DataFrame], current_citations: pl.DataFrame) -> pl.DataFrame:
    """PMIDs where the index and the current citations with an abstract differ, and how (`fault`)."""
    states = [pl.DataFrame(schema={name: CITATION[name] for name in STATE}), *contents]
    held = pl.concat(states).select("pmid", indexed=pl.struct(STATE))
    counted = held.group_by("pmid").agg(pl.len().alias("times"), pl.col("indexed").first())
    wanted = findable(current_citations).rename({"home_branch": "branch"})
    wanted = wanted.select("pmid", current=pl.struct(STATE), wanted=True)
    fault = (
        pl.when(pl.col("times").is_null())
        .then(pl.lit("missing"))
        .when(pl.col("wanted").is_null())
        .then(pl.lit("no longer current"))
        .when(pl.col("times") > 1)
        .then(pl.lit("there more than once"))
        .when(pl.col("indexed").ne_missing(pl.col("current")))
        .then(pl.lit("outdated"))
    )
    both = counted.join(wanted, on="pmid", how="full", coalesce=True).select("pmid", fault=fault)
    return both.drop_nulls("fault").sort("pmid")


def vector_faults(contents: Iterable[pl.DataFrame], dimension: int) -> pl.DataFrame:
    """PMIDs of vectors with a wrong dimension, a number that is not finite, or a length not 0 or 1."""
    faults = [pl.DataFrame(schema={"pmid": pl.Int64, "dimension": pl.Int32, "length": pl.Float32})]
    for batch in contents:
        vectors = batch["vector"].to_numpy().reshape(batch.height, -1)
        length = np.linalg.norm(vectors, axis=1).astype(np.float32)
        right = (np.abs(length - 1) < 1e-3) | (length == 0)
        found = batch.select("pmid", pl.lit(vectors.shape[1], pl.Int32).alias("dimension"), length=length)
        faults.append(found if vectors.shape[1] != dimension else found.filter(~right))
    return pl.concat(faults).sort("pmid")
