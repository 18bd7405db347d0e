"""The searchable index over citations: a LanceDB table with vectors and a full-text index.

One database folder for each encoder. An update works on the head of the table; searches read the version
that the last finished update returned, so that a killed update is invisible to them and the next repairs it.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import dagster as dg
import numpy as np
import polars as pl
from upath import UPath

from mkailin_resources.embeddings import Encoder, open_encoder
from mkailin_resources.lance import is_conflict
from mkailin_resources.storage import Storage, is_local

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
_MEANWHILE = "updating the index {}: another run wrote to it meanwhile; searches are as before, run it again"
# A younger version may be about to be recorded by a run at the same time.
_KEEP_VERSIONS = timedelta(days=1)
_CLOCK_JUMP = timedelta(hours=2)


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
        version searches read now, which stays; other versions go after a day. Of two updates at once the
        second waits; where storage is remote it may fail with `IndexUnavailable`, the first is whole.
        """
        folder = self.storage.path("index", encoder.fingerprint)
        with _alone(folder):
            table = _head(str(folder), encoder.dimension)
            stale, missing = _difference(_held(table), wanted)
            written = unread = missing.clear()
            if table.version != recorded or len(stale) or missing.height:
                with _explained(folder):
                    _remove(table, stale)
                    written = _add(table, read(missing["pmid"]), encoder)
                    _index(table, recorded)
                unread = missing.join(written, on="pmid", how="anti")
                left = _difference(_held(table), wanted.join(unread, on="pmid", how="anti"))
                if len(left[0]) or left[1].height:
                    raise IndexUnavailable(_MEANWHILE.format(folder))
            replaced = int(written["pmid"].is_in(stale.implode()).sum())
            return IndexUpdate(
                uri=str(folder),
                table_version=table.version,
                citations=table.count_rows(),
                added=written.height - replaced,
                replaced=replaced,
                removed=len(stale) - replaced,
                unread=tuple(unread["pmid"]),
            )

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
        _wait(_searchable(row["uri"], row["table_version"]))
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

    @property
    def encoder(self) -> str:
        """Fingerprint of the encoder that vectors and questions are made with."""
        return self._encoder.fingerprint

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


@contextmanager
def _alone(folder: UPath) -> Iterator[None]:
    """Wait until no other process of this machine updates the index; a killed one lets go of it."""
    if not is_local(folder):
        yield
        return
    import fcntl

    local = Path(folder.path)
    local.mkdir(parents=True, exist_ok=True)
    with (local / "update.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _explained(folder: UPath) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if is_conflict(error):
            raise IndexUnavailable(_MEANWHILE.format(folder)) from error
        raise


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


def _index(table: "Table", recorded: int | None) -> None:
    """Compact the table, drop old versions, bring its indexes up to date."""
    from lancedb.index import FTS, BTree, IvfRq

    table.optimize(cleanup_older_than=_age_to_drop(table, recorded))
    indexed = {column for index in table.list_indices() for column in index.columns}
    small = table.count_rows() <= _ROWS_SEARCHED_EXACTLY
    if small or "text" not in indexed:
        # Updated in place, the index goes on counting removed citations in its word statistics.
        table.create_index("text", config=FTS(), replace=True)
    if "pmid" not in indexed:
        table.create_index("pmid", config=BTree())
    if not small and "vector" not in indexed:
        table.create_index("vector", config=IvfRq(distance_type="dot", num_bits=1))


def _age_to_drop(table: "Table", recorded: int | None) -> timedelta:
    """Age of versions that nobody searches: older than the recorded one, by more than a clock may jump.

    Not kept by a tag: LanceDB 0.40 refuses to drop old versions while a tagged one is among them.
    """
    made = [entry["timestamp"].timestamp() for entry in table.list_versions() if entry["version"] == recorded]
    ages = [timedelta(seconds=time.time() - timestamp) + _CLOCK_JUMP for timestamp in made]
    return max([_KEEP_VERSIONS, *ages])


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
    by_dense, by_lexical = set(dense), set(lexical)
    scores: dict[int, float] = {}
    for pmids in (dense, lexical):
        for rank, pmid in enumerate(pmids, 1):
            scores[pmid] = scores.get(pmid, 0.0) + 1 / (_FUSION + rank)
    best_first = sorted(sorted(scores), key=scores.__getitem__, reverse=True)
    return [Ranked(pmid, scores[pmid], _retriever(pmid, by_dense, by_lexical)) for pmid in best_first]


def _retriever(pmid: int, by_dense: set[int], by_lexical: set[int]) -> FoundBy:
    if pmid not in by_lexical:
        return "dense"
    return "both" if pmid in by_dense else "lexical"


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
