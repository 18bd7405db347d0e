"""The searchable index over citations: a LanceDB table with vectors and a full-text index.

One database folder for each encoder. An update works on the head of the table; searches read the version
that the last finished update returned, so that a killed update is invisible to them and the next repairs it.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import dagster as dg
import numpy as np
import polars as pl

from mkailin_resources.embeddings import Encoder, open_encoder
from mkailin_resources.storage import Storage

if TYPE_CHECKING:
    from lancedb.query import AsyncStandardQuery
    from lancedb.table import AsyncTable, Table

FoundBy = Literal["dense", "lexical", "both"]
T = TypeVar("T")

DEPTH = 100
_TABLE = "citations"
_ROWS_SEARCHED_EXACTLY = 50_000
# Constant of reciprocal rank fusion (Cormack, Clarke and Buettcher 2009).
_FUSION = 60
# Recall of the first 100 under 1-bit quantization: 0.98 with 2, 0.995 with 4 (60,000 x 256).
_REFINE = 4
_QUESTIONS_PER_BATCH = 256
# Queries given to LanceDB at once: on 2 cores 1,200 a second, one after the other 440.
_CONCURRENT = 32
_PMIDS_PER_FILTER = 5_000
_ROUNDS = 5
# A younger version may be about to be recorded by a run at the same time.
_KEEP_VERSIONS = timedelta(days=1)


class IndexUnavailable(RuntimeError):
    """The index cannot be searched or updated; the message says what to do."""


@dataclass(frozen=True)
class IndexUpdate:
    """What an update did. `unread`: PMIDs that should be there and that nobody had the text of."""

    uri: str
    table_version: int
    citations: int
    added: int
    replaced: int
    removed: int
    unread: tuple[int, ...]


class Ranked(NamedTuple):
    """A citation in the fused list of a question; the score counts ranks, it is not a similarity."""

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


class ContextStore(dg.ConfigurableResource):
    """Where the searchable index is kept: `index/<encoder fingerprint>/` under the storage root."""

    storage: dg.ResourceDependency[Storage]

    def update(
        self,
        wanted: pl.DataFrame,
        read: Callable[[pl.Series], Iterable[pl.DataFrame]],
        encoder: Encoder,
        recorded: int | None,
    ) -> IndexUpdate:
        """Make the index hold exactly `wanted` (pmid, content_hash), working only on what differs.

        `read` gives the citations of the PMIDs it is asked for, in frames of pmid, content_hash, title,
        text (title, newline, abstract) and heading_uis, one frame in memory at a time. `recorded` is the
        version searches read now, which stays; other versions go after a day.
        """
        uri = str(self.storage.path("index", encoder.fingerprint))
        table = _head(uri, encoder.dimension)
        stale, missing = _difference(_held(table), wanted)
        replaced = int(missing["pmid"].is_in(stale.implode()).sum())
        added, removed = missing.height - replaced, len(stale) - replaced
        unread = missing.clear()
        finished = table.version == recorded
        for _ in range(_ROUNDS):
            if finished and stale.is_empty() and missing.is_empty():
                break
            _remove(table, stale)
            there = _add(table, read(missing["pmid"]), encoder)
            unread = unread.vstack(missing.join(there, on="pmid", how="anti"))
            _index(table)
            # A run at the same time may have added the same citations: compare again.
            stale, missing = _difference(_held(table), wanted.join(unread, on="pmid", how="anti"))
            finished = True
        else:
            raise IndexUnavailable(f"updating the index {uri}: other runs keep writing to it; run it again")
        _tag(table, recorded)
        rows = table.count_rows()
        return IndexUpdate(uri, table.version, rows, added, replaced, removed, tuple(unread["pmid"]))

    def open(self, context_index: pl.DataFrame) -> "Searcher":
        """The index as a ContextIndex row names it; `IndexUnavailable` if that version is gone."""
        row = context_index.row(0, named=True)
        encoder = open_encoder(row["encoder"], row["encoder_uri"], row["encoder_fingerprint"], self.storage)
        table = _wait(_searchable(row["uri"], row["table_version"]))
        return Searcher(table, encoder, exact=row["citations"] <= _ROWS_SEARCHED_EXACTLY)

    def contents(self, context_index: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Everything searches can find, in batches: pmid, content_hash, vector."""
        import lancedb

        row = context_index.row(0, named=True)
        table = lancedb.connect(row["uri"]).open_table(_TABLE)
        table.checkout(row["table_version"])
        for batch in table.search().select(["pmid", "content_hash", "vector"]).to_batches():
            yield pl.DataFrame(batch)


