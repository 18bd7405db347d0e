"""Loading our code location against an empty Dagster project, and what it leaves unimported.

The empty project is the one Dagster scaffolds: a definitions module that loads a folder of definitions, and
nothing in the folder. The ratio to a module with a bare `Definitions()` is reported beside it.
"""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.report import Goal, Report, interleaved_medians

ROUNDS = 7
HEAVY = ("torch", "transformers", "vllm", "lancedb")
VALIDATE = (sys.executable, "-m", "dagster", "definitions", "validate", "--log-level", "error", "-m")
SCAFFOLD = """
from pathlib import Path

import dagster as dg


@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
PROJECT = """
[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "empty_project"
"""
BARE = "import dagster as dg\n\ndefs = dg.Definitions()\n"
IMPORTED = f"import sys, mkailin_assets.definitions; print(*[m for m in {HEAVY!r} if m in sys.modules])"


def run() -> Report:
    """CPU seconds of `dagster definitions validate`, in turn for both; medians, and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        _write_projects(Path(folder))
        environment = {
            **os.environ,
            "PYTHONPATH": f"{folder}{os.pathsep}{Path.cwd()}",
            "DAGSTER_HOME": folder,
        }
        finish = partial(subprocess.run, env=environment, check=True, capture_output=True, text=True)
        contenders = {
            "empty project": partial(finish, [*VALIDATE, "empty_project.definitions"]),
            "bare module": partial(finish, [*VALIDATE, "bare_module"]),
            "code location": partial(finish, [*VALIDATE, "mkailin_assets.definitions"]),
        }
        for load in contenders.values():  # the first call writes bytecode
            load()
        seconds = interleaved_medians(contenders, ROUNDS, _cpu_seconds_of_children)
        imported = finish([sys.executable, "-c", IMPORTED]).stdout.split()
    ratio = seconds["code location"] / seconds["empty project"]
    to_bare = seconds["code location"] / seconds["bare module"]
    for name, taken in seconds.items():
        print(f"{name:<14} {taken:.2f} s CPU")
    print(f"ratio          {ratio:.2f} to the empty project, {to_bare:.2f} to the bare module")
    print(f"imported by it {', '.join(imported) or 'none'} of {', '.join(HEAVY)}")
    return Report(
        results={
            "cpu_seconds": seconds,
            "rounds": ROUNDS,
            "ratio_to_bare_module": round(to_bare, 3),
            "heavy_modules_imported": imported,
        },
        goals=[
            Goal("load_ratio", round(ratio, 3), 1.3, at_least=False),
            Goal("heavy_modules", len(imported), 0, at_least=False),
        ],
    )


def _write_projects(folder: Path) -> None:
    Path(folder, "empty_project", "defs").mkdir(parents=True)
    for package in ("empty_project", "empty_project/defs"):
        Path(folder, package, "__init__.py").touch()
    Path(folder, "empty_project", "definitions.py").write_text(SCAFFOLD)
    Path(folder, "pyproject.toml").write_text(PROJECT)
    Path(folder, "bare_module.py").write_text(BARE)
    Path(folder, "dagster.yaml").write_text("telemetry:\n  enabled: false\n")


def _cpu_seconds_of_children(work: Callable[[], object]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
