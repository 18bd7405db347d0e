"""The hand-written material the sample is composed of: topics by branch, sentence frames, whole citations."""

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Treatment:
    """What a trial compares: `how` with `vs`, each the object of "assigned to".

    `on` names the outcomes it may act on; all of the topic's where empty.
    """

    name: str
    how: str
    arm: str
    vs: str
    vs_arm: str
    why: str
    mesh: list[str]
    on: list[str] = field(default_factory=list)
    harm: str | None = None
    plural: bool = False
    since: int = 1985


@dataclass(frozen=True)
class Event:
    """A yes/no outcome; `did` is its verb phrase, `rate` its share in the untreated."""

    short: str
    did: str
    span: str
    rate: float
    mesh: list[str]
    good: bool = False


@dataclass(frozen=True)
class Scale:
    """A measured outcome with its mean and SD before treatment."""

    short: str
    label: str
    unit: str
    mean: float
    sd: float
    better: str
    span: str
    mesh: list[str]
    verb: str | None = None


@dataclass(frozen=True)
class Factor:
    """An exposure of patients (prognosis) or of cases and controls (risk); `have` is its verb phrase.

    `rate` is the share of controls who have it.
    """

    name: str
    have: str
    measured: str
    mesh: list[str]
    on: list[str] = field(default_factory=list)
    rate: float = 0.15
    plural: bool = False
    since: int = 1985


@dataclass(frozen=True)
class Marker:
    """A test that should tell the disease (or `target`) from `mimic`."""

    name: str
    how: str
    mimic: str
    mesh: list[str]
    plural: bool = False
    since: int = 1985
    target: str | None = None
    target_who: str | None = None
    target_people: str | None = None
    target_tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Lab:
    """An experiment in mice, rats or cells: `given` and `control` follow "were"."""

    kind: str
    model: str
    agent: str
    given: str
    control: str
    control_arm: str
    short: str
    label: str
    unit: str
    mean: float
    sd: float
    better: str
    path: str
    path_up: bool
    mesh: list[str]
    verb: str | None = None
    plural: bool = False
    since: int = 2008


@dataclass(frozen=True)
class Case:
    """A case report, written out."""

    title: str
    text: list[str]
    mesh: list[str]
    tags: list[str]
    since: int = 1985


@dataclass(frozen=True)
class Topic:
    """A disease, or a protein with the disease it is studied in, and what can be studied about it.

    `lead` is the MeSH heading that is always a major topic, `branch` the home branch it leads to.
    `age` is the range of mean ages, `women` that of the percentage of women in samples of both sexes.
    """

    name: str
    lead: str
    branch: str
    patients: str
    age: list[float]
    place: str
    facts: list[str]
    points: list[str]
    who: str = "patients"
    sex: str = "both"
    women: list[int] = field(default_factory=lambda: [34, 62])
    since: int = 1985
    disease: str = ""
    disease_mesh: list[str] = field(default_factory=list)
    in_blood: bool = True
    protective: bool = False
    treatment: list[Treatment] = field(default_factory=list)
    event: list[Event] = field(default_factory=list)
    scale: list[Scale] = field(default_factory=list)
    prognosis: list[Factor] = field(default_factory=list)
    risk: list[Factor] = field(default_factory=list)
    marker: list[Marker] = field(default_factory=list)
    lab: list[Lab] = field(default_factory=list)
    case: list[Case] = field(default_factory=list)

    @property
    def is_protein(self) -> bool:
        """Whether the topic is a protein, so that the disease is only where it was studied."""
        return bool(self.disease_mesh)


PARTS: dict[str, type] = {
    "treatment": Treatment,
    "event": Event,
    "scale": Scale,
    "prognosis": Factor,
    "risk": Factor,
    "marker": Marker,
    "lab": Lab,
    "case": Case,
}

T = TypeVar("T")


def _build(kind: type[T], row: dict[str, Any], where: str) -> T:
    """A dataclass from a TOML table; names the file, the table and the key where they do not fit."""
    unknown = row.keys() - {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if unknown:
        raise ValueError(f"{where}: unknown keys {sorted(unknown)} of {kind.__name__}")
    try:
        return kind(**row)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error


def load_topics() -> list[Topic]:
    """All topics, in the order of the files and of their rows."""
    topics = []
    for name in ("c04", "c10", "c14", "d12", "f03", "scatter"):
        for row in tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))["topic"]:
            where = f"{name}.toml, {row.get('name')}"
            parts: dict[str, Any] = {
                key: [_build(kind, part, f"{where}, {key}") for part in row.get(key, [])]
                for key, kind in PARTS.items()
            }
            topic = _build(Topic, {"disease": row["name"], **row, **parts}, where)
            topics.append(topic)
    return topics


def load_table(name: str) -> dict[str, Any]:
    """The TOML file of that name, as it stands: `frames` or `written`."""
    return tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
