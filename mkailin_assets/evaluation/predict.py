"""What a text generator answers to PubMedQA's questions: yes, no or maybe.

Under both protocols of PubMedQA: `reasoning_required` shows the abstract without its conclusion,
`question_only` does not. The long answer, which is the conclusion, is never shown.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import polars as pl
from pydantic import ValidationError

from mkailin_assets.adapters import fingerprint
from mkailin_assets.evaluation.tables import BenchmarkAnswer
from mkailin_resources.generation import Ask, Reply
from mkailin_resources.models.interface import Answer, Document, GenerationRequest, Section, TextGenerator

Protocol = Literal["reasoning_required", "question_only"]
PROTOCOLS: tuple[Protocol, ...] = ("reasoning_required", "question_only")
NLM_CATEGORIES = ("BACKGROUND", "OBJECTIVE", "METHODS", "RESULTS", "CONCLUSIONS")


def predict_with_generator(generator: TextGenerator, items: pl.DataFrame, ask: Ask) -> pl.DataFrame:
    """What a text generator answers to PubMedQA's among the items (columns `ITEMS`): table `BenchmarkAnswer`.

    A failure, and an answer without a decision, is no answer, and wrong.
    """
    schema = BenchmarkAnswer.create_empty().schema
    parts = [pl.DataFrame(schema=schema)]
    of_pubmedqa = items.filter(pl.col("kind") == "pubmedqa")
    for (benchmark,), rows in of_pubmedqa.group_by("benchmark", maintain_order=True):
        asked = rows.to_dicts()
        for protocol in PROTOCOLS:
            requests = [_request(item, protocol) for item in asked]
            replies = ask(generator, requests, lambda _, text: _no_decision(text))
            answered = [_row(item, replies[item["item"]]) for item in asked]
            about = {
                "benchmark": benchmark,
                "task": f"pubmedqa_{protocol}",
                "form": "generation",
                "model": generator.name,
                "model_fingerprint": fingerprint(generator.name, generator.prompt_version, generator.version),
                "task_fingerprint": fingerprint([replies[item["item"]].fingerprint for item in asked]),
            }
            parts.append(pl.DataFrame([about | row for row in answered], schema=schema))
    return pl.concat(parts)


def _row(item: Mapping[str, Any], reply: Reply) -> dict[str, Any]:
    decision = Answer.model_validate_json(reply.text).decision if reply.text is not None else None
    return {
        "item": item["item"],
        "gold": item["gold"],
        "answer": decision,
        "right": decision == item["gold"],
        "written": reply.refused if reply.text is None else reply.text,
        "failure": reply.failure,
    }


def _request(item: Mapping[str, Any], protocol: Protocol) -> GenerationRequest:
    sections: tuple[Section, ...] = ()
    if protocol == "reasoning_required":
        labels: Sequence[str | None] = item["labels"] or [None] * len(item["context"])
        sections = tuple(
            Section(label, label if label in NLM_CATEGORIES else None, text)
            for label, text in zip(labels, item["context"], strict=True)
        )
    document = Document(title=item["question"], sections=sections)
    return GenerationRequest(key=item["item"], task="answer", document=document, question=item["question"])


def _no_decision(text: str) -> str | None:
    """Why a text decides nothing; None when it is an answer with a decision."""
    try:
        decision = Answer.model_validate_json(text).decision
    except ValidationError as error:
        return f"not an answer: {error.errors()[0]['msg']}"
    return None if decision else "the answer has no decision"
