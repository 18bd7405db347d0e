"""The lineage with a model behind an endpoint that fails, killed amid its calls, counted at the server."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from distillation import REPOSITORY, distill, sample_environment
from model_server import Fault, ModelServer, Stats, model_server

from mkailin_resources.generation import CUT_OFF, EMPTY
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


def begin(settings: dict[str, str], output: Path) -> "subprocess.Popen[bytes]":
    home = Path(settings["DAGSTER_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").symlink_to(REPOSITORY / "dagster.yaml")
    command = [sys.executable, "-m", "mkailin_assets.distill"]
    with output.open("wb") as file:
        return subprocess.Popen(
            command, cwd=REPOSITORY, env={**os.environ, **settings}, stdout=file, stderr=subprocess.STDOUT
        )


def wait_for(server: ModelServer, answers: int) -> None:
    deadline = time.monotonic() + 120
    while sum(server.stats().answered.values()) < answers:
        assert time.monotonic() < deadline, "the lineage did not come to its model"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def after_a_kill(tmp_path_factory: pytest.TempPathFactory) -> tuple[Storage, Stats, str]:
    """What there is after a run that was killed with -9 and the one that took it up."""
    folder = tmp_path_factory.mktemp("end_to_end")
    root = folder / "root"
    with model_server(folder, faults=FAULTS, delay_s=0.3, key=KEY) as server:
        settings = sample_environment(root, BRANCH) | {
            "MKAILIN_PROFILE": "gpu",
            "MKAILIN_ENDPOINT": server.url,
            "MKAILIN_MODEL": "tiny",
            "MKAILIN_CONCURRENCY": str(IN_FLIGHT),
            "MKAILIN_API_KEY": KEY,
        }
        run = begin(settings, folder / "first run")
        wait_for(server, 30)
        run.send_signal(signal.SIGKILL)
        run.wait()
        server.plan = replace(server.plan, delay_s=0.0)
        server.restart()
        done = distill(settings)
        assert done.returncode == 0, done.stdout + done.stderr
        said = (folder / "first run").read_text() + done.stdout + done.stderr
        return Storage(root=str(root)), server.stats(), said


@pytest.mark.slow
def test_no_answer_that_was_kept_is_paid_for_twice(
    after_a_kill: tuple[Storage, Stats, str],
) -> None:
    _, stats, said = after_a_kill
    # At the kill four requests were out, and at most as many replies just in and not yet kept.
    assert stats.answered_twice <= 2 * IN_FLIGHT
    reused = re.search(r"question_domain-\S+: \d+ requests: (\d+) reused", said)
    assert reused is not None
    assert int(reused[1]) > 10


@pytest.mark.slow
def test_faults_of_the_server_lose_no_row_and_are_told(after_a_kill: tuple[Storage, Stats, str]) -> None:
    storage, _, _ = after_a_kill
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
    after_a_kill: tuple[Storage, Stats, str],
) -> None:
    storage, _, said = after_a_kill
    assert KEY not in said
    files = [path for path in Path(storage.root).rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
