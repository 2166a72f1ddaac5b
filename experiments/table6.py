"""Table 6: hyper-parameters on CIFAR-10, of the methods' own papers and as they are settled here. Text, no runs.

    python -m experiments.table6
    python -m experiments.table6 --preset=clean --datasets=mnist

Published (arXiv 2212.03088, Table 6 in appendix A.1): experiments/published.py, OWN_PAPERS; the rows named jaxdal are
what settings.resolve makes of preset and data set, for each way of training.
"""

import sys

import pandas as pd

from experiments import command, published
from experiments.plans import SIZES, Options, Run, grid
from experiments.records import Records, resolved
from experiments.reporting import Report
from jaxdal.verdicts import Table


def render(options: Options, runs: list[Run], records: Records) -> Report:
    """A row per paper, and one for each set of hyper-parameters that is used here."""
    del runs, records
    chosen = options._replace(datasets=options.datasets or ("cifar10",), scale="full", seeds=(0,))
    methods: dict[tuple[str, ...], list[str]] = {}
    for run in grid(chosen):
        methods.setdefault(_here(run), []).append(published.name(run.strategy))
    rows = [[f"jaxdal: {', '.join(names)}", *cells] for cells, names in methods.items()]
    for strategies, *cells in published.OWN_PAPERS:
        names = "/".join(published.METHODS[name] for name in strategies) or "Ensemble"
        rows.append([f"{names} (own paper)", *map(str, cells), "-"])
    columns = ["methods", "start", "step", "learning rate", "epochs", "accuracy is that of", "optimiser", "more"]
    notes = ["The same start, step, epochs and optimiser for all methods is what the comparison is about."]
    title = "Table 6: hyper-parameters, beside those of the methods' own papers on CIFAR-10"
    return Report(Table(title, columns, rows, notes), pd.DataFrame(rows, columns=columns))


def _here(run: Run) -> tuple[str, ...]:
    """The cells of a run, from its settings."""
    settings, pool = resolved(run), SIZES[run.dataset].pool
    recipe = settings.recipe
    falls = ", ".join(f"{round(share * recipe.epochs)}" for share in recipe.milestones)
    decay = f"weight decay {recipe.weight_decay:g}{' of kernels' if recipe.decay_kernels_only else ''}"
    clamp = "none" if recipe.clamp is None else f"{recipe.clamp:g}"
    start, step = (f"{100 * count / pool:.3g}%" for count in (run.n_start, run.n_query))
    more = f"{settings.trainer}, batch {recipe.batch}, gradients clamped to {clamp}, {settings.model}"
    rate = f"{recipe.learning_rate:g}, a tenth from epochs {falls}" if falls else f"{recipe.learning_rate:g}"
    return (
        start, step, rate, str(recipe.epochs), "last epoch, or best of all with --best",
        f"SGD, momentum {recipe.momentum:g}, {decay}", more,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(command.main("table6", __doc__, render))
