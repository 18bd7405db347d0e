"""The MeSH stage: the release as NLM publishes it, its descriptors, how much each says, another year."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from mkailin_assets.mesh.descriptors import read_descriptors, read_tree_file
from mkailin_assets.mesh.hierarchy import (
    MeshHierarchy,
    count_annotations,
    current_headings,
    information_content,
    snapshot,
)
from mkailin_assets.mesh.migration import (
    Release,
    branch_flows,
    branches_of,
    current_headings_by_file,
    migrate,
    moved_within_branches,
    years_compared,
)
from mkailin_assets.mesh.tables import (
    CHANGE_KINDS,
    CitationMove,
    MeshChange,
    MeshDescriptor,
    MeshInformationContent,
    MeshRelease,
)
from mkailin_assets.metadata import bars, counts, histogram, preview, share_at_most
from mkailin_assets.partitions import ALL_PARTITIONS, MESH_BRANCH_NAMES
from mkailin_assets.pubmed.tables import CurrentCitation
from mkailin_assets.tables import table
from mkailin_resources.nlm import NlmServers
from mkailin_resources.storage import Storage

_MOST_UNKNOWN = 0.05
_NAMED_UNKNOWN = 10
_SHOWN = 20


class MigrationConfig(dg.Config):
    """Which two years are compared; one of them is the release in use."""

    from_year: int | None = Field(None, description="Year before; the release in use if not given")
    to_year: int | None = Field(
        None, description="Year after; if neither is given, the newest that NLM's server lists"
    )


@dg.asset(**table(MeshRelease), group_name="mesh", kinds={"xml"}, code_version="1")
def mesh_release(
    context: dg.AssetExecutionContext, nlm: NlmServers, storage: Storage
) -> dg.Output[pl.DataFrame]:
    """NLM's descriptor file of one year, fetched, checked, kept as it came."""
    fetched = nlm.fetch_mesh(storage, context.log)
    release = pl.DataFrame(
        [(nlm.mesh_year, fetched.name, fetched.url, fetched.uri, fetched.bytes, fetched.sha256)],
        schema=MeshRelease.create_empty().schema,
        orient="row",
    )
    return dg.Output(
        release, metadata={"url": dg.MetadataValue.url(fetched.url), "preview": preview(release)}
    )


@dg.asset(**table(MeshDescriptor), group_name="mesh", kinds={"lxml", "polars"}, code_version="1")
def mesh_descriptors(mesh_release: pl.DataFrame, storage: Storage) -> dg.Output[pl.DataFrame]:
    """Parsed MeSH: a row per descriptor of the release."""
    release = mesh_release.row(0, named=True)
    started = time.monotonic()
    with storage.open(release["uri"]) as file:
        descriptors = read_descriptors(file, release["name"], release["year"])
    return dg.Output(
        descriptors, metadata={"seconds": time.monotonic() - started, **_descriptor_metadata(descriptors)}
    )


class SnapshotConfig(dg.Config):
    """When information content is counted anew for what is made from it."""

    most_drift: float = Field(
        0.1,
        ge=0,
        description="The snapshot is kept while the number of citations differs by at most this share from "
        "when it was taken: were it renewed with each update, every preference would change. 0 renews it",
    )


@dg.asset(
    **table(MeshInformationContent),
    group_name="mesh",
    kinds={"numba", "polars"},
    code_version="2",
    ins={"pubmed_citations": ALL_PARTITIONS},
    check_specs=[
        dg.AssetCheckSpec(
            "headings_are_known",
            asset="mesh_information_content",
            description="At most 5% of the headings of current citations are unknown to the release in use.",
        )
    ],
)
def mesh_information_content(
    mesh_descriptors: pl.DataFrame,
    current_citations: pl.DataFrame,
    pubmed_citations: dict[str, pl.LazyFrame],
    storage: Storage,
    config: SnapshotConfig,
) -> Iterator[dg.Output[pl.DataFrame] | dg.AssetCheckResult]:
    """How much each descriptor says, counted over the current citations and over the tree itself.

    A snapshot, renewed when the release changed or the corpus has grown or shrunk by more than a tenth.
    """
    started = time.monotonic()
    hierarchy = MeshHierarchy.from_descriptors(mesh_descriptors)
    counted = count_annotations(hierarchy, current_headings(current_citations, pubmed_citations))
    content = information_content(mesh_descriptors, hierarchy, counted)
    used = snapshot(storage.read_table("mesh_information_content"), content, config.most_drift)
    metadata = {
        "seconds": time.monotonic() - started,
        "files": len(pubmed_citations),
        "snapshot": "renewed" if used is content else "kept",
        "citations_counted": counted.citations,
        "citations_of_snapshot": used.item(0, "all_citations") if used.height else 0,
        "citations_without_known_heading": counted.without_headings,
        "headings_not_in_release": _most_frequent(counted.unknown),
        **_content_metadata(used),
    }
    yield dg.Output(used, metadata=metadata)
    unknown = sum(counted.unknown.values())
    yield share_at_most(
        unknown, counted.headings, _MOST_UNKNOWN, "headings are unknown to the release", "headings_are_known"
    )


