"""An OpenAI-compatible endpoint on loopback that answers after a fixed time, and counts what it was asked.

`python -m benchmarks.model_server PORT SECONDS`. What it writes satisfies the schema asked for.
"""

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from socket import create_server
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import web

MODEL = "benchmark-model"
_ANSWER = {
    "long_answer": "It does so in most cases, as the sentence cited says.",
    "decision": "yes",
    "evidence": [1],
}


@dataclass(frozen=True)
class ModelServer:
    """A server that runs: its base URL, as MKAILIN_ENDPOINT takes it."""

    url: str

    def requests(self) -> int:
        """How many completions it was asked for until now."""
        with urllib.request.urlopen(f"{self.url}/requests", timeout=10) as reply:
            return int(reply.read())


@contextmanager
def model_server(seconds: float) -> Iterator[ModelServer]:
    """A server in a process of its own that takes `seconds` for each reply."""
    with create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", __name__, str(port), str(seconds)])
    server = ModelServer(f"http://127.0.0.1:{port}/v1")
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                server.requests()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield server
    finally:
        process.terminate()
        process.wait()


def _reply(request: dict[str, Any]) -> str:
    schema = request.get("response_format", {}).get("json_schema", {}).get("schema", {})
    if "long_answer" in schema.get("properties", {}):
        return json.dumps(_ANSWER)
    # Words of the text itself, so that each citation has another question.
    words = request["messages"][-1]["content"].split()[20:32]
    return json.dumps({"question": f"Does {' '.join(word.strip('?') for word in words)}?"})


def _application(seconds: float) -> "web.Application":
    from aiohttp import web

    asked = 0

    async def complete(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        body = await request.json()
        await asyncio.sleep(seconds)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": _reply(body)},
            "finish_reason": "stop",
        }
        usage = {"prompt_tokens": 500, "completion_tokens": 30, "total_tokens": 530}
        return web.json_response(
            {"object": "chat.completion", "model": MODEL, "choices": [choice], "usage": usage}
        )

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    async def requests(_: web.Request) -> web.Response:
        return web.Response(text=str(asked))

    application = web.Application(client_max_size=1 << 24)
    application.router.add_post("/v1/chat/completions", complete)
    application.router.add_get("/v1/models", models)
    application.router.add_get("/v1/requests", requests)
    return application


if __name__ == "__main__":
    from aiohttp import web

    web.run_app(
        _application(float(sys.argv[2])), host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None
    )
