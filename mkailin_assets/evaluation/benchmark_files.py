"""Every configured benchmark, file by file and item by item, whatever its format is.

Of what training texts are to be clean only the questions count, and PMIDs where the format has them: an item
that no model can be evaluated on can be given away all the same.
"""

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import ValidationError

from mkailin_assets.corpus.decontamination import BENCHMARK
from mkailin_assets.questions.bioasq import BioASQItem
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.training_checkpoints import sha256

_QUERIES = "queries.jsonl"
# Of PubMedQA, the answers to those items that its authors test on.
GROUND_TRUTH = "test_ground_truth.json"
# What lies beside the files of a folder: LICENSE, README.md.
_BESIDE = ("", ".md")
_ACCEPTED = (
    "accepted are PubMedQA's JSON, BioASQ's JSON, JSON lines or a JSON array of objects with a question, CSV "
    "or Parquet with a column question, MMLU's CSV without a header (question, A, B, C, D, answer), a folder "
    f"in the form of BEIR (its {_QUERIES}), and a folder of such files"
)
_PMID = re.compile("[1-9][0-9]{0,8}")
# PubMedQA's Parquet files have the PMID as pubid.
_PMID_COLUMNS = ("pmid", "pubid")
# MedQA's Hub files have the question as sent1.
_QUESTION_COLUMNS = ("question", "sent1")


class NotABenchmark(ValueError):
    """A file or folder is in no format that is read; the message names it, its fault and the setting."""

    def __init__(self, path: Path, setting: str, found: object) -> None:
        super().__init__(
            f"reading the benchmark {path}: {found}; {_ACCEPTED}; set {setting} to one of these"
            + (f", or to several with {os.pathsep!r} between them" if setting == "MKAILIN_BENCHMARKS" else "")
        )


