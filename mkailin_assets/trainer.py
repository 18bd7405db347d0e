"""What the trainings here share: one thread on a CPU, a loss that is told and watched, and its curve."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel


class TrainingDiverged(ArithmeticError):
    """The loss is no longer a number."""


class LossCurve(BaseModel):
    """Optimizer steps and mean losses, in nats: a token of the answer, or a question of a pair."""

    train: list[tuple[int, float]]
    validation: list[tuple[int, float]]


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

    return Watch()


def curve_of(history: list[dict[str, float]], name: str) -> list[tuple[int, float]]:
    """Steps and losses of a trainer's history, `loss` or `eval_loss`."""
    return [(int(entry["step"]), float(entry[name])) for entry in history if name in entry]
