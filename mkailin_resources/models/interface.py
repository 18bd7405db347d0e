"""What every text generator takes and gives, whether rules or a language model stand behind it.

A request carries its own key; results come back in any order, each a text or a failure with a reason.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

Task = Literal["question", "evaluation", "answer", "entailment"]
Decision = Literal["yes", "no", "maybe"]
EntailmentLabel = Literal["entailed", "neutral", "contradicted"]


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
    """One call: a question about a document, the better of two, an answer, or whether an answer follows.

    `answer` and `decision` are those to be checked against document and contexts. `attempt` counts from 0; a
    later one asks the same once more, of a model with another seed.
    """

    key: str
    task: Task
    document: Document
    question: str | None = None
    contexts: tuple[str, ...] = ()
    rival: str | None = None
    answer: str | None = None
    decision: Decision | None = None
    attempt: int = 0


@dataclass(frozen=True)
class GenerationResult:
    """What became of a request: `text`, or `failure` with the reason; never both, never neither.

    `truncated`: the text was cut off at the limit of tokens. Tokens are those the model read and wrote.
    """

    key: str
    text: str | None = None
    failure: str | None = None
    truncated: bool = False
    tokens_in: int = 0
    tokens_out: int = 0


class Answer(BaseModel):
    """An answer as text of a result: long answer, decision, and the sentences it rests on."""

    model_config = ConfigDict(extra="forbid")

    long_answer: str = Field(min_length=1)
    decision: Decision | None
    evidence: list[str] = Field(min_length=1)


class Verdict(BaseModel):
    """An evaluation as text of a result: which of the two questions is better, and why."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(min_length=1)
    preferred: Literal["first", "second"]


class Entailment(BaseModel):
    """A check of an answer as text of a result: whether it follows from what was given, and why."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(min_length=1)
    label: EntailmentLabel


class ModelUnavailable(RuntimeError):
    """A model cannot be asked at all; the message says what to install, start or set."""


class NotAReply(ValueError):
    """A text has not the form that was asked for; the message says what is wrong."""


class TextGenerator(Protocol):
    """A model or agent that writes questions, evaluations, answers or checks of answers."""

    @property
    def name(self) -> str:
        """What rows call it."""
        ...

    @property
    def prompt_version(self) -> str:
        """Version of its prompt or rules, for the rows."""
        ...

    @property
    def is_paid(self) -> bool:
        """Whether a result costs money or GPU time, and is kept in the generation store."""
        ...

    @property
    def version(self) -> str:
        """Changes with all that may change its texts, so that tables made before count as out of date.

        Quick: no weights are read.
        """
        ...

    def check(self) -> None:
        """Raise `ModelUnavailable` where it cannot be asked now; quick, before any work is done."""
        ...

    def fingerprint(self, request: GenerationRequest) -> str:
        """Hash of all that decides the text of a request, the same for each of its attempts."""
        ...

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationResult]:
        """One result for each request as it finishes, in any order; requests are taken as there is room."""
        ...

    def read(self, request: GenerationRequest, text: str) -> str:
        """What a result's text says: a question, or the JSON of an `Answer`, `Verdict` or `Entailment`.

        Raises `NotAReply` for a text that has not the form asked for.
        """
        ...


class GeneratorFault(RuntimeError):
    """A generator broke its contract: results missing, twice, or for requests that nobody made."""