@dataclass(frozen=True)
class BenchmarkFile:
    """A file with the questions of a benchmark, and the variable that names it."""

    name: str
    path: Path
    setting: str

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, hexadecimal."""
        return sha256(self.path)

    @property
    def is_search(self) -> bool:
        """Whether its questions are looked for in documents, and have no answer."""
        return self.path.name == _QUERIES

    def refusal(self, found: object) -> NotABenchmark:
        """The error that says what was found in it instead of a benchmark."""
        return NotABenchmark(self.path, self.setting, found)


@dataclass(frozen=True)
class BenchmarkItems:
    """The items of all benchmarks (columns `BENCHMARK`), and which were refused: file and item to cause.

    An item has a row for each PMID it is about, or one without.
    """

    table: pl.DataFrame
    refused: dict[str, str]


@dataclass(frozen=True)
class Entry:
    """What a file has as an item: its id, or else its place from 1. `question` may be anything.

    `record` is the whole of it, names in lower case; empty where it has a fault.
    """

    item: str
    question: object = None
    pmids: tuple[int, ...] = ()
    fault: str | None = None
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def asks(self) -> bool:
        """Whether its question can be read."""
        return isinstance(self.question, str) and any(map(str.isalnum, self.question))

    @property
    def cause(self) -> str:
        """Why its question cannot be read."""
        return self.fault or f"{self.question!r:.80} is no question"


def benchmark_items(benchmarks: BenchmarkFiles) -> BenchmarkItems:
    """The questions of all configured benchmarks; raises `NotABenchmark`."""
    rows: list[tuple[str, str, int | None, str]] = []
    refused: dict[str, str] = {}
    for file in files_of(benchmarks):
        faults = {}
        before = len(rows)
        for entry in entries_of(file):
            if entry.asks:
                question = str(entry.question)
                rows += [(file.name, entry.item, pmid, question) for pmid in entry.pmids or (None,)]
            else:
                faults[entry.item] = entry.cause
        if len(rows) == before:
            causes = (f"item {item}: {fault}" for item, fault in faults.items())
            raise file.refusal(f"no question can be used: {next(causes, 'it is empty')}")
        refused |= {f"{file.name}, item {item}": fault for item, fault in faults.items()}
    return BenchmarkItems(pl.DataFrame(rows, schema=BENCHMARK, orient="row"), refused)


def files_of(benchmarks: BenchmarkFiles) -> list[BenchmarkFile]:
    """The files that hold the questions of the configured benchmarks; raises `NotABenchmark`.

    A benchmark is named as its file, within its folder if that is what is configured; one in the form of BEIR
    as its folder. A file that is named twice is there once.
    """
    named = [("MKAILIN_PUBMEDQA", benchmarks.pubmedqa), ("MKAILIN_RETRIEVAL_BENCHMARK", benchmarks.retrieval)]
    named += [("MKAILIN_BENCHMARKS", path) for path in benchmarks.others]
    files: dict[Path, BenchmarkFile] = {}
    for setting, path in named:
        for file in _files(Path(path).resolve(), setting) if path else ():
            files.setdefault(file.path, file)
    names: dict[str, Path] = {}
    for file in files.values():
        if (other := names.setdefault(file.name, file.path)) != file.path:
            raise file.refusal(f"{other} has its name, {file.name}, too: rename one, or name its folder")
    return list(files.values())


def _files(path: Path, setting: str, within: str = "") -> Iterator[BenchmarkFile]:
    if (path / _QUERIES).is_file():
        yield BenchmarkFile(f"{within}{path.name}", path / _QUERIES, setting)
    elif path.is_dir():
        below = sorted(it for it in path.iterdir() if not it.name.startswith("."))
        inside = [it for it in below if it.is_dir() or not _is_beside(it)]
        if not inside:
            raise NotABenchmark(path, setting, "there is no file in this folder that could be one")
        for it in inside:
            yield from _files(it, setting, f"{within}{path.name}/")
    elif not path.is_file():
        raise NotABenchmark(path, setting, "there is no such file or folder")
    else:
        yield BenchmarkFile(f"{within}{path.stem}", path, setting)


def _is_beside(path: Path) -> bool:
    return path.suffix.lower() in _BESIDE or path.name == GROUND_TRUTH


def entries_of(file: BenchmarkFile) -> Iterator[Entry]:
    """The items of a file, whose content decides what it is; raises `NotABenchmark`."""
    try:
        content = file.path.read_bytes()
        if content.startswith(b"PAR1"):
            return _of_parquet(file)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise file.refusal(error) from error
    return _of_json(file, text) if text.lstrip().startswith(("{", "[")) else _of_csv(file, text)


def _of_json(file: BenchmarkFile, text: str) -> Iterator[Entry]:
    asks = ("text",) if file.is_search else _QUESTION_COLUMNS
    try:
        read = json.loads(text)
    except (ValueError, RecursionError) as error:
        lines = [(place, line) for place, line in enumerate(text.split("\n"), 1) if line.strip()]
        if not isinstance(_parsed(lines[0][1]), dict):
            raise file.refusal(error) from error
        return (_of_record(str(place), _parsed(line), asks) for place, line in lines)
    if isinstance(read, list):
        return (_of_record(str(place), record, asks) for place, record in enumerate(read, 1))
    if isinstance(read.get("questions"), list):
        return (_of_bioasq(str(place), record) for place, record in enumerate(read["questions"], 1))
    if any(isinstance(value, dict) and "QUESTION" in value for value in read.values()):
        return (_of_pubmedqa(pmid, value) for pmid, value in read.items())
    if {str(name).lower() for name in read}.intersection(asks):
        return iter([_of_record("1", read, asks)])
    raise file.refusal(f"a JSON object with the keys {_shown(read)}")


def _of_csv(file: BenchmarkFile, text: str) -> Iterator[Entry]:
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise file.refusal(error) from error
    first = rows[0] if rows else []
    if "question" in (names := [cell.strip().lower() for cell in first]):
        del rows[0]
    elif len(first) == 6 and first[-1].strip() in ("A", "B", "C", "D"):
        names = ["question", *"abcd", "answer"]
    else:
        raise file.refusal(f"text that begins with {text[:80]!r}" if text.strip() else "it is empty")
    return (
        _of_record(str(place), dict(zip(names, row, strict=True)))
        if len(row) == len(names)
        else Entry(str(place), fault=f"{len(row)} cells in place of {len(names)}")
        for place, row in enumerate(rows, 1)
        if row
    )


def _of_parquet(file: BenchmarkFile) -> Iterator[Entry]:
    try:
        names = pl.read_parquet_schema(file.path)
        if not any(name.lower() in _QUESTION_COLUMNS for name in names):
            raise file.refusal(f"a Parquet file with the columns {_shown(names)}")
        rows = pl.read_parquet(file.path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise file.refusal(error) from error
    return (_of_record(str(place), row) for place, row in enumerate(rows.iter_rows(named=True), 1))


def _of_record(place: str, record: object, asks: tuple[str, ...] = _QUESTION_COLUMNS) -> Entry:
    if not isinstance(record, Mapping):
        return Entry(place, fault=f"{str(record)[:80]!r} is no JSON object")
    fields = _fields(record)
    asked = next((name for name in asks if name in fields), None)
    if asked is None:
        return Entry(place, fault=f"it has no {asks[0]}, but {_shown(record)}")
    ids = [fields[name] for name in ("id", "_id") if fields.get(name) not in (None, "")]
    pmids = [int(pmid) for name in _PMID_COLUMNS if _PMID.fullmatch(pmid := str(fields.get(name)))]
    return Entry(str(ids[0]) if ids else place, fields[asked], tuple(pmids), record=fields)


def _of_pubmedqa(pmid: str, record: object) -> Entry:
    pmids = (int(pmid),) if _PMID.fullmatch(pmid) else ()
    fields = _fields(record) if isinstance(record, dict) else {}
    return Entry(pmid, fields.get("question"), pmids, record=fields)


def _of_bioasq(place: str, record: object) -> Entry:
    try:
        item = BioASQItem.model_validate(record)
    except ValidationError as error:
        fault = error.errors()[0]
        return Entry(place, fault=": ".join([*map(str, fault["loc"]), fault["msg"]]))
    return Entry(item.id, item.question, tuple(item.pmids), record=_fields(record))


def _fields(record: Any) -> dict[str, Any]:
    return {str(name).lower(): value for name, value in record.items()}


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return line


def _shown(names: Mapping[str, object]) -> str:
    return ", ".join(list(names)[:6]) or "none"
