"""What PubMed takes back is recalled from every corpus that held it, and stays on record."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from corpus_tables import became, context, corpus_of, current, evaluated, qa

from mkailin_assets.corpus.assembly import CorpusRules
from mkailin_assets.corpus.assets import assembled_corpus, corpus_recalls, ledgers_of
from mkailin_assets.corpus.decontamination import benchmark_questions
from mkailin_assets.corpus.recalls import corpus_fingerprint, ledger, recalls
from mkailin_assets.corpus.tables import CorpusRecall, LedgerRow
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.generation import Generation
from mkailin_resources.sample import PUBMEDQA_FILE
from mkailin_resources.storage import Storage

ROWS = [qa(pmid) for pmid in range(1, 6)]
CITATIONS = current(*ROWS)


def made_of(rows: Sequence[dict[str, Any]], citations: pl.DataFrame) -> pl.DataFrame:
    rules = CorpusRules(min_duplicate_similarity=0.9)
    return corpus_of({"C04": evaluated(*rows).lazy()}, citations, benchmark_questions([]), rules)[0]


CORPUS = made_of(ROWS, CITATIONS)


def recalled(citations: pl.DataFrame, recorded: pl.DataFrame | None = None, **corpora: pl.DataFrame) -> Any:
    ledgers = {name: LedgerRow.validate(ledger(corpus)).lazy() for name, corpus in corpora.items()}
    return CorpusRecall.validate(recalls(ledgers, citations, recorded))


@pytest.mark.parametrize("use", ["source", "context"])
@pytest.mark.parametrize(
    ("change", "why", "said_by"),
    [
        ({"state": "retracted", "pubmed_file": "pubmed26n0007"}, "retracted", "pubmed26n0007"),
        (
            {"state": "deleted", "content_hash": None, "pubmed_file": "pubmed26n0008"},
            "deleted",
            "pubmed26n0008",
        ),
        ({"content_hash": "new", "pubmed_file": "pubmed26n0009"}, "revised since", "pubmed26n0009"),
        ({"pmid": 999_999}, "no longer in PubMed", None),
    ],
)
def test_a_row_is_recalled_with_what_changed_why_and_which_file_said_so(
    use: str, change: dict[str, Any], why: str, said_by: str | None
) -> None:
    cited = {"source": 2, "context": 5002}[use]
    (recall,) = recalled(became(CITATIONS, cited, **change), old=CORPUS).to_dicts()
    row = CORPUS.filter(pl.col("pmid") == 2).row(0, named=True)
    assert recall == {
        "corpus": "old",
        "example_id": row["example_id"],
        "pmid": 2,
        "branch": "C04",
        "split": row["split"],
        "question": row["question"],
        "cited_pmid": cited,
        "reason": f"{use} {why}",
        "pubmed_file": said_by,
    }


def test_nothing_is_recalled_while_everything_stands() -> None:
    assert recalled(CITATIONS, old=CORPUS).is_empty()
    assert recalled(CITATIONS).is_empty()


def test_a_context_of_several_rows_recalls_them_all_and_a_row_with_two_faults_is_there_twice() -> None:
    rows = [qa(1, contexts=[context(9)]), qa(2, contexts=[context(9), context(8, 2)])]
    citations = current(*rows)
    changed = became(became(citations, 9, state="retracted"), 8, state="deleted")
    found = recalled(changed, old=made_of(rows, citations))
    assert sorted(found.select("pmid", "cited_pmid", "reason").rows()) == [
        (1, 9, "context retracted"),
        (2, 8, "context deleted"),
        (2, 9, "context retracted"),
    ]


def test_recalls_stay_on_record_when_pubmed_puts_a_citation_back() -> None:
    first = recalled(became(CITATIONS, 2, state="retracted"), old=CORPUS)
    assert recalled(CITATIONS, first, old=CORPUS).equals(first)
    both = recalled(became(CITATIONS, 2, state="deleted"), first, old=CORPUS)
    assert both["reason"].to_list() == ["source deleted", "source retracted"]
    again = recalled(became(CITATIONS, 2, state="retracted", pubmed_file="pubmed26n0099"), first, old=CORPUS)
    assert again.equals(first), "what was said first stays"


def test_each_corpus_that_held_a_row_recalls_it_and_one_made_since_does_not() -> None:
    revised = [qa(1, content_hash="new"), *ROWS[1:]]
    citations = became(CITATIONS, 1, content_hash="new")
    made_since = made_of(revised, citations)
    assert made_since.height == 5
    found = recalled(citations, first=CORPUS, second=CORPUS.slice(0, 4), third=made_since)
    assert found.select("corpus", "pmid").rows() == [("first", 1), ("second", 1)]


def test_a_corpus_has_one_name_whatever_the_order_of_its_rows() -> None:
    assert corpus_fingerprint(CORPUS) == corpus_fingerprint(CORPUS.reverse())
    for column in ("example_hash", "split"):
        assert corpus_fingerprint(CORPUS) != corpus_fingerprint(
            CORPUS.with_columns(pl.lit("test").alias(column))
        )
    assert corpus_fingerprint(CORPUS.clear()) != corpus_fingerprint(CORPUS)


class Published:
    """A storage root in which one corpus follows another."""

    def __init__(self, root: Path) -> None:
        self.storage = Storage(root=str(root))

    def materialize(self, rows: Sequence[dict[str, Any]], citations: pl.DataFrame) -> pl.DataFrame:
        """Corpus and recalls as their assets make them; the recalls are published and returned."""
        outputs = assembled_corpus(
            evaluated_qa={"C04": evaluated(*rows).lazy()},
            current_citations=citations,
            benchmarks=BenchmarkFiles(pubmedqa=str(PUBMEDQA_FILE)),
            storage=self.storage,
            generation=Generation(storage=self.storage),
            corpus_rules=CorpusRules(min_duplicate_similarity=0.9),
        )
        for output in outputs:
            self.storage.write_table(output.value, output.output_name)
        made = corpus_recalls(citations, storage=self.storage)
        self.storage.write_table(CorpusRecall.validate(made.value), "corpus_recalls")
        return made.value

    def corpus(self) -> pl.DataFrame:
        table = self.storage.read_table("training_corpus")
        assert table is not None
        return table

    def ledgers(self) -> dict[str, float]:
        """When each ledger was last written."""
        times = {name: self.storage.published_at("corpus_ledger", name) for name in ledgers_of(self.storage)}
        return {name: time for name, time in times.items() if time is not None}


def test_a_retracted_source_leaves_the_next_corpus_and_is_recalled_from_the_one_before(
    tmp_path: Path,
) -> None:
    published = Published(tmp_path)
    assert published.materialize(ROWS, CITATIONS).is_empty()
    first = corpus_fingerprint(CORPUS)
    assert list(published.ledgers()) == [first]

    retracted = became(CITATIONS, 2, state="retracted", pubmed_file="pubmed26n0007")
    found = published.materialize(ROWS, retracted)
    assert found.select("corpus", "pmid", "reason", "pubmed_file").rows() == [
        (first, 2, "source retracted", "pubmed26n0007")
    ]
    assert len(published.ledgers()) == 2

    # A third corpus no longer knows the row; the recall of the first stays.
    gone = became(retracted, 5003, state="deleted", pubmed_file="pubmed26n0008")
    found = published.materialize([row for row in ROWS if row["pmid"] != 2], gone)
    assert sorted(found.select("pmid", "reason").rows()) == [
        (2, "source retracted"),
        (3, "context deleted"),
        (3, "context deleted"),
    ]


def test_publishing_the_same_corpus_twice_adds_nothing(tmp_path: Path) -> None:
    published = Published(tmp_path)
    changed = became(CITATIONS, 2, state="retracted")
    published.materialize(ROWS, CITATIONS)
    first = published.materialize(ROWS, changed)
    before, recalls_at = published.ledgers(), published.storage.published_at("corpus_recalls", None)
    assert published.materialize(ROWS, changed).equals(first)
    assert published.ledgers() == before
    assert published.storage.published_at("corpus_recalls", None) == recalls_at


def test_a_corpus_killed_before_it_was_published_leaves_its_ledger_and_loses_no_recall(
    tmp_path: Path,
) -> None:
    published = Published(tmp_path)
    published.materialize(ROWS, CITATIONS)
    outputs = assembled_corpus(
        evaluated_qa={"C04": evaluated(*ROWS[:3]).lazy()},
        current_citations=CITATIONS,
        benchmarks=BenchmarkFiles(pubmedqa=str(PUBMEDQA_FILE)),
        storage=published.storage,
        generation=Generation(storage=published.storage),
        corpus_rules=CorpusRules(min_duplicate_similarity=0.9),
    )
    next(iter(outputs))  # the ledger is written, the table that is yielded never
    assert len(published.ledgers()) == 2
    found = published.materialize(ROWS, became(CITATIONS, 1, state="retracted"))
    assert set(found["corpus"]) == set(published.ledgers()) - {corpus_fingerprint(published.corpus())}
