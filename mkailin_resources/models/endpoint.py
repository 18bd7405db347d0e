"""A language model behind an OpenAI-compatible endpoint: `vllm serve`, another server, a paid service.

Many requests are in flight at once, from one loop in one thread. Whatever goes wrong on the way is tried
again, so that each prompt ends in one result, and none is asked again once it was answered.
"""

import asyncio
import json
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from itertools import islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import tenacity

from mkailin_resources.models.interface import GenerationResult, ModelUnavailable
from mkailin_resources.models.language_model import Prompt
from mkailin_resources.models.model_name import ModelName

if TYPE_CHECKING:
    import aiohttp

_WRONG_ANSWERS = 6  # to one request, which then is a failure
_LONGEST_RETRY_AFTER_S = 60.0
_SPREAD_S = 0.5  # after it, so that not all come again at once
_FIRST_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 20.0
_LONGEST_BACKOFF_AWAY_S = 5.0  # so that a server that is back is soon found to be
_CONNECT_S = 20.0
_WARN_S = 5.0
_CHECK_S = 5.0
_CHECK_TRY_S = 2.0

# Results that wait to be taken, besides the requests in flight.
_WAITING_RESULTS = 256
_TAKEN_AT_ONCE = 16
# Results go over in batches: a thread woken for each one costs more than the request.
_HAND_OVER_S = 0.002

_BUSY = (429, 503)  # not now; nothing is said of the request
_GATEWAY = (502, 504)  # the server behind is away, or the request too much for it
_LATER = (408, 409, 425)
_LONGEST_MESSAGE = 300

_log = logging.getLogger(__name__)


def _no_key() -> str:
    return ""


@dataclass(frozen=True)
class Endpoint:
    """A model as a server at `url` (such as `http://127.0.0.1:8000/v1`) knows it.

    `concurrency`: requests in flight. `api_key` gives the key whenever a request is made, empty for none.
    `patience_s`: how long a server that says nothing is waited for. `timeout_s`: for one answer.
    Raises `ValueError` for a URL or model that no endpoint can have.
    """

    model: ModelName
    url: str
    concurrency: int = 64
    api_key: Callable[[], str] = field(default=_no_key, repr=False)
    patience_s: float = 300
    timeout_s: float = 600

    def __post_init__(self) -> None:
        _check_url(self.url)
        if self.model.adapter:
            raise ValueError(
                f"{self.model}: an endpoint has a name of its own for a model with an adapter; give that one"
            )

    @property
    def name(self) -> str:
        """What the server calls the model."""
        return self.model.name

    @property
    def chat_url(self) -> str:
        """Where conversations are completed."""
        return f"{self.url.rstrip('/')}/chat/completions"

    @property
    def version(self) -> str:
        """The model as it is asked for."""
        return str(self.model)

    @property
    def identity(self) -> tuple[str, str, str]:
        """Name and revision as they were given, and no adapter; where the server is plays no part."""
        return (self.model.name, self.model.revision, "")

    def check(self) -> None:
        """Raise `ModelUnavailable` unless the server answers (5 s or so), takes the key and has the model."""
        with ThreadPoolExecutor(1) as thread:  # the caller may have a loop running
            thread.submit(asyncio.run, self._check()).result()

    def complete(self, prompts: Iterable[Prompt]) -> Iterator[GenerationResult]:
        """One result for each prompt as it finishes.

        Prompts are taken in another thread, `concurrency` and some results ahead of the taker. Closing the
        iterator gives up what is in flight. Raises `ModelUnavailable` after `patience_s` without an answer,
        or where the server refuses the key or the model; all that was answered until then comes first.
        """
        batches: _Batches = SimpleQueue()
        run = _Run(self, iter(prompts), batches)
        loop = asyncio.new_event_loop()
        work = loop.create_task(run.work())
        thread = threading.Thread(
            target=_see_through, args=(loop, work, batches), name="endpoint", daemon=True
        )
        thread.start()
        try:
            while batch := batches.get():
                yield from batch
                with suppress(RuntimeError):  # the loop is closed: nobody waits for room
                    loop.call_soon_threadsafe(run.took, len(batch))
        finally:
            with suppress(RuntimeError):  # the loop is closed: all is done
                loop.call_soon_threadsafe(work.cancel)
            thread.join()
        work.result()

    def key(self) -> str:
        """The key to send now; raises `ModelUnavailable` for one that no header can hold."""
        key = self.api_key().strip()
        if not key.isprintable():
            raise ModelUnavailable(
                "MKAILIN_API_KEY holds a line break or another control character; set it anew"
            )
        return key

    def refusal(self, status: int, message: str) -> ModelUnavailable:
        """What to tell of a status that is about the key, the model or the address, not about the request."""
        told = f"{self.url} answered {status}: {message}"
        if status in (401, 403):
            return ModelUnavailable(f"{told}; set MKAILIN_API_KEY to a key that may use {self.name}")
        if status == 404:
            return ModelUnavailable(
                f"{told}; set MKAILIN_MODEL to a model that it has (not {self.name}), or mend "
                "MKAILIN_ENDPOINT, which ends in /v1 as a rule"
            )
        if status == 402:
            return ModelUnavailable(f"{told}; the account behind MKAILIN_API_KEY has nothing left")
        return ModelUnavailable(f"{told}; mend MKAILIN_ENDPOINT, which ends in /v1 as a rule")

    async def _check(self) -> None:
        trying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_TryAgain),
            stop=tenacity.stop_after_delay(_CHECK_S),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=1),
            reraise=True,
        )
        key = self.key()
        try:
            async with _session(_CHECK_TRY_S) as session:
                reply: _Reply = await trying(_send, session, "GET", f"{self.url.rstrip('/')}/models", key)
                if reply.status in (404, 405):  # some endpoints have no such page
                    reply = await trying(_send, session, "POST", self.chat_url, key, b"{}")
                    if reply.status in (400, 422):
                        return
        except _TryAgain as fault:
            raise ModelUnavailable(
                f"{self.url}: {fault.reason}; start the server, or mend MKAILIN_ENDPOINT"
            ) from None
        if reply.status != 200:
            raise self.refusal(reply.status, reply.message(key))
        try:
            names = sorted(str(model["id"]) for model in json.loads(reply.content)["data"])
        except (ValueError, LookupError, TypeError, RecursionError):
            raise ModelUnavailable(
                f"{self.url}/models is no list of models; mend MKAILIN_ENDPOINT, which ends in /v1 as a rule"
            ) from None
        if self.name not in names:
            more = f" and {len(names) - 20} more" if len(names) > 20 else ""
            raise ModelUnavailable(
                f"{self.url} has no model {self.name}; set MKAILIN_MODEL to one of those that it has: "
                f"{', '.join(names[:20]) or 'none'}{more}"
            )


