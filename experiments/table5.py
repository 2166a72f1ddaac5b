"""Table 5: what choosing is worth to semi-supervised learning, and how many images there are of each class.

    python -m experiments.table5 --data_dir=DIR      # of the runs of Table 3, random and two semi-supervised methods
    python -m experiments.table5 --scale=smoke

Hours on one H100 (estimates of training alone, experiments/estimate.py): 28 if Table 3 is not there: MNIST 0.1,
CIFAR-10 2.6, GTSRB 2, CIFAR-100 2.6, Tiny-ImageNet 20.
Published (arXiv 2212.03088, Table 5), API(SSLDiff2AugDirect) / API(SSLRandom): MNIST (6,000 a class) 2.07, CIFAR-10
(5,000) 1.26, GTSRB (911) 1.07, Tiny-ImageNet (500) 1.06. The last is in no other table (Table 3 has no
SSLDiff2AugDirect there), and CIFAR-100 (500), which is left out, would be 8.988 / 8.014 = 1.12.
"""

import sys

import pandas as pd

from experiments import command, grid, published
from experiments.plans import SIZES, Options, Run
from experiments.records import Records, resolved
from experiments.reporting import Report, key, signed
from jaxdal import metrics
from jaxdal.verdicts import Table, number

CHOSEN, RANDOM = "ssl_diff2aug_direct", "ssl_random"


def render(options: Options, runs: list[Run], records: Records) -> Report:
    """The ratio of the APIs, round 0 included, most images per class first."""
    found = []
    for column in grid.columns(runs, records):
        apis, pairs = _apis(column, key(options))
        each = SIZES[column.dataset].pool // resolved(column.runs[0]).num_classes
        told = {"dataset": column.dataset, "images_per_class": each, "api_direct": apis[0], "api_random": apis[1]}
        meant = published.IMPROVEMENT.get(column.dataset, (None, None))[1]
        found.append(told | {"ratio": apis[0] / apis[1] if apis[1] > 0 else None, "pairs": pairs, "published": meant})
    numbers = pd.DataFrame(found).sort_values("images_per_class", ascending=False, kind="stable")
    rows = [
        [
            published.name(row.dataset), f"{row.images_per_class:,}", signed(row.api_direct),
            signed(row.api_random), number(row.ratio, ".2f"), number(row.published, ".2f"), number(row.pairs, ".0f"),
        ]
        for row in numbers.itertuples()
    ]  # fmt: skip
    columns = ["data set", "images per class", "API Direct", "API SSLRandom", "ratio", "published", "seeds"]
    notes = [
        "Means over the seeds that these two methods and random sampling have all finished.",
        "No ratio where SSLRandom is not above random sampling: it would mean nothing.",
    ]
    return Report(Table("Table 5: images per class, and the gain from choosing them", columns, rows, notes), numbers)


def _apis(column: grid.Column, key: str) -> tuple[list[float], int]:
    """API of both methods on the seeds that both and random sampling have finished, and how many these are."""
    names = ("random", CHOSEN, RANDOM)
    curves = [column.experiment.curves(name, key) for name in names] if column.experiment else []
    seeds = set.intersection(*(set(one.index) for one in curves)) if curves else set()
    if not seeds:
        return [float("nan")] * 2, 0
    base, *others = (one.loc[sorted(seeds)] for one in curves)
    return [float(metrics.gains(one, base).mean(axis=1, skipna=False).mean(skipna=False)) for one in others], len(seeds)


if __name__ == "__main__":
    sys.exit(command.main("table5", __doc__, render))
