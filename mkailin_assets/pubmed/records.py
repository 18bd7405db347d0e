"""Cuts a PubMed file into its records while it is decompressed: the whole is never in memory."""

import gzip
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from isal import igzip, isal_zlib

RECORD_OF_ROOT = {b"PubmedArticleSet": b"PubmedArticle", b"MedlineCitationSet": b"MedlineCitation"}
_CHUNK = 1 << 20
_HEAD = 1 << 16
# Citations with thousands of authors stay below 4 MB; what never ends must not fill the memory.
_LONGEST_RECORD = 64 << 20

_SOLID = re.compile(rb"\S")
_ASIDES = {b"<!--": b"-->", b"<?": b"?>"}
# Atomic groups: without them a hostile prolog makes the search exponential.
_PROLOG = re.compile(
    rb"(?>\s|<!--.*?-->|<\?.*?\?>|<!DOCTYPE[^<>\[]*>)*+(?P<tag><(?P<root>[A-Za-z_][\w.:-]*)[^<>]*>)",
    re.DOTALL,
)
_INTERNAL_SUBSET = re.compile(rb"<!DOCTYPE[^<>\[]*\[")
_ENCODING = re.compile(rb"<\?xml[^>]*encoding\s*=\s*[\"']([^\"']*)")


class UnreadablePubmedFile(ValueError):
    """The file as a whole is no intact PubMed file; nothing of it was loaded."""

    def __init__(self, name: str, cause: str) -> None:
        super().__init__(f"{name}: {cause}; nothing was loaded, materialize raw_pubmed to fetch it again")
        self.cause = cause


def records(file: BinaryIO, name: str) -> Iterator[tuple[bytes, bytes]]:
    """What stands below the root, in order, as (tag, text); what is no record has an empty tag.

    `file` is seekable, gzipped or plain. Whether a record is well-formed is not looked at. Raises
    `UnreadablePubmedFile`, also after the last record, so what was yielded must not be used before the end.
    """
    zipped = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    try:
        yield from _records(cast(BinaryIO, igzip.GzipFile(fileobj=file)) if zipped else file, name)
    except (EOFError, gzip.BadGzipFile, isal_zlib.error) as error:  # type: ignore[misc]  # says its stub
        raise UnreadablePubmedFile(name, _gzip_error(file)) from error


def _gzip_error(file: BinaryIO) -> str:
    """What is wrong with a gzip file; isal is fast, but calls truncated what has rubbish at its end."""
    file.seek(0)
    try:
        with gzip.GzipFile(fileobj=file) as stream:
            while stream.read(_CHUNK):
                pass
    except (gzip.BadGzipFile, zlib.error) as error:
        return f"the gzip stream is corrupt ({error})"
    except EOFError:
        pass
    return "the gzip stream breaks off: the file is truncated"


def _records(stream: BinaryIO, name: str) -> Iterator[tuple[bytes, bytes]]:
    root, buffer = _after_root(stream, name)
    tags = (RECORD_OF_ROOT[root], b"PubmedBookArticle", b"DeleteCitation")
    opening = rb"<(%s)(?=[\s/>])" % b"|".join(tags)
    boundary = re.compile(rb"%s|</%s\s*>" % (opening, root))
    # A record that lacks its end tag ends where the next begins, so that the next is not lost with it.
    ends = {tag: re.compile(rb"</%s\s*>|%s" % (tag, opening)) for tag in tags}
    at, final = 0, False
    while True:
        solid = _SOLID.search(buffer, at)
        at = solid.start() if solid else len(buffer)
        found = boundary.match(buffer, at)
        if found and not found[1]:
            break
        end = _end(buffer, at, ends[found[1]] if found else None, boundary, final)
        if end is None:
            if final:
                raise UnreadablePubmedFile(name, f"it ends before </{root.decode()}>: the file is truncated")
            if len(buffer) - at > _LONGEST_RECORD:
                raise UnreadablePubmedFile(name, f"it has a record of more than {_LONGEST_RECORD >> 20} MB")
            chunk = stream.read(_CHUNK)
            buffer, at, final = buffer[at:] + chunk, 0, not chunk
            continue
        # A comment is no record; but one that begins by damage may go on over whole records.
        if not buffer.startswith(tuple(_ASIDES), at) or buffer.find(b"<PMID", at, end) >= 0:
            yield found[1] if found else b"", buffer[at:end]
        at = end
    # Read on to the end: gzip verifies its checksum there.
    rest = buffer[found.end() :]
    while not rest.strip() and (rest := stream.read(_CHUNK)):
        pass
    if rest:
        raise UnreadablePubmedFile(name, f"something follows </{root.decode()}>: {rest.strip()[:40]!r}")


def _end(
    buffer: bytes, at: int, record_end: re.Pattern[bytes] | None, boundary: re.Pattern[bytes], final: bool
) -> int | None:
    """Where that which starts at `at` ends; None while the buffer does not say."""
    for opening, closing in _ASIDES.items():
        if buffer.startswith(opening, at):
            end = buffer.find(closing, at + len(opening))
            return None if end < 0 else end + len(closing)
    if record_end:
        if found := record_end.search(buffer, at + 1):
            return found.start() if found[1] else found.end()
        if not final:
            return None
    next_one = boundary.search(buffer, at + 1)
    return next_one.start() if next_one else None


def _after_root(stream: BinaryIO, name: str) -> tuple[bytes, bytes]:
    """The root's name, and what was read beyond its start tag; refuses what is no PubMed file."""
    head = stream.read(_HEAD).removeprefix(b"\xef\xbb\xbf")
    if not head.strip():
        raise UnreadablePubmedFile(name, "the file is empty")
    if _INTERNAL_SUBSET.search(head):
        raise UnreadablePubmedFile(name, "its DOCTYPE has an internal subset, which could declare entities")
    start = _PROLOG.match(head)
    if start is None:
        raise UnreadablePubmedFile(name, f"it is not XML, it begins with {head[:40]!r}")
    root, declared = start["root"], _ENCODING.match(head)
    if root.lower() == b"html":
        raise UnreadablePubmedFile(name, "it is an HTML page, not PubMed's data")
    if root not in RECORD_OF_ROOT:
        raise UnreadablePubmedFile(name, f"its root is {root.decode()}, not PubmedArticleSet: no PubMed file")
    if declared and declared[1].lower() not in (b"utf-8", b"us-ascii"):
        raise UnreadablePubmedFile(name, f"its encoding is {declared[1].decode()}, PubMed's is UTF-8")
    if start["tag"].endswith(b"/>"):
        return root, b"</" + root + b">" + head[start.end() :]
    return root, head[start.end() :]
