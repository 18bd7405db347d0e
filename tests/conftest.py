"""What all tests share."""

import os
from pathlib import Path

import pytest
from distillation import Distilled, distill, sample_environment


def pytest_make_parametrize_id(val: object) -> str | None:
    """Bytes are not named by content: gzip writes the time into them, and workers must agree on names."""
    return "bytes" if isinstance(val, bytes) else None


def pytest_itemcollected(item: pytest.Item) -> None:
    """One worker for each file, whose fixtures it shares; one for all that need the distilled sample."""
    shared = "distilled" in getattr(item, "fixturenames", ())
    item.add_marker(pytest.mark.xdist_group("distilled" if shared else item.path.stem))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real PubMed, MeSH and PubMedQA files; tests about them are skipped where it is unset."""
    folder = os.environ.get("MKAILIN_REAL_DATA")
    if not folder:
        pytest.skip("MKAILIN_REAL_DATA is unset: no real files to test on")
    return Path(folder)


@pytest.fixture(scope="session")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Distilled:
    """The sample distilled for three branches, once for all tests; they may add to it, not spoil it."""
    root = tmp_path_factory.mktemp("distilled")
    environment = sample_environment(root, "C04 C10 F03")
    done = distill(environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return Distilled(environment, root / "tables", done.stdout)
