"""Tables of the PubMed stage."""

from collections.abc import Iterable, Mapping
from typing import Any

import dataframely as dy
import polars as pl

from mkailin_assets.tables import one_of

RECORD_KINDS = ("citation", "deleted", "quarantined")
CITATION_STATES = ("current", "retracted", "deleted")
_PRECISION = "1998, 1998-12 or 1998-12-24"
_NAMES = ("last_name", "fore_name", "initials", "suffix", "collective_name")


def abstract_sections() -> dy.List:
    """Abstract as NLM structures it; an unstructured one has one section without label."""
    return dy.List(
        dy.Struct(
            {
                "label": dy.String(nullable=True),
                "category": dy.String(nullable=True),
                "text": dy.String(),
            }
        ),
        description="Sections: label, NLM category (BACKGROUND, ..., CONCLUSIONS), text",
    )


def heading_list() -> dy.List:
    """MeSH headings of a citation."""
    return dy.List(
        dy.Struct(
            {
                "ui": dy.String(nullable=True),
                "name": dy.String(),
                "major": dy.Bool(),
                "qualifiers": dy.List(dy.String()),
            }
        ),
        description="MeSH headings; major when the descriptor or a qualifier is a major topic",
    )


class RawPubmed(dy.Schema):
    """One of NLM's PubMed files, kept as it came, or what a query found. One row."""

    pubmed_file = dy.String(description="Key of the file, pubmed26n0001 or query-1a2b3c4d-20190101-20190630")
    directory = one_of(
        ("baseline", "updatefiles", "query"),
        description="Directory on NLM's server; query for what a query found",
    )
    url = dy.String(description="Where it was fetched from")
    uri = dy.String(description="Where it is kept")
    bytes = dy.Int64(min=1, description="Size in bytes")
    md5 = dy.String(description="MD5 of the file as kept; of NLM's files the one NLM publishes; hexadecimal")


class PubmedRecord(dy.Schema):
    """What one PubMed file says: citations, deleted PMIDs, and records that could not be read.

    DTD pubmed_250101. A deleted record has a PMID alone; a quarantined one a cause and its raw text.
    """

    record = one_of(RECORD_KINDS, description="citation, deleted or quarantined")
    position = dy.Int32(primary_key=True, min=0, description="Place in the file, from 0")
    pmid = dy.Int64(nullable=True, min=1, description="PubMed identifier; unknown in some quarantined")
    version = dy.Int32(nullable=True, description="PMID@Version")
    pubmed_file = dy.String(description="File it came from")
    status = dy.String(nullable=True, description="MedlineCitation@Status")
    title = dy.String(nullable=True, description="Article title as readable text")
    vernacular_title = dy.String(nullable=True, description="Title in the original language")
    abstract = abstract_sections()
    other_abstracts = dy.List(
        dy.Struct(
            {
                "type": dy.String(nullable=True),
                "language": dy.String(nullable=True),
                "label": dy.String(nullable=True),
                "category": dy.String(nullable=True),
                "text": dy.String(),
            }
        ),
        description="Sections of other abstracts; type says whose: Publisher, plain-language-summary, ...",
    )
    language = dy.List(dy.String(), description="Language codes, eng")
    publication_types = dy.List(
        dy.Struct({"ui": dy.String(nullable=True), "name": dy.String()}), description="Publication types"
    )
    year = dy.Int32(nullable=True, description="Year of publication")
    published = dy.String(nullable=True, description=f"Date of the issue, {_PRECISION}")
    medline_date = dy.String(nullable=True, description="Span or season of the issue, 1998 Dec-1999 Jan")
    electronic = dy.String(nullable=True, description=f"Date of electronic publication, {_PRECISION}")
    completed = dy.String(nullable=True, description=f"When NLM completed the record, {_PRECISION}")
    revised = dy.String(nullable=True, description=f"When NLM last revised the record, {_PRECISION}")
    journal = dy.String(nullable=True, description="Journal title")
    journal_abbreviation = dy.String(nullable=True, description="MEDLINE abbreviation of the journal")
    nlm_unique_id = dy.String(nullable=True, description="NLM's identifier of the journal")
    issn = dy.String(nullable=True, description="Linking ISSN of the journal, else that of the issue")
    volume = dy.String(nullable=True, description="Volume")
    issue = dy.String(nullable=True, description="Issue")
    pages = dy.String(nullable=True, description="Pages, 112-6")
    authors = dy.List(
        dy.Struct(
            {
                **{name: dy.String(nullable=True) for name in _NAMES},
                "orcid": dy.String(nullable=True),
                "affiliations": dy.List(dy.String()),
            }
        ),
        description="Authors in order: names, ORCID, affiliations; a group has a collective name",
    )
    grants = dy.List(
        dy.Struct({name: dy.String(nullable=True) for name in ("id", "agency", "country")}),
        description="Grants: number, agency, country",
    )
    chemicals = dy.List(
        dy.Struct(
            {
                "ui": dy.String(nullable=True),
                "registry_number": dy.String(nullable=True),
                "name": dy.String(nullable=True),
            }
        ),
        description="Substances: MeSH UI, CAS registry or EC number (0 for none), name",
    )
    headings = heading_list()
    keywords = dy.List(dy.String(), description="Author keywords")
    doi = dy.String(nullable=True, description="Digital object identifier")
    pmc = dy.String(nullable=True, description="PubMed Central identifier")
    comments_corrections = dy.List(
        dy.Struct(
            {
                "ref_type": dy.String(),
                "pmid": dy.Int64(nullable=True),
                "source": dy.String(nullable=True),
            }
        ),
        description="Links to other records: RetractionIn, ErratumIn, ...; PMID, where it appeared",
    )
    retracted = dy.Bool(nullable=True, description="RetractionIn, or type Retracted Publication")
    content_hash = dy.String(
        nullable=True, description="Hash of what distillation reads: title, abstract, types, headings"
    )
    cause = dy.String(nullable=True, description="Why a record is in quarantine")
    raw = dy.String(nullable=True, description="Text of a record in quarantine")


