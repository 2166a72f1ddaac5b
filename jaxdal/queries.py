"""What was bought: of how many classes the queries of a method are, and how large a share the largest class has."""

import pandas as pd

from jaxdal.comparison import Experiment
from jaxdal.verdicts import Table, number

MEASURES = {"query_classes": ("classes", 1, ".0f"), "query_largest": ("% of largest class", 100, ".1f")}


def query_table(experiment: Experiment) -> Table:
    """A row per method whose journals tell it, over all seeds and queries, also of runs that did not finish."""
    rows = []
    for method in experiment.methods:
        rounds = experiment.rounds[experiment.rounds["method"] == method].dropna(subset=[*MEASURES])
        if len(rounds):
            first = rounds[rounds["round"] == 0]
            cells = [
                _range(part[key].astype(float) * times, form)
                for key, (_, times, form) in MEASURES.items()
                for part in (first, rounds)
            ]
            rows.append([method, str(rounds["seed"].nunique()), str(len(rounds)), *cells])
    columns = [f"{name}, {part}" for name, _, _ in MEASURES.values() for part in ("first query", "all queries")]
    notes = [
        "Classes that a query has images of, and the share of its images that are of the one with most: mean (least to "
        "most) over seeds and queries."
    ]
    return Table(f"Queries: {experiment.title}", ["method", "seeds", "queries", *columns], rows, notes)


def _range(values: pd.Series, form: str) -> str:
    least, most = number(values.min(), form), number(values.max(), form)
    return least if least == most else f"{number(values.mean(), '.1f')} ({least} to {most})"
