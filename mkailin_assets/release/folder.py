"""What may be wrong in the folder of a release, its tables apart: hashes, manifest, names and texts."""

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from mkailin_assets.corpus.tables import SPLITS
from mkailin_assets.release.card import counted
from mkailin_assets.release.facts import MANIFEST, ReleaseFacts
from mkailin_assets.release.findings import MOST_TOLD, Check, Finding, What, finding
from mkailin_assets.release.forms import configs_of
from mkailin_assets.release.layout import PICTURE, SUMS
from mkailin_assets.release.notice import COURTESY, NOT_CLINICAL
from mkailin_resources.training_checkpoints import sha256

CARD, LICENCE, NOTICE, CROISSANT = "README.md", "LICENSE", "NOTICE", "croissant.json"
FILES = (CARD, LICENCE, NOTICE, CROISSANT, MANIFEST, PICTURE)
# What a text says, beside the name of the release.
_SAID = {CARD: (COURTESY, NOT_CLINICAL), LICENCE: (NOT_CLINICAL,), NOTICE: (COURTESY, NOT_CLINICAL)}
# What huggingface_hub adds to a folder that it uploads or downloads.
_OF_THE_HUB = (".gitattributes", ".cache")
_LARGEST_TEXT = 1 << 26  # bytes; a manifest or card is a thousandth of it
_SUM = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_TEMPLATE = re.compile(r"\{\{|\}\}|\{%|%\}|\bTODO\b|\bFIXME\b|\[More Information Needed\]", re.IGNORECASE)


@dataclass(frozen=True)
class Contents:
    """The plain files below a folder, by path: their size in bytes, and SHA-256 if they can be read."""

    folder: Path
    sizes: Mapping[str, int]
    digests: Mapping[str, str]

    def text(self, name: str) -> str:
        """A text file; raises `ValueError` or `OSError`, which say what is wrong with it."""
        if name not in self.sizes:
            raise ValueError("it is not there")
        if self.sizes[name] > _LARGEST_TEXT:
            raise ValueError(f"it has {self.sizes[name]:,} bytes, of {_LARGEST_TEXT:,} at most")
        return (self.folder / name).read_text(encoding="utf-8")


def check_hashes(folder: Path) -> tuple[Check, Contents]:
    """Whether SHA256SUMS lists every file with its hash. Nothing is opened that lies outside the folder."""
    sizes, digests = dict[str, int](), dict[str, str]()
    contents = Contents(folder, sizes, digests)
    if not os.path.isdir(folder):
        told = "is a file: name the folder of a release" if os.path.exists(folder) else "is not there"
        return Check(What.HASHES, "nothing", [finding(What.HASHES, str(folder), told)]), contents
    findings = list(_walk(folder, sizes))
    if not sizes:
        findings.append(finding(What.HASHES, str(folder), "holds no file: this is no release"))
        return Check(What.HASHES, "nothing", findings), contents
    for name in sizes:
        try:
            digests[name] = sha256(folder / name)
        except OSError as error:
            findings.append(finding(What.HASHES, name, f"cannot be read: {error.strerror}"))
    findings += _compare(contents)
    return Check(What.HASHES, f"{_files(len(sizes))}, {sum(sizes.values()):,} bytes", findings), contents


def check_manifest(contents: Contents) -> tuple[Check, ReleaseFacts | None]:
    """Whether there are facts to compare a release with; without them nothing else can be checked."""
    try:
        facts = ReleaseFacts.model_validate_json(contents.text(MANIFEST))
    except ValidationError as error:
        told = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:MOST_TOLD]]
        found = "; ".join(told)
    except (OSError, ValueError) as error:
        found = str(error)
    else:
        dated = f" of {facts.retraction_cutoff}" if facts.retraction_cutoff else ""
        looked_at = f"{facts.name}, form {facts.form}, PubMed up to {facts.last_update_file}{dated}"
        return Check(What.MANIFEST, looked_at, []), facts
    unread = finding(What.MANIFEST, MANIFEST, f"cannot be read, so nothing else was checked: {found}")
    return Check(What.MANIFEST, "nothing", [unread]), None


def data_files(contents: Contents, facts: ReleaseFacts) -> dict[tuple[str, str], list[str]]:
    """Names of the data files of each config and split, in order."""
    number = r"\d{5}"
    return {
        (config, split): sorted(
            name
            for name in contents.sizes
            if re.fullmatch(rf"data/{config}/{split}-{number}-of-{number}\.parquet", name)
        )
        for config in configs_of(facts.form)
        for split in SPLITS
    }


def check_layout(contents: Contents, facts: ReleaseFacts, reports: Sequence[str]) -> Check:
    """Whether all files are there that a release of this form has, and no data besides."""
    wanted = [*FILES, *reports]
    findings = [finding(What.LAYOUT, name, "is not there") for name in wanted if name not in contents.sizes]
    data = data_files(contents, facts)
    for (config, split), names in data.items():
        files = max(len(names), 1 if facts.by_split.get(split) else 0)
        numbered = [f"data/{config}/{split}-{number:05}-of-{files:05}.parquet" for number in range(files)]
        if names != numbered:
            there = ", ".join(names[:MOST_TOLD]) or "no file"
            found = f"has {there} of {split}, and should have {numbered[0]} to {numbered[-1]}"
            findings.append(finding(What.LAYOUT, f"data/{config}", found))
    known = {name for names in data.values() for name in names}
    for name in sorted(name for name in contents.sizes if name.startswith("data/") and name not in known):
        found = f"does not belong to a release of form {facts.form}"
        findings.append(finding(What.LAYOUT, name, found))
    return Check(What.LAYOUT, f"{_files(len(known))} of data, {len(wanted)} others", findings)


