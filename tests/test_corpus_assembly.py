"""From evaluated pairs to one corpus: what enters, what stays out, and what never moves."""

from collections import Counter
from typing import Any

import polars as pl
import pytest
from corpus_tables import became, context, corpus_of, current, evaluated, qa

from mkailin_assets.corpus.assembly import CorpusRules, PairsChanged, assemble, examples, streamed
from mkailin_assets.corpus.decontamination import benchmark_questions
from mkailin_assets.corpus.draws import split_of
from mkailin_assets.corpus.quality import QualityRules
from mkailin_assets.corpus.tables import CorpusExclusion, TrainingExample

NO_BENCHMARK = benchmark_questions([])


def assembled(
    *rows: dict[str, Any],
    citations: pl.DataFrame | None = None,
    benchmark: pl.DataFrame = NO_BENCHMARK,
    **rules: Any,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    branches = sorted({row["branch"] for row in rows})
    tables = {
        branch: evaluated(*(row for row in rows if row["branch"] == branch)).lazy() for branch in branches
    }
    # The questions of `qa` are alike but for their numbers.
    rules = {"min_duplicate_similarity": 0.9} | rules
    return corpus_of(
        tables, current(*rows) if citations is None else citations, benchmark, CorpusRules(**rules)
    )


def only_exclusion(*rows: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    corpus, exclusions = assembled(*rows, **arguments)
    assert corpus.height == len(rows) - 1
    (row,) = exclusions.iter_rows(named=True)
    return row


def test_good_pairs_of_all_branches_enter_the_corpus() -> None:
    corpus, exclusions = assembled(qa(2), qa(1, branch="F03"))
    assert corpus.select("pmid", "branch").rows() == [(1, "F03"), (2, "C04")]
    assert exclusions.is_empty()


def test_an_example_reads_as_the_trainer_and_the_benchmark_expect() -> None:
    contexts = [context(8, 1, "First.", "Text one."), context(9, 2, "", "Text two.")]
    row = qa(1, contexts=contexts, source_context="What the source saw.", decision="yes", title="Zinc")
    row["question"] = "Does zinc help against colds?"
    row["source_conclusion"] = "It was zinc."
    row["long_answer"] = "The source saw what text one and two saw."
    corpus, _ = assembled(row)
    example = corpus.row(0, named=True)
    found = "[1] First. Text one.\n\n[2] Text two."
    read = f"What the source saw.\n\n{found}"
    assert example["context"] == read
    whole = f"Zinc\n\nWhat the source saw. It was zinc.\n\n{found}\n\n{row['question']}"
    assert example["pretraining_text"] == whole
    assert example["messages"] == [
        {
            "role": "user",
            "content": f"Context: {read}\n\nQuestion: {row['question']}\n\n"
            "Answer yes, no or maybe, then explain.",
        },
        {"role": "assistant", "content": f"yes. {row['long_answer']}"},
    ]


def test_training_shows_no_context_of_a_held_out_citation() -> None:
    pmids = range(1, 200)
    train = next(pmid for pmid in pmids if split_of(pmid) == "train")
    test = next(pmid for pmid in pmids if split_of(pmid) == "test")
    contexts = [
        context(pmid, rank, f"Study {pmid}.", f"Conclusion of {pmid}.")
        for rank, pmid in enumerate((test, train), 1)
    ]
    corpus, _ = assembled(qa(train, contexts=contexts), qa(test, contexts=contexts))
    shown = dict(corpus.select("pmid", "context_pmids").iter_rows())
    assert shown == {train: [train], test: [test, train]}
    of_train = corpus.filter(pl.col("split") == "train").row(0, named=True)
    assert f"Conclusion of {test}." not in of_train["context"] + of_train["pretraining_text"]


def test_an_answer_that_quotes_a_held_out_citation_is_not_trained_on() -> None:
    pmids = range(1, 200)
    train, other = [pmid for pmid in pmids if split_of(pmid) == "train"][:2]
    test = next(pmid for pmid in pmids if split_of(pmid) == "test")
    held_out = context(test, 1, "Study.", "In this trial the tablets shortened every cold by two whole days.")
    shown = context(other, 2, "Study.", "A glass of water before each meal lowers the weight by one pound.")
    quotes = {"long_answer": f"Yes: {held_out['text'][8:]}", "contexts": [held_out, shown]}
    out = only_exclusion(qa(train, **quotes), qa(other))
    assert (out["pmid"], out["stage"]) == (train, "contamination")
    assert out["reason"] == "its answer quotes a citation of another split"
    may_quote = qa(train, long_answer=f"Yes: {shown['text']}", contexts=[held_out, shown])
    assert assembled(may_quote, qa(test, **quotes))[1].is_empty(), (
        "what training shows, and a test's own context"
    )


def test_an_open_question_is_neither_asked_nor_taught_a_decision() -> None:
    row = qa(1, decision=None)
    corpus, _ = assembled(row)
    asked, answered = corpus["messages"][0]
    assert asked["content"].endswith("Answer in a few sentences.")
    assert answered["content"] == row["long_answer"]
    assert corpus["decision"][0] is None


def test_a_pair_without_any_context_is_an_example_with_an_empty_one() -> None:
    row = qa(1, source_context=None, contexts=[])
    table = evaluated(row, rules=QualityRules(min_answer_support=None, min_question_support=None)).lazy()
    corpus, exclusions = corpus_of({"C04": table}, current(row), NO_BENCHMARK, CorpusRules())
    assert exclusions.is_empty()
    assert corpus["context"].to_list() == [""]


def test_a_long_context_is_cut_at_a_word() -> None:
    row = qa(1, source_context="walking lowers glucose " * 20)
    corpus, _ = assembled(row, max_context_characters=100)
    cut = corpus["context"].item()
    assert 90 < len(cut) <= 100
    assert set(cut.split()) == {"walking", "lowers", "glucose"}


def test_a_pair_that_evaluation_refused_stays_out_with_all_its_reasons() -> None:
    out = only_exclusion(qa(1), qa(2, question="So?"))
    assert (out["pmid"], out["stage"]) == (2, "evaluation")
    assert out["reason"] == "question of fewer than 4 words"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"state": "retracted"}, "source retracted"),
        ({"state": "deleted"}, "source deleted"),
        ({"content_hash": "another"}, "source revised since"),
        ({"home_branch": "F03"}, "source belongs to another branch now"),
        ({"home_branch": None}, "source belongs to another branch now"),
    ],
)
def test_a_retracted_deleted_or_revised_citation_leaves_the_corpus(
    change: dict[str, Any], reason: str
) -> None:
    citations = pl.concat([current(qa(1)), current(qa(2), **change)])
    out = only_exclusion(qa(1), qa(2), citations=citations)
    assert (out["pmid"], out["stage"], out["reason"]) == (2, "source", reason)


