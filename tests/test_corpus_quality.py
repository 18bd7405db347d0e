"""Signals of a question-answer pair and the verdict on it."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from corpus_tables import evaluated, generated, qa

from mkailin_assets.corpus.quality import (
    QualityRules,
    answer_support,
    asks,
    evaluate,
    title_overlap,
    word_count,
)
from mkailin_assets.corpus.tables import DistilledContexts, EvaluatedQA


def value(signal: pl.Expr, **columns: str | None) -> Any:
    return pl.DataFrame([columns], schema=dict.fromkeys(columns, pl.String)).select(signal).item()


def test_a_sound_pair_is_kept_without_reasons() -> None:
    row = evaluated(qa(1)).row(0, named=True)
    assert row["kept"]
    assert row["reasons"] == []


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"question": "Does it help?"}, ["question of fewer than 4 words"]),
        ({"question": f"Does {'very ' * 60}much help?"}, ["question of more than 60 words"]),
        ({"question": "Walking after meals lowers glucose."}, ["question without a question mark"]),
        (
            {
                "title": "Walking after meals lowers glucose",
                "question": "Walking after meals lowers glucose?",
            },
            ["question repeats its title without asking"],
        ),
        ({"long_answer": "Walking lowers glucose."}, ["answer of fewer than 5 words"]),
        (
            {"long_answer": "Paris has been the capital of France for centuries."},
            ["answer has less than 20% of its words from its contexts"],
        ),
        (
            {"question": "So?", "long_answer": "Paris."},
            [
                "question of fewer than 4 words",
                "answer of fewer than 5 words",
                "answer has less than 20% of its words from its contexts",
            ],
        ),
        ({"question": None}, ["there is no question"]),
        ({"long_answer": None, "decision": None}, ["there is no answer"]),
        (
            {"question": None, "question_role": None, "long_answer": None, "failure": "no verb in the title"},
            ["no verb in the title"],
        ),
    ],
)
def test_a_weak_pair_is_not_kept_and_says_every_reason(changes: dict[str, Any], reasons: list[str]) -> None:
    row = evaluated(qa(1, **changes)).row(0, named=True)
    assert row["reasons"] == reasons
    assert not row["kept"]


@pytest.mark.parametrize(
    ("title", "question"),
    [
        ("Does walking after meals lower glucose?", "Does walking after meals lower glucose?"),
        ("Walking is associated with lower glucose", "Is walking associated with lower glucose?"),
        ("In adults, walking is safe after meals", "In adults, is walking safe after meals?"),
    ],
)
def test_a_title_that_asks_or_is_turned_into_a_question_may_be_the_question(
    title: str, question: str
) -> None:
    row = evaluated(qa(1, title=title, question=question)).row(0, named=True)
    assert row["title_overlap"] == 1
    assert row["kept"]


def test_no_row_is_lost_and_scores_are_those_of_its_question() -> None:
    found = {"question": qa(1)["question"], "mesh_score": 0.75, "mesh_margin": 0.25, "source_rank": 7}
    of_another_question = found | {"question": "Is it another one?"}
    table = evaluate(
        generated(qa(2), qa(1)),
        pl.DataFrame(
            [{"pmid": 1} | found, {"pmid": 2} | of_another_question],
            schema=DistilledContexts.create_empty().schema,
        ),
        QualityRules(),
    )
    first, second = EvaluatedQA.validate(table).iter_rows(named=True)
    assert (first["pmid"], first["mesh_score"], first["mesh_margin"], first["source_rank"]) == (
        1,
        0.75,
        0.25,
        7,
    )
    assert (second["pmid"], second["mesh_score"], second["source_rank"]) == (2, None, None)


def test_an_empty_branch_is_an_empty_table() -> None:
    assert evaluated().is_empty()


def test_rules_are_what_the_user_sets() -> None:
    assert evaluated(qa(1), rules=QualityRules(min_answer_words=50))["reasons"].to_list() == [
        ["answer of fewer than 50 words"]
    ]


def test_words_are_counted_as_people_do() -> None:
    assert value(word_count(pl.col("t")), t="IL-6 didn't rise (p = 0.05), did it?") == 7
    assert value(word_count(pl.col("t")), t=None) == 0


def test_support_is_the_share_of_content_words_that_the_contexts_hold() -> None:
    support = answer_support(pl.col("a"), pl.col("c"))
    assert value(support, a="The zinc lozenges were shortening colds.", c="Zinc and colds!") == 0.5
    assert value(support, a="Zinc.", c=None) == 0
    assert value(support, a="It was so.", c="It was so.") is None
    assert value(support, a=None, c="Zinc") is None


def test_overlap_is_the_jaccard_similarity_of_words() -> None:
    overlap = title_overlap(pl.col("q"), pl.col("t"))
    assert value(overlap, q="Does zinc shorten colds?", t="Zinc shortens colds") == pytest.approx(2 / 5)
    assert value(overlap, q="Does zinc?", t=None) is None


def test_the_support_rule_tells_an_answer_from_a_foreign_one(real_data: Path) -> None:
    items = json.loads((real_data / "pubmedqa" / "pqal_dev500.json").read_text()).values()
    texts = pl.DataFrame(
        {
            "answer": [item["LONG_ANSWER"] for item in items],
            "contexts": [" ".join(item["CONTEXTS"]) for item in items],
            "question": [item["QUESTION"] for item in items],
        }
    )
    least = QualityRules().min_answer_support
    own = texts.select(answer_support(pl.col("answer"), pl.col("contexts")) >= least)
    foreign = texts.select(answer_support(pl.col("answer"), pl.col("contexts").shift(1)) >= least)
    assert own.to_series().mean() > 0.95
    assert foreign.to_series().mean() < 0.05
    assert texts.select(asks(pl.col("question"))).to_series().mean() > 0.85
