"""What Tables 3 to 5 and Figure 7 share: their runs by data set, measured."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from experiments.plans import Run
from experiments.records import Records
from jaxdal import strategies, trainers, verdicts
from jaxdal.comparison import Experiment


class Column(NamedTuple):
    """One data set."""

    dataset: str
    runs: list[Run]
    experiment: Experiment | None  # None: no journal yet
    table: pd.DataFrame  # of verdicts.measure, a row per planned method, NaN where nothing is known
    notes: list[str]


def columns(runs: Sequence[Run], records: Records) -> list[Column]:
    """Measure the runs of every data set, in the order of the plan."""
    found = []
    for dataset in dict.fromkeys(run.dataset for run in runs):
        own = [run for run in runs if run.dataset == dataset]
        methods = list(dict.fromkeys(run.strategy for run in own))
        experiment, notes = records.experiment(own)
        table = verdicts.measure(experiment) if experiment else pd.DataFrame()
        found.append(Column(dataset, own, experiment, table.reindex(methods), notes))
    return found


def kind(strategy: str) -> str:
    """SSAL (semi-supervised) or SAL, by whether the network of a strategy is trained on unlabelled images too."""
    chosen = strategies.build(strategy)
    return "SSAL" if chosen.wrap(trainers.build(chosen.trainer)).unlabelled else "SAL"


def value(column: Column, method: str, name: str) -> float:
    """A number of the table, or NaN."""
    return float(column.table[name].get(method, float("nan"))) if name in column.table else float("nan")
