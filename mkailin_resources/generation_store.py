"""The generation store: each text that a paid model wrote is kept, so that it is paid for once.

A LanceDB database under `generations/`: table `texts` with a row for each paid answer, table `reuses` with
what each materialization asked for, found and paid. An answer goes to a local journal before `add` returns,
and from there into the table in batches; journals of killed processes are folded in by whoever opens the
store next on that machine.
"""

import fcntl
import json
import logging
import os
import re
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import polars as pl

from mkailin_resources.lance import filters_by_digest, is_conflict, rows_by_digest
from mkailin_resources.storage import Storage, is_local

if TYPE_CHECKING:
    import pyarrow as pa
    import tenacity
    from lancedb.expr import Expr
    from lancedb.table import Table

_TEXTS, _REUSES = "texts", "reuses"
_FINGERPRINT = re.compile(r"[0-9a-f]{32}")
_ROWS_PER_JOURNAL, _JOURNALS_PER_FOLD = 2_000, 10
# The journal keeps answers safe; this only says how soon other runs find them.
_FOLD_EVERY_S = 60.0
# Each tidying writes the rows since the last full million anew: rarely, and on average a row three times.
_FOLDS_PER_TIDY = 100
_SMALL_FRAGMENTS = 20
_KEEP_VERSIONS = timedelta(days=1)
_GIVE_UP_AFTER_S = 120.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT16, _INT32 = 2**15, 2**31
_CHECKSUM = 9  # characters: eight hexadecimal digits and a space

_log = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


class GenerationStoreUnavailable(RuntimeError):
    """The store cannot be read or written; the message says where paid answers are kept meanwhile."""


@dataclass(frozen=True, slots=True)
class StoredText:
    """A paid answer: `fingerprint` is 32 hexadecimal digits, tokens are those the model read and wrote."""

    fingerprint: str
    attempt: int
    generator: str
    prompt_version: str
    text: str
    truncated: bool
    tokens_in: int
    tokens_out: int
    created_at: datetime = field(default_factory=_now)


@dataclass(frozen=True)
class Reuse:
    """What one materialization asked of one generator, and what of that was found or paid for.

    `tokens_*` were paid for in this run, `reused_tokens_*` in an earlier one; `at` is when it ended.
    """

    asset: str
    partition: str | None
    run_id: str
    generator: str
    requests: int
    reused: int
    generated: int
    failed: int
    tokens_in: int
    tokens_out: int
    reused_tokens_in: int
    reused_tokens_out: int
    seconds: float
    at: datetime = field(default_factory=_now)


class Pruned(NamedTuple):
    """What pruning removed: rows, and bytes of their texts before compression."""

    rows: int
    bytes: int


_TEXT_COLUMNS = pl.Schema(
    {
        "fingerprint": pl.Binary(),
        "attempt": pl.Int16(),
        "generator": pl.String(),
        "prompt_version": pl.String(),
        "text": pl.String(),
        "truncated": pl.Boolean(),
        "tokens_in": pl.Int32(),
        "tokens_out": pl.Int32(),
        "created_at": pl.Datetime("us", "UTC"),
    }
)
_REUSE_COLUMNS = pl.Schema(
    {
        "asset": pl.String(),
        "partition": pl.String(),
        "run_id": pl.String(),
        "generator": pl.String(),
        "requests": pl.Int64(),
        "reused": pl.Int64(),
        "generated": pl.Int64(),
        "failed": pl.Int64(),
        "tokens_in": pl.Int64(),
        "tokens_out": pl.Int64(),
        "reused_tokens_in": pl.Int64(),
        "reused_tokens_out": pl.Int64(),
        "seconds": pl.Float64(),
        "at": pl.Datetime("us", "UTC"),
    }
)
_USAGE_COLUMNS = pl.Schema(
    {
        "generator": pl.String(),
        "prompt_version": pl.String(),
        "rows": pl.Int64(),
        "tokens_in": pl.Int64(),
        "tokens_out": pl.Int64(),
        "bytes": pl.Int64(),
        "oldest": pl.Datetime("us", "UTC"),
        "newest": pl.Datetime("us", "UTC"),
    }
)


