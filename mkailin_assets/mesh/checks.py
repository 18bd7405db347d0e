"""What must hold of the MeSH tables; each rule is a pure function beside its check."""

import re
from collections.abc import Sequence
from typing import BinaryIO

import dagster as dg
import numpy as np
import polars as pl

from mkailin_assets.mesh.assets import mesh_descriptors, mesh_information_content, mesh_release
from mkailin_assets.mesh.descriptors import read_tree_file, tree_differences, unpacked
from mkailin_assets.mesh.hierarchy import MeshHierarchy
from mkailin_assets.metadata import share_at_most
from mkailin_assets.partitions import MESH_BRANCH_NAMES
from mkailin_resources.nlm import NlmError, NlmServers
from mkailin_resources.storage import Storage

_NAMED = 20
# Where more would move, a person should know before a rebuild.
_USUAL_SHARE_MOVING = 0.1
_YEAR = re.compile(r"(?:desc|nlmdescriptorrecordset_)((?:19|20)\d\d)")


@dg.asset_check(asset=mesh_release)
def release_is_of_its_year(mesh_release: pl.DataFrame, storage: Storage) -> dg.AssetCheckResult:
    """The file that is kept is not empty, and of the year it was fetched for."""
    release = mesh_release.row(0, named=True)
    with storage.open(release["uri"]) as file:
        fault = release_fault(release["name"], opening(file), release["year"])
    return dg.AssetCheckResult(passed=fault is None, description=fault)


def opening(file: BinaryIO) -> str:
    """The first characters of a plain or gzipped file."""
    return unpacked(file).read(1000).decode("utf-8", errors="replace")


def release_fault(name: str, opening: str, year: int) -> str | None:
    """What is wrong with a descriptor file that opens so; its DTD names the year, else its own name does."""
    if not opening.strip():
        return f"{name} is empty"
    stated = _YEAR.search(opening) or _YEAR.search(name)
    if stated is None:
        return f"{name} does not say of which year it is"
    return None if int(stated[1]) == year else f"{name} is of {stated[1]}, not of {year}"


@dg.asset_check(asset=mesh_descriptors)
def tree_is_whole(mesh_descriptors: pl.DataFrame) -> dg.AssetCheckResult:
    """The parent of every tree number is there."""
    return _nothing_in(orphans(mesh_descriptors), "tree numbers without parent")


def orphans(descriptors: pl.DataFrame) -> list[str]:
    """Tree numbers, sorted, whose parent no descriptor has."""
    numbers = set(descriptors["tree_numbers"].explode(empty_as_null=False))
    return sorted(number for number in numbers if "." in number and number.rpartition(".")[0] not in numbers)


@dg.asset_check(asset=mesh_descriptors)
def names_are_unique(mesh_descriptors: pl.DataFrame) -> dg.AssetCheckResult:
    """No two descriptors have one name."""
    return _nothing_in(repeated_names(mesh_descriptors), "names of several descriptors")


def repeated_names(descriptors: pl.DataFrame) -> list[str]:
    """Names, sorted, that more than one descriptor has."""
    return descriptors.filter(pl.col("name").is_duplicated())["name"].unique().sort().to_list()


@dg.asset_check(asset=mesh_descriptors)
def branches_are_the_partitions(mesh_descriptors: pl.DataFrame) -> dg.AssetCheckResult:
    """The release has the branches the lineage is partitioned by."""
    return _nothing_in(branch_changes(mesh_descriptors), "branch changes", dg.AssetCheckSeverity.WARN)


def branch_changes(descriptors: pl.DataFrame) -> list[str]:
    """Branches the release added to those of `partitions.py` or dropped, each in words."""
    roots = descriptors.explode("tree_numbers", empty_as_null=False).filter(
        ~pl.col("tree_numbers").str.contains(".", literal=True)
    )
    found = dict(roots.select("tree_numbers", "name").sort("tree_numbers").iter_rows())
    return [f"added {branch} {name}" for branch, name in found.items() if branch not in MESH_BRANCH_NAMES] + [
        f"dropped {branch} {name}" for branch, name in MESH_BRANCH_NAMES.items() if branch not in found
    ]


