"""Tests, corrections, penalties and ranks, against worked examples and formulas written out."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from jaxdal import figures
from jaxdal.significance import detectable, holm, paired, penalties, ranks


def test_paired_t_test_is_students_formula() -> None:
    values = [0.5, 1.5, 1.0, 2.0, -0.5]
    test = paired(values)
    mean, deviation = np.mean(values), np.std(values, ddof=1)
    assert (test.n, test.mean, test.deviation) == (5, pytest.approx(mean), pytest.approx(deviation))
    t = mean / (deviation / math.sqrt(5))
    assert test.p_t == pytest.approx(2 * stats.t.sf(abs(t), 4))
    half = 2.776445105 * deviation / math.sqrt(5)
    assert (test.low, test.high) == (pytest.approx(mean - half), pytest.approx(mean + half))


def test_wilcoxon_counts_all_signs() -> None:
    """The exact distribution: every assignment of signs to the ranks is equally likely."""
    values = np.array([0.3, -0.1, 0.7, 0.4, 0.9, -0.2])
    order = np.abs(values).argsort().argsort() + 1
    statistic = min(order[values > 0].sum(), order[values < 0].sum())
    sums = [sum(rank for rank, sign in zip(order, signs, strict=True) if sign)
            for signs in itertools.product([0, 1], repeat=6)]  # fmt: skip
    expected = min(1.0, 2 * np.mean([total <= statistic for total in sums]))
    assert paired(values).p_wilcoxon == pytest.approx(expected)


def test_five_seeds_cannot_make_wilcoxon_significant() -> None:
    assert paired([1.0, 1.1, 1.2, 1.3, 1.4]).p_wilcoxon == 0.0625


def test_what_cannot_be_tested_is_said_to_be_so() -> None:
    assert paired([]).remark == "n/a, no seed"
    one = paired([2.0])
    assert (one.n, one.mean, one.p_t, one.p_wilcoxon, one.remark) == (1, 2.0, None, None, "n/a, 1 seed")
    same = paired([0.0, 0.0, 0.0])
    assert (same.p_t, same.p_wilcoxon) == (1.0, 1.0)
    constant = paired(100 * (np.array([0.33, 0.43, 0.53]) - np.array([0.3, 0.4, 0.5])))  # 3, but for rounding
    assert (constant.p_t, constant.remark) == (None, "n/a, no spread")


def test_holm_by_hand() -> None:
    """P = 0.01, 0.04, 0.03, 0.005 of Holm's method: sorted 0.005 x 4, 0.01 x 3, 0.03 x 2, then never smaller."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, None, 0.5]) == [1.0, None, 1.0]
    assert holm([0.01, None, 0.04]) == pytest.approx([0.02, None, 0.04]), "two p-values, not three"
    assert holm([]) == []
    assert holm([None]) == [None]


def test_holm_rejects_no_more_than_plain_and_no_less_than_bonferroni() -> None:
    p = np.random.default_rng(0).uniform(size=20) ** 3
    corrected = np.array(holm(list(p)), float)
    assert (corrected >= p).all()
    assert (corrected <= np.minimum(1, 20 * p) + 1e-15).all()
    assert (np.argsort(corrected, kind="stable") == np.argsort(p)).all() or len(set(corrected)) < 20


def test_detectable_effect_is_found_that_often() -> None:
    """Cohen's tables: 80 % power needs 1.68 standard deviations of 5 pairs; a simulation says the same."""
    size = detectable(5)
    assert size == pytest.approx(1.68, abs=0.01)
    draws = np.random.default_rng(0).normal(size, 1.0, (40_000, 5))
    assert (stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.01)
    assert detectable(1) is None
    sizes = [detectable(n) for n in (2, 3, 5, 10, 50, 1000)]
    assert sizes == sorted(sizes, reverse=True)  # type: ignore[type-var]


