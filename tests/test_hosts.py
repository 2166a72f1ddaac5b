"""What process 0 tells the others, without other processes: test_distributed starts some."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdal import checkpoint, hosts
from jaxdal.errors import InputError
from jaxdal.journal import Journal

VALUES = [
    None, True, 0, -1, 2**70, 0.1, 1e-310, 1e308, -0.0, float("nan"), float("inf"), "", "é\n", "\udcff", [], {},
    [1, 1.0, True, None], {"b": 1, "a": {"": [0.1 + 0.2, "1"]}, "1": -0.0},
]  # fmt: skip
ARRAYS = {
    "file": np.arange(6, dtype=np.int32).reshape(2, 3).T,
    "a/b": np.asarray([-0.0, np.nan, np.inf, 1e-310]),
    "scalar": np.asarray(7, np.uint8),
    "none": np.zeros((0, 2), np.float16),
    "text": np.asarray(["é", ""]),
    "big end first": np.asarray([1, 2], ">i4"),
}


class Hosts:
    """Two processes, one after the other: what the first one broadcasts, the second one receives."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.own, self.told = 0, list[np.ndarray]()
        monkeypatch.setattr(hosts, "together", lambda: True)
        monkeypatch.setattr(hosts, "first", lambda: self.own == 0)
        monkeypatch.setattr(hosts.multihost_utils, "broadcast_one_to_all", self.broadcast)

    def broadcast(self, block: np.ndarray) -> np.ndarray:
        """Keep or give a message."""
        if self.own == 0:
            self.told.append(block.copy())
            return block
        told = self.told.pop(0)
        assert (block.shape, block.dtype) == (told.shape, told.dtype), "all processes run the same program"
        return told

    def both(self, ask: Callable[[], Any]) -> list[Any]:
        """What a call returns in each process, or the InputError that it raises."""
        answers = []
        for self.own in (0, 1):
            try:
                answers.append(ask())
            except InputError as error:
                answers.append(error)
        assert not self.told
        return answers


@pytest.fixture(params=[8, 2**26])
def two(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    """Long messages come in several parts."""
    monkeypatch.setattr(hosts, "PART", request.param)
    return Hosts(monkeypatch)


def only_in_first(two: Hosts, value: Any) -> Callable[[], Any]:
    def find() -> Any:
        assert two.own == 0, "the others have no files"
        if isinstance(value, InputError):
            raise value
        return value

    return find


def test_values_arrive_as_they_are(two: Hosts) -> None:
    """`repr` tells -0.0, NaN, 1 and 1.0, and the order of keys; a lone surrogate is a byte of a file's name."""
    for value in [*VALUES, VALUES]:
        for answer in two.both(lambda value=value: hosts.from_first(only_in_first(two, value))):
            assert repr(answer) == repr(value)


@pytest.mark.parametrize(
    "value", [(1, 2), {1: "a"}, [{"a": (1,)}], np.float64(1), np.int32(1), np.zeros(1), Path("a"), {None: 1}, {2, 3}],
    ids=repr,
)  # fmt: skip
def test_what_would_arrive_as_something_else_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="can be told to other processes"):
        hosts.as_json(value)


def test_arrays_arrive_as_they_are(two: Hosts) -> None:
    for answer in two.both(lambda: hosts.arrays_from_first(only_in_first(two, ARRAYS))):
        assert list(answer) == list(ARRAYS)
        for name, array in ARRAYS.items():
            assert (answer[name].dtype, answer[name].shape) == (array.dtype, array.shape)
            assert answer[name].tobytes() == array.tobytes(), name
    assert two.both(lambda: hosts.arrays_from_first(only_in_first(two, {}))) == [{}, {}]
    with pytest.raises(ValueError, match=r"[Oo]bject"):
        hosts.as_npz({"a": np.asarray([object()])})


@pytest.mark.parametrize("ask", [hosts.from_first, hosts.arrays_from_first])
def test_what_process_0_refuses_all_refuse(two: Hosts, ask: Callable[..., Any]) -> None:
    refused = InputError("é\udcff is missing")
    assert [str(each) for each in two.both(lambda: ask(only_in_first(two, refused)))] == [str(refused)] * 2


def test_checkpoints_and_journals_are_told(two: Hosts, tmp_path: Path) -> None:
    """A state with numbers of all kinds, bfloat16 too, which files of NumPy do not know."""
    leaves = [jnp.asarray([[1.5, -0.0]], jnp.bfloat16), np.asarray([[3]], np.uint32), np.asarray([0.1], np.float32)]
    best, seconds = np.asarray([0.1 + 0.2]), {"train": 0.1 + 0.2, "compile": 7.0}
    inside = checkpoint.InsideRound(tmp_path, 0.0, {"pool": 3})
    with pytest.MonkeyPatch.context() as alone:
        alone.setattr(hosts, "together", lambda: False)
        inside.offer(2, [7], leaves, 5, seconds, best)
    for kept in two.both(lambda: inside.restore(2, [7], leaves)):
        assert [leaf.dtype for leaf in kept.leaves] == [leaf.dtype for leaf in leaves]
        assert [leaf.tobytes() for leaf in kept.leaves] == [np.asarray(leaf).tobytes() for leaf in leaves]
        assert (type(kept.done), kept.done, kept.seconds, kept.best.tolist()) == (int, 5, seconds, best.tolist())
    assert two.both(lambda: inside.restore(3, [7], leaves)) == [None, None]

    config = {"pool": 3, "seeds": [0], "learning_rate": 0.1, "mean": [0.1 + 0.2]}
    line = {"seed": 0, "round": 0, "labelled": 1, "accuracy": 0.1 + 0.2, "initial": [0], "picks": [2]}
    with Journal.start(tmp_path, config, {"devices": ["cpu"]}) as book:
        book.append([line])
    start = only_in_first(two, None)
    own, other = two.both(lambda: hosts.open_journal(lambda: start() or Journal.start(tmp_path, config, {"jax": "1"})))
    with own:
        assert (other.path, other.header, other.groups) == (own.path, own.header, own.groups)
        assert list(other.header["config"]) == list(own.header["config"])
        assert json.loads((tmp_path / "journal.jsonl").read_text().splitlines()[1]) == other.groups[0][0]
        before = (tmp_path / "journal.jsonl").read_bytes()
        other.append([line | {"round": 1, "labelled": 2, "initial": [], "picks": [1]}])
        assert (tmp_path / "journal.jsonl").read_bytes() == before, "it is process 0 that writes"
