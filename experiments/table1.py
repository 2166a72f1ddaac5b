"""Table 1: empirical studies of deep active learning, beside what this project compares. Text, no runs.

    python -m experiments.table1

Published (arXiv 2212.03088, Table 1): experiments/published.py, STUDIES.
"""

import sys

import pandas as pd

from experiments import command, grid, published
from experiments.plans import Options, Run
from experiments.records import Records
from experiments.reporting import Report
from jaxdal import likeness
from jaxdal.strategies import STRATEGIES
from jaxdal.verdicts import Table


def render(options: Options, runs: list[Run], records: Records) -> Report:
    """The rows of the paper, and one for the strategies that are here."""
    del options, runs, records
    names = [name for name, row in STRATEGIES.items() if not likeness.of_rows(row)]  # not those of plugins
    others = [name for name in names if grid.kind(name) == "SSAL"]
    here = ("jaxdal", len(names), len(others), "Yes", "Yes", "Yes")
    columns = ["study", "methods", "semi-supervised", "performance", "robustness", "cost"]
    studies = [here, *published.STUDIES]
    more = ", ".join(name for name in names if name not in published.METHODS)
    notes = [f"The 19 methods of the paper are all here; {more} are named in its section 2.1 only."]
    rows = [[str(cell) for cell in row] for row in studies]
    return Report(Table("Table 1: empirical studies", columns, rows, notes), pd.DataFrame(studies, columns=columns))


if __name__ == "__main__":
    sys.exit(command.main("table1", __doc__, render))
