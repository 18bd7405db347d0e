"""The citations of MeSH branches, gathered with their text."""

from collections.abc import Collection, Mapping

import polars as pl

from mkailin_assets.pubmed.tables import BranchCitation

_PLACE = ["pubmed_file", "position", "pmid"]


def citations_of_branches(
    files: Mapping[str, pl.LazyFrame], current: pl.DataFrame, branches: Collection[str]
) -> dict[str, pl.DataFrame]:
    """Current citations by home branch, `BranchCitation` tables by PMID; an empty one where there are none.

    `files` are `PubmedRecord` tables by key, `current` is table `CurrentCitation`. One pass for all branches,
    one file at a time: memory is that of the result and one file, time hardly grows with the branches.
    Raises `ValueError` when `current` names a file that is not among `files`.
    """
    wanted = current.filter(pl.col("state") == "current", pl.col("home_branch").is_in(list(branches)))
    places = wanted.select(*_PLACE, branch="home_branch").partition_by("pubmed_file", as_dict=True)
    if missing := sorted({key for (key,) in places} - set(files)):
        raise ValueError(
            f"gathering citations of {', '.join(branches)}: current_citations names {', '.join(missing)}; "
            "pubmed_citations has no such partition; materialize it, or current_citations again"
        )
    parts: list[pl.DataFrame] = [BranchCitation.create_empty()]
    for (key,), of_file in places.items():
        records = files[key].filter(pl.col("record") == "citation").join(of_file.lazy(), on=_PLACE)
        names = pl.col("publication_types").list.eval(pl.element().struct.field("name"))
        parts.append(records.with_columns(names).select(parts[0].columns).collect())
    gathered = pl.concat(parts).sort("pmid").partition_by("branch", as_dict=True)
    return {branch: gathered.get((branch,), BranchCitation.create_empty()) for branch in branches}
