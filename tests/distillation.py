"""`make demo` in a process of its own, for tests."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
# Trained for seconds.
SHORT = {
    "name": "embedded",
    "vocabulary": 1024,
    "pretraining": {"max_steps": 8, "warmup_steps": 2, "max_length": 256},
    "finetuning": {"max_steps": 6, "warmup_steps": 2, "max_length": 256, "evaluations": 1},
}
COMMAND = [sys.executable, "-m", "mkailin_assets.distill"]


@dataclass(frozen=True)
class Distilled:
    """A storage root that `make demo` has filled, and what it printed."""

    environment: dict[str, str]
    tables: Path
    output: str

    def again(self, **changed: str) -> subprocess.CompletedProcess[str]:
        """Run the same command once more, with some settings changed."""
        return distill({**self.environment, **changed}, "--release")


def distill(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """`make distill` without the environment part, in its own process; `--release`: `make release`."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=REPOSITORY,
        env=_with_home(environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def begin(environment: dict[str, str], output: Path) -> "subprocess.Popen[bytes]":
    """The same, under way; what it prints is added to a file."""
    with output.open("ab") as file:
        return subprocess.Popen(
            COMMAND, cwd=REPOSITORY, env=_with_home(environment), stdout=file, stderr=subprocess.STDOUT
        )


def _with_home(environment: dict[str, str]) -> dict[str, str]:
    home = Path(environment["DAGSTER_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        (home / "dagster.yaml").symlink_to(REPOSITORY / "dagster.yaml")
    return {**os.environ, **environment}


def sample_environment(root: Path, branches: str) -> dict[str, str]:
    """Settings of `make demo` with a storage root of its own."""
    return {
        "MKAILIN_NLM_URL": "sample",
        "MKAILIN_MESH_YEAR": "2026",
        "MKAILIN_PUBMED_FILES": "",
        "MKAILIN_BRANCHES": branches,
        "MKAILIN_STORAGE": str(root),
        "MKAILIN_RECIPE": json.dumps(SHORT),
        "MKAILIN_EVALUATION_RULES": '{"forms": ["likelihood"]}',
        "DAGSTER_HOME": str(root / "dagster"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
    }
