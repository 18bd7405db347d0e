"""lm-evaluation-harness: the tasks that it asks, the models that it asks, and what comes of it as rows.

The tasks in `tasks/` show what lm-evaluation-harness' own show of the same benchmarks, so that figures made
here are those known elsewhere. Items come from memory: nothing is fetched, and no data set is cached.
"""

import gc
import logging
import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from mkailin_assets.evaluation.items import CORPUS
from mkailin_assets.evaluation.rules import Form
from mkailin_assets.trainer import enough_memory, one_thread
from mkailin_resources.models.engines import release_engines
from mkailin_resources.models.interface import ModelUnavailable
from mkailin_resources.models.model_files import first_line
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.models.vllm_model import VllmModel, release

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

TASKS = Path(__file__).with_name("tasks")
# What items of a kind are asked; MMLU's task is one for each subject.
_ASKED = {
    "pubmedqa": ("pubmedqa_reasoning_required", "pubmedqa_question_only"),
    "medqa": ("medqa",),
    "medmcqa": ("medmcqa",),
    "mmlu": ("mmlu",),
    "bioasq": ("bioasq_yesno",),
    CORPUS: ("corpus_decision", "corpus_answer", "corpus_text"),
}
# All that a task may show of an item.
SHOWN = ("item", "subject", "question", "options", "context", "gold", "answer", "text")
# What a model said to a task, an item a row; `cut`: the prompt was too long for it, and lost a part.
SAID = pl.Schema(
    {
        "item": pl.String(),
        "gold": pl.String(),
        "answer": pl.String(),
        "right": pl.Boolean(),
        "nats": pl.Float64(),
        "utf8_bytes": pl.Int64(),
        "written": pl.String(),
        "failure": pl.String(),
        "cut": pl.Boolean(),
    }
)
_LARGE = (
    'set "engine" in MKAILIN_EVALUATION_RULES to "vllm", and tensor_parallel_size in MKAILIN_VLLM_ARGUMENTS '
    "to the number of GPUs"
)
NOT_READ = "no answer can be read from what it wrote"


@dataclass(frozen=True)
class Task:
    """Items of one benchmark (columns `ITEMS`), and how they are asked: as the file `settings` says.

    `chat_template`: through that of the model, if it has one.
    """

    name: str
    form: Form
    settings: str
    chat_template: bool
    items: pl.DataFrame

    @property
    def benchmark(self) -> str:
        """Name of the benchmark."""
        return str(self.items["benchmark"][0])

    @property
    def shown(self) -> str:
        """What people call it."""
        return f"{self.benchmark}, {self.name}, {self.form}"


def tasks_of(items: pl.DataFrame, forms: Sequence[Form], chat_template: bool) -> list[Task]:
    """What is asked of items (columns `ITEMS`).

    Of the corpus likelihoods alone, whatever the forms, and always through the chat template, as training
    does it.
    """
    tasks = []
    for (kind, _, subject), rows in items.group_by("kind", "benchmark", "subject", maintain_order=True):
        for file in _ASKED[str(kind)]:
            if kind == CORPUS:
                asked = rows.filter(pl.col("gold").is_not_null()) if file == "corpus_decision" else rows
                tasks += [Task(file, "likelihood", file, True, asked)] if asked.height else []
            else:
                name = f"{file}_{subject}" if subject else file
                files = {"likelihood": file, "generation": f"{file}_written"}
                tasks += [Task(name, form, files[form], chat_template, rows) for form in forms]
    return tasks


@cache
def task_settings() -> dict[str, dict[str, Any]]:
    """The files in `tasks/` by name, each with what it includes; not to be changed."""
    from lm_eval.tasks import TaskManager

    index = TaskManager(include_path=str(TASKS), include_defaults=False).task_index
    return {name: entry.cfg or {} for name, entry in index.items()}


