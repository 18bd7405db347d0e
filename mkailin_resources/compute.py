"""Where trainings run, in this process or in several that accelerate starts, and where their course is kept.

`python -m mkailin_resources.compute MODULE ARGUMENT...` is `python -m MODULE ARGUMENT...` in a process that
ends with the one that started it. `Compute.launch` starts accelerate by it, and accelerate the training.
"""

import ctypes
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

Tracker = Literal["none", "mlflow", "wandb"]
NAME = "mkailin"  # of the experiment (MLflow) or project (Weights & Biases)
_PARENT = "MKAILIN_PARENT"
_ERROR = "error in a process of the training: "
# What accelerate raises where one of its processes has failed and told why.
_OF_CHILDREN = ("ChildFailedError", "CalledProcessError")
_LINES = 30


class ComputeUnavailable(RuntimeError):
    """What a training is to run on, or to be tracked by, is missing."""


class LaunchFailed(RuntimeError):
    """A training in several processes failed; the message ends with the last lines they wrote."""


@dataclass(frozen=True)
class Compute:
    """How a training runs and who keeps its course.

    `accelerate`: path of a configuration of accelerate; empty: in this process. `tracker` writes files to the
    folder `tracking`, and calls nobody.
    """

    accelerate: str = ""
    tracker: Tracker = "none"
    tracking: str = ""

    def check(self) -> None:
        """Raise `ComputeUnavailable` where the configuration or a package is missing; quick."""
        if self.accelerate and not Path(self.accelerate).is_file():
            raise ComputeUnavailable(
                f"{self.accelerate}: there is no such configuration of accelerate; take one of "
                "deploy/accelerate/, or write one with `accelerate config --config_file FILE`"
            )
        if self.accelerate and not find_spec("accelerate"):
            raise ComputeUnavailable("accelerate is not installed: pip install 'mkailin[train]'")
        if self.tracker == "none":
            return
        found = find_spec(self.tracker)
        if not found or not found.origin:  # a folder of that name, where runs were written, is no package
            raise ComputeUnavailable(f"{self.tracker} is not installed: pip install 'mkailin[trackers]'")
        if not self.tracking:
            raise ComputeUnavailable(f"{self.tracker} keeps the course of trainings: give it a folder")

    def environment(self) -> dict[str, str]:
        """Variables under which the tracker writes to `tracking`, and calls nobody."""
        folder = Path(self.tracking).absolute()
        match self.tracker:
            case "none":
                return {}
            case "mlflow":
                return {
                    "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
                    "MLFLOW_EXPERIMENT_NAME": NAME,
                    "MLFLOW_DISABLE_TELEMETRY": "true",
                    "HF_MLFLOW_LOG_ARTIFACTS": "false",
                    "DISABLE_MLFLOW_INTEGRATION": "false",
                }
            case "wandb":
                folders = ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR")
                return {
                    "WANDB_MODE": "offline",
                    "WANDB_PROJECT": NAME,
                    "WANDB_DISABLED": "false",
                    "WANDB_SILENT": "true",
                    "WANDB_CONSOLE": "off",
                    "WANDB_DISABLE_GIT": "true",
                    "WANDB_DISABLE_CODE": "true",
                    "WANDB_ERROR_REPORTING": "false",
                    "WANDB_LOG_MODEL": "false",
                    **dict.fromkeys(folders, str(folder)),
                }

    @contextmanager
    def tracked(self) -> Iterator[None]:
        """Within it a training in this process is tracked, as one run."""
        if self.tracking:
            Path(self.tracking).mkdir(parents=True, exist_ok=True)
        before = {name: os.environ.get(name) for name in self.environment()}
        os.environ.update(self.environment())
        try:
            yield
        finally:
            if self.tracker == "wandb":
                import wandb

                wandb.finish()  # transformers 5.19 would go on with the same run in the next training
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value

    def launch(self, module: str, argument: str, log: Callable[[str], None]) -> None:
        """Run `python -m module argument` in the processes of the accelerate configuration, on this machine.

        Each line they write is told to `log`. Raises `LaunchFailed`. They end with this process, however it
        ends (on Linux), and where `log` raises.
        """
        if self.tracking:
            Path(self.tracking).mkdir(parents=True, exist_ok=True)
        own = ("-m", __name__)
        options = ("--config_file", self.accelerate)
        last: deque[str] = deque(maxlen=_LINES)
        failure = ""
        with subprocess.Popen(
            [sys.executable, *own, "accelerate.commands.launch", *options, *own, module, argument],
            env=os.environ | self.environment() | {"PYTHONUNBUFFERED": "1", _PARENT: str(os.getpid())},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            try:
                for line in map(str.rstrip, process.stdout):
                    log(line)
                    if line.startswith(_ERROR) and not failure:
                        failure = "\n".join([line.removeprefix(_ERROR), *last])
                    last.append(line)
                code = process.wait()
            finally:
                process.kill()
        if code:
            killed = any("SIGKILL" in line for line in last)
            guess = "a process was killed, as the system does where memory runs out" if killed else ""
            failure = failure or "\n".join([guess or f"accelerate ended with {code}", *last])
            raise LaunchFailed(f"{module} {argument}: {failure}")


def _run_until_the_parent_ends(module: str, arguments: list[str]) -> None:
    """Run a module as `python -m` does, in this process."""
    parent = int(os.environ[_PARENT])
    if sys.platform == "linux":
        set_signal_of_the_parents_death = 1
        ctypes.CDLL(None).prctl(set_signal_of_the_parents_death, signal.SIGKILL)
        os.kill(parent, 0)  # raises where it has ended already
    os.environ[_PARENT] = str(os.getpid())
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except Exception as error:
        told = f"{traceback.format_exc()}{_ERROR}{' '.join(str(error).split())}\n"
        # At once, so that nothing of another process is between the lines.
        sys.stderr.write(f"{error}\n" if type(error).__name__ in _OF_CHILDREN else told)
        raise SystemExit(1) from error


if __name__ == "__main__":
    _run_until_the_parent_ends(sys.argv[1], sys.argv[2:])
