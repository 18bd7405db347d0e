"""A web server on loopback that stands in for the Hugging Face Hub, with what huggingface_hub 2.4 asks of it.

Dataset repositories with commits and tags, large files by Git LFS or by Xet (whose storage it is as well),
downloads, and faults on demand. Xet's formats are from huggingface.co/docs/xet, "xorb" and "shard".
"""

import base64
import hashlib
import json
import re
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from servers import serving

LARGE = (".parquet", ".png")  # of what a new dataset's .gitattributes sends to large storage
Fault = Callable[["_Handler"], None]


@dataclass(frozen=True)
class Commit:
    """What a repository holds after a commit, by path."""

    title: str
    files: dict[str, bytes]

    @property
    def oid(self) -> str:
        names = "".join(f"{path} {_git_oid(body)}\n" for path, body in sorted(self.files.items()))
        return hashlib.sha1(f"{self.title}\n{names}".encode()).hexdigest()


@dataclass
class Repository:
    """A dataset; the last commit is `main`, tags are oids of commits by name."""

    is_private: bool
    commits: list[Commit]
    tags: dict[str, str] = field(default_factory=dict)

    def at(self, revision: str) -> Commit | None:
        oid = self.commits[-1].oid if revision == "main" else self.tags.get(revision, revision)
        return next((commit for commit in self.commits if commit.oid == oid), None)


@dataclass
class HubServer:
    """`faults` are spent one a request, by the start of `METHOD /path`; so are `requests` written."""

    url: str
    token: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)  # large files by SHA-256
    xorbs: dict[str, list[bytes]] = field(default_factory=dict)  # chunks by hash
    requests: list[str] = field(default_factory=list)
    user_agents: set[str] = field(default_factory=set)
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))

    def asked(self, start: str) -> list[str]:
        """The requests that begin so."""
        return [request for request in self.requests if request.startswith(start)]


@contextmanager
def hub_server(token: str) -> Iterator[HubServer]:
    """A Hub without repositories on 127.0.0.1 while the block runs, for the bearer of one token."""
    served = HubServer("", token)

    class Handler(_Handler):
        hub = served

    with serving(Handler) as served.url:
        yield served


def refuse(status: int, message: str) -> Fault:
    """Answer with an error as the Hub does."""

    def answer(handler: "_Handler") -> None:
        handler.answer({"error": message}, status, {"X-Error-Message": message})

    return answer


def after(done: Callable[[], None]) -> Fault:
    """Do something first, then answer as ever."""

    def answer(handler: "_Handler") -> None:
        done()
        handler.route()

    return answer


