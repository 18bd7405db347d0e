"""Loading our code location against an empty Dagster project, and what it leaves unimported."""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from benchmarks.report import Goal, Report

RUNS = 7
HEAVY = ("torch", "transformers", "vllm", "lancedb")
VALIDATE = (sys.executable, "-m", "dagster", "definitions", "validate", "--log-level", "error", "-m")


def run() -> Report:
    """CPU seconds of `dagster definitions validate`, in turn for both; medians, and their ratio."""
    seconds: dict[str, list[float]] = {"empty": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "empty_project.py")
        project.write_text("import dagster as dg\n\ndefs = dg.Definitions()\n")
        environment = {
            **os.environ,
            "PYTHONPATH": f"{folder}{os.pathsep}{Path.cwd()}",
            "DAGSTER_HOME": folder,
        }
        Path(folder, "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        modules = {"empty": "empty_project", "ours": "mkailin_assets.definitions"}
        for turn in range(RUNS + 1):
            for name, module in modules.items():
                spent = _cpu_seconds([*VALIDATE, module], environment)
                if turn:  # the first turn writes bytecode
                    seconds[name].append(spent)
        imported = _imported(environment)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = median["ours"] / median["empty"]
    print(f"empty project  {median['empty']:.2f} s CPU")
    print(f"code location  {median['ours']:.2f} s CPU, {ratio:.2f} times the empty one")
    print(f"imported by it: {', '.join(imported) or 'none'} of {', '.join(HEAVY)}")
    return Report(
        results={"seconds": median, "runs": RUNS, "heavy_modules_imported": imported},
        goals=[
            Goal("load_ratio", round(ratio, 3), 1.3, at_least=False),
            Goal("heavy_modules", len(imported), 0, at_least=False),
        ],
    )


def _cpu_seconds(command: list[str], environment: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _imported(environment: dict[str, str]) -> list[str]:
    code = f"""
        import sys
        import mkailin_assets.definitions
        print(" ".join(name for name in {HEAVY!r} if name in sys.modules))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.split()
