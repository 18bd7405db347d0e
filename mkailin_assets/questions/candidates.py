"""Candidate questions: for each citation one of each generator, or the reason why there is none."""

import unicodedata
from collections.abc import Mapping
from typing import Any

import polars as pl

from mkailin_assets.questions.tables import CandidateQuestion
from mkailin_resources.generation import Ask, Reply
from mkailin_resources.models.interface import Document, GenerationRequest, Section, TextGenerator

MAX_QUESTION_WORDS = 60
NO_ABSTRACT = "the citation has no abstract"
_EXCERPT_CHARACTERS = 200


def candidate_questions(
    citations: pl.DataFrame, generators: Mapping[str, TextGenerator], branch: str, ask: Ask
) -> pl.DataFrame:
    """A `CandidateQuestion` row for each citation and role, in the order of citations and of `generators`.

    `citations` has the columns of BranchCitation that are read here: pmid, pubmed_file, content_hash, title,
    abstract. A citation without abstract is asked nothing, since nothing could answer. Raises what `ask`
    raises. Memory grows with the branch's text.
    """
    sources = citations.select("pmid", "pubmed_file", "content_hash", "title", "abstract").to_dicts()
    requests = [GenerationRequest(str(row["pmid"]), "question", document_of(row)) for row in sources]
    readable = [request for request in requests if has_abstract(request.document)]
    replies = {role: ask(generator, readable, fault_of_question) for role, generator in generators.items()}
    rows = [
        _about(source, branch)
        | _asked(replies[role].get(request.key), generators[role], request)
        | {"role": role}
        for source, request in zip(sources, requests, strict=True)
        for role in generators
    ]
    return pl.DataFrame(rows, schema=CandidateQuestion.create_empty().schema)


def document_of(citation: Mapping[str, Any]) -> Document:
    """A row of BranchCitation (title, abstract) as generators read it."""
    sections = tuple(
        Section(section["label"], section["category"], section["text"]) for section in citation["abstract"]
    )
    return Document(citation["title"] or "", sections)


def has_abstract(document: Document) -> bool:
    """Whether there is any text beside the title."""
    return any(section.text.strip() for section in document.sections)


def normalised(text: str) -> str:
    """One line, single spaces, composed characters (Unicode NFC)."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def excerpt(text: str) -> str:
    """The beginning of a text, short enough for a reason."""
    text = normalised(text)
    return text if len(text) <= _EXCERPT_CHARACTERS else text[: _EXCERPT_CHARACTERS - 1] + "\u2026"


def fault_of_question(request: GenerationRequest, text: str) -> str | None:
    """Why a text is no question, whoever wrote it; None when it is one."""
    question = normalised(text)
    words = len(question.split())
    if not question:
        return "the question is empty"
    if words > MAX_QUESTION_WORDS:
        return f"the question is longer than {MAX_QUESTION_WORDS} words: {excerpt(question)}"
    if not question.endswith("?"):
        return f"the question does not end in a question mark: {excerpt(question)}"
    return None


def _about(source: Mapping[str, Any], branch: str) -> dict[str, Any]:
    return {"branch": branch} | {name: source[name] for name in ("pmid", "pubmed_file", "content_hash")}


def _asked(reply: Reply | None, generator: TextGenerator, request: GenerationRequest) -> dict[str, Any]:
    reply = reply or Reply(generator.fingerprint(request), failure=NO_ABSTRACT)
    return {
        "question": None if reply.text is None else normalised(reply.text),
        "failure": reply.failure,
        "refused_text": reply.refused,
        "generator": generator.name,
        "prompt_version": generator.prompt_version,
        "fingerprint": reply.fingerprint,
    }