def test_a_citation_that_pubmed_no_longer_holds_leaves_the_corpus() -> None:
    out = only_exclusion(qa(1), qa(2), citations=current(qa(1)))
    assert (out["pmid"], out["reason"]) == (2, "source no longer in PubMed")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"state": "retracted"}, "context retracted"),
        ({"state": "deleted", "content_hash": None}, "context deleted"),
        ({"content_hash": "another"}, "context revised since"),
        ({"pmid": 999_999}, "context no longer in PubMed"),
    ],
)
def test_a_context_that_pubmed_took_back_takes_its_pair_out_of_the_corpus(
    change: dict[str, Any], reason: str
) -> None:
    citations = became(current(qa(1), qa(2)), 5002, **change)
    out = only_exclusion(qa(1), qa(2), citations=citations)
    assert (out["pmid"], out["stage"], out["reason"]) == (2, "source", reason)


def test_a_retracted_context_counts_even_where_training_does_not_show_it() -> None:
    pmids = range(1, 200)
    train = next(pmid for pmid in pmids if split_of(pmid) == "train")
    test = next(pmid for pmid in pmids if split_of(pmid) == "test")
    row = qa(train, contexts=[context(test)])
    assert assembled(row)[0]["context_pmids"].to_list() == [[]], "hidden, though the answer was made from it"
    corpus, exclusions = assembled(row, citations=became(current(row), test, state="retracted"))
    assert corpus.is_empty()
    assert exclusions["reason"].to_list() == ["context retracted"]


