"""A server with an OpenAI-compatible endpoint and no model, which answers at once, and fails as it is told.

A process of its own, so that it can be killed with -9 and started again:

    with model_server(tmp_path, delay_s=0.2, faults=[Fault("status", status=500, share=0.1)]) as server:
        Endpoint(ModelName("tiny"), server.url)
        server.kill()
        server.restart()
        assert server.stats().answered_twice == 0

What it writes is decided by the prompt and the seed: JSON for a schema with `question` (of some words of the
prompt), `long_answer` (decision yes, evidence [1]), `preferred` (the first) or `label` (the first of those to
be had); else a sentence.

Faults are decided by the prompt alone: a share of all prompts, or those that hold `match`, get it at their
first `times` visits and are answered well after that; of several a prompt gets the first that takes it;
shares add up. Visits and good answers are kept in a file that outlives a kill. By hand:
`python tests/model_server.py --port 8000 --log visits.jsonl --plan '{"delay_s": 0.2}'`.
"""

import argparse
import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from aiohttp import web

Kind = Literal["delay", "drop", "drop_half", "status", "malformed", "truncated", "empty", "refusal", "reply"]


@dataclass(frozen=True)
class Fault:
    """What befalls a share of the prompts at their first visits.

    `delay`: answers well after `seconds`. `drop`, `drop_half`: closes the connection before, or amid, the
    answer. `status`: answers with `status`, `retry_after` and `message`, where KEY stands for the key sent,
    and which is the new address where the status is a redirect.
    `malformed`: `message` instead of JSON. `truncated`, `empty`, `refusal`: good answers of that kind;
    `reply`: a good answer whose text is `message`.
    """

    kind: Kind
    share: float = 1.0
    times: int = 1
    match: str = ""
    seconds: float = 0.0
    status: int = 500
    retry_after: str = ""
    message: str = "no such luck"


@dataclass(frozen=True)
class Plan:
    """How the server behaves: seconds for an answer, faults, names of its models (none: no such page).

    `key`: the only one that it takes, empty for any. `die_after`: the process ends at that visit, counted
    over all its lives.
    """

    delay_s: float = 0.0
    faults: Sequence[Fault] = ()
    models: Sequence[str] = ("tiny",)
    key: str = ""
    die_after: int = 0


@dataclass(frozen=True)
class Stats:
    """Visits and good answers by `prompt_id`, over all lives of the server; in flight in this life."""

    asked: dict[str, int]
    answered: dict[str, int]
    in_flight: int
    most_in_flight: int

    @property
    def answered_twice(self) -> int:
        """Prompts that were answered well more than once."""
        return sum(count > 1 for count in self.answered.values())


@dataclass
class ModelServer:
    """A running server: `url` ends in /v1; `log` is the file of visits."""

    plan: Plan
    port: int
    log: Path
    process: "subprocess.Popen[bytes] | None" = field(default=None)

    @property
    def url(self) -> str:
        """What an endpoint is set to."""
        return f"http://127.0.0.1:{self.port}/v1"

    def stats(self) -> Stats:
        """What the server has counted; it must be running."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stats", timeout=10) as answer:
            return Stats(**json.load(answer))

    def events(self) -> list[tuple[float, str, str]]:
        """Time (s), `asked` or `answered` or the kind of a fault, and `prompt_id`, in the order they came."""
        return [tuple(json.loads(line)) for line in self.log.read_text().splitlines()]

    def start(self) -> None:
        """Start it and wait until it answers."""
        plan = json.dumps(asdict(self.plan))
        arguments = ["--port", str(self.port), "--log", str(self.log), "--plan", plan]
        self.process = subprocess.Popen([sys.executable, __file__, *arguments])
        deadline = time.monotonic() + 20
        while True:
            try:
                self.stats()
                return
            except OSError:
                assert self.process.poll() is None, "the model server ended before it answered"
                assert time.monotonic() < deadline, "the model server does not answer"
                time.sleep(0.02)

    def kill(self) -> None:
        """End it as kill -9 does, requests in flight and all."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self) -> None:
        """Start it again at the same port, dead or alive."""
        self.kill()
        self.start()


