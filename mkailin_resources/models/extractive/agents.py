"""The embedded default: agents that extract questions and answers from an abstract by rule.

No model weights, no network; the same text gives the same result. Each is a `TextGenerator`. The rules
are imported when the first request comes: they compile hundreds of patterns.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from mkailin_resources.models.interface import GenerationRequest, GenerationResult


class _Rules(ABC):
    """What the agents share: nothing to install, pay or read, and a reason where the rules find nothing."""

    name: str
    prompt_version = "rules-1"
    is_paid = False

    @abstractmethod
    def _write(self, request: GenerationRequest) -> str:
        """The text for a request; raises `NotAClaim` with the reason why there is none."""

    @property
    def version(self) -> str:
        """Agent and version of its rules."""
        return f"{self.name}:{self.prompt_version}"

    def check(self) -> None:  # noqa: B027 (nothing to check is what they share)
        """Rules are always there."""

    def fingerprint(self, request: GenerationRequest) -> str:
        """Hash of agent, version of the rules and input; the key and the attempt decide nothing."""
        decided = asdict(request)
        del decided["key"], decided["attempt"]
        payload = json.dumps([self.name, self.prompt_version, decided], ensure_ascii=False)
        return hashlib.blake2b(payload.encode(), digest_size=16).hexdigest()

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationResult]:
        """A text, or the reason why there is none, for each request, in order."""
        from mkailin_resources.models.extractive.clauses import NotAClaim

        for request in requests:
            try:
                yield GenerationResult(request.key, text=self._write(request))
            except NotAClaim as reason:
                yield GenerationResult(request.key, failure=str(reason))

    def read(self, request: GenerationRequest, text: str) -> str:
        """The text itself."""
        return text


class StatementTitleQuestioner(_Rules):
    """Asks what the title states (the heuristic of PubMedQA's artificial set)."""

    name = "extractive-statement-title"

    def _write(self, request: GenerationRequest) -> str:
        from mkailin_resources.models.extractive.statement_titles import question_from_title

        return question_from_title(request.document)


class ConclusionQuestioner(_Rules):
    """Asks about the main claim of the conclusion."""

    name = "extractive-conclusion"

    def _write(self, request: GenerationRequest) -> str:
        from mkailin_resources.models.extractive.conclusions import question_from_conclusion

        return question_from_conclusion(request.document)


class ConclusionAnswerer(_Rules):
    """Answers with the conclusion; reads yes, no or maybe from its polarity; cites what it rests on."""

    name = "extractive-conclusion-answer"

    def _write(self, request: GenerationRequest) -> str:
        from mkailin_resources.models.extractive.answers import answer_from_conclusion

        return answer_from_conclusion(request.document, request.question).model_dump_json()
