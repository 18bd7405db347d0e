"""The model card of a checkpoint or an export, README.md as Hugging Face reads it.

The prose stands in `card.md.jinja`. All figures are those of the record; no folder of this machine is named.
"""

import json
import re
from pathlib import Path

from mkailin_assets.adapters import BASE, MODEL
from mkailin_assets.corpus import chat
from mkailin_assets.release.notice import COURTESY, NOT_CLINICAL
from mkailin_assets.training.checkpoints import TrainingRecord, base_model
from mkailin_resources.models.licences import Licence, licence_of
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.models.prompting import visible

CARD = "README.md"
_TEMPLATE = Path(__file__).parent / "card.md.jinja"
# What Hugging Face calls a licence, by what we call it.
_LICENCE_IDS = {"Apache-2.0": "apache-2.0", "MIT": "mit", "unknown": "unknown"}
_URL = re.compile(r"https?://[^\s<>\"`]+")
# A question as the corpus puts it, on a study that was never done.
QUESTION = (
    chat.CONTEXT.format("We gave amarin or placebo to 120 adults with gout. Attacks were fewer with amarin.")
    + chat.QUESTION.format("Does amarin prevent attacks of gout?")
    + chat.DECIDE
)
TEXT = "Amarin in gout\n\nWe gave amarin or placebo to 120 adults with gout."


def model_card(record: TrainingRecord, is_export: bool = False) -> str:
    """README.md of a checkpoint's folder, or of an export: one model in the folder itself."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.globals |= {"code": _code, "quoted": json.dumps, "counted": "{:,}".format}
    base = ModelName(record.base)
    text = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        record=record,
        name=served_name(record),
        is_export=is_export,
        is_whole=is_export or record.method == "full",
        folder="FOLDER" if is_export else f"FOLDER/{MODEL}",
        # Of a folder the name alone: where it lies is nobody's business, and the Hub has no model of it.
        base_of_hub=record.base if base.shown == record.base and not base.is_folder else "",
        base=base.shown,
        has_base=any(name.startswith(f"{BASE}/") for name in record.sha256),
        licence=licence(record),
        licence_id=_LICENCE_IDS.get(licence(record).licence, "other"),
        licence_url=source if _URL.fullmatch(source := licence(record).source) else "",
        prompt=QUESTION if record.name == "finetuned" else TEXT,
        facts=facts(record),
        not_clinical=NOT_CLINICAL,
        courtesy=COURTESY,
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def served_name(record: TrainingRecord) -> str:
    """What the model of a checkpoint is called where it is published or asked."""
    return f"mkailin-{record.name}-{record.fingerprint[:8]}"


def licence(record: TrainingRecord) -> Licence:
    """The licence that a model has from its base."""
    return licence_of(ModelName(record.base).shown or f"{served_name(record)} (random weights)")


def facts(record: TrainingRecord) -> dict[str, str]:
    """What a model was made from and how its training went, by what it is."""
    adapters = "" if record.method == "full" else f", rank {record.lora_rank}, alpha {record.lora_alpha}"
    what = "texts" if record.name == "pretrained" else "questions with answers"
    held_out, course = record.validation_examples, record.course
    is_last = course.kept_step in (None, course.steps)
    kept = "" if is_last else f"; the weights of step {course.kept_step:,} were kept"
    found = {
        "base": _code(base_model(record)),
        "started from": f"checkpoint {_code(record.started_from)}" if record.started_from else "the base",
        "trained on": f"{record.examples:,} {what} of a corpus, fingerprint {_code(record.data_fingerprint)}",
        "held out": f"{held_out:,} more, to look at the loss" if held_out else "nothing",
        "method": f"{record.method}{adapters}; recipe {_code(record.recipe_name)}",
        "parameters": f"{record.trained_parameters:,} trained of {record.parameters:,}",
        "steps": f"{course.steps:,}, {record.tokens:,} tokens{kept}",
        "training loss": _course(course.curve.train),
        "held-out loss": _course(course.curve.validation),
        "left out": ", ".join(f"{count:,} {reason}" for reason, count in record.left_out.items()),
        "cut to fit": f"{record.cut_to_fit:,}" if record.cut_to_fit else "",
        "fingerprint": _code(record.fingerprint),
    }
    return {name: told for name, told in found.items() if told}


def _course(points: list[tuple[int, float]]) -> str:
    """Where a loss began and ended, and its least value."""
    if not points:
        return ""
    (_, first), (_, last) = points[0], points[-1]
    step, least = min(points, key=lambda point: point[1])
    lowest = f", lowest {least:.3f} at step {step:,}" if least < last else ""
    return f"from {first:.3f} to {last:.3f} nats a token{lowest}"


def _code(value: str) -> str:
    """A text as code within a line; it breaks no table and begins no heading."""
    return f"`{visible(value).replace('`', chr(39)).replace('|', '/')}`"
