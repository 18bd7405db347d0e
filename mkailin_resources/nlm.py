"""NLM's public files: listed, fetched, resumed, verified and kept as they came.

PubMed's yearly baseline and daily update files (with an MD5 beside each) and the yearly MeSH files (without).
The same code reads a mirror, or a folder laid out like NLM's servers. No account or key is needed.
"""

import fcntl
import gzip
import hashlib
import logging
import os
import random
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import dagster as dg
from pydantic import Field
from upath import UPath

from mkailin_resources.storage import Storage, modified_at

if TYPE_CHECKING:
    import requests
    import tenacity

PUBMED_URL = "https://ftp.ncbi.nlm.nih.gov"
MESH_URL = "https://nlmpubs.nlm.nih.gov"
PUBMED_DIRECTORIES = ("baseline", "updatefiles")
_MESH_DESCRIPTORS = "projects/mesh/MESH_FILES/xmlmesh"
_MESH_TREES = "projects/mesh/MESH_FILES/meshtrees"

_PUBMED_KEY = re.compile(r"pubmed(\d{2})n(\d{4,})")
_MD5_FORMS = re.compile(
    r"(?:MD5 ?\((?P<before>[^)]+)\) ?= ?)?(?P<md5>[0-9a-fA-F]{32})(?: [ *](?P<after>\S+))?"
)
_GZIP_MAGIC = b"\x1f\x8b"
_INDEX_TITLE = re.compile(r"<title>[^<]*(?:index of|directory listing)", re.IGNORECASE)

_USER_AGENT = f"m-kailin/{version('mkailin')} (+https://arxiv.org/abs/2504.19565)"
_TIMEOUT_S = (20, 60)  # to connect, between two bytes
_ATTEMPTS = 6
_LONGEST_BACKOFF_S = 30.0
_LONGEST_WAIT_S = 300.0  # that a server may ask for
_PROGRESS_EVERY_S = 5.0
_CONNECTION_POLL_S = 0.2
_BLOCK = 1 << 18

_T = TypeVar("_T")
_Fault = Callable[[Path | UPath], str | None]  # what is wrong with a file, None if nothing is


class NlmError(RuntimeError):
    """A file could not be had; the message names the URL, what was expected and what to do."""


@dataclass(frozen=True)
class PubmedFile:
    """A PubMed file on the server: key (`pubmed26n0001`), directory (`baseline`, `updatefiles`), URL."""

    key: str
    directory: str
    url: str


@dataclass(frozen=True)
class FetchedFile:
    """A file as it is kept; `directory` for PubMed files alone, `bytes` its size, digests hexadecimal."""

    name: str
    directory: str | None
    url: str
    uri: str
    bytes: int
    md5: str
    sha256: str


