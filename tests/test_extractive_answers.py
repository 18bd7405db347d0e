"""The answer agent: the conclusion as answer, yes, no or maybe from its polarity, evidence verbatim."""

import json
from pathlib import Path

import pytest

from mkailin_assets.intervals import accuracy, macro_f1
from mkailin_resources.models.extractive import ConclusionAnswerer
from mkailin_resources.models.extractive.decisions import decide
from mkailin_resources.models.interface import (
    Answer,
    Document,
    GenerationRequest,
    GenerationResult,
    Section,
)

QUESTION = "Does balance training reduce falls in older adults?"
RESULTS = "Adults walked more. Falls fell by half with balance training. Nobody was hurt."


def answer(conclusion: str, question: str | None = QUESTION) -> GenerationResult:
    sections = (Section("RESULTS", "RESULTS", RESULTS), Section("CONCLUSIONS", "CONCLUSIONS", conclusion))
    request = GenerationRequest("1", "answer", Document("Falls.", sections), question)
    [result] = ConclusionAnswerer().generate([request])
    return result


def parsed(result: GenerationResult) -> Answer:
    assert result.text is not None, result.failure
    return Answer.model_validate_json(result.text)


def test_the_long_answer_is_the_conclusion_and_the_evidence_is_verbatim() -> None:
    conclusion = "Walking is popular. Balance training reduces falls in older adults."
    found = parsed(answer(conclusion))
    assert found.long_answer == conclusion
    assert found.decision == "yes"
    assert found.evidence == [
        "Balance training reduces falls in older adults.",
        "Walking is popular.",
        "Falls fell by half with balance training.",
    ]


@pytest.mark.parametrize(
    ("question", "conclusion", "decision"),
    [
        (QUESTION, "Balance training reduces falls in older adults.", "yes"),
        (QUESTION, "Balance training did not reduce falls in older adults.", "no"),
        (QUESTION, "There is no evidence that balance training reduces falls.", "no"),
        (QUESTION, "Balance training failed to reduce falls in older adults.", "no"),
        (
            QUESTION,
            "Balance training reduces falls in older women. However, in older men it does not reduce falls.",
            "maybe",
        ),
        (QUESTION, "Balance training reduces falls in older adults, without complications.", "yes"),
        ("Is pain the same in men and women?", "Pain was stronger and lasted longer: women had more.", "no"),
        ("Is pain the same in men and women?", "Pain was similar in men and women.", "yes"),
        ("Can the second scan be omitted?", "The second scan is not necessary.", "yes"),
        (
            QUESTION,
            "Balance training reduces falls in older adults. Larger trials are not yet available and needed.",
            "yes",
        ),
    ],
)
def test_the_decision_is_the_polarity_of_the_conclusion(
    question: str, conclusion: str, decision: str
) -> None:
    assert decide(question, conclusion) == decision


def test_an_open_question_has_no_yes_or_no() -> None:
    open_question = "What is the effect of balance training on falls?"
    assert parsed(answer("Balance training reduces falls.", open_question)).decision is None
    led = "In older adults, what prevents falls?"
    assert parsed(answer("Balance training prevents falls.", led)).decision is None
    asked = "In older adults, does training prevent falls?"
    assert parsed(answer("Balance training prevents falls.", asked)).decision == "yes"


def test_without_question_or_abstract_there_is_a_failure_with_a_reason() -> None:
    assert answer("Balance training reduces falls.", None).failure == "there is no question to answer"
    bare = GenerationRequest("1", "answer", Document("Falls.", ()), QUESTION)
    [result] = ConclusionAnswerer().generate([bare])
    assert result.failure == "the citation has no abstract to answer from"


def test_decisions_agree_with_the_experts_of_pubmedqa_well_above_the_majority(real_data: Path) -> None:
    items = json.loads((real_data / "pubmedqa" / "pqal_dev500.json").read_text(encoding="utf-8"))
    requests = [
        GenerationRequest(
            pmid,
            "answer",
            Document(
                "",
                (
                    *(
                        Section(label, None, text)
                        for label, text in zip(item["LABELS"], item["CONTEXTS"], strict=True)
                    ),
                    Section("CONCLUSIONS", "CONCLUSIONS", item["LONG_ANSWER"]),
                ),
            ),
            item["QUESTION"],
        )
        for pmid, item in items.items()
    ]
    results = {result.key: result for result in ConclusionAnswerer().generate(requests)}
    gold = [items[request.key]["final_decision"] for request in requests]
    ours = [parsed(results[request.key]).decision or "none" for request in requests]
    assert len(gold) == 500
    assert "none" not in ours
    right = accuracy(gold, ours)
    majority = gold.count("yes") / len(gold)
    # Reached: 0.752 (0.712 to 0.788); the whole interval lies above the majority, 0.552.
    assert right.value > 0.72
    assert right.low > majority + 0.1
    assert macro_f1(gold, ours).value > 0.57
