"""Where tables, raw files and checkpoints are kept: a folder, or any fsspec URL.

What is published is whole: a killed or failed write leaves what was there before. A file whose content
did not change is left untouched, so its modification time says when the content last changed, and what is
made from it is stale only then, as with `make`.

A large table of which a few rows change each day is a log: `tables/<asset>.parquet` and, beside it in
`tables/<asset>/`, what was added since, in order; of the rows with one key the last counts. Additions are
merged into the one file while it is small, and when they come to a fifth of it.
"""

import errno
import fcntl
import filecmp
import glob
import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, cast, get_args, get_origin
from urllib.parse import urlsplit

import dagster as dg
import polars as pl
from upath import UPath

_LOCAL = ("", "file", "local")
_POLARS_READS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl")
_COMPLETE = "_COMPLETE"
_STALE_S = 24 * 3600
_BLOCK = 1 << 20
_MISSING_NAMED = 5  # of 115 branches the first few tell enough
# A log of fewer rows is merged at each addition: rewriting it takes a second.
_SMALL_LOG = 1_000_000
_MOST_ADDED = 0.2  # of a log's rows; so merging costs a few times what is added
_ROWS_A_GROUP = 2_000


@dataclass(frozen=True)
class LogUpdate:
    """What an asset that is a log returns: rows that overrule earlier ones with the same `key`.

    `sources`: what the rows are from, by name, each with a fingerprint. `based_on`: the sources of the log
    when the rows were computed. `is_whole`: the rows are all there are, and nothing earlier counts.
    """

    rows: pl.DataFrame
    key: str
    sources: Mapping[str, str]
    based_on: Mapping[str, str]
    is_whole: bool

    def fits(self, present: Mapping[str, str]) -> bool | None:
        """Whether it can be added to a log of these sources: None if that says all of it already.

        Two runs at once may finish in either order; the one that saw more has the last word.
        """
        gone = self.based_on.items() - self.sources.items() if self.is_whole else set()
        if (
            present != self.based_on
            and present.items() >= self.sources.items()
            and not gone & present.items()
        ):
            return None
        since = present.items() - self.based_on.items()
        is_grown = present.items() >= self.based_on.items()
        return present == self.based_on or ((self.is_whole or is_grown) and since <= self.sources.items())


class StorageError(RuntimeError):
    """Something is not kept, cannot be read or cannot be written; the message says what to do."""


