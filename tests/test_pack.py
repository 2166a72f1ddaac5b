"""One round of some runs, without an engine: what its seconds are when it goes on from a kept state."""

import itertools
import weakref
from typing import Any
from unittest import mock

import numpy as np
import pytest

from jaxdal import cost, pack
from jaxdal.checkpoint import Interrupted
from jaxdal.data import Oracle
from jaxdal.errors import InputError
from jaxdal.types import TrainState

KEPT = {"train": 40.0, "infer": 0.0, "select": 0.0, "eval": 2.0, "compile": 5.0}


FRESH = TrainState({}, {}, (), loss=np.zeros(1, np.float32), diverged=np.zeros(1, np.int32))


def a_lab(init: Any) -> mock.Mock:
    """One that trains a run for six steps, and says that it is right once in each of four classes."""
    lab = mock.Mock()
    lab.settings.per_epoch, lab.settings.recipe.epochs, lab.settings.eval_every = [3], 2, 0
    lab.lanes.per_run = lab.lanes.fetch = lambda leaves: leaves
    lab.engine.chunk, lab.engine.advance = 6, lambda state, *_: state
    lab.engine.init, lab.engine.evaluate = init, lambda variables, test: np.ones((1, 4), np.int32)
    return lab


def test_what_a_new_start_compiles_is_charged_beside_what_was_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count()
    monkeypatch.setattr(cost, "now", lambda: float(next(seconds)))

    def init(keys: object) -> TrainState:
        cost._heard("/jax/core/compile/backend_compile_duration", 1.0)
        return FRESH

    inside = mock.Mock()
    inside.restore.return_value = Interrupted([FRESH.loss, FRESH.diverged], 6, dict(KEPT), np.zeros(1))
    run = pack.Run(7, Oracle(np.zeros(5, np.int32)), ())
    (trained,) = pack.train(a_lab(init), [run], [7], 0, inside, None, mock.Mock())
    assert trained.seconds == KEPT | {"eval": KEPT["eval"] + 1, "compile": KEPT["compile"] + 1}


def test_the_signals_of_one_pack_are_gone_when_the_next_is_scored() -> None:
    """They are the most that a device holds of a large pool: those of two packs may not fit."""
    earlier: list[weakref.ref[np.ndarray]] = []

    def gather(*_: Any) -> tuple[np.ndarray]:
        assert all(one() is None for one in earlier)
        found = np.zeros((1, 5), np.float32)
        earlier.append(weakref.ref(found))
        return (found,)

    lab = mock.Mock(gather=gather, packs=[range(1), range(1, 2), range(2, 3)])
    lab.lanes.per_run = lab.lanes.fetch = lambda leaves: leaves
    lab.select = lambda keys, known, memory, found: (np.int32([[2]]), memory)
    runs = [pack.Run(seed, Oracle(np.zeros(5, np.int32)), ()) for seed in range(3)]
    for run in runs:
        run.trained = pack.Trained({}, np.zeros(4, np.int32), 0.0, 0, {}, 1, 1)
    assert len(pack.choose(lab, runs, [0, 1, 2], 0)) == len(earlier) == 3


def test_nobody_looks_at_what_a_lost_run_picks() -> None:
    """It diverged a round ago, and trains on only to keep its lane: what its strategy remembers may be NaN."""
    lab = mock.Mock(packs=[range(2)])
    lab.gather = lambda *_: ()
    lab.lanes.per_run = lab.lanes.fetch = lambda leaves: leaves
    lab.select = lambda keys, known, memory: (np.int32([[2], [0]]), memory)
    runs = [pack.Run(seed, Oracle(np.zeros(5, np.int32)), ()) for seed in (7, 8)]
    for run in runs:
        run.trained = pack.Trained({}, np.zeros(4, np.int32), 0.0, 0, {}, 2, 2)
        run.buy([0])
    pack.choose(lab, runs, [7], 3)
    with pytest.raises(InputError, match="has picked what it may not"):
        pack.choose(lab, runs, [7, 8], 3)