def curves(*rows: list[float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=[10, 20, 30, 40])


def test_penalties_are_the_share_of_budgets_that_are_won() -> None:
    """At 10 labels all are equal; at 20 and 30 `good` wins; at 40 the difference is within the noise."""
    base = curves([0.5, 0.6, 0.7, 0.8], [0.5, 0.61, 0.71, 0.81], [0.5, 0.62, 0.72, 0.82])
    steps = [[0, 0.05, 0.031, 0.03], [0, 0.051, 0.03, -0.03], [0, 0.052, 0.032, 0.01]]
    table = penalties({"good": base + np.array(steps), "base": base, "alone": base.iloc[:1]})
    assert table.loc["good", "base"] == 0.5
    assert table.loc["base", "good"] == 0
    assert table.loc["good", "good"] == 0
    assert table.loc[["good", "base"], "alone"].isna().all()


def test_penalties_are_tested_two_sided_at_five_percent() -> None:
    """Of three pairs Student's t is 5.28, 4.57 and 4.26: p = 0.034, 0.045 and 0.051."""
    steps = np.array([[1.0, 1.0, 1.0], [1.5, 1.5, 1.5], [0.8, 0.7, 0.65]]) / 100
    base = pd.DataFrame(np.full((3, 3), 0.5), columns=[10, 20, 30])
    p = stats.ttest_1samp(steps, 0.0, axis=0).pvalue
    assert (p < 0.05).tolist() == [True, True, False]
    assert (p > 0.025).all()
    assert penalties({"good": base + steps, "base": base}).loc["good", "base"] == pytest.approx(2 / 3)


def test_penalties_pair_seeds_by_name() -> None:
    base = curves([0.1] * 4, [0.5] * 4, [0.9] * 4)
    better = base + np.array([[0.010], [0.011], [0.012]])
    assert penalties({"a": better.iloc[::-1], "b": base}).loc["a", "b"] == 1


def test_ranks_of_demsars_example() -> None:
    """Demsar 2006, Table 6: AUC of C4.5 with parameters tuned or not, on 14 data sets; chi2 = 9.28, CD = 1.25.

    0.9751 is 0.975 in the table, where it ranks before another 0.975.
    """
    table = pd.DataFrame({
        "C4.5": [.763, .599, .954, .628, .882, .936, .661, .583, .775, 1.0, .940, .619, .972, .957],
        "+m": [.768, .591, .971, .661, .888, .931, .668, .583, .838, 1.0, .962, .666, .981, .978],
        "+cf": [.771, .590, .968, .654, .886, .916, .609, .563, .866, 1.0, .965, .614, .9751, .946],
        "+m+cf": [.798, .569, .967, .657, .898, .931, .685, .625, .875, 1.0, .962, .669, .975, .970],
    })  # fmt: skip
    found = ranks(table)
    assert found.blocks == 14
    assert found.ranks.round(3).to_dict() == {"+m+cf": 1.964, "+m": 2.0, "+cf": 2.893, "C4.5": 3.143}
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)
    ties = 1 - (4**3 - 4 + 3 * (2**3 - 2)) / (14 * 4 * (4**2 - 1))  # scipy's correction: one row of 4, three of 2
    assert found.p_friedman == pytest.approx(stats.chi2.sf(9.28 / ties, 3), rel=0.02)
    assert found.cliques == [["+m+cf", "+m", "+cf", "C4.5"]]


def test_ranks_tell_groups_apart_and_name_who_is_left_out() -> None:
    blocks = 40
    noise = np.random.default_rng(0).normal(0, 0.1, (blocks, 4))
    table = pd.DataFrame(noise + np.array([0, 0.01, 5, 5.01]), columns=["a", "b", "c", "d"]).assign(gone=np.nan)
    found = ranks(table)
    assert found.left_out == ["gone"]
    assert [set(clique) for clique in found.cliques] == [{"c", "d"}, {"a", "b"}]
    assert found.p_friedman is not None
    assert found.p_friedman < 1e-10


def test_ranks_of_little() -> None:
    few = ranks(pd.DataFrame({"a": [1.0], "b": [2.0], "c": [2.0]}))
    assert few.ranks.to_dict() == {"b": 1.5, "c": 1.5, "a": 3.0}
    assert (few.p_friedman, few.critical_difference, few.cliques) == (None, None, [])
    assert ranks(pd.DataFrame({"a": [np.nan]})).ranks.empty
    equal = ranks(pd.DataFrame({"a": [1.0, 2.0], "b": [1.0, 2.0], "c": [1.0, 2.0]}))
    assert equal.p_friedman == 1.0
    two = ranks(pd.DataFrame({"a": [1.0, 2.0], "b": [2.0, 3.0]}))
    assert (two.ranks.to_dict(), two.p_friedman) == ({"b": 1, "a": 2}, None), "Friedman's test needs three"
    holes = ranks(pd.DataFrame({"a": [1.0, 2.0], "b": [2.0, 3.0], "c": [9.0, np.nan]}))
    assert (holes.ranks.to_dict(), holes.left_out) == ({"b": 1, "a": 2}, ["c"])


def test_scores_that_rounding_alone_tells_apart_are_tied() -> None:
    rounded = pd.DataFrame({"a": [0.3, 0.5, 0.6], "b": [0.1 + 0.2, 0.4, 0.6], "c": [0.2, 0.1, 0.1]})
    exact = rounded.assign(b=[0.3, 0.4, 0.6])
    assert (rounded != exact).any(axis=None)
    found, expected = ranks(rounded), ranks(exact)
    assert found.ranks.to_dict() == expected.ranks.to_dict()
    assert found.p_friedman == expected.p_friedman


def test_the_diagram_has_room_for_names_with_options() -> None:
    """Matplotlib warns, which is an error here, where it has no room left to draw in."""
    names = [f"ssl_diff2aug_{kind} + mixmatch(average=0.99, ramp_epochs=16)" for kind in ("direct", "kmeans", "random")]
    found = ranks(pd.DataFrame(np.arange(15.0).reshape(5, 3), columns=names))
    assert figures.critical_difference(found).startswith("<svg")
