"""The citations of MeSH branches, gathered with their text."""

from collections.abc import Collection, Mapping
from pathlib import Path

import polars as pl

from mkailin_assets.pubmed.current import file_order
from mkailin_assets.pubmed.tables import BranchCitation

_PLACE = ["position", "pmid"]


def citations_of_branches(
    files: Mapping[str, pl.LazyFrame], current: pl.LazyFrame, branches: Collection[str], scratch: Path
) -> dict[str, pl.LazyFrame]:
    """Current citations by home branch, `BranchCitation` tables in the order of the files.

    `files` are `PubmedRecord` tables by key, `current` is table `CurrentCitation`. One pass for all branches,
    one file at a time, of which the citations are put down in the empty folder `scratch`; what is returned
    reads them from there. Memory is that of one file and some bytes for each citation, time grows with the
    citations, hardly with the branches.
    Raises `ValueError` when `current` names a file that is not among `files`.
    """
    wanted = current.filter(pl.col("state") == "current", pl.col("home_branch").is_in(list(branches)))
    # As categories: there may be millions of rows.
    named = pl.col("home_branch", "pubmed_file").cast(pl.Categorical)
    places = (
        wanted.select(*_PLACE, named)
        .rename({"home_branch": "branch"})
        .collect()
        .partition_by("pubmed_file", as_dict=True, include_key=False)
    )
    if missing := sorted({key for (key,) in places} - set(files)):
        raise ValueError(
            f"gathering citations of {', '.join(branches)}: current_citations names {', '.join(missing)}; "
            "pubmed_citations has no such partition; materialize it, or current_citations again"
        )
    columns = BranchCitation.create_empty().columns
    names = pl.col("publication_types").list.eval(pl.element().struct.field("name"))
    parts: dict[str, list[Path]] = {branch: [] for branch in branches}
    for (key,), of_file in sorted(places.items(), key=lambda place: file_order(place[0][0])):
        citations = files[key].filter(pl.col("record") == "citation")
        # In the file's order each time: the same rows in another would be other bytes, and distilled again.
        records = citations.join(of_file.lazy(), on=_PLACE, maintain_order="left")
        text = records.with_columns(names, pl.col("branch").cast(pl.String)).select(columns)
        found = BranchCitation.validate(text.collect())
        for (branch,), of_branch in found.partition_by("branch", as_dict=True).items():
            parts[branch].append(scratch / f"{branch}-{key}.parquet")
            of_branch.write_parquet(parts[branch][-1], compression="lz4")
    return {
        branch: pl.scan_parquet(paths) if paths else BranchCitation.create_empty().lazy()
        for branch, paths in parts.items()
    }
