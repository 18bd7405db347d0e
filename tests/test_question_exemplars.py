"""Documents and what people asked of them: no benchmark is among them, and no question on both sides."""

from collections.abc import Set
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mkailin_assets.corpus.decontamination import benchmark_questions
from mkailin_assets.evaluation.pubmedqa import read_pubmedqa
from mkailin_assets.pubmed.citations import read_pubmed_file
from mkailin_assets.pubmed.tables import pubmed_records
from mkailin_assets.questions import exemplars
from mkailin_assets.questions.bioasq import BioASQItem, read_bioasq
from mkailin_assets.questions.candidates import document_of
from mkailin_assets.questions.exemplars import exemplar_citations, exemplar_leaks, question_exemplars
from mkailin_assets.questions.tables import QuestionExemplar
from mkailin_assets.retrieval.pairs import is_held_out
from mkailin_resources.models.interface import Document, Section

NONE = benchmark_questions([])
# Of PMIDs 1 to 59 these are held out: 7, 13, 33, 35, 44.
BACKGROUND = (
    "Stroke is a common cause of death and of disability in adults. We enrolled 312 patients with atrial "
    "fibrillation at nine hospitals and gave them amarin or placebo for two years."
)
RESULTS = "Strokes were seen in 12 patients of the first group and in 31 patients of the second group."
CLAIM = "These findings suggest that amarin reduces the risk of stroke in atrial fibrillation."
ASKED = "Does amarin prevent stroke in the old?"


def citation(pmid: int, title: str | None = ASKED, text: str = BACKGROUND) -> dict[str, Any]:
    sections = [("METHODS", text), ("RESULTS", RESULTS), ("CONCLUSIONS", CLAIM)]
    return {
        "record": "citation",
        "position": pmid,
        "pmid": pmid,
        "pubmed_file": "pubmed26n0001",
        "title": title,
        "abstract": [{"label": label, "category": label, "text": text} for label, text in sections if text],
    }


def item(
    name: str, question: str, marked: dict[int, list[str]] | None = None, named: tuple[int, ...] = ()
) -> BioASQItem:
    """A question with passages of the documents `marked`; `named` are documents without."""
    address = "http://www.ncbi.nlm.nih.gov/pubmed/"
    marked = marked or {}
    return BioASQItem.model_validate(
        {
            "id": name,
            "body": question,
            "type": "summary",
            "documents": [f"{address}{pmid}" for pmid in (*named, *marked)],
            "snippets": [
                {"document": f"{address}{pmid}", "text": text, "beginSection": "abstract"}
                for pmid, texts in marked.items()
                for text in texts
            ],
        }
    )


def made(
    *sources: dict[str, Any] | BioASQItem, benchmark: pl.DataFrame = NONE, withdrawn: Set[int] = frozenset()
) -> pl.DataFrame:
    citations = [source for source in sources if isinstance(source, dict)]
    bioasq = [source for source in sources if isinstance(source, BioASQItem)]
    found = exemplar_citations([pubmed_records(citations).lazy()], bioasq)
    return QuestionExemplar.validate(question_exemplars(found, bioasq, benchmark, withdrawn))


