"""A release on the Hub: every byte arrives, in one commit, under its tag, or it is not published.

The Hub is a stand-in on loopback; what it is asked is what the real client of this environment sends.
"""

import json
import logging
import os
import random
import shutil
import socket
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from dagster._utils.error import serializable_error_info_from_exc_info
from hub_server import Commit, HubServer, after, hub_server, lose_answer, refuse

from mkailin_resources.hub import Hub, HubError, Uploaded

TOKEN = "hf_" + "NeverToBeShown" * 2
NAME = "somebody/m-kailin"
API = f"/api/datasets/{NAME}"


def _quiet(_: str) -> None: ...


@pytest.fixture(autouse=True)
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The Hub's client as in a new process: with a token, nothing cached, and Xet as is the default."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _detect_agent, _xet

    for name in ("HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_XET_CACHE", str(tmp_path / "xet"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "")
    for name in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_XET"):
        monkeypatch.setattr(constants, name, False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(tmp_path / "harnesses"))
    monkeypatch.setattr(_detect_agent, "_registry", None)
    monkeypatch.setattr(_xet, "_GLOBAL_XET_HOLDER", _xet.XetSessionHolder())
    return monkeypatch


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server(TOKEN) as served:
        yield served


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return _release(tmp_path / "m-kailin-2026-11-a1", "train-00000-of-00001")


def _release(folder: Path, part: str) -> Path:
    """Small files and large ones, of text, numbers and noise."""
    data = folder / "data" / "instruction"
    data.mkdir(parents=True)
    (folder / "README.md").write_text(f"---\nlicense: other\n---\n# {folder.name}\n", encoding="utf-8")
    (folder / "manifest.json").write_text(json.dumps({"name": folder.name}))
    (folder / "empty").touch()
    noise = random.Random(part)
    (folder / "coverage.png").write_bytes(noise.randbytes(300_000))
    rows = pl.DataFrame({"pmid": range(20_000), "question": [f"Does {n} do so?" for n in range(20_000)]})
    rows.write_parquet(data / f"{part}.parquet", compression="uncompressed")
    (data / f"numbers-{part}.parquet").write_bytes(b"".join(n.to_bytes(4, "little") for n in range(70_001)))
    return folder


def _uploaded(hub: HubServer, folder: Path, say: Callable[[str], None] = _quiet) -> Uploaded:
    return Hub(repository=NAME, endpoint=hub.url).upload(folder, say)


def _failed(hub: HubServer, folder: Path) -> str:
    with pytest.raises(HubError) as raised:
        _uploaded(hub, folder)
    return str(raised.value)


def _bytes_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _held(hub: HubServer, revision: str) -> dict[str, bytes]:
    commit = hub.repositories[NAME].at(revision)
    assert commit is not None
    return {path: body for path, body in commit.files.items() if path != ".gitattributes"}


@pytest.mark.parametrize("is_xet", [True, False], ids=["xet", "lfs"])
def test_every_byte_can_be_downloaded_by_the_name_of_the_release(
    is_xet: bool, hub: HubServer, release: Path, tmp_path: Path, client: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants, snapshot_download

    client.setattr(constants, "HF_HUB_DISABLE_XET", not is_xet)
    uploaded = _uploaded(hub, release)
    assert bool(hub.asked("POST /v1/xorbs")) is is_xet
    assert bool(hub.asked("PUT /stored")) is not is_xet
    loaded = snapshot_download(
        NAME,
        repo_type="dataset",
        revision=release.name,
        local_dir=tmp_path / "loaded",
        endpoint=hub.url,
    )
    shutil.rmtree(Path(loaded) / ".cache")
    there = _bytes_of(Path(loaded))
    del there[".gitattributes"]
    assert there == _bytes_of(release)
    commit = hub.repositories[NAME].commits[-1].oid
    assert uploaded == Uploaded(f"{hub.url}/datasets/{NAME}/tree/{release.name}", commit, len(there))


def test_a_release_is_one_commit_of_its_name_in_a_private_dataset(hub: HubServer, release: Path) -> None:
    uploaded = _uploaded(hub, release)
    repository = hub.repositories[NAME]
    assert [commit.title for commit in repository.commits] == ["initial commit", f"Release {release.name}"]
    assert repository.tags == {release.name: uploaded.commit}
    assert repository.is_private


def test_a_dataset_is_public_only_where_that_is_asked_for(hub: HubServer, release: Path) -> None:
    said: list[str] = []
    Hub(repository=NAME, endpoint=hub.url, private=False).upload(release, said.append)
    assert not hub.repositories[NAME].is_private
    assert "public, everybody can read it" in said[0]


def test_a_second_upload_of_a_release_makes_no_commit_and_sends_nothing(
    hub: HubServer, release: Path, tmp_path: Path
) -> None:
    first = _uploaded(hub, release)
    newer = _uploaded(hub, _release(tmp_path / "m-kailin-2026-12-b2", "train-00000-of-00001"))
    hub.requests.clear()
    said: list[str] = []
    assert _uploaded(hub, release, said.append) == first
    assert hub.asked("POST") == ["POST /api/repos/create"]
    assert len(said) == 1
    assert "it is there already" in said[0]
    assert hub.repositories[NAME].commits[-1].oid == newer.commit


def test_the_next_release_takes_the_place_of_the_last_which_stays_under_its_tag(
    hub: HubServer, release: Path, tmp_path: Path
) -> None:
    _uploaded(hub, release)
    newer = _release(tmp_path / "m-kailin-2026-12-b2", "train-00000-of-00002")
    said: list[str] = []
    _uploaded(hub, newer, said.append)
    assert _held(hub, "main") == _held(hub, newer.name) == _bytes_of(newer)
    assert _held(hub, release.name) == _bytes_of(release)
    assert any("train-00000-of-00001.parquet" in line and "leave main" in line for line in said)


def test_a_published_name_is_not_given_to_other_files(hub: HubServer, release: Path) -> None:
    first = _uploaded(hub, release)
    with (release / "coverage.png").open("r+b") as file:
        file.write(b"\0")
    (release / "manifest.json").unlink()
    told = _failed(hub, release)
    assert f"another release of the name {release.name}: coverage.png, manifest.json differ" in told
    assert hub.repositories[NAME].commits[-1].oid == first.commit


def test_a_commit_that_fails_leaves_nothing_and_what_was_sent_is_not_sent_again(
    hub: HubServer, release: Path, client: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    client.setattr(constants, "HF_HUB_DISABLE_XET", True)
    hub.faults[f"POST {API}/commit"].append(refuse(500, "Internal error"))
    told = _failed(hub, release)
    assert f"{NAME}: uploading {release.name}" in told
    assert "Internal error" in told
    assert "what has arrived is not sent twice" in told
    repository = hub.repositories[NAME]
    assert (len(repository.commits), repository.tags) == (1, {})
    hub.requests.clear()
    _uploaded(hub, release)
    assert not hub.asked("PUT /stored")
    assert _held(hub, release.name) == _bytes_of(release)


def test_what_xet_has_stored_is_not_sent_again(hub: HubServer, release: Path) -> None:
    hub.faults[f"POST {API}/commit"].append(refuse(500, "Internal error"))
    _failed(hub, release)
    hub.requests.clear()
    _uploaded(hub, release)
    assert not hub.asked("POST /v1/xorbs")
    assert _held(hub, release.name) == _bytes_of(release)


@pytest.mark.parametrize("step", ["commit", "tag"])
@pytest.mark.parametrize("fault", [refuse(500, "Internal error"), lose_answer], ids=["failed", "answer lost"])
def test_an_upload_cut_off_at_its_end_is_finished_by_the_next_in_one_commit(
    step: str, fault: Callable, hub: HubServer, release: Path
) -> None:
    hub.faults[f"POST {API}/{step}/"].append(fault)
    _failed(hub, release)
    uploaded = _uploaded(hub, release)
    repository = hub.repositories[NAME]
    assert len(repository.commits) == 2
    assert repository.tags == {release.name: uploaded.commit}
    assert _held(hub, release.name) == _bytes_of(release)


def test_a_file_that_the_hub_lost_is_found_before_the_tag_is_set(hub: HubServer, release: Path) -> None:
    def forget(handler) -> None:  # noqa: ANN001
        lines = handler.body.splitlines()
        handler.body = b"\n".join(line for line in lines if b"manifest.json" not in line)
        handler.route()

    hub.faults[f"POST {API}/commit"].append(forget)
    told = _failed(hub, release)
    assert f"manifest.json differ; the tag {release.name} was not set" in told
    assert hub.repositories[NAME].tags == {}
    _uploaded(hub, release)
    assert _held(hub, release.name) == _bytes_of(release)


def test_what_somebody_else_commits_meanwhile_is_not_overwritten(hub: HubServer, release: Path) -> None:
    hub.faults[f"POST {API}/preupload"].append(after(lambda: _commit_by_another(hub)))
    told = _failed(hub, release)
    assert "somebody else changed it meanwhile" in told
    assert [commit.title for commit in hub.repositories[NAME].commits] == ["initial commit", "by another"]
    assert hub.repositories[NAME].tags == {}


def test_the_tag_is_at_the_release_whatever_was_committed_since(hub: HubServer, release: Path) -> None:
    hub.faults[f"POST {API}/tag"].append(after(lambda: _commit_by_another(hub)))
    uploaded = _uploaded(hub, release)
    assert hub.repositories[NAME].tags == {release.name: uploaded.commit}
    assert _held(hub, release.name) == _bytes_of(release)


def _commit_by_another(hub: HubServer) -> None:
    commits = hub.repositories[NAME].commits
    commits.append(Commit("by another", commits[-1].files | {"notes.md": b"mine"}))


def test_a_hub_that_stumbles_is_asked_again(hub: HubServer, release: Path) -> None:
    hub.faults[f"POST {API}/preupload"].append(refuse(500, "Internal error"))
    _uploaded(hub, release)
    assert len(hub.asked(f"POST {API}/preupload")) == 2
    assert _held(hub, release.name) == _bytes_of(release)


@pytest.mark.parametrize(
    ("request_", "status", "step", "advice"),
    [
        ("POST /api/repos/create", 401, "finding or making the dataset", "set HF_TOKEN"),
        (
            f"GET {API}",
            403,
            "finding or making the dataset",
            "to a dataset of yours",
        ),
        (f"GET {API}", 404, "finding or making the dataset", "that the token may write to"),
        (f"GET {API}", 503, "finding or making the dataset", "the Hub is in trouble: upload it again"),
        (f"GET {API}/xet-write-token", 403, "uploading", "upload it again"),
        (f"POST {API}/commit", 402, "uploading", "upload it again"),
        (f"POST {API}/commit", 403, "uploading", "the token may not do that here"),
        (f"POST {API}/commit", 429, "uploading", "the Hub asks to wait"),
        (f"POST {API}/tag", 403, "setting the tag", "the token may not do that here"),
    ],
)
def test_a_refusal_names_dataset_step_and_what_to_do_and_never_the_token(
    *,
    request_: str,
    status: int,
    step: str,
    advice: str,
    hub: HubServer,
    release: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.INFO)
    hub.faults[request_] = [refuse(status, f"refused for Bearer {TOKEN}")] * 20
    said: list[str] = []
    settings = Hub(repository=NAME, endpoint=hub.url)
    with pytest.raises(HubError) as raised:
        settings.upload(release, said.append)
    error = raised.value
    told = str(error)
    assert told.startswith(f"{NAME}: {step}")
    assert advice in told
    assert hub.repositories.get(NAME) is None or hub.repositories[NAME].tags == {}
    shown = [
        told,
        "".join(traceback.format_exception(error)),
        str(serializable_error_info_from_exc_info((type(error), error, error.__traceback__))),
        repr(settings),
        json.dumps(settings.model_dump()),
        *said,
        *capfd.readouterr(),
        caplog.text,
    ]
    assert TOKEN not in "\n".join(shown)


def test_a_wrong_token_is_not_taken_and_not_shown(
    hub: HubServer, release: Path, client: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client.setenv("HF_TOKEN", wrong := "hf_AnotherThatIsNotTaken")
    told = _failed(hub, release)
    assert "the Hub does not take the token" in told
    assert wrong not in told + caplog.text
    assert hub.repositories == {}


def test_an_address_that_is_signed_is_told_without_its_signature(
    hub: HubServer, release: Path, client: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    client.setattr(constants, "HF_HUB_DISABLE_XET", True)
    for method in ("POST /datasets", "PUT /stored"):
        hub.faults[method] = [refuse(403, f"see {hub.url}/stored/1?X-Amz-Signature=Secret")] * 20
    told = _failed(hub, release)
    assert f"{hub.url}/stored/1" in told
    assert "Secret" not in told


def test_a_hub_that_is_not_there_is_told_so(release: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(HubError, match=r"somebody/m-kailin: .*refused; see to that, or to the network"):
        Hub(repository=NAME, endpoint=address).upload(release, _quiet)


def test_a_folder_without_files_is_not_uploaded(hub: HubServer, tmp_path: Path) -> None:
    assert "there is no file in" in _failed(hub, tmp_path / "nothing")
    assert hub.requests == []


@pytest.mark.parametrize(
    "repository", ["", "m-kailin", "somebody/m kailin", "https://huggingface.co/somebody/it"]
)
def test_a_dataset_has_to_be_named(repository: str) -> None:
    with pytest.raises(HubError, match=r"MKAILIN_HUB_REPOSITORY is .* such as owner/name"):
        Hub(repository=repository).check()


def test_a_token_is_the_users_or_that_of_a_login(client: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client.delenv("HF_TOKEN")
    with pytest.raises(HubError, match=r"no token .* set HF_TOKEN .* `hf auth login`"):
        Hub(repository=NAME).check()
    (tmp_path / "token").write_text(TOKEN)
    Hub(repository=NAME).check()


def test_a_token_that_no_header_can_hold_is_refused_unseen(
    client: pytest.MonkeyPatch, hub: HubServer, release: Path
) -> None:
    client.setenv("HF_TOKEN", f"{TOKEN}\x01")
    told = _failed(hub, release)
    assert "a character that no token has" in told
    assert TOKEN not in told
    assert hub.requests == []


def test_an_offline_client_is_told_of_before_anything_is_sent(
    client: pytest.MonkeyPatch, hub: HubServer, release: Path
) -> None:
    from huggingface_hub import constants

    client.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "is set, so nothing is sent; unset it to upload" in _failed(hub, release)
    assert hub.requests == []


def test_nothing_is_told_to_anybody_but_what_the_upload_needs(
    hub: HubServer, release: Path, client: pytest.MonkeyPatch
) -> None:
    looked_up: set[str] = set()
    look_up = socket.getaddrinfo

    def watched(host: str, *rest: object, **more: object) -> object:
        looked_up.add(host)
        return look_up(host, *rest, **more)  # type: ignore[arg-type]

    client.setattr(socket, "getaddrinfo", watched)
    _uploaded(hub, release)
    assert looked_up <= {"127.0.0.1"}
    assert not [request for request in hub.requests if "telemetry" in request or "harness" in request]
    assert not [agent for agent in hub.user_agents if "torch" in agent or "agent/" in agent]
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
