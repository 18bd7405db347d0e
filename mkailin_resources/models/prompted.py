"""A language model under a prompt: requests are rendered, replies are read."""

import hashlib
import json
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from threading import Lock
from typing import ClassVar

from mkailin_resources.models.interface import GenerationRequest, GenerationResult, NotAReply, Task
from mkailin_resources.models.language_model import LanguageModel, Prompt, Sampling
from mkailin_resources.models.prompting import PromptFile, Rendered, read_reply

# What a reply may take, in tokens; twice what a long one of its kind has.
MAX_TOKENS: dict[Task, int] = {"question": 160, "evaluation": 320, "answer": 1024, "entailment": 320}
# Asked again at temperature 0, a model would say the same again.
RETRY_TEMPERATURE = 0.7
NOTHING_TO_ANSWER_FROM = "there is no text to answer from"
# Rendered requests that are remembered, from their fingerprint until their reply is read.
_REMEMBERED = 4_096


@dataclass(frozen=True)
class PromptedGenerator:
    """A `TextGenerator`: one language model asked through one prompt.

    `max_characters` bounds the source and contexts that a prompt shows.

    The fingerprint of a request is made of the model's name, revision and adapter, the sampling, the prompt's
    version and content, and the rendered messages. Left out, each for its reason:

    - key: names the row, not the text
    - attempt: further attempts are kept beside the first, under the same fingerprint
    - engine, address, batch size, concurrency, time-outs: where and how fast a model runs
    - API key: who pays
    - prices, licences, the limit of failures: what is done with a text
    - how a reply is read and judged: what is kept is the model's own words, read anew each time
    """

    is_paid: ClassVar[bool] = True

    model: LanguageModel
    prompt: PromptFile
    temperature: float
    max_characters: int
    _rendered: "OrderedDict[GenerationRequest, Rendered]" = field(
        default_factory=OrderedDict, init=False, repr=False, compare=False
    )
    # Looked up in one thread, asked in another and read in a third.
    _lock: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def prompt_version(self) -> str:
        """The prompt's name, version and hash."""
        return self.prompt.version

    @property
    def version(self) -> str:
        """Model, prompt, and the settings that decide a text."""
        return f"{self.model.version}:{self.prompt.version}:{self.temperature:g}:{self.max_characters}"

    def check(self) -> None:
        """Raise `ModelUnavailable` where the model cannot be asked now."""
        self.model.check()

    def fingerprint(self, request: GenerationRequest) -> str:
        """Hash of all that decides the text of a request, 32 hexadecimal digits."""
        rendered = self._render(request)
        decided = [
            *self.model.identity,
            asdict(self._sampling(0)),
            RETRY_TEMPERATURE,
            self.prompt.version,
            rendered.messages,
            rendered.json_schema,
        ]
        payload = json.dumps(decided, ensure_ascii=False)
        return hashlib.blake2b(payload.encode(), digest_size=16).hexdigest()

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationResult]:
        """One result for each request as it finishes; raises `ModelUnavailable`.

        Where there is no sentence to answer from, the model is not asked.
        """
        unanswerable: deque[str] = deque()

        def prompts() -> Iterator[Prompt]:
            for request in requests:
                if request.task == "answer" and not self._render(request).sentences:
                    unanswerable.append(request.key)
                else:
                    yield self.rendered(request)

        yield from self.model.complete(prompts())
        for key in unanswerable:
            yield GenerationResult(key, failure=NOTHING_TO_ANSWER_FROM)

    def read(self, request: GenerationRequest, text: str) -> str:
        """What a reply says, as `TextGenerator.read` promises."""
        said = read_reply(self.prompt.task, self._render(request), text)
        if said is text:
            raise NotAReply("the reply has not the form asked for, or rests on sentences it was not shown")
        return said

    def rendered(self, request: GenerationRequest) -> Prompt:
        """A request as the model is given it."""
        rendered = self._render(request)
        return Prompt(request.key, rendered.messages, rendered.json_schema, self._sampling(request.attempt))

    def _sampling(self, attempt: int) -> Sampling:
        temperature = max(self.temperature, RETRY_TEMPERATURE) if attempt else self.temperature
        return Sampling(MAX_TOKENS[self.prompt.task], temperature=temperature, seed=attempt)

    def _render(self, request: GenerationRequest) -> Rendered:
        """Render, or take what was rendered for the same input a moment ago."""
        same = replace(request, key="", attempt=0)
        with self._lock:
            rendered = self._rendered.get(same)
        if rendered is None:
            rendered = self.prompt.render(same, self.max_characters)
            with self._lock:
                self._rendered[same] = rendered
                if len(self._rendered) > _REMEMBERED:
                    self._rendered.popitem(last=False)
        return rendered
