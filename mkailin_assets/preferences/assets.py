"""The preferences stage: which question fits in MeSH, what learns it, and who then asks."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from mkailin_assets.checkpoints import (
    AdapterOverrides,
    Published,
    TrainingOverrides,
    trained_generator,
)
from mkailin_assets.evaluation.benchmark_files import benchmark_items
from mkailin_assets.freshness import FIXED_TAG
from mkailin_assets.generations import generation_metadata
from mkailin_assets.gpu import ON_GPU
from mkailin_assets.metadata import bars, counts, curves, histogram, intervals, preview
from mkailin_assets.partitions import ALL_PARTITIONS, mesh_branches
from mkailin_assets.preferences import champion, evaluating, verdicts
from mkailin_assets.preferences.branches import together
from mkailin_assets.preferences.cold_start import (
    ColdStartRules,
    describe_snapshot,
    prefer_by_mesh,
    similarity_from,
)
from mkailin_assets.preferences.evaluator import (
    SMALL,
    EvaluatorRecord,
    EvaluatorTuning,
    TooFewPreferences,
)
from mkailin_assets.preferences.optimization import (
    EMBEDDED_OPTIMIZATION,
    PreferenceOptimization,
    RewardCurve,
    TooFewPairs,
)
from mkailin_assets.preferences.rounds import Loop, Round, RoundRules, first_pairs
from mkailin_assets.preferences.tables import (
    COLD_START,
    ColdStartPreference,
    EvaluatorCheckpoint,
    PreferredGenerator,
    QuestionChampion,
    QuestionPreference,
)
from mkailin_assets.preferences.trial import CITATION_COLUMNS, TrialRules, trial_over
from mkailin_assets.pubmed.tables import BranchCitation
from mkailin_assets.questions.generators import NOT_TRAINED
from mkailin_assets.questions.tables import CandidateContexts, TrainedGenerator
from mkailin_assets.tables import table
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.generation import Generation
from mkailin_resources.index import ContextStore
from mkailin_resources.storage import Storage
from mkailin_resources.trainees import Trainees

# What evaluators read of a citation.
TEXT = ("pmid", "branch", "title", "abstract")
NO_START = "no generator was tuned that could be optimized"


class EvaluatorConfig(AdapterOverrides):
    """What is changed of the evaluator's training, and on how many pairs it is measured."""

    documents: int = Field(200, ge=1, description="Held-out citations, at most")


class OptimizationConfig(TrainingOverrides, TrialRules, RoundRules):
    """What is changed of the optimization, how often the loop turns, and on what its outcome is tried."""

    beta: float | None = Field(None, gt=0, description="How dear it is to move away from the start")


class ChampionConfig(dg.Config, TrialRules):
    """On what the contestants are tried."""


@dg.asset(
    **table(ColdStartPreference),
    partitions_def=mesh_branches,
    group_name="preferences",
    kinds={"polars", "numba"},
    code_version="2",
)
def cold_start_preferences(
    candidate_contexts: pl.DataFrame,
    mesh_descriptors: pl.DataFrame,
    mesh_information_content: pl.DataFrame,
    mesh_rules: dg.ResourceParam[ColdStartRules],
) -> dg.Output[pl.DataFrame]:
    """Of each citation's two questions, the one whose contexts fit the citation best in MeSH."""
    similarity = similarity_from(mesh_descriptors, mesh_information_content, mesh_rules)
    snapshot = describe_snapshot(mesh_descriptors, mesh_information_content)
    preferences = prefer_by_mesh(candidate_contexts, similarity, mesh_rules, snapshot)
    return dg.Output(preferences, metadata=_preference_metadata(preferences))


