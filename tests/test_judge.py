"""A language model as judge of two questions: asked in both orders, believed where they agree."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pytest
from asking import Writer, asking, unpaid
from tiny_model import make_model

from mkailin_assets.preferences.agreement import agreement, position_bias
from mkailin_assets.preferences.judge import PREFERS_FIRST, PREFERS_SECOND, SAME, judged
from mkailin_resources.generation import CUT_OFF
from mkailin_resources.models.interface import GenerationRequest, GenerationResult
from mkailin_resources.models.language_model import Prompt
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.models.prompted import PromptedGenerator
from mkailin_resources.models.prompting import PromptFile
from mkailin_resources.models.transformers_model import TransformersModel

SECTION = {"label": None, "category": None, "text": "Willow tea reduced fever in 60 adults."}
SCHEMA = {
    "pmid": pl.Int64,
    "title": pl.String,
    "abstract": pl.List(pl.Struct({"label": pl.String, "category": pl.String, "text": pl.String})),
    "first_question": pl.String,
    "second_question": pl.String,
}
GOOD, BAD = "Does willow tea reduce fever?", "What is known about tea?"


def pairs(*questions: tuple[str | None, str | None]) -> pl.DataFrame:
    rows = [(pmid, f"Tea {pmid}.", [SECTION], *both) for pmid, both in enumerate(questions, 1)]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def verdict(place: str) -> str:
    return json.dumps({"reason": f"The {place} is precise.", "preferred": place})


def judge(prefers: Callable[[GenerationRequest], str | None]) -> Writer:
    """Prefers the place that `prefers` names; where that is no place, it writes it as it is."""

    def write(request: GenerationRequest) -> GenerationResult:
        said = prefers(request)
        if said is None:
            return GenerationResult(request.key, failure="the server is gone")
        return GenerationResult(request.key, text=verdict(said) if said in {"first", "second"} else said)

    return Writer(write, name="a judge")


def fair(request: GenerationRequest) -> str:
    return "first" if request.question == GOOD else "second"


def test_a_judge_that_minds_the_questions_prefers_the_same_one_in_either_order() -> None:
    asked = judge(fair)
    table = judged(pairs((GOOD, BAD), (BAD, GOOD)), asked, unpaid)
    assert table["preferred"].to_list() == ["first", "second"]
    assert table["reason"].to_list() == [None, None]
    assert table.select("in_order", "swapped").rows() == [("first", "first"), ("second", "second")]
    assert [(one.key, one.question, one.rival) for one in asked.asked] == [
        ("1 in_order", GOOD, BAD),
        ("1 swapped", BAD, GOOD),
        ("2 in_order", BAD, GOOD),
        ("2 swapped", GOOD, BAD),
    ]
    assert {one.task for one in asked.asked} == {"evaluation"}
    assert asked.asked[0].document.sections[0].text == SECTION["text"]
    assert [len(set(prints)) for prints in table["fingerprints"]] == [2, 2]


@pytest.mark.parametrize(("place", "reason"), [("first", PREFERS_FIRST), ("second", PREFERS_SECOND)])
def test_a_judge_that_minds_the_place_alone_decides_nothing_and_its_bias_is_measured(
    place: str, reason: str
) -> None:
    table = judged(pairs(*[(GOOD, BAD)] * 10), judge(lambda _: place), unpaid)
    assert table["preferred"].null_count() == 10
    assert table["reason"].unique().to_list() == [reason]
    bias = position_bias(table)
    assert bias.changed is not None
    assert (bias.pairs, bias.changed.value) == (10, 1.0)
    assert (bias.prefers_first, bias.prefers_second) == (place == "first", place == "second")
    assert agreement(table.with_columns(branch=pl.lit("C04")))["decided"].to_list() == [0, 0]


def test_a_judge_that_leans_to_a_place_where_it_is_unsure_is_believed_where_it_is_sure() -> None:
    leaning = judge(lambda request: fair(request) if GOOD in {request.question, request.rival} else "first")
    table = judged(pairs((GOOD, BAD), (BAD, "What of tea?"), (BAD, GOOD), (GOOD, BAD)), leaning, unpaid)
    assert table["preferred"].to_list() == ["first", None, "second", "first"]
    assert table["reason"].to_list() == [None, PREFERS_FIRST, None, None]
    bias = position_bias(table)
    assert bias.changed is not None
    assert bias.changed.value == pytest.approx(1 / 4)


def test_a_pair_with_nothing_to_choose_from_costs_nothing_and_says_why() -> None:
    asked = judge(fair)
    table = judged(
        pairs((None, BAD), (GOOD, None), (None, None), (GOOD, f" {GOOD.upper()} "), (GOOD, BAD)),
        asked,
        unpaid,
    )
    assert table["reason"].to_list() == [
        "there is no first question",
        "there is no second question",
        "there is no first and no second question",
        SAME,
        None,
    ]
    assert table["preferred"].to_list() == [None, None, None, None, "first"]
    assert table["fingerprints"].list.len().to_list() == [0, 0, 0, 0, 2]
    assert len(asked.asked) == 2


def test_without_pairs_there_is_an_empty_table() -> None:
    table = judged(pairs(), judge(fair), unpaid)
    assert table.is_empty()
    assert table.schema == judged(pairs((GOOD, BAD)), judge(fair), unpaid).schema


def test_a_failure_in_either_order_is_the_reason_and_the_other_verdict_alone_decides_nothing() -> None:
    def failing(request: GenerationRequest) -> str | None:
        said = {"1 swapped": None, "2 in_order": "It is the first.", "3 in_order": None, "3 swapped": None}
        return said.get(request.key, fair(request))

    table = judged(pairs(*[(GOOD, BAD)] * 4), judge(failing), unpaid)
    assert table["preferred"].to_list() == [None, None, None, "first"]
    gone, no_json, both, none = table["reason"]
    assert (gone, both, none) == ("the server is gone", "the server is gone", None)
    assert no_json.startswith("not the JSON of a verdict (")
    assert no_json.endswith("): It is the first.")
    assert table["in_order"].to_list() == ["first", None, None, "first"]
    assert position_bias(table).pairs == 1


@dataclass
class Model:
    """A `LanguageModel` that likes the question on willow, wherever it stands in the prompt it is given."""

    identity: tuple[str, ...] = ("model", "revision", "")
    name: str = "model"
    version: str = "model"
    prompts: list[Prompt] = field(default_factory=list)

    def check(self) -> None:
        """It is there."""

    def complete(self, prompts: Iterable[Prompt]) -> Iterator[GenerationResult]:
        for prompt in prompts:
            self.prompts.append(prompt)
            shown = prompt.messages[-1].content
            said = verdict("first" if shown.index(GOOD) < shown.index(BAD) else "second")
            yield GenerationResult(prompt.key, text=f"```json\n{said}\n```", tokens_in=9, tokens_out=9)


def test_no_verdict_is_paid_for_twice_in_whichever_order_the_pair_comes(tmp_path: Path) -> None:
    model = Model()
    prompted = PromptedGenerator(model, PromptFile.load("evaluation"), 0.0, 24_000)
    assert judged(pairs((GOOD, BAD)), prompted, asking(tmp_path))["preferred"].to_list() == ["first"]
    assert len(model.prompts) == 2
    again = asking(tmp_path)
    assert judged(pairs((BAD, GOOD)), prompted, again)["preferred"].to_list() == ["second"]
    assert (again.tallies[0].reused, again.tallies[0].generated, len(model.prompts)) == (2, 0, 2)


def test_a_real_language_model_gives_each_pair_a_verdict_or_a_reason(tmp_path: Path) -> None:
    model = TransformersModel(ModelName(str(make_model(tmp_path / "model"))), batch_size=8)
    prompted = PromptedGenerator(model, PromptFile.load("evaluation"), 0.0, 24_000)
    ask = asking(tmp_path / "root")
    table = judged(pairs((GOOD, BAD), (BAD, GOOD), (GOOD, "Is tea safe?")), prompted, ask)
    assert table["pmid"].to_list() == [1, 2, 3]
    assert ask.tallies[0].requests == 6
    agreed = (pl.col("in_order") == pl.col("swapped")).fill_null(False)
    assert table.filter(agreed != pl.col("preferred").is_not_null()).is_empty()
    assert set(table["reason"]) <= {None, PREFERS_FIRST, PREFERS_SECOND, CUT_OFF}
    assert table.filter(pl.col("preferred").is_null() == pl.col("reason").is_null()).is_empty()
