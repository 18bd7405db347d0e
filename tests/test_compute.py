"""Trainings in several processes, and the trackers: what they leave, and that nothing goes on by itself."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from tiny_corpus import training_examples
from tiny_model import REPOSITORY

from mkailin_assets.adapters import altered_files
from mkailin_assets.training.job import train
from mkailin_assets.training.recipes import recipe_of
from mkailin_resources import compute
from mkailin_resources.compute import Compute, ComputeUnavailable, LaunchFailed
from mkailin_resources.training_checkpoints import MANIFEST, last_whole

SHIPPED = sorted((REPOSITORY / "deploy" / "accelerate").glob("*.yaml"))
ONE = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "NO", "num_processes": 1, "use_cpu": True}
ONE |= {"num_machines": 1, "mixed_precision": "no"}


def quiet(line: str) -> None:
    pass


def configuration(folder: Path, content: dict[str, Any]) -> str:
    path = folder / "accelerate.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def gone(processes: list[psutil.Process], seconds: float = 10) -> bool:
    """Whether processes end in time; a zombie has ended."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return all(process.status() == psutil.STATUS_ZOMBIE for process in alive)


# What is missing is said before anything starts


def test_a_configuration_that_is_not_there_is_named() -> None:
    with pytest.raises(ComputeUnavailable, match=r"nowhere\.yaml: there is no such .* deploy/accelerate/"):
        Compute(accelerate="nowhere.yaml").check()


