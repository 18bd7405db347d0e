"""What the trainings here share: one thread on a CPU, a loss that is told and watched, and its curve.

A training that was cut off goes on from its last whole checkpoint, on a CPU to the same weights to the bit.
"""

import errno
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from mkailin_resources.training_checkpoints import last_whole, manifest_writer

if TYPE_CHECKING:
    from transformers import TrainerState

_NO_MEMORY = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# torch.save tells of a disk that is full in these words, and without its number.
_NOT_WRITTEN = ("PytorchStreamWriter failed writing", "unexpected pos")


class TrainingDiverged(ArithmeticError):
    """A loss or a weight is no longer a number."""


class OutOfMemory(MemoryError):
    """A training does not fit into memory; the message names the setting that would fit."""


class DiskFull(OSError):
    """A checkpoint could not be saved for want of room; the one before it is kept."""


class OtherProcesses(ValueError):
    """A checkpoint is of a training by more or fewer processes than this one."""


class LossCurve(BaseModel):
    """Optimizer steps and mean losses, in nats: a token of the answer, or a question of a pair."""

    train: list[tuple[int, float]]
    validation: list[tuple[int, float]]


class TrainingCourse(BaseModel):
    """How a training went."""

    steps: int
    kept_step: int | None = Field(
        default=None, description="Step whose weights were kept; None: the last, in records of before"
    )
    resumed_at: int | None = Field(description="Step of the checkpoint it went on from")
    tokens: int = Field(default=0, description="Tokens read, from the first step on; 0: not counted")
    seconds: float = Field(description="Training alone; of a resumed one what was left")
    tokens_per_second: float | None = Field(
        default=None, description="In these seconds, with looks at held-out examples and checkpoints"
    )
    curve: LossCurve


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: more would add in another order, and change the last digits."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def train_to_the_end(trainer: Any, checkpoints: Path, log: Callable[[str], None]) -> TrainingCourse:
    """Run a trainer of transformers to its `max_steps`, and leave its model in evaluation mode.

    `checkpoints` is its `output_dir`, on a local disk, or on one that all machines share; where a kill left a
    whole checkpoint there, the training goes on from it. With an `EarlyStoppingCallback` it may end before;
    with `load_best_model_at_end` (`save_steps` are its `eval_steps` then) the model has the weights of the
    lowest held-out loss. Of several processes (accelerate), all call this, and the first tells `log`.

    Raises `TrainingDiverged` as soon as a loss, or a weight of a checkpoint, is not finite; `OutOfMemory`;
    `DiskFull`; `OtherProcesses`. The last whole checkpoint stays in all of these.
    """
    from accelerate.utils import broadcast_object_list
    from transformers import PrinterCallback
    from transformers.utils import logging

    args = trainer.args
    logging.disable_progress_bar()  # of each file that is written
    trainer.remove_callback(PrinterCallback)
    args.save_total_limit = None  # manifest_writer removes older checkpoints
    if not trainer.is_world_process_zero():
        log = _silent
    found = [last_whole(checkpoints, log) if trainer.is_world_process_zero() else None]
    last = broadcast_object_list(found)[0]
    before = _resume(trainer, last, log) if last else None
    is_over = before is not None and _is_over(before)
    if is_over:
        _take_no_step(trainer)
    else:
        trainer.add_callback(watch(log))  # first: no checkpoint of weights that are no numbers is a whole one
        trainer.add_callback(manifest_writer())
    start = time.perf_counter()
    with (
        enough_memory(partial(_advice, trainer)),
        room_for_files(partial(_lack_of_room, trainer, checkpoints)),
    ):
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    seconds = time.perf_counter() - start
    if before is not None and is_over:
        trainer.state = before
    trainer.model.eval()
    state = trainer.state
    _check_weights(trainer.model, state.global_step, args.learning_rate)
    best = args.load_best_model_at_end and state.best_model_checkpoint
    kept_step = _step(Path(best)) if best else state.global_step
    if kept_step < state.max_steps:
        log(f"ended at step {state.global_step}: the weights of step {kept_step} are kept")
    tokens = int(state.num_input_tokens_seen)
    trained = tokens - (int(before.num_input_tokens_seen) if before else 0)
    return TrainingCourse(
        steps=state.global_step,
        kept_step=kept_step,
        resumed_at=before.global_step if before else None,
        tokens=tokens,
        seconds=seconds,
        tokens_per_second=trained / seconds if trained else None,
        curve=LossCurve(
            train=curve_of(state.log_history, "loss"), validation=curve_of(state.log_history, "eval_loss")
        ),
    )