_Batches = SimpleQueue[list[GenerationResult]]


class _Run:
    """One call of `complete`: workers in a loop, which take prompts and hand over results in batches.

    All of it happens in the thread of the loop; an empty batch ends it.
    """

    def __init__(self, endpoint: Endpoint, prompts: Iterator[Prompt], batches: _Batches) -> None:
        self.endpoint = endpoint
        self.prompts = prompts
        self.batches = batches
        self.batch: list[GenerationResult] = []
        # Ready to be sent, so that a worker need not wait for the next prompt; None ends a worker.
        self.bodies: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue(endpoint.concurrency)
        self.untaken = 0  # prompts that were taken and whose results were not
        self.room = asyncio.Event()
        self.not_before = 0.0  # no request is made until then
        self.answered_at = 0.0  # when a request was last answered well
        self.silent_since: float | None = None
        self.warned = False
        self.retrying = tenacity.AsyncRetrying()
        self.backoff = tenacity.wait_random_exponential(multiplier=_FIRST_BACKOFF_S, max=_LONGEST_BACKOFF_S)
        self.backoff_away = tenacity.wait_random_exponential(
            multiplier=_FIRST_BACKOFF_S, max=_LONGEST_BACKOFF_AWAY_S
        )

    async def work(self) -> None:
        """Answer all prompts."""
        async with _session(self.endpoint.timeout_s) as self.session:
            working = (self._take(), *(self._worker() for _ in range(self.endpoint.concurrency)))
            tasks = [asyncio.create_task(each) for each in working]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self._hand_over()

    def took(self, results: int) -> None:
        """So many results have been taken."""
        self.untaken -= results
        self.room.set()

    async def _take(self) -> None:
        loop = asyncio.get_running_loop()
        # In a thread: whoever makes the prompts may look things up for a while, and answers must not wait.
        with ThreadPoolExecutor(1, thread_name_prefix="prompts") as thread:
            while some := await loop.run_in_executor(thread, self._next):
                for asked in some:
                    self.untaken += 1
                    await self.bodies.put(asked)
                while self.untaken >= 2 * self.endpoint.concurrency + _WAITING_RESULTS:
                    self.room.clear()
                    await self.room.wait()
        for _ in range(self.endpoint.concurrency):
            await self.bodies.put(None)

    def _next(self) -> list[tuple[str, bytes]]:
        """Key and body of the next requests; none at the end."""
        return [(prompt.key, self._body(prompt)) for prompt in islice(self.prompts, _TAKEN_AT_ONCE)]

    async def _worker(self) -> None:
        while asked := await self.bodies.get():
            result = await self._answer(*asked)
            if not self.batch:
                asyncio.get_running_loop().call_later(_HAND_OVER_S, self._hand_over)
            self.batch.append(result)

    def _hand_over(self) -> None:
        if self.batch:
            self.batches.put(self.batch)
            self.batch = []

    async def _answer(self, name: str, body: bytes) -> GenerationResult:
        """Ask until there is a result; raises `ModelUnavailable`."""
        # Of tenacity only the waits: its loop takes as much of a core as half a request does.
        tries = tenacity.RetryCallState(self.retrying, None, (), {})
        wrong = 0
        while True:
            try:
                return await self._try(name, body)
            except _TryAgain as fault:
                wrong += fault.counts
                if wrong == _WRONG_ANSWERS:
                    kind, _, detail = fault.reason.partition(": ")
                    return GenerationResult(
                        name, failure=f"{kind}, {wrong} times: {detail or 'no more is said'}"
                    )
                await asyncio.sleep(self._pause(fault, tries))
                tries.attempt_number += 1

    async def _try(self, name: str, body: bytes) -> GenerationResult:
        while (pause := self.not_before - time.monotonic()) > 0:
            await asyncio.sleep(pause + random.random() * _SPREAD_S)
        begun = time.monotonic()
        key = self.endpoint.key()
        try:
            result = self._read(
                await _send(self.session, "POST", self.endpoint.chat_url, key, body), name, key
            )
        except _TryAgain as fault:
            # A silent server may have died with the request, unless others are answered.
            fault.counts |= fault.unclear and self.answered_at > begun
            self._mind(fault)
            raise
        self.silent_since = None
        if result.failure is None:
            self.answered_at = time.monotonic()
        return result

    def _read(self, reply: "_Reply", name: str, key: str) -> GenerationResult:
        """The result that a reply holds; raises `_TryAgain` or `ModelUnavailable` where it holds none."""
        status = reply.status
        if status == 200:
            return _result(reply, name, key)
        message = reply.message(key)
        # Once key and model are known to be good, these are about the request: some gateways moderate.
        is_about_all = status in (401, 402, 405) or (status in (403, 404) and not self.answered_at)
        if 400 <= status < 500 and not is_about_all:
            return GenerationResult(name, failure=f"the server refused it with {status}: {message}")
        raise self.endpoint.refusal(status, message)

    def _mind(self, fault: "_TryAgain") -> None:
        """Hold back all workers if the server asks for it; raise `ModelUnavailable` once patience ends."""
        now = time.monotonic()
        if fault.retry_after_s is not None:
            self.not_before = max(self.not_before, now + fault.retry_after_s)
        if not fault.silent:
            self.silent_since = None
            return
        if self.silent_since is None:
            self.silent_since, self.warned = now, False
        silent_s = now - self.silent_since
        told = f"{self.endpoint.url} has answered nothing for {silent_s:.0f} s: {fault.reason}"
        patience_s = self.endpoint.patience_s
        if silent_s >= patience_s:
            raise ModelUnavailable(
                f"{told}; start the server again and run again, what was answered is kept"
            ) from None
        if silent_s >= _WARN_S and not self.warned:
            self.warned = True
            _log.warning(f"{told}; waiting for it, {patience_s:.0f} s in all")

    def _pause(self, fault: "_TryAgain", tries: tenacity.RetryCallState) -> float:
        if fault.retry_after_s:
            return 0.0  # `not_before` says when
        if self.silent_since is None:
            return self.backoff(tries)
        patience_left_s = self.silent_since + self.endpoint.patience_s - time.monotonic()
        return min(self.backoff_away(tries), max(0.0, patience_left_s))

    def _body(self, prompt: Prompt) -> bytes:
        sampling = prompt.sampling
        body: dict[str, Any] = {
            "model": self.endpoint.name,
            "messages": [message._asdict() for message in prompt.messages],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
        }
        if prompt.json_schema:
            body["response_format"] = _response_format(prompt.json_schema)
        return json.dumps(body, separators=(",", ":")).encode()


