"""What must hold of the PubMed tables."""

import hashlib
import io
from collections.abc import Collection
from typing import BinaryIO, cast

import dagster as dg
import polars as pl

from mkailin_assets.metadata import none_may_be, preview, share_at_most
from mkailin_assets.partitions import MESH_BRANCH_NAMES, branches_of_run, pubmed_files
from mkailin_assets.pubmed.assets import (
    branch_citations,
    current_citations,
    pubmed_citations,
    quarantined_records,
    raw_pubmed,
)
from mkailin_resources.storage import Storage

# Shares above which a person should look. Of citations of the 1970s a third have abstracts.
_MOST_WITHOUT = 0.9
_MOST_WAITING = 0.5
_MOST_DELETED = 0.1
_MOST_QUARANTINED = 0.01


@dg.asset_check(asset=raw_pubmed, partitions_def=pubmed_files)
def kept_file_is_the_published_one(raw_pubmed: pl.DataFrame, storage: Storage) -> dg.AssetCheckResult:
    """The MD5 of the file as it is kept is the one NLM publishes."""
    raw = raw_pubmed.row(0, named=True)
    with storage.open(raw["uri"]) as file:
        fault = md5_fault(file, raw["md5"])
    return dg.AssetCheckResult(passed=fault is None, description=fault)


def md5_fault(file: BinaryIO, published: str) -> str | None:
    """What is wrong with a kept file."""
    md5 = hashlib.file_digest(cast(io.BufferedReader, file), "md5").hexdigest()
    return None if md5 == published else f"MD5 is {md5}, NLM says {published}; materialize it again"


@dg.asset_check(asset=pubmed_citations, partitions_def=pubmed_files)
def few_records_are_quarantined(pubmed_citations: pl.DataFrame) -> dg.AssetCheckResult:
    """At most 1% of the records could not be read; in a small file up to three, but no more than 10%."""
    quarantined = pubmed_citations.filter(pl.col("record") == "quarantined")
    allowed = most_quarantined(pubmed_citations.height)
    return dg.AssetCheckResult(
        passed=quarantined.height <= allowed,
        description=f"{quarantined.height} of {pubmed_citations.height} in quarantine, {allowed} allowed",
        metadata={
            "rows": quarantined.height,
            "first": preview(quarantined.select("position", "pmid", "cause")),
        },
    )


