"""API and seconds on journals made by hand."""

import pytest

from jaxdal.errors import InputError
from jaxdal.metrics import accuracies, api, seconds


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
