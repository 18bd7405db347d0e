"""vLLM on a CPU, in this process and as a server, on tiny models of random weights.

The environment of vLLM is one of its own (`make vllm-env`), so what runs in its process runs in a child.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tiny_model import (
    REPOSITORY,
    Reply,
    VllmServer,
    make_adapter,
    make_model,
    tiny_prompt,
    vllm_environment,
    vllm_missing,
    vllm_python,
    vllm_server,
)
from vllm_in_process import AT_ONCE

from mkailin_resources.models.endpoint import Endpoint
from mkailin_resources.models.interface import ModelUnavailable
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.models.transformers_model import TransformersModel
from mkailin_resources.models.vllm_model import VllmModel

needs_vllm = pytest.mark.skipif(vllm_python() is None, reason=vllm_missing())


CHECK = """
import sys
from importlib.metadata import version
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.models.vllm_model import VllmModel

print(version("vllm"), flush=True)
VllmModel(ModelName(sys.argv[1])).check()
"""


class Tiny(NamedTuple):
    folder: Path
    other: Path
    adapters: tuple[Path, Path]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    root = tmp_path_factory.mktemp("tiny")
    folder = make_model(root / "model")
    adapters = (
        make_adapter(folder, root / "one" / "lora", 1),
        make_adapter(folder, root / "two" / "lora", 2),
    )
    return Tiny(folder, make_model(root / "other", seed=3), adapters)


@pytest.fixture(scope="module")
def facts(tiny: Tiny) -> dict[str, Any]:
    """What vLLM did in a process of its own environment."""
    script = Path(__file__).with_name("vllm_in_process.py")
    done = subprocess.run(
        [str(vllm_python()), str(script), *map(str, (tiny.folder, tiny.other, *tiny.adapters))],
        capture_output=True,
        text=True,
        check=False,
        env=vllm_environment(),
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    facts: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return facts


@needs_vllm
def test_greedy_writes_the_same_twice(facts: dict[str, Any]) -> None:
    first, second = facts["greedy"]
    assert first == second
    assert len(set(first.values())) > 6


@needs_vllm
@pytest.mark.parametrize("how", ["greedy", "drawn"])
def test_a_prompt_alone_gets_the_text_it_gets_among_others(facts: dict[str, Any], how: str) -> None:
    together = facts["greedy"][0] if how == "greedy" else facts["drawn"]
    assert together == facts[f"{how} alone"]


@needs_vllm
def test_a_seed_decides_what_is_drawn(facts: dict[str, Any]) -> None:
    assert not set(facts["drawn"].values()) & set(facts["drawn with other seeds"].values())


@needs_vllm
def test_every_text_is_what_the_schema_wants(facts: dict[str, Any]) -> None:
    assert len(facts["guided"]) == 20
    for text in facts["guided"].values():
        assert Reply.model_validate_json(text).model_dump_json() == text  # no whitespace


@needs_vllm
def test_a_text_cut_off_at_its_limit_says_so(facts: dict[str, Any]) -> None:
    text, failure, truncated, _, written = facts["limits"]["0"]
    assert (bool(text), failure, truncated, written) == (True, None, True, 5)
    assert facts["limits"]["2"][2] is False


@needs_vllm
def test_a_prompt_too_long_for_the_model_fails_alone_and_says_by_how_much(facts: dict[str, Any]) -> None:
    text, failure, _, read, _ = facts["limits"]["1"]
    assert text is None
    assert failure == f"the prompt has {read} tokens and its reply may have 4090, the model takes 4096"
    assert facts["limits"]["2"][0]


@needs_vllm
def test_two_adapters_and_none_work_side_by_side_over_one_base(facts: dict[str, Any]) -> None:
    pairs = zip(facts["in turn"], facts["by itself"], strict=True)
    # Beside rows of other adapters logits are rounded otherwise, which shows late in a text, after 90
    # characters; what another adapter writes differs within 50.
    same = sum(mixed[key][:60] == pure[key][:60] for mixed, pure in pairs for key in "0123")
    assert same >= 10  # of 12
    assert all(len({texts[key] for texts in facts["in turn"]}) == 3 for key in "0123")


@needs_vllm
def test_prompts_are_taken_as_there_is_room(facts: dict[str, Any]) -> None:
    before, first = facts["taken"]
    assert before == 0
    assert first <= 2 * AT_ONCE


@needs_vllm
def test_what_is_given_up_leaves_the_engine(facts: dict[str, Any]) -> None:
    assert facts["left after closing"] == 0


@needs_vllm
def test_another_base_takes_the_place_of_the_former(facts: dict[str, Any]) -> None:
    assert all(facts["another base"][key] != facts["greedy"][0][key] for key in "0123")
    assert facts["the former"].endswith("was shut down, as another model was asked for")


@needs_vllm
def test_the_engines_in_process_write_the_same(facts: dict[str, Any], tiny: Tiny) -> None:
    for adapter, expected in zip(("", *map(str, tiny.adapters)), facts["by itself"], strict=True):
        model = TransformersModel(ModelName(str(tiny.folder), adapter=adapter))
        results = model.complete(tiny_prompt(number) for number in range(4))
        assert {result.key: result.text for result in results} == expected


@needs_vllm
def test_an_engine_that_dies_ends_the_work_with_what_to_do(facts: dict[str, Any], tiny: Tiny) -> None:
    assert facts["died"].startswith(f"the vLLM of {tiny.folder} died: ")


def test_a_machine_without_vllm_is_told_what_to_install_or_set(tiny: Tiny) -> None:
    with pytest.raises(
        ModelUnavailable, match=r"pip install 'mkailin\[gpu\]', or set MKAILIN_ENDPOINT .*local"
    ):
        VllmModel(ModelName(str(tiny.folder))).check()


def test_a_machine_without_gpu_is_told_what_to_set(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").touch()
    installed = tmp_path / "vllm-0.32.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0\n")
    # In a process from which a GPU, if there is one, is hidden.
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(tiny.folder)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(tmp_path)},
        cwd=REPOSITORY,
    )
    assert done.stdout.split() == ["0.32.0"], done.stderr
    assert "ModelUnavailable" in done.stderr
    assert re.search(r"needs a GPU, and none is found here: set MKAILIN_ENDPOINT", done.stderr)


@pytest.fixture(scope="module")
def server(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    adapters = {"one": tiny.adapters[0]}
    with vllm_server(tiny.folder, tmp_path_factory.mktemp("server"), adapters) as server:
        yield server


@needs_vllm
@pytest.mark.slow
def test_a_server_writes_what_the_schema_wants(server: VllmServer, facts: dict[str, Any]) -> None:
    endpoint = Endpoint(ModelName(server.model), server.url, concurrency=16)
    endpoint.check()
    results = list(endpoint.complete(tiny_prompt(number) for number in range(32)))
    assert len(results) == 32
    for result in results:
        assert Reply.model_validate_json(result.text or "")
        assert result.tokens_in > 0
        assert result.tokens_out > 0


@needs_vllm
@pytest.mark.slow
def test_a_served_adapter_is_a_model_of_its_own(server: VllmServer, facts: dict[str, Any]) -> None:
    prompts = [tiny_prompt(number) for number in range(4)]
    written = [
        {result.key: result.text for result in Endpoint(ModelName(name), server.url).complete(prompts)}
        for name in (server.model, "one")
    ]
    assert written == facts["by itself"][:2]


@needs_vllm
@pytest.mark.slow
def test_a_model_that_is_not_served_is_unavailable(server: VllmServer) -> None:
    with pytest.raises(ModelUnavailable, match="nobodys-model"):
        list(Endpoint(ModelName("nobodys-model"), server.url).complete([tiny_prompt(0)]))
