"""The index at 100,000 and 1,000,000 citations: building, recall, searches, and an update against a rebuild.

Citations have vectors of 384 numbers in 2,000 clusters and 150 made-up words. The pipeline's own update
builds and changes the index; vectors lie in the embedding store before, so that embedding costs nothing in
either. The update removes half a percent of the citations, replaces half a percent and adds half a percent;
the rebuild makes the index of the outcome from nothing. `recall4`: of the four nearest by exact search, the
share that dense search puts first. Each step runs in a process of its own, whose peak memory is told; ratios
of times are of CPU seconds.
"""

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.prose import texts
from benchmarks.pubmed_stage import in_child, measured
from benchmarks.report import Goal, Report
from mkailin_resources.embeddings.store import EmbeddingStore
from mkailin_resources.index import CITATION, ContextStore, searchable
from mkailin_resources.searcher import DEPTH, Searcher, wait
from mkailin_resources.storage import Storage

_SIZES = (100_000, 1_000_000)
_DIMENSION, _CLUSTERS, _SPREADS = 384, 2_000, 10_007
_CHUNK, _WORDS, _HALVES, _QUESTIONS, _SEED = 10_000, 150, 10_009, 512, 20261127


def run() -> Report:
    """Measure both sizes."""
    results: dict[str, Any] = {}
    goals: list[Goal] = []
    for size in _SIZES:
        with tempfile.TemporaryDirectory() as folder:
            steps = {
                step: in_child("benchmarks.index", folder, size, step)
                for step in (
                    "embed",
                    "build",
                    "search",
                    "update",
                    "search_updated",
                    "rebuild",
                    "search_rebuilt",
                )
            }
        ratio = steps["update"]["cpu_seconds"] / steps["rebuild"]["cpu_seconds"]
        agreement = steps["search_updated"]["agrees"] = _agreement(steps)
        for name in ("search", "search_updated", "search_rebuilt"):
            del steps[name]["first"]
        results[f"{size:,}"] = {**steps, "update_ratio": ratio, "lexical_top10_as_rebuilt": agreement}
        goals += [
            Goal(f"recall4 {size:,}", steps["search"]["recall4"], 0.95, at_least=True),
            Goal(f"recall4 updated {size:,}", steps["search_updated"]["recall4"], 0.95, at_least=True),
            Goal(f"update_ratio {size:,}", ratio, 0.05, at_least=False),
        ]
    return Report(results, goals)


class _Given:
    """An encoder whose vectors are known: a text says the number of its citation, a question names one."""

    fingerprint = "given"
    dimension = _DIMENSION

    def __init__(self) -> None:
        chance = np.random.default_rng(_SEED)
        self._centres = chance.standard_normal((_CLUSTERS, _DIMENSION), np.float32)
        self._spread = 0.7 * chance.standard_normal((_SPREADS, _DIMENSION), np.float32)

    def vectors(self, numbers: np.ndarray) -> np.ndarray:
        """Of citations by number, of length 1."""
        made = self._centres[numbers % _CLUSTERS] + self._spread[numbers % _SPREADS]
        return made / np.linalg.norm(made, axis=1, keepdims=True)

    def encode_documents(self, written: Sequence[str]) -> np.ndarray:
        """Vectors of shape (texts, dimension)."""
        return self.vectors(np.array([int(text[1 : text.index("\n")]) for text in written], np.int64))

    def encode_queries(self, asked: Sequence[str]) -> np.ndarray:
        """Near the citation that is named, and not equal to it."""
        numbers = np.array([int(re.findall(r"\d+", text)[0]) for text in asked], np.int64)
        near = self.vectors(numbers) + 0.02 * self._spread[(numbers * 31 + 7) % _SPREADS]
        return near / np.linalg.norm(near, axis=1, keepdims=True)


def _states(numbers: Iterable[int], revised: bool = False) -> pl.DataFrame:
    """What decides a row of the index, of citations by number; a revised one is in a later file."""
    pmids = pl.Series(list(numbers), dtype=pl.Int64)
    file = "pubmed26n0002" if revised else "pubmed26n0001"
    return pl.select(
        pmid=pmids,
        pubmed_file=pl.lit(file),
        content_hash=pl.lit(pmids).cast(pl.String) + file[-1],
        branch=pl.lit("C04"),
    )


def _before(size: int) -> pl.DataFrame:
    return _states(range(1, size + 1))


