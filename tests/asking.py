"""Generators that write what a test says, and the asking of them."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mkailin_resources.generation import Asking, Materialization
from mkailin_resources.generation_store import GenerationStore
from mkailin_resources.models.interface import GenerationRequest, GenerationResult, ModelUnavailable
from mkailin_resources.storage import Storage

Write = Callable[[GenerationRequest], GenerationResult | None]


@dataclass
class Writer:
    """A `TextGenerator` that writes what `write` says, nothing for None, and remembers what it was asked."""

    write: Write
    name: str = "scripted"
    prompt_version: str = "7"
    is_paid: bool = False
    is_there: bool = True
    asked: list[GenerationRequest] = field(default_factory=list)

    @property
    def version(self) -> str:
        return f"{self.name}:{self.prompt_version}"

    def check(self) -> None:
        if not self.is_there:
            raise ModelUnavailable("start it, or set MKAILIN_MODEL")

    def fingerprint(self, request: GenerationRequest) -> str:
        text = repr((self.name, self.prompt_version, request.document, request.question, request.contexts))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationResult]:
        for request in requests:
            self.asked.append(request)
            result = self.write(request)
            if result is not None:
                yield result

    def read(self, request: GenerationRequest, text: str) -> str:
        return text


def says(text: str) -> Write:
    """The same text for each request."""
    return lambda request: GenerationResult(request.key, text=text, tokens_in=100, tokens_out=10)


def asking(root: Path, max_failed_share: float = 1.0, said: list[str] | None = None) -> Asking:
    """Asking on behalf of a test, with the generation store of a storage root."""
    about = Materialization("candidate_questions", "C23", "run", [].append if said is None else said.append)
    return Asking(GenerationStore(Storage(root=str(root))), max_failed_share, about)


# For rules and scripted generators that nobody pays for: nothing is stored anywhere.
unpaid = asking(Path("/nowhere"))
