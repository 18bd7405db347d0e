"""How alike two citations are by their MeSH headings (docs/method.md), fast enough for a corpus."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain, count, groupby, repeat
from typing import Literal, get_args

import numpy as np
import polars as pl

from mkailin_assets.mesh.hierarchy import MeshHierarchy, compiled

Measure = Literal["lin", "resnik", "jiang_conrath", "rel"]
MEASURES: tuple[Measure, ...] = get_args(Measure)

_RESNIK, _JIANG_CONRATH, _REL = (MEASURES.index(name) for name in ("resnik", "jiang_conrath", "rel"))
_BLOCK = 32_768  # pairs prepared together: about 100 MB when no list comes twice


class HeadingSimilarity:
    """Best-match average of two lists of headings under one measure and one information content.

    Of two descriptors with MICA c, the common ancestor of highest IC (IC 0 where they share none):
    Lin 2 IC(c) / (IC(a) + IC(b)), Resnik IC(c), Jiang-Conrath 1 - min(1, IC(a) + IC(b) - 2 IC(c)), and
    Rel Lin (1 - p(c)). All lie in [0, 1]; a list with itself scores 1 by Lin and Jiang-Conrath. Lin of two
    descriptors of IC 0 is 1 where they share an ancestor, else 0.

    `ic` maps each descriptor of the release to its normalised IC, never above a descendant's (ValueError
    otherwise: Lin would exceed 1). `population` is what normalised it, and `rel` alone needs it: N + 1
    citations for corpus IC, the number of descriptors for intrinsic IC. Raw IC is `ic` times
    ln(population), so p(c) = exp(-raw IC) = population ** -ic(c).
    """

    def __init__(
        self,
        hierarchy: MeshHierarchy,
        ic: Mapping[str, float],
        measure: Measure = "lin",
        population: int | None = None,
    ) -> None:
        if measure not in MEASURES:
            raise ValueError(f"measure {measure!r} is none of {', '.join(MEASURES)}")
        if measure == "rel" and population is None:
            raise ValueError("measure rel needs the population its probabilities are taken over")
        self._hierarchy = hierarchy
        self._measure = MEASURES.index(measure)
        self._population = float(population or 1)
        self._ic = np.array([ic[ui] for ui in hierarchy.uis], dtype=np.float64)
        scorable = {ui: hierarchy.position(ui) for ui in hierarchy.scorable(hierarchy.uis)}
        named = {name: scorable[ui] for name, ui in hierarchy.names.items() if ui in scorable}
        self._scorable = named | scorable
        _refuse_unless_monotone(hierarchy, self._ic)

    @classmethod
    def from_table(
        cls,
        hierarchy: MeshHierarchy,
        information_content: pl.DataFrame,
        source: Literal["corpus", "intrinsic"] = "corpus",
        measure: Measure = "lin",
    ) -> "HeadingSimilarity":
        """With the corpus or intrinsic IC of table MeshInformationContent, and the population behind it."""
        ic = dict(information_content.select("descriptor_ui", f"{source}_ic").iter_rows())
        population = len(ic) if source == "intrinsic" else information_content.item(0, "all_citations") + 1
        return cls(hierarchy, ic, measure, population)

    def best_match_average(self, a: Sequence[str], b: Sequence[str]) -> float:
        """Similarity of two lists of descriptor UIs, 0 (nothing shared) to 1; symmetric.

        Headings that are not scorable (`MeshHierarchy.scorable`) count for nothing; NaN when one side has
        no other.
        """
        return float(self.best_match_averages([a], [b])[0])

    def best_match_averages(
        self, sources: Sequence[Sequence[str]], contexts: Sequence[Sequence[str]]
    ) -> np.ndarray:
        """`best_match_average` of each source with the context at the same place: float64 (pairs,).

        One thread, block by block: memory does not grow with the pairs but for the result. Fastest where
        a source's contexts follow one another and lists come back.
        """
        averages = np.empty(len(sources))
        for block, left, right, list_ends, positions in numbered_lists(sources, contexts, self._scorable):
            prepared = compiled(_gather_ancestors)(
                list_ends,
                positions,
                self._hierarchy.ancestor_starts,
                self._hierarchy.ancestor_positions,
                self._ic,
            )
            compiled(_averages_by(self._measure))(
                left, right, *prepared, self._ic, self._population, averages[block]
            )
        return averages


def numbered_lists(
    sources: Sequence[Sequence[str]], contexts: Sequence[Sequence[str]], positions: Mapping[str, int]
) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Each block of pairs as arrays: which pairs, the numbers of their left and right lists (int32), where
    each list ends in the next (int64, from 0), and the `positions` of the lists' headings (int32), end to
    end, -1 for a heading that has none. Distinct lists are numbered as they come.
    """
    if len(sources) != len(contexts):
        raise ValueError(f"{len(sources)} sources cannot be paired with {len(contexts)} contexts")
    for start in range(0, len(sources), _BLOCK):  # Python's share is most of the time here: hence the maps
        block = slice(start, start + _BLOCK)
        numbers: defaultdict[tuple[str, ...], int] = defaultdict(count().__next__)
        runs = [(numbers[tuple(source)], len(list(run))) for source, run in groupby(sources[block])]
        left = np.repeat(*np.array(runs, np.int32).T)
        right = np.fromiter(map(numbers.__getitem__, map(tuple, contexts[block])), np.int32, len(left))
        list_ends = np.cumsum([0, *map(len, numbers)], dtype=np.int64)
        headings = map(positions.get, chain.from_iterable(numbers), repeat(-1))
        yield block, left, right, list_ends, np.fromiter(headings, np.int32, list_ends[-1])


