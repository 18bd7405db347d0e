"""A million paid answers: bytes a row, look-ups as the store grows tenfold, what keeping an answer costs.

Stores of 100,000 and 1,000,000 answers are filled through a writer. Texts have 300 to 900 characters of
made-up words (30,000 of one to four syllables, drawn by Zipf's law, so that no phrase repeats) with commas
and full stops; fingerprints are hashes. Look-ups ask for answers that are there, spread over the whole store,
each in a process of its own whose memory is told, the median of five. Reading the whole text column is
measured beside them; ratios of times are of CPU seconds.
"""

import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import polars as pl

from benchmarks.prose import texts
from benchmarks.pubmed_stage import in_child, measured
from benchmarks.report import Goal, Report
from mkailin_resources.generation_store import GenerationStore, StoredText
from mkailin_resources.storage import Storage

_SMALL, _LARGE, _MORE, _SEED = 100_000, 1_000_000, 30_000, 20260104
_WORDS_A_TEXT = 150
_CHUNK, _ROUNDS = 10_000, 5
_FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def run() -> Report:
    """Fill the stores, then measure."""
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "small", Path(folder) / "large"
        in_child("benchmarks.store", "fill", small, 0, _SMALL)
        filled = in_child("benchmarks.store", "fill", large, 0, _LARGE)
        disk = sum(path.stat().st_size for path in large.rglob("*") if path.is_file())
        size = in_child("benchmarks.store", "size", large)
        finds = {
            f"{wanted}_of_{rows}": in_child("benchmarks.store", "find", root, rows, wanted)
            for root, rows, wanted in (
                (small, _SMALL, 10_000),
                (large, _LARGE, 1),
                (large, _LARGE, 1_000),
                (large, _LARGE, 10_000),
                (large, _LARGE, 100_000),
            )
        }
        whole = in_child("benchmarks.store", "read", large)
        usage = in_child("benchmarks.store", "usage", large)
        in_child("benchmarks.store", "fill", large, _LARGE, _MORE)
        tidied = in_child("benchmarks.store", "tidy", large)
        pruned = in_child("benchmarks.store", "prune", large)
    few, many = finds[f"10000_of_{_SMALL}"], finds[f"10000_of_{_LARGE}"]
    ratios = {
        "bytes_vs_parquet": size["bytes_a_row"] / size["parquet_bytes_a_row"],
        "find_slope": many["cpu_seconds"] / few["cpu_seconds"],
        "find_memory_slope": many["peak_mb"] / few["peak_mb"],
        "find_10000_vs_reading_all": many["cpu_seconds"] / whole["cpu_seconds"],
        "add_vs_bare_write": filled["add_median_us"] / filled["bare_write_median_us"],
    }
    results = {
        "size": size,
        "disk_bytes_a_row_before_old_versions_go": disk / _LARGE,
        "fill_1000000": filled,
        "find": finds,
        "read_all_texts": whole,
        "usage": usage,
        "tidy_after_30000_more": tidied,
        "prune_a_fifth": pruned,
        **ratios,
    }
    goals = {
        "bytes_vs_parquet": 1.5,
        "find_slope": 2.5,
        "find_memory_slope": 1.5,
        "find_10000_vs_reading_all": 1.0,
        "add_vs_bare_write": 20.0,
    }
    return Report(results, [Goal(key, ratios[key], goal, at_least=False) for key, goal in goals.items()])


def _answers(first: int, count: int) -> Iterator[list[StoredText]]:
    """Answers by number, a chunk at a time; those of one chunk are the same whatever chunk comes before."""
    for start in range(first, first + count, _CHUNK):
        chance = np.random.default_rng([_SEED, start])
        height = min(_CHUNK, first + count - start)
        written = texts(start, height, _WORDS_A_TEXT)
        lengths = chance.integers(300, 901, height)
        tokens = chance.integers(80, 900, (height, 2)).tolist()
        yield [
            StoredText(
                fingerprint=_fingerprint(start + place),
                attempt=0,
                generator=("qwen3-8b", "qwen3-32b")[place % 2],
                prompt_version="answer-3",
                text=text[: int(lengths[place])],
                truncated=False,
                tokens_in=tokens[place][0],
                tokens_out=tokens[place][1],
                created_at=_FIRST + timedelta(milliseconds=start + place),
            )
            for place, text in enumerate(written)
        ]


