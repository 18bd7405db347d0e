"""The question of each citation that enters the corpus, asked by the champion, and its contexts."""

import polars as pl

from mkailin_assets.corpus.tables import DistilledContexts, DistilledQuestion
from mkailin_assets.questions.candidates import candidate_questions
from mkailin_assets.questions.tables import CandidateContexts
from mkailin_resources.generation import Ask
from mkailin_resources.models.interface import TextGenerator

CHAMPION = "champion"
NO_PREFERENCE = "no preference was computed for the citation: materialize question_preferences again"
ANOTHER_QUESTION = "the preferred question is no candidate any longer: materialize question_preferences again"
NO_QUESTION = "no question to answer"
NOT_SEARCHED = "its contexts were not found yet: materialize candidate_contexts again"
_QUESTIONS = DistilledQuestion.create_empty().columns
_CONTEXTS = DistilledContexts.create_empty()
NOTHING_FOUND: pl.DataFrame = CandidateContexts.create_empty()


def best_of_two(preferences: pl.DataFrame, candidates: pl.DataFrame, citations: pl.DataFrame) -> pl.DataFrame:
    """A `DistilledQuestion` for each citation: the preferred one of its two candidates, or why there is none.

    Takes QuestionPreference, CandidateQuestion and BranchCitation of a branch; in the order of `citations`.
    """
    chosen = preferences.select("pmid", "judge", role="chosen_role", question="chosen_question")
    asked = candidates.select("pmid", "role", "question", "generator", "prompt_version", "fingerprint")
    failures = (
        candidates.filter(pl.col("failure").is_not_null())
        .group_by("pmid")
        .agg(failures=pl.col("failure").unique(maintain_order=True).str.join("; "))
    )
    reason = (
        pl.when(pl.col("judge").is_null())
        .then(pl.lit(NO_PREFERENCE))
        .when(pl.col("question").is_not_null() & pl.col("fingerprint").is_null())
        .then(pl.lit(ANOTHER_QUESTION))
        .when(pl.col("question").is_null())
        .then(pl.concat_str(pl.lit(NO_QUESTION), "failures", separator=": ", ignore_nulls=True))
    )
    return (
        citations.select("pmid", "branch", "pubmed_file", "content_hash")
        .join(chosen, on="pmid", how="left", validate="1:1", maintain_order="left")
        .join(asked, on=["pmid", "role", "question"], how="left", validate="1:1", maintain_order="left")
        .join(failures, on="pmid", how="left", validate="1:1", maintain_order="left")
        .with_columns(failure=reason, refused_text=pl.lit(None, pl.String), chosen_by="judge")
        .with_columns(question=pl.when(pl.col("failure").is_null()).then("question"))
        .select(_QUESTIONS)
    )


def by_champion(
    instead_of: pl.DataFrame, citations: pl.DataFrame, champion: TextGenerator, branch: str, ask: Ask
) -> pl.DataFrame:
    """A `DistilledQuestion` for each citation: the champion's, or where it has none the one in `instead_of`.

    `instead_of` is what `best_of_two` gives for the same citations. Raises what `ask` raises.
    """
    asked = candidate_questions(citations, {CHAMPION: champion}, branch, ask)
    written = asked.filter(pl.col("question").is_not_null()).with_columns(chosen_by=pl.lit(CHAMPION))
    refused = asked.filter(pl.col("question").is_null()).select("pmid", refused="refused_text")
    others = (
        instead_of.join(written, on="pmid", how="anti", maintain_order="left")
        .join(refused, on="pmid", how="left", validate="1:1", maintain_order="left")
        .with_columns(refused_text="refused")
    )
    order = citations.select("pmid")
    both = pl.concat([written.select(_QUESTIONS), others.select(_QUESTIONS)])
    return order.join(both, on="pmid", how="left", validate="1:1", maintain_order="left").select(_QUESTIONS)


def distilled_contexts(
    questions: pl.DataFrame, candidate_contexts: pl.DataFrame, found: pl.DataFrame, scores: pl.DataFrame
) -> pl.DataFrame:
    """A `DistilledContexts` for each `DistilledQuestion`, in their order.

    A candidate's contexts and preferred score are known from `candidate_contexts` and `scores`; `found` are
    those of the champion's own questions, as `find_contexts` gives them. `scores` has pmid, role, score and
    margin.
    """
    known = pl.concat([candidate_contexts, found])
    columns = [name for name in known.columns if name not in {"branch", "failure"}]
    return (
        questions.select("pmid", "role", "branch", "question", without="failure")
        .join(
            known.select(*columns, "failure"),
            on=["pmid", "role", "question"],
            how="left",
            validate="1:1",
            maintain_order="left",
        )
        .join(scores, on=["pmid", "role"], how="left", validate="1:1", maintain_order="left")
        .with_columns(
            *(pl.col(name).fill_null([]) for name in ("heading_uis", "contexts")),
            failure=pl.coalesce(
                "without", "failure", pl.when(pl.col("encoder").is_null()).then(pl.lit(NOT_SEARCHED))
            ),
            mesh_score="score",
            mesh_margin="margin",
        )
        .select(_CONTEXTS.columns)
    )


def preferred_scores(preferences: pl.DataFrame) -> pl.DataFrame:
    """pmid, role, score and margin of the preferred candidates (`QuestionPreference`)."""
    return preferences.select("pmid", "margin", role="chosen_role", score="chosen_score").drop_nulls("role")


def as_candidates(contexts: pl.DataFrame | None) -> pl.DataFrame | None:
    """The champion's rows of a `DistilledContexts` table as `still_found` takes what was found before."""
    if contexts is None or contexts.schema != _CONTEXTS.schema:
        return None
    return contexts.filter(role=CHAMPION).select(NOTHING_FOUND.columns)


def written_by_champion(questions: pl.DataFrame) -> pl.DataFrame:
    """Those of a `DistilledQuestion` table whose contexts have to be found."""
    return questions.filter(role=CHAMPION)
