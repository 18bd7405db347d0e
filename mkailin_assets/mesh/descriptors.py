"""NLM's descriptor XML and tree file, read into tables and compared with one another."""

import gzip
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import date
from typing import Any, BinaryIO, cast

import polars as pl
from lxml import etree

from mkailin_assets.mesh.tables import MeshDescriptor

TREE_FILE_SCHEMA = {"name": pl.String, "tree_number": pl.String}

_GZIP_MAGIC = b"\x1f\x8b"
_PREFERRED = "ConceptList/Concept[@PreferredConceptYN='Y']"


class UnreadableMesh(ValueError):
    """A MeSH file was refused as a whole; the message names the file and the cause."""

    def __init__(self, name: str, cause: str) -> None:
        super().__init__(f"{name}: {cause}; nothing of it was loaded. Fetch the file from NLM again.")


def read_descriptors(file: BinaryIO | str | os.PathLike[str], name: str, release_year: int) -> pl.DataFrame:
    """The descriptors of a release as table MeshDescriptor, in the order of the file.

    `file` is NLM's DescriptorRecordSet, gzipped or plain, as a path or a seekable stream (left open); `name`
    is what errors call it. Reads the formats of 2006 to 2026. Nothing outside the file is touched. Raises
    `UnreadableMesh` for a file that is empty, cut off, not a DescriptorRecordSet, declares entities of its
    own, repeats a UI or has a record without UI or name: half a hierarchy is worse than none.
    """
    with _opened(file) as stream:
        rows = [_row(record, name, release_year) for record in _records(stream, name)]
    if not rows:
        raise UnreadableMesh(name, "holds no DescriptorRecord")
    repeated = [ui for ui, times in Counter(row["descriptor_ui"] for row in rows).items() if times > 1]
    if repeated:
        raise UnreadableMesh(name, f"holds more than one record of {', '.join(repeated[:5])}")
    return pl.DataFrame(rows, schema=MeshDescriptor.create_empty().schema)


def read_tree_file(file: BinaryIO | str | os.PathLike[str], name: str) -> pl.DataFrame:
    """NLM's `mtreesYYYY.bin`, lines `Body Regions;A01`: columns name, tree_number; a row per tree number.

    Raises `UnreadableMesh` for a file that is empty or holds anything else.
    """
    with _opened(file) as stream:
        lines = stream.read().decode("utf-8", errors="replace").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        heading, separator, tree_number = line.rpartition(";")
        if not separator or not heading or not tree_number[:1].isalpha():
            raise UnreadableMesh(name, f"line {number} is not 'Name;A01.236' but {line[:80]!r}")
        rows.append((heading, tree_number))
    if not rows:
        raise UnreadableMesh(name, "is empty")
    return pl.DataFrame(rows, schema=TREE_FILE_SCHEMA, orient="row")


@dataclass(frozen=True)
class TreeDifferences:
    """Where descriptors and a tree file part; each a sorted list of 'tree number name'."""

    only_in_descriptors: list[str]
    only_in_tree_file: list[str]

    def __bool__(self) -> bool:
        return bool(self.only_in_descriptors or self.only_in_tree_file)


def tree_differences(descriptors: pl.DataFrame, tree_file: pl.DataFrame) -> TreeDifferences:
    """Pairs of tree number and name that only one of NLM's two sources of a release has.

    `descriptors` is table MeshDescriptor, `tree_file` as `read_tree_file` returns it.
    """
    placed = descriptors.select("name", tree_number="tree_numbers").explode(
        "tree_number", empty_as_null=False
    )
    here, there = set(placed.rows()), set(tree_file.select("name", "tree_number").rows())

    def readable(pairs: set[tuple[str, str]]) -> list[str]:
        return sorted(f"{tree_number} {heading}" for heading, tree_number in pairs)

    return TreeDifferences(readable(here - there), readable(there - here))


def unpacked(stream: BinaryIO) -> BinaryIO:
    """The stream from its start, through gzip where it is gzipped."""
    magic = stream.read(len(_GZIP_MAGIC))
    stream.seek(0)
    return cast(BinaryIO, gzip.GzipFile(fileobj=stream)) if magic == _GZIP_MAGIC else stream


