"""Searches over one version of the index: dense, lexical, or both fused by reciprocal rank."""

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np
import polars as pl

from mkailin_resources.embeddings.interface import Encoder

if TYPE_CHECKING:
    from lancedb.query import AsyncStandardQuery
    from lancedb.table import AsyncTable

FoundBy = Literal["dense", "lexical", "both"]
Retriever = Literal["dense", "lexical", "hybrid"]
T = TypeVar("T")

DEPTH = 100
# Raise it when the same question over the same index is to find otherwise.
_VERSION = 1
# Constant of reciprocal rank fusion. Cormack, Clarke and Buettcher (2009) have 60; nDCG@10 on the training
# judgements of SciFact, MiniLM and BM25: 0.713 with 20, 0.708 with 60.
_FUSION = 20
# Of a million vectors of 384 numbers in 1 bit each, 400 candidates compared again in whole: recall of the
# first 4 is 0.9975 with 50 parts of the index looked at; where filters leave few, as many as it takes.
_REFINE, _PROBES = 4, 50
# A cosine under it is one of zero: vectors are kept with 16 bits a number.
_NOISE = 1e-3
_QUESTIONS_PER_BATCH = 256
# Queries given to LanceDB at once: on 2 cores 1,200 a second, one after the other 440.
_CONCURRENT = 32
_PMIDS_PER_FILTER = 5_000


class Ranked(NamedTuple):
    """A citation in the list of a question; the score counts ranks, it is not a similarity."""

    pmid: int
    score: float
    found_by: FoundBy


class Record(NamedTuple):
    """What the index knows of a citation beside its text."""

    content_hash: str
    heading_uis: tuple[str, ...]


@dataclass(frozen=True)
class Hit:
    """A citation found for a question."""

    pmid: int
    content_hash: str
    score: float
    found_by: FoundBy
    heading_uis: tuple[str, ...]


@dataclass(frozen=True)
class Filters:
    """Which citations a search may find; all where nothing is said. Retracted ones are in no index.

    Years of publication, both ends included; home branches; language codes, one of which a citation has.
    """

    from_year: int | None = None
    to_year: int | None = None
    branches: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()

    @property
    def condition(self) -> str | None:
        """As SQL over the index; None where nothing is said."""
        said = [
            f"year >= {self.from_year}" if self.from_year is not None else "",
            f"year <= {self.to_year}" if self.to_year is not None else "",
            f"branch IN ({_quoted(self.branches)})" if self.branches else "",
            f"array_has_any(languages, [{_quoted(self.languages)}])" if self.languages else "",
        ]
        return " AND ".join(filter(None, said)) or None

    def __str__(self) -> str:
        years = ["" if year is None else str(year) for year in (self.from_year, self.to_year)]
        said = [
            f"years {'-'.join(years)}" if any(years) else "",
            f"branches {' '.join(self.branches)}" if self.branches else "",
            f"languages {' '.join(self.languages)}" if self.languages else "",
        ]
        return ", ".join(filter(None, said))


EVERYTHING = Filters()