class NlmServers(dg.ConfigurableResource):
    """Where NLM's files come from and which of them are wanted.

    `url`: empty for NLM's own two servers, else one base (http, https, file or a folder) laid out like both.
    `pubmed_files`: names or globs, separated by spaces or commas; empty for all.
    `retry_wait_s`: seconds before the first retry, doubled for each one after it.
    `connections`: to one server at a time, over all runs of this user on this machine.
    """

    url: str = ""
    mesh_year: int
    pubmed_files: str = ""
    retry_wait_s: float = 1.0
    connections: int = Field(default=4, ge=1)

    def list_pubmed_files(self) -> list[PubmedFile]:
        """The files on the server that `pubmed_files` asks for, by year and number."""
        server = self._server(PUBMED_URL, logging.getLogger(__name__))
        found: dict[str, PubmedFile] = {}
        for directory in PUBMED_DIRECTORIES:
            for name in server.names(f"pubmed/{directory}") or []:
                key = name.removesuffix(".xml.gz")
                if name != key and _PUBMED_KEY.fullmatch(key):
                    found.setdefault(
                        key, PubmedFile(key, directory, server.url(f"pubmed/{directory}/{name}"))
                    )
        if not found:
            raise NlmError(
                f"{server.url('pubmed')}: neither baseline nor updatefiles lists a pubmedYYnNNNN.xml.gz; "
                "check the address"
            )
        return _asked_for(
            self.pubmed_files, sorted(found.values(), key=_year_and_number), server.url("pubmed")
        )

    def fetch_pubmed(self, storage: Storage, key: str, log: logging.Logger) -> FetchedFile:
        """Keep one PubMed file as it came, its MD5 equal to the published one."""
        if not _PUBMED_KEY.fullmatch(key):
            raise NlmError(f"{key!r} is not the key of a PubMed file; keys look like pubmed26n0001")
        server = self._server(PUBMED_URL, log)
        name = f"{key}.xml.gz"
        for directory in PUBMED_DIRECTORIES:
            path = f"pubmed/{directory}/{name}"
            published = server.text(f"{path}.md5")
            if published is not None:
                md5 = _read_md5(published, name, server.url(f"{path}.md5"))
                wanted = _Wanted(path, storage.path("raw", "pubmed", name), partial(_md5_fault, md5))
                return _fetch(server, wanted, storage, log, directory)
        raise NlmError(
            f"{server.url('pubmed')}: there is no {name}.md5 in {' or '.join(PUBMED_DIRECTORIES)}; NLM "
            "replaces its files each year: list the files again and materialize one of those"
        )

    def fetch_mesh(self, storage: Storage, log: logging.Logger) -> FetchedFile:
        """Keep the MeSH descriptors of `mesh_year`, checked to be one whole DescriptorRecordSet."""
        fetched = self._fetch_descriptors(storage, log, self.mesh_year)
        if fetched is None:
            raise self._no_such_year(self.mesh_year, "set the MeSH year to one of them")
        return fetched

    def fetch_mesh_of(self, storage: Storage, log: logging.Logger, year: int) -> FetchedFile:
        """Keep the MeSH of any year: its descriptors or, where the server has none, its tree file."""
        fetched = self._fetch_descriptors(storage, log, year) or self.fetch_tree_file(storage, log, year)
        if fetched is None:
            raise self._no_such_year(year, "nor is there a tree file of that year; ask for one of them")
        return fetched

    def mesh_years(self) -> list[int]:
        """The years that the server lists MeSH descriptors of, in order."""
        names = self._server(MESH_URL, logging.getLogger(__name__)).names(_MESH_DESCRIPTORS) or []
        return sorted({int(found[1]) for name in names if (found := re.fullmatch(r"desc(\d{4})\.gz", name))})

    def fetch_tree_file(
        self, storage: Storage, log: logging.Logger, year: int | None = None
    ) -> FetchedFile | None:
        """Keep the MeSH tree file of a year, `mesh_year` if none is given; None where the server has none."""
        server = self._server(MESH_URL, log)
        path = f"{_MESH_TREES}/mtrees{year or self.mesh_year}.bin"
        fetched = self._fetch_of_year(server, path, storage, log, _trees_fault)
        if fetched is None:
            log.info(f"{server.url(path)}: the server has no tree file of this year")
        return fetched

    def _fetch_descriptors(self, storage: Storage, log: logging.Logger, year: int) -> FetchedFile | None:
        path = f"{_MESH_DESCRIPTORS}/desc{year}.gz"
        return self._fetch_of_year(self._server(MESH_URL, log), path, storage, log, _descriptors_fault)

    def _no_such_year(self, year: int, advice: str) -> NlmError:
        folder = self._server(MESH_URL, logging.getLogger(__name__)).url(_MESH_DESCRIPTORS)
        listed = ", ".join(map(str, self.mesh_years())) or "none"
        return NlmError(f"{folder}: there is no desc{year}.gz; the years it lists: {listed}; {advice}")

    def _fetch_of_year(
        self, server: "_Http | _Folder", path: str, storage: Storage, log: logging.Logger, fault: _Fault
    ) -> FetchedFile | None:
        """Fetch a file without a published MD5, unless the kept one has its size and is not older."""
        offered = server.offered(path)
        if offered is None:
            return None
        size, modified = offered
        target = storage.path("raw", "mesh", path.rpartition("/")[2])
        kept_at = modified_at(target)
        is_same = kept_at is not None and kept_at >= modified and target.stat().st_size == size
        return _fetch(server, _Wanted(path, target, fault, is_same), storage, log)

    def _server(self, nlm: str, log: logging.Logger) -> "_Http | _Folder":
        base = (self.url or nlm).rstrip("/")
        scheme = urlsplit(base).scheme
        if scheme in ("http", "https"):
            return _Http(base, self.retry_wait_s, self.connections, log)
        if scheme not in ("", "file"):
            raise NlmError(f"{base}: {scheme} is not supported; give an http, https or file URL, or a folder")
        folder = Path(url2pathname(urlsplit(base).path) if scheme else base).expanduser().absolute()
        if not folder.is_dir():
            raise NlmError(
                f"{folder}: there is no such folder; give one laid out like NLM's servers, or a URL"
            )
        return _Folder(folder)


