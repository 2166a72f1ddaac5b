"""Table 4: mean cost of supervised and semi-supervised methods, divided by that of random sampling.

    python -m experiments.table4 --data_dir=DIR --pack=1 --seeds=0      # runs of its own, each alone: honest seconds
    python -m experiments.table4 --norun                                # from the runs of Table 3, trained together
    python -m experiments.table4 --scale=smoke

Hours on one H100 (estimates of training alone, experiments/estimate.py): none beyond Table 3 without --pack=1. With it,
more than the packed 19 of one seed of all data sets; how much more has not been measured.
Published (arXiv 2212.03088, Table 4; MNIST, CIFAR-10, GTSRB, CIFAR-100, Tiny-ImageNet): SAL 3.13 2.01 1.63 2.43 3.81;
SSAL 11.95 6.03 4.05 3.89 7.26. Whether random sampling is one of the SAL methods is not said: both means are here.
"""

import sys

import pandas as pd

from experiments import command, grid, published
from experiments.plans import Options, Run
from experiments.records import Records
from experiments.reporting import Report, beside
from jaxdal import caveats, verdicts
from jaxdal.comparison import Experiment
from jaxdal.verdicts import Table, number

KINDS = {"SAL": "SAL", "SAL with random sampling": "SAL", "SSAL": "SSAL"}  # row -> grid.kind
WAYS = {"alone": (1, "ratio"), "together": (0, "shared_ratio")}  # how trained -> (--pack, column of verdicts.costs)


def render(options: Options, runs: list[Run], records: Records) -> Report:
    """Cost (equation 2) of runs that were trained alone; beside it, shared evenly, of those trained together."""
    del options
    datasets = list(dict.fromkeys(run.dataset for run in runs))
    found = [
        (way, column)
        for way, (pack, _) in WAYS.items()
        for column in grid.columns([run._replace(pack=pack) for run in runs], records)
    ]
    numbers = [_costs(column.experiment, column.dataset, way) for way, column in found if column.experiment]
    table = pd.concat(numbers) if numbers else pd.DataFrame(columns=["trained", "dataset", "method"])
    kinds = {run.strategy: grid.kind(run.strategy) for run in runs}
    rows = []
    for way, (_, ratio) in WAYS.items():
        for kind, name in KINDS.items():
            cells = []
            methods = [one for one in kinds if kinds[one] == name and (one != "random" or "random" in kind)]
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
        "trained as one program, whose seconds are shared evenly: selection shows, a method's own training hardly, and "
        "how many runs there were at once does. These are not to be compared with what was published.",
        "Absolute seconds are in the CSV file.",
        *(
            f"{published.name(one.dataset)}, {way}: {told}"
            for way, one in found
            for told in _caveats(one.experiment, way)
        ),
    ]
    headings = ["methods", *map(published.name, datasets)]
    return Report(Table("Table 4: cost, divided by random sampling's", headings, rows, notes), table)


def _costs(experiment: Experiment, dataset: str, way: str) -> pd.DataFrame:
    """All of verdicts.costs; a program of one run shares its seconds with nobody, and all of them are its own."""
    table = verdicts.costs(experiment)
    if way == "together":
        table["shared_cost"] = table["shared_cost"].fillna(table["cost"])
        table["shared_ratio"] = table["shared_cost"] / table["shared_cost"].get(experiment.baseline, float("nan"))
    part = table.rename_axis("method").reset_index()
    part.insert(0, "dataset", dataset)
    part.insert(0, "trained", way)
    return part


def _caveats(experiment: Experiment | None, way: str) -> list[str]:
    """What a reader of the ratios must know."""
    if experiment is None:
        return []
    table, together = verdicts.costs(experiment), way == "together"
    seeds = [f"{one} Ratios are of means over these, not of pairs." for one in caveats.of_seeds(experiment)]
    told = [*verdicts.other_devices(experiment), *(caveats.of_cost(experiment, together) or seeds)]
    if together and table["shared_n"].any():
        told += caveats.of_packs(experiment)
        alone = table[table["n"] > 0]
        if names := ", ".join(alone.index[alone["shared_n"] == 0]):
            told.append(f"no other run was trained with those of {names}: their seconds are undivided.")
        if names := ", ".join(alone.index[alone["shared_n"] > 0]):
            told.append(f"runs of {names} that were alone are left out.")
    return told


if __name__ == "__main__":
    sys.exit(command.main("table4", __doc__, render))
