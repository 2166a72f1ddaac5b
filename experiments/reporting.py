"""What a table or figure leaves behind: NAME.csv, NAME.md and, of a figure, NAME.png and NAME.svg, each stamped."""

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import matplotlib
import pandas as pd

from experiments.plans import Options, Run, of_pool
from experiments.records import Records, resolved
from jaxdal import environment, naming
from jaxdal.comparison import COMPLETE
from jaxdal.files import replacing, write_text
from jaxdal.verdicts import NOTHING, Table, number

if TYPE_CHECKING:  # slow to import
    from matplotlib.figure import Figure


class Report(NamedTuple):
    """One table or figure."""

    table: Table
    data: pd.DataFrame  # all numbers in full precision; the index is not written
    figure: "Figure | None" = None


def stamp(options: Options, runs: Sequence[Run], records: Records) -> list[str]:
    """Under which conditions the numbers came about."""
    if not runs:
        return [f"Text, no runs; commit {here()}."]
    by = Counter(records.state(run)[0] for run in runs)
    sources = records.sources(runs)
    places = [place for source in sources for place in source.environments]
    devices = dict.fromkeys(device for place in places for device in place.get("devices") or ["unknown device"])
    commits = dict.fromkeys(str(place.get("commit") or "unknown") for place in places)
    versions = dict.fromkeys(f"jax {place.get('jax') or 'unknown'}" for place in places)
    epochs = dict.fromkeys(
        f"{run.dataset} {run.epochs}{' over the pool where unlabelled images are seen' if of_pool(run) else ''}"
        for run in runs
    )
    ways = dict.fromkeys(f"{run.dataset} {told}" for run in runs for told in (run.trainer, run.way_told) if told)
    told = [
        f"scale {options.scale}; preset {options.preset}; seeds {', '.join(map(str, options.all_seeds()))}; "
        f"epochs {', '.join(epochs)}; {''.join(f'{one}; ' for one in ways)}{accuracy_is(options)}.",
        f"Runs: {by[COMPLETE]} of {len(runs)} complete"
        + "".join(f", {count} {state}" for state, count in by.items() if state != COMPLETE)
        + f". Trained on {', '.join(devices) or 'nothing yet'}, {', '.join(versions) or 'no jax'}, commit "
        f"{', '.join(commits) or NOTHING}; drawn up by commit {here()}.",
        *_own_code(runs),
    ]
    return ["Scale smoke: does it work? The numbers mean nothing.", *told] if options.scale == "smoke" else told


def _own_code(runs: Sequence[Run]) -> list[str]:
    """Strategies and trainers of plugins, with the digests of their code."""
    configs = [resolved(run).config() for run in {run.strategy: run for run in runs}.values()]
    named = dict.fromkeys(config[key] for config in configs for key in ("strategy", "trainer"))
    own = [name for name in named if naming.parted(name)[1]]
    return [f"Not jaxdal's own: {'; '.join(own)}."] if own else []


def here() -> str:
    """The commit that draws up a report."""
    return environment.describe(jax.devices())["commit"] or "unknown"


def accuracy_is(options: Options) -> str:
    """Which accuracy it is."""
    if options.best:
        return "accuracy is the best of all test epochs, as published (optimistic)"
    return "accuracy is that of the last epoch, where published numbers are the best of all test epochs"


def key(options: Options) -> str:
    """The column of the journal that has it."""
    return "accuracy_best" if options.best else "accuracy"


def gaps(runs: Sequence[Run], records: Records) -> list[str]:
    """A sentence for each kind of run that is missing, failed or not finished: nothing is dropped in silence."""
    seeds: dict[tuple[str, str, str, str], list[str]] = {}
    for run in runs:
        state, told = records.state(run)
        if state != COMPLETE:
            share = f" {run.pool_share} of the pool" if run.pool_share else ""
            where = f"{run.dataset} {run.n_start}+{run.n_query}..{run.n_end}{share}"
            seeds.setdefault((state, told, where, run.strategy), []).append(str(run.seed))
    methods: dict[tuple[str, str, str, str], list[str]] = {}
    for (state, told, where, strategy), which in seeds.items():
        methods.setdefault((state, told, where, ", ".join(which)), []).append(strategy)
    return [
        f"{state} ({told}), {where}, seeds {which}: {', '.join(names)}."
        for (state, told, where, which), names in methods.items()
    ]


def signed(value: object) -> str:
    """Percentage points."""
    return number(value, "+.2f")


def beside(ours: str, published: float | None, form: str = "+.2f") -> str:
    """Ours, and the published value in brackets."""
    return f"{ours} ({number(published, form)})"


def markdown(table: Table) -> str:
    """A table as Markdown; the best are bold, the first cell of a row that is above zero everywhere has a star."""
    lines = [f"| {' | '.join(table.columns)} |", "|---" + "|--:" * (len(table.columns) - 1) + "|"]
    for at, row in enumerate(table.rows):
        cells = []
        for place, cell in enumerate(row):
            mark = table.marks.get((at, place))
            text = cell.replace("|", "\\|")
            cells.append(f"**{text}**" if mark == "best" else f"{text} ★" if mark == "better" else text)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write(name: str, report: Report, told: Sequence[str], command: str, folder: Path) -> list[Path]:
    """Write all files of a report, each as a whole: -> their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    notes = "\n".join(f"- {note}" for note in report.table.notes)
    picture = f"![{report.table.title}]({name}.svg)" if report.figure else ""
    parts = [f"# {report.table.title}", f"`{command}`", *told, picture, markdown(report.table), notes]
    csv = io.StringIO()
    csv.write("".join(f"# {line}\n" for line in (report.table.title, command, *told)))
    report.data.to_csv(csv, index=False)
    paths = [write_text(folder / f"{name}.md", "\n\n".join(filter(None, parts)) + "\n")]
    paths.append(write_text(folder / f"{name}.csv", csv.getvalue()))
    if report.figure:
        lines = wrapped(told, int(17 * report.figure.get_figwidth()))
        report.figure.text(0.005, -0.01, "\n".join(lines), fontsize=5.5, color="0.45", va="top")
        with matplotlib.rc_context({"svg.hashsalt": "jaxdal", "svg.fonttype": "path"}):
            for kind, metadata in (("png", None), ("svg", {"Date": None, "Creator": None})):
                paths.append(folder / f"{name}.{kind}")
                with replacing(paths[-1]) as partial:
                    report.figure.savefig(
                        partial, format=kind, dpi=150, metadata=metadata, bbox_inches="tight", facecolor="white"
                    )
    return paths


def wrapped(told: Sequence[str], width: int) -> list[str]:
    """Lines of at most so many letters."""
    import textwrap

    return [line for sentence in told for line in textwrap.wrap(sentence, width)]
