"""Which of a citation's two questions found contexts that fit the citation best in MeSH (docs/method.md)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import polars as pl
from pydantic import BaseModel, Field

from mkailin_assets.mesh.hierarchy import MeshHierarchy
from mkailin_assets.mesh.similarity import HeadingSimilarity, Measure
from mkailin_assets.preferences.mentions import Mentions
from mkailin_assets.preferences.tables import ColdStartPreference
from mkailin_assets.questions.tables import ROLES

Mode = Literal["corrected", "kailin_compat"]
IcSource = Literal["corpus", "intrinsic"]
KAILIN = "kailin"
TIE = "tie"


class DocumentSimilarity(Protocol):
    """How alike two citations are by their headings."""

    def best_match_averages(
        self, sources: Sequence[Sequence[str]], contexts: Sequence[Sequence[str]]
    ) -> np.ndarray:
        """Of each source and the context at the same place, 0 to 1: float64 (pairs,); NaN: no heading counts.

        Headings are descriptor UIs, or names.
        """
        ...


@dataclass(frozen=True)
class WithMentions:
    """A similarity under which a question is a context of its own, with the headings it names.

    It counts as `weight` of the contexts that were found.
    """

    documents: DocumentSimilarity
    mentions: Mentions
    weight: float

    def best_match_averages(
        self, sources: Sequence[Sequence[str]], contexts: Sequence[Sequence[str]]
    ) -> np.ndarray:
        """As between documents."""
        return self.documents.best_match_averages(sources, contexts)


class ColdStartRules(BaseModel, extra="forbid"):
    """How questions are scored, and which pairs are preferences to learn from.

    `corrected` is the mean similarity of the source to the contexts and to what the question itself names.
    The latter rests on no search: on one half of PubMedQA's 500 documents with a weight of 0, 1, 2 and 4 the
    score told the real question from one of another document of the branch in 84, 92, 94 and 93% (MiniLM and
    BM25, Lin, corpus IC). `kailin_compat` is the published formula (`mesh.kailin`), to which measure, IC and
    named headings do not apply.
    """

    mode: Mode = Field("corrected", description="Our formula, or that of KAILIN's published code")
    measure: Measure = Field("lin", description="Similarity of two descriptors")
    ic_source: IcSource = Field("corpus", description="Information content: of the citations, or of the tree")
    mention_weight: float = Field(
        2.0, ge=0, description="As how many contexts the headings count that the question itself names"
    )
    margin: float = Field(0.01, ge=0, description="Scores no further apart than this are a tie")
    lowest: float = Field(0.0, ge=0, le=1, description="A score below it makes the pair no preference")
    highest: float = Field(1.0, ge=0, le=1, description="A score above it makes the pair no preference")

    def version(self) -> str:
        """The rules as text, another one for other rules."""
        return self.model_dump_json()

    def score_version(self) -> str:
        """What decides a score, as text: without the rules of what teaches."""
        return json.dumps(self.scored_by)

    @property
    def scored_by(self) -> dict[str, str | float]:
        """What decides a score, as rows record it: mode, measure, ic_source, mention_weight."""
        if self.mode == "kailin_compat":
            return {"mode": self.mode, "measure": KAILIN, "ic_source": KAILIN, "mention_weight": 0.0}
        return self.model_dump(include={"mode", "measure", "ic_source", "mention_weight"})


def similarity_of(
    hierarchy: MeshHierarchy, information_content: pl.DataFrame, rules: ColdStartRules
) -> DocumentSimilarity:
    """The similarity that these rules score by, with table MeshInformationContent."""
    if rules.mode == "kailin_compat":
        from mkailin_assets.mesh.kailin import KailinSimilarity

        return KailinSimilarity.from_table(hierarchy, information_content)
    documents = HeadingSimilarity.from_table(hierarchy, information_content, rules.ic_source, rules.measure)
    if rules.mention_weight == 0:
        return documents
    return WithMentions(documents, Mentions(hierarchy.names), rules.mention_weight)


def similarity_from(
    descriptors: pl.DataFrame, information_content: pl.DataFrame, rules: ColdStartRules
) -> DocumentSimilarity:
    """The same from tables MeshDescriptor and MeshInformationContent."""
    return similarity_of(MeshHierarchy.from_descriptors(descriptors), information_content, rules)


def prefer_by_mesh(
    contexts: pl.DataFrame, similarity: DocumentSimilarity, rules: ColdStartRules, ic_snapshot: str
) -> pl.DataFrame:
    """A `ColdStartPreference` for each citation of `contexts` (a `CandidateContexts` table).

    `similarity` is that of the rules (`similarity_of`). The question of the higher score (`question_scores`)
    is chosen, equal scores go to the domain generator, and where one question exists it is chosen, so that it
    can be answered; `kept` says whether the pair teaches a preference, `reason` why not. The pairing of
    scored contexts with chosen and rejected questions is that of KAILIN (arXiv 2501.15108). Time and memory
    grow with the contexts of the branch.
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
            ic_snapshot=pl.lit(ic_snapshot),
            **{name: pl.lit(value) for name, value in rules.scored_by.items()},
        )
        .select(ColdStartPreference.create_empty().columns)
        .sort("pmid")
    )


