"""Settings and launchpad of trainings and evaluation: the recipe, and what is changed of it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_model import REPOSITORY

from mkailin_assets.definitions import definitions
from mkailin_assets.training.assets import TrainingConfig
from mkailin_assets.training.job import CannotTrain, _shares
from mkailin_assets.training.recipes import RECIPES, NoRecipe, Recipe, recipe_of
from mkailin_resources.profiles import InvalidSetting, Settings

SHIPPED = REPOSITORY / "deploy" / "accelerate"


def defined(**values: str) -> Any:
    return definitions(
        Settings.from_environment({f"MKAILIN_{name}": value for name, value in values.items()})
    )


def versions(**values: str) -> dict[str, str | None]:
    specs = defined(**values).resolve_all_asset_specs()
    return {spec.key.to_user_string(): spec.code_version for spec in specs}


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({}, "embedded"),
        ({"PROFILE": "local"}, "embedded"),
        ({"PROFILE": "gpu", "ENDPOINT": "http://127.0.0.1:8000/v1"}, "embedded"),
        ({"PROFILE": "gpu"}, "8b"),
    ],
)
def test_a_large_model_is_trained_where_a_gpu_is_meant_to_be(values: dict[str, str], name: str) -> None:
    environment = {f"MKAILIN_{key}": value for key, value in values.items()}
    assert Settings.from_environment(environment).recipe == name


def test_the_experiment_of_the_predecessor_is_a_setting_away() -> None:
    recipe = recipe_of(Settings.from_environment({"MKAILIN_RECIPE": "kailin-70b"}).recipe)
    stage = recipe.pretraining
    assert (recipe.method, recipe.lora_rank, recipe.lora_alpha) == ("lora", 16, 32)
    assert (stage.max_length, stage.packing, stage.learning_rate) == (8192, "wrapped", 2e-5)
    assert stage.steps(1_000_000) == 600


def test_a_setting_changes_a_part_of_a_recipe_and_makes_its_checkpoints_out_of_date() -> None:
    changed = '{"name": "embedded", "finetuning": {"max_steps": 7}}'
    recipe: Recipe = defined(RECIPE=changed).resources["recipe"]
    assert recipe.finetuning.max_steps == 7
    assert recipe.pretraining == recipe_of("embedded").pretraining
    before, after = versions(), versions(RECIPE=changed)
    moved = {name for name, version in after.items() if version != before[name]}
    assert moved == {"pretrained_checkpoint", "finetuned_checkpoint", "ablated_checkpoint"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"RECIPE": "13b"}, "MKAILIN_RECIPE: there is no recipe '13b'; there are embedded, 1b"),
        ({"RECIPE": '{"name": "8b", "method": "loro"}'}, "MKAILIN_RECIPE: recipe 8b: method"),
        ({"RECIPE": "{8b}"}, "MKAILIN_RECIPE is '{8b}'; set it to the name of a recipe"),
        ({"TRACKER": "tensorboard"}, "MKAILIN_TRACKER is 'tensorboard'; set it to one of: none, mlflow"),
        ({"EVALUATION_RULES": '{"form": 1}'}, "MKAILIN_EVALUATION_RULES: form: Extra inputs"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_and_named(values: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidSetting, match=said.replace("{", r"\{").replace("(", r"\(")):
        defined(**values)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_a_recipe_that_may_stop_early_looks_often_enough_to_do_so(recipe: Recipe) -> None:
    for stage in (recipe.pretraining, recipe.finetuning):
        assert not stage.patience or stage.evaluations > 2 * stage.patience


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.yaml")), ids=lambda file: file.stem)
@pytest.mark.parametrize("recipe", ["1b", "8b", "kailin-70b"])
def test_processes_as_shipped_share_the_optimizer_step_of_a_recipe(recipe: str, file: Path) -> None:
    processes = yaml.safe_load(file.read_text())["num_processes"]
    for stage in (recipe_of(recipe).pretraining, recipe_of(recipe).finetuning):
        share = _shares(stage, processes)
        sequences = share["per_device_train_batch_size"] * share["gradient_accumulation_steps"] * processes
        assert sequences == stage.batch_size * stage.accumulation
        assert share["per_device_train_batch_size"] <= stage.batch_size


def test_processes_that_cannot_share_a_step_are_refused() -> None:
    with pytest.raises(CannotTrain, match=r"5 processes cannot share .* 16 sequences .* a multiple of 5"):
        _shares(recipe_of("kailin-70b").pretraining, 5)


def test_the_launchpad_changes_the_recipe_for_one_training() -> None:
    config = TrainingConfig(method="lora", lora_rank=4, max_steps=3, packing="none", patience=2)
    recipe = config.changed(recipe_of("embedded"), "finetuned")
    assert (recipe.method, recipe.lora_rank) == ("lora", 4)
    assert (recipe.finetuning.max_steps, recipe.finetuning.patience) == (3, 2)
    assert recipe.pretraining == recipe_of("embedded").pretraining
    assert TrainingConfig().changed(recipe, "pretrained") == recipe
    base = TrainingConfig(base="my/model", gradient_checkpointing=False, vocabulary=500, checkpoint_steps=9)
    recipe = base.changed(recipe_of("1b"), "pretrained")
    assert (recipe.base, recipe.gradient_checkpointing, recipe.vocabulary) == ("my/model", False, 500)
    assert recipe.pretraining.checkpoint_steps == 9
    assert TrainingConfig(recipe="1b").changed(recipe, "pretrained") == recipe_of("1b")


def test_a_change_that_cannot_be_is_refused() -> None:
    with pytest.raises(NoRecipe, match="packing"):
        TrainingConfig(packing="tight").changed(recipe_of("embedded"), "pretrained")
    with pytest.raises(NoRecipe, match="there is no recipe 'x'"):
        TrainingConfig(recipe="x").changed(recipe_of("embedded"), "pretrained")
