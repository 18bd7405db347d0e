"""Asking text generators: each answer is paid for once, and every request comes to an end.

What a model wrote is kept in the generation store under the request's fingerprint, as the model wrote it,
and not asked for again; what a reply means, and whether it is accepted, is decided anew each time. A reply
that is refused, or cut off, is asked for once more with another seed; then the request has failed, and the
row it was for keeps the refused text and the reason.
"""

import queue
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from typing import NamedTuple

import dagster as dg
from pydantic import Field

from mkailin_resources.generation_store import GenerationStore, GenerationWriter, Reuse, StoredText
from mkailin_resources.models.interface import (
    GenerationRequest,
    GenerationResult,
    GeneratorFault,
    NotAReply,
    TextGenerator,
)
from mkailin_resources.storage import Storage

# Why a text is not what was asked for; None when it is.
Fault = Callable[[GenerationRequest, str], str | None]

ATTEMPTS = 2
CUT_OFF = "the reply was cut off at the limit of tokens"
EMPTY = "the reply is empty"
_REPORT_EVERY_S = 5.0
_LOOKED_UP_AT_ONCE = 256
_REASONS_NAMED = 3
_EXCERPT = 200
# So few refused replies fail no partition, however small it is: to ask again would change nothing.
_FEW = 5


@dataclass(frozen=True)
class Reply:
    """What a request came to: `text` as read, or `failure` with the reason.

    `refused` is what the model wrote where that was not accepted.
    """

    fingerprint: str
    text: str | None = None
    failure: str | None = None
    refused: str | None = None


# Asks a generator all requests; the reply to each by its key.
Ask = Callable[[TextGenerator, Sequence[GenerationRequest], Fault], Mapping[str, Reply]]


@dataclass
class Tally:
    """What asking one generator came to.

    `reused` requests needed no call; `generated` counts the texts that the model wrote now, refused ones
    too; `failed` requests have no accepted text, `refused` ones of them were answered. Tokens are those the
    model read and wrote now, and `reused_tokens` those that it did not have to.
    """

    generator: str
    prompt_version: str
    requests: int
    done: int = 0
    reused: int = 0
    generated: int = 0
    failed: int = 0
    refused: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    reused_tokens_in: int = 0
    reused_tokens_out: int = 0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def asked(self) -> str:
        """Who was asked, and with which prompt."""
        return f"{self.generator}, {self.prompt_version}"

    def progress(self) -> str:
        """A line for people: how far, how fast, how long yet."""
        rate = self.generated / self.seconds if self.seconds else 0.0
        tokens = self.tokens_out / self.seconds if self.seconds else 0.0
        left = (self.requests - self.done) * self.seconds / max(self.done, 1)
        return (
            f"{self.asked}: {self.done:,} of {self.requests:,} requests "
            f"({self.done / max(self.requests, 1):.0%}), {self.reused:,} reused, {self.failed:,} failed, "
            f"{rate:.1f} texts/s, {tokens:,.0f} tokens/s, about {_duration(left)} left"
        )

    def summary(self) -> str:
        """A line for people: what it came to, and the most frequent reasons of failures."""
        said = f"{self.requests:,} requests: {self.reused:,} reused, {self.generated:,} texts generated, "
        named = "; ".join(
            f"{count:,} x {reason}" for reason, count in self.reasons.most_common(_REASONS_NAMED)
        )
        return f"{said}{self.failed:,} failed{f' ({named})' if named else ''}"


class TooManyFailures(RuntimeError):
    """More requests failed than the limit allows; the message counts the reasons."""


class _Arrived(NamedTuple):
    request: GenerationRequest
    result: GenerationResult
    is_stored: bool


@dataclass(frozen=True)
class Materialization:
    """On whose behalf generators are asked; `say` gets a line of progress every few seconds."""

    asset: str
    partition: str | None
    run_id: str
    say: Callable[[str], object]


class Asking:
    """Asks generators on behalf of one materialization, and counts what that came to."""

    def __init__(self, store: GenerationStore, max_failed_share: float, about: Materialization) -> None:
        self._store = store
        self._max_failed_share = max_failed_share
        self._about = about
        self.tallies: list[Tally] = []

    def __call__(
        self, generator: TextGenerator, requests: Sequence[GenerationRequest], fault: Fault
    ) -> dict[str, Reply]:
        """The reply to each request by its key.

        Raises `ModelUnavailable`; `TooManyFailures` where the share of failed requests of a paid generator
        is above the limit; `GeneratorFault` where a generator does not give one result for each request.
        What was answered until then is kept.
        """
        tally = Tally(generator.name, generator.prompt_version, len(requests))
        self.tallies.append(tally)
        rounds = _Rounds(generator, fault, self._store, tally, self._about.say)
        if not generator.is_paid:
            return rounds.ask(requests, None)
        try:
            with self._store.writer() as writer:
                replies = rounds.ask(requests, writer)
        finally:
            self._store.record([self._reuse(tally)])
        self._about.say(f"{tally.asked}: {tally.summary()}")
        is_few = tally.refused == tally.failed < _FEW
        if tally.failed > self._max_failed_share * tally.requests and not is_few:
            raise TooManyFailures(
                f"{tally.asked}: more than {self._max_failed_share:.0%} failed: {tally.summary()}. "
                "What was answered is kept: mend the cause and run it again, or allow more "
                "(MKAILIN_MAX_FAILED_SHARE)"
            )
        return replies

    def _reuse(self, tally: Tally) -> Reuse:
        counted = asdict(tally)
        of_both = {name: counted[name] for name in Reuse.__dataclass_fields__ if name in counted}
        about = self._about
        return Reuse(asset=about.asset, partition=about.partition, run_id=about.run_id, **of_both)