@pytest.mark.parametrize(
    ("own", "others", "published"),
    [(None, None, 1), (6, None, 1), (None, 6, 0), (3, None, 1)],
    ids=["nobody has it", "a kill came before it was shared", "it is there", "it was begun"],
)
def test_the_first_round_is_shared_whoever_ended_it(own: int | None, others: int | None, published: int) -> None:
    def kept(done: int | None) -> Interrupted | None:
        return done and Interrupted([FRESH.loss, FRESH.diverged], done, dict(KEPT), np.zeros(1))

    inside, shared = mock.Mock(), mock.Mock()
    inside.restore.return_value, shared.restore.return_value = kept(own), kept(others)
    inside.offer.return_value = ""
    run = pack.Run(7, Oracle(np.zeros(5, np.int32)), ())
    pack.train(a_lab(lambda keys: FRESH), [run], [7], 0, inside, shared, mock.Mock())
    assert shared.publish.call_count == published


def test_the_best_accuracy_is_that_of_all_evaluations() -> None:
    """After 3, 6, 9 and, the last one, 12 steps, of which at most 2 are taken at once."""
    lab, begun, right = a_lab(lambda keys: FRESH), [], iter([2, 3, 1, 2])
    lab.settings.recipe.epochs, lab.settings.eval_every, lab.engine.chunk = 4, 1, 2

    def advance(state: TrainState, keys: object, known: object, pool: object, per_epoch: int, first: int, until: int):
        begun.append((first, until))
        return state

    def evaluate(variables: object, test: object) -> np.ndarray:
        begun.append("evaluated")
        return np.int32([np.arange(4) < next(right)])

    lab.engine.advance, lab.engine.evaluate, lab.test_counts = advance, evaluate, np.ones(4, np.int32)
    lab.lanes.on_device = lab.lanes.shares = 1
    run = pack.Run(7, Oracle(np.zeros(5, np.int32)), ())
    (run.trained,) = pack.train(lab, [run], [7], 0, None, None, mock.Mock())
    assert begun == [step for at in (0, 3, 6, 9) for step in ((at, at + 2), (at + 2, at + 3), "evaluated")]
    assert (run.trained.best, run.trained.correct.sum()) == (0.75, 2)
    lab.settings.budget.labels, lab.settings.num_classes, lab.packs = [1], 4, [range(1)]
    (line,) = pack.lines(lab, [run], [7], 0, [], mock.Mock())
    assert (line["accuracy"], line["accuracy_best"]) == (0.5, 0.75)
    run.trained = run.trained._replace(correct=np.ones(4, np.int32))
    (line,) = pack.lines(lab, [run], [7], 0, [], mock.Mock())
    assert (line["accuracy"], line["accuracy_best"]) == (1, 1), "the last one counts as well"


def test_a_line_says_what_the_round_was() -> None:
    """Two runs of one strategy that were trained with four others, three lanes on a device, and scored in one pack."""
    spent = {"train": 0.0, "infer": 3.0, "select": 0.5, "eval": 0.0, "compile": 1.0}
    lab = mock.Mock(packs=[range(2)], test_counts=np.int32([4, 0, 2]))
    lab.settings.budget.labels, lab.settings.num_classes, lab.settings.eval_every = [2, 4], 3, 0
    lab.lanes.on_device, lab.lanes.shares = 2, 1
    runs = [pack.Run(seed, Oracle(np.int32([2, 0, 2, 1, 1])), ()) for seed in (5, 6)]
    for run in runs:
        run.buy([0, 1, 2])
        run.picks, run.initial = np.int32([4]), np.int32([0, 1])
        run.trained = pack.Trained({}, np.int32([1, 0, 2]), 0.0, 0, dict(KEPT), 6, 3)
    expected = {
        "seed": 5, "round": 1, "labelled": 4, "accuracy": 0.5, "accuracy_best": None,
        "per_class_accuracy": [0.25, None, 1], "picks": [4], "class_counts": [1, 0, 2],
        "seconds": {"train": 40, "infer": 3, "select": 0.5, "eval": 2, "compile": 6},
        "runs_at_once": 6, "selected_at_once": 2, "lanes": 3,
    }  # fmt: skip
    found = pack.lines(lab, runs, [5, 6], 1, [spent, spent], mock.Mock())
    assert found == [expected, expected | {"seed": 6}]
    lab.lanes.on_device, lab.lanes.shares = 7, 4
    (line,) = pack.lines(lab, runs, [6], 0, [spent, spent], mock.Mock())
    assert line == expected | {"seed": 6, "round": 0, "labelled": 2, "initial": [0, 1], "lanes": 7, "devices": 4}
    (line,) = pack.lines(lab, runs, [6], 1, [], mock.Mock())
    last = {key: leaf for key, leaf in expected.items() if key != "selected_at_once"}
    assert line == last | {"seed": 6, "picks": [], "seconds": KEPT}
