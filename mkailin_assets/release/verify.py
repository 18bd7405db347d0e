"""Whether a release is what it says it is: looked at offline, with nothing but its folder.

    python -m mkailin_assets.release.verify FOLDER [--current PATH]

Hashes find what was changed after the release was made. The other checks find what should not have been
released in the first place, whatever the hashes say. Rows are read some thousand at a time; what is kept of
each is its key and hash.
"""

import argparse
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from mkailin_assets.corpus.decontamination import FINGERPRINTS
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
from mkailin_assets.release.findings import MOST_TOLD, Check, Finding, What, finding
from mkailin_assets.release.folder import (
    Contents,
    check_croissant,
    check_hashes,
    check_layout,
    check_manifest,
    check_texts,
    data_files,
)
from mkailin_assets.release.forms import configs_of, schema_of
from mkailin_assets.release.gathering import COUNTED, excluded, facts_of_rows
from mkailin_assets.release.layout import TAKEN_BACK, as_read
from mkailin_assets.release.licence_gate import LicenceRefused, gate

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 2_000
_BUFFER = 1 << 20
_OF_EXAMPLES = list(What)[list(What).index(What.VALUES) :]


class NoStates(ValueError):
    """There is no table of PubMed's state where it was said to be."""


def verify(folder: Path, newer: pl.DataFrame | None = None) -> list[Finding]:
    """What is wrong with the release in a folder; nothing if it is all right.

    `newer`, from `taken_back_at`, is what PubMed took back after the release was made. A folder that is no
    release, or is damaged, is a finding, too.
    """
    return [one for check in checks(folder, newer) for one in check.findings]


def checks(folder: Path, newer: pl.DataFrame | None = None) -> Iterator[Check]:
    """The checks of `verify`, each when it is made. What cannot be read ends them."""
    check, contents = check_hashes(folder)
    yield check
    if not contents.sizes:
        return
    check, facts = check_manifest(contents)
    yield check
    if facts is None:
        return
    schemas = _schemas(contents, facts)
    yield check_layout(contents, facts, [name for name in schemas if name.startswith("reports/")])
    yield check_texts(contents, facts)
    yield check_croissant(contents)
    yield _check_licences(facts)
    check, readable = _check_columns(contents, schemas)
    yield check
    reports = _Reports(folder, readable)
    yield reports.check(facts)
    taken_back = pl.concat([reports.taken_back, *([] if newer is None else [newer])])
    examples = _Examples(folder, facts, data_files(contents, facts), readable)
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
        back = states.filter(pl.col("state") != "current").select(TAKEN_BACK.names())
        return back.cast(TAKEN_BACK).collect()
    except (pl.exceptions.PolarsError, OSError, StorageError) as error:
        raise NoStates(f"{path}: no table of current citations can be read there: {error}") from error


def _check_licences(facts: ReleaseFacts) -> Check:
    wrote = [model for model in facts.models if model.wrote and model.role in ("question", "answer")]
    findings = []
    try:
        gate(wrote)
    except LicenceRefused as error:
        findings.append(finding(What.LICENCES, MANIFEST, str(error)))
    return Check(What.LICENCES, f"{counted(len(wrote), 'use')} of what wrote text", findings)


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


def _schemas(contents: Contents, facts: ReleaseFacts) -> dict[str, "pa.Schema"]:
    """The columns that each table of a release should have, by its name."""
    schemas = {f"reports/{name}.parquet": as_read(schema) for name, schema in _report_schemas().items()}
    configs = {config: as_read(schema_of(config, facts.form)) for config in configs_of(facts.form)}
    for (config, _), names in data_files(contents, facts).items():
        schemas |= dict.fromkeys(names, configs[config])
    return schemas