class GenerationStore:
    """Paid answers under a storage root, by fingerprint of the request and attempt.

    Of answers with the same key, paid for by runs at the same time, the earliest counts.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._folder = storage.path("generations")

    def find(self, fingerprints: Iterable[str]) -> dict[tuple[str, int], StoredText]:
        """All attempts kept of these fingerprints, by (fingerprint, attempt); none where there are none.

        Only texts that are found are held in memory. Raises `GenerationStoreUnavailable`.
        """
        wanted = sorted({_digest(fingerprint) for fingerprint in fingerprints})
        self.fold_journals()
        found: dict[tuple[str, int], StoredText] = {}
        with self._explained("looking up answers"):
            table = self._open(_TEXTS)
            for frame in _matching(table, wanted, list(_TEXT_COLUMNS)) if table else ():
                earliest = frame.sort("created_at", "generator", "text").unique(
                    ["fingerprint", "attempt"], keep="first"
                )
                for digest, attempt, *values in earliest.iter_rows():
                    found[digest.hex(), attempt] = StoredText(digest.hex(), attempt, *values)
        return found

    @contextmanager
    def writer(self) -> Iterator["GenerationWriter"]:
        """Keep answers as they come; when the block ends all of them are in the table.

        If that fails, `GenerationStoreUnavailable` is raised and they stay in the journal.
        """
        self.fold_journals()
        writer = GenerationWriter(self, self._journals())
        try:
            yield writer
        finally:
            writer.close()

    def fold_journals(self) -> None:
        """Move what killed processes of this machine left in journals into the table, each answer once."""
        folder = self._journals()
        if not any(folder.glob("*.journal")):
            return
        # Whoever comes second waits, and finds the answers in the table.
        with (folder / "fold.lock").open("ab") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            paths = sorted(folder.glob("*.journal"))
            for start in range(0, len(paths), _JOURNALS_PER_FOLD):
                with ExitStack() as held:
                    found = map(_Journal.of_dead_process, paths[start : start + _JOURNALS_PER_FOLD])
                    self.fold([held.enter_context(journal) for journal in found if journal])

    def fold(self, journals: Sequence["_Journal"]) -> None:
        """Move the rows of journals into the table, but those that are there already, and remove them."""
        frame = pl.concat([pl.DataFrame(schema=_TEXT_COLUMNS), *(journal.read() for journal in journals)])
        if frame.height:
            doing = f"keeping {frame.height} answers; they stay in the journal {journals[0].path}"
            with self._explained(doing):
                self._retrying(partial(self._add_missing, frame))
        for journal in journals:
            journal.remove()

    def tidy(self) -> None:
        """Compact the tables, index fingerprints, drop versions older than a day.

        Safe beside readers and writers; where another run changes the same, it is left to that one.
        """
        from lancedb.index import BTree

        with self._explained("tidying"):
            for name in (_TEXTS, _REUSES):
                table = self._open(name)
                if table is None:
                    continue
                try:
                    table.optimize(cleanup_older_than=_KEEP_VERSIONS)
                    if name == _TEXTS and not table.list_indices():
                        table.create_index("fingerprint", config=BTree())
                except (RuntimeError, OSError) as error:
                    if not is_conflict(error):
                        raise

    def tidy_if_scattered(self) -> None:
        """Tidy where many small fragments have gathered, each of which slows a look-up; never raises.

        No answer depends on it, so a failure is only logged.
        """
        try:
            with self._explained("tidying"):
                table = self._open(_TEXTS)
                # LanceDB 0.40 gives a dict, whatever its annotation says.
                facts = cast(dict[str, Any], table.stats()) if table else {}
            if facts and facts["fragment_stats"]["num_small_fragments"] >= _SMALL_FRAGMENTS:
                self.tidy()
        except GenerationStoreUnavailable as error:
            _log.warning(error)

    def prune(self, keep: Callable[[str], bool] | Collection[str] | None, older_than: datetime) -> Pruned:
        """Remove answers made before a time, but for those whose fingerprint is in `keep` or satisfies it.

        Disk space is freed as old versions of the table go, after a day.
        """
        self.fold_journals()
        with self._explained("removing old answers"):
            if self._open(_TEXTS) is None:
                return Pruned(0, 0)
            before = f"created_at < {_literal(older_than)}"
            unwanted = self._unwanted(keep, before)
            digests = unwanted["fingerprint"].unique().sort().to_list()
            for condition in filters_by_digest("fingerprint", digests):
                self._retrying(partial(self._delete, f"{before} AND {condition}"))
        if unwanted.height:
            self.tidy()
        return Pruned(unwanted.height, int(unwanted["bytes"].sum()))

    def usage(self) -> pl.DataFrame:
        """Rows, tokens and bytes of text by generator and prompt_version, and when the first and last came.

        An answer that two runs paid for counts twice.
        """
        self.fold_journals()
        key = ["generator", "prompt_version"]
        total = pl.DataFrame(schema=_USAGE_COLUMNS)
        with self._explained("adding up usage"):
            table = self._open(_TEXTS)
            if table:
                columns: dict[str, str | Expr] = {"bytes": "octet_length(text)"}
                columns |= {name: name for name in (*key, "tokens_in", "tokens_out", "created_at")}
                query = table.search().select(columns)
                for batch in query.to_batches():
                    some = pl.DataFrame(batch).with_columns(
                        pl.lit(1).alias("rows"), oldest="created_at", newest="created_at"
                    )
                    both = pl.concat([total, some.select(_USAGE_COLUMNS.names()).cast(_USAGE_COLUMNS)])
                    total = both.group_by(key).agg(
                        pl.col("rows", "tokens_in", "tokens_out", "bytes").sum(),
                        pl.col("oldest").min(),
                        pl.col("newest").max(),
                    )
        return total.sort(key)

    def record(self, rows: Iterable[Reuse]) -> None:
        """Add to the ledger what a materialization asked for, found and paid."""
        import pyarrow as pa

        values = [{name: getattr(row, name) for name in _REUSE_COLUMNS} for row in rows]
        if not values:
            return
        with self._explained("recording reuse"):
            table = pl.DataFrame(values, schema=_REUSE_COLUMNS).to_arrow().cast(_arrow(_REUSES))
            assert isinstance(table, pa.Table)
            self._retrying(lambda: self._head(_REUSES).add(table))

    def ledger(self) -> pl.DataFrame:
        """All that was recorded, a row as `Reuse`, in order of time."""
        with self._explained("reading the ledger"):
            table = self._open(_REUSES)
            if table is None:
                return pl.DataFrame(schema=_REUSE_COLUMNS)
            frame = pl.DataFrame(table.search().select(list(_REUSE_COLUMNS)).to_arrow())
        return frame.cast(_REUSE_COLUMNS).sort("at", "asset", "partition", "generator")

    def _journals(self) -> Path:
        return self._storage.scratch() / "generations"

    def _open(self, name: str) -> "Table | None":
        """The newest version of a table, None if there is none; makes nothing."""
        import lancedb

        # Connecting would make the folder.
        if is_local(self._folder) and not (self._folder / f"{name}.lance").exists():
            return None
        try:
            return lancedb.connect(str(self._folder)).open_table(name)
        except ValueError as error:
            if "not found" in str(error):
                return None
            raise

    def _head(self, name: str) -> "Table":
        """The newest version of a table, made if it is not there."""
        import lancedb

        table = self._open(name)
        if table is None:
            # Of two that make a table at once the second would overwrite it, and lose what the first added.
            with self._storage.turn(f"generations-{name}"):
                made = lancedb.connect(str(self._folder))
                table = made.create_table(name, schema=_arrow(name), exist_ok=True)
        return table

    def _add_missing(self, frame: pl.DataFrame) -> None:
        """Append rows that the table does not hold; a killed fold may have come as far as that."""
        table = self._head(_TEXTS)
        key = ["fingerprint", "attempt", "created_at"]
        held = pl.concat(
            [frame.clear().select(key), *_matching(table, frame["fingerprint"].unique().to_list(), key)]
        )
        missing = frame.join(held, on=key, how="anti")
        if missing.height:
            table.add(missing.to_arrow().cast(_arrow(_TEXTS)))

    def _delete(self, condition: str) -> None:
        self._head(_TEXTS).delete(condition)

    def _unwanted(self, keep: Callable[[str], bool] | Collection[str] | None, before: str) -> pl.DataFrame:
        """Fingerprint and bytes of text of the rows to prune."""
        table = self._head(_TEXTS)
        kept = {_digest(fingerprint) for fingerprint in keep or ()} if not callable(keep) else set()
        frames = [pl.DataFrame(schema={"fingerprint": pl.Binary, "bytes": pl.Int64})]
        columns: dict[str, str | Expr] = {"fingerprint": "fingerprint", "bytes": "octet_length(text)"}
        for batch in table.search().where(before).select(columns).to_batches():
            frame = pl.DataFrame(batch).cast(frames[0].schema)
            digests = frame["fingerprint"].to_list()
            if callable(keep):
                wanted = [keep(digest.hex()) for digest in digests]
            else:
                wanted = [digest in kept for digest in digests]
            frames.append(frame.filter(~pl.Series(wanted, dtype=pl.Boolean)))
        return pl.concat(frames)

    def _retrying(self, change: Callable[[], object]) -> None:
        """Make a change to a table, again while other processes are in the way."""
        import tenacity

        def tell(state: "tenacity.RetryCallState") -> None:
            _log.debug(f"{self._folder}: another run was quicker; attempt {state.attempt_number} failed")

        tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_conflict),
            stop=tenacity.stop_after_delay(_GIVE_UP_AFTER_S),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=5),
            before_sleep=tell,
            reraise=True,
        )(change)

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, OSError) as error:
            raise GenerationStoreUnavailable(
                f"generation store {self._folder}, {doing}: {error}; run it again when that is mended"
            ) from error


class GenerationWriter:
    """Takes answers and has them in the journal before `add` returns; from `GenerationStore.writer`.

    Batches go into the table from a thread of its own. Any number of threads may add.
    """

    def __init__(self, store: GenerationStore, journals: Path) -> None:
        self._store, self._journals = store, journals
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._current: _Journal | None = None
        self._sealed: list[_Journal] = []
        self._sealed_at = time.monotonic()
        self._is_closed, self._folds = False, 0
        self._thread = threading.Thread(target=self._keep_folding, name="fold-generations", daemon=True)
        self._thread.start()

    def add(self, row: StoredText) -> None:
        """Keep an answer: it survives the death of this process once this returns.

        A text with lone surrogates, which no file can hold, is kept with U+FFFD for them. Raises
        `ValueError` for a row that does not fit the table, `OSError` where the journal cannot be written.
        """
        line = _line(row)
        with self._lock:
            if self._is_closed:
                raise ValueError("adding an answer: this writer is closed; open another one")
            if self._current is None:
                self._current = _Journal.create(self._journals)
            self._current.append(line)
            if self._current.rows >= _ROWS_PER_JOURNAL:
                self._seal()
                self._wake.set()

    def close(self) -> None:
        """Move all that is left into the table; raises `GenerationStoreUnavailable` if it cannot be."""
        with self._lock:
            self._is_closed = True
        self._wake.set()
        self._thread.join()
        try:
            self._fold_sealed()
        finally:
            # Whoever opens the store next takes over what could not be folded.
            for journal in self._sealed:
                journal.close()
        self._store.tidy_if_scattered()

    def _seal(self) -> None:
        if self._current:
            self._sealed.append(self._current)
            self._current = None
        self._sealed_at = time.monotonic()

    def _keep_folding(self) -> None:
        while not self._is_closed:
            self._wake.wait(_FOLD_EVERY_S)
            self._wake.clear()
            try:
                self._fold_sealed()
            except GenerationStoreUnavailable as error:
                # The answers are safe in the journal; closing the writer raises if it stays so.
                _log.warning(error)

    def _fold_sealed(self) -> None:
        """Fold all journals that are full or due, several in one transaction where it is behind."""
        with self._lock:
            if self._is_closed or time.monotonic() - self._sealed_at >= _FOLD_EVERY_S:
                self._seal()
        while self._sealed:
            some = self._sealed[:_JOURNALS_PER_FOLD]
            self._store.fold(some)
            for journal in some:
                journal.close()
            with self._lock:
                del self._sealed[: len(some)]
            self._folds += 1
            if self._folds % _FOLDS_PER_TIDY == 0:
                self._store.tidy_if_scattered()


class _Journal:
    """A file of answers, a line each with its checksum, locked while the process that writes it lives."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.rows = path, 0
        self._descriptor = descriptor
        self._length = 0

    def __enter__(self) -> "_Journal":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @classmethod
    def create(cls, folder: Path) -> "_Journal":
        """A new, empty journal, locked."""
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            path = folder / f"{time.time_ns():020d}-{uuid.uuid4().hex}.journal"
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Before it was locked another process may have taken it for one of a dead writer.
            if os.fstat(descriptor).st_nlink:
                return cls(path, descriptor)
            os.close(descriptor)

    @classmethod
    def of_dead_process(cls, path: Path) -> "_Journal | None":
        """A journal that nobody writes any more, locked; None if somebody does, or it is gone."""
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return None
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:
                return cls(path, descriptor)
        os.close(descriptor)
        return None

    def append(self, line: bytes) -> None:
        """Write a line at once, whole or not at all."""
        try:
            written = os.write(self._descriptor, line)
        except OSError as error:
            raise OSError(error.errno, f"writing the journal: {error.strerror}", str(self.path)) from error
        if written < len(line):
            os.ftruncate(self._descriptor, self._length)
            raise OSError(
                f"writing the journal {self.path}: the disk is full, an answer is lost; free some space"
            )
        self._length += written
        self.rows += 1

    def read(self) -> pl.DataFrame:
        """The answers, as rows of the table; damaged lines are logged and set aside beside it."""
        content = self.path.read_bytes()
        # What follows the last line end was being written when the process was killed.
        *lines, _ = content.split(b"\n")
        rows: list[Sequence[object]] = []
        damaged: list[bytes] = []
        for number, line in enumerate(lines, 1):
            if zlib.crc32(line[_CHECKSUM:]) == _checksum(line):
                digits, *values, at = json.loads(line[_CHECKSUM:])
                rows.append((bytes.fromhex(digits), *values, at))
            else:
                damaged.append(line)
                _log.warning(f"{self.path}, line {number}: damaged, this answer cannot be kept")
        if damaged:
            aside = self.path.with_suffix(".damaged")
            aside.write_bytes(b"\n".join(damaged))
            _log.warning(f"{self.path}: {len(damaged)} damaged lines set aside in {aside}")
        return pl.DataFrame(rows, schema={**_TEXT_COLUMNS, "created_at": pl.Int64}, orient="row").cast(
            _TEXT_COLUMNS
        )

    def remove(self) -> None:
        """Remove the file; its answers are in the table."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of it: for others the process that wrote it is dead from now on."""
        os.close(self._descriptor)


