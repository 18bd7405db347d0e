"""The elements of many PubMed records at once, by their paths; their texts and attributes as columns."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import polars as pl
from lxml import etree

from mkailin_assets.pubmed.markup import readable
from mkailin_resources.untrusted_xml import PARSER

_ANY = "*"
# UTF-8, but no characters of XML; the scanner finds those below the blank.
_NO_CHARACTERS = re.compile(b"\xef\xbf[\xbe\xbf]")
# A power of two, many times the number of different tags.
_SLOTS = 1024

Indexes = np.ndarray
"""Places in the table of elements (int64), mostly in document order; -1 where there is none."""


class Paths:
    """The elements that are read: names for the paths that lead to them from a record's own tag.

    A step `*` is any tag that has no path of its own there.
    """

    def __init__(self, paths: Mapping[str, Sequence[str]]) -> None:
        self.fields = {name: number for number, name in enumerate(paths)}
        root = len(paths)
        ways = {tuple(way.split("/")): self.fields[name] for name in paths for way in paths[name]}
        states = {(): root} | ways
        for way in ways:
            for length in range(1, len(way)):
                states.setdefault(way[:length], root + len(states) - len(ways))
        self._tags = sorted({tag for way in states for tag in way} - {_ANY})
        # From a state and the code of a tag to the next state: a field, one on the way, or -1.
        self._below = np.full((max(states.values()) + 1, len(self._tags) + 1), -1, dtype=np.int32)
        # The wildcards first: what has a path of its own takes precedence.
        for way in sorted(states.keys() - {()}, key=lambda way: way[-1] != _ANY):
            codes = slice(None) if way[-1] == _ANY else self._tags.index(way[-1]) + 1
            self._below[states[way[:-1]], codes] = states[way]
        first = [tuple(paths[name][0].split("/")) for name in paths]
        self.is_read = np.array(
            [not any(other != way and other[: len(way)] == way for other in ways) for way in first]
        )
        """By field, whether its text is read: nothing below it is a field."""

    @cached_property
    def compiled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
        """The tables that the scanner finds tags and paths by."""
        from mkailin_assets.pubmed.scanner import name_hash

        encoded = [b"", *(tag.encode() for tag in self._tags)]
        names, bounds = _bytes("".join(self._tags)), np.cumsum([0, *map(len, encoded)])
        slots = np.zeros(_SLOTS, dtype=np.int32)
        for code in range(1, len(encoded)):
            slot = name_hash(names, bounds[code], len(encoded[code])) % _SLOTS
            while slots[slot]:
                slot = (slot + 1) % _SLOTS
            slots[slot] = code
        return slots, names, bounds, self._below, len(self.fields)


class Elements:
    """The elements of a block of records that lie on one of the paths.

    `known_good` are records that `plainly` wrote. Those that cannot be read so are `refused` (bool, by
    record) and have no elements.
    """

    def __init__(self, records: Sequence[bytes], paths: Paths, known_good: bool = False) -> None:
        from mkailin_assets.pubmed import scanner

        self.height = len(records)
        self._fields = paths.fields
        written = b"".join([*records, scanner.SENTINEL])
        if not _is_text(written):
            records = [record if _is_text(record) else b"" for record in records]
            written = b"".join([*records, scanner.SENTINEL])
        self._text = np.frombuffer(written, dtype=np.uint8)
        starts = np.cumsum([0, *map(len, records)])
        table = np.empty((written.count(b"<") + 1, scanner.COLUMNS), dtype=np.int32)
        self.refused = np.zeros(self.height, dtype=np.bool_)
        count = scanner.scan(self._text, starts, paths.compiled, int(known_good), table, self.refused)
        # A last row for index -1: the element that is not there.
        table[count] = (-1, -1, -1, len(self._fields), -1, -1, 0)
        columns = table[: count + 1].T.astype(np.int64)
        self._opened, self._begin = columns[scanner.OPENED], columns[scanner.BEGIN]
        self.holder = columns[scanner.HOLDER]
        """For each element the nearest one around it that is on a path, too."""
        self.record = columns[scanner.RECORD]
        """For each element the number of its record."""
        field = columns[scanner.FIELD].astype(np.uint8)  # the fewer bytes, the faster sorted
        self._by_field = np.argsort(field, kind="stable")
        self._bounds = np.searchsorted(field[self._by_field], np.arange(len(self._fields) + 1))
        is_read = np.append(paths.is_read, False)[field]
        begins = np.where(is_read, self._begin, -1)
        texts = self._strings(begins, columns[scanner.END])
        self._texts = readable(texts, is_read & (columns[scanner.MARKED] != 0))
        self.holds_text = self._texts.is_not_null().to_numpy()
        """For each element whether there is text in it."""

    def of(self, field: str) -> Indexes:
        """All elements of a field."""
        number = self._fields[field]
        return self._by_field[self._bounds[number] : self._bounds[number + 1]]

    def first(self, elements: Indexes) -> Indexes:
        """The first of these elements in each record."""
        return _first(self.record[elements], elements, self.height)[:-1]

    def of_each_record(self, field: str) -> Indexes:
        """The first element of a field in each record."""
        return self.first(self.of(field))

    def is_several(self, field: str) -> np.ndarray:
        """By record, whether there is more than one element of a field (bool)."""
        return np.bincount(self.record[self.of(field)], minlength=self.height) > 1

    def first_in_each(self, holders: Indexes, elements: Indexes) -> Indexes:
        """The first of these elements in each of those that hold them."""
        return _first(self.holder[elements], elements, len(self.holder))[holders]

    def in_each(self, holders: Indexes, field: str) -> Indexes:
        """The first element of a field in each of these elements."""
        return self.first_in_each(holders, self.of(field))

    def text(self, elements: Indexes) -> pl.Series:
        """Readable text (`markup.readable`); null where there is no element, or nothing in it."""
        return self._texts[elements]

    def either(self, elements: Indexes, others: Indexes) -> Indexes:
        """The elements that hold text, and in the place of those that do not, the others."""
        return np.where(self.holds_text[elements], elements, others)

    def attribute(self, elements: Indexes, name: str) -> pl.Series:
        """Values of an attribute; null where there is no element, no attribute, or nothing in it."""
        begins, ends, marked = self._attributes(elements, name)
        return readable(self._strings(begins, ends), marked)

    def has(self, elements: Indexes, name: str, value: str) -> np.ndarray:
        """Whether an attribute has this value, as it is written but for blanks around it (bool)."""
        from mkailin_assets.pubmed.scanner import equals

        begins, ends, _ = self._attributes(elements, name)
        return equals(self._text, begins, ends, _bytes(value))

    def tag(self, elements: Indexes) -> pl.Series:
        """Names of the tags."""
        start_tags = self._strings(self._opened[elements] + 1, self._begin[elements])
        return start_tags.str.extract(r"^([^\s/>]+)")

    def _attributes(self, elements: Indexes, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        from mkailin_assets.pubmed.scanner import attribute_spans

        return attribute_spans(self._text, self._opened[elements], _bytes(name))

    def _strings(self, begins: np.ndarray, ends: np.ndarray) -> pl.Series:
        """The text in these spans without blanks around it; null where that is nothing."""
        import pyarrow as pa

        from mkailin_assets.pubmed.scanner import gather

        content, offsets = gather(self._text, begins, ends)
        there = np.packbits(begins >= 0, bitorder="little")
        buffers = list(map(pa.py_buffer, (there, offsets, content)))
        return pl.Series(pl.from_arrow(pa.Array.from_buffers(pa.large_string(), len(begins), buffers)))


def lists(holders: np.ndarray, height: int, items: Mapping[str, pl.Series] | pl.Series) -> pl.Series:
    """Items as lists, by the ascending number of what holds each (of `height`): structs, or plain values."""
    import pyarrow as pa

    values = items if isinstance(items, pl.Series) else pl.DataFrame(items).to_struct()
    bounds = np.searchsorted(holders, np.arange(height + 1))
    # pa.array() would import pandas.
    offsets = pa.Array.from_buffers(pa.int64(), len(bounds), [None, pa.py_buffer(bounds)])
    return pl.Series(pl.from_arrow(pa.LargeListArray.from_arrays(offsets, values.to_arrow())))


def plainly(record: bytes) -> bytes:
    """A record as elements and text alone; raises `etree.XMLSyntaxError` if it is malformed."""
    return etree.tostring(etree.fromstring(record, PARSER), encoding="utf-8")


def _is_text(written: bytes) -> bool:
    """Whether this is UTF-8, and all of it characters of XML."""
    if written.isascii():
        return True
    try:
        written.decode()
    except UnicodeDecodeError:
        return False
    return not _NO_CHARACTERS.search(written)


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), dtype=np.uint8)


def _first(numbers: np.ndarray, elements: Indexes, height: int) -> Indexes:
    """For each number below `height` the first of the elements that have it; a last entry for number -1."""
    found = np.full(height + 1, -1, dtype=np.int64)
    found[numbers[::-1]] = elements[::-1]
    found[-1] = -1
    return found