def _after(size: int) -> pl.DataFrame:
    """One in 200 is gone, one in 200 is revised, and as many are new."""
    numbers = np.arange(1, size + 1)
    kept, revised = numbers[(numbers % 200 > 1)], numbers[numbers % 200 == 1]
    new = np.arange(size + 1, size + 1 + size // 200)
    return pl.concat([_states(kept), _states(revised, revised=True), _states(new, revised=True)])


class _Library:
    """The citations as the index wants them; the same number always has the same text."""

    def __init__(self) -> None:
        self._halves = texts(0, _HALVES, _WORDS // 2)

    def texts(self, pmids: pl.Series) -> pl.Series:
        """A title that says the number, and below it the text: two of the halves."""
        halves = self._halves.gather(pmids % _HALVES) + self._halves.gather((pmids * 31 + 7) % (_HALVES - 2))
        return pl.select(pl.format("n{}\n{}", pmids, halves)).to_series()

    def read(self, wanted: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Frames of CITATION, so many citations at a time."""
        for some in wanted.iter_slices(_CHUNK):
            yield some.with_columns(
                title=pl.format("n{}", "pmid"),
                text=self.texts(some["pmid"]),
                heading_uis=pl.lit(["D000001"]),
                year=(1950 + pl.col("pmid") % 75).cast(pl.Int32),
                languages=pl.lit(["eng"]),
            ).select(*CITATION)


def _search(searcher: Searcher, wanted: pl.DataFrame, encoder: _Given) -> dict[str, Any]:
    """Recall against exact search, searches a second in batches, and the first ten found by words."""
    asked = np.random.default_rng(_SEED).choice(wanted["pmid"].to_numpy(), _QUESTIONS, replace=False)
    questions = [f"n{number}" for number in asked]
    spoken = [" ".join(text.split()[3:15]) for text in _Library().texts(pl.Series(asked[:128]))]
    for warm in (searcher.dense, searcher.lexical):
        warm(questions[:32], DEPTH)
    found: list[list[int]] = []
    dense = measured(lambda: found.extend(searcher.dense(questions, DEPTH)))
    by_words: list[list[int]] = []
    lexical = measured(lambda: by_words.extend(searcher.lexical(spoken, DEPTH)))
    pmids = wanted["pmid"].to_numpy()
    nearest = _nearest(encoder.encode_queries(questions), pmids, encoder)
    shared = [len(set(some[:4]) & set(best)) for some, best in zip(found, nearest, strict=True)]
    return {
        "recall4": sum(shared) / (4 * _QUESTIONS),
        "dense_per_second": _QUESTIONS / dense["wall_seconds"],
        "lexical_per_second": len(spoken) / lexical["wall_seconds"],
        "peak_mb": dense["peak_mb"],
        "first": [some[:10] for some in by_words],
    }


def _nearest(asked: np.ndarray, pmids: np.ndarray, encoder: _Given) -> list[list[int]]:
    """The four nearest of each question by exact search, a part of the citations at a time."""
    best = np.full((len(asked), 4), -2, np.float32)
    which = np.zeros((len(asked), 4), np.int64)
    for start in range(0, len(pmids), 50_000):
        some = pmids[start : start + 50_000]
        scores = np.concatenate([best, asked @ encoder.vectors(some).T], axis=1)
        numbers = np.concatenate([which, np.broadcast_to(some, (len(asked), len(some)))], axis=1)
        order = np.argpartition(-scores, 3, axis=1)[:, :4]
        best, which = np.take_along_axis(scores, order, 1), np.take_along_axis(numbers, order, 1)
    return which.tolist()


def _agreement(steps: dict[str, Any]) -> float:
    """Of the first ten found by words in the rebuilt index, the share that the updated one has there too."""
    pairs = list(zip(steps["search_updated"]["first"], steps["search_rebuilt"]["first"], strict=True))
    return sum(len(set(a) & set(b)) for a, b in pairs) / sum(len(b) for _, b in pairs)


def _child(root: str, size: str, step: str) -> dict[str, Any]:
    storage, encoder, library = Storage(root=root), _Given(), _Library()
    store = ContextStore(storage=storage, retriever="hybrid")
    wanted = _before(int(size)) if step in {"build", "search"} else _after(int(size))
    noted = Path(root) / "version.json"
    if step == "embed":
        keep = EmbeddingStore(storage, encoder)
        everything = pl.concat([_before(int(size)), wanted]).unique("pmid", maintain_order=True)
        return measured(lambda: [keep.embed(some["text"].to_list()) for some in library.read(everything)])
    if step.startswith("search"):
        uri, version = json.loads(noted.read_text())
        return _search(
            Searcher(wait(searchable(uri, version, encoder)), encoder, exact=False), wanted, encoder
        )
    if step == "rebuild":
        shutil.rmtree(store.folder(encoder).path)
    # What every run imports once is not of the update.
    with tempfile.TemporaryDirectory() as elsewhere:
        store.over(next(library.read(wanted.head(1))), encoder, Path(elsewhere))
    recorded = json.loads(noted.read_text())[1] if step == "update" else None
    made: list[Any] = []

    def read(pmids: pl.Series) -> Iterator[pl.DataFrame]:
        return library.read(wanted.filter(pl.col("pmid").is_in(pmids.implode())))

    facts = measured(lambda: made.append(store.update(wanted, read, encoder, recorded)))
    (done,) = made
    noted.write_text(json.dumps([done.uri, done.table_version]))
    disk = sum(path.stat().st_size for path in Path(done.uri).rglob("*") if path.is_file())
    counted = {"added": done.added, "replaced": done.replaced, "removed": done.removed}
    return {**facts, **counted, "embedded": done.embedded, "disk_mb": disk / 1e6}


if __name__ == "__main__":
    print(json.dumps(_child(*sys.argv[1:])))
