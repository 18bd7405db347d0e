"""Tokens a second of our trainings, beside TRL's trainer alone on the same sequences and model.

A small Llama, with sequences of made-up prose: continued pre-training of all its weights on packed texts,
and fine-tuning of an adapter on answers. Both sides take the same steps, look at the held-out split as often,
write as many checkpoints, and do so on one thread. Ours runs the job of the assets: it tells its progress,
lists the files of each checkpoint and looks at all weights for numbers; it keeps the memory that it frees,
and only positions with a label meet the vocabulary. The other is `SFTTrainer` with its arguments and no more.
In turn, CPU seconds, median of the rounds; models are loaded within the time. One round comes before,
unmeasured. `vs_bare` is the lower of the two ratios.
"""

import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.prose import texts
from benchmarks.report import Goal, Report, interleaved_medians
from mkailin_assets import adapters
from mkailin_assets.trainer import one_thread
from mkailin_assets.training.embedded_llama import SMALL
from mkailin_assets.training.job import Job, Result
from mkailin_assets.training.job import run as run_job
from mkailin_assets.training.recipes import STAGES, Kind, Method, recipe_of
from mkailin_assets.training.sequences import encode_corpus
from mkailin_assets.training.tokenizer import corpus_tokenizer
from mkailin_resources.models.model_name import ModelName

_ROWS, _HELD_OUT, _CONTEXT_WORDS, _QUESTION_WORDS = 300, 16, 180, 14
_ROUNDS = 5
_WORK: dict[Kind, Method] = {"pretrained": "full", "finetuned": "lora"}
_STAGE = {"max_length": 512, "max_steps": 6, "batch_size": 8, "epochs": 9, "evaluations": 2}


def run() -> Report:
    """Encode, then train each kind by both in turn."""
    results: dict[str, Any] = {"threads": 1, "rounds": _ROUNDS}
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in _WORK:
            job = _job(kind, Path(folder) / kind)
            contenders: dict[str, Callable[[], object]] = {
                "bare": partial(_bare, job),
                "ours": partial(_ours, job),
            }
            _bare(job)
            tokens = _ours(job).course.tokens
            seconds = interleaved_medians(contenders, _ROUNDS)
            ratios.append(seconds["bare"] / seconds["ours"])
            results |= {f"{kind}_{name}_tokens_per_second": tokens / taken for name, taken in seconds.items()}
            results |= {f"{kind}_vs_bare": ratios[-1], f"{kind}_tokens": tokens}
    return Report(results, [Goal("vs_bare", min(ratios), goal=0.97, at_least=True)])


def _job(kind: Kind, folder: Path) -> Job:
    """A job with its sequences and its base written to `folder`."""
    stage: dict[str, Any] = _STAGE | {"packing": "wrapped" if kind == "pretrained" else "none"}
    given: dict[str, Any] = {
        "name": "embedded",
        "method": _WORK[kind],
        **dict.fromkeys(STAGES.values(), stage),
    }
    recipe = recipe_of(given)
    corpus = _corpus().lazy()
    tokenizer = corpus_tokenizer(corpus, recipe.vocabulary)
    base = folder / "start"
    adapters.write_base(tokenizer, SMALL, recipe.pretraining.max_length, 1, base)
    packing, length = recipe.pretraining.packing, recipe.pretraining.max_length
    encode_corpus(kind, corpus, tokenizer, packing, length, folder / "data")
    return Job(
        kind=kind,
        fingerprint="",
        recipe=recipe,
        start=ModelName(str(base / adapters.BASE)),
        is_random=True,
        tokenizer=base / adapters.BASE,
        length=length,
        data=folder / "data",
        work=folder / "work",
        out=folder / "out",
        tracker="none",
    )


def _corpus() -> pl.DataFrame:
    """The columns of a training corpus that trainings read."""
    context, question, answer = (
        texts(place, _ROWS, words) for place, words in enumerate((_CONTEXT_WORDS, _QUESTION_WORDS, 24))
    )
    asked = pl.format("{}\n\n{}", "context", "question")
    said = [("user", asked), ("assistant", pl.col("answer"))]
    return (
        pl.DataFrame({"context": context, "question": question, "answer": answer})
        .with_row_index("row")
        .select(
            "context",
            example_id=pl.format("{}", "row"),
            split=pl.when(pl.col("row") < _HELD_OUT).then(pl.lit("validation")).otherwise(pl.lit("train")),
            pretraining_text=asked,
            messages=pl.concat_list(pl.struct(role=pl.lit(role), content=text) for role, text in said),
        )
    )


def _ours(job: Job) -> Result:
    for folder in (job.work, job.out):
        shutil.rmtree(folder, ignore_errors=True)
    return run_job(job, lambda line: None)


def _bare(job: Job) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
    from trl import SFTConfig, SFTTrainer

    class Quiet(SFTTrainer):
        def _send_telemetry(self) -> None:
            """It would tell the hub."""

    shutil.rmtree(job.work, ignore_errors=True)
    stage, packs = job.stage, job.stage.packing != "none"
    tuned = job.recipe.method != "full"
    steps = stage.steps(Dataset.load_from_disk(job.data / "train").num_rows)
    with one_thread():
        trainer = Quiet(
            model=AutoModelForCausalLM.from_pretrained(job.start.name, dtype="float32"),
            args=SFTConfig(
                output_dir=str(job.work),
                max_steps=steps,
                per_device_train_batch_size=stage.batch_size,
                per_device_eval_batch_size=stage.batch_size,
                learning_rate=stage.learning_rate,
                lr_scheduler_type="cosine",
                max_length=job.length,
                packing=packs,
                packing_strategy=job.stage.packing if packs else "bfd",
                dataset_kwargs={"skip_prepare_dataset": True},
                train_sampling_strategy="random" if packs else "group_by_length",
                eval_strategy="steps",
                eval_steps=steps // stage.evaluations,
                eval_on_start=True,
                save_steps=stage.checkpoint_steps,
                seed=stage.seed,
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.load_from_disk(job.data / "train"),
            eval_dataset=Dataset.load_from_disk(job.data / "validation"),
            processing_class=AutoTokenizer.from_pretrained(job.tokenizer),
            peft_config=adapters.lora(16, 32, "CAUSAL_LM", base_is_random=True) if tuned else None,
        )
        trainer.remove_callback(PrinterCallback)  # what is printed here is the report
        trainer.train()
        trainer.save_model(str(job.out))
