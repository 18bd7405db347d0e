"""Public benchmarks from the Hugging Face Hub, at fixed commits, as files that the evaluation reads.

    python -m mkailin_assets.evaluation.fetch FOLDER

pubmedqa/          PubMedQA's 1,000 questions with the answers of experts, and the test split of its authors
multiple_choice/   MedQA (US, four options), MedMCQA, six tests of MMLU
sources.json       of each file its repository, commit, licence and SHA-256

What is there already, as `sources.json` says, is not fetched again; a download that was cut off goes on.
"""

import argparse
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile

from pydantic import BaseModel, TypeAdapter, ValidationError

from mkailin_assets.evaluation.benchmark_files import (
    GROUND_TRUTH,
    BenchmarkFile,
    NotABenchmark,
    entries_of,
)
from mkailin_assets.evaluation.items import measured_items
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.models.model_files import first_line
from mkailin_resources.storage import Storage, StorageError
from mkailin_resources.training_checkpoints import sha256

LISTING = "sources.json"
_PUBMEDQA = "pubmedqa/ori_pqal.json"
_OTHERS = "multiple_choice"
_DOWNLOADS = ".downloads"  # hidden, so that no reader of the folder takes it for a benchmark
# The authors' own files in the archive: their test split, and the other half in two parts.
_TEST, *_REST = ("pqal_test_set.json", "pqal_fold0/train_set.json", "pqal_fold0/dev_set.json")


@dataclass(frozen=True)
class Source:
    """A file of a dataset on the Hub, and how many items it has.

    `to`: where it is put. `sha256`: of the file on the Hub, where it is known; the commit fixes it as well.
    """

    repository: str
    commit: str
    file: str
    licence: str
    to: str
    items: int
    sha256: str = ""


_MMLU = {
    "anatomy": 135,
    "clinical_knowledge": 265,
    "college_biology": 144,
    "college_medicine": 173,
    "medical_genetics": 100,
    "professional_medicine": 272,
}
SOURCES = (
    # Unlike qiaojin/PubMedQA it tells the test split, and the years that cohorts are made of; it is what
    # lm-evaluation-harness reads. Later commits have other files.
    Source(
        "bigbio/pubmed_qa",
        "15578e80ef02c2c9636d33fdd7eb6b05b987ba60",
        "pqal.zip",
        "MIT; abstracts belong to their authors or publishers",
        _PUBMEDQA,
        1_000,
    ),
    Source(
        "GBaker/MedQA-USMLE-4-options",
        "0fb93dd23a7339b6dcd27e241cb9b5eca62d4d18",
        "phrases_no_exclude_test.jsonl",
        "CC-BY-4.0 on the Hub, MIT at its authors'",
        f"{_OTHERS}/medqa_test.jsonl",
        1_273,
        "c3b905ccfa66152dc25afbcb2c10e86c0bdb208824f0658fcdb2c040f60a2beb",
    ),
    Source(
        "openlifescienceai/medmcqa",
        "91c6572c454088bf71b679ad90aa8dffcd0d5868",
        "data/validation-00000-of-00001.parquet",
        "Apache-2.0 on the Hub, MIT at its authors'",
        f"{_OTHERS}/medmcqa_validation.parquet",
        4_183,
        "b768a1ea34afc9f80d3106d9b21f80fa8a00ec450a1f6cd641af72ca9e591021",
    ),
    *(
        Source(
            "cais/mmlu",
            "c30699e8356da336a370243923dbaf21066bb9fe",
            f"{subject}/test-00000-of-00001.parquet",
            "MIT",
            f"{_OTHERS}/{subject}_test.parquet",
            items,
        )
        for subject, items in _MMLU.items()
    ),
)


class NotFetched(RuntimeError):
    """A benchmark was not fetched; the message names it, the cause and what to do. Those before it stay."""


class Fetched(BaseModel):
    """What `sources.json` says of a file."""

    file: str
    sha256: str
    items: int
    repository: str
    commit: str
    path: str
    licence: str


_Listing = TypeAdapter(list[Fetched])


def fetch(folder: Path, sources: Iterable[Source], say: Callable[[str], None]) -> BenchmarkFiles:
    """Fetch the benchmarks that are not in a folder yet; all of them, as they are to be configured.

    Raises `NotFetched`.
    """
    listed = _listed(folder)
    for source in sources:
        known = listed.get(source.to)
        if known and _is_there(folder, source, known):
            say(f"{source.to}: is there")
            continue
        say(f"{source.to}: from {source.repository} at {source.commit[:8]}, {source.licence}")
        try:
            _put(folder, source, _downloaded(folder, source))
            file = BenchmarkFile(source.to, folder / source.to, "MKAILIN_BENCHMARKS")
            items = len(list(entries_of(file)))
        except StorageError as error:
            raise NotFetched(f"{source.repository}: {source.file}: {error}") from error
        except NotABenchmark as error:
            raise NotFetched(_otherwise(source, "it holds no benchmark")) from error
        if items != source.items:
            raise NotFetched(_otherwise(source, f"it has {items:,} items in place of {source.items:,}"))
        listed[source.to] = Fetched(
            file=source.to,
            sha256=sha256(folder / source.to),
            items=items,
            repository=source.repository,
            commit=source.commit,
            path=source.file,
            licence=source.licence,
        )
        _publish(folder, LISTING, _Listing.dump_json([*listed.values()], indent=2))
    shutil.rmtree(folder / _DOWNLOADS, ignore_errors=True)
    return BenchmarkFiles(pubmedqa=str(folder / _PUBMEDQA), retrieval="", others=[str(folder / _OTHERS)])


