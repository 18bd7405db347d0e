"""How alike two citations are by the published code of KAILIN, defects included (docs/method.md).

KAILIN (arXiv 2501.15108) is the predecessor of this method. What follows is what its code computes, at commit
424a455 of coco11563/KAILIN-Knowledge-Hierarchy-Guided-Biological-Medical-Dataset-Distillation-for-Domain-LLM-
Training, written anew from the facts. Of two headings a and b, in each branch (C04) that both stand in:

- `IC(m) = -log10` of the sum of the frequencies of m's descendants, m itself not among them; 0 where that sum
  is 0, as it is for every leaf. MaxIC is the highest IC in the branch.
- the LCA is the descriptor at the longest tree number that begins one of a's and one of b's
- `t = (IC(LCA) / MaxIC + IC(LCA) / MaxIC) / 2` and `S = IC(a) + IC(b)`
- Lin `2 t / S`, Jiang `1 - min(1, S - 2 t)`, Rel `Lin (1 - 10 ** (-t MaxIC))`, each clipped to [0, 1]

The similarity is the mean of these values over all branches that the LCA stands in as well and where S is
above 0; 0 where there is no LCA or no such branch; 1 of a heading with itself. Two citations score the mean
over all pairs of their headings.

The code read its frequencies and MaxIC from files that are not published, and leaves more open. Our choices:

- The frequency of a descriptor in a branch is its `citations` of table MeshInformationContent, which counts
  those of its descendants in, divided by the sum of these over the branch. The published counting does the
  same on the way up the tree, and the formula adds such frequencies up once more; as shares of the branch
  they add up to 1 at most, above which the code takes IC for 0.
- Descendants in a branch are those reached from m over the hierarchy of descriptors, the last step in it.
- MaxIC of a branch is the highest IC that a descriptor has in it, by this formula.
- Of several longest common tree numbers the one that sorts first counts; the code took the first it met.
- A heading counts once. One without a tree number, or unknown to the release, counts for nothing; the code
  lost a citation for the former. Check tags count, as they did there.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain

import numpy as np
import polars as pl

from mkailin_assets.mesh.hierarchy import MeshHierarchy, compiled
from mkailin_assets.mesh.similarity import numbered_lists


class KailinSimilarity:
    """Mean similarity of all pairs of headings of two lists, 0 to 1, by the formula of this module.

    `citations` holds for each descriptor of the release how many citations carry it or a descendant.
    """

    def __init__(self, hierarchy: MeshHierarchy, citations: Mapping[str, int]) -> None:
        placed = {ui: hierarchy.position(ui) for ui in hierarchy.uis if hierarchy.tree_numbers(ui)}
        self._placed = {name: placed[ui] for name, ui in hierarchy.names.items() if ui in placed} | placed
        branch_starts, branches, ic, highest = _ic_by_branch(hierarchy, citations)
        owners = np.repeat(np.arange(len(hierarchy)), np.diff(branch_starts))
        self._says_something = np.bincount(owners, ic > 0, len(hierarchy)) > 0
        marks = np.zeros(len(hierarchy), np.int64)  # a bit for each branch: none in common, nothing shared
        np.bitwise_or.at(marks, owners, np.left_shift(1, branches % 64, dtype=np.int64))
        self._tables = (*_paths(hierarchy), branch_starts, branches, ic, 1 - 10.0**-ic, highest, marks)

    @classmethod
    def from_table(cls, hierarchy: MeshHierarchy, information_content: pl.DataFrame) -> "KailinSimilarity":
        """With the counts of table MeshInformationContent."""
        return cls(hierarchy, dict(information_content.select("descriptor_ui", "citations").iter_rows()))

    def best_match_averages(
        self, sources: Sequence[Sequence[str]], contexts: Sequence[Sequence[str]]
    ) -> np.ndarray:
        """Similarity of each source with the context at the same place: float64 (pairs,).

        Called as that of `HeadingSimilarity` is, though all pairs of headings count here, not the best.
        Headings are descriptor UIs, or names; NaN where a side has none with a tree number. One thread,
        block by block: memory does not grow with the pairs but for the result.
        """
        scores = np.empty(len(sources))
        for block, left, right, list_ends, positions in numbered_lists(sources, contexts, self._placed):
            prepared = compiled(_distinct)(list_ends, positions, self._says_something)
            compiled(_mean_similarities)(left, right, *prepared, *self._tables, scores[block])
        return scores


def _ic_by_branch(
    hierarchy: MeshHierarchy, citations: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where each descriptor's branches start, these as numbers, its IC in each, and MaxIC of each branch."""
    holders = {number: ui for ui in hierarchy.uis for number in hierarchy.tree_numbers(ui)}
    ancestors = {ui: hierarchy.ancestors(ui) for ui in hierarchy.uis}
    branches_of = {ui: hierarchy.branches(ui) for ui in hierarchy.uis}
    all_below: defaultdict[tuple[str, str], int] = defaultdict(int)
    of_branch: defaultdict[str, int] = defaultdict(int)
    for ui in hierarchy.uis:
        above: dict[str, set[str]] = {branch: set() for branch in branches_of[ui]}
        for number in hierarchy.tree_numbers(ui):
            if (up := number.rpartition(".")[0]) in holders:
                above[number.partition(".")[0]] |= ancestors[holders[up]]
        for branch, ups in above.items():
            of_branch[branch] += citations[ui]
            for up in ups:
                all_below[up, branch] += citations[ui]
    numbers = {branch: number for number, branch in enumerate(sorted(of_branch))}
    slots = [(ui, branch) for ui in hierarchy.uis for branch in branches_of[ui]]
    below = np.array([all_below[slot] for slot in slots], np.float64)
    whole = np.array([of_branch[branch] for _, branch in slots], np.float64)
    ic = -np.log10(np.divide(below, whole, out=np.ones_like(below), where=below > 0))
    branches = np.array([numbers[branch] for _, branch in slots], np.int32)
    highest = np.zeros(len(numbers))
    np.maximum.at(highest, branches, ic)
    starts = np.cumsum([0, *map(len, branches_of.values())])
    return starts, branches, ic, highest


