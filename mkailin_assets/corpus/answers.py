"""Generated question-answer pairs: the distilled question of each citation, its contexts and its answer."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl
from pydantic import ValidationError

from mkailin_assets.corpus.tables import GeneratedQA
from mkailin_assets.questions.candidates import document_of, excerpt, normalised
from mkailin_resources.generation import Ask, Reply
from mkailin_resources.models.interface import Answer, Document, GenerationRequest, TextGenerator
from mkailin_resources.models.prompting import visible

NOT_DISTILLED = "no question was distilled for the citation: materialize distilled_questions again"


def generated_qa(  # noqa: PLR0917 (one table for each upstream of the asset)
    questions: pl.DataFrame,
    contexts: pl.DataFrame,
    citations: pl.DataFrame,
    context_texts: pl.DataFrame,
    answerer: TextGenerator,
    branch: str,
    ask: Ask,
) -> pl.DataFrame:
    """A `GeneratedQA` row for each citation, in the order of `citations` (BranchCitation).

    Takes DistilledQuestion, DistilledContexts, and the texts (pmid, title, text)
    of the citations found; a context whose text is gone is left out. An answer must be the JSON of
    `Answer` and rest on sentences of the citation or its contexts, else the row says why not. Raises what
    `ask` raises.
    """
    sources = _sources(questions, contexts, citations)
    texts = {row["pmid"]: row for row in context_texts.select("pmid", "title", "text").to_dicts()}
    for source in sources:
        source["contexts"] = list(_contexts_with_text(source["contexts"] or [], texts))
    requests = [_request(source) if source["question"] else None for source in sources]
    replies = ask(answerer, [request for request in requests if request], fault_of_answer)
    rows = [
        _row(source, request, replies.get(str(source["pmid"])), answerer, branch)
        for source, request in zip(sources, requests, strict=True)
    ]
    return pl.DataFrame(rows, schema=GeneratedQA.create_empty().schema)


def at_its_conclusion(document: Document) -> tuple[str | None, str | None]:
    """The abstract up to its conclusion, which is what an answer must not be copied from; and the conclusion.

    None for a part that is empty.
    """
    # Its patterns take a tenth of a second to compile, which loading the code location need not wait for.
    from mkailin_resources.models.extractive.sentences import read_abstract

    abstract = read_abstract(document)
    body = normalised(" ".join(section.text for section in abstract.body))
    return body or None, normalised(" ".join(abstract.conclusion)) or None


def _sources(
    questions: pl.DataFrame, contexts: pl.DataFrame, citations: pl.DataFrame
) -> list[dict[str, Any]]:
    """Each citation with its question, who asked it or why there is none, and its contexts."""
    named = ("pmid", "role", "question", "generator", "prompt_version", "chosen_by", "failure")
    asked = questions.select(*named, distilled=pl.lit(True))
    return (
        citations.select("pmid", "pubmed_file", "content_hash", "title", "abstract")
        .join(asked, on="pmid", how="left", validate="1:1", maintain_order="left")
        .join(
            contexts.select("pmid", "question", "contexts"),
            on=["pmid", "question"],
            how="left",
            validate="1:1",
            maintain_order="left",
        )
        .to_dicts()
    )


def _contexts_with_text(
    found: Iterable[Mapping[str, Any]], texts: Mapping[int, Mapping[str, Any]]
) -> Iterable[dict[str, Any]]:
    for context in found:
        text = texts.get(context["pmid"])
        if text and text["text"]:
            yield {
                "rank": context["rank"],
                "pmid": context["pmid"],
                "content_hash": context["content_hash"],
                "title": normalised(text["title"] or ""),
                "text": normalised(text["text"]),
            }


def _request(source: Mapping[str, Any]) -> GenerationRequest:
    contexts = tuple(f"{context['title']}\n{context['text']}" for context in source["contexts"])
    return GenerationRequest(
        str(source["pmid"]), "answer", document_of(source), normalised(source["question"]), contexts
    )


def _row(
    source: Mapping[str, Any],
    request: GenerationRequest | None,
    reply: Reply | None,
    answerer: TextGenerator,
    branch: str,
) -> dict[str, Any]:
    answer, failure = None, None
    if request and reply:
        answer, failure = reply.text and Answer.model_validate_json(reply.text), reply.failure
    else:
        failure = source["failure"] if source["distilled"] else NOT_DISTILLED
    source_context, source_conclusion = at_its_conclusion(document_of(source))
    return {
        "pmid": source["pmid"],
        "branch": branch,
        "pubmed_file": source["pubmed_file"],
        "content_hash": source["content_hash"],
        "title": source["title"],
        "question": request.question if request else None,
        "question_role": source["role"],
        "generator": source["generator"],
        "question_prompt_version": source["prompt_version"],
        "chosen_by": source["chosen_by"],
        "source_context": source_context,
        "source_conclusion": source_conclusion,
        "contexts": source["contexts"],
        "long_answer": normalised(answer.long_answer) if answer else None,
        "decision": answer.decision if answer else None,
        "evidence": [normalised(sentence) for sentence in answer.evidence] if answer else [],
        "answerer": answerer.name,
        "prompt_version": answerer.prompt_version,
        "fingerprint": reply.fingerprint if reply else None,
        "failure": failure,
        "refused_text": reply.refused if reply else None,
    }


def fault_of_answer(request: GenerationRequest, text: str) -> str | None:
    """Why a text is no answer to the request that rests on what was given; None when it is one."""
    try:
        answer = Answer.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"]) or "the text"
        return f"not the JSON of an answer ({where}: {fault['msg']}): {excerpt(text)}"
    if not normalised(answer.long_answer):
        return f"the long answer is blank: {excerpt(text)}"
    given = _bare(" ".join([request.document.title, *(s.text for s in request.document.sections)]))
    places = [given, *(_bare(context) for context in request.contexts)]
    for sentence in answer.evidence:
        bare = _bare(sentence)
        if not bare or not any(bare in place for place in places):
            return f"evidence that neither the citation nor a context holds: {excerpt(sentence)}"
    return None


def _bare(text: str) -> str:
    """For comparison: letters, digits and signs that can be seen, without case or compatibility forms."""
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", visible(text))).casefold()
