"""Figure 4 (section 5.1): how early should semi-supervised active learning start?

    python -m experiments.fig4 --data_dir=DIR --datasets=mnist
    python -m experiments.fig4 --scale=smoke

Hours on one H100 (estimates of training alone, experiments/estimate.py): MNIST 0.2, CIFAR-10 2.5.
SSLDiff2AugDirect from several random starts to one end, 10 % of MNIST and 30 % of CIFAR-10. A start at the end buys
nothing. Published (arXiv 2212.03088) are curves without numbers, and in words: on MNIST about 2 points are lost from a
start at 2 % to one at 10 %, and 0.5 % is best. The paper names no query size and no starts for CIFAR-10: see
experiments/plans.py, STARTS; the size is changed a little where the start would not land on the end.
"""

import sys

from experiments import command, published, sweeps
from experiments.plans import Options, Run
from experiments.records import Records
from experiments.reporting import Report, key


def render(options: Options, runs: list[Run], records: Records) -> Report:
    """Final accuracy by start."""
    panels, notes = sweeps.panels(runs, "n_start"), [f"Published, in words: {published.SAYS['fig4']}"]
    return sweeps.report("Figure 4: final accuracy by start budget", panels, records, key(options), notes)


if __name__ == "__main__":
    sys.exit(command.main("fig4", __doc__, render))