@dg.asset_check(asset=mesh_descriptors)
def agrees_with_tree_file(
    context: dg.AssetCheckExecutionContext,
    mesh_descriptors: pl.DataFrame,
    nlm: NlmServers,
    storage: Storage,
) -> dg.AssetCheckResult:
    """NLM's tree file of the year, where it is published, places the same names at the same tree numbers."""
    try:
        kept = nlm.fetch_tree_file(storage, context.log)
    except NlmError as error:  # a second opinion that cannot be had is no reason to fail the run
        return dg.AssetCheckResult(
            passed=False, severity=dg.AssetCheckSeverity.WARN, description=f"no comparison: {error}"
        )
    if kept is None:
        return dg.AssetCheckResult(passed=True, description="NLM's server has no tree file for this year")
    with storage.open(kept.uri) as file:
        differences = tree_differences(mesh_descriptors, read_tree_file(file, kept.name))
    lines = [f"only in descriptors: {place}" for place in differences.only_in_descriptors]
    lines += [f"only in {kept.name}: {place}" for place in differences.only_in_tree_file]
    return _nothing_in(lines, "differences", dg.AssetCheckSeverity.WARN)


@dg.asset_check(
    asset=mesh_information_content, additional_ins={"mesh_descriptors": dg.AssetIn("mesh_descriptors")}
)
def content_grows_downwards(
    mesh_descriptors: pl.DataFrame, mesh_information_content: pl.DataFrame
) -> dg.AssetCheckResult:
    """No descriptor says more than one below it, by the corpus or by the tree."""
    hierarchy = MeshHierarchy.from_descriptors(mesh_descriptors)
    return _nothing_in(not_monotone(hierarchy, mesh_information_content), "ancestors above a descendant")


def not_monotone(hierarchy: MeshHierarchy, content: pl.DataFrame) -> list[str]:
    """Each descriptor with an ancestor of higher IC, and which IC, in words."""
    owners = np.repeat(np.arange(len(hierarchy)), np.diff(hierarchy.ancestor_starts))
    lines = []
    for column in ("corpus_ic", "intrinsic_ic"):
        by_ui = dict(content.select("descriptor_ui", column).iter_rows())
        ic = np.array([by_ui[ui] for ui in hierarchy.uis])
        for place in np.flatnonzero(ic[hierarchy.ancestor_positions] > ic[owners]):
            low, high = owners[place], hierarchy.ancestor_positions[place]
            lines.append(f"{column} of {hierarchy.uis[high]} is above that of {hierarchy.uis[low]} below it")
    return lines


@dg.asset_check(asset=mesh_information_content)
def citations_were_counted(mesh_information_content: pl.DataFrame) -> dg.AssetCheckResult:
    """At least one citation stands behind the corpus IC."""
    counted = citations_counted(mesh_information_content)
    return dg.AssetCheckResult(passed=counted > 0, metadata={"citations": counted})


def citations_counted(content: pl.DataFrame) -> int:
    """N of a MeshInformationContent table; 0 for an empty one."""
    return content.select(pl.col("all_citations").max().fill_null(0)).item()


@dg.asset_check(asset="mesh_migration")
def branches_stay_the_partitions(mesh_migration: pl.DataFrame) -> dg.AssetCheckResult:
    """The year compared to neither adds a branch to those the lineage is partitioned by nor drops one."""
    return _nothing_in(heads_changed(mesh_migration), "branch changes", dg.AssetCheckSeverity.WARN)


def heads_changed(changes: pl.DataFrame) -> list[str]:
    """Branches that table MeshChange adds to those of `partitions.py` or takes from them, each in words.

    The head of a branch is in the table where it is another descriptor than before.
    """
    before, after = (
        {number for number in changes[column].explode(empty_as_null=False) if "." not in number}
        for column in ("tree_numbers_before", "tree_numbers_after")
    )
    return [f"added {branch}" for branch in sorted(after - before - MESH_BRANCH_NAMES.keys())] + [
        f"dropped {branch} {MESH_BRANCH_NAMES[branch]}"
        for branch in sorted((before - after) & MESH_BRANCH_NAMES.keys())
    ]


@dg.asset_check(asset="citation_moves")
def few_citations_move(citation_moves: pl.DataFrame, storage: Storage) -> dg.AssetCheckResult:
    """Nine of ten current citations stay in their home branch."""
    states = storage.scan_table("current_citations")
    current = pl.LazyFrame() if states is None else states.filter(pl.col("state") == "current")
    citations = current.select(pl.len()).collect().item()
    moves = "current citations move, or begin or end waiting"
    return share_at_most(citation_moves.height, citations, _USUAL_SHARE_MOVING, moves)


def _nothing_in(
    faults: Sequence[str], kind: str, severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=not faults,
        severity=severity,
        description=f"{len(faults)} {kind}: {'; '.join(faults[:_NAMED])}" if faults else None,
        metadata={"found": len(faults)},
    )
