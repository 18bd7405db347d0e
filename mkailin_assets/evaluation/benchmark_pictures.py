"""The scores as pictures: accuracy beside the baselines, PubMedQA's cohorts, bits a byte of held-out text.

A model has its colour and its mark in all of them; colours are those of Okabe and Ito, which the colour-blind
tell apart, too.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from mkailin_assets.evaluation.cohorts import ALL, CHRONO, MESH
from mkailin_assets.evaluation.scores import MMLU, MODELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Looks = Mapping[str, tuple[str, str]]
_NAMES = {
    "base": "base",
    "pretrained": "pre-trained",
    "finetuned": "fine-tuned",
    "random": "by chance",
    "majority": "most frequent",
    "human": "one person",
}
TASKS = {
    "corpus_text": "Held-out corpus: texts",
    "corpus_answer": "Held-out corpus: answers",
    "corpus_decision": "Held-out corpus: yes, no or maybe",
    "pubmedqa_reasoning_required": "PubMedQA, with the abstract",
    "pubmedqa_question_only": "PubMedQA, question only",
    "bioasq_yesno": "BioASQ, yes or no",
    "medqa": "MedQA",
    "medmcqa": "MedMCQA",
    MMLU: "MMLU, biomedical subjects",
}
_LOOKS = {"base": ("#6e6e6e", "s"), "pretrained": ("#56b4e9", "^"), "finetuned": ("#d55e00", "o")}
_FURTHER = (("#009e73", "D"), ("#cc79a7", "v"), ("#e69f00", "P"))
_LINES: dict[str, Literal[":", "--", "-"]] = {"random": ":", "majority": "--", "human": "-"}
_INK, _GRID = "#1a1a1a", "#dddddd"
_FORMS = {"likelihood": "likeliest answer", "generation": "written answer"}
_DPI = 110


@dataclass(frozen=True)
class Picture:
    """A PNG with the name of its file, and what is read where it cannot be seen."""

    name: str
    png: bytes
    alt: str


def task_name(task: str) -> str:
    """A task as a person reads it."""
    return TASKS.get(task) or f"MMLU, {task.removeprefix(f'{MMLU}_').replace('_', ' ')}"


def task_place(task: str) -> int:
    """Where a task comes in a report: what the corpus is for first, MMLU's subjects last."""
    return list(TASKS).index(task) if task in TASKS else len(TASKS)


def pictures(results: pl.DataFrame) -> list[Picture]:
    """The pictures of a table BenchmarkResult, without those for which there is nothing to show.

    The same table gives the same bytes. A model that answered nothing is in none of them.
    """
    answered = results.filter(pl.col("failures") < pl.col("items"))
    looks = _looks(answered)
    drawn = (
        _accuracy(answered, looks),
        _chrono(answered, looks),
        _mesh(answered, looks),
        _bits(answered, looks),
    )
    return [picture for picture in drawn if picture]


def _looks(results: pl.DataFrame) -> dict[str, tuple[str, str]]:
    """Colour and mark of each model."""
    own = results.filter(pl.col("form") != "baseline")["model"].unique(maintain_order=True)
    others = [model for model in own if model not in MODELS]
    # More agents than looks share the last one.
    further = dict(zip(others, [*_FURTHER, *[_FURTHER[-1]] * len(others)], strict=False))
    return {model: look for model, look in (_LOOKS | further).items() if model in own}


def _accuracy(results: pl.DataFrame, looks: Looks) -> Picture | None:
    """Accuracy by task and model; MMLU's subjects only where they are not scored together."""
    scores = results.filter(cohort=ALL, metric="accuracy")
    if MMLU in scores["task"]:
        scores = scores.filter(~pl.col("task").str.starts_with(f"{MMLU}_"))
    tasks = _by_task(scores)
    if not tasks:
        return None
    figure = _figure(9, 1.5 + 0.36 * len(tasks) + 0.17 * scores.filter(pl.col("form") != "baseline").height)
    axes = figure.subplots()
    height, ticks = 0.0, {}
    for (benchmark, task), of_task in tasks.items():
        own = of_task.filter(pl.col("form") != "baseline")
        end = height + max(own.height, 1)
        for place, row in enumerate(own.iter_rows(named=True)):
            _mark(axes, row, (height + place, True), looks)
        for row in of_task.filter(form="baseline").iter_rows(named=True):
            axes.plot(
                [row["value"]] * 2,
                [height - 0.7, end - 0.3],
                _LINES[row["model"]],
                color=_INK,
                lw=1.3,
                zorder=1,
            )
        ticks[(height + end - 1) / 2] = f"{task_name(task)}\n{benchmark}: {_asked(of_task)} items"
        height = end + 1.3
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.tick_params("y", length=0)
    axes.set_ylim(height - 1.3, -1)
    axes.set_xlabel("Accuracy")
    _in_percent(axes, "x")
    _legend(figure, looks, scores)
    told = "; ".join(f"{task_name(task)}: {_told(of_task)}" for (_, task), of_task in tasks.items())
    return _picture("benchmark_accuracy.png", figure, "Accuracy with 95% intervals", told)