def question_scores(contexts: pl.DataFrame, similarity: DocumentSimilarity) -> pl.DataFrame:
    """`pmid`, `role` and `score` of the questions that have a scorable context.

    `contexts` has the columns pmid, role, question, heading_uis and contexts of table CandidateContexts. The
    score, 0 to 1, is the mean similarity of the source to the contexts that have a scorable heading, and
    under `WithMentions` to the question, where it names such a heading.
    """
    rows = contexts.select("pmid", "role", "heading_uis", "contexts").with_row_index("row")
    compared = rows.explode("contexts", empty_as_null=False).with_columns(
        contexts=pl.col("contexts").struct.field("heading_uis"), is_found=True, weight=1.0
    )
    if isinstance(similarity, WithMentions):
        named = similarity.mentions.named_in(contexts["question"].fill_null("").to_list())
        itself = rows.with_columns(
            contexts=pl.Series(named, dtype=pl.List(pl.String)), is_found=False, weight=similarity.weight
        )
        # A source's lists follow one another: that is when the similarity is fastest.
        compared = pl.concat([compared, itself]).sort("row", maintain_order=True)
    scores = similarity.best_match_averages(compared["heading_uis"].to_list(), compared["contexts"].to_list())
    weight = pl.col("weight")
    return (
        compared.with_columns(score=pl.Series(scores, dtype=pl.Float64).fill_nan(None))
        .drop_nulls("score")
        .group_by("pmid", "role", maintain_order=True)
        .agg((pl.col("score") * weight).sum() / weight.sum(), pl.col("is_found").any())
        .filter("is_found")
        .drop("is_found")
    )


def drop_reason(rules: ColdStartRules) -> pl.Expr:
    """Why a pair is no preference to learn from, the most basic reason first; null when it is one."""
    best, worst = pl.col("chosen_score"), pl.col("rejected_score")
    return (
        pl.when(pl.col("chosen_question").is_null())
        .then(pl.lit("neither generator wrote a question"))
        .when(pl.col("rejected_question").is_null())
        .then(pl.format("only the {} generator wrote a question", pl.col("chosen_role")))
        .when(bare(pl.col("chosen_question")) == bare(pl.col("rejected_question")))
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
        .then(pl.lit(f"{TIE}: the scores are within {rules.margin:g}"))
    )


def describe_snapshot(descriptors: pl.DataFrame, information_content: pl.DataFrame) -> str:
    """The MeSH year and the number of citations behind the scores, for people to read."""
    citations = information_content.item(0, "all_citations")
    return f"MeSH {descriptors.item(0, 'release_year')}, {citations:,} citations"


def _named(questions: pl.DataFrame, verdict: str) -> pl.DataFrame:
    return questions.rename({name: f"{verdict}_{name}" for name in ("role", "question", "score")})


def _with_scorable(sources: pl.DataFrame, similarity: DocumentSimilarity) -> pl.DataFrame:
    # A source is as similar as can be to itself, unless it has no scorable heading.
    headings = sources["heading_uis"].to_list()
    itself = similarity.best_match_averages(headings, headings)
    return sources.with_columns(scorable=pl.Series(itself, dtype=pl.Float64).is_not_nan())


def bare(question: pl.Expr) -> pl.Expr:
    """A question without case, punctuation and white space: two that are so equal ask the same."""
    return question.str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}]+", "")
