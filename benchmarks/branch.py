"""The citations of many branches in one pass: memory when the corpus grows tenfold.

`branch_citations` of 39 branches is materialized through Dagster, in a process of its own, over 50,000 and
over 500,000 citations with all their text, and once for one branch alone. Memory is the peak of the process.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.pubmed_stage import (
    citations,
    full_citations,
    in_child,
    materialize,
    measured,
    write_descriptors,
)
from benchmarks.report import Goal, Report
from mkailin_assets.partitions import RANGE_TAGS
from mkailin_resources.storage import Storage

_FILES, _ROWS, _SEED = 50, 10_000, 20260103
_MANY, _ONE = ("A01", "C16"), ("C04", "C04")


def run() -> Report:
    """Build the corpora, then measure."""
    with tempfile.TemporaryDirectory() as folder:
        full = full_citations(Path(folder), _ROWS, _SEED)
        small = _corpus(Path(folder) / "small", full, _FILES // 10)
        large = _corpus(Path(folder) / "large", full, _FILES)
        tenth = in_child("benchmarks.branch", small, *_MANY)
        whole = in_child("benchmarks.branch", large, *_MANY)
        one = in_child("benchmarks.branch", large, *_ONE)
        rows = {root.name: _rows(root) for root in (small, large)}
    slope = whole["peak_mb"] / tenth["peak_mb"]
    results = {
        "citations": {"small": _FILES // 10 * _ROWS, "large": _FILES * _ROWS},
        "rows_gathered": rows,
        "small": tenth,
        "large": whole,
        "large_one_branch": one,
        "many_branches_vs_one": whole["wall_seconds"] / one["wall_seconds"],
        "memory_slope": slope,
    }
    return Report(results, [Goal("memory_slope", slope, goal=1.2, at_least=False)])


def _corpus(root: Path, full: pl.DataFrame, files: int) -> Path:
    storage = Storage(root=str(root))
    write_descriptors(storage, _SEED)
    for number in range(files):
        key = f"pubmed26n{number + 1:04d}"
        pmids = number * _ROWS + 1 + np.arange(_ROWS)
        other = citations(key, pmids, number).select("pmid", "pubmed_file", "headings", "content_hash")
        storage.write_table(full.with_columns(other.iter_columns()), "pubmed_citations", key)
    materialize(root, ["current_citations"])
    return root


def _rows(root: Path) -> int:
    tables = (root / "tables" / "branch_citations").glob("*.parquet")
    return sum(pl.scan_parquet(path).select(pl.len()).collect().item() for path in tables)


if __name__ == "__main__":
    root, *ends = sys.argv[1:]
    tags = dict(zip(RANGE_TAGS, ends, strict=True))
    print(json.dumps(measured(lambda: materialize(Path(root), ["branch_citations"], tags))))