def _check_columns(contents: Contents, schemas: Mapping[str, "pa.Schema"]) -> tuple[Check, set[str]]:
    """The check, and the names of the tables that have the columns they should."""
    from pyarrow import ArrowException
    from pyarrow.parquet import read_schema

    readable, findings = set[str](), list[Finding]()
    there = [name for name in schemas if name in contents.sizes]
    for name in there:
        try:
            found = _difference(schemas[name], read_schema(contents.folder / name))
        except (ArrowException, OSError, UnicodeDecodeError) as error:
            found = f"is no Parquet file, or a damaged one: {error}"
        if found:
            findings.append(finding(What.COLUMNS, name, found))
        else:
            readable.add(name)
    return Check(What.COLUMNS, counted(len(there), "table"), findings), readable


def _difference(wanted: "pa.Schema", found: "pa.Schema") -> str | None:
    """How columns differ from those that are wanted; None where they do not."""
    told = [f"{name} is absent" for name in wanted.names if name not in found.names]
    told += [f"{name} is none of its columns" for name in found.names if name not in wanted.names]
    for name in set(wanted.names) & set(found.names):
        types = [str(found.field(at).type) for at in found.get_all_field_indices(name)]
        if types != [str(wanted.field(name).type)]:
            told.append(f"{name} is {' and '.join(types)}, not {wanted.field(name).type}")
    return "; ".join(sorted(told)[:MOST_TOLD]) or None


class _Unreadable(Exception):
    """A table is damaged; the message says how."""

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
        told, here = ({key: one[key] for key in keys[:MOST_TOLD] if key in one} for one in (told, here))
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
        # An answer that quotes a held-out citation is of no benchmark.
        removed = self._whole("decontamination")["benchmark"].drop_nulls()
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
                findings.append(finding(What.REPORTS, f"reports/{name}.parquet", f"{fact}: {found}"))
        if self.fingerprints.is_empty() and any(one.items for one in facts.benchmarks):
            found = "has no row, so that no leak of a benchmark can be found"
            findings.append(finding(What.REPORTS, "reports/benchmark_runs.parquet", found))
        return Check(What.REPORTS, counted(len(_report_schemas()), "report"), findings)

    def _whole(self, name: str) -> pl.DataFrame:
        empty = pl.DataFrame(schema=_report_schemas()[name])
        return pl.concat([empty, *self._parts(name)], how="diagonal")

    def _parts(self, name: str, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
        file = f"reports/{name}.parquet"
        if file in self._readable:
            try:
                for part in _read(self._folder, [file], columns):
                    yield part.drop("file")
            except _Unreadable as unreadable:
                self._readable.discard(file)
                self._findings.append(finding(What.REPORTS, file, str(unreadable)))


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
        self._kept = [TrainingExample.create_empty().select(COUNTED)]
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
            left = rows if left is None else pl.concat([left, rows], how="diagonal")
            while left.height >= ROWS_AT_ONCE:
                yield left.head(ROWS_AT_ONCE)
                left = left.slice(ROWS_AT_ONCE)
        if left is not None and not left.is_empty():
            yield left

    def _look(self, rows: pl.DataFrame, fingerprints: pl.DataFrame, taken_back: pl.DataFrame) -> None:
        self._kept.append(rows.select(COUNTED))
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
            few.extend(told["told"].head(MOST_TOLD - len(few)))

    def _note_one(self, what: What, file: str, found: str) -> None:
        self._note(what, pl.DataFrame([(file, found, None)], schema=FAULT, orient="row"))

    def _findings(self, what: What) -> Iterator[Finding]:
        for (of, file, fault), count in self._count.items():
            told = "; ".join(one for one in self._told[of, file, fault] if one)
            more = f"; and {count - MOST_TOLD:,} more" if count > MOST_TOLD else ""
            if of == what:
                yield finding(what, file, f"{fault}: {told}{more}" if told else fault)


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
        for one in check.findings:
            print(f"      {one.file}: {one.found}")
        findings += len(check.findings)
    if findings:
        print(f"{given.release}: {counted(findings, 'finding')}; do not train on it nor pass it on as it is")
        return 1
    print(f"{given.release}: all right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
