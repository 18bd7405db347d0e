"""Reads one of NLM's PubMed files: citations, deleted PMIDs, and the records that could not be read.

The decompressed stream is cut into records, and each is parsed by itself: no tree of the file stands in
memory, and a malformed record costs nothing but itself. No DTD is loaded, no entity resolved, no file or
address opened.
"""

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import chain
from typing import Any, BinaryIO, NamedTuple, cast

import polars as pl
from lxml import etree

from mkailin_assets.pubmed.tables import PubmedRecord

_RECORD_OF_ROOT = {b"PubmedArticleSet": b"PubmedArticle", b"MedlineCitationSet": b"MedlineCitation"}
_CHUNK = 1 << 20
_HEAD = 1 << 16
# Citations with thousands of authors stay below 4 MB; what never ends must not fill the memory.
_LONGEST_RECORD = 64 << 20
# Rows held as tuples: many would keep the garbage collector busy, which takes a quarter of the time.
_ROWS = 50
# Records held as Python strings, before they become columns of a table.
_BATCH = 8000

_SOLID = re.compile(rb"\S")
_ASIDE = re.compile(rb"<!--.*?-->|<\?.*?\?>", re.DOTALL)
# Atomic groups: without them a hostile prolog makes the search exponential.
_PROLOG = re.compile(
    rb"(?>\s|<!--.*?-->|<\?.*?\?>|<!DOCTYPE[^>\[]*>)*+(?P<tag><(?P<root>[A-Za-z_][\w.:-]*)[^>]*>)", re.DOTALL
)
_INTERNAL_SUBSET = re.compile(rb"<!DOCTYPE[^>\[]*\[")
_ENCODING = re.compile(rb"<\?xml[^>]*encoding\s*=\s*[\"']([^\"']*)")
# As NLM defines them: 1 to 8 digits, no leading zero.
_PMID = re.compile(r"[1-9][0-9]{0,7}")
_PMID_IN_PIECES = re.compile(rb"<MedlineCitation[^>]*>\s*<PMID[^>]*>\s*([1-9][0-9]{0,7})\s*</PMID>")
_VERSION = re.compile(r"[0-9]{1,4}")
_YEAR = re.compile(r"[12][0-9]{3}")
_EXPONENT = re.compile(r"[-+\u2013\u2212]?[0-9]")
_SPACES = re.compile(r"[ \t\r\n]+")

_PARSER = etree.XMLParser(
    resolve_entities=False,
    load_dtd=False,
    no_network=True,
    remove_comments=True,
    remove_pis=True,
    collect_ids=False,
)
_FIELDS = (
    "DescriptorName",
    "QualifierName",
    "AbstractText",
    "Keyword",
    "PublicationType",
    "CommentsCorrections",
    "Language",
    "ArticleTitle",
    "VernacularTitle",
    "PubDate",
    "Title",
    "MedlineTA",
    "ELocationID",
    "KeywordList",
    "OtherAbstract",
    "OtherID",
)


class UnreadablePubmedFile(ValueError):
    """The file as a whole is no intact PubMed file; nothing of it was loaded."""

    def __init__(self, name: str, cause: str) -> None:
        super().__init__(f"{name}: {cause}; nothing was loaded, materialize raw_pubmed to fetch it again")


class _Unusable(ValueError):
    """Why a well-formed record is no citation."""


class _Row(NamedTuple):
    """A row of `PubmedRecord`; a list of structs is a tuple of lists, one for each field."""

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


def read_pubmed_file(file: BinaryIO, name: str) -> pl.DataFrame:
    """The records of a PubMed file in file order, a `PubmedRecord` table; `name` is the file's key.

    `file` is seekable, gzipped or plain, with root PubmedArticleSet (DTD pubmed_250101 and earlier) or the
    older MedlineCitationSet. A record that cannot be read becomes a quarantined row with cause and raw text.
    Raises `UnreadablePubmedFile` for a file that is empty, truncated, corrupt, hostile or not from PubMed.
    """
    table = _Table(name)
    try:
        for tag, text in _records(_decompressed(file), name):
            table.add(_read(tag, text, table.height))
    except EOFError as error:
        raise UnreadablePubmedFile(name, "the gzip stream breaks off: the file is truncated") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UnreadablePubmedFile(name, f"the gzip stream is corrupt ({error})") from error
    return table.whole()


def _decompressed(file: BinaryIO) -> BinaryIO:
    zipped = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return cast(BinaryIO, gzip.GzipFile(fileobj=file)) if zipped else file


