"""The PubMed stage: NLM's files as they came, their citations, the latest state of each, their branches."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import polars as pl

from mkailin_assets.mesh.hierarchy import MeshHierarchy
from mkailin_assets.metadata import bars, counts, preview
from mkailin_assets.partitions import ALL_PARTITIONS, mesh_branches, pubmed_files
from mkailin_assets.pubmed.branches import citations_of_branches
from mkailin_assets.pubmed.citations import read_pubmed_file
from mkailin_assets.pubmed.current import RULES, changed_files, quarantined, resolve
from mkailin_assets.pubmed.home_branch import HomeBranches
from mkailin_assets.pubmed.tables import (
    BranchCitation,
    CurrentCitation,
    PubmedRecord,
    QuarantinedRecord,
    RawPubmed,
)
from mkailin_assets.tables import table
from mkailin_resources.eutils import EntrezQuery, FetchedSlice, is_query_key
from mkailin_resources.nlm import FetchedFile, NlmServers
from mkailin_resources.storage import LogUpdate, Storage, latest


@dg.asset(
    **table(RawPubmed), partitions_def=pubmed_files, group_name="pubmed", kinds={"xml"}, code_version="1"
)
def raw_pubmed(
    context: dg.AssetExecutionContext, nlm: NlmServers, entrez: EntrezQuery, storage: Storage
) -> dg.Output[pl.DataFrame]:
    """NLM's PubMed file as it came, MD5 verified; or the citations that a PubMed query found."""
    key = context.partition_key
    source = entrez.fetch if is_query_key(key) else nlm.fetch_pubmed
    fetched = source(storage, key, context.log)
    raw = pl.DataFrame(
        [(key, fetched.directory, fetched.url, fetched.uri, fetched.bytes, fetched.md5)],
        schema=RawPubmed.create_empty().schema,
        orient="row",
    )
    metadata = {"url": dg.MetadataValue.url(fetched.url), "preview": preview(raw)}
    return dg.Output(raw, metadata=metadata | _query_metadata(fetched))


@dg.asset(
    **table(PubmedRecord),
    partitions_def=pubmed_files,
    group_name="pubmed",
    kinds={"numba", "polars"},
    code_version="2",
)
def pubmed_citations(raw_pubmed: pl.DataFrame, storage: Storage) -> dg.Output[pl.DataFrame]:
    """Parsed citations of a PubMed file, the PMIDs it deletes, and the records that could not be read."""
    raw = raw_pubmed.row(0, named=True)
    started = time.monotonic()
    with storage.open(raw["uri"]) as file:
        records = pl.concat(read_pubmed_file(file, raw["pubmed_file"]))
    seconds = time.monotonic() - started
    speed = {"seconds": seconds, "records_per_second": records.height / seconds}
    return dg.Output(records, metadata=speed | _record_metadata(records))


@dg.asset(
    **table(CurrentCitation),
    group_name="pubmed",
    kinds={"polars"},
    code_version=RULES,
    ins={"pubmed_citations": ALL_PARTITIONS},
)
def current_citations(
    context: dg.AssetExecutionContext,
    pubmed_citations: dict[str, pl.LazyFrame],
    mesh_descriptors: pl.DataFrame,
    storage: Storage,
) -> dg.Output[LogUpdate]:
    """The latest state of every PMID over all files: where it is, deleted, retracted, home branch, hash.

    Files that are new since the last time are added; where an earlier one changed or went, all are read.
    """
    started = time.monotonic()
    mesh = storage.published_at("mesh_descriptors", None)
    parsed = storage.partitions_published_at("pubmed_citations")
    present = {key: f"{parsed.get(key)} {mesh} {RULES}" for key in pubmed_citations}
    resolved = storage.log_sources("current_citations")
    changed, is_whole = changed_files(present, resolved)
    home = HomeBranches(MeshHierarchy.from_descriptors(mesh_descriptors))
    said = resolve({key: pubmed_citations[key] for key in changed}, home)
    earlier = None if is_whole else storage.scan_table("current_citations")
    registered = pubmed_files.get_partition_keys(dynamic_partitions_store=context.instance)
    metadata = {
        "seconds": time.monotonic() - started,
        "files": len(pubmed_citations),
        "files_read": len(changed),
        "files_without_table": sorted(set(registered) - set(pubmed_citations)),
        "states_changed": counts(said, "state"),
        **_current_metadata(said.lazy() if earlier is None else latest([earlier, said.lazy()], "pmid")),
    }
    sources = {key: present[key] for key in changed}
    return dg.Output(LogUpdate(said, "pmid", sources, resolved, is_whole), metadata=metadata)


