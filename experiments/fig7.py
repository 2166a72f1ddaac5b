"""Figure 7 (appendix A.2): accuracy against budget.

    python -m experiments.fig7 --data_dir=DIR      # the runs of Table 3 but for CIFAR-100
    python -m experiments.fig7 --scale=smoke

Hours on one H100 (estimates of training alone, experiments/estimate.py): 84 if Table 3 is not there.
Published (arXiv 2212.03088) are curves without numbers: MNIST, CIFAR-10, GTSRB, Tiny-ImageNet; as there, only methods
above random sampling (API > 0) are drawn. The CSV file has all.
"""

import sys
from typing import TYPE_CHECKING, Any

import pandas as pd

from experiments import command, drawing, grid, published
from experiments.plans import Options, Run
from experiments.records import Records
from experiments.reporting import Report, key, signed
from jaxdal.caveats import of_seeds
from jaxdal.verdicts import Table, number

if TYPE_CHECKING:  # slow to import
    from matplotlib.axes import Axes


def render(options: Options, runs: list[Run], records: Records) -> Report:
    """A panel per data set: mean and spread over seeds that finished every round."""
    columns = grid.columns(runs, records)
    titles = [published.name(column.dataset) for column in columns]
    figure, axes = drawing.panels(titles, width=5.4, height=4.4)
    order = list(dict.fromkeys(run.strategy for run in runs))
    rows: list[list[str]] = []
    for column, each in zip(columns, axes, strict=True):
        planned = len(column.runs) // len(order)
        drawn = _draw(each, column, order, "api_best" if options.best else "api", key(options))
        for method in order:
            api = grid.value(column, method, "api_best" if options.best else "api")
            seeds = len(column.experiment.finished(method)) if column.experiment else 0
            final, balanced = (grid.value(column, method, name) for name in ("final", "final_balanced"))
            rows.append([
                published.name(column.dataset), published.name(method),
                signed(api), number(final, ".2f"), number(balanced, ".2f"), f"{seeds}/{planned}",
                "yes" if method in drawn else "no",
            ])  # fmt: skip
    drawing.legend(figure, axes)
    notes = [
        f"Published, in words: {published.SAYS['fig7']}",
        "Curves: means over seeds that finished every round, bars ± one standard deviation; final accuracy: of the "
        "last epoch, balanced: the mean over classes. API: of the seeds that random sampling has finished as well.",
        *(note for column in columns for note in [*column.notes, *_seeds(column)]),
    ]
    names = ["data set", "method", "API", "final accuracy, %", "balanced, %", "seeds", "drawn"]
    table = Table("Figure 7: accuracy against budget", names, rows, notes)
    return Report(table, records.frame(runs).drop(columns=["save_weights"]), figure)


def _seeds(column: grid.Column) -> list[str]:
    """That curves of different seeds are beside each other, where they are."""
    name = published.name(column.dataset)
    return [f"{name}: {told}" for told in (of_seeds(column.experiment) if column.experiment else [])]


def _draw(axes: "Axes", column: grid.Column, order: list[str], api: str, key: str) -> list[str]:
    """Random sampling dashed, thick and grey, the methods above it in colours: -> what was drawn."""
    drawn: list[str] = []
    pool = column.runs[0].pool
    for place, method in enumerate(order):
        if column.experiment is None or method not in column.experiment.methods:
            continue
        curves = 100 * column.experiment.curves(method, key)
        if not len(curves) or curves.isna().all(axis=None) or not (
            method == "random" or grid.value(column, method, api) > 0
        ):  # fmt: skip
            continue
        mean: pd.Series = curves.mean()
        dashed: dict[str, Any] = {"color": drawing.GREY, "marker": "", "ls": "--", "lw": 2.4}
        looks = dashed if method == "random" else drawing.style(place) | {"lw": 1.4}
        shares = 100 * mean.index.to_numpy(float) / pool
        if len(curves) > 1:
            axes.errorbar(shares, mean, curves.std(), ls="", elinewidth=0.7, alpha=0.55, color=looks["color"])
        axes.plot(shares, mean, ms=3.2, label=published.name(method), **looks)
        drawn.append(method)
    if not drawn:
        drawing.empty(axes)
        return drawn
    axes.set_xlabel("labels, % of the pool", fontsize=8.5)
    axes.set_ylabel("test accuracy, %", fontsize=8.5)
    return drawn


if __name__ == "__main__":
    sys.exit(command.main("fig7", __doc__, render))
