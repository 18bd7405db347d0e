"""The card of a release says what its run came to, to people and to Hugging Face, whatever the data hold."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl
import pytest
from huggingface_hub import DatasetCard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from small_release import example, small_facts, training_examples

from mkailin_assets.partitions import MESH_BRANCH_NAMES
from mkailin_assets.release.card import card
from mkailin_assets.release.facts import BenchmarkFacts, ReleaseFacts, SourceFile, Spread
from mkailin_assets.release.forms import instruction_rows, schema_of
from mkailin_assets.release.licence_gate import model_uses
from mkailin_assets.release.notice import file_ranges, licence_text, notice_text
from mkailin_resources.models.prompting import PromptFile, visible

EMPTY: dict[str, Any] = {
    "by_decision": {},
    "by_branch": {},
    "copied_answers": 0,
    "retraction_cutoff": None,
    "taken_back_citations": 0,
    "models": [],
    "benchmarks": [],
    "excluded": {},
    "signals": {},
    "lengths": [],
    "rules": {},
    "seeds": {},
    "settings": {},
    "packages": {},
}
FACTS = small_facts()
ROWS = training_examples()
HOSTILE = [
    "a|b",
    "two\nlines\r\n\n# and a heading",
    "](https://example.org) [x](https://example.org)",
    "<img src=x> <!-- --> </details> https://example.org <https://example.org>",
    "`code` **bold** __bold__ ~~gone~~ $$x$$ \\(x\\) \\| \\",
    "&lt; &#124; {{ facts }} {% if x %} {# x #}",
    "---",
    "| --- | --- |",
]


def told(**changes: Any) -> ReleaseFacts:
    return FACTS.model_copy(update=changes)


def uses(*rows: tuple[str, str, bool, int, str | None], **exceptions: str) -> list[Any]:
    columns = ["name", "role", "wrote", "rows", "prompt_version"]
    return model_uses(pl.DataFrame(rows, schema=columns, orient="row"), exceptions)


def large_facts(**changes: Any) -> ReleaseFacts:
    """A release of all of PubMed: all its files, all branches, and a reason for each citation."""
    branches = {branch: 1_000_000 // (place + 1) for place, branch in enumerate(MESH_BRANCH_NAMES)}
    rows = sum(branches.values())
    numbers = [*range(1, 1335), *range(1340, 1343)]
    large: dict[str, Any] = {
        "rows": rows,
        "by_split": {"train": rows - 20, "validation": 10, "test": 10},
        "by_branch": branches,
        "pubmed_files": [
            SourceFile(name=f"pubmed26n{number:04}", url=None, algorithm="md5", digest="0" * 32)
            for number in [*numbers[::-1]]
        ],
        "evaluated": 2 * rows,
        "excluded": {
            "duplicate": {f"asks the same as {pmid}": 2 for pmid in range(3000)},
            "evaluation": {"too short": rows},
        },
        "signals": {name: Spread(rows=rows, mean=0.5, low=0, median=0.25, high=12345.678) for name in "ab"},
        "recalled": 1,
    }
    return told(**large | changes)


def parsed(text: str) -> list[Token]:
    body = text.split("\n---\n", maxsplit=1)[1]
    return MarkdownIt("commonmark").enable("table").parse(body)


def headings(text: str) -> list[tuple[str, str]]:
    tokens = parsed(text)
    return [(one.tag, tokens[at + 1].content) for at, one in enumerate(tokens) if one.type == "heading_open"]


def plain(token: Token) -> str:
    return "".join(child.content for child in token.children or [])


def tables(text: str) -> Iterator[list[list[str]]]:
    """The cells of each table, as a reader sees them."""
    table: list[list[str]] = []
    tokens = parsed(text)
    for at, token in enumerate(tokens):
        if token.type == "table_open":
            table = []
        elif token.type == "tr_open":
            table.append([])
        elif token.type in ("td_open", "th_open"):
            table[-1].append(plain(tokens[at + 1]))
        elif token.type == "table_close":
            yield table


def cells(text: str) -> set[str]:
    return {cell for table in tables(text) for row in table for cell in row}


def links(text: str) -> set[str]:
    children = [child for token in parsed(text) for child in token.children or []]
    return {str(child.attrs["href"]) for child in children if child.type == "link_open"}


def header(text: str) -> Mapping[str, Any]:
    return DatasetCard(text).data.to_dict()


CARDS = [
    pytest.param(make, form, id=f"{name}-{form}")
    for name, make in (
        ("small", told),
        ("large", large_facts),
        ("empty", lambda **changes: told(**EMPTY | changes)),
    )
    for form in ("full", "pmids")
]


@pytest.mark.parametrize(("make", "form"), CARDS)
def test_nothing_is_left_of_the_template_and_no_section_is_empty(make: Any, form: Any) -> None:
    rows = instruction_rows(ROWS, form).head(2).to_dicts()
    text = card(make(form=form), rows)
    body = text.split("\n---\n", maxsplit=1)[1]
    for gap in ("{{", "}}", "{%", "{#", "TODO", "[More Information Needed]", "None", "nan", "Undefined"):
        assert gap not in body, gap
    tokens = parsed(text)
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            after = tokens[at + 3] if at + 3 < len(tokens) else None
            assert after is not None, "the last section is empty"
            # A section may begin with a subsection.
            assert after.type != "heading_open" or after.tag > token.tag, plain(tokens[at + 1])
    assert "\n\n\n" not in text
    assert text.endswith("\n")


@pytest.mark.parametrize(("make", "form"), CARDS)
def test_the_card_says_for_what_it_is_not_and_whose_data_it_holds(make: Any, form: Any) -> None:
    text = " ".join(card(make(form=form)).split())
    top = text.split("## Load it")[0]
    assert "**Not for clinical use.**" in top
    assert "courtesy of the U.S. National Library of Medicine, which does not endorse this release" in top
    assert "The data are not current" in top
    assert "what PubMed retracted after that is not known here" in top
    assert "Not for clinical use." in notice_text(make(form=form))


def test_every_figure_of_the_run_is_on_the_card() -> None:
    facts = large_facts()
    text = card(facts)
    lines = [row for table in tables(text) for row in table]
    for branch, rows in facts.by_branch.items():
        assert [branch, MESH_BRANCH_NAMES[branch], f"{rows:,}"] in [row[:3] for row in lines]
    for name, rows in {**facts.by_split, **facts.by_decision}.items():
        assert [name, f"{rows:,}"] in [row[:2] for row in lines]
    shown = {cell for line in lines for cell in line}
    assert {"a-tokenizer@0123456", "810", "4,096", "12,346", "0.25"} <= shown
    assert facts.benchmarks[0].file.digest in shown
    assert facts.mesh.digest in text
    assert facts.corpus in text
    assert "(2026-11-18)" in text
    assert f"{facts.evaluated:,} question-answer pairs" in text
    assert "in 2 of the 115 branches" in " ".join(text.split())
    assert "1 row of earlier corpora rests" in " ".join(text.split())
    assert "polars 2.1.0" in text
    assert ["MKAILIN_ANSWER_MODEL", '"extractive"'] in lines


def test_reasons_without_end_are_counted_and_not_listed() -> None:
    text = card(large_facts())
    (reasons,) = [table for table in tables(text) if table[0][0] == "kept out by"]
    assert reasons[1][:2] == ["quality", "too short"]
    assert ["duplicates", "2,980 other reasons", "5,960"] in reasons
    assert len(text) < 40_000


def test_hugging_face_finds_the_files_of_each_split_that_has_rows() -> None:
    found = header(card(FACTS))
    assert [config["config_name"] for config in found["configs"]] == ["instruction", "pretraining"]
    assert [config.get("default") for config in found["configs"]] == [True, None]
    assert found["configs"][1]["data_files"] == [
        {"split": split, "path": f"data/pretraining/{split}-*.parquet"}
        for split in ("train", "validation", "test")
    ]
    # `datasets` refuses a pattern that no file has.
    without_test = header(card(told(by_split={"train": 7, "test": 0, "validation": 2})))
    assert [one["split"] for one in without_test["configs"][0]["data_files"]] == ["train", "validation"]
    (of_pmids,) = header(card(told(form="pmids")))["configs"]
    assert (of_pmids["config_name"], of_pmids["default"]) == ("instruction", True)


@pytest.mark.parametrize(
    ("rows", "size"),
    [(999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (10**6, "1M<n<10M"), (10**7, "10M<n<100M")],
)
def test_the_header_has_size_language_and_tasks(rows: int, size: str) -> None:
    found = header(card(told(rows=rows)))
    assert found["size_categories"] == [size]
    assert found["language"] == ["en"]
    assert found["task_categories"] == ["question-answering", "text-generation"]
    assert found["annotations_creators"] == ["machine-generated"]
    assert found["pretty_name"] == FACTS.name


def test_a_release_without_abstracts_is_cc_by_and_one_with_them_is_not() -> None:
    assert header(card(told(form="pmids")))["license"] == "cc-by-4.0"
    of_full = header(card(told(form="full")))
    assert (of_full["license"], of_full["license_link"]) == ("other", "LICENSE")
    assert "does not cover the titles and abstracts" in " ".join(licence_text(FACTS).split())
    assert "creativecommons.org/licenses/by/4.0/" in licence_text(told(form="pmids"))


def test_a_stated_exception_is_printed_with_what_it_stands_against() -> None:
    llama, said = "meta-llama/Llama-2-7b-chat-hf", "Meta allowed it | in writing"
    models = uses((llama, "answer", True, 5, None), **{llama: said})
    facts = told(form="pmids", models=models)
    text = card(facts)
    whole = " ".join(plain(token) for token in parsed(text) if token.type == "inline")
    assert said in whole
    assert "1.b.v: outputs must not improve any other large language model" in whole
    assert [llama, "wrote answers", "5", "no"] in [
        [row[0], row[2], row[3], row[-1]] for table in tables(text) for row in table if len(row) == 7
    ]
    assert header(text)["license"] == "other"
    assert said in " ".join(licence_text(facts).split())


def test_what_a_licence_asks_for_is_printed() -> None:
    facts = told(models=uses(("meta-llama/Llama-3.1-8B-Instruct", "answer", True, 5, None)))
    asked = 'the name of a model trained on outputs begins with "Llama"; show "Built with Llama"'
    assert asked in cells(card(facts))
    assert asked in " ".join(licence_text(facts).split())


def test_models_have_revision_role_rows_prompt_and_where_to_read_their_licence() -> None:
    version = PromptFile.load("answer").version
    models = uses(
        ("Qwen/Qwen2.5-7B-Instruct@0123abc", "answer", True, 1234, version),
        ("some-lab/some-model", "entailment", False, 77, "entailment-0-00000000"),
    )
    text = card(told(models=models))
    rows = [row for table in tables(text) for row in table]
    assert [
        "Qwen/Qwen2.5-7B-Instruct",
        "0123abc",
        "wrote answers",
        "1,234",
        version,
        "Apache-2.0",
        "yes",
    ] in rows
    assert ["some-lab/some-model", "none stated", "judged entailments", "77"] in [row[:4] for row in rows]
    assert [version, models[0].prompt_sha256] in rows
    assert ["entailment-0-00000000", "not a prompt of this version"] in rows
    assert models[0].source in links(text)


def test_what_it_is_weak_in_depends_on_who_wrote_it() -> None:
    by_rules = card(FACTS)
    by_model = card(told(models=uses(("Qwen/Qwen2.5-7B-Instruct", "answer", True, 9, None))))
    assert "Extractive agents" in by_rules
    assert "language model answers" not in by_rules
    assert "language model answers" in by_model
    assert "Extractive agents" not in by_model
    assert "In 9 of 9 rows the answer is a quotation" in by_rules
    assert "It was not cleaned of any benchmark" in card(told(benchmarks=[]))


@pytest.mark.parametrize("form", ["full", "pmids"])
def test_every_column_is_described_in_the_words_of_the_schema(form: Any) -> None:
    text = card(told(form=form))
    found = [table[1:] for table in tables(text) if table[0][0] == "column"]
    configs = ["instruction", "pretraining"][: len(found)]
    assert [[row[:2] for row in table] for table in found] == [
        [[name, str(kind)] for name, kind in schema_of(config, form).items()] for config in configs
    ]
    assert all(row[2] not in ("", "None") for table in found for row in table)
    assert ["pmid", "Int64", "Source citation"] in found[0]


def test_a_card_without_abstracts_quotes_none() -> None:
    long_answer = (
        "In our own words. We conclude that walking after meals lowers glucose in trial 7919. So it is."
    )
    rows = training_examples(example(1, long_answer=long_answer))
    shown = instruction_rows(rows, "pmids").to_dicts()
    text = card(small_facts(rows, form="pmids"), [row | {"long_answer": long_answer} for row in shown])
    assert "walking after meals lowers glucose in trial 7919?" in text
    assert "We conclude" not in text
    assert "In our own words" in text
    assert "characters of the abstract" in text
    assert "rehydrate FOLDER --pubmed PUBMED_FOLDER --to NEW_FOLDER" in text
    full = card(small_facts(rows), instruction_rows(rows, "full").to_dicts())
    assert long_answer in full
    assert "rehydrate FOLDER" not in full


def test_an_example_of_a_hundred_thousand_characters_is_cut() -> None:
    rows = training_examples(example(1, long_answer="word " * 20_000))
    assert len(card(small_facts(rows), instruction_rows(rows, "full").to_dicts())) < 30_000


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_data_hold_breaks_no_table_and_makes_no_heading_or_link(hostile: str) -> None:
    file = SourceFile(name=hostile, url=hostile, algorithm="sha256", digest="0" * 64)
    changes: dict[str, Any] = {
        "models": [
            model.model_copy(update={"name": hostile, "condition": hostile, "source": hostile})
            for model in FACTS.models
        ],
        "benchmarks": [BenchmarkFacts(file=file, items=1, removed=0)],
        "excluded": {"evaluation": {hostile: 1}},
        "by_branch": {hostile: 9},
        "by_decision": {hostile: 9},
        "settings": {hostile: hostile},
        "rules": {hostile: {hostile: hostile}},
        "last_update_file": hostile,
        "mesh": file,
        "packages": {hostile: hostile},
    }
    row = instruction_rows(ROWS, "full").to_dicts()[0]
    row |= {"question": hostile, "long_answer": hostile, "generator": hostile, "answerer": hostile}
    text, usual = card(told(**changes), [row]), card(FACTS, [row | {"question": "?"}])
    assert headings(text) == headings(usual)
    assert [len(table[0]) for table in tables(text)] == [len(table[0]) for table in tables(usual)]
    for table in tables(text):
        assert {len(line) for line in table} == {len(table[0])}
    assert links(text) <= links(usual)
    assert visible(hostile) in cells(text)
    assert not [token for token in parsed(text) if token.type == "html_block"]
    assert not re.search(r"\{[{%#]|[}%]\}", text)
    assert header(text) == header(usual)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(min_size=1))
def test_a_reader_sees_each_text_as_it_is(reason: str) -> None:
    found = card(told(excluded={"evaluation": {reason: 1}}))
    (reasons,) = tables("---\n---\n" + found[found.index("| kept out by") :].split("\n\n")[0])
    assert reasons[1] == ["quality", visible(reason), "1"]


def test_a_name_of_any_letters_is_read_back_from_the_header() -> None:
    name = 'm-KAILIN: "ä" #1 \\ {2026} 😀 - x'
    assert header(card(told(name=name)))["pretty_name"] == name


def test_running_numbers_of_files_are_told_as_a_range() -> None:
    assert file_ranges(large_facts()) == ["pubmed26n0001 to pubmed26n1334", "pubmed26n1340 to pubmed26n1342"]
    names = ["query-1a2b3c4d-20160101-20311231", "pubmed25n0002", "pubmed26n0002", "pubmed26n0001.xml.gz"]
    files = [SourceFile(name=name, url=None, algorithm="md5", digest="0" * 32) for name in names]
    assert file_ranges(told(pubmed_files=files)) == [
        "pubmed25n0002",
        "pubmed26n0001 to pubmed26n0002",
        "query-1a2b3c4d-20160101-20311231",
    ]


def test_the_notice_says_what_the_library_asks_for() -> None:
    said = " ".join(notice_text(FACTS).split())
    assert "PubMed and MeSH: courtesy of the U.S. National Library of Medicine" in said
    assert "does not endorse" in said
    assert "The data are not current" in said
    assert "up to pubmed26n1335 of 2026-11-18 is left out" in said
    assert "MeSH: release of 2026" in said
    undated = notice_text(told(retraction_cutoff=None))
    assert re.search(r"up to\s+pubmed26n1335\s+is\s+left\s+out", undated)


def test_the_same_facts_make_the_same_card() -> None:
    again = ReleaseFacts.model_validate_json(FACTS.model_dump_json())
    assert card(FACTS) == card(again)
    assert licence_text(FACTS) == licence_text(again)
