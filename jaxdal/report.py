"""Tables and plots, from journals alone: `python -m jaxdal.report DIR...` (docs/report.md)."""

import argparse
import shlex
import sys
import textwrap
from collections.abc import Sequence
from math import nan
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, NamedTuple, TextIO

from jaxdal import journal
from jaxdal.commands import begin
from jaxdal.errors import InputError
from jaxdal.files import at_home, replacing, write_text
from jaxdal.journal import SECONDS, Group, Line

if TYPE_CHECKING:  # slow to import, and only a plot needs it
    from matplotlib.axes import Axes

    from jaxdal.verdicts import Table as Cells

COLOUR = "#1f5fa8"


class Row(NamedTuple):
    """One round, over the seeds that finished it."""

    round: int
    labelled: int
    runs: int
    accuracy: float  # mean over seeds
    deviation: float | None  # standard deviation over seeds (n - 1); None for one seed
    accuracy_best: float | None  # mean over seeds; None where not evaluated
    seconds: dict[str, float]  # mean over seeds of what each line says, which are those of its whole pack


def summary(groups: Sequence[Group]) -> list[Row]:
    """One row per round that at least one seed finished."""
    rows = []
    for group in groups:
        lines = [line for line in group if "diverged" not in line]
        if not lines:
            continue
        accuracies = [line["accuracy"] for line in lines]
        best = [line["accuracy_best"] for line in lines if line.get("accuracy_best") is not None]
        rows.append(
            Row(
                round=lines[0]["round"],
                labelled=lines[0]["labelled"],
                runs=len(lines),
                accuracy=mean(accuracies),
                deviation=stdev(accuracies) if len(lines) > 1 else None,
                accuracy_best=mean(best) if len(best) == len(lines) else None,
                seconds={key: mean(line.get("seconds", {}).get(key, 0.0) for line in lines) for key in SECONDS},
            )
        )
    return rows


def print_table(header: Line, groups: Sequence[Group], file: TextIO | None = None) -> None:
    """Print the rounds of a journal: with colours and rules on a terminal, as plain aligned text elsewhere."""
    file = sys.stdout if file is None else file
    names = ["round", "labels", "accuracy", "s.d.", "best", *SECONDS]
    cells = [_cells(row) for row in summary(groups)]
    title, caption = _title(header), "\n".join(_remarks(header, groups))
    _print_rows(file, title, names, cells, caption)


def _print_rows(
    file: TextIO, title: str, names: Sequence[str], cells: Sequence[Sequence[str]], caption: str, left: int = 0
) -> None:
    """left: how many columns are words, which start at the left."""
    if file.isatty():
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        table = Table(title=title, caption=caption, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title_style="bold")
        table.pad_edge = table.show_edge = False  # 80 columns suffice
        table.caption_justify = "left" if left else "center"
        for place, name in enumerate(names):
            table.add_column(name, justify="left" if place < left else "right", no_wrap=left < len(names))
        for line in cells:
            table.add_row(*line)
        Console(file=file, markup=False, highlight=False).print(table)
        return
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    sides = [str.ljust if place < left else str.rjust for place in range(len(names))]
    lines = []
    for line in (names, *cells):
        padded = [side(cell, width) for side, cell, width in zip(sides, line, widths, strict=True)]
        lines.append("  ".join(padded).rstrip() if left else "  ".join(padded))
    print(title, *lines, caption, sep="\n", file=file)