def test_an_example_names_the_citations_it_was_made_of_and_their_content() -> None:
    corpus, _ = assembled(qa(1))
    assert corpus["made_of"].to_list() == [
        [
            {"use": "source", "pmid": 1, "content_hash": "hash 1"},
            {"use": "context", "pmid": 5001, "content_hash": "hash 5001"},
        ]
    ]


def test_a_citation_that_moved_to_another_branch_is_in_the_corpus_once() -> None:
    old, new = qa(1), qa(1, branch="F03")
    corpus, exclusions = assembled(old, new, citations=current(new))
    assert corpus.select("pmid", "branch").rows() == [(1, "F03")]
    assert exclusions.select("pmid", "branch", "stage").rows() == [(1, "C04", "source")]


@pytest.mark.parametrize(
    ("benchmark", "reason"),
    [
        ((2, "Is water wet?"), "the source is a benchmark citation"),
        ((5002, "Is water wet?"), "a context is a benchmark citation"),
        ((None, qa(2)["question"]), "asks a benchmark question"),
    ],
)
def test_a_pair_that_gives_the_benchmark_away_stays_out(benchmark: tuple[Any, str], reason: str) -> None:
    out = only_exclusion(qa(1), qa(2), benchmark=benchmark_questions([benchmark]))
    assert (out["pmid"], out["stage"], out["reason"]) == (2, "contamination", reason)


def test_a_benchmark_question_in_a_context_keeps_the_pair_out() -> None:
    asked = "Do tailored telephone calls increase mammography among older women?"
    told = context(77, 1, asked, "They do.")
    out = only_exclusion(qa(1), qa(2, contexts=[told]), benchmark=benchmark_questions([(None, asked)]))
    assert out["reason"] == "its text holds a benchmark question"


def test_a_question_asked_before_in_any_branch_stays_out() -> None:
    asked = "Does walking after every single meal lower the glucose of adults with type 2 diabetes at home?"
    first, again = qa(1, question=asked), qa(2, question=asked.upper(), branch="F03")
    nearly = qa(3, question=asked.replace("adults", "adult"))
    corpus, exclusions = assembled(nearly, again, first)
    assert corpus["pmid"].to_list() == [1]
    assert exclusions.select("pmid", "stage", "reason").rows() == [
        (2, "duplicate", "asks the same as PMID 1"),
        (3, "duplicate", "asks nearly the same as PMID 1"),
    ]


def test_a_benchmark_citation_that_training_does_not_show_counts_too() -> None:
    pmids = range(1, 200)
    train = next(pmid for pmid in pmids if split_of(pmid) == "train")
    test = next(pmid for pmid in pmids if split_of(pmid) == "test")
    benchmark = benchmark_questions([(test, "Is water wet?")])
    corpus, exclusions = assembled(qa(train, contexts=[context(test)]), benchmark=benchmark)
    assert corpus.is_empty()
    assert exclusions["reason"].to_list() == ["a context is a benchmark citation"]


def test_a_row_in_the_table_of_another_branch_stays_out_with_a_reason() -> None:
    row = qa(1, branch="C10")
    corpus, exclusions = corpus_of(
        {"C04": evaluated(row).lazy()}, current(row), NO_BENCHMARK, CorpusRules.model_validate({})
    )
    assert corpus.is_empty()
    assert exclusions.select("pmid", "branch", "reason").rows() == [
        (1, "C04", "source belongs to another branch now")
    ]


def test_pairs_that_were_made_again_meanwhile_are_not_mixed_with_those_decided_about() -> None:
    before, after = qa(1), qa(1, long_answer="The trial shows that green tea protects everybody.")
    rules = CorpusRules.model_validate({})
    assembly = assemble({"C04": evaluated(before).lazy()}, current(before), NO_BENCHMARK, rules)
    with pytest.raises(PairsChanged, match="partition C04: it changed"):
        list(examples({"C04": evaluated(after).lazy()}, assembly.kept, rules))


