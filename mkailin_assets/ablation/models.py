"""The model of an ablated corpus: the same base, recipe and budget of tokens for each."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import polars as pl

from mkailin_assets import adapters
from mkailin_assets.ablation.ablations import ANOTHER_SEED, TAKEN_OUT
from mkailin_assets.ablation.tables import AblatedCheckpoint
from mkailin_assets.checkpoints import Published, publish_once
from mkailin_assets.training.checkpoints import (
    TrainingRecord,
    base_of,
    check_base,
    checkpoint_row,
    fingerprint,
    read_record,
)
from mkailin_assets.training.job import train
from mkailin_assets.training.recipes import Kind, Recipe, Stage
from mkailin_resources.compute import Compute
from mkailin_resources.storage import Storage

KIND = "ablated"


@dataclass(frozen=True)
class Trained:
    """A checkpoint in the storage root, and its record."""

    published: Published
    record: TrainingRecord


def with_budget(recipe: Recipe, tokens: int | None) -> Recipe:
    """The recipe with a fixed number of optimizer steps, whatever the size of a corpus.

    Equal, for all corpora, are in each of the two trainings the steps, the sequences in a step and the tokens
    that a sequence has room for: `tokens` or the first whole step beyond; without `tokens` what the recipe's
    own `max_steps` have. A small corpus is read more often, and none stops early.

    The tokens read are as many in pre-training, which fills every sequence (packing "wrapped"), but for the
    last step of each pass over a corpus, which may be smaller. Fine-tuning fills sequences as far as whole
    examples do ("bfd", where the recipe packs nothing): of short ones, as those without contexts are, it
    reads some tokens less. To fill the rest would cut answers from their questions.
    """

    def budgeted(stage: Stage, packing: str) -> Stage:
        steps = ceil(tokens / a_step(stage)) if tokens else stage.max_steps
        # A pass has a step at least.
        fixed = {"max_steps": steps, "epochs": steps, "packing": packing, "patience": 0, "evaluations": 1}
        return Stage.model_validate(stage.model_dump() | fixed)

    tuning = recipe.finetuning.packing
    return recipe.model_copy(
        update={
            "pretraining": budgeted(recipe.pretraining, "wrapped"),
            "finetuning": budgeted(recipe.finetuning, "bfd" if tuning == "none" else tuning),
        }
    )


def a_step(stage: Stage) -> int:
    """Tokens that an optimizer step has room for."""
    return stage.batch_size * stage.accumulation * stage.max_length


def seeded(recipe: Recipe, ablation: str) -> Recipe:
    """The recipe as an ablation trains by it: all by its own seed, but for the one that is about seeds."""
    if ablation != ANOTHER_SEED:
        return recipe
    first, second = (
        stage.model_copy(update={"seed": stage.seed + 1}) for stage in (recipe.pretraining, recipe.finetuning)
    )
    return recipe.model_copy(update={"pretraining": first, "finetuning": second})


def on_base_of(recipe: Recipe, pretrained: Path) -> Recipe:
    """A recipe of the small Llama with that which a checkpoint began with, whose tokenizer all then share.

    All of its weights are trained: of a random base an adapter alone cannot learn words. A recipe that names
    its base stays as it is. Raises `OtherBase` where the checkpoint began with a model that has a name.
    """
    if recipe.base:
        return recipe
    check_base(recipe, read_record(pretrained))
    return recipe.model_copy(update={"base": str(base_of(pretrained)), "method": "full"})


def trained(
    corpus: pl.LazyFrame, recipe: Recipe, compute: Compute, storage: Storage, log: Callable[[str], None]
) -> tuple[Trained, Trained]:
    """The model pre-trained on the texts of a corpus, and the same fine-tuned on its answers.

    Each is trained once for the same data and recipe. Raises what `train` raises.
    """

    def stage(kind: Kind, start: TrainingRecord | None, folder: Path | None) -> Trained:
        name = fingerprint(kind, corpus, recipe, start.fingerprint if start else "")
        published = publish_once(
            storage,
            KIND,
            name,
            lambda out, work: train(kind, corpus, recipe, folder, out, work, compute, log),
        )
        return Trained(published, read_record(storage.local_folder(published.uri)))

    first = stage("pretrained", None, None)
    return first, stage("finetuned", first.record, storage.local_folder(first.published.uri))


def ablated_checkpoint(ablation: str, pretrained: Trained, finetuned: Trained) -> pl.DataFrame:
    """The `AblatedCheckpoint` table of an ablation."""
    record = finetuned.record
    # The seed as the others have it, of which one ablation takes the next.
    settings = [
        one.record.settings.model_dump(exclude={"checkpoint_steps"})
        | {"seed": one.record.settings.seed - (ablation == ANOTHER_SEED)}
        for one in (pretrained, finetuned)
    ]
    conditions = [record.revision, record.method, record.lora_rank, record.lora_alpha, settings]
    row: dict[str, object] = {
        "conditions": adapters.fingerprint(*conditions),
        "ablation": ablation,
        "taken_out": TAKEN_OUT[ablation],
        "uri": finetuned.published.uri,
        "fingerprint": record.fingerprint,
        "pretrained_uri": pretrained.published.uri,
        "pretrained_fingerprint": pretrained.record.fingerprint,
        "data_fingerprint": record.data_fingerprint,
        "recipe": record.recipe_name,
        "method": record.method,
        "examples": pretrained.record.examples,
    }
    for stage, one in (("pretraining", pretrained), ("finetuning", finetuned)):
        told = checkpoint_row(one.published.uri, one.record).row(0, named=True)
        room = told["steps"] * a_step(one.record.settings)
        row |= {"base_model": told["base_model"], f"{stage}_budget": room}
        row |= {f"{stage}_{name}": told[name] for name in ("steps", "tokens", "validation_loss")}
        row[f"{stage}_loss"] = told["last_loss"]
    return pl.DataFrame([row], schema=AblatedCheckpoint.create_empty().schema)
