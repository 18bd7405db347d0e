"""Answers without a model, for a score to be read against: by chance, the most frequent one, a person's."""

import hashlib

import polars as pl

from mkailin_assets.evaluation.scores import BASELINES, labels_of
from mkailin_assets.evaluation.tables import BenchmarkAnswer

# Part of the fingerprint: raise it when the same items are to have other answers.
_RULES = "1"
# The one question that PubMedQA's second annotator answered as a model does: without the conclusion.
_ANNOTATED = "pubmedqa_reasoning_required"


def baselines(answers: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Table BenchmarkAnswer, form "baseline", for every item of `answers` that has a right choice.

    random: a label drawn by benchmark and item alone; majority: the most frequent right answer of the
    benchmark itself, of equally frequent ones the first of the alphabet; human: PubMedQA's annotator who did
    not see the conclusion, where the file has the answer. `items` is `MeasuredItems.table`.
    """
    asked = answers.filter(pl.col("gold").is_not_null()).unique(
        ["benchmark", "task", "item"], keep="first", maintain_order=True
    )
    known = asked.select("benchmark", "task", "item", "gold").join(
        items.select("benchmark", "item", "human"), on=["benchmark", "item"], how="left", validate="m:1"
    )
    parts = [
        _of_task(rows, str(task))
        for (_, task), rows in known.group_by("benchmark", "task", maintain_order=True)
    ]
    schema = BenchmarkAnswer.create_empty().schema
    return pl.concat([pl.DataFrame(schema=schema), *parts], how="diagonal").select(schema.names())


def _of_task(rows: pl.DataFrame, task: str) -> pl.DataFrame:
    """The answers to one task of one benchmark: `rows` has benchmark, task, item, gold, human."""
    labels = labels_of(task)
    frequent = rows["gold"].value_counts().sort("count", "gold", descending=[True, False])["gold"][0]
    drawn = [
        _drawn(benchmark, item, labels) for benchmark, item in rows.select("benchmark", "item").iter_rows()
    ]
    answered = rows.with_columns(
        random=pl.Series(drawn, dtype=pl.String),
        majority=pl.lit(frequent),
        human="human" if task == _ANNOTATED else pl.lit(None, pl.String),
    )
    told = ["benchmark", "task", "item", "gold"]
    return (
        answered.unpivot(BASELINES, index=told, variable_name="model", value_name="answer")
        .filter(pl.col("answer").is_in(labels))
        .with_columns(
            form=pl.lit("baseline"),
            right=pl.col("answer") == pl.col("gold"),
            task_fingerprint=pl.lit(_fingerprint(rows)),
        )
    )


def _drawn(benchmark: str, item: str, labels: tuple[str, ...]) -> str:
    digest = hashlib.blake2b(f"{benchmark}\n{item}".encode(), digest_size=8, person=b"random answer").digest()
    return labels[int.from_bytes(digest, "big") % len(labels)]


def _fingerprint(rows: pl.DataFrame) -> str:
    made_of = f"{_RULES}\n{rows.select('item', 'gold', 'human').write_csv()}"
    return hashlib.blake2b(made_of.encode(), digest_size=16).hexdigest()
