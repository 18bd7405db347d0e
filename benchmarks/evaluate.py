"""Answers to PubMedQA's questions: our harness against calling lm-evaluation-harness directly.

A small Llama, its tokenizer learnt from the abstracts, that has learnt a few of the answers by heart, so that
it gives all of them, right and wrong. Both protocols, by likelihood and in writing, from the folder of the
model to the last answer. Ours keeps every answer on the way. Beside it `lm_eval.simple_evaluate` on the same
model, with the same task files over JSON lines, as its users call it; it gives scores, and keeps nothing. In
turn, in this process, on one thread; CPU time, median of the rounds.

`max_accuracy_difference` is the largest difference of their scores; among them is that of the task for
PubMedQA which lm-evaluation-harness itself has, over the same questions. With MKAILIN_REAL_DATA the 500
questions of `pubmedqa/pqal_dev500.json`, else those of the sample.
"""

import io
import logging
import os
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.report import Goal, Report, interleaved_medians
from mkailin_assets.adapters import BASE, make_base
from mkailin_assets.evaluation.answers import answers_of
from mkailin_assets.evaluation.contestants import Contestant
from mkailin_assets.evaluation.harness import SHOWN, task_settings
from mkailin_assets.evaluation.items import measured_items
from mkailin_assets.evaluation.rules import EvaluationRules
from mkailin_assets.trainer import one_thread
from mkailin_assets.training.checkpoints import load
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.sample import PUBMEDQA_FILE
from mkailin_resources.storage import Storage

_ROUNDS = 3
_BATCH = 16
_LEARNT, _STEPS, _LEARNING_RATE = 64, 160, 3e-3
_TASKS = ("pubmedqa_reasoning_required", "pubmedqa_question_only")
_STOCK = "pubmedqa"


def run() -> Report:
    """Measure; SystemExit with what to do where a library is not at hand."""
    data = os.environ.get("MKAILIN_REAL_DATA")
    path = Path(data) / "pubmedqa" / "pqal_dev500.json" if data else PUBMEDQA_FILE
    items = measured_items(BenchmarkFiles(pubmedqa=str(path), retrieval="", others=[])).table
    try:
        with tempfile.TemporaryDirectory() as folder, one_thread():
            return _compare(items, Path(folder))
    except ImportError as error:
        raise SystemExit(f"evaluate: {error}: run make env") from error


def _compare(items: pl.DataFrame, folder: Path) -> Report:
    make_base(items["context"].list.join(" "), 4096, 512, 1, folder)
    model = folder / BASE
    _teach(model, items)
    contestant = Contestant("base", ModelName(str(model)), model, "base", "")
    wanted = _direct_tasks(items, folder)
    _ours(contestant, items.head(1), folder / "first")
    ours: list[dict[str, float]] = []
    direct: list[dict[str, float]] = []
    seconds = interleaved_medians(
        {
            "ours": lambda: ours.append(_ours(contestant, items, folder / f"round-{len(ours)}")),
            "direct": lambda: direct.append(_direct(model, wanted)),
        },
        rounds=_ROUNDS,
    )
    stock = _direct(model, [_stock_task(items, folder)])[_STOCK]
    compared = [
        (found[task], score)
        for found, plain in zip(ours, direct, strict=True)
        for task, score in plain.items()
    ]
    compared.append((ours[0]["pubmedqa_reasoning_required"], stock))
    difference = max(abs(one - other) for one, other in compared)
    ratio = seconds["ours"] / seconds["direct"]
    results = {
        "questions": items.height,
        "cpu_seconds": seconds,
        "accuracy": ours[0],
        "accuracy_of_the_own_task": stock,
        "max_accuracy_difference": difference,
        "time_ratio": ratio,
    }
    return Report(
        results,
        [
            Goal("max_accuracy_difference", difference, 0.0, at_least=False),
            Goal("time_ratio", ratio, 1.05, at_least=False),
        ],
    )


def _teach(folder: Path, items: pl.DataFrame) -> None:
    """Have a model learn some answers by heart: then it gives each of them to other questions, too."""
    import torch

    model, tokenizer = load(ModelName(str(folder)), folder)
    learnt = items.head(_LEARNT).select("question", "gold").iter_rows()
    texts = [f"Question: {question}\nAnswer: {gold}\n\n" for question, gold in learnt]
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE)
    for step in range(_STEPS):
        batch = [texts[(step * _BATCH + place) % len(texts)] for place in range(_BATCH)]
        tokens = tokenizer(batch, padding=True, return_tensors="pt")
        labels = tokens["input_ids"].masked_fill(tokens["attention_mask"] == 0, -100)
        model(**tokens, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(str(folder))


def _ours(contestant: Contestant, items: pl.DataFrame, root: Path) -> dict[str, float]:
    """Share of right answers by the name that the direct task has."""
    rules = EvaluationRules(chat_template=False, batch_size=_BATCH)
    found = answers_of(
        contestant, items, Storage(root=str(root)), rules=rules, vllm={}, log=lambda line: None
    )
    written = pl.when(pl.col("form") == "generation").then(pl.lit("_written")).otherwise(pl.lit(""))
    scores = found.table.group_by(name=pl.col("task") + written).agg(pl.col("right").mean())
    return dict(scores.iter_rows())


def _direct_tasks(items: pl.DataFrame, folder: Path) -> list[dict[str, Any]]:
    """Our task files over the items as JSON lines."""
    path = folder / "items.jsonl"
    items.select(SHOWN).write_ndjson(path)
    names = [f"{task}{form}" for task in _TASKS for form in ("", "_written")]
    return [{**task_settings()[name], "dataset_kwargs": _local(path)} for name in names]


def _stock_task(items: pl.DataFrame, folder: Path) -> dict[str, Any]:
    """The task that lm-evaluation-harness has, over the items as its data set has them."""
    import lm_eval
    from lm_eval.tasks._yaml_loader import load_yaml

    path = folder / "stock.jsonl"
    items.select(QUESTION="question", CONTEXTS="context", final_decision="gold").write_ndjson(path)
    settings = load_yaml(Path(lm_eval.__file__).parent / "tasks" / "pubmedqa" / "pubmedqa.yaml")
    local = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": _local(path)}
    return {**settings, **local, "training_split": None, "validation_split": None}


def _local(path: Path) -> dict[str, Any]:
    return {"data_files": {"test": str(path)}, "cache_dir": str(path.parent / "cache")}


def _direct(model: Path, tasks: list[dict[str, Any]]) -> dict[str, float]:
    """What `lm_eval.simple_evaluate` makes of the tasks: the score of each."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
        found = simple_evaluate(
            model="hf",
            model_args={"pretrained": str(model), "tokenizer": str(model)},
            tasks=tasks,
            device="cpu",
            batch_size=_BATCH,
            bootstrap_iters=0,
            log_samples=False,
            task_manager=TaskManager(include_defaults=False),
        )
    metrics = {"multiple_choice": "acc,none", "generate_until": "exact_match,decision"}
    return {task["task"]: found["results"][task["task"]][metrics[task["output_type"]]] for task in tasks}
