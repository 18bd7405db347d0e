"""Held-out trials: how well the contexts of a generator's questions fit their citation in MeSH.

Every generator is tried on citations that none was trained on, by the cold-start score; a citation for which
it has no question, or whose question finds no scorable context, counts 0. So a generator that seldom asks
cannot win by asking well.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl
from pydantic import BaseModel, Field

from mkailin_assets.corpus.draws import pmid_hash
from mkailin_assets.intervals import Estimate, mean
from mkailin_assets.preferences.branches import together
from mkailin_assets.preferences.cold_start import DocumentSimilarity, question_scores
from mkailin_assets.pubmed.tables import BranchCitation
from mkailin_assets.questions.candidates import candidate_questions
from mkailin_assets.questions.contexts import find_contexts
from mkailin_assets.retrieval.pairs import is_held_out
from mkailin_assets.retrieval.update import heading_uis
from mkailin_resources.generation import Ask
from mkailin_resources.models.interface import TextGenerator
from mkailin_resources.searcher import Searcher

LEAST_CITATIONS = 20
CITATION_COLUMNS = ("pmid", "branch", "pubmed_file", "content_hash", "title", "abstract", "headings")


class TrialRules(BaseModel):
    """On what generators are tried."""

    documents: int = Field(default=200, ge=1, description="Held-out citations, at most")
    k: int = Field(default=4, ge=1, le=20, description="Contexts of a question, at most")


@dataclass(frozen=True)
class Trial:
    """The ground on which generators are compared: held-out citations and what scores a question."""

    citations: pl.DataFrame
    searcher: Searcher
    similarity: DocumentSimilarity
    k: int

    def scores(self, generators: Mapping[str, TextGenerator], ask: Ask) -> pl.DataFrame:
        """contestant, pmid, question, failure, score (0 to 1) of each generator and citation.

        Raises what `ask` raises.
        """
        questions = candidate_questions(self.citations, generators, "held out", ask)
        return self.scored(questions)

    def scored(self, questions: pl.DataFrame) -> pl.DataFrame:
        """The same of questions that are there: pmid, role (the contestant), branch, question, failure."""
        contexts = find_contexts(questions, self.citations, self.searcher, self.k)
        scores = question_scores(contexts, self.similarity)
        return contexts.join(scores, on=["pmid", "role"], how="left", maintain_order="left").select(
            "pmid", "question", "failure", contestant="role", score=pl.col("score").fill_null(0.0)
        )


def trial_over(
    branch_citations: Mapping[str, pl.LazyFrame],
    searcher: Searcher,
    similarity: DocumentSimilarity,
    rules: TrialRules,
    among: pl.Series | None = None,
) -> Trial:
    """The ground that these branches (`BranchCitation`) offer; `among`: PMIDs, where not all may be drawn."""
    citations = together(BranchCitation, branch_citations.values(), CITATION_COLUMNS)
    if among is not None:
        citations = citations.filter(pl.col("pmid").is_in(among.implode()))
    return Trial(held_out(citations, similarity, rules.documents), searcher, similarity, rules.k)


def held_out(citations: pl.LazyFrame, similarity: DocumentSimilarity, at_most: int) -> pl.DataFrame:
    """Citations (`CITATION_COLUMNS`) that no generator is trained on and that can be scored, by PMID.

    Those with an abstract and a heading that has a place in the hierarchy; `at_most` of them, the same ones
    whatever else the corpus holds: those with the lowest hash of their PMID. In memory are all PMIDs, and the
    texts of some hundred citations.
    """
    pmids = citations.select("pmid").collect().to_series().to_list()
    drawn = sorted(filter(is_held_out, pmids), key=lambda pmid: pmid_hash(pmid, "trial"))
    found = [citations.filter(False).collect()]
    for start in range(0, len(drawn), at_most):
        some = pl.Series(drawn[start : start + at_most], dtype=pl.Int64)
        read = citations.filter(pl.col("pmid").is_in(some.implode()), pl.col("abstract").list.len() > 0)
        found.append(_scorable(read.collect(), similarity))
        if sum(map(len, found)) >= at_most:
            break
    place = pl.col("pmid").replace_strict({pmid: place for place, pmid in enumerate(drawn)}, default=None)
    return pl.concat(found).bottom_k(at_most, by=place).sort("pmid")


def _scorable(citations: pl.DataFrame, similarity: DocumentSimilarity) -> pl.DataFrame:
    headings = citations.select(heading_uis()).to_series().to_list()
    itself = pl.Series(similarity.best_match_averages(headings, headings), dtype=pl.Float64)
    return citations.filter(itself.is_not_nan())


def score_of(tried: pl.DataFrame, contestant: str) -> Estimate:
    """Mean score of a contestant over the citations, with its 95% interval."""
    return mean(tried.filter(contestant=contestant)["score"].to_list())


def is_better(gain: Estimate, citations: int) -> bool:
    """Whether a lead over so many citations is more than chance: all of its 95% interval lies above 0.

    Of fewer than twenty an interval says nothing.
    """
    return citations >= LEAST_CITATIONS and gain.low > 0


def lead(tried: pl.DataFrame, ours: str, theirs: str) -> Estimate:
    """Mean of our score minus theirs over the citations, with its 95% interval (paired bootstrap)."""
    one, other = (tried.filter(contestant=name).select("pmid", "score") for name in (ours, theirs))
    both = one.join(other, on="pmid", how="inner", validate="1:1", suffix="_other").sort("pmid")
    if not both.height == one.height == other.height:
        raise ValueError(f"{ours} was tried on {one.height} citations, {theirs} on {other.height}")
    return mean((both["score"] - both["score_other"]).to_list())
