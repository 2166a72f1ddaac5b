"""Figures in one style: Okabe and Ito's colours, told apart with any kind of colour vision, and a marker for each.

Grey is nobody's but random sampling's.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:  # slow to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#b8a800", "#7f3c8d", "#8c5a2b")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
STYLES = ("-", "--", ":")
GREY = "#8a8a8a"


def panels(titles: Sequence[str], *, across: int = 2, width: float = 4.4, height: float = 3.4) -> (
    "tuple[Figure, list[Axes]]"
):  # fmt: skip
    """A figure with so many axes in rows."""
    from matplotlib.figure import Figure  # without pyplot: no window system, nothing global

    count = max(1, len(titles))
    across = min(across, count)
    down = -(-count // across)
    figure = Figure(figsize=(width * across, height * down), layout="constrained")
    grid = list(figure.subplots(down, across, squeeze=False).flat)
    for axes, title in zip(grid, titles, strict=False):
        axes.set_title(title, fontsize=10, parse_math=False)
        plain(axes)
    for axes in grid[len(titles) :]:
        axes.axis("off")
    return figure, grid[: len(titles)]


def plain(axes: "Axes") -> None:
    """Few lines."""
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def style(place: int) -> dict[str, Any]:
    """Of the line of a method, by its place; of up to 30, no two share colour and marker."""
    turn, at = divmod(place, len(COLOURS))
    marker = MARKERS[(at + 3 * turn) % len(MARKERS)]
    return {"color": COLOURS[at], "marker": marker, "ls": STYLES[turn % len(STYLES)]}


def spread_line(
    axes: "Axes", table: pd.DataFrame, x: str, y: str, label: str, place: int, shift: float = 0.0
) -> None:  # fmt: skip
    """Mean over rows of equal x, bars of ± one standard deviation, and a dot for every row; two points make no line.

    shift: of x, to keep the bars of several lines apart.
    """
    table = table[table[y].notna()]
    if not len(table):
        axes.plot([], [], label=f"{label} (no run)", **style(place))
        return
    found = table.groupby(x)[y].agg(["mean", "std"])
    looks = style(place) | ({"ls": ""} if len(found) == 2 else {})
    spread = found["std"] if found["std"].notna().any() else None  # NaN, of one row, is no bar: 0 would be a spread
    axes.errorbar(
        found.index + shift, found["mean"], spread, label=label, capsize=2.5, lw=1.5, ms=4.5, elinewidth=0.8, **looks
    )
    if spread is not None:
        axes.plot(table[x] + shift, table[y], ".", color=looks["color"], alpha=0.35, ms=3)


def legend(figure: "Figure", grid: "Sequence[Axes]") -> None:
    """One for all axes, beside them."""
    found: dict[str, Any] = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        figure.legend(list(found.values()), list(found), loc="outside right upper", fontsize=7.5, frameon=False)


def empty(axes: "Axes", told: str = "no finished run yet") -> None:
    """Say that there is nothing to draw."""
    axes.text(0.5, 0.5, told, ha="center", va="center", transform=axes.transAxes, color="0.45", fontsize=9)
    axes.set(xticks=[], yticks=[])
