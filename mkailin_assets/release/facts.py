"""What a release says of itself: its manifest, from which card and Croissant metadata are written.

Everything a person needs to make the same corpus again, and nothing of the machine it was made on.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

MANIFEST = "manifest.json"
Form = Literal["pmids", "full"]


class Fact(BaseModel):
    """Facts do not change once they are told; an unknown one is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceFile(Fact):
    """A file the corpus was made from: of PubMed (MD5), of MeSH or a benchmark (SHA-256)."""

    name: str
    url: str | None
    algorithm: Literal["md5", "sha256"]
    digest: str


class ModelUse(Fact):
    """A model or agent, what it did, and what its licence says of training on its outputs.

    `wrote`: its text is in the corpus; else it judged. `prompt_sha256` is null where rules have no prompt.
    `exception` is what the user states where the licence does not allow it, or has to be read by a person.
    """

    name: str
    role: Literal["question", "answer", "preference", "entailment"]
    wrote: bool
    rows: int
    prompt_version: str | None
    prompt_sha256: str | None
    licence: str
    may_train: Literal["yes", "no", "ask"]
    condition: str
    source: str
    exception: str | None


class BenchmarkFacts(Fact):
    """A benchmark that the corpus was cleaned of, and how many pairs that cost."""

    file: SourceFile
    items: int
    removed: int


class Spread(Fact):
    """How a signal is distributed over the rows: how many have it, its mean and deciles 1, 5 and 9."""

    rows: int
    mean: float
    low: float
    median: float
    high: float


class CoverageFacts(Fact):
    """How much of MeSH and of PubMed the corpus covers; descriptors count with their ancestors."""

    branches: int
    branches_of_pubmed: int
    descriptors: int
    descriptors_of_pubmed: int


class LengthFacts(Fact):
    """Tokens of one form of the texts, and how many sequences they fill when they are packed."""

    form: Literal["pretraining", "instruction"]
    tokenizer: str
    examples: int
    tokens: int
    longest: int
    sequence_length: int
    sequences: int


class ReleaseFacts(Fact):
    """The manifest. Counts are of rows; `by_*` maps are in descending order of counts.

    `corpus` is the fingerprint of the training corpus. `last_update_file` is the PubMed file with the
    highest number; what PubMed retracted or deleted is known up to it, which is the retraction cut-off, dated
    `retraction_cutoff` where the file's date is known. `excluded` is stage to reason to rows. `recalled` are
    rows of earlier corpora that rest on what PubMed has taken back since; `missing` those that could not be
    put back in a copy that was rehydrated.
    """

    format: Literal["1"] = "1"
    name: str
    form: Form
    corpus: str
    made_on: str  # YYYY-MM-DD
    rows: int
    by_split: dict[str, int]
    by_decision: dict[str, int]
    by_branch: dict[str, int]
    citations: int
    context_citations: int
    copied_answers: int
    mesh_year: int
    mesh: SourceFile
    pubmed_files: list[SourceFile]
    last_update_file: str
    retraction_cutoff: str | None
    taken_back_citations: int
    models: list[ModelUse]
    benchmarks: list[BenchmarkFacts]
    evaluated: int
    excluded: dict[str, dict[str, int]]
    recalled: int
    missing: int = 0
    signals: dict[str, Spread]
    coverage: CoverageFacts
    lengths: list[LengthFacts]
    rules: dict[str, dict[str, JsonValue]]
    seeds: dict[str, int]
    settings: dict[str, JsonValue]
    packages: dict[str, str]

    def write(self, folder: Path) -> None:
        """Write the manifest into a release folder."""
        (folder / MANIFEST).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "ReleaseFacts":
        """The manifest of a release folder; raises `OSError` or pydantic's `ValidationError`."""
        return cls.model_validate_json((folder / MANIFEST).read_bytes())
