"""What models are measured on: the items of the configured benchmarks, and the held-out split of the corpus.

An item is a question with labels to choose from, one of which is right. What cannot be asked is told with the
reason: a file that has no answers, such as the questions of a search, and a malformed item.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

import polars as pl
from pydantic import ValidationError

from mkailin_assets.corpus.tables import DECISIONS
from mkailin_assets.evaluation.benchmark_files import (
    GROUND_TRUTH,
    BenchmarkFile,
    Entry,
    entries_of,
    files_of,
)
from mkailin_assets.evaluation.pubmedqa import causes, item_of
from mkailin_resources.benchmarks import BenchmarkFiles

Kind = Literal["pubmedqa", "medqa", "medmcqa", "mmlu", "bioasq", "corpus"]
LETTERS = ("A", "B", "C", "D")
YES_NO = ("yes", "no")
CORPUS = "corpus"
# An item a row. benchmark: the file as `files_of` names it, or corpus; item: its id there, or its place from
# 1; subject: MMLU's; question, options, context: as they are shown; labels: those of the context's parts;
# gold: the right label, yes, no, maybe, or A to D; pmid, year, headings: of the citation it is about; human:
# what another expert chose; answer, text: of the corpus, what is to be said, and what is to be read.
ITEMS = pl.Schema(
    {
        "benchmark": pl.String(),
        "kind": pl.String(),
        "item": pl.String(),
        "subject": pl.String(),
        "question": pl.String(),
        "options": pl.List(pl.String),
        "context": pl.List(pl.String),
        "labels": pl.List(pl.String),
        "gold": pl.String(),
        "pmid": pl.Int64(),
        "year": pl.Int32(),
        "headings": pl.List(pl.String),
        "human": pl.String(),
        "answer": pl.String(),
        "text": pl.String(),
    }
)

# Fields that PubMedQA's JSON has in capitals, and its Parquet has not.
_UPPER = ("question", "contexts", "labels", "meshes", "year")

_Row = dict[str, Any]
# Of the held-out split of a corpus: enough for intervals of two points.
MOST_HELD_OUT = 2000


@dataclass(frozen=True)
class MeasuredItems:
    """Items (columns `ITEMS`), in the order of the files, and what is not measured: file or item to cause."""

    table: pl.DataFrame
    skipped: dict[str, str]


class _Unfit(ValueError):
    """An item cannot be asked; the message says why."""


class _Apart(_Unfit):
    """An item is not among those of its file that are asked; the message says what such items do."""


def measured_items(benchmarks: BenchmarkFiles) -> MeasuredItems:
    """The items of all configured benchmarks; raises `NotABenchmark` for a file that cannot be read."""
    rows: list[_Row] = []
    skipped: dict[str, str] = {}
    for file in files_of(benchmarks):
        found, faults = _measured(file)
        rows += found
        skipped |= faults
    return MeasuredItems(_completed(pl.DataFrame(rows, schema=ITEMS)), skipped)


def asked_items(benchmarks: BenchmarkFiles, corpus: pl.LazyFrame) -> MeasuredItems:
    """All that models are asked: the items of the benchmarks, and of the test split of a corpus."""
    measured, held_out = measured_items(benchmarks), corpus_items(corpus, MOST_HELD_OUT)
    none = {} if held_out.height else {CORPUS: "training_corpus has no test split: materialize more branches"}
    return MeasuredItems(pl.concat([measured.table, held_out]), measured.skipped | none)


def corpus_items(corpus: pl.LazyFrame, most: int) -> pl.DataFrame:
    """The test split of a `TrainingExample` table, at most so many rows, chosen by hash (columns `ITEMS`).

    `gold` is null where the question asks for no decision; `answer` is all that training has the model say.
    """
    held_out = corpus.filter(pl.col("split") == "test")
    chosen = held_out.select("example_id").sort("example_id").head(most)
    rows = held_out.join(chosen, on="example_id", how="semi").select(
        "question",
        "pmid",
        benchmark=pl.lit(CORPUS),
        kind=pl.lit(CORPUS),
        item="example_id",
        options=pl.lit(list(DECISIONS)),
        context=pl.concat_list("context"),
        gold="decision",
        answer=pl.col("messages").list.last().struct.field("content"),
        text="pretraining_text",
    )
    return _completed(rows.sort("item").collect().match_to_schema(ITEMS, missing_columns="insert"))


def _completed(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.col(pl.List).fill_null([]))


def _measured(file: BenchmarkFile) -> tuple[list[_Row], dict[str, str]]:
    """The rows of a file, and what of it is not measured."""
    if file.is_search:
        return [], {file.name: "its questions are to be searched for, and have no answer to choose"}
    entries = list(entries_of(file))
    kind = next((kind for entry in entries if (kind := _kind(entry.record))), None)
    if kind is None:
        known = ", ".join(_READERS)
        return [], {file.name: f"its questions have no answers to choose in a form that is known ({known})"}
    read = _READERS[kind](file, entries)
    rows: dict[str, _Row] = {}
    faults: dict[str, str] = {}
    apart: Counter[str] = Counter()
    for entry in entries:
        try:
            if not entry.asks:
                raise _Unfit(entry.cause)
            if entry.item in rows:
                raise _Unfit("an earlier item has its id, too")
            row = {"benchmark": file.name, "kind": kind, "item": entry.item, "question": entry.question}
            rows[entry.item] = row | read(entry)
        except _Apart as error:
            apart[str(error)] += 1
        except _Unfit as error:
            faults[f"{file.name}, item {entry.item}"] = str(error)
    told = [f"{count:,} items {what}" for what, count in apart.items()]
    if faults and not rows:
        told.append("; ".join(["none of its items can be asked", *map(": ".join, [*faults.items()][:1])]))
        faults = {}
    return list(rows.values()), ({file.name: "; ".join(told)} if told else {}) | faults


def _kind(record: Mapping[str, Any]) -> Kind | None:
    """Which benchmark has records with these names; None for none that has answers to choose."""
    has = record.keys().__contains__
    if has("contexts") or isinstance(record.get("context"), Mapping):
        return "pubmedqa"
    if has("body") and has("type"):
        return "bioasq"
    if has("cop"):
        return "medmcqa"
    if has("options") or has("ending0"):
        return "medqa"
    return "mmlu" if has("answer") and (has("choices") or all(map(has, "abcd"))) else None


_Reader = Callable[[Entry], _Row]


def _pubmedqa(file: BenchmarkFile, entries: Sequence[Entry]) -> _Reader:
    """Those of the authors' test split alone, where its ground truth lies beside the file."""
    path = file.path.with_name(GROUND_TRUTH)
    truth = None
    if path.is_file():
        try:
            truth = {str(pmid): decision for pmid, decision in json.loads(path.read_text("utf-8")).items()}
        except (OSError, ValueError, AttributeError) as error:
            raise file.refusal(f"{path.name}, which lies beside it, cannot be read: {error}") from error

    def read(entry: Entry) -> _Row:
        record = dict(entry.record)
        if isinstance(nested := record.get("context"), Mapping):
            record |= nested
        pmid = next(iter(entry.pmids), entry.item)
        if truth is not None:
            if (told := truth.get(str(pmid))) is None:
                raise _Apart(f"are not in {path.name}, the test split of its authors")
            if (decided := record.get("final_decision")) not in (None, told):
                raise _Unfit(f"final_decision is {decided}, but {told} in {path.name}")
            record["final_decision"] = told
        try:
            item = item_of(pmid, record | {name.upper(): record[name] for name in _UPPER if name in record})
        except ValidationError as error:
            raise _Unfit(causes(error)) from error
        return {
            "question": item.question,
            "options": DECISIONS,
            "context": item.contexts,
            "labels": item.labels,
            "gold": item.decision,
            "pmid": item.pmid,
            "year": item.year,
            "headings": item.headings,
            "human": item.human,
        }

    return read


