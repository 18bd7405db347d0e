"""Questions of the corpus itself, each with the text that answers it, to fine-tune an encoder on.

A question never meets the words it was made from: a title's question is paired with the abstract alone, a
conclusion's with the abstract without the sentence that claims it. Otherwise a pair would teach copying.
"""

from collections.abc import Iterator, Sequence

import polars as pl

from mkailin_assets.corpus.decontamination import contamination, normalised
from mkailin_assets.corpus.draws import pmid_hash
from mkailin_assets.questions.candidates import MAX_QUESTION_WORDS, document_of
from mkailin_assets.retrieval.tables import RetrieverPair
from mkailin_resources.models.extractive import ConclusionQuestioner, StatementTitleQuestioner
from mkailin_resources.models.interface import Document, GenerationRequest, Section

HELD_OUT_PERCENT = 10
LEAST_QUESTION_WORDS = 4
LEAST_TEXT_WORDS = 30
_COLUMNS = RetrieverPair.create_empty().schema


def training_pairs(records: pl.DataFrame, benchmark: pl.DataFrame) -> pl.DataFrame:
    """The `RetrieverPair` rows of citations: two each, what the title asks or states and what is concluded.

    `records` has pmid (each once), pubmed_file, title and abstract of PubmedRecord; `benchmark` is what
    `contamination` takes. A row that is not to be used, or for which the rules find no question, says why.
    Sorted by PMID and source, so that of equal questions the first citation's stays.
    """
    pairs = pl.DataFrame(_rows(records), schema={**_COLUMNS, "title": pl.String}).sort("pmid", "source")
    read = pairs.with_columns(context_pmids=pl.lit([], pl.List(pl.Int64)))
    pairs = pairs.with_columns(
        reason=pl.coalesce("reason", contamination(read, benchmark)["reason"], too_short("question", "text"))
    )
    return pairs.with_columns(reason=pl.coalesce("reason", _repeats())).drop("title")


def question_of_title(title: pl.Expr) -> pl.Expr:
    """The question that a title is, on one line; null where it is none.

    It ends in a question mark and has 4 to 60 words. Of a translated title, which NLM puts in square
    brackets, it is what they hold, if they hold the whole title and no others.
    """
    plain = title.str.replace_all(r"\s+", " ").str.strip_chars().str.normalize("NFC")
    asked = plain.str.replace(r"^\[([^\[\]]*)\]\.?$", "${1}").str.strip_chars()
    words = asked.str.count_matches(" ") + 1
    whole = asked.str.ends_with("?") & ~asked.str.starts_with("[")
    return pl.when(whole & words.is_between(LEAST_QUESTION_WORDS, MAX_QUESTION_WORDS)).then(asked)


def is_question_title(title: pl.Expr) -> pl.Expr:
    """Whether a title is itself a question; false where there is no title."""
    return question_of_title(title).is_not_null()


def is_held_out(pmid: int) -> bool:
    """Whether no encoder is tuned on the citation: a tenth of all, decided by the PMID alone."""
    return pmid_hash(pmid, "retriever") % 100 < HELD_OUT_PERCENT


def split_of_pmid() -> pl.Expr:
    """The split of the column pmid: "held_out" or "train"."""
    held_out = pl.col("pmid").map_elements(is_held_out, return_dtype=pl.Boolean)
    return pl.when(held_out).then(pl.lit("held_out")).otherwise(pl.lit("train"))


def _rows(records: pl.DataFrame) -> Iterator[dict[str, object]]:
    """The rows, as they come, with the title they may not be checked without."""
    sources = records.select(
        "pmid", "pubmed_file", "title", "abstract", asked=question_of_title(pl.col("title"))
    )
    stating, concluding = StatementTitleQuestioner(), ConclusionQuestioner()
    for record in sources.iter_rows(named=True):
        pmid, document = record["pmid"], document_of(record)
        common = {
            "pmid": pmid,
            "pubmed_file": record["pubmed_file"],
            "title": record["title"],
            "split": "held_out" if is_held_out(pmid) else "train",
        }
        requests = [GenerationRequest(str(pmid), "question", document)]
        whole = {"text": text_of(document.sections)}
        if record["asked"]:
            yield common | whole | {"source": "title", "question": record["asked"]}
        else:
            (stated,) = stating.generate(requests)
            yield common | whole | {"source": "statement", "question": stated.text, "reason": stated.failure}
        (concluded,) = concluding.generate(requests)
        yield common | {
            "source": "conclusion",
            "question": concluded.text,
            "text": without_claim(document, concluded.text) if concluded.text else whole["text"],
            "reason": concluded.failure,
        }


def text_of(sections: Sequence[Section]) -> str:
    """An abstract as the index holds it: a line for each section, after its label."""
    return "\n".join(
        f"{section.label}: {section.text}" if section.label else section.text for section in sections
    )


def without_claim(document: Document, question: str) -> str:
    """The abstract without the sentence that the question was made from: the one that shares most words."""
    from mkailin_resources.models.extractive.decisions import content_stems
    from mkailin_resources.models.extractive.sentences import split_sentences
    from mkailin_resources.models.extractive.wording import Vocabulary

    asked = content_stems(question)
    # A question has abbreviations written out.
    vocabulary = Vocabulary(document)
    sentences = [split_sentences(section.text) for section in document.sections]
    shared = {
        (place, index): len(content_stems(vocabulary.written_out(sentence)) & asked)
        for place, of_section in enumerate(sentences)
        for index, sentence in enumerate(of_section)
    }
    claimed, claim = max(shared, key=lambda at: (shared[at], at))
    del sentences[claimed][claim]
    kept = zip(document.sections, sentences, strict=True)
    return text_of([Section(old.label, old.category, " ".join(new)) for old, new in kept if new])


def too_short(question: str, text: str) -> pl.Expr:
    """Why a row's question or text, in these columns, is too short to learn from; null where neither is."""

    def under(column: str, least: int) -> pl.Expr:
        words = pl.col(column).str.count_matches(r"\S+")
        return pl.when(words < least).then(pl.lit(f"the {column} has fewer than {least} words"))

    return pl.coalesce(under(question, LEAST_QUESTION_WORDS), under(text, LEAST_TEXT_WORDS))


def _repeats() -> pl.Expr:
    """For a row still used, which one before it asks the same."""
    used = pl.col("reason").is_null()
    asked = pl.when(used).then(normalised(pl.col("question")))
    first = pl.col("pmid").first().over(asked)
    later = pl.int_range(pl.len()).over(asked) > 0
    return pl.when(used & later).then(pl.format("asks the same as PMID {}", first))