class _Rounds:
    """All requests to one generator, and once more those whose reply was refused."""

    def __init__(
        self,
        generator: TextGenerator,
        fault: Fault,
        store: GenerationStore,
        tally: Tally,
        say: Callable[[str], object],
    ) -> None:
        self._generator = generator
        self._fault = fault
        self._store = store
        self._writer: GenerationWriter | None = None
        self._tally = tally
        self._say = say
        self._began = self._reported = time.monotonic()
        self._fingerprints: dict[str, str] = {}
        # Key of the first request with a fingerprint, and of others that ask the same of the model.
        self._first: dict[str, str] = {}
        self._twins: dict[str, str] = {}

    def ask(self, requests: Sequence[GenerationRequest], writer: GenerationWriter | None) -> dict[str, Reply]:
        """The reply to each; without a writer nothing is looked up or kept, and each is asked once."""
        self._writer = writer
        if len({request.key for request in requests}) != len(requests):
            raise GeneratorFault("two requests have the same key")
        replies: dict[str, Reply] = {}
        asked: Sequence[GenerationRequest] = requests
        called: set[str] = set()
        for attempt in range(ATTEMPTS if self._writer else 1):
            refused = []
            for request, result, is_stored in self._results([replace(one, attempt=attempt) for one in asked]):
                if is_stored:
                    self._tally.reused_tokens_in += result.tokens_in
                    self._tally.reused_tokens_out += result.tokens_out
                else:
                    called.add(request.key)
                reply = self._judged(request, result)
                replies[request.key] = reply
                is_last = attempt == ATTEMPTS - 1 or self._writer is None
                if reply.refused is not None and not is_last:
                    refused.append(request)
                else:
                    self._count(reply, is_reused=request.key not in called)
            asked = refused
        for twin, first in self._twins.items():
            replies[twin] = replies[first]
            self._count(replies[first], is_reused=True)
        if len(replies) != len(requests):
            unasked = len(requests) - len(replies)
            raise GeneratorFault(f"{self._generator.name} left {unasked} of {len(requests)} requests unasked")
        self._tally.seconds = time.monotonic() - self._began
        return replies

    def _results(self, requests: Sequence[GenerationRequest]) -> Iterator[_Arrived]:
        """What the store has of the requests and what the generator makes of the others, as it comes."""
        stored: queue.SimpleQueue[_Arrived] = queue.SimpleQueue()
        wanted: dict[str, GenerationRequest] = {}
        missing = _one_batch_ahead(self._missing(requests, stored, wanted))
        first = next(missing, None)
        if first is not None:
            self._generator.check()
            for result in self._generator.generate(chain([first], missing)):
                request = self._wanted(result, wanted)
                self._keep(request, result)
                yield from _drained(stored)
                yield _Arrived(request, result, is_stored=False)
        yield from _drained(stored)
        if wanted:
            raise GeneratorFault(
                f"{self._generator.name} left {len(wanted)} of {len(requests)} requests without result, "
                f"{min(wanted)!r} first"
            )

    def _missing(
        self,
        requests: Sequence[GenerationRequest],
        stored: "queue.SimpleQueue[_Arrived]",
        wanted: dict[str, GenerationRequest],
    ) -> Iterator[list[GenerationRequest]]:
        """In batches, the requests that have to be asked; what is kept of the others goes to `stored`."""
        for start in range(0, len(requests), _LOOKED_UP_AT_ONCE):
            batch = requests[start : start + _LOOKED_UP_AT_ONCE]
            prints = [self._fingerprint(request) for request in batch]
            found = self._store.find(prints) if self._writer else {}
            missing = []
            for request, fingerprint in zip(batch, prints, strict=True):
                text = found.get((fingerprint, request.attempt))
                first = self._first.setdefault(fingerprint, request.key)
                if self._writer and first != request.key:
                    self._twins[request.key] = first
                elif text is not None:
                    stored.put(_Arrived(request, _result(request.key, text), is_stored=True))
                else:
                    wanted[request.key] = request
                    missing.append(request)
            yield missing

    def _fingerprint(self, request: GenerationRequest) -> str:
        known = self._fingerprints.get(request.key)
        if known is None:
            known = self._fingerprints[request.key] = self._generator.fingerprint(request)
        return known

    def _wanted(self, result: GenerationResult, wanted: dict[str, GenerationRequest]) -> GenerationRequest:
        """The request a result is for; raises `GeneratorFault` for a result that breaks the contract."""
        name = self._generator.name
        request = wanted.pop(result.key, None)
        if request is None:
            twice = result.key in self._fingerprints
            raise GeneratorFault(
                f"{name} gave {'two results' if twice else 'a result'} for {result.key!r}"
                f"{'' if twice else ', which was not asked'}"
            )
        if (result.text is None) == (result.failure is None):
            raise GeneratorFault(f"{name} gave neither text nor failure, or both, for {result.key!r}")
        return request

    def _judged(self, request: GenerationRequest, result: GenerationResult) -> Reply:
        fingerprint = self._fingerprints[request.key]
        if result.text is None:
            return Reply(fingerprint, failure=result.failure)
        reason, text = self._read(request, result.text)
        if result.truncated:
            reason = CUT_OFF
        if reason:
            return Reply(fingerprint, failure=reason, refused=result.text)
        return Reply(fingerprint, text=text)

    def _read(self, request: GenerationRequest, written: str) -> tuple[str | None, str]:
        """Why what was written is not accepted, None if it is, and what it says."""
        if not written.strip():
            return EMPTY, ""
        try:
            text = self._generator.read(request, written)
        except NotAReply as error:
            return f"{error}: {written[:_EXCERPT]}", ""
        return self._fault(request, text), text

    def _keep(self, request: GenerationRequest, result: GenerationResult) -> None:
        """Put a new text in the store before anything is made of it."""
        if result.text is None:
            return
        self._tally.generated += 1
        self._tally.tokens_in += result.tokens_in
        self._tally.tokens_out += result.tokens_out
        if self._writer:
            self._writer.add(
                StoredText(
                    fingerprint=self._fingerprints[request.key],
                    attempt=request.attempt,
                    generator=self._generator.name,
                    prompt_version=self._generator.prompt_version,
                    text=result.text,
                    truncated=result.truncated,
                    tokens_in=result.tokens_in,
                    tokens_out=result.tokens_out,
                    created_at=datetime.now(UTC),
                )
            )

    def _count(self, reply: Reply, is_reused: bool) -> None:
        tally = self._tally
        tally.done += 1
        tally.reused += is_reused
        if reply.failure is not None:
            tally.failed += 1
            tally.refused += reply.refused is not None
            # What stands behind a colon is the text a reason is about.
            tally.reasons[reply.failure.split(": ")[0]] += 1
        now = time.monotonic()
        tally.seconds = now - self._began
        if now - self._reported >= _REPORT_EVERY_S:
            self._reported = now
            self._say(tally.progress())


