"""Every configured benchmark is read whatever its format is, and what is none is refused by name."""

import hashlib
import json
from pathlib import Path

import polars as pl
import pytest

from mkailin_assets.corpus.decontamination import BENCHMARK
from mkailin_assets.evaluation.benchmark_files import NotABenchmark, benchmark_items, files_of
from mkailin_resources.benchmarks import BenchmarkFiles

ASKED = "Does zinc help?"
PUBMEDQA = json.dumps({"101": {"QUESTION": ASKED}, "x": {"QUESTION": "Is it?"}, "103": {"CONTEXTS": []}})
BIOASQ = json.dumps(
    {
        "questions": [
            {
                "id": "b1",
                "body": ASKED,
                "type": "yesno",
                "documents": [f"http://www.ncbi.nlm.nih.gov/pubmed/{pmid}" for pmid in (7, 8)],
            },
            {"id": "b2", "body": "Is it?", "type": "riddle"},
        ]
    }
)
MMLU = f'{ASKED},a,b,c,d,A\r\n"It is, is it\nnot ""so""?",a,b,c,d,D\r\nIs it?,a\r\n'
# Content, what is read of it (item, PMID, question), and what is refused (item to cause).
FORMATS = {
    "PubMedQA": (
        PUBMEDQA,
        [("101", 101, ASKED), ("x", None, "Is it?")],
        {"103": "None is no question"},
    ),
    "BioASQ": (
        BIOASQ,
        [("b1", 7, ASKED), ("b1", 8, ASKED)],
        {"2": "type: Input should be 'yesno', 'factoid', 'list' or 'summary'"},
    ),
    "JSON lines": (
        f'{{"question": "{ASKED}", "options": {{"A": "Yes"}}}}\n\n{{"question": "So\u2028so?", "id": 5}}\n'
        '{"question": "..."}\n{"query": "Is it?"}\n[1]\n{"question": "Cut o',
        [("1", None, ASKED), ("5", None, "So\u2028so?")],
        {
            "4": "'...' is no question",
            "5": "it has no question, but query",
            "6": "'[1]' is no JSON object",
            "7": """'{"question": "Cut o' is no JSON object""",
        },
    ),
    "one JSON line": (json.dumps({"question": ASKED, "id": "m1"}), [("m1", None, ASKED)], {}),
    "JSON array": (
        json.dumps([{"question": ASKED, "pubid": 9}, {"question": None}]),
        [("1", 9, ASKED)],
        {"2": "None is no question"},
    ),
    "MMLU": (
        MMLU,
        [("1", None, ASKED), ("2", None, 'It is, is it\nnot "so"?')],
        {"3": "2 cells in place of 6"},
    ),
    "CSV": (
        f"id,Question,pmid\nq7,{ASKED},12\nq8,Is it?,\n",
        [("q7", 12, ASKED), ("q8", None, "Is it?")],
        {},
    ),
    "with a byte order mark": (f"\ufeffquestion\n{ASKED}\n", [("1", None, ASKED)], {}),
}


def benchmarks_of(*others: Path, retrieval: Path | None = None) -> BenchmarkFiles:
    return BenchmarkFiles(
        pubmedqa="", retrieval=str(retrieval) if retrieval else "", others=[str(path) for path in others]
    )


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("kind", FORMATS)
def test_a_format_is_known_by_its_content(kind: str, tmp_path: Path) -> None:
    content, read, refused = FORMATS[kind]
    # The ending says nothing.
    items = benchmark_items(benchmarks_of(written(tmp_path / "asked.data", content)))
    assert items.table.schema == BENCHMARK
    assert items.table.rows() == [("asked", *row) for row in read]
    assert items.refused == {f"asked, item {item}": cause for item, cause in refused.items()}


def test_a_parquet_file_with_questions_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pqa.parquet"
    rows = {"pubid": [11, 12], "question": [ASKED, None], "context": [{"a": "b"}, None]}
    pl.DataFrame(rows).write_parquet(path)
    items = benchmark_items(benchmarks_of(path))
    assert items.table.rows() == [("pqa", "1", 11, ASKED)]
    assert items.refused == {"pqa, item 2": "None is no question"}


def test_of_a_folder_in_the_form_of_beir_the_queries_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "fact"
    written(
        folder / "queries.jsonl", f'{{"_id": "0", "text": "{ASKED}"}}\n{{"_id": "2", "text": "Is it?"}}\n'
    )
    written(folder / "corpus.jsonl", '{"_id": "9", "title": "Zinc", "text": "Does it?"}\n')
    for benchmarks in (benchmarks_of(retrieval=folder), benchmarks_of(folder), benchmarks_of(tmp_path)):
        table = benchmark_items(benchmarks).table
        assert table.select("item", "question").rows() == [("0", ASKED), ("2", "Is it?")]
        assert table["benchmark"].unique().item() == files_of(benchmarks)[0].name
    assert [file.name for file in files_of(benchmarks_of(folder))] == ["fact"]


def test_of_a_folder_every_file_is_read_but_what_tells_about_it(tmp_path: Path) -> None:
    for name in ("b/dev.json", "a/dev.jsonl"):
        written(tmp_path / "known" / name, json.dumps({"question": name}))
    for name in ("LICENSE", "a/README.md", ".gitattributes", ".cache/dev.json"):
        written(tmp_path / "known" / name, "Is this no question?")
    files = files_of(benchmarks_of(tmp_path / "known"))
    assert [file.name for file in files] == ["known/a/dev", "known/b/dev"]
    assert files[0].sha256 == hashlib.sha256(b'{"question": "a/dev.jsonl"}').hexdigest()
    assert benchmark_items(benchmarks_of(tmp_path / "known")).table["question"].to_list() == [
        "a/dev.jsonl",
        "b/dev.json",
    ]


