"""Figure 6 (section 5.3): does the size of queries matter to semi-supervised methods?

    python -m experiments.fig6 --data_dir=DIR
    python -m experiments.fig6 --scale=smoke

Hours on one H100 (estimates of training alone, experiments/estimate.py): 7.
Four methods trained by MixMatch, from 10 % to 50 % of CIFAR-10, in queries of 5, 10, 20 and 40 %. Published (arXiv
2212.03088) are curves without numbers, and in words: slightly worse with larger queries, and still much better than
SSLRandom. The paper names neither data set nor sizes: both are ours.
"""

import sys

from experiments import command, published, sweeps
from experiments.plans import Options, Run
from experiments.records import Records
from experiments.reporting import Report, key


def render(options: Options, runs: list[Run], records: Records) -> Report:
    """Final accuracy by query size."""
    panels, notes = sweeps.panels(runs, "n_query"), [f"Published, in words: {published.SAYS['fig6']}"]
    return sweeps.report("Figure 6: final accuracy by query size", panels, records, key(options), notes)


if __name__ == "__main__":
    sys.exit(command.main("fig6", __doc__, render))
