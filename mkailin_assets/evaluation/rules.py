"""How models are asked the questions of benchmarks."""

from typing import Literal

from pydantic import BaseModel, Field

Form = Literal["likelihood", "generation"]
Engine = Literal["transformers", "vllm"]


class EvaluationRules(BaseModel, extra="forbid", frozen=True):
    """What a person may set of the evaluation (`MKAILIN_EVALUATION_RULES`)."""

    forms: tuple[Form, ...] = Field(
        default=("likelihood", "generation"),
        min_length=1,
        description="How an answer is found: the likeliest of the choices, or read from what is written",
    )
    chat_template: bool = Field(
        default=True,
        description="Put the questions through the chat template that a model was tuned with; false: as they "
        "are, which is how most published figures were made",
    )
    engine: Engine = Field(default="transformers", description="What runs the models")
    batch_size: int = Field(default=16, ge=1, description="Prompts in memory at once")
