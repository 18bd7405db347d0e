"""The lineage with a language model behind an endpoint: faults, kills and repeats, counted at the server."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from distillation import REPOSITORY, distill, sample_environment
from model_server import Fault, ModelServer, model_server

from mkailin_resources.storage import Storage

BRANCH = "C04"


def environment(root: Path, server: ModelServer, **settings: str) -> dict[str, str]:
    given = {"PROFILE": "gpu", "ENDPOINT": server.url, "MODEL": "tiny", **settings}
    return sample_environment(root, BRANCH) | {f"MKAILIN_{name}": value for name, value in given.items()}


def begin(settings: dict[str, str]) -> "subprocess.Popen[bytes]":
    home = Path(settings["DAGSTER_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").symlink_to(REPOSITORY / "dagster.yaml")
    command = [sys.executable, "-m", "mkailin_assets.distill"]
    return subprocess.Popen(
        command, cwd=REPOSITORY, env={**os.environ, **settings}, stdout=subprocess.DEVNULL
    )


def wait_for(server: ModelServer, requests: int) -> None:
    deadline = time.monotonic() + 120
    while sum(server.stats().asked.values()) < requests:
        assert time.monotonic() < deadline, "the lineage did not come to its model"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_run_killed_amid_its_calls_goes_on_and_no_answer_is_paid_for_twice(tmp_path: Path) -> None:
    with model_server(tmp_path, delay_s=0.3) as server:
        settings = environment(tmp_path / "root", server, CONCURRENCY="4")
        run = begin(settings)
        wait_for(server, 30)
        run.send_signal(signal.SIGKILL)
        run.wait()
        time.sleep(0.5)
        server.plan = type(server.plan)()
        server.kill()
        server.restart()
        done = distill(settings)
        assert done.returncode == 0, done.stdout + done.stderr
        asked = server.stats().asked
        again = distill(settings | {"MKAILIN_PRICES": "tiny=1/2"})
        assert again.returncode == 0, again.stdout + again.stderr
        assert server.stats().asked == asked
    # At the kill four requests were out, and at most as many replies just in and not yet kept.
    assert sum(count - 1 for count in asked.values()) <= 8
    questions = Storage(root=str(tmp_path / "root")).read_table("candidate_questions", BRANCH)
    assert questions is not None
    assert questions["question"].null_count() == 0
    assert "reused" in done.stdout


@pytest.mark.slow
def test_faults_of_the_server_lose_no_row_and_are_told(tmp_path: Path) -> None:
    faults = [
        Fault("status", status=500, share=0.1),
        Fault("status", status=429, retry_after="1", share=0.02),
        Fault("drop", share=0.05),
        Fault("drop_half", share=0.05),
        Fault("malformed", share=0.05),
        Fault("empty", share=0.05, times=9),
        Fault("truncated", share=0.05),
    ]
    with model_server(tmp_path, faults=faults) as server:
        done = distill(environment(tmp_path / "root", server))
        assert done.returncode == 0, done.stdout + done.stderr
        stats = server.stats()
    storage = Storage(root=str(tmp_path / "root"))
    citations, questions, answers = (
        storage.read_table(name, BRANCH)
        for name in ("branch_citations", "candidate_questions", "generated_qa")
    )
    assert citations is not None
    assert questions is not None
    assert answers is not None
    assert questions.height == 2 * citations.height
    assert answers.height == citations.height
    for rows, made in ((questions, "question"), (answers, "long_answer")):
        assert (rows[made].is_null() == rows["failure"].is_not_null()).all()
        quarantined = rows.filter(pl.col("failure") == "the question is empty")
        assert quarantined["refused_text"].to_list() == [""] * quarantined.height
    assert 0 < questions["failure"].is_not_null().mean() < 0.2
    assert stats.answered_twice == 0