@dg.multi_asset(
    outs={
        "mesh_migration": dg.AssetOut(
            **table(MeshChange),
            description="What another year of MeSH adds, drops, renames and moves, to read before a rebuild.",
            group_name="mesh",
            kinds={"polars"},
            code_version="1",
        ),
        "citation_moves": dg.AssetOut(
            **table(CitationMove),
            description="The current citations whose home branch another year of MeSH would change.",
            group_name="mesh",
            kinds={"polars"},
            code_version="1",
        ),
    },
    # Read from storage where they are there: an input that is missing fails the run.
    deps=[
        "current_citations",
        dg.AssetDep("pubmed_citations", partition_mapping=dg.AllPartitionMapping()),
    ],
)
def migration_report(
    context: dg.AssetExecutionContext,
    mesh_descriptors: pl.DataFrame,
    nlm: NlmServers,
    storage: Storage,
    config: MigrationConfig,
) -> Iterator[dg.Output[pl.DataFrame]]:
    """The release in use beside that of another year, and what that means for the citations there are."""
    started = time.monotonic()
    before, after = _releases(context, mesh_descriptors, nlm, storage, config)
    current, files = _citations_there_are(storage)
    if current.is_empty():
        context.log.warning("there are no current citations yet: the report is about the tree alone")
    migration = migrate(before, after, current_headings_by_file(current, files))
    about: dict[str, Any] = {
        "compared": f"{before.year} to {after.year}",
        "seconds": time.monotonic() - started,
        "citations": migration.citations,
    }
    changed = _change_metadata(migration.changes, before, after)
    yield dg.Output(migration.changes, "mesh_migration", metadata=about | changed)
    yield dg.Output(migration.moves, "citation_moves", metadata=about | _move_metadata(migration.moves))


def _releases(
    context: dg.AssetExecutionContext,
    in_use: pl.DataFrame,
    nlm: NlmServers,
    storage: Storage,
    config: MigrationConfig,
) -> list[Release]:
    """The releases before and after; that which is not in use is fetched."""
    year_in_use = int(in_use.item(0, "release_year"))
    newest = max([year_in_use, *nlm.mesh_years()])
    years = years_compared(year_in_use, newest, config.from_year, config.to_year)
    if years == (year_in_use, year_in_use):
        context.log.warning(f"NLM's server lists no MeSH after {year_in_use}: there is nothing to move to")
    return [
        Release(in_use) if year == year_in_use else _other_release(context, year, in_use, nlm, storage)
        for year in years
    ]


def _other_release(
    context: dg.AssetExecutionContext, year: int, in_use: pl.DataFrame, nlm: NlmServers, storage: Storage
) -> Release:
    """From NLM's descriptors of that year or, where there are none, from its tree file."""
    fetched = nlm.fetch_mesh_of(storage, context.log, year)
    with storage.open(fetched.uri) as file:
        if fetched.name.startswith("desc"):
            return Release(read_descriptors(file, fetched.name, year))
        context.log.warning(
            f"NLM's server has no descriptors of {year}: {fetched.name} is compared by name, and takes "
            "identifiers and entry terms from the release in use"
        )
        return Release.of_tree_file(read_tree_file(file, fetched.name), year, in_use)


def _citations_there_are(storage: Storage) -> tuple[pl.DataFrame, dict[str, pl.LazyFrame]]:
    """Where each citation is, and the PubmedRecord tables they are in; empty before there are any."""
    states = storage.scan_table("current_citations")
    if states is None:
        return CurrentCitation.create_empty(), {}
    current = states.select("pmid", "state", "pubmed_file", "position").collect()
    scanned = {key: storage.scan_table("pubmed_citations", key) for key in current["pubmed_file"].unique()}
    return current, {key: records for key, records in scanned.items() if records is not None}


