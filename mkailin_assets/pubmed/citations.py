"""Reads one of NLM's PubMed files: citations, deleted PMIDs, and the records that could not be read.

Each record is parsed by itself, so a malformed one costs nothing but itself. No DTD is loaded, no entity
resolved, no file or address opened.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import BinaryIO

import polars as pl
from lxml import etree

from mkailin_assets.pubmed.columns import RecordTable, Row
from mkailin_assets.pubmed.markup import readable
from mkailin_assets.pubmed.records import records

# As NLM defines them: 1 to 8 digits, no leading zero.
_PMID = re.compile(r"[1-9][0-9]{0,7}")
_PMID_IN_PIECES = re.compile(rb"<MedlineCitation[^>]*>\s*<PMID[^>]*>\s*([1-9][0-9]{0,7})\s*</PMID>")
_VERSION = re.compile(r"[0-9]{1,4}")
_YEAR = re.compile(r"[12][0-9]{3}")
_PARSER = etree.XMLParser(
    resolve_entities=False,
    load_dtd=False,
    no_network=True,
    remove_comments=True,
    remove_pis=True,
    collect_ids=False,
)
# In the order of the DTD.
_UNREAD = (
    (b"<AuthorList", b"</AuthorList>"),
    (b"<History>", b"</History>"),
    (b"<ReferenceList>", b"</ReferenceList>"),
)
_ENTITIES = (b"&amp;", b"&lt;", b"&gt;")
# ASCII without markup, quotes and control characters: its bytes are what a parser makes of them.
_PLAIN = rb"[ !#-%'-;=?-~]"
_DESCRIPTOR = re.compile(
    rb'\s*<MeshHeading>\s*<DescriptorName UI="(%b*)" MajorTopicYN="([YN])"(?: Type="%b*")?>(%b*)'
    % (_PLAIN, _PLAIN, _PLAIN)
)
_QUALIFIER = re.compile(rb'\s*<QualifierName UI="%b*" MajorTopicYN="([YN])">(%b*)' % (_PLAIN, _PLAIN))
_TYPE = re.compile(rb'\s*<PublicationType UI="(%b*)">(%b*)' % (_PLAIN, _PLAIN))
# A file has some 80,000 different headings, of 30,000 descriptors and a few qualifiers.
_CACHED = 1 << 17
_NO_HEADINGS: list[tuple[()]] = [(), (), (), ()]
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


class _Unusable(ValueError):
    """Why a well-formed record is no citation."""


# UI, name, major, qualifiers, and what of it enters the content hash. A plain tuple, which the garbage
# collector learns to leave alone; there are very many.
_Heading = tuple[str | None, str, bool, tuple[str, ...], str]
# UIs and names of publication types.
_Types = tuple[tuple[str | None, ...], tuple[str, ...]]
_NO_TYPES: _Types = ((), ())


def read_pubmed_file(file: BinaryIO, name: str) -> pl.DataFrame:
    """The records of a PubMed file in file order, a `PubmedRecord` table; `name` is the file's key.

    `file` is seekable, gzipped or plain, with root PubmedArticleSet (DTD pubmed_250101 and earlier) or the
    older MedlineCitationSet. A record that cannot be read becomes a quarantined row with cause and raw text.
    Raises `UnreadablePubmedFile` for a file that is empty, truncated, corrupt, hostile or not from PubMed.
    Memory is that of the table and a few thousand records.
    """
    table = RecordTable(name)
    for tag, text in records(file, name):
        table.add(_rows(tag, text, table.height))
    return table.frame()


def _rows(tag: bytes, text: bytes, position: int) -> list[Row]:
    try:
        match tag:
            case b"":
                raise _Unusable("this stands between records and is none")
            case b"PubmedBookArticle":
                raise _Unusable("a book, not a journal citation")
            case b"DeleteCitation":
                deleted = etree.fromstring(text, _PARSER)
                return [_deleted(element, position + n) for n, element in enumerate(deleted)]
            case _:
                return [_citation(position, *_parsed(text))]
    except (etree.XMLSyntaxError, _Unusable) as error:
        cause = f"malformed XML: {error.msg}" if isinstance(error, etree.XMLSyntaxError) else str(error)
        found = _PMID_IN_PIECES.search(text)
        pmid = int(found[1]) if found else None
        raw = text.decode("utf-8", errors="replace")
        return [Row("quarantined", position, pmid=pmid, cause=cause, raw=raw)]


def _parsed(text: bytes) -> tuple[etree._Element, list[_Heading], _Types]:
    """The record as a tree, without its headings and types if they could be taken out before.

    Half of a recent file is authors, dates and references, which nobody reads here, and half of the rest are
    headings, the same ones again and again: parsing only what is left takes a third of the time.
    """
    # Looking for one byte first is many times faster.
    if not (b"!" in text and b"<!" in text) and not (b"?" in text and b"<?" in text):
        headings, rest = _without_headings(_without_unread(text))
        types, rest = _without_types(rest)
        try:
            return etree.fromstring(rest, _PARSER), headings, types
        except etree.XMLSyntaxError:
            pass  # the whole record says where it is malformed
    return etree.fromstring(text, _PARSER), [], _NO_TYPES


def _without_unread(text: bytes) -> bytes:
    """Without author list, dates and references; what does not look well-formed stays, to be found out."""
    kept, at = [], 0
    for opening, closing in _UNREAD:
        start = text.find(opening, at)
        end = text.find(closing, start) if start >= 0 else -1
        if end >= 0 and _looks_well_formed(text[start : end + len(closing)]):
            kept.append(text[at:start])
            at = end + len(closing)
    return b"".join([*kept, text[at:]])


def _looks_well_formed(part: bytes) -> bool:
    surplus = part.count(b"<") - 2 * part.count(b"</")
    balanced = not surplus or surplus == part.count(b"/>")
    return balanced and (b"&" not in part or part.count(b"&") == sum(map(part.count, _ENTITIES)))


def _without_headings(text: bytes) -> tuple[list[_Heading], bytes]:
    """The headings and what is left; no headings and all of the text if they are not as NLM writes them."""
    before, opened, rest = text.partition(b"<MeshHeadingList>")
    listed, closed, after = rest.partition(b"</MeshHeadingList>")
    *each, end = listed.split(b"</MeshHeading>")
    if not opened or not closed or end.strip() or b"<MeshHeadingList" in after:
        return [], text
    try:
        return list(map(_heading, each)), before + after
    except (etree.XMLSyntaxError, _Unusable):
        return [], text


def _without_types(text: bytes) -> tuple[_Types, bytes]:
    """The publication types and what is left; no types and all of the text if not as NLM writes them."""
    before, opened, rest = text.partition(b"<PublicationTypeList>")
    listed, closed, after = rest.partition(b"</PublicationTypeList>")
    types = _listed_types(listed) if opened and closed else None
    if types is None or b"<PublicationType" in before or b"<PublicationType" in after:
        return _NO_TYPES, text
    return types, before + after


@lru_cache(maxsize=_CACHED)
def _listed_types(listed: bytes) -> _Types | None:
    """Few combinations of types make up most of a file."""
    *each, end = listed.split(b"</PublicationType>")
    plain = [found for found in map(_TYPE.fullmatch, each) if found]
    if end.strip() or len(plain) < len(each):
        return None
    return tuple(found[1].decode() for found in plain), tuple(found[2].decode() for found in plain)


@lru_cache(maxsize=_CACHED)
def _heading(start: bytes) -> _Heading:
    """A MeshHeading from its text, without its end tag."""
    descriptor, named, tail = start.partition(b"</DescriptorName>")
    *qualifiers, end = tail.split(b"</QualifierName>")
    if not named or end.strip():
        raise _Unusable("a MeshHeading of another form")
    ui, name, major = _descriptor(descriptor)
    if not qualifiers:
        return _finished(ui, name, major, ())
    if len(qualifiers) == 1:
        term, is_major = _qualifier(qualifiers[0])
        return _finished(ui, name, major or is_major, (term,))
    terms = [_qualifier(qualifier) for qualifier in qualifiers]
    return _finished(ui, name, major or any(is_major for _, is_major in terms), [term for term, _ in terms])


@lru_cache(maxsize=_CACHED)
def _descriptor(start: bytes) -> tuple[str | None, str, bool]:
    if plain := _DESCRIPTOR.fullmatch(start):
        return plain[1].decode(), plain[3].decode(), plain[2] == b"Y"
    heading = etree.fromstring(start + b"</DescriptorName></MeshHeading>", _PARSER)
    if heading.tag != "MeshHeading" or len(heading) != 1:
        raise _Unusable("a MeshHeading of another form")
    return _term(heading[0], "DescriptorName")


@lru_cache(maxsize=_CACHED)
def _qualifier(start: bytes) -> tuple[str, bool]:
    if plain := _QUALIFIER.fullmatch(start):
        return plain[2].decode(), plain[1] == b"Y"
    return _term(etree.fromstring(start + b"</QualifierName>", _PARSER), "QualifierName")[1:]


def _term(element: etree._Element, tag: str) -> tuple[str | None, str, bool]:
    if element.tag != tag or len(element):
        raise _Unusable(f"a {tag} of another form")
    return element.get("UI"), element.text or "", element.get("MajorTopicYN") == "Y"


def _finished(ui: str | None, name: str, major: bool, qualifiers: Sequence[str]) -> _Heading:
    return ui, name, major, tuple(qualifiers), "\x1f".join((f"{ui}", name, f"{major}", *qualifiers))


def _qualified(headings: list[_Heading], qualifier: str, major: bool) -> _Heading:
    if not headings:
        raise _Unusable("a QualifierName without DescriptorName")
    ui, name, was_major, others, _ = headings.pop()
    return _finished(ui, name, was_major or major, (*others, qualifier))


def _deleted(element: etree._Element, position: int) -> Row:
    try:
        return Row("deleted", position, pmid=_pmid(element), version=_version(element))
    except _Unusable as error:
        raw = etree.tostring(element, encoding="unicode", with_tail=False)
        return Row("quarantined", position, cause=f"DeleteCitation: {error}", raw=raw)


def _citation(  # noqa: PLR0912, PLR0915
    position: int, record: etree._Element, headings: list[_Heading], listed_types: _Types = _NO_TYPES
) -> Row:
    """One pass over the fields of a citation, in the order they stand there."""
    is_citation = record.tag == "MedlineCitation"
    citation = record if is_citation else next(record.iterchildren("MedlineCitation"), None)
    if citation is None:
        raise _Unusable("no MedlineCitation")
    # Directly below: other PMIDs stand in CommentsCorrections.
    identifier = next(citation.iterchildren("PMID"), None)
    if identifier is None:
        raise _Unusable("no PMID")
    title = vernacular_title = year = journal = abbreviation = doi = pmc = None
    labels, categories, sections = list[str | None](), list[str | None](), list[str]()
    type_uis, types = list(listed_types[0]), list(listed_types[1])
    links, linked = list[str](), list[int | None]()
    languages, keywords = list[str](), list[str]()
    by_authors = other_abstract = False
    for element in citation.iter(*_FIELDS):
        tag = element.tag
        if tag == "AbstractText":
            if not other_abstract and (section := readable(element)):
                labels.append(element.get("Label") or None)
                categories.append(element.get("NlmCategory") or None)
                sections.append(section)
        elif tag == "Keyword":
            if by_authors and (keyword := readable(element)):
                keywords.append(keyword)
        elif tag == "PublicationType":
            type_uis.append(element.get("UI"))
            types.append(element.text or "")
        elif tag == "Language":
            languages.append(element.text or "")
        elif tag == "ArticleTitle":
            title = readable(element) or None
        elif tag == "PubDate":
            year = _year(element)
        elif tag == "Title":
            journal = readable(element) or None
        elif tag == "MedlineTA":
            abbreviation = readable(element) or None
        elif tag == "ELocationID":
            if element.get("EIdType") == "doi" and element.get("ValidYN", "Y") == "Y":
                doi = doi or readable(element)
        elif tag == "KeywordList":
            by_authors = element.get("Owner") == "NOTNLM"
        elif tag == "DescriptorName":
            headings.append(_finished(*_term(element, "DescriptorName"), ()))
        elif tag == "QualifierName":
            headings.append(_qualified(headings, *_term(element, "QualifierName")[1:]))
        elif tag == "CommentsCorrections":
            for kind, pmid_of_other in _links(element):
                links.append(kind)
                linked.append(pmid_of_other)
        elif tag == "VernacularTitle":
            vernacular_title = readable(element) or None
        elif tag == "OtherAbstract":
            other_abstract = True
        elif element.get("Source") == "NLM" and (other_id := readable(element)).startswith("PMC"):
            pmc = other_id  # OtherID: where PubMed Central's identifier stood until 2016
    if title is None and vernacular_title is None:
        raise _Unusable("no title")
    # Only below PubmedData: references have identifiers, too.
    for data in record.iterchildren("PubmedData"):
        for identifiers in data.iterchildren("ArticleIdList"):
            for article_id in identifiers:
                kind = article_id.get("IdType", "")
                if kind == "doi":
                    doi = doi or readable(article_id)
                elif kind == "pmc":
                    pmc = pmc or readable(article_id)
    return Row(
        "citation",
        position,
        _pmid(identifier),
        _version(identifier),
        citation.get("Status"),
        title,
        vernacular_title,
        (labels, categories, sections),
        languages,
        (type_uis, types),
        year,
        journal or abbreviation,
        list(zip(*headings, strict=True)) or _NO_HEADINGS,
        keywords,
        doi or None,
        pmc or None,
        (links, linked),
        "RetractionIn" in links or "Retracted Publication" in types,
        _content_hash(title or "", zip(labels, categories, sections, strict=True), types, headings),
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
    """Of Year, or the first of MedlineDate (`1998 Dec-1999 Jan`): one of them stands first."""
    found = _YEAR.search(date[0].text or "") if len(date) else None
    return int(found[0]) if found else None


def _links(element: etree._Element) -> Iterator[tuple[str, int | None]]:
    ref_type = element.get("RefType")
    # Until 2008 the kind of link was an element below, not an attribute.
    for kind, holder in [(ref_type, element)] if ref_type else [(str(below.tag), below) for below in element]:
        text = (holder.findtext("PMID") or "").strip()
        yield kind, int(text) if _PMID.fullmatch(text) else None


def _content_hash(
    title: str,
    abstract: Iterable[tuple[str | None, str | None, str]],
    types: Iterable[str],
    headings: Iterable[_Heading],
) -> str:
    """64 bits of BLAKE2b. The separators cannot occur in XML, so different contents are different texts."""
    sections = "\x1e".join([f"{label}\x1f{category}\x1f{text}" for label, category, text in abstract])
    indexed = "\x1e".join([heading[-1] for heading in headings])
    content = "\x1d".join((title, sections, "\x1e".join(types), indexed))
    return blake2b(content.encode(), digest_size=8).hexdigest()