def check_texts(contents: Contents, facts: ReleaseFacts) -> Check:
    """Whether card, licence and notice say what they must; one that is absent is no matter of this check."""
    findings, lines = list[Finding](), 0
    for name in (name for name in _SAID if name in contents.sizes):
        try:
            text = contents.text(name)
        except (OSError, ValueError) as error:
            findings.append(finding(What.CARD, name, f"cannot be read: {error}"))
            continue
        lines += text.count("\n")
        findings += [finding(What.CARD, name, found) for found in _faults_of_text(name, text, facts)]
    return Check(What.CARD, counted(lines, "line"), findings)


def check_croissant(contents: Contents) -> Check:
    """Whether the Croissant metadata are JSON, and have the hashes of the files that they list."""
    if CROISSANT not in contents.sizes:
        return Check(What.CROISSANT, "nothing", [])
    try:
        listed = [one for one in json.loads(contents.text(CROISSANT))["distribution"] if "sha256" in one]
        files = {str(one["contentUrl"]): str(one["sha256"]) for one in listed}
    except (OSError, ValueError, RecursionError) as error:
        found = f"cannot be read: {error}"
        return Check(What.CROISSANT, "nothing", [finding(What.CROISSANT, CROISSANT, found)])
    except (KeyError, TypeError):
        found = "has no distribution, or one that is no list of files with contentUrl and sha256"
        return Check(What.CROISSANT, "nothing", [finding(What.CROISSANT, CROISSANT, found)])
    findings = []
    for name, digest in files.items():
        if name not in contents.sizes:
            found = f"lists {name}, which is not in the folder"
            findings.append(finding(What.CROISSANT, CROISSANT, found))
        elif contents.digests.get(name, digest) != digest:
            found = f"has another SHA-256 of {name} than the file"
            findings.append(finding(What.CROISSANT, CROISSANT, found))
    return Check(What.CROISSANT, f"{_files(len(files))} with SHA-256", findings)


def _walk(folder: Path, sizes: dict[str, int]) -> Iterator[Finding]:
    """Fill in the plain files below a folder; what is no plain file is a finding, and never opened."""
    errors = list[OSError]()
    for at, folders, names in os.walk(folder, onerror=errors.append):
        links = [name for name in folders if os.path.islink(os.path.join(at, name))]
        here = PurePosixPath(Path(at).relative_to(folder).as_posix())
        for name in sorted([*names, *links]):
            path = str(here / name)
            try:
                status = os.lstat(os.path.join(at, name))
            except OSError as unknown:
                errors.append(unknown)
                continue
            if path in _OF_THE_HUB:
                continue
            if stat.S_ISREG(status.st_mode):
                sizes[path] = status.st_size
            else:
                kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no plain file"
                yield finding(What.HASHES, path, f"is {kind}; it was not opened, a release has plain files")
        if at == str(folder):
            folders[:] = [name for name in folders if name not in _OF_THE_HUB]
    for error in errors:
        name = os.path.relpath(error.filename or folder, folder)
        yield finding(What.HASHES, name, f"cannot be read: {error.strerror}")


def _compare(contents: Contents) -> Iterator[Finding]:
    """What SHA256SUMS says otherwise than the files, and the other way round."""
    try:
        lines = contents.text(SUMS).removesuffix("\n").split("\n")
    except (OSError, ValueError) as error:
        yield finding(What.HASHES, SUMS, f"cannot be read: {error}")
        lines = []
    listed = dict[str, str]()
    for number, line in enumerate(lines, 1):
        match = _SUM.fullmatch(line)
        if match is None:
            yield finding(What.HASHES, SUMS, f"line {number} is not SHA-256 and name: {line[:80]}")
        elif not _is_inside(match[2]):
            told = f"line {number} names {match[2]}, which is no place in the folder; it was not opened"
            yield finding(What.HASHES, SUMS, told)
        elif listed.setdefault(match[2], match[1]) != match[1]:
            yield finding(What.HASHES, SUMS, f"line {number} has a second hash of {match[2]}")
    for name in sorted(listed.keys() - contents.sizes.keys()):
        yield finding(What.HASHES, name, f"is in {SUMS} and not in the folder")
    for name in sorted(contents.digests.keys() - {SUMS}):
        digest = contents.digests[name]
        if name not in listed:
            yield finding(What.HASHES, name, f"is in the folder and not in {SUMS}")
        elif listed[name] != digest:
            told = f"has been changed: its SHA-256 is {digest}, {SUMS} says {listed[name]}"
            yield finding(What.HASHES, name, told)


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and str(path) == name


def _faults_of_text(name: str, text: str, facts: ReleaseFacts) -> Iterator[str]:
    said = " ".join(text.split())
    for wanted in (facts.name, *_SAID[name]):
        if wanted not in said:
            yield f"does not say {wanted!r}"
    for number, line in enumerate(text.split("\n"), 1):
        if match := _TEMPLATE.search(line):
            yield f"line {number} has {match[0]}"
    if name == CARD:
        header = text.partition("\n---\n")[0] if text.startswith("---\n") else ""
        for config in configs_of(facts.form):
            if not re.search(rf"^- config_name: *{config} *$", header, re.MULTILINE):
                yield f"its header has no config {config} to load"


def _files(number: int) -> str:
    return counted(number, "file")