class Storage(dg.ConfigurableResource):
    """Files under one root: a folder, or an fsspec URL such as s3://bucket/prefix.

    Tables lie under `tables/`, downloaded files under `raw/`.
    """

    root: str

    def path(self, *parts: str) -> UPath:
        """A place under the root; an absolute path where the root is a folder."""
        if _is_url(self.root):
            # Listings remembered by this process would hide what another one published.
            return UPath(self.root, use_listings_cache=False).joinpath(*parts)
        return UPath(_folder(self.root)).joinpath(*parts)

    def table_path(self, asset: str, partition: str | None) -> UPath:
        """Where a table is published: tables/<asset>/<partition>.parquet or tables/<asset>.parquet."""
        if partition is None:
            return self.path("tables", f"{asset}.parquet")
        return self.path("tables", asset, f"{partition}.parquet")

    def published_at(self, asset: str, partition: str | None) -> float | None:
        """POSIX time of the last change of a table's content; None if there is none."""
        times = [
            modified_at(path) for path in (self.table_path(asset, partition), *self._added(asset, partition))
        ]
        return max((time for time in times if time is not None), default=None)

    def partitions_published_at(self, asset: str) -> dict[str, float]:
        """POSIX times of the last change of each partition of a table, from one listing."""
        folder = self.path("tables", asset)
        if not folder.exists():
            return {}
        names = folder.fs.ls(folder.path, detail=True)
        paths = {entry["name"].rpartition("/")[2]: entry for entry in names}
        return {
            name.removesuffix(".parquet"): _time_of(entry) or modified_at(folder / name) or 0.0
            for name, entry in paths.items()
            if name.endswith(".parquet") and not name.startswith(".")
        }

    def read_table(self, asset: str, partition: str | None = None) -> pl.DataFrame | None:
        """A published table, None if there is none; raises `StorageError` for a file that is not Parquet."""
        lazy = self.scan_table(asset, partition)
        with _explained(f"reading table {asset}", "the file is damaged: materialize it again"):
            return None if lazy is None else lazy.collect()

    def scan_table(self, asset: str, partition: str | None = None) -> pl.LazyFrame | None:
        """A published table, unread, None if there is none; raises as `read_table` does."""
        path = self.table_path(asset, partition)
        if not path.exists():
            return None
        added = self._added(asset, partition)
        return (
            latest([_load(part) for part in (path, *added)], _log_facts(path)["key"])
            if added
            else _load(path)
        )

    def write_table(
        self,
        frame: pl.DataFrame | pl.LazyFrame,
        asset: str,
        partition: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> bool:
        """Publish a table as zstd Parquet; False if the same bytes were published already.

        A lazy frame is written as it is computed, and never in memory as a whole.
        """
        return self._write(frame, self.table_path(asset, partition), metadata)

    def log_sources(self, asset: str) -> dict[str, str]:
        """Fingerprints of all that a log was made from; empty where there is no log."""
        path = self.table_path(asset, None)
        if not path.exists():
            return {}
        return {
            name: fingerprint
            for part in (path, *self._added(asset, None))
            for name, fingerprint in json.loads(_log_facts(part).get("sources", "{}")).items()
        }

    def update_log(self, asset: str, update: LogUpdate) -> bool:
        """Publish an update of a log; False if it changes nothing.

        Raises `StorageError` when another run has published meanwhile what this one did not see. Runs on one
        machine take turns; on an object store two that publish in the same second may hide each other.
        """
        with self.turn(asset):
            present = self.log_sources(asset)
            fits = update.fits(present)
            if fits is None:
                return False
            if not fits:
                raise StorageError(
                    f"publishing {asset}: another run has published other sources since this one began; "
                    "nothing was published, run it again"
                )
            path = self.table_path(asset, None)
            earlier = [] if update.is_whole or not path.exists() else [path, *self._added(asset, None)]
            if earlier and not update.sources:
                return False
            if earlier and self._is_small_addition(earlier, update.rows.height):
                number = len({*present, *update.sources})
                name = f"{_log_facts(path)['generation']}-{number:07d}-{uuid.uuid4().hex}.parquet"
                facts = {"sources": json.dumps(dict(update.sources))}
                return self._write(update.rows, self.path("tables", asset, name), facts)
            sources = {**(present if earlier else {}), **update.sources}
            rows = latest([*map(_load, earlier), update.rows.lazy()], update.key).collect().sort(update.key)
            if not self._added(asset, None) and sources == present and self._holds(asset, rows):
                return False
            # Additions count for the one file they were added to: not for this one, should they outlive it.
            facts = {"key": update.key, "generation": uuid.uuid4().hex, "sources": json.dumps(sources)}
            self.write_table(rows, asset, metadata=facts)
            self._remove_old_additions(asset, facts["generation"])
            return True

    def _holds(self, asset: str, rows: pl.DataFrame) -> bool:
        table = self.read_table(asset)
        return table is not None and table.equals(rows)

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Wait until no other process of this machine has its turn at `name`; a killed one lets go of it."""
        with (self.scratch() / f".{name}.lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _is_small_addition(self, earlier: Sequence[UPath], rows: int) -> bool:
        first, *added = (_load(part).select(pl.len()).collect().item() for part in earlier)
        return bool(first >= _SMALL_LOG and sum(added) + rows <= first * _MOST_ADDED)

    def _added(self, asset: str, partition: str | None) -> list[UPath]:
        """What was added to a log since its one file was written, in order; none for other tables."""
        path, folder = self.table_path(asset, partition), self.path("tables", asset)
        if partition is not None or not path.exists() or not folder.exists():
            return []
        generation = _log_facts(path).get("generation")
        added = [part for part in folder.iterdir() if part.name.partition("-")[0] == generation]
        return sorted(added, key=lambda part: part.name)

    def _remove_old_additions(self, asset: str, generation: str) -> None:
        folder = self.path("tables", asset)
        for part in folder.iterdir() if folder.exists() else []:
            at = modified_at(part)
            # A reader may have begun before the merge.
            if part.name.partition("-")[0] != generation and at is not None and at < time.time() - _STALE_S:
                part.unlink(missing_ok=True)

    def _write(
        self, frame: pl.DataFrame | pl.LazyFrame, target: UPath, metadata: Mapping[str, str] | None
    ) -> bool:
        facts = dict(metadata) if metadata else None

        def write(file: BinaryIO) -> None:
            if isinstance(frame, pl.LazyFrame):
                frame.sink_parquet(
                    file,
                    compression="zstd",
                    row_group_size=_ROWS_A_GROUP,
                    maintain_order=True,
                    metadata=facts,
                )
            else:
                # The same rows in other chunks would be other bytes.
                frame.rechunk().write_parquet(file, compression="zstd", metadata=facts)

        return self._publish(target, write)[1]

    def open(self, uri: str) -> BinaryIO:
        """A kept file for reading, buffered; raises `StorageError` if it is not there."""
        with _explained(f"opening {uri}", "it was kept there once: materialize the asset that made it again"):
            return cast(BinaryIO, UPath(uri).open("rb"))

    def publish_file(self, target: UPath, write: Callable[[BinaryIO], object]) -> UPath:
        """Publish what `write` writes at `target` (from `path`), whole or not at all.

        Whatever `write` raises is raised, an `OSError` as `StorageError`; what was published before stays.
        """
        path, _ = self._publish(target, write)
        return path

    def publish_folder(self, local: Path, *parts: str) -> str:
        """Publish a copy of a folder under `parts`, immutable: if it is there already it is kept. Its uri."""
        target = self.path(*parts)
        with _explained(f"publishing folder {target}", "nothing was published; mend it and run it again"):
            if is_local(target):
                _copy_folder(local, Path(target.path))
            elif not (target / _COMPLETE).exists():
                _upload_folder(local, target)
        return str(target)

    def has_folder(self, *parts: str) -> bool:
        """Whether a folder is published under `parts`, whole."""
        target = self.path(*parts)
        with _explained(f"looking for folder {target}", "nothing was changed; run it again"):
            return Path(target.path).is_dir() if is_local(target) else (target / _COMPLETE).exists()

    def local_folder(self, uri: str) -> Path:
        """A published folder as a local path, downloaded once if it is remote."""
        if not _is_url(uri):
            folder = _folder(uri)
            if not folder.is_dir():
                raise StorageError(f"opening folder {uri}: it is not there; materialize its asset again")
            return folder
        source = UPath(uri, use_listings_cache=False)
        with _explained(f"downloading folder {uri}", "materialize the asset that made it again"):
            names = json.loads((source / _COMPLETE).read_text())
            folder = _cache(uri) / source.name
            if not folder.exists():
                with tempfile.TemporaryDirectory(dir=_made(folder.parent)) as scratch:
                    for name in names:
                        _made((Path(scratch) / name).parent)
                        source.fs.get_file((source / name).path, str(Path(scratch) / name))
                    _copy_folder(Path(scratch), folder)
        return folder

    def scratch(self) -> Path:
        """A local folder that outlives a run, for downloads not yet whole; beside a local root's files."""
        if _is_url(self.root):
            return _made(_cache(self.root) / "scratch")
        return _made(_folder(self.root) / ".scratch")

    @contextmanager
    def scratch_folder(self, name: str) -> Iterator[Path]:
        """An empty folder while the block runs; those of processes that were killed go after a day."""
        for left in self.scratch().glob(f"{glob.escape(name)}-*"):
            if left.stat().st_mtime < time.time() - _STALE_S:
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=self.scratch(), prefix=f"{name}-") as folder:
            yield Path(folder)

    def _publish(self, target: UPath, write: Callable[[BinaryIO], object]) -> tuple[UPath, bool]:
        with _explained(f"publishing {target}", "what was there before stays; mend it and run it again"):
            if is_local(target):
                return target, _replace_file(Path(target.path), write)
            # An object store publishes on close, after an exception too: only a whole file is sent.
            with tempfile.NamedTemporaryFile() as whole:
                write(cast(BinaryIO, whole))
                whole.flush()
                if _same_content(Path(whole.name), target):
                    return target, False
                target.fs.put_file(whole.name, target.path)
                return target, True