def watch(log: Callable[[str], None]) -> Any:
    """A callback that tells `log` each loss and raises `TrainingDiverged` where one is no number.

    With a loss of the training it tells the tokens read in a second since the last one (steps, where the
    trainer does not count tokens), looks at held-out examples and checkpoints left out, and the time left.
    """
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        # Seconds and step of the first step here; seconds, step and tokens of the first since the last loss.
        began: tuple[float, int] | None = None
        since: tuple[float, int, int] | None = None

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            now = time.perf_counter()
            self.began = self.began or (now, state.global_step)
            self.since = self.since or (now, state.global_step, state.num_input_tokens_seen)

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            logs = kwargs["logs"]
            for name in ("loss", "eval_loss", "train_loss"):  # the last is the mean over all steps
                if name in logs:
                    pace = self.pace(state) if name == "loss" else ""
                    log(f"step {state.global_step} of {state.max_steps}: {name} {logs[name]:.3f}{pace}")
                    if not math.isfinite(logs[name]):
                        raise TrainingDiverged(
                            f"training stopped at step {state.global_step}: {name} is {logs[name]}; "
                            f"lower learning_rate (it is {args.learning_rate:g})"
                        )
            self.since = None

        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.since = None

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.since = None
            _check_weights(kwargs["model"], state.global_step, args.learning_rate)

        def pace(self, state: Any) -> str:
            if not self.began or not self.since:
                return ""
            now, step = time.perf_counter(), state.global_step
            then, first, tokens = self.since
            read = state.num_input_tokens_seen - tokens
            fast = (
                f"{read / (now - then):,.0f} tokens/s"
                if read
                else f"{(step - first) / (now - then):,.2f} steps/s"
            )
            left = (now - self.began[0]) / (step - self.began[1]) * (state.max_steps - step)
            return f", {fast}, {_time(left)} left" if step < state.max_steps else f", {fast}"

    return Watch()


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def _silent(line: str) -> None:
    """What the other processes of a training tell: the first tells the same."""


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _resume(trainer: Any, last: Path, log: Callable[[str], None]) -> "TrainerState":
    """Prepare a trainer to go on from a checkpoint; the state that the checkpoint has."""
    from transformers import TrainerState

    processes = max(1, len(list(last.glob("rng_state_*.pth"))))
    if processes != trainer.args.world_size:
        raise OtherProcesses(
            f"{last}: {processes} processes trained it and this run has {trainer.args.world_size}, whose "
            f"optimizer steps are of another size: train with {processes}, or remove {last.parent} to "
            "start anew"
        )
    log(f"goes on from {last.name}")
    trainer.args.eval_on_start = False
    # Among them the count of looks without improvement.
    trainer.args.restore_callback_states_from_checkpoint = True
    return TrainerState.load_from_json(str(last / "trainer_state.json"))


def _is_over(state: "TrainerState") -> bool:
    """Whether the training of a state was to take no other step: it had taken all, or stopped early."""
    callbacks: Any = state.stateful_callbacks
    return bool(callbacks["TrainerControl"]["args"]["should_training_stop"])


def _take_no_step(trainer: Any) -> None:
    """Let `train` load the weights to keep, and no more: transformers 5.19 would take another step."""
    from transformers.integrations import get_reporting_integration_callbacks

    trainer.args.max_steps, trainer.args.num_train_epochs = -1, 0
    for tracker in get_reporting_integration_callbacks(trainer.args.report_to):
        trainer.remove_callback(tracker)  # a second run without a loss


