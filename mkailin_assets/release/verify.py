"""Whether a release is what it says it is: looked at offline, with nothing but its folder.

    python -m mkailin_assets.release.verify FOLDER [--current PATH]

Hashes find what was changed after the release was made. The other checks find what should not have been
released in the first place, whatever the hashes say. Rows are read some thousand at a time; what is kept of
each is its key and hash.
"""

import argparse
import json
import math
import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import ValidationError

from mkailin_assets.corpus.decontamination import FINGERPRINTS
from mkailin_assets.corpus.signals import SIGNALS
from mkailin_assets.corpus.tables import (
    SPLITS,
    CorpusExclusion,
    CorpusRecall,
    MeshCoverage,
    TrainingExample,
)
from mkailin_assets.release.card import counted
from mkailin_assets.release.facts import MANIFEST, ReleaseFacts
from mkailin_assets.release.faults import (
    FAULT,
    by_unknown_writers,
    giving_a_benchmark_away,
    in_another_split,
    out_of_range,
    resting_on_taken_back,
    showing_held_out,
    with_other_texts,
)
from mkailin_assets.release.forms import configs_of, schema_of
from mkailin_assets.release.gathering import excluded, facts_of_rows
from mkailin_assets.release.layout import PICTURE, SUMS, TAKEN_BACK, as_read
from mkailin_assets.release.licence_gate import LicenceRefused, gate
from mkailin_resources.training_checkpoints import sha256

if TYPE_CHECKING:
    import pyarrow as pa

CARD, CROISSANT = "README.md", "croissant.json"
FILES = (CARD, CROISSANT, MANIFEST, "LICENSE", "NOTICE", PICTURE)
# What huggingface_hub adds to a folder that it uploads or downloads.
_OF_THE_HUB = (".gitattributes", ".cache")
ROWS_AT_ONCE = 2_000
_TOLD = 3  # of many faults of one kind in one file
_LARGEST_TEXT = 1 << 26  # bytes; a manifest or card is a thousandth of it
_BUFFER = 1 << 20
# What a manifest counts in the examples.
_COUNTED = (
    *("example_id", "example_hash", "pmid", "branch", "split", "decision", "context_pmids"),
    *SIGNALS,
)
_SUM = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_TEMPLATE = re.compile(r"\{\{|\}\}|\{%|%\}|\bTODO\b|\bFIXME\b|\[More Information Needed\]", re.IGNORECASE)


class What(StrEnum):
    """The checks, in the order they are made."""

    HASHES = "files are as SHA256SUMS says, and there is no other"
    MANIFEST = "the manifest can be read"
    LAYOUT = "the files of a release are there"
    CARD = "the card is that of this release, with no template text left"
    CROISSANT = "the Croissant metadata agree with the files"
    LICENCES = "licences let the text train models, or an exception is stated"
    COLUMNS = "tables have the columns they should"
    REPORTS = "reports agree with the manifest"
    VALUES = "values can be read and are in their range"
    KEYS = "no example is there twice"
    TEXTS = "texts are those that the example hashes are of"
    SPLITS = "examples are in the split of their citation"
    HELD_OUT = "training shows no held-out citation"
    BENCHMARKS = "no benchmark item is given away"
    RETRACTIONS = "no citation is retracted or deleted"
    WRITERS = "who wrote a text is in the manifest"
    COUNTS = "counts and fingerprint are those of the manifest"


_OF_EXAMPLES = list(What)[list(What).index(What.VALUES) :]


@dataclass(frozen=True)
class Finding:
    """What is wrong: the check that found it, the file of the release, and what it found there."""

    what: str
    file: str
    found: str


@dataclass(frozen=True)
class Check:
    """A check that was made: what it looked at, and what it found wrong."""

    what: What
    looked_at: str
    findings: Sequence[Finding]


class NoStates(ValueError):
    """There is no table of PubMed's state where it was said to be."""


def verify(folder: Path, newer: pl.DataFrame | None = None) -> list[Finding]:
    """What is wrong with the release in a folder; nothing if it is all right.

    `newer`, from `taken_back_at`, is what PubMed took back after the release was made. A folder that is no
    release, or is damaged, is a finding, too.
    """
    return [finding for check in checks(folder, newer) for finding in check.findings]


