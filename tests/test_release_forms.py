"""The two forms of a release: what each holds, and that the one without citations' texts can be undone."""

import time

import polars as pl
import pytest
from hypothesis import example as for_instance
from hypothesis import given, settings
from hypothesis import strategies as st
from small_release import example, training_examples

from mkailin_assets.corpus.tables import TrainingExample
from mkailin_assets.release.forms import (
    CONFIGS,
    SHORTEST_QUOTATION,
    answer_of,
    answer_parts,
    configs_of,
    instruction_rows,
    pretraining_rows,
    schema_of,
)

SENTENCE = "Zinc tablets shorten the common cold by two days in otherwise healthy adults."
# Few letters, so that runs repeat; and such as take two code units in UTF-16, or two code points.
LETTERS = st.text(st.sampled_from("ab \U0001f9ec\u0301"), max_size=200)


@st.composite
def quoting(draw: st.DrawFn) -> tuple[str, str]:
    """A source, and an answer of pieces of it and other words."""
    source = draw(LETTERS | st.text(max_size=200))
    places = st.integers(0, len(source))
    pieces = st.tuples(places, places).map(lambda ends: source[min(ends) : max(ends)])
    return source, "".join(draw(st.lists(pieces | LETTERS | st.text(max_size=20), max_size=6)))


@given(quoting())
@settings(max_examples=300, deadline=None)
@for_instance(("", ""))
@for_instance(("a" * 39, "a" * 100))
@for_instance(("a" * 100, "a" * 39))
@for_instance(("a" * 100, "a" * 1000))
def test_the_parts_of_any_answer_make_it_up_again_and_quote_nothing(pair: tuple[str, str]) -> None:
    source, answer = pair
    parts = answer_parts(answer, source)
    assert answer_of(parts, source + "What follows the source?") == answer
    for part in parts:
        own = part["text"] or ""
        runs = (own[at : at + SHORTEST_QUOTATION] for at in range(len(own) - SHORTEST_QUOTATION + 1))
        assert not any(run in source for run in runs)
        assert (part["text"] is None) == (part["start"] is not None) == (part["length"] is not None)


def test_an_answer_that_quotes_is_held_as_the_longest_places() -> None:
    quoted = f"{SENTENCE} It went on for years."
    source = f"{SENTENCE} It ended there. {quoted}"
    assert answer_parts(f"Yes:{quoted} So we think.", source) == [
        {"text": "Yes:", "start": None, "length": None},
        {"text": None, "start": source.rfind(SENTENCE), "length": len(quoted)},
        {"text": " So we think.", "start": None, "length": None},
    ]


def test_a_place_is_counted_in_characters() -> None:
    source = "\U0001f9ec\u00e9" + SENTENCE
    (part,) = answer_parts(SENTENCE, source)
    assert pl.Series([source]).str.slice(part["start"], part["length"]).to_list() == [SENTENCE]


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("cold " * 4_000, id="one word"),
        pytest.param("No zinc was given. " * 1_000, id="one sentence"),
        pytest.param("".join(map(chr, range(0x4E00, 0x4E00 + 20_000))), id="no letter twice"),
    ],
)
def test_an_answer_of_100_000_characters_takes_no_longer_than_a_breath(source: str) -> None:
    for answer in (source * 6, SENTENCE * 1_300, "cold cold " * 10_000, "zinc was given. No " * 6_000):
        started = time.process_time()
        assert answer_of(answer_parts(answer, source), source) == answer
        assert time.process_time() - started < 3


def test_without_texts_a_release_quotes_no_citation() -> None:
    conclusion, shown = example(2)["source_conclusion"], example(2)["contexts"][0]["text"]
    ours = "Our own words alone, at some length, say what we think of it."
    rows = training_examples(
        example(2, question="A question of the first?", long_answer=conclusion),
        example(2, question="A question of another?", long_answer=f"Both: {conclusion} {shown} So."),
        example(2, question="A question of the last?", long_answer=ours),
    )
    bare = instruction_rows(rows, "pmids")
    assert rows["long_answer"].to_list() == [conclusion, f"Both: {conclusion} {shown} So.", ours]
    own = [[part["text"] for part in parts] for parts in bare["answer_parts"]]
    assert own == [[None], ["Both:", None, None, " So."], [ours]]
    said = bare.write_json()
    citations = "\n\n".join(rows["pretraining_text"].str.split("\n\n").list.head(-1).list.join("\n\n"))
    runs = (citations[at : at + SHORTEST_QUOTATION] for at in range(len(citations) - SHORTEST_QUOTATION))
    assert not any(run in said for run in runs)


def test_the_question_is_our_own_text_and_nothing_points_into_it() -> None:
    question = f"Is it right that {SENTENCE[:-1]}?"
    rows = training_examples(example(1, question=question, long_answer=f"{question} It is."))
    assert instruction_rows(rows, "pmids")["answer_parts"].to_list() == [
        [{"text": f"{question} It is.", "start": None, "length": None}]
    ]


def test_both_forms_hold_every_column_but_the_texts() -> None:
    rows = training_examples()
    full, bare = instruction_rows(rows, "full"), instruction_rows(rows, "pmids")
    assert set(full.columns) == set(TrainingExample.columns()) - {"pretraining_text", "split"}
    assert set(full.columns) - set(bare.columns) == {"context", "messages", "long_answer"}
    assert set(bare.columns) - set(full.columns) == {"answer_parts"}
    kept = [name for name in bare.columns if name != "answer_parts"]
    assert full.equals(rows.select(full.columns))
    assert bare.select(kept).equals(rows.select(kept))
    assert pretraining_rows(rows).equals(rows.select("example_id", "pmid", "branch", text="pretraining_text"))


def test_schemas_are_those_of_the_rows_and_the_bare_form_has_no_pretraining() -> None:
    rows = training_examples()
    for form in ("full", "pmids"):
        assert instruction_rows(rows, form).schema == schema_of("instruction", form)
    assert pretraining_rows(rows).schema == schema_of("pretraining", "full")
    assert configs_of("full") == CONFIGS
    assert configs_of("pmids") == ("instruction",)
    with pytest.raises(ValueError, match="form pmids has no config 'pretraining': instruction"):
        schema_of("pretraining", "pmids")