def _chrono(results: pl.DataFrame, looks: Looks) -> Picture | None:
    """Accuracy on PubMedQA over the periods of publication."""

    def draw(axes: "Axes", of_model: pl.DataFrame, shift: float) -> None:
        rows = {row["cohort"]: row for row in of_model.iter_rows(named=True)}
        places = [place for place, period in enumerate(CHRONO) if period in rows]
        colour = looks[of_model["model"][0]][0]
        values = [rows[CHRONO[place]]["value"] for place in places]
        axes.plot([place + shift for place in places], values, color=colour, lw=1.4, zorder=2)
        for place in places:
            _mark(axes, rows[CHRONO[place]], (place + shift, False), looks)

    return _by_cohort(results, looks, CHRONO, "benchmark_chrono.png", draw)


def _mesh(results: pl.DataFrame, looks: Looks) -> Picture | None:
    """Accuracy on PubMedQA by whom an abstract is about."""

    def draw(axes: "Axes", of_model: pl.DataFrame, shift: float) -> None:
        for row in of_model.iter_rows(named=True):
            _mark(axes, row, (MESH.index(row["cohort"]) + shift, False), looks)

    return _by_cohort(results, looks, MESH, "benchmark_mesh.png", draw)


def _by_cohort(
    results: pl.DataFrame,
    looks: Looks,
    cohorts: tuple[str, ...],
    name: str,
    draw: Callable[["Axes", pl.DataFrame, float], None],
) -> Picture | None:
    """A panel for each benchmark, task and form, with all its cohorts side by side."""
    scores = results.filter(pl.col("cohort").is_in(cohorts), metric="accuracy")
    own = scores.filter(pl.col("form") != "baseline")
    panels = sorted(
        own.partition_by("benchmark", "task", "form", as_dict=True).items(),
        key=lambda panel: (panel[0][0], task_place(str(panel[0][1])), panel[0][2] == "generation"),
    )
    if not panels:
        return None
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure = _figure(4.9 * columns, 0.9 + 2.9 * lines)
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for axes, ((benchmark, task, form), of_panel) in zip(grid, panels, strict=False):
        models = [model for model in looks if model in of_panel["model"]]
        for place, model in enumerate(models):
            draw(axes, of_panel.filter(model=model), 0.16 * (place - (len(models) - 1) / 2))
        for row in scores.filter(benchmark=benchmark, task=task, form="baseline").iter_rows(named=True):
            place = cohorts.index(row["cohort"])
            axes.hlines(row["value"], place - 0.4, place + 0.4, _INK, _LINES[row["model"]], lw=1.1, zorder=1)
        sizes = dict(of_panel.group_by("cohort").agg(pl.col("items").max()).iter_rows())
        broken = [cohort.replace(" ", "\n").replace("-", "\nto ") for cohort in cohorts]
        words = [f"{name}\n({sizes.get(cohort, 0)})" for name, cohort in zip(broken, cohorts, strict=True)]
        axes.set_xticks(range(len(cohorts)), words, fontsize=7.5)
        axes.set_xlim(-0.6, len(cohorts) - 0.4)
        axes.set_title(f"{task_name(str(task))}; {_FORMS[str(form)]}\n{benchmark}", fontsize=9)
        _in_percent(axes, "y")
    for axes in grid[len(panels) :]:
        axes.axis("off")
    _legend(figure, looks, scores)
    told = "; ".join(
        f"{task_name(str(task))}, {_FORMS[str(form)]}, {model_name(model)}: "
        + _range(of_panel.filter(model=model))
        for (_, task, form), of_panel in panels
        for model in looks
        if model in of_panel["model"]
    )
    what = "publication period" if cohorts == CHRONO else "MeSH heading"
    return _picture(name, figure, f"Accuracy on PubMedQA by {what} (items), with 95% intervals", told)


