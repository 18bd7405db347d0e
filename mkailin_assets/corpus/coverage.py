"""How the corpus covers the MeSH tree, beside PubMed itself, and what could fill its gaps."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from mkailin_assets.corpus.tables import COVERAGE_LEVELS, CoverageGap, MeshCoverage
from mkailin_assets.mesh.hierarchy import (
    CHECK_TAGS,
    AnnotationCounts,
    MeshHierarchy,
    count_annotations,
    heading_key,
)

# A gap is left out where descriptors right below it lack this share of what it lacks: they say where.
_EXPLAINED = 0.9
_PMIDS = 10
_NOTHING_FOUND = pl.DataFrame(
    schema={
        "descriptor_ui": pl.String,
        "fillable": pl.Int64,
        "pmids": pl.List(pl.Int64),
        "home_branch": pl.String,
    }
)
_PLACES = (
    pl.col("tree_numbers").str.extract(r"^[^.]+", 0),
    pl.col("tree_numbers").str.extract(r"^[^.]+\.[^.]+", 0),
    pl.col("depth").cast(pl.String),
)


@dataclass(frozen=True)
class Coverage:
    """The corpus beside PubMed."""

    places: pl.DataFrame
    """Table MeshCoverage: branches, subtrees, depths, each in the order of the tree."""
    gaps: pl.DataFrame
    """Table CoverageGap, the largest first."""
    gaps_in_all: int
    """How many gaps there are, listed or not."""
    sources: AnnotationCounts
    """What the headings of the corpus' citations add up to; those unknown to the release are named."""
    not_gathered: int
    """Citations of the corpus that no branch holds any longer: they are in no count by headings."""


def mesh_coverage(
    corpus: pl.LazyFrame | pl.DataFrame,
    current_citations: pl.LazyFrame | pl.DataFrame,
    *,
    branch_citations: Mapping[str, pl.LazyFrame],
    evaluated: Mapping[str, pl.LazyFrame],
    descriptors: pl.DataFrame,
    information_content: pl.DataFrame,
    branches: Mapping[str, str],
    most_gaps: int = 500,
) -> Coverage:
    """How the corpus covers the tree, and its gaps, of which at most `most_gaps` are listed.

    Takes pmid and branch of TrainingExample; CurrentCitation; pmid and headings of BranchCitation, and pmid
    of EvaluatedQA, by branch; MeshDescriptor; MeshInformationContent; the names of the branches, each of
    which has a row. A branch that is not among them has a row without a name. Memory is some bytes for each
    current citation, and the headings of one branch.
    """
    hierarchy = MeshHierarchy.from_descriptors(descriptors)
    made = corpus.lazy().group_by("branch", "pmid").agg(examples=pl.len()).collect(engine="streaming")
    sources = made["pmid"].unique()
    homes = _homes(current_citations.lazy(), sources, evaluated)
    counts = count_annotations(hierarchy, _headings_of(sources, branch_citations))
    annotated = _annotated(descriptors, information_content, hierarchy, counts)
    in_pubmed = information_content.item(0, "all_citations") if information_content.height else 0
    by_heading = _by_heading(annotated)
    places = pl.concat(
        [
            _with_shares(_by_home(made, homes, by_heading, evaluated, branches)),
            _with_shares(_subtrees(by_heading, annotated), in_pubmed, counts.citations),
            _with_shares(by_heading.filter(level="depth").sort(pl.col("place").cast(pl.Int32))),
        ],
        how="diagonal_relaxed",
    )
    gaps = _gaps(annotated, in_pubmed, counts.citations)
    filled = _with_fillers(gaps.head(most_gaps), hierarchy, branch_citations, homes)
    return Coverage(
        MeshCoverage.validate(places.select(MeshCoverage.create_empty().columns), cast=True),
        CoverageGap.validate(filled.select(CoverageGap.create_empty().columns), cast=True),
        gaps.height,
        counts,
        sources.len() - counts.citations - counts.without_headings,
    )


def thinnest(coverage: pl.DataFrame, at_most: int) -> list[str]:
    """The branches that a backfill should take next, of table MeshCoverage.

    They hold citations that no pair was made of yet, and have less of the corpus than of PubMed. Those never
    distilled come first, then those that fall short by the larger share.
    """
    short = pl.col("share_of_pubmed") - pl.col("share_of_corpus")
    worth = coverage.filter(pl.col("name").is_not_null(), pl.col("untried") > 0, short > 0, level="branch")
    return worth.sort("is_distilled", -short, "place").head(at_most)["place"].to_list()