def without_removal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No removal of what a benchmark holds."""
    nothing = {"reason": pl.lit(None, pl.String)}
    monkeypatch.setattr(exemplars, "contamination", lambda rows, benchmark: nothing)


def used(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(pl.col("reason").is_null())


def test_a_title_that_asks_is_asked_of_the_abstract_without_title_and_conclusion() -> None:
    (row,) = made(citation(1, f"[{ASKED[:7]}\u200b{ASKED[7:]}].")).to_dicts()
    assert row["question"] == ASKED
    assert (row["source"], row["pmid"], row["pubmed_file"]) == ("title", 1, "pubmed26n0001")
    assert document_of(row) == Document(
        "", (Section("METHODS", "METHODS", BACKGROUND), Section("RESULTS", "RESULTS", RESULTS))
    )


def test_an_abstract_without_headings_loses_its_conclusion_too() -> None:
    plain = citation(1) | {
        "abstract": [{"label": None, "category": None, "text": f"{BACKGROUND} {RESULTS} {CLAIM}"}]
    }
    (row,) = made(plain).to_dicts()
    assert document_of(row).sections == (Section(None, None, f"{BACKGROUND} {RESULTS}"),)


def test_only_citations_that_ask_or_are_named_are_kept_of_each_frame() -> None:
    citations = [citation(1), citation(2, "Amarin prevents stroke"), citation(3, None), citation(4, "Why?")]
    frames = [pubmed_records(citations[:2]).lazy(), pubmed_records(citations[2:]).lazy()]
    found = exemplar_citations(frames, [item("a", "What is amarin good for?", named=(3, 99))])
    assert found["pmid"].to_list() == [1, 3]
    assert exemplar_citations([], []).schema == found.schema


def test_the_text_of_other_citations_is_not_kept_in_memory(tmp_path: Path) -> None:
    others = [citation(pmid, "Amarin prevents stroke", BACKGROUND * 5) for pmid in range(2, 3_000)]
    pubmed_records([citation(1), *others]).write_parquet(tmp_path / "file.parquet")
    found = exemplar_citations([pl.scan_parquet(tmp_path / "file.parquet")], [])
    kept = found["abstract"].to_arrow(compat_level=pl.CompatLevel.newest())
    assert kept.get_total_buffer_size() < 10_000


def test_an_expert_asks_of_the_whole_citation_or_else_of_the_passages_marked() -> None:
    asked = item("a", "What is amarin good for?", {2: ["Passed over."], 3: [BACKGROUND, RESULTS]})
    rows = made(citation(2, "Amarin and stroke"), asked)
    held, elsewhere = sorted(rows.to_dicts(), key=lambda row: row["pmid"])
    assert (held["pubmed_file"], elsewhere["pubmed_file"]) == ("pubmed26n0001", None)
    assert document_of(held) == document_of(citation(2, "Amarin and stroke"))
    assert document_of(elsewhere) == Document("", (Section(None, None, f"{BACKGROUND} {RESULTS}"),))
    assert rows["question"].unique().to_list() == ["What is amarin good for?"]
    assert used(rows).height == 2


def test_a_citation_without_abstract_is_read_by_its_passages() -> None:
    rows = made(
        citation(2, "Amarin and stroke") | {"abstract": []},
        item("a", "What is amarin good for?", {2: [BACKGROUND]}),
    )
    assert document_of(rows.row(0, named=True)) == Document("", (Section(None, None, BACKGROUND),))


def test_a_question_has_three_documents_those_with_most_passages() -> None:
    marked = {pmid: [BACKGROUND] * count for pmid, count in {1: 1, 2: 3, 3: 2, 4: 1, 5: 2}.items()}
    rows = made(citation(6, "Amarin"), item("a", "What is amarin good for?", marked, named=(6,)))
    assert rows["pmid"].to_list() == [2, 3, 5]


def test_a_question_of_which_no_document_gives_a_text_says_so_once() -> None:
    rows = made(item("a", "What is amarin good for?", named=(1, 2)), item("b", "Who makes amarin today?"))
    assert rows.select("pmid", "reason").rows() == [(1, exemplars.NO_TEXT), (None, exemplars.NO_TEXT)]


def test_a_retracted_citation_is_not_asked_about_though_bioasq_holds_its_passages() -> None:
    asked = item("a", "What is amarin good for?", {2: [BACKGROUND], 3: [RESULTS + BACKGROUND]})
    rows = made(asked, withdrawn={3})
    assert dict(rows.select("pmid", "reason").rows()) == {2: None, 3: "the citation is retracted or deleted"}


def test_a_question_goes_with_its_first_document_and_only_with_those_on_its_side() -> None:
    texts = {pmid: [f"{BACKGROUND} Trial {pmid}."] for pmid in (1, 2, 7, 13, 33)}
    train = item("a", "What is amarin good for?", texts)
    held_out = item("b", "What is amarin bad for?", {7: texts[7] * 2} | texts)
    rows = made(train, held_out)
    sides = rows.group_by("question").agg(pl.col("split").unique(), pl.col("pmid").sort()).sort("question")
    assert sides.rows() == [
        ("What is amarin bad for?", ["held_out"], [7, 13, 33]),
        ("What is amarin good for?", ["train"], [1, 2]),
    ]


def test_what_is_held_out_is_asked_on_no_other_side() -> None:
    rows = made(
        citation(1),
        citation(7, "does amarin prevent STROKE -- in the old?", f"{BACKGROUND} Again."),
        item("a", ASKED, {2: [BACKGROUND]}),
        item("b", "What is amarin good for?", {2: [BACKGROUND]}),
    )
    sides = {(row["source"], row["pmid"], row["question"][:4]): row for row in rows.to_dicts()}
    assert sides["title", 7, "does"]["reason"] is None
    assert sides["bioasq", 2, "What"]["reason"] is None
    for train in (sides["title", 1, "Does"], sides["bioasq", 2, "Does"]):
        assert (train["split"], train["reason"]) == (
            "train",
            "the same question is held out with another citation",
        )


def test_a_benchmark_citation_and_its_question_are_left_out_of_both_sources() -> None:
    benchmark = benchmark_questions(
        [(1, "Is it?"), (2, "Is it so?"), (None, "does amarin -- prevent stroke")]
    )
    rows = made(
        citation(1),
        item("a", "What is amarin good for?", {2: [BACKGROUND]}),
        citation(3, "Does Amarin prevent stroke?"),
        item("b", "Does amarin prevent stroke?", {4: [BACKGROUND]}),
        citation(5, "Does belosol prevent stroke?"),
        benchmark=benchmark,
    )
    assert dict(rows.select("pmid", "reason").rows()) == {
        1: "the source is a benchmark citation",
        2: "the source is a benchmark citation",
        3: "asks a benchmark question",
        4: "asks a benchmark question",
        5: None,
    }


def test_what_is_no_question_or_too_short_says_so() -> None:
    def asked(name: str, question: str, text: str = BACKGROUND) -> BioASQItem:
        return item(name, question, {int(name): [text]})

    rows = made(
        asked("1", "What is amarin?"),
        asked("2", "List the drugs that prevent stroke."),
        asked("3", "Does amarin prevent stroke?", "It does."),
        asked("4", " ".join(["word"] * 60) + " word?"),
        asked("5", " ".join(["word"] * 59) + " word?"),
        asked("6", "Does \u200b\x07amarin \U0001f9ec prevent\nstroke?"),
        citation(8, text="") | {"abstract": []},
    )
    reasons = {
        pmid: reason and reason.split(": ")[0] for pmid, reason in rows.select("pmid", "reason").rows()
    }
    assert reasons == {
        1: "the question has fewer than 4 words",
        2: "the question does not end in a question mark",
        3: "the document has fewer than 30 words",
        4: "the question is longer than 60 words",
        5: None,
        6: None,
        8: "the document has fewer than 30 words",
    }
    assert rows.filter(pmid=6)["question"].to_list() == ["Does amarin \U0001f9ec prevent stroke?"]


def test_the_same_question_of_the_same_text_is_asked_once() -> None:
    rows = made(
        citation(1),
        citation(3),
        citation(2, text=f"{BACKGROUND} Otherwise."),
        item("a", "What is amarin good for?", {5: [BACKGROUND], 6: [BACKGROUND.upper()]}),
        item("b", "What is amarin good for?", {5: [BACKGROUND]}),
    )
    assert rows.filter(source="title").select("pmid", "reason").rows() == [
        (1, None),
        (2, None),
        (3, "asks the same of the same text as PMID 1"),
    ]
    experts = rows.filter(source="bioasq")
    assert experts["pmid"].to_list() == [5, 5, 6]
    assert experts["reason"].to_list() == [None, *["asks the same of the same text as PMID 5"] * 2]


def test_exemplars_do_not_depend_on_the_order_of_what_they_are_made_from() -> None:
    sources = [
        *(citation(pmid) for pmid in (1, 2, 7)),
        citation(4, "Amarin and stroke"),
        item("a", "What is amarin good for?", {4: [BACKGROUND], 5: [BACKGROUND]}),
        item("b", "What is amarin good for?", {5: [BACKGROUND]}),
    ]
    assert made(*sources).equals(made(*sources[::-1]))
    assert made(*sources)["exemplar_id"].n_unique() == 6


def test_nothing_makes_an_empty_table() -> None:
    assert made().height == 0
    assert exemplar_leaks(made(), benchmark_questions([(1, ASKED)])).height == 0


LONG = "Can early treatment with amarin prevent a second stroke in the very old?"
LEAKS = [
    (citation(1), ("pmid", "1")),
    (citation(2, "Does BELOSOL -- prevent stroke?"), ("question", "2")),
    (citation(3, "Stroke: can early treatment with amarin prevent a second event?"), ("run", "3")),
    (citation(4, "Is amarin a safe drug?", f"{BACKGROUND} We asked: {LONG}"), ("question", "3")),
    (citation(5, "Is amarin safe and cheap?", f"{BACKGROUND} We asked: {LONG[:-14]}?"), None),
]


@pytest.mark.parametrize(("source", "leak"), LEAKS)
def test_what_the_removal_lets_through_is_a_leak(
    source: dict[str, Any], leak: tuple[str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = benchmark_questions([(1, "Is it?"), (None, "Does belosol prevent stroke?"), (None, LONG)])
    removed = made(source, benchmark=benchmark)
    assert removed["reason"].null_count() == (leak is None)
    assert exemplar_leaks(removed, benchmark).height == 0
    without_removal(monkeypatch)
    let_through = made(source, benchmark=benchmark)
    assert exemplar_leaks(let_through, benchmark).select("kind", "item").rows() == ([leak] if leak else [])


def test_a_benchmark_question_in_the_title_of_an_experts_document_is_a_leak(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    benchmark = benchmark_questions([(None, LONG)])
    sources = [citation(2, LONG), item("a", "What is amarin good for?", named=(2,))]
    assert used(made(*sources, benchmark=benchmark)).height == 0
    without_removal(monkeypatch)
    assert exemplar_leaks(made(*sources, benchmark=benchmark), benchmark).height == 2


def test_every_question_and_citation_of_the_real_benchmark_is_caught_twice(
    real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = read_pubmedqa(real_data / "pubmedqa" / "pqal_dev500.json").items
    benchmark = benchmark_questions((item.pmid, item.question) for item in items)
    planted: list[dict[str, Any] | BioASQItem] = []
    for place, known in enumerate(items):
        # Its citation under another title, its question of another citation, and as an expert's.
        shouted = f"{known.question.upper().rstrip('?')} ?"
        text = f"{BACKGROUND} Trial {place}."
        planted += [
            citation(known.pmid, f"Does amarin prevent stroke in trial {place}?"),
            citation(100_000_000 + place, shouted, text),
            item(str(place), known.question.replace(" ", "  "), {200_000_000 + place: [text]}),
        ]
    clean = [citation(300_000_000 + place, f"Does amarin prevent stroke in {place}?") for place in range(100)]
    rows = made(*planted, *clean, benchmark=benchmark)
    assert set(used(rows)["pmid"]) == {row["pmid"] for row in clean}
    assert exemplar_leaks(rows, benchmark).height == 0
    without_removal(monkeypatch)
    rows = used(made(*planted, *clean, benchmark=benchmark)).filter(pl.col("pmid") < 300_000_000)
    assert rows.height > 1_200
    assert exemplar_leaks(rows, benchmark)["exemplar_id"].equals(rows["exemplar_id"])


def test_the_real_corpus_and_golden_files_give_exemplars(real_data: Path) -> None:
    records = []
    for path in sorted(real_data.glob("nlm/pubmed/*/*.xml.gz")):
        with path.open("rb") as file:
            records += read_pubmed_file(file, path.name.removesuffix(".xml.gz"))
    latest = pl.concat(records).filter(record="citation").unique("pmid", keep="last", maintain_order=True)
    bioasq = read_bioasq(real_data / "bioasq").items
    known = read_pubmedqa(real_data / "pubmedqa" / "pqal_dev500.json")
    benchmark = benchmark_questions((item.pmid, item.question) for item in known)
    rows = QuestionExemplar.validate(
        question_exemplars(exemplar_citations([latest.lazy()], bioasq), bioasq, benchmark)
    )
    counted = used(rows).group_by("source").len().sort("source").rows()
    assert counted == [("bioasq", pytest.approx(200, abs=20)), ("title", pytest.approx(9, abs=2))]
    assert set(rows.filter(source="bioasq")["question"]) == {item.question for item in bioasq}
    assert rows.filter(source="bioasq").group_by("question").len()["len"].max() == 3
    for key in ("question", "pmid"):
        assert used(rows).group_by(key).agg(pl.col("split").n_unique())["split"].max() == 1
    split = used(rows).select(pl.col("pmid").map_elements(is_held_out, return_dtype=pl.Boolean), "split")
    assert split["pmid"].equals(split.select(pl.col("split") == "held_out").to_series(), check_names=False)
    assert used(rows).filter(split="held_out").height > 5
    assert exemplar_leaks(rows, benchmark).height == 0
