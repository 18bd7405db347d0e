"""Tables of the MeSH stage."""

import dataframely as dy

from mkailin_assets.tables import one_of

CHANGE_KINDS = ("added", "dropped", "renamed", "moved")


class MeshRelease(dy.Schema):
    """NLM's descriptor file of one year, kept as it came. One row."""

    year = dy.Int32(description="Release year of MeSH")
    name = dy.String(description="File name on NLM's server")
    url = dy.String(description="Where it was fetched from")
    uri = dy.String(description="Where it is kept")
    bytes = dy.Int64(min=1, description="Size in bytes")
    sha256 = dy.String(description="SHA-256 of the file, hexadecimal")


class MeshDescriptor(dy.Schema):
    """One row per MeSH descriptor (NLM DTD nlmdescriptorrecordset)."""

    descriptor_ui = dy.String(primary_key=True, description="Unique identifier, D000001 or D000000001")
    name = dy.String(description="Preferred name (the main heading)")
    tree_numbers = dy.List(dy.String(), description="Places in the hierarchy; empty for Male and Female")
    entry_terms = dy.List(dy.String(), description="All terms of all concepts but the preferred name")
    scope_note = dy.String(nullable=True, description="Definition of the preferred concept")
    descriptor_class = dy.Int8(
        nullable=True, description="1 topical, 2 publication type, 3 check tag, 4 geographic"
    )
    pharmacological_actions = dy.List(dy.String(), description="UIs of the descriptor's actions")
    date_created = dy.Date(nullable=True, description="Day the record was made")
    date_revised = dy.Date(nullable=True, description="Day of the last change")
    date_established = dy.Date(nullable=True, description="Day it became available for indexing")
    release_year = dy.Int32(description="Release year of MeSH")


class MeshInformationContent(dy.Schema):
    """How much each descriptor says, measured on the current citations (docs/method.md)."""

    descriptor_ui = dy.String(primary_key=True, description="Unique identifier")
    name = dy.String(description="Preferred name")
    citations = dy.Int64(min=0, description="Current citations annotated with it or a descendant, each once")
    all_citations = dy.Int64(min=0, description="N, current citations with headings; the same in all rows")
    descendants = dy.Int64(min=0, description="Distinct descriptors below it")
    corpus_ic = dy.Float64(min=0, max=1, description="-ln((n+1)/(N+1)) / ln(N+1)")
    intrinsic_ic = dy.Float64(min=0, max=1, description="1 - ln(1+descendants) / ln(descriptors)")
    depth = dy.Int32(nullable=True, description="Shortest way down from a root; null without tree number")


class MeshChange(dy.Schema):
    """What became of a descriptor from one MeSH release to another; renamed and moved makes two rows."""

    kind = one_of(
        CHANGE_KINDS, description="added, dropped, renamed, moved to other branches or the head of one"
    )
    descriptor_ui = dy.String(nullable=True, description="Unique identifier; null where a tree file has none")
    name_before = dy.String(nullable=True, description="Preferred name before; null if added")
    name_after = dy.String(nullable=True, description="Preferred name after; null if dropped")
    covered_by = dy.String(
        nullable=True,
        description="What has the name of a dropped descriptor as a term now, or had that of an added one",
    )
    branches_before = dy.List(dy.String(), description="Branches it stood in before")
    branches_after = dy.List(dy.String(), description="Branches it stands in after")
    tree_numbers_before = dy.List(dy.String(), description="Places in the hierarchy before")
    tree_numbers_after = dy.List(dy.String(), description="Places in the hierarchy after")
    citations = dy.Int64(min=0, description="Current citations that carry it as a heading")


class CitationMove(dy.Schema):
    """A current citation whose home branch another MeSH release changes, or that begins or ends waiting."""

    pmid = dy.Int64(primary_key=True, min=1, description="PubMed identifier")
    from_branch = dy.String(nullable=True, description="Home branch before; null if it waited")
    to_branch = dy.String(nullable=True, description="Home branch after; null if it will wait")
    waiting = dy.String(nullable=True, description="Why it will have no home branch")
