"""Rewrites the sample: `python -m mkailin_resources.sample.make`. The same bytes each time.

A `.gz` file whose content is already right is left alone, since zlib versions compress differently.
"""

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any
from xml.sax.saxutils import escape

from lxml import etree
from lxml.builder import E

from mkailin_resources.sample import MESH_YEAR, NLM_FOLDER, PUBMEDQA_FILE
from mkailin_resources.sample.compose import REVISION_HEADING, SEED, Composition, compose
from mkailin_resources.sample.mesh import QUALIFIERS, UNKNOWN_HEADING, Excerpt, load_excerpt
from mkailin_resources.sample.prose import Plan, Section, Study, Writer

FIRST_WRITTEN, FIRST_COMPOSED, FIRST_BENCHMARK = 90000001, 90000021, 95000001
BASELINE, SECOND_BASELINE, UPDATE = "pubmed26n0001", "pubmed26n0002", "pubmed26n0003"

# The records that are there to be special, by what is special about them.
SPECIAL: dict[str, tuple[int, ...]] = {
    "vernacular title": (90000001, 90000002, 90000003, 90000004, 90000005),
    "markup in title": (90000006, 90000007, 90000008),
    "no abstract": (90000009, 90000010),
    "heading unknown to the excerpt": (90000011,),
    "moves to another home branch": (90000012,),
    "no headings": (90000050, 90000210),
    "revised": (90000012, 90000068, 90000167, 90000248),
    "retracted": (90000080, 90000222),
    "deleted": (90000100, 90000300),
    "new": (90000330, 90000331, 90000332),
    "retraction notice": (90000333, 90000334),
}

# Why each file has one record that cannot be read, though the file is well-formed XML.
MALFORMED: dict[str, str] = {
    BASELINE: "no PMID",
    SECOND_BASELINE: "PMID is not a number",
    UPDATE: "PMID is empty",
}

JOURNALS: dict[str, tuple[tuple[str, str], ...]] = {
    "C04": (
        ("Imaginary annals of oncology", "Imag Ann Oncol"),
        ("The Sample journal of cancer care", "Sample J Cancer Care"),
        ("Invented archives of tumour research", "Invent Arch Tumour Res"),
    ),
    "C10": (
        ("The Fictional journal of neurology", "Fict J Neurol"),
        ("Invented archives of brain and nerve", "Invent Arch Brain Nerve"),
        ("Sample reports in movement and memory", "Sample Rep Mov Mem"),
    ),
    "C14": (
        ("Imaginary heart journal", "Imag Heart J"),
        ("The Sample review of circulation", "Sample Rev Circ"),
        ("Fictional annals of vascular medicine", "Fict Ann Vasc Med"),
    ),
    "F03": (
        ("The Invented journal of psychiatry", "Invent J Psychiatry"),
        ("Sample archives of mental health", "Sample Arch Ment Health"),
        ("Fictional studies in mood and mind", "Fict Stud Mood Mind"),
    ),
    "D12": (
        ("Imaginary journal of protein science", "Imag J Protein Sci"),
        ("The Fictional biochemist", "Fict Biochem"),
        ("Invented letters in molecular medicine", "Invent Lett Mol Med"),
    ),
    "": (
        ("The Sample journal of general medicine", "Sample J Gen Med"),
        ("Imaginary clinical proceedings", "Imag Clin Proc"),
        ("Fictional medicine and public health", "Fict Med Public Health"),
    ),
}
NAME_STARTS = (
    "Amber Birch Copper Dapple Elder Fennel Glimmer Hollow Indigo Juniper Kestrel Lantern Marble Nettle "
    "Otter Pebble Quill Rowan Saffron Thistle Umber Velvet Willow Yarrow Zephyr Ömmel Éclair Ñandú"
).split(" ")
NAME_ENDS = "whistle wick dale feather combe brook latch mantle spindle thorpe bottom cask glade".split(" ")
INITIALS = "ABCDEFGHIJKLMNOPRSTVW"
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ")
DOCTYPE = (
    '<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD PubMedArticle, 1st January 2025//EN" '
    '"https://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd">'
)


@dataclass(frozen=True)
class Record:
    """A citation as it goes into a PubMed file. `headings` as "Name/qualifier*", * for a major topic."""

    pmid: int
    title: str
    sections: tuple[Section, ...]
    headings: tuple[str, ...]
    types: tuple[str, ...]
    year: int
    journals: str = ""
    language: str = "eng"
    vernacular: str | None = None
    status: str = "MEDLINE"
    corrections: tuple[tuple[str, int], ...] = ()
    revised: tuple[int, int, int] | None = None