def lose_answer(handler: "_Handler") -> None:
    """Do what was asked and say that it failed."""
    handler.answer = lambda *_: _Handler.answer(handler, {"error": "Bad gateway"}, 502)  # type: ignore[method-assign]
    try:
        handler.route()
    finally:
        del handler.answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body would wait 40 ms for the client to say that it has the head
    hub: HubServer

    def handle_request(self) -> None:
        request = f"{self.command} {unquote(self.path)}"
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.requests.append(request)
        self.hub.user_agents.add(self.headers.get("User-Agent", ""))
        for start, faults in self.hub.faults.items():
            if request.startswith(start) and faults:
                faults.pop(0)(self)
                return
        self.route()

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = "xet" if re.match(r"/v\d/", path) else self.hub.token
        if not path.startswith("/stored/") and self.headers.get("Authorization") != f"Bearer {token}":
            refuse(401, "Invalid credentials in Authorization header")(self)
            return
        for (command, pattern), answer in _ROUTES.items():
            found = re.fullmatch(pattern, path)
            if found and command == self.command.replace("HEAD", "GET"):
                name = found.groupdict().get("name")
                if name in (None, *self.hub.repositories):
                    answer(self, **found.groupdict())
                    return
        self.answer({"error": "Not found"}, 404)

    def answer(self, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Bytes as they are, anything else as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def create(self) -> None:
        asked = json.loads(self.body)
        assert asked["type"] == "dataset"
        name = f"{asked['organization']}/{asked['name']}"
        is_new = name not in self.hub.repositories
        if is_new:
            start = Commit("initial commit", {".gitattributes": b"*.parquet filter=lfs\n*.png filter=lfs\n"})
            self.hub.repositories[name] = Repository(asked["visibility"] == "private", [start])
        url = f"{self.hub.url}/datasets/{name}"
        said = {"url": url} if is_new else {"error": "You already created this dataset repo", "url": url}
        self.answer(said, 200 if is_new else 409)

    def validate(self) -> None:
        self.answer({"errors": [], "warnings": []})

    def info(self, name: str, revision: str = "main") -> None:
        repository, commit = self._found(name, revision)
        self.answer({"id": name, "sha": commit.oid, "private": repository.is_private})

    def refs(self, name: str) -> None:
        tags = [
            {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": oid}
            for tag, oid in self.hub.repositories[name].tags.items()
        ]
        self.answer({"branches": [], "converts": [], "tags": tags})

    def tree(self, name: str, revision: str) -> None:
        _, commit = self._found(name, revision)
        self.answer([_entry(path, body) for path, body in commit.files.items()])

    def preupload(self, name: str, revision: str) -> None:
        _, commit = self._found(name, revision)
        self.answer(
            {
                "files": [
                    {
                        "path": path,
                        "uploadMode": "lfs" if path.endswith(LARGE) else "regular",
                        "shouldIgnore": False,
                        "oid": _oid(path, commit.files[path]) if path in commit.files else None,
                    }
                    for path in (file["path"] for file in json.loads(self.body)["files"])
                ]
            }
        )

    def lfs_batch(self, name: str) -> None:
        """Where to send the large files that are not stored yet."""
        objects = [{"oid": one["oid"], "size": one["size"]} for one in json.loads(self.body)["objects"]]
        for one in objects:
            if one["oid"] not in self.hub.stored:
                one["actions"] = {"upload": {"href": f"{self.hub.url}/stored/{one['oid']}"}}
        self.answer({"objects": objects})

    def store(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.stored[oid] = self.body
        self.answer(b"")

    def xet_token(self, name: str, revision: str) -> None:
        self.answer({"casUrl": self.hub.url, "exp": int(time.time()) + 3600, "accessToken": "xet"})

    def store_xorb(self, key: str) -> None:
        self.hub.xorbs[key] = list(_chunks(self.body))
        self.answer({"was_inserted": True})

    def store_shard(self) -> None:
        """Put the files together that a shard describes."""
        for sha256, segments in _files(self.body):
            body = b"".join(b"".join(self.hub.xorbs[key][first:end]) for key, first, end in segments)
            assert hashlib.sha256(body).hexdigest() == sha256
            self.hub.stored[sha256] = body
        self.answer({"result": 1})

    def commit(self, name: str, revision: str) -> None:
        repository, parent = self._found(name, revision)
        header, *changes = map(json.loads, self.body.splitlines())
        if header["value"].get("parentCommit", parent.oid) != parent.oid:
            self.answer({"error": "A commit has happened since. Please refresh and try again."}, 412)
            return
        files = dict(parent.files)
        for change in changes:
            value = change["value"]
            match change["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.stored[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        repository.commits.append(made := Commit(header["value"]["summary"], files))
        self.answer({"commitUrl": f"{self.hub.url}/datasets/{name}/commit/{made.oid}", "commitOid": made.oid})

    def tag(self, name: str, revision: str) -> None:
        repository, commit = self._found(name, revision)
        tag = json.loads(self.body)["tag"]
        is_new = tag not in repository.tags
        if is_new:
            repository.tags[tag] = commit.oid
        self.answer({} if is_new else {"error": "Tag reference exists already"}, 200 if is_new else 409)

    def resolve(self, name: str, revision: str, path: str) -> None:
        _, commit = self._found(name, revision)
        body = commit.files[path]
        self.answer(body, headers={"ETag": f'"{_oid(path, body)}"', "X-Repo-Commit": commit.oid})

    def _found(self, name: str, revision: str) -> tuple[Repository, Commit]:
        repository = self.hub.repositories[name]
        commit = repository.at(revision)
        assert commit is not None
        return repository, commit

    def log_message(self, format: str, *args: object) -> None:
        """Requests are kept in `HubServer.requests`, not printed."""


_DATASET = r"/api/datasets/(?P<name>[^/]+/[^/]+)"
_ROUTES: dict[tuple[str, str], Callable[..., None]] = {
    ("POST", "/api/repos/create"): _Handler.create,
    ("POST", "/api/validate-yaml"): _Handler.validate,
    ("GET", _DATASET): _Handler.info,
    ("GET", rf"{_DATASET}/revision/(?P<revision>[^/]+)"): _Handler.info,
    ("GET", rf"{_DATASET}/refs"): _Handler.refs,
    ("GET", rf"{_DATASET}/tree/(?P<revision>[^/]+)"): _Handler.tree,
    ("POST", rf"{_DATASET}/preupload/(?P<revision>[^/]+)"): _Handler.preupload,
    ("POST", r"/datasets/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch"): _Handler.lfs_batch,
    ("PUT", r"/stored/(?P<oid>\w+)"): _Handler.store,
    ("GET", rf"{_DATASET}/xet-write-token/(?P<revision>[^/]+)"): _Handler.xet_token,
    ("POST", r"/v1/xorbs/default/(?P<key>\w+)"): _Handler.store_xorb,
    ("POST", r"/v1/shards"): _Handler.store_shard,
    ("POST", rf"{_DATASET}/commit/(?P<revision>[^/]+)"): _Handler.commit,
    ("POST", rf"{_DATASET}/tag/(?P<revision>[^/]+)"): _Handler.tag,
    ("GET", r"/datasets/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"): _Handler.resolve,
}


def _entry(path: str, body: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": len(body), "oid": _git_oid(body)}
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": _oid(path, body), "size": len(body), "pointerSize": 130}
    return entry


def _oid(path: str, body: bytes) -> str:
    """SHA-256 of a large file, Git's name of a small one."""
    return hashlib.sha256(body).hexdigest() if path.endswith(LARGE) else _git_oid(body)


def _git_oid(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


def _chunks(xorb: bytes) -> Iterator[bytes]:
    """The chunks of a xorb: a header (version, packed size, scheme, size), then the packed bytes."""
    at = 0
    while at < len(xorb) and xorb[at : at + 7] != b"XETBLOB":  # where the footer begins, if there is one
        packed_size = int.from_bytes(xorb[at + 1 : at + 4], "little")
        scheme, size = xorb[at + 4], int.from_bytes(xorb[at + 5 : at + 8], "little")
        packed = xorb[at + 8 : at + 8 + packed_size]
        at += 8 + packed_size
        chunk = packed if scheme == 0 else pa.decompress(packed, size, codec="lz4", asbytes=True)
        yield _regrouped(chunk) if scheme == 2 else chunk


def _regrouped(grouped: bytes) -> bytes:
    """Undo the sorting of bytes by their place in groups of four."""
    chunk, start = bytearray(len(grouped)), 0
    for place in range(4):
        length = len(chunk[place::4])
        chunk[place::4] = grouped[start : start + length]
        start += length
    return bytes(chunk)


def _files(shard: bytes) -> Iterator[tuple[str, list[tuple[str, int, int]]]]:
    """SHA-256 of each file of a shard, and its segments: xorb, first chunk, end; records are of 48 bytes."""
    at = 48
    while shard[at : at + 32] != b"\xff" * 32:
        flags, entries = struct.unpack_from("<II", shard, at + 32)
        records = [shard[start : start + 48] for start in range(at + 48, at + 48 * (entries + 1), 48)]
        segments = [(_hash(record), *struct.unpack_from("<II", record, 40)) for record in records]
        at += 48 * (1 + entries * (2 if flags & 1 << 31 else 1))
        assert flags & 1 << 30, "no SHA-256 in the shard"
        yield _hash(shard[at : at + 48]), segments
        at += 48


def _hash(record: bytes) -> str:
    """A hash at the start of a record, as Xet writes it out: four little-endian numbers in hexadecimal."""
    return "".join(f"{number:016x}" for number in struct.unpack_from("<4Q", record))