def _paths(hierarchy: MeshHierarchy) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where each descriptor's places start, these, the way down to each place, and who holds it (-1: nobody).

    Places are all tree numbers and what they begin with; a descriptor's are sorted. A way ends with its place
    and is filled up with -1.
    """
    holders = {
        number: position for position, ui in enumerate(hierarchy.uis) for number in hierarchy.tree_numbers(ui)
    }
    ways = {number: list(accumulate(number.split("."), "{}.{}".format)) for number in holders}
    places = {number: place for place, number in enumerate(dict.fromkeys(chain.from_iterable(ways.values())))}
    paths = np.full((len(places), max(map(len, ways.values()), default=0)), -1, np.int32)
    for number, way in ways.items():
        paths[places[number], : len(way)] = [places[up] for up in way]
    starts = np.cumsum([0, *(len(hierarchy.tree_numbers(ui)) for ui in hierarchy.uis)])
    held = np.array([places[number] for number in holders], np.int32)
    return starts, held, paths, np.array([holders.get(number, -1) for number in places], np.int32)


def _distinct(
    list_ends: np.ndarray, positions: np.ndarray, says_something: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each list its distinct headings, those that say something first (compiled by numba).

    Returns where each list's headings start, where those that say nothing do, and the headings.
    """
    starts = np.zeros(list_ends.shape[0], np.int32)
    silent_starts = np.zeros(list_ends.shape[0] - 1, np.int32)
    headings = np.empty(positions.shape[0], np.int32)
    taken = np.full(says_something.shape[0], -1, np.int32)
    kept = 0
    for number in range(list_ends.shape[0] - 1):
        for wanted in (True, False):
            for place in range(list_ends[number], list_ends[number + 1]):
                heading = positions[place]
                if heading >= 0 and says_something[heading] == wanted and taken[heading] != number:
                    taken[heading] = number
                    headings[kept] = heading
                    kept += 1
            if wanted:
                silent_starts[number] = kept
        starts[number + 1] = kept
    return starts, silent_starts, headings


def _mean_similarities(  # noqa: PLR0917, numba takes arrays one by one
    sources: np.ndarray,
    contexts: np.ndarray,
    starts: np.ndarray,
    silent_starts: np.ndarray,
    headings: np.ndarray,
    place_starts: np.ndarray,
    places: np.ndarray,
    paths: np.ndarray,
    holders: np.ndarray,
    branch_starts: np.ndarray,
    branches: np.ndarray,
    ic: np.ndarray,
    improbability: np.ndarray,
    highest: np.ndarray,
    marks: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Fill `scores` with the mean over all pairs of headings (compiled by numba).

    Two headings of IC 0 in all branches, as leaves are, score 0 unless they are the same: S is 0.
    """

    def lowest_common_ancestor(a: int, b: int) -> int:
        deepest, lowest = 0, -1
        for one in places[place_starts[a] : place_starts[a + 1]]:
            for other in places[place_starts[b] : place_starts[b + 1]]:
                level = 0
                while paths[one, level] == paths[other, level]:  # ends: different places differ in it
                    level += 1
                if level > deepest:
                    deepest, lowest = level, paths[one, level - 1]
        return holders[lowest] if deepest > 0 else -1

    def similarity(a: int, b: int) -> float:
        c = lowest_common_ancestor(a, b)
        if c < 0:
            return 0.0
        total, values = 0.0, 0
        of_a, of_b = branch_starts[a], branch_starts[b]
        for of_c in range(branch_starts[c], branch_starts[c + 1]):
            while of_a < branch_starts[a + 1] and branches[of_a] < branches[of_c]:
                of_a += 1
            while of_b < branch_starts[b + 1] and branches[of_b] < branches[of_c]:
                of_b += 1
            if of_a == branch_starts[a + 1] or of_b == branch_starts[b + 1]:
                break
            both = ic[of_a] + ic[of_b]
            if branches[of_a] == branches[of_b] == branches[of_c] and both > 0:
                t = ic[of_c] / highest[branches[of_c]]
                lin = 2 * t / both
                jiang = 1 - min(1.0, both - 2 * t)
                total += min(1.0, lin) + min(1.0, jiang) + min(1.0, lin * improbability[of_c])
                values += 3
        return total / values if values else 0.0

    held_by = np.full(marks.shape[0], -1, np.int32)  # the last source that has the heading
    for pair in range(sources.shape[0]):
        a, b = sources[pair], contexts[pair]
        mine, its = headings[starts[a] : starts[a + 1]], headings[starts[b] : starts[b + 1]]
        if mine.size == 0 or its.size == 0:
            scores[pair] = np.nan
            continue
        for x in mine:
            held_by[x] = a
        total = 0.0
        for y in its:
            total += held_by[y] == a
        for x in headings[starts[a] : silent_starts[a]]:
            for y in its:
                if x != y and marks[x] & marks[y]:
                    total += similarity(x, y)
        for x in headings[silent_starts[a] : starts[a + 1]]:
            for y in headings[starts[b] : silent_starts[b]]:
                if marks[x] & marks[y]:
                    total += similarity(x, y)
        scores[pair] = total / (mine.size * its.size)
