"""Checks of the evaluation stage."""

import dagster as dg
import polars as pl

from mkailin_assets.evaluation.assets import benchmark_report
from mkailin_assets.evaluation.predict import PROTOCOLS

COMPARED = ("majority", "base", "finetuned")


@dg.asset_check(asset=benchmark_report)
def every_protocol_compares_the_models(benchmark_report: pl.DataFrame) -> dg.AssetCheckResult:
    """Under each protocol there are scores of the majority, the base and the fine-tuned model."""
    there = set(benchmark_report.select("protocol", "model").iter_rows())
    missing = [
        f"{model} under {protocol}"
        for protocol in PROTOCOLS
        for model in COMPARED
        if (protocol, model) not in there
    ]
    return dg.AssetCheckResult(
        passed=not missing, description=f"no score of {', '.join(missing)}" if missing else None
    )


@dg.asset_check(asset=benchmark_report)
def intervals_contain_their_scores(benchmark_report: pl.DataFrame) -> dg.AssetCheckResult:
    """Each score lies within its own 95% interval."""
    inside = [
        pl.col(score).is_between(pl.col(f"{score}_low"), pl.col(f"{score}_high"))
        for score in ("accuracy", "macro_f1")
    ]
    outside = benchmark_report.filter(~pl.all_horizontal(inside))
    names = [
        f"{model} under {protocol}" for protocol, model in outside.select("protocol", "model").iter_rows()
    ]
    return dg.AssetCheckResult(
        passed=not names, description=f"outside its interval: {', '.join(names)}" if names else None
    )


@dg.asset_check(asset=benchmark_report)
def finetuning_does_not_harm(benchmark_report: pl.DataFrame) -> dg.AssetCheckResult:
    """The fine-tuned model's accuracy is not below its base's by more than the interval allows."""
    best_case = benchmark_report.filter(pl.col("model") == "finetuned").select("protocol", "accuracy_high")
    base = benchmark_report.filter(pl.col("model") == "base").select("protocol", base_accuracy="accuracy")
    worse = best_case.join(base, on="protocol").filter(pl.col("accuracy_high") < pl.col("base_accuracy"))
    return dg.AssetCheckResult(
        passed=worse.is_empty(),
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(
            f"{protocol}: at most {high:.1%}, the base has {accuracy:.1%}"
            for protocol, high, accuracy in worse.iter_rows()
        )
        or None,
    )
