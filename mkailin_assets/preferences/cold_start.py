"""Which of a citation's two questions found contexts that fit the citation best in MeSH (docs/method.md)."""

from typing import Literal

import polars as pl
from pydantic import BaseModel, Field

from mkailin_assets.mesh.similarity import HeadingSimilarity, Measure
from mkailin_assets.preferences.tables import ColdStartPreference
from mkailin_assets.questions.tables import ROLES

IcSource = Literal["corpus", "intrinsic"]


class ColdStartRules(BaseModel):
    """How questions are scored, and which pairs are preferences to learn from."""

    measure: Measure = Field("lin", description="Similarity of two descriptors")
    ic_source: IcSource = Field("corpus", description="Information content: of the citations, or of the tree")
    margin: float = Field(0.01, ge=0, description="Scores no further apart than this are a tie")
    lowest: float = Field(0.0, ge=0, le=1, description="A score below it makes the pair no preference")
    highest: float = Field(1.0, ge=0, le=1, description="A score above it makes the pair no preference")


def prefer_by_mesh(
    contexts: pl.DataFrame, similarity: HeadingSimilarity, rules: ColdStartRules, ic_snapshot: str
) -> pl.DataFrame:
    """A `ColdStartPreference` for each citation of `contexts` (a `CandidateContexts` table).

    A question's score, 0 to 1, is the mean similarity of the source's headings to those of its
    contexts, over the contexts that have scorable headings. The higher score is chosen, equal scores
    go to the domain generator, and where one question exists it is chosen, so that it can be answered;
    `kept` says whether the pair teaches a preference, `reason` why not. The pairing of scored contexts
    with chosen and rejected questions is that of KAILIN (arXiv 2501.15108). Time and memory grow with
    the contexts of the branch.
    """
    ranked = (
        contexts.join(question_scores(contexts, similarity), on=["pmid", "role"], how="left")
        .filter(pl.col("question").is_not_null())
        .sort(
            "pmid",
            "score",
            pl.col("role").replace_strict(ROLES, range(len(ROLES))),
            descending=[False, True, False],
            nulls_last=True,
        )
        .select("pmid", "role", "question", "score")
    )
    place = pl.int_range(pl.len()).over("pmid")
    pairs = (
        contexts.select("pmid", "branch", "heading_uis")
        .unique("pmid", keep="first", maintain_order=True)
        .pipe(_with_scorable, similarity)
        .join(_named(ranked.filter(place == 0), "chosen"), on="pmid", how="left")
        .join(_named(ranked.filter(place == 1), "rejected"), on="pmid", how="left")
        .with_columns(margin=pl.col("chosen_score") - pl.col("rejected_score"))
        .with_columns(reason=drop_reason(rules))
    )
    return (
        pairs.with_columns(
            kept=pl.col("reason").is_null(),
            measure=pl.lit(rules.measure),
            ic_source=pl.lit(rules.ic_source),
            ic_snapshot=pl.lit(ic_snapshot),
        )
        .select(ColdStartPreference.create_empty().columns)
        .sort("pmid")
    )


def question_scores(contexts: pl.DataFrame, similarity: HeadingSimilarity) -> pl.DataFrame:
    """`pmid`, `role` and `score` of the questions that have a scorable context.

    The score is the mean best-match average over those contexts, 0 to 1.
    """
    pairs = contexts.select("pmid", "role", "heading_uis", "contexts").explode(
        "contexts", empty_as_null=False
    )
    found = pairs["contexts"].struct.field("heading_uis")
    scores = similarity.best_match_averages(pairs["heading_uis"].to_list(), found.to_list())
    return (
        pairs.select("pmid", "role", score=pl.Series(scores, dtype=pl.Float64).fill_nan(None))
        .drop_nulls("score")
        .group_by("pmid", "role", maintain_order=True)
        .agg(pl.col("score").mean())
    )


def drop_reason(rules: ColdStartRules) -> pl.Expr:
    """Why a pair is no preference to learn from, the most basic reason first; null when it is one."""
    best, worst = pl.col("chosen_score"), pl.col("rejected_score")
    return (
        pl.when(pl.col("chosen_question").is_null())
        .then(pl.lit("neither generator wrote a question"))
        .when(pl.col("rejected_question").is_null())
        .then(pl.format("only the {} generator wrote a question", pl.col("chosen_role")))
        .when(_bare(pl.col("chosen_question")) == _bare(pl.col("rejected_question")))
        .then(pl.lit("both generators wrote the same question"))
        .when(~pl.col("scorable"))
        .then(pl.lit("the source has no heading with a place in the hierarchy"))
        .when(best.is_null())
        .then(pl.lit("no context of either question has a scorable heading"))
        .when(worst.is_null())
        .then(pl.format("no context of the {} question has a scorable heading", pl.col("rejected_role")))
        .when((worst < rules.lowest) | (best > rules.highest))
        .then(pl.lit(f"a score lies outside {rules.lowest:g} to {rules.highest:g}"))
        .when(pl.col("margin") <= rules.margin)
        .then(pl.lit(f"tie: the scores are within {rules.margin:g}"))
    )


def describe_snapshot(descriptors: pl.DataFrame, information_content: pl.DataFrame) -> str:
    """The MeSH year and the number of citations behind the scores, for people to read."""
    citations = information_content.item(0, "all_citations")
    return f"MeSH {descriptors.item(0, 'release_year')}, {citations:,} citations"


def _named(questions: pl.DataFrame, verdict: str) -> pl.DataFrame:
    return questions.rename({name: f"{verdict}_{name}" for name in ("role", "question", "score")})


def _with_scorable(sources: pl.DataFrame, similarity: HeadingSimilarity) -> pl.DataFrame:
    # A source is as similar as can be to itself, unless it has no scorable heading.
    headings = sources["heading_uis"].to_list()
    itself = similarity.best_match_averages(headings, headings)
    return sources.with_columns(scorable=pl.Series(itself, dtype=pl.Float64).is_not_nan())


def _bare(question: pl.Expr) -> pl.Expr:
    return question.str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}]+", "")
