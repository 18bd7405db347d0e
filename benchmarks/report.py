"""The shape all benchmarks share: goals, facts of the machine, fair timing, and how a report is printed."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Goal:
    """One measured value against the value promised for it."""

    key: str
    value: float
    goal: float
    at_least: bool  # True: the value should reach the goal; False: it should stay at or below it

    @property
    def met(self) -> bool:
        """Whether the promise holds."""
        return self.value >= self.goal if self.at_least else self.value <= self.goal


@dataclass(frozen=True)
class Report:
    """What a benchmark's `run()` returns; the results are whatever JSON can hold."""

    results: dict[str, Any]
    goals: list[Goal]


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds this process spends on the work; neighbours on the machine do not count."""
    started = time.process_time()
    work()
    return time.process_time() - started


def interleaved_medians(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int = 5,
    seconds: Callable[[Callable[[], object]], float] = cpu_seconds,
) -> dict[str, float]:
    """Median seconds of each contender, run in turn so that a slow spell of the machine meets them all.

    `seconds` measures one call: CPU time of this process unless told (a contender that works in a child
    process needs its own). Warm up before: compilation is not timed here.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            times[name].append(seconds(work))
    return {name: statistics.median(taken) for name, taken in times.items()}


def peak_megabytes() -> float:
    """The most memory this process has held; what `getrusage` says counts from the parent's peak."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM"))


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
            return next(models, platform.processor())
    except FileNotFoundError:
        return platform.processor()


def print_report(name: str, report: Report) -> None:
    """Results and goals for a person, then all of it as one line of JSON, the last."""
    facts = machine()
    print(f"{name} on {facts['processor']}, {facts['cores']} cores, Python {facts['python']}\n")
    for key, value in report.results.items():
        print(f"  {key}: {_readable(value)}")
    print()
    for goal in report.goals:
        wanted = f"{'at least' if goal.at_least else 'at most'} {_readable(goal.goal)}"
        print(f"  {goal.key}: {_readable(goal.value)} (goal: {wanted}) {'met' if goal.met else 'NOT MET'}")
    print()
    goals = {
        goal.key: {"value": goal.value, "goal": goal.goal, "at_least": goal.at_least, "met": goal.met}
        for goal in report.goals
    }
    print(
        json.dumps({"benchmark": name, "machine": facts, "results": report.results, "goals": goals}),
        flush=True,
    )


def _readable(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
