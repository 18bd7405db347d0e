"""The verdict on a question-answer pair, and what it rests on."""

from typing import Any

import polars as pl
import pytest
from corpus_tables import context, evaluated, qa
from pydantic import ValidationError

from mkailin_assets.corpus.entailment import ENTAILMENT
from mkailin_assets.corpus.quality import QualityRules
from mkailin_assets.corpus.signals import SIGNALS
from mkailin_assets.corpus.tables import DistilledContexts, EvaluatedQA, QualitySignals
from mkailin_assets.preferences.tables import QuestionPreference

DEFAULTS = QualityRules()
TOPIC = "walking after meals lowers glucose"
GERMAN = (
    "Die Studie zeigt, dass ein Spaziergang nach dem Essen den Zucker im Blut senkt, und zwar auch bei "
    "Patienten, die sonst keinen Sport treiben."
)


def one(
    rules: QualityRules = DEFAULTS, changes: dict[str, Any] | None = None, **known: Any
) -> dict[str, Any]:
    """A pair as evaluation leaves it."""
    return evaluated(qa(1, **(changes or {})), rules=rules, **known).row(0, named=True)


def found(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=DistilledContexts.create_empty().schema)


def preferred(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=QuestionPreference.create_empty().schema)


def test_a_sound_pair_is_kept_without_reasons() -> None:
    row = one()
    assert row["kept"]
    assert row["reasons"] == []


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"question": "Does walking help?"}, ["question of fewer than 4 words"]),
        (
            {"question": f"Does walking {'really ' * 60}lower glucose?", "source_context": TOPIC + " really"},
            ["question of more than 60 words"],
        ),
        ({"question": "Walking after meals lowers glucose."}, ["question without a question mark"]),
        (
            {
                "title": "Walking after meals lowers glucose",
                "question": "Walking after meals lowers glucose?",
            },
            ["question repeats its title without asking"],
        ),
        (
            {"question": "Which city has been the capital of France?"},
            ["question has less than 20% of its words from its contexts"],
        ),
        ({"long_answer": "Walking lowers glucose."}, ["answer of fewer than 5 words"]),
        ({"long_answer": f"{TOPIC}. " * 101}, ["answer of more than 500 words"]),
        (
            {"long_answer": "Paris has been the capital of France for centuries."},
            ["answer has less than 20% of its words from its contexts"],
        ),
        (
            {"long_answer": f"No, it is not true that {TOPIC}."},
            ["answer opens with the opposite of its decision"],
        ),
        (
            {"long_answer": f"You stupid asshole! The trial shows that {TOPIC}."},
            ["offensive wording"],
        ),
        (
            {"long_answer": f"The trial shows that {TOPIC} \U0001f642\x07."},
            ["more than 0 odd characters (controls, private use, pictures)"],
        ),
        (
            {"long_answer": GERMAN, "source_context": f"{TOPIC} {GERMAN}"},
            ["in another language than en"],
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
        ({"long_answer": " \n"}, ["answer of fewer than 5 words"]),
        (
            {"question": None, "question_role": None, "long_answer": None, "failure": "no verb in the title"},
            ["no verb in the title"],
        ),
    ],
)
def test_a_weak_pair_is_not_kept_and_says_every_reason(changes: dict[str, Any], reasons: list[str]) -> None:
    row = one(changes=changes)
    assert row["reasons"] == reasons
    assert not row["kept"]


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ({"min_answer_words": 50}, "answer of fewer than 50 words"),
        ({"max_copied_share": 0.5}, "answer of which more than 50% is copied"),
        ({"max_reading_grade": 3}, "answer above school year 3.0"),
        ({"min_specificity": 0.6}, "headings that the question names tell less than 0.6"),
        ({"min_mesh_score": 0.6}, "MeSH score of its contexts below 0.6"),
        ({"min_mesh_margin": 0.3}, "MeSH lead over the other question below 0.3"),
        ({"max_source_rank": 5}, "question does not find its source among the first 5"),
        ({"min_evaluator_margin": 2}, "evaluator's lead over the other question below 2.0"),
        ({"drop_opposite_decisions": True}, "answer reads like the opposite of its decision"),
        ({"languages": ["de", "fr"]}, "in another language than de, fr"),
    ],
)
def test_rules_are_what_the_user_sets(rules: dict[str, Any], reason: str) -> None:
    changes = {"decision": "no"}
    known = {
        "contexts": found(
            {
                "pmid": 1,
                "question": qa(1)["question"],
                "mesh_score": 0.5,
                "mesh_margin": 0.2,
                "source_rank": 7,
            }
        ),
        "preferences": preferred({"pmid": 1, "chosen_question": qa(1)["question"], "evaluator_margin": 1.5}),
        "specificity": lambda questions: [0.5] * len(questions),
    }
    assert one(changes=changes, **known)["kept"]
    assert one(QualityRules(**rules), changes, **known)["reasons"] == [reason]


