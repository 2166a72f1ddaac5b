"""Figure 2: what four semi-supervised strategies pick, and what it is worth.

    python -m experiments.fig2 --data_dir=DIR
    python -m experiments.fig2 --scale=smoke

Hours on one H100 (estimate of training alone, experiments/estimate.py): 0.03.
MNIST: 2 % of the labels at random, one query of 1 %, trained again. Of the picks, by the network before they are
labelled: diversity, uncertainty and inconsistency (experiments/case.py has the definitions, which are ours), and the
accuracy after the next round. Published (arXiv 2212.03088) are bars without numbers, and in words: SSLRandom's picks
are the most diverse, least uncertain and least inconsistent, and its accuracy is the lowest.
"""

import sys
from typing import TYPE_CHECKING

import pandas as pd

from experiments import case, command, drawing, published
from experiments.plans import Options, Run
from experiments.records import Records
from experiments.reporting import Report, key
from jaxdal.verdicts import Table, number, spread

if TYPE_CHECKING:  # slow to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = {
    "diversity": "diversity, features", "diversity_pixels": "diversity, pixels", "uncertainty": "uncertainty",
    "inconsistency": "inconsistency", "accuracy": "accuracy after, %",
}  # fmt: skip


def render(options: Options, runs: list[Run], records: Records) -> Report:
    """Bars, points for accuracies, with standard deviations over seeds; dashed: all unlabelled images, or round 0."""
    rows, mixed = [], []
    for dataset in dict.fromkeys(run.dataset for run in runs):
        own = [run for run in runs if run.dataset == dataset]
        mixed += [f"{published.name(dataset)}: {told}." for told in records.mixed(own)]
        scored = case.Case(own[0], options.data_dir)
        for run in own:
            record = records.shown(run)
            told = scored.measured(record, run.seed) if record else None
            lines = record.lines(run.seed) if record else []
            accuracy = [100 * line[key(options)] for line in lines if line.get(key(options)) is not None]
            row = {"dataset": dataset, "strategy": run.strategy, "seed": run.seed}
            row |= {name: told["picks"][name] for name in case.MEASURES} if told else {}
            row |= {f"pool_{name}": told["pool"][name] for name in case.MEASURES} if told else {}
            row |= {"pool_accuracy": accuracy[0]} if accuracy else {}
            rows.append(row | ({"accuracy": accuracy[1]} if len(accuracy) > 1 else {}))
    names = [*SHOWN, *(f"pool_{name}" for name in SHOWN)]
    table = pd.DataFrame(rows, columns=["dataset", "strategy", "seed", *names])
    table[names] = table[names].astype(float)
    return Report(_cells(table, mixed), table, _bars(table))


def _cells(table: pd.DataFrame, mixed: list[str]) -> Table:
    rows = []
    for (dataset, strategy), own in table.groupby(["dataset", "strategy"], sort=False):
        cells = [spread(own[name].mean(), own[name].std(), _form(name)) for name in SHOWN]
        names = [published.name(dataset), published.name(strategy)]
        rows.append([*names, *cells, _count(own, "")])
    for dataset, own in table.groupby("dataset", sort=False):
        # The strategies of a seed share the network: each seed counts once, however many of them have it.
        pools = own.groupby("seed")[[f"pool_{name}" for name in SHOWN]].mean()
        cells = [number(pools[f"pool_{name}"].mean(), _form(name)) for name in SHOWN]
        names = [published.name(dataset), "all unlabelled images; accuracy before"]
        rows.append([*names, *cells, _count(pools, "pool_")])
    notes = [
        f"Published, in words: {published.SAYS['fig2']}",
        f"Distances of all unlabelled images are those of at most {case.SAMPLE:,} of them. Inconsistency is 0 where "
        "nothing is augmented (digits). A dash where the network of round 0 was not kept.",
        *mixed,
    ]
    columns = ["data set", "picks of", *SHOWN.values(), "seeds"]
    return Table("Figure 2: what semi-supervised strategies pick", columns, rows, notes)


def _count(table: pd.DataFrame, prefix: str) -> str:
    """Seeds with an accuracy; of which the picks were measured, if these are not as many."""
    trained, measured = (int(table[f"{prefix}{name}"].notna().sum()) for name in ("accuracy", case.MEASURES[0]))
    return str(trained) if trained == measured else f"{trained} ({measured} measured)"


def _form(name: str) -> str:
    return ".2f" if name.startswith(("diversity", "accuracy")) else ".4f"


def _bars(table: pd.DataFrame) -> "Figure":
    measures = [name for name in SHOWN if name != "diversity_pixels"]
    shown = [(dataset, name) for dataset in dict.fromkeys(table["dataset"]) for name in measures]
    titles = [f"{published.name(dataset)}: {SHOWN[name]}" for dataset, name in shown]
    figure, grid = drawing.panels(titles, across=4, width=2.6, height=3.2)
    for axes, (dataset, name) in zip(grid, shown, strict=True):
        _panel(axes, table[table["dataset"] == dataset], name)
    figure.supxlabel("dashed: all unlabelled images, and accuracy before the query", fontsize=7.5)
    return figure


def _panel(axes: "Axes", table: pd.DataFrame, name: str) -> None:
    """A bar for each strategy; a point where the axis does not start at 0, since the length of a bar would mislead."""
    strategies = list(dict.fromkeys(table["strategy"]))
    for place, strategy in enumerate(strategies):
        own = table.loc[table["strategy"] == strategy, name].dropna()
        colour = drawing.COLOURS[place % len(drawing.COLOURS)]
        if len(own) and name == "accuracy":
            axes.plot(place, own.mean(), "o", color=colour, ms=7)
        elif len(own):
            axes.bar(place, own.mean(), color=colour, alpha=0.85, width=0.7)
        if len(own) > 1:
            axes.errorbar(place, own.mean(), own.std(), color="0.2", capsize=3, lw=1)
    before = table.groupby("seed")[f"pool_{name}"].mean().mean()
    if pd.notna(before):
        axes.axhline(before, color="0.3", ls="--", lw=1)
    values = table[[name, f"pool_{name}"]].stack().dropna()
    if name == "accuracy" and len(values):
        margin = 0.25 * (values.max() - values.min()) or 1.0
        axes.set(xlim=(-0.6, len(strategies) - 0.4), ylim=(values.min() - margin, values.max() + margin))
    if len(values) and not values.any():  # nothing is augmented: all answers are alike
        axes.set_ylim(0, 1)
    labels = [published.name(one).removeprefix("SSL") for one in strategies]
    axes.set_xticks(range(len(strategies)), labels, rotation=30, ha="right", fontsize=7.5)
    axes.grid(axis="x", visible=False)


if __name__ == "__main__":
    sys.exit(command.main("fig2", __doc__, render))
