"""What Figures 4, 6 and 8 share: final accuracy against something that is varied."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from experiments import drawing, published
from experiments.plans import SIZES, Run
from experiments.records import Records
from experiments.reporting import Report
from jaxdal.verdicts import Table, number, spread


class Panel(NamedTuple):
    """One picture: methods on one data set, over a field of their runs."""

    title: str
    runs: list[Run]
    field: str  # "n_start" or "n_query"


LABELS = {"n_start": "labels at the start, % of the pool", "n_query": "labels bought per round, % of the pool"}


def finished(runs: Sequence[Run], records: Records, key: str) -> pd.DataFrame:
    """A row per run that finished every round: all of Run, `final` and `mean_of_rounds` in %."""
    frame = records.frame(runs)
    fields = list(Run._fields)
    rows = []
    for values, rounds in frame.groupby(fields, dropna=False, sort=False):
        run = Run(**dict(zip(fields, values, strict=True)))
        accuracy = 100 * rounds.sort_values("round")[key].astype(float)
        if len(rounds) == run.budget.rounds:
            told = {"final": accuracy.iloc[-1], "mean_of_rounds": accuracy.mean(), "labelled": rounds["labelled"].max()}
            rows.append(run.row | told)
    return pd.DataFrame(rows, columns=[*fields, "labelled", "final", "mean_of_rounds"])


def panels(runs: Sequence[Run], field: str) -> list[Panel]:
    """A panel for every data set of the runs, in the order of the plan. field: what is varied."""
    return [
        Panel(published.name(dataset), [run for run in runs if run.dataset == dataset], field)
        for dataset in dict.fromkeys(run.dataset for run in runs)
    ]


def report(title: str, shown: Sequence[Panel], records: Records, key: str, notes: Sequence[str]) -> Report:
    """A table with a row per panel, method and point; a figure with an axes per panel."""
    figure, grid = drawing.panels([panel.title for panel in shown])
    parts, rows = [], []
    for panel, axes in zip(shown, grid, strict=True):
        done = finished(panel.runs, records, key)
        done["x"] = 100 * done[panel.field] / done["dataset"].map(lambda name: SIZES[name].pool)
        parts.append(done.assign(panel=panel.title))
        if not len(done):
            drawing.empty(axes)
        methods = list(dict.fromkeys(run.strategy for run in panel.runs))
        for place, method in enumerate(methods):
            own = done[done["strategy"] == method]
            name = published.name(method)
            if len(done):
                shift = 0.008 * (done["x"].max() - done["x"].min()) * (place - (len(methods) - 1) / 2)
                drawing.spread_line(axes, own, "x", "final", name, place, shift)
            for point in dict.fromkeys(getattr(run, panel.field) for run in panel.runs):
                there = own[own[panel.field] == point]
                planned = [one for one in panel.runs if one.strategy == method and getattr(one, panel.field) == point]
                rows.append([
                    panel.title, name, _percent(planned[0], point), str(planned[0].budget.rounds),
                    f"{planned[0].budget.labels[-1]:,}", spread(there["final"].mean(), there["final"].std()),
                    number(there["mean_of_rounds"].mean(), ".2f"), f"{len(there)}/{len(planned)}",
                ])  # fmt: skip
        axes.set_xlabel(LABELS[panel.field], fontsize=8.5)
        axes.set_ylabel("accuracy after the last round, %", fontsize=8.5)
    drawing.legend(figure, grid)
    varied = panel_column(shown)
    columns = ["panel", "method", varied, "rounds", "labels", "final accuracy, %", "mean of rounds", "runs"]
    mixed = [f"{panel.title}: {told}." for panel in shown for told in records.mixed(panel.runs)]
    more = ["Mean ± standard deviation over seeds of runs that finished every round; dots are seeds."]
    return Report(Table(title, columns, rows, [*more, *notes, *mixed]), pd.concat(parts), figure)


def panel_column(shown: Sequence[Panel]) -> str:
    """What is varied."""
    return " or ".join(dict.fromkeys({"n_start": "start", "n_query": "query"}[panel.field] for panel in shown))


def _percent(run: Run, images: int) -> str:
    return f"{100 * images / SIZES[run.dataset].pool:.3g} % ({images:,})"