def _bioasq(file: BenchmarkFile, entries: Sequence[Entry]) -> _Reader:
    def read(entry: Entry) -> _Row:
        record = entry.record
        if (asks := record.get("type")) != "yesno":
            raise _Apart(f"ask for a {asks}, not for yes or no")
        exact = record.get("exact_answer")
        gold = str(exact[0] if isinstance(exact, list) and len(exact) == 1 else exact).strip().lower()
        if gold not in YES_NO:
            raise _Unfit(f"exact_answer is {exact!r:.80}, not yes or no")
        snippets = [snippet.get("text", "") for snippet in record.get("snippets") or ()]
        return {"options": YES_NO, "context": snippets, "gold": gold}

    return read


def _medmcqa(file: BenchmarkFile, entries: Sequence[Entry]) -> _Reader:
    """`cop` counts from 1 in the authors' JSON and from 0 on the Hub: all items together tell which."""
    counted = {cop for entry in entries if isinstance(cop := entry.record.get("cop"), int)}
    first = 0 if 0 in counted else 1 if 4 in counted else None
    if 0 in counted and 4 in counted:
        raise file.refusal("cop is 0 in some items and 4 in others, so it counts neither from 0 nor from 1")
    if first is None and counted & {1, 2, 3}:
        raise file.refusal("cop is 1 to 3 throughout, which tells not whether it counts from 0 or from 1")

    def read(entry: Entry) -> _Row:
        options = _options([entry.record.get(name) for name in ("opa", "opb", "opc", "opd")])
        cop = entry.record.get("cop")
        if first is None or not isinstance(cop, int) or not first <= cop < first + len(LETTERS):
            raise _Unfit(f"cop is {cop!r:.80}, so there is no right answer")
        return {"options": options, "gold": LETTERS[cop - first]}

    return read


