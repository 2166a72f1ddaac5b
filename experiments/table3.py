"""Table 3: API of 19 methods over random sampling, on five data sets.

    python -m experiments.table3 --data_dir=DIR --datasets=mnist,cifar10
    python -m experiments.table3 --data_dir=DIR --scale=half --seeds=0
    python -m experiments.table3 --scale=smoke

Hours on one H100 (estimates of training alone, experiments/estimate.py): five seeds: MNIST 0.2, CIFAR-10 9, GTSRB 7,
CIFAR-100 9, Tiny-ImageNet 69; one seed of all: 19; --scale=half, five seeds: 25.
Published (arXiv 2212.03088, Table 3): experiments/published.py, API; beside ours in brackets. A row with a star is
above random sampling on every data set; the best of the supervised (SAL) and semi-supervised (SSAL) methods are bold.
"""

import sys

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from experiments import command, grid, published
from experiments.plans import Options, Run
from experiments.records import Records
from experiments.reporting import Report, beside
from jaxdal.verdicts import Table, spread


def render(options: Options, runs: list[Run], records: Records) -> Report:
    """API (equation 1, round 0 included), mean ± standard deviation over seeds."""
    columns = grid.columns(runs, records)
    name = "api_best" if options.best else "api"
    methods = list(dict.fromkeys(run.strategy for run in runs))
    rows, marks = [], {}
    for at, method in enumerate(methods):
        cells = [published.name(method), grid.kind(method)]
        values = [grid.value(column, method, name) for column in columns]
        for column, value in zip(columns, values, strict=True):
            # Those that the cell is of: of a method, the seeds that random sampling has finished as well.
            seeds = grid.value(column, method, "n" if method == "random" else "pairs")
            planned = len(column.runs) // len(methods)
            deviation = grid.value(column, method, f"{name}_sd")
            ours = "+0.00" if method == "random" and seeds > 0 else spread(value, deviation, "+.2f")
            ours += f", {seeds:.0f} of {planned} seeds" if 0 < seeds < planned else ""
            cells.append(beside(ours, published.API.get(method, {}).get(column.dataset)))
        rows.append(cells)
        if values and all(value > 0 for value in values):
            marks[at, 0] = "better"
    for place, column in enumerate(columns):
        for kind in ("SAL", "SSAL"):
            api = {at: grid.value(column, method, name) for at, method in enumerate(methods) if rows[at][1] == kind}
            best = max((one for one in api.values() if one > 0), default=None)
            marks |= {(at, 2 + place): "best" for at, one in api.items() if one == best}
    notes = [
        "API in percentage points, mean ± standard deviation over the seeds that finished both this method and random "
        "sampling; in brackets: published. Semi-supervised methods are compared with supervised random sampling.",
        "★: above random sampling on every data set of the table, by however little; bold: highest of SAL and of SSAL.",
        *(note for column in columns for note in column.notes),
        *_agreement(columns, name),
        *_low_power(columns, "accuracy of the last epoch, " if options.best else ""),
    ]
    headings = ["method", "", *(f"{published.name(one.dataset)} (published)" for one in columns)]
    title = "Table 3: average performance improvement (API) over random sampling"
    return Report(Table(title, headings, rows, notes, marks), _numbers(columns))


def _numbers(columns: list[grid.Column]) -> pd.DataFrame:
    """All of verdicts.measure, with what was published."""
    parts = []
    for column in columns:
        part = column.table.rename_axis("method").reset_index()
        part.insert(0, "dataset", column.dataset)
        known = [published.API.get(method, {}).get(column.dataset) for method in part["method"]]
        part.insert(2, "published_api", pd.Series(known, part.index, dtype=float))
        parts.append(part)
    return pd.concat(parts)


def _agreement(columns: list[grid.Column], name: str) -> list[str]:
    """How near the methods of a column are to what was published for them under the same name."""
    told = []
    for column in columns:
        known = {method: published.API.get(method, {}).get(column.dataset) for method in column.table.index}
        pairs = [(grid.value(column, method, name), theirs) for method, theirs in known.items() if theirs]
        ours, theirs = np.asarray([pair for pair in pairs if not np.isnan(pair[0])], float).reshape(-1, 2).T
        if len(ours) > 2:
            told.append(
                f"{published.DATASETS[column.dataset]}: of {len(ours)} published methods, {np.sum(ours * theirs > 0)} "
                f"lie on the published side of random; mean absolute difference {np.mean(np.abs(ours - theirs)):.2f} "
                f"points, rank correlation {spearmanr(ours, theirs).statistic:.2f} (Spearman)."
            )
    return told


def _low_power(columns: list[grid.Column], of: str) -> list[str]:
    """What was tested, and found. of: which accuracy, if it is not that of the cells."""
    told = []
    for column in columns:
        if "verdict" in column.table:
            better = [str(name) for name, verdict in column.table["verdict"].items() if verdict in ("better", "worse")]
            pairs = sorted({int(n) for n in column.table["pairs"].dropna() if n > 0}) or [0]
            count = " to ".join(map(str, dict.fromkeys((pairs[0], pairs[-1]))))
            names = ", ".join(better) or "none"
            told.append(
                f"{published.name(column.dataset)}: {count} paired seeds; told apart from "
                f"random ({of}paired t-test, Holm): {names}."
            )
    return told


if __name__ == "__main__":
    sys.exit(command.main("table3", __doc__, render))