@dataclass(frozen=True)
class _Folder:
    """A folder laid out like NLM's servers."""

    root: Path

    def url(self, path: str) -> str:
        return (self.root / path).as_uri()

    def names(self, directory: str) -> list[str] | None:
        folder = self.root / directory
        return [path.name for path in folder.iterdir()] if folder.is_dir() else None

    def text(self, path: str) -> str | None:
        file = self.root / path
        return file.read_text(errors="replace") if file.is_file() else None

    def offered(self, path: str) -> tuple[int, float] | None:
        """Size in bytes and POSIX time of the last change of a file; None if there is none."""
        file = self.root / path
        return (file.stat().st_size, file.stat().st_mtime) if file.is_file() else None

    def download(self, path: str, part: BinaryIO) -> None:
        part.truncate(0)
        with (self.root / path).open("rb") as file:
            shutil.copyfileobj(file, part, _BLOCK)
        part.flush()


class TryAgain(Exception):
    """A request failed in a way that may pass; `wait_s` is what the server asked for."""

    def __init__(self, cause: str, wait_s: float = 0.0) -> None:
        super().__init__(cause)
        self.wait_s = wait_s


@dataclass(frozen=True)
class _Http:
    """A web server laid out like NLM's, met with bounded retries."""

    base: str
    retry_wait_s: float
    connections: int
    log: logging.Logger

    def url(self, path: str) -> str:
        return f"{self.base}/{path}"

    def names(self, directory: str) -> list[str] | None:
        """File names a directory's index page links to; None if there is no such directory."""
        page = self.text(f"{directory}/")
        if page is None:
            return None
        links = re.findall(r"""href=["']([^"']+)""", page, re.IGNORECASE)
        names = [unquote(urlsplit(link).path).rpartition("/")[2] for link in links]
        if not _INDEX_TITLE.search(page) and not any(name.endswith(".gz") for name in names):
            # Taken for an empty directory, a page about maintenance would make its files look withdrawn.
            raise NlmError(
                f"{self.url(directory)}/: expected an index of files, got {page[:60]!r}; run it again later, "
                "or check the address"
            )
        return names

    def text(self, path: str) -> str | None:
        """A small file; None if there is none."""
        response = self._patiently(path, lambda: self._request("GET", path))
        return None if response.status_code == 404 else response.content.decode(errors="replace")

    def offered(self, path: str) -> tuple[int, float] | None:
        """Size in bytes and POSIX time of the last change of a file; None if there is none."""
        response = self._patiently(path, lambda: self._request("HEAD", path))
        if response.status_code == 404:
            return None
        modified = _http_date(response.headers.get("Last-Modified", ""))
        size = int(response.headers.get("Content-Length", -1))
        return size, modified.timestamp() if modified else time.time()

    def download(self, path: str, part: BinaryIO) -> None:
        """Append to `part` what it lacks of a file; attempts are counted anew whenever it has grown."""
        furthest = part.seek(0, os.SEEK_END)

        def go_on() -> float | None:
            """Seconds to wait before the next attempt, None when nothing is left to fetch."""
            try:
                self._append(path, part)
            except TryAgain as broken:
                if part.seek(0, os.SEEK_END) <= furthest:
                    raise
                self.log.warning(f"{self.url(path)}: {broken}; going on from what was reached")
                return max(self.retry_wait_s, broken.wait_s)
            return None

        while (wait_s := self._patiently(path, go_on)) is not None:
            furthest = part.seek(0, os.SEEK_END)
            time.sleep(wait_s * _jitter())

    def _append(self, path: str, part: BinaryIO) -> None:
        reached = part.seek(0, os.SEEK_END)
        headers = {"Range": f"bytes={reached}-"} if reached else {}
        with self._request("GET", path, headers) as response:
            if response.status_code == 404:
                raise NlmError(f"{self.url(path)}: it is listed but not there; run it again later")
            sent, _, total = response.headers.get("Content-Range", "").partition("/")
            if response.status_code == 416 and total == str(reached):
                return
            if response.status_code != 206 or not sent.startswith(f"bytes {reached}-"):
                part.truncate(0)
                total = response.headers.get("Content-Length", "")
            if response.status_code == 416:
                raise TryAgain(f"the server refused to go on from byte {reached}")
            self._write(response, part, int(total) if total.isdigit() else None)

    def _write(self, response: "requests.Response", part: BinaryIO, total: int | None) -> None:
        started = shown = time.monotonic()
        first = reached = part.seek(0, os.SEEK_END)
        try:
            for block in _blocks(response):
                reached += part.write(block)
                if time.monotonic() - shown > _PROGRESS_EVERY_S:
                    shown = time.monotonic()
                    rate = (reached - first) / (shown - started)
                    self.log.info(f"{response.url}: {_progress(reached, total, rate)}")
        finally:
            part.flush()
        if total is not None and reached != total:
            raise TryAgain(f"the connection ended after {reached} of {total} bytes")

    def _request(self, method: str, path: str, headers: dict[str, str] | None = None) -> "requests.Response":
        """One request; a body of a ranged or plain GET is read by the caller."""
        import requests

        # Compressed files are wanted as they are: a server must not label or pack them for transport.
        sent = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", **(headers or {})}
        url = self.url(path)
        try:
            response = requests.request(
                method,
                url,
                headers=sent,
                timeout=_TIMEOUT_S,
                stream=headers is not None,
                allow_redirects=True,
            )
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ) as error:
            raise TryAgain(str(error)) from error
        except requests.RequestException as error:
            raise NlmError(f"{url}: {error}; check the address") from error
        status = response.status_code
        if status == 429 or status >= 500:
            answered = f"the server answered {status} {response.reason}"
            raise told_to_wait(response.url, answered, response.headers.get("Retry-After", ""))
        if status >= 400 and status not in (404, 416):
            raise NlmError(f"{url}: the server answered {status} {response.reason}; check the address")
        return response

    def _patiently(self, path: str, once: Callable[[], _T]) -> _T:
        def connected() -> _T:
            with _one_of_few(self.base, self.connections, self.log):
                return once()

        return patiently(self.url(path), connected, self.retry_wait_s, self.log)