def _print_cells(table: "Cells", file: TextIO | None = None) -> None:
    """Print a table of a comparison without empty columns; on a terminal, those that have no room go on below."""
    file = sys.stdout if file is None else file
    if not table.words:
        table = _filled(table)
    caption = "\n".join([*table.notes, ""])
    if table.words or not file.isatty():
        left = len(table.columns) if table.words else 1
        _print_rows(file, table.title, table.columns, table.rows, caption, left)
        return
    from rich.console import Console

    console = Console(file=file, markup=False, highlight=False)
    names = ["\n".join(textwrap.wrap(row[0], max(20, console.width // 3))) for row in table.rows]
    columns = [names, *([row[place] for row in table.rows] for place in range(1, len(table.columns)))]
    widths = [
        max(map(len, [*name.split(), *"\n".join(cells).split("\n")]))  # headings break between words, cells never
        for name, cells in zip(table.columns, columns, strict=True)
    ]
    heads = ["\n".join(textwrap.wrap(name, width)) for name, width in zip(table.columns, widths, strict=True)]
    blocks: list[list[int]] = [[0]]
    for place in range(1, len(widths)):
        if len(blocks[-1]) > 1 and sum(widths[one] + 2 for one in [*blocks[-1], place]) > console.width:
            blocks.append([0])
        blocks[-1].append(place)
    for block in blocks:
        rows = [*zip(*(columns[place] for place in block), strict=True)]
        title, below = table.title if block is blocks[0] else "", "" if block is blocks[-1] else " "
        _print_rows(file, title, [heads[place] for place in block], rows, below, 1)
    console.print(caption)


def _filled(table: "Cells") -> "Cells":
    """A table without the columns in which no row has anything; a note names them."""
    from jaxdal.verdicts import NOTHING

    def some(place: int) -> bool:
        return place == 0 or any(row[place] not in (NOTHING, "n/a") for row in table.rows)

    kept = [place for place in range(len(table.columns)) if some(place)]
    gone = [name for place, name in enumerate(table.columns) if place not in kept]
    notes = [*table.notes, f"Without a number in any row: {', '.join(gone)}."] if gone else table.notes
    columns, *rows = [[line[place] for place in kept] for line in (table.columns, *table.rows)]
    return table._replace(columns=columns, rows=rows, notes=notes)


def _numbered(table: "Cells") -> "Cells":
    """A table whose columns, but the first, are numbers, with their long headings below."""
    name, *headings = table.columns
    notes = [f"{number}: {heading}" for number, heading in enumerate(headings, 1)]
    columns = [name, *(str(number) for number in range(1, len(table.columns)))]
    return table._replace(columns=columns, notes=[*notes, *table.notes])


def plot(header: Line, groups: Sequence[Group], path: Path) -> None:
    """Draw accuracy against the number of labels, with the spread over seeds, into a PNG of 1200 x 800 pixels."""
    from matplotlib.figure import Figure  # without pyplot: no window system, nothing global
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(8, 16 / 3), dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
    axes = figure.add_subplot()
    draw(axes, header, groups)
    with replacing(Path(path)) as partial:
        figure.savefig(partial, format="png")


def draw(axes: "Axes", header: Line, groups: Sequence[Group]) -> None:
    """The same on given axes."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, StrMethodFormatter

    rows, pool = summary(groups), max(1, header["config"]["pool"])
    axes.set_title(_title(header), fontsize=11, pad=10, wrap=True, parse_math=False)
    axes.set_xlabel("labelled examples")
    axes.set_ylabel("test accuracy")
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if not rows:
        told = "every run diverged in round 0" if groups else "no finished round yet"
        axes.text(0.5, 0.5, told, ha="center", va="center", transform=axes.transAxes, color="0.4")
        axes.set(xticks=[], yticks=[])
        return
    _draw_curves(axes, rows, groups)
    low, high = rows[0].labelled, rows[-1].labelled
    margin = 0.04 * (high - low) or 0.5 * high
    axes.set_xlim(max(0, low - margin), high + margin)
    axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    top = axes.secondary_xaxis("top", functions=(lambda count: count / pool, lambda share: share * pool))
    top.xaxis.set_major_formatter(FuncFormatter(_percent))
    top.set_xlabel("share of the pool", fontsize=9, color="0.3")
    top.tick_params(labelsize=8, colors="0.3")
    top.spines["top"].set_color("0.7")
    axes.legend(loc="lower right", frameon=True, framealpha=0.9, edgecolor="none", fontsize=9)


def _draw_curves(axes: "Axes", rows: list[Row], groups: Sequence[Group]) -> None:
    """Mean and spread, each seed faintly, and a cross where a seed diverged."""
    labels = [row.labelled for row in rows]
    means = [row.accuracy for row in rows]
    curves: dict[int, list[tuple[int, float]]] = {}
    for line in (line for group in groups for line in group if "diverged" not in line):
        curves.setdefault(line["seed"], []).append((line["labelled"], line["accuracy"]))
    name = "accuracy"
    if len(curves) > 1:
        name = f"mean of {len(curves)} seeds"
        spread = [nan if row.deviation is None else row.deviation for row in rows]  # of one survivor: no band
        below, above = ([m + sign * s for m, s in zip(means, spread, strict=True)] for sign in (-1, 1))
        if len(rows) > 1:
            axes.fill_between(labels, below, above, color=COLOUR, alpha=0.2, lw=0, label="± 1 standard deviation")
        else:
            axes.errorbar(labels, means, spread, color=COLOUR, alpha=0.5, capsize=6, label="± 1 standard deviation")
        for number, curve in enumerate(curves.values()):
            marker = "." if len(curve) == 1 else ""
            axes.plot(*zip(*curve, strict=True), marker, color="0.65", lw=0.7, label="" if number else "each seed")
    axes.plot(labels, means, color=COLOUR, marker="o", markersize=4.5, lw=1.8, label=name, zorder=3)
    for seed, (round_, step) in journal.diverged(groups).items():
        end = curves.get(seed, [])[-1:]  # nowhere, if it never finished a round: named in the legend all the same
        told = f"seed {seed} diverged in round {round_}, step {step}"
        x, y = [point[0] for point in end], [point[1] for point in end]
        axes.plot(x, y, color="#c03030", marker="x", ls="", markersize=8, mew=2, label=told, zorder=4)


def _percent(share: float, _position: int | None) -> str:
    return f"{round(100 * share, 6):g}%"


def _cells(row: Row) -> list[str]:
    percents = (row.accuracy, row.deviation, row.accuracy_best)
    told = ["-" if value is None else f"{100 * value:.2f}" for value in percents]
    return [str(row.round), str(row.labelled), *told, *(f"{row.seconds[key]:.2f}" for key in SECONDS)]


def _title(header: Line) -> str:
    config = header["config"]
    parts = [str(config[key]) for key in ("dataset", "strategy", "model", "trainer") if config.get(key)]
    seeds = config["seeds"]
    return " · ".join([*parts, f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"])


def _remarks(header: Line, groups: Sequence[Group]) -> list[str]:
    """What a reader of the table must know."""
    at_once = sorted({line["runs_at_once"] for group in groups for line in group if "runs_at_once" in line})
    together = f", of {' or '.join(map(str, at_once))} runs trained together" if at_once[-1:] > [1] else ""
    told = [f"accuracy in % (mean and standard deviation over runs); times in seconds{together}"]
    for seed, (round_, step) in journal.diverged(groups).items():
        told.append(f"seed {seed} diverged in round {round_} at step {step}")
    return [*told, *_hardest(header, groups)] if groups else ["no finished round yet"]


def _hardest(header: Line, groups: Sequence[Group], most: int = 3) -> list[str]:
    """The classes that the last round knows least, by name or by number."""
    lines = [line for line in groups[-1] if line.get("per_class_accuracy")]
    if not lines:
        return []
    columns = [*zip(*(line["per_class_accuracy"] for line in lines), strict=True)]
    names = header.get("class_names") or [f"class {label}" for label in range(len(columns))]
    shares = [(mean(column), name) for column, name in zip(columns, names, strict=True) if None not in column]
    worst = ", ".join(f"{name} {100 * share:.2f}" for share, name in sorted(shares)[:most])
    return [f"lowest accuracy in the last round: {worst}"] if len(shares) > 1 else []


def compare(folders: Sequence[Path], out: Path | None, command: str) -> None:
    """Print the tables of all journals in and below some folders; write report.html and CSV files into `out`, if any.

    Raises:
        InputError: a folder has no journal, or none can be read.
    """
    from jaxdal import comparison, page, queries, verdicts

    found = comparison.read(folders)
    judged = [verdicts.judge(one) for one in found.experiments]
    for told in (*found.unreadable.values(), *found.remarks):
        print(told, file=sys.stderr)
    tables = [verdicts.gap_table(one) for one in found.experiments]
    for verdict in judged:
        bought = queries.query_table(verdict.experiment)
        tables += [verdicts.verdict_table(verdict), verdicts.cost_table(verdict), bought]
    for table in tables:
        if table.rows:
            _print_cells(table)
    if len(several := verdicts.with_api(judged)) > 1:
        _print_cells(_numbered(verdicts.overview(several)))
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    for name, text in verdicts.spreadsheets(judged).items():
        print(write_text(out / f"report_{name}.csv", text))
    print(write_text(out / "report.html", page.render(found, judged, command)))


def _single(folder: Path) -> None:
    header, groups = journal.read(folder)
    print_table(header, groups)
    plot(header, groups, folder / "accuracy.png")
    print(folder / "accuracy.png")


def main(arguments: Sequence[str]) -> int:
    """Report on one journal, or compare several; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxdal.report",
        description="One folder with a journal: its table, and accuracy.png. Several, or a folder above them: methods "
        "compared, in tables, report.html and CSV files.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="searched for journals, also below")
    parser.add_argument("--out", type=Path, help="where report.html goes (default: the first DIR)")
    options = parser.parse_args(arguments)
    try:
        folders = [at_home(path.parent if path.name == journal.NAME else path) for path in options.folders]
        first = folders[0]
        if len(folders) == 1 and options.out is None and [*first.rglob(journal.NAME)] == [first / journal.NAME]:
            _single(first)
        else:
            told = shlex.join(["python", "-m", "jaxdal.report", *map(str, arguments)])
            compare(folders, at_home(options.out or first), told)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None:
            raise
        print(f"{error.filename}: {error.strerror} (--out=DIR puts a report elsewhere)", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    begin()
    sys.exit(main(sys.argv[1:]))