def _see_through(loop: asyncio.AbstractEventLoop, work: "asyncio.Task[None]", batches: _Batches) -> None:
    """Run the work to its end, good or bad, and say that it has come."""
    try:
        loop.run_until_complete(asyncio.wait((work,)))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
        batches.put([])


class _TryAgain(Exception):
    """A try that came to nothing.

    `counts`: the fault lies with the request or its answer. `unclear`: it may also lie with the server.
    `silent`: the server itself gave no answer.
    """

    def __init__(
        self,
        reason: str,
        *,
        counts: bool = False,
        unclear: bool = False,
        silent: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.counts = counts
        self.unclear = unclear
        self.silent = silent
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class _Reply:
    """What a server answered, as it came."""

    status: int
    content: bytes

    def message(self, key: str) -> str:
        """What it says is wrong, in one line, without the key if it repeats that."""
        text = self.content[:100_000].decode(errors="replace")
        with suppress(ValueError, RecursionError):
            said = json.loads(text)
            if isinstance(said, dict):
                said = said.get("error") or said.get("message") or said.get("detail") or said
            if isinstance(said, dict):
                said = said.get("message") or said
            text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
        return _shown(text, key)


async def _send(
    session: "aiohttp.ClientSession", method: str, url: str, key: str, body: bytes | None = None
) -> _Reply:
    """Make a request; raises `_TryAgain` where the answer is none, or bids to come again."""
    import aiohttp

    headers = {"Content-Type": "application/json"} if body else {}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    begun_to_answer = False
    try:
        # Redirects are not followed: a POST would become a GET, and the key go elsewhere.
        async with session.request(
            method, url, data=body, headers=headers, allow_redirects=False
        ) as response:
            begun_to_answer = True
            reply = _Reply(response.status, await response.read())
            retry_after_s = _retry_after_s(response.headers.get("Retry-After", ""))
    except aiohttp.ClientConnectorCertificateError as error:
        raise ModelUnavailable(
            f"{url}: its certificate cannot be trusted ({_shown(str(error), key)}); mend MKAILIN_ENDPOINT, "
            "or set SSL_CERT_FILE to the certificate of whoever signed it"
        ) from None
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise _TryAgain(f"it cannot be reached ({_shown(str(error), key)})", silent=True) from None
    except TimeoutError:
        raise _TryAgain("it did not answer in time", counts=True, silent=True) from None
    except (aiohttp.ClientError, OSError) as error:
        said = _shown(str(error), key)
        if begun_to_answer:
            raise _TryAgain(f"it broke off its answer ({said})", counts=True) from None
        raise _TryAgain(
            f"it dropped the connection without an answer ({said})", unclear=True, silent=True
        ) from None
    status = reply.status
    if status in _LATER or status in _BUSY or status >= 500:
        raise _TryAgain(
            f"it answered {status}: {reply.message(key)}",
            counts=status not in _BUSY and status not in _GATEWAY,
            unclear=status in _GATEWAY,
            silent=status in _BUSY or status in _GATEWAY,
            retry_after_s=retry_after_s,
        )
    return reply


def _session(timeout_s: float) -> "aiohttp.ClientSession":
    import aiohttp

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),  # the workers are the limit
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=_CONNECT_S),
    )


