"""Fuzzing the PubMed parser: every citation in every spelling, and real files that were damaged.

The suite tries a few hundred damages; `MKAILIN_FUZZ=200000 python -m pytest -n0 --timeout=0 -s
tests/test_pubmed_fuzz.py -k damaged` tries as many more, from seed `MKAILIN_FUZZ_SEED`.
"""

import gzip
import io
import os
import re
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import Bio.Entrez
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from lxml import etree
from pubmed_xml import HABITS, Spelling, article_set, citation, deletion

from mkailin_assets.pubmed.citations import read_pubmed_file
from mkailin_assets.pubmed.columns import citation_columns
from mkailin_assets.pubmed.elements import plainly
from mkailin_assets.pubmed.records import RECORD_OF_ROOT, UnreadablePubmedFile, records
from mkailin_assets.pubmed.tables import PubmedRecord

FUZZ = int(os.environ.get("MKAILIN_FUZZ", "600"))
SEED = int(os.environ.get("MKAILIN_FUZZ_SEED", "0"))


Row = dict[str, Any]


def read(content: bytes) -> pl.DataFrame:
    return PubmedRecord.validate(pl.concat(read_pubmed_file(io.BytesIO(content), "pubmed26n0001")))


# Every citation, in every spelling

CHARACTERS = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff")
AWKWARD = (
    *("<", ">", "&", '"', "'", "]]>", "]]", " ", "  ", "10^-6", "5^2", "1/2", "a^b", "^", "7", "12"),
    *("&amp;", "&lt;b&gt;", "&#10;", "<b>", "<sup>2</sup>", "</AbstractText>", "</PubmedArticle>"),
    *("<PubmedArticle>", "<!--", "-->", "<![CDATA[", "<?x", "</PubmedArticleSet>", "&nbsp;", "{}", "${1}"),
    *("é", "e\u0301", "\u05e9\u05dc\u05d5\u05dd", "\u202e", "\U0001d4b3", "\U0001f9ec", "\u00a0", "\u2028"),
    *("\u0085", "\u3000", "\u200b", "\ufeff", "\ufffd", "\U0010fffd", "\x7f", "x", "water", "A title."),
)
# As the parser leaves texts: no blanks around them, no line breaks within.
TEXT = (
    st.lists(st.one_of(st.sampled_from(AWKWARD), st.text(CHARACTERS, max_size=4)), min_size=1, max_size=6)
    .map(lambda parts: "".join(parts).strip(" "))
    .filter(bool)
)
MAYBE = st.none() | TEXT
PMID = st.integers(1, 99_999_999)
UI = st.none() | st.from_regex("[DQC][0-9]{6,9}", fullmatch=True)
VERSION = st.none() | st.integers(0, 2**31 - 1)
ORCID = st.none() | st.from_regex("[0-9]{4}-[0-9]{4}-[0-9]{4}-[0-9]{3}[0-9X]", fullmatch=True)
LINKS = ("RetractionIn", "RetractionOf", "ErratumIn", "CommentOn", "Cites", "UpdateIn")
LABELS = st.none() | st.sampled_from(["BACKGROUND", "METHODS", "UNASSIGNED"])


