"""Judged data: documents, questions, and which documents answer which question.

Three kinds: a folder in the form of BEIR (Thakur et al. 2021), PubMedQA's questions with the abstracts they
were asked about, and the titles of the corpus that are questions.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mkailin_assets.corpus.draws import pmid_hash
from mkailin_assets.evaluation.pubmedqa import Benchmark, PubMedQAItem, read_pubmedqa
from mkailin_assets.retrieval.pairs import is_held_out, question_of_title, text_of
from mkailin_assets.retrieval.update import PubmedFiles, findable, texts_of
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.index import CITATION
from mkailin_resources.models.interface import Section

MOST_QUESTIONS = 500
MOST_CITATIONS = 20_000
TITLES = "question titles of the corpus"
_BEYOND = f"questions beyond {MOST_QUESTIONS}"
_CORPUS, _QUERIES, _QRELS = BEIR_FILES = ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")
_SET = f"set MKAILIN_RETRIEVAL_BENCHMARK to a folder in the form of BEIR: {_CORPUS}, {_QUERIES}, {_QRELS}"
_HEADER = ["query-id", "corpus-id", "score"]


class NotJudged(ValueError):
    """A folder is no judged data in the form of BEIR; the message names file, line and cause."""


@dataclass(frozen=True)
class JudgedSet:
    """Questions, and the documents that answer them.

    `documents` has the columns `CITATION`; `relevant` has for each question the PMIDs of what answers it, and
    how well (1 or more). Running numbers stand for PMIDs where there are none. `left_out`: reason to count.
    """

    name: str
    documents: pl.DataFrame
    questions: dict[int, str]
    relevant: dict[int, dict[int, int]]
    left_out: dict[str, int]


@dataclass(frozen=True)
class JudgedSets:
    """The sets that have questions; by set and for the corpus, what was left out; why a set is absent."""

    sets: list[JudgedSet]
    left_out: dict[str, dict[str, int]]
    absent: dict[str, str]


class _Text(BaseModel):
    """A line of corpus.jsonl or queries.jsonl; a query has no title."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    id: str = Field(validation_alias="_id")
    title: str = ""
    text: str


def judged_sets(
    current_citations: pl.DataFrame, pubmed_citations: PubmedFiles, benchmarks: BenchmarkFiles, tuned: bool
) -> JudgedSets:
    """All judged sets there are; raises `NotJudged` or `NotPubMedQA`. `tuned` as in `question_titles`.

    In memory are the texts of at most 20,000 citations, PubMedQA, and the judged folder whole.
    """
    citations, left_out = sample_of(current_citations, pubmed_citations)
    sets = [read_beir(benchmarks.retrieval)] if benchmarks.retrieval else []
    sets.append(source_abstracts(read_pubmedqa(benchmarks.pubmedqa), citations))
    sets.append(question_titles(citations, tuned))
    absent = {} if benchmarks.retrieval else {"judged folder": f"none is named: {_SET}"}
    if not sets[-1].questions:
        absent[TITLES] = "no title of the corpus is a question that may be asked"
    return JudgedSets(
        [judged for judged in sets if judged.questions],
        {"corpus": left_out} | {judged.name: judged.left_out for judged in sets},
        absent,
    )


def read_beir(folder: str | Path) -> JudgedSet:
    """The test judgements of a folder in the form of BEIR, its documents numbered in the order of the file.

    Raises `NotJudged`. A judgement of a question or document that is not there is set aside and counted, as
    are a judgement that is given twice and questions without a relevant document.
    """
    folder = Path(folder)
    documents = _texts(folder / _CORPUS)
    asked = _texts(folder / _QUERIES)
    numbers = {name: number for number, name in enumerate(documents, 1)}
    questions = {name: number for number, name in enumerate(asked, 1)}
    left_out: Counter[str] = Counter()
    judged: dict[int, dict[int, int]] = {}
    for query, document, score in _judgements(folder / _QRELS):
        if query not in questions:
            left_out["judgements of a question that is not there"] += 1
        elif document not in numbers:
            left_out["judgements of a document that is not there"] += 1
        elif numbers[document] in (scores := judged.setdefault(questions[query], {})):
            left_out["judgements that are given twice"] += 1
        else:
            scores[numbers[document]] = score
    relevant = {
        query: {document: score for document, score in scores.items() if score > 0}
        for query, scores in judged.items()
        if any(score > 0 for score in scores.values())
    }
    if not relevant:
        raise NotJudged(
            f"reading the judgements {folder / _QRELS}: none says that a document of {_CORPUS} answers a "
            f"question of {_QUERIES} ({_counted(left_out)}); give a folder whose files belong together"
        )
    chosen = _some(relevant)
    left_out["questions without a relevant document"] = len(asked) - len(relevant)
    left_out[_BEYOND] = len(relevant) - len(chosen)
    texts = [line.text for line in asked.values()]
    return JudgedSet(
        folder.resolve().name,
        _documents((number, line.title, line.text) for number, line in enumerate(documents.values(), 1)),
        {number: texts[number - 1] for number in chosen},
        {number: relevant[number] for number in chosen},
        dict(+left_out),
    )


