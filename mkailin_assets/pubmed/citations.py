"""Reads one of NLM's PubMed files: citations, deleted PMIDs, and the records that could not be read.

Each record is read by itself, so a malformed one costs nothing but itself.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import Any, BinaryIO

import numpy as np
import polars as pl
from lxml import etree

from mkailin_assets.pubmed.columns import citation_columns
from mkailin_assets.pubmed.elements import plainly
from mkailin_assets.pubmed.records import RECORD_OF_ROOT, records
from mkailin_assets.pubmed.tables import PubmedRecord, pubmed_records
from mkailin_resources.untrusted_xml import PARSER

# Bytes of records that are read at a time: some thousand citations, or more of what is no citation.
_BLOCK = 8 << 20
_MOST_RECORDS = 10_000
_TOO_MUCH = "elements more than 200 deep, or one with more than 12 attributes"
_CITATIONS = frozenset(RECORD_OF_ROOT.values())
_PMID = re.compile(r"[1-9][0-9]{0,7}")
_VERSION = re.compile(r"[0-9]{1,9}")
_PMID_IN_PIECES = re.compile(rb"<MedlineCitation[^<>]*>\s*<PMID[^<>]*>\s*([1-9][0-9]{0,7})\s*</PMID>")


def read_pubmed_file(file: BinaryIO, name: str) -> Iterator[pl.DataFrame]:
    """The records of a PubMed file in file order, in `PubmedRecord` tables of some thousand rows.

    `file` is seekable, gzipped or plain, with root PubmedArticleSet (DTD pubmed_250101 and earlier) or the
    older MedlineCitationSet; `name` is its key. A record that cannot be read becomes a quarantined row with
    cause and raw text. There is at least one table. Memory does not grow with the file.

    Raises `UnreadablePubmedFile` for a file that is empty, truncated, corrupt, hostile or not from PubMed:
    perhaps only at its end, so nothing of it may be published before.
    """
    height = 0
    for part in _parts(records(file, name)):
        position = pl.int_range(height, height + part.height, dtype=pl.Int32)
        yield part.with_columns(position=position, pubmed_file=pl.lit(name))
        height += part.height
    if not height:
        yield PubmedRecord.create_empty()


def _parts(stream: Iterable[tuple[bytes, bytes]]) -> Iterator[pl.DataFrame]:
    block, size = list[tuple[bytes, bytes]](), 0
    for tag, text in stream:
        block.append((tag, text))
        size += len(text)
        if size >= _BLOCK or len(block) == _MOST_RECORDS:
            yield _table(block)
            block, size = [], 0
    if block:
        yield _table(block)


def _table(block: Sequence[tuple[bytes, bytes]]) -> pl.DataFrame:
    """The rows of these (tag, text): citations and, in their places, what is none or in quarantine."""
    texts, causes = [text for _, text in block], dict[int, str]()
    places = [place for place, (tag, _) in enumerate(block) if tag in _CITATIONS]
    columns, refused = citation_columns([texts[place] for place in places])
    parts = [_in_places(columns, places, refused)]
    if refused.any():
        plain = dict[int, bytes]()
        for place in compress(places, refused):
            try:
                plain[place] = plainly(texts[place])
            except etree.XMLSyntaxError as error:
                causes[place] = f"malformed XML: {error.msg}"
        if plain:
            columns, refused = citation_columns(list(plain.values()), known_good=True)
            parts.append(_in_places(columns, list(plain), refused))
            causes |= dict.fromkeys(compress(plain, refused), _TOO_MUCH)
    for part in parts:
        causes |= dict(part.filter(pl.col("cause").is_not_null()).select("place", "cause").iter_rows())
    others = [(place, _quarantined(texts[place], cause)) for place, cause in causes.items()]
    for place in set(range(len(block))).difference(places):
        others += ((place, row) for row in _others(*block[place]))
    if others:
        rows = pubmed_records(row for _, row in others)
        parts = [part.filter(pl.col("cause").is_null()) for part in parts]
        parts.append(_in_places(rows, [place for place, _ in others], np.zeros(rows.height, dtype=np.bool_)))
    table = parts[0] if len(parts) == 1 else pl.concat(parts).sort("place", maintain_order=True)
    return table.drop("place")


def _in_places(rows: pl.DataFrame, places: Sequence[int], refused: np.ndarray) -> pl.DataFrame:
    """`PubmedRecord` rows that were not refused, and their places in a block."""
    return rows.insert_column(0, pl.Series("place", places, dtype=pl.Int64)).remove(pl.Series(refused))


def _others(tag: bytes, text: bytes) -> Iterator[dict[str, Any]]:
    """Rows for what is no citation."""
    if tag == b"DeleteCitation":
        try:
            deleted = etree.fromstring(text, PARSER)
        except etree.XMLSyntaxError as error:
            yield _quarantined(text, f"malformed XML: {error.msg}")
            return
        for element in deleted:
            pmid = (element.text or "").strip()
            if element.tag == "PMID" and not len(element) and _PMID.fullmatch(pmid):
                version = element.get("Version", "").strip()
                yield {
                    "record": "deleted",
                    "pmid": int(pmid),
                    "version": int(version) if _VERSION.fullmatch(version) else None,
                }
            else:
                cause = f"DeleteCitation: the PMID is {pmid[:40]}, not a number of 1 to 8 digits"
                yield _quarantined(etree.tostring(element, encoding="utf-8", with_tail=False), cause)
    elif tag == b"PubmedBookArticle":
        yield _quarantined(text, "a book, not a journal citation")
    else:
        yield _quarantined(text, "this stands between records and is none")


def _quarantined(text: bytes, cause: str) -> dict[str, Any]:
    found = _PMID_IN_PIECES.search(text)
    return {
        "record": "quarantined",
        "pmid": int(found[1]) if found else None,
        "cause": cause,
        "raw": text.decode("utf-8", errors="replace"),
    }
