"""Who is asked: the base, the pre-trained and the fine-tuned model, as their checkpoints hold them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mkailin_assets import adapters
from mkailin_assets.adapters import model_of
from mkailin_assets.training.checkpoints import base_of, checked, tokenizer_folder, weights_sha256
from mkailin_assets.training.tokenizer import tokenizer_sha256
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
    first = trained(checkpoints[0])
    base = base_of(checkpoints[0])
    made_of = adapters.fingerprint("base", model_files.identity(base), first.tokenizer_sha256)
    asked = Contestant("base", base, first.tokenizer, made_of, first.tokenizer_sha256)
    return [asked, *map(trained, checkpoints)]


def trained(checkpoint: Path, label: str = "") -> Contestant:
    """The model of a checkpoint, by its name unless it has a label.

    It is known by its weights, too: trained once more, on a GPU or by other packages, it may be another.
    Raises `CheckpointError` where its files are not those that were written.
    """
    record, tokenizer = checked(checkpoint), tokenizer_folder(checkpoint)
    loaded = adapters.load_tokenizer(ModelName(str(tokenizer)))
    return Contestant(
        label or record.name,
        model_of(checkpoint),
        tokenizer,
        adapters.fingerprint(record.fingerprint, weights_sha256(record)),
        tokenizer_sha256(loaded),
    )
