"""Recipes: everything that decides a training beside its data, as typed data with a name.

A recipe has two stages, continued pre-training on the corpus' texts and fine-tuning on its instruction pairs.
Both train the same thing, all weights or one adapter, so that what comes of a recipe is one model.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from mkailin_assets.adapters import AdapterTuning

Method = Literal["full", "lora", "qlora"]
Packing = Literal["none", "wrapped", "bfd", "bfd_split"]
# What is trained, and the stage of a recipe that says how.
Kind = Literal["pretrained", "finetuned"]
STAGES: dict[Kind, Literal["pretraining", "finetuning"]] = {
    "pretrained": "pretraining",
    "finetuned": "finetuning",
}


class Stage(AdapterTuning):
    """What decides one of the two trainings of a recipe."""

    packing: Packing = Field(
        default="none",
        description="How texts share a sequence: none; wrapped, end to end and cut where it is full; bfd, "
        "whole ones by best fit, what is longer cut off; bfd_split, the same and what is longer goes on in "
        "another",
    )
    evaluations: int = Field(default=4, ge=1, description="Looks at the held-out split, after the first")
    patience: int = Field(
        default=0,
        ge=0,
        description="Looks without a lower held-out loss after which it stops; the weights of the lowest are "
        "kept. 0: it never stops early",
    )


class Recipe(BaseModel, extra="forbid"):
    """A base, how it is trained, and the settings of the two trainings."""

    name: str
    base: str = Field(description="Model of the hub or folder; empty: a small Llama made from the corpus")
    method: Method = Field(
        description="full: all weights; lora: adapters; qlora: adapters over a base held in 4 bits"
    )
    lora_rank: int = Field(default=16, ge=1, description="Rank of the adapters")
    lora_alpha: int = Field(default=32, ge=1, description="Scale of the adapters: alpha / rank")
    gradient_checkpointing: bool = Field(
        default=True, description="On a GPU: compute activations twice, to hold fewer of them"
    )
    vocabulary: int = Field(default=4096, ge=300, description="Most tokens of the small Llama's tokenizer")
    pretraining: Stage
    finetuning: Stage


# kailin-70b: what the predecessor's published code says of its 70B (arXiv 2501.15108): two devices of 8
# sequences each, 600 steps, warm-up over a tenth of them.
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="embedded",
            base="",
            method="full",
            pretraining=Stage(
                max_length=512,
                packing="wrapped",
                max_steps=700,
                batch_size=2,
                accumulation=1,
                learning_rate=1e-3,
                warmup_steps=20,
                evaluations=1,
            ),
            finetuning=Stage(
                max_length=384,
                epochs=2,
                max_steps=400,
                batch_size=8,
                accumulation=1,
                learning_rate=1e-3,
                warmup_steps=20,
                evaluations=2,
            ),
        ),
        Recipe(
            name="1b",
            base="Qwen/Qwen2.5-1.5B",
            method="lora",
            pretraining=Stage(
                max_length=4096,
                packing="wrapped",
                max_steps=1000,
                batch_size=4,
                accumulation=8,
                learning_rate=1e-4,
            ),
            finetuning=Stage(
                max_length=4096,
                packing="bfd",
                epochs=3,
                max_steps=2000,
                batch_size=4,
                accumulation=8,
                learning_rate=1e-4,
                evaluations=12,
                patience=3,
            ),
        ),
        Recipe(
            name="8b",
            base="Qwen/Qwen2.5-7B",
            method="lora",
            pretraining=Stage(
                max_length=8192,
                packing="wrapped",
                max_steps=1000,
                batch_size=2,
                accumulation=16,
                learning_rate=5e-5,
            ),
            finetuning=Stage(
                max_length=8192,
                packing="bfd",
                epochs=3,
                max_steps=2000,
                batch_size=2,
                accumulation=16,
                learning_rate=5e-5,
                evaluations=12,
                patience=3,
            ),
        ),
        Recipe(
            name="kailin-70b",
            base="meta-llama/Meta-Llama-3-70B",
            method="lora",
            lora_rank=16,
            lora_alpha=32,
            pretraining=Stage(
                max_length=8192,
                packing="wrapped",
                epochs=1000,
                max_steps=600,
                batch_size=2,
                accumulation=8,
                learning_rate=2e-5,
                warmup_steps=60,
            ),
            finetuning=Stage(
                max_length=8192,
                packing="bfd",
                epochs=3,
                max_steps=600,
                batch_size=2,
                accumulation=8,
                learning_rate=2e-5,
                warmup_steps=60,
                evaluations=12,
                patience=3,
            ),
        ),
    )
}


class NoRecipe(ValueError):
    """What was given names no recipe, or changes what a recipe does not have."""


def recipe_of(given: str | Mapping[str, Any]) -> Recipe:
    """The recipe of a name, or of an object with a name and what is to be different; raises `NoRecipe`."""
    changes = {"name": given} if isinstance(given, str) else dict(given)
    if (name := changes.pop("name", None)) not in RECIPES:
        raise NoRecipe(f"there is no recipe {name!r}; there are {', '.join(RECIPES)}")
    return changed(RECIPES[name], changes)


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with some of its settings different, those of a stage as an object; raises `NoRecipe`."""
    whole = recipe.model_dump()
    for key, value in changes.items():
        has = whole.get(key)
        whole[key] = has | dict(value) if isinstance(has, dict) and isinstance(value, Mapping) else value
    try:
        return Recipe.model_validate(whole)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise NoRecipe(f"recipe {recipe.name}: {where}: {fault['msg']}") from error
