"""One round of some runs, without an engine: what its seconds are when it goes on from a kept state."""

import itertools
from unittest import mock

import numpy as np
import pytest

from jaxdal import cost, pack
from jaxdal.checkpoint import Interrupted
from jaxdal.data import Oracle
from jaxdal.types import TrainState

KEPT = {"train": 40.0, "infer": 0.0, "select": 0.0, "eval": 2.0, "compile": 5.0}


def test_what_a_new_start_compiles_is_charged_beside_what_was_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count()
    monkeypatch.setattr(cost, "now", lambda: float(next(seconds)))
    state = TrainState({}, {}, (), loss=np.zeros(1, np.float32), diverged=np.zeros(1, np.int32))

    def init(keys: object) -> TrainState:
        cost._heard("/jax/core/compile/backend_compile_duration", 1.0)
        return state

    lab = mock.Mock()
    lab.settings.per_epoch, lab.settings.recipe.epochs, lab.settings.eval_every = [3], 2, 0
    lab.lanes.per_run = lab.lanes.fetch = lambda leaves: leaves
    lab.engine.init, lab.engine.evaluate = init, lambda variables, test: np.ones((1, 4), np.int32)
    inside = mock.Mock()
    inside.restore.return_value = Interrupted([state.loss, state.diverged], 6, dict(KEPT), np.zeros(1))
    run = pack.Run(7, Oracle(np.zeros(5, np.int32)), ())
    (trained,) = pack.train(lab, [run], [7], 0, inside, None, mock.Mock())
    assert trained.seconds == KEPT | {"eval": KEPT["eval"] + 1, "compile": KEPT["compile"] + 1}
