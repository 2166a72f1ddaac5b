"""States inside a round: the newest whole one counts, and only of the same round, pack, experiment and network."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from states import break_data, break_metadata, empty, no_folder, paths

from jaxdal import InputError, checkpoint

CONFIG = {"seeds": [5, 7], "learning_rate": 0.1}
FRESH = {"weights": np.zeros((2, 3), np.float32), "diverged": np.zeros(2, np.int32)}


def kept(workdir: Path, round_: int, seeds: list[int], state: Any = FRESH, config: Any = CONFIG) -> int | None:
    """How many steps of a round a new process finds done."""
    found = checkpoint.InsideRound(workdir, 0.0, config).restore(round_, seeds, state)
    return found if found is None else found.done


# After the first array that cannot be read, Orbax closes the event loop in which TensorStore still reads the others.
late_readers = pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")


@pytest.mark.parametrize("damage", [pytest.param(break_data, marks=late_readers), break_metadata, empty, no_folder])
def test_the_newest_whole_state_counts(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    inside = checkpoint.InsideRound(tmp_path, 0.0, CONFIG)
    state = {"weights": np.arange(6, dtype=np.float32).reshape(2, 3), "diverged": np.int32([0, 4])}
    inside.offer(1, [5, 7], state, 32, {"train": 1.5}, np.asarray([0.5, 0.25]))
    older = paths(tmp_path)[0]
    shutil.copytree(older, tmp_path / "older")
    inside.offer(1, [5, 7], FRESH, 64, {"train": 2.5}, np.asarray([0.5, 0.25]))
    assert kept(tmp_path, 1, [5, 7]) == 64
    assert not older.exists()

    (tmp_path / "older").rename(older)
    damage(paths(tmp_path)[1])
    found = checkpoint.InsideRound(tmp_path, 0.0, CONFIG).restore(1, [5, 7], FRESH)
    assert found is not None
    assert (found.done, found.seconds, found.best.tolist()) == (32, {"train": 1.5}, [0.5, 0.25])
    jax.tree.map(np.testing.assert_array_equal, found.leaves, jax.tree.leaves(state))
    with pytest.raises(InputError, match="is not a whole checkpoint"):
        checkpoint.load(paths(tmp_path)[1])

    # What cannot be read is replaced, and goes with the round.
    inside.offer(1, [5, 7], state, 64, {"train": 2.5}, np.asarray([0.5, 0.25]))
    assert kept(tmp_path, 1, [5, 7]) == 64
    assert len(paths(tmp_path)) == 1
    inside.clear()
    assert kept(tmp_path, 1, [5, 7]) is None
    assert not (tmp_path / "inside_round").exists()


def test_a_state_of_something_else_is_not_taken_up(tmp_path: Path) -> None:
    assert kept(tmp_path, 1, [5, 7]) is None
    inside = checkpoint.InsideRound(tmp_path, 0.0, CONFIG)
    inside.offer(1, [5, 7], FRESH, 32, {"train": 1.5}, np.zeros(2))
    assert kept(tmp_path, 1, [5, 7]) == 32
    assert kept(tmp_path, 2, [5, 7]) is None, "another round"
    assert kept(tmp_path, 1, [5]) is None, "another pack"
    assert kept(tmp_path, 1, [5, 7], config=CONFIG | {"learning_rate": 0.2}) is None, "of a journal that was deleted"
    wider = {"weights": np.zeros((2, 4), np.float32), "diverged": np.zeros(2, np.int32)}
    assert kept(tmp_path, 1, [5, 7], wider) is None, "another version of the network"
    assert kept(tmp_path, 1, [5, 7], {"weights": FRESH["weights"]}) is None, "another version of the optimiser"


def test_states_are_kept_no_more_often_than_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    time = 100.0
    monkeypatch.setattr(checkpoint.cost, "now", lambda: time)
    inside = checkpoint.InsideRound(tmp_path, 60.0, CONFIG)
    found = []
    for time in (130.0, 161.0, 200.0, 222.0):
        inside.offer(0, [5, 7], FRESH, int(time), {}, np.zeros(2))
        found.append(kept(tmp_path, 0, [5, 7]))
    assert found == [None, 161, 161, 222]


def test_what_others_have_published_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = checkpoint.InsideRound(tmp_path, 0.0, CONFIG)
    inside.publish(0, [5, 7], FRESH, 32, {"train": 1.5}, np.zeros(2))
    assert kept(tmp_path, 0, [5, 7]) == 32
    monkeypatch.setattr(checkpoint, "save", lambda *_: pytest.fail("it is there"))
    inside.publish(0, [5, 7], FRESH, 32, {"train": 2.5}, np.zeros(2))


@pytest.mark.parametrize("damage", [pytest.param(break_data, marks=late_readers), break_metadata, empty])
def test_what_others_have_published_is_replaced_where_it_is_damaged(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    inside = checkpoint.InsideRound(tmp_path, 0.0, CONFIG)
    inside.publish(0, [5, 7], FRESH, 32, {"train": 1.5}, np.zeros(2))
    damage(paths(tmp_path)[0])
    assert kept(tmp_path, 0, [5, 7]) is None
    inside.publish(0, [5, 7], FRESH, 32, {"train": 2.5}, np.zeros(2))
    assert kept(tmp_path, 0, [5, 7]) == 32
    assert [path.name for path in paths(tmp_path)] == ["step_00000032"]
