"""The questions stage: from exemplars to two generators, and to candidate questions and their contexts."""

import time
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from mkailin_assets.checkpoints import AdapterOverrides, trained_generator
from mkailin_assets.evaluation.benchmark_files import benchmark_items
from mkailin_assets.freshness import FIXED_TAG
from mkailin_assets.generations import generation_metadata
from mkailin_assets.gpu import ON_GPU
from mkailin_assets.metadata import bars, counts, curves, histogram, intervals, preview
from mkailin_assets.partitions import ALL_PARTITIONS, mesh_branches
from mkailin_assets.preferences.cold_start import ColdStartRules, similarity_from
from mkailin_assets.preferences.trial import TrialRules, trial_over
from mkailin_assets.questions import candidates
from mkailin_assets.questions.bioasq import BioASQ, read_bioasq
from mkailin_assets.questions.contexts import find_contexts, still_found
from mkailin_assets.questions.exemplars import exemplar_citations
from mkailin_assets.questions.exemplars import question_exemplars as exemplars_of
from mkailin_assets.questions.finetuning import (
    EMBEDDED_TUNING,
    GeneratorRecord,
    GeneratorTuning,
    TooFewExemplars,
)
from mkailin_assets.questions.generators import NOT_TRAINED, asking, checkpoint_row, tried, tuned
from mkailin_assets.questions.tables import (
    CandidateContexts,
    CandidateQuestion,
    GeneratorCheckpoint,
    QuestionExemplar,
)
from mkailin_assets.retrieval.update import findable, records_of
from mkailin_assets.tables import table
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.generation import Generation
from mkailin_resources.index import ContextStore
from mkailin_resources.models.interface import TextGenerator
from mkailin_resources.searcher import Filters
from mkailin_resources.storage import Storage
from mkailin_resources.trainees import Trainee, Trainees

MAX_CONTEXTS = 20


class ContextConfig(dg.Config):
    """How many contexts a question gets."""

    k: int = Field(4, ge=1, le=MAX_CONTEXTS, description="Contexts of a question, at most")
    look_again: bool = Field(False, description="Search anew for all, even where what was found stands")
    from_year: int | None = Field(None, description="Contexts published in this year or later")
    to_year: int | None = Field(None, description="Contexts published in this year or earlier")
    branches: list[str] = Field([], description="Home branches of the contexts, as C04; none: all")
    languages: list[str] = Field([], description="Languages of the contexts, as eng; none: all")

    @property
    def filters(self) -> Filters:
        """Which citations can be contexts."""
        return Filters(self.from_year, self.to_year, tuple(self.branches), tuple(self.languages))


class GeneratorConfig(AdapterOverrides, TrialRules):
    """What is changed of the tuning of a generator, and on what it is tried."""


@dg.asset(
    **table(QuestionExemplar),
    ins={"pubmed_citations": ALL_PARTITIONS},
    group_name="questions",
    kinds={"polars"},
    code_version="1",
)
def question_exemplars(
    current_citations: pl.DataFrame,
    pubmed_citations: dict[str, pl.LazyFrame],
    bioasq: dg.ResourceParam[str],
    benchmarks: BenchmarkFiles,
) -> dg.Output[pl.DataFrame]:
    """Documents and the questions that people asked of them: BioASQ's, and titles that are questions."""
    asked = read_bioasq(bioasq) if bioasq else BioASQ((), {})
    benchmark = benchmark_items(benchmarks).table
    citations = exemplar_citations(records_of(findable(current_citations), pubmed_citations), asked.items)
    withdrawn = current_citations.filter(pl.col("state") != "current")["pmid"]
    exemplars = exemplars_of(citations, asked.items, benchmark, set(withdrawn))
    return dg.Output(
        exemplars,
        metadata=_exemplar_metadata(exemplars, asked, benchmark.unique(["benchmark", "item"]).height),
    )


