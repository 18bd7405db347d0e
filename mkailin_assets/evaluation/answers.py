"""All answers of a model to the items of benchmarks; what it was asked before is not asked again."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, BinaryIO, cast

import polars as pl
from upath import UPath

from mkailin_assets.adapters import fingerprint
from mkailin_assets.evaluation.contestants import Contestant
from mkailin_assets.evaluation.harness import (
    SAID,
    SHOWN,
    Task,
    ask,
    on_transformers,
    on_vllm,
    task_settings,
    tasks_of,
)
from mkailin_assets.evaluation.rules import Engine, EvaluationRules
from mkailin_assets.evaluation.tables import BenchmarkAnswer
from mkailin_assets.training.checkpoints import load
from mkailin_resources.storage import Storage

# To be raised where the code here or in `harness` comes to ask, or to read, in another way.
_VERSION = "1"

Log = Callable[[str], object]


@dataclass(frozen=True)
class Answers:
    """Table `BenchmarkAnswer`; how many prompts were too long, by task; tasks asked now, and before."""

    table: pl.DataFrame
    cut: dict[str, int]
    asked: int
    reused: int


def answers_of(
    contestant: Contestant,
    items: pl.DataFrame,
    storage: Storage,
    *,
    rules: EvaluationRules,
    vllm: Mapping[str, Any],
    log: Log,
) -> Answers:
    """What a model answers to items (columns `ITEMS`).

    `vllm`: arguments of `vllm.LLM`, for where that is the engine. What is said to a task is kept under
    `answers/` of the storage at once, so that a run that is killed loses no more than the task it was at.
    Raises `OutOfMemory` and `ModelUnavailable`.
    """
    wanted = tasks_of(items, rules.forms, rules.chat_template)
    engine = (rules.engine, sorted(vllm.items()) if rules.engine == "vllm" else [])
    tasks = {_fingerprint(task, contestant, engine): task for task in wanted}
    parts = {name: _kept(storage, contestant, name) for name in tasks}
    missing = [name for name, part in parts.items() if part is None]
    if len(missing) < len(tasks):
        log(f"{contestant.label}: {len(tasks) - len(missing)} of {len(tasks)} tasks were asked before")
    sizes = {name: _characters(tasks[name]) for name in missing}
    with ExitStack() as stack:
        lm = stack.enter_context(_opened(contestant, rules, vllm)) if missing else None
        began, done = time.perf_counter(), 0
        for name in missing:
            start = time.perf_counter()
            parts[name] = part = ask(lm, tasks[name])
            storage.publish_file(_place(storage, contestant, name), part.write_parquet)
            done += sizes[name]
            now = time.perf_counter()
            left = (now - began) / done * (sum(sizes.values()) - done)
            rate = f"{part.height / (now - start):,.1f} items/s, about {left:,.0f} s left"
            log(f"{contestant.label}: {tasks[name].shown}: {_told(part)}; {rate}")
    said = {name: part for name, part in parts.items() if part is not None}
    cut = {tasks[name].shown: int(part["cut"].sum()) for name, part in said.items()}
    tables = [_table(part, tasks[name], contestant, name) for name, part in said.items()]
    return Answers(
        pl.concat([BenchmarkAnswer.create_empty(), *tables]),
        {task: count for task, count in cut.items() if count},
        len(missing),
        len(tasks) - len(missing),
    )


def _opened(
    contestant: Contestant, rules: EvaluationRules, vllm: Mapping[str, Any]
) -> AbstractContextManager[Any]:
    if rules.engine == "vllm":
        return on_vllm(contestant.model, contestant.tokenizer, vllm)
    return on_transformers(lambda: load(contestant.model, contestant.tokenizer), rules.batch_size)


def _fingerprint(task: Task, contestant: Contestant, engine: tuple[Engine, list[tuple[str, Any]]]) -> str:
    """Hash of task file, items, harness, engine with its arguments, and of the template that is used."""
    made_of = (
        _VERSION,
        version("lm-eval"),
        task.benchmark,
        task.name,
        task_settings()[task.settings],
        task.chat_template,
        engine,
        contestant.tokenizer_sha256,
        task.items.select(SHOWN).rows(),
    )
    return fingerprint(made_of)


def _place(storage: Storage, contestant: Contestant, name: str) -> UPath:
    return storage.path("answers", contestant.fingerprint, f"{name}.parquet")


def _kept(storage: Storage, contestant: Contestant, name: str) -> pl.DataFrame | None:
    """What was said before; None where nothing was, or where it cannot be read and is asked again."""
    path = _place(storage, contestant, name)
    try:
        with path.open("rb") as file:
            return pl.read_parquet(cast(BinaryIO, file)).select(SAID.names())
    except (FileNotFoundError, pl.exceptions.PolarsError):
        return None


def _characters(task: Task) -> int:
    """What of the time a task takes is told by: the characters of its items."""
    texts = [pl.col("question", "answer", "text").fill_null(""), pl.col("options", "context").list.join("")]
    shown = task.items.select(pl.concat_str(*texts).str.len_chars().sum())
    return int(shown.item()) + 1


def _told(part: pl.DataFrame) -> str:
    """What a task came to, for people."""
    failed, cut = part["failure"].count(), int(part["cut"].sum())
    right = part["right"].mean()
    return ", ".join(
        [
            f"{part.height:,} items",
            *([f"{right:.1%} right"] if isinstance(right, float) else []),
            *([f"{failed:,} without an answer"] if failed else []),
            *([f"{cut:,} whose prompt was too long"] if cut else []),
        ]
    )


def _table(part: pl.DataFrame, task: Task, contestant: Contestant, name: str) -> pl.DataFrame:
    """A part as table `BenchmarkAnswer`."""
    rows = part.with_columns(
        benchmark=pl.lit(task.benchmark),
        task=pl.lit(task.name),
        form=pl.lit(task.form),
        model=pl.lit(contestant.label),
        model_fingerprint=pl.lit(contestant.fingerprint),
        tokenizer_sha256=pl.lit(contestant.tokenizer_sha256),
        task_fingerprint=pl.lit(name),
    )
    schema = BenchmarkAnswer.create_empty().schema
    return rows.select(schema.names()).cast(schema)