def name_of(heading: str) -> str:
    """Descriptor of "Name/qualifier*"."""
    return heading.rstrip("*").split("/")[0]


def with_majors(study: Study, plan: Plan, mesh: Excerpt, rng: Random) -> list[str]:
    """Marks the lead heading, and up to two of what was studied, as major topics; the home stays the lead's.

    Raises `ValueError` when the lead heading alone leads elsewhere.
    """
    branch, majors = plan.topic.branch, [study.headings[0]]
    if mesh.home_branch([plan.topic.lead]) != branch:
        raise ValueError(f"{plan.topic.lead}: home branch is not {branch}; choose another lead heading")
    wanted = 1 + rng.choice((0, 1, 1, 2))
    for heading in study.headings[1 : 1 + min(2, len(plan.studied_mesh))]:
        names = [name_of(major) for major in [*majors, heading]]
        if len(majors) < wanted and mesh.home_branch(names) == branch:
            majors.append(heading)
    return [f"{heading}*" if heading in majors else heading for heading in study.headings]


def composed_record(pmid: int, plan: Plan, study: Study, mesh: Excerpt) -> Record:
    """A composed study as a citation."""
    branch = plan.topic.branch
    headings = with_majors(study, plan, mesh, Random(SEED + pmid))
    return Record(
        pmid=pmid,
        title=study.title,
        sections=tuple(study.sections),
        headings=(*headings, *study.tags),
        types=tuple(study.types),
        year=study.year,
        journals=branch if branch in JOURNALS else "",
    )


def written_record(pmid: int, row: Mapping[str, Any]) -> Record:
    """A citation that was written out in full."""
    return Record(
        pmid=pmid,
        title=row["title"],
        sections=tuple(
            Section(label or None, category or None, text) for label, category, text in row["sections"]
        ),
        headings=tuple(row["headings"]),
        types=tuple(row["types"]),
        year=row["year"],
        language=row.get("language", "eng"),
        vernacular=row.get("vernacular"),
    )


def rewritten(record: Record, plan: Plan, mesh: Excerpt) -> Record:
    """The same study under the same title, with its abstract written anew and a heading more."""
    study = Writer(Random(SEED + 7 * record.pmid)).write(plan, form="noun", year=record.year)
    fresh = composed_record(record.pmid, plan, study, mesh)
    return replace(fresh, title=record.title, headings=(*fresh.headings, REVISION_HEADING))


def build_files(composed: Composition, mesh: Excerpt) -> dict[str, tuple[list[Record], list[int]]]:
    """Records and deleted PMIDs of each PubMed file, by its key."""
    written = {row["key"]: row for row in composed.written}
    notices = [written.pop(key) for key in sorted(written) if key.startswith("retraction_notice")]
    first = {
        FIRST_WRITTEN + i: written_record(FIRST_WRITTEN + i, row) for i, row in enumerate(written.values())
    }
    plans = {FIRST_COMPOSED + i: plan for i, plan in enumerate(composed.plans)}
    for (pmid, plan), study in zip(plans.items(), composed.studies, strict=True):
        first[pmid] = composed_record(pmid, plan, study, mesh)
    for pmid, status in zip(SPECIAL["no headings"], ("Publisher", "In-Process"), strict=True):
        first[pmid] = replace(first[pmid], headings=(), status=status)
    later = [first.pop(pmid) for pmid in SPECIAL["new"]]
    for number, pmid in enumerate(SPECIAL["revised"]):
        if pmid in plans:
            again = rewritten(first[pmid], plans[pmid], mesh)
        else:
            row = written["moved_home"]
            revision = {"headings": row["revised_headings"], "sections": row["revised_sections"]}
            again = written_record(pmid, {**row, **revision})
        later.append(replace(again, revised=(2026, 1, 12 + number)))
    for pmid, notice, row in zip(SPECIAL["retracted"], SPECIAL["retraction notice"], notices, strict=True):
        record = first[pmid]
        types = (*record.types, "Retracted Publication")
        links = (("RetractionIn", notice),)
        later.append(replace(record, types=types, corrections=links, revised=(2026, 1, 20)))
        later.append(replace(written_record(notice, row), corrections=(("RetractionOf", pmid),)))
    pmids = sorted(first)
    half = len(pmids) // 2
    return {
        BASELINE: ([first[pmid] for pmid in pmids[:half]], []),
        SECOND_BASELINE: ([first[pmid] for pmid in pmids[half:]], []),
        UPDATE: (sorted(later, key=lambda record: record.pmid), list(SPECIAL["deleted"])),
    }