def _homes(current: pl.LazyFrame, sources: pl.Series, evaluated: Mapping[str, pl.LazyFrame]) -> pl.DataFrame:
    """Where each current citation with an abstract is at home; whether it is in the corpus, and was tried."""
    no_pairs = pl.LazyFrame(schema={"pmid": pl.Int64})
    tried = pl.concat([no_pairs, *(pairs.select("pmid") for pairs in evaluated.values())]).unique()
    return (
        current.filter(pl.col("state") == "current", "has_abstract", pl.col("home_branch").is_not_null())
        # As categories: there may be millions of rows.
        .select("pmid", branch=pl.col("home_branch").cast(pl.Categorical))
        .join(sources.to_frame().lazy().with_columns(in_corpus=True), on="pmid", how="left")
        .join(tried.with_columns(tried=True), on="pmid", how="left")
        .with_columns(pl.col("in_corpus", "tried").fill_null(False))
        .collect(engine="streaming")
    )


def _headings_of(sources: pl.Series, branch_citations: Mapping[str, pl.LazyFrame]) -> Iterator[pl.Series]:
    """Headings of the corpus' citations, a branch at a time; each once, though it stand in two branches."""
    waiting = sources.to_frame()
    for citations in branch_citations.values():
        found = (
            citations.select("pmid", pl.col("headings").list.eval(heading_key()))
            .join(waiting.lazy(), on="pmid", how="semi")
            .collect(engine="streaming")
        )
        waiting = waiting.join(found, on="pmid", how="anti")
        yield found["headings"]


def _annotated(
    descriptors: pl.DataFrame, content: pl.DataFrame, hierarchy: MeshHierarchy, counts: AnnotationCounts
) -> pl.DataFrame:
    """Each descriptor with its depth, and the citations of PubMed and of the corpus under it."""
    uis = descriptors["descriptor_ui"].to_list()
    of_pubmed = content.select("descriptor_ui", pubmed_citations="citations")
    return (
        descriptors.select("descriptor_ui", "name", "tree_numbers")
        .with_columns(
            pl.Series("depth", [hierarchy.depth(ui) for ui in uis], pl.Int32),
            pl.Series("citations", [counts.by_descriptor[ui] for ui in uis], pl.Int64),
        )
        .join(of_pubmed, on="descriptor_ui", how="left", maintain_order="left")
        .with_columns(pl.col("pubmed_citations").fill_null(0))
    )


def _by_heading(annotated: pl.DataFrame) -> pl.DataFrame:
    """What the descriptors of each place in the tree add up to; one in several places counts in each."""
    counted = ("descriptor_ui", "pubmed_citations", "citations")
    numbers = annotated.explode("tree_numbers", empty_as_null=False)
    standing = [
        numbers.select(pl.lit(level).alias("level"), place.alias("place"), *counted)
        for level, place in zip(COVERAGE_LEVELS, _PLACES, strict=True)
    ]
    return (
        pl.concat(standing)
        .drop_nulls("place")
        .unique(["level", "place", "descriptor_ui"])
        .group_by("level", "place")
        .agg(
            pl.col("pubmed_citations", "citations").sum(),
            descriptors=pl.len(),
            pubmed_descriptors=(pl.col("pubmed_citations") > 0).sum(),
            corpus_descriptors=(pl.col("citations") > 0).sum(),
        )
    )


def _by_home(
    made: pl.DataFrame,
    homes: pl.DataFrame,
    by_heading: pl.DataFrame,
    evaluated: Mapping[str, pl.LazyFrame],
    branches: Mapping[str, str],
) -> pl.DataFrame:
    """Rows of the branches: those there should be, and any that a citation or a descriptor is in."""
    lacking = ~pl.col("in_corpus")
    of_pubmed = (
        homes.group_by(place="branch")
        .agg(pubmed_citations=pl.len(), fillable=lacking.sum(), untried=(lacking & ~pl.col("tried")).sum())
        .with_columns(pl.col("place").cast(pl.String))
    )
    of_corpus = made.group_by(place="branch").agg(citations=pl.len(), examples=pl.col("examples").sum())
    descriptors = by_heading.filter(level="branch").drop("level", "pubmed_citations", "citations")
    rows = pl.DataFrame({"place": list(branches), "name": list(branches.values())})
    for counted in (of_pubmed, of_corpus, descriptors):
        rows = rows.join(counted, on="place", how="full", coalesce=True)
    return rows.with_columns(
        pl.col(pl.UInt32, pl.Int64).fill_null(0),
        level=pl.lit("branch"),
        is_distilled=pl.col("place").is_in(list(evaluated)),
    ).sort("place")


def _subtrees(by_heading: pl.DataFrame, annotated: pl.DataFrame) -> pl.DataFrame:
    """Rows of the subtrees, with the citations under the head of each."""
    counted = ("pubmed_citations", "citations")
    heads = annotated.explode("tree_numbers").select("name", *counted, place="tree_numbers")
    rows = by_heading.filter(level="subtree").drop(counted)
    with_heads = rows.join(heads, on="place", how="left")
    return with_heads.with_columns(pl.col(counted).fill_null(0)).sort("place")


