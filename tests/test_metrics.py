"""API, areas, savings and seconds on journals made by hand."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import auc, balanced_accuracy_score

from jaxdal.budgets import budget
from jaxdal.errors import InputError
from jaxdal.metrics import accuracies, api, aubc, balanced, cost, gains, labels_needed, labels_saved, seconds


def line(seed: int, labelled: int, accuracy: float | None, **more) -> dict:
    """One line of a journal; None: the run diverged."""
    spent = {"train": 4.0, "infer": 1.0, "select": 0.5, "eval": 9.0, "compile": 99.0}
    told = {"seed": seed, "round": 0, "labelled": labelled, "seconds": spent, "runs_at_once": 2, "picks": [1, 2]} | more
    return told | ({"diverged": {"step": 3}} if accuracy is None else {"accuracy": accuracy})


RANDOM = [[line(0, 10, 0.5), line(1, 10, 0.6)], [line(0, 20, 0.7), line(1, 20, 0.8)]]


def test_api_is_the_mean_gain_in_points():
    better = [[line(0, 10, 0.5), line(1, 10, 0.6)], [line(0, 20, 0.74), line(1, 20, 0.82)]]
    assert api(better, RANDOM) == pytest.approx((0 + 3) / 2)
    assert api(better, RANDOM, first=1) == pytest.approx(3)
    assert api(RANDOM, better) == pytest.approx(-1.5)
    assert api(RANDOM, RANDOM) == 0


def test_api_pairs_seeds():
    """Seed 1, the better one, diverged in the last round: only seed 0 counts there."""
    died = [RANDOM[0], [line(0, 20, 0.7), line(1, 20, None)]]
    assert api(died, RANDOM) == 0
    alone = [[line(1, 10, 0.7)], [line(1, 20, 0.9)]]
    assert api(alone, RANDOM) == pytest.approx(10)


def test_api_of_the_published_kind():
    best = [[line(0, 10, 0.5, accuracy_best=0.6)], [line(0, 20, 0.7, accuracy_best=0.75)]]
    base = [[line(0, 10, 0.5, accuracy_best=0.5)], [line(0, 20, 0.7, accuracy_best=0.7)]]
    assert api(best, base, key="accuracy_best") == pytest.approx(7.5)
    with pytest.raises(InputError, match="needs a round"):
        api([], [], key="accuracy_best")


def test_api_compares_equal_budgets():
    with pytest.raises(InputError, match=r"not \[10\] and \[10, 20\] labels"):
        api(RANDOM[:1], RANDOM)


def test_accuracies_by_labels_and_seed():
    assert accuracies(RANDOM) == {10: {0: 0.5, 1: 0.6}, 20: {0: 0.7, 1: 0.8}}


def test_seconds_are_shared_by_a_pack_and_the_last_round_has_no_selection():
    last = [line(0, 30, 0.9, picks=[]), line(1, 30, 0.9, picks=[])]
    assert seconds([*RANDOM, last], ("infer", "select")) == pytest.approx(0.75)
    assert seconds([*RANDOM, last], ("train",)) == pytest.approx(2)
    assert seconds([last], ("train",)) == 0


# Rows of the paper's Table 3: API in percentage points on MNIST (10 rounds) and CIFAR-10 (13 rounds).
TABLE_3 = {
    "badge": (1.84, 1.89), "least_confidence": (1.40, 1.95), "coreset": (-1.15, 0.95), "learning_loss": (-2.32, -2.38),
    "ssl_consistency": (3.39, 5.83), "vaal": (-0.34, -0.49),
}  # fmt: skip


@pytest.mark.parametrize("method", TABLE_3)
@pytest.mark.parametrize(("column", "rounds"), [(0, 10), (1, 13)])
def test_rows_of_table_3_from_curves_made_up_for_them(method, column, rounds):
    """Five seeds and gains that grow from 0: round 0 counts, so that leaving it out gives N / (N - 1) times as much."""
    published = TABLE_3[method][column]
    shape = np.arange(rounds) / np.arange(rounds).mean()  # mean 1, 0 in round 0
    base = 0.6 + 0.2 * np.linspace(0, 1, rounds)
    random, ours = [], []
    for place in range(rounds):
        labels = 100 * (place + 1)
        random.append([line(seed, labels, base[place] + 0.01 * seed) for seed in range(5)])
        wobble = [0.004, -0.004, 0.002, -0.002, 0.0]  # seeds differ, their mean does not
        gains = [shape[place] * published / 100 + wobble[seed] for seed in range(5)]
        ours.append([line(seed, labels, base[place] + 0.01 * seed + gains[seed]) for seed in range(5)])
    assert f"{api(ours, random):.2f}" == f"{published:.2f}"
    without = api(ours, random, first=1)
    assert without == pytest.approx(published * rounds / (rounds - 1), abs=1e-9)


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
    assert cost(rounds()).empty
    assert cost(rounds((0, None, None, None, None))).empty
