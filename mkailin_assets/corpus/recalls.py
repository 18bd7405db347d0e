"""What PubMed took back of a corpus: the ledger of what was published, and the recalls of its rows.

A corpus is overwritten by the next one. What stays of each is its ledger: the keys of its rows and the
citations they were made of, under the corpus' fingerprint.
"""

import hashlib
from collections.abc import Mapping, Sequence

import polars as pl

from mkailin_assets.corpus.tables import CorpusRecall, LedgerRow

_RECALL_KEY = ["corpus", "example_id", "cited_pmid", "reason"]


def corpus_fingerprint(corpus: pl.DataFrame) -> str:
    """Name of a training corpus: a hash of its examples and their splits, whatever the order of its rows.

    Takes example_id, split and example_hash, of the corpus or of its ledger. What is left out, signals and
    who wrote a text, changes nothing of what is trained on.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in corpus.select("example_id", "split", "example_hash").sort("example_id").iter_slices():
        digest.update(part.write_csv(include_header=False).encode())
    return digest.hexdigest()


def trained_on(ledger: pl.LazyFrame) -> str:
    """Fingerprint of what is trained and validated on, of a corpus or its ledger: all but the test split."""
    used = ledger.filter(pl.col("split") != "test").select("example_id", "split", "example_hash")
    return corpus_fingerprint(used.collect())


def ledger(corpus: pl.DataFrame) -> pl.DataFrame:
    """What is remembered of a training corpus, table `LedgerRow`."""
    return corpus.select(LedgerRow.create_empty().columns).sort("example_id")


def citations_of(rows: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Each citation that a row was made of, its source first: `key`, `use`, `cited_pmid`, `content_hash`."""
    cited = rows.select(*key, "made_of").explode("made_of", empty_as_null=False)
    return cited.unnest("made_of").rename({"pmid": "cited_pmid"})


def taken_back(cited: pl.DataFrame, current: pl.DataFrame) -> pl.DataFrame:
    """Those lines whose citation no longer stands as it was read, with `reason` and `pubmed_file`.

    `current` is `CurrentCitation`; the file is the one that holds the latest word on the citation.
    """
    latest = current.select("state", "pubmed_file", cited_pmid="pmid", current_hash="content_hash")
    what = (
        pl.when(pl.col("state").is_null())
        .then(pl.lit("no longer in PubMed"))
        .when(pl.col("state") != "current")
        .then("state")
        .when(pl.col("current_hash").ne_missing(pl.col("content_hash")))
        .then(pl.lit("revised since"))
    )
    return (
        cited.join(latest, on="cited_pmid", how="left", maintain_order="left")
        .with_columns(reason=pl.format("{} {}", "use", what))
        .filter(pl.col("reason").is_not_null())
        .drop("state", "current_hash")
    )


def recalls(
    ledgers: Mapping[str, pl.LazyFrame], current: pl.DataFrame, recorded: pl.DataFrame | None
) -> pl.DataFrame:
    """Every recall of the rows of published corpora, table `CorpusRecall`.

    `ledgers` are `LedgerRow` tables by fingerprint of the corpus, `recorded` the recalls so far: they stay,
    should PubMed put a citation back. Memory is that of the recalls and of one ledger.
    """
    known = CorpusRecall.create_empty() if recorded is None else recorded
    for corpus, rows in sorted(ledgers.items()):
        held = rows.collect()
        found = (
            taken_back(citations_of(held, ["example_id"]), current)
            .join(held.drop("made_of"), on="example_id")
            .with_columns(corpus=pl.lit(corpus))
            .select(known.columns)
            .join(known, on=_RECALL_KEY, how="anti")
        )
        known = pl.concat([known, found])
    return known.sort(_RECALL_KEY)


def not_recalled(
    ledgers: Mapping[str, pl.LazyFrame], current: pl.DataFrame, recorded: pl.DataFrame
) -> pl.DataFrame:
    """Columns corpus, example_id, use, cited_pmid: what should be among the recalls and is not."""
    missing = [
        not_standing(rows.collect(), current)
        .select(pl.lit(corpus).alias("corpus"), "example_id", "use", "cited_pmid")
        .join(recorded, on=["corpus", "example_id", "cited_pmid"], how="anti")
        for corpus, rows in ledgers.items()
    ]
    nothing = {"corpus": pl.String, "example_id": pl.String, "use": pl.String, "cited_pmid": pl.Int64}
    return pl.concat([pl.DataFrame(schema=nothing), *missing])


def not_standing(rows: pl.DataFrame, current: pl.DataFrame) -> pl.DataFrame:
    """Lines of `citations_of` by example whose citation is not current with the content that was read."""
    standing = current.filter(pl.col("state") == "current").select("content_hash", cited_pmid="pmid")
    return citations_of(rows, ["example_id"]).join(standing, on=["cited_pmid", "content_hash"], how="anti")
