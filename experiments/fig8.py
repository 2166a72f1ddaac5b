"""Figure 8 (appendix A.3): do start budget and query size matter to supervised methods?

    python -m experiments.fig8 --data_dir=DIR
    python -m experiments.fig8 --scale=smoke

Hours on one H100 (estimates of training alone, experiments/estimate.py): 3.
BadgeSampling, LeastConfidence, CoreGCN, ClusterMargin and BALDDropout on CIFAR-10. (a) From 1, 2, 5, 10 or 20 % to 40 %
in queries of about 5 %; (b) from 10 % to 50 % in queries of 5, 10, 20 or 40 %. Published (arXiv 2212.03088) are curves
without numbers. The caption of (a) says queries of 5 % to 40 %, the text 2 % to 30 %; the authors' raw runs are 5 % to
40 %, from 1 and 2 %, and end at 90.0 to 91.1 % (LeastConfidence from 2 %) and 89.7 to 90.0 % (BALDDropout from 1 %).
"""

import sys

from experiments import command, published, sweeps
from experiments.plans import Options, Run, fig8a, fig8b
from experiments.records import Records
from experiments.reporting import Report, key


def render(options: Options, runs: list[Run], records: Records) -> Report:
    """Final accuracy by start, and by query size."""
    panels = []
    for dataset in dict.fromkeys(run.dataset for run in runs):
        name, own = published.name(dataset), options._replace(datasets=(dataset,))
        panels.append(sweeps.Panel(f"(a) {name}, by start", fig8a(own), "n_start"))
        panels.append(sweeps.Panel(f"(b) {name}, by query size", fig8b(own), "n_query"))
    raw = [
        f"{published.METHODS[method]} from {start} % at 40 %: {', '.join(f'{one:.2f}' for one in accuracies)}"
        for (method, start), accuracies in published.FIG8_RAW.items()
    ]
    notes = [
        f"Published, in words: {published.SAYS['fig8']} Raw runs of the paper's authors, CIFAR-10: {'; '.join(raw)}."
    ]
    title = "Figure 8: final accuracy of supervised methods by start budget and query size"
    return sweeps.report(title, panels, records, key(options), notes)


if __name__ == "__main__":
    sys.exit(command.main("fig8", __doc__, render))