class ParquetTables(dg.ConfigurableIOManager):
    """Tables between assets as Parquet files, one for each partition.

    An input is what its annotation says: `pl.DataFrame` or `pl.LazyFrame` for one table,
    `dict[str, pl.LazyFrame]` (or of DataFrames) for the partitions that exist. A single-run backfill
    returns a dict of frames, one for each partition of the run.
    """

    storage: dg.ResourceDependency[Storage]

    def handle_output(
        self,
        context: dg.OutputContext,
        obj: pl.DataFrame | LogUpdate | dict[str, pl.DataFrame | pl.LazyFrame],
    ) -> None:
        """Publish the table of the run's partition, or those of all its partitions."""
        asset = context.asset_key.to_user_string()
        keys = _keys(context)
        if isinstance(obj, LogUpdate):
            changed: list[str | None] = [None] if self.storage.update_log(asset, obj) else []
            frames: Sequence[str | None] = [None]
        else:
            given = _frames_by_key(asset, keys, obj)
            changed = [key for key, frame in given.items() if self.storage.write_table(frame, asset, key)]
            frames = list(given)
        paths = [self.storage.table_path(asset, key) for key in frames]
        metadata: dict[str, Any] = {
            "dagster/row_count": sum(self._rows(asset, key) for key in frames),
            "dagster/uri": (paths[0] if len(paths) == 1 else paths[0].parent).as_uri(),
            "parquet_bytes": sum(path.stat().st_size for path in paths),
            "unchanged": not changed,
        }
        if context.has_asset_partitions:
            metadata["partitions_written"] = len(changed)
            metadata["partitions_unchanged"] = len(frames) - len(changed)
        context.add_output_metadata(metadata)

    def load_input(self, context: dg.InputContext) -> Any:
        """The table or tables an input names; raises `StorageError` if there is nothing to load."""
        asset = context.asset_key.to_user_string()
        wanted = context.dagster_type.typing_type
        if get_origin(wanted) is dict and context.has_asset_partitions:
            paths = self._existing(context, asset)
            return {key: _as(get_args(wanted)[1], _load(path), str(path)) for key, path in paths.items()}
        keys = _keys(context)
        if len(keys) != 1 or wanted not in (pl.DataFrame, pl.LazyFrame):
            raise StorageError(
                f"loading {asset} for input {context.name!r}, {len(keys)} partitions, annotated {wanted}: "
                "annotate one table as pl.DataFrame or pl.LazyFrame, partitions as dict[str, pl.LazyFrame]"
            )
        lazy = self.storage.scan_table(asset, keys[0])
        if lazy is None:
            path = self.storage.table_path(asset, keys[0])
            table = asset if keys[0] is None else f"{asset}, partition {keys[0]}"
            raise StorageError(f"loading {asset} from {path}: it is not there; materialize {table} first")
        return _as(wanted, lazy, asset)

    def _rows(self, asset: str, partition: str | None) -> int:
        lazy = self.storage.scan_table(asset, partition)
        return 0 if lazy is None else int(lazy.select(pl.len()).collect().item())

    def _existing(self, context: dg.InputContext, asset: str) -> dict[str, UPath]:
        """Paths of the partitions that are there, in the order of their keys; the others are logged."""
        keys = _keys(context)
        folder = self.storage.path("tables", asset)
        there = {path.name for path in folder.iterdir()} if folder.exists() else set()
        paths = {str(key): self.storage.table_path(asset, key) for key in keys if f"{key}.parquet" in there}
        missing = [key for key in keys if key not in paths]
        if not paths:
            raise StorageError(
                f"loading {asset} from {folder}: none of its {len(keys)} partitions is there; "
                f"materialize at least one partition of {asset} first"
            )
        if missing:
            named = [*map(str, missing[:_MISSING_NAMED]), *(["..."] if len(missing) > _MISSING_NAMED else [])]
            context.log.info(
                f"{asset}: {len(paths)} of {len(keys)} partitions loaded; "
                f"not materialized yet and left out: {', '.join(named)}"
            )
        return paths


