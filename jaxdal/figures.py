"""Figures of a comparison as SVG text: gains with their intervals, a panel per method, ranks."""

import io
from typing import TYPE_CHECKING, Literal, NamedTuple

import pandas as pd

from jaxdal import metrics
from jaxdal.comparison import Experiment
from jaxdal.significance import Ranks
from jaxdal.verdicts import BETTER, WORSE

if TYPE_CHECKING:  # slow to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Blue, vermilion and grey of Okabe and Ito: told apart with any kind of colour vision, and, as marks, by their shape.
COLOURS = {BETTER: "#0072b2", WORSE: "#c44e00"}
MARKS = {BETTER: "^", WORSE: "v"}
OTHER, FAINT = "#555555", "#8a8a8a"


def gains(table: pd.DataFrame, pairs: dict[str, pd.Series]) -> str:
    """API of every method with its 95 % interval, and each seed as a dot. pairs: method -> API of each seed."""
    shown = table.dropna(subset="api").sort_values("api")
    figure = _figure(7.2, 0.9 + 0.27 * max(1, len(shown)))
    axes = figure.add_subplot()
    axes.axvline(0, color="0.3", lw=0.9)
    for place, (name, row) in enumerate(shown.iterrows()):
        colour = COLOURS.get(row["verdict"], OTHER)
        axes.plot(pairs[str(name)], [place] * len(pairs[str(name)]), "|", color=colour, alpha=0.55, ms=7, mew=1)
        if not pd.isna(row["api_low"]):
            axes.plot([row["api_low"], row["api_high"]], [place, place], color=colour, lw=1.6)
        axes.plot(row["api"], place, MARKS.get(row["verdict"], "o"), color=colour, ms=6)
    axes.set_yticks(range(len(shown)), [_brief(str(name)) for name in shown.index], parse_math=False)
    axes.set_ylim(-0.7, len(shown) - 0.3)
    axes.set_xlabel("API: percentage points over random sampling")
    axes.grid(axis="x", color="0.92")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return _svg(figure)


def _brief(name: str, most: int = 36) -> str:
    """A long name without its middle: tables beside the figures have all of it."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-(most // 2 - 1) :]}"


class Panel(NamedTuple):
    """The picture of one method."""

    svg: str
    own_scale: bool  # its differences would make all others look flat


def panels(experiment: Experiment, table: pd.DataFrame) -> dict[str, Panel]:
    """A small picture per method: accuracy above random sampling's, and the paired difference below."""
    base = experiment.baseline
    curves = {name: 100 * experiment.curves(name, complete=False) for name in experiment.methods}
    drawn = [one for one in curves.values() if len(one)]
    if not drawn:
        return {}
    low = min((one.mean() - one.std().fillna(0)).min() for one in drawn)
    high = max((one.mean() + one.std().fillna(0)).max() for one in drawn)
    differences = {
        name: one.sub(curves[base]).dropna(how="all") for name, one in curves.items() if base and name != base
    }
    reach = pd.Series({name: _reach(one) for name, one in differences.items()}, dtype=float)
    usual = 3 * reach[reach > 0].median()
    common = reach[reach <= usual].max() if (reach <= usual).any() else 1.0
    told = {}
    for name, one in curves.items():
        far = bool(reach.get(name, 0.0) > usual)
        other = curves[base] if base and name != base else None
        limit = reach[name] if far else common
        svg = _panel(one, other, differences.get(name), (low, high), limit or 1.0, _colour(table, name))
        told[name] = Panel(svg, far)
    return told


def critical_difference(ranks: Ranks) -> str:
    """The diagram of Demsar 2006: average ranks on a line, bars over methods that cannot be told apart."""
    names, values = [*map(_brief, ranks.ranks.index)], ranks.ranks.to_numpy(float)
    count, half = len(names), (len(names) + 1) // 2
    bars = len(ranks.cliques)
    top, step, bar = 0.0, 0.42, 0.16
    begin = -0.25 - bar * bars
    line = 3.53  # inches of it; beside it there is room for the longest name and its rank
    room = max(1.83, 0.068 * (max(map(len, names), default=0) + 6))
    figure = _figure(line + 2 * room, 0.9 + 0.22 * half + 0.09 * bars)
    axes = figure.add_subplot()
    axes.axis("off")
    spread = max(count - 1.0, 1.0)
    axes.set_xlim(1 - room / line * spread, count + room / line * spread)
    axes.set_ylim(begin - step * half - 0.2, top + 1.3)
    axes.plot([1, count], [top, top], color="0.2", lw=1)
    for tick in range(1, count + 1):
        axes.plot([tick, tick], [top, top + 0.12], color="0.2", lw=1)
        axes.text(tick, top + 0.18, str(tick), ha="center", va="bottom", fontsize=7.5)
    if ranks.critical_difference is not None:
        axes.plot([1, 1 + ranks.critical_difference], [top + 0.75] * 2, color="0.2", lw=1.6)
        axes.text(1, top + 0.85, f"critical difference {ranks.critical_difference:.2f}", fontsize=7.5, va="bottom")
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        left = place < half
        y = begin - step * (place if left else count - 1 - place) - 0.1
        edge = 1 - 0.03 * spread if left else count + 0.03 * spread
        axes.plot([value, value, edge], [top, y, y], color="0.55", lw=0.8)
        told = f"{name}  {value:.2f}" if left else f"{value:.2f}  {name}"
        at = edge + (-0.01 if left else 0.01) * spread
        axes.text(at, y, told, ha="right" if left else "left", va="center", fontsize=8, parse_math=False)
    for place, clique in enumerate(ranks.cliques):
        y = -0.2 - bar * place
        ends = [ranks.ranks[clique[0]] - 0.06, ranks.ranks[clique[-1]] + 0.06]
        axes.plot(ends, [y, y], color="#0072b2", lw=3, solid_capstyle="round")
    return _svg(figure)


