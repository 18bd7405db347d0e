"""The card of a model says what it was made from, and nothing of the machine it was made on."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from tiny_checkpoint import COMMIT, record

from mkailin_assets.training.card import model_card, served_name


def told(text: str) -> dict[str, str]:
    """The rows of the card's table, as a reader sees them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text.split("\n---\n", maxsplit=1)[1])
    cells = [tokens[at + 1].content for at, token in enumerate(tokens) if token.type == "td_open"]
    return dict(zip(cells[::2], cells[1::2], strict=True))


def test_hugging_face_reads_base_library_and_licence_of_an_adapter() -> None:
    data = ModelCard(model_card(record())).data.to_dict()
    assert data["base_model"] == "Qwen/Qwen2.5-1.5B"
    assert data["base_model_relation"] == "adapter"
    assert data["library_name"] == "peft"
    assert data["license"] == "apache-2.0"
    assert data["pipeline_tag"] == "text-generation"
    assert data["language"] == ["en"]
    assert {"pubmed", "mesh", "lora"} <= set(data["tags"])


@pytest.mark.parametrize(("changes", "is_export"), [({"method": "full"}, False), ({}, True)])
def test_a_whole_model_is_one_of_transformers(changes: dict[str, Any], is_export: bool) -> None:
    data = ModelCard(model_card(record(**changes), is_export)).data.to_dict()
    assert (data["library_name"], data["base_model_relation"]) == ("transformers", "finetune")


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("meta-llama/Meta-Llama-3-70B", {"license": "other", "license_name": "llama-3-community-license"}),
        ("", {"license": "other", "license_name": "none-but-that-of-its-data"}),
        ("somebody/something", {"license": "unknown", "license_name": None}),
    ],
)
def test_the_licence_is_that_of_the_base(base: str, expected: dict[str, str | None]) -> None:
    data = ModelCard(model_card(record(base=base))).data.to_dict()
    assert {name: data.get(name) for name in expected} == expected
    assert data.get("base_model") == (base or None)


def test_the_card_tells_what_the_record_says() -> None:
    text = model_card(record())
    assert told(text) == {
        "base": f"`Qwen/Qwen2.5-1.5B@{COMMIT}`",
        "started from": f"checkpoint `{'9c0d1e2f' * 4}`",
        "trained on": f"12,345 questions with answers of a corpus, fingerprint `{'5e6f7a8b' * 4}`",
        "held out": "678 more, to look at the loss",
        "method": "lora, rank 16, alpha 32; recipe `1b`",
        "parameters": "18,464,768 trained of 1,543,714,304",
        "steps": "620, 81,234,567 tokens; the weights of step 400 were kept",
        "training loss": "from 1.812 to 0.938 nats a token",
        "held-out loss": "from 1.750 to 1.375 nats a token, lowest 1.250 at step 400",
        "left out": "9 the question is too long",
        "cut to fit": "1,234",
        "fingerprint": f"`{'1a2b3c4d' * 4}`",
    }
    assert f"# {served_name(record())}\n" in text
    assert '"learning_rate": 0.000125' in text
    assert "courtesy of the U.S. National Library of Medicine" in text
    assert "Not for clinical use." in text
    assert "torch 2.13.0, trl 1.16.0" in text


def test_a_small_llama_is_not_taken_for_a_doctor() -> None:
    text = model_card(record(base="", revision=""))
    assert "It knows no medicine." in text
    assert "small Llama of random weights" in told(text)["base"]
    assert "It knows no medicine." not in model_card(record())


def test_a_pretrained_model_is_shown_a_text_and_no_question() -> None:
    text = model_card(record(name="pretrained"))
    assert "apply_chat_template" not in text
    assert told(text)["trained on"].startswith("12,345 texts")
    assert "nothing" not in told(text).values()
    assert told(model_card(record(validation_examples=0)))["held out"] == "nothing"


@pytest.mark.parametrize(
    ("template", "said"), [("own", "is that of the base"), ("plain", "a plain one of m-KAILIN's")]
)
def test_it_says_whose_chat_template_it_has(template: str, said: str) -> None:
    assert said in model_card(record(template=template))


@pytest.mark.parametrize("is_there", [True, False])
def test_no_folder_of_this_machine_is_named(is_there: bool, tmp_path: Path) -> None:
    base = tmp_path / "my-model"
    if is_there:
        base.mkdir()
    text = model_card(record(base=str(base)))
    assert str(tmp_path) not in text
    assert told(text)["base"] == f"`my-model@{COMMIT}`"
    assert "base_model" not in ModelCard(text).data.to_dict()
    assert "`BASE` that of the base, `my-model`" in text


@pytest.mark.parametrize("name", ["a|b", "two\nlines\n\n# and a heading", "`code`", "]({{ x }})", "---"])
def test_a_name_breaks_neither_table_nor_headings(name: str) -> None:
    plain, hostile = model_card(record()), model_card(record(base=name, recipe_name=name))
    assert told(hostile).keys() == told(plain).keys()
    assert hostile.count("\n#") == plain.count("\n#")
    assert ModelCard(hostile).data.to_dict()["base_model"] == name
