"""Who asks the questions of the corpus: each way the choice can fall, and what it falls by."""

from collections.abc import Mapping
from typing import Any

import polars as pl
import pytest

from mkailin_assets.preferences.champion import BEST_OF_TWO, best_of_two, choose, contestants
from mkailin_assets.preferences.tables import PreferredGenerator, QuestionChampion, QuestionPreference
from mkailin_assets.questions.tables import GeneratorCheckpoint, TrainedGenerator

TUNED, DPO = "domain generator", "preferred, round 1"
COLUMNS = TrainedGenerator.create_empty().columns


def tried(**scores: list[float]) -> pl.DataFrame:
    """What contestants came to on the same citations; None for no question."""
    return pl.DataFrame(
        [
            {"contestant": name.replace("_", " "), "pmid": pmid, "question": "Is it?", "score": score}
            for name, of in scores.items()
            for pmid, score in enumerate(of, 1)
        ],
        schema={"contestant": pl.String, "pmid": pl.Int64, "question": pl.String, "score": pl.Float64},
    )


def trained(*names: str) -> pl.DataFrame:
    rows = [
        {"contestant": name, "generator": f"mkailin {name}", "uri": f"checkpoints/{name}"} for name in names
    ]
    return pl.DataFrame(rows, schema={"contestant": pl.String, **TrainedGenerator.create_empty().schema})


def champion(scores: Mapping[str, list[float]], *names: str) -> str:
    table = pl.concat([tried(**{name: of}) for name, of in scores.items()]).with_columns(
        pl.col("contestant").replace({"tuned": TUNED, "dpo": DPO})
    )
    chosen = QuestionChampion.validate(choose(table, trained(*names)))
    assert chosen["is_champion"].sum() == 1
    return str(chosen.filter("is_champion").item(0, "contestant"))


LOW, MIDDLE, HIGH = ([base + 0.01 * (place % 5) for place in range(40)] for base in (0.2, 0.4, 0.6))


@pytest.mark.parametrize(
    ("tuned", "dpo", "asks"),
    [
        (LOW, LOW, BEST_OF_TWO),
        (MIDDLE, LOW, BEST_OF_TWO),
        (HIGH, LOW, TUNED),
        (LOW, HIGH, DPO),
        (HIGH, [score + 0.1 for score in HIGH], DPO),
        ([score + 0.1 for score in HIGH], HIGH, TUNED),
    ],
)
def test_the_champion_is_whose_questions_score_highest(
    tuned: list[float], dpo: list[float], asks: str
) -> None:
    assert champion({"best_of_two": MIDDLE, "tuned": tuned, "dpo": dpo}, TUNED, DPO) == asks


def test_a_lead_that_chance_explains_makes_no_champion() -> None:
    by_chance = [score + (0.5 if place % 2 else -0.45) for place, score in enumerate(MIDDLE)]
    assert sum(by_chance) > sum(MIDDLE)
    assert champion({"best_of_two": MIDDLE, "tuned": by_chance}, TUNED) == BEST_OF_TWO


def test_a_champion_beats_a_contestant_of_higher_score_whose_lead_is_chance() -> None:
    sure = [score + 0.05 for score in MIDDLE]
    unsure = [score + (2.0 if place < 2 else -0.02) for place, score in enumerate(MIDDLE)]
    assert sum(unsure) > sum(sure)
    assert champion({"best_of_two": MIDDLE, "tuned": sure, "dpo": unsure}, TUNED, DPO) == TUNED


def test_without_trained_generators_or_held_out_citations_best_of_two_asks() -> None:
    assert champion({"best_of_two": MIDDLE}) == BEST_OF_TWO
    nothing = tried(best_of_two=[])
    chosen = QuestionChampion.validate(choose(nothing, trained(TUNED)))
    assert chosen.filter("is_champion")["contestant"].to_list() == [BEST_OF_TWO]
    assert chosen["score"].null_count() == 2


def test_the_table_says_scores_leads_and_how_many_questions_were_asked() -> None:
    table = pl.concat([tried(best_of_two=MIDDLE), tried(domain_generator=HIGH)]).with_columns(
        question=pl.when(pl.col("pmid") > 10).then("question")
    )
    first, second = choose(table, trained(TUNED)).to_dicts()
    assert (first["contestant"], first["documents"], first["questions"]) == (TUNED, 40, 30)
    assert first["lead"] == pytest.approx(0.2)
    assert first["lead_low"] == pytest.approx(0.2)
    assert first["generator"] == f"mkailin {TUNED}"
    assert (second["lead"], second["uri"]) == (None, None)
    assert second["score_low"] < second["score"] < second["score_high"]


def test_best_of_two_asks_the_preferred_candidates_of_citations_that_have_a_preference() -> None:
    """Else a branch that is gathered and has no candidates yet would count against the candidates."""
    schema = QuestionPreference.create_empty().schema
    rows: list[dict[str, Any]] = [
        {"pmid": 1, "chosen_question": "Is it?"},
        {"pmid": 2},
        {"pmid": 9, "chosen_question": "Is it not held out?"},
    ]
    empty = dict.fromkeys(schema)
    preferences = pl.DataFrame([empty | row for row in rows], schema=schema)
    made = best_of_two(preferences, pl.DataFrame({"pmid": [1, 2, 3], "branch": ["C04"] * 3}))
    assert made.select("pmid", "role", "question").rows() == [
        (1, BEST_OF_TWO, "Is it?"),
        (2, BEST_OF_TWO, None),
    ]
    assert made["failure"].to_list() == [None, "neither generator wrote a question"]


def test_of_fewer_than_twenty_citations_an_interval_makes_no_champion() -> None:
    assert champion({"best_of_two": MIDDLE[:19], "tuned": HIGH[:19]}, TUNED) == BEST_OF_TWO
    assert champion({"best_of_two": MIDDLE[:20], "tuned": HIGH[:20]}, TUNED) == TUNED


def test_contestants_are_the_tuned_generators_and_the_rounds_after_the_start() -> None:
    def checkpoint(schema: Any, **row: Any) -> pl.DataFrame:
        empty = dict.fromkeys(schema.create_empty().columns)
        return pl.DataFrame([empty | row], schema=schema.create_empty().schema)

    domain = checkpoint(GeneratorCheckpoint, role="domain", uri="d", generator="tuned d")
    general = checkpoint(GeneratorCheckpoint, role="general", asks="rules")
    rounds = pl.concat(
        [checkpoint(PreferredGenerator, round=number, uri=f"p{number}") for number in (0, 1, 2)]
    )
    found = contestants(domain, general, rounds)
    assert dict(found.select("contestant", "uri").iter_rows()) == {
        "domain generator": "d",
        "preferred, round 1": "p1",
        "preferred, round 2": "p2",
    }
    assert contestants(general, general, rounds.clear()).is_empty()
