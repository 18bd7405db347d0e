"""What every engine that runs a language model takes and gives: messages in, text out.

The seam between prompts and engines: transformers and vLLM in this process, an endpoint, and whatever runs
models on a cluster.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from mkailin_resources.models.interface import GenerationResult


class Message(NamedTuple):
    """A part of a conversation."""

    role: Literal["system", "user"]
    content: str


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn: temperature 0 takes the likeliest; the seed is that of the one request."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Prompt:
    """A rendered request. `json_schema` is the JSON Schema, as text, that the reply must satisfy."""

    key: str
    messages: tuple[Message, ...]
    json_schema: str
    sampling: Sampling


class LanguageModel(Protocol):
    """A language model on some engine."""

    @property
    def name(self) -> str:
        """What rows and price lists call it."""
        ...

    @property
    def identity(self) -> tuple[str, ...]:
        """What decides its texts besides the prompt: name, revision, hash of the adapter; not where it runs.

        May read files of the model, and is then remembered.
        """
        ...

    @property
    def version(self) -> str:
        """Changes with its identity; quick, no weights are read."""
        ...

    def check(self) -> None:
        """Raise `ModelUnavailable`, saying what to install, start or set, if it cannot be asked."""
        ...

    def complete(self, prompts: Iterable[Prompt]) -> Iterator[GenerationResult]:
        """One result for each prompt as it finishes, in any order.

        Prompts are taken as there is room for them, so memory does not grow with their number. A prompt
        that this model cannot take (too long) is a failure; a model that is gone raises `ModelUnavailable`.
        """
        ...
