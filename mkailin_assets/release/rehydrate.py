"""Puts the texts of citations back into a release without them, from the user's own copy of PubMed.

`python -m mkailin_assets.release.rehydrate RELEASE --pubmed FOLDER --to FOLDER`

The citations an example was made of are looked for in every PubMed file, in the version it was made from,
which need not be the latest; its texts are put together as the platform does; and its hash proves that they
are what they were. An example of which that does not hold is left out, and `missing.parquet` says why.

Memory is that of a part of a PubMed file and of some thousand examples. Until they are put together, the
texts of the citations lie in a scratch file beside the target, 2 KB each: for a million examples and all
their contexts, some 10 GB. What takes time is the PubMed files, the examples half a millisecond each.
"""

import argparse
import json
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from glob import iglob
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from mkailin_assets.corpus.answers import at_its_conclusion
from mkailin_assets.corpus.assembly import in_batches
from mkailin_assets.corpus.recalls import citations_of
from mkailin_assets.corpus.tables import TrainingExample
from mkailin_assets.corpus.texts import example_hash, example_texts
from mkailin_assets.pubmed.citations import read_pubmed_file
from mkailin_assets.pubmed.current import file_order
from mkailin_assets.pubmed.records import UnreadablePubmedFile
from mkailin_assets.pubmed.tables import PubmedRecord
from mkailin_assets.questions.candidates import document_of, normalised
from mkailin_assets.release.facts import MANIFEST, ReleaseFacts
from mkailin_assets.release.forms import answer_of
from mkailin_assets.release.gathering import facts_of_rows
from mkailin_assets.release.layout import write_rows
from mkailin_assets.release.verify import verify
from mkailin_assets.release.writing import describe
from mkailin_assets.retrieval.update import abstract_text

MISSING = "missing.parquet"
MISSING_COLUMNS = pl.Schema(
    {
        "example_id": pl.String(),
        "pmid": pl.Int64(),
        "split": pl.String(),
        "use": pl.String(),
        "cited_pmid": pl.Int64(),
        "cause": pl.String(),
    }
)
ABSENT = "in none of these PubMed files"
REVISED = "in these PubMed files in other versions only"
OTHERWISE = "the texts were found, but put together they are not those of the release"
_TOLD = 3
_READ = ("record", "pmid", "content_hash", "title", "abstract")
_ABSTRACT = PubmedRecord.create_empty().schema["abstract"]


class CannotRehydrate(RuntimeError):
    """Release, PubMed files or target are not what they should be; the message says what to do."""


@dataclass(frozen=True)
class Rehydrated:
    """How many examples have their texts again, how many are missing, and the PubMed files not read whole."""

    rows: int
    missing: int
    unreadable: tuple[str, ...] = ()


