"""The PubMed stage over tables of any size, from a seed: what the benchmarks of scale read."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from benchmarks.pubmed_files import write_pubmed_file
from benchmarks.report import peak_megabytes
from mkailin_assets.mesh.tables import MeshDescriptor
from mkailin_assets.partitions import MESH_BRANCH_NAMES, pubmed_files
from mkailin_assets.pubmed import checks
from mkailin_assets.pubmed.assets import branch_citations, current_citations
from mkailin_assets.pubmed.citations import read_pubmed_file
from mkailin_assets.pubmed.tables import PubmedRecord
from mkailin_resources.storage import ParquetTables, Storage

_DESCRIPTORS = 28_000
_HEADINGS = 12


def write_descriptors(storage: Storage, seed: int) -> None:
    """A `MeshDescriptor` table whose UIs the citations carry, each with one place in the tree."""
    branches = np.random.default_rng(seed).choice(list(MESH_BRANCH_NAMES), _DESCRIPTORS)
    rows = [
        {
            "descriptor_ui": f"D{number:06d}",
            "name": f"descriptor {number}",
            "tree_numbers": [f"{branch}.{number % 900:03d}.{number:06d}"],
            "entry_terms": [],
        }
        for number, branch in enumerate(branches, start=1)
    ]
    # The two levels above, so that each number has a parent.
    above = sorted({row["tree_numbers"][0].rpartition(".")[0] for row in rows} | set(MESH_BRANCH_NAMES))
    rows += [
        {
            "descriptor_ui": f"D9{number:05d}",
            "name": f"above {number}",
            "tree_numbers": [place],
            "entry_terms": [],
        }
        for number, place in enumerate(above)
    ]
    storage.write_table(pl.DataFrame(rows, schema=MeshDescriptor.create_empty().schema), "mesh_descriptors")


def citations(key: str, pmids: np.ndarray, seed: int) -> pl.DataFrame:
    """A `PubmedRecord` table of these PMIDs with headings and hashes; an abstract of a word, no more text."""
    chance = np.random.default_rng(seed)
    height = len(pmids)
    uis = chance.integers(1, _DESCRIPTORS + 1, height * _HEADINGS)
    headings = pl.select(
        ui=pl.format("D{}", pl.lit(pl.Series(uis)).cast(pl.String).str.zfill(6)),
        name=pl.lit("x"),
        major=pl.lit(pl.Series(chance.random(len(uis)) < 0.2)),
        row=pl.lit(pl.Series(np.repeat(np.arange(height), _HEADINGS))),
    ).select("row", heading=pl.struct("ui", "name", "major", qualifiers=pl.lit([], dtype=pl.List(pl.String))))
    lists = headings.group_by("row", maintain_order=True).agg("heading")["heading"]
    section = {"label": None, "category": None, "text": "x"}
    known = pl.DataFrame(
        {
            "record": ["citation"] * height,
            "position": np.arange(height),
            "pmid": pmids,
            "version": [1] * height,
            "pubmed_file": [key] * height,
            "title": ["x"] * height,
            "retracted": [False] * height,
            "headings": lists,
            "content_hash": [f"{value:016x}" for value in chance.integers(0, 2**62, height)],
        }
    )
    blank = {
        name: pl.lit([], dtype=kind) if isinstance(kind, pl.List) else pl.lit(None, dtype=kind)
        for name, kind in PubmedRecord.create_empty().schema.items()
    }
    blank["abstract"] = pl.lit([section], dtype=PubmedRecord.create_empty().schema["abstract"])
    whole = known.with_columns(
        value.alias(name) for name, value in blank.items() if name not in known.columns
    )
    return whole.select(pl.col(name).cast(kind) for name, kind in PubmedRecord.create_empty().schema.items())


def full_citations(folder: Path, number: int, seed: int) -> pl.DataFrame:
    """A `PubmedRecord` table of citations with all their text, as a generated PubMed file has them."""
    path = folder / "generated.xml.gz"
    write_pubmed_file(path, number, seed)
    with path.open("rb") as file:
        records = pl.concat(read_pubmed_file(file, "generated"))
    path.unlink()
    return records.filter(pl.col("record") == "citation")


def materialize(
    root: Path, names: list[str], tags: dict[str, str] | None = None
) -> dg.ExecuteInProcessResult:
    """Materialize and check assets of the PubMed stage over all `pubmed_citations` under a storage root."""
    storage = Storage(root=str(root))
    with dg.DagsterInstance.ephemeral() as instance:
        keys = sorted(path.stem for path in (root / "tables" / "pubmed_citations").iterdir())
        instance.add_dynamic_partitions(str(pubmed_files.name), keys)
        return dg.materialize(
            [
                current_citations,
                branch_citations,
                *(checks.states_add_up, checks.home_branches_are_partitions),
                *(checks.few_citations_wait, checks.few_citations_are_deleted),
                checks.branches_hold_their_current_citations,
                dg.AssetSpec("mesh_descriptors"),
                dg.AssetSpec("pubmed_citations", partitions_def=pubmed_files),
            ],
            selection=names,
            tags=tags,
            instance=instance,
            resources={"storage": storage, "io_manager": ParquetTables(storage=storage)},
        )


def measured(work: Callable[[], Any]) -> dict[str, float]:
    """Wall and CPU seconds of the work, and the peak memory of this process in megabytes before and after."""
    before, wall, cpu = peak_megabytes(), time.monotonic(), time.process_time()
    work()
    return {
        "wall_seconds": time.monotonic() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "mb_before": before,
        "peak_mb": peak_megabytes(),
    }


def in_child(module: str, *arguments: object) -> dict[str, float]:
    """What `python -m module arguments` prints as its last line, in a process whose memory is its own."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def sizes(folder: Path) -> dict[Path, tuple[int, int]]:
    """Bytes and time of change of each file below a folder."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*.parquet") if path.is_file())
