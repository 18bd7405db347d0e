"""Collects the records of a file and makes a table of them."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import polars as pl

from mkailin_assets.pubmed.tables import PubmedRecord

# Rows held as tuples: many of them keep Python's garbage collector busy for a quarter of the time.
_ROWS = 50
# Rows held as Python strings, before they become columns of a table.
_PART = 8000


class Row(NamedTuple):
    """A row of `PubmedRecord` but for the file; a list of structs is as many sequences as it has fields."""

    record: str
    position: int
    pmid: int | None = None
    version: int | None = None
    status: str | None = None
    title: str | None = None
    vernacular_title: str | None = None
    abstract: Sequence[Sequence[Any]] = ((), (), ())
    language: Sequence[str] = ()
    publication_types: Sequence[Sequence[Any]] = ((), ())
    year: int | None = None
    journal: str | None = None
    headings: Sequence[Sequence[Any]] = ((), (), (), ())
    keywords: Sequence[str] = ()
    doi: str | None = None
    pmc: str | None = None
    comments_corrections: Sequence[Sequence[Any]] = ((), ())
    retracted: bool | None = None
    content_hash: str | None = None
    cause: str | None = None
    raw: str | None = None


class RecordTable:
    """Rows on their way into a `PubmedRecord` table."""

    def __init__(self, pubmed_file: str) -> None:
        self.height = 0
        self._pubmed_file = pubmed_file
        self._rows: list[Row] = []
        self._parts: list[pl.DataFrame] = [PubmedRecord.create_empty()]
        self._columns = _columns()

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows."""
        self._rows += rows
        self.height += len(rows)
        if len(self._rows) >= _ROWS:
            self._flatten()

    def frame(self) -> pl.DataFrame:
        """All rows added so far."""
        self._flatten()
        self._finish_part()
        return pl.concat(self._parts, rechunk=True)

    def _flatten(self) -> None:
        for column, values in zip(self._columns.values(), zip(*self._rows, strict=True), strict=False):
            column.extend(values)
        self._rows.clear()
        if len(self._columns["record"].flat) >= _PART:
            self._finish_part()

    def _finish_part(self) -> None:
        part = pl.DataFrame({name: column.series() for name, column in self._columns.items()})
        named = part.with_columns(pubmed_file=pl.lit(self._pubmed_file))
        self._parts.append(named.select(self._parts[0].columns))
        self._columns = _columns()


class _Column:
    """Values of a column kept flat: polars takes ten times as long to make a column of nested ones."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.flat: list[Any] = []
        """The values; of a column of lists, their lengths."""
        self.items: dict[str, _Column] = {}
        """What is in the lists, by field of the struct, or under the empty name."""
        if isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct):
            self.items = {field.name: _Column(field.dtype) for field in dtype.inner.fields}
        elif isinstance(dtype, pl.List):
            self.items = {"": _Column(dtype.inner)}

    def extend(self, values: Sequence[Any]) -> None:
        if not self.items:
            self.flat += values
        elif "" in self.items:
            self.flat += map(len, values)
            self.items[""].extend(list(chain.from_iterable(values)))
        else:
            self.flat += [len(value[0]) for value in values]
            for item, lists in zip(self.items.values(), zip(*values, strict=True), strict=False):
                item.extend(list(chain.from_iterable(lists)))

    def series(self) -> pl.Series:
        if not self.items:
            return pl.Series(self.flat, dtype=self.dtype)
        items = pl.DataFrame({name: item.series() for name, item in self.items.items()})
        rows = pl.DataFrame({"row": range(len(self.flat)), "length": self.flat})
        each = rows.select(pl.col("row").repeat_by("length").explode(empty_as_null=False))
        lists = (
            each.with_columns(item=items.to_series() if "" in self.items else items.to_struct())
            .group_by("row", maintain_order=True)
            .agg("item")
        )
        joined = rows.join(lists, on="row", how="left", maintain_order="left")["item"]
        return joined.fill_null(pl.Series([[]], dtype=self.dtype))


def _columns() -> dict[str, _Column]:
    types = PubmedRecord.create_empty().schema
    return {name: _Column(types[name]) for name in Row._fields}
