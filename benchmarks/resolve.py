"""The state of 3 million citations: what an update of 30,000 rows costs, and how a rebuild grows.

`current_citations` is materialized through Dagster, in processes of its own, over 10 and over 100 files of
30,000 citations, then again with one update file more: 20,000 revised citations, 9,850 new ones and 150
deletions. `update_bytes_ratio`: bytes written by that over the bytes of the update's own table, whose
citations have all their text. The result is compared with a rebuild of everything.
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
    sizes,
    write_descriptors,
)
from benchmarks.report import Goal, Report
from mkailin_assets.pubmed.tables import pubmed_records
from mkailin_resources.storage import Storage

_FILES, _ROWS, _SEED = 100, 30_000, 20260102
_REVISED, _DELETED = 20_000, 150


def run() -> Report:
    """Build the tables, then measure rebuilds and the update."""
    with tempfile.TemporaryDirectory() as folder:
        small, large, again = (Path(folder) / name for name in ("small", "large", "again"))
        chance = np.random.default_rng(_SEED)
        pmids = chance.permutation(_FILES * _ROWS) + 1
        for root in (small, large, again):
            write_descriptors(Storage(root=str(root)), _SEED)
        for number in range(_FILES):
            key = f"pubmed26n{number + 1:04d}"
            table = citations(key, np.sort(pmids[number * _ROWS : (number + 1) * _ROWS]), number)
            Storage(root=str(large)).write_table(table, "pubmed_citations", key)
        for number in range(_FILES // 10):
            _share(large, small, f"pubmed26n{number + 1:04d}")
        tenth = in_child("benchmarks.resolve", small)
        whole = in_child("benchmarks.resolve", large)
        update_bytes = _write_update(large, Path(folder), chance)
        before = sizes(large / "tables")
        update = in_child("benchmarks.resolve", large)
        written = sum(
            size for path, (size, at) in sizes(large / "tables").items() if before.get(path) != (size, at)
        )
        for number in range(_FILES + 1):
            _share(large, again, f"pubmed26n{number + 1:04d}")
        rebuild = in_child("benchmarks.resolve", again)
        left, right = (Storage(root=str(root)).read_table("current_citations") for root in (large, again))
        if left is None or right is None or not left.sort("pmid").equals(right.sort("pmid")):
            raise AssertionError("the updated table is not the rebuilt one")
        rows, states = right.height, dict(right["state"].value_counts(sort=True).iter_rows())
    ratio, peak = written / update_bytes, max(run["peak_mb"] for run in (tenth, whole, update, rebuild))
    slope = whole["cpu_seconds"] / tenth["cpu_seconds"] / 10
    results = {
        "rows": rows,
        "states": states,
        "seconds": {"300,000 rows": tenth, "3,000,000 rows": whole, "update": update, "rebuild": rebuild},
        "rebuild_vs_update": rebuild["wall_seconds"] / update["wall_seconds"],
        "update_bytes": update_bytes,
        "bytes_written": written,
        "update_bytes_ratio": ratio,
        "slope": slope,
        "peak_mb": peak,
    }
    goals = [
        Goal("update_bytes_ratio", ratio, goal=1.2, at_least=False),
        Goal("peak_mb", peak, goal=2000, at_least=False),
        Goal("slope", slope, goal=1.2, at_least=False),
    ]
    return Report(results, goals)


def _share(source: Path, target: Path, key: str) -> None:
    place = Path("tables") / "pubmed_citations" / f"{key}.parquet"
    (target / place).parent.mkdir(parents=True, exist_ok=True)
    (target / place).hardlink_to(source / place)


def _write_update(root: Path, scratch: Path, chance: np.random.Generator) -> int:
    """Write the update file's table; its size in bytes."""
    key = f"pubmed26n{_FILES + 1:04d}"
    known = chance.choice(_FILES * _ROWS, _REVISED + _DELETED, replace=False) + 1
    new = _FILES * _ROWS + 1 + np.arange(_ROWS - _REVISED - _DELETED)
    pmids = np.sort(np.concatenate([known[:_REVISED], new]))
    headings = citations(key, pmids, _SEED).select("headings", "content_hash")
    full = full_citations(scratch, len(pmids), _SEED).with_columns(
        headings["headings"], headings["content_hash"], pmid=pl.Series(pmids), pubmed_file=pl.lit(key)
    )
    deleted = pubmed_records(
        {"record": "deleted", "pmid": int(pmid), "position": len(pmids) + place, "pubmed_file": key}
        for place, pmid in enumerate(known[_REVISED:])
    )
    storage = Storage(root=str(root))
    storage.write_table(pl.concat([full, deleted]), "pubmed_citations", key)
    return storage.table_path("pubmed_citations", key).stat().st_size


if __name__ == "__main__":
    print(json.dumps(measured(lambda: materialize(Path(sys.argv[1]), ["current_citations"]))))
