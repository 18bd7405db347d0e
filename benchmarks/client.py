"""Our way of asking an endpoint against a bare aiohttp loop, at 64 and 256 requests in flight.

Ours renders prompts, looks each up in the generation store, asks, and keeps, reads and judges each reply, the
store a new one that is closed at the end; the bare loop sends bodies that lie ready and reads the JSON that
comes back. Both ask a server that takes 200 ms. With MKAILIN_PEERS_PYTHON set to a Python that has
distilabel, its client for endpoints runs beside them.
"""

import asyncio
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.model_server import MODEL, ModelServer, model_server
from benchmarks.pubmed_stage import full_citations
from benchmarks.report import Goal, Report
from mkailin_assets.questions.candidates import document_of, fault_of_question
from mkailin_resources.generation import Asking, Materialization
from mkailin_resources.generation_store import GenerationStore
from mkailin_resources.models.interface import GenerationRequest
from mkailin_resources.models.prompted import PromptedGenerator
from mkailin_resources.profiles import Settings, agents
from mkailin_resources.storage import Storage

LATENCY_S = 0.2
# In flight: requests of a run. A run takes at least 15 seconds.
CONCURRENCY = {64: 4_800, 256: 19_200}
ROUNDS = 3
SEED = 20
PEER = """
import asyncio, json, sys, time
from distilabel.models.llms import OpenAILLM

url, model, concurrency, path = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
chats = json.load(open(path))
llm = OpenAILLM(base_url=url, model=model, api_key="none", timeout=600)
llm.load()
began = time.monotonic()
done = 0
for start in range(0, len(chats), concurrency):
    done += len(llm.generate_outputs(inputs=chats[start : start + concurrency], max_new_tokens=160))
print(json.dumps({"requests": done, "seconds": time.monotonic() - began}))
"""


def run() -> Report:
    """Requests a second of each, in turn; medians of three rounds, and the ratio of ours to the bare loop."""
    results: dict[str, Any] = {}
    goals = []
    with tempfile.TemporaryDirectory() as folder, model_server(LATENCY_S) as server:
        citations = _citations(Path(folder), max(CONCURRENCY.values()))
        _ours(_requests(citations.head(64)), _generator(server, 64))  # what is imported and compiled once
        for concurrency, requests in CONCURRENCY.items():
            some = _requests(citations.head(requests))
            generator = _generator(server, concurrency)
            bodies = [_body(generator, request) for request in some]
            contenders: dict[str, Callable[[], float]] = {
                "bare aiohttp": partial(_bare, server, bodies, concurrency),
                "ours": partial(_ours, some, generator),
            }
            if peer := os.environ.get("MKAILIN_PEERS_PYTHON"):
                chats = [json.loads(body)["messages"] for body in bodies]
                contenders["distilabel"] = partial(_distilabel, server, chats, concurrency, peer)
            rates: dict[str, list[float]] = {name: [] for name in contenders}
            for _ in range(ROUNDS):
                for name, work in contenders.items():
                    rates[name].append(requests / work())
            medians = {name: statistics.median(of) for name, of in rates.items()}
            results |= {
                f"{name}, {concurrency} in flight, requests/s": rate for name, rate in medians.items()
            }
            results[f"ideal, {concurrency} in flight, requests/s"] = concurrency / LATENCY_S
            ratio = round(medians["ours"] / medians["bare aiohttp"], 3)
            goals.append(Goal(f"vs_bare_{concurrency}", ratio, 0.95, at_least=True))
    if "MKAILIN_PEERS_PYTHON" not in os.environ:
        results["distilabel"] = "not run: MKAILIN_PEERS_PYTHON is unset"
    return Report(results=results, goals=goals)


def _citations(folder: Path, count: int) -> pl.DataFrame:
    """So many citations with abstracts, in the columns that questions are made from."""
    records = full_citations(folder, count + count // 3, SEED).filter(pl.col("abstract").list.len() > 0)
    assert records.height >= count
    return records.select("pmid", "pubmed_file", "content_hash", "title", "abstract").head(count)


def _requests(citations: pl.DataFrame) -> list[GenerationRequest]:
    return [GenerationRequest(str(row["pmid"]), "question", document_of(row)) for row in citations.to_dicts()]


def _generator(server: ModelServer, concurrency: int) -> PromptedGenerator:
    settings = {"PROFILE": "gpu", "ENDPOINT": server.url, "MODEL": MODEL, "CONCURRENCY": str(concurrency)}
    made = agents(Settings.from_environment({f"MKAILIN_{name}": value for name, value in settings.items()}))
    generator = made["domain_model"]
    assert isinstance(generator, PromptedGenerator)
    return generator


def _body(generator: PromptedGenerator, request: GenerationRequest) -> bytes:
    rendered = generator.prompt.render(request, generator.max_characters)
    schema = {"name": "reply", "strict": True, "schema": json.loads(rendered.json_schema)}
    return json.dumps(
        {
            "model": MODEL,
            "messages": [message._asdict() for message in rendered.messages],
            "max_tokens": 160,
            "temperature": 0.0,
            "response_format": {"type": "json_schema", "json_schema": schema},
        }
    ).encode()


def _ours(requests: list[GenerationRequest], generator: PromptedGenerator) -> float:
    """Seconds from requests to judged replies, all of them kept."""
    generator = replace(generator)  # that remembers no rendered prompt of an earlier round
    with tempfile.TemporaryDirectory() as root:
        about = Materialization("candidate_questions", None, "benchmark", lambda _: None)
        ask = Asking(GenerationStore(Storage(root=root)), 0.0, about)
        began = time.monotonic()
        replies = ask(generator, requests, fault_of_question)
        seconds = time.monotonic() - began
    assert all(reply.text for reply in replies.values())
    return seconds


def _bare(server: ModelServer, bodies: list[bytes], concurrency: int) -> float:
    import aiohttp

    async def work(session: aiohttp.ClientSession, left: list[bytes], read: list[Any]) -> None:
        while left:
            async with session.post(
                f"{server.url}/chat/completions",
                data=left.pop(),
                headers={"Content-Type": "application/json"},
            ) as reply:
                read.append((await reply.json())["choices"][0]["message"]["content"])

    async def all_of_them() -> int:
        left, read = list(bodies), list[Any]()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(work(session, left, read) for _ in range(concurrency)))
        return len(read)

    began = time.monotonic()
    assert asyncio.run(all_of_them()) == len(bodies)
    return time.monotonic() - began


def _distilabel(server: ModelServer, chats: list[Any], concurrency: int, python: str) -> float:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(chats, file)
        file.flush()
        command = [python, "-c", PEER, server.url, MODEL, str(concurrency), file.name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["requests"] == len(chats)
    return float(said["seconds"])