def ask(lm: Any, task: Task) -> pl.DataFrame:
    """What a model says to a task, with the columns `SAID`, in the order of the items.

    `lm` is that of `on_transformers` or `on_vllm`. A prompt that is too long loses its beginning; one of the
    corpus the end of its context, as in training. Raises `OutOfMemory`.
    """
    from datasets import Dataset
    from lm_eval import evaluate
    from lm_eval.tasks import TaskManager

    settings = task_settings()[task.settings]
    is_read = settings["output_type"] == "loglikelihood_rolling"  # there is no prompt
    through = task.chat_template and bool(lm.tokenizer.chat_template) and not is_read
    docs = task.items.select(SHOWN).to_dicts()
    is_fitted = task.items["kind"][0] == CORPUS and not is_read
    with (
        _quiet(),
        enough_memory(lambda said: f"{task.shown}: {said}; lower batch_size in MKAILIN_EVALUATION_RULES"),
    ):
        fitted = [_fitted(lm, settings, doc, through) for doc in docs] if is_fitted else docs
        given = {
            "task": task.name,
            "custom_dataset": lambda **_: {"test": Dataset.from_list(fitted)},
            # Compiled once: as a text it would be compiled for each item.
            "doc_to_text": lambda doc: _template(settings["doc_to_text"]).render(**doc),
        }
        loaded = TaskManager(include_defaults=False).load({**settings, **given})
        found = evaluate(lm=lm, task_dict=loaded, bootstrap_iters=0, apply_chat_template=through)
        rows = [_row(lm, settings, sample) for sample in found["samples"][task.name]]
    cut = [doc is not whole for doc, whole in zip(fitted, docs, strict=True)]
    said = pl.DataFrame(rows, schema=SAID)
    return said.with_columns(cut=pl.col("cut") | pl.Series(cut, dtype=pl.Boolean))


def _row(lm: Any, settings: Mapping[str, Any], sample: Mapping[str, Any]) -> dict[str, Any]:
    """What a sample that lm-evaluation-harness logged says, with the columns `SAID`."""
    doc, kind = sample["doc"], settings["output_type"]
    row = {"item": doc["item"], "cut": lm.has_cut(sample["arguments"][0])}
    if kind in ("multiple_choice", "generate_until"):
        row |= _chosen(settings, sample) if kind == "multiple_choice" else _written(sample)
        return row | {"gold": doc["gold"], "right": row["answer"] == doc["gold"]}
    [told] = sample["filtered_resps"]
    likelihood = told if kind == "loglikelihood_rolling" else told[0]
    is_number = math.isfinite(likelihood)
    return row | {
        "nats": -likelihood if is_number else None,
        "utf8_bytes": len(sample["target"].encode()),
        "failure": None if is_number else lm.failure(sample["arguments"][0]),
    }


def _chosen(settings: Mapping[str, Any], sample: Mapping[str, Any]) -> dict[str, Any]:
    """The likeliest of the choices, of equally likely ones the first."""
    likelihoods = [told for told, _ in sample["filtered_resps"]]
    if any(map(math.isnan, likelihoods)):
        return {"answer": None, "failure": "the likelihood of a choice is not a number"}
    return {"answer": settings["doc_to_choice"][likelihoods.index(max(likelihoods))]}


def _written(sample: Mapping[str, Any]) -> dict[str, Any]:
    [[written]], [read] = sample["resps"], sample["filtered_resps"]
    is_read = read != "[invalid]"
    return {"answer": read if is_read else None, "written": written, "failure": None if is_read else NOT_READ}


def _fitted(lm: Any, settings: Mapping[str, Any], doc: dict[str, Any], chat_template: bool) -> dict[str, Any]:
    """A row of the corpus, its context without the end where the prompt and what is to be said do not fit."""
    said = max(settings.get("doc_to_choice") or [doc[settings["doc_to_target"]]], key=len)

    def fits(context: str) -> bool:
        asked = _template(settings["doc_to_text"]).render(**doc | {"context": [context]})
        if chat_template:
            asked = lm.apply_chat_template([{"role": "user", "content": asked}])
        return len(lm.tok_encode(asked + said)) <= lm.room

    [context] = doc["context"]
    if fits(context):
        return doc
    ends = [0, *(word.end() for word in re.finditer(r"\S+", context))]
    kept = bisect_left(ends, True, lo=1, key=lambda end: not fits(context[:end])) - 1
    return doc | {"context": [context[: ends[kept]]]}


@cache
def _template(text: str) -> Any:
    from lm_eval.utils import env

    return env.from_string(text)


