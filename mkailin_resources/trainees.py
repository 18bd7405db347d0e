"""The models that the platform itself trains: what they start from, and how a trained one is asked."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from mkailin_resources.models.interface import GenerationResult, TextGenerator
from mkailin_resources.models.language_model import LanguageModel, Prompt
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.models.prompted import PromptedGenerator
from mkailin_resources.models.prompting import PromptFile

TRAINED_PROMPT = "question_tuned"
Trainee = Literal["domain", "general", "evaluator"]
TRAINEES: tuple[Trainee, ...] = get_args(Trainee)
EvaluatorKind = Literal["reward", "judge", "cold_start"]


@dataclass(frozen=True)
class TrainedModel:
    """A `LanguageModel` with an adapter of the platform's own, under a name that shows no folder."""

    engine: LanguageModel
    name: str

    @property
    def identity(self) -> tuple[str, ...]:
        """That of the engine: a checkpoint is known by its content."""
        return self.engine.identity

    @property
    def version(self) -> str:
        """Its name, which carries the fingerprint of what made it."""
        return self.name

    def check(self) -> None:
        """Raise `ModelUnavailable` where it cannot be asked."""
        self.engine.check()

    def complete(self, prompts: Iterable[Prompt]) -> Iterator[GenerationResult]:
        """See `LanguageModel`."""
        return self.engine.complete(prompts)


@dataclass(frozen=True)
class Trainees:
    """What is trained from what, by the settings.

    `bases`: of each trainee its base model, None for the small Llama that is made from the corpus. `is_on`:
    whether generators and evaluator are trained at all. `engine` runs a base with an adapter. `judge` is the
    language model that judges pairs of questions, where the evaluator is one.
    """

    is_on: bool
    bases: Mapping[Trainee, ModelName | None]
    evaluator: EvaluatorKind
    engine: Callable[[ModelName], LanguageModel] = field(repr=False)
    judge: TextGenerator | None = None
    temperature: float = 0.0

    def generator(self, model: ModelName, name: str, max_characters: int) -> TextGenerator:
        """A trained question generator, asked through the prompt it was trained with."""
        return PromptedGenerator(
            model=TrainedModel(self.engine(model), name),
            prompt=PromptFile.load(TRAINED_PROMPT),
            temperature=self.temperature,
            max_characters=max_characters,
        )

    def check(self) -> None:
        """Raise `ModelUnavailable` where a base or the judge is missing; quick, downloads nothing."""
        for base in {base for base in self.bases.values() if base} if self.is_on else ():
            self.engine(base).check()
        if self.judge:
            self.judge.check()

    def version(self, trainee: Trainee) -> str:
        """What the settings say of a trainee; changes with its base."""
        base = self.bases[trainee]
        return f"{base.version() if base else 'small Llama'}" if self.is_on else "not trained"

    def evaluator_version(self) -> str:
        """What the settings say of the evaluator."""
        if self.judge:
            return f"judge {self.judge.version}"
        return self.evaluator if self.evaluator == "cold_start" else f"reward {self.version('evaluator')}"
