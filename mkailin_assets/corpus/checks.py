"""Checks on the corpus stage."""

import dagster as dg
import polars as pl

from mkailin_assets.corpus.assembly import given_away
from mkailin_assets.corpus.assets import (
    corpus_recalls,
    distilled_contexts,
    distilled_questions,
    evaluated_qa,
    generated_qa,
    ledgers_of,
)
from mkailin_assets.corpus.decontamination import normalised
from mkailin_assets.corpus.recalls import not_recalled, not_standing
from mkailin_assets.evaluation.benchmark_files import benchmark_items
from mkailin_assets.metadata import none_may_be, preview
from mkailin_assets.partitions import mesh_branches
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.storage import Storage

MAX_FAILED_SHARE = 0.2

training_corpus_key = dg.AssetKey("training_corpus")
corpus_exclusions_key = dg.AssetKey("corpus_exclusions")


@dg.asset_check(
    asset=distilled_questions,
    partitions_def=mesh_branches,
    additional_ins={"branch_citations": dg.AssetIn("branch_citations")},
)
def every_citation_has_a_question_or_a_reason(
    distilled_questions: pl.DataFrame, branch_citations: pl.DataFrame
) -> dg.AssetCheckResult:
    """Each citation of the branch has a row, with a question or with a failure."""
    complete = pl.col("question").is_null() != pl.col("failure").is_null()
    missing = branch_citations.join(distilled_questions.filter(complete), on="pmid", how="anti")
    return none_may_be(missing.select("pmid", "title"), "citations without question and reason")


@dg.asset_check(
    asset=distilled_contexts,
    partitions_def=mesh_branches,
    additional_ins={"distilled_questions": dg.AssetIn("distilled_questions")},
)
def contexts_are_of_the_distilled_questions(
    distilled_contexts: pl.DataFrame, distilled_questions: pl.DataFrame
) -> dg.AssetCheckResult:
    """Each distilled question has its row of contexts, and none of them is its own citation."""
    key = ["pmid", "question"]
    missing = distilled_questions.join(distilled_contexts, on=key, how="anti", nulls_equal=True)
    without = distilled_contexts.join(distilled_questions, on=key, how="anti", nulls_equal=True)
    found = pl.col("contexts").list.eval(pl.element().struct.field("pmid"))
    itself = distilled_contexts.filter(found.list.contains(pl.col("pmid")))
    wrong = pl.concat([missing.select(key), without.select(key), itself.select(key)])
    return none_may_be(wrong, "questions without contexts of their own")


@dg.asset_check(
    asset=generated_qa,
    partitions_def=mesh_branches,
    additional_ins={"branch_citations": dg.AssetIn("branch_citations")},
)
def every_citation_has_a_row(
    generated_qa: pl.DataFrame, branch_citations: pl.DataFrame
) -> dg.AssetCheckResult:
    """Each citation of the branch has a row, with an answer or with a failure."""
    missing = branch_citations.join(generated_qa, on="pmid", how="anti").select("pmid", "title")
    return none_may_be(missing, "citations of the branch without a row")


@dg.asset_check(asset=generated_qa, partitions_def=mesh_branches)
def few_generations_failed(generated_qa: pl.DataFrame) -> dg.AssetCheckResult:
    """No more than a fifth of the citations went without question or answer."""
    failed = generated_qa.filter(pl.col("failure").is_not_null())
    share = failed.height / max(generated_qa.height, 1)
    return dg.AssetCheckResult(
        passed=share <= MAX_FAILED_SHARE,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{failed.height} of {generated_qa.height} citations went without question or answer",
        metadata={"share": share, "first": preview(failed.select("pmid", "title", "failure"))},
    )


@dg.asset_check(asset=evaluated_qa, partitions_def=mesh_branches)
def verdict_and_reasons_agree(evaluated_qa: pl.DataFrame) -> dg.AssetCheckResult:
    """A kept pair has no reason against it, a dropped pair has one or more."""
    wrong = evaluated_qa.filter(pl.col("kept") != (pl.col("reasons").list.len() == 0))
    return none_may_be(wrong.select("pmid", "kept", "reasons"), "pairs whose verdict and reasons disagree")


@dg.asset_check(asset=evaluated_qa, partitions_def=mesh_branches)
def some_pairs_are_kept(evaluated_qa: pl.DataFrame) -> dg.AssetCheckResult:
    """The branch gives the corpus a pair."""
    kept = int(evaluated_qa["kept"].sum())
    return dg.AssetCheckResult(
        passed=kept > 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{kept} of {evaluated_qa.height} pairs are kept",
        metadata={"kept": kept},
    )


@dg.asset_check(asset=training_corpus_key)
def no_benchmark_item_is_trained_on(
    training_corpus: pl.LazyFrame, benchmarks: BenchmarkFiles
) -> dg.AssetCheckResult:
    """No example gives a benchmark item away: by a PMID, a question, or words in a row; a second look."""
    wrong = given_away(training_corpus, benchmark_items(benchmarks).table)
    return none_may_be(wrong, "benchmark items are given away by examples")


