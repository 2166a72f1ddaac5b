"""Round 0 compiles every program; no later round compiles, or even traces, anything."""

from pathlib import Path
from typing import Any

import jax
import pytest
from compiling import heard
from labs import SMALL

import jaxdal
from jaxdal.journal import Journal

FOUR_ROUNDS = {**SMALL, "n_query": 20, "n_end": 100, "quiet": True}


@pytest.mark.parametrize(
    ("seeds", "devices", "options"),
    [
        pytest.param(
            [0, 1, 2], 1, {"pack": 2, "eval_every": 1, "save_weights": True, "checkpoint_seconds": 0.0},
            id="two packs, one of them not full, with all that can be kept",
        ),
        pytest.param([0], 8, {}, id="a run that is split over 8 devices"),
        pytest.param([0, 1], 1, {"pool_bytes": 9000, "eval_every": 1}, id="2 runs whose images stream"),
        pytest.param([0], 8, {"pool_bytes": 1000}, id="a run that is split, whose images stream"),
        pytest.param([0, 1, 2], 8, {"eval_every": 1}, id="3 runs that are spread over devices"),
    ],
)  # fmt: skip
def test_nothing_is_compiled_after_round_0(
    blobs: jaxdal.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeds: list[int], devices: int,
    options: dict[str, Any],
) -> None:  # fmt: skip
    per_round: list[list[str]] = []
    append = Journal.append

    def end_of_round(self: Journal, group: Any) -> None:
        per_round.append(heard.copy())
        heard.clear()
        append(self, group)

    monkeypatch.setattr(Journal, "append", end_of_round)
    heard.clear()
    used = jax.devices()[:devices]
    result = jaxdal.run(blobs, workdir=tmp_path, devices=used, **{"seeds": seeds, **FOUR_ROUNDS, **options})
    first, *later = per_round
    assert any("backend_compile" in event for event in first), "the listener hears nothing"
    assert later == [[], [], []]
    assert not heard, "after the last round"
    compiling = [sum(line["seconds"]["compile"] for line in group) for group in result.groups]
    assert compiling[0] > 0
    assert not any(compiling[1:]), "the journal says so too"
