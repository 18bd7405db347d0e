"""Which record of each PMID counts: PubMed's files are a log, and the latest word wins."""

import re
from collections.abc import Mapping

import numpy as np
import polars as pl

from mkailin_assets.pubmed.home_branch import HomeBranches
from mkailin_assets.pubmed.tables import CurrentCitation, QuarantinedRecord

RULES = "2"
"""Version of the rules on this page: other rules make other states of the same files."""

_KEY = re.compile(r"pubmed(\d{2})n(\d+)")
_QUERY_KEY = re.compile(r"query-([0-9a-f]{8})-(\d{8})-(\d{8})")
# PMIDs have at most 8 digits. Pages nobody touches take no memory.
_PMIDS = 10**8
_COLUMNS = CurrentCitation.create_empty().columns


def file_order(key: str) -> tuple[int, ...]:
    """(year, number) of a file's key, `pubmed26n0001`: later files overrule earlier ones.

    What a query found (`query-1a2b3c4d-20190101-20190630`) comes before all of NLM's files, with year 0: by
    first day, and of the same first day the longer, which was cut in two when it had grown.
    """
    if query := _QUERY_KEY.fullmatch(key):
        return 0, int(query[2]), -int(query[3]), int(query[1], 16)
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


def quarantined(files: Mapping[str, pl.LazyFrame]) -> pl.DataFrame:
    """What could not be read in any of the files, table `QuarantinedRecord`; one file at a time."""
    columns = QuarantinedRecord.create_empty().columns
    unreadable = pl.col("record") == "quarantined"
    parts = [files[key].filter(unreadable).select(columns).collect() for key in sorted(files, key=file_order)]
    return pl.concat([QuarantinedRecord.create_empty(), *parts])


def changed_files(present: Mapping[str, str], resolved: Mapping[str, str]) -> tuple[list[str], bool]:
    """Files that have to be read, and whether they are all files, because more than new ones changed.

    Arguments are fingerprints of `PubmedRecord` tables by file key: of those there are, and of those that
    `current_citations` was made from. Files that come after all that were read only add to what is known; a
    file that was read and is another or gone now may have hidden an earlier word.
    """
    new = sorted(present.keys() - resolved.keys(), key=file_order)
    is_same = all(present.get(key) == fingerprint for key, fingerprint in resolved.items())
    last = max(map(file_order, resolved), default=None)
    if last is None or not is_same or any(file_order(key) < last for key in new):
        return sorted(present, key=file_order), True
    return new, False


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
