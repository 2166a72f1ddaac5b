"""Figure 3: where in the space of features four semi-supervised strategies pick.

    python -m experiments.fig3 --data_dir=DIR              # the first seed of Figure 2, t-SNE
    python -m experiments.fig3 --data_dir=DIR --map=pca
    python -m experiments.fig3 --scale=smoke

Hours on one H100 (estimate of training alone, experiments/estimate.py): 0.01; t-SNE takes minutes of the host.
MNIST, 2 % labelled; grey: at most 10,000 images of the pool, red: the 1 % that each strategy picks, in one map that all
panels share, of the features of one network (strategies of one seed share it). Published (arXiv 2212.03088) is a
picture; the method is not named there, and t-SNE is assumed.
"""

import argparse
import sys

import numpy as np
import pandas as pd

from experiments import command, drawing, published
from experiments.case import Case
from experiments.plans import Options, Run
from experiments.records import Records
from experiments.reporting import Report
from jaxdal import checkpoint
from jaxdal.journal import known_picks
from jaxdal.verdicts import Table

SHOWN = 10_000  # images of the pool


def render(options: Options, runs: list[Run], records: Records) -> Report:
    """A panel per data set and strategy."""
    parts = [
        _points([run for run in runs if run.dataset == dataset], records, options)
        for dataset in dict.fromkeys(run.dataset for run in runs)
    ]
    table = pd.concat(parts)
    shown = [(run.dataset, run.strategy) for run in runs]
    titles = [f"{published.name(name)}: {published.name(one)}" for name, one in shown]
    figure, grid = drawing.panels(titles, across=4, width=3.0, height=3.1)
    figure.suptitle("red: picked, grey: the others that were drawn; one map for all panels", fontsize=8.5, color="0.3")
    rows = []
    for axes, (dataset, strategy) in zip(grid, shown, strict=True):
        own = table[table["dataset"] == dataset]
        picked = own[own[strategy] == True] if strategy in own else own[:0]  # noqa: E712, NaN is not True
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
        if not len(picked):
            drawing.empty(axes, "no kept network")
        axes.scatter(own["x"], own["y"], s=2, color="0.78", lw=0, rasterized=True)
        axes.scatter(picked["x"], picked["y"], s=5, color="#d62020", lw=0, rasterized=True)
        rows.append([published.name(dataset), published.name(strategy), f"{len(own):,}", f"{len(picked):,}"])
    notes = [
        f"Published, in words: {published.SAYS['fig3']}",
        f"Map: {options.map}, of the features of the first strategy's network of round 0; red: picks, grey: others.",
    ]
    title = "Figure 3: where semi-supervised strategies pick"
    return Report(Table(title, ["data set", "picks of", "points", "picked"], rows, notes), table, figure)


def _points(runs: list[Run], records: Records, options: Options) -> pd.DataFrame:
    """A row per image that is shown: place in the map, pool index, and which strategies pick it."""
    found = [(run, record) for run in runs if (record := records.shown(run))]
    kept = [one for one in found if checkpoint.weights_path(one[1].folder, one[0].seed, 0).exists()]
    bought = {run.strategy: known_picks(record.groups, run.seed)[1] for run, record in found}
    picks = {name: batches[0] for name, batches in bought.items() if batches}
    if not kept or not picks:
        return pd.DataFrame(columns=["dataset", "index", "x", "y"])
    run, record = kept[0]
    features = Case(run, options.data_dir).look(record, run.seed).features
    some = np.random.default_rng(0).permutation(len(features))[:SHOWN]
    rows = np.unique(np.concatenate([some, *picks.values()]))
    x, y = MAPS[options.map](features[rows].astype(np.float64)).T
    told = {"dataset": run.dataset, "index": rows, "x": x, "y": y}
    return pd.DataFrame(told | {name: np.isin(rows, chosen) for name, chosen in picks.items()})


def _tsne(features: np.ndarray) -> np.ndarray:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(features) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features)


def _pca(features: np.ndarray) -> np.ndarray:
    from sklearn.decomposition import PCA

    return PCA(2, random_state=0).fit_transform(features)


MAPS = {"tsne": _tsne, "pca": _pca}


def flag(parser: argparse.ArgumentParser) -> None:
    """What only this figure has."""
    parser.add_argument("--map", choices=MAPS, default="tsne", help="how features become a picture")


if __name__ == "__main__":
    sys.exit(command.main("fig3", __doc__, render, more=flag))