@dg.asset(
    **table(EvaluatorCheckpoint),
    **ON_GPU,
    ins={
        "cold_start_preferences": ALL_PARTITIONS,
        "candidate_contexts": ALL_PARTITIONS,
        "branch_citations": ALL_PARTITIONS,
    },
    group_name="preferences",
    kinds={"pytorch", "huggingface"},
    tags={FIXED_TAG: ""},
    code_version="1",
)
def evaluator_checkpoint(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    context: dg.AssetExecutionContext,
    cold_start_preferences: dict[str, pl.LazyFrame],
    candidate_contexts: dict[str, pl.LazyFrame],
    branch_citations: dict[str, pl.LazyFrame],
    context_index: pl.DataFrame,
    mesh_descriptors: pl.DataFrame,
    mesh_information_content: pl.DataFrame,
    context_store: ContextStore,
    generation: Generation,
    trainees: dg.ResourceParam[Trainees],
    mesh_rules: dg.ResourceParam[ColdStartRules],
    benchmarks: BenchmarkFiles,
    storage: Storage,
    config: EvaluatorConfig,
) -> dg.Output[pl.DataFrame]:
    """What judges two questions: a model taught what MeSH prefers, or a language model; and how well."""
    if trainees.evaluator == "cold_start":
        return _without_evaluator("MKAILIN_EVALUATOR is cold_start")
    contexts = together(CandidateContexts, candidate_contexts.values()).collect()
    pairs = evaluating.pairs_to_judge(
        together(ColdStartPreference, cold_start_preferences.values()).collect(),
        contexts,
        together(BranchCitation, branch_citations.values(), TEXT).collect(),
        _titles(contexts, context_store, context_index),
    )
    similarity = similarity_from(mesh_descriptors, mesh_information_content, mesh_rules)
    if trainees.judge:
        ask = generation.asking(context)
        judge = evaluating.asked(trainees.judge, ask)
        measured = evaluating.measure(judge, pairs, similarity, config.documents)
        row = evaluating.judge_row(trainees.judge, measured)
        metadata = generation_metadata(ask.tallies, generation)
        return dg.Output(row, metadata=metadata | _evaluator_metadata(row, measured))
    base, teaching = trainees.bases["evaluator"], evaluating.to_teach(pairs, _benchmark_pmids(benchmarks))
    settings = config.over(EvaluatorTuning() if base else SMALL)
    try:
        published, evaluator = evaluating.taught(teaching, base, settings, storage, context.log.info)
    except TooFewPreferences as error:
        context.log.warning(str(error))
        return _without_evaluator(str(error))
    measured = evaluating.measure(evaluating.learned(evaluator), pairs, similarity, config.documents)
    row = evaluating.learned_row(published, evaluator, measured)
    metadata = _taught_metadata(published, evaluator.record)
    return dg.Output(row, metadata=metadata | _evaluator_metadata(row, measured))


@dg.asset(
    **table(QuestionPreference),
    **ON_GPU,
    partitions_def=mesh_branches,
    group_name="preferences",
    kinds={"polars"},
    code_version="1",
)
def question_preferences(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    context: dg.AssetExecutionContext,
    cold_start_preferences: pl.DataFrame,
    candidate_contexts: pl.DataFrame,
    branch_citations: pl.DataFrame,
    evaluator_checkpoint: pl.DataFrame,
    context_index: pl.DataFrame,
    context_store: ContextStore,
    generation: Generation,
    trainees: dg.ResourceParam[Trainees],
    storage: Storage,
) -> dg.Output[pl.DataFrame]:
    """Of each citation's two questions the one that the evaluator prefers, or where it is no better, MeSH."""
    made = evaluator_checkpoint.row(0, named=True)
    ask = generation.asking(context)
    if not made["judges"]:
        preferences = verdicts.by_cold_start(cold_start_preferences)
    else:
        judge = evaluating.judge_of(made, trainees, storage, ask)
        pairs = evaluating.pairs_to_judge(
            verdicts.to_judge(cold_start_preferences),
            candidate_contexts,
            branch_citations,
            _titles(candidate_contexts, context_store, context_index),
        )
        preferences = verdicts.by_evaluator(cold_start_preferences, judge(pairs), made["evaluator"])
    metadata = {"judged_by": counts(preferences, "judge"), "why": made["reason"]}
    metadata |= generation_metadata(ask.tallies, generation) if ask.tallies else {}
    return dg.Output(preferences, metadata=metadata | _preference_metadata(preferences))


