"""The lineage with a model behind an endpoint that fails, killed amid its calls, counted at the server."""

import json
import re
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest
from distillation import begin, distill, sample_environment
from model_server import Fault, Stats, model_server

from mkailin_resources.generation import CUT_OFF, EMPTY
from mkailin_resources.sample import PUBMEDQA_FILE
from mkailin_resources.storage import Storage

BRANCH = "C04"
IN_FLIGHT = 4
KEY = "a-key-that-nobody-may-read"
FAULTS = [
    Fault("status", status=500, share=0.1),
    Fault("status", status=429, retry_after="1", share=0.02),
    Fault("drop", share=0.05),
    Fault("drop_half", share=0.05),
    Fault("malformed", share=0.05),
    Fault("empty", share=0.05, times=9),
    Fault("truncated", share=0.05),
]


class AfterKills(NamedTuple):
    """What there is after two runs that were killed with -9 and the one that took them up."""

    storage: Storage
    stats: Stats
    said: str
    published: list[dict[Path, int]]  # after each kill, when each table was written


def killed(settings: dict[str, str], output: Path, ready: Callable[[], bool]) -> dict[Path, int]:
    """Kill a run as soon as something is so; the tables there are, and when each was written."""
    run = begin(settings, output)
    deadline = time.monotonic() + 120
    while not ready():
        assert time.monotonic() < deadline, "the lineage did not come so far"
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    return tables(Path(settings["MKAILIN_STORAGE"]))


def tables(root: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in (root / "tables").rglob("*.parquet")}


def few_items(folder: Path) -> Path:
    """A benchmark that takes no time: what is asked of models at the end is not what is tested here."""
    path = folder / "pubmedqa.json"
    path.write_text(json.dumps(dict(list(json.loads(PUBMEDQA_FILE.read_text()).items())[:4])))
    return path


@pytest.fixture(scope="module")
def after_kills(tmp_path_factory: pytest.TempPathFactory) -> AfterKills:
    folder = tmp_path_factory.mktemp("end_to_end")
    root, output = folder / "root", folder / "killed runs"
    with model_server(folder, faults=FAULTS, delay_s=0.3, key=KEY) as server:
        settings = sample_environment(root, BRANCH) | {
            "MKAILIN_PROFILE": "gpu",
            "MKAILIN_ENDPOINT": server.url,
            "MKAILIN_MODEL": "tiny",
            "MKAILIN_EVALUATOR": "judge",
            "MKAILIN_CONCURRENCY": str(IN_FLIGHT),
            "MKAILIN_API_KEY": KEY,
            "MKAILIN_PUBMEDQA": str(few_items(folder)),
        }
        parsed = root / "tables" / "pubmed_citations"
        published = [
            killed(settings, output, lambda: any(parsed.glob("*.parquet"))),
            killed(settings, output, lambda: sum(server.stats().answered.values()) >= 30),
        ]
        server.plan = replace(server.plan, delay_s=0.0)
        server.restart()
        done = distill(settings)
        assert done.returncode == 0, done.stdout + done.stderr
        said = output.read_text() + done.stdout + done.stderr
        return AfterKills(Storage(root=str(root)), server.stats(), said, published)


@pytest.mark.slow
def test_a_killed_run_is_taken_up_where_it_stopped(after_kills: AfterKills) -> None:
    root = Path(after_kills.storage.root)
    now = tables(root)
    assert root / "tables" / "benchmark_report.parquet" in now
    parsed, asked = after_kills.published
    assert parsed
    assert parsed.keys() < asked.keys() < now.keys()
    for published in (parsed, asked):
        assert {file: now[file] for file in published} == published


@pytest.mark.slow
def test_no_answer_that_was_kept_is_paid_for_twice(
    after_kills: AfterKills,
) -> None:
    _, stats, said, _ = after_kills
    # At the kill four requests were out, and at most as many replies just in and not yet kept.
    assert stats.answered_twice <= 2 * IN_FLIGHT
    reused = re.search(r"question_domain-\S+: \d+ requests: (\d+) reused", said)
    assert reused is not None
    assert int(reused[1]) > 10


@pytest.mark.slow
def test_faults_of_the_server_lose_no_row_and_are_told(after_kills: AfterKills) -> None:
    storage = after_kills.storage
    tables = [
        storage.read_table(name, BRANCH)
        for name in ("branch_citations", "candidate_questions", "generated_qa")
    ]
    citations, questions, answers = (table for table in tables if table is not None)
    assert questions.height == 2 * citations.height
    assert answers.height == citations.height
    for rows, made in ((questions, "question"), (answers, "long_answer")):
        assert (rows[made].is_null() == rows["failure"].is_not_null()).all()
    quarantined = questions.filter(pl.col("question").is_null())
    assert set(quarantined["failure"]) == {EMPTY, CUT_OFF}
    assert quarantined["refused_text"].null_count() == 0
    assert 0 < quarantined.height < 0.25 * questions.height


@pytest.mark.slow
def test_the_key_of_the_endpoint_stands_in_no_output_and_no_file(
    after_kills: AfterKills,
) -> None:
    storage, _, said, _ = after_kills
    assert KEY not in said
    files = [path for path in Path(storage.root).rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


@pytest.mark.slow
def test_a_language_model_is_asked_about_held_out_pairs_and_judges_only_if_it_is_better(
    after_kills: AfterKills,
) -> None:
    made = after_kills.storage.read_table("evaluator_checkpoint")
    preferences = after_kills.storage.read_table("question_preferences", BRANCH)
    assert made is not None
    assert preferences is not None
    row = made.row(0, named=True)
    assert (row["kind"], row["evaluator"], row["pairs"]) == ("judge", "tiny", 0)
    assert re.search(r"tiny, evaluation-\S+: \d+ requests", after_kills.said)
    if not row["judges"]:
        assert set(preferences["judge"]) == {"cold start"}