def _one_batch_ahead(batches: Iterator[list[GenerationRequest]]) -> Iterator[GenerationRequest]:
    """The requests of all batches; the next batch is made while one is being asked."""
    with ThreadPoolExecutor(1, thread_name_prefix="look-up") as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield from batch


def _drained(arrived: "queue.SimpleQueue[_Arrived]") -> Iterator[_Arrived]:
    while not arrived.empty():
        yield arrived.get()


def _result(key: str, stored: StoredText) -> GenerationResult:
    return GenerationResult(
        key,
        text=stored.text,
        truncated=stored.truncated,
        tokens_in=stored.tokens_in,
        tokens_out=stored.tokens_out,
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


class Generation(dg.ConfigurableResource):
    """How generators are asked: through the generation store of the storage root, within a limit of failures.

    `prices`: of a model's name, what a million tokens read and a million tokens written cost.
    """

    storage: dg.ResourceDependency[Storage]
    max_failed_share: float = 0.2
    prices: dict[str, list[float]] = Field(default_factory=dict)

    @property
    def store(self) -> GenerationStore:
        """The kept texts of all models."""
        return GenerationStore(self.storage)

    def asking(self, context: dg.AssetExecutionContext, max_failed_share: float | None = None) -> Asking:
        """An `Asking` for the materialization that is under way, with this limit of failures or its own."""
        about = Materialization(
            asset=context.asset_key.to_user_string(),
            partition=context.partition_key if context.has_partition_key else None,
            run_id=context.op_execution_context.run_id,
            say=context.log.info,
        )
        limit = self.max_failed_share if max_failed_share is None else max_failed_share
        return Asking(self.store, limit, about)

    def price(self, generator: str, tokens_in: int, tokens_out: int) -> float | None:
        """What these tokens cost, None where the user gave no price for the model."""
        if generator not in self.prices:
            return None
        per_million_in, per_million_out = self.prices[generator]
        return (tokens_in * per_million_in + tokens_out * per_million_out) / 1e6