@dg.asset(
    **table(PreferredGenerator),
    **ON_GPU,
    ins={"question_preferences": ALL_PARTITIONS, "branch_citations": ALL_PARTITIONS},
    group_name="preferences",
    kinds={"pytorch", "huggingface"},
    tags={FIXED_TAG: ""},
    code_version="1",
)
def preferred_generator(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    context: dg.AssetExecutionContext,
    domain_generator: pl.DataFrame,
    general_generator: pl.DataFrame,
    question_preferences: dict[str, pl.LazyFrame],
    branch_citations: dict[str, pl.LazyFrame],
    context_index: pl.DataFrame,
    mesh_descriptors: pl.DataFrame,
    mesh_information_content: pl.DataFrame,
    context_store: ContextStore,
    generation: Generation,
    trainees: dg.ResourceParam[Trainees],
    mesh_rules: dg.ResourceParam[ColdStartRules],
    benchmarks: BenchmarkFiles,
    storage: Storage,
    config: OptimizationConfig,
) -> dg.Output[pl.DataFrame]:
    """The better of the two tuned generators after direct preference optimization, round by round."""
    tuned = pl.concat([domain_generator, general_generator]).drop_nulls("uri")
    if not trainees.is_on or tuned.is_empty():
        return _not_optimized(NO_START if trainees.is_on else NOT_TRAINED)
    start = tuned.sort("tuned_score", descending=True, nulls_last=True, maintain_order=True).head(1)
    citations = together(BranchCitation, branch_citations.values(), CITATION_COLUMNS).collect()
    preferences = together(QuestionPreference, question_preferences.values()).collect()
    pairs = first_pairs(preferences, citations, _benchmark_pmids(benchmarks))
    similarity = similarity_from(mesh_descriptors, mesh_information_content, mesh_rules)
    ask = generation.asking(context, max_failed_share=1.0)
    loop = Loop(
        settings=config.over(PreferenceOptimization() if start.item(0, "base") else EMBEDDED_OPTIMIZATION),
        rules=config,
        margin=mesh_rules.margin,
        trial=trial_over(branch_citations, context_store.open(context_index), similarity, config),
        trainees=trainees,
        storage=storage,
        ask=ask,
        log=context.log.info,
    )
    try:
        rounds = loop.turn(start.item(0, "uri"), start.item(0, "generator"), citations, pairs)
    except TooFewPairs as error:
        context.log.warning(str(error))
        return _not_optimized(str(error))
    preferred = loop.table(rounds)
    metadata = _optimization_metadata(preferred, rounds)
    return dg.Output(preferred, metadata=metadata | generation_metadata(ask.tallies, generation))


@dg.asset(
    **table(QuestionChampion),
    **ON_GPU,
    ins={"question_preferences": ALL_PARTITIONS, "branch_citations": ALL_PARTITIONS},
    group_name="preferences",
    kinds={"polars"},
    tags={FIXED_TAG: ""},
    code_version="1",
)
def question_champion(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    context: dg.AssetExecutionContext,
    domain_generator: pl.DataFrame,
    general_generator: pl.DataFrame,
    preferred_generator: pl.DataFrame,
    question_preferences: dict[str, pl.LazyFrame],
    branch_citations: dict[str, pl.LazyFrame],
    context_index: pl.DataFrame,
    mesh_descriptors: pl.DataFrame,
    mesh_information_content: pl.DataFrame,
    context_store: ContextStore,
    generation: Generation,
    trainees: dg.ResourceParam[Trainees],
    mesh_rules: dg.ResourceParam[ColdStartRules],
    storage: Storage,
    config: ChampionConfig,
) -> dg.Output[pl.DataFrame]:
    """Who asks the questions of the corpus: the better of two candidates, or a trained generator."""
    trained = champion.contestants(domain_generator, general_generator, preferred_generator)
    similarity = similarity_from(mesh_descriptors, mesh_information_content, mesh_rules)
    preferences = together(QuestionPreference, question_preferences.values()).collect()
    searcher = context_store.open(context_index)
    trial = trial_over(branch_citations, searcher, similarity, config, among=preferences["pmid"])
    ask = generation.asking(context, max_failed_share=1.0)
    askers = {
        row["contestant"]: trained_generator(row["uri"], trainees, storage) for row in trained.to_dicts()
    }
    of_two = trial.scored(champion.best_of_two(preferences, trial.citations))
    chosen = champion.choose(pl.concat([of_two, trial.scores(askers, ask)]), trained)
    metadata = _champion_metadata(chosen)
    return dg.Output(chosen, metadata=metadata | generation_metadata(ask.tallies, generation))


def _benchmark_pmids(benchmarks: BenchmarkFiles) -> list[int]:
    """The citations that nothing is taught on: the audit and the benchmark ask about them."""
    return benchmark_items(benchmarks).table["pmid"].drop_nulls().unique().to_list()


def _titles(
    contexts: pl.DataFrame, context_store: ContextStore, context_index: pl.DataFrame
) -> dict[int, str]:
    found = contexts["contexts"].explode(empty_as_null=False).struct.field("pmid").unique()
    texts = context_store.open(context_index).texts(found)
    return dict(texts.select("pmid", "title").iter_rows())


def _without_evaluator(reason: str) -> dg.Output[pl.DataFrame]:
    row = evaluating.no_evaluator(COLD_START, reason)
    return dg.Output(row, metadata={"judges": COLD_START, "why": reason})


def _not_optimized(reason: str) -> dg.Output[pl.DataFrame]:
    empty = PreferredGenerator.create_empty()
    return dg.Output(empty, metadata={"rounds": 0, "why": reason})


