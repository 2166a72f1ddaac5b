"""Table 2: accuracy with all labels.

    python -m experiments.table2 --data_dir=DIR
    python -m experiments.table2 --scale=smoke

With all labels there is nothing to choose, so --strategies changes nothing.
Hours on one H100 (estimates of training alone, experiments/estimate.py): 0.5 in all, of which 0.4 are Tiny-ImageNet's.
Published (arXiv 2212.03088, Table 2, in %): MNIST 97.68, CIFAR-10 92.15, CIFAR-100 66.78, GTSRB 99.33, Tiny-ImageNet
55.81. They are weak ceilings, not bounds: random sampling of Table 3 plus its best API is above them on MNIST and
CIFAR-10, and GTSRB's does not fit the 94 to 95 % of the authors' raw runs at 70 % of the labels.
"""

import sys

from experiments import command, published
from experiments.plans import SIZES, Options, Run
from experiments.records import Records, resolved
from experiments.reporting import Report, key
from jaxdal.verdicts import Table, number, spread


def render(options: Options, runs: list[Run], records: Records) -> Report:
    """Mean ± standard deviation over seeds."""
    frame = records.frame(runs)
    rows, mixed = [], []
    for dataset in dict.fromkeys(run.dataset for run in runs):
        own = frame[frame["dataset"] == dataset]
        accuracy = 100 * own[key(options)].astype(float)
        size = SIZES[dataset]
        settings = resolved(next(run for run in runs if run.dataset == dataset))
        name = published.name(dataset)
        mixed += [f"{name}: {told}." for told in records.mixed(run for run in runs if run.dataset == dataset)]
        rows.append([
            name, str(settings.num_classes), f"{size.pool:,}/{size.test:,}",
            settings.model, spread(accuracy.mean(), accuracy.std()), str(len(accuracy)),
            number(published.FULL_DATA.get(dataset), ".2f"),
        ])  # fmt: skip
    columns = ["data set", "classes", "train/test", "model", "accuracy, %", "seeds", "published"]
    notes = ["Supervised training on all labels, one round; mean ± standard deviation over seeds.", *mixed]
    return Report(Table("Table 2: accuracy with all labels", columns, rows, notes), frame)


if __name__ == "__main__":
    sys.exit(command.main("table2", __doc__, render))
