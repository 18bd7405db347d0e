"""Scores of the cold start, corrected and kailin_compat, against sets of ancestors compared pair by pair.

On the real 2024 tree, with the heading lists of real citations: those with 8 to 16 scorable headings, about
12. As in scoring, a source meets eight contexts in a row (two questions, four contexts each), drawn at
random from a seed. All get a new list of UIs for every side of every pair; all run on one thread, timed in
CPU seconds, in turn, median of the rounds. Not timed: building the hierarchy, the sets of ancestors and
information content, filtering for the naive ones (ours filter within their time), compiling.
`pairs_per_second_from_columns` counts taking the lists out of table columns too, which a stage has to do.

`vs_naive` is about Lin on corpus IC, the default; `max_error` is the largest of all four measures, each on
corpus and on intrinsic IC. The naive ones are the formulas as they are written: the similarity of each two
headings is computed where the formula names it, which is once in each direction for a best match;
`vs_naive_once` is against one that computes it once and keeps it.
"""

import gzip
import math
import os
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from lxml import etree

from benchmarks.report import Goal, Report, interleaved_medians
from mkailin_assets.mesh.descriptors import read_descriptors
from mkailin_assets.mesh.hierarchy import AnnotationCounts, MeshHierarchy, corpus_ic, count_annotations
from mkailin_assets.mesh.kailin import KailinSimilarity
from mkailin_assets.mesh.similarity import MEASURES, HeadingSimilarity, Measure

_SEED = 20240101
_PAIRS, _NAIVE_PAIRS = 60_000, 400
_CONTEXTS_PER_SOURCE = 8
_FEWEST, _MOST = 8, 16

Headings = list[str]


class NaiveCorrected:
    """The four measures and their best-match average from sets of ancestors."""

    def __init__(
        self, hierarchy: MeshHierarchy, ic: Mapping[str, float], measure: Measure, population: int
    ) -> None:
        self._ic = ic
        self._population = population
        self._ancestors = {ui: hierarchy.ancestors(ui) for ui in hierarchy.uis}
        self._similarity = getattr(self, measure)

    def resnik(self, a: str, b: str) -> float:
        """IC(MICA), 0 without common ancestor."""
        return max((self._ic[c] for c in self._ancestors[a] & self._ancestors[b]), default=0.0)

    def lin(self, a: str, b: str) -> float:
        """2 IC(MICA) / (IC(a) + IC(b)); it calls nothing, because it is timed."""
        mica = max((self._ic[c] for c in self._ancestors[a] & self._ancestors[b]), default=0.0)
        return 2 * mica / (self._ic[a] + self._ic[b])

    def jiang_conrath(self, a: str, b: str) -> float:
        """1 - min(1, IC(a) + IC(b) - 2 IC(MICA))."""
        return 1 - min(1.0, self._ic[a] + self._ic[b] - 2 * self.resnik(a, b))

    def rel(self, a: str, b: str) -> float:
        """Lin (1 - p(MICA))."""
        return self.lin(a, b) * (1 - math.exp(-self.resnik(a, b) * math.log(self._population)))

    def average(self, a: Headings, b: Headings) -> float:
        """The formula as it is written."""
        forth = sum(max(self._similarity(x, y) for y in b) for x in a) / len(a)
        back = sum(max(self._similarity(x, y) for x in a) for y in b) / len(b)
        return (forth + back) / 2

    def average_once(self, a: Headings, b: Headings) -> float:
        """The same with each pair computed once."""
        table = [[self._similarity(x, y) for y in b] for x in a]
        forth = sum(map(max, table)) / len(a)
        back = sum(map(max, zip(*table, strict=True))) / len(b)
        return (forth + back) / 2


class NaiveKailin:
    """The formula of mkailin_assets/mesh/kailin.py from tree numbers as text, IC and MaxIC at hand."""

    def __init__(self, hierarchy: MeshHierarchy, citations: Mapping[str, int]) -> None:
        self._ways = {
            ui: [number.split(".") for number in hierarchy.tree_numbers(ui)] for ui in hierarchy.uis
        }
        self._holders = {number: ui for ui in hierarchy.uis for number in hierarchy.tree_numbers(ui)}
        below: dict[tuple[str, str], set[str]] = defaultdict(set)
        whole: dict[str, int] = defaultdict(int)
        for number, ui in self._holders.items():
            if "." in number:
                for up in hierarchy.ancestors(self._holders[number.rpartition(".")[0]]):
                    below[up, number.partition(".")[0]].add(ui)
        for ui in hierarchy.uis:
            for branch in hierarchy.branches(ui):
                whole[branch] += citations[ui]
        self._ic: dict[str, dict[str, float]] = {}
        self._max_ic: dict[str, float] = defaultdict(float)
        for ui in hierarchy.uis:
            self._ic[ui] = {}
            for branch in hierarchy.branches(ui):
                counted = sum(citations[low] for low in below[ui, branch])
                self._ic[ui][branch] = -math.log10(counted / whole[branch]) if counted else 0.0
                self._max_ic[branch] = max(self._max_ic[branch], self._ic[ui][branch])

    def similarity(self, a: str, b: str) -> float:
        """Mean of Lin, Jiang and Rel over the branches of both and of their LCA."""
        if a == b:
            return 1.0
        longest = max((_shared(one, other) for one in self._ways[a] for other in self._ways[b]), key=len)
        if not longest:
            return 0.0
        values = []
        for branch, ic in self._ic[self._holders[".".join(longest)]].items():
            both = self._ic[a].get(branch, 0.0) + self._ic[b].get(branch, 0.0)
            if branch in self._ic[a] and branch in self._ic[b] and both > 0:
                t = ic / self._max_ic[branch]
                lin = 2 * t / both
                rel = lin * (1 - 10 ** (-t * self._max_ic[branch]))
                values += [min(1.0, lin), 1 - min(1.0, both - 2 * t), min(1.0, rel)]
        return sum(min(1.0, value) for value in values) / len(values) if values else 0.0

    def average(self, a: Headings, b: Headings) -> float:
        """The mean over all pairs of headings."""
        return sum(self.similarity(x, y) for x in a for y in b) / (len(a) * len(b))


