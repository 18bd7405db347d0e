"""Balance over branches and decisions: who gets the places, and who keeps them."""

from collections import Counter
from typing import Any

import polars as pl
import pytest

from mkailin_assets.corpus.balance import over_represented_branches, places_by_branch

ROWS = {"C04": 900, "C10": 100, "F03": 4}


@pytest.mark.parametrize(
    ("balance", "size", "cap", "places"),
    [
        ("proportional", None, None, ROWS),
        ("proportional", 502, None, {"C04": 450, "C10": 50, "F03": 2}),
        ("proportional", None, 200, {"C04": 200, "C10": 100, "F03": 4}),
        # The median branch, C10, stays whole; weights are 30, 10 and 2.
        ("square_root", None, None, {"C04": 300, "C10": 100, "F03": 4}),
        ("square_root", 84, None, {"C04": 60, "C10": 20, "F03": 4}),
        ("uniform", None, None, {"C04": 100, "C10": 100, "F03": 4}),
        # F03 has four rows alone: the others share what it cannot fill.
        ("uniform", 60, None, {"C04": 28, "C10": 28, "F03": 4}),
        ("uniform", 204, 60, {"C04": 60, "C10": 60, "F03": 4}),
        ("uniform", 10_000, None, ROWS),
    ],
)
def test_places_follow_the_balance_the_size_and_the_cap(
    balance: Any, size: int | None, cap: int | None, places: dict[str, int]
) -> None:
    assert places_by_branch(ROWS, balance, size, cap) == places


def test_rounding_loses_no_place() -> None:
    even = {"C04": 10, "C10": 10, "F03": 10}
    for size in range(1, 31):
        assert sum(places_by_branch(even, "uniform", size, None).values()) == size


def test_an_empty_corpus_has_no_places() -> None:
    assert places_by_branch({}, "uniform", None, None) == {}
    assert places_by_branch({"C04": 0}, "square_root", 5, None) == {}


def rows(**branches: int) -> pl.DataFrame:
    placed = [(number, branch) for branch, count in branches.items() for number in range(1, count + 1)]
    return pl.DataFrame(placed, schema={"pmid": pl.Int64, "branch": pl.String}, orient="row")


def test_a_row_too_many_of_its_branch_says_how_many_places_there_are() -> None:
    reasons = over_represented_branches(rows(C04=9, F03=2), "uniform", 6, None)
    assert Counter(reasons.drop_nulls()) == {"one of C04 too many: it has 4 places (uniform)": 5}


def test_growth_of_a_branch_moves_only_what_its_hash_says() -> None:
    small = rows(C04=50, F03=10).with_columns(
        reason=over_represented_branches(rows(C04=50, F03=10), "uniform", 20, None)
    )
    large = rows(C04=60, F03=10).with_columns(
        reason=over_represented_branches(rows(C04=60, F03=10), "uniform", 20, None)
    )
    kept = [
        set(frame.filter(pl.col("reason").is_null() & (pl.col("branch") == "C04"))["pmid"])
        for frame in (small, large)
    ]
    assert len(kept[0]) == len(kept[1]) == 10
    assert kept[1] - kept[0] <= set(range(51, 61)), "what was kept leaves for what arrived alone"
