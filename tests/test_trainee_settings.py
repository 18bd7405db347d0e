"""What is trained from what, by the settings, and what a wrong setting is told."""

from pathlib import Path

import pytest

from mkailin_assets.definitions import definitions
from mkailin_resources.models.interface import ModelUnavailable
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.models.prompted import PromptedGenerator
from mkailin_resources.models.transformers_model import TransformersModel
from mkailin_resources.models.vllm_model import VllmModel
from mkailin_resources.profiles import InvalidSetting, Settings, trainees
from mkailin_resources.trainees import TRAINEES, Trainees

URL = "http://127.0.0.1:8000/v1"


def settings(**values: str) -> Settings:
    return Settings.from_environment({f"MKAILIN_{name}": value for name, value in values.items()})


def trained(**values: str) -> Trainees:
    return trainees(settings(**values))


@pytest.mark.parametrize(
    ("values", "is_on", "evaluator"),
    [
        ({}, True, "reward"),
        ({"PROFILE": "gpu"}, True, "reward"),
        ({"PROFILE": "local"}, False, "cold_start"),
        ({"PROFILE": "gpu", "ENDPOINT": URL, "MODEL": "m"}, False, "cold_start"),
        ({"TRAIN_AGENTS": "no"}, False, "cold_start"),
        ({"PROFILE": "local", "TRAIN_AGENTS": "yes"}, True, "reward"),
        ({"PROFILE": "local", "EVALUATOR": "judge"}, False, "judge"),
    ],
)
def test_agents_are_trained_where_there_is_something_to_train_on(
    values: dict[str, str], is_on: bool, evaluator: str
) -> None:
    made = trained(**values)
    assert (made.is_on, made.evaluator) == (is_on, evaluator)
    assert (made.judge is not None) == (evaluator == "judge")


def test_the_embedded_profile_trains_a_small_llama_and_others_the_model_of_the_agent() -> None:
    assert set(trained().bases.values()) == {None}
    bases = trained(PROFILE="gpu", MODEL="base@1", DOMAIN_MODEL="bio@2+adapters/mine").bases
    assert bases == {
        "domain": ModelName("bio", "2"),
        "general": ModelName("base", "1"),
        "evaluator": ModelName("base", "1"),
    }


def test_a_base_of_its_own_may_be_named_for_each() -> None:
    named = {f"{trainee.upper()}_BASE": f"org/{trainee}" for trainee in TRAINEES}
    bases = trained(PROFILE="gpu", ENDPOINT=URL, MODEL="served", TRAIN_AGENTS="yes", **named).bases
    assert bases == {trainee: ModelName(f"org/{trainee}") for trainee in TRAINEES}


def test_a_trained_generator_is_asked_on_the_engine_of_the_profile_under_its_own_name() -> None:
    adapted = ModelName("base", "1", "checkpoints/x/adapter")
    for profile, engine in (
        ("embedded", TransformersModel),
        ("local", TransformersModel),
        ("gpu", VllmModel),
    ):
        generator = trained(PROFILE=profile).generator(adapted, "mkailin-domain-x (base)", 800)
        assert isinstance(generator, PromptedGenerator)
        assert generator.name == "mkailin-domain-x (base)"
        assert generator.prompt_version.startswith("question_tuned-")
        assert generator.max_characters == 800
        assert isinstance(generator.model.engine, engine)  # type: ignore[attr-defined]


def test_a_base_or_judge_that_is_missing_is_said_before_any_work(tmp_path: Path) -> None:
    for values in (
        {"DOMAIN_BASE": str(tmp_path)},
        {"PROFILE": "local", "EVALUATOR": "judge", "EVALUATOR_MODEL": str(tmp_path)},
    ):
        with pytest.raises(ModelUnavailable, match=str(tmp_path)):
            trained(**values).check()
    trained(TRAIN_AGENTS="no", DOMAIN_BASE=str(tmp_path)).check()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"TRAIN_AGENTS": "perhaps"}, "MKAILIN_TRAIN_AGENTS is 'perhaps'; set it to one of: yes, no"),
        ({"EVALUATOR": "dice"}, "set it to one of: reward, judge, cold_start"),
        ({"EVALUATOR": "judge"}, "the embedded profile has no language model"),
        ({"EVALUATOR": "reward", "TRAIN_AGENTS": "no"}, "which is trained"),
        ({"DOMAIN_BASE": "m+adapter"}, "MKAILIN_DOMAIN_BASE .* merge it first"),
        ({"GENERAL_BASE": "two words"}, "MKAILIN_GENERAL_BASE"),
        ({"PROFILE": "gpu", "ENDPOINT": URL, "MODEL": "m", "TRAIN_AGENTS": "yes"}, "MKAILIN_DOMAIN_BASE"),
        ({"MESH_RULES": "lin"}, "MKAILIN_MESH_RULES is 'lin'; set it to a JSON object"),
    ],
)
def test_a_wrong_setting_is_named_with_what_it_may_be(wrong: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidSetting, match=said):
        settings(**wrong)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ('{"mode": "guess"}', "mode: .*corrected.*it may set mode, measure, ic_source"),
        ('{"margin": -1}', "margin: "),
        ('{"measures": "lin"}', "measures: "),
    ],
)
def test_wrong_rules_of_scoring_are_refused_when_the_code_location_loads(rules: str, said: str) -> None:
    with pytest.raises(InvalidSetting, match=said):
        definitions(settings(NLM_URL="sample", MESH_RULES=rules))


def test_what_decides_a_table_is_part_of_its_code_version(tmp_path: Path) -> None:
    def versions(**values: str) -> dict[str, str | None]:
        specs = definitions(settings(NLM_URL="sample", **values)).resolve_all_asset_specs()
        return {spec.key.to_user_string(): spec.code_version for spec in specs}

    def changed(**values: str) -> set[str]:
        after = versions(**values)
        return {name for name, version in before.items() if after[name] != version}

    before = versions()
    scored = {
        "cold_start_preferences",
        "evaluator_checkpoint",
        "preferred_generator",
        "question_champion",
        "distilled_contexts",
        "evaluator_audit",
        "evaluated_qa",
        "ablated_corpus",
    }
    assert changed(MESH_RULES='{"measure": "rel"}') == scored | {"domain_generator", "general_generator"}
    (tmp_path / "10B1.json").write_text("{}")
    assert changed(BIOASQ=str(tmp_path)) == {"question_exemplars"}
    trained_agents = {
        "question_champion",
        "domain_generator",
        "general_generator",
        "evaluator_checkpoint",
        "preferred_generator",
        "evaluator_audit",
    }
    assert changed(TRAIN_AGENTS="no") == trained_agents
    assert changed(DOMAIN_BASE="org/base") == {
        "domain_generator",
        "preferred_generator",
        "question_champion",
    }
    assert changed(MESH_RULES='{"margin": 0.1}') == {
        "cold_start_preferences",
        "evaluator_checkpoint",
        "preferred_generator",
    }
    assert changed(EVALUATOR="cold_start") == {"evaluator_checkpoint", "evaluator_audit"}


def test_trained_checkpoints_stay_until_a_person_renews_them() -> None:
    specs = definitions(settings(NLM_URL="sample")).resolve_all_asset_specs()
    fixed = {spec.key.to_user_string() for spec in specs if "mkailin/fixed" in spec.tags}
    assert fixed == {
        "retriever_checkpoint",
        "domain_generator",
        "general_generator",
        "evaluator_checkpoint",
        "preferred_generator",
        "question_champion",
    }