def most_quarantined(records: int) -> int:
    """How many records of a file may be unreadable before something is wrong with the file."""
    return max(records // 100, min(3, records // 10))


@dg.asset_check(asset=pubmed_citations, partitions_def=pubmed_files)
def most_citations_have_abstracts(pubmed_citations: pl.DataFrame) -> dg.AssetCheckResult:
    """At most 90% of a file's citations are without abstract, else it was hardly read as it is meant."""
    citations = pubmed_citations.filter(pl.col("record") == "citation")
    return share_at_most(_without(citations, "abstract"), citations.height, _MOST_WITHOUT, "without abstract")


@dg.asset_check(asset=pubmed_citations, partitions_def=pubmed_files)
def most_citations_have_headings(pubmed_citations: pl.DataFrame) -> dg.AssetCheckResult:
    """At most 90% of a file's citations are without headings; those of new ones come months later."""
    citations = pubmed_citations.filter(pl.col("record") == "citation")
    return share_at_most(_without(citations, "headings"), citations.height, _MOST_WITHOUT, "without headings")


def _without(citations: pl.DataFrame, column: str) -> int:
    return int((citations[column].list.len() == 0).sum())


@dg.asset_check(asset=pubmed_citations, partitions_def=pubmed_files)
def versions_come_once(pubmed_citations: pl.DataFrame) -> dg.AssetCheckResult:
    """No version of a citation is in the file twice."""
    versions = pubmed_citations.filter(pl.col("record") == "citation").select("pmid", "version", "position")
    return none_may_be(
        versions.filter(versions.select("pmid", "version").is_duplicated()), "citations that are there twice"
    )


@dg.asset_check(asset=current_citations)
def states_add_up(current_citations: pl.LazyFrame) -> dg.AssetCheckResult:
    """Each PMID has one row; a current one has a home branch or a reason to wait, and no other has either."""
    homed, waiting = pl.col("home_branch").is_not_null(), pl.col("waiting").is_not_null()
    # Only these columns: there are tens of millions of rows.
    wrong = current_citations.select("pmid", "state", "home_branch", "waiting").filter(
        pl.col("pmid").is_duplicated()
        | pl.when(pl.col("state") == "current").then(homed == waiting).otherwise(homed | waiting)
    )
    return none_may_be(wrong.collect(), "rows whose state, home branch and reason to wait do not fit")


@dg.asset_check(asset=current_citations)
def home_branches_are_partitions(current_citations: pl.LazyFrame) -> dg.AssetCheckResult:
    """Every home branch is one that can be distilled."""
    strange = current_citations.filter(~pl.col("home_branch").is_in(list(MESH_BRANCH_NAMES)))
    return none_may_be(strange.collect(), "citations whose home branch is no partition")


@dg.asset_check(asset=current_citations)
def few_citations_wait(current_citations: pl.LazyFrame) -> dg.AssetCheckResult:
    """At most half of the current citations have no home branch; more hint at another year's MeSH."""
    is_current, waits = pl.col("state") == "current", pl.col("waiting").is_not_null()
    current, waiting = _counted(current_citations, is_current, is_current & waits)
    return share_at_most(waiting, current, _MOST_WAITING, "current citations wait for headings")


@dg.asset_check(asset=current_citations)
def few_citations_are_deleted(current_citations: pl.LazyFrame) -> dg.AssetCheckResult:
    """At most 10% of the PMIDs are deleted; NLM deletes some in ten thousand a year."""
    known, deleted = _counted(current_citations, pl.lit(True), pl.col("state") == "deleted")
    return share_at_most(deleted, known, _MOST_DELETED, "PMIDs are deleted")


@dg.asset_check(asset=quarantined_records, additional_ins={"current_citations": dg.AssetIn()})
def few_records_of_all_are_quarantined(
    quarantined_records: pl.DataFrame, current_citations: pl.LazyFrame
) -> dg.AssetCheckResult:
    """Over all files at most 1% as many records in quarantine as there are PMIDs."""
    (known,) = _counted(current_citations, pl.lit(True))
    return share_at_most(quarantined_records.height, known, _MOST_QUARANTINED, "records in quarantine")


def _counted(citations: pl.LazyFrame, *what: pl.Expr) -> tuple[int, ...]:
    """Rows for which each of these holds."""
    return tuple(citations.filter(one).select(pl.len()).collect().item() for one in what)


@dg.asset_check(asset=branch_citations, additional_ins={"current_citations": dg.AssetIn("current_citations")})
def branches_hold_their_current_citations(
    context: dg.AssetCheckExecutionContext,
    branch_citations: dict[str, pl.LazyFrame],
    current_citations: pl.LazyFrame,
) -> dg.AssetCheckResult:
    """Every branch holds the current citations that have their home there, with their current content.

    Branches that this run did not gather, made old by an update, are a warning.
    """
    wrong = misplaced(branch_citations, current_citations)
    return judged(wrong, branches_of_run(context.run.tags))


def judged(wrong: pl.DataFrame, gathered: Collection[str]) -> dg.AssetCheckResult:
    """What `branches_hold_their_current_citations` says of `misplaced` after a run over some branches."""
    is_error = not gathered or wrong["partition"].is_in(list(gathered)).any()
    severity = dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN
    return none_may_be(wrong, "citations not as current_citations says")._replace(severity=severity)


def misplaced(branches: dict[str, pl.LazyFrame], current: pl.LazyFrame) -> pl.DataFrame:
    """Columns partition, pmid, wrong: what differs between the branches that exist and `CurrentCitation`."""
    homed = current.filter(pl.col("state") == "current", pl.col("home_branch").is_not_null())
    here_or_there = homed.filter(pl.col("home_branch").is_in(list(branches)))
    expected = here_or_there.select("pmid", "content_hash", partition="home_branch").collect()
    differences = []
    for branch, citations in branches.items():
        found = citations.select("pmid", "branch", "content_hash").collect()
        here = expected.filter(pl.col("partition") == branch)
        of_branch = {
            "labelled with another branch": found.filter(pl.col("branch") != branch),
            "not current here, or of other content": found.join(
                here, on=["pmid", "content_hash"], how="anti"
            ),
            "missing": here.join(found, on="pmid", how="anti"),
        }
        differences += [
            rows.select(pl.lit(branch).alias("partition"), "pmid", pl.lit(wrong).alias("wrong"))
            for wrong, rows in of_branch.items()
        ]
    return pl.concat(differences)
