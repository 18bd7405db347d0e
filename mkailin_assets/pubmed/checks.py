"""What must hold of the PubMed tables."""

import hashlib
import io
from typing import BinaryIO, cast

import dagster as dg
import polars as pl

from mkailin_assets.metadata import none_may_be, preview
from mkailin_assets.partitions import MESH_BRANCH_NAMES, pubmed_files
from mkailin_assets.pubmed.assets import branch_citations, current_citations, pubmed_citations, raw_pubmed
from mkailin_resources.storage import Storage

# Of citations of the 1970s a third have abstracts; new ones wait months for headings.
_USUAL_SHARE_WITHOUT = 0.9
_USUAL_SHARE_WAITING = 0.5


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
def citations_have_text_and_headings(pubmed_citations: pl.DataFrame) -> dg.AssetCheckResult:
    """A file in which nearly all abstracts or headings are missing was probably not read as it is meant."""
    citations = pubmed_citations.filter(pl.col("record") == "citation")
    shares = {
        f"share_without_{name}": int((citations[name].list.len() == 0).sum()) / max(citations.height, 1)
        for name in ("abstract", "headings")
    }
    return dg.AssetCheckResult(
        passed=all(share <= _USUAL_SHARE_WITHOUT for share in shares.values()),
        severity=dg.AssetCheckSeverity.WARN,
        description=", ".join(f"{name.replace('_', ' ')} {share:.0%}" for name, share in shares.items()),
        metadata=shares,
    )


@dg.asset_check(asset=pubmed_citations, partitions_def=pubmed_files)
def versions_come_once(pubmed_citations: pl.DataFrame) -> dg.AssetCheckResult:
    """No version of a citation is in the file twice."""
    versions = pubmed_citations.filter(pl.col("record") == "citation").select("pmid", "version", "position")
    return none_may_be(
        versions.filter(versions.select("pmid", "version").is_duplicated()), "citations that are there twice"
    )


@dg.asset_check(asset=current_citations)
def states_add_up(current_citations: pl.DataFrame) -> dg.AssetCheckResult:
    """Each PMID has one row; a current one has a home branch or a reason to wait, and no other has either."""
    homed, waiting = pl.col("home_branch").is_not_null(), pl.col("waiting").is_not_null()
    wrong = current_citations.filter(
        pl.col("pmid").is_duplicated()
        | pl.when(pl.col("state") == "current").then(homed == waiting).otherwise(homed | waiting)
    )
    return none_may_be(wrong, "rows whose state, home branch and reason to wait do not fit")


@dg.asset_check(asset=current_citations)
def home_branches_are_partitions(current_citations: pl.DataFrame) -> dg.AssetCheckResult:
    """Every home branch is one that can be distilled."""
    strange = current_citations.filter(~pl.col("home_branch").is_in(list(MESH_BRANCH_NAMES)))
    return none_may_be(strange, "citations whose home branch is no partition")


@dg.asset_check(asset=current_citations)
def few_citations_wait(current_citations: pl.DataFrame) -> dg.AssetCheckResult:
    """Most current citations have a home branch; many that wait hint at another year's MeSH."""
    current = current_citations.filter(pl.col("state") == "current")
    waiting = current.filter(pl.col("waiting").is_not_null()).height
    share = waiting / max(current.height, 1)
    return dg.AssetCheckResult(
        passed=share <= _USUAL_SHARE_WAITING,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{waiting} of {current.height} current citations wait for headings",
        metadata={"waiting": waiting, "share": share},
    )


@dg.asset_check(asset=branch_citations, additional_ins={"current_citations": dg.AssetIn("current_citations")})
def branches_hold_their_current_citations(
    branch_citations: dict[str, pl.LazyFrame], current_citations: pl.DataFrame
) -> dg.AssetCheckResult:
    """Every branch holds the current citations that have their home there, with their current content."""
    return none_may_be(
        misplaced(branch_citations, current_citations), "citations not as current_citations says"
    )


def misplaced(branches: dict[str, pl.LazyFrame], current: pl.DataFrame) -> pl.DataFrame:
    """Columns partition, pmid, wrong: what differs between the branches that exist and `CurrentCitation`."""
    homed = current.filter(pl.col("state") == "current", pl.col("home_branch").is_not_null())
    expected = homed.select("pmid", "content_hash", partition="home_branch")
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