def _taught_metadata(published: Published, record: EvaluatorRecord) -> dict[str, Any]:
    steps, losses = zip(*record.course.curve.train, strict=True)
    return {
        "trained_now": published.trained_now,
        "path": dg.MetadataValue.path(published.uri),
        "loss": curves("Loss on the preferences", {"training": (steps, losses)}, "optimizer step", "nats"),
        "training_seconds": round(record.course.seconds, 1),
        "left_out": record.left_out,
    }


def _evaluator_metadata(row: pl.DataFrame, measured: evaluating.Measured) -> dict[str, Any]:
    made, told = row.row(0, named=True), measured.identification
    agreed = {
        branch["branch"]: (branch["agreement"], branch["low"], branch["high"])
        for branch in measured.agreed.drop_nulls("agreement").to_dicts()
    }
    shares = {"evaluator": told.evaluator, "cold start": told.cold_start}
    known = {name: (one.value, one.low, one.high) for name, one in shares.items() if one}
    metadata: dict[str, Any] = {
        "judges": made["evaluator"] if made["judges"] else COLD_START,
        "why": made["reason"],
        "by_branch": preview(measured.agreed, rows=measured.agreed.height),
        "checkpoint": preview(row),
    }
    if measured.bias:
        metadata["position_bias"] = preview(
            pl.DataFrame([vars(measured.bias) | {"changed": made["position_bias"]}])
        )
    if agreed:
        metadata["agreement"] = intervals("Agreement with the cold start, held-out pairs", agreed)
    if known:
        metadata["identification"] = intervals("Own question told from another citation's", known)
    if measured.calibration:
        bins = measured.calibration.bins
        metadata["calibration"] = preview(bins, rows=bins.height)
        metadata["calibration_error"] = measured.calibration.expected_error
    return metadata


def _optimization_metadata(preferred: pl.DataFrame, rounds: list[Round]) -> dict[str, Any]:
    records = {f"round {one.number}": one.record for one in rounds if one.record}
    courses = {
        "Loss": {name: record.course.curve.train for name, record in records.items()},
        "Reward margin": _both({name: record.reward_margin for name, record in records.items()}),
        "Reward accuracy": _both({name: record.reward_accuracy for name, record in records.items()}),
    }
    metadata: dict[str, Any] = {
        "current": preferred.filter("is_current").item(0, "generator"),
        "rounds": preview(preferred.drop(*TrainedGenerator.columns()), rows=preferred.height),
        **{
            title.lower().replace(" ", "_"): curves(
                f"{title} on the pairs",
                {
                    name: ([step for step, _ in points], [value for _, value in points])
                    for name, points in course.items()
                },
                "optimizer step",
                title.lower(),
            )
            for title, course in courses.items()
        },
        "training_seconds": round(sum(record.course.seconds for record in records.values()), 1),
    }
    scores = {
        f"round {row['round']}": (row["score"], row["score_low"], row["score_high"])
        for row in preferred.drop_nulls("score").to_dicts()
    }
    return metadata | ({"scores": intervals("MeSH score on held-out citations", scores)} if scores else {})


def _both(courses: Mapping[str, RewardCurve]) -> dict[str, list[tuple[int, float]]]:
    """Lines for the pairs trained on, and for those held out where there are some."""
    held_out = {f"{name}, held out": curve.held_out for name, curve in courses.items() if curve.held_out}
    return {name: curve.train for name, curve in courses.items()} | held_out


def _champion_metadata(chosen: pl.DataFrame) -> dict[str, Any]:
    scores = {
        row["contestant"]: (row["score"], row["score_low"], row["score_high"])
        for row in chosen.drop_nulls("score").to_dicts()
    }
    metadata: dict[str, Any] = {
        "champion": chosen.filter("is_champion").item(0, "contestant"),
        "contestants": preview(chosen.drop("uri"), rows=chosen.height),
    }
    return metadata | ({"scores": intervals("MeSH score on held-out citations", scores)} if scores else {})


def _preference_metadata(preferences: pl.DataFrame) -> dict[str, Any]:
    kept = preferences.filter("kept")
    margins = preferences["margin"].drop_nulls().to_list()
    return {
        "citations": preferences.height,
        "kept": kept.height,
        "dropped": counts(preferences.filter(~pl.col("kept")), "reason"),
        "wins": bars("Kept preferences won by each generator", counts(kept, "chosen_role")),
        "mean_chosen_score": preferences["chosen_score"].mean(),
        "mean_rejected_score": preferences["rejected_score"].mean(),
        "margins": histogram("Lead of the chosen question", margins, "difference of MeSH scores"),
        "preview": preview(preferences.select("pmid", "chosen_question", "rejected_question", "margin")),
    }
