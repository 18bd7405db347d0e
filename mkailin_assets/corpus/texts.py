"""What an example reads like: its context, the text to pre-train on, and the instruction pair.

One way to write them, for the corpus and for whoever puts the abstracts back into a release without them.
"""

import hashlib
import json

import polars as pl

from mkailin_assets.corpus import chat

# All that a model may be given of an example.
_HASHED = ("question", "context", "long_answer", "decision", "pretraining_text", "messages")


def example_texts(rows: pl.DataFrame, max_context_characters: int) -> pl.DataFrame:
    """The rows with `context`, `pretraining_text` and `messages`.

    Takes title, source_context, source_conclusion, contexts (list of struct with title and text, as they are
    shown), question, long_answer and decision. The context, which the question is put with, leaves the
    conclusion of the source out, and is cut at a word where it is longer than `max_context_characters`. The
    text to pre-train on has title, abstract, contexts and question, and no answer, as the predecessor's
    published code builds it.
    """
    source, conclusion = pl.col("source_context"), pl.col("source_conclusion")
    abstract = pl.concat_str(source, conclusion, separator=" ", ignore_nulls=True)
    return (
        rows.with_columns(retrieved=_retrieved())
        .with_columns(
            context=_cut(_paragraphs(source, pl.col("retrieved")), max_context_characters),
            pretraining_text=_paragraphs(
                pl.col("title"), pl.when(abstract != "").then(abstract), pl.col("retrieved", "question")
            ),
        )
        .drop("retrieved")
        .with_columns(messages=_messages())
    )


def example_hash(rows: pl.DataFrame) -> pl.Series:
    """Of each example a hash of its texts, by which it is known again wherever they are put together."""
    told = (json.dumps(row, ensure_ascii=False) for row in rows.select(_HASHED).iter_rows())
    hashes = [hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in told]
    return pl.Series("example_hash", hashes, dtype=pl.String)


def _retrieved() -> pl.Expr:
    """The contexts as one text, numbered as they are shown; null where there is none."""
    title, text = (pl.element().struct.field(name) for name in ("title", "text"))
    number = pl.format("[{}]", pl.int_range(1, pl.len() + 1))
    labelled = pl.concat_str(number, pl.when(title != "").then(title), text, separator=" ", ignore_nulls=True)
    shown = pl.col("contexts").list.eval(labelled).list.join("\n\n")
    return pl.when(shown != "").then(shown)


def _messages() -> pl.Expr:
    decides = pl.col("decision").is_not_null()
    told = pl.when(decides).then(pl.lit(chat.DECIDE)).otherwise(pl.lit(chat.EXPLAIN))
    asked = pl.format(f"{chat.CONTEXT}{chat.QUESTION}{{}}", "context", "question", told)
    decided = pl.format(chat.DECIDED, "decision", "long_answer")
    answered = pl.when(decides).then(decided).otherwise(pl.col("long_answer"))

    def said(role: str, content: pl.Expr) -> pl.Expr:
        return pl.struct(role=pl.lit(role), content=content)

    return pl.concat_list(said("user", asked), said("assistant", answered))


def _paragraphs(*parts: pl.Expr) -> pl.Expr:
    return pl.concat_str(*parts, separator="\n\n", ignore_nulls=True)


def _cut(text: pl.Expr, characters: int) -> pl.Expr:
    start = text.str.head(characters).str.replace(r"\s+\S*$", "")
    return pl.when(text.str.len_chars() > characters).then(start).otherwise(text)