def _records(stream: BinaryIO, name: str) -> Iterator[tuple[bytes, bytes]]:
    """Cut what stands below the root into (tag, text); what is no record has an empty tag."""
    root, buffer = _after_root(stream, name)
    tags = _RECORD_OF_ROOT[root] + rb"|PubmedBookArticle|DeleteCitation"
    boundary = re.compile(rb"<(?:(" + tags + rb")(?=[\s/>])|/" + root + rb"\s*>)")
    at, final = 0, False
    while True:
        solid = _SOLID.search(buffer, at)
        at = solid.start() if solid else len(buffer)
        found = boundary.match(buffer, at)
        if found and not found[1]:
            break
        end = _end(buffer, at, found and found[1], boundary, final)
        if end is None:
            if final:
                raise UnreadablePubmedFile(name, f"it ends before </{root.decode()}>: the file is truncated")
            if len(buffer) - at > _LONGEST_RECORD:
                raise UnreadablePubmedFile(name, f"it has a record of more than {_LONGEST_RECORD >> 20} MB")
            chunk = stream.read(_CHUNK)
            buffer, at, final = buffer[at:] + chunk, 0, not chunk
            continue
        if found or not _ASIDE.match(buffer, at):
            yield found[1] if found else b"", buffer[at:end]
        at = end
    # Read on to the end: gzip verifies its checksum there.
    rest = buffer[found.end() :]
    while not rest.strip() and (rest := stream.read(_CHUNK)):
        pass
    if rest:
        raise UnreadablePubmedFile(name, f"something follows </{root.decode()}>: {rest.strip()[:40]!r}")


def _end(buffer: bytes, at: int, tag: bytes | None, boundary: re.Pattern[bytes], final: bool) -> int | None:
    """Where that which starts at `at` ends; None while the buffer does not say.

    A record that lacks its end tag is cut where the next begins, so that the next is not lost with it.
    """
    if tag:
        closing = b"</" + tag + b">"
        if (end := buffer.find(closing, at)) >= 0:
            following = buffer.find(b"<" + tag, at + 1, end)
            return end + len(closing) if following < 0 else following
        if not final:
            return None
    elif aside := _ASIDE.match(buffer, at):
        return aside.end()
    elif buffer.startswith((b"<!--", b"<?"), at) and not final:
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
    if root not in _RECORD_OF_ROOT:
        raise UnreadablePubmedFile(name, f"its root is {root.decode()}, not PubmedArticleSet: no PubMed file")
    if declared and declared[1].lower() not in (b"utf-8", b"us-ascii"):
        raise UnreadablePubmedFile(name, f"its encoding is {declared[1].decode()}, PubMed's is UTF-8")
    if start["tag"].endswith(b"/>"):
        return root, b"</" + root + b">" + head[start.end() :]
    return root, head[start.end() :]


def _read(tag: bytes, text: bytes, position: int) -> list[_Row]:
    try:
        if not tag:
            raise _Unusable("this stands between records and is none")
        element = etree.fromstring(text, _PARSER)
        match tag:
            case b"DeleteCitation":
                return [_deleted(pmid, position + n) for n, pmid in enumerate(element)]
            case b"PubmedBookArticle":
                raise _Unusable("a book, not a journal citation")
            case _:
                return [_citation(element, position)]
    except (etree.XMLSyntaxError, _Unusable) as error:
        cause = f"malformed XML: {error.msg}" if isinstance(error, etree.XMLSyntaxError) else str(error)
        pmid = _PMID_IN_PIECES.search(text)
        return [
            _Row(
                "quarantined",
                position,
                pmid=int(pmid[1]) if pmid else None,
                cause=cause,
                raw=text.decode("utf-8", errors="replace"),
            )
        ]


def _deleted(element: etree._Element, position: int) -> _Row:
    try:
        return _Row("deleted", position, pmid=_pmid(element), version=_version(element))
    except _Unusable as error:
        raw = etree.tostring(element, encoding="unicode", with_tail=False)
        return _Row("quarantined", position, cause=f"DeleteCitation: {error}", raw=raw)


