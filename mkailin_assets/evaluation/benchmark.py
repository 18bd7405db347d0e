"""From decisions to a report: scores with intervals, differences, and a page to read."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from mkailin_assets.evaluation.predict import (
    PROTOCOLS,
    Predictions,
    predict_majority,
    predict_with_generator,
    predict_with_model,
)
from mkailin_assets.evaluation.pubmedqa import Benchmark
from mkailin_assets.evaluation.tables import BenchmarkResult
from mkailin_assets.intervals import Estimate, accuracy, macro_f1, paired_differences
from mkailin_assets.training.checkpoints import load_base, load_finetuned
from mkailin_resources.generation import Ask
from mkailin_resources.models.interface import TextGenerator

READ_THIS_FIRST = (
    "The embedded model is a small Llama whose weights are random before LoRA and which trains for minutes. "
    "Its scores show that training and evaluation run, not that it knows medicine: read no more into them. "
    "'majority' always gives the benchmark's most frequent decision and is the score to beat."
)


def predict_all(
    benchmark: Benchmark, checkpoint: Path, generator: TextGenerator, ask: Ask
) -> list[Predictions]:
    """Decisions of every model under both protocols.

    A generator that answers no item of a protocol, as extractive agents do without an abstract, is in the
    list with its failures.
    """
    base, tokenizer = load_base(checkpoint)
    finetuned, _ = load_finetuned(checkpoint)
    predictions = []
    for protocol in PROTOCOLS:
        predictions += [
            predict_majority(benchmark.items, protocol),
            predict_with_generator(generator, benchmark.items, protocol, ask),
            predict_with_model("base", base, tokenizer, benchmark.items, protocol),
            predict_with_model("finetuned", finetuned, tokenizer, benchmark.items, protocol),
        ]
    return predictions


def score(benchmark: Benchmark, predictions: Sequence[Predictions]) -> pl.DataFrame:
    """The `BenchmarkResult` table; who failed on every item has no row: nothing was answered."""
    gold = [item.decision for item in benchmark.items]
    rows = []
    for prediction in predictions:
        if len(prediction.failures) == len(gold):
            continue
        right, f1 = accuracy(gold, prediction.decisions), macro_f1(gold, prediction.decisions)
        rows.append(
            {
                "benchmark": benchmark.name,
                "protocol": prediction.protocol,
                "model": prediction.model,
                "items": len(gold),
                "accuracy": right.value,
                "accuracy_low": right.low,
                "accuracy_high": right.high,
                "macro_f1": f1.value,
                "macro_f1_low": f1.low,
                "macro_f1_high": f1.high,
            }
        )
    return pl.DataFrame(rows, schema=BenchmarkResult.create_empty().schema)


def gains(benchmark: Benchmark, predictions: Sequence[Predictions]) -> dict[str, dict[str, Estimate]]:
    """By protocol, the lead of the fine-tuned model over its base, item by item."""
    gold = [item.decision for item in benchmark.items]
    decided = {(prediction.protocol, prediction.model): prediction.decisions for prediction in predictions}
    return {
        protocol: paired_differences(gold, decided[protocol, "finetuned"], decided[protocol, "base"])
        for protocol in PROTOCOLS
    }


def failures(predictions: Sequence[Predictions]) -> dict[str, str]:
    """Who failed where, how often, and the first cause."""
    return {
        f"{prediction.model}, {prediction.protocol}": (
            f"{len(prediction.failures)} of {len(prediction.decisions)} counted as maybe; "
            f"the first: PMID {pmid}: {cause}"
        )
        for prediction in predictions
        for pmid, cause in list(prediction.failures.items())[:1]
    }


def render(benchmark: Benchmark, predictions: Sequence[Predictions], trained: str) -> str:
    """The report as Markdown; `trained` says in words which checkpoint was evaluated."""
    lines = [
        f"# Benchmark report: {benchmark.name}",
        "",
        READ_THIS_FIRST,
        "",
        f"{len(benchmark.items)} questions; {len(benchmark.refused)} items refused. Checkpoint: {trained}.",
        "Intervals are 95%: Wilson for accuracy, bootstrap over the items for macro-F1 and for differences.",
    ]
    results = score(benchmark, predictions)
    for protocol, lead in gains(benchmark, predictions).items():
        lines += ["", f"## {protocol}", "", "| model | accuracy | macro-F1 |", "|---|---|---|"]
        for row in results.filter(pl.col("protocol") == protocol).iter_rows(named=True):
            cells = [
                _share(Estimate(row[name], row[f"{name}_low"], row[f"{name}_high"]))
                for name in ("accuracy", "macro_f1")
            ]
            lines.append(f"| {row['model']} | {' | '.join(cells)} |")
        lines += [
            "",
            f"Fine-tuned minus base: accuracy {_points(lead['accuracy'])}, "
            f"macro-F1 {_points(lead['macro_f1'])}.",
        ]
    unanswered = [f"- {who}: {what}" for who, what in failures(predictions).items()]
    unanswered += [f"- refused item {pmid}: {cause}" for pmid, cause in benchmark.refused.items()]
    if unanswered:
        lines += ["", "## Not answered", "", *unanswered]
    return "\n".join(lines) + "\n"


def _share(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"


def _points(estimate: Estimate) -> str:
    return f"{100 * estimate.value:+.1f} points ({100 * estimate.low:+.1f} to {100 * estimate.high:+.1f})"
