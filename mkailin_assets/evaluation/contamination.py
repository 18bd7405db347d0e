"""A last look before scores are told: what the models were trained on, and whether it gives an item away."""

from dataclasses import dataclass

import polars as pl

from mkailin_assets.corpus.assembly import given_away
from mkailin_assets.corpus.decontamination import BENCHMARK, NGRAM_WORDS
from mkailin_assets.corpus.recalls import trained_on
from mkailin_assets.evaluation.items import CORPUS

# The third split is only ever asked.
TRAINED_ON = ("train", "validation")
_SHARED = {
    "pmid": "the citation that the item is about",
    "question": "its whole question",
    "run": f"{NGRAM_WORDS} words in a row of its question",
}
LEAKS = pl.Schema(
    {
        "example_id": pl.String,
        "pmid": pl.Int64,
        "split": pl.String,
        "benchmark": pl.String,
        "item": pl.String,
        "shared": pl.String,
    }
)


@dataclass(frozen=True)
class Recheck:
    """What was looked at, and the examples that give an item away.

    `leaks` has the columns `LEAKS`; `shared` says in words what an example and an item have in common.
    `strangers` are sentences about models that were trained on something else than what was looked at.
    """

    leaks: pl.DataFrame
    examples: int
    items: int
    strangers: tuple[str, ...] = ()


def strangers(corpus: pl.LazyFrame, checkpoints: pl.DataFrame) -> tuple[str, ...]:
    """What is wrong with the lineage of checkpoints (table Checkpoint, in the order of training), in words.

    Each is trained on the corpus as it is, and starts from the one before.
    """
    there, before, told = trained_on(corpus), None, []
    for row in checkpoints.iter_rows(named=True):
        if row["data_fingerprint"] != there:
            told.append(
                f"{row['name']}_checkpoint was trained on another training_corpus than the one that there is "
                "now: materialize it again"
            )
        if row["started_from"] != before:
            told.append(
                f"{row['name']}_checkpoint started from another checkpoint than the one before it here: "
                "materialize it again"
            )
        before = row["fingerprint"]
    return tuple(told)


def recheck(
    corpus: pl.LazyFrame,
    items: pl.DataFrame,
    benchmark: pl.DataFrame,
    strangers: tuple[str, ...] = (),
) -> Recheck:
    """The examples of table TrainingExample that models saw and that give a measured item away.

    What counts is what counts for `decontamination.leaks`. `items` is `MeasuredItems.table`; `benchmark` has
    the columns `BENCHMARK`, with every PMID that an item is about. The corpus is read in batches.
    """
    key = ["benchmark", "item"]
    measured = pl.concat(
        [
            items.filter(pl.col("kind") != CORPUS).select(BENCHMARK.names()),
            benchmark.join(items, on=key, how="semi").select(BENCHMARK.names()),
        ]
    ).unique(maintain_order=True)
    seen = corpus.select("example_id", "split").filter(pl.col("split").is_in(TRAINED_ON)).collect()
    found = given_away(corpus, measured, TRAINED_ON).join(seen, on="example_id", maintain_order="left")
    shared = pl.col("kind").replace_strict(_SHARED, return_dtype=pl.String)
    return Recheck(
        leaks=found.select("example_id", "pmid", "split", *key, shared=shared).match_to_schema(LEAKS),
        examples=seen.height,
        items=measured.select(key).unique().height,
        strangers=strangers,
    )