def _with_shares(
    rows: pl.DataFrame, of_pubmed: int | None = None, of_corpus: int | None = None
) -> pl.DataFrame:
    """With the shares of so many citations, or else of all that these rows have, and their ratio."""
    pubmed = max(rows["pubmed_citations"].sum() if of_pubmed is None else of_pubmed, 1)
    corpus = max(rows["citations"].sum() if of_corpus is None else of_corpus, 1)
    ours, theirs = pl.col("citations") / corpus, pl.col("pubmed_citations") / pubmed
    return rows.with_columns(
        share_of_pubmed=theirs, share_of_corpus=ours, ratio=pl.when(theirs > 0).then(ours / theirs)
    )


def _gaps(annotated: pl.DataFrame, in_pubmed: int, in_corpus: int) -> pl.DataFrame:
    """Descriptors at least one citation short whose own gap it is, the largest first."""
    expected = pl.col("pubmed_citations") * in_corpus / max(in_pubmed, 1)
    short = annotated.with_columns(expected=expected, missing=expected - pl.col("citations")).filter(
        pl.col("missing") >= 1
    )
    numbers = short.explode("tree_numbers", empty_as_null=False)
    above = pl.col("tree_numbers").str.extract(r"^(.+)\.[^.]+$")
    parents = numbers.select(parent="descriptor_ui", above="tree_numbers")
    below = (
        numbers.with_columns(above=above)
        .join(parents, on="above")
        .unique(["parent", "descriptor_ui"])
        .group_by(descriptor_ui="parent")
        .agg(explained=pl.col("missing").sum())
    )
    return (
        short.join(below, on="descriptor_ui", how="left")
        .filter(pl.col("explained").fill_null(0) < _EXPLAINED * pl.col("missing"))
        # After the others: what is above a check tag may lack what the tag lacks.
        .filter(~pl.col("descriptor_ui").is_in(list(CHECK_TAGS)))
        .sort("missing", "descriptor_ui", descending=[True, False])
        .rename({"citations": "corpus_citations"})
    )


def _with_fillers(
    gaps: pl.DataFrame,
    hierarchy: MeshHierarchy,
    branch_citations: Mapping[str, pl.LazyFrame],
    homes: pl.DataFrame,
) -> pl.DataFrame:
    """With the citations that could fill each gap, as far as their branches are gathered."""
    uis = gaps["descriptor_ui"].to_list()
    under = _headings_under(uis, hierarchy)
    lacking = ~pl.col("in_corpus")
    found = [_NOTHING_FOUND]
    for branch, citations in branch_citations.items():
        at_home = homes.filter(lacking, pl.col("branch") == branch).select("pmid", "tried")
        found.append(_fillers(citations, at_home, under).with_columns(home_branch=pl.lit(branch)))
    fillers = (
        pl.concat(found, how="diagonal_relaxed")
        .sort("fillable", "home_branch", descending=[True, False])
        .group_by("descriptor_ui", maintain_order=True)
        .agg(pl.col("fillable").sum(), pl.col("home_branch").first(), pl.col("pmids").explode().head(_PMIDS))
    )
    sizes = homes.group_by("branch").agg(lacking.sum()).iter_rows()
    ungathered = {branch: size for branch, size in sizes if size and branch not in branch_citations}
    branches = [hierarchy.branches(ui) for ui in uis]
    hints = [max(ungathered.keys() & own, key=lambda b: (ungathered[b], b), default=None) for own in branches]
    return (
        gaps.with_columns(
            pl.Series("branches", branches, pl.List(pl.String)), pl.Series("hint", hints, pl.String)
        )
        .join(fillers, on="descriptor_ui", how="left", maintain_order="left")
        .with_columns(
            pl.col("fillable").fill_null(0),
            pl.coalesce("home_branch", "hint"),
            pl.col("pmids").fill_null([]),
        )
    )


def _headings_under(uis: list[str], hierarchy: MeshHierarchy) -> pl.DataFrame:
    """Each heading, by UI or by name, that is one of these descriptors or under it; a row for each."""
    wanted = frozenset(uis)
    above = {ui: sorted(hierarchy.ancestors(ui) & wanted) for ui in hierarchy.uis}
    known = {**hierarchy.names, **{ui: ui for ui in hierarchy.uis}}
    gaps = pl.Series("descriptor_ui", [above[ui] for ui in known.values()], pl.List(pl.String))
    headings = pl.Series("heading", list(known), pl.String)
    return pl.DataFrame([headings, gaps]).explode("descriptor_ui", empty_as_null=False)


def _fillers(citations: pl.LazyFrame, at_home: pl.DataFrame, under: pl.DataFrame) -> pl.DataFrame:
    """Of a branch: for each gap how many of the citations `at_home` are under it, and the first of them."""
    return (
        citations.select("pmid", heading=pl.col("headings").list.eval(heading_key()))
        .join(at_home.lazy(), on="pmid")
        .explode("heading", empty_as_null=False, keep_nulls=False)
        .join(under.lazy(), on="heading")
        .select("pmid", "tried", "descriptor_ui")
        .unique()
        .group_by("descriptor_ui")
        .agg(fillable=pl.len(), pmids=pl.col("pmid").sort_by("tried", -pl.col("pmid")).head(_PMIDS))
        .collect(engine="streaming")
    )
