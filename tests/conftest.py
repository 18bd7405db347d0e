"""What all tests share."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real PubMed, MeSH and PubMedQA files; tests about them are skipped where it is unset."""
    folder = os.environ.get("MKAILIN_REAL_DATA")
    if not folder:
        pytest.skip("MKAILIN_REAL_DATA is unset: no real files to test on")
    return Path(folder)


@dataclass(frozen=True)
class Distilled:
    """A storage root that `make demo` has filled, and what it printed."""

    environment: dict[str, str]
    tables: Path
    output: str

    def again(self, **changed: str) -> subprocess.CompletedProcess[str]:
        """Run the same command once more, with some settings changed."""
        return distill({**self.environment, **changed})


def distill(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`make distill` without the environment part, in a process of its own."""
    home = Path(environment["DAGSTER_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        (home / "dagster.yaml").symlink_to(REPOSITORY / "dagster.yaml")
    return subprocess.run(
        [sys.executable, "-m", "mkailin_assets.distill"],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def sample_environment(root: Path, branches: str) -> dict[str, str]:
    """Settings of `make demo` with a storage root of its own."""
    return {
        "MKAILIN_NLM_URL": "sample",
        "MKAILIN_MESH_YEAR": "2026",
        "MKAILIN_PUBMED_FILES": "",
        "MKAILIN_BRANCHES": branches,
        "MKAILIN_STORAGE": str(root),
        "DAGSTER_HOME": str(root / "dagster"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
    }


@pytest.fixture(scope="session")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Distilled:
    """The sample distilled for three branches, once for all tests; they may add to it, not spoil it."""
    root = tmp_path_factory.mktemp("distilled")
    environment = sample_environment(root, "C04 C10 F03")
    done = distill(environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return Distilled(environment, root / "tables", done.stdout)
