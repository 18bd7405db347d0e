"""A language model judges whether answers follow from what they were written from.

This is natural language inference (Bowman et al. 2015, arXiv:1508.05326) put to the question of faithfulness
(TRUE, Honovich et al. 2022, arXiv:2204.04991). Premise: the title and whole abstract of the source, its
conclusion too, and the retrieved contexts, numbered and cut as an answerer is shown them. Hypothesis: the
long answer, and its decision as the short answer to the question.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl
from pydantic import ValidationError

from mkailin_assets.questions.candidates import excerpt
from mkailin_resources.generation import Ask, Reply
from mkailin_resources.models.interface import (
    Document,
    Entailment,
    GenerationRequest,
    Section,
    TextGenerator,
)
from mkailin_resources.models.prompting import visible

NO_ANSWER = "there is no question or no answer"
NOTHING_GIVEN = "there is no text that the answer could follow from"
ENTAILMENT: dict[str, Any] = {
    "pmid": pl.Int64,
    "entailment": pl.String,
    "entailment_judge": pl.String,
    "entailment_fingerprint": pl.String,
    "entailment_failure": pl.String,
}


def entailments(generated: pl.DataFrame, judge: TextGenerator | None, ask: Ask) -> pl.DataFrame:
    """What the judge says of each row of a `GeneratedQA` table, in their order; no rows without a judge.

    `entailment` is entailed, neutral or contradicted; where it is null, `entailment_failure` says why. A row
    without answer, or with nothing that it could follow from, is not asked about and names no judge: else
    that is its name and prompt version. The fingerprint is that of the judge's text. Raises what `ask`
    raises. Memory grows with the text of the rows.
    """
    if judge is None:
        return pl.DataFrame(schema=ENTAILMENT)
    given = ("title", "source_context", "source_conclusion", "contexts")
    rows = generated.select("pmid", "question", "long_answer", "decision", *given).to_dicts()
    asked = [row for row in rows if _nothing_to_ask(row) is None]
    replies = ask(judge, [_request(row) for row in asked], fault_of_entailment)
    name = f"{judge.name}, {judge.prompt_version}"
    return pl.DataFrame([_judged(row, replies, name) for row in rows], schema=ENTAILMENT)


def fault_of_entailment(request: GenerationRequest, text: str) -> str | None:
    """Why a text is no judgement of an answer; None when it is one."""
    try:
        Entailment.model_validate_json(text)
    except ValidationError as error:
        return f"not the JSON of an entailment ({error.errors()[0]['msg']}): {excerpt(text)}"
    return None


def _nothing_to_ask(row: Mapping[str, Any]) -> str | None:
    """Why there is nothing to ask about a row; None where there is."""
    if not all(visible(row[name] or "") for name in ("question", "long_answer")):
        return NO_ANSWER
    texts = [row["source_context"], row["source_conclusion"], *(one["text"] for one in row["contexts"])]
    return None if any(visible(text or "") for text in texts) else NOTHING_GIVEN


def _request(row: Mapping[str, Any]) -> GenerationRequest:
    # Named as such, so that what is cut of a long abstract stands before its conclusion.
    conclusion = Section("CONCLUSIONS", "CONCLUSIONS", row["source_conclusion"] or "")
    return GenerationRequest(
        str(row["pmid"]),
        "entailment",
        Document(row["title"] or "", (Section(None, None, row["source_context"] or ""), conclusion)),
        question=row["question"],
        contexts=tuple(f"{context['title']}\n{context['text']}" for context in row["contexts"]),
        answer=row["long_answer"],
        decision=row["decision"],
    )


def _judged(row: Mapping[str, Any], replies: Mapping[str, Reply], judge: str) -> dict[str, Any]:
    reply = replies.get(str(row["pmid"]))
    if reply is None:
        return {"pmid": row["pmid"], "entailment_failure": _nothing_to_ask(row)}
    return {
        "pmid": row["pmid"],
        "entailment": reply.text and Entailment.model_validate_json(reply.text).label,
        "entailment_judge": judge,
        "entailment_fingerprint": reply.fingerprint,
        "entailment_failure": reply.failure,
    }