def _opened(file: BinaryIO | str | os.PathLike[str]) -> AbstractContextManager[BinaryIO]:
    return open(file, "rb") if isinstance(file, str | os.PathLike) else nullcontext(file)


def _records(stream: BinaryIO, name: str) -> Iterator[etree._Element]:
    """Each DescriptorRecord, emptied once the next is asked for: memory does not grow with the file."""
    plain = unpacked(stream)
    try:
        head = plain.read(512)
        plain.seek(0)
        if not head.strip():
            raise UnreadableMesh(name, "is empty")
        if b"<html" in head.lower() or b"<!doctype html" in head.lower():
            raise UnreadableMesh(name, "is an HTML page, not descriptor XML")
        events = etree.iterparse(
            plain,
            events=("start", "end"),
            tag=("DescriptorRecordSet", "DescriptorRecord"),
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
        )
        for event, element in events:
            if event == "start" and element.getparent() is None:
                _refuse_own_entities(element, name)
            elif event == "end" and element.tag == "DescriptorRecord":
                yield element
                element.clear()
                while element.getprevious() is not None:
                    del cast(Any, element.getparent())[0]
        if events.root.tag != "DescriptorRecordSet":
            raise UnreadableMesh(name, f"has root <{events.root.tag}>, not <DescriptorRecordSet>")
    except etree.XMLSyntaxError as error:
        raise UnreadableMesh(name, f"is cut off or not well-formed XML ({error.msg})") from error
    except EOFError as error:
        raise UnreadableMesh(name, "is cut off: its gzip stream has no end") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UnreadableMesh(name, f"is a damaged gzip file ({error})") from error


def _refuse_own_entities(root: etree._Element, name: str) -> None:
    dtd: Any = root.getroottree().docinfo.internalDTD  # the stubs lack its methods
    if dtd is not None and (any(dtd.iterentities()) or any(dtd.iterelements())):
        raise UnreadableMesh(name, "declares entities or elements of its own, which NLM's files never do")


def _row(record: etree._Element, name: str, release_year: int) -> dict[str, Any]:
    ui = _text(record, "DescriptorUI")
    heading = _text(record, "DescriptorName/String")
    if not ui or not heading:
        raise UnreadableMesh(name, f"has a record without UI or name on line {record.sourceline}")
    try:
        return {
            "descriptor_ui": ui,
            "name": heading,
            "release_year": release_year,
            **_details(record, heading),
        }
    except ValueError as error:  # a class or a date that is none
        raise UnreadableMesh(name, f"has a record that cannot be read, {ui} {heading} ({error})") from error


def _details(record: etree._Element, heading: str) -> dict[str, Any]:
    terms = dict.fromkeys(_texts(record, "ConceptList/Concept/TermList/Term/String"))
    terms.pop(heading, None)
    return {
        "tree_numbers": _texts(record, "TreeNumberList/TreeNumber"),
        "entry_terms": list(terms),
        "scope_note": _text(record, f"{_PREFERRED}/ScopeNote"),
        "descriptor_class": int(record.get("DescriptorClass", 0)) or None,
        "pharmacological_actions": _texts(
            record, "PharmacologicalActionList/PharmacologicalAction/DescriptorReferredTo/DescriptorUI"
        ),
        "date_created": _date(record, "DateCreated"),
        # The 2026 DTD renamed the other two dates.
        "date_revised": _date(record, "DateRevised") or _date(record, "LastUpdated"),
        "date_established": _date(record, "DateEstablished") or _date(record, "DateIntroduced"),
    }


def _text(element: etree._Element, path: str) -> str | None:
    return " ".join((element.findtext(path) or "").split()) or None


def _texts(element: etree._Element, path: str) -> list[str]:
    return [text for found in element.iterfind(path) if (text := " ".join((found.text or "").split()))]


def _date(record: etree._Element, tag: str) -> date | None:
    year, month, day = (_text(record, f"{tag}/{part}") for part in ("Year", "Month", "Day"))
    return date(int(year), int(month), int(day)) if year and month and day else None
