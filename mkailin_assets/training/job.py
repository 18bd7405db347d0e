"""Trainings on the corpus: continued pre-training and fine-tuning, by TRL and PEFT.

A training is a `Job`: what its process needs and nothing else, so that it runs in this process or, by
`python -m mkailin_assets.training.job JOB.json`, in each of those that `accelerate launch` starts.
"""

import gc
import math
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
from pydantic import BaseModel, Field

from mkailin_assets import adapters
from mkailin_assets.adapters import ADAPTER, BASE, MODEL
from mkailin_assets.corpus.recalls import trained_on
from mkailin_assets.trainer import (
    TrainingCourse,
    asked_for,
    enough_memory,
    not_saved,
    one_thread,
    room_for_files,
    train_to_the_end,
)
from mkailin_assets.training.card import CARD, model_card
from mkailin_assets.training.checkpoints import (
    RECIPE,
    Template,
    TrainingRecord,
    check_base,
    checked,
    fingerprint,
    positions,
    read_record,
    tokenizer_folder,
)
from mkailin_assets.training.embedded_llama import SMALL
from mkailin_assets.training.recipes import STAGES, Kind, Recipe, Stage
from mkailin_assets.training.sequences import encode_corpus, read_split
from mkailin_assets.training.tokenizer import PLAIN_TEMPLATE, corpus_tokenizer, tokenizer_sha256
from mkailin_resources.compute import Compute, Tracker
from mkailin_resources.models import model_files
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.training_checkpoints import sha256

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

Log = Callable[[str], None]


class CannotTrain(ValueError):
    """What a recipe asks for cannot be done here, or not from where it starts."""


class Job(BaseModel):
    """A training: what its process needs."""

    kind: Kind
    fingerprint: str
    recipe: Recipe
    start: ModelName = Field(description="Where the weights begin: a base, with or without an adapter")
    is_random: bool = Field(description="Whether these are random, so that embeddings are trained in full")
    tokenizer: Path = Field(description="Folder of the tokenizer")
    length: int = Field(description="Tokens of a sequence")
    data: Path = Field(description="Folder of encoded sequences")
    work: Path = Field(description="Folder that outlives a kill, with the checkpoints to go on from")
    out: Path = Field(description="Folder of the checkpoint to make")
    tracker: Tracker

    @property
    def stage(self) -> Stage:
        """The settings of the training."""
        stage: Stage = getattr(self.recipe, STAGES[self.kind])
        return stage


class Result(BaseModel):
    """What came of a job."""

    course: TrainingCourse
    parameters: int
    trained_parameters: int
    processes: int


def train(  # noqa: PLR0917
    kind: Kind,
    corpus: pl.LazyFrame,
    recipe: Recipe,
    start: Path | None,
    folder: Path,
    work: Path,
    compute: Compute,
    log: Log,
) -> TrainingRecord:
    """Train on a TrainingExample table: on its texts (pretrained) or on its answers (finetuned).

    `start` is the folder of the checkpoint to go on from; None: the recipe's base. `folder` is empty and
    gets the checkpoint. `work` is a local folder that outlives the process: called again with the same input
    after a kill, the training goes on from its last whole checkpoint and, on a CPU, comes to the same weights
    to the bit. Whoever publishes `folder` removes what is in `work`.

    Raises `TooFewExamples`, `CannotTrain`, `OtherBase`, `CheckpointError`, `UntrainableBase`,
    `ModelUnavailable`; and what `train_to_the_end` raises.
    """
    name = fingerprint(kind, corpus, recipe, read_record(start).fingerprint if start else "")
    work = work / name
    work.mkdir(parents=True, exist_ok=True)
    stage: Stage = getattr(recipe, STAGES[kind])
    _check_method(recipe)
    begun = _go_on(start, recipe, folder) if start else _begin(corpus, recipe, stage, folder)
    tokenizer, template = begun.tokenizer, begun.template
    if template == "plain":
        log("the base has no chat template: its tokenizer gets a plain one of ours")
    length = adapters.window(_config(begun.model), stage)
    encoded = encode_corpus(kind, corpus, tokenizer, stage.packing, length, work / "data")
    log(
        f"{encoded.examples} examples in {encoded.sequences} sequences of up to {length} tokens, "
        f"{encoded.validation_examples} held out, {sum(encoded.left_out.values())} left out"
    )
    if stage.patience and not encoded.validation_examples:
        log("no example is held out: it trains to the end, patience has nothing to look at")
    written = folder / (MODEL if recipe.method == "full" else ADAPTER)
    tokenizer.save_pretrained(written)
    job = Job(
        kind=kind,
        fingerprint=name,
        recipe=recipe,
        start=begun.model,
        is_random=not recipe.base and start is None,
        tokenizer=written,
        length=length,
        data=work / "data",
        work=work,
        out=folder,
        tracker=compute.tracker,
    )
    if compute.accelerate:
        result = _launched(job, compute, log)
    else:
        with compute.tracked():
            result = run(job, log)
    record = TrainingRecord(
        name=kind,
        fingerprint=name,
        recipe=RECIPE,
        base=begun.base,
        revision=begun.revision,
        packages=adapters.packages(),
        sha256=adapters.files_of(folder),
        **dict(result),
        data_fingerprint=trained_on(corpus),
        recipe_name=recipe.name,
        started_from=begun.started_from,
        method=recipe.method,
        settings=stage,
        lora_rank=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        **encoded.model_dump(exclude={"sequences"}),
        tokenizer_sha256=tokenizer_sha256(tokenizer),
        template=template,
    )
    (folder / CARD).write_text(model_card(record), encoding="utf-8")
    record.sha256[CARD] = sha256(folder / CARD)
    adapters.write_record(record, folder)
    return record


