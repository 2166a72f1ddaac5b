"""Figure 5 (section 5.2): is choosing worth more where there is more to choose from?

    python -m experiments.fig5 --data_dir=DIR
    python -m experiments.fig5 --scale=smoke

Hours on one H100 (estimates of training alone, experiments/estimate.py): 1.6.
SSLDiff2AugDirect minus SSLRandom on CIFAR-10, from 5,000 random labels, within 20, 40, 60, 80 and 100 % of the pool.
The shares of a seed are nested; of 20 %, two queries leave nothing unlabelled. Published (arXiv 2212.03088) is a curve
without numbers: the gap grows with the share. The paper names neither query size nor end: one and two queries of 2,500
are ours.
"""

import sys

import pandas as pd

from experiments import command, drawing, published
from experiments.plans import Options, Run
from experiments.records import Records
from experiments.reporting import Report, key
from jaxdal.verdicts import Table, number, spread

CHOSEN, RANDOM = "ssl_diff2aug_direct", "ssl_random"


def render(options: Options, runs: list[Run], records: Records) -> Report:
    """Gaps in percentage points after one query and after two, each of pairs of one seed."""
    frame = records.frame(runs)
    frame = frame.assign(
        share=[float(share.removesuffix("%")) for share in frame["pool_share"].fillna("100%")],
        accuracy_in_percent=100 * frame[key(options)].astype(float),
    )
    by = ["dataset", "share", "round", "labelled", "seed"]
    wide = frame.pivot_table(index=by, columns="strategy", values="accuracy_in_percent").reindex(
        columns=[CHOSEN, RANDOM]
    )
    gaps = wide.assign(gap=wide[CHOSEN] - wide[RANDOM]).reset_index()
    figure, grid = drawing.panels(list(dict.fromkeys(published.name(r.dataset) for r in runs)))
    rows, notes = [], []
    for axes, dataset in zip(grid, dict.fromkeys(run.dataset for run in runs), strict=True):
        name, planned = published.name(dataset), [run for run in runs if run.dataset == dataset]
        own = gaps[(gaps["dataset"] == dataset) & (gaps["round"] > 0)]
        for place, round_ in enumerate((1, 2)):
            label = ("after one query", "after two queries")[place]
            drawing.spread_line(axes, own[own["round"] == round_], "share", "gap", label, place, place - 0.5)
        axes.axhline(0, color="0.3", lw=0.8)
        axes.set_xlabel("share of the pool, %", fontsize=8.5)
        axes.set_ylabel("SSLDiff2AugDirect − SSLRandom, points", fontsize=8.5)
        rows += [row for share in _shares(planned) for row in _rows(name, share, own, planned)]
        notes += [f"{name}: {told}." for told in [*_bought_up(planned), *records.mixed(planned)]]
    drawing.legend(figure, grid)
    columns = ["data set", "share", "unlabelled at the start", "labels", "Direct", "SSLRandom", "gap, points", "pairs"]
    more = ["Mean ± standard deviation over seeds that both have.", f"Published, in words: {published.SAYS['fig5']}"]
    title = "Figure 5: what choosing is worth, by the size of the pool"
    return Report(Table(title, columns, rows, [*more, *notes]), gaps, figure)


def _shares(runs: list[Run]) -> list[str]:
    return list(dict.fromkeys(run.pool_share or "100%" for run in runs))


def _bought_up(runs: list[Run]) -> list[str]:
    """Where the last query takes all that is left, both strategies end with the same labels."""
    shares = list(dict.fromkeys(run.pool_share or "100%" for run in runs if run.budget.labels[-1] == run.pool))
    told = "nothing is left unlabelled after the last query, so that the gap there is 0 by construction"
    return [f"of {', '.join(shares)} of the pool {told}"] if shares else []


def _rows(dataset: str, share: str, gaps: pd.DataFrame, runs: list[Run]) -> list[list[str]]:
    """A row for each round with bought labels."""
    one = next(run for run in runs if (run.pool_share or "100%") == share)
    told = []
    for labelled in one.budget.labels[1:]:
        own = gaps[(gaps["share"] == float(share.removesuffix("%"))) & (gaps["labelled"] == labelled)]
        own = own.dropna(subset=["gap"])  # means of pairs, so that their difference is the gap
        means = [number(own[name].mean(), ".2f") for name in (CHOSEN, RANDOM)]
        gap = spread(own["gap"].mean(), own["gap"].std(), "+.2f")
        pairs = f"{len(own)}/{len({run.seed for run in runs})}"
        told.append([dataset, share, f"{one.pool - one.n_start:,}", f"{labelled:,}", *means, gap, pairs])
    return told


if __name__ == "__main__":
    sys.exit(command.main("fig5", __doc__, render))