def _keys(context: dg.InputContext | dg.OutputContext) -> list[str | None]:
    """Partition keys, sorted: Dagster gives those of a range or of all in another order each time."""
    return [*sorted(context.asset_partition_keys)] if context.has_asset_partitions else [None]


def _frames_by_key(
    asset: str, keys: Sequence[str | None], obj: object
) -> dict[str | None, pl.DataFrame | pl.LazyFrame]:
    """What an asset returned as frame by partition key, exactly the run's keys."""
    values = obj if isinstance(obj, dict) else {keys[0]: obj} if len(keys) == 1 else {}
    frames = {key: frame for key, frame in values.items() if isinstance(frame, pl.DataFrame | pl.LazyFrame)}
    if set(frames) != set(keys) or len(frames) != len(values):
        got = {key: type(value).__name__ for key, value in values.items()} or type(obj).__name__
        raise StorageError(
            f"publishing {asset}, partitions {', '.join(map(str, keys))}: expected a polars DataFrame, or a "
            f"dict with one for each of the run's partitions; got {got}"
        )
    return frames


def _load(path: UPath) -> pl.LazyFrame:
    with _explained(f"reading table {path}", "the file is damaged: materialize it again"):
        lazy = _scan(path)
        lazy.collect_schema()  # reads the footer, so that a cut-off file is named here, not in a later query
        return lazy


def _as(wanted: type, lazy: pl.LazyFrame, table: str) -> pl.DataFrame | pl.LazyFrame:
    with _explained(f"reading table {table}", "the file is damaged: materialize it again"):
        return lazy if wanted is pl.LazyFrame else lazy.collect()