def _panel(
    curves: pd.DataFrame, base: pd.DataFrame | None, difference: pd.DataFrame | None, limits: tuple[float, float],
    reach: float, colour: str,
) -> str:  # fmt: skip
    figure = _figure(2.9, 3.1, layout=None)  # laid out by hand, which is fast and alike for all
    edges = {"left": 0.2, "right": 0.97, "bottom": 0.13, "top": 0.97}
    if base is None:
        above = last = figure.subplots(gridspec_kw=edges)
    else:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2), gridspec_kw=edges | {"hspace": 0.12})
        last = below
        above.plot(base.columns.to_numpy(float), base.mean(), "--", color=FAINT, lw=1.2)  # its own panel has the band
        below.axhline(0, color=FAINT, lw=1, ls="--")
        if difference is not None and len(difference):
            _band(below, difference, colour)
        below.set_ylim(-reach, reach)
        below.set_ylabel("difference", fontsize=8)
        _percents(below, sign=True)
    _band(above, curves, colour)
    margin = 0.05 * (limits[1] - limits[0]) or 1.0
    above.set_ylim(limits[0] - margin, limits[1] + margin)
    above.set_ylabel("accuracy", fontsize=8)
    _percents(above)
    last.set_xlabel("labels", fontsize=8)
    return _svg(figure)


def _band(axes: "Axes", curves: pd.DataFrame, colour: str) -> None:
    """Mean and, with several seeds, the standard deviation around it."""
    if not len(curves):
        return
    mean, deviation = curves.mean(), curves.std()
    labels = curves.columns.to_numpy(float)
    if deviation.notna().any():
        axes.fill_between(labels, mean - deviation, mean + deviation, color=colour, alpha=0.2, lw=0)
    axes.plot(labels, mean, color=colour, lw=1.5, marker="o" if len(labels) == 1 else "", ms=3)


def _percents(axes: "Axes", sign: bool = False) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    def told(value: float, _position: int | None) -> str:
        text = f"{round(value, 6):+g}" if sign and round(value, 6) else f"{round(value, 6):g}"
        return text.replace("-", "−") + ("" if sign else "%")

    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.yaxis.set_major_formatter(FuncFormatter(told))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:,.0f}"))
    axes.tick_params(labelsize=7.5)
    axes.grid(color="0.93")
    axes.spines[["top", "right"]].set_visible(False)


def _reach(difference: pd.DataFrame) -> float:
    if not len(difference):
        return 0.0
    return 1.1 * float((difference.mean().abs() + difference.std().fillna(0)).max()) or 1.0


def _colour(table: pd.DataFrame, name: str) -> str:
    return COLOURS.get(table["verdict"].get(name, ""), OTHER)


def pairs(experiment: Experiment) -> dict[str, pd.Series]:
    """API of each seed that finished with a method and with random sampling."""
    base = experiment.baseline
    if not base:
        return {}
    theirs = experiment.curves(base)
    others = {name: experiment.curves(name) for name in experiment.methods if name != base}
    return {
        name: metrics.gains(curves, theirs).mean(axis=1)
        for name, curves in others.items()
        if len(curves) and len(theirs)
    }


def _figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> "Figure":
    from matplotlib.figure import Figure  # without pyplot: no window system, nothing global

    return Figure(figsize=(width, height), layout=layout)


def _svg(figure: "Figure") -> str:
    """The picture alone. Letters are outlines: it looks the same everywhere. The same input gives the same text."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "jaxdal", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, facecolor="none")
    text = file.getvalue()
    return text[text.index("<svg") :]
