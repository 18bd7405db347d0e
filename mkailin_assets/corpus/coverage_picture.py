"""The corpus beside PubMed in the MeSH tree, as a picture to read at a glance."""

import io
import math
import textwrap
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Categories of the MeSH tree (facts of the U.S. National Library of Medicine).
MESH_CATEGORIES = {
    "A": "Anatomy",
    "B": "Organisms",
    "C": "Diseases",
    "D": "Chemicals and Drugs",
    "E": "Analytical, Diagnostic and Therapeutic Techniques, and Equipment",
    "F": "Psychiatry and Psychology",
    "G": "Phenomena and Processes",
    "H": "Disciplines and Occupations",
    "I": "Anthropology, Education, Sociology, and Social Phenomena",
    "J": "Technology, Industry, and Agriculture",
    "K": "Humanities",
    "L": "Information Science",
    "M": "Named Groups",
    "N": "Health Care",
    "V": "Publication Characteristics",
    "Z": "Geographicals",
}

# Lengths are pixels.
_WIDTH, _HEIGHT = 1200, 1560
_TOP, _BOTTOM = 132, 1470
_COLUMNS = ((20, 204), (208, 590), (594, 1180))
_LEAST_BRANCH, _LEAST_CATEGORY, _GAP = 2, 19, 4
_LINE, _LETTER, _SIZE = 15, 6.9, 12
# Shares that differ by more than this factor look the same.
_MOST = 4
_SHADES = 50
_NOT_IN_PUBMED, _INK, _HATCH = "#cfcfcf", "#1a1a1a", "#8a8a8a"