@contextmanager
def enough_memory(told: Callable[[str], str]) -> Iterator[None]:
    """Within it a want of memory is `OutOfMemory`, with what `told` makes of what torch said."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
            raise OutOfMemory(told(str(error))) from error
        raise


@contextmanager
def room_for_files(told: Callable[[str], str]) -> Iterator[None]:
    """Within it a want of room for files is `DiskFull`, with what `told` makes of what the system said."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if reason := _no_room(error):
            raise DiskFull(told(reason)) from error
        raise


def _advice(trainer: Any, said: str) -> str:
    """What to change so that a training fits into memory."""
    args, step = trainer.args, trainer.state.global_step + 1
    found = f"out of memory at step {step} of {args.max_steps}{asked_for(said)}"
    batch = args.per_device_train_batch_size
    accumulation = args.gradient_accumulation_steps * args.world_size  # of a recipe, which processes share
    if batch > 1:
        part = next(factor for factor in range(2, batch + 1) if batch % factor == 0)
        return (
            f"{found}: take batch_size {batch // part} and accumulation {accumulation * part}, for the same "
            "optimizer step"
        )
    max_length = getattr(args, "max_length", None)
    ways = [f"max_length {max_length // 2} (it is {max_length})"] if max_length else []
    if args.device.type != "cpu":
        ways += [] if args.gradient_checkpointing else ["gradient_checkpointing true"]
        if not hasattr(trainer.model, "peft_config"):
            ways.append("method lora, which trains adapters alone")
        elif not getattr(trainer.model, "is_loaded_in_4bit", False):
            ways.append("method qlora, which holds the base in 4 bits")
    return f"{found}: batch_size is 1 already, take {', or '.join([*ways, 'a smaller base'])}"


def asked_for(said: str) -> str:
    """How much memory torch had asked for, where it says so, as the end of a sentence."""
    asked = re.search(r"allocate ([\d.]+ [KMG]iB|\d+ bytes)", said)
    return f", which asked for {asked[1]}" if asked else ""


def _no_room(error: Exception) -> str:
    """What the system says of a file that could not be written for want of room; empty for other errors."""
    numbers = re.findall(r"os error (\d+)", str(error))  # of safetensors
    number = error.errno if isinstance(error, OSError) else int(numbers[0]) if numbers else None
    if number in _NO_ROOM:
        return os.strerror(number)
    return "its file was not written" if any(words in str(error) for words in _NOT_WRITTEN) else ""


def _lack_of_room(trainer: Any, checkpoints: Path, reason: str) -> str:
    lost = not_saved(checkpoints, f"checkpoint-{trainer.state.global_step}", reason)
    # Removes what was half written.
    kept = last_whole(checkpoints, _silent) if trainer.is_world_process_zero() else None
    goes_on = f"{kept.name} is kept, and" if kept else "what is whole is kept, and"
    return f"{lost}: {goes_on} the same run goes on from it once there is room"


def not_saved(folder: Path, what: str, reason: str) -> str:
    """The beginning of a message about files that a folder had no room for."""
    free = shutil.disk_usage(folder).free
    return f"{folder}: {what} could not be saved ({reason}), where {free / 1e9:,.1f} GB were free"


def _check_weights(model: Any, step: int, learning_rate: float) -> None:
    if not all(bool(weights.isfinite().all()) for weights in model.parameters()):
        raise TrainingDiverged(
            f"training stopped at step {step}: weights are not finite; lower learning_rate (it is "
            f"{learning_rate:g})"
        )


def curve_of(history: list[dict[str, float]], name: str) -> list[tuple[int, float]]:
    """Steps and losses of a trainer's history, `loss` or `eval_loss`."""
    return [(int(entry["step"]), float(entry[name])) for entry in history if name in entry]