def checks(folder: Path, newer: pl.DataFrame | None = None) -> Iterator[Check]:
    """The checks of `verify`, each when it is made. What cannot be read ends them."""
    yield (hashes := _hashes(folder))[0]
    sizes, digests = hashes[1:]
    if not sizes:
        return
    facts, check = _manifest(folder, sizes)
    yield check
    if facts is None:
        return
    data = _data_files(sizes, facts)
    yield _layout(sizes, data, facts)
    yield _card(folder, sizes, facts)
    yield _croissant(folder, sizes, digests)
    yield _licences(facts)
    check, readable = _columns(folder, sizes, data, facts)
    yield check
    reports = _Reports(folder, readable)
    yield reports.check(facts)
    taken_back = pl.concat([reports.taken_back, *([] if newer is None else [newer])])
    examples = _Examples(folder, facts, data, readable)
    yield from examples.checks(reports.fingerprints, taken_back.unique("pmid", keep="last"))


def taken_back_at(path: Path) -> pl.DataFrame:
    """What PubMed retracted or deleted, by a table `current_citations`: pmid, state, pubmed_file.

    `path` is the Parquet file, a folder that holds it, or the root of a storage. Raises `NoStates`.
    """
    from mkailin_resources.storage import Storage, StorageError

    try:
        if (path / "tables").is_dir():
            states = Storage(root=str(path)).scan_table("current_citations")
        else:
            file = path / "current_citations.parquet" if path.is_dir() else path
            states = pl.scan_parquet(file, glob=False) if file.is_file() else None
        if states is None:
            raise NoStates(f"{path}: there is no current_citations.parquet in it; name the root of a storage")
        return states.filter(pl.col("state") != "current").select(TAKEN_BACK.names()).collect()
    except (pl.exceptions.PolarsError, OSError, StorageError) as error:
        raise NoStates(f"{path}: no table of current citations can be read there: {error}") from error


def _finding(what: What, file: str, found: str) -> Finding:
    return Finding(what, _printable(file), _printable(found))


