"""Pictures and tables for what a person reads in the Dagster UI of materializations and checks."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CELL_CHARACTERS = 160


def preview(frame: pl.DataFrame, rows: int = 5) -> dg.MarkdownMetadataValue:
    """The first rows as a Markdown table, long cells cut."""
    head = frame.head(rows)
    lines = ["| " + " | ".join(head.columns) + " |", "|" + "---|" * head.width]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in head.iter_rows()]
    return dg.MetadataValue.md("\n".join(lines))


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = text.replace("|", "\\|").replace("\n", " ")
    return text if len(text) <= _CELL_CHARACTERS else text[: _CELL_CHARACTERS - 1] + "…"


def none_may_be(wrong: pl.DataFrame, what: str) -> dg.AssetCheckResult:
    """A check that passes when no row is wrong, and shows the first ones when some are."""
    return dg.AssetCheckResult(
        passed=wrong.is_empty(),
        description=f"{wrong.height} {what}",
        metadata={"rows": wrong.height, "first": preview(wrong)},
    )


def share_at_most(
    part: int, whole: int, most: float, what: str, check: str | None = None
) -> dg.AssetCheckResult:
    """A warning when more than a share `most` of the rows are so; `check` names it within an asset."""
    share = part / max(whole, 1)
    return dg.AssetCheckResult(
        passed=share <= most,
        check_name=check,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{part} of {whole} {what} ({share:.1%}; at most {most:.0%})",
        metadata={"rows": part, "share": share, "limit": most},
    )


def counts(frame: pl.DataFrame, column: str) -> dict[str, int]:
    """Rows by value of a column, nulls as 'none', most frequent first."""
    counted = frame[column].cast(pl.String).fill_null("none").value_counts(sort=True)
    return dict(counted.iter_rows())


def bars(title: str, values: Mapping[str, float]) -> dg.MarkdownMetadataValue:
    """Horizontal bars, one for each name, in the order given."""

    def draw(axes: "Axes") -> None:
        names = list(values)[::-1]
        drawn = axes.barh(names, [values[name] for name in names])
        axes.bar_label(drawn, fmt="%.4g", padding=3)

    return _picture(title, draw, height=0.6 + 0.28 * max(len(values), 2))


def histogram(title: str, values: Sequence[float], unit: str) -> dg.MarkdownMetadataValue:
    """How values are distributed; `unit` names the axis."""

    def draw(axes: "Axes") -> None:
        axes.hist(values, bins=30)
        axes.set_xlabel(unit)

    return _picture(title, draw)


def curves(title: str, series: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str) -> Any:
    """Lines over a shared axis: name to (x values, y values)."""

    def draw(axes: "Axes") -> None:
        for name, (xs, ys) in series.items():
            axes.plot(xs, ys, label=name)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.legend()

    return _picture(title, draw)


def intervals(title: str, values: Mapping[str, tuple[float, float, float]]) -> dg.MarkdownMetadataValue:
    """Points with intervals: name to (value, low, high)."""

    def draw(axes: "Axes") -> None:
        names = list(values)[::-1]
        middle = [values[name][0] for name in names]
        low = [values[name][0] - values[name][1] for name in names]
        high = [values[name][2] - values[name][0] for name in names]
        axes.errorbar(middle, names, xerr=[low, high], fmt="o", capsize=4)

    return _picture(title, draw, height=1 + 0.35 * max(len(values), 2))


def _picture(title: str, draw: Callable[["Axes"], None], height: float = 2.6) -> dg.MarkdownMetadataValue:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, height), layout="constrained")
    axes = figure.subplots()
    draw(axes)
    axes.set_title(title, fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return picture(buffer.getvalue(), title)


def picture(png: bytes, alternative: str) -> dg.MarkdownMetadataValue:
    """A PNG, and what is read where it cannot be seen."""
    return dg.MetadataValue.md(f"![{alternative}](data:image/png;base64,{base64.b64encode(png).decode()})")
