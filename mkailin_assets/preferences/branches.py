"""Tables of all branches together."""

from collections.abc import Iterable, Sequence

import dataframely as dy
import polars as pl


def together(
    schema: type[dy.Schema], partitions: Iterable[pl.LazyFrame], columns: Sequence[str] | None = None
) -> pl.LazyFrame:
    """The rows of these branches, `columns` of them, without the citations that stand in two.

    A citation that moved stands in its old branch until that is gathered again; which of its rows is right,
    the branches do not tell. The schema has the columns pmid and branch.
    """
    rows = pl.concat([schema.create_empty().lazy(), *partitions])
    homes = rows.select("pmid", "branch").unique()
    moved = homes.filter(pl.len().over("pmid") > 1).select("pmid").unique()
    return rows.select(columns or schema.create_empty().columns).join(moved, on="pmid", how="anti")
