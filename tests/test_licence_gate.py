"""No model's text trains others against its licence unless somebody says why it may."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import mkailin_resources.models
from mkailin_assets.release.facts import ModelUse
from mkailin_assets.release.licence_gate import EXCEPTIONS, LicenceRefused, gate, model_uses
from mkailin_resources.models.prompting import PromptFile

FORBIDS, UNKNOWN, ALLOWS = "meta-llama/Llama-2-7b-chat-hf", "some-lab/some-model", "Qwen/Qwen2.5-7B-Instruct"
NAMES_IT = "meta-llama/Llama-3.1-8B-Instruct"
PROMPTS = Path(mkailin_resources.models.__file__).parent / "prompts"


def counts(*rows: tuple[str, str, bool, int] | tuple[str, str, bool, int, str | None]) -> pl.DataFrame:
    schema = {
        "name": pl.String,
        "role": pl.String,
        "wrote": pl.Boolean,
        "rows": pl.Int64,
        "prompt_version": pl.String,
    }
    return pl.DataFrame([(*row, None)[:5] for row in rows], schema=schema, orient="row")


def uses(*rows: Any) -> list[ModelUse]:
    return model_uses(counts(*rows), {})


def test_text_that_may_train_others_passes() -> None:
    gate(uses((ALLOWS, "question", True, 7), ("extractive-conclusion", "answer", True, 7)))
    gate(uses((NAMES_IT, "answer", True, 7)))
    gate([])


@pytest.mark.parametrize("role", ["question", "answer"])
@pytest.mark.parametrize("name", [FORBIDS, UNKNOWN])
def test_text_that_may_not_or_has_to_be_asked_for_is_refused(name: str, role: str) -> None:
    with pytest.raises(LicenceRefused, match=re.escape(name)):
        gate(uses((ALLOWS, "question", True, 7), (name, role, True, 1)))


def test_the_refusal_names_each_model_its_clause_its_rows_and_what_to_do() -> None:
    refused = uses(
        (FORBIDS, "question", True, 1200, "rules-1"),
        (FORBIDS, "question", True, 34, "rules-2"),
        (FORBIDS, "answer", True, 1),
        (UNKNOWN, "answer", True, 300),
        (ALLOWS, "answer", True, 5000),
        ("claude-sonnet-4-5", "preference", False, 20),
    )
    with pytest.raises(LicenceRefused) as refusal:
        gate(refused)
    said = str(refusal.value)
    of_llama = next(line for line in said.splitlines() if line.startswith(f"- {FORBIDS}"))
    assert "1,234 questions and 1 answer." in of_llama
    assert "Llama 2 Community License" in of_llama
    assert "1.b.v: outputs must not improve any other large language model" in of_llama
    assert "https://ai.meta.com/llama/license/" in of_llama
    of_unknown = next(line for line in said.splitlines() if line.startswith(f"- {UNKNOWN}"))
    assert "300 answers" in of_unknown
    assert "read the licence of the model" in of_unknown
    assert ALLOWS not in said
    assert "claude" not in said
    assert "MKAILIN_ANSWER_MODEL" in said
    # What it proposes to set is a JSON object that names the models that were refused.
    proposed = json.loads(re.findall(rf"{EXCEPTIONS}='(.*)'", said)[0])
    assert set(proposed) == {FORBIDS, UNKNOWN}
    gate(model_uses(counts((FORBIDS, "question", True, 1), (UNKNOWN, "answer", True, 1)), proposed))


def test_a_stated_exception_lets_its_model_pass_and_no_other() -> None:
    stated = {FORBIDS: "Meta allowed it in writing, 2026-05-01"}
    rows = counts((FORBIDS, "question", True, 3), (UNKNOWN, "answer", True, 3))
    made = model_uses(rows, stated)
    assert {use.name: use.exception for use in made} == {**stated, UNKNOWN: None}
    gate(use for use in made if use.name == FORBIDS)
    with pytest.raises(LicenceRefused) as refusal:
        gate(made)
    assert FORBIDS not in str(refusal.value)


def test_an_exception_holds_for_the_model_of_exactly_that_name() -> None:
    rows = counts((f"{FORBIDS}@0123abc", "question", True, 3))
    with pytest.raises(LicenceRefused):
        gate(model_uses(rows, {FORBIDS: "allowed for another revision"}))


def test_exceptions_that_nobody_needs_are_left_out() -> None:
    stated = {
        ALLOWS: "needs none",
        FORBIDS: "only judged",
        "never/asked": "not here",
    }
    made = model_uses(counts((ALLOWS, "question", True, 3), (FORBIDS, "preference", False, 3)), stated)
    assert [use.exception for use in made] == [None, None]
    gate(made)


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_an_exception_without_a_reason_is_refused(reason: str) -> None:
    rows = counts((FORBIDS, "question", True, 3))
    with pytest.raises(LicenceRefused, match="no reason beside"):
        model_uses(rows, {FORBIDS: reason})
    blank = [use.model_copy(update={"exception": reason}) for use in model_uses(rows, {})]
    with pytest.raises(LicenceRefused, match=FORBIDS):
        gate(blank)


def test_judges_are_listed_and_not_gated() -> None:
    made = uses((FORBIDS, "preference", False, 9), (UNKNOWN, "entailment", False, 5))
    gate(made)
    assert [(use.name, use.role, use.wrote, use.rows, use.may_train) for use in made] == [
        (FORBIDS, "preference", False, 9, "no"),
        (UNKNOWN, "entailment", False, 5, "ask"),
    ]


def test_a_prompt_that_is_the_current_one_is_known_by_its_file() -> None:
    for name in sorted(path.stem for path in PROMPTS.glob("*.jinja")):
        version = PromptFile.load(name).version
        digest = hashlib.sha256((PROMPTS / f"{name}.jinja").read_bytes()).hexdigest()
        (made,) = uses((ALLOWS, "question", True, 1, version))
        assert (made.prompt_version, made.prompt_sha256) == (version, digest)


@pytest.mark.parametrize(
    "version", [None, "rules-1", "answer-1-00000000", "answer", "", "../prompts/answer-1-0000", "x\0-1-2"]
)
def test_a_prompt_that_does_not_lie_here_has_no_digest(version: str | None) -> None:
    (made,) = uses((ALLOWS, "answer", True, 1, version))
    assert (made.prompt_version, made.prompt_sha256) == (version, None)


def test_who_did_most_comes_first() -> None:
    made = uses((UNKNOWN, "answer", True, 2), (ALLOWS, "question", True, 9), (ALLOWS, "answer", True, 9))
    assert [(use.name, use.role) for use in made] == [
        (ALLOWS, "answer"),
        (ALLOWS, "question"),
        (UNKNOWN, "answer"),
    ]