def told_to_wait(url: str, answered: str, retry_after: str) -> Exception:
    """The failure that a 429 or 5xx is: to be tried again, unless the server asks for a long wait."""
    until = _http_date(retry_after)
    wait_s = (
        float(retry_after)
        if retry_after.isdigit()
        else (until - datetime.now(UTC)).total_seconds()
        if until
        else 0.0
    )
    if wait_s > _LONGEST_WAIT_S:
        return NlmError(f"{url}: {answered} and asks to wait {wait_s:.0f} s; run it again then")
    return TryAgain(answered, wait_s)


def patiently(url: str, once: Callable[[], _T], retry_wait_s: float, log: logging.Logger) -> _T:
    """What `once` returns, tried again with growing, jittered waits while it raises `TryAgain`."""
    import tenacity

    growing = tenacity.wait_exponential(multiplier=retry_wait_s, max=_LONGEST_BACKOFF_S)

    def wait(state: "tenacity.RetryCallState") -> float:
        return max(growing(state), _cause(state).wait_s) * _jitter()

    def tell(state: "tenacity.RetryCallState") -> None:
        log.warning(f"{url}: {_cause(state)}; trying again in {state.upcoming_sleep:.1f} s")

    trying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TryAgain),
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        wait=wait,
        before_sleep=tell,
        reraise=True,
    )
    try:
        return trying(once)
    except TryAgain as error:
        raise NlmError(
            f"{url}: {error}; gave up after {_ATTEMPTS} attempts that got nowhere; check "
            "the network and the address and run it again, it goes on from what was reached"
        ) from error


def _cause(state: "tenacity.RetryCallState") -> TryAgain:
    assert state.outcome is not None
    return cast(TryAgain, state.outcome.exception())


