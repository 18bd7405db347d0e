"""What all tests share."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from distillation import Distilled, distill, sample_environment
from upath import UPath


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