def sample_of(
    current_citations: pl.DataFrame, pubmed_citations: PubmedFiles
) -> tuple[pl.DataFrame, dict[str, int]]:
    """At most 20,000 findable citations (CITATION), by a hash of the PMID, and how many are left out why.

    Those come first that no encoder is tuned on, since they alone may ask where one was tuned.
    """
    citations = findable(current_citations)
    tuned_on = ~pl.col("pmid").map_elements(is_held_out, return_dtype=pl.Boolean)
    order = pl.col("pmid").map_elements(_place, return_dtype=pl.UInt64)
    kept = citations.sort(tuned_on, order).head(MOST_CITATIONS)
    texts = pl.concat([pl.DataFrame(schema=CITATION), *texts_of(kept, pubmed_citations)]).sort("pmid")
    left_out = Counter(
        {
            f"citations beyond {MOST_CITATIONS:,}": citations.height - kept.height,
            "citations without text in the parsed files": kept.height - texts.height,
        }
    )
    return texts, dict(+left_out)


def source_abstracts(benchmark: Benchmark, citations: pl.DataFrame) -> JudgedSet:
    """PubMedQA's questions, each answered by the abstract it was asked about, without title and conclusion.

    Among all the benchmark's abstracts and these citations; one that is an item itself is not there twice.
    """
    items = {item.pmid: item for item in benchmark}
    others = citations.filter(~pl.col("pmid").is_in(list(items)))
    chosen = _some(items)
    left_out = Counter(
        {
            "items that are not in PubMedQA's format": len(benchmark.refused),
            "citations that are items themselves": citations.height - others.height,
            _BEYOND: len(items) - len(chosen),
        }
    )
    return JudgedSet(
        f"source abstracts of {benchmark.name}",
        pl.concat([_documents((pmid, "", _abstract(item)) for pmid, item in items.items()), others]),
        {pmid: items[pmid].question for pmid in chosen},
        {pmid: {pmid: 1} for pmid in chosen},
        dict(+left_out),
    )


def question_titles(citations: pl.DataFrame, tuned: bool) -> JudgedSet:
    """Titles of these citations that are questions, each answered by its own abstract, which loses its title.

    `tuned`: whether an encoder was tuned on titles of the corpus; then only those held out may ask. A title
    that several citations have asks for none of them. Nothing may be left.
    """
    titles = citations.select("pmid", question=question_of_title(pl.col("title"))).drop_nulls()
    once = titles.filter(pl.col("question").is_unique())
    asking = {pmid: question for pmid, question in once.iter_rows() if is_held_out(pmid) or not tuned}
    chosen = _some(asking)
    untitled = citations.with_columns(
        title=pl.lit(""), text=pl.col("text").str.slice(pl.col("title").str.len_chars())
    )
    asks = pl.col("pmid").is_in(chosen)
    left_out = Counter(
        {
            "titles that several citations have": titles.height - once.height,
            "titles that an encoder may be tuned on": once.height - len(asking),
            _BEYOND: len(asking) - len(chosen),
        }
    )
    return JudgedSet(
        TITLES,
        pl.concat([untitled.filter(asks), citations.filter(~asks)]),
        {pmid: asking[pmid] for pmid in chosen},
        {pmid: {pmid: 1} for pmid in chosen},
        dict(+left_out),
    )


def _abstract(item: PubMedQAItem) -> str:
    labels = item.labels or (None,) * len(item.contexts)
    return text_of([Section(label, None, text) for label, text in zip(labels, item.contexts, strict=True)])


def _some(numbers: Iterable[int]) -> list[int]:
    """At most 500 of them, by their hash, ascending."""
    return sorted(sorted(numbers, key=_place)[:MOST_QUESTIONS])


def _place(pmid: int) -> int:
    return pmid_hash(pmid, "retrieval")


def _documents(rows: Iterable[tuple[int, str, str]]) -> pl.DataFrame:
    """Documents by number, title and text in the columns `CITATION`, text below title as the index has it."""
    made = [
        {"pmid": number, "title": title, "text": f"{title}\n{text}", "heading_uis": [], "languages": []}
        for number, title, text in rows
    ]
    return pl.DataFrame(made, schema=CITATION)


def _texts(path: Path) -> dict[str, _Text]:
    """The lines of corpus.jsonl or queries.jsonl by identifier, in the order of the file."""
    texts: dict[str, _Text] = {}
    for place, line in _lines(path):
        try:
            read = _Text.model_validate_json(line)
        except ValidationError as error:
            fault = error.errors()[0]
            cause = ": ".join([*map(str, fault["loc"]), fault["msg"]])
            raise NotJudged(
                f"reading the judgements {path}, line {place}: {cause}; each line is a JSON object with "
                "_id and text, a document's with its title"
            ) from error
        if read.id in texts:
            raise NotJudged(
                f"reading the judgements {path}, line {place}: the _id {read.id!r} is that of an earlier "
                "line too; give each its own"
            )
        texts[read.id] = read
    return texts


def _judgements(path: Path) -> Iterator[tuple[str, str, int]]:
    """Question, document and how relevant it is to it, line by line."""
    for place, line in _lines(path):
        cells = line.split("\t")
        if place == 1 and cells == _HEADER:
            continue
        if place == 1 or len(cells) != len(_HEADER) or not re.fullmatch(r"-?\d+", cells[2]):
            expected = "the header" if place == 1 else "a question, a document and a whole number, as in"
            raise NotJudged(
                f"reading the judgements {path}, line {place}: {line[:80]!r} is not {expected} "
                f"{', '.join(_HEADER)}, with tabs between them"
            )
        yield cells[0], cells[1], int(cells[2])


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not blank, each with its place, from 1."""
    try:
        with path.open(encoding="utf-8") as file:
            for place, line in enumerate(file, 1):
                if line.strip():
                    yield place, line.strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise NotJudged(f"reading the judgements {path}: {error}; {_SET}") from error


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "there are none"