def _generator(role: Trainee) -> dg.AssetsDefinition:
    """The asset of a role; both are made alike."""

    @dg.asset(
        **table(GeneratorCheckpoint),
        **ON_GPU,
        name=f"{role}_generator",
        ins={"branch_citations": ALL_PARTITIONS},
        group_name="questions",
        kinds={"pytorch", "huggingface"},
        tags={FIXED_TAG: ""},
        code_version="1",
        description=f"The {role} question generator: tuned on the exemplars (LoRA), if that asks better.",
    )
    def generator(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
        context: dg.AssetExecutionContext,
        question_exemplars: pl.DataFrame,
        branch_citations: dict[str, pl.LazyFrame],
        context_index: pl.DataFrame,
        mesh_descriptors: pl.DataFrame,
        mesh_information_content: pl.DataFrame,
        domain_model: dg.ResourceParam[TextGenerator],
        general_model: dg.ResourceParam[TextGenerator],
        context_store: ContextStore,
        generation: Generation,
        trainees: dg.ResourceParam[Trainees],
        mesh_rules: dg.ResourceParam[ColdStartRules],
        storage: Storage,
        config: GeneratorConfig,
    ) -> dg.Output[pl.DataFrame]:
        start = general_model if role == "general" else domain_model
        if not trainees.is_on:
            row = checkpoint_row(role, start, NOT_TRAINED)
            return dg.Output(row, metadata={"asks": start.name, "why": NOT_TRAINED})
        recipe = GeneratorTuning() if trainees.bases[role] else EMBEDDED_TUNING
        try:
            made = tuned(role, question_exemplars, config.over(recipe), trainees, storage, context.log.info)
        except TooFewExemplars as error:
            context.log.warning(str(error))
            row = checkpoint_row(role, start, str(error))
            return dg.Output(row, metadata={"asks": start.name, "why": str(error)})
        similarity = similarity_from(mesh_descriptors, mesh_information_content, mesh_rules)
        trial = trial_over(branch_citations, context_store.open(context_index), similarity, config)
        ask = generation.asking(context, max_failed_share=1.0)
        asker = trained_generator(made[0].uri, trainees, storage)
        row = tried(checkpoint_row(role, start, "", made), start, asker, trial, ask)
        metadata = _generator_metadata(row, made[0].trained_now, made[1])
        return dg.Output(row, metadata=metadata | generation_metadata(ask.tallies, generation))

    return generator


domain_generator = _generator("domain")
general_generator = _generator("general")


@dg.asset(
    **table(CandidateQuestion),
    **ON_GPU,
    partitions_def=mesh_branches,
    group_name="questions",
    kinds={"polars"},
    code_version="2",
)
def candidate_questions(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    context: dg.AssetExecutionContext,
    branch_citations: pl.DataFrame,
    domain_generator: pl.DataFrame,
    general_generator: pl.DataFrame,
    domain_model: dg.ResourceParam[TextGenerator],
    general_model: dg.ResourceParam[TextGenerator],
    trainees: dg.ResourceParam[Trainees],
    generation: Generation,
    storage: Storage,
) -> dg.Output[pl.DataFrame]:
    """For each citation one question of each generator, or why there is none."""
    generators = {
        "domain": asking(domain_generator, domain_model, trainees, storage),
        "general": asking(general_generator, general_model, trainees, storage),
    }
    ask = generation.asking(context)
    questions = candidates.candidate_questions(branch_citations, generators, context.partition_key, ask)
    metadata = _question_metadata(questions, branch_citations.height)
    return dg.Output(questions, metadata=metadata | generation_metadata(ask.tallies, generation))


@dg.asset(
    **table(CandidateContexts),
    partitions_def=mesh_branches,
    group_name="questions",
    kinds={"lancedb"},
    code_version="3",
)
def candidate_contexts(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    context: dg.AssetExecutionContext,
    candidate_questions: pl.DataFrame,
    branch_citations: pl.DataFrame,
    context_index: pl.DataFrame,
    context_store: ContextStore,
    storage: Storage,
    config: ContextConfig,
) -> dg.Output[pl.DataFrame]:
    """The k best contexts of each candidate question, the source itself left out."""
    started = time.perf_counter()
    searcher = context_store.open(context_index, config.filters)
    recorded = None if config.look_again else storage.read_table("candidate_contexts", context.partition_key)
    kept = still_found(recorded, candidate_questions, searcher, config.k)
    contexts = find_contexts(candidate_questions, branch_citations, searcher, config.k, kept)
    seconds = time.perf_counter() - started
    metadata = {"kept": kept.height, "search": searcher.search_kind, **_context_metadata(contexts, seconds)}
    return dg.Output(contexts, metadata=metadata)