def test_a_question_that_never_finds_its_source_is_as_bad_as_one_that_finds_it_late() -> None:
    nowhere = found({"pmid": 1, "question": qa(1)["question"]})
    rules = QualityRules(max_source_rank=100)
    assert one(rules, contexts=nowhere)["reasons"] == [
        "question does not find its source among the first 100"
    ]
    assert "source" not in "".join(one(rules, {"question": None})["reasons"])


def test_a_rule_that_is_off_keeps_what_it_would_drop() -> None:
    changes = {"long_answer": f"{TOPIC} \U0001f642 " * 100, "source_context": None}
    off = {
        name: False if name.startswith("drop_") else None
        for name, field in QualityRules.model_fields.items()
        if field.default is True or (name.startswith(("max_", "min_", "lang")) and "words" not in name)
    }
    assert len(one(changes=changes)["reasons"]) == 3
    assert one(QualityRules(max_answer_words=None, **off), changes)["kept"]


def test_rules_that_are_no_rules_are_refused() -> None:
    with pytest.raises(ValidationError, match="english: no language that is told from others; choose of af"):
        QualityRules(languages=["english"])
    with pytest.raises(ValidationError, match="max_toxicty"):
        QualityRules.model_validate({"max_toxicty": 0.5})


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
    row = one(changes={"title": title, "question": question})
    assert row["title_overlap"] == 1
    assert row["kept"]


def test_an_answer_may_open_with_a_number_or_agree_with_its_decision() -> None:
    for opening, decision in (
        ("No. 5 of the sites: ", "yes"),
        ("No, ", "no"),
        ("Yes: ", "yes"),
        ("No, ", "maybe"),
    ):
        answer = f"{opening}the trial shows that {TOPIC}."
        assert one(changes={"long_answer": answer, "decision": decision})["kept"]


def test_no_row_is_lost_and_scores_are_those_of_its_question() -> None:
    scores = {"question": qa(1)["question"], "mesh_score": 0.75, "mesh_margin": 0.25, "source_rank": 7}
    preference = {"chosen_question": qa(1)["question"], "evaluator_margin": 1.5}
    table = evaluated(
        qa(2),
        qa(1),
        contexts=found({"pmid": 1} | scores, {"pmid": 2} | scores),
        preferences=preferred({"pmid": 1} | preference, {"pmid": 2} | preference),
        specificity=lambda questions: [len(question) / 100 for question in questions],
    )
    named = ("pmid", "mesh_score", "mesh_margin", "source_rank", "evaluator_margin", "specificity")
    assert table.select(named).rows() == [
        (1, 0.75, 0.25, 7, 1.5, len(qa(1)["question"]) / 100),
        (2, None, None, None, None, len(qa(2)["question"]) / 100),
    ]


