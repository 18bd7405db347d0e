"""Checks of the evaluation stage."""

import dagster as dg
import polars as pl

from mkailin_assets.evaluation.assets import benchmark_report, evaluator_audit, retrieval_report
from mkailin_assets.evaluation.predict import PROTOCOLS
from mkailin_assets.evaluation.ranking import MEASURES
from mkailin_assets.evaluation.retrieval import choice
from mkailin_assets.metadata import none_may_be
from mkailin_resources.index import ContextStore

COMPARED = ("majority", "base", "finetuned")
# Of the trials with a question of another branch, the least that the cold start in use has to decide rightly.
LEAST_ACCURACY = 0.8


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
    return _inside_intervals(benchmark_report, ["protocol", "model"], ["accuracy", "macro_f1"])


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


@dg.asset_check(asset=retrieval_report)
def measures_lie_within_their_intervals(retrieval_report: pl.DataFrame) -> dg.AssetCheckResult:
    """Each measure lies within its own 95% interval."""
    return _inside_intervals(retrieval_report, ["judged_set", "retriever"], list(MEASURES))


@dg.asset_check(asset=retrieval_report)
def every_retriever_is_measured_on_every_set(retrieval_report: pl.DataFrame) -> dg.AssetCheckResult:
    """Each judged set has lexical, dense and hybrid search, and what any other set has."""
    there = set(retrieval_report.select("judged_set", "retriever").iter_rows())
    wanted = {"lexical", "dense", "hybrid"} | set(retrieval_report["retriever"])
    missing = sorted(
        f"{retriever} on {judged_set}"
        for judged_set in set(retrieval_report["judged_set"])
        for retriever in wanted
        if (judged_set, retriever) not in there
    )
    return dg.AssetCheckResult(
        passed=bool(there) and not missing,
        description=f"not measured: {', '.join(missing) or 'anything'}" if missing or not there else None,
    )


@dg.asset_check(asset=retrieval_report)
def the_retriever_in_use_is_not_worse_than_the_best(
    retrieval_report: pl.DataFrame, context_store: ContextStore
) -> dg.AssetCheckResult:
    """The nDCG@10 of the retriever in use is not below the best one's by more than its interval allows."""
    worse = choice(retrieval_report, context_store.retriever).filter(
        pl.col("ndcg_10_high") < pl.col("best_ndcg_10")
    )
    return dg.AssetCheckResult(
        passed=worse.is_empty(),
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(
            f"{row['judged_set']}: {row['in_use']} at most {row['ndcg_10_high']:.3f}, "
            f"{row['best']} {row['best_ndcg_10']:.3f}"
            for row in worse.iter_rows(named=True)
        )
        or None,
    )


@dg.asset_check(asset=evaluator_audit)
def the_evaluators_tell_real_questions(evaluator_audit: pl.DataFrame) -> dg.AssetCheckResult:
    """The cold start in use, the first judge, prefers most real questions to those of another branch."""
    first = pl.col("judge") == pl.col("judge").first().over("source")
    used = evaluator_audit.filter(first, distractor="other branch").drop_nulls("accuracy")
    return dg.AssetCheckResult(
        passed=used.height > 0 and bool((used["accuracy"] >= LEAST_ACCURACY).all()),
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(
            f"{row['source']}: {row['accuracy']:.1%} of {row['trials']}" for row in used.to_dicts()
        )
        or "there are no trials: no document with a real question",
    )


@dg.asset_check(asset=evaluator_audit)
def audited_shares_lie_in_their_intervals(evaluator_audit: pl.DataFrame) -> dg.AssetCheckResult:
    """Each accuracy lies within its own 95% interval."""
    inside = pl.col("accuracy").is_between(pl.col("low"), pl.col("high"))
    wrong = evaluator_audit.filter(~inside.fill_null(pl.col("accuracy").is_null()))
    return none_may_be(wrong.select("judge", "source", "distractor"), "shares outside their intervals")


def _inside_intervals(report: pl.DataFrame, names: list[str], scores: list[str]) -> dg.AssetCheckResult:
    """Whether each score lies between its `_low` and `_high`; `names` are the two columns that name a row."""
    inside = [pl.col(score).is_between(pl.col(f"{score}_low"), pl.col(f"{score}_high")) for score in scores]
    outside = report.filter(~pl.all_horizontal(inside)).select(names).iter_rows()
    wrong = [f"{name} under {where}" for where, name in outside]
    return dg.AssetCheckResult(
        passed=not wrong, description=f"outside its interval: {', '.join(wrong)}" if wrong else None
    )
