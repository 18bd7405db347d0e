"""A language model under a prompt: what decides a fingerprint, and what a model is asked."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import pytest

from mkailin_resources.models.interface import Document, GenerationRequest, GenerationResult, Section
from mkailin_resources.models.language_model import Prompt
from mkailin_resources.models.prompted import NOTHING_TO_ANSWER_FROM, PromptedGenerator
from mkailin_resources.models.prompting import PromptFile

DOCUMENT = Document("Willow tea and fever.", (Section("RESULTS", "RESULTS", "Willow tea reduced fever."),))
ASKED = GenerationRequest("1", "question", DOCUMENT)
ANSWERED = GenerationRequest("1", "answer", DOCUMENT, "Does willow tea reduce fever?", ("Bark\nBrown.",))


@dataclass
class Model:
    """A `LanguageModel` that says one thing and remembers its prompts."""

    identity: tuple[str, ...] = ("model", "revision", "adapter")
    name: str = "model"
    version: str = "model"
    prompts: list[Prompt] = field(default_factory=list)

    def check(self) -> None:
        """It is there."""

    def complete(self, prompts: Iterable[Prompt]) -> Iterator[GenerationResult]:
        for prompt in prompts:
            self.prompts.append(prompt)
            yield GenerationResult(prompt.key, text="Yes.")


def generator(**changed: object) -> PromptedGenerator:
    settings = {
        "model": Model(),
        "prompt": PromptFile.load("question_domain"),
        "temperature": 0.0,
        "max_characters": 24_000,
    }
    return PromptedGenerator(**(settings | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changed",
    [
        {"model": Model(identity=("other", "revision", "adapter"))},
        {"model": Model(identity=("model", "other", "adapter"))},
        {"model": Model(identity=("model", "revision", "other"))},
        {"temperature": 0.5},
        {"prompt": PromptFile.load("question_general")},
        {"prompt": replace(PromptFile.load("question_domain"), version="question_domain-2-0")},
    ],
)
def test_what_decides_a_text_is_in_its_fingerprint(changed: dict[str, object]) -> None:
    assert generator(**changed).fingerprint(ASKED) != generator().fingerprint(ASKED)


def test_the_input_is_in_the_fingerprint_as_it_is_shown() -> None:
    answerer = generator(prompt=PromptFile.load("answer"))
    same = answerer.fingerprint(ANSWERED)
    for other in (
        replace(ANSWERED, question="Does willow bark reduce fever?"),
        replace(ANSWERED, contexts=("Bark\nWhite.",)),
        replace(ANSWERED, document=replace(DOCUMENT, title="Willow.")),
    ):
        assert answerer.fingerprint(other) != same
    unseen = replace(ANSWERED, document=replace(DOCUMENT, title="Willow  tea\u200b and\nfever."))
    assert answerer.fingerprint(unseen) == same


def test_what_decides_no_text_is_not_in_the_fingerprint() -> None:
    assert generator(model=Model(name="alias")).fingerprint(ASKED) == generator().fingerprint(ASKED)
    assert generator(max_characters=9_000).fingerprint(ASKED) == generator().fingerprint(ASKED)
    assert generator().fingerprint(replace(ASKED, key="2", attempt=1)) == generator().fingerprint(ASKED)


def test_a_second_attempt_draws_with_another_seed() -> None:
    model = Model()
    list(generator(model=model).generate([ASKED, replace(ASKED, key="2", attempt=1)]))
    first, second = (prompt.sampling for prompt in model.prompts)
    assert first.temperature == 0
    assert second.temperature > 0
    assert first.seed != second.seed


def test_a_model_is_not_asked_to_answer_from_nothing() -> None:
    model = Model()
    empty = replace(ANSWERED, key="2", document=Document("Title.", ()), contexts=())
    answerer = generator(model=model, prompt=PromptFile.load("answer"))
    results = {result.key: result for result in answerer.generate([empty, ANSWERED])}
    assert results["2"].failure == NOTHING_TO_ANSWER_FROM
    assert results["1"].text == "Yes."
    assert [prompt.key for prompt in model.prompts] == ["1"]
