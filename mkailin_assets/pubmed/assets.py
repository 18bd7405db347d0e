"""The PubMed stage: NLM's files as they came, their citations, the latest state of each, their branches."""

import time
from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl

from mkailin_assets.mesh.hierarchy import MeshHierarchy
from mkailin_assets.metadata import bars, counts, preview
from mkailin_assets.partitions import ALL_PARTITIONS, mesh_branches, pubmed_files
from mkailin_assets.pubmed.branches import citations_of_branches
from mkailin_assets.pubmed.citations import read_pubmed_file
from mkailin_assets.pubmed.current import resolve
from mkailin_assets.pubmed.home_branch import HomeBranches
from mkailin_assets.pubmed.tables import BranchCitation, CurrentCitation, PubmedRecord, RawPubmed
from mkailin_assets.tables import table
from mkailin_resources.nlm import NlmServers
from mkailin_resources.storage import Storage


@dg.asset(
    **table(RawPubmed), partitions_def=pubmed_files, group_name="pubmed", kinds={"xml"}, code_version="1"
)
def raw_pubmed(
    context: dg.AssetExecutionContext, nlm: NlmServers, storage: Storage
) -> dg.Output[pl.DataFrame]:
    """NLM's PubMed file as it came, MD5 verified."""
    key = context.partition_key
    fetched = nlm.fetch_pubmed(storage, key, context.log)
    raw = pl.DataFrame(
        [(key, fetched.directory, fetched.url, fetched.uri, fetched.bytes, fetched.md5)],
        schema=RawPubmed.create_empty().schema,
        orient="row",
    )
    return dg.Output(raw, metadata={"url": dg.MetadataValue.url(fetched.url), "preview": preview(raw)})


@dg.asset(
    **table(PubmedRecord),
    partitions_def=pubmed_files,
    group_name="pubmed",
    kinds={"lxml", "polars"},
    code_version="1",
)
def pubmed_citations(raw_pubmed: pl.DataFrame, storage: Storage) -> dg.Output[pl.DataFrame]:
    """Parsed citations of a PubMed file, the PMIDs it deletes, and the records that could not be read."""
    raw = raw_pubmed.row(0, named=True)
    started = time.monotonic()
    with storage.open(raw["uri"]) as file:
        records = read_pubmed_file(file, raw["pubmed_file"])
    seconds = time.monotonic() - started
    speed = {"seconds": seconds, "records_per_second": records.height / seconds}
    return dg.Output(records, metadata=speed | _record_metadata(records))


@dg.asset(
    **table(CurrentCitation),
    group_name="pubmed",
    kinds={"polars"},
    code_version="1",
    ins={"pubmed_citations": ALL_PARTITIONS},
)
def current_citations(
    context: dg.AssetExecutionContext,
    pubmed_citations: dict[str, pl.LazyFrame],
    mesh_descriptors: pl.DataFrame,
) -> dg.Output[pl.DataFrame]:
    """The latest state of every PMID over all files: where it is, deleted, retracted, home branch, hash."""
    started = time.monotonic()
    home = HomeBranches(MeshHierarchy.from_descriptors(mesh_descriptors))
    current = resolve(pubmed_citations, home)
    registered = pubmed_files.get_partition_keys(dynamic_partitions_store=context.instance)
    metadata = {
        "seconds": time.monotonic() - started,
        "files": len(pubmed_citations),
        "files_without_table": sorted(set(registered) - set(pubmed_citations)),
        **_current_metadata(current),
    }
    return dg.Output(current, metadata=metadata)


@dg.asset(
    **table(BranchCitation),
    partitions_def=mesh_branches,
    group_name="pubmed",
    kinds={"polars"},
    code_version="1",
    ins={"pubmed_citations": ALL_PARTITIONS},
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def branch_citations(
    context: dg.AssetExecutionContext,
    pubmed_citations: dict[str, pl.LazyFrame],
    current_citations: pl.DataFrame,
) -> dg.Output[dict[str, pl.DataFrame]]:
    """The citations whose home branch this is, with text; any number of branches in one pass."""
    started = time.monotonic()
    found = citations_of_branches(pubmed_citations, current_citations, context.partition_keys)
    empty = [branch for branch, citations in found.items() if citations.is_empty()]
    if empty:
        context.log.warning(f"no current citation has its home in {', '.join(empty)}")
    return dg.Output(found, metadata={"seconds": time.monotonic() - started, **_branch_metadata(found)})


def _record_metadata(records: pl.DataFrame) -> dict[str, Any]:
    citations = records.filter(pl.col("record") == "citation")
    quarantined = records.filter(pl.col("record") == "quarantined")
    return {
        "records": counts(records, "record"),
        "without_abstract": int((citations["abstract"].list.len() == 0).sum()),
        "without_headings": int((citations["headings"].list.len() == 0).sum()),
        "retracted": int(citations["retracted"].sum()),
        "quarantine": preview(quarantined.select("position", "pmid", "cause", "raw"), rows=10),
        "preview": preview(citations.select("pmid", "title", "year", "journal")),
    }


def _current_metadata(current: pl.DataFrame) -> dict[str, Any]:
    waiting = current.filter(pl.col("waiting").is_not_null())
    homes = counts(current.filter(pl.col("home_branch").is_not_null()), "home_branch")
    return {
        "states": counts(current, "state"),
        "waiting": counts(waiting, "waiting"),
        "current_with_abstract": current.filter(pl.col("state") == "current", "has_abstract").height,
        "branches": len(homes),
        "largest_branches": bars("Current citations by home branch (the 20 largest)", _first(homes, 20)),
        "preview": preview(current),
    }


def _branch_metadata(found: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    sizes = {branch: citations.height for branch, citations in found.items()}
    largest = dict(sorted(sizes.items(), key=lambda size: -size[1]))
    without_abstract = sum(int((citations["abstract"].list.len() == 0).sum()) for citations in found.values())
    example = found[next(iter(largest))]
    return {
        "citations_of_branches": sizes,
        "without_abstract": without_abstract,
        "coverage": bars("Citations by branch (the 20 largest)", _first(largest, 20)),
        "preview": preview(example.select("pmid", "branch", "title", "year", "journal")),
    }


def _first(values: Mapping[str, int], number: int) -> dict[str, int]:
    return dict(list(values.items())[:number])
