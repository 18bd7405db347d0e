"""Benchmarks in PubMedQA's format: one JSON object from PMID to question, contexts and the experts' decision.

The format is that of Jin et al., "PubMedQA: A Dataset for Biomedical Research Question Answering" (2019).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

Decision = Literal["yes", "no", "maybe"]


def _year(given: object) -> int | None:
    return int(str(given)) if re.fullmatch("[12][0-9]{3}", str(given)) else None


def _decision(given: object) -> object:
    # The Hub's Parquet has it letter by letter.
    told = "".join(map(str, given)) if isinstance(given, Sequence) else None
    return told if told in get_args(Decision) else None


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class NotPubMedQA(ValueError):
    """A file is not a benchmark in PubMedQA's format."""


class PubMedQAItem(BaseModel):
    """A question, the abstract it is about without its conclusion, and what the experts decided.

    `headings` are the names of the abstract's MeSH headings, `year` is when it was published, and `human`
    what another expert decided from the same, where the file has them.
    """

    model_config = ConfigDict(frozen=True)

    pmid: int = Field(ge=1)
    question: Text = Field(validation_alias="QUESTION")
    contexts: tuple[Text, ...] = Field(validation_alias="CONTEXTS", min_length=1)
    labels: tuple[str, ...] = Field(validation_alias="LABELS", default=())
    headings: tuple[str, ...] = Field(validation_alias="MESHES", default=())
    decision: Decision = Field(validation_alias="final_decision")
    year: Annotated[int | None, BeforeValidator(_year)] = Field(validation_alias="YEAR", default=None)
    human: Annotated[Decision | None, BeforeValidator(_decision)] = Field(
        validation_alias="reasoning_required_pred", default=None
    )

    @model_validator(mode="after")
    def _labels_fit(self) -> "PubMedQAItem":
        if self.labels and len(self.labels) != len(self.contexts):
            raise ValueError(f"{len(self.labels)} LABELS for {len(self.contexts)} CONTEXTS")
        return self


@dataclass(frozen=True)
class Benchmark:
    """The items of a benchmark file, and which were refused: id to cause."""

    name: str
    items: tuple[PubMedQAItem, ...]
    refused: dict[str, str]

    def __iter__(self) -> Iterator[PubMedQAItem]:
        return iter(self.items)


def read_pubmedqa(path: str | Path) -> Benchmark:
    """The benchmark of a file, in the file's order; raises `NotPubMedQA` where no item can be used."""
    path = Path(path)
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NotPubMedQA(
            f"reading the benchmark {path}: {error}; set MKAILIN_PUBMEDQA to a JSON file in PubMedQA's format"
        ) from error
    if not isinstance(entries, dict):
        raise NotPubMedQA(
            f"reading the benchmark {path}: expected one JSON object from PMID to item, as in PubMedQA's "
            f"ori_pqal.json, got a {type(entries).__name__}"
        )
    items, refused = [], {}
    for pmid, entry in entries.items():
        try:
            items.append(item_of(pmid, entry))
        except ValidationError as error:
            refused[pmid] = causes(error)
    if not items:
        first = next(iter(refused.items()), ("the file", "it is empty"))
        raise NotPubMedQA(
            f"reading the benchmark {path}: none of its {len(entries)} items is in PubMedQA's format; "
            f"{first[0]}: {first[1]}"
        )
    return Benchmark(path.stem, tuple(items), refused)


def item_of(pmid: object, entry: object) -> PubMedQAItem:
    """The item of a PMID as files hold it; raises `ValidationError`."""
    fields = {**entry, "pmid": pmid} if isinstance(entry, Mapping) else entry
    return PubMedQAItem.model_validate(fields)


def causes(error: ValidationError) -> str:
    """What is wrong with a record, field by field."""
    return "; ".join(": ".join([*map(str, it["loc"]), it["msg"]]) for it in error.errors())
