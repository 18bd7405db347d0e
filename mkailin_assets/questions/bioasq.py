"""Questions of BioASQ's task B: asked by biomedical experts, with the citations that answer them.

The format is that of Tsatsaronis et al., "An overview of the BIOASQ large-scale biomedical semantic indexing
and question answering competition" (2015): a JSON object whose `questions` each name documents and snippets.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mkailin_resources.models.prompting import visible

_SET = "set MKAILIN_BIOASQ to a JSON file of BioASQ's task B, or to a folder of such files"
_CITATION = re.compile(
    r"https?://(?:(?:www\.)?ncbi\.nlm\.nih\.gov/pubmed|pubmed\.ncbi\.nlm\.nih\.gov)/([1-9][0-9]{0,8})/?"
)


class NotBioASQ(ValueError):
    """A file is not of BioASQ's task B; the message names the file, what is wrong, and the setting."""


def _pmid(address: object) -> int:
    found = _CITATION.fullmatch(address) if isinstance(address, str) else None
    if not found:
        raise ValueError(f"{str(address)[:80]!r} is not the address of a citation in PubMed")
    return int(found[1])


def _text(text: str) -> str:
    if not (shown := visible(text)):
        raise ValueError("there is nothing to read in it")
    return shown


Text = Annotated[str, AfterValidator(_text)]
Pmid = Annotated[int, BeforeValidator(_pmid)]


class Snippet(BaseModel):
    """A passage of a document, in characters of its section, as an expert marked it."""

    model_config = ConfigDict(frozen=True)

    text: Text
    pmid: Pmid = Field(validation_alias="document")
    section: str = Field("", validation_alias="beginSection")
    begin: int = Field(0, validation_alias="offsetInBeginSection")
    end: int = Field(0, validation_alias="offsetInEndSection")


class BioASQItem(BaseModel):
    """A question with the citations and passages that answer it."""

    model_config = ConfigDict(frozen=True)

    id: Text
    question: Text = Field(validation_alias="body")
    type: Literal["yesno", "factoid", "list", "summary"]
    documents: tuple[Pmid, ...] = ()
    snippets: tuple[Snippet, ...] = ()

    @property
    def pmids(self) -> list[int]:
        """Its documents: those with most snippets first, among equals as the file has them."""
        snippets = Counter(snippet.pmid for snippet in self.snippets)
        named = dict.fromkeys([*self.documents, *snippets])
        return sorted(named, key=lambda pmid: -snippets[pmid])

    def passages(self, pmid: int) -> str:
        """The snippets of a document as one text, its title first; where two overlap, the first."""
        marked = sorted(
            (snippet for snippet in self.snippets if snippet.pmid == pmid),
            key=lambda snippet: (snippet.section != "title", snippet.section, snippet.begin, -snippet.end),
        )
        texts = []
        for _, snippets in groupby(marked, key=lambda snippet: snippet.section):
            reached = 0
            for snippet in snippets:
                if snippet.begin >= reached:
                    texts.append(snippet.text)
                    reached = snippet.end
        return " ".join(texts)


@dataclass(frozen=True)
class BioASQ:
    """The questions of a file or folder, and which were refused: file and place to cause."""

    items: tuple[BioASQItem, ...]
    refused: dict[str, str]

    def __iter__(self) -> Iterator[BioASQItem]:
        return iter(self.items)


def read_bioasq(path: str | Path) -> BioASQ:
    """The questions of a file, or of a folder's *.json by name; raises `NotBioASQ` where none can be used.

    Of questions with one id the first stays, since golden files are published again in later training sets.
    """
    path = Path(path)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    items: dict[str, BioASQItem] = {}
    refused = {}
    for file in files:
        for place, entry in enumerate(_entries(file), 1):
            name = f"{file.name}, question {place}"
            try:
                item = BioASQItem.model_validate(entry)
            except ValidationError as error:
                refused[name] = "; ".join(_cause(detail) for detail in error.errors())
            else:
                if items.setdefault(item.id, item) is not item:
                    refused[name] = f"an earlier question has its id, {item.id}, too"
    if not items:
        first = next(iter(refused.items()), (path.name, "there are no questions in it"))
        raise NotBioASQ(f"reading BioASQ from {path}: no question can be used; {': '.join(first)}; {_SET}")
    return BioASQ(tuple(items.values()), refused)


def _entries(file: Path) -> list[Any]:
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise NotBioASQ(f"reading BioASQ from {file}: {error}; {_SET}") from error
    entries = read.get("questions") if isinstance(read, dict) else None
    if not isinstance(entries, list):
        raise NotBioASQ(
            f"reading BioASQ from {file}: expected a JSON object with a list of questions, as in "
            f'{{"questions": [...]}}, got a {type(read).__name__} without; {_SET}'
        )
    return entries


def _cause(detail: Any) -> str:
    return ": ".join([*map(str, detail["loc"]), detail["msg"]])