def marked_up(tag: str, text: str, **attributes: str) -> etree._Element:
    """An element whose <i>, <sub> and <sup> are elements and whose other characters are text."""
    body = re.sub(r"&lt;(/?(?:i|sub|sup))&gt;", r"<\1>", escape(text))
    element = etree.fromstring(f"<{tag}>{body}</{tag}>")
    for name, value in attributes.items():
        element.set(name, value)
    return element


def date(tag: str, year: int, month: int, day: int, **attributes: str) -> etree._Element:
    """Year, month and day as NLM writes them."""
    return E(tag, E.Year(str(year)), E.Month(f"{month:02d}"), E.Day(f"{day:02d}"), **attributes)


def publication_date(rng: Random, year: int) -> etree._Element:
    """One of the forms PubMed's dates take."""
    month = rng.randrange(12)
    form = rng.random()
    if form < 0.08:
        return E.PubDate(
            E.MedlineDate(f"{year} {MONTHS[month]}-{MONTHS[(month + 1) % 12]}" if month < 11 else f"{year}")
        )
    if form < 0.12:
        return E.PubDate(E.Year(str(year)), E.Season(rng.choice(("Spring", "Summer", "Fall", "Winter"))))
    if form < 0.24:
        return E.PubDate(E.Year(str(year)))
    day = [E.Day(f"{rng.randint(1, 28):02d}")] if form > 0.7 else []
    return E.PubDate(E.Year(str(year)), E.Month(MONTHS[month]), *day)


def authors(rng: Random) -> etree._Element:
    """One to seven people who do not exist, now and then with their study group."""
    people = []
    for _ in range(rng.randint(1, 7)):
        initials = "".join(rng.sample(INITIALS, rng.randint(1, 2)))
        people.append(
            E.Author(
                E.LastName(rng.choice(NAME_STARTS) + rng.choice(NAME_ENDS)),
                E.ForeName(" ".join(initials)),
                E.Initials(initials),
                ValidYN="Y",
            )
        )
    if rng.random() < 0.05:
        people.append(E.Author(E.CollectiveName("Imaginary Study Group"), ValidYN="Y"))
    return E.AuthorList(*people, CompleteYN="Y")


def heading_element(heading: str, mesh: Excerpt) -> etree._Element:
    """A MeshHeading; a major topic is marked on the qualifier where there is one, as indexers do."""
    name, _, qualifier = heading.rstrip("*").partition("/")
    major = "Y" if heading.endswith("*") else "N"
    ui = UNKNOWN_HEADING[0] if name == UNKNOWN_HEADING[1] else mesh.by_name[name].ui
    descriptor = E.DescriptorName(name, UI=ui, MajorTopicYN="N" if qualifier else major)
    if not qualifier:
        return E.MeshHeading(descriptor)
    return E.MeshHeading(descriptor, E.QualifierName(qualifier, UI=QUALIFIERS[qualifier], MajorTopicYN=major))


def abstract_element(sections: Iterable[Section]) -> etree._Element:
    """Abstract, with labels where it is structured."""
    texts = []
    for section in sections:
        attributes = {"Label": section.label, "NlmCategory": section.category}
        texts.append(marked_up("AbstractText", section.text, **{k: v for k, v in attributes.items() if v}))
    return E.Abstract(*texts)


