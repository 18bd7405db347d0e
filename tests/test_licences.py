"""Which models' outputs may train other models, as far as their names tell."""

import pytest

from mkailin_resources.models.licences import _FAMILIES, Licence, licence_of

ANSWERS = {
    "yes": {
        "Apache-2.0": """extractive-statement-title extractive-conclusion Qwen/Qwen2.5-7B-Instruct
            Qwen/Qwen2.5-0.5B qwen2.5:14b Qwen/Qwen2-7B-Instruct Qwen/Qwen3-8B 
            Qwen/Qwen3-30B-A3B-Instruct-2507 Qwen/Qwen3-0.6B qwen3:8b
            unsloth/Qwen2.5-7B-Instruct-bnb-4bit /models/Qwen2.5-7B-Instruct
            mistralai/Mistral-7B-Instruct-v0.3 mistralai/Mixtral-8x7B-v0.1 
            mistralai/Mistral-Nemo-Instruct-2407 mistralai/Mistral-Small-24B-Instruct-2501
            mistralai/Mistral-Small-3.2-24B-Instruct-2506
            HuggingFaceTB/SmolLM2-1.7B-Instruct HuggingFaceTB/SmolLM-135M allenai/OLMo-2-1124-7B-Instruct
            openai/gpt-oss-20b gpt-oss-120b BioMistral/BioMistral-7B google/gemma-4-31B-it
            Qwen/Qwen2.5-7B@main Qwen/Qwen2.5-7B@main+/adapters/llama-2 Qwen/Qwen2.5-Coder-32B""",
        "MIT": """microsoft/phi-4 microsoft/Phi-3.5-mini-instruct microsoft/Phi-4-mini-instruct
            microsoft/Phi-3-medium-4k-instruct deepseek-ai/DeepSeek-R1 deepseek-ai/DeepSeek-R1-0528
            deepseek-ai/DeepSeek-R1-Distill-Qwen-7B deepseek-ai/DeepSeek-R1-Distill-Llama-8B""",
        "Llama 3.1 to 4": """meta-llama/Llama-3.1-8B-Instruct meta-llama/Meta-Llama-3.1-70B
            meta-llama/Llama-3.2-1B meta-llama/Llama-3.3-70B-Instruct llama3.1:8b
            meta-llama/Llama-4-Scout-17B-16E-Instruct meta.llama3-1-8b-instruct-v1:0
            llama-v3p1-8b-instruct""",
        "Qwen License": "Qwen/Qwen2.5-72B-Instruct",
    },
    "no": {
        "Llama 2": """meta-llama/Llama-2-7b-hf llama2:13b NousResearch/Nous-Hermes-Llama2-13b
            epfl-llm/meditron-7b epfl-llm/meditron-70b /models/llama-3.1/Llama-2-7b""",
        "Llama 3 Community": """meta-llama/Meta-Llama-3-8B-Instruct meta-llama/Meta-Llama-3-70B llama3:8b
            aaditya/Llama3-OpenBioLLM-70B meta.llama3-8b-instruct-v1:0 m42-health/Llama3-Med42-8B""",
        "OpenAI": "gpt-4o gpt-4.1-mini gpt-5 gpt-3.5-turbo o3-mini o1 chatgpt-4o-latest openai/gpt-4o",
        "Anthropic": "claude-sonnet-4-5 anthropic/claude-3.5-haiku",
        "Gemini": "gemini-2.5-flash google/gemini-2.5-pro",
    },
    "ask": {
        "Qwen Research": "Qwen/Qwen2.5-3B-Instruct Qwen/Qwen2.5-Coder-3B qwen2.5:3b",
        "Tongyi": "Qwen/Qwen2-72B-Instruct",
        "Gemma Terms": "google/gemma-2-9b-it google/gemma-3-4b-it google/gemma-7b google/gemma-4b",
        "HAI-DEF": "google/medgemma-27b-text-it",
        "Mistral Research": """mistralai/Mistral-Large-Instruct-2411 mistralai/Codestral-22B-v0.1
            mistralai/Mistral-Small-Instruct-2409 mistralai/Ministral-8B-Instruct-2410""",
        "DeepSeek License": "deepseek-ai/DeepSeek-V3 deepseek-ai/DeepSeek-R1-0528-Qwen3-8B deepseek-chat",
        "of its base": "OpenMeditron/Meditron3-Gemma2-2B OpenMeditron/Meditron3-8B",
        "unknown": """some-lab/some-model /storage/checkpoints/preferred_generator/3f2a Qwen/Qwen1.5-7B
            Qwen/Qwen-7B-Chat qwen-max qwen3-max Qwen/Qwen3.5-4B openlm-research/open_llama_3b
            TinyLlama/TinyLlama-1.1B-Chat-v1.0 codellama/CodeLlama-7b-hf microsoft/phi-2 openai-community/gpt2
            huggyllama/llama-30b 
            huggyllama/llama-7b mistral-small-latest open-mistral-7b EleutherAI/gpt-j-6b
            HuggingFaceTB/SmolLM3-3B allenai/Olmo-3-7B-Instruct llama+x delphi-3 tiiuae/falcon-7b""",
    },
}


@pytest.mark.parametrize(
    ("name", "may_train", "licence"),
    [
        (name, may_train, licence)
        for may_train, licences in ANSWERS.items()
        for licence, names in licences.items()
        for name in names.split()
    ],
)
def test_a_model_has_the_licence_of_its_family(name: str, may_train: str, licence: str) -> None:
    for spelled in (name, name.upper()):
        found = licence_of(spelled)
        assert found.may_train == may_train
        assert licence in found.licence


def test_every_family_of_the_table_is_reached_by_a_name() -> None:
    names = [name for licences in ANSWERS.values() for names in licences.values() for name in names.split()]
    names.append("mkailin-domain-e4e1190c (random weights)")
    assert {licence_of(name) for name in names} == {licence for _, licence in _FAMILIES}


@pytest.mark.parametrize("name", ["", " ", "/", "@", "+", "\0", "a" * 100_000, "qwen2.5" * 20_000])
def test_any_name_has_an_answer(name: str) -> None:
    assert licence_of(name).may_train == "ask"


def test_whoever_says_yes_or_no_says_why_and_where_it_is_written() -> None:
    for _, licence in _FAMILIES:
        assert isinstance(licence, Licence)
        assert licence.condition
        assert licence.source or licence.may_train == "ask"


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("mkailin-domain-e4e1190c (random weights)", "trained here from random weights"),
        ("mkailin-preferred-99d751ab (random weights)", "trained here from random weights"),
        ("mkailin-general-99d751ab (meta-llama/Llama-2-7b-hf)", "Llama 2"),
        ("mkailin-general-99d751ab (Qwen/Qwen2.5-7B-Instruct)", "Qwen2.5"),
        ("mkailin-general-99d751ab (somebody/some-model)", "unknown"),
    ],
)
def test_a_trained_generator_has_the_licence_of_its_base(name: str, family: str) -> None:
    assert licence_of(name).family.startswith(family)
