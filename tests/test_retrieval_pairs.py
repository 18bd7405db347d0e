"""Question-text pairs of the corpus: a question never meets its own words, and no side is ever changed."""

from pathlib import Path

import polars as pl
import pytest

from mkailin_assets.corpus.decontamination import benchmark_questions
from mkailin_assets.pubmed.citations import read_pubmed_file
from mkailin_assets.pubmed.tables import pubmed_records
from mkailin_assets.questions.candidates import document_of
from mkailin_assets.retrieval.pairs import (
    is_held_out,
    is_question_title,
    question_of_title,
    text_of,
    training_pairs,
)
from mkailin_assets.retrieval.tables import RetrieverPair
from mkailin_resources.models.extractive import ConclusionQuestioner
from mkailin_resources.models.extractive.sentences import split_sentences
from mkailin_resources.models.interface import Document, GenerationRequest, Section

NONE = benchmark_questions([])
HELD_OUT = [7, 13, 33, 35, 44]  # of the first 59 PMIDs
BACKGROUND = (
    "Stroke is a common cause of death and of disability in adults. We enrolled 312 patients with atrial "
    "fibrillation at nine hospitals and gave them amarin or placebo for two years."
)
RESULTS = "Strokes were seen in 12 patients of the first group and in 31 patients of the second group."
CLAIM = "These findings suggest that amarin reduces the risk of stroke in atrial fibrillation."


def citation(
    pmid: int, title: str | None = "Amarin reduces stroke in atrial fibrillation", *texts: str
) -> dict:
    sections = [{"label": None, "category": None, "text": text} for text in texts]
    structured = [
        {"label": "METHODS", "category": "METHODS", "text": BACKGROUND},
        {"label": "RESULTS", "category": "RESULTS", "text": RESULTS},
        {"label": "CONCLUSIONS", "category": "CONCLUSIONS", "text": f"{CLAIM} Larger trials are needed."},
    ]
    return {
        "record": "citation",
        "position": pmid,
        "pmid": pmid,
        "pubmed_file": "pubmed26n0001",
        "title": title,
        "abstract": sections or structured,
    }


def pairs_of(*citations: dict, benchmark: pl.DataFrame = NONE) -> pl.DataFrame:
    return RetrieverPair.validate(training_pairs(pubmed_records(citations), benchmark))


def pair(pairs: pl.DataFrame, pmid: int, source: str) -> dict:
    return pairs.row(by_predicate=(pl.col("pmid") == pmid) & (pl.col("source") == source), named=True)


def test_a_title_is_paired_with_the_abstract_without_it() -> None:
    pairs = pairs_of(citation(1), citation(2, "Does amarin prevent stroke in the old?"))
    stated = pair(pairs, 1, "statement")
    assert stated["question"] == "Does amarin reduce stroke in atrial fibrillation?"
    assert stated["text"].startswith(f"METHODS: {BACKGROUND}\nRESULTS: {RESULTS}\nCONCLUSIONS: {CLAIM}")
    asked = pair(pairs, 2, "title")
    assert (asked["question"], asked["text"]) == ("Does amarin prevent stroke in the old?", stated["text"])
    assert pairs["source"].to_list() == ["conclusion", "statement", "conclusion", "title"]


def test_a_conclusion_is_paired_with_the_abstract_without_its_sentence() -> None:
    concluded = pair(pairs_of(citation(1)), 1, "conclusion")
    assert concluded["question"] == "Does amarin reduce the risk of stroke in atrial fibrillation?"
    assert concluded["text"] == (
        f"METHODS: {BACKGROUND}\nRESULTS: {RESULTS}\nCONCLUSIONS: Larger trials are needed."
    )


def test_a_section_that_was_the_claim_alone_goes_with_its_label() -> None:
    one = citation(1)
    one["abstract"][2]["text"] = CLAIM
    assert pair(pairs_of(one), 1, "conclusion")["text"] == f"METHODS: {BACKGROUND}\nRESULTS: {RESULTS}"


def test_the_claim_is_found_though_the_question_writes_its_abbreviation_out() -> None:
    introduced = "Amyloid precursor protein (APP) is cleaved by secretases in neurons of the brain."
    text = f"{BACKGROUND} {introduced} {RESULTS} We conclude that APP binds copper."
    concluded = pair(pairs_of(citation(1, "Copper and amyloid precursor protein", text)), 1, "conclusion")
    assert concluded["question"] == "Does amyloid precursor protein bind copper?"
    assert introduced in concluded["text"]
    assert "copper" not in concluded["text"]


def test_what_the_rules_cannot_ask_about_says_why() -> None:
    pairs = pairs_of(citation(1, "Correction"), citation(2, None, ""))
    assert pair(pairs, 1, "statement")["reason"] == "the title announces a notice or comment, not a study"
    assert pair(pairs, 2, "statement")["reason"] == "the citation has no title"
    assert pair(pairs, 2, "conclusion")["reason"] == "the citation has no abstract"
    assert pairs.filter(pl.col("reason").is_null())["question"].null_count() == 0