def rehydrate(release: Path, pubmed: Path, to: Path, log: Callable[[str], None]) -> Rehydrated:
    """Write a release of form pmids again in form full, with the texts, into the folder `to`; all or nothing.

    `pubmed` is a folder that holds PubMed files, `pubmed26n0001.xml.gz`, anywhere below: a mirror of NLM's
    server, or the storage of this platform, whose parsed tables are read in place of the files. They are read
    until all that is wanted was found. Where examples are missing, the manifest counts those that are there;
    its models, lengths and coverage are those of the release as it was.

    Raises `CannotRehydrate`, also where no example could be put back; an example or a PubMed file that
    something is wrong with does not stop it.
    """
    facts = _facts_of(release)
    characters = _context_characters(release, facts)
    files = _pubmed_files(pubmed, [file.name for file in facts.pubmed_files])
    target = to.absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CannotRehydrate(f"{to}: is there and no empty folder; name another, or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        whole, missing = Path(scratch) / "release", [pl.DataFrame(schema=MISSING_COLUMNS)]
        with closing(sqlite3.connect(Path(scratch) / "citations.sqlite")) as base:
            citations = _Citations(base)
            for rows in _examples(release):
                citations.want(_cited(rows))
            unreadable = citations.read(files, log)

            def put_back() -> Iterator[pl.DataFrame]:
                for rows in _examples(release):
                    made, lost = _put_back(rows, citations, characters)
                    missing.append(lost)
                    yield made

            height = write_rows(put_back(), whole, "full")
        lost = pl.concat(missing)
        if not height:
            causes = ", ".join(lost["cause"].unique().sort()) or "it has none"
            raise CannotRehydrate(f"{release}: no example could be put back from {pubmed}: {causes}")
        changes: dict[str, object] = {"form": "full", "name": f"{facts.name}-rehydrated"}
        if not lost.is_empty():
            lost.write_parquet(whole / MISSING, compression="zstd")
            changes |= facts_of_rows(_without_texts(whole)) | {"missing": facts.rows - height}
        shutil.copytree(release / "reports", whole / "reports")
        describe(whole, facts.model_copy(update=changes))
        whole.rename(target)
    return Rehydrated(height, lost["example_id"].n_unique(), unreadable)


def _facts_of(release: Path) -> ReleaseFacts:
    findings = verify(release)
    if findings:
        told = "; ".join(f"{finding.file}: {finding.found}" for finding in findings[:_TOLD])
        raise CannotRehydrate(f"{release}: is no release as it was published, fetch it again: {told}")
    facts = ReleaseFacts.read(release)
    if facts.form != "pmids":
        raise CannotRehydrate(
            f"{release}: is of form {facts.form}: its texts are there, none is to be put back"
        )
    return facts


def _context_characters(release: Path, facts: ReleaseFacts) -> int:
    characters = facts.rules.get("corpus", {}).get("max_context_characters")
    if not isinstance(characters, int):
        raise CannotRehydrate(f"{release / MANIFEST}: rules.corpus.max_context_characters is {characters!r}")
    return characters


def _pubmed_files(folder: Path, made_from: Sequence[str]) -> list[tuple[str, Path]]:
    """The PubMed files below a folder by key, those first that the corpus was made from."""
    if not folder.is_dir():
        raise CannotRehydrate(f"{folder}: is no folder")
    # Unlike Path.rglob, it follows links to folders.
    found = {
        path.name.partition(".")[0]: path
        for pattern in ("**/*.xml.gz", "**/pubmed_citations/*.parquet")
        for path in (folder / name for name in sorted(iglob(pattern, root_dir=folder, recursive=True)))
    }
    files = [(key, path) for key, path in found.items() if _is_key(key)]
    if not files:
        raise CannotRehydrate(
            f"{folder}: neither it nor any folder below has a PubMed file, named as pubmed26n0001.xml.gz is"
        )
    first = set(made_from)
    return sorted(files, key=lambda file: (file[0] not in first, file_order(file[0])))


def _is_key(name: str) -> bool:
    try:
        file_order(name)
    except ValueError:
        return False
    return True


def _records(key: str, path: Path) -> Iterator[pl.DataFrame]:
    if path.suffix == ".parquet":
        yield pl.read_parquet(path, columns=list(_READ))
        return
    with path.open("rb") as file:
        for part in read_pubmed_file(file, key):
            yield part.select(_READ)


def _examples(release: Path) -> Iterator[pl.DataFrame]:
    """The rows of all splits, some thousand at a time, with their `split`."""
    for path in sorted((release / "data" / "instruction").glob("*.parquet")):
        split = path.name.partition("-")[0]
        for rows in in_batches(pl.scan_parquet(path)):
            yield rows.with_columns(split=pl.lit(split))


def _without_texts(release: Path) -> pl.DataFrame:
    """All rows of a release of form full, without their texts."""
    return pl.concat(rows.drop("context", "messages", "long_answer") for rows in _examples(release))


def _cited(rows: pl.DataFrame) -> pl.DataFrame:
    """The citations that each example shows, source first, and not those that its answerer alone has read."""
    cited = citations_of(rows, ["example_id", "context_pmids"])
    shown = (pl.col("use") == "source") | pl.col("cited_pmid").is_in(pl.col("context_pmids"))
    return cited.filter(shown).drop("context_pmids")


def _put_back(
    rows: pl.DataFrame, citations: "_Citations", max_context_characters: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The examples that are as they were, `TrainingExample`; and why others are not, `MISSING_COLUMNS`."""
    cited = _cited(rows)
    texts = citations.of(cited)
    cited = cited.join(texts, on=["cited_pmid", "content_hash"], how="left", maintain_order="left")
    lost = cited.filter(pl.col("cause").is_not_null()).select("example_id", "use", "cited_pmid", "cause")
    there, found = (
        table.join(lost, on="example_id", how="anti", maintain_order="left") for table in (rows, cited)
    )
    made = _with_texts(there, found, max_context_characters)
    is_same = example_hash(made) == made["example_hash"]
    otherwise = made.filter(~is_same).select(
        "example_id", use=pl.lit("source"), cited_pmid="pmid", cause=pl.lit(OTHERWISE)
    )
    of_rows = rows.select("example_id", "pmid", "split")
    missing = pl.concat([lost, otherwise]).join(of_rows, on="example_id", maintain_order="left")
    return made.filter(is_same).select(*TrainingExample.columns()), missing.select(MISSING_COLUMNS.names())


def _with_texts(rows: pl.DataFrame, cited: pl.DataFrame, max_context_characters: int) -> pl.DataFrame:
    """The rows with all texts, put together as `generated_qa` and `assemble` do from these citations."""
    sources = cited.filter(use="source")
    halves = [at_its_conclusion(document_of(source)) for source in sources.iter_rows(named=True)]
    source = sources.select(
        "example_id",
        "title",
        source_context=pl.Series([context for context, _ in halves], dtype=pl.String),
        source_conclusion=pl.Series([conclusion for _, conclusion in halves], dtype=pl.String),
    )
    contexts = (
        cited.filter(use="context")
        .group_by("example_id", maintain_order=True)
        .agg(contexts=pl.struct(title="context_title", text="context_text"))
    )
    given = rows
    for texts in (source, contexts):
        given = given.join(texts, on="example_id", how="left", maintain_order="left")
    # Twice: the places of an answer are in the text to pre-train on, and the messages hold the answer.
    read = example_texts(given.with_columns(long_answer=pl.lit("")), max_context_characters)[
        "pretraining_text"
    ]
    pairs = zip(given["answer_parts"].to_list(), read.to_list(), strict=True)
    answers = pl.Series([answer_of(parts, text) for parts, text in pairs], dtype=pl.String)
    return example_texts(given.with_columns(long_answer=answers), max_context_characters)


class _Citations:
    """Titles and abstracts of the citations that are wanted; they are on disk, in a scratch file."""

    def __init__(self, base: sqlite3.Connection) -> None:
        self._base = base
        # Of no use after this connection: nothing is ever committed, nor has to survive a crash.
        base.executescript(
            """
            PRAGMA journal_mode = OFF;
            PRAGMA synchronous = OFF;
            CREATE TABLE wanted (
                pmid INTEGER, content_hash TEXT, is_revised INTEGER DEFAULT 0,
                PRIMARY KEY (pmid, content_hash)
            ) WITHOUT ROWID;
            CREATE TABLE text (
                pmid INTEGER, content_hash TEXT, title TEXT, abstract TEXT, PRIMARY KEY (pmid, content_hash)
            );
            """
        )

    def want(self, cited: pl.DataFrame) -> None:
        """Look for these citations (cited_pmid, content_hash), too."""
        self._base.executemany(
            "INSERT OR IGNORE INTO wanted (pmid, content_hash) VALUES (?, ?)",
            cited.select("cited_pmid", "content_hash").iter_rows(),
        )

    def read(self, files: Sequence[tuple[str, Path]], log: Callable[[str], None]) -> tuple[str, ...]:
        """Read PubMed files, by key, until all was found; those that could not be read to their end."""
        ((wanted,),) = self._base.execute("SELECT count(*) FROM wanted")
        found, unreadable = 0, list[str]()
        for number, (key, path) in enumerate(files, 1):
            if found == wanted:
                log(f"all is found: {number - 1:,} of {len(files):,} files were enough")
                break
            try:
                for records in _records(key, path):
                    found += self._keep(records)
            except (UnreadablePubmedFile, OSError, pl.exceptions.PolarsError) as error:
                # What came before the damage counts: each citation is proved by its hash.
                unreadable.append(str(path))
                cause = error.cause if isinstance(error, UnreadablePubmedFile) else error
                log(f"{path}: could not be read to its end, fetch it again: {cause}")
            log(f"{path.name}, {number:,} of {len(files):,} files: {found:,} of {wanted:,} citations found")
        return tuple(unreadable)

    def of(self, cited: pl.DataFrame) -> pl.DataFrame:
        """Texts of these citations (cited_pmid, content_hash), or the `cause` why there are none.

        With title, abstract (as `PubmedRecord`), context_title and context_text (as an example shows them).
        """
        rows = self._base.execute(
            """
            SELECT pmid, content_hash, title, abstract,
                CASE WHEN abstract IS NULL THEN CASE WHEN is_revised THEN ? ELSE ? END END
            FROM wanted LEFT JOIN text USING (pmid, content_hash)
            WHERE pmid IN (SELECT value FROM json_each(?))
            """,
            (REVISED, ABSENT, _json(cited["cited_pmid"].unique())),
        )
        read = [
            (pmid, content_hash, title, abstract and json.loads(abstract), cause)
            for pmid, content_hash, title, abstract, cause in rows
        ]
        schema = {"cited_pmid": pl.Int64(), "content_hash": pl.String(), "title": pl.String()}
        texts = pl.DataFrame(
            read, schema=schema | {"abstract": _ABSTRACT, "cause": pl.String()}, orient="row"
        )
        return texts.with_columns(
            context_title=pl.col("title").fill_null("").map_elements(normalised, return_dtype=pl.String),
            context_text=abstract_text().map_elements(normalised, return_dtype=pl.String),
        )

    def _keep(self, records: pl.DataFrame) -> int:
        """Keep what is wanted of these records (`_READ`); the number of citations that were found."""
        citations = records.filter(record="citation")
        wanted = self._base.execute(
            "SELECT pmid, content_hash FROM wanted WHERE pmid IN (SELECT value FROM json_each(?))",
            (_json(citations["pmid"]),),
        )
        schema = {"pmid": pl.Int64(), "wanted_hash": pl.String()}
        here = citations.join(pl.DataFrame(wanted.fetchall(), schema=schema, orient="row"), on="pmid")
        is_same = pl.col("content_hash") == pl.col("wanted_hash")
        self._base.executemany(
            "UPDATE wanted SET is_revised = 1 WHERE pmid = ?",
            here.filter(~is_same).select("pmid").iter_rows(),
        )
        found = here.filter(is_same).select("pmid", "content_hash", "title", "abstract")
        return self._base.executemany(
            "INSERT OR IGNORE INTO text VALUES (?, ?, ?, ?)",
            ((*row, json.dumps(abstract, ensure_ascii=False)) for *row, abstract in found.iter_rows()),
        ).rowcount


def _json(pmids: pl.Series) -> str:
    return json.dumps(pmids.to_list())


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all examples have their texts again; 1: some are missing; 2: nothing was written."""
    parser = argparse.ArgumentParser(
        prog="python -m mkailin_assets.release.rehydrate",
        description="Put the texts of citations back into a release that holds their PMIDs alone.",
    )
    parser.add_argument("release", type=Path, help="folder of the release")
    parser.add_argument(
        "--pubmed",
        type=Path,
        required=True,
        help="folder with PubMed files, pubmed26n0001.xml.gz, or in folders below",
    )
    parser.add_argument("--to", type=Path, required=True, help="new folder for the release with its texts")
    given = parser.parse_args(arguments)
    try:
        done = rehydrate(given.release, given.pubmed, given.to, print)
    except CannotRehydrate as error:
        print(error, file=sys.stderr)
        return 2
    except (OSError, sqlite3.Error) as error:
        print(f"{given.to}: nothing was written: {error}", file=sys.stderr)
        return 2
    print(f"{done.rows:,} examples have their texts again: {given.to}")
    if done.unreadable:
        print(f"not read to their end: {', '.join(done.unreadable)}")
    if done.missing:
        print(f"{done.missing:,} examples are missing; {given.to / MISSING} says why")
    return 1 if done.missing else 0


if __name__ == "__main__":
    sys.exit(main())