@dg.asset(
    **table(QuarantinedRecord),
    group_name="pubmed",
    kinds={"polars"},
    code_version="1",
    ins={"pubmed_citations": ALL_PARTITIONS},
)
def quarantined_records(pubmed_citations: dict[str, pl.LazyFrame]) -> dg.Output[pl.DataFrame]:
    """The records of all files that could not be read, with what is wrong and their text."""
    records = quarantined(pubmed_citations)
    causes = counts(records.with_columns(pl.col("cause").str.slice(0, 60)), "cause")
    return dg.Output(records, metadata={"causes": causes, "preview": preview(records, rows=10)})


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
    current_citations: pl.LazyFrame,
    storage: Storage,
) -> Iterator[dg.Output[dict[str, pl.LazyFrame]]]:
    """The citations whose home branch this is, with text; any number of branches in one pass."""
    started = time.monotonic()
    with storage.scratch_folder("branches") as folder:
        found = citations_of_branches(pubmed_citations, current_citations, context.partition_keys, folder)
        metadata = _branch_metadata(found)
        if empty := [branch for branch, size in metadata["citations_of_branches"].items() if not size]:
            context.log.warning(f"no current citation has its home in {', '.join(empty)}")
        yield dg.Output(found, metadata={"seconds": time.monotonic() - started, **metadata})


def _query_metadata(fetched: FetchedFile) -> dict[str, Any]:
    if not isinstance(fetched, FetchedSlice):
        return {}
    found = {"query": fetched.term, "records": fetched.records, "books": fetched.books}
    return found | {"vanished": list(fetched.vanished)}


def _record_metadata(records: pl.DataFrame) -> dict[str, Any]:
    citations = records.filter(pl.col("record") == "citation")
    return {
        "records": counts(records, "record"),
        "without_abstract": int((citations["abstract"].list.len() == 0).sum()),
        "without_headings": int((citations["headings"].list.len() == 0).sum()),
        "retracted": int(citations["retracted"].sum()),
        "quarantine": preview(
            records.filter(pl.col("record") == "quarantined")["position", "pmid", "cause", "raw"], rows=10
        ),
        "preview": preview(citations.select("pmid", "title", "year", "journal")),
    }


def _current_metadata(current: pl.LazyFrame) -> dict[str, Any]:
    states = current.group_by("state", "waiting", "home_branch", "has_abstract").len("citations").collect()
    homes = _totals(states, "home_branch")
    with_abstract = states.filter(pl.col("state") == "current", "has_abstract")
    return {
        "states": _totals(states, "state"),
        "waiting": _totals(states, "waiting"),
        "current_with_abstract": int(with_abstract["citations"].sum()),
        "branches": len(homes),
        "largest_branches": bars("Current citations by home branch (the 20 largest)", _first(homes, 20)),
        "preview": preview(current.head(5).collect()),
    }


def _totals(states: pl.DataFrame, column: str) -> dict[str, int]:
    counted = states.drop_nulls(column).group_by(column).agg(pl.col("citations").sum())
    return dict(counted.sort("citations", column, descending=[True, False]).iter_rows())


def _branch_metadata(found: Mapping[str, pl.LazyFrame]) -> dict[str, Any]:
    has_abstract = pl.col("abstract").list.len() > 0
    counted = {
        branch: citations.select(pl.len(), has_abstract.sum().alias("with_abstract")).collect().row(0)
        for branch, citations in found.items()
    }
    sizes = {branch: size for branch, (size, _) in counted.items()}
    largest = dict(sorted(sizes.items(), key=lambda size: -size[1]))
    example = found[next(iter(largest))].head(5).collect()
    return {
        "citations_of_branches": sizes,
        "without_abstract": sum(size - with_abstract for size, with_abstract in counted.values()),
        "coverage": bars("Citations by branch (the 20 largest)", _first(largest, 20)),
        "preview": preview(example.select("pmid", "branch", "title", "year", "journal")),
    }


def _first(values: Mapping[str, int], number: int) -> dict[str, int]:
    return dict(list(values.items())[:number])