class Searcher:
    """Dense and lexical search over one version of the index, fused by reciprocal rank."""

    def __init__(self, table: "AsyncTable", encoder: Encoder, exact: bool) -> None:
        """With `exact`, all vectors are held in memory and compared; else LanceDB's index is asked."""
        self._table, self._encoder = table, encoder
        self._pmids = np.empty(0, np.int64)
        self._vectors: np.ndarray | None = None
        if exact:
            frame = _wait(_frame(table.query().select(["pmid", "vector"]))).sort("pmid")
            self._pmids = frame["pmid"].to_numpy()
            self._vectors = frame["vector"].to_numpy().reshape(-1, encoder.dimension)

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
        """The fused list of each question, from the first `depth` of each retriever; ties by PMID."""
        ranked: list[list[Ranked]] = []
        for start in range(0, len(questions), _QUESTIONS_PER_BATCH):
            batch = questions[start : start + _QUESTIONS_PER_BATCH]
            pairs = zip(self.dense(batch, depth), self.lexical(batch, depth), strict=True)
            ranked.extend(_fused(dense, lexical) for dense, lexical in pairs)
        return ranked

    def dense(self, questions: Sequence[str], depth: int) -> list[list[int]]:
        """PMIDs by similarity of vectors, best first; none for a question without a vector."""
        asked = self._encoder.encode(questions)
        if self._vectors is not None:
            # Rounded, because a product's last bits depend on the other questions of the batch.
            similarities = np.round(asked @ self._vectors.T, 6)
            return [_best(row, self._pmids, depth) for row in similarities]
        spoken = np.flatnonzero(asked.any(axis=1))
        queries = [
            self._table.query().nearest_to(asked[place]).distance_type("dot").refine_factor(_REFINE)
            for place in spoken
        ]
        frames = _wait(_answers([query.select(["pmid", "_distance"]).limit(depth) for query in queries]))
        found: list[list[int]] = [[] for _ in questions]
        for place, frame in zip(spoken, frames, strict=True):
            similar = frame.select("pmid", similarity=1 - pl.col("_distance")).filter(
                pl.col("similarity") > 0
            )
            found[place] = similar.sort("similarity", "pmid", descending=[True, False])["pmid"].to_list()
        return found

    def lexical(self, questions: Sequence[str], depth: int) -> list[list[int]]:
        """PMIDs by BM25 of stemmed words, best first; none for a question without a known word."""
        from lancedb.query import MatchQuery

        # A match query reads its text as words only: quotes and operators mean nothing in it.
        words = [question.encode(errors="ignore").decode() for question in questions]
        matches = [MatchQuery(text, "text") for text in words]  # type: ignore[call-arg]  # pydantic defaults
        queries = [self._table.query().nearest_to_text(match) for match in matches]
        frames = _wait(_answers([query.select(["pmid", "_score"]).limit(depth) for query in queries]))
        by_score = [frame.sort("_score", "pmid", descending=[True, False]) for frame in frames]
        return [frame["pmid"].to_list() for frame in by_score]

    def records(self, pmids: Iterable[int]) -> dict[int, Record]:
        """Content hash and headings of the citations that the index holds."""
        frame = self._rows(pmids, ["pmid", "content_hash", "heading_uis"])
        return {pmid: Record(content, tuple(uis)) for pmid, content, uis in frame.iter_rows()}

    def texts(self, pmids: Iterable[int]) -> pl.DataFrame:
        """Rows of pmid, title and text (the abstract) of those that the index holds, by PMID."""
        abstract = pl.col("text").str.slice(pl.col("title").str.len_chars() + 1)
        return self._rows(pmids, ["pmid", "title", "text"]).select("pmid", "title", abstract)

    def _rows(self, pmids: Iterable[int], columns: list[str]) -> pl.DataFrame:
        queries = [self._table.query().where(f"pmid IN ({some})").select(columns) for some in _lists(pmids)]
        empty = self._table.query().where("false").select(columns)
        return pl.concat(_wait(_answers([empty, *queries]))).sort("pmid")


def _difference(held: pl.DataFrame, wanted: pl.DataFrame) -> tuple[pl.Series, pl.DataFrame]:
    """PMIDs to remove (outdated, gone or there twice), and then rows (pmid, content_hash) to add."""
    wanted = wanted.select("pmid", "content_hash")
    right = held.filter(pl.col("pmid").is_unique()).join(wanted, on=["pmid", "content_hash"], how="semi")
    stale = held.join(right, on="pmid", how="anti")["pmid"].unique().sort()
    return stale, wanted.join(right, on="pmid", how="anti").sort("pmid")


def _head(uri: str, dimension: int) -> "Table":
    """The newest version of the table, made if it is not there."""
    import lancedb
    import pyarrow as pa

    columns = {"pmid": pa.int64(), "content_hash": pa.string(), "title": pa.string(), "text": pa.string()}
    columns |= {"heading_uis": pa.list_(pa.string()), "vector": pa.list_(pa.float32(), dimension)}
    return lancedb.connect(uri).create_table(_TABLE, schema=pa.schema(list(columns.items())), exist_ok=True)


