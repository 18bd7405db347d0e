"""Our PubMed parser against pubmed_parser, on one generated file of 30,000 citations, same columns.

Each run is a process of its own and reads the gzipped file from disk into a polars table; counted is its CPU
time over all threads, from the first byte to the table, without imports. The contenders run in turn, the
median of the rounds counts. pubmed_parser is told to read qualifiers, as ours does; it reads authors besides,
ours deletions, versions, links and a hash. `vs_gunzip` is against decompressing and nothing else.
"""

import gzip
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl

from benchmarks.pubmed_files import write_pubmed_file
from benchmarks.report import Goal, Report
from mkailin_assets.pubmed.citations import read_pubmed_file

_CITATIONS, _SEED, _ROUNDS = 30_000, 20260101, 5
# Of what pubmed_parser reads, what is in a `PubmedRecord`.
_COLUMNS = [
    *("pmid", "title", "vernacular_title", "abstract", "journal", "pubdate", "languages"),
    *("publication_types", "mesh_terms", "keywords", "doi", "pmc"),
]


def ours(path: Path) -> pl.DataFrame:
    """The table as `pubmed_citations` holds it."""
    with path.open("rb") as file:
        return read_pubmed_file(file, path.name)


def pubmed_parser(path: Path) -> pl.DataFrame:
    """The same columns as pubmed_parser gives them, lists as text."""
    import pubmed_parser as parser

    articles = parser.parse_medline_xml(str(path), parse_downto_mesh_subterms=True)
    rows = [[article[name] for name in _COLUMNS] for article in articles]
    return pl.DataFrame(rows, schema=_COLUMNS, orient="row")


def gunzip(path: Path) -> None:
    """Decompress and drop."""
    with gzip.open(path) as file:
        while file.read(1 << 20):
            pass


CONTENDERS: dict[str, Callable[[Path], pl.DataFrame | None]] = {
    function.__name__: function for function in (ours, pubmed_parser, gunzip)
}


def run() -> Report:
    """Generate the file, let the contenders read it in turn, and compare what they read."""
    seconds, megabytes = defaultdict(list), dict[str, float]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pubmed26n0001.xml.gz"
        size = write_pubmed_file(path, _CITATIONS, _SEED) / 1e6
        for _ in range(_ROUNDS):
            for name in CONTENDERS:
                child = [sys.executable, "-m", "benchmarks.parse", name, str(path)]
                done = subprocess.run(child, check=True, capture_output=True, text=True)
                measured = json.loads(done.stdout)
                seconds[name].append(measured["cpu_seconds"])
                megabytes[name] = max(megabytes.get(name, 0), measured["peak_megabytes"])
        packed = path.stat().st_size / 1e6
        # Last, because a child's peak memory counts from its parent's.
        agreement = _agreement(ours(path), pubmed_parser(path))
    medians = {name: median(taken) for name, taken in seconds.items()}
    ratio = medians["pubmed_parser"] / medians["ours"]
    results = {
        "citations": _CITATIONS,
        "xml_megabytes": size,
        "gzip_megabytes": packed,
        "cpu_seconds": dict(seconds),
        "vs_pubmed_parser": ratio,
        "vs_gunzip": medians["ours"] / medians["gunzip"],
        "megabytes_of_xml_per_second": size / medians["ours"],
        "peak_megabytes": megabytes,
        **agreement,
    }
    return Report(results, [Goal("vs_pubmed_parser", ratio, goal=4, at_least=True)])


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
    started = time.process_time()
    CONTENDERS[name](path)
    taken = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {"cpu_seconds": taken, "peak_megabytes": peak}


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], Path(sys.argv[2]))))