def _descriptor_metadata(descriptors: pl.DataFrame) -> dict[str, Any]:
    branches = pl.col("tree_numbers").list.eval(pl.element().str.split(".").list.first()).list.unique()
    sizes = dict(
        descriptors.select(branch=branches)
        .explode("branch", empty_as_null=False)["branch"]
        .value_counts(sort=True)
        .head(20)
        .iter_rows()
    )
    names = {f"{branch} {MESH_BRANCH_NAMES.get(branch, '')}": size for branch, size in sizes.items()}
    places = descriptors["tree_numbers"].list.len()
    return {
        "release_year": descriptors.item(0, "release_year"),
        "tree_numbers": int(places.sum()),
        "in_several_places": int((places > 1).sum()),
        "without_tree_number": descriptors.filter(places == 0)["name"].to_list(),
        "largest_branches": bars("Descriptors under a branch (the 20 largest)", names),
        "preview": preview(descriptors.select("descriptor_ui", "name", "tree_numbers", "entry_terms")),
    }


def _content_metadata(content: pl.DataFrame) -> dict[str, Any]:
    used = content.filter(pl.col("citations") > 0)
    return {
        "descriptors_used": used.height,
        "ic": histogram("Corpus IC of the descriptors in use", used["corpus_ic"].to_list(), "normalised IC"),
        "preview": preview(content.sort("citations", descending=True), rows=10),
    }


def _change_metadata(changes: pl.DataFrame, before: Release, after: Release) -> dict[str, Any]:
    kinds = {kind: changes.filter(kind=kind).height for kind in CHANGE_KINDS}
    earlier, later = branches_of(before), branches_of(after)
    ends = pl.col("branches_before", "branches_after").list.join(" ")
    moves = changes.filter(kind="moved").group_by(ends).agg(descriptors=pl.len())
    most = ("citations", "kind", "name_before", "name_after", "branches_before", "branches_after")
    renamed = changes.filter(kind="renamed").select("name_before", "name_after", "citations")
    dropped = changes.filter(kind="dropped").select("name_before", "covered_by", "citations")
    return {
        **kinds,
        "moved_within_branches": moved_within_branches(before, after),
        "branches_that_appear": _lacking(later, earlier),
        "branches_that_disappear": _lacking(earlier, later),
        "branches_without_partition": _lacking(later, MESH_BRANCH_NAMES),
        "partitions_without_branch": _lacking(MESH_BRANCH_NAMES, later),
        "what_became_of_descriptors": bars("Descriptors by what became of them", kinds),
        "descriptors_moved": preview(moves.sort("descriptors", *moves.columns[:2], descending=True), _SHOWN),
        "most_cited": preview(changes.sort("citations", descending=True).select(most), _SHOWN),
        "renamed_descriptors": preview(renamed, _SHOWN),
        "dropped_descriptors": preview(dropped, _SHOWN),
    }


def _lacking(branches: Mapping[str, str], others: Mapping[str, str]) -> list[str]:
    return [f"{branch} {name}" for branch, name in branches.items() if branch not in others]


def _move_metadata(moves: pl.DataFrame) -> dict[str, Any]:
    begin = moves.filter(pl.col("to_branch").is_null())
    end = moves.filter(pl.col("from_branch").is_null())
    flows = branch_flows(moves)
    largest = flows.head(_SHOWN).select(
        pl.concat_str("from_branch", "to_branch", separator=" to "), "citations"
    )
    return {
        "move_to_another_branch": moves.height - begin.height - end.height,
        "begin_to_wait": counts(begin, "waiting"),
        "end_waiting": end.height,
        "from_branch_to_branch": preview(flows, rows=flows.height),
        "largest_moves": bars(f"Citations that move (the {_SHOWN} largest flows)", dict(largest.iter_rows())),
        "preview": preview(moves, _SHOWN),
    }


def _most_frequent(mentions: Mapping[str, int]) -> dict[str, int]:
    ranked = sorted(mentions.items(), key=lambda mention: (-mention[1], mention[0]))
    shown = dict(ranked[:_NAMED_UNKNOWN])
    rest = sum(times for _, times in ranked[_NAMED_UNKNOWN:])
    return {**shown, "(others)": rest} if rest else shown