def _jitter() -> float:
    """Waits are stretched by it, so that runs that failed together do not come back together."""
    return random.uniform(1, 1.5)


def _progress(reached: int, total: int | None, rate: float) -> str:
    """How far a download is: `12.3 of 19.5 MB, 1.2 MB/s, 0:00:06 left`; `rate` in bytes a second."""
    if total is None:
        return f"{reached / 1e6:.1f} MB, {rate / 1e6:.1f} MB/s"
    left = f", {timedelta(seconds=round((total - reached) / rate))} left" if rate else ""
    return f"{reached / 1e6:.1f} of {total / 1e6:.1f} MB, {rate / 1e6:.1f} MB/s{left}"


@contextmanager
def _one_of_few(base: str, connections: int, log: logging.Logger) -> Iterator[None]:
    """Hold one of the connections to a server that the runs of this user on this machine share.

    A connection is a locked file in the folder for temporary files: a killed run lets go of it.
    """
    parts = urlsplit(base)
    folder = Path(tempfile.gettempdir()) / f"mkailin-connections-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    names = [f"{parts.hostname}-{parts.port or parts.scheme}-{number}" for number in range(connections)]
    is_waiting = False
    while True:
        for name in names:
            with (folder / name).open("ab") as file:
                if _lock_at_once(file):
                    yield
                    return
        if not is_waiting:
            log.info(f"{base}: all {connections} connections are taken by other runs, waiting")
            is_waiting = True
        time.sleep(_CONNECTION_POLL_S * _jitter())


