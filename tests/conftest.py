"""What all tests share."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from distillation import Distilled, distill, sample_environment
from upath import UPath

# Groups of tests that take more than ten seconds, the longest first.
LONGEST = (
    "distilled",
    "test_vllm",
    "test_corpus_carries_through",
    "test_retrieval_finetuning",
    "test_compute",
    "test_models_end_to_end",
    "mesh_2024",
    "test_training",
    "test_serve",
    "test_ablation",
    "test_generation_store",
    "test_distill",
    "test_pubmed_fuzz",
    "test_questions_finetuning",
    "test_preference_optimization",
    "test_retrieval_index",
    "test_retrieval_checkpoint",
    "test_evaluator",
    "test_automation",
    "test_retrieval_encoders",
    "test_corpus_signals",
    "test_corpus_assembly",
    "test_rehydrate",
    "test_corpus_checks",
    "test_release_verify",
    "test_eutils",
    "test_nlm",
    "test_rounds",
    "test_transformers_model",
    "test_storage",
    "test_pubmed_assets",
)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Bytes are not named by content: gzip writes the time into them, and workers must agree on names."""
    return "bytes" if isinstance(val, bytes) else None


def pytest_itemcollected(item: pytest.Item) -> None:
    """One worker for each file, whose fixtures it shares; one for all that need the same costly thing."""
    if "distilled" in getattr(item, "fixturenames", ()):
        group = "distilled"
    elif hasattr(getattr(item, "module", None), "mesh_2024"):
        group = "mesh_2024"
    else:
        group = item.path.stem
    item.add_marker(pytest.mark.xdist_group(group))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest groups first: one begun at the end would leave the other worker without work."""
    if hasattr(config, "workerinput") and any(not item.nodeid.endswith(f"@{_group(item)}") for item in items):
        raise pytest.UsageError("pytest-xdist does not see the groups: each worker would make every fixture")
    place = {group: number for number, group in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(_group(item), len(place)))


def _group(item: pytest.Item) -> str:
    (mark,) = item.iter_markers("xdist_group")
    return str(mark.args[0])


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
    environment = sample_environment(root, "C04 C06 C08")
    done = distill(environment, "--release")
    assert done.returncode == 0, done.stdout + done.stderr
    return Distilled(environment, root / "tables", done.stdout)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 bucket on a server of this test's own."""
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    # It would hand out the client of the last test's server, which has ended.
    S3FileSystem.clear_instance_cache()
    name = f"s3://{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:20]}"
    UPath(name).mkdir()
    yield f"{name}/root"
    server.stop()
