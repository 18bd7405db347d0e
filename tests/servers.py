"""A web server on loopback that stands in for NLM's, and fails on demand as the real one does."""

import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Fault = Callable[["_Handler"], None]


@dataclass
class NlmServer:
    """A folder served over HTTP; `faults` are spent one a request, by the end of the path."""

    url: str
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    takes_ranges: bool = True
    at_once: int = 0
    most_at_once: int = 0

    def asked(self, end: str, method: str = "GET") -> list[dict[str, str]]:
        """Headers of the requests for paths that end so."""
        return [headers for verb, path, headers in self.requests if verb == method and path.endswith(end)]


@contextmanager
def nlm_server(folder: Path) -> Iterator[NlmServer]:
    """Serve a folder on 127.0.0.1 while the block runs."""
    served = NlmServer(url="")

    class Handler(_Handler):
        server_of = served

        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

    with serving(Handler) as served.url:
        yield served


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a web server on 127.0.0.1 that answers while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def status(code: int, retry_after: str | None = None) -> Fault:
    """Answer with an error status."""

    def answer(handler: "_Handler") -> None:
        body = b"<html>busy</html>"
        handler.send_response(code)
        if retry_after is not None:
            handler.send_header("Retry-After", retry_after)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    return answer


def cut(after: int) -> Fault:
    """Promise the whole file, or the rest asked for, and drop the connection after some bytes."""

    def answer(handler: "_Handler") -> None:
        handler.send_file(limit=after)

    return answer


def half() -> Fault:
    """Send half of the file and say that it is all."""

    def answer(handler: "_Handler") -> None:
        body = Path(handler.translate_path(handler.path)).read_bytes()
        instead(body[: len(body) // 2], "application/x-gzip")(handler)

    return answer


def slowly(seconds: float) -> Fault:
    """Send the file in ten parts over some seconds; the server counts how many are sent so at once."""
    counting = threading.Lock()

    def answer(handler: "_Handler") -> None:
        body = Path(handler.translate_path(handler.path)).read_bytes()
        served = handler.server_of
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        with counting:
            served.at_once += 1
            served.most_at_once = max(served.most_at_once, served.at_once)
        step = -(-len(body) // 10)
        for start in range(0, len(body), step):
            time.sleep(seconds / 10)
            if start + step >= len(body):
                with counting:  # before the last bytes: once it has them, the client may come again
                    served.at_once -= 1
            handler.wfile.write(body[start : start + step])
            handler.wfile.flush()

    return answer


def once(ready: Callable[[], bool], fault: Fault) -> Fault:
    """Wait until something is so (20 s at most), then fail."""

    def answer(handler: "_Handler") -> None:
        deadline = time.monotonic() + 20
        while not ready() and time.monotonic() < deadline:
            time.sleep(0.01)
        fault(handler)

    return answer


def instead(body: bytes, kind: str = "text/html", **headers: str) -> Fault:
    """Answer 200 with something else."""

    def answer(handler: "_Handler") -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


class _Handler(SimpleHTTPRequestHandler):
    server_of: NlmServer

    def do_GET(self) -> None:
        if self.faulted():
            return
        if Path(self.translate_path(self.path)).is_file():
            self.send_file()
        else:
            super().do_GET()

    def do_HEAD(self) -> None:
        if not self.faulted():
            super().do_HEAD()

    def faulted(self) -> bool:
        served = self.server_of
        served.requests.append((self.command, self.path, dict(self.headers)))
        for end, faults in served.faults.items():
            if self.path.endswith(end) and faults:
                faults.pop(0)(self)
                return True
        return False

    def send_file(self, limit: int | None = None) -> None:
        """The file, or the range asked for; at most `limit` bytes of what is promised."""
        body = Path(self.translate_path(self.path)).read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and self.server_of.takes_ranges:
            first = int(asked[1])
            if first >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            body = body[first:]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:limit])

    def log_message(self, format: str, *args: object) -> None:
        """Requests are kept in `NlmServer.requests`, not printed."""
