"""The MeSH stage: the release as NLM publishes it, its descriptors, and how much each says."""

import time
from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl

from mkailin_assets.mesh.descriptors import read_descriptors
from mkailin_assets.mesh.hierarchy import (
    MeshHierarchy,
    count_annotations,
    current_headings,
    information_content,
)
from mkailin_assets.mesh.tables import MeshDescriptor, MeshInformationContent, MeshRelease
from mkailin_assets.metadata import bars, histogram, preview
from mkailin_assets.partitions import ALL_PARTITIONS, MESH_BRANCH_NAMES
from mkailin_assets.tables import table
from mkailin_resources.nlm import NlmServers
from mkailin_resources.storage import Storage

_NAMED_UNKNOWN = 10


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


@dg.asset(
    **table(MeshInformationContent),
    group_name="mesh",
    kinds={"numba", "polars"},
    code_version="1",
    ins={"pubmed_citations": ALL_PARTITIONS},
)
def mesh_information_content(
    mesh_descriptors: pl.DataFrame,
    current_citations: pl.DataFrame,
    pubmed_citations: dict[str, pl.LazyFrame],
) -> dg.Output[pl.DataFrame]:
    """How much each descriptor says, counted over the current citations and over the tree itself."""
    started = time.monotonic()
    hierarchy = MeshHierarchy.from_descriptors(mesh_descriptors)
    counted = count_annotations(hierarchy, current_headings(current_citations, pubmed_citations))
    content = information_content(mesh_descriptors, hierarchy, counted)
    metadata = {
        "seconds": time.monotonic() - started,
        "files": len(pubmed_citations),
        "citations_counted": counted.citations,
        "citations_without_known_heading": counted.without_headings,
        "headings_not_in_release": _most_frequent(counted.unknown),
        **_content_metadata(content),
    }
    return dg.Output(content, metadata=metadata)


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


def _most_frequent(mentions: Mapping[str, int]) -> dict[str, int]:
    ranked = sorted(mentions.items(), key=lambda mention: (-mention[1], mention[0]))
    shown = dict(ranked[:_NAMED_UNKNOWN])
    rest = sum(times for _, times in ranked[_NAMED_UNKNOWN:])
    return {**shown, "(others)": rest} if rest else shown
