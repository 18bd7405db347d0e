"""Checks of the evaluation stage."""

import dagster as dg
import polars as pl

from mkailin_assets.evaluation.assets import (
    benchmark_answers,
    evaluator_audit,
    retrieval_report,
)
from mkailin_assets.evaluation.contamination import strangers
from mkailin_assets.evaluation.ranking import MEASURES
from mkailin_assets.evaluation.retrieval import choice
from mkailin_assets.evaluation.scores import MODELS
from mkailin_assets.metadata import none_may_be
from mkailin_resources.index import ContextStore

# Of the trials with a question of another branch, the least that the cold start in use has to decide rightly.
LEAST_ACCURACY = 0.8


@dg.asset_check(asset=benchmark_answers, blocking=True)
def every_model_is_asked_the_same(benchmark_answers: pl.DataFrame) -> dg.AssetCheckResult:
    """The three models have an answer, or a reason why there is none, for the same items of each task."""
    asked = benchmark_answers.filter(pl.col("model").is_in(MODELS))
    there = asked.group_by("benchmark", "task", "form", "model").len()
    sizes = there.group_by("benchmark", "task", "form").agg(
        pl.len().alias("models"), pl.col("len").n_unique()
    )
    wrong = sizes.filter((pl.col("models") < len(MODELS)) | (pl.col("len") > 1))
    return none_may_be(wrong.select("benchmark", "task", "form"), "tasks were not asked of all models alike")


@dg.asset_check(
    asset=benchmark_answers,
    additional_ins={
        "pretrained_checkpoint": dg.AssetIn("pretrained_checkpoint"),
        "finetuned_checkpoint": dg.AssetIn("finetuned_checkpoint"),
    },
    blocking=True,
)
def tokenizer_and_template_are_those_of_training(
    benchmark_answers: pl.DataFrame, pretrained_checkpoint: pl.DataFrame, finetuned_checkpoint: pl.DataFrame
) -> dg.AssetCheckResult:
    """Each model was asked through the tokenizer and the chat template that it was trained with."""
    trained = pl.concat([pretrained_checkpoint, finetuned_checkpoint]).select(
        model="name", trained_with="tokenizer_sha256"
    )
    asked = benchmark_answers.select("model", "tokenizer_sha256").unique()
    wrong = asked.join(trained, on="model").filter(
        pl.col("tokenizer_sha256").ne_missing(pl.col("trained_with"))
    )
    return none_may_be(wrong.sort("model"), "models were asked through another tokenizer or template")


@dg.asset_check(
    asset=benchmark_answers,
    additional_ins={
        "training_corpus": dg.AssetIn("training_corpus"),
        "pretrained_checkpoint": dg.AssetIn("pretrained_checkpoint"),
        "finetuned_checkpoint": dg.AssetIn("finetuned_checkpoint"),
    },
)
def the_models_are_of_one_lineage(
    benchmark_answers: pl.DataFrame,
    training_corpus: pl.LazyFrame,
    pretrained_checkpoint: pl.DataFrame,
    finetuned_checkpoint: pl.DataFrame,
) -> dg.AssetCheckResult:
    """The models were trained on the corpus as it is, the fine-tuned one from the pre-trained one."""
    wrong = strangers(training_corpus, pl.concat([pretrained_checkpoint, finetuned_checkpoint]))
    return dg.AssetCheckResult(passed=not wrong, description="; ".join(wrong) or None)


@dg.asset_check(asset="benchmark_report")
def the_models_are_compared(benchmark_report: pl.DataFrame) -> dg.AssetCheckResult:
    """For each task that has choices there are scores of the three models and of the most frequent answer."""
    accuracies = benchmark_report.filter(metric="accuracy", cohort="all")
    wanted = {*MODELS, "majority"}
    there = accuracies.group_by("benchmark", "task").agg("model")
    missing = [
        f"{', '.join(sorted(wanted - set(models)))} on {benchmark}, {task}"
        for benchmark, task, models in there.iter_rows()
        if wanted - set(models)
    ]
    return dg.AssetCheckResult(
        passed=bool(there.height) and not missing,
        description=f"no score of {'; '.join(missing)}" if missing else None,
    )


@dg.asset_check(asset="benchmark_report")
def intervals_contain_their_scores(benchmark_report: pl.DataFrame) -> dg.AssetCheckResult:
    """Each score lies within its own 95% interval."""
    outside = benchmark_report.filter(~pl.col("value").is_between("low", "high"))
    return none_may_be(outside.select("task", "model", "metric"), "scores outside their intervals")


@dg.asset_check(asset="benchmark_comparisons")
def tuning_does_not_harm(benchmark_comparisons: pl.DataFrame) -> dg.AssetCheckResult:
    """On no task is the fine-tuned model worse than its base by more than the interval allows."""
    worse = benchmark_comparisons.filter(
        ~pl.col("better").fill_null(True), model="finetuned", other="base", cohort="all"
    )
    told = [
        f"{row['task']} ({row['form']}): {row['metric']} {row['difference']:+.3f} "
        f"({row['low']:+.3f} to {row['high']:+.3f})"
        for row in worse.to_dicts()
    ]
    return dg.AssetCheckResult(
        passed=not told,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"worse than its base: {'; '.join(told)}" if told else None,
    )


@dg.asset_check(asset="benchmark_report")
def no_measured_item_was_trained_on(benchmark_report: pl.DataFrame) -> dg.AssetCheckResult:
    """No example that was trained on gives an item of a measured benchmark away."""
    contaminated = benchmark_report.filter(pl.col("given_away") > 0).select("benchmark").unique()
    return none_may_be(contaminated, "benchmarks are given away by what was trained on: see the report's top")


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