def _lock_at_once(file: BinaryIO) -> bool:
    """Lock a file until it is closed; False if another run has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _blocks(response: "requests.Response") -> Iterator[bytes]:
    """The body as it is sent: `iter_content` would unpack a .gz that the server labels as encoded."""
    import urllib3

    try:
        yield from response.raw.stream(_BLOCK, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise TryAgain(f"the connection broke: {error}") from error


def _http_date(text: str) -> datetime | None:
    try:
        parsed = parsedate_to_datetime(text)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


@dataclass(frozen=True)
class _Wanted:
    """A file to keep: its path on the server, where it is kept, and what can be wrong with it.

    `is_same`: whether the kept one is known to be the server's; otherwise it is if nothing is wrong with it.
    """

    path: str
    target: UPath
    fault: _Fault
    is_same: bool = True

    def is_kept(self) -> bool:
        return self.is_same and self.target.exists() and self.fault(self.target) is None


def _fetch(
    server: _Http | _Folder,
    wanted: _Wanted,
    storage: Storage,
    log: logging.Logger,
    directory: str | None = None,
) -> FetchedFile:
    """Fetch a file to the scratch folder, verify and publish it; what is kept already is not fetched."""
    url, target = server.url(wanted.path), wanted.target
    part = storage.scratch() / f".{target.name}.part"
    started = time.monotonic()
    with locked(part, log) as file:
        if wanted.is_kept():
            log.info(f"{target.name}: kept already, the same as {url}")
        else:
            try:
                _download(server, wanted, part, file, log)
            except OSError as error:
                raise NlmError(f"{url}, fetched to {part}: {error}; mend it and run it again") from error
            with part.open("rb") as whole:
                storage.publish_file(target, lambda kept: shutil.copyfileobj(whole, kept, _BLOCK))
            size, seconds = part.stat().st_size / 1e6, time.monotonic() - started
            log.info(f"{url}: {size:.1f} MB in {seconds:.1f} s ({size / seconds:.1f} MB/s), kept at {target}")
        part.unlink()
    return FetchedFile(target.name, directory, url, str(target), *digests(target))


def _download(
    server: _Http | _Folder, wanted: _Wanted, part: Path, file: BinaryIO, log: logging.Logger
) -> None:
    """Fetch and verify; what does not verify is thrown away, and fetched anew if it was resumed."""
    url = server.url(wanted.path)
    was_resumed = file.seek(0, os.SEEK_END) > 0
    server.download(wanted.path, file)
    fault = wanted.fault(part)
    if fault and was_resumed:
        log.warning(f"{url}: {fault}; what an earlier run had reached does not fit, starting anew")
        file.truncate(0)
        server.download(wanted.path, file)
        fault = wanted.fault(part)
    if fault:
        file.truncate(0)
        raise NlmError(f"{url}: {fault}; it was thrown away: run it again, or check the address")


@contextmanager
def locked(part: Path, log: logging.Logger) -> Iterator[BinaryIO]:
    """The partial file opened to append, for one process alone: a second run waits for the first."""
    while True:
        with part.open("ab") as file:
            if not _lock_at_once(file):
                log.info(f"{part.name}: another run is fetching it, waiting")
                fcntl.flock(file, fcntl.LOCK_EX)
            # The run waited for may have finished and removed the file that was locked.
            if part.exists() and os.path.samestat(os.fstat(file.fileno()), part.stat()):
                yield file
                return


def digests(path: UPath | Path) -> tuple[int, str, str]:
    """Size in bytes, MD5 and SHA-256 of a file."""
    size, md5, sha256 = 0, hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            size += len(block)
            md5.update(block)
            sha256.update(block)
    return size, md5.hexdigest(), sha256.hexdigest()


def _read_md5(text: str, name: str, url: str) -> str:
    """The digest in an .md5 file, in any of the forms `MD5(name)= hex`, `MD5 (name) = hex`, `hex  name`."""
    found = _MD5_FORMS.fullmatch(text.strip())
    if found is None or (found["before"] or found["after"] or name) != name:
        raise NlmError(f"{url}: expected the MD5 of {name}, got {text[:80]!r}; check the address")
    return found["md5"].lower()


def _gzip_fault(head: bytes) -> str | None:
    """Why a file that starts so is not gzip: servers send web pages with status 200."""
    return None if head.startswith(_GZIP_MAGIC) else f"expected a gzip file, got {head[:60]!r}"


def _md5_fault(published: str, file: Path | UPath) -> str | None:
    with file.open("rb") as opened:
        fault = _gzip_fault(opened.read(60))
    _, md5, _ = digests(file)
    return fault or (None if md5 == published else f"MD5 is {md5}, NLM says {published}")


def _descriptors_fault(file: Path | UPath) -> str | None:
    """Why a file is not a whole, gzipped DescriptorRecordSet; the records in it are not looked at."""
    head = tail = b""
    with file.open("rb") as packed:
        fault = _gzip_fault(packed.read(60))
        packed.seek(0)
        try:
            with gzip.open(packed) as unpacked:
                while not fault and (block := unpacked.read(_BLOCK)):
                    head, tail = head or block, (tail + block)[-256:]
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            return f"the gzip file is damaged or cut off: {error}"
    if fault or (b"<DescriptorRecordSet" in head and b"</DescriptorRecordSet>" in tail):
        return fault
    return f"expected one whole XML DescriptorRecordSet, got {head[:60]!r} ... {tail[-40:]!r}"


def _trees_fault(file: Path | UPath) -> str | None:
    with file.open("rb") as opened:
        line = opened.readline(1000)
    if re.fullmatch(rb"[^;]+;[A-Z]\d{2}\S*\s*", line):
        return None
    return f"expected lines such as 'Body Regions;A01', got {line[:60]!r}"


def _year_and_number(file: PubmedFile) -> tuple[int, int]:
    found = _PUBMED_KEY.fullmatch(file.key)
    assert found is not None
    return int(found[1]), int(found[2])


def _asked_for(patterns: str, files: list[PubmedFile], url: str) -> list[PubmedFile]:
    """The files that names or globs ask for; raises `NlmError` for a name, or globs, that match none."""
    asked = [
        pattern.removesuffix(".gz").removesuffix(".xml")
        for pattern in re.split(r"[\s,]+", patterns)
        if pattern
    ]
    chosen = [file for file in files if not asked or any(fnmatchcase(file.key, pattern) for pattern in asked)]
    keys = {file.key for file in files}
    absent = [pattern for pattern in asked if not set("*?[") & set(pattern) and pattern not in keys]
    if absent or not chosen:
        raise NlmError(
            f"{url}: no file matches {', '.join(absent or asked)}; there are {len(files)} files, "
            f"{files[0].key} to {files[-1].key}: correct the names of the PubMed files"
        )
    return chosen