class Searcher:
    """Searches over one version of the index, by the retriever and within the filters it was opened with."""

    def __init__(
        self,
        table: "AsyncTable",
        encoder: Encoder,
        exact: bool,
        retriever: Retriever = "hybrid",
        filters: Filters = EVERYTHING,
    ) -> None:
        """With `exact`, all vectors are held in memory and compared; else LanceDB's index is asked."""
        self._table, self._encoder = table, encoder
        self._retriever, self._filters = retriever, filters
        self._pmids = np.empty(0, np.int64)
        self._vectors: np.ndarray | None = None
        if exact and retriever != "lexical":
            query = self._within(table.query().select(["pmid", "vector"]))
            frame = wait(_frame(query)).sort("pmid")
            self._pmids = frame["pmid"].to_numpy()
            self._vectors = frame["vector"].to_numpy().reshape(-1, encoder.dimension)

    @property
    def encoder(self) -> str:
        """Fingerprint of the encoder that vectors and questions are made with."""
        return self._encoder.fingerprint

    @property
    def search_kind(self) -> str:
        """What decides a search beside index and encoder: retriever with its version, and the filters."""
        kind = f"{self._retriever}-{_VERSION}"
        return f"{kind}; {self._filters}" if self._filters.condition else kind

    def search(self, questions: Sequence[str], k: int) -> list[list[Hit]]:
        """The k best citations of each question, best first; fewer, or none, where fewer match."""
        tops = [ranked[:k] for ranked in self.rank(questions)]
        records = self.records({found.pmid for top in tops for found in top})
        return [
            [
                Hit(pmid, records[pmid].content_hash, score, found_by, records[pmid].heading_uis)
                for pmid, score, found_by in top
            ]
            for top in tops
        ]

    def rank(self, questions: Sequence[str], depth: int = DEPTH) -> list[list[Ranked]]:
        """The list of each question, from the first `depth` of each retriever that is asked; ties by PMID."""
        ranked: list[list[Ranked]] = []
        for start in range(0, len(questions), _QUESTIONS_PER_BATCH):
            batch = questions[start : start + _QUESTIONS_PER_BATCH]
            nothing: list[list[int]] = [[] for _ in batch]
            dense = nothing if self._retriever == "lexical" else self.dense(batch, depth)
            lexical = nothing if self._retriever == "dense" else self.lexical(batch, depth)
            ranked.extend(fused(*lists) for lists in zip(dense, lexical, strict=True))
        return ranked

    def dense(self, questions: Sequence[str], depth: int) -> list[list[int]]:
        """PMIDs by similarity of vectors, best first; none for a question without a vector."""
        asked = self._encoder.encode_queries(questions)
        # A vector that is not a number is similar to nothing.
        spoken = np.flatnonzero(np.isfinite(asked).all(axis=1) & asked.any(axis=1))
        found: list[list[int]] = [[] for _ in questions]
        if self._vectors is not None:
            # Rounded, because a product's last bits depend on the other questions of the batch.
            similarities = np.round(asked[spoken] @ self._vectors.T, 6)
            for place, row in zip(spoken, similarities, strict=True):
                found[place] = _best(row, self._pmids, depth)
            return found
        queries = [
            self._within(self._table.query().nearest_to(asked[place]))
            .distance_type("dot")
            .refine_factor(_REFINE)
            .maximum_nprobes(0)
            .minimum_nprobes(_PROBES)
            .select(["pmid", "_distance"])
            .limit(depth)
            for place in spoken
        ]
        for place, frame in zip(spoken, wait(_answers(queries)), strict=True):
            similar = frame.select("pmid", similarity=1 - pl.col("_distance"))
            similar = similar.filter(pl.col("similarity") > _NOISE)
            found[place] = similar.sort("similarity", "pmid", descending=[True, False])["pmid"].to_list()
        return found

    def lexical(self, questions: Sequence[str], depth: int) -> list[list[int]]:
        """PMIDs by BM25 of stemmed words, best first; none for a question without a known word."""
        from lancedb.query import MatchQuery

        # A match query reads its text as words only: quotes and operators mean nothing in it.
        words = [question.encode(errors="ignore").decode() for question in questions]
        matches = [MatchQuery(text, "text") for text in words]  # type: ignore[call-arg]  # pydantic defaults
        queries = [
            self._within(self._table.query().nearest_to_text(match)).select(["pmid", "_score"]).limit(depth)
            for match in matches
        ]
        by_score = [
            frame.sort("_score", "pmid", descending=[True, False]) for frame in wait(_answers(queries))
        ]
        return [frame["pmid"].to_list() for frame in by_score]

    def records(self, pmids: Iterable[int]) -> dict[int, Record]:
        """Content hash and headings of the citations that the index holds."""
        frame = self._rows(pmids, ["pmid", "content_hash", "heading_uis"])
        return {pmid: Record(content, tuple(uis)) for pmid, content, uis in frame.iter_rows()}

    def texts(self, pmids: Iterable[int]) -> pl.DataFrame:
        """Rows of pmid, title and text (the abstract) of those that the index holds, by PMID."""
        abstract = pl.col("text").str.slice(pl.col("title").str.len_chars() + 1)
        return self._rows(pmids, ["pmid", "title", "text"]).select("pmid", "title", abstract)

    def _within(self, query: Any) -> Any:
        """The query among the citations that the filters let through, applied before it ranks."""
        condition = self._filters.condition
        return query.where(condition) if condition else query

    def _rows(self, pmids: Iterable[int], columns: list[str]) -> pl.DataFrame:
        queries = [
            self._table.query().where(f"pmid IN ({some})").select(columns) for some in pmid_lists(pmids)
        ]
        empty = self._table.query().where("false").select(columns)
        return pl.concat(wait(_answers([empty, *queries]))).sort("pmid")


def fused(dense: Sequence[int], lexical: Sequence[int]) -> list[Ranked]:
    """Reciprocal rank fusion: 1 / (20 + rank) from each list, summed; ties by PMID."""
    by_dense, by_lexical = set(dense), set(lexical)
    scores: dict[int, float] = {}
    for pmids in (dense, lexical):
        for rank, pmid in enumerate(pmids, 1):
            scores[pmid] = scores.get(pmid, 0.0) + 1 / (_FUSION + rank)
    best_first = sorted(sorted(scores), key=scores.__getitem__, reverse=True)
    return [Ranked(pmid, scores[pmid], _found_by(pmid, by_dense, by_lexical)) for pmid in best_first]


def pmid_lists(pmids: Iterable[int]) -> Iterator[str]:
    """PMIDs as lists for a filter, so many at a time."""
    wanted = sorted(set(pmids))
    for start in range(0, len(wanted), _PMIDS_PER_FILTER):
        yield ", ".join(map(str, wanted[start : start + _PMIDS_PER_FILTER]))


def _best(similarities: np.ndarray, pmids: np.ndarray, depth: int) -> list[int]:
    """PMIDs (ascending in the input) with the highest similarities; ties by PMID."""
    cut = np.partition(similarities, -depth)[-depth] if len(similarities) > depth else 0
    places = np.flatnonzero((similarities >= cut) & (similarities > _NOISE))
    return pmids[places[np.argsort(-similarities[places], kind="stable")[:depth]]].tolist()


def _found_by(pmid: int, by_dense: set[int], by_lexical: set[int]) -> FoundBy:
    if pmid not in by_lexical:
        return "dense"
    return "both" if pmid in by_dense else "lexical"


def _quoted(values: Sequence[str]) -> str:
    return ", ".join("'{}'".format(value.replace("'", "''")) for value in values)


async def _answers(queries: Sequence["AsyncStandardQuery"]) -> list[pl.DataFrame]:
    """Results of the queries, in their order, some queries at a time."""
    frames: list[pl.DataFrame] = []
    for start in range(0, len(queries), _CONCURRENT):
        some = queries[start : start + _CONCURRENT]
        frames += await asyncio.gather(*(_frame(query) for query in some))
    return frames


async def _frame(query: "AsyncStandardQuery") -> pl.DataFrame:
    return pl.DataFrame(await query.to_arrow())


def wait(work: Coroutine[Any, Any, T]) -> T:
    """Run it in a thread of its own, since the caller's may run an event loop already (a notebook)."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
