"""A whole release of a handful of invented examples, right unless a test changes it."""

import hashlib
from pathlib import Path
from typing import Any

import polars as pl
from corpus_tables import TOPICS

from mkailin_assets.corpus.decontamination import BENCHMARK, fingerprints_of
from mkailin_assets.corpus.draws import split_of
from mkailin_assets.corpus.tables import CorpusExclusion, CorpusRecall, MeshCoverage, TrainingExample
from mkailin_assets.corpus.texts import example_hash, example_texts
from mkailin_assets.release.facts import (
    BenchmarkFacts,
    CoverageFacts,
    LengthFacts,
    ModelUse,
    ReleaseFacts,
    SourceFile,
)
from mkailin_assets.release.gathering import excluded, facts_of_rows
from mkailin_assets.release.layout import TAKEN_BACK
from mkailin_assets.release.writing import write_release

# Five to train on, two to validate with, two to test with; the contexts of each are of training sources.
PMIDS = (1, 2, 3, 4, 6, 23, 30, 5, 7)
CONTEXT_PMIDS = (5002, 5003, 5004, 5005, 5006, 5007)
QUESTIONER, ANSWERER, JUDGE = "extractive-statement-title", "extractive-statement-answer", "mesh"
BENCHMARK_NAME = "a-benchmark.json"
BENCHMARK_QUESTION = "Do tailored telephone calls increase mammography among older women?"
MAX_CONTEXT_CHARACTERS = 6000
_DECISIONS = ("yes", "no", "maybe", None)


def example(pmid: int, **changes: Any) -> dict[str, Any]:
    """One example before its texts are put together: signals, names, and what its texts are made of."""
    topic = f"{TOPICS[pmid % len(TOPICS)]} in trial {pmid * 7919}"
    question = changes.get("question", f"Is it true that {topic}?")
    shown = [CONTEXT_PMIDS[(pmid + step) % len(CONTEXT_PMIDS)] for step in range(2)]
    cited = [("source", pmid), *(("context", one) for one in shown)]
    row = {
        "example_id": hashlib.blake2b(f"{pmid}\n{question}".encode(), digest_size=16).hexdigest(),
        "pmid": pmid,
        "pubmed_file": "pubmed26n0001",
        "branch": ("C04", "F03")[pmid % 2],
        "split": split_of(pmid),
        "question": question,
        "context_pmids": shown,
        "made_of": [
            {"use": use, "pmid": one, "content_hash": hashlib.md5(str(one).encode()).hexdigest()}
            for use, one in cited
        ],
        "title": f"A trial of {topic}",
        "source_context": f"We asked whether {topic}. We followed {pmid + 100} patients for a year.",
        "source_conclusion": f"We conclude that {topic}.",
        "contexts": [
            {"title": f"Study {one}.", "text": f"In study {one} it did in {one % 89} of a hundred."}
            for one in shown
        ],
        "long_answer": f"We conclude that {topic}.",
        "decision": _DECISIONS[pmid % len(_DECISIONS)],
        "generator": QUESTIONER,
        "question_prompt_version": "rules-1",
        "chosen_by": JUDGE,
        "answerer": ANSWERER,
        "prompt_version": "rules-1",
        "question_words": len(question.split()),
        "answer_words": 10,
        "answer_support": 0.75,
        "question_support": 0.5,
        "copied_share": 1.0,
        "entailment": "entailed",
        "entailment_judge": JUDGE,
        "language": "en",
        "reading_grade": 7.5,
        "personal_data": [],
        "odd_characters": 0,
        "mesh_score": 0.5,
        "mesh_margin": 0.125,
        "source_rank": 1,
    }
    return row | changes


def training_examples(*rows: dict[str, Any]) -> pl.DataFrame:
    """A `TrainingExample` table of these rows of `example`, or of one for each of `PMIDS`, by PMID."""
    kinds = TrainingExample.create_empty().schema
    texts = {"context", "pretraining_text", "messages", "example_hash"}
    made_of = {
        "title": pl.String(),
        "source_context": pl.String(),
        "source_conclusion": pl.String(),
        "contexts": pl.List(pl.Struct({"title": pl.String, "text": pl.String})),
    }
    schema = {name: kind for name, kind in kinds.items() if name not in texts} | made_of
    given = list(rows) or [example(pmid) for pmid in PMIDS]
    frame = pl.DataFrame([{name: row.get(name) for name in schema} for row in given], schema=schema)
    whole = example_texts(frame, MAX_CONTEXT_CHARACTERS)
    return TrainingExample.validate(whole.with_columns(example_hash(whole)).select(*kinds).sort("pmid"))