def article_element(record: Record, mesh: Excerpt) -> etree._Element:
    """PubmedArticle of DTD pubmed_250101."""
    rng = Random(SEED + 3 * record.pmid)
    title, short_title = rng.choice(JOURNALS[record.journals])
    doi = f"10.5555/sample.{record.pmid}"
    page = rng.randint(1, 900)
    closed = record.title if record.title.endswith("?") else f"{record.title}."
    article = E.Article(
        E.Journal(
            E.JournalIssue(
                E.Volume(str(max(1, record.year - 1979))),
                E.Issue(str(rng.randint(1, 12))),
                publication_date(rng, record.year),
                CitedMedium="Internet" if record.year >= 2000 else "Print",
            ),
            E.Title(title),
            E.ISOAbbreviation(short_title),
        ),
        marked_up("ArticleTitle", f"[{closed}]" if record.vernacular else closed),
        E.Pagination(E.StartPage(str(page)), E.EndPage(str(page + 7)), E.MedlinePgn(f"{page}-{page + 7}")),
        PubModel="Print-Electronic" if record.year >= 2005 else "Print",
    )
    if record.year >= 2005:
        article.append(E.ELocationID(doi, EIdType="doi", ValidYN="Y"))
    if record.sections:
        article.append(abstract_element(record.sections))
    article.append(authors(rng))
    article.append(E.Language(record.language))
    types = ["Journal Article", *record.types] if "Letter" not in record.types else list(record.types)
    kinds = [E.PublicationType(kind, UI=mesh.by_name[kind].ui) for kind in types]
    article.append(E.PublicationTypeList(*kinds))
    if record.vernacular:
        article.append(E.VernacularTitle(f"{record.vernacular.rstrip('?.')}{closed[-1]}"))
    indexed = record.status == "MEDLINE"
    completed = (
        [date("DateCompleted", record.year, rng.randint(1, 12), rng.randint(1, 28))] if indexed else []
    )
    citation = E.MedlineCitation(
        E.PMID(str(record.pmid), Version="1"),
        *completed,
        date("DateRevised", *(record.revised or (max(2018, record.year), 12, 9))),
        article,
        E.MedlineJournalInfo(E.MedlineTA(short_title), E.NlmUniqueID(f"99{sum(map(ord, short_title)):05d}")),
        E.CitationSubset("IM"),
        Status=record.status,
        Owner="NLM",
    )
    if indexed and record.year >= 2019:
        citation.set("IndexingMethod", rng.choice(("Automated", "Curated", "Manual")))
    if record.corrections:
        links = [
            E.CommentsCorrections(
                E.RefSource(f"{short_title}. 2026"), E.PMID(str(pmid), Version="1"), RefType=kind
            )
            for kind, pmid in record.corrections
        ]
        citation.append(E.CommentsCorrectionsList(*links))
    if record.headings:
        headings = sorted(record.headings, key=name_of)
        citation.append(E.MeshHeadingList(*[heading_element(heading, mesh) for heading in headings]))
    if record.year >= 2013 and record.headings and rng.random() < 0.5:
        words = [name_of(heading).lower() for heading in record.headings[:3]]
        citation.append(E.KeywordList(*[E.Keyword(word, MajorTopicYN="N") for word in words], Owner="NOTNLM"))
    identifiers = [E.ArticleId(str(record.pmid), IdType="pubmed"), E.ArticleId(doi, IdType="doi")]
    if record.year >= 2006 and rng.random() < 0.3:
        identifiers.append(E.ArticleId(f"PMC{record.pmid - 80000000}", IdType="pmc"))
    data = E.PubmedData(
        E.History(
            date("PubMedPubDate", record.year, rng.randint(1, 12), rng.randint(1, 28), PubStatus="pubmed")
        ),
        E.PublicationStatus("ppublish"),
        E.ArticleIdList(*identifiers),
    )
    return E.PubmedArticle(citation, data)


def malformed_element(key: str, mesh: Excerpt) -> etree._Element:
    """A record that no parser can file, for the reason in `MALFORMED`."""
    text = Section(None, None, "This record is part of the sample because it cannot be filed.")
    record = Record(0, "A record that cannot be filed", (text,), ("Humans",), (), 2020)
    article = article_element(record, mesh)
    for identifiers in article.iter("ArticleIdList"):
        identifiers.clear()
    pmid = article.find("MedlineCitation/PMID")
    assert pmid is not None
    if key == BASELINE:
        article[0].remove(pmid)
    else:
        pmid.text = {SECOND_BASELINE: "9000A017", UPDATE: None}[key]
    return article