class _Watching:
    """What is put before a model class of lm-evaluation-harness, to know which prompts were too long for it.

    `beyond`: tokens of prompt and answer together that it takes beyond its length.
    """

    beyond = 0

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._cut: set[str] = set()
        self._too_long: dict[tuple[str, str], int] = {}

    @property
    def room(self) -> int:
        """Most tokens of a prompt and an answer together, the last of which is only ever looked for."""
        return int(self.max_length) + self.beyond  # type: ignore[attr-defined]

    def has_cut(self, arguments: tuple[Any, ...]) -> bool:
        """Whether the prompt of a request that was made lost its beginning."""
        prompt, *others = arguments
        if others and isinstance(others[0], dict):
            written = others[0]["max_gen_toks"]
            return len(self.tok_encode(prompt)) > self.max_length - written  # type: ignore[attr-defined]
        return prompt in self._cut

    def failure(self, arguments: tuple[Any, ...]) -> str:
        """Why the likelihood of a request is not a number."""
        if tokens := self._too_long.get(arguments):
            return f"the answer has {tokens} tokens, more than the {self.room - 1} that the model takes"
        return "its likelihood is not a number"

    def _loglikelihood_tokens(self, requests: Sequence[Any], **how: Any) -> list[tuple[float, bool]]:
        fit = []
        for texts, prompt, said in requests:
            if texts and len(prompt) + len(said) > self.room:
                self._cut.add(texts[0])
            if len(said) < self.room:
                fit.append((texts, prompt, said))
            else:
                self._too_long[texts] = len(said)
        told = iter(super()._loglikelihood_tokens(fit, **how) if fit else ())  # type: ignore[misc]
        return [next(told) if len(said) < self.room else (math.nan, False) for _, _, said in requests]


@contextmanager
def on_transformers(
    load: Callable[[], tuple["PreTrainedModel | PeftModel", "PreTrainedTokenizerFast"]], batch_size: int
) -> Iterator[Any]:
    """A model of transformers, where and as exactly as `load` makes it; on a CPU by one thread.

    What else holds a GPU's memory gives it back before, and it gives its own back in the end.
    """
    import torch
    from lm_eval.models.huggingface import HFLM

    release_engines()
    with _quiet(), enough_memory(lambda said: f"the model: {said}; {_LARGE}"):
        model, tokenizer = load()
        lm = type("Watching", (_Watching, HFLM), {"beyond": 1})(
            pretrained=model,
            tokenizer=tokenizer,
            backend="causal",
            batch_size=batch_size,
            softmax_dtype="float32",  # likelihoods of 16 bits are equal too often
        )
    try:
        with one_thread() if lm.device.type == "cpu" else nullcontext():
            yield lm
    finally:
        del lm, model
        gc.collect()
        torch.cuda.empty_cache()


@contextmanager
def on_vllm(model: ModelName, tokenizer: Path, arguments: Mapping[str, Any]) -> Iterator[Any]:
    """A model on vLLM in this process, with the tokenizer of a folder; then it gives its memory back.

    `arguments` are those of `vllm.LLM`. Raises `ModelUnavailable`.
    """
    runner = VllmModel(model, engine_arguments=tuple(arguments.items()))
    runner.check()
    release()
    given = runner.arguments() | {"tokenizer": str(tokenizer), "tokenizer_revision": None}
    try:
        from lm_eval.models.vllm_causallms import VLLM
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        with _quiet():
            # Of the prompts that it rates, vLLM has to write one token more.
            lm = type("Watching", (_Watching, VLLM), {"beyond": -1})(
                pretrained=given.pop("model"), lora_local_path=model.adapter or None, **given
            )
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        raise ModelUnavailable(
            f"vLLM cannot start {model}: {first_line(error)}; more stands in the log. If memory is short, "
            'lower max_model_len in MKAILIN_VLLM_ARGUMENTS; or set "engine" in MKAILIN_EVALUATION_RULES to '
            '"transformers"'
        ) from error
    try:
        yield lm
    finally:
        lm.model.llm_engine.engine_core.shutdown()
        del lm
        gc.collect()
        cleanup_dist_env_and_memory()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without bars and warnings of lm-evaluation-harness and transformers: what matters is in the rows."""
    loggers = {logger: logger.level for logger in map(logging.getLogger, ("lm_eval", "transformers"))}
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        for logger, level in loggers.items():
            logger.setLevel(level)
