"""Questions that were asked before, in the same or nearly the same words."""

from collections.abc import Sequence

import numpy as np
import polars as pl

BANDS, MOST_ROWS = 32, 16
_SEED = 20
# Questions whose digests are in memory at once: rensa hands them out as Python's numbers.
_AT_ONCE = 20_000
# Of pairs that are just similar enough, the share that agrees in one band: (1 - 0.24) ** 32 agree in none.
_AGREEING = 0.24


def duplicates(questions: Sequence[str] | pl.Series, similarity: float) -> pl.Series:
    """For each question the index of the first one that it repeats, null for what is new.

    Two questions repeat each other when the Jaccard similarity of their sets of five characters in a row is
    at least `similarity` (0.24 to 1). What repeats leaves, and nothing is compared with it further: where the
    second is like the first, and the third like the second alone, the first and the third stay. So each
    question that leaves is like one that stays, and no two that stay are alike.

    Every repeat that is found is one. What is found is all but a few: candidates share one of 32 keys, each
    of as many MinHash values as leave 1.5 in 10,000 pairs at `similarity` unseen, and far fewer above it (at
    0.7 four values: 32 bands of 4 rows). Without randomness: the same questions give the same answer.

    Memory grows by about 0.6 kB for each question of ordinary length. Time grows with the pairs that are
    nearly similar enough: 10 ns for each, where one template with little in it makes all questions.
    """
    asked = pl.DataFrame({"question": pl.Series(questions, dtype=pl.String)}).with_row_index("row")
    # First what is equal: a million copies are half a million million pairs.
    distinct = asked.group_by("question", maintain_order=True).agg(first=pl.col("row").first())
    later, earlier = _search(distinct["question"], similarity, every=False)
    like = pl.DataFrame(
        {"first": distinct["first"].gather(later), "repeats": distinct["first"].gather(earlier)}
    )
    copied = pl.when(pl.col("row") != pl.col("first")).then("first")
    return (
        asked.join(distinct, on="question", how="left", maintain_order="left")
        .join(like, on="first", how="left", maintain_order="left")
        .select(repeats=pl.coalesce("repeats", copied))
        .to_series()
    )


def similar_pairs(questions: Sequence[str] | pl.Series, similarity: float) -> pl.DataFrame:
    """Indexes `later` and `earlier` of every two questions that repeat each other, as in `duplicates`.

    Of n questions that are all alike these are n (n - 1) / 2.
    """
    later, earlier = _search(pl.Series(questions, dtype=pl.String), similarity, every=True)
    return pl.DataFrame({"later": later, "earlier": earlier}).sort("later", "earlier")


def _search(questions: pl.Series, similarity: float, every: bool) -> tuple[np.ndarray, np.ndarray]:
    """Indexes of questions and of those before them that they repeat; see `shingles.search`."""
    from mkailin_assets.corpus import shingles

    if not _AGREEING <= similarity <= 1:
        raise ValueError(f"similarity is {similarity}: near-duplicates are found from {_AGREEING} to 1")
    rows = next(rows for rows in range(MOST_ROWS, 0, -1) if similarity**rows >= _AGREEING)
    count = len(questions)
    if count == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    text = np.frombuffer("".join(questions.to_list()).encode(), np.uint8)
    starts = np.concatenate([[0], questions.str.len_bytes().cum_sum().cast(pl.Int64).to_numpy()])
    sizes = np.zeros(count, np.int32)
    sketches = np.zeros((count, shingles.SKETCH_WORDS), np.uint64)
    keys = np.zeros((count, BANDS), np.uint32)
    for first in range(0, count, _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        bounds = starts[first : first + _AT_ONCE + 1]
        members = np.empty(bounds[-1] - bounds[0], np.uint64)
        members = members[: shingles.describe(text, bounds, sizes[some], sketches[some], members)]
        shingles.band_keys(_digests(members, sizes[some], BANDS * rows), keys[some])
    # Each band's places take the room of its keys. 32 bits are enough for 40 million questions.
    places, room = keys.view(np.int32), 0
    for band in range(BANDS):
        ordered = keys[:, band].astype(np.uint64) << np.uint64(32) | np.arange(count, dtype=np.uint64)
        ordered.sort()
        room += shingles.set_up_shelves(ordered, room, places[:, band])
    shelves = np.zeros(room, np.int32)
    return shingles.search(text, starts, sizes, sketches, places, shelves, float(similarity), every)


def _digests(members: np.ndarray, sizes: np.ndarray, permutations: int) -> np.ndarray:
    """MinHash digests (n, permutations) of n sets that lie one after another (Broder 1997; rensa)."""
    from rensa import RMinHash

    ends = np.concatenate([[0], sizes.cumsum()]).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(members, ends, permutations, _SEED)
    return np.array(matrix.to_rows(), np.uint32)