def _printable(text: str) -> str:
    """Names and texts of a file that anyone may have made, safe to print."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _hashes(folder: Path) -> tuple[Check, dict[str, int], dict[str, str]]:
    """The check, and size in bytes and SHA-256 of every plain file."""
    what, sizes, digests = What.HASHES, dict[str, int](), dict[str, str]()
    if not folder.is_dir():
        told = "is a file: name the folder of a release" if folder.exists() else "is not there"
        return Check(what, "nothing", [_finding(what, str(folder), told)]), {}, {}
    findings = list(_walk(folder, sizes))
    if not sizes:
        findings.append(_finding(what, str(folder), "holds no file: this is no release"))
        return Check(what, "nothing", findings), {}, {}
    for name in sizes:
        try:
            digests[name] = sha256(folder / name)
        except OSError as error:
            findings.append(_finding(what, name, f"cannot be read: {error.strerror}"))
    listed = dict[str, str]()
    for number, line in enumerate(_lines(folder, sizes, findings), 1):
        match = _SUM.fullmatch(line)
        path = PurePosixPath(match[2]) if match else PurePosixPath()
        if match is None:
            findings.append(_finding(what, SUMS, f"line {number} is not SHA-256 and name: {line[:80]}"))
        elif path.is_absolute() or ".." in path.parts or str(path) != match[2]:
            told = f"line {number} names {match[2]}, which is no place in the folder; it was not opened"
            findings.append(_finding(what, SUMS, told))
        elif listed.setdefault(match[2], match[1]) != match[1]:
            findings.append(_finding(what, SUMS, f"line {number} has a second hash of {match[2]}"))
    for name in sorted(listed.keys() - sizes.keys()):
        findings.append(_finding(what, name, f"is in {SUMS} and not in the folder"))
    for name in sorted(digests.keys() - {SUMS}):
        if name not in listed:
            findings.append(_finding(what, name, f"is in the folder and not in {SUMS}"))
        elif listed[name] != digests[name]:
            told = f"has been changed: its SHA-256 is {digests[name]}, {SUMS} says {listed[name]}"
            findings.append(_finding(what, name, told))
    looked_at = f"{counted(len(sizes), 'file')}, {sum(sizes.values()):,} bytes"
    return Check(what, looked_at, findings), sizes, digests


def _walk(folder: Path, sizes: dict[str, int]) -> Iterator[Finding]:
    """Fill in the plain files below a folder; what is no plain file is a finding, and never opened."""
    errors = list[OSError]()
    for at, folders, names in os.walk(folder, onerror=errors.append):
        here = Path(at).relative_to(folder)
        if at == str(folder):
            folders[:] = [name for name in folders if name not in _OF_THE_HUB]
            names = [name for name in names if name not in _OF_THE_HUB]  # noqa: PLW2901
        for name in sorted([*names, *(one for one in folders if Path(at, one).is_symlink())]):
            status, path = Path(at, name).lstat(), (here / name).as_posix()
            if stat.S_ISREG(status.st_mode):
                sizes[path] = status.st_size
            else:
                link = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no plain file"
                yield _finding(What.HASHES, path, f"is {link}; it was not opened, a release has plain files")
    for error in errors:
        name = os.path.relpath(error.filename or folder, folder)
        yield _finding(What.HASHES, name, f"cannot be read: {error.strerror}")


def _lines(folder: Path, sizes: Mapping[str, int], findings: list[Finding]) -> list[str]:
    try:
        return _text(folder, SUMS, sizes).removesuffix("\n").split("\n")
    except (OSError, ValueError) as error:
        findings.append(_finding(What.HASHES, SUMS, f"cannot be read: {error}"))
        return []


def _text(folder: Path, name: str, sizes: Mapping[str, int]) -> str:
    """A text file of a release; raises `ValueError` or `OSError` that says what is wrong."""
    if name not in sizes:
        raise ValueError("it is not there")
    if sizes[name] > _LARGEST_TEXT:
        raise ValueError(f"it has {sizes[name]:,} bytes, of {_LARGEST_TEXT:,} at most")
    return (folder / name).read_text(encoding="utf-8")


def _manifest(folder: Path, sizes: Mapping[str, int]) -> tuple[ReleaseFacts | None, Check]:
    what = What.MANIFEST
    try:
        facts = ReleaseFacts.model_validate_json(_text(folder, MANIFEST, sizes))
    except ValidationError as error:
        told = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:_TOLD]]
        found = f"cannot be read, so nothing else was checked: {'; '.join(told)}"
    except (OSError, ValueError) as error:
        found = f"cannot be read, so nothing else was checked: {error}"
    else:
        known = facts.last_update_file
        until = f"{known} of {facts.retraction_cutoff}" if facts.retraction_cutoff else known
        return facts, Check(what, f"{facts.name}, form {facts.form}, PubMed up to {until}", [])
    return None, Check(what, "nothing", [_finding(what, MANIFEST, found)])


def _data_files(sizes: Mapping[str, int], facts: ReleaseFacts) -> dict[tuple[str, str], list[str]]:
    """Names of the data files of each config and split, in order."""
    return {
        (config, split): sorted(
            name
            for name in sizes
            if re.fullmatch(rf"data/{config}/{split}-\d{{5}}-of-\d{{5}}\.parquet", name)
        )
        for config in configs_of(facts.form)
        for split in SPLITS
    }


def _layout(
    sizes: Mapping[str, int], data: Mapping[tuple[str, str], Sequence[str]], facts: ReleaseFacts
) -> Check:
    what = What.LAYOUT
    wanted = [*FILES, *(f"reports/{name}.parquet" for name in _report_schemas())]
    findings = [_finding(what, name, "is not there") for name in wanted if name not in sizes]
    for (config, split), names in data.items():
        files = max(len(names), 1 if facts.by_split.get(split) else 0)
        told = [f"data/{config}/{split}-{number:05}-of-{files:05}.parquet" for number in range(files)]
        if names != told:
            found = f"has {', '.join(names[:_TOLD]) or 'no file'} of {split}, and should have {told[0]}"
            findings.append(
                _finding(what, f"data/{config}", found if files == 1 else f"{found} to {told[-1]}")
            )
    known = {name for names in data.values() for name in names}
    for name in sorted(name for name in sizes if name.startswith("data/") and name not in known):
        findings.append(_finding(what, name, f"does not belong to a release of form {facts.form}"))
    return Check(what, f"{counted(len(known), 'data file')}, {counted(len(wanted), 'other')}", findings)


def _card(folder: Path, sizes: Mapping[str, int], facts: ReleaseFacts) -> Check:
    what = What.CARD
    try:
        text = _text(folder, CARD, sizes)
    except (OSError, ValueError) as error:
        return Check(what, "nothing", [_finding(what, CARD, f"cannot be read: {error}")])
    findings = [
        _finding(what, CARD, f"line {number} has {match[0]}")
        for number, line in enumerate(text.split("\n"), 1)
        if (match := _TEMPLATE.search(line))
    ]
    header = text.partition("\n---\n")[0] if text.startswith("---\n") else ""
    for config in configs_of(facts.form):
        if not re.search(rf"config_name: *{config} *$", header, re.MULTILINE):
            findings.append(_finding(what, CARD, f"its header has no config {config} to load"))
    if facts.name not in text:
        findings.append(_finding(what, CARD, f"does not name {facts.name}"))
    return Check(what, counted(text.count("\n"), "line"), findings)


def _croissant(folder: Path, sizes: Mapping[str, int], digests: Mapping[str, str]) -> Check:
    what = What.CROISSANT
    try:
        read = json.loads(_text(folder, CROISSANT, sizes))
        listed = [one for one in read["distribution"] if "sha256" in one]
        files = {str(one["contentUrl"]): str(one["sha256"]) for one in listed}
    except (OSError, ValueError, RecursionError) as error:
        return Check(what, "nothing", [_finding(what, CROISSANT, f"cannot be read: {error}")])
    except (KeyError, TypeError):
        found = "has no distribution, or one that is no list of files with contentUrl and sha256"
        return Check(what, "nothing", [_finding(what, CROISSANT, found)])
    findings = []
    for name, digest in files.items():
        if name not in digests:
            findings.append(_finding(what, CROISSANT, f"lists {name}, which is not in the folder"))
        elif digests[name] != digest:
            findings.append(_finding(what, CROISSANT, f"has another SHA-256 of {name} than the file"))
    return Check(what, f"{counted(len(files), 'file')} with SHA-256", findings)


def _licences(facts: ReleaseFacts) -> Check:
    what = What.LICENCES
    wrote = [model for model in facts.models if model.wrote and model.role in ("question", "answer")]
    findings = []
    try:
        gate(wrote)
    except LicenceRefused as error:
        findings.append(_finding(what, MANIFEST, str(error)))
    return Check(what, f"{counted(len(wrote), 'use')} of a model or agent that wrote text", findings)


@cache
def _report_schemas() -> dict[str, pl.Schema]:
    tables = {
        "exclusions": CorpusExclusion,
        "decontamination": CorpusExclusion,
        "recalls": CorpusRecall,
        "coverage": MeshCoverage,
    }
    schemas = {name: pl.Schema(table.create_empty().schema) for name, table in tables.items()}
    return schemas | {"taken_back": TAKEN_BACK, "benchmark_runs": FINGERPRINTS}


def _columns(
    folder: Path, sizes: Mapping[str, int], data: Mapping[tuple[str, str], Sequence[str]], facts: ReleaseFacts
) -> tuple[Check, set[str]]:
    """The check, and the names of the tables that have the columns they should."""
    from pyarrow import ArrowException
    from pyarrow.parquet import read_schema

    what, readable, findings = What.COLUMNS, set[str](), list[Finding]()
    schemas = {f"reports/{name}.parquet": as_read(schema) for name, schema in _report_schemas().items()}
    configs = {config: as_read(schema_of(config, facts.form)) for config in configs_of(facts.form)}
    for (config, _), names in data.items():
        schemas |= dict.fromkeys(names, configs[config])
    for name, schema in schemas.items():
        if name not in sizes:
            continue
        try:
            found = read_schema(folder / name)
        except (ArrowException, OSError, UnicodeDecodeError) as error:
            findings.append(_finding(what, name, f"is no Parquet file, or a damaged one: {error}"))
            continue
        if told := _difference(schema, found):
            findings.append(_finding(what, name, told))
        else:
            readable.add(name)
    return Check(what, counted(len(readable) + len(findings), "table"), findings), readable


def _difference(wanted: "pa.Schema", found: "pa.Schema") -> str | None:
    if found.equals(wanted):
        return None
    told = [f"{name} is absent" for name in wanted.names if name not in found.names]
    told += [f"{name} is none of its columns" for name in found.names if name not in wanted.names]
    for name in set(wanted.names) & set(found.names):
        types = [str(found.field(at).type) for at in found.get_all_field_indices(name)]
        if types != [str(wanted.field(name).type)]:
            told.append(f"{name} is {' and '.join(types)}, not {wanted.field(name).type}")
    return "; ".join(sorted(told)[:_TOLD]) or "its columns are in another order"


class _Unreadable(Exception):
    def __init__(self, name: str, error: Exception) -> None:
        super().__init__(f"is damaged, and was not read to its end: {error}")
        self.name = name


def _read(folder: Path, names: Iterable[str], columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
    """The rows of tables some thousand at a time, with their `file`; raises `_Unreadable`."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    for name in names:
        try:
            # Column by column as it is needed, not whole groups of rows: those of others may be large.
            with ParquetFile(folder / name, buffer_size=_BUFFER, pre_buffer=False) as table:
                for batch in table.iter_batches(ROWS_AT_ONCE, columns=columns):
                    # Arrow takes a text for UTF-8 unseen, and polars would rely on it.
                    batch.validate(full=True)
                    yield pl.DataFrame(pl.from_arrow(batch)).with_columns(file=pl.lit(name))
        except (ArrowException, OSError, UnicodeDecodeError) as error:
            raise _Unreadable(name, error) from error


