"""Answers to invented items, and the items, for the tests of scores and report."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from mkailin_assets.evaluation.items import ITEMS
from mkailin_assets.evaluation.tables import BenchmarkAnswer

WITH_ABSTRACT = "pubmedqa_reasoning_required"


def answer(item: str, gold: str | None, said: str | None, **other: Any) -> dict[str, Any]:
    """A row of BenchmarkAnswer: the fine-tuned model on PubMedQA unless it is said otherwise."""
    chosen = {"answer": said, "right": said == gold} if gold is not None else {}
    return {
        "benchmark": "pqa",
        "task": WITH_ABSTRACT,
        "form": "likelihood",
        "model": "finetuned",
        "item": item,
        "gold": gold,
        "failure": None if said or gold is None else "it says nothing",
        "model_fingerprint": f"fingerprint of {other.get('model', 'finetuned')}",
        "tokenizer_sha256": "ab" * 32,
        "task_fingerprint": "task",
        **chosen,
    } | other


def answers(*rows: dict[str, Any]) -> pl.DataFrame:
    return BenchmarkAnswer.validate(pl.DataFrame(list(rows), schema=BenchmarkAnswer.create_empty().schema))


def choices(gold: Sequence[str], said: Sequence[str | None], **other: Any) -> list[dict[str, Any]]:
    """Answers to items numbered from 1."""
    pairs = zip(gold, said, strict=True)
    return [answer(str(place), right, one, **other) for place, (right, one) in enumerate(pairs, 1)]


def texts(nats: Sequence[float | None], utf8_bytes: int, model: str, task: str = "corpus_text") -> list[dict]:
    """What texts numbered from 1 cost a model; None: it could not read one."""
    about = {"benchmark": "corpus", "task": task, "model": model}
    return [
        answer(
            str(place), None, None, **about, nats=cost, utf8_bytes=utf8_bytes if cost is not None else None
        )
        for place, cost in enumerate(nats, 1)
    ]


def item(name: str, kind: str = "pubmedqa", **other: Any) -> dict[str, Any]:
    """A row of ITEMS."""
    return {
        "benchmark": "pqa",
        "kind": kind,
        "item": name,
        "question": f"Does item {name} of {kind} relieve pain better than a placebo?",
        "options": [],
        "context": [],
        "labels": [],
        "gold": "yes",
        "headings": [],
    } | other


def items(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=ITEMS)


def asked_in(table: pl.DataFrame) -> pl.DataFrame:
    """The items of answers, about nothing in particular."""
    named = table.select("benchmark", "task", "item").unique(["benchmark", "item"], maintain_order=True)
    return items(
        *(item(name, task.partition("_")[0], benchmark=benchmark) for benchmark, task, name in named.rows())
    )