def _shared(one: Headings, other: Headings) -> Headings:
    level = 0
    for mine, its in zip(one, other, strict=False):
        if mine != its:
            break
        level += 1
    return one[:level]


def run() -> Report:
    """Measure; SystemExit with what to do where the real files are not at hand."""
    folder = os.environ.get("MKAILIN_REAL_DATA")
    if not folder:
        raise SystemExit("preferences: set MKAILIN_REAL_DATA to the folder that holds nlm/ with desc2024.gz")
    nlm = Path(folder) / "nlm"
    release = nlm / "projects/mesh/MESH_FILES/xmlmesh/desc2024.gz"
    hierarchy = MeshHierarchy.from_descriptors(read_descriptors(release, release.name, 2024))
    citations = [headings for file in sorted(nlm.glob("pubmed/*/*.xml.gz")) for headings in _headings(file)]
    counted = count_annotations(hierarchy, [pl.Series(citations, dtype=pl.List(pl.String))])
    lists = [headings for headings in map(hierarchy.scorable, citations) if _FEWEST <= len(headings) <= _MOST]
    return _compare(hierarchy, counted, *_pairs(lists, random.Random(_SEED)))


def _headings(file: Path) -> Iterator[Headings]:
    with gzip.open(file) as stream:
        for _, citation in etree.iterparse(stream, tag="MedlineCitation", resolve_entities=False):
            found = [name.get("UI") for name in citation.iterfind(".//MeshHeading/DescriptorName")]
            yield [ui for ui in found if ui]
            citation.clear()


def _pairs(lists: Sequence[Headings], chance: random.Random) -> tuple[list[Headings], list[Headings]]:
    sources: list[Headings] = []
    contexts: list[Headings] = []
    while len(sources) < _PAIRS:
        source, *others = chance.sample(lists, 1 + _CONTEXTS_PER_SOURCE)
        sources += [list(source) for _ in others]
        contexts += [list(other) for other in others]
    return sources, contexts


def _compare(
    hierarchy: MeshHierarchy, counted: AnnotationCounts, sources: list[Headings], contexts: list[Headings]
) -> Report:
    few_sources, few_contexts = sources[:_NAIVE_PAIRS], contexts[:_NAIVE_PAIRS]
    few = list(zip(few_sources, few_contexts, strict=True))
    columns = [pl.Series(side, dtype=pl.List(pl.String)) for side in (sources, contexts)]

    def error(ours: HeadingSimilarity | KailinSimilarity, theirs: NaiveCorrected | NaiveKailin) -> float:
        expected = [theirs.average(a, b) for a, b in few]
        return float(np.abs(ours.best_match_averages(few_sources, few_contexts) - expected).max())

    ic = corpus_ic(counted.by_descriptor, counted.citations)
    corrected_error = max(
        error(HeadingSimilarity(*formula), NaiveCorrected(*formula))
        for measure in MEASURES
        for formula in (
            (hierarchy, ic, measure, counted.citations + 1),
            (hierarchy, hierarchy.intrinsic_ic(), measure, len(hierarchy)),
        )
    )
    corrected, naive = HeadingSimilarity(hierarchy, ic), NaiveCorrected(hierarchy, ic, "lin", 1)
    kailin = KailinSimilarity(hierarchy, counted.by_descriptor)
    naive_kailin = NaiveKailin(hierarchy, counted.by_descriptor)
    kailin_error = error(kailin, naive_kailin)
    seconds = interleaved_medians(
        {
            "naive": lambda: [naive.average(a, b) for a, b in few],
            "once": lambda: [naive.average_once(a, b) for a, b in few],
            "batch": lambda: corrected.best_match_averages(sources, contexts),
            "columns": lambda: corrected.best_match_averages(*(side.to_list() for side in columns)),
            "kailin": lambda: kailin.best_match_averages(sources, contexts),
            "naive_kailin": lambda: [naive_kailin.average(a, b) for a, b in few],
        },
        rounds=7,
    )
    per_second = {
        name: (len(few) if name in {"naive", "once", "naive_kailin"} else len(sources)) / taken
        for name, taken in seconds.items()
    }
    return Report(
        results={
            "pairs_per_second": per_second["batch"],
            "pairs_per_second_from_columns": per_second["columns"],
            "naive_pairs_per_second": per_second["naive"],
            "vs_naive_once": per_second["batch"] / per_second["once"],
            "kailin_compat_pairs_per_second": per_second["kailin"],
            "kailin_compat_naive_pairs_per_second": per_second["naive_kailin"],
            "kailin_compat_vs_naive": per_second["kailin"] / per_second["naive_kailin"],
            "headings_per_list": float(np.mean([len(headings) for headings in sources + contexts])),
            "pairs": len(sources),
            "distinct_lists": len({tuple(headings) for headings in sources + contexts}),
            "threads": 1,
        },
        goals=[
            Goal("vs_naive", per_second["batch"] / per_second["naive"], goal=200, at_least=True),
            Goal("max_error", corrected_error, goal=1e-12, at_least=False),
            Goal("kailin_compat_max_error", kailin_error, goal=1e-12, at_least=False),
        ],
    )