def latest(parts: Sequence[pl.LazyFrame], key: str) -> pl.LazyFrame:
    """The rows of all parts, of those with the same key that of the last part."""
    first, *added = parts
    if not added:
        return first
    last = pl.concat(added).collect().unique(key, keep="last", maintain_order=True).lazy()
    return pl.concat([first.join(last, on=key, how="anti", maintain_order="left"), last])


def _log_facts(path: UPath) -> dict[str, str]:
    """What a log's file says of itself: key, generation, sources; nothing in other tables."""
    with (
        _explained(f"reading table {path}", "the file is damaged: materialize it again"),
        path.open("rb") as file,
    ):
        return pl.read_parquet_metadata(cast(BinaryIO, file))


def _scan(path: UPath) -> pl.LazyFrame:
    if is_local(path) or path.protocol in _POLARS_READS:
        return pl.scan_parquet(path.path if is_local(path) else str(path), glob=False)
    with path.open("rb") as file:
        return pl.read_parquet(cast(BinaryIO, file)).lazy()


@contextmanager
def _explained(doing: str, advice: str) -> Iterator[None]:
    """Say of a failing disk, store or Parquet file what was being done and what to do."""
    try:
        yield
    except (OSError, pl.exceptions.ComputeError) as error:
        raise StorageError(f"{doing}: {error}; {advice}") from error


def _replace_file(target: Path, write: Callable[[BinaryIO], object]) -> bool:
    """Put what `write` writes in place of `target` at once; False, and untouched, if it is the same."""
    _made(target.parent)
    _remove_stale(target)
    temporary = _temporary(target)
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if target.exists() and filecmp.cmp(temporary, target, shallow=False):
            return False
        os.replace(temporary, target)
        _sync_folder(target.parent)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def _copy_folder(source: Path, target: Path) -> None:
    """Copy a folder to a hidden sibling, then rename it; a target that is there already is kept."""
    if target.is_dir():
        return
    _made(target.parent)
    _remove_stale(target)
    temporary = _temporary(target)
    try:
        shutil.copytree(source, temporary)
        os.utime(temporary)  # the copy has the time of its source, which may look stale
        for folder, _, names in os.walk(temporary):
            for name in names:
                with open(os.path.join(folder, name), "rb") as file:
                    os.fsync(file.fileno())
            _sync_folder(Path(folder))
        os.rename(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        # Another run published it meanwhile: renaming onto a folder that holds files is refused.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _upload_folder(source: Path, target: UPath) -> None:
    """Upload all files, then the marker that names them: what it does not name is not of the folder."""
    names = sorted(str(path.relative_to(source)) for path in source.rglob("*") if path.is_file())
    for name in names:
        target.fs.put_file(str(source / name), (target / name).path)
    target.fs.pipe_file((target / _COMPLETE).path, json.dumps(names).encode())


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")


def _remove_stale(target: Path) -> None:
    """Remove what writers of this target left that were killed more than a day ago."""
    for left in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
        with suppress(FileNotFoundError):
            if left.stat().st_mtime < time.time() - _STALE_S:
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def _same_content(local: Path, published: UPath) -> bool:
    if not published.exists() or published.stat().st_size != local.stat().st_size:
        return False
    with local.open("rb") as ours, published.open("rb") as theirs:
        while block := ours.read(_BLOCK):
            if block != theirs.read(_BLOCK):
                return False
    return True


def modified_at(path: UPath) -> float | None:
    """POSIX time of a file's last change, None if there is none; some stores tell it by `modified` alone."""
    try:
        return path.stat().st_mtime if is_local(path) else path.fs.modified(path.path).timestamp()
    except FileNotFoundError:
        return None


def _time_of(entry: Mapping[str, Any]) -> float | None:
    """POSIX time of the last change as a listing gives it, if it does."""
    found = next((entry[name] for name in ("mtime", "LastModified", "updated") if name in entry), None)
    if isinstance(found, datetime):
        return found.timestamp()
    return float(found) if isinstance(found, int | float) else None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_url(uri: str) -> bool:
    return urlsplit(uri).scheme not in _LOCAL


def is_local(path: UPath) -> bool:
    """Whether a path is one of this machine's file system."""
    return path.protocol in _LOCAL


def _folder(uri: str) -> Path:
    return Path(UPath(uri).path).expanduser().absolute()


def _cache(uri: str) -> Path:
    """Where this user's downloads of what lies under a remote uri are kept."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "mkailin" / hashlib.sha256(uri.encode()).hexdigest()[:16]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