def _unlike(told: Any, here: Any) -> str | None:
    """How what the manifest tells differs from what is here, of a map its first keys; None: it does not."""
    if isinstance(told, Mapping) or isinstance(here, Mapping):
        told, here = told or {}, here or {}
        keys = [key for key in {**told, **here} if _unlike(told.get(key), here.get(key))]
        told, here = ({key: one[key] for key in keys[:_TOLD] if key in one} for one in (told, here))
        return f"{MANIFEST} says {dict(told)}, here is {dict(here)}" if keys else None
    if isinstance(told, float) and isinstance(here, float) and math.isclose(told, here, rel_tol=1e-9):
        return None
    return None if told == here else f"{MANIFEST} says {told}, here is {here}"


class _Reports:
    """What the tables of reports/ say; one that cannot be read is empty."""

    def __init__(self, folder: Path, readable: set[str]) -> None:
        self._folder, self._readable = folder, readable
        self._findings = list[Finding]()
        self.taken_back = self._whole("taken_back")
        self.fingerprints = self._whole("benchmark_runs")

    def check(self, facts: ReleaseFacts) -> Check:
        """Whether they count what the manifest says."""
        stages: dict[str, dict[str, int]] = {}
        for part in self._parts("exclusions", ["stage", "reason"]):
            for stage, reasons in excluded(part).items():
                stages[stage] = dict(Counter(stages.get(stage, {})) + Counter(reasons))
        removed = self._whole("decontamination")["benchmark"]
        recalled = self._whole("recalls").select("corpus", "example_id").n_unique()
        benchmarks = {one.file.name: one.removed for one in facts.benchmarks if one.removed}
        compared = (
            ("exclusions", "excluded", facts.excluded, stages),
            ("decontamination", "removed for benchmarks", benchmarks, Counter(removed)),
            ("recalls", "recalled", facts.recalled, recalled),
            ("taken_back", "taken_back_citations", facts.taken_back_citations, self.taken_back.height),
        )
        findings = [*self._findings]
        for name, fact, told, counted_here in compared:
            if f"reports/{name}.parquet" in self._readable and (found := _unlike(told, counted_here)):
                findings.append(_finding(What.REPORTS, f"reports/{name}.parquet", f"{fact}: {found}"))
        if self.fingerprints.is_empty() and any(one.items for one in facts.benchmarks):
            found = "has no row, so that no leak of a benchmark can be found"
            findings.append(_finding(What.REPORTS, "reports/benchmark_runs.parquet", found))
        return Check(What.REPORTS, counted(len(_report_schemas()), "report"), findings)

    def _whole(self, name: str) -> pl.DataFrame:
        return pl.concat([pl.DataFrame(schema=_report_schemas()[name]), *self._parts(name)])

    def _parts(self, name: str, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
        file = f"reports/{name}.parquet"
        if file in self._readable:
            try:
                for part in _read(self._folder, [file], columns):
                    yield part.drop("file")
            except _Unreadable as unreadable:
                self._readable.discard(file)
                self._findings.append(_finding(What.REPORTS, file, str(unreadable)))


class _Examples:
    """The examples of a release, read once: what is wrong in them, and what the manifest counts."""

    def __init__(
        self,
        folder: Path,
        facts: ReleaseFacts,
        data: Mapping[tuple[str, str], Sequence[str]],
        readable: set[str],
    ) -> None:
        self._folder, self._facts, self._data = folder, facts, data
        self._configs = configs_of(facts.form)
        self._files = {place: [name for name in names if name in readable] for place, names in data.items()}
        self._is_whole = self._files == data
        self._kept = [TrainingExample.create_empty().select(_COUNTED)]
        # By check, file and kind of fault: how many, and what is told of the first few.
        self._count = Counter[tuple[What, str, str]]()
        self._told: dict[tuple[What, str, str], list[str]] = {}

    def checks(self, fingerprints: pl.DataFrame, taken_back: pl.DataFrame) -> Iterator[Check]:
        """Read all examples, then tell of one check after the other."""
        for split in SPLITS:
            try:
                for rows in self._of(split):
                    self._look(rows, fingerprints, taken_back)
            except _Unreadable as unreadable:
                self._is_whole = False
                self._note_one(What.VALUES, unreadable.name, str(unreadable))
        kept = pl.concat(self._kept)
        twice = kept.filter(pl.col("example_id").is_duplicated()).unique("example_id").sort("example_id")
        where, fault = pl.lit("data/instruction").alias("file"), pl.lit("more than once").alias("fault")
        self._note(What.KEYS, twice.select(where, fault, told="example_id"))
        if self._is_whole:
            here = facts_of_rows(kept)
            told, here = (
                self._facts.model_dump(include=set(here)),
                self._facts.model_copy(update=here).model_dump(),
            )
            for name in told:
                if found := _unlike(told[name], here[name]):
                    self._note_one(What.COUNTS, MANIFEST, f"{name}: {found}")
        all_of_them, is_full = counted(kept.height, "example"), self._facts.form == "full"
        looked_at = {
            What.TEXTS: all_of_them if is_full else "nothing: this form has no texts",
            What.HELD_OUT: counted(kept.filter(split="train").height, "example"),
            What.BENCHMARKS: f"{all_of_them}, {counted(fingerprints.height, 'fingerprint')}",
            What.RETRACTIONS: f"{all_of_them}, {counted(taken_back.height, 'citation')} taken back",
            What.COUNTS: all_of_them if self._is_whole else "nothing: a table cannot be read",
        }
        for what in _OF_EXAMPLES:
            yield Check(what, looked_at.get(what, all_of_them), list(self._findings(what)))

    def _of(self, split: str) -> Iterator[pl.DataFrame]:
        """The examples of a split, with `pretraining_text` as long as that config has the same examples."""
        instruction = self._groups("instruction", split)
        is_whole = all(self._files[config, split] == self._data[config, split] for config in self._configs)
        # Of a split with a table that cannot be read, it is not known which texts belong to which example.
        texts = self._groups("pretraining", split) if is_whole and "pretraining" in self._configs else None
        key = ["example_id", "pmid", "branch"]
        for rows in instruction:
            examples = rows.with_columns(split=pl.lit(split))
            beside = next(texts, rows.clear()) if texts else None
            if beside is not None and beside.select(key).equals(rows.select(key)):
                yield examples.with_columns(pretraining_text=beside["text"])
                continue
            if beside is not None:
                self._note_one(What.TEXTS, f"data/pretraining/{split}", "has other examples than instruction")
                texts = None
            yield examples
        if texts and next(texts, None) is not None:
            self._note_one(What.TEXTS, f"data/pretraining/{split}", "has more examples than instruction")

    def _groups(self, config: str, split: str) -> Iterator[pl.DataFrame]:
        """The rows of a config and split, as many at a time whatever their files are; the last are fewer."""
        left: pl.DataFrame | None = None
        for rows in _read(self._folder, self._files[config, split]):
            left = rows if left is None else pl.concat([left, rows])
            while left.height >= ROWS_AT_ONCE:
                yield left.head(ROWS_AT_ONCE)
                left = left.slice(ROWS_AT_ONCE)
        if left is not None and not left.is_empty():
            yield left

    def _look(self, rows: pl.DataFrame, fingerprints: pl.DataFrame, taken_back: pl.DataFrame) -> None:
        self._kept.append(rows.select(_COUNTED))
        faults, sound = out_of_range(rows)
        self._note(What.VALUES, faults)
        self._note(What.TEXTS, with_other_texts(sound))
        self._note(What.SPLITS, in_another_split(sound))
        self._note(What.HELD_OUT, showing_held_out(sound))
        self._note(What.BENCHMARKS, giving_a_benchmark_away(sound, fingerprints))
        self._note(What.RETRACTIONS, resting_on_taken_back(sound, taken_back))
        self._note(What.WRITERS, by_unknown_writers(sound, self._facts.models))

    def _note(self, what: What, faults: pl.DataFrame) -> None:
        for (file, fault), told in faults.group_by("file", "fault", maintain_order=True):
            key = what, str(file), str(fault)
            self._count[key] += told.height
            few = self._told.setdefault(key, [])
            few.extend(told["told"].head(_TOLD - len(few)))

    def _note_one(self, what: What, file: str, found: str) -> None:
        self._note(what, pl.DataFrame([(file, found, None)], schema=FAULT, orient="row"))

    def _findings(self, what: What) -> Iterator[Finding]:
        for (of, file, fault), count in self._count.items():
            told = "; ".join(one for one in self._told[of, file, fault] if one)
            more = f"; and {count - _TOLD:,} more" if count > _TOLD else ""
            if of == what:
                yield _finding(what, file, f"{fault}: {told}{more}" if told else fault)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all right; 1: something is wrong with the release; 2: it was not looked at."""
    parser = argparse.ArgumentParser(
        prog="python -m mkailin_assets.release.verify",
        description="Check a release offline: hashes, columns, splits, leaks, retractions, licences.",
    )
    parser.add_argument("release", type=Path, help="folder of the release")
    parser.add_argument(
        "--current",
        type=Path,
        metavar="PATH",
        help="check retractions against a newer state of PubMed, too: the root of a storage, or a "
        "current_citations.parquet",
    )
    given = parser.parse_args(arguments)
    try:
        newer = taken_back_at(given.current) if given.current else None
    except NoStates as error:
        print(error, file=sys.stderr)
        return 2
    findings = 0
    for check in checks(given.release, newer):
        print(f"{'WRONG' if check.findings else 'ok':5} {check.what}: {check.looked_at}", flush=True)
        for finding in check.findings:
            print(f"      {finding.file}: {finding.found}")
        findings += len(check.findings)
    if findings:
        print(f"{given.release}: {counted(findings, 'finding')}; do not train on it nor pass it on as it is")
        return 1
    print(f"{given.release}: all right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