@contextmanager
def model_server(folder: Path, **plan: Any) -> Iterator[ModelServer]:
    """A server that runs while the block does, with the fields of `Plan`; its log goes to the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / f"model_server_{port}.jsonl"
    log.touch()
    server = ModelServer(Plan(**plan), port, log)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def prompt_id(content: str, seed: int = 0) -> str:
    """How the server calls a request, by its last message and its seed."""
    return blake2b(f"{seed}\n{content}".encode(), digest_size=8).hexdigest()


class _Server:
    """The process that answers."""

    def __init__(self, plan: Plan, log: Path) -> None:
        self.plan = plan
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.in_flight = 0
        self.most_in_flight = 0
        for _, event, prompt in map(json.loads, log.read_text().splitlines()):
            self.asked[prompt] += event == "asked"
            self.answered[prompt] += event == "answered"
        self.visits = self.asked.total()
        self.log = os.open(log, os.O_WRONLY | os.O_APPEND)

    def note(self, event: str, prompt: str) -> None:
        """Add to the log; written at once, so that no kill can take it back."""
        os.write(self.log, f"{json.dumps([time.time(), event, prompt])}\n".encode())

    async def stats(self, _: "web.Request") -> "web.Response":
        from aiohttp import web

        return web.json_response(
            asdict(Stats(dict(self.asked), dict(self.answered), self.in_flight, self.most_in_flight))
        )

    async def models(self, request: "web.Request") -> "web.Response":
        from aiohttp import web

        if refusal := self.refusal(request):
            return refusal
        if not self.plan.models:
            raise web.HTTPNotFound
        return web.json_response({"object": "list", "data": [{"id": name} for name in self.plan.models]})

    async def chat(self, request: "web.Request") -> "web.StreamResponse":
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self.answer(request)
        finally:
            self.in_flight -= 1

    async def answer(self, request: "web.Request") -> "web.StreamResponse":
        from aiohttp import web

        if refusal := self.refusal(request):
            return refusal
        asked = json.loads(await request.read())
        if "messages" not in asked:
            return _error(400, "messages: Field required")
        content = asked["messages"][-1]["content"]
        prompt = prompt_id(content, asked.get("seed", 0))
        self.visits += 1
        self.asked[prompt] += 1
        self.note("asked", prompt)
        if self.visits == self.plan.die_after:
            os._exit(1)
        if self.plan.models and asked["model"] not in self.plan.models:
            return _error(404, f"The model `{asked['model']}` does not exist.")
        fault = self.fault(content, prompt)
        await asyncio.sleep(self.plan.delay_s + (fault.seconds if fault else 0))
        if fault and fault.kind in ("drop", "drop_half", "status", "malformed"):
            self.note(fault.kind, prompt)
            return await _fail(request, fault, asked)
        response = web.Response(
            body=json.dumps(_completion(asked, content, fault)).encode(),
            content_type="application/json",
        )
        await response.prepare(request)
        await response.write_eof()
        self.answered[prompt] += 1  # after the last byte: what a kill cut off was not answered
        self.note("answered", prompt)
        return response

    def refusal(self, request: "web.Request") -> "web.Response | None":
        sent = request.headers.get("Authorization", "")
        if self.plan.key and sent != f"Bearer {self.plan.key}":
            return _error(401, f"Incorrect API key provided: {sent or 'none'}")
        return None

    def fault(self, content: str, prompt: str) -> Fault | None:
        drawn = int(blake2b(content.encode(), digest_size=4).hexdigest(), 16) / 2**32
        for fault in self.plan.faults:
            if fault.match in content and drawn < fault.share:
                return fault if self.asked[prompt] <= fault.times else None
            drawn -= fault.share if fault.match in content else 0
        return None


async def _fail(request: "web.Request", fault: Fault, asked: dict[str, Any]) -> "web.StreamResponse":
    from aiohttp import web

    if fault.kind == "status":
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        response = _error(fault.status, fault.message.replace("KEY", key))
        if 300 <= fault.status < 400:
            response.headers["Location"] = fault.message
        if fault.retry_after:
            response.headers["Retry-After"] = fault.retry_after
        return response
    if fault.kind == "malformed":
        return web.Response(text=fault.message, content_type="application/json")
    assert request.transport is not None
    if fault.kind == "drop_half":
        body = json.dumps(_completion(asked, "half", "")).encode()
        half = web.StreamResponse(headers={"Content-Length": str(len(body))})
        await half.prepare(request)
        await half.write(body[: len(body) // 2])
        request.transport.close()
        return half
    request.transport.abort()
    return web.Response()


def _error(status: int, message: str) -> "web.Response":
    from aiohttp import web

    return web.json_response({"error": {"message": message, "code": status}}, status=status)


def _completion(asked: dict[str, Any], content: str, fault: Fault | None) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": _text(asked, content)}
    kind = fault.kind if fault else ""
    if fault and kind == "reply":
        message["content"] = fault.message
    elif kind == "truncated":
        message["content"] = message["content"][: len(message["content"]) // 2]
    elif kind == "empty":
        message["content"] = None
    elif kind == "refusal":
        message = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
    read = sum(len(part["content"].split()) for part in asked["messages"])
    written = len((message["content"] or "").split())
    return {
        "object": "chat.completion",
        "model": asked["model"],
        "choices": [
            {"index": 0, "message": message, "finish_reason": "length" if kind == "truncated" else "stop"}
        ],
        "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
    }


def _text(asked: dict[str, Any], content: str) -> str:
    words = re.findall(r"[A-Za-z]{4,}", content) or ["this"]
    first = int(prompt_id(content, asked.get("seed", 0)), 16) % max(1, len(words) - 5)
    some = " ".join(words[first : first + 6])
    values = {
        "question": f"Does {some} matter?",
        "reason": f"It asks about {some}.",
        "preferred": "first",
        "long_answer": f"Yes, {some} does.",
        "decision": "yes",
        "evidence": [1],
    }
    schema = asked.get("response_format", {}).get("json_schema", {}).get("schema", {})
    values["label"] = schema.get("properties", {}).get("label", {}).get("enum", [""])[0]
    wanted = [name for name in schema.get("properties", {}) if name in values]
    return json.dumps({name: values[name] for name in wanted}) if wanted else f"It is about {some}."


def main() -> None:
    """Serve until killed."""
    from aiohttp import web

    parser = argparse.ArgumentParser(description="An OpenAI-compatible endpoint without a model, for tests")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True, help="file of visits, appended to")
    parser.add_argument("--plan", default="{}", help="the fields of Plan, as JSON")
    arguments = parser.parse_args()
    arguments.log.touch()
    plan = json.loads(arguments.plan)
    faults = [Fault(**fault) for fault in plan.pop("faults", ())]
    server = _Server(Plan(faults=faults, **plan), arguments.log)
    application = web.Application(client_max_size=1 << 24)
    application.router.add_get("/stats", server.stats)
    application.router.add_get("/v1/models", server.models)
    application.router.add_post("/v1/chat/completions", server.chat)
    web.run_app(
        application,
        host="127.0.0.1",
        port=arguments.port,
        backlog=2048,
        access_log=None,
        print=None,
        handler_cancellation=True,  # what a client gives up is no longer in flight
    )


if __name__ == "__main__":
    main()
