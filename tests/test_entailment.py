"""A language model as judge of answers: whether they follow from what they were written from."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from asking import Writer, asking, says, unpaid
from corpus_tables import context, generated, qa
from hostile_abstracts import HOSTILE, HOSTILE_CONTEXTS
from model_server import Fault, ModelServer, model_server
from tiny_model import make_model

from mkailin_assets.corpus.entailment import NO_ANSWER, NOTHING_GIVEN, entailments, fault_of_entailment
from mkailin_assets.corpus.tables import ENTAILMENTS
from mkailin_resources.generation import CUT_OFF
from mkailin_resources.models.endpoint import Endpoint
from mkailin_resources.models.interface import GenerationRequest
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.models.prompted import PromptedGenerator
from mkailin_resources.models.prompting import PromptFile
from mkailin_resources.models.transformers_model import TransformersModel

PROMPT = PromptFile.load("entailment")
ALWAYS = 1000


def reply(label: str) -> str:
    return json.dumps({"reason": "Sentence [1] decides it.", "label": label})


# What the server says of rows that hold the word, whatever their number.
SAID = {
    "walnuts": reply("neutral"),
    "pecans": reply("contradicted"),
    "fenced": f"```json\n{reply('neutral')}\n```",
    "garbage": "It is entailed, I think.",
    "another label": reply("supported"),
    "no reason": '{"reason": "", "label": "entailed"}',
    "overlong": reply("entailed"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """A server that finds every answer entailed but those that hold one of the words."""
    faults = [Fault("reply", match=word, times=ALWAYS, message=said) for word, said in SAID.items()]
    with model_server(tmp_path_factory.mktemp("server"), faults=faults) as running:
        yield running


def judge_at(server: ModelServer) -> PromptedGenerator:
    return PromptedGenerator(Endpoint(ModelName("tiny"), server.url), PROMPT, 0.0, 24_000)


def row(pmid: int, long_answer: str | None = "The trial shows it.", **changes: Any) -> dict[str, Any]:
    given = {"source_conclusion": f"Thus it did in trial {pmid}.", "decision": "yes" if long_answer else None}
    return qa(pmid, long_answer=long_answer, **(given | changes))


def request_of(one: dict[str, Any]) -> GenerationRequest:
    """What is asked about a row."""
    judge = Writer(says(reply("neutral")))
    entailments(generated(one), judge, unpaid)
    return judge.asked[0]


def test_each_answer_gets_the_label_that_the_judge_gives_it(server: ModelServer, tmp_path: Path) -> None:
    rows = generated(row(3), row(1, "All ate walnuts."), row(2, "All ate pecans."), row(4, "It was fenced."))
    table = entailments(rows, judge_at(server), asking(tmp_path))
    assert table["pmid"].to_list() == [3, 1, 2, 4]
    assert table["entailment"].to_list() == ["entailed", "neutral", "contradicted", "neutral"]
    assert set(table["entailment_judge"]) == {f"tiny, {PROMPT.version}"}
    assert table["entailment_fingerprint"].n_unique() == 4
    assert table["entailment_failure"].null_count() == 4


def test_garbage_is_refused_with_its_reason_and_stops_no_other(server: ModelServer, tmp_path: Path) -> None:
    words = ["garbage", "walnuts", "another label", "no reason"]
    rows = generated(*(row(pmid, f"This is {word}.") for pmid, word in enumerate(words, 1)))
    ask = asking(tmp_path)
    table = entailments(rows, judge_at(server), ask)
    assert table["entailment"].to_list() == [None, "neutral", None, None]
    for number in (0, 2, 3):
        failure = table["entailment_failure"][number]
        assert "has not the form asked for" in failure
        assert SAID[words[number]] in failure
    # What was refused was asked for twice, and its text is still the row's: nobody pays for it again.
    assert ask.tallies[0].generated == 7
    assert table["entailment_fingerprint"].null_count() == 0


def test_nothing_is_paid_for_twice_and_a_changed_row_alone_is_asked_again(
    server: ModelServer, tmp_path: Path
) -> None:
    def judged(*rows: dict[str, Any]) -> tuple[pl.DataFrame, int]:
        before = server.stats().asked
        table = entailments(generated(*rows), judge_at(server), asking(tmp_path))
        return table, sum(server.stats().asked.values()) - sum(before.values())

    rows = [row(pmid) for pmid in range(1, 6)]
    first, calls = judged(*rows)
    assert calls == 5
    again, calls = judged(*rows)
    assert calls == 0
    assert again.equals(first)
    changes: tuple[dict[str, Any], ...] = (
        {"decision": "no"},
        {"long_answer": "It shows walnuts."},
        {"source_conclusion": "Thus it did not."},
        {"contexts": [context(9, text="It found much.")]},
        {"evidence": ["Nothing that a judge is shown."]},
    )
    changed, calls = judged(*(one | new for one, new in zip(rows, changes, strict=True)))
    assert calls == 4
    assert changed["entailment"].to_list() == ["entailed", "neutral", "entailed", "entailed", "entailed"]


def test_the_premise_is_all_that_was_given_and_the_hypothesis_all_that_was_answered(
    server: ModelServer,
) -> None:
    asked = request_of(row(1, source_context="We gave nuts. " * 9_000, contexts=[context(7), context(8)]))
    text = judge_at(server).rendered(asked).messages[1].content
    assert "TITLE: A trial of 1\n[1] We gave nuts.\n" in text
    assert "[...]\nCONCLUSIONS:\n" in text
    assert "] Thus it did in trial 1.\n" in text
    assert text.count("Another trial.\n[") == 2
    assert asked.question
    for part in (asked.question, "yes", "The trial shows it."):
        assert f" =====\n{part}\n===== " in text


def test_a_row_without_an_answer_or_with_nothing_given_is_not_asked_about(
    server: ModelServer, tmp_path: Path
) -> None:
    nothing = {"source_context": None, "source_conclusion": "\u200b", "contexts": []}
    rows = generated(
        row(1, None, failure="it failed"),
        row(2, " \u200b "),
        row(3),
        row(4, question=None),
        row(5, **nothing),
    )
    ask = asking(tmp_path)
    table = entailments(rows, judge_at(server), ask)
    assert ask.tallies[0].requests == 1
    assert table["entailment"].to_list() == [None, None, "entailed", None, None]
    assert table["entailment_failure"].to_list() == [NO_ANSWER, NO_ANSWER, None, NO_ANSWER, NOTHING_GIVEN]
    assert table["entailment_judge"].null_count() == table["entailment_fingerprint"].null_count() == 4


def test_without_a_judge_or_rows_there_is_an_empty_table(server: ModelServer) -> None:
    nobody = entailments(generated(row(1)), None, unpaid)
    assert nobody.is_empty()
    none = entailments(generated(), judge_at(server), unpaid)
    assert none.is_empty()
    assert none.schema == nobody.schema


def test_each_hostile_abstract_context_and_answer_gets_a_label(server: ModelServer, tmp_path: Path) -> None:
    contexts = [
        context(8000 + place, place, *text.split("\n", 1))
        for place, text in enumerate(HOSTILE_CONTEXTS[:3], 1)
    ]
    rows = []
    for pmid, source in enumerate(HOSTILE.values(), 1):
        text = " ".join(section.text for section in source.sections)
        given = {"title": source.title, "source_context": text, "contexts": contexts}
        rows.append(row(pmid, f"It does. {text}"[:9_000], **given))
    table = entailments(generated(*rows), judge_at(server), asking(tmp_path))
    assert table["entailment"].to_list() == ["entailed"] * len(HOSTILE)


def test_an_answer_of_100_000_characters_is_cut_and_never_entailed(
    server: ModelServer, tmp_path: Path
) -> None:
    endless = "It helps in every trial that we know. " * 2_700
    rows = generated(row(1, endless), row(2, f"This is overlong. {endless}"), row(3))
    table = entailments(rows, judge_at(server), asking(tmp_path))
    # The server takes the first label to be had; that "overlong" answers are entailed it says unasked.
    assert table["entailment"].to_list() == ["neutral", None, "entailed"]
    assert reply("entailed") in table["entailment_failure"][1]
    text = judge_at(server).rendered(request_of(row(1, endless))).messages[1].content
    assert len(text) < 30_000
    assert " [...]\n===== end, code " in text


def test_what_is_no_judgement_says_what_is_wrong() -> None:
    request = GenerationRequest("1", "entailment", request_of(row(1)).document)
    assert fault_of_entailment(request, reply("neutral")) is None
    for text in ("Yes.", reply("maybe"), '{"label": "neutral"}', reply("neutral")[:-1] + ', "more": 1}'):
        fault = fault_of_entailment(request, text)
        assert fault is not None
        assert fault.startswith("not the JSON of an entailment (")
        assert fault.endswith(f"): {text}")


def test_a_real_language_model_gives_each_answer_a_label_or_a_reason(tmp_path: Path) -> None:
    model = TransformersModel(ModelName(str(make_model(tmp_path / "model"))), batch_size=8)
    rows = generated(*(row(pmid) for pmid in range(1, 5)))
    ask = asking(tmp_path / "root")
    table = entailments(rows, PromptedGenerator(model, PROMPT, 0.0, 24_000), ask)
    assert ask.tallies[0].requests == 4
    assert set(table["entailment"]) <= {*ENTAILMENTS, None}
    assert set(table["entailment_failure"]) <= {CUT_OFF, None}
    assert table.filter(pl.col("entailment").is_null() == pl.col("entailment_failure").is_null()).is_empty()
