"""What is found in a release: the checks that are made, and what each of them looked at and found."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

MOST_TOLD = 3  # of many faults of one kind in one file


class What(StrEnum):
    """The checks, in the order they are made."""

    HASHES = "files are as SHA256SUMS says, and there is no other"
    MANIFEST = "the manifest can be read"
    LAYOUT = "the files of a release are there"
    CARD = "card, licence and notice are of this release, with no template text left"
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


def finding(what: What, file: str, found: str) -> Finding:
    """A finding that is safe to print, whoever chose the names and texts in it."""
    return Finding(what, _printable(file), _printable(" ".join(found.split())))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
