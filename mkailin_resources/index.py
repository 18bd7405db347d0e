"""The searchable index over citations: a LanceDB table with vectors and a full-text index.

One database folder for each encoder. An update works on the head of the table; searches read the version
that the last finished update returned, so that a killed update is invisible to them and the next repairs it.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl
from upath import UPath

from mkailin_resources.embeddings.checkpoint import open_encoder
from mkailin_resources.embeddings.interface import Encoder
from mkailin_resources.embeddings.store import EmbeddingStore
from mkailin_resources.lance import is_conflict
from mkailin_resources.searcher import EVERYTHING, Filters, Retriever, Searcher, pmid_lists, wait
from mkailin_resources.storage import Storage

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import AsyncTable, Table

_TABLE = "citations"
_ROWS_SEARCHED_EXACTLY = 50_000
_MEANWHILE = "updating the index {}: another run wrote to it meanwhile; searches are as before, run it again"
# A younger version may be about to be recorded by a run at the same time.
_KEEP_VERSIONS = timedelta(days=1)
_CLOCK_JUMP = timedelta(hours=2)
# Shares of an index that is extended, not made anew: what that costs stays a few times what changed.
_MOST_CHANGED, _MOST_FRAGMENTS, _ROWS_PER_FRAGMENT = 0.2, 100, 1 << 20
# What a killed update has embedded in vain at most.
_TEXTS_PER_BATCH, _TELL_EVERY_S = 512, 10
# What decides a row beside its text: where one differs, the row is made anew.
STATE = ("pmid", "pubmed_file", "content_hash", "branch")
CITATION = {
    "pmid": pl.Int64(),
    "pubmed_file": pl.String(),
    "content_hash": pl.String(),
    "branch": pl.String(),
    "title": pl.String(),
    "text": pl.String(),
    "heading_uis": pl.List(pl.String()),
    "year": pl.Int32(),
    "languages": pl.List(pl.String()),
}


# Raise it when rows or indexes are made otherwise.
_RECIPE = 1
# The 33 that Lucene leaves out. On SciFact these, LanceDB's longer list and none at all differ by 0.002 of
# nDCG@10 at most; with none each question would read lists as long as the corpus.
_STOP_WORDS = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these "
    "they this to was will with"
).split()


class IndexUnavailable(RuntimeError):
    """The index cannot be searched or updated; the message says what to do."""


@dataclass(frozen=True)
class IndexUpdate:
    """What an update did.

    `embedded`: texts whose vectors were computed, not found in the embedding store. `unread`: PMIDs that
    should be there and that nobody had the text of. `unembedded`: citations that the index finds by their
    words alone, since they have no vector: pmid, vector_fault (why).
    """

    uri: str
    table_version: int
    citations: int
    added: int
    replaced: int
    removed: int
    embedded: int
    embedding_seconds: float
    unread: tuple[int, ...]
    unembedded: pl.DataFrame


class ContextStore(dg.ConfigurableResource):
    """Where the searchable index is kept, `index/<encoder>/` under the storage root, and which
    retriever searches it.
    """

    storage: dg.ResourceDependency[Storage]
    retriever: Retriever

    def folder(self, encoder: Encoder) -> UPath:
        """Where its index is kept; made otherwise it is another one, and searches keep the old one."""
        recipe = f"{_RECIPE}{_STOP_WORDS}{_layout(encoder.dimension)}"
        layout = hashlib.blake2b(recipe.encode(), digest_size=4).hexdigest()
        return self.storage.path("index", f"{encoder.fingerprint}-{layout}")

    def update(
        self,
        wanted: pl.DataFrame,
        read: Callable[[pl.Series], Iterable[pl.DataFrame]],
        encoder: Encoder,
        recorded: int | None,
        log: Callable[[str], None] = lambda _: None,
    ) -> IndexUpdate:
        """Make the index hold exactly `wanted` (columns STATE), working only on what differs.

        `read` gives the citations of the PMIDs it is asked for, in frames of the columns CITATION (text:
        title, newline, abstract), one frame in memory at a time. `recorded` is the version searches read
        now, which stays; other versions go after a day. Of two updates at once the second waits; where
        storage is remote it may fail with `IndexUnavailable`, the first is whole.
        """
        folder = self.folder(encoder)
        with self.storage.turn(f"index-{folder.name}"):
            table = _head(str(folder), encoder.dimension)
            stale, missing = _difference(_held(table), wanted)
            written = unread = missing.clear()
            embedded = 0
            store = EmbeddingStore(self.storage, encoder)
            if table.version != recorded or len(stale) or missing.height:
                with _explained(folder):
                    _remove(table, stale)
                    written, embedded = _add(table, read(missing["pmid"]), store, missing.height, log)
                    _index(table, recorded)
                unread = missing.join(written, on="pmid", how="anti")
                left = _difference(_held(table), wanted.join(unread, on="pmid", how="anti"))
                if len(left[0]) or left[1].height:
                    raise IndexUnavailable(_MEANWHILE.format(folder))
            replaced = int(written["pmid"].is_in(stale.implode()).sum())
            faulty = table.search().where("vector_fault IS NOT NULL").select(["pmid", "vector_fault"])
            return IndexUpdate(
                uri=str(folder),
                table_version=table.version,
                citations=table.count_rows(),
                added=written.height - replaced,
                replaced=replaced,
                removed=len(stale) - replaced,
                embedded=embedded,
                embedding_seconds=store.seconds,
                unread=tuple(unread["pmid"]),
                unembedded=pl.DataFrame(faulty.to_arrow()).sort("pmid"),
            )

    def open(self, context_index: pl.DataFrame, filters: Filters = EVERYTHING) -> Searcher:
        """The index as a ContextIndex row names it; `IndexUnavailable` if that version is gone."""
        row = context_index.row(0, named=True)
        encoder = open_encoder(row["encoder_uri"], row["encoder_fingerprint"], self.storage)
        table = wait(searchable(row["uri"], row["table_version"], encoder))
        exact = row["citations"] <= _ROWS_SEARCHED_EXACTLY
        return Searcher(table, encoder, exact, self.retriever, filters)

    def over(self, citations: pl.DataFrame, encoder: Encoder, folder: Path) -> Searcher:
        """A search over these citations (CITATION) alone: an index of its own in an empty local folder.

        Their vectors are taken from the embedding store, and kept there where they are new.
        """
        table = _head(str(folder), encoder.dimension)
        _add(table, [citations], EmbeddingStore(self.storage, encoder), citations.height, lambda _: None)
        _index(table, None)
        opened = wait(searchable(str(folder), table.version, encoder))
        return Searcher(opened, encoder, citations.height <= _ROWS_SEARCHED_EXACTLY, self.retriever)

    def contents(
        self, context_index: pl.DataFrame, columns: tuple[str, ...] = STATE
    ) -> Iterator[pl.DataFrame]:
        """Columns of everything searches can find, in batches."""
        import lancedb

        row = context_index.row(0, named=True)
        wait(searchable(row["uri"], row["table_version"]))
        table = lancedb.connect(row["uri"]).open_table(_TABLE)
        table.checkout(row["table_version"])
        for batch in table.search().select(list(columns)).to_batches():
            yield pl.DataFrame(batch)


@contextmanager
def _explained(folder: UPath) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, OSError) as error:
        if is_conflict(error):
            raise IndexUnavailable(_MEANWHILE.format(folder)) from error
        raise


def _difference(held: pl.DataFrame, wanted: pl.DataFrame) -> tuple[pl.Series, pl.DataFrame]:
    """PMIDs to remove (outdated, gone or there twice), and then rows (STATE) to add."""
    wanted = wanted.select(*STATE)
    once = held.filter(pl.col("pmid").is_unique())
    right = once.join(wanted, on=STATE, how="semi", nulls_equal=True)
    stale = held.join(right, on="pmid", how="anti")["pmid"].unique().sort()
    return stale, wanted.join(right, on="pmid", how="anti").sort("pmid")


def _layout(dimension: int) -> "pa.Schema":
    """Columns of the table; vector_fault says why a text has no vector."""
    import pyarrow as pa

    columns = pl.DataFrame(schema=CITATION).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    strings = [field.with_type(_small(field.type)) for field in columns]
    made = [pa.field("vector", pa.list_(pa.float32(), dimension)), pa.field("vector_fault", pa.string())]
    return pa.schema([*strings, *made])


def _small(kind: "pa.DataType") -> "pa.DataType":
    """Polars' large strings and lists as LanceDB keeps them."""
    import pyarrow as pa

    if pa.types.is_large_list(kind):
        return pa.list_(_small(kind.value_type))
    return pa.string() if pa.types.is_large_string(kind) else kind