def _citation(record: etree._Element, position: int) -> _Row:  # noqa: PLR0912, PLR0915 - one pass over the fields
    is_citation = record.tag == "MedlineCitation"
    citation = record if is_citation else next(record.iterchildren("MedlineCitation"), None)
    if citation is None:
        raise _Unusable("no MedlineCitation")
    # Directly below: other PMIDs stand in CommentsCorrections.
    identifier = next(citation.iterchildren("PMID"), None)
    if identifier is None:
        raise _Unusable("no PMID")
    pmid = _pmid(identifier)
    title = vernacular_title = year = journal = abbreviation = doi = pmc = None
    labels, categories, sections = list[str | None](), list[str | None](), list[str]()
    uis, names, majors, qualifiers = list[str | None](), list[str](), list[bool](), list[Sequence[str]]()
    type_uis, types = list[str | None](), list[str]()
    links, linked = list[str](), list[int | None]()
    languages, keywords = list[str](), list[str]()
    by_authors = other_abstract = False
    for element in citation.iter(*_FIELDS):
        tag = element.tag
        if tag == "DescriptorName":
            uis.append(element.get("UI"))
            names.append(element.text or "")
            majors.append(element.get("MajorTopicYN") == "Y")
            qualifiers.append(())
        elif tag == "QualifierName":
            if not names:
                raise _Unusable("a QualifierName without DescriptorName")
            qualifiers[-1] = (*qualifiers[-1], element.text or "")
            if element.get("MajorTopicYN") == "Y":
                majors[-1] = True
        elif tag == "AbstractText":
            if not other_abstract and (section := _text(element)):
                labels.append(element.get("Label") or None)
                categories.append(element.get("NlmCategory") or None)
                sections.append(section)
        elif tag == "Keyword":
            if by_authors and (keyword := _text(element)):
                keywords.append(keyword)
        elif tag == "PublicationType":
            type_uis.append(element.get("UI"))
            types.append(element.text or "")
        elif tag == "CommentsCorrections":
            for kind, pmid_of_other in _links(element):
                links.append(kind)
                linked.append(pmid_of_other)
        elif tag == "Language":
            languages.append(element.text or "")
        elif tag == "ArticleTitle":
            title = _text(element) or None
        elif tag == "VernacularTitle":
            vernacular_title = _text(element) or None
        elif tag == "PubDate":
            year = _year(element)
        elif tag == "Title":
            journal = _text(element) or None
        elif tag == "MedlineTA":
            abbreviation = _text(element) or None
        elif tag == "ELocationID":
            if element.get("EIdType") == "doi" and element.get("ValidYN", "Y") == "Y":
                doi = doi or _text(element)
        elif tag == "KeywordList":
            by_authors = element.get("Owner") == "NOTNLM"
        elif tag == "OtherAbstract":
            other_abstract = True
        elif element.get("Source") == "NLM" and (other_id := _text(element)).startswith("PMC"):
            pmc = other_id  # OtherID: where PubMed Central's identifier stood until 2016
    if title is None and vernacular_title is None:
        raise _Unusable("no title")
    # Only below PubmedData: references have identifiers, too.
    for data in record.iterchildren("PubmedData"):
        for identifiers in data.iterchildren("ArticleIdList"):
            for article_id in identifiers:
                kind = article_id.get("IdType")
                if kind == "doi":
                    doi = doi or _text(article_id)
                elif kind == "pmc":
                    pmc = pmc or _text(article_id)
    return _Row(
        "citation",
        position,
        pmid,
        _version(identifier),
        citation.get("Status"),
        title,
        vernacular_title,
        (labels, categories, sections),
        languages,
        (type_uis, types),
        year,
        journal or abbreviation,
        (uis, names, majors, qualifiers),
        keywords,
        doi or None,
        pmc or None,
        (links, linked),
        "RetractionIn" in links or "Retracted Publication" in types,
        _content_hash(
            (title,), labels, categories, sections, type_uis, types, uis, names, majors, qualifiers
        ),
    )


def _pmid(element: etree._Element) -> int:
    text = (element.text or "").strip()
    if not _PMID.fullmatch(text):
        raise _Unusable(f"the PMID is {text[:40]!r}, not a number of 1 to 8 digits")
    return int(text)


def _version(element: etree._Element) -> int | None:
    text = element.get("Version", "")
    return int(text) if _VERSION.fullmatch(text) else None


def _year(date: etree._Element) -> int | None:
    """Of Year, or of MedlineDate (`1998 Dec-1999 Jan`) the first."""
    for part in date.iterchildren("Year", "MedlineDate"):
        if found := _YEAR.search(part.text or ""):
            return int(found[0])
    return None


def _links(element: etree._Element) -> Iterator[tuple[str, int | None]]:
    ref_type = element.get("RefType")
    # Until 2008 the kind of link was an element below, not an attribute.
    for kind, holder in [(ref_type, element)] if ref_type else [(str(below.tag), below) for below in element]:
        text = (holder.findtext("PMID") or "").strip()
        yield kind, int(text) if _PMID.fullmatch(text) else None


def _text(element: etree._Element) -> str:
    """Text of an element with its markup made readable, white space tidied."""
    text = _mixed(element) if len(element) else element.text or ""
    if "\n" in text or "  " in text or "\t" in text:
        text = _SPACES.sub(" ", text)
    return text.strip()


