"""Gains, areas, savings and seconds of frames made by hand."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import auc, balanced_accuracy_score

from jaxdal.budgets import budget
from jaxdal.errors import InputError
from jaxdal.metrics import at_once, aubc, balanced, cost, gains, labels_needed, labels_saved, worst


@pytest.mark.parametrize(
    ("pool", "start", "query", "end", "rounds"),
    [
        (60_000, "2%", "2%", "20%", 10),
        (50_000, "10%", "5%", "70%", 13),  # int((0.7 - 0.1) / 0.05) is 11 in floating point
        (39_209, "10%", "5%", "70%", 13),
        (26_640, "10%", "5%", "70%", 13),
        (100_000, "10%", "5%", "70%", 13),
        (1_000, "10%", "10%", "40%", 4),  # (0.4 - 0.1) / 0.1 is 3.0000000000000004
    ],
)
def test_number_of_rounds_is_counted_in_images(pool, start, query, end, rounds):
    assert budget(start, query, end, pool).rounds == len(budget(start, query, end, pool).labels) == rounds


def test_floating_point_would_miss_a_round():
    assert 1 + int((0.7 - 0.1) / 0.05) == 12


def test_balanced_accuracy_is_the_mean_over_tested_classes():
    truth, guess = [0, 0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 1, 0, 2]
    shares = [float(np.mean([g == t for t, g in zip(truth, guess, strict=True) if t == k])) for k in range(3)]
    assert balanced({"per_class_accuracy": [*shares, None]}) == pytest.approx(balanced_accuracy_score(truth, guess))
    assert balanced({}) is None
    assert balanced({"per_class_accuracy": [None]}) is None
    assert worst({"per_class_accuracy": [0.5, None, 0.25]}) == 0.25
    assert worst({}) is None


def test_gains_pair_seeds_whatever_their_order():
    ours = pd.DataFrame({20: [0.9, 0.7], 10: [0.6, 0.5]}, index=[1, 0])
    base = pd.DataFrame({10: [0.4, 0.4, 0.1], 20: [0.5, 0.6, 0.1]}, index=[0, 1, 2])
    found = gains(ours, base)
    assert list(found.columns) == [10, 20]
    np.testing.assert_allclose(found.loc[0], [10, 20])
    np.testing.assert_allclose(found.loc[1], [20, 30])
    assert len(found) == 2
    with pytest.raises(InputError, match="equal budgets"):
        gains(ours, base[[10]])


def test_aubc_is_the_area_of_trapezoids_over_the_range():
    curves = pd.DataFrame({10: [0.0, 0.5], 20: [0.5, 0.5], 60: [1.0, 0.5]}, index=[0, 1])
    np.testing.assert_allclose(aubc(curves), [auc([10, 20, 60], [0.0, 0.5, 1.0]) / 50, 0.5])
    assert aubc(curves[[10]]).isna().all()


def test_labels_needed_on_a_curve_that_dips():
    curve = pd.Series([0.5, 0.7, 0.6, 0.9], index=[10, 20, 30, 40])
    assert labels_needed(curve, 0.6) == pytest.approx(15)
    assert labels_needed(curve, 0.7) == pytest.approx(20)
    assert labels_needed(curve, 0.75) == pytest.approx(35)
    assert labels_needed(curve, 0.1) == 10
    assert labels_needed(curve, 0.95) is None


def test_labels_saved_at_equal_accuracy():
    base = pd.DataFrame({10: [0.5], 20: [0.6], 30: [0.7], 40: [0.8]}, index=[3])
    fast = pd.DataFrame({10: [0.5], 20: [0.8], 30: [0.85], 40: [0.9]}, index=[3])
    assert labels_saved(fast, base) == pytest.approx((20, 0.5))  # 40 against 20 labels for 80 %
    assert labels_saved(base, fast) == pytest.approx((-20, -1.0))
    assert labels_saved(base, base) == pytest.approx((0, 0))
    assert labels_saved(base, fast.rename(index={3: 4})) is None
    more = pd.concat([fast, fast.rename(index={3: 4}) / 2])
    assert labels_saved(more, base) == labels_saved(fast, base), "a seed that the baseline lacks is not looked at"
    dips = pd.DataFrame({10: [0.5], 20: [0.8], 30: [0.85], 40: [0.6]}, index=[3])
    assert labels_saved(dips, base) == pytest.approx((20, 0.5)), "80 % is what both reach, not where both end"


def rounds(*told):
    """A frame of (seed, infer, select, train, runs at once)."""
    return pd.DataFrame(told, columns=["seed", "infer", "select", "train", "runs_at_once"])


def test_cost_is_equation_2_of_runs_trained_alone():
    alone = [(0, 1.0, 0.5, 4.0, 1), (0, 0.0, 0.0, 8.0, 1), (1, 3.0, 0.5, 4.0, 1), (1, 0.0, 0.0, 8.0, 1)]
    packed = [(2, 10.0, 5.0, 40.0, 5), (2, 0.0, 0.0, 80.0, 5)]
    table = cost(rounds(*alone, *packed))
    assert list(table.index) == [0, 1]
    assert table["cost"].to_list() == pytest.approx([(5.5 + 8) / 2, (7.5 + 8) / 2])
    assert table["train"].to_list() == pytest.approx([6, 6])
    together = cost(rounds(*alone, *packed), together=True)
    assert together["cost"].to_list() == pytest.approx([(11 + 16) / 2])
    assert cost(rounds(*packed)).empty
    mixed = rounds((3, 10.0, 5.0, 40.0, 5), (3, 0.0, 0.0, 80.0, 5)).assign(selected_at_once=[1, 5])
    assert cost(mixed).empty, "trained with others, although scored alone"
    assert cost(mixed, together=True)["cost"].to_list() == pytest.approx([(15 + 8 + 16) / 2])
    shared = [(4, 1.0, 0.5, 3.0, 1), (4, 1.0, 0.5, 20.0, 4), (5, 1.0, 0.5, 4.0, 1), (5, 1.0, 0.5, 4.0, 1)]
    assert cost(rounds(*shared)).index.to_list() == [5], "its first round was alone, not all of the run"
    assert cost(rounds(*shared), together=True)["train"].to_dict() == {4: pytest.approx((3 + 20 / 4) / 2)}
    padded = rounds((6, 1.0, 0.5, 4.0, 1), (6, 1.0, 0.5, 4.0, 1)).assign(lanes=[2, 2])
    assert cost(padded).empty, "the program had a lane more"
    assert cost(padded, together=True)["train"].to_dict() == {6: 4}
    spread = rounds((7, 1.0, 0.5, 4.0, 4), (7, 0.0, 0.0, 8.0, 4)).assign(lanes=[1, 1])
    assert cost(spread)["cost"].to_dict() == {7: (5.5 + 8) / 2}, "four devices with a run each"
    assert cost(spread, together=True).empty
    assert cost(spread.assign(devices=[4, 4]))["cost"].to_dict() == {7: (5.5 + 8) / 2}
    assert cost(spread.assign(devices=[4, 1])).empty, "split over all devices at first, then on one of them"
    assert cost(rounds()).empty
    assert cost(rounds((0, None, None, None, None))).empty
    assert cost(rounds((0, 1.0, 0.5, 4.0, None)), together=True).empty, "of how many runs nobody knows"
    assert cost(rounds((0, 1.0, 0.5, None, 1)))["cost"].isna().all(), "no sum of the other parts"


def test_strategies_that_train_together_score_by_themselves():
    line = {"runs_at_once": 6, "selected_at_once": 2}
    assert [at_once(line, stage) for stage in ("train", "infer", "select")] == [6, 2, 2]
    assert at_once({"runs_at_once": 6}, "infer") == 6
