"""Whether the licences of the models that wrote a corpus let it train other models.

What they wrote, questions and answers, is gated. Judges are listed and not gated: nothing of what they said
is in the corpus, only the text that they preferred.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import sha256
from importlib.resources import files

import polars as pl

from mkailin_assets.release.facts import ModelUse
from mkailin_resources.models import prompts
from mkailin_resources.models.licences import licence_of
from mkailin_resources.models.prompting import PromptError, PromptFile

EXCEPTIONS = "MKAILIN_LICENCE_EXCEPTIONS"


class LicenceRefused(ValueError):
    """Text of a corpus may not train other models, by the licence of what wrote it; says which and why."""


def model_uses(counts: pl.DataFrame, exceptions: Mapping[str, str]) -> list[ModelUse]:
    """What each model did in a corpus, most rows first, with its licence and the exception that is stated.

    `counts` has name, role, wrote, rows, prompt_version; `exceptions` is name to reason. An exception for a
    model that wrote nothing, or needs none, is left out. Raises `LicenceRefused` for one without a reason.
    """
    unreasoned = [name for name, reason in exceptions.items() if not reason.strip()]
    if unreasoned:
        raise LicenceRefused(
            f"{EXCEPTIONS}: there is no reason beside {', '.join(unreasoned)}; "
            "say why its text may train other models, the dataset card prints it"
        )
    uses = []
    order = ["rows", "name", "role", "prompt_version"]
    for row in counts.sort(order, descending=[True, False, False, False]).iter_rows(named=True):
        licence = licence_of(row["name"])
        gated = row["wrote"] and licence.may_train != "yes"
        uses.append(
            ModelUse(
                **row,
                prompt_sha256=_prompt_sha256(row["prompt_version"]),
                licence=licence.licence,
                may_train=licence.may_train,
                condition=licence.condition,
                source=licence.source,
                exception=exceptions.get(row["name"]) if gated else None,
            )
        )
    return uses


def gate(models: Iterable[ModelUse]) -> None:
    """Raise `LicenceRefused` unless all text may train other models, or an exception is stated for it."""
    refused: dict[str, list[ModelUse]] = {}
    for model in models:
        if model.wrote and model.may_train != "yes" and not (model.exception or "").strip():
            refused.setdefault(model.name, []).append(model)
    if not refused:
        return
    example = json.dumps(dict.fromkeys(refused, "why its text may train other models"), ensure_ascii=False)
    raise LicenceRefused(
        "No release: text of this corpus is by models whose licence does not let it train other models, or "
        "has to be read by a person first.\n"
        + "".join(f"- {_clause(name, uses)}\n" for name, uses in refused.items())
        + "Leave a model out by making its questions and answers again with another one (MKAILIN_MODEL, "
        "MKAILIN_DOMAIN_MODEL, MKAILIN_GENERAL_MODEL, MKAILIN_ANSWER_MODEL). If you have read the licence "
        f"and may train on its text, say why, and the dataset card prints it: {EXCEPTIONS}='{example}'"
    )


def _clause(name: str, uses: list[ModelUse]) -> str:
    """A model, what it wrote, and the clause that stands against it."""
    first = uses[0]
    rows: Counter[str] = Counter()
    for use in uses:
        rows[use.role] += use.rows
    wrote = " and ".join(f"{count:,} {role}{'' if count == 1 else 's'}" for role, count in rows.items())
    read = f"; read {first.source}" if first.source else ""
    says = "does not allow it" if first.may_train == "no" else "has to be read"
    return f"{name} wrote {wrote}. Licence: {first.licence}, which {says}: {first.condition}{read}"


def _prompt_sha256(version: str | None) -> str | None:
    """SHA-256 of the prompt's file, where the version is the one that lies there now."""
    name = (version or "").rsplit("-", 2)[0]
    try:
        if PromptFile.load(name).version != version:
            return None
    except PromptError:
        return None
    return sha256(files(prompts).joinpath(f"{name}.jinja").read_bytes()).hexdigest()
