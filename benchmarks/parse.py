"""Our PubMed parser against pubmed_parser, on one generated file of 30,000 citations, same columns.

Each run is a process of its own and reads the gzipped file from disk: ours into polars tables, one after the
other; pubmed_parser into a list that becomes one. Counted is the CPU time over all threads, from the first
byte to the last row, after a file of ten citations was read, so that imports and the loading of compiled code
are not in it; they are reported as `start_seconds`. The contenders run in turn, the median of the rounds
counts. pubmed_parser is told to read qualifiers, as ours does; ours reads deletions, versions, other
abstracts, grants, links and a hash besides. `vs_gunzip` is against decompressing and nothing else, with the
standard library. Each process has one thread for polars, as a process for each core would. `two_processes`:
one file in each of two processes at once, in turn with one alone: how many times the files per second.
"""

import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import IO, Any, cast

import polars as pl

from benchmarks.pubmed_files import write_pubmed_file
from benchmarks.report import Goal, Report, peak_megabytes
from mkailin_assets.pubmed.citations import read_pubmed_file

_CITATIONS, _SEED, _ROUNDS = 30_000, 20260101, 5
_WARM_UP = "warm-up.xml.gz"
# Of what pubmed_parser reads, what is in a `PubmedRecord`.
_COLUMNS = [
    *("pmid", "title", "vernacular_title", "abstract", "journal", "pubdate", "languages", "authors"),
    *("publication_types", "mesh_terms", "chemical_list", "keywords", "doi", "pmc", "issue", "pages"),
    *("medline_ta", "nlm_unique_id", "issn_linking"),
]


def ours(path: Path) -> Iterator[pl.DataFrame]:
    """The tables that `pubmed_citations` is made of."""
    with path.open("rb") as file:
        yield from read_pubmed_file(file, path.name)


def pubmed_parser(path: Path) -> Iterator[pl.DataFrame]:
    """The same columns as pubmed_parser gives them, lists as text."""
    import pubmed_parser as parser

    articles = parser.parse_medline_xml(str(path), parse_downto_mesh_subterms=True)
    rows = [[article[name] for name in _COLUMNS] for article in articles]
    yield pl.DataFrame(rows, schema=_COLUMNS, orient="row")


def gunzip(path: Path) -> Iterator[pl.DataFrame]:
    """Decompress and drop."""
    with gzip.open(path) as file:
        while file.read(1 << 20):
            pass
    yield pl.DataFrame()


CONTENDERS: dict[str, Callable[[Path], Iterator[pl.DataFrame]]] = {
    function.__name__: function for function in (ours, pubmed_parser, gunzip)
}


def run() -> Report:
    """Generate the file, let the contenders read it in turn, and compare what they read."""
    measured = defaultdict[str, list[dict[str, float]]](list)
    speed_ups = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pubmed26n0001.xml.gz"
        write_pubmed_file(path.with_name(_WARM_UP), 10, _SEED)
        size = write_pubmed_file(path, _CITATIONS, _SEED) / 1e6
        for _ in range(_ROUNDS):
            for name in CONTENDERS:
                measured[name] += _children(name, path, processes=1)
            alone, both = (_children("ours", path, count) for count in (1, 2))
            speed_ups.append(2 * alone[0]["wall_seconds"] / max(child["wall_seconds"] for child in both))
        packed = path.stat().st_size / 1e6
        agreement = _agreement(pl.concat(ours(path)), pl.concat(pubmed_parser(path)))
    seconds = {name: [run["cpu_seconds"] for run in runs] for name, runs in measured.items()}
    medians = {name: median(taken) for name, taken in seconds.items()}
    peaks = {name: max(run["peak_megabytes"] for run in runs) for name, runs in measured.items()}
    ratio, two_processes = medians["pubmed_parser"] / medians["ours"], median(speed_ups)
    results = {
        "citations": _CITATIONS,
        "xml_megabytes": size,
        "gzip_megabytes": packed,
        "cpu_seconds": seconds,
        "start_seconds": {
            name: median(run["start_seconds"] for run in runs) for name, runs in measured.items()
        },
        "vs_pubmed_parser": ratio,
        "vs_gunzip": medians["ours"] / medians["gunzip"],
        "two_processes": two_processes,
        "megabytes_of_xml_per_second": size / medians["ours"],
        "peak_mb": peaks["ours"],
        "peak_megabytes": peaks,
        **agreement,
    }
    goals = [
        Goal("vs_pubmed_parser", ratio, goal=4, at_least=True),
        Goal("two_processes", two_processes, goal=1.8, at_least=True),
        Goal("peak_mb", peaks["ours"], goal=400, at_least=False),
    ]
    return Report(results, goals)


def _children(name: str, path: Path, processes: int) -> list[dict[str, float]]:
    """What a contender measured in each of some processes that began to read at the same time."""
    command = [sys.executable, "-m", "benchmarks.parse", name, str(path)]
    one_thread = {**os.environ, "POLARS_MAX_THREADS": "1"}
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=one_thread)
        for _ in range(processes)
    ]
    for child in children:
        cast(IO[str], child.stdout).readline()
    for child in children:
        ready = cast(IO[str], child.stdin)
        ready.write("go\n")
        ready.flush()
    outputs = [child.communicate()[0] for child in children]
    if any(child.returncode for child in children):
        raise RuntimeError(f"{name} failed on {path}")
    return [json.loads(output) for output in outputs]


def _agreement(ours: pl.DataFrame, theirs: pl.DataFrame) -> dict[str, Any]:
    """Fails unless both read the same citations with the same titles, years and numbers of headings."""
    mesh = pl.col("mesh_terms")
    citations = ours.filter(pl.col("record") == "citation")
    left = citations.select("pmid", "title", "year", headings=pl.col("headings").list.len())
    right = theirs.select(
        pl.col("pmid").cast(pl.Int64),
        "title",
        year=pl.col("pubdate").cast(pl.Int32),
        headings=pl.when(mesh == "").then(0).otherwise(mesh.str.count_matches("; ", literal=True) + 1),
    ).cast({"headings": left.schema["headings"]})
    if not left.equals(right):
        raise AssertionError(f"the parsers disagree: {left.height} citations against {right.height}")
    return {"same_pmids_titles_years_headings": left.height, "headings": int(left["headings"].sum())}


def _measure(name: str, path: Path) -> dict[str, float]:
    def read(file: Path) -> float:
        started = time.process_time()
        for part in CONTENDERS[name](file):
            del part
        return time.process_time() - started

    start = read(path.with_name(_WARM_UP))
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.monotonic()
    taken = read(path)
    return {
        "cpu_seconds": taken,
        "wall_seconds": time.monotonic() - started,
        "start_seconds": start,
        "peak_megabytes": peak_megabytes(),
    }


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], Path(sys.argv[2]))))