def _mixed(element: etree._Element) -> str:
    text = element.text or ""
    for child in element:
        tag = etree.QName(child).localname
        if tag == "math":
            text += _formula(child)
        else:
            inner = _mixed(child)
            # 10<sup>-6</sup> must not read as 10-6.
            power = tag == "sup" and text[-1:].isdigit() and _EXPONENT.match(inner)
            text += f"^{inner}" if power else inner
        text += child.tail or ""
    return text


def _formula(element: etree._Element) -> str:  # noqa: PLR0911 - a return for each kind of formula
    """MathML in one line of text: fractions with /, powers with ^, prescripts before their base."""
    parts = [_formula(child) for child in element]
    tag = etree.QName(element).localname
    if not parts:
        return element.text or "" if tag == "mtext" else (element.text or "").strip()
    if tag == "mfrac":
        return "/".join(parts)
    if tag == "msup":
        return "^".join(parts)
    if tag == "msubsup":
        return "".join(parts[:2]) + "^" + "".join(parts[2:])
    if tag == "msqrt":
        return f"√({''.join(parts)})"
    if tag == "semantics":
        return parts[0]
    if tag == "mmultiscripts":
        kinds = [etree.QName(child).localname for child in element]
        middle = kinds.index("mprescripts") if "mprescripts" in kinds else len(parts)
        return "".join(parts[middle + 1 :]) + "".join(parts[:middle])
    return "".join(parts)


def _content_hash(*columns: Sequence[object]) -> str:
    """64 bits of BLAKE2b. The separators cannot occur in XML, so different contents are different texts."""
    content = "\x1d".join("\x1e".join(map(str, column)) for column in columns)
    return blake2b(content.encode(), digest_size=8).hexdigest()


class _Table:
    """Rows on their way into a polars table."""

    def __init__(self, name: str) -> None:
        self.height = 0
        self._name = name
        self._rows: list[_Row] = []
        self._parts: list[pl.DataFrame] = [PubmedRecord.create_empty()]
        self._columns = self._empty_columns()

    def add(self, rows: Sequence[_Row]) -> None:
        self._rows += rows
        self.height += len(rows)
        if len(self._rows) >= _ROWS:
            self._flatten()
        if len(self._columns["record"].values) >= _BATCH:
            self._finish_part()

    def whole(self) -> pl.DataFrame:
        self._flatten()
        self._finish_part()
        return pl.concat(self._parts, rechunk=True)

    def _flatten(self) -> None:
        for column, values in zip(self._columns.values(), zip(*self._rows, strict=True), strict=False):
            column.extend(values)
        self._rows.clear()

    def _finish_part(self) -> None:
        part = pl.DataFrame({name: column.series() for name, column in self._columns.items()})
        self._parts.append(part.select(pl.lit(self._name).alias("pubmed_file"), pl.all()).select(self._parts[0].columns))
        self._columns = self._empty_columns()

    def _empty_columns(self) -> "dict[str, _Column]":
        types = self._parts[0].schema
        return {name: _Column(types[name]) for name in _Row._fields}


class _Column:
    """A column kept flat, lists as their lengths and their items: given nested values polars takes far longer."""

    def __init__(self, dtype: Any) -> None:
        self._dtype = dtype
        self.values: list[Any] = []
        self._fields: list[_Column] = []
        if isinstance(dtype, pl.List):
            inner = dtype.inner
            self._fields = [_Column(f.dtype) for f in inner.fields] if isinstance(inner, pl.Struct) else [_Column(inner)]

    def extend(self, values: Sequence[Any]) -> None:
        if not isinstance(self._dtype, pl.List):
            self.values += values
        elif isinstance(self._dtype.inner, pl.Struct):
            self.values += [len(value[0]) for value in values]
            for field, column in zip(self._fields, zip(*values, strict=True), strict=False):
                field.extend(list(chain.from_iterable(column)))
        else:
            self.values += map(len, values)
            self._fields[0].extend(list(chain.from_iterable(values)))

    def series(self) -> pl.Series:
        if not isinstance(self._dtype, pl.List):
            return pl.Series(self.values, dtype=self._dtype)
        items = [field.series() for field in self._fields]
        if isinstance(self._dtype.inner, pl.Struct):
            names = [field.name for field in self._dtype.inner.fields]
            item = pl.DataFrame(dict(zip(names, items, strict=True))).to_struct()
        else:
            item = items[0]
        every = pl.DataFrame({"row": pl.int_range(len(self.values), eager=True), "count": self.values})
        filled = every.filter(pl.col("count") > 0).select(pl.col("row").repeat_by("count").explode())
        lists = filled.with_columns(item=item).group_by("row", maintain_order=True).agg("item")
        joined = every.join(lists, on="row", how="left", maintain_order="left")["item"]
        return joined.fill_null(pl.Series([[]], dtype=self._dtype))
