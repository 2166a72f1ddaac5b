"""Whether differences are more than noise: paired tests over seeds with Holm's correction, penalties, ranks."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import optimize, stats

ALPHA = 0.05
SAME = 1e-9  # percentage points below which differences are rounding, not results


class Paired(NamedTuple):
    """A paired comparison over seeds; p-values are two-sided, None where there is nothing to test."""

    n: int
    mean: float | None
    deviation: float | None  # n - 1
    low: float | None  # 95 % confidence interval of the mean, from Student's t
    high: float | None
    p_t: float | None
    p_wilcoxon: float | None
    remark: str  # why a p-value is missing


def paired(differences: Sequence[float] | np.ndarray) -> Paired:
    """Test whether differences of pairs (a seed each) have mean and median 0."""
    values = np.asarray(differences, float).round(12)
    n = len(values)
    if n == 0:
        return Paired(0, None, None, None, None, None, None, "n/a, no seed")
    mean = float(values.mean())
    if n == 1:
        return Paired(1, mean, None, None, None, None, None, "n/a, 1 seed")
    deviation = float(values.std(ddof=1))
    if np.ptp(values) < SAME:
        p, remark = (1.0, "") if abs(mean) < SAME else (None, "n/a, no spread")
        return Paired(n, mean, 0.0, mean, mean, p, p, remark)
    student = stats.ttest_1samp(values, 0.0)
    low, high = student.confidence_interval(1 - ALPHA)
    wilcoxon = stats.wilcoxon(values.round(9))
    return Paired(n, mean, deviation, float(low), float(high), float(student.pvalue), float(wilcoxon.pvalue), "")


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction of p-values of one family, 1979; None stays None and does not count."""
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        corrected[place] = largest
    return corrected


def detectable(n: int, power: float = 0.8) -> float | None:
    """The mean, in standard deviations, that a paired t-test of n pairs finds with this power; None below 2 pairs."""
    if n < 2:
        return None
    critical, root = stats.t.ppf(1 - ALPHA / 2, n - 1), np.sqrt(n)

    def short(size: float) -> float:
        above = np.nan_to_num(stats.nct.sf(critical, n - 1, size * root), nan=1.0)  # scipy's NaN, far from 0
        below = np.nan_to_num(stats.nct.cdf(-critical, n - 1, size * root))
        return float(above + below) - power

    return float(optimize.brentq(short, 0.0, 30.0 / root, xtol=1e-4))


def penalties(curves: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The pairwise penalty matrix: at which share of the budgets the row is significantly better than the column.

    A paired t-test over the common seeds at each number of labels, p < 0.05, two-sided and without correction, as in
    Ash et al. 2020 (BADGE). curves: of seeds that finished every round, all with the same numbers of labels.
    """
    names = list(curves)
    table = pd.DataFrame(0.0, index=names, columns=names)
    for place, better in enumerate(names):
        for other in names[place + 1 :]:
            seeds = curves[better].index.intersection(curves[other].index)
            if len(seeds) < 2:
                table.loc[better, other] = table.loc[other, better] = np.nan
                continue
            difference = 100 * (curves[better].loc[seeds] - curves[other].loc[seeds]).to_numpy(float)
            share = 1 / difference.shape[1]
            testable = difference[:, np.ptp(difference, axis=0) >= SAME]
            student = stats.ttest_1samp(testable, 0.0, axis=0)
            wins = np.sign(testable.mean(axis=0)) * (student.pvalue < ALPHA)
            table.loc[better, other] = share * np.count_nonzero(wins > 0)
            table.loc[other, better] = share * np.count_nonzero(wins < 0)
    return table


class Ranks(NamedTuple):
    """Average ranks, 1 is best, over blocks in which every method was measured."""

    ranks: pd.Series  # method -> average rank, best first
    blocks: int
    p_friedman: float | None
    critical_difference: float | None  # Nemenyi, 5 %
    cliques: list[list[str]]  # neighbours in rank that cannot be told apart, longest runs only
    left_out: list[str]  # methods that lack a block


def ranks(scores: pd.DataFrame) -> Ranks:
    """Rank methods (columns) within blocks (rows: seeds, of one or more experiments); higher scores are better.

    Methods that lack a block are left out, and said to be. Friedman's test and Nemenyi's critical difference are those
    of Demsar 2006, whose blocks are independent data sets; seeds of one data set tell of that data set only.
    """
    left_out = [str(name) for name in scores if scores[name].isna().any() or not len(scores)]
    scores = scores.drop(columns=left_out)
    blocks, methods = scores.shape
    if not blocks or methods < 2:
        return Ranks(pd.Series(dtype=float), blocks, None, None, [], left_out)
    each = (-scores.round(12)).rank(axis=1)
    average = each.mean().sort_values(kind="stable")
    if blocks < 2 or methods < 3:
        return Ranks(average, blocks, None, None, [], left_out)
    flat = (each.to_numpy() == each.to_numpy()[:, :1]).all()
    p = 1.0 if flat else float(stats.friedmanchisquare(*(scores[name].round(12) for name in scores)).pvalue)
    quantile = float(stats.studentized_range.ppf(1 - ALPHA, methods, np.inf)) / np.sqrt(2)
    critical = quantile * float(np.sqrt(methods * (methods + 1) / (6 * blocks)))
    return Ranks(average, blocks, p, critical, _cliques(average, critical), left_out)


def _cliques(average: pd.Series, critical: float) -> list[list[str]]:
    """The longest stretches of ranks that span less than the critical difference."""
    names, found, reached = list(average.index), [], 0
    for start in range(len(names)):
        end = int(np.searchsorted(average.to_numpy(), average.iloc[start] + critical, side="right"))
        if end - start > 1 and end > reached:
            found.append(names[start:end])
        reached = max(reached, end)
    return found
