"""What the trainings here share: one thread on a CPU, a loss that is told and watched, and its curve.

A training that was cut off goes on from its last whole checkpoint, on a CPU to the same weights to the bit.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from mkailin_resources.training_checkpoints import last_whole, manifest_writer


class TrainingDiverged(ArithmeticError):
    """A loss or a weight is no longer a number."""


class LossCurve(BaseModel):
    """Optimizer steps and mean losses, in nats: a token of the answer, or a question of a pair."""

    train: list[tuple[int, float]]
    validation: list[tuple[int, float]]


class TrainingCourse(BaseModel):
    """How a training went."""

    steps: int
    resumed_at: int | None = Field(description="Step of the checkpoint it went on from")
    seconds: float = Field(description="Training alone; of a resumed one what was left")
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

    `checkpoints` is its `output_dir`, on a local disk; where a kill left a whole checkpoint there, the
    training goes on from it. Its `save_total_limit` is 2 at least. Raises `TrainingDiverged` as soon as a
    loss, or a weight of a checkpoint, is not finite; the checkpoint before stays.
    """
    from transformers import PrinterCallback, TrainerState
    from transformers.utils import logging

    logging.disable_progress_bar()  # of each file that is written
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(watch(log))  # first: no checkpoint of weights that are no numbers is a whole one
    trainer.add_callback(manifest_writer())
    last = last_whole(checkpoints, log)
    step = int(last.name.rpartition("-")[2]) if last else None
    if last:
        log(f"goes on from {last.name}")
        trainer.args.eval_on_start = False
    start = time.perf_counter()
    if last and step == trainer.args.max_steps:
        # Transformers 5.19 would take another step.
        trainer._load_from_checkpoint(str(last))
        trainer.state = TrainerState.load_from_json(str(last / "trainer_state.json"))
    else:
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    seconds = time.perf_counter() - start
    trainer.model.eval()
    _check_weights(trainer.model, trainer.state.global_step, trainer.args.learning_rate)
    history = trainer.state.log_history
    return TrainingCourse(
        steps=trainer.state.global_step,
        resumed_at=step,
        seconds=seconds,
        curve=LossCurve(train=curve_of(history, "loss"), validation=curve_of(history, "eval_loss")),
    )


def watch(log: Callable[[str], None]) -> Any:
    """A callback that tells `log` each loss and raises `TrainingDiverged` where one is no number."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            logs = kwargs["logs"]
            for name in ("loss", "eval_loss", "train_loss"):  # the last is the mean over all steps
                if name in logs:
                    log(f"step {state.global_step} of {state.max_steps}: {name} {logs[name]:.3f}")
                    if not math.isfinite(logs[name]):
                        raise TrainingDiverged(
                            f"fine-tuning stopped at step {state.global_step}: {name} is {logs[name]}; "
                            f"lower learning_rate (it is {args.learning_rate:g})"
                        )

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            _check_weights(kwargs["model"], state.global_step, args.learning_rate)

    return Watch()


def _check_weights(model: Any, step: int, learning_rate: float) -> None:
    if not all(bool(weights.isfinite().all()) for weights in model.parameters()):
        raise TrainingDiverged(
            f"fine-tuning stopped at step {step}: weights are not finite; lower learning_rate (it is "
            f"{learning_rate:g})"
        )


def curve_of(history: list[dict[str, float]], name: str) -> list[tuple[int, float]]:
    """Steps and losses of a trainer's history, `loss` or `eval_loss`."""
    return [(int(entry["step"]), float(entry[name])) for entry in history if name in entry]
