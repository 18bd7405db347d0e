"""Rewrites `mesh_excerpt.tsv` from one of NLM's descriptor files, for when the material names new headings.

`python -m mkailin_resources.sample.excerpt desc2024.gz` takes UIs, names and tree numbers of the
headings used, of the roots of all branches and of all their ancestors, and a few entry terms of the
headings used. No scope notes.
"""

import csv
import gzip
import sys
from pathlib import Path

from lxml import etree

from mkailin_resources.sample.compose import REVISION_HEADING, compose
from mkailin_resources.sample.mesh import COLUMNS, EXCERPT, UNKNOWN_HEADING

MOST_ENTRY_TERMS = 2
LONGEST_ENTRY_TERM = 40
CHECK_TAGS = set(
    "Adolescent|Adult|Aged|Aged, 80 and over|Animals|Child|Child, Preschool|Female|Humans|Infant|"
    "Infant, Newborn|Male|Mice|Middle Aged|Pregnancy|Rats|Young Adult".split("|")
)


def headings_used() -> set[str]:
    """Names of the descriptors and publication types that the sample uses, but for the unknown one."""
    composed = compose()
    studies = [*composed.studies, *composed.benchmark]
    names = {heading.split("/")[0] for study in studies for heading in [*study.headings, *study.tags]}
    for written in composed.written:
        for heading in [*written["headings"], *written.get("revised_headings", [])]:
            names.add(heading.rstrip("*").split("/")[0])
    types = {kind for study in studies for kind in study.types} | {
        kind for written in composed.written for kind in written["types"]
    }
    extra = {"Journal Article", "Retracted Publication", REVISION_HEADING} | CHECK_TAGS
    return (names | types | extra) - {UNKNOWN_HEADING[1]}


def rewrite(descriptors: Path) -> int:
    """Writes the excerpt; number of descriptors. Raises `ValueError` for headings not in the file."""
    used = headings_used()
    rows: dict[str, dict[str, str]] = {}
    places: dict[str, str] = {}
    with gzip.open(descriptors) as stream:
        for _, record in etree.iterparse(
            stream, tag="DescriptorRecord", resolve_entities=False, no_network=True
        ):
            name = record.findtext("DescriptorName/String")
            numbers = [number.text for number in record.iterfind("TreeNumberList/TreeNumber")]
            terms = [
                term.findtext("String")
                for term in record.iterfind(".//Term")
                if term.get("IsPermutedTermYN") == "N"
            ]
            short = [term for term in terms if term != name and len(term) <= LONGEST_ENTRY_TERM]
            kind = {"Z": "4", "V": "2"}.get(numbers[0][0], "1") if numbers else "3"
            rows[name] = {
                "ui": record.findtext("DescriptorUI"),
                "name": name,
                "class": kind,
                "tree_numbers": "|".join(sorted(numbers)),
                "entry_terms": "|".join(short[:MOST_ENTRY_TERMS]),
            }
            places |= dict.fromkeys(numbers, name)
            record.clear()
    missing = sorted(name for name in used if name not in rows)
    if missing:
        raise ValueError(f"{descriptors}: no descriptor named {', '.join(missing)}")
    wanted: set[str] = set()
    todo = used | {name for number, name in places.items() if "." not in number}
    while todo:
        wanted |= todo
        above = {
            places[number.rpartition(".")[0]]
            for name in todo
            for number in rows[name]["tree_numbers"].split("|")
            if "." in number
        }
        todo = above - wanted
    with EXCERPT.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        for row in sorted((rows[name] for name in wanted), key=lambda row: row["ui"]):
            writer.writerow(row if row["name"] in used else {**row, "entry_terms": ""})
    return len(wanted)


if __name__ == "__main__":
    print(rewrite(Path(sys.argv[1])), "descriptors")
