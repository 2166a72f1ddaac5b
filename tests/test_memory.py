"""A strategy's memory on disk: whole or not at all, and never a pickle."""

import os
from pathlib import Path

import numpy as np
import pytest

from jaxdal import memory
from jaxdal.errors import InputError


def test_memory_round_trip(tmp_path: Path) -> None:
    arrays = {
        "file": np.arange(6, dtype=np.int32).reshape(2, 3),
        "0/weights": np.float32([0.5]),
        "none": np.zeros((0, 2)),
    }
    memory.save_memory(tmp_path, 3, arrays)
    back = memory.load_memory(tmp_path, 3)
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)
    with np.load(tmp_path / "memory_3.npz", allow_pickle=False) as plain:
        assert sorted(plain.files) == sorted(arrays)
    memory.save_memory(tmp_path, 4, {})
    assert memory.load_memory(tmp_path, 4) == {}


def test_memory_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.save_memory(tmp_path, 0, {"a": np.arange(3)})
    with pytest.raises(ValueError, match=r"[Oo]bject"):
        memory.save_memory(tmp_path, 0, {"a": np.asarray([object()])})
    assert memory.load_memory(tmp_path, 0)["a"].tolist() == [0, 1, 2]

    def crash(*names: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            memory.save_memory(tmp_path, 0, {"a": np.arange(9)})
    assert memory.load_memory(tmp_path, 0)["a"].tolist() == [0, 1, 2]


def test_bad_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"memory_0\.npz is missing, without which round 1"):
        memory.load_memory(tmp_path, 0)
    memory.save_memory(tmp_path, 0, {"a": np.arange(300)})
    path = tmp_path / "memory_0.npz"
    whole = path.read_bytes()
    flag = whole.index(b"PK\x01\x02") + 8
    locked = whole[:flag] + b"\x01" + whole[flag + 1 :]  # as if by a password
    for bad in (b"", whole[:100], locked, whole.replace(b"\x07\0\0\0\0\0\0\0", b"\x08\0\0\0\0\0\0\0"), b"\x80\x04N."):
        assert bad != whole
        path.write_bytes(bad)
        with pytest.raises(InputError, match="is damaged"):
            memory.load_memory(tmp_path, 0)
    memory.save_memory(tmp_path, 0, {"a": np.arange(300)})
    assert memory.load_memory(tmp_path, 0, {"a": np.zeros(300)})["a"].shape == (300,)
    for like in ({"a": np.zeros(300), "b": np.zeros(())}, {"a": np.zeros((300, 1))}, {"a": np.zeros(299)}):
        with pytest.raises(InputError, match=r"memory_0\.npz is damaged \(it has no array '[ab]' of the shape"):
            memory.load_memory(tmp_path, 0, like)
    with path.open("wb") as file:
        np.savez(file, a=np.asarray([{}], object))
    with pytest.raises(InputError, match="is damaged"):
        memory.load_memory(tmp_path, 0)