def test_a_benchmark_citation_and_its_question_are_left_out() -> None:
    benchmark = benchmark_questions([(1, "Is it?"), (None, "Does amarin prevent stroke -- in the old")])
    pairs = pairs_of(citation(1), citation(2, "Does amarin prevent stroke in the old?"), benchmark=benchmark)
    assert pairs.filter(pmid=1)["reason"].unique().to_list() == ["the source is a benchmark citation"]
    assert pair(pairs, 2, "title")["reason"] == "asks a benchmark question"


def test_what_is_too_short_or_was_asked_before_says_so() -> None:
    pairs = pairs_of(
        citation(1, "PubTator: browsing the literature of genes"),
        citation(2, "Does amarin prevent stroke in the old?", "We do not know."),
        citation(4, "Does amarin prevent stroke in the OLD?"),
        citation(3, "Does amarin prevent stroke in the old?"),
    )
    assert pair(pairs, 1, "statement")["reason"] == "the question has fewer than 4 words"
    assert pair(pairs, 2, "title")["reason"] == "the text has fewer than 30 words"
    # What is left out asks nothing; the first by PMID that is used stays.
    assert pair(pairs, 3, "title")["reason"] is None
    assert pair(pairs, 4, "title")["reason"] == "asks the same as PMID 3"


@pytest.mark.parametrize(
    ("title", "question"),
    [
        ("Does zinc prevent colds?", "Does zinc prevent colds?"),
        ("  Zinc\n for colds: does  it help? ", "Zinc for colds: does it help?"),
        ("[Does zinc prevent colds?].", "Does zinc prevent colds?"),
        ("[Does zinc prevent colds?]", "Does zinc prevent colds?"),
        ("[Does zinc prevent colds? [author's reply]].", None),
        ("[Zinc and colds] [Does zinc help?].", None),
        ("[Does zinc prevent colds? Yes].", None),
        ("[Does zinc prevent colds?", None),
        ("Does zinc prevent colds? A trial.", None),
        ("Zinc for colds?", None),
        (" ".join(["word"] * 59) + " word?", " ".join(["word"] * 59) + " word?"),
        (" ".join(["word"] * 60) + " word?", None),
        ("", None),
        (None, None),
    ],
)
def test_a_title_is_a_question_if_all_of_it_is(title: str | None, question: str | None) -> None:
    titles = pl.DataFrame({"title": [title]}, schema={"title": pl.String})
    asked, is_question = titles.select(
        question_of_title(pl.col("title")), is_it=is_question_title(pl.col("title"))
    ).row(0)
    assert (asked, is_question) == (question, question is not None)


def test_a_tenth_is_held_out_and_no_citation_ever_changes_sides() -> None:
    assert [pmid for pmid in range(1, 60) if is_held_out(pmid)] == HELD_OUT
    assert sum(map(is_held_out, range(1, 50_001))) / 50_000 == pytest.approx(0.1, abs=0.005)
    pairs = pairs_of(*map(citation, range(40, 60)))
    sides = dict(pairs.select("pmid", "split").iter_rows())
    assert [pmid for pmid, split in sides.items() if split == "held_out"] == [p for p in HELD_OUT if p >= 40]
    assert pairs.group_by("pmid").agg(pl.col("split").n_unique(), pl.len())["split"].unique().to_list() == [1]


def test_pairs_do_not_depend_on_the_order_of_citations() -> None:
    citations = [citation(1), citation(2, "Does amarin prevent stroke in the old?"), citation(3)]
    assert pairs_of(*citations).equals(pairs_of(*citations[::-1]))


def test_real_questions_never_meet_the_sentence_they_are_from(real_data: Path) -> None:
    with next(real_data.glob("nlm/pubmed/*/pubmed26n0003*.gz")).open("rb") as file:
        records = pl.concat(read_pubmed_file(file, "pubmed26n0003")).filter(record="citation")
    pairs = RetrieverPair.validate(training_pairs(records.unique("pmid"), NONE))
    assert pairs.height == 2 * records["pmid"].n_unique()
    used = pairs.filter(pl.col("reason").is_null()).join(records, on="pmid", how="left")
    assert used.height > 200
    concluded = used.filter(source="conclusion")
    for row in used.filter(pl.col("source") != "conclusion").iter_rows(named=True):
        assert row["text"] == text_of(document_of(row).sections)
    # Asked again, a text without the sentence that makes the question gives another question, or none.
    without = [
        Document(title, (Section(None, None, text),))
        for title, text in zip(concluded["title"], concluded["text"], strict=True)
    ]
    requests = [GenerationRequest(str(place), "question", document) for place, document in enumerate(without)]
    again = pl.Series([result.text for result in ConclusionQuestioner().generate(requests)])
    assert (again == concluded["question"]).sum() < 0.01 * concluded.height
    for row in concluded.iter_rows(named=True):
        whole = [sentence for section in row["abstract"] for sentence in split_sentences(section["text"])]
        assert sum(sentence not in row["text"] for sentence in whole) == 1
