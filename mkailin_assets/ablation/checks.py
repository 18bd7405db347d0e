"""Checks of the ablations."""

import dagster as dg
import polars as pl

from mkailin_assets.ablation.ablations import ABLATIONS
from mkailin_assets.ablation.assets import ablated_checkpoint, ablated_corpus, ablation_report, ablations
from mkailin_assets.checkpoints import finite, unaltered
from mkailin_assets.corpus.assembly import given_away
from mkailin_assets.corpus.recalls import corpus_fingerprint, trained_on
from mkailin_assets.evaluation.benchmark_files import benchmark_items
from mkailin_assets.metadata import none_may_be, preview
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.storage import Storage

# How far the tokens of pre-training may be apart: the last step of each pass over a corpus may be smaller.
MOST_APART = 0.02
_LOSSES = [
    f"{stage}_{loss}" for stage in ("pretraining", "finetuning") for loss in ("loss", "validation_loss")
]


@dg.asset_check(asset=ablated_corpus, partitions_def=ablations)
def no_benchmark_item_is_trained_on(
    ablated_corpus: pl.LazyFrame, benchmarks: BenchmarkFiles
) -> dg.AssetCheckResult:
    """No example gives a benchmark item away: by a PMID, a question, or words in a row."""
    wrong = given_away(ablated_corpus, benchmark_items(benchmarks).table)
    return none_may_be(wrong, "benchmark items are given away by examples")


@dg.asset_check(asset=ablated_corpus, partitions_def=ablations, blocking=True)
def no_example_is_there_twice(ablated_corpus: pl.LazyFrame) -> dg.AssetCheckResult:
    """No id is that of two examples, and no citation is the source of two."""
    examples = ablated_corpus.select("example_id", "pmid", "split", "question").collect()
    wrong = examples.filter(pl.col("example_id").is_duplicated() | pl.col("pmid").is_duplicated())
    return none_may_be(wrong, "examples share an id or a citation with another")


@dg.asset_check(
    asset=ablated_corpus,
    partitions_def=ablations,
    additional_ins={"training_corpus": dg.AssetIn("training_corpus")},
)
def held_out_rows_are_those_of_the_corpus(
    ablated_corpus: pl.LazyFrame, training_corpus: pl.LazyFrame
) -> dg.AssetCheckResult:
    """Validation and test rows are those of training_corpus: all models are measured on the same."""
    key = ["example_id", "split", "example_hash"]
    ours, theirs = (
        rows.filter(pl.col("split") != "train").select(key).collect()
        for rows in (ablated_corpus, training_corpus)
    )
    return dg.AssetCheckResult(
        passed=corpus_fingerprint(ours) == corpus_fingerprint(theirs),
        description=f"{ours.height} rows, and {theirs.height} in training_corpus",
    )


@dg.asset_check(asset=ablated_checkpoint, partitions_def=ablations, blocking=True)
def losses_are_finite(ablated_checkpoint: pl.DataFrame) -> dg.AssetCheckResult:
    """Losses are numbers."""
    return finite(ablated_checkpoint.select(_LOSSES).row(0, named=True))


@dg.asset_check(asset=ablated_checkpoint, partitions_def=ablations, blocking=True)
def files_are_those_written(ablated_checkpoint: pl.DataFrame, storage: Storage) -> dg.AssetCheckResult:
    """The files of both checkpoints are as their records list them."""
    both = pl.concat([ablated_checkpoint["uri"], ablated_checkpoint["pretrained_uri"]])
    return unaltered(pl.DataFrame({"uri": both}), storage)


@dg.asset_check(
    asset=ablated_checkpoint,
    partitions_def=ablations,
    additional_ins={"ablated_corpus": dg.AssetIn("ablated_corpus")},
)
def it_was_trained_on_the_corpus_as_it_is(
    ablated_checkpoint: pl.DataFrame, ablated_corpus: pl.LazyFrame
) -> dg.AssetCheckResult:
    """The model was trained on the ablated corpus that there is, not on an earlier one."""
    trained, there = ablated_checkpoint["data_fingerprint"][0], trained_on(ablated_corpus)
    return dg.AssetCheckResult(passed=trained == there, metadata={"trained_on": trained, "there": there})


@dg.asset_check(
    asset=ablation_report,
    additional_ins={
        "ablated_checkpoint": dg.AssetIn("ablated_checkpoint", partition_mapping=dg.AllPartitionMapping())
    },
)
def budgets_are_equal(ablated_checkpoint: dict[str, pl.DataFrame]) -> dg.AssetCheckResult:
    """All models have one base, settings and budget of tokens, and pre-training read as many for each.

    How far fine-tuning fell short of its budget is told: whole examples leave room in a sequence.
    """
    models = pl.concat(ablated_checkpoint.values())
    fixed = ["conditions", "base_model", "recipe", "method", "pretraining_budget", "finetuning_budget"]
    other = [name for name in fixed if models[name].n_unique() > 1]
    read = ["pretraining_tokens", "finetuning_tokens"]
    apart, tuned_apart = (
        1 - min(tokens) / max(tokens) for tokens in (models[name].to_list() for name in read)
    )
    told = f"tokens read are {apart:.1%} apart in pre-training (at most {MOST_APART:.0%}), and "
    told += f"{tuned_apart:.1%} in fine-tuning"
    if other:
        told = f"not the same for all: {', '.join(other)}; materialize ablated_checkpoint with one config"
    return dg.AssetCheckResult(
        passed=not other and apart <= MOST_APART,
        severity=dg.AssetCheckSeverity.ERROR if other else dg.AssetCheckSeverity.WARN,
        description=told,
        metadata={"budgets": preview(models.select("ablation", *fixed, *read), rows=models.height)},
    )


@dg.asset_check(asset=ablation_report)
def no_ablation_is_missing(ablation_report: pl.DataFrame) -> dg.AssetCheckResult:
    """Every agent was taken out once, and there is a model with all of them to compare with."""
    missing = [name for name in ABLATIONS if name not in ablation_report["ablation"]]
    return dg.AssetCheckResult(
        passed=not missing,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"not made yet: {', '.join(missing)}" if missing else None,
    )