def _result(reply: _Reply, name: str, key: str) -> GenerationResult:
    """The completion in a reply; raises `_TryAgain` where there is none."""
    try:
        said = json.loads(reply.content)
        choice = said["choices"][0]
        message = choice["message"]
        text = message.get("content") or message.get("refusal") or ""
        usage = said.get("usage") or {}
        return GenerationResult(
            name,
            text=text.encode(errors="replace").decode(),  # half a surrogate pair cannot be stored
            truncated=choice.get("finish_reason") == "length",
            tokens_in=int(usage.get("prompt_tokens") or 0),
            tokens_out=int(usage.get("completion_tokens") or 0),
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise _TryAgain(f"it answered what is no completion: {reply.message(key)}", counts=True) from None


@lru_cache(maxsize=16)
def _response_format(json_schema: str) -> dict[str, Any]:
    schema = {"name": "reply", "strict": True, "schema": json.loads(json_schema)}
    return {"type": "json_schema", "json_schema": schema}


def _retry_after_s(header: str) -> float | None:
    """Seconds to wait as `Retry-After` says, in seconds or with a date; None where it says nothing."""
    try:
        wait_s = float(header)
    except ValueError:
        try:
            until = parsedate_to_datetime(header)
        except ValueError:
            return None
        wait_s = (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(_LONGEST_RETRY_AFTER_S, max(0.0, wait_s))


def _shown(text: str, key: str) -> str:
    """A message of a server as it may be shown: without the key, in one line, not long."""
    if key:
        text = text.replace(key, "(the key)")
    text = " ".join(text.split()) or "(nothing)"
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}..."


def _check_url(url: str) -> None:
    """Raise `ValueError`, which shows no credentials, for what is not the base URL of an endpoint."""
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        raise ValueError(
            "the URL of the endpoint has no valid host and port; set it to http://HOST:PORT/v1"
        ) from None
    if parts.scheme not in ("http", "https") or not named:
        raise ValueError(
            f"the URL of the endpoint starts with {parts.scheme or 'no scheme'!r}; set it to http(s)://HOST:PORT/v1"
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            f"the URL of the endpoint at {parts.hostname} holds credentials, a query or a fragment; set it "
            "to http(s)://HOST:PORT/v1 and MKAILIN_API_KEY to the key"
        )
