"""What every text-generation back end takes and gives.

A request carries its own key; results come back in any order, each a text or a failure with a reason.
An answer is the JSON of `Answer`, whoever writes it.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

Task = Literal["question", "answer"]
Decision = Literal["yes", "no", "maybe"]


@dataclass(frozen=True)
class Section:
    """A part of an abstract: label as printed, NLM category, text."""

    label: str | None
    category: str | None
    text: str


@dataclass(frozen=True)
class Document:
    """A citation as generators read it."""

    title: str
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class GenerationRequest:
    """One call: a question about a document, or the answer to a question from a document and contexts."""

    key: str
    task: Task
    document: Document
    question: str | None = None
    contexts: tuple[str, ...] = ()


@dataclass(frozen=True)
class GenerationResult:
    """What became of a request: `text`, or `failure` with the reason; never both, never neither."""

    key: str
    text: str | None = None
    failure: str | None = None


class Answer(BaseModel):
    """An answer as text of a result: long answer, decision, and the sentences it rests on."""

    model_config = ConfigDict(extra="forbid")

    long_answer: str = Field(min_length=1)
    decision: Decision | None
    evidence: list[str] = Field(min_length=1)


class TextGenerator(Protocol):
    """A model or agent that writes questions or answers."""

    name: str
    prompt_version: str

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationResult]:
        """One result for each request, in any order."""
        ...


def fingerprint(generator: TextGenerator, request: GenerationRequest) -> str:
    """Hash of what decides a result: generator, prompt version and input.

    Left out: the request's key, which names the row and not the text.
    """
    decided = asdict(request)
    del decided["key"]
    payload = json.dumps([generator.name, generator.prompt_version, decided], ensure_ascii=False)
    return hashlib.blake2b(payload.encode(), digest_size=16).hexdigest()


class GeneratorFault(RuntimeError):
    """A generator broke its contract: results missing, twice, or for requests that nobody made."""


def generate_all(
    generator: TextGenerator, requests: Sequence[GenerationRequest]
) -> dict[str, GenerationResult]:
    """The result of each request by its key; raises `GeneratorFault` unless there is exactly one for each."""
    results: dict[str, GenerationResult] = {}
    wanted = {request.key for request in requests}
    for result in generator.generate(requests):
        if result.key not in wanted:
            raise GeneratorFault(f"{generator.name} gave a result for {result.key!r}, which was not asked")
        if result.key in results:
            raise GeneratorFault(f"{generator.name} gave two results for {result.key!r}")
        if (result.text is None) == (result.failure is None):
            raise GeneratorFault(
                f"{generator.name} gave neither text nor failure, or both, for {result.key!r}"
            )
        results[result.key] = result
    missing = sorted(wanted - results.keys())
    if missing:
        raise GeneratorFault(
            f"{generator.name} left {len(missing)} of {len(wanted)} requests without result, "
            f"{missing[0]!r} first"
        )
    return results
