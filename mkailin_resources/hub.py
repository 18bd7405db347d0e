"""The Hugging Face Hub, where a release is uploaded for others to load: opt-in.

A release is one commit and one tag of its name. The tag is set last, once the Hub has been seen to hold what
the folder holds; without it nothing counts as published.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.hf_api import RepoFile

_TOKEN = (
    "make a token that may write at https://huggingface.co/settings/tokens, and set HF_TOKEN to it or give "
    "it to `hf auth login`"
)
_AGAIN = "upload it again, what has arrived is not sent twice"
_ADVICE = {
    401: f"the Hub does not take the token: {_TOKEN}",
    403: f"the token may not do that here: {_TOKEN}, or set MKAILIN_HUB_REPOSITORY to a dataset of yours",
    404: "set MKAILIN_HUB_REPOSITORY to a dataset that the token may write to, and check HF_ENDPOINT",
    412: f"somebody else changed it meanwhile: {_AGAIN}",
    429: f"the Hub asks to wait: {_AGAIN}",
}
_LONGEST_MESSAGE = 500
_NAMED = 3  # of many files the first few tell enough
# The one file of a repository that is not of a release.
_ATTRIBUTES = ".gitattributes"

_Files = Mapping[str, "CommitOperationAdd"]


class HubError(RuntimeError):
    """A release was not uploaded; the message names the repository, what failed and what to do."""


@dataclass(frozen=True)
class Uploaded:
    """A release on the Hub: its page, its commit, and the number of its files."""

    url: str
    commit: str
    files: int


class Hub(dg.ConfigurableResource):
    """A dataset on the Hub, `owner/name`; empty for none.

    `private`: what it is made as where it is not there yet. `endpoint`: empty for the client's, HF_ENDPOINT.
    The token is the client's own, HF_TOKEN or that of `hf auth login`, read when it is used.
    """

    repository: str = ""
    private: bool = True
    endpoint: str = ""

    def check(self) -> None:
        """Raise `HubError` where an upload cannot begin: no dataset named, offline, no token."""
        self._token()

    def upload(self, folder: Path, say: Callable[[str], None]) -> Uploaded:
        """Make the folder what the dataset holds, in one commit, and tag that with the folder's name.

        Files of earlier releases leave `main` and stay under their tags. A release that is there already is
        not uploaded again. Raises `HubError`.
        """
        dataset = self._dataset()
        release = folder.name
        files = dataset.additions(folder)
        url = f"{dataset.api.endpoint}/datasets/{self.repository}/tree/{release}"
        with dataset.step("finding or making the dataset"):
            dataset.api.create_repo(self.repository, repo_type="dataset", private=self.private, exist_ok=True)
            found = dataset.api.dataset_info(self.repository)
            tags = dataset.api.list_repo_refs(self.repository, repo_type="dataset").tags
        tagged = next((tag.target_commit for tag in tags if tag.name == release), None)
        if tagged is None:
            size = sum(file.upload_info.size for file in files.values()) / 1e6
            readers = "private" if found.private else "public, everybody can read it"
            say(f"{url}: {len(files)} files, {size:.1f} MB; the dataset is {readers}")
            commit = dataset.publish(files, release, found.sha, say)
            say(f"{url}: published, commit {commit}")
        elif others := dataset.others(files, tagged):
            raise HubError(
                f"{self.repository}: it has another release of the name {release}: {_few(others)} differ; a "
                "published release does not change: if that one is a mistake, delete its tag on the Hub and "
                "upload again"
            )
        else:
            commit = tagged
            later = "" if found.sha == commit else f"; main holds a later one, load it by revision={release}"
            say(f"{url}: it is there already, commit {commit}{later}")
        return Uploaded(url, commit, len(files))

    def _dataset(self) -> "_Dataset":
        token = self._token()
        _send_no_telemetry()
        from huggingface_hub import HfApi

        api = HfApi(
            endpoint=self.endpoint.rstrip("/") or None,
            token=True,
            library_name="m-kailin",
            library_version=version("mkailin"),
        )
        return _Dataset(self.repository, api, token)

    def _token(self) -> str:
        from huggingface_hub import get_token, is_offline_mode

        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.repository, re.ASCII):
            raise HubError(
                f"MKAILIN_HUB_REPOSITORY is {self.repository!r}; set it to the dataset on the Hugging Face "
                "Hub to upload to, such as owner/name"
            )
        if is_offline_mode():
            raise HubError(
                f"{self.repository}: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set, so nothing is sent; "
                "unset it to upload"
            )
        with _step(self.repository, "looking for the token"):
            token = get_token()
        if token is None:
            raise HubError(f"{self.repository}: there is no token for the Hugging Face Hub: {_TOKEN}")
        # The client's error would show a token that no header can hold.
        if not (token.isascii() and token.isprintable()):
            raise HubError(f"{self.repository}: the token has a character that no token has: {_TOKEN}")
        return token


@dataclass(frozen=True)
class _Dataset:
    """A dataset on the Hub during an upload."""

    name: str
    api: "HfApi"
    token: str = field(repr=False)

    def step(self, doing: str) -> AbstractContextManager[None]:
        return _step(self.name, doing, self.token)

    def additions(self, folder: Path) -> _Files:
        """All files of a folder, by their path in it."""
        from huggingface_hub import CommitOperationAdd

        with self.step(f"reading {folder}"):
            paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
            names = [path.relative_to(folder).as_posix() for path in paths]
            files = {name: CommitOperationAdd(name, path) for name, path in zip(names, paths, strict=True)}
        if not files:
            raise HubError(f"{self.name}: there is no file in {folder}; materialize the release again")
        return files

    def publish(self, files: _Files, release: str, parent: str | None, say: Callable[[str], None]) -> str:
        """Commit the files upon `parent` as all there is, compare, and set the tag; the commit."""
        from huggingface_hub import CommitOperationDelete

        with self.step(f"listing what is there at {parent}"):
            there = self.api.list_repo_files(self.name, repo_type="dataset", revision=parent)
        old = [name for name in there if name not in files and name != _ATTRIBUTES]
        if old:
            say(f"{self.name}: {_few(old)} leave main, they are not of this release")
        with self.step(f"uploading {release}"):
            # `upload_folder` cuts a folder into several commits as it sees fit: half of it may be what stays.
            commit = self.api.create_commit(
                self.name,
                [*(CommitOperationDelete(name, is_folder=False) for name in old), *files.values()],
                commit_message=f"Release {release}",
                repo_type="dataset",
                parent_commit=parent,
            ).oid
        if others := self.others(files, commit):
            raise HubError(
                f"{self.name}: commit {commit} is not what was sent: {_few(others)} differ; the tag "
                f"{release} was not set: {_AGAIN}"
            )
        with self.step(f"setting the tag {release} at commit {commit}"):
            self.api.create_tag(self.name, tag=release, revision=commit, repo_type="dataset", exist_ok=True)
        return commit

    def others(self, files: _Files, commit: str) -> list[str]:
        """Names of the files in which a commit and these differ."""
        from huggingface_hub.hf_api import RepoFile

        with self.step(f"comparing commit {commit} with the folder"):
            entries = self.api.list_repo_tree(self.name, recursive=True, revision=commit, repo_type="dataset")
            there = {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
            names = sorted((there.keys() - {_ATTRIBUTES}) | files.keys())
            return [name for name in names if not _is_same(files.get(name), there.get(name))]


def _is_same(here: "CommitOperationAdd | None", there: "RepoFile | None") -> bool:
    from huggingface_hub.utils.sha import git_hash

    if here is None or there is None:
        return False
    if there.lfs:
        return here.upload_info.sha256.hex() == there.lfs.sha256
    with here.as_file() as file:
        return git_hash(file.read()) == there.blob_id


@contextmanager
def _step(name: str, doing: str, token: str = "") -> Iterator[None]:
    """Whatever the client raises, which is of many kinds, as `HubError`."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 (they have no class of their own in common)
        status = getattr(getattr(error, "response", None), "status_code", 0)
        usual = "the Hub is in trouble" if status >= 500 else "see to that, or to the network and HF_ENDPOINT"
        # Not `from error`: what it says may hold what is not to be shown.
        raise HubError(
            f"{name}: {doing}: {_told(error, token)}; {_ADVICE.get(status, f'{usual}: {_AGAIN}')}"
        ) from None


def _told(error: Exception, token: str) -> str:
    """What went wrong, in a line, without the token and what signs an address."""
    said = f"{error} {error.__cause__ or ''}" if type(error) is RuntimeError else str(error)
    text = re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]+", r"\1", " ".join(said.split()))
    return (text.replace(token, "***") if token else text)[:_LONGEST_MESSAGE]


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _send_no_telemetry() -> None:
    """The client asks the Hub which programs to look for in its environment, and hf_xet reports transfers."""
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # read by hf_xet
