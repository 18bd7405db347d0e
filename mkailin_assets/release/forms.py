"""The two forms of a release: with the texts of citations, and without them.

The form "full" has everything. The form "pmids" has no text of a citation, which may be under copyright: an
answer that quotes one says where in the citation the quoted words stand, and `rehydrate` puts them back from
the user's own copy of PubMed. The question is our own text and stays in both.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from mkailin_assets.corpus.tables import TrainingExample
from mkailin_assets.release.facts import Form

CONFIGS = ("instruction", "pretraining")
# Some 8 words. What is shorter and stands in a citation too is a term or a turn of phrase, no quotation.
SHORTEST_QUOTATION = 40
_TEXTS_OF_CITATIONS = ("context", "messages", "long_answer")
_PARTS = pl.List(pl.Struct({"text": pl.String, "start": pl.Int64, "length": pl.Int64}))


def configs_of(form: Form) -> tuple[str, ...]:
    """The configs that a release of this form has; its first is the default."""
    return CONFIGS if form == "full" else CONFIGS[:1]


def schema_of(config: str, form: Form) -> pl.Schema:
    """Names and types of the columns of a config; raises `ValueError` where the form has no such config."""
    if config not in configs_of(form):
        raise ValueError(f"a release of form {form} has no config {config!r}: {', '.join(configs_of(form))}")
    nothing = TrainingExample.create_empty()
    rows = instruction_rows(nothing, form) if config == "instruction" else pretraining_rows(nothing)
    return rows.schema


def instruction_rows(rows: pl.DataFrame, form: Form) -> pl.DataFrame:
    """The rows (`TrainingExample`) as the config instruction has them, in the same order.

    Full: all columns but `pretraining_text`, which is a config of its own, and `split`, which the file's name
    says. PMIDs: `context` and `messages` are absent, too, and `long_answer` is `answer_parts`.
    """
    columns = [name for name in TrainingExample.columns() if name not in ("pretraining_text", "split")]
    if form == "full":
        return rows.select(columns)
    texts = rows.select("long_answer", "pretraining_text", "question").iter_rows()
    parts = [answer_parts(answer, text.removesuffix(question)) for answer, text, question in texts]
    kept = [name for name in columns if name not in _TEXTS_OF_CITATIONS]
    return rows.select(*kept, pl.Series("answer_parts", parts, dtype=_PARTS))


def pretraining_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows (`TrainingExample`) as the config pretraining has them: example_id, pmid, branch, text."""
    return rows.select("example_id", "pmid", "branch", text="pretraining_text")


def answer_parts(answer: str, source: str) -> list[dict[str, Any]]:
    """An answer in parts that make it up: our own `text`, or `start` and `length` of a place in the source.

    Every run of `SHORTEST_QUOTATION` characters or more that stands in the source becomes a place, the
    longest from left to right; so no such run is in a text. Time grows with answer and source, and with their
    product only where the answer is nothing but short quotations.
    """
    run = SHORTEST_QUOTATION
    if len(answer) >= run and answer in source:
        return [_place(source.find(answer), len(answer))]
    known = {source[at : at + run] for at in range(len(source) - run + 1)}
    parts, own, at = list[dict[str, Any]](), 0, 0
    while at <= len(answer) - run:
        if answer[at : at + run] not in known:
            at += 1
            continue
        length = _longest(answer, at, source)
        if own < at:
            parts.append(_own(answer[own:at]))
        parts.append(_place(source.find(answer[at : at + length]), length))
        own = at = at + length
    return [*parts, _own(answer[own:])] if own < len(answer) else parts


def answer_of(parts: Iterable[Mapping[str, Any]], source: str) -> str:
    """The answer that these parts make up; `source` may have more after what it had in `answer_parts`."""
    return "".join(
        source[part["start"] : part["start"] + part["length"]] if part["text"] is None else part["text"]
        for part in parts
    )


def _longest(answer: str, at: int, source: str) -> int:
    """Length of the longest run from here that stands in the source, where the shortest does."""
    longer = range(SHORTEST_QUOTATION + 1, min(len(answer) - at, len(source)) + 1)
    # A longer run is there only if the shorter one is: the first that is absent is found by halving.
    return SHORTEST_QUOTATION + bisect_left(
        longer, True, key=lambda length: answer[at : at + length] not in source
    )


def _own(text: str) -> dict[str, Any]:
    return {"text": text, "start": None, "length": None}


def _place(start: int, length: int) -> dict[str, Any]:
    return {"text": None, "start": start, "length": length}