def _held(table: "Table") -> pl.DataFrame:
    return pl.DataFrame(table.search().select(["pmid", "content_hash"]).to_arrow())


def _remove(table: "Table", pmids: pl.Series) -> None:
    for some in _lists(pmids):
        table.delete(f"pmid IN ({some})")


def _add(table: "Table", frames: Iterable[pl.DataFrame], encoder: Encoder) -> pl.DataFrame:
    """Append citations with their vectors, a transaction for each frame; their PMIDs."""
    import pyarrow as pa

    added = [pl.DataFrame(schema={"pmid": pl.Int64})]
    for frame in frames:
        flat = pa.array(encoder.encode(frame["text"].to_list()).ravel())
        vectors = pa.FixedSizeListArray.from_arrays(flat, encoder.dimension)
        rows = frame.select(table.schema.names[:-1]).to_arrow().append_column("vector", vectors)
        table.add(rows.cast(table.schema))
        added.append(frame.select("pmid"))
    return pl.concat(added)


def _index(table: "Table") -> None:
    """Compact the table, drop old versions, bring its indexes up to date."""
    from lancedb.index import FTS, BTree, IvfRq

    table.optimize(cleanup_older_than=_KEEP_VERSIONS)
    indexed = {column for index in table.list_indices() for column in index.columns}
    small = table.count_rows() <= _ROWS_SEARCHED_EXACTLY
    if small or "text" not in indexed:
        # Updated in place, the index goes on counting removed citations in its word statistics.
        table.create_index("text", config=FTS(), replace=True)
    if "pmid" not in indexed:
        table.create_index("pmid", config=BTree())
    if not small and "vector" not in indexed:
        table.create_index("vector", config=IvfRq(distance_type="dot", num_bits=1))


def _tag(table: "Table", recorded: int | None) -> None:
    """Keep this version and the recorded one: a version without a tag goes after a day."""
    kept = {f"searched-{version}": version for version in (table.version, recorded) if version is not None}
    for name in table.tags.list():
        if name not in kept:
            table.tags.delete(name)
    if f"searched-{table.version}" not in table.tags.list():
        table.tags.create(f"searched-{table.version}", table.version)


def _lists(pmids: Iterable[int]) -> Iterator[str]:
    """PMIDs as lists for a filter, so many at a time."""
    wanted = sorted(set(pmids))
    for start in range(0, len(wanted), _PMIDS_PER_FILTER):
        yield ", ".join(map(str, wanted[start : start + _PMIDS_PER_FILTER]))


def _best(similarities: np.ndarray, pmids: np.ndarray, depth: int) -> list[int]:
    """PMIDs (ascending in the input) with the highest positive similarities; ties by PMID."""
    cut = np.partition(similarities, -depth)[-depth] if len(similarities) > depth else 0
    places = np.flatnonzero((similarities >= cut) & (similarities > 0))
    return pmids[places[np.argsort(-similarities[places], kind="stable")[:depth]]].tolist()


def _fused(dense: Sequence[int], lexical: Sequence[int]) -> list[Ranked]:
    """Reciprocal rank fusion: 1 / (60 + rank) from each list, summed; ties by PMID."""
    by_dense = {pmid: 1 / (_FUSION + rank) for rank, pmid in enumerate(dense, 1)}
    by_lexical = {pmid: 1 / (_FUSION + rank) for rank, pmid in enumerate(lexical, 1)}
    fused = [Ranked(pmid, score, "dense") for pmid, score in by_dense.items() if pmid not in by_lexical]
    for pmid, score in by_lexical.items():
        found_by: FoundBy = "both" if pmid in by_dense else "lexical"
        fused.append(Ranked(pmid, by_dense.get(pmid, 0.0) + score, found_by))
    return sorted(fused, key=lambda found: (-found.score, found.pmid))


async def _searchable(uri: str, version: int) -> "AsyncTable":
    import lancedb

    try:
        table = await (await lancedb.connect_async(uri)).open_table(_TABLE)
        await table.checkout(version)
    except (ValueError, RuntimeError) as error:
        raise IndexUnavailable(
            f"opening version {version} of the index {uri}: {error}; materialize context_index again"
        ) from error
    return table


async def _answers(queries: Sequence["AsyncStandardQuery"]) -> list[pl.DataFrame]:
    """Results of the queries, in their order, some queries at a time."""
    frames: list[pl.DataFrame] = []
    for start in range(0, len(queries), _CONCURRENT):
        some = queries[start : start + _CONCURRENT]
        frames += await asyncio.gather(*(_frame(query) for query in some))
    return frames


async def _frame(query: "AsyncStandardQuery") -> pl.DataFrame:
    return pl.DataFrame(await query.to_arrow())


def _wait(work: Coroutine[Any, Any, T]) -> T:
    """Run it in a thread of its own, since the caller's may run an event loop already (a notebook)."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