def _medqa(file: BenchmarkFile, entries: Sequence[Entry]) -> _Reader:
    """The authors' JSON lines (options A to D, answer), and the Hub's (ending0 to ending3, label)."""

    def read(entry: Entry) -> _Row:
        record = entry.record
        if "ending0" in record:
            options = _options([record.get(f"ending{place}") for place in range(4)])
            return {"options": options, "gold": _letter(record.get("label"), options)}
        given = record.get("options")
        if not isinstance(given, Mapping) or sorted(given) != list(LETTERS):
            raise _Unfit("its options are not A, B, C and D")
        options = _options([given[letter] for letter in LETTERS])
        answer = record.get("answer_idx") or record.get("answer")
        return {"options": options, "gold": _letter(answer, options)}

    return read


def _mmlu(file: BenchmarkFile, entries: Sequence[Entry]) -> _Reader:
    """The subject is that of the record, else the name of the file without the split."""
    named = PurePath(file.name).name.removesuffix("_test")

    def read(entry: Entry) -> _Row:
        record = entry.record
        given = record["choices"] if "choices" in record else [record.get(name) for name in "abcd"]
        options = _options(given)
        subject = str(record.get("subject") or named)
        return {"options": options, "gold": _letter(record.get("answer"), options), "subject": subject}

    return read


_READERS: dict[Kind, Callable[[BenchmarkFile, Sequence[Entry]], _Reader]] = {
    "pubmedqa": _pubmedqa,
    "medqa": _medqa,
    "medmcqa": _medmcqa,
    "mmlu": _mmlu,
    "bioasq": _bioasq,
}


def _options(given: object) -> list[str]:
    """The four texts to choose from."""
    texts = list(given) if isinstance(given, list) else []
    if len(texts) != len(LETTERS) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise _Unfit(f"it has no four options, but {given!r:.80}")
    return texts


def _letter(answer: object, options: Sequence[str]) -> str:
    """The letter of an answer that is given by letter, by place from 0, or in words."""
    if isinstance(answer, int) and 0 <= answer < len(LETTERS):
        return LETTERS[answer]
    told = str(answer).strip()
    if told in LETTERS:
        return told
    if options.count(str(answer)) == 1:
        return LETTERS[options.index(str(answer))]
    raise _Unfit(f"its answer, {answer!r:.80}, is none of its options")
