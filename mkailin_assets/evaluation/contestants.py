"""Who is asked: the base, the pre-trained and the fine-tuned model, as their checkpoints hold them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mkailin_assets import adapters
from mkailin_assets.adapters import model_of
from mkailin_assets.training.checkpoints import base_of, read_record, tokenizer_folder
from mkailin_resources.models import model_files
from mkailin_resources.models.model_name import ModelName


@dataclass(frozen=True)
class Contestant:
    """A model under the name that reports use, its tokenizer's folder, and what decides its answers."""

    label: str
    model: ModelName
    tokenizer: Path
    fingerprint: str
    tokenizer_sha256: str


def contestants(checkpoints: Sequence[Path]) -> list[Contestant]:
    """The base of the first checkpoint, then each by its name; the base with the first one's tokenizer.

    Checkpoints are folders of one lineage in the order of training. Raises `ModelUnavailable` where the
    commit of a base cannot be found out.
    """
    first = read_record(checkpoints[0])
    base = base_of(checkpoints[0])
    made_of = adapters.fingerprint("base", model_files.identity(base), first.tokenizer_sha256)
    tokenizer = tokenizer_folder(checkpoints[0])
    asked = [Contestant("base", base, tokenizer, made_of, first.tokenizer_sha256)]
    for folder in checkpoints:
        record = read_record(folder)
        asked.append(
            Contestant(
                record.name,
                model_of(folder),
                tokenizer_folder(folder),
                record.fingerprint,
                record.tokenizer_sha256,
            )
        )
    return asked
