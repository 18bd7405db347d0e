"""The excerpt of MeSH that ships with the sample, and the home branch it gives a set of headings."""

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

EXCERPT = Path(__file__).parent / "mesh_excerpt.tsv"
COLUMNS = ("ui", "name", "class", "tree_numbers", "entry_terms")

# A heading of the citations that the excerpt lacks, as when MeSH is older than a citation.
UNKNOWN_HEADING = ("D000068997", "Smartphone")

# UIs of the qualifiers used (facts of the U.S. National Library of Medicine).
QUALIFIERS = {
    "administration & dosage": "Q000008",
    "adverse effects": "Q000009",
    "analysis": "Q000032",
    "antagonists & inhibitors": "Q000037",
    "blood": "Q000097",
    "blood supply": "Q000098",
    "cerebrospinal fluid": "Q000134",
    "chemically induced": "Q000139",
    "chemistry": "Q000737",
    "complications": "Q000150",
    "cytology": "Q000166",
    "diagnosis": "Q000175",
    "diagnostic imaging": "Q000000981",
    "diet therapy": "Q000178",
    "drug effects": "Q000187",
    "drug therapy": "Q000188",
    "education": "Q000193",
    "epidemiology": "Q000453",
    "etiology": "Q000209",
    "genetics": "Q000235",
    "immunology": "Q000276",
    "innervation": "Q000294",
    "metabolism": "Q000378",
    "methods": "Q000379",
    "microbiology": "Q000382",
    "pathology": "Q000473",
    "pharmacology": "Q000494",
    "physiology": "Q000502",
    "physiopathology": "Q000503",
    "prevention & control": "Q000517",
    "psychology": "Q000523",
    "radiotherapy": "Q000532",
    "rehabilitation": "Q000534",
    "secondary": "Q000556",
    "statistics & numerical data": "Q000706",
    "therapeutic use": "Q000627",
    "therapy": "Q000628",
    "toxicity": "Q000633",
    "urine": "Q000652",
}


@dataclass(frozen=True)
class Descriptor:
    """A descriptor of the excerpt."""

    ui: str
    name: str
    descriptor_class: int
    tree_numbers: tuple[str, ...]
    entry_terms: tuple[str, ...]


@dataclass(frozen=True)
class Excerpt:
    """Descriptors by name."""

    by_name: Mapping[str, Descriptor]

    @cached_property
    def _intrinsic_ic(self) -> dict[str, float]:
        """Intrinsic information content by UI: 1 for a leaf, less the more descendants there are."""
        holder = {number: d.ui for d in self.by_name.values() for number in d.tree_numbers}
        parents: dict[str, set[str]] = {d.ui: set() for d in self.by_name.values() if d.tree_numbers}
        for number, ui in holder.items():
            if "." in number:
                parents[ui].add(holder[number.rpartition(".")[0]])
        descendants = dict.fromkeys(parents, 0)
        for ui, above in parents.items():
            seen: set[str] = set()
            todo = set(above)
            while todo:
                seen |= todo
                todo = {up for parent in todo for up in parents[parent]} - seen
            for ancestor in seen - {ui}:  # MeSH has a cycle: Strabismus, Ocular Motility Disorders
                descendants[ancestor] += 1
        return {ui: 1 - math.log(1 + count) / math.log(len(parents)) for ui, count in descendants.items()}

    def home_branch(self, names: Iterable[str]) -> str | None:
        """Branch of the heading with the highest intrinsic information content, ties by tree number."""
        placed = [self.by_name[name] for name in names if self.by_name[name].tree_numbers]
        if not placed:
            return None
        best = min(placed, key=lambda d: (-self._intrinsic_ic[d.ui], min(d.tree_numbers)))
        return min(best.tree_numbers)[:3]


def load_excerpt() -> Excerpt:
    """The excerpt as committed."""
    with EXCERPT.open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines, delimiter="\t")
        found = [
            Descriptor(
                row["ui"],
                row["name"],
                int(row["class"]),
                tuple(filter(None, row["tree_numbers"].split("|"))),
                tuple(filter(None, row["entry_terms"].split("|"))),
            )
            for row in rows
        ]
    return Excerpt({d.name: d for d in found})