@pytest.mark.parametrize("tracker", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_named(
    tracker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Compute(tracker=tracker, tracking=str(tmp_path)).check()
    with pytest.raises(ComputeUnavailable, match="give it a folder"):
        Compute(tracker=tracker).check()
    monkeypatch.setattr(compute, "find_spec", lambda name: None)
    with pytest.raises(
        ComputeUnavailable, match=rf"{tracker} is not installed: pip install 'mkailin\[trackers\]'"
    ):
        Compute(tracker=tracker, tracking=str(tmp_path)).check()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_accelerate_takes_the_configurations_that_are_shipped(path: Path) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    Compute(accelerate=str(path)).check()
    given = launch_command_parser().parse_args(["--config_file", str(path), "-m", "a.module"])
    known = set(vars(given))
    content = yaml.safe_load(path.read_text())
    assert set(content.get("fsdp_config", {})) <= known
    taken, _, _ = _validate_launch_command(given)
    assert taken.mixed_precision == "bf16"
    assert taken.use_fsdp == (content["distributed_type"] == "FSDP")
    assert taken.num_processes == content["num_processes"]


# What is launched


def test_a_failed_launch_tells_what_its_process_said_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing.py").write_text(
        "import os, sys\n"
        "print('given', sys.argv[1], os.environ['WANDB_MODE'])\n"
        "raise ValueError('no such corpus:\\n/nowhere')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    lines: list[str] = []
    running = Compute(configuration(tmp_path, ONE), "wandb", str(tmp_path / "tracking"))
    with pytest.raises(LaunchFailed) as failed:
        running.launch("failing", "job.json", lines.append)
    assert "given job.json offline" in lines
    first, *others = str(failed.value).splitlines()
    assert first == "failing job.json: no such corpus: /nowhere"
    assert "ValueError: no such corpus:" in others
    assert not any("CalledProcessError" in line for line in others)


def test_what_was_launched_ends_where_the_run_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "waiting.py").write_text("import time\nprint('ready')\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    running: list[psutil.Process] = []

    def log(line: str) -> None:
        if line == "ready":
            running.extend(psutil.Process().children(recursive=True))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Compute(configuration(tmp_path, ONE)).launch("waiting", "", log)
    assert len(running) == 2, "accelerate and what it runs"
    assert gone(running)


_PARENT = """
import sys
from mkailin_resources.compute import Compute
Compute(accelerate=sys.argv[1]).launch("tiny_trainer", sys.argv[2], lambda line: print(line, flush=True))
"""


@pytest.mark.slow
def test_processes_that_share_a_model_end_with_their_parent_and_go_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped FSDP configuration, with two processes on a CPU and their share of a Llama each."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "tests"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    content = yaml.safe_load((REPOSITORY / "deploy" / "accelerate" / "fsdp.yaml").read_text())
    path = configuration(tmp_path, content | {"num_processes": 2, "mixed_precision": "no"})
    cut, whole, job = tmp_path / "cut", tmp_path / "whole", tmp_path / "job.json"
    job.write_text(json.dumps([str(cut), str(whole)]))

    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, path, str(job)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    assert any(line.startswith("step 6 of 12: loss") for line in parent.stdout)
    started = psutil.Process(parent.pid).children(recursive=True)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert len(started) == 3, "accelerate and two trainings"
    assert gone(started)
    last = last_whole(cut, quiet)
    assert last is not None
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= set(json.loads((last / MANIFEST).read_text()))

    lines: list[str] = []
    Compute(accelerate=path).launch("tiny_trainer", str(job), lines.append)
    resumed, once = [json.loads(line) for line in lines if line.startswith("[{")]
    assert (resumed[0]["resumed_at"], resumed[0]["steps"]) == (int(last.name.partition("-")[2]), 12)
    assert (once[0]["resumed_at"], once[0]["tokens"]) == (None, 12 * 2 * 4 * 8)
    assert resumed[1] == once[1]
    assert resumed[0]["curve"] == once[0]["curve"]
    assert set(resumed[2]) == {"DTensor"}
    assert len([line for line in lines if line.startswith("step 12 of 12: loss")]) == 2, "the first tells"


@pytest.mark.slow
def test_a_training_in_two_processes_takes_the_steps_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped configuration for data parallelism, with two processes on a CPU; all of a training."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    content = yaml.safe_load((REPOSITORY / "deploy" / "accelerate" / "ddp.yaml").read_text())
    path = configuration(tmp_path, content | {"num_processes": 2, "mixed_precision": "no"})
    stage = {"max_length": 128, "packing": "wrapped", "epochs": 4, "max_steps": 4, "batch_size": 4}
    stage |= {"accumulation": 1, "learning_rate": 1e-2, "warmup_steps": 1, "evaluations": 1}
    recipe = recipe_of({"name": "embedded", "vocabulary": 500, "pretraining": stage})
    records = []
    for name, running in (("one", Compute()), ("two", Compute(accelerate=path))):
        out = tmp_path / name
        out.mkdir()
        corpus, work = training_examples().lazy(), tmp_path / "work" / name
        records.append(train("pretrained", corpus, recipe, None, out, work, running, quiet))
        assert altered_files(out) == []
    one, two = records
    assert (one.processes, two.processes) == (1, 2)
    assert (two.fingerprint, two.course.tokens) == (one.fingerprint, one.course.tokens)
    for told in ("train", "validation"):
        ours, theirs = (dict(getattr(record.course.curve, told)) for record in records)
        assert theirs == pytest.approx(ours, rel=1e-4)


# Who keeps the course

_TRACKED = """
import socket, sys
from pathlib import Path
looked_up = []
def refused(host, *_, **__):
    looked_up.append(host)
    raise socket.gaierror(f"no network: {host}")
socket.getaddrinfo = refused
from tiny_trainer import tiny_trainer
from mkailin_assets.trainer import train_to_the_end
from mkailin_resources.compute import Compute

for tracker, run in (("mlflow", "first"), ("wandb", "first"), ("wandb", "second")):
    compute = Compute(tracker=tracker, tracking=f"{tracker} runs")
    compute.check()
    folder = Path(tracker) / run
    given = {"max_steps": 2, "run_name": run, "report_to": [compute.tracker]}
    with compute.tracked():
        train_to_the_end(tiny_trainer(folder, **given), folder, lambda line: None)
print("looked up:", looked_up)
"""


@contextmanager
def recording_proxy() -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that refuses all, and what it was asked for: by programs that are not Python, too."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(1000))

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked


@pytest.mark.slow
def test_trackers_keep_the_course_in_their_folder_and_call_nobody(tmp_path: Path) -> None:
    with recording_proxy() as (proxy, asked):
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), proxy)
        done = subprocess.run(
            [sys.executable, "-c", _TRACKED],
            cwd=tmp_path,
            env=os.environ
            | proxies
            | {"PYTHONPATH": f"{REPOSITORY / 'tests'}:{REPOSITORY}", "HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "looked up: []" in done.stdout
    assert asked == []
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow", "wandb", "mlflow runs", "wandb runs"}
    with sqlite3.connect(tmp_path / "mlflow runs" / "mlflow.db") as base:
        rows = base.execute(
            "SELECT e.name, r.name, r.status, count(*) FROM metrics m JOIN runs r USING (run_uuid) "
            "JOIN experiments e USING (experiment_id) WHERE m.key = 'loss' GROUP BY 1, 2, 3"
        ).fetchall()
    assert rows == [("mkailin", "first", "FINISHED", 2)]
    runs = list((tmp_path / "wandb runs" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(runs) == 2
    assert all(b"train/loss" in run.read_bytes() for run in runs)
