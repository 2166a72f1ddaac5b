"""What the paper measures, and what belongs beside it, from journals alone (docs/report.md has the definitions).

Curves are pandas frames with a row per seed and a column per number of labels, ascending; shares from 0 to 1.
"""

import numpy as np
import pandas as pd
from scipy.integrate import trapezoid

from jaxdal.errors import InputError
from jaxdal.journal import Line

SELECTION = ("infer", "select")
TRAINING = ("train",)


def balanced(line: Line) -> float | None:
    """Balanced accuracy of a round: the mean over the classes that have test images, or None without their shares."""
    shares = _of_classes(line)
    return sum(shares) / len(shares) if shares else None


def worst(line: Line) -> float | None:
    """Share of right answers of a round's worst class, of those that have test images, or None without their shares."""
    return min(_of_classes(line), default=None)


def _of_classes(line: Line) -> list[float]:
    return [share for share in line.get("per_class_accuracy") or [] if share is not None]


def bought(line: Line, later: Line) -> tuple[int | None, float | None]:
    """Number of classes that a round's query has images of, and the share of the largest; None where no line says so.

    later: the next round, whose `class_counts` are those of `line` and of its query.
    """
    counts = [one.get("class_counts") for one in (line, later)]
    if not counts[0] or not counts[1] or sum(counts[0]) == sum(counts[1]):
        return None, None
    query = np.subtract(counts[1], counts[0])
    return int((query > 0).sum()), float(query.max() / query.sum())


def gains(ours: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
    """Paired differences in percentage points, of the seeds that both curves have: a row per seed.

    Raises:
        InputError: the curves have different numbers of labels.
    """
    if set(ours.columns) != set(baseline.columns):
        raise InputError(
            f"API compares equal budgets, not {sorted(ours.columns)} and {sorted(baseline.columns)} labels"
        )
    seeds = ours.index.intersection(baseline.index)
    return 100 * (ours.loc[seeds].sort_index(axis=1) - baseline.loc[seeds].sort_index(axis=1))


def aubc(curves: pd.DataFrame) -> pd.Series:
    """Area under the budget curve of each seed: trapezoids over the number of labels, divided by their range."""
    labels = curves.columns.to_numpy(float)
    if len(labels) < 2:
        return pd.Series(np.nan, curves.index)
    area = trapezoid(curves.to_numpy(), labels, axis=1) / (labels[-1] - labels[0])
    return pd.Series(area, curves.index)


def labels_needed(curve: pd.Series, target: float) -> float | None:
    """Labels at which a curve first reaches an accuracy, between rounds by straight lines; None if it never does.

    It is the number of the first round, and then an upper bound, if already that one is as good.
    """
    labels, shares = curve.index.to_numpy(float), curve.to_numpy(float)
    reached = np.flatnonzero(shares >= target)
    if not reached.size:
        return None
    at = int(reached[0])
    if at == 0:
        return float(labels[0])
    return float(np.interp(target, shares[at - 1 : at + 1], labels[at - 1 : at + 1]))


def labels_saved(ours: pd.DataFrame, baseline: pd.DataFrame) -> tuple[float, float] | None:
    """What the baseline needs in labels beyond ours, and that as a share of what it needs, at equal accuracy.

    Compared are the mean curves of the seeds that both have, at the highest accuracy that both reach. None: no seed.
    """
    seeds = ours.index.intersection(baseline.index)
    if not len(seeds):
        return None
    mine, theirs = ours.loc[seeds].mean(), baseline.loc[seeds].mean()
    target = min(mine.max(), theirs.max())
    need, need_theirs = labels_needed(mine, target), labels_needed(theirs, target)
    if need is None or need_theirs is None:
        return None
    return need_theirs - need, (need_theirs - need) / need_theirs


def cost(rounds: pd.DataFrame, together: bool = False) -> pd.DataFrame:
    """Seconds of each run, averaged over its N rounds: infer, select, train and their sum, `cost` (equation 2).

    Selection is infer + select; compilation and evaluation are in neither. Only runs that were alone on their devices
    in every round (`--pack=1`), as many devices in each, are counted, or, with `together`, only the others, with all
    their rounds: the seconds are those of a pack, here shared evenly by its runs.
    rounds: of one method (columns seed, infer, select, train, runs_at_once, and selected_at_once, lanes and devices
    where these are other numbers). The result has a row per seed.
    """
    trained, seeds = rounds["runs_at_once"].astype(float), rounds["seed"]
    selected, lanes = (rounds.get(key, trained).astype(float) for key in ("selected_at_once", "lanes"))
    whole = pd.Series(1.0, rounds.index)
    devices = rounds.get("devices", whole).astype(float)
    alone = (lanes == 1) & (devices == devices.groupby(seeds).transform("first"))
    alone = alone.groupby(seeds).transform("all").astype(bool)
    chosen = rounds[trained.notna() & (~alone if together else alone)]
    stages = [*SELECTION, *TRAINING]
    runs = {stage: (trained if stage in TRAINING else selected) if together else whole for stage in stages}
    shared = pd.DataFrame({stage: chosen[stage].astype(float) / runs[stage][chosen.index] for stage in stages})
    table = shared.groupby(chosen["seed"]).mean()
    return table.assign(cost=table[stages].sum(axis=1, min_count=len(stages)))


def at_once(line: Line, stage: str) -> int:
    """How many runs shared the seconds of a stage: strategies that train together score the pool by themselves."""
    selecting = stage in SELECTION and "selected_at_once" in line
    return int(line["selected_at_once" if selecting else "runs_at_once"])