def _head(uri: str, dimension: int) -> "Table":
    """The newest version of the table, made if it is not there."""
    import lancedb

    return lancedb.connect(uri).create_table(_TABLE, schema=_layout(dimension), exist_ok=True)


def _held(table: "Table") -> pl.DataFrame:
    return pl.DataFrame(table.search().select(list(STATE)).to_arrow())


def _remove(table: "Table", pmids: pl.Series) -> None:
    for some in pmid_lists(pmids):
        table.delete(f"pmid IN ({some})")


def _add(
    table: "Table",
    frames: Iterable[pl.DataFrame],
    store: EmbeddingStore,
    expected: int,
    log: Callable[[str], None],
) -> tuple[pl.DataFrame, int]:
    """Append citations with their vectors, a transaction for each frame; their PMIDs, and texts embedded."""
    import pyarrow as pa

    written, embedded, seen, told = [pl.DataFrame(schema={"pmid": pl.Int64})], 0, 0, time.monotonic()
    for frame in frames:
        parts = []
        for some in frame.iter_slices(_TEXTS_PER_BATCH):
            made = store.embed(some["text"].to_list())
            embedded, seen = embedded + made.computed, seen + some.height
            if time.monotonic() > told + _TELL_EVERY_S:
                log(f"{seen:,} of {expected:,} citations read, {embedded:,} of them embedded")
                told = time.monotonic()
            flat = pa.array(made.vectors.ravel())
            vectors = pa.FixedSizeListArray.from_arrays(flat, made.vectors.shape[1])
            faults = pa.array([made.faults.get(place) for place in range(some.height)], pa.string())
            rows = some.select(*CITATION).to_arrow()
            rows = rows.append_column("vector", vectors).append_column("vector_fault", faults)
            parts.append(rows.cast(table.schema))
        if parts:
            table.add(pa.concat_tables(parts))
            written.append(frame.select("pmid"))
    store.tidy()
    return pl.concat(written), embedded


