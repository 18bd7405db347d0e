"""The folder of a release as Hugging Face lays it out: its rows, its reports, and the sums of its files."""

from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import polars as pl

from mkailin_assets.corpus.tables import SPLITS
from mkailin_assets.release.facts import Form
from mkailin_assets.release.forms import configs_of, instruction_rows, pretraining_rows
from mkailin_resources.training_checkpoints import sha256

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

SUMS = "SHA256SUMS"
PICTURE = "reports/coverage.png"
# What PubMed retracted or deleted up to the cut-off of the release: reports/taken_back.parquet.
TAKEN_BACK = pl.Schema({"pmid": pl.Int64(), "state": pl.String(), "pubmed_file": pl.String()})
# As many as `datasets` wrote by default: its viewer reads one group to show a page of it.
ROWS_A_GROUP = 1_000
BYTES_A_FILE = 500_000_000  # of the values, before they are compressed


def write_rows(
    batches: Iterable[pl.DataFrame], folder: Path, form: Form, bytes_a_file: int = BYTES_A_FILE
) -> int:
    """Write the examples into data/<config>/<split>-00000-of-0000N.parquet; the number of rows.

    A batch is a `TrainingExample` table; rows stay in their order, and how they are cut into batches decides
    nothing: the same rows are the same bytes. Files of one number hold the same examples in each config.
    In memory are one batch and, for each split, the rows of an unfinished group. A split without rows has no
    file: `datasets` 5.2 reads no split that is empty, nor any other beside it.
    """
    splits = {split: _Split(folder / "data", split, form, bytes_a_file) for split in SPLITS}
    rows = 0
    for batch in batches:
        rows += batch.height
        for (split,), examples in batch.partition_by("split", as_dict=True, maintain_order=True).items():
            splits[split].add(examples)
    for one in splits.values():
        one.finish()
    return rows


def write_reports(folder: Path, tables: Mapping[str, pl.DataFrame], picture: bytes) -> None:
    """Write reports/<name>.parquet of each table, and the picture of the coverage."""
    (folder / PICTURE).parent.mkdir(parents=True, exist_ok=True)
    (folder / PICTURE).write_bytes(picture)
    for name, frame in tables.items():
        table = frame.to_arrow()
        with _writer(folder / "reports" / f"{name}.parquet", table.schema) as writer:
            writer.write_table(table)


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS over every other file, by name, as `sha256sum -c` reads it."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = [f"{sha256(folder / name)}  {name}\n" for name in names if name != SUMS]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def as_read(schema: pl.Schema) -> "pa.Schema":
    """The columns of a table as they are read again from a Parquet file of a release."""
    from pyarrow.parquet import read_schema

    file = BytesIO()
    _writer(file, schema.to_frame().to_arrow().schema).close()
    return read_schema(file)


def _writer(file: Path | BinaryIO, schema: "pa.Schema") -> "pq.ParquetWriter":
    from pyarrow.parquet import ParquetWriter

    # Without Arrow's own schema a text is read as a plain string, not as polars' large one. Pages are cut by
    # content: of a release that has grown, the Hub is sent and stores what is new.
    return ParquetWriter(
        file,
        schema,
        compression="zstd",
        store_schema=False,
        write_page_index=True,
        use_content_defined_chunking=True,
    )


class _Split:
    """The files of one split, of all configs side by side; named once it is known how many there are."""

    def __init__(self, folder: Path, split: str, form: Form, bytes_a_file: int) -> None:
        self._folder, self._split, self._form = folder, split, form
        self._bytes_a_file = bytes_a_file
        self._waiting: list[pl.DataFrame] = []
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._files = self._bytes = 0

    def add(self, examples: pl.DataFrame) -> None:
        """Write all whole groups of rows that there are."""
        self._waiting.append(examples)
        if sum(rows.height for rows in self._waiting) >= ROWS_A_GROUP:
            self._write_waiting(at_least=ROWS_A_GROUP)

    def finish(self) -> None:
        """Write what is left, and give the files their names."""
        if self._waiting:
            self._write_waiting(at_least=1)
        self._close()
        for config in configs_of(self._form):
            for number in range(self._files):
                name = f"{self._split}-{number:05}-of-{self._files:05}.parquet"
                self._part(config, number).rename(self._folder / config / name)

    def _write_waiting(self, at_least: int) -> None:
        # Cut into other batches, the same rows would be other bytes.
        left = pl.concat(self._waiting, rechunk=True)
        while left.height >= at_least:
            self._write(left.head(ROWS_A_GROUP))
            left = left.slice(ROWS_A_GROUP)
        self._waiting = [left]

    def _write(self, examples: pl.DataFrame) -> None:
        tables = {"instruction": instruction_rows(examples, self._form).to_arrow()}
        if self._form == "full":
            tables["pretraining"] = pretraining_rows(examples).to_arrow()
        size = max(table.nbytes for table in tables.values())
        if self._bytes and self._bytes + size > self._bytes_a_file:
            self._close()
        if not self._writers:
            self._writers = {config: self._opened(config, table.schema) for config, table in tables.items()}
            self._files += 1
        for config, table in tables.items():
            self._writers[config].write_table(table, row_group_size=ROWS_A_GROUP)
        self._bytes += size

    def _opened(self, config: str, schema: "pa.Schema") -> "pq.ParquetWriter":
        part = self._part(config, self._files)
        part.parent.mkdir(parents=True, exist_ok=True)
        return _writer(part, schema)

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers, self._bytes = {}, 0

    def _part(self, config: str, number: int) -> Path:
        return self._folder / config / f"{self._split}-{number:05}.part"
