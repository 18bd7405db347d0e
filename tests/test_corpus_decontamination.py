"""What gives a benchmark away, and what does not."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mkailin_assets.corpus.decontamination import benchmark_questions, contamination, ngrams

QUESTION = "Do tailored calls increase the use of mammography among women in health plans?"
BENCHMARK = benchmark_questions([("101", QUESTION), (None, "Is it safe?")])


def reasons(*rows: dict[str, Any], benchmark: pl.DataFrame = BENCHMARK) -> list[str | None]:
    clean = {"pmid": 1, "question": "Does zinc help?", "title": "Zinc", "context_pmids": [2], "text": "Zinc."}
    schema = {
        "pmid": pl.Int64,
        "question": pl.String,
        "title": pl.String,
        "context_pmids": pl.List(pl.Int64),
        "text": pl.String,
    }
    table = pl.DataFrame([clean | row for row in rows], schema=schema)
    return contamination(table, benchmark).to_list()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, None),
        ({"pmid": 101}, "the source is a benchmark citation"),
        ({"context_pmids": [2, 101]}, "a context is a benchmark citation"),
        ({"question": "IS IT -- safe"}, "asks a benchmark question"),
        ({"question": "Is it safer?"}, None),
        (
            {"question": "When do tailored calls increase the use of mammography?"},
            "shares 8 words in a row with a benchmark question",
        ),
        (
            {"title": "Tailored calls increase the use of mammography among men"},
            "shares 8 words in a row with a benchmark question",
        ),
        ({"question": "When do tailored calls increase the use of X-rays?"}, None),
        ({"text": f"Others asked: {QUESTION.upper()} We did not."}, "its text holds a benchmark question"),
        ({"text": "Tailored calls increase the use of mammography among women."}, None),
        ({"text": "But is it safe?"}, None),
        ({"title": None, "context_pmids": []}, None),
    ],
)
def test_a_row_that_gives_a_benchmark_item_away_is_found(row: dict[str, Any], reason: str | None) -> None:
    assert reasons(row) == [reason]


def test_words_in_a_row_do_not_run_from_the_question_into_the_title() -> None:
    assert reasons({"question": "Do tailored calls increase", "title": "the use of mammography among"}) == [
        None
    ]


def test_nothing_is_contaminated_without_a_benchmark_and_no_rows_are_no_trouble() -> None:
    assert reasons({"pmid": 101, "question": QUESTION}, benchmark=BENCHMARK.clear()) == [None]
    assert reasons() == []


def test_ngrams_are_whole_words_in_a_row() -> None:
    assert ngrams([" a b c "], 2) == {" a b ", " b c "}
    assert ngrams([" a "], 2) == set()


def test_real_benchmark_questions_are_found_reworded_in_case_and_punctuation_and_others_are_not(
    real_data: Path,
) -> None:
    items = list(json.loads((real_data / "pubmedqa" / "pqal_dev500.json").read_text()).items())
    asked = [item["QUESTION"] for _, item in items]
    held_out = benchmark_questions((pmid, item["QUESTION"]) for pmid, item in items[:250])
    rows = [
        {"question": question.upper().replace(" ", "  ").rstrip("?"), "text": "", "title": None}
        for question in asked
    ]
    found = [reason is not None for reason in reasons(*rows, benchmark=held_out)]
    assert all(found[:250])
    assert sum(found[250:]) <= 2