def _bits(results: pl.DataFrame, looks: Looks) -> Picture | None:
    """What a byte of held-out text costs each model."""
    scores = results.filter(cohort=ALL, metric="bits_per_byte")
    tasks = _by_task(scores)
    if not tasks:
        return None
    figure = _figure(7.5, 1.5 + 0.3 * len(tasks) + 0.3 * scores.height)
    axes = figure.subplots()
    height, ticks = 0.0, {}
    for (_, task), of_task in tasks.items():
        for place, row in enumerate(of_task.iter_rows(named=True)):
            colour = looks[row["model"]][0]
            axes.barh(height + place, row["value"], 0.75, color=colour, alpha=0.35, zorder=1)
            _mark(axes, row, (height + place, True), looks)
            axes.text(
                row["high"], height + place, f"  {row['value']:.3f}", va="center", fontsize=8, color=_INK
            )
        ticks[height + (of_task.height - 1) / 2] = f"{task_name(task)}\n{_asked(of_task)} items"
        height += of_task.height + 0.8
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.set_ylim(height - 0.8, -0.8)
    axes.set_xlim(0, 1.12 * float(scores["high"].max()))  # type: ignore[arg-type]
    axes.set_xlabel("Bits a byte; lower is better")
    _legend(figure, looks, scores)
    told = "; ".join(
        f"{task_name(task)}: "
        + ", ".join(f"{model_name(row['model'])} {row['value']:.3f}" for row in of_task.iter_rows(named=True))
        for (_, task), of_task in tasks.items()
    )
    title = "How well held-out texts of the corpus are foreseen, with 95% intervals"
    return _picture("benchmark_bits.png", figure, title, told)


def _by_task(scores: pl.DataFrame) -> dict[tuple[str, str], pl.DataFrame]:
    """The scores of each benchmark and task, in the order in which they are read."""
    parts = scores.partition_by("benchmark", "task", as_dict=True, maintain_order=True)
    order = sorted(parts, key=lambda key: (task_place(str(key[1])), *key))
    return {(str(benchmark), str(task)): parts[benchmark, task] for benchmark, task in order}


def _mark(axes: "Axes", row: Mapping[str, Any], where: tuple[float, bool], looks: Looks) -> None:
    """A score with its interval at a place on the other axis; `where` says if it lies."""
    place, lying = where
    colour, mark = looks[row["model"]]
    middle, ends = row["value"], [[row["value"] - row["low"]], [row["high"] - row["value"]]]
    x, y = (middle, place) if lying else (place, middle)
    axes.errorbar(
        x,
        y,
        xerr=ends if lying else None,
        yerr=None if lying else ends,
        fmt=mark,
        color=colour,
        markerfacecolor=colour if row["form"] == "likelihood" else "white",
        markersize=5.5,
        elinewidth=1.1,
        capsize=2,
        zorder=3,
    )


def _in_percent(axes: "Axes", which: str) -> None:
    from matplotlib.ticker import PercentFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set(**{f"{which}lim": (0, 1)})


def _legend(figure: "Figure", looks: Looks, scores: pl.DataFrame) -> None:
    from matplotlib.lines import Line2D

    forms = [form for form in _FORMS if form in scores["form"]]
    handles = [
        Line2D([], [], color=colour, marker=mark, lw=0, label=model_name(model))
        for model, (colour, mark) in looks.items()
        if model in scores["model"]
    ]
    if len(forms) > 1:
        handles += [
            Line2D([], [], color=_INK, marker="o", lw=0, label=_FORMS[form], markerfacecolor=fill)
            for form, fill in zip(forms, (_INK, "white"), strict=True)
        ]
    handles += [
        Line2D([], [], color=_INK, linestyle=style, label=model_name(model))
        for model, style in _LINES.items()
        if model in scores["model"]
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8.5)


def _asked(of_task: pl.DataFrame) -> str:
    return f"{max(of_task['items'].to_list()):,}"


def model_name(model: str) -> str:
    """A model or baseline as a person reads it."""
    return _NAMES.get(model, model)


def _told(of_task: pl.DataFrame) -> str:
    return ", ".join(
        f"{model_name(row['model'])} {row['value']:.0%}" + (" written" if row["form"] == "generation" else "")
        for row in of_task.iter_rows(named=True)
    )


def _range(of_model: pl.DataFrame) -> str:
    """From the cohort with the lowest score to that with the highest."""
    ends = of_model.sort("value", maintain_order=True).select("value", "cohort").rows()
    return " to ".join(f"{value:.0%} ({cohort})" for value, cohort in (ends[0], ends[-1]))


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _picture(name: str, figure: "Figure", title: str, told: str) -> Picture:
    figure.suptitle(title, fontsize=11)
    for axes in figure.axes:
        axes.grid(color=_GRID, lw=0.6, zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return Picture(name, buffer.getvalue(), f"{title}. {told}.")
