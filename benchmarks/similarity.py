"""Best-match average by Lin: our batch method against sets of ancestors compared pair by pair.

On the real 2024 tree, with the heading lists of real citations: those with 8 to 16 scorable headings, about
12. As in scoring, a source meets eight contexts in a row (two questions, four contexts each), drawn at
random from a seed. Both get a new list of UIs for every side of every pair; both run on one thread, timed in
CPU seconds, in turn, median of the rounds. Not timed: building the hierarchy and the sets of ancestors,
filtering for the naive one (ours filters within its time), compiling. `pairs_per_second_from_columns` counts
taking the lists out of table columns too, which a stage has to do.

The naive one is the formula as it is written: the similarity of each two headings is computed where the
formula names it, once in each direction; `vs_naive_once` is against one that computes it once and keeps it.
"""

import gzip
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from lxml import etree

from benchmarks.report import Goal, Report, interleaved_medians
from mkailin_assets.mesh.descriptors import read_descriptors
from mkailin_assets.mesh.hierarchy import MeshHierarchy, corpus_ic, count_annotations
from mkailin_assets.mesh.similarity import HeadingSimilarity

_SEED = 20240101
_PAIRS, _NAIVE_PAIRS = 60_000, 400
_CONTEXTS_PER_SOURCE = 8
_FEWEST, _MOST = 8, 16

Headings = list[str]


class NaiveLin:
    """Lin and its best-match average from sets of ancestors."""

    def __init__(self, hierarchy: MeshHierarchy, ic: Mapping[str, float]) -> None:
        self._ic = ic
        self._ancestors = {ui: hierarchy.ancestors(ui) for ui in hierarchy.uis}

    def lin(self, a: str, b: str) -> float:
        """2 IC(MICA) / (IC(a) + IC(b)), 0 without common ancestor."""
        mica = max((self._ic[c] for c in self._ancestors[a] & self._ancestors[b]), default=0.0)
        return 2 * mica / (self._ic[a] + self._ic[b])

    def average(self, a: Headings, b: Headings) -> float:
        """The formula as it is written."""
        forth = sum(max(self.lin(x, y) for y in b) for x in a) / len(a)
        back = sum(max(self.lin(x, y) for x in a) for y in b) / len(b)
        return (forth + back) / 2

    def average_once(self, a: Headings, b: Headings) -> float:
        """The same with each pair computed once."""
        table = [[self.lin(x, y) for y in b] for x in a]
        forth = sum(map(max, table)) / len(a)
        back = sum(map(max, zip(*table, strict=True))) / len(b)
        return (forth + back) / 2


def run() -> Report:
    """Measure; SystemExit with what to do where the real files are not at hand."""
    folder = os.environ.get("MKAILIN_REAL_DATA")
    if not folder:
        raise SystemExit("similarity: set MKAILIN_REAL_DATA to the folder that holds nlm/ with desc2024.gz")
    nlm = Path(folder) / "nlm"
    release = nlm / "projects/mesh/MESH_FILES/xmlmesh/desc2024.gz"
    hierarchy = MeshHierarchy.from_descriptors(read_descriptors(release, release.name, 2024))
    citations = [headings for file in sorted(nlm.glob("pubmed/*/*.xml.gz")) for headings in _headings(file)]
    counted = count_annotations(hierarchy, [pl.Series(citations, dtype=pl.List(pl.String))])
    ic = corpus_ic(counted.by_descriptor, counted.citations)
    lists = [headings for headings in map(hierarchy.scorable, citations) if _FEWEST <= len(headings) <= _MOST]
    sources, contexts = _pairs(lists, random.Random(_SEED))
    return _compare(HeadingSimilarity(hierarchy, ic), NaiveLin(hierarchy, ic), sources, contexts)


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
    similarity: HeadingSimilarity, naive: NaiveLin, sources: list[Headings], contexts: list[Headings]
) -> Report:
    few = list(zip(sources[:_NAIVE_PAIRS], contexts[:_NAIVE_PAIRS], strict=True))
    columns = [pl.Series(side, dtype=pl.List(pl.String)) for side in (sources, contexts)]
    similarity.best_match_averages(sources[:1], contexts[:1])  # compiles
    seconds = interleaved_medians(
        {
            "naive": lambda: [naive.average(a, b) for a, b in few],
            "once": lambda: [naive.average_once(a, b) for a, b in few],
            "batch": lambda: similarity.best_match_averages(sources, contexts),
            "columns": lambda: similarity.best_match_averages(*(side.to_list() for side in columns)),
        },
        rounds=7,
    )
    expected = np.array([naive.average(a, b) for a, b in few])
    error = np.abs(similarity.best_match_averages(*map(list, zip(*few, strict=True))) - expected).max()
    per_second = {
        "naive": len(few) / seconds["naive"],
        "once": len(few) / seconds["once"],
        "batch": len(sources) / seconds["batch"],
        "columns": len(sources) / seconds["columns"],
    }
    return Report(
        results={
            "pairs_per_second": per_second["batch"],
            "pairs_per_second_from_columns": per_second["columns"],
            "naive_pairs_per_second": per_second["naive"],
            "vs_naive_once": per_second["batch"] / per_second["once"],
            "headings_per_list": float(np.mean([len(headings) for headings in sources + contexts])),
            "pairs": len(sources),
            "distinct_lists": len({tuple(headings) for headings in sources + contexts}),
            "threads": 1,
        },
        goals=[
            Goal("vs_naive", per_second["batch"] / per_second["naive"], goal=200, at_least=True),
            Goal("max_error", float(error), goal=1e-12, at_least=False),
        ],
    )
