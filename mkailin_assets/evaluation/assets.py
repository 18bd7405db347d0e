"""The evaluation stage: what the models know."""

import time
from typing import Any

import dagster as dg
import polars as pl

from mkailin_assets.evaluation import benchmark as report
from mkailin_assets.evaluation.pubmedqa import Benchmark, read_pubmedqa
from mkailin_assets.evaluation.tables import BenchmarkResult
from mkailin_assets.generations import generation_metadata
from mkailin_assets.gpu import ON_GPU
from mkailin_assets.metadata import intervals, preview
from mkailin_assets.tables import table
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.generation import Generation
from mkailin_resources.models.interface import TextGenerator
from mkailin_resources.storage import Storage


@dg.asset(
    **table(BenchmarkResult),
    **ON_GPU,
    group_name="evaluation",
    kinds={"pytorch", "polars"},
    code_version="1",
)
def benchmark_report(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    context: dg.AssetExecutionContext,
    finetuned_checkpoint: pl.DataFrame,
    storage: Storage,
    benchmarks: BenchmarkFiles,
    answer_model: dg.ResourceParam[TextGenerator],
    generation: Generation,
) -> dg.Output[pl.DataFrame]:
    """Accuracy and macro-F1 of majority, answerer, base and fine-tuned model, with 95% intervals."""
    start = time.perf_counter()
    benchmark = read_pubmedqa(benchmarks.pubmedqa)
    uri, trained_from = finetuned_checkpoint.select("uri", "base_model").row(0)
    # What a model fails on is a result here, and counts as maybe.
    ask = generation.asking(context, max_failed_share=1.0)
    predictions = report.predict_all(benchmark, storage.local_folder(uri), answer_model, ask)
    text = report.render(benchmark, predictions, trained=f"{uri} ({trained_from})")
    path = storage.publish_file(
        storage.path("reports", "benchmark_report.md"), lambda file: file.write(text.encode())
    )
    results = report.score(benchmark, predictions)
    return dg.Output(
        results,
        metadata={
            "report": dg.MetadataValue.path(str(path)),
            "seconds": round(time.perf_counter() - start, 1),
            **generation_metadata(ask.tallies, generation),
            **_result_metadata(benchmark, predictions, results),
        },
    )


def _result_metadata(
    benchmark: Benchmark, predictions: list[report.Predictions], results: pl.DataFrame
) -> dict[str, Any]:
    accuracy = {
        f"{model}, {protocol}": (value, low, high)
        for model, protocol, value, low, high in results.select(
            "model", "protocol", "accuracy", "accuracy_low", "accuracy_high"
        ).iter_rows()
    }
    gains = [
        (protocol, score, lead.value, lead.low, lead.high)
        for protocol, leads in report.gains(benchmark, predictions).items()
        for score, lead in leads.items()
    ]
    gained = pl.DataFrame(gains, schema=["protocol", "score", "difference", "low", "high"], orient="row")
    return {
        "read_this_first": report.READ_THIS_FIRST,
        "accuracy": intervals(f"Accuracy on {benchmark.name}, 95% intervals", accuracy),
        "items": len(benchmark.items),
        "refused_items": benchmark.refused,
        "failures": report.failures(predictions),
        "finetuned_minus_base": preview(gained, rows=gained.height),
        "results": preview(results, rows=results.height),
    }
