"""Every item that has a right answer is measured, whatever its format is, and what has none is told."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tiny_corpus import training_examples

from mkailin_assets.evaluation.benchmark_files import NotABenchmark, benchmark_items, files_of
from mkailin_assets.evaluation.items import ITEMS, MeasuredItems, corpus_items, measured_items
from mkailin_resources.benchmarks import BenchmarkFiles

PUBMEDQA = {
    "QUESTION": "Does zinc help?",
    "CONTEXTS": ["We gave zinc.", "It helped."],
    "LABELS": ["METHODS", "RESULTS"],
    "MESHES": ["Zinc", "Female"],
    "YEAR": "2011",
    "reasoning_required_pred": "maybe",
    "final_decision": "yes",
    "LONG_ANSWER": "It does.",
}
MEDQA = {"question": "Which?", "options": {"A": "a", "B": "b", "C": "c", "D": "d"}, "answer_idx": "B"}
MEDMCQA = {"id": "m1", "question": "Which?", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": 4}
BIOASQ = {
    "id": "b1",
    "body": "Does zinc help?",
    "type": "yesno",
    "exact_answer": ["No"],
    "documents": ["http://www.ncbi.nlm.nih.gov/pubmed/7"],
    "snippets": [{"text": "It did not.", "document": "http://www.ncbi.nlm.nih.gov/pubmed/7"}],
}
LETTERS = ["a", "b", "c", "d"]


def without(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != name}


def read(path: Path, content: object) -> MeasuredItems:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, pl.DataFrame):
        content.write_parquet(path)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return measured_items(BenchmarkFiles(pubmedqa=str(path)))


def test_every_real_item_is_measured_or_told(real_data: Path) -> None:
    benchmarks = BenchmarkFiles(
        pubmedqa=str(real_data / "pubmedqa" / "pqal_dev500.json"),
        retrieval=str(real_data / "retrieval" / "scifact"),
        others=[str(real_data / "benchmarks"), str(real_data / "bioasq")],
    )
    items = measured_items(benchmarks)
    counted = items.table.group_by("kind", "subject", maintain_order=True).len().rows()
    assert counted == [
        ("pubmedqa", None, 500),
        ("medmcqa", None, 4_183),
        ("medqa", None, 1_273),
        ("mmlu", "anatomy", 135),
        ("mmlu", "clinical_knowledge", 265),
        ("mmlu", "college_biology", 144),
        ("mmlu", "college_medicine", 173),
        ("mmlu", "medical_genetics", 100),
        ("mmlu", "professional_medicine", 272),
        ("bioasq", None, 23 + 24),
    ]
    assert set(items.skipped) == {"scifact", "bioasq/10B1_golden", "bioasq/11B1_golden"}
    assert "34 items ask for a factoid" in items.skipped["bioasq/10B1_golden"]
    gold = items.table.group_by("kind", "gold").len()
    counts = {(kind, label): count for kind, label, count in gold.iter_rows()}
    assert [counts["pubmedqa", label] for label in ("yes", "no", "maybe")] == [276, 169, 55]
    # cop of the file counts from 1.
    assert [counts["medmcqa", letter] for letter in "ABCD"] == [1348, 1085, 925, 825]
    assert counts["bioasq", "yes"] == 17 + 15
    # The names of items are those that contamination is found by.
    known = benchmark_items(benchmarks).table
    assert items.table.join(known, on=["benchmark", "item", "question"], how="anti").is_empty()


def test_an_item_of_pubmedqa_has_all_that_is_known_of_it(tmp_path: Path) -> None:
    [row] = read(tmp_path / "pqa.json", {"101": PUBMEDQA}).table.to_dicts()
    assert row == {
        "benchmark": "pqa",
        "kind": "pubmedqa",
        "item": "101",
        "subject": None,
        "question": "Does zinc help?",
        "options": ["yes", "no", "maybe"],
        "context": ["We gave zinc.", "It helped."],
        "labels": ["METHODS", "RESULTS"],
        "gold": "yes",
        "pmid": 101,
        "year": 2011,
        "headings": ["Zinc", "Female"],
        "human": "maybe",
        "answer": None,
        "text": None,
    }


def test_the_parquet_of_the_hub_says_of_pubmedqa_what_the_json_says(tmp_path: Path) -> None:
    nested = {
        "contexts": PUBMEDQA["CONTEXTS"],
        "labels": PUBMEDQA["LABELS"],
        "meshes": PUBMEDQA["MESHES"],
        "reasoning_required_pred": list("maybe"),
    }
    hub = {"pubid": 101, "question": PUBMEDQA["QUESTION"], "context": nested, "final_decision": "yes"}
    there = read(tmp_path / "a" / "pqa.parquet", pl.DataFrame([hub])).table
    here = read(tmp_path / "b" / "pqa.json", {"101": without(PUBMEDQA, "YEAR")}).table
    assert there.drop("item").equals(here.drop("item"))


def test_beside_the_ground_truth_its_items_alone_are_measured(tmp_path: Path) -> None:
    truth = tmp_path / "test_ground_truth.json"
    truth.write_text(json.dumps({"101": "yes", "102": "no", "104": "no"}))
    entries = {
        "101": PUBMEDQA,
        "102": without(PUBMEDQA, "final_decision"),
        "103": PUBMEDQA,
        "104": PUBMEDQA,
    }
    items = read(tmp_path / "ori_pqal.json", entries)
    assert items.table.select("item", "gold").rows() == [("101", "yes"), ("102", "no")]
    assert items.skipped == {
        "ori_pqal": "1 items are not in test_ground_truth.json, the test split of its authors",
        "ori_pqal, item 104": "final_decision is yes, but no in test_ground_truth.json",
    }
    folder = BenchmarkFiles(pubmedqa="", others=[str(tmp_path)])
    assert [file.path.name for file in files_of(folder)] == ["ori_pqal.json"]
    truth.write_text("[]")
    with pytest.raises(NotABenchmark, match=r"ori_pqal\.json: test_ground_truth\.json.*cannot be read"):
        read(tmp_path / "ori_pqal.json", entries)


@pytest.mark.parametrize(
    ("content", "kind", "gold", "context"),
    [
        (MEDQA, "medqa", "B", []),
        (without(MEDQA, "answer_idx") | {"answer": "d"}, "medqa", "D", []),
        (
            {"id": "q", "sent1": "Which?", "sent2": "", "label": 2}
            | {f"ending{place}": text for place, text in enumerate(LETTERS)},
            "medqa",
            "C",
            [],
        ),
        ([MEDMCQA], "medmcqa", "D", []),
        ([MEDMCQA | {"cop": 0}], "medmcqa", "A", []),
        ([{"question": "Which?", "choices": LETTERS, "answer": 3, "subject": "virology"}], "mmlu", "D", []),
        ("Which?,a,b,c,d,B\n", "mmlu", "B", []),
        ("Question,A,B,C,D,Answer\nWhich?,a,b,c,d,C\n", "mmlu", "C", []),
        ({"questions": [BIOASQ]}, "bioasq", "no", ["It did not."]),
    ],
)
def test_a_benchmark_is_known_by_its_content(
    content: object, kind: str, gold: str, context: list[str], tmp_path: Path
) -> None:
    items = read(tmp_path / "virology_test.data", content)
    [row] = items.table.to_dicts()
    assert (row["kind"], row["gold"], row["context"]) == (kind, gold, context)
    assert row["options"] == (["yes", "no"] if kind == "bioasq" else LETTERS)
    assert row["subject"] == ("virology" if kind == "mmlu" else None)
    assert items.table.schema == ITEMS
    assert items.skipped == {}


def test_whether_answers_count_from_0_or_1_is_decided_by_the_whole_file(tmp_path: Path) -> None:
    def golds(*cops: int) -> list[str]:
        rows = [MEDMCQA | {"id": str(place), "cop": cop} for place, cop in enumerate(cops)]
        return read(tmp_path / "med.json", rows).table["gold"].to_list()

    assert golds(1, 3, 4) == ["A", "C", "D"]
    assert golds(1, 3, 0) == ["B", "D", "A"]
    with pytest.raises(NotABenchmark, match=r"med\.json: cop is 1 to 3 throughout"):
        golds(1, 3, 2)
    with pytest.raises(NotABenchmark, match="cop is 0 in some items and 4 in others"):
        golds(0, 4)


@pytest.mark.parametrize(
    ("broken", "cause"),
    [
        (MEDQA | {"question": " "}, "' ' is no question"),
        (MEDQA | {"options": {"A": "a", "B": "b"}}, "its options are not A, B, C and D"),
        (
            MEDQA | {"options": MEDQA["options"] | {"C": " "}},
            "it has no four options, but ['a', 'b', ' ', 'd']",
        ),
        (MEDQA | {"answer_idx": "E"}, "its answer, 'E', is none of its options"),
        (without(MEDQA, "answer_idx"), "its answer, None, is none of its options"),
    ],
)
def test_a_malformed_item_is_told_and_the_others_are_measured(
    broken: dict[str, Any], cause: str, tmp_path: Path
) -> None:
    items = read(tmp_path / "med.json", [MEDQA, broken])
    assert items.table["item"].to_list() == ["1"]
    assert items.skipped == {"med, item 2": cause}


def test_an_item_of_another_shape_and_one_that_is_there_twice_are_told(tmp_path: Path) -> None:
    rows = [MEDQA | {"id": "q"}, MEDQA | {"id": "q"}, {"question": "Which?", "id": "r"}, "text"]
    items = read(tmp_path / "med.json", rows)
    assert items.table.height == 1
    assert items.skipped == {
        "med, item q": "an earlier item has its id, too",
        "med, item r": "its options are not A, B, C and D",
        "med, item 4": "'text' is no JSON object",
    }


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ([{"question": "Which?", "id": 1}], "no answers to choose in a form that is known (pubmedqa, medqa,"),
        ([MEDMCQA | {"cop": -1}] * 2, "none of its items can be asked; med, item m1: cop is -1"),
        (
            {"101": without(PUBMEDQA, "final_decision")},
            "none of its items can be asked; med, item 101: final_",
        ),
        ({"questions": [BIOASQ | {"type": "list"}]}, "1 items ask for a list, not for yes or no"),
        ({"questions": [BIOASQ | {"exact_answer": "perhaps"}]}, "exact_answer is 'perhaps', not yes or no"),
    ],
)
def test_a_file_without_answers_is_told_as_one(content: object, cause: str, tmp_path: Path) -> None:
    items = read(tmp_path / "med.json", content)
    assert items.table.is_empty()
    [(name, told)] = items.skipped.items()
    assert name == "med"
    assert cause in told


def test_of_a_search_nothing_is_measured(tmp_path: Path) -> None:
    (tmp_path / "fact").mkdir()
    (tmp_path / "fact" / "queries.jsonl").write_text('{"_id": "0", "text": "Does zinc help?"}\n')
    items = measured_items(BenchmarkFiles(pubmedqa="", retrieval=str(tmp_path / "fact")))
    assert items.table.is_empty()
    assert items.skipped == {"fact": "its questions are to be searched for, and have no answer to choose"}


def test_of_the_corpus_the_held_out_split_is_asked(tmp_path: Path) -> None:
    examples = training_examples(4, 3, 5).with_columns(
        decision=pl.when(pl.col("pmid") % 2 == 0).then("decision")
    )
    items = corpus_items(examples.lazy(), most=3)
    test = examples.filter(pl.col("split") == "test").sort("example_id").head(3)
    assert items.schema == ITEMS
    for row, example in zip(items.to_dicts(), test.to_dicts(), strict=True):
        assert (row["item"], row["pmid"], row["kind"]) == (example["example_id"], example["pmid"], "corpus")
        assert (row["question"], row["context"]) == (example["question"], [example["context"]])
        assert row["gold"] == example["decision"]
        assert row["answer"] == example["messages"][-1]["content"]
        assert row["text"] == example["pretraining_text"]
    assert corpus_items(training_examples(4, 3, 0).lazy(), most=3).equals(pl.DataFrame(schema=ITEMS))
