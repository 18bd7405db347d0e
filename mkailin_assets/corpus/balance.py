"""How many rows of each MeSH branch and of each decision a corpus has room for."""

import math
from collections.abc import Mapping
from statistics import median
from typing import Literal

import polars as pl

from mkailin_assets.corpus.draws import by_hash

BranchBalance = Literal["proportional", "square_root", "uniform"]
_EXPONENTS: dict[BranchBalance, float] = {"proportional": 1.0, "square_root": 0.5, "uniform": 0.0}


def places_by_branch(
    rows: Mapping[str, int], balance: BranchBalance, size: int | None, cap: int | None
) -> dict[str, int]:
    """How many of its rows each branch brings: at most all it has, at most `cap`.

    The places of a branch grow with its number of rows to the power 1, 1/2 or 0, as languages are sampled
    with a temperature of 1, 2 or infinity (Arivazhagan et al. 2019); what a small branch cannot fill falls to
    the others. Together they are `size`, or all that there is where that is less. Without a size
    proportional takes all, and the others as many as leave the median branch whole.
    """
    most = {branch: count if cap is None else min(count, cap) for branch, count in rows.items() if count}
    weights = {branch: rows[branch] ** _EXPONENTS[balance] for branch in most}
    if size is None and balance != "proportional" and most:
        middle = median(rows[branch] for branch in most)
        share = middle / middle ** _EXPONENTS[balance]
        # Rounding must not cost a row of the branch that stays whole.
        return {branch: min(most[branch], math.floor(share * weights[branch] + 1e-9)) for branch in most}
    if size is None or sum(most.values()) <= size:
        return most
    return _filled(most, weights, size)


def _filled(most: Mapping[str, int], weights: Mapping[str, float], size: int) -> dict[str, int]:
    """`size` places by weight, none above its most; those left by rounding go to the largest remainders."""
    places = dict.fromkeys(most, 0.0)
    left, open_branches = float(size), sorted(most, key=lambda branch: most[branch] / weights[branch])
    for number, branch in enumerate(open_branches):
        share = left / sum(weights[other] for other in open_branches[number:])
        places[branch] = min(most[branch], share * weights[branch])
        left -= places[branch]
    whole = {branch: math.floor(exact + 1e-9) for branch, exact in places.items()}
    remainders = sorted(places, key=lambda branch: (whole[branch] - places[branch], branch))
    for branch in remainders[: size - sum(whole.values())]:
        whole[branch] += 1
    return whole


def over_represented_branches(
    rows: pl.DataFrame, balance: BranchBalance, size: int | None, cap: int | None
) -> pl.Series:
    """Why a row is one of its branch too many; null where it is not."""
    places = places_by_branch(dict(rows["branch"].value_counts().iter_rows()), balance, size, cap)
    have = pl.col("branch").replace_strict(places, default=0, return_dtype=pl.Int64)
    turn = by_hash("branch balance").rank("ordinal").over("branch")
    reason = pl.format(f"one of {{}} too many: it has {{}} places ({balance})", "branch", have)
    return rows.select(reason=pl.when(turn > have).then(reason)).to_series()


def over_represented_decisions(rows: pl.DataFrame, share: float) -> pl.Series:
    """Why a row of the most frequent decision is one too many; null where it is not.

    The share is one of the rows that decide something. Where it would cost the decision more than three
    quarters of its rows, the others are too few to balance it against, and all stay.
    """
    kinds = rows["decision"].drop_nulls().value_counts().sort("count", "decision", descending=True)
    if kinds.height < 2 or share == 1:
        return pl.Series("reason", [None] * rows.height, dtype=pl.String)
    most, count = kinds.row(0)
    # Rounding must not cost a row that the share allows.
    places = math.floor(share / (1 - share) * (kinds["count"].sum() - count) + 1e-9)
    if places < count / 4:
        return pl.Series("reason", [None] * rows.height, dtype=pl.String)
    turn = by_hash("balance").rank("ordinal").over("decision")
    reason = pl.lit(f"one {most} too many: {places} of them make {share:.0%}")
    return rows.select(
        reason=pl.when((pl.col("decision") == most) & (turn > places)).then(reason)
    ).to_series()
