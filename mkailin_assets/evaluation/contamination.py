"""A last look before scores are told: whether what a model was trained on gives a measured item away."""

from dataclasses import dataclass

import polars as pl

from mkailin_assets.corpus.assembly import in_batches
from mkailin_assets.corpus.decontamination import BENCHMARK, NGRAM_WORDS, fingerprints_of, leaks

# The third split is only ever asked.
TRAINED_ON = ("train", "validation")
_SHARED = {
    "pmid": "the citation that the item is about",
    "question": "its whole question",
    "run": f"{NGRAM_WORDS} words in a row of its question",
}
_READ = ("example_id", "pmid", "split", "made_of", "question", "context", "long_answer", "pretraining_text")

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
    """

    leaks: pl.DataFrame
    examples: int
    items: int


def recheck(corpus: pl.LazyFrame, items: pl.DataFrame, benchmark: pl.DataFrame) -> Recheck:
    """The examples of table TrainingExample that models saw and that give a measured item away.

    What counts is what counts for `decontamination.leaks`. `items` is `MeasuredItems.table`; `benchmark` has
    the columns `BENCHMARK`, with every PMID that an item is about. The corpus is read in batches.
    """
    key = ["benchmark", "item"]
    measured = pl.concat(
        [
            items.filter(pl.col("kind") != "corpus").select(BENCHMARK.names()),
            benchmark.join(items, on=key, how="semi").select(BENCHMARK.names()),
        ]
    ).unique(maintain_order=True)
    known = fingerprints_of(measured)
    found, examples = [], 0
    # Batches of what is on disk: of a filtered table each would begin at its start.
    for rows in in_batches(corpus.select(_READ)):
        batch = rows.filter(pl.col("split").is_in(TRAINED_ON))
        examples += batch.height
        # Every citation that an example was made from counts, those that it does not show, too.
        made_of = pl.col("made_of").list.eval(pl.element().struct.field("pmid"))
        given_away = leaks(batch.with_columns(context_pmids=made_of), known)
        found.append(given_away.join(batch.select("example_id", "split"), on="example_id"))
    shared = pl.col("kind").replace_strict(_SHARED, return_dtype=pl.String)
    told = [one.select("example_id", "pmid", "split", *key, shared=shared) for one in found]
    return Recheck(
        leaks=pl.concat([pl.DataFrame(schema=LEAKS), *told]),
        examples=examples,
        items=measured.select(key).unique().height,
    )