def _line(row: StoredText) -> bytes:
    """An answer as a line of the journal: checksum, space, JSON; raises `ValueError` if it does not fit."""
    _digest(row.fingerprint)
    if not 0 <= row.attempt < _INT16 or not all(
        0 <= tokens < _INT32 for tokens in (row.tokens_in, row.tokens_out)
    ):
        raise ValueError(
            f"answer {row.fingerprint}: attempt {row.attempt}, {row.tokens_in} tokens in, "
            f"{row.tokens_out} out: attempts are from 0 to 2**15 - 1, tokens from 0 to 2**31 - 1"
        )
    values = (
        row.fingerprint,
        row.attempt,
        row.generator,
        row.prompt_version,
        _writable(row.text),
        row.truncated,
        row.tokens_in,
        row.tokens_out,
        _microseconds(row.created_at),
    )
    content = json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(content), content)


def _checksum(line: bytes) -> int | None:
    try:
        return int(line[: _CHECKSUM - 1], 16)
    except ValueError:
        return None


def _writable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _microseconds(at: datetime) -> int:
    """Microseconds since 1970 of a time, which must have a zone."""
    if at.tzinfo is None:
        raise ValueError(f"time {at}: without a zone it is no point in time; give it one, as UTC")
    return (at - _EPOCH) // timedelta(microseconds=1)


