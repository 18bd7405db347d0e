"""A million question-answer pairs through evaluation, assembly and export: memory, and how time grows.

Pairs of 100 branches with four contexts each are evaluated, deduplicated, decontaminated, split and written
as a release, in a process of their own; before that a tenth of them in another. Some repeat a question, give
a benchmark item away, or rest on what was retracted, and all of those must be found. `slope` is the CPU time
of all over ten times that of the tenth.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.prose import texts
from benchmarks.pubmed_stage import in_child, measured
from benchmarks.report import Goal, Report
from mkailin_assets.corpus.assembly import CorpusRules, assemble, examples, in_batches, streamed
from mkailin_assets.corpus.decontamination import benchmark_questions
from mkailin_assets.corpus.entailment import ENTAILMENT
from mkailin_assets.corpus.quality import QualityRules, evaluate
from mkailin_assets.corpus.recalls import ledger
from mkailin_assets.corpus.tables import EvaluatedQA, GeneratedQA, TrainingExample
from mkailin_assets.partitions import MESH_BRANCH_NAMES
from mkailin_assets.preferences.tables import QuestionPreference
from mkailin_assets.pubmed.tables import CurrentCitation
from mkailin_assets.release.layout import write_rows, write_sums
from mkailin_resources.storage import Storage

ROWS, BRANCHES = 1_000_000, 100
CONTEXTS, CONTEXT_WORDS, SOURCE_WORDS, QUESTION_WORDS = 4, 90, 110, 14
BENCHMARK_ITEMS = 500
# One row in so many repeats the question of the row before, asks a benchmark's, or was retracted since.
REPEATED, LEAKING, RETRACTED = 50, 1_000, 500
MAX_FILL = 5_000


def run() -> Report:
    """Write the inputs, then measure both sizes."""
    with tempfile.TemporaryDirectory() as folder:
        tenth, whole = Path(folder) / "tenth", Path(folder) / "whole"
        runs = {}
        for root, rows in ((tenth, ROWS // 10), (whole, ROWS)):
            planted = write_inputs(root, rows)
            runs[rows] = in_child("benchmarks.corpus", root)
            found = {name: runs[rows][name] for name in planted}
            if found != planted:
                raise AssertionError(f"of {rows:,} rows {planted} should be kept out, {found} are")
    small, large = runs[ROWS // 10], runs[ROWS]
    slope = large["cpu_seconds"] / small["cpu_seconds"] / 10
    return Report(
        results={f"{rows:,} rows": result for rows, result in runs.items()}
        | {"rows_a_second": round(ROWS / large["wall_seconds"], 1), "slope": slope},
        goals=[
            Goal("peak_mb", large["peak_mb"], goal=4000, at_least=False),
            Goal("slope", slope, goal=1.2, at_least=False),
        ],
    )


def write_inputs(root: Path, rows: int) -> dict[str, int]:
    """Write the tables that the stage reads, and the benchmark; how many rows each stage has to keep out."""
    storage = Storage(root=str(root))
    each = rows // BRANCHES
    items = texts(-1 & 0xFFFF, BENCHMARK_ITEMS, QUESTION_WORDS)
    planted = {"contamination": 0, "duplicate": 0, "source": 0}
    states = []
    for place, branch in enumerate(list(MESH_BRANCH_NAMES)[:BRANCHES]):
        made = _generated(branch, first := place * each + 1, each, items)
        storage.write_table(made, "generated_qa", branch)
        contexts = made.select("pmid", "question", mesh_score=0.5, mesh_margin=0.1, source_rank=1)
        storage.write_table(contexts, "found", branch)
        pmids = np.arange(first, first + each)
        kinds = _kinds(pmids)
        for name in planted:
            planted[name] += int((kinds == name).sum())
        states.append(
            made.select(
                "pmid",
                pl.Series("state", np.where(kinds == "source", "retracted", "current")),
                "pubmed_file",
                home_branch="branch",
                content_hash="content_hash",
            )
        )
    schema = CurrentCitation.create_empty().schema
    whole = pl.concat(states)
    blank = {name: pl.lit(None, kind) for name, kind in schema.items() if name not in whole.columns}
    current = whole.with_columns(**blank).select(pl.col(name).cast(kind) for name, kind in schema.items())
    storage.write_table(current, "current_citations")
    storage.write_table(benchmark_questions((None, question) for question in items.to_list()), "benchmark")
    return planted


def _kinds(pmids: np.ndarray) -> np.ndarray:
    """What is wrong with each row, by its number alone; empty where nothing is."""
    conditions = [pmids % RETRACTED == 7, pmids % LEAKING == 11, pmids % REPEATED == 13]
    return np.select(conditions, ["source", "contamination", "duplicate"], default="")


def _generated(branch: str, first: int, height: int, items: pl.Series) -> pl.DataFrame:
    """A `GeneratedQA` table: questions about words of their source, answers that rest on it."""
    sources = texts(first, height, SOURCE_WORDS).str.replace_all(r"[.?!]", "")
    pmids = np.arange(first, first + height)
    asked = pl.Series("question", _questions(sources, pmids, items))
    found = texts(first + (1 << 30), MAX_FILL, CONTEXT_WORDS)
    chance = np.random.default_rng(first)
    cited = pl.DataFrame(
        {
            "row": np.repeat(np.arange(height), CONTEXTS),
            "rank": np.tile(np.arange(1, CONTEXTS + 1), height),
            # Of the same branch, never what is retracted.
            "pmid": first + chance.integers(0, max(height // RETRACTED, 1), height * CONTEXTS) * RETRACTED,
            "text": found.gather(chance.integers(0, MAX_FILL, height * CONTEXTS)),
        }
    ).with_columns(content_hash=pl.format("hash {}", "pmid"), title=pl.lit("A study of words"))
    context = pl.struct("rank", "pmid", "content_hash", "title", "text")
    contexts = cited.group_by("row", maintain_order=True).agg(contexts=context)["contexts"]
    schema = GeneratedQA.create_empty().schema
    told = pl.DataFrame(
        {
            "pmid": pmids,
            "question": asked,
            "source_context": sources,
            "contexts": contexts,
            "long_answer": sources.str.split(" ").list.slice(20, 40).list.join(" "),
        }
    ).with_columns(
        branch=pl.lit(branch),
        pubmed_file=pl.lit("pubmed26n0001"),
        content_hash=pl.format("hash {}", "pmid"),
        title=pl.lit("A study of words"),
        question_role=pl.lit("domain"),
        generator=pl.lit("extractive-statement-title"),
        answerer=pl.lit("extractive-conclusion-answer"),
        prompt_version=pl.lit("1"),
        evidence=pl.concat_list("long_answer"),
        decision=pl.when(pl.col("pmid") % 3 == 0).then(pl.lit("no")).otherwise(pl.lit("yes")),
    )
    blank = {name: pl.lit(None, kind) for name, kind in schema.items() if name not in told.columns}
    return told.with_columns(**blank).select(pl.col(name).cast(kind) for name, kind in schema.items())


def _questions(sources: pl.Series, pmids: np.ndarray, items: pl.Series) -> list[str]:
    kinds = _kinds(pmids)
    asked = "Is it so that " + sources.str.split(" ").list.head(QUESTION_WORDS).list.join(" ") + "?"
    questions = asked.to_list()
    for place in np.flatnonzero(kinds == "duplicate"):
        questions[place] = f"{questions[place - 1][:-1]}s?"
    for place in np.flatnonzero(kinds == "contamination"):
        questions[place] = f"Is {items[int(pmids[place]) % BENCHMARK_ITEMS]}?"
    return questions


def through_the_stage(root: Path) -> dict[str, Any]:
    """Evaluate, assemble, write corpus and release; how many rows each stage kept out."""
    storage = Storage(root=str(root))
    for branch in sorted(storage.partitions_published_at("generated_qa")):
        storage.write_table(_evaluated(storage, branch), "evaluated_qa", branch)
    branches = sorted(storage.partitions_published_at("evaluated_qa"))
    evaluated = {branch: _scanned(storage, "evaluated_qa", branch) for branch in branches}
    current, benchmark = (_scanned(storage, name).collect() for name in ("current_citations", "benchmark"))
    rules = CorpusRules.model_validate({})
    assembly = assemble(evaluated, current, benchmark, rules)
    storage.write_table(ledger(assembly.kept), "corpus_ledger")
    storage.write_table(assembly.exclusions, "corpus_exclusions")
    schema = TrainingExample.create_empty().schema
    storage.write_table(
        streamed(lambda: examples(evaluated, assembly.kept, rules), schema), "training_corpus"
    )
    (release := root / "release").mkdir()
    exported = write_rows(in_batches(_scanned(storage, "training_corpus")), release, "pmids")
    write_sums(release)
    return {"exported": exported, **dict(assembly.exclusions["stage"].value_counts().iter_rows())}


def _scanned(storage: Storage, name: str, branch: str | None = None) -> pl.LazyFrame:
    rows = storage.scan_table(name, branch)
    assert rows is not None, f"{name} was not written"
    return rows


def _evaluated(storage: Storage, branch: str) -> pl.DataFrame:
    generated, found = (_scanned(storage, name, branch).collect() for name in ("generated_qa", "found"))
    nothing = (QuestionPreference.create_empty(), pl.DataFrame(schema=ENTAILMENT))
    # Words that are made up are no English, and may sound like any other.
    rules = QualityRules.model_validate(
        {"languages": None, "max_toxicity": None, "min_question_support": None}
    )
    return EvaluatedQA.validate(
        evaluate(generated, found, *nothing, lambda asked: [None] * len(asked), rules)
    )


if __name__ == "__main__":
    came_to: dict[str, Any] = {}
    cost = measured(lambda: came_to.update(through_the_stage(Path(sys.argv[1]))))
    print(json.dumps(cost | came_to))
