"""The MeSH hierarchy as a graph of descriptors, and how much each descriptor says (docs/method.md)."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl

from mkailin_assets.mesh.tables import MeshInformationContent

# What indexers tick for nearly every article rather than choose as its subject: species, sex, pregnancy,
# age groups, historical periods (NLM, Principles of MEDLINE Subject Indexing).
CHECK_TAGS = MappingProxyType(
    {
        "D000818": "Animals",
        "D006801": "Humans",
        "D002415": "Cats",
        "D002417": "Cattle",
        "D002642": "Chick Embryo",
        "D006224": "Cricetinae",
        "D004285": "Dogs",
        "D006168": "Guinea Pigs",
        "D051379": "Mice",
        "D011817": "Rabbits",
        "D051381": "Rats",
        "D005260": "Female",
        "D008297": "Male",
        "D011247": "Pregnancy",
        "D007231": "Infant, Newborn",
        "D007223": "Infant",
        "D002675": "Child, Preschool",
        "D002648": "Child",
        "D000293": "Adolescent",
        "D055815": "Young Adult",
        "D000328": "Adult",
        "D008875": "Middle Aged",
        "D000368": "Aged",
        "D000369": "Aged, 80 and over",
        "D049690": "History, Ancient",
        "D049691": "History, Medieval",
        "D049668": "History, 15th Century",
        "D049669": "History, 16th Century",
        "D049670": "History, 17th Century",
        "D049671": "History, 18th Century",
        "D049672": "History, 19th Century",
        "D049673": "History, 20th Century",
        "D049674": "History, 21st Century",
    }
)


class UnknownDescriptor(KeyError):
    """A descriptor UI that this MeSH release does not have."""

    def __init__(self, ui: str) -> None:
        super().__init__(ui)
        self.ui = ui

    def __str__(self) -> str:
        return f"{self.ui!r} is no descriptor of this MeSH release; was it indexed with another year's?"


class MeshHierarchy:
    """Descriptors of one release and who is above whom. Immutable.

    The parent of a tree number is the descriptor that holds it without its last part; all the parent's own
    tree numbers lead on upwards. Following them from every tree number of a descriptor gives its ancestors.
    A tree number whose parent is missing is a root.
    """

    uis: tuple[str, ...]
    """Descriptor UIs, sorted; positions in the arrays below."""
    ancestor_starts: np.ndarray
    """int64 (descriptors + 1): where each descriptor's ancestors start in `ancestor_positions`."""
    ancestor_positions: np.ndarray
    """int32: positions of each descriptor's ancestors, itself first."""

    names: Mapping[str, str]
    """UI of each preferred name and entry term: files before 2013 have headings without a UI."""

    def __init__(
        self, tree_numbers: Mapping[str, Iterable[str]], names: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.names = MappingProxyType(dict(names))
        self._tree_numbers = {ui: tuple(sorted(tree_numbers[ui])) for ui in sorted(tree_numbers)}
        self.uis = tuple(self._tree_numbers)
        self._positions = {ui: position for position, ui in enumerate(self.uis)}
        parents, roots = self._parents_and_roots()
        above = [_closure(position, parents) for position in range(len(self.uis))]
        self.ancestor_starts = np.cumsum([0, *map(len, above)], dtype=np.int64)
        self.ancestor_positions = np.array([up for ups in above for up in ups], dtype=np.int32)
        self._descendants = np.bincount(self.ancestor_positions, minlength=len(self.uis)) - 1
        self._depths = _shortest_ways(parents, roots)
        for array in (self.ancestor_starts, self.ancestor_positions, self._descendants):
            array.setflags(write=False)

    @classmethod
    def from_descriptors(cls, descriptors: pl.DataFrame) -> "MeshHierarchy":
        """From table MeshDescriptor."""
        tree_numbers = dict(descriptors.select("descriptor_ui", "tree_numbers").iter_rows())
        return cls(tree_numbers, names_of(descriptors))

    def __contains__(self, ui: object) -> bool:
        return ui in self._positions

    def __len__(self) -> int:
        return len(self.uis)

    def position(self, ui: str) -> int:
        """Where the descriptor stands in `uis`; raises `UnknownDescriptor`."""
        try:
            return self._positions[ui]
        except KeyError:
            raise UnknownDescriptor(ui) from None

    def tree_numbers(self, ui: str) -> tuple[str, ...]:
        """Its places in the tree, sorted; raises `UnknownDescriptor`."""
        return self._tree_numbers[self.uis[self.position(ui)]]

    def ancestors(self, ui: str) -> frozenset[str]:
        """UIs of all descriptors above it, and its own; raises `UnknownDescriptor`."""
        position = self.position(ui)
        start, end = self.ancestor_starts[position : position + 2]
        return frozenset(self.uis[up] for up in self.ancestor_positions[start:end])

    def descendants(self, ui: str) -> int:
        """How many distinct descriptors are below it; raises `UnknownDescriptor`."""
        return int(self._descendants[self.position(ui)])

    def depth(self, ui: str) -> int | None:
        """Steps of the shortest way from a root (0) down to it, None without a tree number."""
        return self._depths[self.position(ui)]

    def branches(self, ui: str) -> tuple[str, ...]:
        """Second-level codes it falls under, `("C04", "C10")`; raises `UnknownDescriptor`."""
        return tuple(dict.fromkeys(number.partition(".")[0] for number in self.tree_numbers(ui)))

    def is_check_tag(self, ui: str) -> bool:
        """Whether indexers tick it for nearly every article (`CHECK_TAGS`)."""
        return ui in CHECK_TAGS

    def scorable(self, headings: Iterable[str]) -> list[str]:
        """UIs of those a similarity can be computed on: known, with a tree number, no check tag; each once.

        A heading is a descriptor UI, or its name where the citation gives no UI.
        """
        uis = dict.fromkeys(self.names.get(heading, heading) for heading in headings)
        return [ui for ui in uis if ui not in CHECK_TAGS and self._tree_numbers.get(ui)]

    def intrinsic_ic(self) -> Mapping[str, float]:
        """Seco et al. 2004: 1 - ln(1 + descendants) / ln(descriptors): 1 for a leaf, 0 for a root of all."""
        ic = np.maximum(0, 1 - np.log1p(self._descendants) / math.log(max(len(self.uis), 2)))
        return MappingProxyType(dict(zip(self.uis, ic.tolist(), strict=True)))

    def _parents_and_roots(self) -> tuple[list[tuple[int, ...]], list[int]]:
        holders: dict[str, int] = {}
        for ui, numbers in self._tree_numbers.items():
            for number in numbers:
                if number in holders:
                    raise ValueError(
                        f"tree number {number} is held by {self.uis[holders[number]]} and by {ui}"
                    )
                holders[number] = self._positions[ui]
        above = [[number.rpartition(".")[0] for number in numbers] for numbers in self._tree_numbers.values()]
        parents = [tuple(dict.fromkeys(holders[up] for up in ups if up in holders)) for ups in above]
        roots = [position for position, ups in enumerate(above) if any(up not in holders for up in ups)]
        return parents, roots


def names_of(descriptors: pl.DataFrame) -> dict[str, str]:
    """UI of each name and entry term of table MeshDescriptor; a name goes before another's entry term."""
    terms = descriptors.explode("entry_terms", empty_as_null=False).reverse()
    names = dict(terms.select("entry_terms", "descriptor_ui").iter_rows())
    return names | dict(descriptors.select("name", "descriptor_ui").iter_rows())


def _closure(position: int, parents: list[tuple[int, ...]]) -> list[int]:
    """Everything above a position, itself first; ends even where a release has a cycle."""
    reached = {position: None}
    waiting = [position]
    while waiting:
        for up in parents[waiting.pop()]:
            if up not in reached:
                reached[up] = None
                waiting.append(up)
    return list(reached)


def _shortest_ways(parents: list[tuple[int, ...]], roots: list[int]) -> list[int | None]:
    children: list[list[int]] = [[] for _ in parents]
    for position, ups in enumerate(parents):
        for up in ups:
            children[up].append(position)
    depths: list[int | None] = [None] * len(parents)
    level, depth = roots, 0
    while level:
        for position in level:
            depths[position] = depth
        level = list({low for up in level for low in children[up] if depths[low] is None})
        depth += 1
    return depths


@cache
def compiled(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The kernel as machine code, kept on disk between runs; numba is imported at the first call."""
    import numba

    return numba.njit(cache=True, nogil=True)(kernel)


@dataclass(frozen=True)
class AnnotationCounts:
    """What the headings of many citations add up to."""

    by_descriptor: Mapping[str, int]
    """n(m) for every descriptor: citations annotated with it or a descendant, each once."""
    citations: int
    """N: citations with at least one heading of this release."""
    without_headings: int
    """Citations with none; they are in no count."""
    headings: int
    """All headings of these citations."""
    unknown: Mapping[str, int]
    """Headings that this release does not have and how often they came."""


def current_headings(
    current_citations: pl.DataFrame, pubmed_citations: Mapping[str, pl.LazyFrame]
) -> Iterator[pl.Series]:
    """Headings of each current citation, by UI or else by name: a series of lists for each PubMed file.

    `current_citations` is table CurrentCitation, `pubmed_citations` table PubmedRecord by file. A record
    that another superseded, and a deleted or retracted citation, is left out. One file is read at a time.
    """
    key = ["pmid", "pubmed_file", "position"]
    current = current_citations.lazy().filter(pl.col("state") == "current").select(key)
    for pubmed_file, records in pubmed_citations.items():
        latest = records.filter(pl.col("record") == "citation").select(*key, "headings")
        of_file = current.filter(pl.col("pubmed_file") == pubmed_file)
        headings = latest.join(of_file, on=key, how="semi").collect()["headings"]
        yield headings.list.eval(heading_key())


def heading_key() -> pl.Expr:
    """What an element of `headings` is known by: its descriptor UI, or its name where it has none."""
    return pl.coalesce(pl.element().struct.field("ui"), pl.element().struct.field("name"))


def count_annotations(hierarchy: MeshHierarchy, heading_sets: Iterable[pl.Series]) -> AnnotationCounts:
    """Count citations per descriptor, over chunks of any size: series of lists of headings, a row a citation.

    Memory grows with the largest chunk alone.
    """
    uis = {**hierarchy.names, **{ui: ui for ui in hierarchy.uis}}
    positions = pl.DataFrame(
        {"heading": list(uis), "position": [hierarchy.position(ui) for ui in uis.values()]},
        schema={"heading": pl.String, "position": pl.Int32},
    )
    counts = np.zeros(len(hierarchy), np.int64)
    citations = without = total = 0
    unknown: Counter[str] = Counter()
    for headings in heading_sets:
        citation = pl.int_range(headings.len(), dtype=pl.Int32, eager=True)
        named = (
            pl.DataFrame({"citation": citation, "heading": headings.cast(pl.List(pl.String))})
            .explode("heading", empty_as_null=False, keep_nulls=False)
            .join(positions, on="heading", how="left", maintain_order="left")
        )
        total += named.height
        known = named.drop_nulls("position")
        missing = named.filter(pl.col("position").is_null())["heading"].value_counts()
        unknown.update(dict(missing.iter_rows()))
        counted = compiled(_count)(
            known["citation"].to_numpy(),
            known["position"].to_numpy(),
            hierarchy.ancestor_starts,
            hierarchy.ancestor_positions,
            counts,
        )
        citations += counted
        without += headings.len() - counted
    return AnnotationCounts(
        dict(zip(hierarchy.uis, counts.tolist(), strict=True)), citations, without, total, dict(unknown)
    )


def _count(
    citations: np.ndarray, headings: np.ndarray, starts: np.ndarray, ancestors: np.ndarray, counts: np.ndarray
) -> int:
    """Add each citation once to every ancestor of its headings; how many citations there were.

    `citations` and `headings` (positions) are aligned, a citation's rows together.
    """
    counted_for = np.full(counts.shape[0], -1, np.int32)
    counted = 0
    for row in range(citations.shape[0]):
        citation = citations[row]
        if row == 0 or citation != citations[row - 1]:
            counted += 1
        for place in range(starts[headings[row]], starts[headings[row] + 1]):
            ancestor = ancestors[place]
            if counted_for[ancestor] != citation:
                counted_for[ancestor] = citation
                counts[ancestor] += 1
    return counted


def corpus_ic(counts: Mapping[str, int], citations: int) -> dict[str, float]:
    """-ln((n + 1) / (N + 1)) / ln(N + 1) of each descriptor: 1 where nobody, 0 where everybody has it.

    `citations` is N; without citations nothing is known and all are 0.
    """
    if citations == 0:
        return dict.fromkeys(counts, 0.0)
    scale = math.log(citations + 1)
    return {ui: max(0.0, 1 - math.log(n + 1) / scale) for ui, n in counts.items()}


def information_content(
    descriptors: pl.DataFrame, hierarchy: MeshHierarchy, counts: AnnotationCounts
) -> pl.DataFrame:
    """Table MeshInformationContent: a row per row of table MeshDescriptor."""
    ic, intrinsic = corpus_ic(counts.by_descriptor, counts.citations), hierarchy.intrinsic_ic()
    rows = [
        (
            ui,
            name,
            counts.by_descriptor[ui],
            counts.citations,
            hierarchy.descendants(ui),
            ic[ui],
            intrinsic[ui],
            hierarchy.depth(ui),
        )
        for ui, name in descriptors.select("descriptor_ui", "name").iter_rows()
    ]
    return pl.DataFrame(rows, schema=MeshInformationContent.create_empty().schema, orient="row")


def snapshot(earlier: pl.DataFrame | None, now: pl.DataFrame, most_drift: float) -> pl.DataFrame:
    """Of two tables `MeshInformationContent` the one to use: the earlier, while it still holds.

    It holds if it is of the same release and by the same formulas, and N differs by at most a share
    `most_drift`.
    """
    of_release = ["descriptor_ui", "name", "descendants", "intrinsic_ic", "depth"]
    if earlier is None or earlier.is_empty() or earlier.schema != now.schema:
        return now
    then, today = (table.item(0, "all_citations") for table in (earlier, now))
    counts = dict(earlier.select("descriptor_ui", "citations").iter_rows())
    same_rules = list(corpus_ic(counts, then).values()) == earlier["corpus_ic"].to_list()
    same_release = earlier.select(of_release).equals(now.select(of_release))
    return earlier if same_rules and same_release and abs(today - then) <= most_drift * then else now