def pubmed_records(rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """A `PubmedRecord` table of these rows; what a row leaves out is null, or an empty list."""
    schema = PubmedRecord.create_empty().schema
    blank: dict[str, Any] = {name: [] if isinstance(kind, pl.List) else None for name, kind in schema.items()}
    return pl.DataFrame([blank | dict(row) for row in rows], schema=schema)


class QuarantinedRecord(dy.Schema):
    """The records of all PubMed files that could not be read."""

    pubmed_file = dy.String(primary_key=True, description="File it came from")
    position = dy.Int32(primary_key=True, min=0, description="Place in the file, from 0")
    pmid = dy.Int64(nullable=True, min=1, description="PubMed identifier, where it can be made out")
    cause = dy.String(description="What is wrong with the record")
    raw = dy.String(description="Its text")


class CurrentCitation(dy.Schema):
    """The latest state of every PMID over all files. Small columns only."""

    pmid = dy.Int64(primary_key=True, min=1, description="PubMed identifier")
    state = one_of(CITATION_STATES, description="current, retracted or deleted")
    pubmed_file = dy.String(description="File that holds the latest record")
    position = dy.Int32(description="Its place in that file")
    version = dy.Int32(nullable=True, description="PMID@Version")
    home_branch = dy.String(nullable=True, description="MeSH branch it is distilled in")
    waiting = dy.String(nullable=True, description="Why a current citation has no home branch yet")
    has_abstract = dy.Bool(description="Whether there is an abstract to distil")
    content_hash = dy.String(nullable=True, description="Hash of what distillation reads")


class BranchCitation(dy.Schema):
    """The current citations whose home branch this is, with text."""

    pmid = dy.Int64(primary_key=True, min=1, description="PubMed identifier")
    branch = dy.String(description="Home branch")
    pubmed_file = dy.String(description="File it came from")
    version = dy.Int32(nullable=True, description="PMID@Version")
    title = dy.String(nullable=True, description="Article title")
    abstract = abstract_sections()
    headings = heading_list()
    publication_types = dy.List(dy.String(), description="Names of the publication types")
    year = dy.Int32(nullable=True, description="Year of publication")
    journal = dy.String(nullable=True, description="Journal title")
    content_hash = dy.String(description="Hash of what distillation reads")