def coverage_picture(coverage: pl.DataFrame) -> bytes:
    """PNG of table MeshCoverage, 1200 pixels wide: categories, their branches, and the subtrees of these.

    A branch is as high as PubMed's citations at home in it are many, a subtree as wide as those under its
    head; both are the redder the less the corpus has of them than PubMed, the bluer the more. A branch is
    hatched that was never distilled, grey where PubMed has nothing. The same table gives the same bytes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH / 100, _HEIGHT / 100), dpi=100, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, _WIDTH), ylim=(_HEIGHT, 0))
    axes.axis("off")
    branches = _branches(coverage)
    _draw_head(axes, branches)
    subtrees = coverage.filter(pl.col("pubmed_citations") > 0, level="subtree")
    top, spare = float(_TOP), _spare(branches)
    for (letter,), rows in branches.partition_by("category", as_dict=True, maintain_order=True).items():
        title = f"{letter} {MESH_CATEGORIES.get(letter, '')}"
        top = _GAP + _draw_category(axes, title, rows, subtrees, top=top, spare=spare)
    _draw_legend(axes)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def alt_text(coverage: pl.DataFrame) -> str:
    """What the picture of this table shows, in words."""
    branches = _branches(coverage)
    held = branches.filter(pl.col("pubmed_citations") > 0)
    short = held.filter(pl.col("ratio") < 0.5).sort("pubmed_citations", "place", descending=[True, False])
    named = [f"{place} {name}" for place, name in short.select("place", "name").head(5).iter_rows()]
    return (
        "The corpus in the MeSH tree beside PubMed, as an icicle of categories, branches and subtrees: "
        f"{_counts(branches)}. Branches distilled: {branches['is_distilled'].sum()} of {branches.height}. "
        f"Branches with less than half of PubMed's share: {short.height} of the {held.height} where PubMed "
        "has citations" + (f", the largest of them {', '.join(named)}." if named else ".")
    )


def _branches(coverage: pl.DataFrame) -> pl.DataFrame:
    """The branches of the tree with their category, those with the most citations first in each."""
    known = coverage.filter(pl.col("name").is_not_null(), level="branch")
    return known.with_columns(category=pl.col("place").str.head(1)).sort(
        "category", "pubmed_citations", "place", descending=[False, True, False]
    )


def _counts(branches: pl.DataFrame) -> str:
    examples, ours, pubmed = (
        branches[column].sum() for column in ("examples", "citations", "pubmed_citations")
    )
    return f"{examples:,} examples of {ours:,} citations, beside {pubmed:,} citations of PubMed"


class _Box(NamedTuple):
    left: float
    top: float
    width: float
    height: float


def _least(branches: int) -> float:
    """Height of each of so many branches of a category before its share is added."""
    return max(_LEAST_BRANCH, _LEAST_CATEGORY / branches)


def _spare(branches: pl.DataFrame) -> float:
    """Height that is left to be shared out by citations."""
    sizes = branches["category"].value_counts()["count"].to_list()
    return _BOTTOM - _TOP - _GAP * (len(sizes) - 1) - sum(size * _least(size) for size in sizes)


def _draw_category(
    axes: "Axes", name: str, rows: pl.DataFrame, subtrees: pl.DataFrame, *, top: float, spare: float
) -> float:
    """Draw a category from `top` down, with its branches and their subtrees; where it ends."""
    small: list[str] = []
    end = tail = top
    left, right = _COLUMNS[1]
    for row in rows.iter_rows(named=True):
        height = _least(rows.height) + spare * row["share_of_pubmed"]
        hatched = not row["is_distilled"]
        box = _Box(left, end, right - left, height)
        _draw_cell(axes, box, row["ratio"], hatched)
        if height >= _LINE:
            _write(axes, box, f"{row['place']} {row['name']}", _figures(row))
        else:
            small.append(row["place"])
        below = subtrees.filter(pl.col("place").str.starts_with(f"{row['place']}."))
        _draw_subtrees(axes, below, box, hatched)
        end += height
        tail = end if height >= _LINE else tail
    if end - tail >= _LINE:
        _write(axes, _Box(left, tail, right - left, end - tail), " ".join(small))
    left, right = _COLUMNS[0]
    box = _Box(left, top, right - left, end - top)
    held, ours = (float(rows[column].sum()) for column in ("share_of_pubmed", "share_of_corpus"))
    _draw_cell(axes, box, ours / held if held else None, not rows["is_distilled"].any())
    _write(axes, box, name)
    return end


def _draw_subtrees(axes: "Axes", subtrees: pl.DataFrame, beside: _Box, hatched: bool) -> None:
    """Draw the subtrees of a branch side by side, the largest first."""
    left, right = map(float, _COLUMNS[2])
    width = right - left
    _draw_cell(axes, _Box(left, beside.top, width, beside.height), None, hatched)
    total = subtrees["pubmed_citations"].sum()
    for row in subtrees.sort("pubmed_citations", "place", descending=[True, False]).iter_rows(named=True):
        share = row["pubmed_citations"] / total
        box = _Box(left, beside.top, width * share, beside.height)
        _draw_cell(axes, box, row["ratio"], hatched)
        if box.height >= _LINE and box.width >= 60:
            _write(axes, box, row["name"])
        left += box.width


def _draw_cell(axes: "Axes", box: _Box, ratio: float | None, hatched: bool) -> None:
    from matplotlib.patches import Rectangle

    # A line around a thin cell would hide it.
    line = 1.0 if min(box.width, box.height) >= 4 else 0.0
    place = ((box.left, box.top), box.width, box.height)
    axes.add_artist(Rectangle(*place, facecolor=_colour(ratio), edgecolor="white", linewidth=line))
    if hatched:
        axes.add_artist(Rectangle(*place, fill=False, edgecolor=_HATCH, linewidth=0, hatch="//"))


def _colour(ratio: float | None) -> str:
    """Red for less than PubMed's share, blue for more, by the factor between them."""
    if ratio is None:
        return _NOT_IN_PUBMED
    factor = math.log(min(max(ratio, 1 / _MOST), _MOST), _MOST)
    return _colours()[round((1 + factor) * _SHADES)]