def _literal(at: datetime) -> str:
    """A time as SQL compares it with `created_at`."""
    return f"arrow_cast({_microseconds(at)}, 'Timestamp(Microsecond, Some(\"UTC\"))')"


def _digest(fingerprint: str) -> bytes:
    """The 16 bytes that 32 hexadecimal digits stand for; raises `ValueError`."""
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise ValueError(f"fingerprint {fingerprint!r}: 32 lower-case hexadecimal digits are expected")
    return bytes.fromhex(fingerprint)


def _matching(table: "Table", digests: Sequence[bytes], columns: list[str]) -> Iterator[pl.DataFrame]:
    """Rows with these fingerprints, so many fingerprints at a time."""
    kinds = pl.Schema({name: _TEXT_COLUMNS[name] for name in columns})
    for frame in rows_by_digest(table, "fingerprint", digests, columns):
        yield frame.cast(kinds)


def _arrow(name: str) -> "pa.Schema":
    """Columns of a table as LanceDB keeps them.

    Its own choice for text, FSST, reads single rows: 304 bytes a row with 300 to 900 characters. zstd in
    blocks of 24 KiB takes 270, but a look-up of 10,000 in a million twice as long.
    """
    import pyarrow as pa

    columns = _TEXT_COLUMNS if name == _TEXTS else _REUSE_COLUMNS
    kinds = {
        pl.Binary(): pa.binary(16),
        pl.String(): pa.string(),
        pl.Boolean(): pa.bool_(),
        pl.Int16(): pa.int16(),
        pl.Int32(): pa.int32(),
        pl.Int64(): pa.int64(),
        pl.Float64(): pa.float64(),
        pl.Datetime("us", "UTC"): pa.timestamp("us", "UTC"),
    }
    return pa.schema(
        pa.field(column, kinds[kind], nullable=column == "partition") for column, kind in columns.items()
    )
