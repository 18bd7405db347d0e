"""A language model judges pairs of questions: what depends on their order is no preference."""

from collections.abc import Mapping
from typing import Any

import polars as pl
from pydantic import ValidationError

from mkailin_assets.questions.candidates import document_of, excerpt, normalised
from mkailin_resources.generation import Ask, Reply
from mkailin_resources.models.interface import GenerationRequest, TextGenerator, Verdict

SAME = "both questions are the same"
PREFERS_FIRST = "the judge prefers whichever comes first"
PREFERS_SECOND = "the judge prefers whichever comes second"
ORDERS = ("in_order", "swapped")
VERDICTS: dict[str, Any] = {
    "pmid": pl.Int64,
    "preferred": pl.String,
    "reason": pl.String,
    "in_order": pl.String,
    "swapped": pl.String,
    "fingerprints": pl.List(pl.String),
}


def judged(pairs: pl.DataFrame, generator: TextGenerator, ask: Ask) -> pl.DataFrame:
    """The judge's verdict on each pair, in their order: `preferred` is "first", "second" or null.

    `pairs` has pmid (each once), title, abstract, first_question and second_question. Two different questions
    are asked about twice, the second time with the second one shown first; `in_order` and `swapped` say which
    question of the pair was preferred then. Where it is the same, it is preferred; else `reason` says why
    neither is. `fingerprints` are those of its two texts. Raises what `ask` raises. Memory grows with the
    text of the pairs.
    """
    rows = pairs.select("pmid", "title", "abstract", "first_question", "second_question").to_dicts()
    asked = [row for row in rows if _nothing_to_ask(row) is None]
    replies = ask(generator, [_request(row, order) for row in asked for order in ORDERS], fault_of_verdict)
    return pl.DataFrame([_verdict(row, replies) for row in rows], schema=VERDICTS)


def fault_of_verdict(request: GenerationRequest, text: str) -> str | None:
    """Why a text is no verdict; None when it is one."""
    try:
        Verdict.model_validate_json(text)
    except ValidationError as error:
        return f"not the JSON of a verdict ({error.errors()[0]['msg']}): {excerpt(text)}"
    return None


def _nothing_to_ask(row: Mapping[str, Any]) -> str | None:
    """Why there is nothing to ask about a pair; None where there is."""
    missing = [which for which in ("first", "second") if row[f"{which}_question"] is None]
    if missing:
        return f"there is no {' and no '.join(missing)} question"
    first, second = (normalised(row[f"{which}_question"]).casefold() for which in ("first", "second"))
    return SAME if first == second else None


def _request(row: Mapping[str, Any], order: str) -> GenerationRequest:
    shown = [row["first_question"], row["second_question"]]
    question, rival = shown if order == "in_order" else reversed(shown)
    return GenerationRequest(
        _key(row, order),
        "evaluation",
        document_of(row),
        question=normalised(question),
        rival=normalised(rival),
    )


def _key(row: Mapping[str, Any], order: str) -> str:
    return f"{row['pmid']} {order}"


def _verdict(row: Mapping[str, Any], replies: Mapping[str, Reply]) -> dict[str, Any]:
    reason = _nothing_to_ask(row)
    if reason is not None:
        return {"pmid": row["pmid"], "reason": reason, "fingerprints": []}
    given = [replies[_key(row, order)] for order in ORDERS]
    said = [reply.text and Verdict.model_validate_json(reply.text) for reply in given]
    in_order, swapped = (verdict.preferred if verdict else None for verdict in said)
    swapped = swapped and ("second" if swapped == "first" else "first")
    failures = {reply.failure: None for reply in given if reply.failure is not None}
    if failures:
        reason = "; ".join(failures)
    elif in_order != swapped:
        reason = PREFERS_FIRST if in_order == "first" else PREFERS_SECOND
    return {
        "pmid": row["pmid"],
        "preferred": None if reason else in_order,
        "reason": reason,
        "in_order": in_order,
        "swapped": swapped,
        "fingerprints": [reply.fingerprint for reply in given],
    }
