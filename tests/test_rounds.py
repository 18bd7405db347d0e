"""The loop: preferences of one round make the pairs of the next, and the best round that beats the start stays."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mkailin_assets.preferences.rounds import PAIR_COLUMNS, Round, described, first_pairs, next_pairs
from mkailin_assets.preferences.tables import PreferredGenerator, QuestionPreference
from mkailin_assets.retrieval.pairs import is_held_out

TEXT = [{"label": None, "category": None, "text": "An abstract."}]
CITATIONS = pl.DataFrame(
    {"pmid": [1, 2, 3], "title": ["One", "Two", "Three"], "abstract": [TEXT] * 3},
    schema_overrides={
        "abstract": pl.List(pl.Struct({"label": pl.String, "category": pl.String, "text": pl.String}))
    },
)


def preferences(*rows: dict[str, Any]) -> pl.DataFrame:
    schema = QuestionPreference.create_empty().schema
    empty = dict.fromkeys(schema)
    return pl.DataFrame([empty | row for row in rows], schema=schema)


def kept(pmid: int, **changes: Any) -> dict[str, Any]:
    asked = {"chosen_question": f"Good {pmid}?", "rejected_question": f"Bad {pmid}?"}
    return asked | {"pmid": pmid, "kept": True, "chosen_score": 0.5} | changes


def written(*rows: tuple[int, str | None, float]) -> pl.DataFrame:
    schema = {"pmid": pl.Int64, "question": pl.String, "score": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


PAIRS = first_pairs(preferences(kept(1), kept(2), kept(3, kept=False)), CITATIONS)


def test_the_first_round_trains_on_the_kept_preferences_with_their_texts() -> None:
    assert PAIRS.columns == list(PAIR_COLUMNS)
    assert PAIRS.select("pmid", "title", "chosen", "rejected").rows() == [
        (1, "One", "Good 1?", "Bad 1?"),
        (2, "Two", "Good 2?", "Bad 2?"),
    ]
    assert PAIRS["split"].to_list() == ["held_out" if is_held_out(pmid) else "train" for pmid in (1, 2)]


def test_the_next_round_prefers_what_fits_better_of_the_new_question_and_the_preferred_one() -> None:
    made = next_pairs(PAIRS, written((1, "New 1?", 0.75), (2, "New 2?", 0.25)), margin=0.01)
    assert made.select("pmid", "chosen", "rejected", "chosen_score").rows() == [
        (1, "New 1?", "Good 1?", 0.75),
        (2, "Good 2?", "New 2?", 0.5),
    ]


@pytest.mark.parametrize(
    "new", [(1, None, 0.0), (1, "good 1?", 0.75), (1, "New 1?", 0.505)], ids=["none", "the same", "a tie"]
)
def test_without_a_clear_preference_there_is_no_pair(new: tuple[int, str | None, float]) -> None:
    assert next_pairs(PAIRS, written(new), margin=0.01).is_empty()


def scores(**of_rounds: float) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"contestant": number[1:], "pmid": pmid, "score": score + 0.01 * (pmid % 3)}
            for number, score in of_rounds.items()
            for pmid in range(1, 31)
        ]
    )
