"""Checks on the questions stage."""

import dagster as dg
import polars as pl

from mkailin_assets.checkpoints import unaltered
from mkailin_assets.corpus.decontamination import normalised
from mkailin_assets.evaluation.benchmark_files import benchmark_items
from mkailin_assets.metadata import none_may_be, preview
from mkailin_assets.partitions import mesh_branches
from mkailin_assets.preferences.trial import LEAST_CITATIONS
from mkailin_assets.questions.assets import (
    MAX_CONTEXTS,
    candidate_contexts,
    candidate_questions,
    domain_generator,
    general_generator,
    question_exemplars,
)
from mkailin_assets.questions.exemplars import exemplar_leaks
from mkailin_assets.questions.tables import ROLES
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.storage import Storage

MAX_FAILED_SHARE = 0.4
MAX_REPEATED_SHARE = 0.05


@dg.asset_check(asset=question_exemplars)
def exemplars_hold_no_benchmark(
    question_exemplars: pl.DataFrame, benchmarks: BenchmarkFiles
) -> dg.AssetCheckResult:
    """No exemplar that is used has a benchmark's citation or question; looked for a second time."""
    benchmark = benchmark_items(benchmarks).table
    return none_may_be(exemplar_leaks(question_exemplars, benchmark), "exemplars give a benchmark away")


@dg.asset_check(asset=question_exemplars)
def no_question_is_trained_on_and_held_out(question_exemplars: pl.DataFrame) -> dg.AssetCheckResult:
    """Of the exemplars that are used, none that is held out asks what one that is trained on asks."""
    used = question_exemplars.filter(pl.col("reason").is_null())
    splits = pl.col("split").n_unique().over(normalised(pl.col("question")))
    return none_may_be(used.filter(splits > 1).select("pmid", "question"), "questions stand in both splits")


@dg.asset_check(asset=domain_generator)
def the_domain_generator_asks_for_a_reason(domain_generator: pl.DataFrame) -> dg.AssetCheckResult:
    """The tuned generator asks where it beats the start by more than chance; else a reason says why not."""
    return none_may_be(domain_generator.filter(~_asks_rightly()), "generators ask that are no better")


@dg.asset_check(asset=domain_generator)
def the_domain_generator_is_as_it_was_trained(
    domain_generator: pl.DataFrame, storage: Storage
) -> dg.AssetCheckResult:
    """Every file of the checkpoint has the SHA-256 that its record lists."""
    return unaltered(domain_generator, storage)


@dg.asset_check(asset=general_generator)
def the_general_generator_is_as_it_was_trained(
    general_generator: pl.DataFrame, storage: Storage
) -> dg.AssetCheckResult:
    """Every file of the checkpoint has the SHA-256 that its record lists."""
    return unaltered(general_generator, storage)


@dg.asset_check(asset=general_generator)
def the_general_generator_asks_for_a_reason(general_generator: pl.DataFrame) -> dg.AssetCheckResult:
    """The tuned generator asks where it beats the start by more than chance; else a reason says why not."""
    return none_may_be(general_generator.filter(~_asks_rightly()), "generators ask that are no better")


@dg.asset_check(
    asset=candidate_questions,
    partitions_def=mesh_branches,
    additional_ins={"branch_citations": dg.AssetIn("branch_citations")},
)
def each_generator_was_asked_about_each_citation(
    candidate_questions: pl.DataFrame, branch_citations: pl.DataFrame
) -> dg.AssetCheckResult:
    """Each citation of the branch has a row of each role: a question, or a failure with its reason."""
    roles = pl.DataFrame({"role": ROLES}, schema={"role": pl.String})
    complete = pl.col("question").is_null() != pl.col("failure").is_null()
    missing = (
        branch_citations.select("pmid")
        .join(roles, how="cross")
        .join(candidate_questions.filter(complete), on=["pmid", "role"], how="anti")
    )
    return none_may_be(missing, "rows of citation and role missing, or without question and reason")


@dg.asset_check(asset=candidate_questions, partitions_def=mesh_branches)
def few_questions_failed(candidate_questions: pl.DataFrame) -> dg.AssetCheckResult:
    """Two in five requests at most went without a question."""
    failed = candidate_questions.filter(pl.col("question").is_null())
    share = failed.height / max(candidate_questions.height, 1)
    return dg.AssetCheckResult(
        passed=share <= MAX_FAILED_SHARE,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{failed.height} of {candidate_questions.height} requests went without a question",
        metadata={"share": share, "first": preview(failed.select("pmid", "role", "failure"))},
    )


@dg.asset_check(asset=candidate_questions, partitions_def=mesh_branches)
def questions_belong_to_one_citation(candidate_questions: pl.DataFrame) -> dg.AssetCheckResult:
    """Few questions are asked of more than one citation: a generator that repeats itself reads nothing."""
    asked = candidate_questions.filter(pl.col("question").is_not_null())
    citations = pl.col("pmid").n_unique().over(pl.col("question").str.to_lowercase())
    repeated = asked.filter(citations > 1)
    share = repeated.height / max(asked.height, 1)
    return dg.AssetCheckResult(
        passed=share <= MAX_REPEATED_SHARE,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{repeated.height} of {asked.height} questions are asked of another citation too",
        metadata={"share": share, "first": preview(repeated.select("question", "pmid").sort("question"))},
    )


@dg.asset_check(asset=candidate_contexts, partitions_def=mesh_branches)
def no_citation_is_its_own_context(candidate_contexts: pl.DataFrame) -> dg.AssetCheckResult:
    """A question's source is never among its contexts."""
    found = pl.col("contexts").list.eval(pl.element().struct.field("pmid"))
    wrong = candidate_contexts.filter(found.list.contains(pl.col("pmid")))
    return none_may_be(wrong.select("pmid", "role", "question"), "questions with their source as context")


@dg.asset_check(asset=candidate_contexts, partitions_def=mesh_branches)
def contexts_are_few_and_ranked_from_1(candidate_contexts: pl.DataFrame) -> dg.AssetCheckResult:
    """Ranks count from 1 without gaps, no citation stands twice, and there are no more than allowed."""
    ranks = pl.col("contexts").list.eval(pl.element().struct.field("rank"))
    pmids = pl.col("contexts").list.eval(pl.element().struct.field("pmid"))
    found = pl.col("contexts").list.len()
    expected = pl.int_ranges(1, found.cast(pl.Int64) + 1).cast(pl.List(pl.Int32))
    wrong = candidate_contexts.filter(
        (found > MAX_CONTEXTS) | (ranks != expected) | (pmids.list.n_unique() != found)
    )
    return none_may_be(wrong.select("pmid", "role", "contexts"), "questions with contexts out of order")


def _asks_rightly() -> pl.Expr:
    tuned = (pl.col("asks") == pl.col("generator")).fill_null(False)
    better = ((pl.col("lead_low") > 0) & (pl.col("documents") >= LEAST_CITATIONS)).fill_null(False)
    without_reason = pl.col("reason").is_null()
    return pl.when(tuned).then(better & without_reason).otherwise(~without_reason)