class _Start(NamedTuple):
    """Where a training begins."""

    model: ModelName
    tokenizer: "PreTrainedTokenizerFast"
    template: Template
    base: str
    revision: str
    started_from: str


def _check_method(recipe: Recipe) -> None:
    if recipe.method == "qlora" and not adapters.can_hold_in_4_bits():
        raise CannotTrain(
            f"recipe {recipe.name}, method qlora: it holds the base in 4 bits, which needs a GPU and "
            "bitsandbytes (pip install 'mkailin[gpu]'); set method to lora"
        )


def _begin(corpus: pl.LazyFrame, recipe: Recipe, stage: Stage, folder: Path) -> _Start:
    """The recipe's base; a small Llama is made, and written to `base/` of the checkpoint."""
    if recipe.base:
        model = ModelName.parse(recipe.base)
        base, revision = model.name, model_files.identity(model)[1]
    else:
        learnt = corpus_tokenizer(corpus, recipe.vocabulary)
        adapters.write_base(learnt, SMALL, positions(recipe), stage.seed, folder)
        model, base, revision = ModelName(str(folder / BASE)), "", ""
    tokenizer = adapters.load_tokenizer(model)
    template: Template = "own" if tokenizer.chat_template else "plain"
    if template == "plain":
        tokenizer.chat_template = PLAIN_TEMPLATE
    return _Start(model, tokenizer, template, base, revision, "")


def _go_on(start: Path, recipe: Recipe, folder: Path) -> _Start:
    """The model of a checkpoint; what an adapter sits on is copied to `base/` of the new one.

    All weights are trained on as they are, those of an adapter within its base. An adapter is trained on as
    one; over a model that was trained whole comes a new one.
    """
    record, model = checked(start), adapters.model_of(start)
    check_base(recipe, record)
    if recipe.method != "full":
        if model.adapter:
            _check_rank(record, recipe)
        own = start / (BASE if model.adapter else MODEL)
        if own.is_dir():
            shutil.copytree(own, folder / BASE)
            model = replace(model, name=str(folder / BASE))
    tokenizer = adapters.load_tokenizer(ModelName(str(tokenizer_folder(start))))
    return _Start(model, tokenizer, record.template, record.base, record.revision, record.fingerprint)


def _check_rank(record: TrainingRecord, recipe: Recipe) -> None:
    has, asked = (record.lora_rank, record.lora_alpha), (recipe.lora_rank, recipe.lora_alpha)
    if has != asked:
        raise CannotTrain(
            f"recipe {recipe.name}: lora_rank and lora_alpha are {asked[0]} and {asked[1]}, but the adapter "
            f"that is trained on has {has[0]} and {has[1]}; give both trainings the same"
        )