def struct(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(fields)


def some(items: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(items, max_size=3)


def dates(years: str) -> st.SearchStrategy[str]:
    return st.from_regex(f"{years}(-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?)?", fullmatch=True)


AUTHOR = {
    **dict.fromkeys(("last_name", "fore_name", "initials", "suffix", "collective_name"), st.none()),
    "orcid": ORCID,
    "affiliations": some(TEXT),
}
PUBLISHED = st.one_of(
    st.none().map(lambda _: {"published": None, "medline_date": None}),
    dates("[12][0-9]{3}").map(lambda date: {"published": date, "medline_date": None}),
    st.from_regex("[12][0-9]{3}", fullmatch=True).flatmap(
        lambda year: st.sampled_from(("Spring", f"{year} Dec-3001 Jan", f"Winter {year}")).map(
            lambda said: {"published": year, "medline_date": said}
        )
    ),
    st.just({"published": None, "medline_date": "Summer"}),
)
CITATION = st.builds(
    lambda row, published: _derived(row | published),
    struct(
        pmid=PMID,
        version=VERSION,
        status=st.sampled_from(["MEDLINE", "Publisher", "PubMed-not-MEDLINE"]),
        title=MAYBE,
        vernacular_title=MAYBE,
        abstract=some(struct(label=MAYBE, category=LABELS, text=TEXT)),
        other_abstracts=some(
            struct(
                type=st.sampled_from(["Publisher", "plain-language-summary"]),
                language=st.sampled_from(["spa", None]),
                label=MAYBE,
                category=LABELS,
                text=TEXT,
            )
        ),
        language=some(st.sampled_from(["eng", "spa", "chi"])),
        publication_types=some(struct(ui=UI, name=TEXT | st.just("Retracted Publication"))),
        electronic=st.none() | dates("[0-9]{4}"),
        completed=st.none() | dates("[0-9]{4}"),
        revised=st.none() | dates("[0-9]{4}"),
        journal=MAYBE,
        journal_abbreviation=MAYBE,
        nlm_unique_id=MAYBE,
        issn=MAYBE,
        volume=MAYBE,
        issue=MAYBE,
        pages=MAYBE,
        authors=some(
            st.fixed_dictionaries(
                AUTHOR | {"last_name": TEXT, "fore_name": MAYBE, "initials": MAYBE, "suffix": MAYBE}
            )
            | st.fixed_dictionaries(AUTHOR | {"collective_name": TEXT})
        ),
        grants=some(struct(id=MAYBE, agency=MAYBE, country=MAYBE)),
        chemicals=some(struct(ui=UI, registry_number=MAYBE, name=TEXT)),
        headings=some(struct(ui=UI, name=TEXT, major=st.booleans(), qualifiers=some(TEXT))),
        keywords=some(TEXT),
        doi=MAYBE,
        pmc=st.none() | st.from_regex("PMC[0-9]{1,8}", fullmatch=True),
        comments_corrections=some(
            struct(ref_type=st.sampled_from(LINKS), pmid=st.none() | PMID, source=MAYBE)
        ),
    ),
    PUBLISHED,
)
SPELLING = st.builds(Spelling, st.sets(st.sampled_from(HABITS)), st.integers(0, 2**32))
PLAIN = Spelling()
TRIED = settings(
    max_examples=max(40, FUZZ // 100),
    deadline=None,
    database=None,
    derandomize=not SEED,
    phases=(Phase.generate,),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def _derived(row: dict[str, Any]) -> dict[str, Any]:
    """The rest of a row, from what it says."""
    if row["title"] is None and row["vernacular_title"] is None:
        row["title"] = "A title."
    if row["journal"] is None:
        row["journal"] = row["journal_abbreviation"]
    retracted = any(link["ref_type"] == "RetractionIn" for link in row["comments_corrections"])
    retracted |= any(kind["name"] == "Retracted Publication" for kind in row["publication_types"])
    year = int(row["published"][:4]) if row["published"] else None
    return {"record": "citation", **row, "retracted": retracted, "year": year, "cause": None, "raw": None}


def assert_reads_as(content: bytes, rows: Sequence[Row]) -> None:
    """Field by field, in this order; a citation's hash is the same however it is written."""
    table = read(content)
    assert table["position"].to_list() == list(range(len(rows)))
    for found, row in zip(table.iter_rows(named=True), rows, strict=True):
        assert {name: found[name] for name in row} == row
    hashes = table.filter(record="citation").group_by("pmid").agg(pl.col("content_hash").unique())
    assert hashes["content_hash"].list.len().eq(1).all()


@TRIED
@given(
    st.lists(CITATION, min_size=1, max_size=3, unique_by=lambda row: row["pmid"]),
    SPELLING,
    st.sampled_from(sorted(RECORD_OF_ROOT)),
)
def test_a_citation_reads_back_equal_however_it_is_spelled(
    rows: list[Row], spelling: Spelling, root: bytes
) -> None:
    plain = [citation(row, PLAIN, root.decode()) for row in rows]
    assert not citation_columns([text.encode() for text in plain])[1].any(), (
        "the scanner reads what NLM writes"
    )
    spelled = [citation(row, spelling, root.decode()) for row in rows]
    assert_reads_as(article_set([*plain, *spelled], spelling, root.decode()), [*rows, *rows])


def _replaced(old: str, new: str) -> Callable[[Row, Spelling], str]:
    return lambda row, spelling: citation(row, spelling).replace(old, new, 1)


def _saying(**fields: Any) -> Callable[[Row, Spelling], str]:
    return lambda row, spelling: citation({**row, **fields}, spelling)


BROKEN = (
    (_replaced("</MedlineCitation", "</Medline"), "malformed XML"),
    (_replaced("</Pubmed", "&</Pubmed"), "malformed XML"),
    (_replaced("</PubmedData", ""), "malformed XML"),
    (_replaced("<Pubmed", "<Pubmede"), "between records"),
    (lambda row, spelling: citation(row, spelling)[:-40], "malformed XML"),
    (_saying(pmid=0), "the PMID is 0, not a number"),
    (_saying(title=None, vernacular_title=None), "no title"),
)


@TRIED
@given(st.lists(CITATION, min_size=2, max_size=4), st.sampled_from(BROKEN), st.data())
def test_a_broken_citation_among_others_is_quarantined_alone(
    rows: list[Row], broken: tuple[Callable[[Row, Spelling], str], str], data: st.DataObject
) -> None:
    spelling, place = data.draw(SPELLING), data.draw(st.integers(0, len(rows) - 1))
    breaks, cause = broken
    texts = [(breaks if n == place else citation)(row, spelling) for n, row in enumerate(rows)]
    deleted = [{"record": "deleted", "pmid": pmid, "version": 1} for pmid in data.draw(some(PMID))]
    content = article_set([*texts, deletion(deleted, spelling)], spelling)
    table = read(content)
    assert table["record"].to_list() == [
        *("quarantined" if n == place else "citation" for n in range(len(rows))),
        *("deleted" for _ in deleted),
    ]
    assert cause in table["cause"][place]
    assert table["raw"][place].rstrip().startswith(texts[place].rstrip())
    expected = [row for n, row in enumerate(rows) if n != place] + deleted
    for found, row in zip(
        table.filter(pl.col("cause").is_null()).iter_rows(named=True), expected, strict=True
    ):
        assert {name: found[name] for name in row} == row


def test_the_writer_orders_elements_as_the_dtd_does() -> None:
    names = dict.fromkeys(("last_name", "fore_name", "initials", "suffix"), "Nobody")
    row = _derived(
        {
            **dict.fromkeys(
                ("title", "vernacular_title", "journal", "journal_abbreviation"), "10^6 a/b, a^b"
            ),
            **dict.fromkeys(("nlm_unique_id", "issn", "volume", "issue", "pages", "doi", "pmc"), "PMC1"),
            **dict.fromkeys(("completed", "revised", "electronic", "published"), "1998-12-24"),
            "medline_date": None,
            "pmid": 7,
            "version": 1,
            "status": "MEDLINE",
            "abstract": [{"label": "A", "category": "METHODS", "text": "10^6 a/b"}],
            "other_abstracts": [
                {"type": "Publisher", "language": "spa", "label": "A", "category": None, "text": "x"}
            ],
            "language": ["eng"],
            "publication_types": [{"ui": "D016428", "name": "Journal Article"}],
            "authors": [
                {
                    **names,
                    "collective_name": None,
                    "orcid": "0000-0002-1825-0097",
                    "affiliations": ["A", "B"],
                },
                {**dict.fromkeys(names), "collective_name": "We", "orcid": None, "affiliations": []},
            ],
            "grants": [{"id": "1", "agency": "A", "country": "Peru"}],
            "chemicals": [{"ui": "D1", "registry_number": "0", "name": "Water"}],
            "headings": [{"ui": "D1", "name": "A", "major": True, "qualifiers": ["b"]}],
            "keywords": ["a"],
            "comments_corrections": [{"ref_type": "ErratumIn", "pmid": 9, "source": "x"}],
        }
    )
    dtd = etree.DTD(str(Path(Bio.Entrez.__file__).parent / "DTDs/pubmed_250101.dtd"))
    habits = set(HABITS) - {"old elements", "empty elements", "spaces around text", "formulas"}
    for spelling in (PLAIN, *(Spelling(habits, seed) for seed in range(20))):
        texts = [citation(row, spelling), deletion([row], spelling)]
        dtd.assertValid(etree.fromstring(article_set(texts, spelling)))


# Another reader, to compare with


def text_of(element: etree._Element | None) -> str | None:
    if element is None:
        return None
    return re.sub(r" *[\t\n\r][ \t\n\r]*", " ", "".join(element.itertext())).strip(" ") or None


def attribute_of(element: etree._Element | None, name: str) -> str | None:
    value = "" if element is None else element.get(name, "")
    return re.sub(r" *[\t\n\r][ \t\n\r]*", " ", value).strip(" ") or None


def reference(record: bytes) -> Row | None:
    """The main fields of a citation, read in the straightforward way; None for what is no citation.

    Of texts with markup the letters and digits; of those with formulas nothing (`...`).
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True)
    root = etree.fromstring(record, parser)
    for element in root.iter():  # names as they are written
        element.tag = etree.QName(element).localname if element.prefix is None else element.tag
    citations = [root] if root.tag == "MedlineCitation" else root.findall("MedlineCitation")
    if root.tag not in ("MedlineCitation", "PubmedArticle") or len(citations) != 1:
        return None
    of = citations[0]
    pmids, headings = of.findall("PMID"), of.findall("MeshHeadingList/MeshHeading")
    titles = [text_of(of.find(f"Article/{tag}")) for tag in ("ArticleTitle", "VernacularTitle")]
    if len(pmids) != 1 or not re.fullmatch("[1-9][0-9]{0,7}", text_of(pmids[0]) or "") or not any(titles):
        return None
    if not all(text_of(heading.find("DescriptorName")) for heading in headings):
        return None
    types, links = of.findall("Article/PublicationTypeList/PublicationType"), _links(of)
    return {
        "pmid": int(text_of(pmids[0]) or ""),
        "version": _number(pmids[0].get("Version")),
        "status": attribute_of(of, "Status"),
        "title": letters(of.find("Article/ArticleTitle")),
        "abstract": [
            (attribute_of(section, "Label"), attribute_of(section, "NlmCategory"), letters(section))
            for section in of.findall("Article/Abstract/AbstractText")
            if text_of(section)
        ],
        "language": [text_of(element) for element in of.findall("Article/Language") if text_of(element)],
        "publication_types": [(attribute_of(kind, "UI"), letters(kind)) for kind in types if text_of(kind)],
        "authors": [
            (letters(author.find("LastName")), letters(author.find("CollectiveName")))
            for author in of.findall("Article/AuthorList/Author")
        ],
        "chemicals": [
            (
                attribute_of(substance.find("NameOfSubstance"), "UI"),
                letters(substance.find("NameOfSubstance")),
            )
            for substance in of.findall("ChemicalList/Chemical")
        ],
        "headings": [
            (
                attribute_of(heading.find("DescriptorName"), "UI"),
                letters(heading.find("DescriptorName")),
                _is_major(heading),
                [letters(name) for name in heading.findall("QualifierName") if text_of(name)],
            )
            for heading in headings
        ],
        "comments_corrections": links,
        "volume": letters(of.find("Article/Journal/JournalIssue/Volume")),
        "nlm_unique_id": letters(of.find("MedlineJournalInfo/NlmUniqueID")),
    }


def _number(written: str | None) -> int | None:
    plain = (written or "").strip()
    return int(plain) if re.fullmatch("[0-9]{1,9}", plain) else None


def _is_major(heading: etree._Element) -> bool:
    named = [heading.find("DescriptorName"), *(q for q in heading.findall("QualifierName") if text_of(q))]
    return any(element.get("MajorTopicYN", "").strip(" ") == "Y" for element in named)


def _links(of: etree._Element) -> list[tuple[str, int | None]]:
    links = []
    for element in of.iterchildren("CommentsCorrectionsList", "CommentsCorrections"):
        for link in element:
            if element.tag == "CommentsCorrections":
                kind = str(link.tag)
            elif link.tag == "CommentsCorrections":
                kind = attribute_of(link, "RefType") or "unknown"
            else:
                continue
            pmid = text_of(link.find("PMID")) or ""
            links.append((kind, int(pmid) if re.fullmatch("[1-9][0-9]{0,7}", pmid) else None))
    return links


def letters(element: etree._Element | None) -> Any:
    """What of a text does not depend on how its markup is read: all of it, if there is none."""
    if element is None or not len(element):
        return text_of(element)
    if any(etree.QName(child).localname == "math" for child in element.iterdescendants()):
        return ...
    return (re.sub(r"[\s^]", "", text_of(element) or ""),) if text_of(element) else None


def assert_same_fields(row: Row, expected: Row) -> None:
    found = {
        **{name: row[name] for name in expected},
        "abstract": [tuple(section.values()) for section in row["abstract"]],
        "publication_types": [tuple(kind.values()) for kind in row["publication_types"]],
        "authors": [(author["last_name"], author["collective_name"]) for author in row["authors"]],
        "chemicals": [(substance["ui"], substance["name"]) for substance in row["chemicals"]],
        "headings": [tuple(heading.values()) for heading in row["headings"]],
        "comments_corrections": [(link["ref_type"], link["pmid"]) for link in row["comments_corrections"]],
    }
    for name in expected:
        assert _alike(found[name], expected[name]), (name, found[name], expected[name])


def _alike(found: Any, expected: Any) -> bool:
    if isinstance(expected, tuple) and isinstance(found, str):
        return bool(re.sub(r"[\s^]", "", found) == expected[0])
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(_alike, found, expected))
    return expected is ... or bool(found == expected)


def sources(real_data: Path) -> list[Path]:
    paths = [*real_data.glob("nlm/pubmed/*/*.xml.gz"), *real_data.glob("pubmed_format_samples/*")]
    return sorted(path for path in paths if path.suffix != ".md5")


def test_another_reader_finds_the_same_in_all_real_files(real_data: Path) -> None:
    for path in sources(real_data):
        content = path.read_bytes()
        texts = [
            text for tag, text in records(io.BytesIO(content), path.name) if tag in RECORD_OF_ROOT.values()
        ]
        rows = read(content).filter(record="citation").iter_rows(named=True)
        for text, row in zip(texts, rows, strict=True):
            expected = reference(text)
            assert expected is not None
            assert_same_fields(row, expected)


# Real files, damaged

TAG = re.compile(rb"</?[A-Za-z][^<>]*>")
INSERTED = (
    *(b"\0", b"\x01", b"\x0b", b"\x1b", b"\x7f", b" ", b"\t", b"\r\n", b"\xc2\xa0", b"\xe2\x80\xa8"),
    *(b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbf\xbe", b"\xf4\x90\x80\x80"),
    *b"<!-- --> <!----> <![CDATA[ ]]> <![CDATA[x]]> <? ?> <?x?> < > </ /> \" ' = /".split(),
    *b"& &#0; &#xD800; &#xFFFE; &#1114112; &#x41; &nbsp; &lt &amp; &#13;".split(),
    *b"<PubmedArticle> </PubmedArticle> <PubmedArticle <DeleteCitation> <PubmedBookArticle>".split(),
    *b"<MedlineCitation> </MedlineCitation> </PubmedArticleSet> </MedlineCitationSet>".split(),
    *b"<PMID>1</PMID> <b> </b> <i/> <sup>2</sup> <text> <mml:math> <x:y/>".split(),
    *(b"<!DOCTYPE a>", b"<sup >3</sup>", b"<b x='1'>y</b>", b"<math><mi>x</mi></math>"),
    *(b' a="1"', b" a='1'", b' 1a="1"', b' Version="2"', b' xmlns="x"', b' xml:lang="&#9;"'),
    *(b"<b>" * 300, b"<b>" * 220 + b"</b>" * 220, b" " * 3000, b"9" * 5000),
    b"".join(b' a%d="1"' % n for n in range(14)),
)
ENTITY = re.compile(rb"&[^;<&]{1,10};")
ATTRIBUTE = re.compile(rb" \w+=\"[^<\"]*\"")
QUOTE = re.compile(rb"[\"']")


def damaged(text: bytes, others: Sequence[bytes], chance: Random) -> bytes:
    """A record with one or a few faults, or what may be one."""
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        text = chance.choice(DAMAGES)(text, others, chance)
    return text


def _span(text: bytes, chance: Random) -> tuple[int, int]:
    begin = chance.randint(0, len(text))
    return begin, min(len(text), begin + int(chance.choice((1, 3, 30, 1000)) * (chance.random() + 0.5)))


def _tag(text: bytes, chance: Random) -> tuple[int, int]:
    tags = list(TAG.finditer(text))
    return chance.choice(tags).span() if tags else _span(text, chance)


def _any(pattern: re.Pattern[bytes], text: bytes, chance: Random) -> tuple[int, int]:
    found = list(pattern.finditer(text))
    return chance.choice(found).span() if found else _span(text, chance)


def _flip(text: bytes, _: Sequence[bytes], chance: Random) -> bytes:
    begin = chance.randint(0, max(len(text) - 1, 0))
    return (
        text[:begin]
        + bytes(byte ^ 1 << chance.randrange(8) for byte in text[begin : begin + 1])
        + text[begin + 1 :]
    )


def _rewrite(text: bytes, _: Sequence[bytes], chance: Random) -> bytes:
    begin, end = _span(text, chance)
    return text[:begin] + chance.randbytes(min(end - begin, 4)) + text[end:]


def _delete(text: bytes, _: Sequence[bytes], chance: Random) -> bytes:
    begin, end = chance.choice((_span, _tag))(text, chance)
    return text[:begin] + text[end:]


def _duplicate(text: bytes, _: Sequence[bytes], chance: Random) -> bytes:
    begin, end = chance.choice((_span, _tag))(text, chance)
    return text[:end] + text[begin:]


def _insert(text: bytes, _: Sequence[bytes], chance: Random) -> bytes:
    begin, end = chance.choice((_span, _tag))(text, chance)
    place = chance.choice((begin, end, end - 1))
    return text[:place] + chance.choice(INSERTED) + text[place:]


def _swap(text: bytes, _: Sequence[bytes], chance: Random) -> bytes:
    (a, b), (c, d) = sorted((_tag(text, chance), _tag(text, chance)))
    return text if c < b else text[:a] + text[c:d] + text[b:c] + text[a:b] + text[d:]


def _cut(text: bytes, _: Sequence[bytes], chance: Random) -> bytes:
    begin = chance.randint(0, len(text))
    return chance.choice((text[:begin], text[begin:]))


def _splice(text: bytes, others: Sequence[bytes], chance: Random) -> bytes:
    other = chance.choice(others)
    (a, b), (c, d) = (sorted((_tag(of, chance)[0], _tag(of, chance)[0])) for of in (text, other))
    return text[:a] + other[c:d] + text[b:]


def _transplant(text: bytes, others: Sequence[bytes], chance: Random) -> bytes:
    """Some element of another record, at the place of one or beside it."""
    other = chance.choice(others)
    begin, end = _tag(other, chance)
    closing = b"</" + re.split(rb"[ />]", other[begin + 1 : end])[0] + b">"
    end = other.find(closing, end) + len(closing) or end
    a, b = _tag(text, chance)
    return text[:b] + other[begin:end] + text[chance.choice((a, b)) :]


def _rename(text: bytes, others: Sequence[bytes], chance: Random) -> bytes:
    tags = [*dict.fromkeys(re.findall(rb"</?([A-Za-z]+)", text)), b"b", b"x"]
    old, new = chance.choice(tags), chance.choice(tags)
    count = chance.choice((1, 2, 0))
    return re.sub(rb"(?<=[</])" + old + rb"(?=[ />])", new, text, count=count)


def _replace(text: bytes, _: Sequence[bytes], chance: Random) -> bytes:
    begin, end = _any(chance.choice((ENTITY, QUOTE, re.compile(rb">[^<>]+<"))), text, chance)
    new = chance.choice(
        (b"'", b'"', b"", b"&lt;", b"&quot;", b"&#38;", b"&amp;lt;", b"&foo;", b"> <", b"><", b">0<")
    )
    return text[:begin] + new + text[end:]


def _requote(text: bytes, _: Sequence[bytes], chance: Random) -> bytes:
    return re.sub(rb'([A-Za-z]+)="([^"\'<]*)"', rb"\1 = '\2'", text, count=chance.randint(1, 9))


def _reattribute(text: bytes, others: Sequence[bytes], chance: Random) -> bytes:
    """An attribute more or less, or misnamed."""
    begin, end = _any(ATTRIBUTE, text, chance)
    a, b = _any(ATTRIBUTE, chance.choice((text, *others[:9])), chance)
    old = text[begin:end]
    return text[:begin] + chance.choice((b"", old * 2, old + text[a:b], b" 1" + old[1:])) + text[end:]


DAMAGES = (
    *(_flip, _rewrite, _delete, _duplicate, _insert, _insert, _swap, _cut),
    *(_splice, _transplant, _rename, _replace, _requote, _reattribute),
)


def pool(real_data: Path) -> dict[bytes, list[bytes]]:
    """By root, records of files of every age; what has a comment of its own would blur the borders."""
    found: dict[bytes, list[bytes]] = {root: [] for root in RECORD_OF_ROOT}
    for path in sources(real_data):
        if path.stat().st_size < 420_000 or path.suffix == ".xml":
            content = path.read_bytes()
            texts = [text for _, text in records(io.BytesIO(content), path.name)]
            root = b"PubmedArticleSet" if b"<PubmedArticle>" in b"".join(texts) else b"MedlineCitationSet"
            found[root] += (text for text in texts if len(text) < 20_000 and b"<!--" not in text)
    return found


def written(root: bytes, texts: Sequence[bytes]) -> bytes:
    return b"<?xml version='1.0'?>\n<%s>\n%s\n</%s>\n" % (root, b"\n".join(texts), root)


def assert_nothing_is_lost(content: bytes, intact: Sequence[bytes]) -> int:
    """Every record of the file is loaded, in quarantine, or the file refused; the number of records.

    `intact`: records in it that were not damaged.
    """
    root = re.search(rb"<(\w+Set)>\n", content)[1]  # type: ignore[index]
    if (table := unless_refused(content)) is None:
        closing = re.search(rb"</%s\s*>" % root, content)
        assert closing is None or content[closing.end() :].strip() or unclosed(content)
        return 0
    pieces = list(records(io.BytesIO(content), "x"))
    _assert_covered(content, root, [text for _, text in pieces])
    asides = b"\0".join(text for _, text in pieces if text.startswith((b"<!--", b"<?")))
    remaining = iter(text for _, text in pieces)
    assert all(text in asides or text in remaining for text in intact)
    rows = table.iter_rows(named=True)
    good = [text for tag, text in pieces if tag in RECORD_OF_ROOT.values() and _is_well_formed(text)]
    if good:
        plain, too_much = citation_columns([plainly(text) for text in good], known_good=True)
        conforming = iter(zip(plain.iter_rows(named=True), too_much, strict=True))
    for tag, text in pieces:
        if tag == b"DeleteCitation":
            for expected in _deletions(text):
                row = next(rows)
                assert (row["record"], row["pmid"] if expected else None) == (
                    ("deleted", expected) if expected else ("quarantined", None)
                )
            continue
        row = next(rows)
        if tag in RECORD_OF_ROOT.values() and _is_well_formed(text):
            (expected_row, refused), fields = next(conforming), reference(text)
            assert not refused or _is_too_much(text)
            assert (row["record"] == "citation") == (fields is not None and not refused), text
            if fields is not None and not refused:
                same = {"position": row["position"], "pubmed_file": row["pubmed_file"]}
                assert row == expected_row | same
                assert_same_fields(row, fields)
                continue
        assert row["record"] == "quarantined"
        assert row["cause"]
        assert row["raw"] == text.decode(errors="replace")
    assert next(rows, None) is None
    return len(pieces)


def unclosed(content: bytes) -> bool:
    """Whether a comment or instruction between records has no end."""
    return any(
        content.rfind(begin) + len(begin) > content.rfind(end)
        for begin, end in ((b"<!--", b"-->"), (b"<?", b"?>"))
    )


def _assert_covered(content: bytes, root: bytes, pieces: Sequence[bytes]) -> None:
    at, record = content.index(b"<%s>\n" % root) + len(root) + 2, rb"<%s[\s/>]" % RECORD_OF_ROOT[root]
    for piece in pieces:
        begin = content.index(piece, at)
        gap = content[at:begin]
        assert re.fullmatch(rb"(?s)(\s|<!--.*?-->|<\?.*?\?>)*+", gap), gap
        assert b"<PMID" not in gap, gap
        if not piece.startswith((b"<!--", b"<?")):
            assert not re.search(record, piece[1:]), "two records in one"
        at = begin + len(piece)
    assert re.fullmatch(rb"(?s)(\s|<!--.*?-->|<\?.*?\?>)*+</%s\s*>\s*" % root, content[at:])


@cache
def _is_well_formed(text: bytes) -> bool:
    try:
        etree.fromstring(text, etree.XMLParser(resolve_entities=False, no_network=True))
    except etree.XMLSyntaxError:
        return False
    return True


def _is_too_much(text: bytes) -> bool:
    root = etree.fromstring(text)
    return any(
        len(element.attrib) > 12 or len(list(element.iterancestors())) >= 200 for element in root.iter()
    )


def _deletions(text: bytes) -> list[int | None]:
    """The PMIDs in a DeleteCitation; None for what goes to quarantine."""
    if not _is_well_formed(text):
        return [None]
    parser = etree.XMLParser(remove_comments=True, remove_pis=True, resolve_entities=False)
    children = etree.fromstring(text, parser)
    return [
        int(child.text or "")
        if child.tag == "PMID" and not len(child) and re.fullmatch(r"\s*[1-9][0-9]{0,7}\s*", child.text or "")
        else None
        for child in children
    ]


def test_of_damaged_records_nothing_is_lost(real_data: Path) -> None:
    found, chance, tried = pool(real_data), Random(SEED), 0
    while tried < FUZZ:
        root = chance.choice(sorted(found))
        texts = chance.choices(found[root], k=chance.choice((3, 20, 80)))
        hit = [chance.random() < 0.6 for _ in texts]
        now = [damaged(text, found[root], chance) if h else text for text, h in zip(texts, hit, strict=True)]
        if len(texts) > 3:  # one that ends the file would hide the others
            now = [text for text in now if b"</" + root not in text]
        assert_nothing_is_lost(written(root, now), [text for text in now if text in texts])
        tried += sum(hit)


def test_a_damaged_file_is_refused_or_read_whole(real_data: Path) -> None:
    found, chance = pool(real_data), Random(SEED)
    for tried in range(FUZZ // 4):
        root = chance.choice(sorted(found))
        texts = chance.choices(found[root], k=3)
        intact = written(root, texts)
        if tried % 2:
            content = gzip.compress(intact, mtime=0)
            content = damaged(content, [content], chance)
            if (table := unless_refused(content)) is not None:
                assert table.equals(read(intact)), (SEED, tried)
            continue
        begin, end = chance.choice(((0, 60), (len(intact) - 40, len(intact)), (0, len(intact))))
        content = intact[:begin] + damaged(intact[begin:end], texts, chance) + intact[end:]
        if unless_refused(content) is not None:
            pieces = [text for _, text in records(io.BytesIO(content), "x")]
            kept = b"\0".join(pieces)
            assert all(text in kept for text in texts if text in content), (SEED, tried)
            assert in_small_pieces(content, chance) in (pieces, None), (SEED, tried)


def in_small_pieces(content: bytes, chance: Random) -> list[bytes] | None:
    """The same from a stream that gives little at a time; None if its beginning says too little."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mkailin_assets.pubmed.records._HEAD", 400)
        patch.setattr("mkailin_assets.pubmed.records._CHUNK", chance.choice((97, 1000, 9000)))
        try:
            return [text for _, text in records(io.BytesIO(content), "x")]
        except UnreadablePubmedFile:
            return None


def unless_refused(content: bytes) -> pl.DataFrame | None:
    started = time.monotonic()
    try:
        return read(content)
    except UnreadablePubmedFile:
        return None
    finally:
        assert time.monotonic() - started < 20


# What fuzzing found, each with what becomes of it.
SEVEN, EIGHT = (
    b"<PubmedArticle><MedlineCitation><PMID>%d</PMID><Article><ArticleTitle>A</ArticleTitle></Article>"
    b"</MedlineCitation></PubmedArticle>" % pmid
    for pmid in (7, 8)
)
DELETED = b'<DeleteCitation><PMID Version="%s">9</PMID></DeleteCitation>'
FOUND = (
    (b"<!--" + SEVEN + b"-->" + EIGHT, "quarantined citation"),
    (b"<DeleteCitation>" + SEVEN + DELETED % b"1", "quarantined citation deleted"),
    (
        SEVEN.replace(b"</PubmedArticle", b"</PubmedArticle ") + DELETED % b"1" + EIGHT,
        "citation deleted citation",
    ),
    (SEVEN.replace(b"</PubmedArticle>", b"") + DELETED % b"1" + EIGHT, "quarantined deleted citation"),
    (SEVEN.replace(b"</PubmedArticle", b"</PubmedArticle ") + b"x</PubmedArticle>", "citation quarantined"),
    (SEVEN.replace(b"<PMID", b'<PMID 1a="1"'), "quarantined"),
    (SEVEN.replace(b"<PMID", b'<PMID a="\x0b"'), "quarantined"),
    (SEVEN.replace(b"<PMID", b"<PMID>8</PMID><PMID"), "quarantined"),
    (SEVEN.replace(b"</MedlineCitation>", b"</MedlineCitation><MedlineCitation/>"), "quarantined"),
    (DELETED % (b"9" * 10), "deleted"),
    (DELETED % (b"9" * 5000), "deleted"),
    (b"<DeleteCitation><Year>1998</Year><PMID>1<b/>2</PMID></DeleteCitation>", "quarantined quarantined"),
)


@pytest.mark.parametrize(("content", "kinds"), FOUND)
def test_what_fuzzing_found_stays_repaired(content: bytes, kinds: str) -> None:
    assert read(written(b"PubmedArticleSet", [content]))["record"].to_list() == kinds.split()


def test_blanks_in_tags_and_attributes_make_no_difference() -> None:
    record = SEVEN.replace(b">A<", b">10<sup >6</sup><")
    table = read(written(b"PubmedArticleSet", [record, DELETED % b" 1\n"]))
    assert table["title"].to_list() == ["10^6", None]
    assert table["version"].to_list() == [None, 1]


HOSTILE = (
    *b"<PubmedArticle> <PubmedArticle </PubmedArticle> <DeleteCitation> <PubmedBookArticle>".split(),
    *b"<MedlineCitation </PubmedArticleSe <!-- <? <!--<PubmedArticle> <!DOCTYPE < & ]]> <b>".split(),
    *(b" ", b"<!-- -->", b"<MedlineCitation><PMID ", b"<?xml encoding", b'<a b="'),
)


@pytest.mark.parametrize("repeated", HOSTILE, ids=lambda repeated: repr(repeated)[2:-1])
def test_no_file_takes_more_time_than_its_size_explains(repeated: bytes) -> None:
    much = repeated * (400_000 // len(repeated))
    record = b"<PubmedArticle><MedlineCitation><PMID>7</PMID>%s</MedlineCitation></PubmedArticle>"
    unless_refused(much + written(b"PubmedArticleSet", [record % b""]))
    unless_refused(written(b"PubmedArticleSet", [record % b"", much, record % b""]))
    unless_refused(written(b"PubmedArticleSet", [record % much]))
