"""From answers to scores: accuracy, macro-F1 and bits a byte with intervals, and who is ahead of whom."""

import math
from collections.abc import Sequence
from typing import Any

import polars as pl

from mkailin_assets.corpus.tables import DECISIONS
from mkailin_assets.evaluation.cohorts import ALL, CHRONO, CLEAN, MESH, cohorts
from mkailin_assets.evaluation.items import LETTERS, YES_NO
from mkailin_assets.evaluation.tables import FORMS, BenchmarkComparison, BenchmarkResult
from mkailin_assets.intervals import (
    Estimate,
    macro_f1,
    macro_f1_difference,
    mcnemar,
    ratio,
    share,
    share_difference,
)

MODELS = ("base", "pretrained", "finetuned")
BASELINES = ("random", "majority", "human")
PAIRS = (
    ("finetuned", "base"),
    ("pretrained", "base"),
    ("finetuned", "pretrained"),
    ("finetuned", "majority"),
)
# Tasks whose answer is a text, not a choice.
TEXTS = ("corpus_text", "corpus_answer")
# The biomedical subjects of MMLU, together.
MMLU = "mmlu"
# A cohort with fewer has an interval as wide as the scale.
LEAST_ITEMS = 10
_NAMED = ["benchmark", "task", "form", "cohort"]


def _place(column: str, order: Sequence[str | None]) -> pl.Expr:
    """Where a value stands in an order; one that is not in it where None does, or at the end."""
    names = [name for name in order if name is not None]
    places = [order.index(name) for name in names]
    other = order.index(None) if None in order else len(order)
    return pl.col(column).replace_strict(names, places, default=other, return_dtype=pl.Int64)


_ORDER = ("benchmark", "task", _place("form", FORMS), _place("cohort", (ALL, CLEAN, *CHRONO, *MESH)))


def labels_of(task: str) -> tuple[str, ...]:
    """What may be answered: yes, no, maybe; yes, no; or A to D."""
    if task.startswith("pubmedqa") or task == "corpus_decision":
        return DECISIONS
    return YES_NO if task.startswith("bioasq") else LETTERS


def results(answers: pl.DataFrame, items: pl.DataFrame, leaks: pl.DataFrame | None = None) -> pl.DataFrame:
    """Table BenchmarkResult of a table BenchmarkAnswer; `items` is `MeasuredItems.table`.

    Of an item without an answer the choice is wrong, and no label's false find; a text without one is left
    out of its sum. The subjects of MMLU are scored together, too, for a model that was asked all that were
    measured. PubMedQA has its cohorts, those of ten items and more; a benchmark of which items are in
    `leaks` (benchmark, item) a cohort "clean" without these.
    """
    rows = []
    for keys, asked in _asked(answers, items, leaks).group_by(*_NAMED, "model", maintain_order=True):
        named = dict(zip((*_NAMED, "model"), keys, strict=True))
        task = str(named["task"])
        named |= {"items": asked.height, "failures": asked["failed"].sum()}
        named |= {"given_away": asked["given_away"].sum()}
        for metric, estimate in _scores(task, asked).items():
            rows.append(named | {"metric": metric} | vars(estimate))
    models = _place("model", (*MODELS, None, *BASELINES))
    scored = pl.DataFrame(rows, schema=BenchmarkResult.create_empty().schema)
    return scored.sort(*_ORDER, models, maintain_order=True)


def comparisons(
    answers: pl.DataFrame,
    items: pl.DataFrame,
    leaks: pl.DataFrame | None = None,
    pairs: Sequence[tuple[str, str]] = PAIRS,
) -> pl.DataFrame:
    """Table BenchmarkComparison of the pairs (model, other) that were asked the same items.

    A baseline stands against either form. The arguments are those of `results`.
    """
    asked = _asked(answers, items, leaks)
    rows: list[dict[str, Any]] = []
    for model, other in pairs:
        theirs = asked.filter(model=other)
        on = ["benchmark", "task", "cohort", "item"]
        on += [] if (theirs["form"] == "baseline").any() else ["form"]
        both = asked.filter(model=model).join(
            theirs.select(*on, their_answer="answer", their_right="right", their_nats="nats"),
            on=on,
            validate="m:1",
            maintain_order="left",
        )
        for keys, shared in both.group_by(_NAMED, maintain_order=True):
            named = dict(zip(_NAMED, keys, strict=True)) | {"model": model, "other": other}
            rows += [named | row for row in _leads(str(named["task"]), shared)]
    compared = pl.DataFrame(rows, schema=BenchmarkComparison.create_empty().schema)
    return compared.sort(_ORDER, maintain_order=True)