def test_an_answer_that_its_contexts_contradict_leaves_where_a_model_judges() -> None:
    judged = pl.DataFrame(
        [
            {"pmid": 1, "entailment": "contradicted", "entailment_judge": "judge, 1"},
            {"pmid": 2, "entailment": "neutral", "entailment_judge": "judge, 1"},
            {"pmid": 3, "entailment_judge": "judge, 1", "entailment_failure": "no JSON"},
        ],
        schema=ENTAILMENT,
    )
    table = evaluated(qa(1), qa(2), qa(3), qa(4), entailments=judged)
    assert table["reasons"].to_list() == [["its contexts contradict the answer"], [], [], []]
    assert table["entailment"].to_list() == ["contradicted", "neutral", None, None]
    assert table["entailment_failure"].to_list() == [None, None, "no JSON", None]
    kept = evaluated(qa(1), entailments=judged, rules=QualityRules(drop_contradicted=False))
    assert kept["kept"].all()


def test_support_is_told_from_what_a_reader_is_shown_and_copies_from_all_that_was_given() -> None:
    conclusion = "Seven oranges a week keep every single scurvy patient out of hospital"
    row = one(
        changes={
            "long_answer": f"{conclusion}.",
            "source_conclusion": conclusion,
            "title": "Oranges against scurvy",
            "question": "Do seven oranges prevent scurvy?",
            "contexts": [context(2, title="On oranges", text="A history."), context(3, text="Of patients.")],
        }
    )
    assert row["copied_share"] == 1
    assert row["answer_support"] == pytest.approx(1 / 9)
    assert row["question_support"] == pytest.approx(1 / 4)


ODD_TEXTS = {
    "null": None,
    "empty": "",
    "blank": " ",
    "controls": "\x00\x07",
    "emoji": "\U0001f642",
    "question mark": "?",
    "one long word": "a" * 100_000,
    "no e-mail address": "@" * 100_000,
}


@pytest.mark.parametrize("name", ODD_TEXTS)
def test_any_text_gets_signals_and_a_verdict_with_a_reason(name: str) -> None:
    text = ODD_TEXTS[name]
    nothing = {"source_context": None, "source_conclusion": None, "contexts": []}
    rows = [
        qa(1, question=text),
        qa(2, long_answer=text),
        qa(3, question=text, long_answer=text),
        qa(4, title=None, **nothing),
        qa(5, title=None, contexts=[context(9, title="", text="")]),
    ]
    table = evaluated(*rows, rules=DEFAULTS)
    assert table["kept"].to_list() == [False, False, False, False, True]
    assert (table["reasons"].list.len() > 0).to_list() == [True, True, True, True, False]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece",
    [
        "zinc tablets shorten the common cold in trial seven of nine ",
        "It did not. ",
        "although, however ",
        "a.",
        "(e.g. A ",
        "\n",
    ],
)
def test_a_very_long_answer_takes_no_longer_than_its_length(piece: str) -> None:
    long = piece * (100_000 // len(piece))
    row = one(changes={"long_answer": long, "source_context": long})
    assert not row["kept"]


def test_rows_are_the_same_whatever_stands_beside_them() -> None:
    rows = [
        qa(pmid, long_answer=f"{qa(pmid)['long_answer']} {'Zinc helps. ' * (pmid % 3)}")
        for pmid in range(1, 9)
    ]
    together = evaluated(*rows * 1)
    apart = pl.concat([evaluated(row) for row in rows])
    assert together.equals(apart)


def test_a_large_branch_is_looked_at_in_pieces_and_lost_nowhere() -> None:
    table = evaluated(*(qa(pmid) for pmid in range(1, 2003)))
    assert table["pmid"].to_list() == list(range(1, 2003))
    assert table["kept"].all()
    assert table["copied_share"].to_list() == [1.0] * 2002


def test_an_empty_branch_is_an_empty_table() -> None:
    assert evaluated().is_empty()


def test_every_numeric_signal_is_one_that_a_person_gets_to_see() -> None:
    schema = EvaluatedQA.create_empty().select(QualitySignals.create_empty().columns).schema
    assert set(SIGNALS) == {name for name, dtype in schema.items() if dtype.is_numeric()}