def pubmed_xml(key: str, records: Sequence[Record], deleted: Sequence[int], mesh: Excerpt) -> bytes:
    """One PubMed file, a record a line, its malformed record in the middle."""
    articles = [article_element(record, mesh) for record in records]
    articles.insert(len(articles) // 2, malformed_element(key, mesh))
    if deleted:
        articles.append(E.DeleteCitation(*[E.PMID(str(pmid), Version="1") for pmid in deleted]))
    lines = ['<?xml version="1.0" encoding="utf-8"?>', DOCTYPE, "<PubmedArticleSet>"]
    lines += [etree.tostring(article, encoding="unicode") for article in articles]
    return "\n".join([*lines, "</PubmedArticleSet>", ""]).encode()


def descriptor_xml(mesh: Excerpt) -> bytes:
    """The excerpt in the form of NLM's descriptor file, a record a line; no concept or term UIs."""
    lines = [
        '<?xml version="1.0"?>',
        f'<!DOCTYPE DescriptorRecordSet SYSTEM "https://www.nlm.nih.gov/databases/dtd/nlmdescriptorrecordset_{MESH_YEAR}0101.dtd">',
        '<DescriptorRecordSet LanguageCode = "eng">',
    ]
    for descriptor in sorted(mesh.by_name.values(), key=lambda d: d.ui):
        record = E.DescriptorRecord(
            E.DescriptorUI(descriptor.ui),
            E.DescriptorName(E.String(descriptor.name)),
            DescriptorClass=str(descriptor.descriptor_class),
        )
        if descriptor.tree_numbers:
            record.append(E.TreeNumberList(*[E.TreeNumber(number) for number in descriptor.tree_numbers]))
        terms = [
            E.Term(
                E.String(term),
                ConceptPreferredTermYN="Y" if place == 0 else "N",
                IsPermutedTermYN="N",
                LexicalTag="NON",
                RecordPreferredTermYN="Y" if place == 0 else "N",
            )
            for place, term in enumerate((descriptor.name, *descriptor.entry_terms))
        ]
        concept = E.Concept(
            E.ConceptName(E.String(descriptor.name)), E.TermList(*terms), PreferredConceptYN="Y"
        )
        record.append(E.ConceptList(concept))
        lines.append(etree.tostring(record, encoding="unicode"))
    return "\n".join([*lines, "</DescriptorRecordSet>", ""]).encode()


def benchmark_json(studies: Sequence[Study]) -> bytes:
    """The benchmark in PubMedQA's format: contexts are the abstract without its conclusion."""
    rng = Random(SEED + 5)
    items = {}
    for number, study in enumerate(studies):
        sections = [replace(section, text=re.sub(r"<[^>]+>", "", section.text)) for section in study.sections]
        guesses = [
            study.verdict if rng.random() < share else rng.choice(("yes", "no", "maybe"))
            for share in (0.8, 0.5)
        ]
        items[str(FIRST_BENCHMARK + number)] = {
            "QUESTION": re.sub(r"<[^>]+>", "", study.question or ""),
            "CONTEXTS": [section.text for section in sections[:-1]],
            "LABELS": [section.label for section in sections[:-1]],
            "MESHES": sorted({name_of(heading) for heading in [*study.headings, *study.tags]}),
            "YEAR": str(study.year),
            "reasoning_required_pred": guesses[0],
            "reasoning_free_pred": guesses[1],
            "final_decision": study.verdict,
            "LONG_ANSWER": sections[-1].text,
        }
    return (json.dumps(items, ensure_ascii=False, indent=1) + "\n").encode()


def put_gzip(path: Path, content: bytes) -> None:
    """Writes a .gz without a date, unless the one that is there has this content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and gzip.decompress(path.read_bytes()) == content:
        return
    with path.open("wb") as out, gzip.GzipFile("", "wb", compresslevel=9, fileobj=out, mtime=0) as packed:
        packed.write(content)


def make(nlm_folder: Path = NLM_FOLDER, pubmedqa_file: Path = PUBMEDQA_FILE) -> None:
    """Writes the whole sample to the folder and the file."""
    composed, mesh = compose(), load_excerpt()
    for key, (records, deleted) in build_files(composed, mesh).items():
        folder = nlm_folder / "pubmed" / ("updatefiles" if key == UPDATE else "baseline")
        path = folder / f"{key}.xml.gz"
        put_gzip(path, pubmed_xml(key, records, deleted, mesh))
        digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        (folder / f"{path.name}.md5").write_text(f"MD5({path.name})= {digest}\n", encoding="ascii")
    put_gzip(nlm_folder / f"projects/mesh/MESH_FILES/xmlmesh/desc{MESH_YEAR}.gz", descriptor_xml(mesh))
    pubmedqa_file.write_bytes(benchmark_json(composed.benchmark))


if __name__ == "__main__":
    make()
