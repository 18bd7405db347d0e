"""The questions stage: from the citations of a branch to candidate questions and their contexts."""

import time
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from mkailin_assets.generations import generation_metadata
from mkailin_assets.gpu import ON_GPU
from mkailin_assets.metadata import bars, counts, histogram, preview
from mkailin_assets.partitions import mesh_branches
from mkailin_assets.questions import candidates
from mkailin_assets.questions.contexts import find_contexts, still_found
from mkailin_assets.questions.tables import CandidateContexts, CandidateQuestion
from mkailin_assets.tables import table
from mkailin_resources.generation import Generation
from mkailin_resources.index import ContextStore
from mkailin_resources.models.interface import TextGenerator
from mkailin_resources.searcher import Filters
from mkailin_resources.storage import Storage

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


@dg.asset(
    **table(CandidateQuestion),
    **ON_GPU,
    partitions_def=mesh_branches,
    group_name="questions",
    kinds={"polars"},
    code_version="2",
)
def candidate_questions(
    context: dg.AssetExecutionContext,
    branch_citations: pl.DataFrame,
    domain_model: dg.ResourceParam[TextGenerator],
    general_model: dg.ResourceParam[TextGenerator],
    generation: Generation,
) -> dg.Output[pl.DataFrame]:
    """For each citation one question of each generator, or why there is none."""
    generators = {"domain": domain_model, "general": general_model}
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
