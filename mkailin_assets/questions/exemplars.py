"""Documents and the questions that people asked of them, to tune question generators on.

Two sources: BioASQ's questions, each with the citations that answer it, and citations whose title is a
question: their document is the abstract, without title and conclusion.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import asdict
from itertools import chain
from typing import Any, NamedTuple

import polars as pl

from mkailin_assets.corpus.decontamination import contamination, fingerprints_of, leaks, normalised
from mkailin_assets.pubmed.tables import PubmedRecord
from mkailin_assets.questions.bioasq import BioASQItem
from mkailin_assets.questions.candidates import document_of, fault_of_question, has_abstract
from mkailin_assets.questions.tables import QuestionExemplar
from mkailin_assets.retrieval.pairs import (
    is_held_out,
    is_question_title,
    question_of_title,
    text_of,
    too_short,
)
from mkailin_resources.models.interface import Document, GenerationRequest, Section
from mkailin_resources.models.prompting import visible

MOST_DOCUMENTS = 3
WITHDRAWN = "the citation is retracted or deleted"
NO_TEXT = "none of its documents gives a text"
_OTHER_SIDE = "the same question is held out with another citation"
_READ = ("pmid", "pubmed_file", "title", "abstract")
_COLUMNS = QuestionExemplar.create_empty().schema


def exemplar_citations(records: Iterable[pl.LazyFrame], bioasq: Iterable[BioASQItem]) -> pl.DataFrame:
    """The citations that exemplars can be made of: their title is a question, or BioASQ names them.

    `records` are of PubmedRecord, each PMID once, as `records_of` gives them; of one frame after another the
    rest is let go. Columns: pmid, pubmed_file, title, abstract.
    """
    wanted = is_question_title(pl.col("title")) | pl.col("pmid").is_in(_named(bioasq).implode())
    none = PubmedRecord.create_empty().select(_READ)
    found = (frame.filter(wanted).select(_READ).collect() for frame in records)
    # Copied row by row: Polars 2.1 keeps all the text that a frame was filtered from.
    return pl.concat([none, *(pl.DataFrame(frame.to_dicts(), schema=none.schema) for frame in found)])


def question_exemplars(
    citations: pl.DataFrame,
    bioasq: Sequence[BioASQItem],
    benchmark: pl.DataFrame,
    withdrawn: Set[int] = frozenset(),
) -> pl.DataFrame:
    """The `QuestionExemplar` rows of what `exemplar_citations` found and of BioASQ, by source and PMID.

    `benchmark` is what `contamination` takes; `withdrawn` are PMIDs retracted or deleted, whose snippets
    BioASQ may still hold. A row that is not to be used says why. Split by PMID alone: an expert's question
    goes with its first document, and has at most 3 of those on that side that give a text. Where citations on
    both sides ask the same, those held out stay.
    """
    found = chain(_titles(citations), _experts(citations, bioasq, withdrawn))
    read = pl.DataFrame((exemplar.row() for exemplar in found), schema=_COLUMNS | {"document": pl.String()})
    read = read.sort("source", "pmid", "exemplar_id", nulls_last=True)
    checked = read.select(
        "pmid", "question", "title", context_pmids=pl.lit([], pl.List(pl.Int64)), text="document"
    )
    read = read.with_columns(
        reason=pl.coalesce(
            "reason", contamination(checked, benchmark)["reason"], too_short("question", "document")
        )
    )
    read = read.with_columns(reason=pl.coalesce("reason", _on_the_other_side()))
    return read.with_columns(reason=pl.coalesce("reason", _repeats())).select(_COLUMNS.names())


def exemplar_leaks(exemplars: pl.DataFrame, benchmark: pl.DataFrame) -> pl.DataFrame:
    """The exemplars that are used and give a benchmark away: exemplar_id, pmid, question and the item.

    There must be none. `leaks` looks for the same as `contamination` by other code, so that a fault there
    shows here. `kind`, `benchmark` and `item` are of the first that is found.
    """
    used = exemplars.filter(pl.col("reason").is_null())
    texts = [text_of(document_of(row).sections) for row in used.iter_rows(named=True)]
    read = used.select(
        "pmid",
        "question",
        "title",
        example_id="exemplar_id",
        context=pl.Series(texts, dtype=pl.String),
        context_pmids=pl.lit([], pl.List(pl.Int64)),
    )
    found = leaks(read, fingerprints_of(benchmark)).unique("example_id", keep="first", maintain_order=True)
    named = found.select("kind", "benchmark", "item", exemplar_id="example_id")
    return used.select("exemplar_id", "pmid", "question").join(named, on="exemplar_id", maintain_order="left")


class _Exemplar(NamedTuple):
    """What a row is made of; `key` is who asks, as two items of BioASQ may ask the same of one citation."""

    source: str
    key: str | int
    pmid: int | None
    question: str
    document: Document = Document("", ())
    pubmed_file: str | None = None
    reason: str | None = None

    def row(self) -> dict[str, Any]:
        """The row, with the document's text to look at."""
        question, text = visible(self.question), text_of(self.document.sections)
        made_of = json.dumps([self.source, self.key, self.pmid, self.document.title, text, question])
        asked = GenerationRequest(str(self.key), "question", self.document)
        return {
            "exemplar_id": hashlib.blake2b(made_of.encode(), digest_size=16).hexdigest(),
            "source": self.source,
            "pmid": self.pmid,
            "pubmed_file": self.pubmed_file,
            "title": self.document.title or None,
            "abstract": [asdict(section) for section in self.document.sections],
            "question": question,
            "split": "held_out" if self.pmid and is_held_out(self.pmid) else "train",
            "reason": self.reason or fault_of_question(asked, question),
            "document": text,
        }


