"""What gives a benchmark away, and what does not."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mkailin_assets.corpus.decontamination import (
    BENCHMARK,
    FINGERPRINTS,
    MOST_SHARING,
    Decontaminator,
    benchmark_questions,
    contamination,
    fingerprints_of,
    leaks,
)
from mkailin_assets.evaluation.benchmark_files import benchmark_items
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.models.extractive import ConclusionQuestioner, StatementTitleQuestioner
from mkailin_resources.models.interface import Document, GenerationRequest, Section

QUESTION = "Do tailored calls increase the use of mammography among women in health plans?"
CLAIM = "It is not a question, but a claim of eleven words."
KNOWN = pl.DataFrame(
    [
        ("pubmedqa", "101", 101, QUESTION),
        ("pubmedqa", "102", 102, "Is it safe?"),
        ("medqa", "1", None, "Is zinc of any use?"),
        ("medqa", "2", None, "Zinc against the common cold is"),
        ("scifact", "7", None, CLAIM),
        ("bioasq", "b", 201, "Which drugs are in use?"),
        ("bioasq", "b", 202, "Which drugs are in use?"),
        ("again", "1", 101, "IS IT SAFE"),
    ],
    schema=BENCHMARK,
    orient="row",
)
# What a row has, why it stays out, and the benchmark, item and evidence that are named.
CASES: list[tuple[dict[str, Any], tuple[str, str, str, str] | None]] = [
    ({}, None),
    ({"pmid": 101}, ("the source is a benchmark citation", "pubmedqa", "101", "101")),
    ({"context_pmids": [2, 202, 101]}, ("a context is a benchmark citation", "bioasq", "b", "202")),
    ({"question": "IS IT -- safe"}, ("asks a benchmark question", "pubmedqa", "102", "Is it safe?")),
    ({"question": "\uff29s it\u00a0safe?"}, ("asks a benchmark question", "pubmedqa", "102", "Is it safe?")),
    ({"question": "Is it safer?"}, None),
    (
        {"question": "When do tailored calls increase the use of mammography?"},
        (
            "shares 8 words in a row with a benchmark question",
            "pubmedqa",
            "101",
            "do tailored calls increase the use of mammography",
        ),
    ),
    (
        {"title": "Tailored calls increase the use of mammography among men"},
        (
            "shares 8 words in a row with a benchmark question",
            "pubmedqa",
            "101",
            "tailored calls increase the use of mammography among",
        ),
    ),
    ({"question": "When do tailored calls increase the use of X-rays?"}, None),
    (
        {"text": f"Others asked: {QUESTION.upper()} We did not."},
        ("its text holds a benchmark question", "pubmedqa", "101", QUESTION),
    ),
    ({"text": "Tailored calls increase the use of mammography among women."}, None),
    # Fewer than eight words are found in other text where they are a question of five at least.
    (
        {"question": "Is zinc of any use in colds?"},
        ("its text holds a benchmark question", "medqa", "1", "Is zinc of any use?"),
    ),
    (
        {"text": "Zinc. Is zinc of any use? Yes."},
        ("its text holds a benchmark question", "medqa", "1", "Is zinc of any use?"),
    ),
    ({"text": "But is it safe?"}, None),
    ({"text": "Zinc against the common cold is useless."}, None),
    ({"text": f"We know. {CLAIM}"}, ("its text holds a benchmark question", "scifact", "7", CLAIM)),
    # No words run from one text into the other.
    ({"question": "Do tailored calls increase", "title": "the use of mammography among"}, None),
    ({"question": "Is zinc of", "title": "any use"}, None),
    ({"question": "Do tailored calls increase"}, None),
    ({"question": "the use of mammography among women?"}, None),
    ({"title": None, "context_pmids": []}, None),
    ({"question": None}, None),
]


def rows_of(*changes: dict[str, Any]) -> pl.DataFrame:
    clean = {"pmid": 1, "question": "Does zinc help?", "title": "Zinc", "context_pmids": [2], "text": "Zinc."}
    schema = {
        "pmid": pl.Int64,
        "question": pl.String,
        "title": pl.String,
        "context_pmids": pl.List(pl.Int64),
        "text": pl.String,
    }
    return pl.DataFrame([clean | row for row in changes], schema=schema)


def published(rows: pl.DataFrame) -> pl.DataFrame:
    """These rows as `leaks` takes them."""
    return rows.with_row_index("example_id").with_columns(
        pl.col("example_id").cast(pl.String), context="text"
    )


@pytest.mark.parametrize(("row", "hit"), CASES)
def test_a_row_that_gives_a_benchmark_item_away_says_which_and_what_they_share(
    row: dict[str, Any], hit: tuple[str, str, str, str] | None
) -> None:
    assert contamination(rows_of(row), KNOWN).rows() == [hit or (None,) * 4]


@pytest.mark.parametrize(("row", "hit"), CASES)
def test_what_gives_an_item_away_is_a_leak_and_nothing_else_is(
    row: dict[str, Any], hit: tuple[str, str, str, str] | None
) -> None:
    found = leaks(published(rows_of(row)), fingerprints_of(KNOWN))
    assert found.is_empty() == (hit is None)
    if hit:
        assert hit[1:3] in found.select("benchmark", "item").rows()
        assert found.select("example_id", "pmid").unique().rows() == [("0", row.get("pmid", 1))]


def test_each_row_of_many_has_its_own_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row for row, _ in CASES] * 3
    expected = [hit or (None,) * 4 for _, hit in CASES] * 3
    decontaminator = Decontaminator(KNOWN)
    assert decontaminator.of(rows_of(*rows)).rows() == expected
    caught = {str(place) for place, (reason, *_) in enumerate(expected) if reason}
    assert set(leaks(published(rows_of(*rows)), fingerprints_of(KNOWN))["example_id"]) == caught
    monkeypatch.setattr("mkailin_assets.corpus.decontamination._ROWS_AT_ONCE", 7)
    assert decontaminator.of(rows_of(*rows)).rows() == expected
    assert set(leaks(published(rows_of(*rows)), fingerprints_of(KNOWN))["example_id"]) == caught


def test_nothing_is_contaminated_without_a_benchmark_and_no_rows_are_no_trouble() -> None:
    held = rows_of({"pmid": 101, "question": QUESTION})
    assert contamination(held, KNOWN.clear()).rows() == [(None,) * 4]
    assert contamination(held.clear(), KNOWN).is_empty()
    assert fingerprints_of(KNOWN.clear()).schema == FINGERPRINTS
    assert leaks(published(held), fingerprints_of(KNOWN.clear())).is_empty()
    assert leaks(published(held.clear()), fingerprints_of(KNOWN)).is_empty()


def test_how_a_benchmark_asks_gives_no_item_of_it_away() -> None:
    """What many of its questions share, numbers aside, tells nothing; asked twice, one is still one."""

    def vignettes(count: int) -> pl.DataFrame:
        drugs = ["amarin", "belosol", "cyprox", "doralin", "evaxil", "fenamol"][:count]
        told = [
            f"A {age} year old man comes to the office and wants {drug}."
            for age, drug in enumerate(drugs, 40)
        ]
        return benchmark_questions([(None, question) for question in (*told, *told)])

    begun = rows_of({"title": "A 93-year-old man comes to the physician"})
    whole = rows_of({"question": "Why? A 41 year old man comes to the office and wants belosol."})
    told = rows_of({"title": "An old man comes to the office and wants belosol"})
    for count, tells in ((MOST_SHARING, True), (MOST_SHARING + 1, False)):
        known = vignettes(count)
        said = rows_of({"title": "A 41-year-old man comes to the physician"})
        for rows, is_found in ((begun, False), (said, tells), (whole, True), (told, True)):
            found = contamination(rows, known)["reason"][0]
            assert (found is not None) == is_found
            assert leaks(published(rows), fingerprints_of(known)).is_empty() != is_found
    # A question that repeats itself is one question.
    echo = benchmark_questions([(None, "no " * 20)])
    assert contamination(rows_of({"title": "no " * 9}), echo)["benchmark_item"].to_list() == ["1"]


def test_fingerprints_tell_no_question() -> None:
    fingerprints = fingerprints_of(KNOWN)
    assert fingerprints.group_by("kind").len().sort("kind").rows() == [
        ("pmid", 4),
        ("question", 6),
        ("run", 10),
    ]
    assert "mammography" not in fingerprints.write_csv().lower()
    assert fingerprints["digest"].n_unique() == fingerprints.height


def test_a_release_without_texts_is_looked_through_as_far_as_it_goes() -> None:
    rows = published(rows_of({"question": QUESTION}, {})).drop("context", "title", "text")
    found = leaks(rows, fingerprints_of(KNOWN))
    assert found.select("example_id", "kind", "item").unique().sort("kind").rows() == [
        ("0", "question", "101"),
        ("0", "run", "101"),
    ]


@pytest.mark.parametrize("column", ["context", "long_answer", "pretraining_text"])
def test_every_text_of_a_release_is_looked_through(column: str) -> None:
    rows = published(rows_of({}, {})).drop("context")
    rows = rows.with_columns(pl.Series(column, [f"We asked.\n\n{QUESTION}\n\nNobody knew.", None]))
    assert leaks(rows, fingerprints_of(KNOWN)).rows() == [("0", 1, "question", "pubmedqa", "101")]


# Characters that Python's Unicode has: that of Polars is newer.
CHARACTERS = st.characters(exclude_categories=("Cs", "Cn"))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(CHARACTERS, max_size=12), min_size=6, max_size=12).map(" ".join))
def test_both_ways_see_the_same_words_in_any_text(text: str) -> None:
    known = benchmark_questions([(None, text)])
    has_words = any(map(str.isalnum, unicodedata.normalize("NFKC", text)))
    held = rows_of({"question": text, "title": None, "text": None})
    assert (contamination(held, known)["reason"][0] is not None) == has_words
    assert leaks(published(held), fingerprints_of(known)).is_empty() != has_words
    other = rows_of({"question": f"{text} otherwise zinc", "title": None, "text": None})
    assert (contamination(other, known)["reason"][0] is None) == leaks(
        published(other), fingerprints_of(known)
    ).is_empty()


# Real benchmarks, and real questions that are in none.


@pytest.fixture(scope="module")
def benchmarks(real_data: Path) -> pl.DataFrame:
    named = BenchmarkFiles(
        pubmedqa=str(real_data / "pubmedqa" / "pqal_dev500.json"),
        others=[str(real_data / "benchmarks"), str(real_data / "bioasq")],
    )
    return benchmark_items(named).table


@pytest.fixture(scope="module")
def decontaminator(benchmarks: pl.DataFrame) -> Decontaminator:
    return Decontaminator(benchmarks)


@pytest.fixture(scope="module")
def fingerprints(benchmarks: pl.DataFrame) -> pl.DataFrame:
    return fingerprints_of(benchmarks)


HIDDEN: dict[str, Callable[[int, str], dict[str, Any]]] = {
    "as it is": lambda pmid, question: {"question": question},
    "in other case and punctuation": lambda pmid, question: {
        "question": f"{question.upper().rstrip('?').replace('-', ' - ').replace(' ', '  ')} !"
    },
    "in a longer question": lambda pmid, question: {
        "question": f"In the old, {question[:-1]}, and for whom?"
    },
    "as the title": lambda pmid, question: {"title": question.title()},
    "in the text": lambda pmid, question: {
        "text": f"AIMS: We asked, {question} In 312 patients we did not see."
    },
    "by the source alone": lambda pmid, question: {"pmid": pmid},
    "by a context alone": lambda pmid, question: {"context_pmids": [2, pmid]},
}


@pytest.mark.parametrize("how", HIDDEN)
def test_every_real_question_of_pubmedqa_is_caught_and_named_twice(
    how: str, benchmarks: pl.DataFrame, decontaminator: Decontaminator, fingerprints: pl.DataFrame
) -> None:
    planted = benchmarks.filter(benchmark="pqal_dev500")
    rows = rows_of(*(HIDDEN[how](pmid, asked) for pmid, asked in planted.select("pmid", "question").rows()))
    assert rows.height == 500
    found = decontaminator.of(rows)
    assert set(found["benchmark"]) == {"pqal_dev500"}
    assert found["benchmark_item"].equals(planted["item"], check_names=False)
    leaked = leaks(published(rows), fingerprints).filter(benchmark="pqal_dev500")
    pairs = leaked.select("example_id", "item").unique().rows()
    assert set(pairs) == {(str(place), item) for place, item in enumerate(planted["item"])}


def test_none_of_five_thousand_innocent_questions_is_caught(
    real_data: Path, decontaminator: Decontaminator, fingerprints: pl.DataFrame
) -> None:
    documents = {}
    with (real_data / "retrieval" / "scifact" / "corpus.jsonl").open(encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            section = Section(None, None, line["text"])
            documents[line["_id"]] = Document(line["title"], (section,))
    requests = [GenerationRequest(name, "question", document) for name, document in documents.items()]
    asked = [*StatementTitleQuestioner().generate(requests), *ConclusionQuestioner().generate(requests[:400])]
    rows = rows_of(
        *(
            {
                "pmid": int(it.key),
                "question": it.text,
                "title": documents[it.key].title,
                "text": documents[it.key].sections[0].text,
            }
            for it in asked
            if it.text
        )
    )
    assert rows.height > 5_000
    assert decontaminator.of(rows)["reason"].null_count() == rows.height
    assert leaks(published(rows), fingerprints).is_empty()
