"""Our vLLM engine against bare `LLM.generate`: what the way from prompts to results costs.

Real vLLM in a process of its own environment: on the GPU where there is one, else the CPU build that
`make vllm-env` installs. The model is small and of random weights, so that what is not the model weighs more
than beside a real one; `added_ms_per_prompt` is that weight itself.

Both contenders use one engine in one process, and write from the same prompts, seeds and schema.
`bare` is handed all prompts at once as tokens, made before; ours takes them one by one as messages, applies
the template, breaks special tokens, and gives each result as it finishes. In turn, median of the rounds,
after one that warms up, the prefix cache emptied before each. On a CPU the engine computes in the process
that is measured, in CPU seconds of it; on a GPU it has a process of its own, and time is the clock's.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.report import Goal, Report, cpu_seconds, interleaved_medians
from mkailin_resources.models.language_model import Message, Prompt, Sampling
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.models.vllm_model import VllmModel, sampling_parameters

_GOAL = 0.95
_PROMPTS, _ROUNDS = 256, 5
_PROMPT_WORDS, _REPLY_TOKENS = 120, 128
_WORDS = "patients with asthma received drug or placebo for twelve weeks and attacks were fewer in it".split()
_SCHEMA = {
    "type": "object",
    "properties": {
        "question": {"type": "string", "minLength": 80, "maxLength": 160},
        "decision": {"enum": ["yes", "no", "maybe"]},
    },
    "required": ["question", "decision"],
    "additionalProperties": False,
}
_ON_A_CPU = (
    ("dtype", "float32"),
    ("enforce_eager", True),
    ("enable_chunked_prefill", False),  # vLLM 0.32 on a CPU dies of it where a request has a seed
    ("max_num_seqs", 64),
    ("kv_cache_memory_bytes", 1 << 30),
)


def run() -> Report:
    """Measure; SystemExit with what to do where there is no environment of vLLM."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from tiny_model import make_model, vllm_environment, vllm_missing, vllm_python

    python = vllm_python()
    if python is None:
        raise SystemExit(f"vllm: {vllm_missing()}")
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder) / "model", hidden=256)
        command = [str(python), "-m", "benchmarks.vllm", str(model)]
        measured = subprocess.run(
            command, env=vllm_environment(), stdout=subprocess.PIPE, text=True, check=True
        )
    results = json.loads(measured.stdout.strip().splitlines()[-1])
    return Report(results, [Goal("vs_bare", results["vs_bare"], _GOAL, at_least=True)])


def measure(folder: str) -> dict[str, Any]:
    """The figures, measured in this process."""
    import torch

    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    model = VllmModel(ModelName(folder), engine_arguments=() if on_gpu else _ON_A_CPU)
    engine = model.engine()
    prompts = list(_prompts())
    tokens: list[Any] = [{"prompt_token_ids": engine.tokens(prompt)} for prompt in prompts]
    sampling = [sampling_parameters(prompt) for prompt in prompts]

    def bare() -> int:
        outputs = engine.llm.generate(tokens, sampling, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    def ours() -> int:
        return sum(result.tokens_out for result in model.complete(iter(prompts)))

    contenders = {"bare": bare, "ours": ours}
    written = {name: work() for name, work in contenders.items()}
    if max(written.values()) > 1.02 * min(written.values()):
        raise RuntimeError(f"the contenders did not write as many tokens: {written}")

    def seconds(work: Callable[[], object]) -> float:
        engine.llm.reset_prefix_cache()
        return (_clock_seconds if on_gpu else cpu_seconds)(work)

    medians = interleaved_medians(contenders, _ROUNDS, seconds)
    return {
        "on": torch.cuda.get_device_name() if on_gpu else "CPU",
        "prompts": _PROMPTS,
        "prompt_tokens": sum(len(prompt["prompt_token_ids"]) for prompt in tokens) // _PROMPTS,
        "reply_tokens": written["ours"] / _PROMPTS,
        "bare_prompts_per_second": _PROMPTS / medians["bare"],
        "ours_prompts_per_second": _PROMPTS / medians["ours"],
        "ours_tokens_per_second": written["ours"] / medians["ours"],
        "added_ms_per_prompt": 1000 * (medians["ours"] - medians["bare"]) / _PROMPTS,
        "vs_bare": medians["bare"] / medians["ours"],
    }


def _prompts() -> Iterator[Prompt]:
    chance = random.Random(0)
    for number in range(_PROMPTS):
        said = " ".join(chance.choices(_WORDS, k=_PROMPT_WORDS))
        yield Prompt(
            str(number),
            (Message("system", "Ask what the abstract answers, in JSON."), Message("user", said)),
            json.dumps(_SCHEMA),
            Sampling(_REPLY_TOKENS, temperature=0.7, seed=number),
        )


def _clock_seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    print("\n" + json.dumps(measure(sys.argv[1])))
