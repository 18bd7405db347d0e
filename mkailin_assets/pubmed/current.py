"""Which record of each PMID counts: PubMed's files are a log, and the latest word wins."""

import re
from collections.abc import Mapping

import numpy as np
import polars as pl

from mkailin_assets.pubmed.home_branch import HomeBranches
from mkailin_assets.pubmed.tables import CurrentCitation

_KEY = re.compile(r"pubmed(\d{2})n(\d+)")
# PMIDs have at most 8 digits. Pages nobody touches take no memory.
_PMIDS = 10**8
_COLUMNS = CurrentCitation.create_empty().columns


def file_order(key: str) -> tuple[int, int]:
    """(year, number) of a file's key, `pubmed26n0001`: later files overrule earlier ones."""
    if not (parts := _KEY.fullmatch(key)):
        raise ValueError(f"{key!r} is no key of a PubMed file, as pubmed26n0001 is: its place is unknown")
    return int(parts[1]), int(parts[2])


def resolve(files: Mapping[str, pl.LazyFrame], home: HomeBranches) -> pl.DataFrame:
    """The latest state of every PMID, table `CurrentCitation`, from `PubmedRecord` tables by file key.

    A later file overrules an earlier one, a deletion removes, and a deleted PMID that comes again in a later
    file is current again. Within a file a deletion overrules, then the higher version, then the later
    position. Quarantined records leave what was there before. The order of `files` makes no difference.

    Files are read from the newest to the oldest, one at a time: memory is that of the result, one file's
    headings and abstracts, and a byte for each PMID; time grows with the records.
    """
    seen = np.zeros(_PMIDS, dtype=np.bool_)
    parts: list[pl.DataFrame] = [CurrentCitation.create_empty()]
    for key in sorted(files, key=file_order, reverse=True):
        latest = _latest_of_file(files[key])
        pmids = latest["pmid"].to_numpy()
        unseen = latest.filter(pl.Series(~seen[pmids], dtype=pl.Boolean))
        seen[pmids] = True
        parts.append(_with_homes(unseen, home).with_columns(pubmed_file=pl.lit(key)).select(_COLUMNS))
    return pl.concat(parts).sort("pmid")


def _latest_of_file(records: pl.LazyFrame) -> pl.DataFrame:
    deleted = pl.col("record") == "deleted"
    return (
        records.filter(pl.col("record") != "quarantined")
        .select(
            "pmid",
            "position",
            "version",
            "content_hash",
            "headings",
            has_abstract=pl.col("abstract").list.len() > 0,
            state=pl.when(deleted)
            .then(pl.lit("deleted"))
            .when(pl.col("retracted"))
            .then(pl.lit("retracted"))
            .otherwise(pl.lit("current")),
        )
        .sort(pl.col("state") == "deleted", pl.col("version").fill_null(1), "position")
        .unique("pmid", keep="last", maintain_order=True)
        .collect()
    )


def _with_homes(citations: pl.DataFrame, home: HomeBranches) -> pl.DataFrame:
    homes = home.of(citations["headings"])
    current = pl.col("state") == "current"
    return pl.concat([citations.drop("headings"), homes], how="horizontal").with_columns(
        pl.when(current).then(pl.col("home_branch", "waiting"))
    )
