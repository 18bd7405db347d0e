"""What vLLM does in one process, run by the Python of its own environment; prints facts as JSON, last.

`vllm_in_process.py MODEL OTHER_MODEL ADAPTER ADAPTER`: first the engine in this very process; then in a
process of its own, as it is by default, which is killed. vLLM is imported once for both.
"""

import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tiny_model import tiny_prompt

from mkailin_resources.models.interface import ModelUnavailable
from mkailin_resources.models.language_model import Prompt
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.models.vllm_model import VllmModel

AT_ONCE = 8
_ON_A_CPU = (
    ("dtype", "float32"),
    ("enforce_eager", True),
    ("enable_chunked_prefill", False),  # vLLM 0.32 on a CPU dies of it where a request has a seed
    ("max_num_seqs", AT_ONCE),
    ("kv_cache_memory_bytes", 256 << 20),
)


def main() -> None:
    model, other, first, second = sys.argv[1:]
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    facts = life(model, other, (first, second))
    del os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"]
    print("\n" + json.dumps(facts | death(model)))


def life(folder: str, other: str, adapters: tuple[str, str]) -> dict[str, Any]:
    """Texts and counts for `test_vllm.py` to judge."""
    model, *adapted = (
        VllmModel(ModelName(folder, adapter=adapter), adapters, engine_arguments=_ON_A_CPU)
        for adapter in ("", *adapters)
    )
    model.check()
    many = [tiny_prompt(number) for number in range(12)]
    drawn = [tiny_prompt(number, 1.0, seed=number) for number in range(12)]
    facts: dict[str, Any] = {
        "greedy": [texts(model, many), texts(model, many)],
        "greedy alone": one_by_one(model, many),
        "drawn": texts(model, drawn),
        "drawn alone": one_by_one(model, drawn),
        "drawn with other seeds": texts(model, [tiny_prompt(n, 1.0, seed=100 + n) for n in range(12)]),
        "guided": texts(model, [tiny_prompt(number, 1.0, seed=7) for number in range(20)]),
        "limits": {
            result.key: [result.text, result.failure, result.truncated, result.tokens_in, result.tokens_out]
            for result in model.complete(
                [tiny_prompt(0, max_tokens=5), tiny_prompt(1, max_tokens=4090), tiny_prompt(2)]
            )
        },
        "by itself": [texts(each, many[:4]) for each in (model, *adapted)],
        "in turn": in_turn((model, *adapted), many[:4]),
    }
    facts |= taken_lazily(model)
    suspended = model.complete(many)
    next(suspended)
    another = VllmModel(ModelName(other), engine_arguments=_ON_A_CPU)
    facts["another base"] = texts(another, many[:4])
    try:
        list(suspended)
    except ModelUnavailable as error:
        facts["the former"] = str(error)
    return facts


def death(folder: str) -> dict[str, Any]:
    """What is said of an engine that was killed in the middle of its work."""
    model = VllmModel(ModelName(folder), engine_arguments=_ON_A_CPU)
    results = model.complete(tiny_prompt(number) for number in range(1000))
    next(results)
    (engine,) = (int(child) for child in children() if "EngineCore" in command(child))
    os.kill(engine, signal.SIGKILL)
    try:
        return {"died": "", "written": len(list(results))}
    except ModelUnavailable as error:
        return {"died": str(error)}


def texts(model: VllmModel, prompts: Iterable[Prompt]) -> dict[str, str | None]:
    return {result.key: result.text for result in model.complete(prompts)}


def one_by_one(model: VllmModel, prompts: Iterable[Prompt]) -> dict[str, str | None]:
    return {key: text for prompt in prompts for key, text in texts(model, [prompt]).items()}


def in_turn(models: Iterable[VllmModel], prompts: list[Prompt]) -> list[dict[str, str | None]]:
    """What each writes when a result of each is taken in turn, so that all are in the engine at once."""
    rows = list(zip(*(model.complete(prompts) for model in models), strict=True))
    return [{result.key: result.text for result in column} for column in zip(*rows, strict=True)]


def taken_lazily(model: VllmModel) -> dict[str, Any]:
    taken = 0

    def prompts() -> Iterator[Prompt]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield tiny_prompt(number, max_tokens=20)

    results = model.complete(prompts())
    before = taken
    next(results)
    first = taken
    results.close()  # type: ignore[attr-defined]
    left = model.engine().llm.llm_engine.get_num_unfinished_requests()
    return {"taken": [before, first], "left after closing": left}


def children() -> list[str]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return file.read().split()


def command(process: str) -> str:
    with open(f"/proc/{process}/cmdline", encoding="utf-8", errors="replace") as file:
        return file.read()


if __name__ == "__main__":
    main()