def _index(table: "Table", recorded: int | None) -> None:
    """Bring the indexes up to date, and drop old versions."""
    if table.count_rows() <= _ROWS_SEARCHED_EXACTLY or _is_scattered(table):
        _index_anew(table)
    else:
        _extend_indexes(table)
    table.to_lance().cleanup_old_versions(older_than=_age_to_drop(table, recorded))


def _is_scattered(table: "Table") -> bool:
    """Whether indexes are missing, or too much has changed since they were made whole."""
    indexes = {index.columns[0]: index for index in table.list_indices()}
    if not indexes.keys() >= {"text", "pmid", "vector"}:
        return True
    dataset, words = table.to_lance(), indexes["text"]
    first, *later = (part["num_docs"] for part in dataset.stats.index_stats(words.name)["segments"])
    rows, new = table.count_rows(), words.num_unindexed_rows or 0
    # Removed citations stay in the word statistics until then.
    removed = first + sum(later) - (rows - new)
    changed = sum(later) + new + removed
    fragments = len(dataset.get_fragments()) - rows // _ROWS_PER_FRAGMENT
    return changed > _MOST_CHANGED * rows or fragments > _MOST_FRAGMENTS


def _index_anew(table: "Table") -> None:
    """Compact the table and index all of it."""
    from lancedb.index import FTS, BTree, IvfRq

    for index in table.list_indices():
        table.drop_index(index.name)
    table.to_lance().optimize.compact_files()
    table.checkout_latest()
    table.create_index("text", config=FTS(custom_stop_words=_STOP_WORDS))
    table.create_index("pmid", config=BTree())
    if table.count_rows() > _ROWS_SEARCHED_EXACTLY:
        table.create_index("vector", config=IvfRq(distance_type="dot", num_bits=1))


def _extend_indexes(table: "Table") -> None:
    """Index what was added as a segment beside the large one, merged with what was added before.

    LanceDB's own `optimize` would merge it with the large one, and write that anew: 10% of a rebuild.
    """
    for index in table.list_indices():
        merged = 0 if index.num_segments == 1 else 1
        table.to_lance().optimize.optimize_indices(index_names=[index.name], num_indices_to_merge=merged)
        table.checkout_latest()


def _age_to_drop(table: "Table", recorded: int | None) -> timedelta:
    """Age of versions that nobody searches: older than the recorded one, by more than a clock may jump.

    Not kept by a tag: LanceDB 0.40 refuses to drop old versions while a tagged one is among them.
    """
    made = [entry["timestamp"].timestamp() for entry in table.list_versions() if entry["version"] == recorded]
    ages = [timedelta(seconds=time.time() - timestamp) + _CLOCK_JUMP for timestamp in made]
    return max([_KEEP_VERSIONS, *ages])


async def searchable(uri: str, version: int, encoder: Encoder | None = None) -> "AsyncTable":
    """That version of a table; with an encoder, only if its vectors are of its dimension."""
    import lancedb

    try:
        table = await (await lancedb.connect_async(uri)).open_table(_TABLE)
        await table.checkout(version)
        dimension = (await table.schema()).field("vector").type.list_size
    except (ValueError, RuntimeError) as error:
        raise IndexUnavailable(
            f"opening version {version} of the index {uri}: {error}; materialize context_index again"
        ) from error
    if encoder is not None and dimension != encoder.dimension:
        raise IndexUnavailable(
            f"opening the index {uri}: its vectors have {dimension} numbers, those of encoder "
            f"{encoder.fingerprint} have {encoder.dimension}; materialize context_index again"
        )
    return table