def test_a_streamed_table_is_read_as_any_other() -> None:
    parts = [pl.DataFrame({"a": [1, 2], "b": ["x", "y"]}), pl.DataFrame({"a": [3], "b": ["z"]})]
    table = streamed(lambda: iter(parts), parts[0].schema)
    assert table.collect().equals(pl.concat(parts))
    assert table.select("b").head(2).collect()["b"].to_list() == ["x", "y"]
    assert table.filter(pl.col("a") > 1).select("b").collect()["b"].to_list() == ["y", "z"]


def test_a_decision_that_hardly_has_another_beside_it_keeps_its_rows() -> None:
    rows = [qa(pmid, decision="maybe" if pmid == 3 else "yes") for pmid in range(1, 40)]
    assert assembled(*rows)[0].height == 39


def test_the_most_frequent_decision_is_held_to_its_share() -> None:
    rows = [qa(pmid, decision="no" if pmid < 3 else "yes") for pmid in range(1, 11)]
    corpus, exclusions = assembled(*rows, max_decision_share=0.6)
    assert Counter(corpus["decision"]) == {"no": 2, "yes": 3}
    assert corpus["pmid"].to_list() == [1, 2, 4, 9, 10], "another choice on another day or machine"
    assert exclusions["stage"].to_list() == ["balance"] * 5
    assert assembled(*rows, max_decision_share=1)[0].height == 10


def test_open_questions_do_not_count_towards_the_share_of_a_decision() -> None:
    decided = [qa(pmid, decision="no" if pmid < 3 else "yes") for pmid in range(1, 11)]
    open_ones = [qa(pmid, decision=None) for pmid in range(11, 31)]
    corpus, _ = assembled(*decided, *open_ones, max_decision_share=0.6)
    assert Counter(corpus["decision"]) == {"no": 2, "yes": 3, None: 20}


def test_a_single_decision_has_nothing_to_be_balanced_against() -> None:
    assert assembled(*(qa(pmid) for pmid in range(1, 6)))[0].height == 5


def test_a_growing_corpus_keeps_its_splits_and_its_balanced_rows() -> None:
    rows = [qa(pmid, decision="no" if pmid % 5 == 0 else "yes") for pmid in range(1, 21)]
    small, _ = assembled(*rows, max_decision_share=0.5)
    assert Counter(small["decision"]) == {"no": 4, "yes": 4}
    arrived = [qa(pmid, decision="no") for pmid in range(21, 31)]
    large, _ = assembled(*rows, *arrived, max_decision_share=0.5)
    assert Counter(large["decision"]) == {"no": 14, "yes": 14}
    kept = small.join(large, on=["example_id", "split", "pretraining_text"], how="semi")
    assert kept.height == small.height


def test_splits_depend_on_the_pmid_alone_and_are_eighty_ten_ten() -> None:
    # Written down: a change of these moves citations between training and test.
    named = ["train", "test", "train", "validation", "train"]
    assert [split_of(pmid) for pmid in (1, 7, 8, 23, 90000001)] == named
    shares = Counter(split_of(pmid) for pmid in range(1, 20_001))
    assert shares["train"] / 20_000 == pytest.approx(0.8, abs=0.01)
    assert shares["validation"] / 20_000 == pytest.approx(0.1, abs=0.01)
    corpus, _ = assembled(*(qa(pmid) for pmid in range(1, 30)))
    assert corpus["split"].to_list() == [split_of(pmid) for pmid in corpus["pmid"]]


def test_no_branches_are_an_empty_corpus() -> None:
    corpus, exclusions = corpus_of({}, current(), NO_BENCHMARK, CorpusRules())
    assert corpus.schema == TrainingExample.create_empty().schema
    assert exclusions.schema == CorpusExclusion.create_empty().schema
    assert corpus.height == exclusions.height == 0


def test_every_pair_is_in_the_corpus_or_among_the_exclusions() -> None:
    rows = [qa(pmid, branch="F03" if pmid % 3 else "C04") for pmid in range(1, 40)]
    rows[3]["question"] = rows[5]["question"] = rows[4]["question"]
    rows[7]["long_answer"] = None
    corpus, exclusions = assembled(*rows, benchmark=benchmark_questions([(9, "Is water wet?")]))
    assert exclusions["stage"].n_unique() == 3
    assert sorted([*corpus["pmid"], *exclusions["pmid"]]) == list(range(1, 40))
