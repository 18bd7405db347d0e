"""Which rows of which release PubMed has taken back, and which checkpoints were trained on them."""

import json
from collections.abc import Mapping

import polars as pl

from mkailin_assets.corpus.recalls import trained_on
from mkailin_assets.release.tables import ReleaseRecall
from mkailin_resources.storage import Storage

# The trainings whose data are the rows of a corpus.
TRAININGS = ("pretrained", "finetuned", "ablated")


def release_recalls(
    releases: pl.DataFrame,
    recalled: pl.DataFrame,
    ledgers: Mapping[str, pl.LazyFrame],
    checkpoints: Mapping[str, str],
) -> pl.DataFrame:
    """A `ReleaseRecall` for each recalled row of each release.

    Takes `CorpusRelease`, `CorpusRecall` of all corpora, the ledgers of corpora by fingerprint, and the data
    fingerprint of each checkpoint by its name. Training leaves the test split alone, so nothing was trained
    on its rows.
    """
    trained = {
        corpus: sorted(name for name, data in checkpoints.items() if data == trained_on(ledgers[corpus]))
        for corpus in set(releases["corpus"]) & set(recalled["corpus"]) & set(ledgers)
    }
    of_corpus = pl.DataFrame(
        list(trained.items()), schema={"corpus": pl.String, "names": pl.List(pl.String)}, orient="row"
    )
    nothing = pl.lit([], dtype=pl.List(pl.String))
    used = pl.when(pl.col("split") != "test").then(pl.col("names"))
    return (
        releases.select("corpus", release="name")
        .join(recalled, on="corpus")
        .join(of_corpus, on="corpus", how="left")
        .with_columns(trained_on=pl.coalesce(used, nothing))
        .select(ReleaseRecall.create_empty().columns)
        .sort("release", "example_id", "cited_pmid", "reason")
    )


def checkpoints_of(storage: Storage) -> dict[str, str]:
    """Data fingerprint of each checkpoint that was trained on a corpus, by kind and name of its folder."""
    found = {}
    for kind in TRAININGS:
        folder = storage.path("checkpoints", kind)
        for checkpoint in folder.iterdir() if folder.exists() else []:
            record = checkpoint / "training.json"
            if record.exists():
                found[f"{kind}/{checkpoint.name}"] = json.loads(record.read_text())["data_fingerprint"]
    return found