def _asked(answers: pl.DataFrame, items: pl.DataFrame, leaks: pl.DataFrame | None) -> pl.DataFrame:
    """The answers in every cohort they count in."""
    key = ["benchmark", "item"]
    ordered = answers.with_columns(
        right=pl.col("right").fill_null(False),
        failed=pl.when(pl.col("task").is_in(TEXTS))
        .then(pl.col("nats").is_null())
        .otherwise(pl.col("answer").is_null()),
    )
    away = pl.DataFrame(schema={name: pl.String for name in key}) if leaks is None else leaks.select(key)
    ordered = ordered.join(
        away.unique().with_columns(given_away=pl.lit(True)), on=key, how="left", maintain_order="left"
    ).with_columns(pl.col("given_away").fill_null(False))
    found = cohorts(items)
    parts = [ordered.with_columns(cohort=pl.lit(ALL)), ordered.join(found, on=key, maintain_order="left")]
    if leaks is not None:
        parts.insert(1, ordered.filter(~pl.col("given_away")).with_columns(cohort=pl.lit(CLEAN)))
    in_cohorts = pl.concat(parts, how="diagonal")
    whole = pl.concat([in_cohorts, _pooled(in_cohorts)])
    size, of_all = pl.len().over(*_NAMED, "model"), pl.col("cohort").eq(ALL).sum()
    counted = (
        pl.when(cohort=ALL)
        .then(True)
        .when(cohort=CLEAN)
        .then(size < of_all.over("benchmark", "task", "form", "model"))
        .otherwise(size >= LEAST_ITEMS)
    )
    return whole.filter(counted)


def _pooled(asked: pl.DataFrame) -> pl.DataFrame:
    """The subjects of MMLU as one task, of the models that were asked all of them."""
    subjects = asked.filter(pl.col("task").str.starts_with(f"{MMLU}_"))
    measured = subjects["task"].n_unique()
    every = pl.col("task").n_unique().over("form", "model") == measured
    return subjects.filter(every & (measured > 1)).with_columns(
        item=pl.format("{}, {}", "benchmark", "item"), benchmark=pl.lit(MMLU), task=pl.lit(MMLU)
    )


def _scores(task: str, asked: pl.DataFrame) -> dict[str, Estimate]:
    if task in TEXTS:
        read = asked.filter(~pl.col("failed"))
        return {"bits_per_byte": _bits(read["nats"], read["utf8_bytes"])} if read["utf8_bytes"].sum() else {}
    scores = {"accuracy": share(int(asked["right"].sum()), asked.height)}
    if labels := _f1_labels(task):
        scores["macro_f1"] = macro_f1(asked["gold"].to_list(), asked["answer"].to_list(), labels)
    return scores


def _leads(task: str, shared: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows of a comparison without what names it, one for each metric."""
    if task in TEXTS:
        read = shared.drop_nulls(["nats", "their_nats"])
        if not read["utf8_bytes"].sum():
            return []
        lead = _bits(read["nats"] - read["their_nats"], read["utf8_bytes"])
        return [_lead("bits_per_byte", read.height, lead)]
    ours, theirs = shared["right"], shared["their_right"]
    only = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    leads = [_lead("accuracy", shared.height, share_difference(*only, shared.height), mcnemar(*only))]
    if labels := _f1_labels(task):
        gold, answers, others = (shared[name].to_list() for name in ("gold", "answer", "their_answer"))
        leads.append(_lead("macro_f1", shared.height, macro_f1_difference(gold, answers, others, labels)))
    return leads


def _lead(metric: str, items: int, lead: Estimate, mcnemar: float | None = None) -> dict[str, Any]:
    ahead, behind = lead.low > 0, lead.high < 0
    better = None if not (ahead or behind) else behind if metric == "bits_per_byte" else ahead
    return {
        "metric": metric,
        "items": items,
        "difference": lead.value,
        "low": lead.low,
        "high": lead.high,
        "better": better,
        "mcnemar": mcnemar,
    }


def _f1_labels(task: str) -> tuple[str, ...]:
    """The labels of which each has an F1 of interest; none where they are letters, which mean nothing."""
    labels = labels_of(task)
    return () if labels == LETTERS else labels


def _bits(nats: pl.Series, utf8_bytes: pl.Series) -> Estimate:
    """Bits a byte of texts: what they cost in nats over their length."""
    return ratio((nats / math.log(2)).to_list(), utf8_bytes.to_list())