def small_facts(rows: pl.DataFrame | None = None, **changes: Any) -> ReleaseFacts:
    """The manifest of a release of these rows, of `training_examples()` unless told otherwise."""
    rows = training_examples() if rows is None else rows
    reports = small_reports()
    facts: dict[str, Any] = {
        "name": "mkailin-small-0123abcd",
        "form": "full",
        "made_on": "2026-11-20",
        **facts_of_rows(rows),
        "mesh_year": 2026,
        "mesh": _file(
            "desc2026.gz", "https://nlmpubs.nlm.nih.gov/projects/mesh/MESH_FILES/xmlmesh/desc2026.gz"
        ),
        "pubmed_files": [
            SourceFile(
                name=f"pubmed26n{number:04}",
                url=f"https://ftp.ncbi.nlm.nih.gov/pubmed/{folder}/pubmed26n{number:04}.xml.gz",
                algorithm="md5",
                digest=hashlib.md5(str(number).encode()).hexdigest(),
            )
            for number, folder in ((1, "baseline"), (1335, "updatefiles"))
        ],
        "last_update_file": "pubmed26n1335",
        "retraction_cutoff": "2026-11-18",
        "taken_back_citations": reports["taken_back"].height,
        "models": [
            _model(QUESTIONER, "question", rows.height, wrote=True),
            _model(ANSWERER, "answer", rows.height, wrote=True),
            _model(JUDGE, "preference", rows.height, wrote=False),
        ],
        "benchmarks": [BenchmarkFacts(file=_file(BENCHMARK_NAME, None), items=1, removed=1)],
        "evaluated": rows.height + reports["exclusions"].height,
        "excluded": excluded(reports["exclusions"]),
        "recalled": reports["recalls"].height,
        "coverage": CoverageFacts(
            branches=rows["branch"].n_unique(),
            branches_of_pubmed=115,
            descriptors=40,
            descriptors_of_pubmed=30_000,
        ),
        "lengths": [
            LengthFacts(
                form=form,
                tokenizer="a-tokenizer@0123456",
                examples=rows.height,
                tokens=90 * rows.height,
                longest=120,
                sequence_length=4096,
                sequences=1,
            )
            for form in ("pretraining", "instruction")
        ],
        "rules": {"corpus": {"max_context_characters": MAX_CONTEXT_CHARACTERS}},
        "seeds": {"duplicates": 0},
        "settings": {"MKAILIN_ANSWER_MODEL": "extractive"},
        "packages": {"polars": "2.1.0"},
    }
    return ReleaseFacts.model_validate(facts | changes)


def small_reports() -> dict[str, pl.DataFrame]:
    """The tables of reports/ that `small_facts` counts."""
    benchmark = pl.DataFrame(
        [(BENCHMARK_NAME, "17", 900_001, BENCHMARK_QUESTION)], schema=BENCHMARK, orient="row"
    )
    out = [
        (101, "F03", "So?", "evaluation", "question of fewer than 4 words", None, None, None),
        (
            *(102, "F03", BENCHMARK_QUESTION, "contamination", "asks a benchmark question"),
            *(BENCHMARK_NAME, "17", BENCHMARK_QUESTION),
        ),
        (103, "C04", "Is it so in trial 7919?", "duplicate", "asks the same as PMID 1", None, None, None),
    ]
    exclusions = pl.DataFrame(out, schema=CorpusExclusion.create_empty().schema, orient="row")
    back = [(9001, "retracted", "pubmed26n1335"), (9002, "deleted", "pubmed26n1335")]
    return {
        "exclusions": exclusions,
        "decontamination": exclusions.filter(stage="contamination"),
        "recalls": CorpusRecall.create_empty(),
        "coverage": MeshCoverage.create_empty(),
        "taken_back": pl.DataFrame(back, schema=TAKEN_BACK, orient="row"),
        "benchmark_runs": fingerprints_of(benchmark),
    }


def small_release(
    folder: Path, rows: pl.DataFrame | None = None, facts: ReleaseFacts | None = None, **reports: pl.DataFrame
) -> Path:
    """A folder with a whole release of these rows, and with these reports in place of `small_reports()`."""
    rows = training_examples() if rows is None else rows
    write_release(folder, rows.lazy(), facts or small_facts(rows), small_reports() | reports, b"a picture")
    return folder


def _file(name: str, url: str | None) -> SourceFile:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return SourceFile(name=name, url=url, algorithm="sha256", digest=digest)


def _model(name: str, role: Any, rows: int, *, wrote: bool) -> ModelUse:
    return ModelUse(
        name=name,
        role=role,
        wrote=wrote,
        rows=rows,
        prompt_version="rules-1",
        prompt_sha256=None,
        licence="Apache-2.0",
        may_train="yes",
        condition="rules of this project, no model",
        source="LICENSE",
        exception=None,
    )