def _refuse_unless_monotone(hierarchy: MeshHierarchy, ic: np.ndarray) -> None:
    owners = np.repeat(np.arange(len(ic)), np.diff(hierarchy.ancestor_starts))
    wrong = np.flatnonzero(ic[hierarchy.ancestor_positions] > ic[owners])
    if wrong.size:
        low, high = owners[wrong[0]], hierarchy.ancestor_positions[wrong[0]]
        raise ValueError(
            f"IC of {hierarchy.uis[high]} ({ic[high]:.6f}) is above that of its descendant "
            f"{hierarchy.uis[low]} ({ic[low]:.6f}); compute it over the ancestor closure"
        )


def _gather_ancestors(
    list_ends: np.ndarray, positions: np.ndarray, starts: np.ndarray, ancestors: np.ndarray, ic: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each list its headings and their distinct ancestors (compiled by numba).

    `positions` holds the lists end to end, -1 for what is not scorable. Returns where each list's headings
    start, their ICs; where each list's ancestors start, these, the lowest IC of the list's headings under
    each; where each ancestor's headings start, and these, as places among the headings.
    """
    size = 0
    for position in positions:
        if position >= 0:
            size += starts[position + 1] - starts[position]
    heading_starts = np.zeros(list_ends.shape[0], np.int32)
    headings = np.empty(positions.shape[0], np.int32)
    gathered_starts = np.zeros(list_ends.shape[0], np.int32)
    gathered = np.empty(size, np.int32)
    lowest = np.empty(size, np.float64)
    member_starts = np.zeros(size + 1, np.int32)
    members = np.empty(size, np.int32)
    slots = np.full(ic.shape[0], -1, np.int32)
    taken = np.full(ic.shape[0], -1, np.int32)
    filled = np.empty(size, np.int32)
    kept = used = 0
    for number in range(list_ends.shape[0] - 1):
        first_heading, first_slot = kept, used
        for place in range(list_ends[number], list_ends[number + 1]):
            heading = positions[place]
            if heading < 0 or taken[heading] == number:
                continue
            taken[heading] = number
            headings[kept] = heading
            kept += 1
            for up in range(starts[heading], starts[heading + 1]):
                slot = slots[ancestors[up]]
                if slot < 0:
                    slot = used
                    used += 1
                    slots[ancestors[up]] = slot
                    gathered[slot] = ancestors[up]
                    lowest[slot] = ic[heading]
                    member_starts[slot + 1] = 0
                lowest[slot] = min(lowest[slot], ic[heading])
                member_starts[slot + 1] += 1
        for slot in range(first_slot, used):
            slots[gathered[slot]] = -1
            filled[slot] = member_starts[slot]
            member_starts[slot + 1] += member_starts[slot]
        for slot in range(first_slot, used):
            slots[gathered[slot]] = slot
        for place in range(first_heading, kept):
            for up in range(starts[headings[place]], starts[headings[place] + 1]):
                slot = slots[ancestors[up]]
                members[filled[slot]] = place
                filled[slot] += 1
        for slot in range(first_slot, used):
            slots[gathered[slot]] = -1
        heading_starts[number + 1] = kept
        gathered_starts[number + 1] = used
    return heading_starts, ic[headings[:kept]], gathered_starts, gathered, lowest, member_starts, members


@cache
def _averages_by(measure: int) -> Callable[..., None]:
    """What fills `averages` by one measure, without a loop over pairs of headings (compiled by numba).

    Every measure rises with IC(c) and falls with IC(b). So the best match of a heading is a maximum over
    the ancestors c it shares with the other list, each taken with the lowest IC of that list's headings
    under c: the maximum is reached at the MICA of the best b. The measure is fixed here because compiled
    into the loop it costs nothing; tested in the loop, half as much again as all the rest.
    """

    def best_match_averages(  # noqa: PLR0917, numba takes arrays one by one
        sources: np.ndarray,
        contexts: np.ndarray,
        heading_starts: np.ndarray,
        heading_ic: np.ndarray,
        gathered_starts: np.ndarray,
        gathered: np.ndarray,
        lowest: np.ndarray,
        member_starts: np.ndarray,
        members: np.ndarray,
        ic: np.ndarray,
        population: float,
        averages: np.ndarray,
    ) -> None:
        best = np.empty(heading_ic.shape[0])

        def match(first: int, end: int, c: float, b: float) -> None:
            for member in range(first, end):
                place = members[member]
                both = heading_ic[place] + b
                if measure == _RESNIK:
                    value = c
                elif measure == _JIANG_CONRATH:
                    value = 1 - min(1.0, both - 2 * c)
                else:
                    value = 2 * c / both if both > 0 else 1.0
                    if measure == _REL:
                        value *= 1 - population**-c
                best[place] = max(best[place], value)

        def start(first: int, end: int, other_first: int, other_end: int) -> None:
            lowest_other = 2.0
            if measure == _JIANG_CONRATH:  # without a common ancestor IC(c) is 0, which is not similarity 0
                for place in range(other_first, other_end):
                    lowest_other = min(lowest_other, heading_ic[place])
            for place in range(first, end):
                best[place] = 1 - min(1.0, heading_ic[place] + lowest_other)

        def mean(first: int, end: int) -> float:
            total = 0.0
            for place in range(first, end):
                total += best[place]
            return total / (end - first)

        slots = np.full(ic.shape[0], -1, np.int32)  # of the ancestors of list `stamped`
        stamped = -1
        for pair in range(sources.shape[0]):
            a, b = sources[pair], contexts[pair]
            a_first, a_end = heading_starts[a], heading_starts[a + 1]
            b_first, b_end = heading_starts[b], heading_starts[b + 1]
            if a_first == a_end or b_first == b_end:
                averages[pair] = np.nan
                continue
            if a != stamped:
                if stamped >= 0:
                    for slot in range(gathered_starts[stamped], gathered_starts[stamped + 1]):
                        slots[gathered[slot]] = -1
                for slot in range(gathered_starts[a], gathered_starts[a + 1]):
                    slots[gathered[slot]] = slot
                stamped = a
            start(a_first, a_end, b_first, b_end)
            start(b_first, b_end, a_first, a_end)
            for b_slot in range(gathered_starts[b], gathered_starts[b + 1]):
                a_slot = slots[gathered[b_slot]]
                if a_slot >= 0:
                    c = ic[gathered[b_slot]]
                    match(member_starts[a_slot], member_starts[a_slot + 1], c, lowest[b_slot])
                    match(member_starts[b_slot], member_starts[b_slot + 1], c, lowest[a_slot])
            averages[pair] = (mean(a_first, a_end) + mean(b_first, b_end)) / 2

    return best_match_averages
