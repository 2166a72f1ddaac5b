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