def _titles(citations: pl.DataFrame) -> Iterator[_Exemplar]:
    # Its patterns take a tenth of a second to compile, which loading the code location need not wait for.
    from mkailin_resources.models.extractive.sentences import read_abstract

    asking = citations.select(*_READ, asked=question_of_title(pl.col("title"))).drop_nulls("asked")
    for row in asking.iter_rows(named=True):
        pmid, body = row["pmid"], read_abstract(document_of(row)).body
        yield _Exemplar("title", pmid, pmid, row["asked"], Document("", body), row["pubmed_file"])


def _experts(
    citations: pl.DataFrame, bioasq: Sequence[BioASQItem], withdrawn: Set[int]
) -> Iterator[_Exemplar]:
    named = citations.filter(pl.col("pmid").is_in(_named(bioasq).implode()))
    held = {
        row["pmid"]: (document, row["pubmed_file"])
        for row in named.iter_rows(named=True)
        if has_abstract(document := document_of(row))
    }
    for item in bioasq:
        pmids = item.pmids
        side = [pmid for pmid in pmids if is_held_out(pmid) == is_held_out(pmids[0])]
        texts = {pmid: held.get(pmid, (_of_passages(item.passages(pmid)), None)) for pmid in side}
        readable = [pmid for pmid in side if has_abstract(texts[pmid][0])]
        for pmid in readable[:MOST_DOCUMENTS]:
            reason = WITHDRAWN if pmid in withdrawn else None
            yield _Exemplar("bioasq", item.id, pmid, item.question, *texts[pmid], reason)
        if not readable:
            yield _Exemplar("bioasq", item.id, next(iter(side), None), item.question, reason=NO_TEXT)


def _of_passages(text: str) -> Document:
    return Document("", (Section(None, None, text),) if text else ())


def _on_the_other_side() -> pl.Expr:
    held_out = pl.col("reason").is_null() & (pl.col("split") == "held_out")
    both = held_out.any().over(normalised(pl.col("question")))
    return pl.when(both & (pl.col("split") == "train")).then(pl.lit(_OTHER_SIDE))


def _repeats() -> pl.Expr:
    """For a row still used, which one before it asks the same of the same text."""
    used = pl.col("reason").is_null()
    same = [used, *(normalised(pl.col(column).fill_null("")) for column in ("question", "title", "document"))]
    later = pl.int_range(pl.len()).over(same) > 0
    first = pl.col("pmid").first().over(same)
    return pl.when(used & later).then(pl.format("asks the same of the same text as PMID {}", first))


def _named(bioasq: Iterable[BioASQItem]) -> pl.Series:
    return pl.Series(sorted({pmid for item in bioasq for pmid in item.pmids}), dtype=pl.Int64)