def _fingerprint(number: int) -> str:
    return hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest()


def _fill(store: GenerationStore, first: int, count: int) -> dict[str, Any]:
    """Seconds in all, and microseconds of an `add` and of a bare write of as many bytes to a file."""
    taken: list[float] = []
    bare: list[float] = []
    started = time.monotonic()
    with store.writer() as writer, tempfile.TemporaryFile() as file:
        for rows in _answers(first, count):
            for row in rows:
                at = time.perf_counter()
                writer.add(row)
                taken.append(time.perf_counter() - at)
            for row in rows[:500]:
                line = row.text.encode()
                at = time.perf_counter()
                os.write(file.fileno(), line)
                bare.append(time.perf_counter() - at)
        added = time.monotonic()
    return {
        "add_median_us": statistics.median(taken) * 1e6,
        "add_mean_us": statistics.mean(taken) * 1e6,
        "add_999_of_1000_us": float(np.quantile(taken, 0.999)) * 1e6,
        "add_longest_ms": max(taken) * 1e3,
        "bare_write_median_us": statistics.median(bare) * 1e6,
        "seconds_adding_with_generated_texts": added - started,
        "seconds_closing": time.monotonic() - added,
    }


def _size(root: Path) -> dict[str, float]:
    """Bytes a row of the table without and with its index, of raw texts, of the same rows as zstd Parquet."""
    table = lancedb.connect(str(root / "generations")).open_table("texts")
    facts: Any = table.stats()  # a dict, whatever its annotation says
    index = sum(index.size_bytes or 0 for index in table.list_indices())
    rows = pl.DataFrame(table.search().to_arrow())
    with tempfile.NamedTemporaryFile() as file:
        rows.write_parquet(file.name, compression="zstd")
        parquet = os.path.getsize(file.name)
    return {
        "bytes_a_row": (facts["total_bytes"] - index) / rows.height,
        "bytes_a_row_with_index": facts["total_bytes"] / rows.height,
        "parquet_bytes_a_row": parquet / rows.height,
        "text_bytes_a_row": rows["text"].str.len_bytes().sum() / rows.height,
    }


def _find(store: GenerationStore, rows: int, wanted: int) -> dict[str, float]:
    numbers = np.random.default_rng(_SEED).choice(rows, wanted, replace=False)
    fingerprints = [_fingerprint(number) for number in numbers.tolist()]
    store.find(fingerprints[:1])  # imports what every run imports once

    def look() -> None:
        found = store.find(fingerprints)
        if len(found) != wanted:
            raise RuntimeError(f"{len(found)} of {wanted} answers were found")

    return sorted((measured(look) for _ in range(_ROUNDS)), key=lambda facts: facts["cpu_seconds"])[
        _ROUNDS // 2
    ]


def _read(root: Path) -> dict[str, float]:
    table = lancedb.connect(str(root / "generations")).open_table("texts")
    return measured(lambda: sum(batch.num_rows for batch in table.search().select(["text"]).to_batches()))


def _prune(store: GenerationStore) -> dict[str, Any]:
    removed: list[int] = []
    before = _FIRST + timedelta(milliseconds=_LARGE)
    facts: dict[str, Any] = measured(
        lambda: removed.append(store.prune(lambda key: key[0] not in "012", before).rows)
    )
    return {**facts, "rows": removed[0]}


def _child(what: str, root: str, *numbers: str) -> dict[str, Any]:
    store = GenerationStore(Storage(root=root))
    tasks: dict[str, Callable[..., dict[str, Any]]] = {
        "fill": lambda first, count: _fill(store, first, count),
        "size": lambda: _size(Path(root)),
        "find": lambda rows, wanted: _find(store, rows, wanted),
        "read": lambda: _read(Path(root)),
        "usage": lambda: measured(store.usage),
        "tidy": lambda: measured(store.tidy),
        "prune": lambda: _prune(store),
    }
    return tasks[what](*map(int, numbers))


if __name__ == "__main__":
    print(json.dumps(_child(*sys.argv[1:])))