@dg.asset_check(asset=training_corpus_key)
def no_citation_is_in_two_splits(training_corpus: pl.LazyFrame) -> dg.AssetCheckResult:
    """All examples of a citation are in one split, and training reads no context of another split."""
    examples = training_corpus.select("pmid", "split", "context_pmids").collect()
    read = examples.filter(pl.col("split") == "train").explode("context_pmids", empty_as_null=False)
    as_context = read.select(pmid="context_pmids", split="split")
    splits = pl.concat([examples.select("pmid", "split"), as_context]).unique().group_by("pmid").len()
    return none_may_be(splits.filter(pl.col("len") > 1), "citations in more than one split")


@dg.asset_check(asset=training_corpus_key)
def no_question_is_asked_twice(training_corpus: pl.LazyFrame) -> dg.AssetCheckResult:
    """No two examples ask the same question, case and punctuation apart."""
    examples = training_corpus.select("pmid", "branch", "question").collect()
    twice = examples.filter(normalised(pl.col("question")).is_duplicated())
    return none_may_be(twice, "examples ask what another asks")


@dg.asset_check(
    asset=training_corpus_key, additional_ins={"current_citations": dg.AssetIn("current_citations")}
)
def every_source_and_context_stands(
    training_corpus: pl.LazyFrame, current_citations: pl.DataFrame
) -> dg.AssetCheckResult:
    """No example rests on a citation that PubMed retracted, deleted, revised or does not hold."""
    made_of = training_corpus.select("example_id", "made_of").collect()
    return none_may_be(not_standing(made_of, current_citations), "citations of examples that no longer stand")


@dg.asset_check(
    asset=dg.AssetKey("corpus_lengths"), additional_ins={"training_corpus": dg.AssetIn("training_corpus")}
)
def lengths_are_of_every_example(
    corpus_lengths: pl.DataFrame, training_corpus: pl.LazyFrame
) -> dg.AssetCheckResult:
    """Both forms of every example were counted, and a sequence holds no more than it can."""
    splits = training_corpus.select("split").collect()["split"].value_counts(name="there")
    full = pl.col("sequences") * pl.col("sequence_length")
    wrong = (
        corpus_lengths.join(splits, on="split", how="left")
        .with_columns(pl.col("there").fill_null(0))
        .filter(
            (pl.col("examples") != pl.col("there")) | ((pl.col("tokens") > full) & (pl.col("longer") == 0))
        )
    )
    return none_may_be(wrong, "forms and splits that are not counted as they are")


@dg.asset_check(asset=dg.AssetKey("mesh_coverage"))
def shares_add_up(mesh_coverage: pl.DataFrame) -> dg.AssetCheckResult:
    """The branches' shares of PubMed and of the corpus come to all of each, or to nothing."""
    branches = mesh_coverage.filter(level="branch").select(pl.col("share_of_pubmed", "share_of_corpus").sum())
    sums = branches.row(0, named=True)
    return dg.AssetCheckResult(
        passed=all(total == 0 or abs(total - 1) < 1e-6 for total in sums.values()), metadata=sums
    )


@dg.asset_check(
    asset=dg.AssetKey("coverage_gaps"), additional_ins={"training_corpus": dg.AssetIn("training_corpus")}
)
def what_fills_a_gap_is_not_in_the_corpus(
    coverage_gaps: pl.DataFrame, training_corpus: pl.LazyFrame
) -> dg.AssetCheckResult:
    """No citation that could fill a gap is a source of the corpus already."""
    sources = training_corpus.select("pmid").unique().collect()
    fillers = coverage_gaps.select("descriptor_ui", "name", pmid="pmids").explode("pmid", empty_as_null=False)
    return none_may_be(fillers.join(sources, on="pmid", how="semi"), "citations that fill no gap")


@dg.asset_check(asset=corpus_recalls, additional_ins={"current_citations": dg.AssetIn("current_citations")})
def recalls_are_complete(
    corpus_recalls: pl.DataFrame, current_citations: pl.DataFrame, storage: Storage
) -> dg.AssetCheckResult:
    """Each row of a published corpus that rests on a citation no longer standing is recalled."""
    missing = not_recalled(ledgers_of(storage), current_citations, corpus_recalls)
    return none_may_be(missing, "citations of published rows that are taken back and not recalled")


@dg.asset_check(
    asset=corpus_exclusions_key,
    additional_ins={
        "training_corpus": dg.AssetIn("training_corpus"),
        "evaluated_qa": dg.AssetIn("evaluated_qa", partition_mapping=dg.AllPartitionMapping()),
    },
)
def every_pair_is_in_or_out(
    corpus_exclusions: pl.DataFrame, training_corpus: pl.LazyFrame, evaluated_qa: dict[str, pl.LazyFrame]
) -> dg.AssetCheckResult:
    """Each evaluated pair is in the corpus or among the exclusions, once."""
    key = ["pmid", "branch"]
    placed = pl.concat([training_corpus.select(key).collect(), corpus_exclusions.select(key)])
    evaluated = [
        corpus_exclusions.select(key).clear(),
        *(rows.select(key).collect() for rows in evaluated_qa.values()),
    ]
    expected = pl.concat(evaluated)
    wrong = pl.concat(
        [
            placed.filter(placed.is_duplicated()).with_columns(wrong=pl.lit("placed twice")),
            expected.join(placed, on=key, how="anti").with_columns(wrong=pl.lit("evaluated, not placed")),
            placed.join(expected, on=key, how="anti").with_columns(wrong=pl.lit("placed, not evaluated")),
        ]
    )
    return none_may_be(wrong, "pairs not placed exactly once")
