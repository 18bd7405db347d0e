"""Tables of the PubMed stage."""

import dataframely as dy

from mkailin_assets.tables import one_of

RECORD_KINDS = ("citation", "deleted", "quarantined")
CITATION_STATES = ("current", "retracted", "deleted")


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
    """One of NLM's PubMed files, kept as it came. One row."""

    pubmed_file = dy.String(description="Key of the file, pubmed26n0001")
    directory = one_of(("baseline", "updatefiles"), description="Directory on NLM's server")
    url = dy.String(description="Where it was fetched from")
    uri = dy.String(description="Where it is kept")
    bytes = dy.Int64(min=1, description="Size in bytes")
    md5 = dy.String(description="MD5, equal to the one NLM publishes, hexadecimal")


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
    language = dy.List(dy.String(), description="Language codes, eng")
    publication_types = dy.List(
        dy.Struct({"ui": dy.String(nullable=True), "name": dy.String()}), description="Publication types"
    )
    year = dy.Int32(nullable=True, description="Year of publication")
    journal = dy.String(nullable=True, description="Journal title")
    headings = heading_list()
    keywords = dy.List(dy.String(), description="Author keywords")
    doi = dy.String(nullable=True, description="Digital object identifier")
    pmc = dy.String(nullable=True, description="PubMed Central identifier")
    comments_corrections = dy.List(
        dy.Struct({"ref_type": dy.String(), "pmid": dy.Int64(nullable=True)}),
        description="Links to other records: RetractionIn, ErratumIn, ...",
    )
    retracted = dy.Bool(nullable=True, description="RetractionIn, or type Retracted Publication")
    content_hash = dy.String(
        nullable=True, description="Hash of what distillation reads: title, abstract, types, headings"
    )
    cause = dy.String(nullable=True, description="Why a record is in quarantine")
    raw = dy.String(nullable=True, description="Text of a record in quarantine")


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