@cache
def _colours() -> list[str]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    # Without the darkest ends, on which black letters cannot be read.
    places = [0.5 + 0.32 * shade / _SHADES for shade in range(-_SHADES, _SHADES + 1)]
    return [to_hex(colour) for colour in colormaps["RdBu"](places)]


def _figures(row: Mapping[str, Any]) -> str:
    """Share of PubMed's citations and how the corpus' compares: 12%, 0.9 of it."""
    if row["ratio"] is None:
        return "none in PubMed"
    return f"{row['share_of_pubmed']:.1%}  \u00d7{row['ratio']:.2f}"


def _write(axes: "Axes", box: _Box, text: str, right: str = "") -> None:
    """Write into the upper left of a cell, in as many lines as fit, and into its upper right."""
    columns = int((box.width - 8) / _LETTER) - len(right)
    rows = int(box.height / _LINE)
    lines = textwrap.wrap(text, columns)
    if len(lines) > rows:
        cut = " ".join(lines[rows - 1 :])[: columns - 1]
        lines[rows - 1 :] = [f"{cut.rstrip(' ,')}\u2026"]
    first = box.top + min(box.height, _LINE + 5) / 2
    for row, line in enumerate(lines):
        _put(axes, box.left + 5, first + row * _LINE, line)
    _put(axes, box.left + box.width - 5, first, right, horizontalalignment="right")


def _put(axes: "Axes", x: float, y: float, text: str, size: float = _SIZE, **more: Any) -> None:
    """Write at a place; `size` is pixels."""
    from matplotlib.patheffects import withStroke

    halo = withStroke(linewidth=4, foreground=(1, 1, 1, 0.75))
    look: dict[str, Any] = {
        "verticalalignment": "center",
        "color": _INK,
        "family": "DejaVu Sans",
        "parse_math": False,
    }
    axes.text(x, y, text, fontsize=size * 0.72, path_effects=[halo], **look | more)


def _draw_head(axes: "Axes", branches: pl.DataFrame) -> None:
    distilled = f"{branches['is_distilled'].sum()} of {branches.height} branches distilled"
    _put(axes, 20, 36, "How the corpus covers MeSH, beside PubMed", 24, weight="bold")
    _put(axes, 20, 70, f"{_counts(branches)}; {distilled}", 14)
    heads = ("Category", "Branch", "Subtrees, by citations under the head of each")
    for (left, _), head in zip(_COLUMNS, heads, strict=True):
        _put(axes, left, _TOP - 14, head, 13, weight="bold")
    figures = "% of PubMed, \u00d7 in the corpus"
    _put(axes, _COLUMNS[1][1] - 5, _TOP - 14, figures, horizontalalignment="right")


def _draw_legend(axes: "Axes") -> None:
    top, step = _BOTTOM + 24, 2
    for x in range(0, 400, step):
        _draw_cell(axes, _Box(20 + x, top, step, 18), _MOST ** (x / 200 - 1), False)
    for factor, label in ((-1, "\u00bc or less"), (-0.5, "\u00bd"), (0, "1"), (0.5, "2"), (1, "4 or more")):
        align = "left" if factor == -1 else "right" if factor == 1 else "center"
        _put(axes, 220 + 200 * factor, top + 30, label, 12, horizontalalignment=align)
    _put(axes, 20, top + 50, "Share of the corpus over share of PubMed", 12)
    for x, hatched, label in ((500, False, "none in PubMed"), (680, True, "branch not distilled yet")):
        _draw_cell(axes, _Box(x, top, 30, 18), None if not hatched else 1.0, hatched)
        _put(axes, x + 38, top + 9, label, 12)
    heights = "Heights are citations at home in a branch. Small ones are drawn higher, to be seen,"
    _put(axes, 500, top + 36, heights)
    _put(axes, 500, top + 54, "and those too low for a name are named by their codes, the largest first.")