def _config(model: ModelName) -> "PretrainedConfig":
    from transformers import AutoConfig

    revision = model_files.commit(model)
    try:
        return AutoConfig.from_pretrained(model.name, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise model_files.unavailable(model, error) from error


def _launched(job: Job, compute: Compute, log: Log) -> Result:
    file = job.work / "job.json"
    file.write_text(job.model_dump_json(indent=2))
    compute.launch("mkailin_assets.training.job", str(file), log)
    return Result.model_validate_json((job.work / "result.json").read_text())


def run(job: Job, log: Log) -> Result:
    """Train, in this process or in each of several, and write weights to `model/` or `adapter/`."""
    import torch

    with one_thread(), adapters.kept_memory(), adapters.labels_alone():
        with enough_memory(partial(_too_large, job.recipe)):
            trainer = make_trainer(job)
        trained, parameters = _counted(trainer.model)
        course = train_to_the_end(trainer, job.work / "checkpoints", log)
    with room_for_files(partial(_no_room_in, job.out)):
        if job.recipe.method == "full":
            trainer.save_model(str(job.out / MODEL))
        else:
            adapters.name_base(trainer.model, job.start, job.out)
            trainer.save_model(str(job.out / ADAPTER))
    processes = trainer.accelerator.num_processes
    del trainer
    gc.collect()
    torch.cuda.empty_cache()
    return Result(course=course, parameters=parameters, trained_parameters=trained, processes=processes)


def _too_large(recipe: Recipe, said: str) -> str:
    """What to change so that a base fits into memory."""
    import torch

    ways = ["method lora, which trains adapters alone"] if recipe.method == "full" else []
    if torch.cuda.is_available():
        ways += ["method qlora"] if recipe.method == "lora" else []
        ways.append("MKAILIN_ACCELERATE with a configuration of FSDP, which shares the base among GPUs")
    return (
        f"out of memory with the weights of {recipe.base or 'the small Llama'} alone{asked_for(said)}: take "
        f"{', or '.join([*ways, 'a smaller base'])}"
    )


def _no_room_in(folder: Path, reason: str) -> str:
    return (
        f"{not_saved(folder, 'the trained weights', reason)}: the same run goes on from its last checkpoint "
        "once there is room"
    )


def make_trainer(job: Job) -> Any:
    """TRL's trainer of a job: base or adapter, sequences and arguments."""
    import torch
    from transformers import EarlyStoppingCallback
    from trl import SFTConfig, SFTTrainer

    stage, held_out, train = job.stage, read_split(job.data, "validation"), read_split(job.data, "train")
    assert train is not None  # encode_corpus refuses a corpus without
    packs = stage.packing != "none"
    watched = held_out.num_rows if held_out else 0
    given = adapters.arguments(stage, train.num_rows, watched, job.work / "checkpoints")
    given |= _shares(stage, int(os.environ.get("WORLD_SIZE", "1")))
    looks = math.ceil(given["max_steps"] / stage.evaluations)
    callbacks: list[Any] = []
    if stage.patience and held_out:
        callbacks = [EarlyStoppingCallback(stage.patience), _save_between_looks(stage.checkpoint_steps)]
        given |= {"load_best_model_at_end": True, "metric_for_best_model": "loss", "save_steps": looks}
    given |= {
        "max_length": job.length,
        "packing": packs,
        "packing_strategy": stage.packing if packs else "bfd",
        # Encoded already; TRL's own preparation drops an example whose answer its truncation cut off.
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "train_sampling_strategy": "random" if packs else "group_by_length",
        "include_num_input_tokens_seen": "all" if packs else "non_padding",
        "gradient_checkpointing": torch.cuda.is_available() and job.recipe.gradient_checkpointing,
        "eval_steps": looks,
        "ddp_find_unused_parameters": False,
        "report_to": [job.tracker],
        "run_name": f"{job.kind}-{job.fingerprint[:8]}",
    }
    arguments = SFTConfig(**given)  # first: by it a process finds its GPU and the others
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # else each takes a batch of its own, and the optimizer step is another one
    return adapters.own_trainer(SFTTrainer)(
        model=load_start(job),
        args=arguments,
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=adapters.load_tokenizer(ModelName(str(job.tokenizer))),
        peft_config=None if job.recipe.method == "full" or job.start.adapter else _new_adapter(job),
        callbacks=callbacks,
    )


def _shares(stage: Stage, processes: int) -> dict[str, int]:
    """Batch and accumulation of each of several processes, so that an optimizer step stays the recipe's."""
    batch, accumulation = stage.batch_size, stage.accumulation
    if batch * accumulation % processes:
        raise CannotTrain(
            f"{processes} processes cannot share an optimizer step of {batch * accumulation} sequences "
            f"(batch_size {batch}, accumulation {accumulation}): make it a multiple of {processes}"
        )
    shared = math.gcd(accumulation, processes)
    accumulation, batch = accumulation // shared, batch // (processes // shared)
    return {
        "per_device_train_batch_size": batch,
        "per_device_eval_batch_size": batch,
        "gradient_accumulation_steps": accumulation,
    }


def _save_between_looks(steps: int) -> Any:
    """A callback that saves as often as a training asks for whose trainer saves after each look."""
    from transformers import TrainerCallback

    class Saving(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_save = control.should_save or state.global_step % steps == 0

    return Saving()


def load_start(job: Job) -> "PreTrainedModel | PeftModel":
    """The weights that a job begins with; an adapter that is not to be trained on is within its base."""
    import torch
    from peft import PeftModel

    whole, seed = job.recipe.method == "full", job.stage.seed
    # Steps of a small learning rate are lost in the rounding of bfloat16.
    dtype = torch.float32 if whole else None
    base = replace(job.start, adapter="")
    network: Any = adapters.load_base(base, "CAUSAL_LM", seed, job.recipe.method == "qlora", dtype)
    if not job.start.adapter:
        return network
    network = PeftModel.from_pretrained(network, job.start.adapter, is_trainable=not whole)
    return network.merge_and_unload().requires_grad_(True) if whole else network


def _new_adapter(job: Job) -> Any:
    return adapters.lora(job.recipe.lora_rank, job.recipe.lora_alpha, "CAUSAL_LM", job.is_random)


def _counted(model: Any) -> tuple[int, int]:
    """Parameters that are trained, and all."""
    if hasattr(model, "get_nb_trainable_parameters"):
        trained, parameters = model.get_nb_trainable_parameters()
        return trained, parameters
    return model.num_parameters(only_trainable=True), model.num_parameters()


def main() -> None:
    """Run the job of a file, as one of the processes that train together."""
    job = Job.model_validate_json(Path(sys.argv[1]).read_text())
    result = run(job, lambda line: print(line, flush=True))
    if os.environ.get("RANK", "0") == "0":
        (job.work / "result.json").write_text(result.model_dump_json())


if __name__ == "__main__":
    main()
