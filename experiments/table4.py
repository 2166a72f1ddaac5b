"""Table 4: mean cost of supervised and semi-supervised methods, divided by that of random sampling.

    python -m experiments.table4 --data_dir=DIR --pack=1 --seeds=0      # runs of its own, each alone: honest seconds
    python -m experiments.table4 --norun                                # from the runs of Table 3, trained together
    python -m experiments.table4 --scale=smoke

Hours on one H100 (estimates of training alone, experiments/estimate.py): none beyond Table 3 without --pack=1; with it,
one seed of all data sets about 2.3 times the packed 19, so 43.
Published (arXiv 2212.03088, Table 4; MNIST, CIFAR-10, GTSRB, CIFAR-100, Tiny-ImageNet): SAL 3.13 2.01 1.63 2.43 3.81;
SSAL 11.95 6.03 4.05 3.89 7.26. Whether random sampling is one of the SAL methods is not said: both means are here.
"""

import sys
from collections.abc import Sequence

import pandas as pd

from experiments import command, grid, published
from experiments.plans import Options, Run
from experiments.records import Records
from experiments.reporting import Report, beside
from jaxdal import verdicts
from jaxdal.verdicts import Table, number

KINDS = {
    "SAL": ("SAL", [name for name in published.SAL if name != "random"]),
    "SAL with random sampling": ("SAL", list(published.SAL)),
    "SSAL": ("SSAL", list(published.SSAL)),
}
WAYS = {"alone": (1, "ratio"), "together": (0, "shared_ratio")}  # how trained -> (--pack, column of verdicts.costs)


def render(options: Options, runs: list[Run], records: Records) -> Report:
    """Cost (equation 2) of runs that were trained alone; beside it, shared evenly, of those trained together."""
    del options
    datasets = list(dict.fromkeys(run.dataset for run in runs))
    numbers = [
        costs
        for way, (pack, _) in WAYS.items()
        if not (costs := _costs([run._replace(pack=pack) for run in runs], records, way)).empty
    ]
    table = pd.concat(numbers) if numbers else pd.DataFrame(columns=["trained", "dataset", "method"])
    rows = []
    for way, (_, ratio) in WAYS.items():
        for kind, (name, methods) in KINDS.items():
            cells = []
            for dataset in datasets:
                own = table[(table["trained"] == way) & (table["dataset"] == dataset) & table["method"].isin(methods)]
                values = own[ratio].dropna() if ratio in own else pd.Series(dtype=float)
                ours = number(values.mean(), ".2f") + (f" (of {len(values)})" if len(values) else "")
                cells.append(beside(ours, published.COST[name].get(dataset), ".2f") if way == "alone" else ours)
            rows.append([f"{kind}, {way}", *cells])
    notes = [
        "Seconds of selection and training per round, mean over rounds, seeds and methods (of so many), divided by "
        "random sampling's; without compilation and evaluation; in the last brackets: published.",
        "Alone: runs with --pack=1, the only ones that are Cost in the sense of equation 2. Together: runs that were "
        "trained as one program, whose seconds are shared evenly: selection shows, a method's own training hardly.",
        "Ratios of one device only; absolute seconds are in the CSV file.",
    ]
    headings = ["methods", *(f"{published.DATASETS.get(name, name)}" for name in datasets)]
    return Report(Table("Table 4: cost, divided by random sampling's", headings, rows, notes), table)


def _costs(runs: Sequence[Run], records: Records, way: str) -> pd.DataFrame:
    """All of verdicts.costs, by data set."""
    parts = []
    for column in grid.columns(runs, records):
        if column.experiment:
            part = verdicts.costs(column.experiment).rename_axis("method").reset_index()
            part.insert(0, "dataset", column.dataset)
            part.insert(0, "trained", way)
            parts.append(part)
    return pd.concat(parts) if parts else pd.DataFrame()


if __name__ == "__main__":
    sys.exit(command.main("table4", __doc__, render))
