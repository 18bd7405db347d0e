"""The pipeline on vLLM in process against bare `LLM.generate`: what the way from requests to replies costs.

Real vLLM in a process of its own environment: on the GPU where there is one, else the CPU build that
`make vllm-env` installs. The model is small and of random weights, so that what is not the model weighs more
than beside a real one; `added_ms_per_text` is that weight itself.

Both contenders use one engine in one process, and write from the same prompts, seeds and schema. `bare` is
handed all prompts at once as tokens, made before. Ours renders the requests, looks them up in an empty
generation store, applies the template, keeps and judges each reply as it comes. What is cut off is asked for
once more, in both. In turn, median of the rounds, after one that warms up, the prefix cache emptied before
each. On a CPU the engine computes in the process that is measured, in CPU seconds of it; on a GPU it has a
process of its own, and time is the clock's.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.report import Goal, Report, cpu_seconds, interleaved_medians
from mkailin_resources.generation import Asking, Materialization
from mkailin_resources.generation_store import GenerationStore
from mkailin_resources.models.interface import Document, GenerationRequest, GenerationResult, Section
from mkailin_resources.models.language_model import LanguageModel, Prompt
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.models.prompted import PromptedGenerator
from mkailin_resources.models.prompting import PromptFile
from mkailin_resources.models.vllm_model import VllmModel, sampling_parameters
from mkailin_resources.storage import Storage

_GOAL = 0.95
_REQUESTS, _ROUNDS = 128, 5
_WORDS_OF_AN_ABSTRACT = 120
_WORDS = "patients with asthma received drug or placebo for twelve weeks and attacks were fewer in it".split()
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
    noted = _Noted(model)
    requests = list(_requests())

    def ours(by: LanguageModel = model) -> int:
        generator = PromptedGenerator(by, PromptFile.load("question_domain"), 0.7, 24_000)
        with tempfile.TemporaryDirectory() as root:
            about = Materialization("candidate_questions", None, "benchmark", lambda _: None)
            ask = Asking(GenerationStore(Storage(root=root)), 1.0, about)
            ask(generator, requests, lambda *_: None)
        return ask.tallies[0].tokens_out

    written = {"ours": ours(noted)}
    given: list[tuple[list[Any], list[Any]]] = [
        (
            [{"prompt_token_ids": engine.tokens(one)} for one in some],
            [sampling_parameters(one) for one in some],
        )
        for some in noted.rounds
    ]

    def bare() -> int:
        outputs = [engine.llm.generate(*some, use_tqdm=False) for some in given]
        return sum(len(output.outputs[0].token_ids) for some in outputs for output in some)

    written["bare"] = bare()
    if max(written.values()) > 1.02 * min(written.values()):
        raise RuntimeError(f"the contenders did not write as many tokens: {written}")
    contenders = {"bare": bare, "ours": ours}

    def seconds(work: Callable[[], object]) -> float:
        engine.llm.reset_prefix_cache()
        return (_clock_seconds if on_gpu else cpu_seconds)(work)

    medians = interleaved_medians(contenders, _ROUNDS, seconds)
    texts = sum(map(len, noted.rounds))
    return {
        "on": torch.cuda.get_device_name() if on_gpu else "CPU",
        "texts": texts,
        "prompt_tokens": sum(len(prompt["prompt_token_ids"]) for prompt in given[0][0]) // _REQUESTS,
        "reply_tokens": written["ours"] / texts,
        "bare_texts_per_second": texts / medians["bare"],
        "ours_texts_per_second": texts / medians["ours"],
        "ours_tokens_per_second": written["ours"] / medians["ours"],
        "added_ms_per_text": 1000 * (medians["ours"] - medians["bare"]) / texts,
        "vs_bare": medians["bare"] / medians["ours"],
    }


@dataclass
class _Noted:
    """A language model that notes what it is asked, a list for each time."""

    model: VllmModel
    rounds: list[list[Prompt]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def identity(self) -> tuple[str, ...]:
        return self.model.identity

    @property
    def version(self) -> str:
        return self.model.version

    def check(self) -> None:
        self.model.check()

    def complete(self, prompts: Iterable[Prompt]) -> Iterator[GenerationResult]:
        asked = list(prompts)
        self.rounds.append(asked)
        yield from self.model.complete(asked)


def _requests() -> Iterator[GenerationRequest]:
    chance = random.Random(0)
    for number in range(_REQUESTS):
        said = " ".join(chance.choices(_WORDS, k=_WORDS_OF_AN_ABSTRACT))
        document = Document(f"Trial {number} of a drug for asthma", (Section(None, None, f"{said}."),))
        yield GenerationRequest(str(number), "question", document)


def _clock_seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    print("\n" + json.dumps(measure(sys.argv[1])))