def _listed(folder: Path) -> dict[str, Fetched]:
    try:
        listed = _Listing.validate_json((folder / LISTING).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        raise NotFetched(
            f"{folder / LISTING}: is not what this command wrote: {first_line(error)}; remove it, or name "
            "another folder"
        ) from error
    return {fetched.file: fetched for fetched in listed}


def _is_there(folder: Path, source: Source, known: Fetched) -> bool:
    path = folder / source.to
    is_same = (known.repository, known.commit, known.path) == (
        source.repository,
        source.commit,
        source.file,
    )
    return is_same and path.is_file() and sha256(path) == known.sha256


def _downloaded(folder: Path, source: Source) -> Path:
    """The file as the Hub has it; the client takes up what an earlier run has of it."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        path = Path(
            hf_hub_download(
                source.repository,
                source.file,
                repo_type="dataset",
                revision=source.commit,
                cache_dir=folder / _DOWNLOADS,
                library_name="m-kailin",
                library_version=version("mkailin"),
            )
        )
        digest = sha256(path)
    except Exception as error:  # its client's own errors have no class in common
        # That error says no more than that the file is not in the cache either.
        told = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
        cause = first_line(told if isinstance(told, Exception) else error)
        raise NotFetched(
            f"{source.repository}: {source.file} was not fetched: {cause}. What came before it "
            "stays; see to that, the network and HF_HUB_OFFLINE, or set HF_ENDPOINT to a mirror of the Hub, "
            "and run this again"
        ) from error
    if source.sha256 not in ("", digest):
        shutil.rmtree(folder / _DOWNLOADS)  # the client would find it there again
        raise NotFetched(_otherwise(source, f"its SHA-256 is {digest} in place of {source.sha256}"))
    return path


def _otherwise(source: Source, found: str) -> str:
    endpoint = os.environ.get("HF_ENDPOINT") or "the Hub"
    return (
        f"{source.repository}: {source.file} is not that of commit {source.commit}: {found}; {endpoint} "
        "serves another file by its name: set HF_ENDPOINT to a mirror that does not, or unset it"
    )


def _put(folder: Path, source: Source, downloaded: Path) -> None:
    if source.to == _PUBMEDQA:
        test, rest = _pubmedqa(source, downloaded)
        truth = {pmid: item.get("final_decision") for pmid, item in test.items()}
        # First: without it all thousand would be measured.
        _publish(folder, str(PurePosixPath(_PUBMEDQA).with_name(GROUND_TRUTH)), json.dumps(truth).encode())
        _publish(folder, _PUBMEDQA, json.dumps(test | rest, ensure_ascii=False).encode())
    else:
        _publish(folder, source.to, downloaded.read_bytes())


_Items = dict[str, dict[str, object]]


def _pubmedqa(source: Source, archive: Path) -> tuple[_Items, _Items]:
    """The questions of its authors' test split and the others, from PMID to item."""
    try:
        with ZipFile(archive) as file:
            names = [PurePosixPath(name) for name in file.namelist()]

            def read(wanted: str) -> _Items:
                parts = PurePosixPath(wanted).parts
                found = next(name for name in names if name.parts[-len(parts) :] == parts)
                items: _Items = json.loads(file.read(str(found)))
                return items

            train, dev = map(read, _REST)
            return read(_TEST), train | dev
    except (BadZipFile, StopIteration, ValueError) as error:
        raise NotFetched(_otherwise(source, f"it is no archive with {', '.join([_TEST, *_REST])}")) from error


def _publish(folder: Path, name: str, content: bytes) -> None:
    storage = Storage(root=str(folder))
    storage.publish_file(storage.path(name), lambda file: file.write(content))


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all are there; 1: one could not be fetched."""
    parser = argparse.ArgumentParser(
        prog="python -m mkailin_assets.evaluation.fetch",
        description="Fetch PubMedQA, MedQA, MedMCQA and six tests of MMLU from the Hugging Face Hub.",
    )
    parser.add_argument("folder", type=Path, help="folder to put them in; it is made if it is not there")
    folder = parser.parse_args(arguments).folder.absolute()
    try:
        benchmarks = fetch(folder, SOURCES, print)
        items = measured_items(benchmarks)
    except (NotFetched, NotABenchmark) as error:
        print(error, file=sys.stderr)
        return 1
    for name, count in items.table["benchmark"].value_counts(name="items").sort("benchmark").iter_rows():
        print(f"{name}: models are asked {count:,} items")
    for what, cause in items.skipped.items():
        print(f"not asked: {what}: {cause}")
    print(
        f"\nTo measure on them, and to keep them out of the corpus:\n"
        f"export MKAILIN_PUBMEDQA={shlex.quote(benchmarks.pubmedqa)}\n"
        f"export MKAILIN_BENCHMARKS={shlex.quote(os.pathsep.join(benchmarks.others))}\n\n"
        "BioASQ's yes/no questions are handed out to those who register at "
        f"participants-area.bioasq.org: add its JSON files to MKAILIN_BENCHMARKS, {os.pathsep!r} before each."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
