"""Columns of the citations in a block of records: NLM's elements, by path, as `PubmedRecord` has them."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import numpy as np
import polars as pl

from mkailin_assets.pubmed.elements import Elements, Indexes, Paths, lists
from mkailin_assets.pubmed.tables import PubmedRecord

_DATES = {
    "published": "Article/Journal/JournalIssue/PubDate",
    "electronic": "Article/ArticleDate",
    "completed": "DateCompleted",
    "revised": "DateRevised",
}
_AUTHOR = "Article/AuthorList/Author"
_GRANT = "Article/GrantList/Grant"
_CHEMICAL = "ChemicalList/Chemical"
_HEADING = "MeshHeadingList/MeshHeading"
_LINK = "CommentsCorrectionsList/CommentsCorrections"
# Until 2008 the kind of a link was an element, not an attribute.
_OLD_LINK = "CommentsCorrections/*"

_IN_CITATION: Mapping[str, tuple[str, ...]] = {
    "pmid": ("PMID",),
    "title": ("Article/ArticleTitle",),
    "vernacular_title": ("Article/VernacularTitle",),
    "section": ("Article/Abstract/AbstractText",),
    "other_abstract": ("OtherAbstract",),
    "other_section": ("OtherAbstract/AbstractText",),
    "language": ("Article/Language",),
    "publication_type": ("Article/PublicationTypeList/PublicationType",),
    **{
        f"{date}_{part.lower()}": (f"{path}/{part}",)
        for date, path in _DATES.items()
        for part in ("Year", "Month", "Day")
    },
    "medline_date": (f"{_DATES['published']}/MedlineDate", f"{_DATES['published']}/Season"),
    "journal": ("Article/Journal/Title",),
    "journal_abbreviation": ("MedlineJournalInfo/MedlineTA",),
    "nlm_unique_id": ("MedlineJournalInfo/NlmUniqueID",),
    "issn_linking": ("MedlineJournalInfo/ISSNLinking",),
    "issn": ("Article/Journal/ISSN",),
    "volume": ("Article/Journal/JournalIssue/Volume",),
    "issue": ("Article/Journal/JournalIssue/Issue",),
    "pages": ("Article/Pagination/MedlinePgn",),
    "author": (_AUTHOR,),
    "last_name": (f"{_AUTHOR}/LastName",),
    "fore_name": (f"{_AUTHOR}/ForeName",),
    "initials": (f"{_AUTHOR}/Initials",),
    "suffix": (f"{_AUTHOR}/Suffix",),
    "collective_name": (f"{_AUTHOR}/CollectiveName",),
    "author_identifier": (f"{_AUTHOR}/Identifier",),
    "affiliation": (f"{_AUTHOR}/AffiliationInfo/Affiliation", f"{_AUTHOR}/Affiliation"),
    # Until 2013 there was one, of the first author.
    "only_affiliation": ("Article/Affiliation",),
    "grant": (_GRANT,),
    "grant_id": (f"{_GRANT}/GrantID",),
    "grant_agency": (f"{_GRANT}/Agency",),
    "grant_country": (f"{_GRANT}/Country",),
    "chemical": (_CHEMICAL,),
    "registry_number": (f"{_CHEMICAL}/RegistryNumber",),
    "substance": (f"{_CHEMICAL}/NameOfSubstance",),
    "link": (_LINK,),
    "old_link": (_OLD_LINK,),
    "link_source": (f"{_LINK}/RefSource", f"{_OLD_LINK}/RefSource"),
    "linked_pmid": (f"{_LINK}/PMID", f"{_OLD_LINK}/PMID"),
    "heading": (_HEADING,),
    "descriptor": (f"{_HEADING}/DescriptorName",),
    "qualifier": (f"{_HEADING}/QualifierName",),
    "keyword_list": ("KeywordList",),
    "keyword": ("KeywordList/Keyword",),
    "location": ("Article/ELocationID",),
    "other_id": ("OtherID",),
}
_PATHS = Paths(
    {
        "citation": ("PubmedArticle/MedlineCitation", "MedlineCitation"),
        # References have identifiers, too, further below.
        "article_id": ("PubmedArticle/PubmedData/ArticleIdList/ArticleId",),
        **{
            field: tuple(
                f"{root}/{path}"
                for root in ("PubmedArticle/MedlineCitation", "MedlineCitation")
                for path in paths
            )
            for field, paths in _IN_CITATION.items()
        },
    }
)
# As NLM defines them: 1 to 8 digits, no leading zero.
_PMID = "^([1-9][0-9]{0,7})$"
_MONTHS = dict(
    zip("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), map(str, range(1, 13)), strict=True)
)
_DATE_PARTS = tuple(f"{date}_{part}" for date in _DATES for part in ("year", "month", "day"))
_SCHEMA = PubmedRecord.create_empty().schema
_ONCE = ("title", "vernacular_title", "journal_abbreviation", "nlm_unique_id", "volume", "issue", "pages")
_LISTS = (
    "abstract",
    "other_abstracts",
    "language",
    "publication_types",
    "authors",
    "grants",
    "chemicals",
    "headings",
    "keywords",
    "comments_corrections",
)
# They cannot occur in XML, so different contents are different texts.
_FIELD_END, _ITEM_END, _PART_END = "\x1f", "\x1e", "\x1d"


def citation_columns(records: Sequence[bytes], known_good: bool = False) -> tuple[pl.DataFrame, np.ndarray]:
    """`PubmedRecord` rows of citations, one for each record, and which records were refused (bool).

    A record that is well-formed but no citation has a `cause`. One that was refused has not been read:
    `elements.plainly` rewrites it, to come again as `known_good`, or says what is wrong with it. `position`
    and `pubmed_file` are null.
    """
    e = Elements(records, _PATHS, known_good)
    written = pl.DataFrame(
        {
            **_identifiers(e),
            **{name: _one(e, name) for name in (*_ONCE, *_DATE_PARTS, "medline_date")},
            "journal": e.text(
                e.either(e.of_each_record("journal"), e.of_each_record("journal_abbreviation"))
            ),
            "issn": e.text(e.either(e.of_each_record("issn_linking"), e.of_each_record("issn"))),
            "abstract": _sections(e),
            "other_abstracts": _other_sections(e),
            "language": _listed(e, _written(e, "language")),
            "publication_types": _types(e),
            "authors": _authors(e),
            "grants": _parts(e, "grant", id="grant_id", agency="grant_agency", country="grant_country"),
            "chemicals": _chemicals(e),
            "headings": _headings(e),
            "keywords": _keywords(e),
            "comments_corrections": _links(e),
            **_faults(e),
        }
    )
    read = written.select(
        _number("pmid"),
        pl.col("version").cast(pl.Int32, strict=False),
        *("status", "doi", "pmc", *_ONCE, "medline_date", "journal", "issn", *_LISTS),
        *_dates(),
        _retracted(),
        _cause(),
        _content().alias("content"),
        record=pl.lit("citation"),
    )
    # 64 bits of BLAKE2b.
    hashes = [blake2b(content.encode(), digest_size=8).hexdigest() for content in read["content"]]
    absent = {name: pl.lit(None, dtype=_SCHEMA[name]) for name in ("position", "pubmed_file", "raw")}
    rows = read.with_columns(content_hash=pl.Series(hashes, dtype=pl.String), **absent)
    return rows.select(pl.col(name).cast(kind) for name, kind in _SCHEMA.items()), e.refused


def _one(e: Elements, field: str) -> pl.Series:
    """Text of a field that a record has once."""
    return e.text(e.of_each_record(field))


def _written(e: Elements, field: str) -> Indexes:
    """The elements of a field that hold text."""
    return e.of(field)[e.holds_text[e.of(field)]]


def _listed(e: Elements, elements: Indexes, items: Mapping[str, pl.Series] | None = None) -> pl.Series:
    """These elements by record: with these items, or their texts."""
    return lists(e.record[elements], e.height, e.text(elements) if items is None else items)


def _identifiers(e: Elements) -> dict[str, pl.Series]:
    pmids, locations, ids = e.of_each_record("pmid"), e.of("location"), e.of("article_id")
    is_doi = e.has(locations, "EIdType", "doi") & ~e.has(locations, "ValidYN", "N")
    doi, pmc = (e.first(ids[e.has(ids, "IdType", kind)]) for kind in ("doi", "pmc"))
    # OtherID: where PubMed Central's identifier stood until 2016.
    others = e.of("other_id")[e.has(e.of("other_id"), "Source", "NLM")]
    old_pmc = e.first(others[e.text(others).str.starts_with("PMC").fill_null(False).to_numpy()])
    return {
        "pmid": e.text(pmids),
        "version": e.attribute(pmids, "Version"),
        "status": e.attribute(e.of_each_record("citation"), "Status"),
        "doi": e.text(e.either(e.first(locations[is_doi]), doi)),
        "pmc": e.text(e.either(old_pmc, pmc)),
    }


def _faults(e: Elements) -> dict[str, np.ndarray]:
    """For the cause: what a citation needs and a record does not have."""
    descriptors = e.in_each(e.of("heading"), "descriptor")
    nameless = e.record[e.of("heading")[~e.holds_text[descriptors]]]
    return {
        "no MedlineCitation": e.of_each_record("citation") < 0,
        "no PMID": e.of_each_record("pmid") < 0,
        "several citations in one": e.is_several("citation") | e.is_several("pmid"),
        "a MeshHeading without DescriptorName": np.isin(np.arange(e.height), nameless),
    }


def _cause() -> pl.Expr:
    """Why a well-formed record is no citation; null for a citation."""
    faults = {
        "no MedlineCitation": pl.col("no MedlineCitation"),
        "several citations in one": pl.col("several citations in one"),
        "no PMID": pl.col("no PMID") | pl.col("pmid").is_null(),
        "the PMID is {}, not a number of 1 to 8 digits": _number("pmid").is_null(),
        "a MeshHeading without DescriptorName": pl.col("a MeshHeading without DescriptorName"),
        "no title": pl.col("title").is_null() & pl.col("vernacular_title").is_null(),
    }
    written = pl.col("pmid").str.slice(0, 40)
    causes = (
        pl.when(fault).then(pl.format(cause, written) if "{}" in cause else pl.lit(cause))
        for cause, fault in faults.items()
    )
    return pl.coalesce(causes).alias("cause")


def _number(column: str) -> pl.Expr:
    return pl.col(column).str.extract(_PMID).cast(pl.Int64)


def _retracted() -> pl.Expr:
    links = pl.col("comments_corrections").list.eval(pl.element().struct["ref_type"])
    types = pl.col("publication_types").list.eval(pl.element().struct["name"])
    marked = links.list.contains("RetractionIn") | types.list.contains("Retracted Publication")
    return marked.alias("retracted")


def _dates() -> list[pl.Expr]:
    """Dates as ISO 8601 writes them with the precision they have (1998, 1998-12, 1998-12-24)."""
    year = pl.coalesce("published_year", "medline_date").str.extract("([12][0-9]{3})")
    dates = [year.cast(pl.Int32).alias("year")]
    for date in _DATES:
        of_date = year if date == "published" else pl.col(f"{date}_year").str.extract("^([0-9]{4})$")
        month, day = (pl.col(f"{date}_{part}") for part in ("month", "day"))
        month = month.replace(_MONTHS).str.extract("^0?([1-9]|1[0-2])$").str.zfill(2)
        to_the_month = pl.format("{}-{}", of_date, month)
        to_the_day = pl.format("{}-{}", to_the_month, day.str.extract("^([0-9]{1,2})$").str.zfill(2))
        dates.append(pl.coalesce(to_the_day, to_the_month, of_date).alias(date))
    return dates


def _content() -> pl.Expr:
    """What distillation reads, as one text: title, abstract, publication types, headings."""

    def joined(column: str, *fields: pl.Expr) -> pl.Expr:
        return pl.col(column).list.eval(pl.concat_str(fields, separator=_FIELD_END)).list.join(_ITEM_END)

    def part(name: str) -> pl.Expr:
        return pl.element().struct[name].fill_null("")

    return pl.concat_str(
        pl.col("title").fill_null(""),
        joined("abstract", part("label"), part("category"), part("text")),
        joined("publication_types", part("name")),
        joined(
            "headings",
            part("ui"),
            part("name"),
            pl.element().struct["major"].cast(pl.String),
            pl.element().struct["qualifiers"].list.join(_FIELD_END),
        ),
        separator=_PART_END,
    )


def _sections(e: Elements) -> pl.Series:
    sections = _written(e, "section")
    return _listed(e, sections, _labels(e, sections))


def _other_sections(e: Elements) -> pl.Series:
    sections = _written(e, "other_section")
    abstracts = e.holder[sections]
    source = {"type": e.attribute(abstracts, "Type"), "language": e.attribute(abstracts, "Language")}
    return _listed(e, sections, source | _labels(e, sections))


def _labels(e: Elements, sections: Indexes) -> dict[str, pl.Series]:
    return {
        "label": e.attribute(sections, "Label"),
        "category": e.attribute(sections, "NlmCategory"),
        "text": e.text(sections),
    }


def _types(e: Elements) -> pl.Series:
    types = _written(e, "publication_type")
    return _listed(e, types, {"ui": e.attribute(types, "UI"), "name": e.text(types)})


def _keywords(e: Elements) -> pl.Series:
    keyword_lists, keywords = e.of("keyword_list"), _written(e, "keyword")
    of_authors = keyword_lists[e.has(keyword_lists, "Owner", "NOTNLM")]
    return _listed(e, keywords[np.isin(e.holder[keywords], of_authors)])


def _parts(e: Elements, field: str, **parts: str) -> pl.Series:
    """Elements as structs, with the text of each of their parts."""
    elements = e.of(field)
    return _listed(e, elements, {name: e.text(e.in_each(elements, part)) for name, part in parts.items()})


def _chemicals(e: Elements) -> pl.Series:
    chemicals = e.of("chemical")
    substances = e.in_each(chemicals, "substance")
    return _listed(
        e,
        chemicals,
        {
            "ui": e.attribute(substances, "UI"),
            "registry_number": e.text(e.in_each(chemicals, "registry_number")),
            "name": e.text(substances),
        },
    )


def _headings(e: Elements) -> pl.Series:
    headings, qualifiers = e.of("heading"), _written(e, "qualifier")
    descriptors = e.in_each(headings, "descriptor")
    of_heading = np.searchsorted(headings, e.holder[qualifiers])
    major = e.has(descriptors, "MajorTopicYN", "Y")
    major[of_heading[e.has(qualifiers, "MajorTopicYN", "Y")]] = True
    return _listed(
        e,
        headings,
        {
            "ui": e.attribute(descriptors, "UI"),
            "name": e.text(descriptors),
            "major": pl.Series(major),
            "qualifiers": lists(of_heading, len(headings), e.text(qualifiers)),
        },
    )


def _authors(e: Elements) -> pl.Series:
    authors, identifiers = e.of("author"), e.of("author_identifier")
    orcids = e.first_in_each(authors, identifiers[e.has(identifiers, "Source", "ORCID")])
    names = ("last_name", "fore_name", "initials", "suffix", "collective_name")
    return _listed(
        e,
        authors,
        {
            **{name: e.text(e.in_each(authors, name)) for name in names},
            "orcid": _orcid(e.text(orcids)),
            "affiliations": _affiliations(e, authors),
        },
    )


def _orcid(texts: pl.Series) -> pl.Series:
    """Of 0000000218250097 or https://orcid.org/0000-0002-1825-0097 the form with hyphens; null for others."""
    written = pl.col("orcid").str.extract("((?:[0-9]{4}-?){3}[0-9]{3}[0-9Xx])")
    digits = written.str.replace_all("-", "", literal=True).str.to_uppercase()
    with_hyphens = digits.str.replace("(.{4})(.{4})(.{4})(.{4})", "${1}-${2}-${3}-${4}")
    return texts.to_frame("orcid").select(with_hyphens).to_series()


def _affiliations(e: Elements, authors: Indexes) -> pl.Series:
    alone = _written(e, "only_affiliation")
    places = np.concatenate([_written(e, "affiliation"), alone])
    first_authors = e.of_each_record("author")[e.record[places]]
    holders = np.where(np.isin(places, alone), first_authors, e.holder[places])
    order = np.argsort(holders, kind="stable")
    order = order[holders[order] >= 0]
    return lists(np.searchsorted(authors, holders[order]), len(authors), e.text(places[order]))


def _links(e: Elements) -> pl.Series:
    links, old_links = e.of("link"), e.of("old_link")
    kinds = pl.concat([e.attribute(links, "RefType"), e.tag(old_links)])
    both = np.concatenate([links, old_links])
    items = pl.DataFrame(
        {
            "element": both,
            "ref_type": kinds.fill_null("unknown"),
            "pmid": e.text(e.in_each(both, "linked_pmid")),
            "source": e.text(e.in_each(both, "link_source")),
        }
    )
    items = items.sort("element").with_columns(_number("pmid")).drop("element")
    return _listed(e, np.sort(both), items.to_dict())