def _exemplar_metadata(exemplars: pl.DataFrame, asked: BioASQ, benchmark_items: int) -> dict[str, Any]:
    used = exemplars.filter(pl.col("reason").is_null())
    # A reason may quote the text it is about, behind a colon.
    reason = pl.col("reason").str.split(": ").list.first().str.replace(r"PMID \d+", "another")
    left_out = exemplars.filter(reason.is_not_null()).with_columns(reason)
    return {
        "exemplars": used.height,
        "by_source": counts(used, "source"),
        "by_split": counts(used, "split"),
        "left_out": counts(left_out, "reason"),
        "bioasq_questions": len(asked.items),
        "bioasq_refused": asked.refused,
        "benchmark_items": benchmark_items,
        "preview": preview(used.select("source", "pmid", "question"), rows=10),
    }


def _generator_metadata(row: pl.DataFrame, trained_now: bool, record: GeneratorRecord) -> dict[str, Any]:
    made, curve = row.row(0, named=True), record.course.curve
    lines = {
        name: ([step for step, _ in points], [loss for _, loss in points])
        for name, points in (("training", curve.train), ("held out", curve.validation))
        if points
    }
    metadata: dict[str, Any] = {
        "asks": made["asks"],
        "why": made["reason"] or "on held-out citations its questions score higher, beyond chance",
        "trained_now": trained_now,
        "path": dg.MetadataValue.path(made["uri"]),
        "loss": curves("Loss on the questions", lines, x="optimizer step", y="nats a token"),
        "exemplars": record.exemplars,
        "left_out": record.left_out,
        "steps": record.course.steps,
        "resumed_at": record.course.resumed_at or "no",
        "training_seconds": round(record.course.seconds, 1),
        "trained_parameters": record.trained_parameters,
        "checkpoint": preview(row),
    }
    if made["documents"]:
        lead = (made["lead"], made["lead_low"], made["lead_high"])
        metadata["lead"] = intervals(
            "MeSH score: tuned minus start, held-out citations", {made["role"]: lead}
        )
    return metadata


def _question_metadata(questions: pl.DataFrame, citations: int) -> dict[str, Any]:
    asked = questions.filter(pl.col("question").is_not_null())
    failed = questions.filter(pl.col("question").is_null())
    lengths = asked["question"].str.split(" ").list.len().to_list()
    return {
        "citations": citations,
        "questions": asked.height,
        "questions_by_role": counts(asked, "role"),
        "failures_by_role": counts(failed, "role"),
        # A reason may quote the text it is about, behind a colon.
        "failures": counts(failed.with_columns(pl.col("failure").str.split(": ").list.first()), "failure"),
        "questions_by": counts(asked, "generator"),
        "lengths": histogram("Length of the questions", lengths, "words"),
        "preview": preview(asked.select("pmid", "role", "question"), rows=10),
    }


def _context_metadata(contexts: pl.DataFrame, seconds: float) -> dict[str, Any]:
    searched = contexts.filter(pl.col("question").is_not_null())
    found = searched["contexts"].explode(empty_as_null=False).struct.unnest()
    ranks = searched.select(
        rank=pl.when(pl.col("source_rank") == 1)
        .then(pl.lit("first"))
        .when(pl.col("source_rank") <= 10)
        .then(pl.lit("2 to 10"))
        .when(pl.col("source_rank").is_not_null())
        .then(pl.lit("below 10"))
        .otherwise(pl.lit("not found"))
    )
    return {
        "questions": searched.height,
        "without_question": contexts.height - searched.height,
        "without_contexts": counts(searched.filter(pl.col("failure").is_not_null()), "failure"),
        "found_by": counts(found, "found_by"),
        "seconds": round(seconds, 3),
        "questions_per_second": round(searched.height / seconds, 1) if seconds else 0.0,
        "source_ranks": bars("Rank at which a question finds its source", counts(ranks, "rank")),
        "preview": preview(searched.select("pmid", "role", "question", "source_rank")),
    }