def test_a_file_that_is_named_twice_is_one_benchmark_and_a_name_stands_for_one(tmp_path: Path) -> None:
    path = written(tmp_path / "a" / "dev.json", FORMATS["JSON array"][0])
    both = BenchmarkFiles(pubmedqa=str(path), others=[str(path), str(path.parent)])
    assert [(file.name, file.setting) for file in files_of(both)] == [("dev", "MKAILIN_PUBMEDQA")]
    other = written(tmp_path / "b" / "dev.json", FORMATS["JSON array"][0])
    with pytest.raises(NotABenchmark, match=r"b/dev\.json.*a/dev\.json has its name, dev, too"):
        benchmark_items(benchmarks_of(path, other))
    assert len(files_of(benchmarks_of(path.parent, other.parent))) == 2


def test_nothing_configured_is_an_empty_table() -> None:
    items = benchmark_items(benchmarks_of())
    assert items.table.equals(pl.DataFrame(schema=BENCHMARK))
    assert items.refused == {}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "it is empty"),
        ("  \n", "it is empty"),
        ("Is this a benchmark?\n", "text that begins with 'Is this a benchmark"),
        ("a,b,c\n1,2,3\n", "text that begins with 'a,b,c"),
        ('question\n"Is it', "unexpected end of data"),
        ("question\n", "no question can be used: it is empty"),
        ("{}", "a JSON object with the keys none"),
        ('{"version": 1, "data": []}', "a JSON object with the keys version, data"),
        ('{"101": {"QUESTION": "Is', "Unterminated string"),
        ("[" * 100_000, "recursion"),
        ("[]", "no question can be used: it is empty"),
        ('[{"asked": "Is it?"}]', "no question can be used: item 1: it has no question, but asked"),
        ('{"questions": []}', "no question can be used: it is empty"),
        (
            '{"_id": "9", "title": "Zinc", "text": "Does it?"}\n' * 2,
            "item 1: it has no question, but _id, title",
        ),
        (b"\xff\xfe\x00q", "can't decode byte 0xff"),
        (b"question\n\x00", "no question can be used: item 1: '.x00' is no question"),
        (b"PAR1 and no more", "parquet"),
    ],
)
def test_what_is_no_benchmark_is_refused_by_name(content: str | bytes, found: str, tmp_path: Path) -> None:
    path = written(tmp_path / "asked.json", content)
    with pytest.raises(
        NotABenchmark, match=rf"(?is)asked\.json: .*{found}.*accepted are .*MKAILIN_BENCHMARKS"
    ):
        benchmark_items(benchmarks_of(path))
    with pytest.raises(NotABenchmark, match="set MKAILIN_PUBMEDQA to"):
        benchmark_items(BenchmarkFiles(pubmedqa=str(path)))


def test_a_parquet_file_without_questions_or_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "texts.parquet"
    pl.DataFrame({"text": [ASKED], "title": ["Zinc"]}).write_parquet(path)
    with pytest.raises(NotABenchmark, match="a Parquet file with the columns text, title"):
        benchmark_items(benchmarks_of(path))
    pl.DataFrame({"question": [ASKED] * 100}).write_parquet(path)
    written(path, path.read_bytes()[:-20])
    with pytest.raises(NotABenchmark, match=r"texts\.parquet"):
        benchmark_items(benchmarks_of(path))


def test_a_path_that_leads_nowhere_is_refused_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(
        NotABenchmark, match=r"gone: there is no such file or folder.*BENCHMARKS.*':' between"
    ):
        files_of(benchmarks_of(tmp_path / "gone"))
    with pytest.raises(NotABenchmark, match=r"gone.*MKAILIN_RETRIEVAL_BENCHMARK"):
        files_of(benchmarks_of(retrieval=tmp_path / "gone"))
    written(tmp_path / "folder" / "README.md", "Nothing else.")
    with pytest.raises(NotABenchmark, match="folder: there is no file in this folder that could be one"):
        files_of(benchmarks_of(tmp_path / "folder"))


def test_every_real_benchmark_is_read_whole(real_data: Path) -> None:
    benchmarks = BenchmarkFiles(
        pubmedqa=str(real_data / "pubmedqa" / "pqal_dev500.json"),
        retrieval=str(real_data / "retrieval" / "scifact"),
        others=[str(real_data / "benchmarks"), str(real_data / "bioasq")],
    )
    items = benchmark_items(benchmarks)
    assert items.refused == {}
    counted = items.table.group_by("benchmark", maintain_order=True).agg(
        pl.struct("item").n_unique(), pl.col("pmid").drop_nulls().n_unique()
    )
    mmlu = "benchmarks/mmlu_med"
    assert counted.rows() == [
        ("pqal_dev500", 500, 500),
        ("scifact", 1_109, 0),
        ("benchmarks/medmcqa/dev", 4_183, 0),
        ("benchmarks/medqa/phrases_no_exclude_test", 1_273, 0),
        (f"{mmlu}/anatomy_test", 135, 0),
        (f"{mmlu}/clinical_knowledge_test", 265, 0),
        (f"{mmlu}/college_biology_test", 144, 0),
        (f"{mmlu}/college_medicine_test", 173, 0),
        (f"{mmlu}/medical_genetics_test", 100, 0),
        (f"{mmlu}/professional_medicine_test", 272, 0),
        ("bioasq/10B1_golden", 90, 589),
        ("bioasq/11B1_golden", 73, 477),
    ]
