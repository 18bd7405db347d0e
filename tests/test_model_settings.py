"""Which models the settings name, and what a wrong setting is told."""

from pathlib import Path

import dagster as dg
import pytest

from mkailin_assets.definitions import definitions
from mkailin_assets.distill import set_up
from mkailin_assets.gpu import POOL
from mkailin_resources.models.endpoint import Endpoint
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.models.prompted import PromptedGenerator
from mkailin_resources.models.transformers_model import TransformersModel
from mkailin_resources.models.vllm_model import VllmModel
from mkailin_resources.profiles import InvalidSetting, Settings, agents

ON_GPU = {
    "evaluated_qa",
    "retriever_checkpoint",
    "context_index",
    "retrieval_report",
    "domain_generator",
    "general_generator",
    "candidate_questions",
    "evaluator_checkpoint",
    "question_preferences",
    "preferred_generator",
    "question_champion",
    "distilled_questions",
    "evaluator_audit",
    "generated_qa",
    "benchmark_answers",
    "pretrained_checkpoint",
    "finetuned_checkpoint",
    "ablated_corpus",
    "ablated_checkpoint",
    "ablation_report",
}


def settings(**values: str) -> Settings:
    return Settings.from_environment({f"MKAILIN_{name}": value for name, value in values.items()})


def models(**values: str) -> dict[str, PromptedGenerator]:
    made = agents(settings(**values))
    assert all(isinstance(agent, PromptedGenerator) for agent in made.values())
    return made  # type: ignore[return-value]


def test_each_profile_runs_its_engine_and_an_endpoint_goes_before_it() -> None:
    engines = {
        profile: {type(agent.model) for agent in models(PROFILE=profile).values()}
        for profile in ("local", "gpu")
    }
    assert engines == {"local": {TransformersModel}, "gpu": {VllmModel}}
    served = models(PROFILE="gpu", ENDPOINT="http://127.0.0.1:8000/v1/", MODEL="m")
    assert {type(agent.model) for agent in served.values()} == {Endpoint}


def test_the_two_questioners_have_prompts_of_their_own() -> None:
    made = models(PROFILE="gpu")
    assert [agent.prompt_version.split("-")[0] for agent in made.values()] == [
        "question_domain",
        "question_general",
        "answer",
    ]


def test_an_agent_may_have_a_model_of_its_own_with_revision_and_adapter() -> None:
    made = models(
        PROFILE="gpu", MODEL="base@abc", DOMAIN_MODEL="base@abc+adapters/domain", ANSWER_MODEL="big"
    )
    assert {agent: one.model.model for agent, one in made.items()} == {  # type: ignore[attr-defined]
        "domain_model": ModelName("base", "abc", "adapters/domain"),
        "general_model": ModelName("base", "abc"),
        "answer_model": ModelName("big"),
    }
    adapters = {agent: one.model.adapters for agent, one in made.items()}  # type: ignore[attr-defined]
    assert adapters == {
        "domain_model": ("adapters/domain",),
        "general_model": ("adapters/domain",),
        "answer_model": (),
    }


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"PROFILE": "big"}, "set it to one of: embedded, local, gpu"),
        ({"PROFILE": "gpu", "MODEL": "two words"}, "MKAILIN_DOMAIN_MODEL"),
        ({"ENDPOINT": "127.0.0.1:8000"}, "MKAILIN_ENDPOINT is '127.0.0.1:8000'"),
        ({"PROFILE": "gpu", "ENDPOINT": "http://h/v1", "MODEL": "m+folder"}, "name of its own"),
        ({"CONCURRENCY": "many"}, "MKAILIN_CONCURRENCY is 'many'; set it to a number from 1 to 4096"),
        ({"MAX_FAILED_SHARE": "20"}, "MKAILIN_MAX_FAILED_SHARE"),
        ({"VLLM_ARGUMENTS": "big"}, "JSON object"),
        ({"PRICES": "gpt=nan/1"}, "MODEL=IN/OUT"),
        ({"PRICES": "gpt 1"}, "MODEL=IN/OUT"),
        ({"PRICES": "gpt=1/-2"}, "MODEL=IN/OUT"),
    ],
)
def test_a_wrong_setting_is_named_with_what_it_may_be(wrong: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidSetting, match=said):
        settings(**wrong)


def test_a_key_in_the_address_of_an_endpoint_is_refused_and_not_repeated() -> None:
    for url in ("https://me:secret@models.example/v1", "https://models.example/v1?key=secret"):
        with pytest.raises(InvalidSetting) as refused:
            settings(ENDPOINT=url)
        assert "secret" not in str(refused.value)
        assert "MKAILIN_API_KEY" in str(refused.value)


def test_prices_are_read_for_each_model() -> None:
    assert settings(PRICES="org/m=0.15/0.6 other=1/2").prices == {"org/m": (0.15, 0.6), "other": (1.0, 2.0)}


def test_what_needs_a_gpu_is_in_the_pool_and_asks_kubernetes_for_one() -> None:
    defs = definitions(settings(NLM_URL="sample"))
    pooled = {
        name
        for assets in defs.resolve_all_asset_specs()
        if (name := assets.key.to_user_string())
        and (node := defs.resolve_assets_def(assets.key)).op.pool == POOL
        and "nvidia.com/gpu" in str(node.op.tags)
    }
    assert pooled == ON_GPU


def test_setting_up_limits_the_pool_by_the_settings() -> None:
    with dg.instance_for_test() as instance:
        for given, limit in (({}, 2), ({"PROFILE": "gpu"}, 1), ({"PROFILE": "gpu", "GPU_RUNS": "8"}, 8)):
            set_up(instance, settings(**given))
            assert [(pool.name, pool.limit) for pool in instance.event_log_storage.get_pool_limits()] == [
                (POOL, limit)
            ]


def test_whatever_decides_a_text_is_part_of_the_code_version(tmp_path: Path) -> None:
    def version(**values: str) -> str | None:
        defs = definitions(settings(NLM_URL="sample", **values))
        return defs.resolve_assets_def(dg.AssetKey("candidate_questions")).code_versions_by_key[
            dg.AssetKey("candidate_questions")
        ]

    changed: list[dict[str, str]] = [
        {"MODEL": "other"},
        {"MODEL": "model@2"},
        {"DOMAIN_MODEL": f"model+{tmp_path}"},
        {"TEMPERATURE": "1"},
        {"INPUT_CHARACTERS": "900"},
        {"VLLM_ARGUMENTS": '{"quantization": "fp8"}'},
    ]
    seen = {version()} | {version(**{"PROFILE": "gpu", "MODEL": "model"} | one) for one in [{}, *changed]}
    assert len(seen) == 2 + len(changed)
    before = version(PROFILE="gpu", DOMAIN_MODEL=f"model+{tmp_path}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"trained anew")
    assert version(PROFILE="gpu", DOMAIN_MODEL=f"model+{tmp_path}") != before
