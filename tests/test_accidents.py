"""Full disks, kills and names that are no text: a sentence, and what is there goes on."""

import errno
import gc
import signal
import subprocess
import sys
import time
import weakref
import zlib
from pathlib import Path
from unittest import mock

import pytest
from absl.testing import flagsaver
from conftest import CACHE

import jaxdal
from jaxdal import Dataset, checkpoint, commands, loop, main

SHORT = {"n_start": 20, "n_query": 10, "n_end": 40, "batch": 16, "epochs": 2, "model": "tiny", "strategy": "margin"}
FULL = OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(CACHE))
    monkeypatch.setattr(loop, "run_together", mock.Mock(side_effect=FULL))
    with flagsaver.flagsaver():
        assert main.main(main._parse(["main"])) == 2
    told = "a file could not be written: No space left on device; once that is mended, the same command goes on"
    assert capsys.readouterr().err == f"jaxdal: {told}\n"


def test_a_state_that_cannot_be_kept_ends_no_training(
    blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = mock.Mock(side_effect=FULL)
    monkeypatch.setattr(checkpoint, "save", save)
    result = jaxdal.run(blobs, workdir=tmp_path, checkpoint_seconds=0.0, **SHORT)
    assert len(result.groups) == 3
    assert save.call_count == 3, "once a round"
    assert "could not be kept: [Errno 28] No space left on device" in capsys.readouterr().err


def test_what_a_kill_has_left_of_the_last_round_goes(blobs: Dataset, tmp_path: Path) -> None:
    done = jaxdal.run(blobs, workdir=tmp_path, quiet=True, **SHORT)
    before = (tmp_path / "journal.jsonl").read_bytes()
    (tmp_path / "inside_round" / "some_0" / "step_00000004").mkdir(parents=True)
    again = jaxdal.run(blobs, workdir=tmp_path, quiet=True, **SHORT)
    assert again.groups == done.groups
    assert (tmp_path / "journal.jsonl").read_bytes() == before
    assert not (tmp_path / "inside_round").exists()


def test_parts_of_programs_are_removed_and_whole_ones_stay(tmp_path: Path) -> None:
    whole = zlib.compress(bytes(range(256)) * 100)
    pages = b"\x00" * 8192
    found = {"a-cache": whole, "b-cache": b"", "c-cache": pages, "d-cache": whole[:5], "b-atime": b""}
    for length in range(4000, 9000):  # a whole one that fills pages
        stored = zlib.compress(bytes(length), level=0)
        if len(stored) == 8192:
            found["e-cache"] = stored
    assert "e-cache" in found
    for name, data in found.items():
        (tmp_path / name).write_bytes(data)
    commands.mend(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a-cache", "d-cache", "b-atime", "e-cache"}
    commands.mend(tmp_path / "nowhere")


def test_names_that_are_no_text_are_printed_all_the_same() -> None:
    code = "from jaxdal.commands import outlive_readers; outlive_readers(); print('caf\\udce9')"
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", code], env={"PYTHONIOENCODING": "utf-8:strict"}, cwd=Path.cwd(),
        capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b"caf\\udce9\n")


def _collected(pressed: list[int]) -> None:
    gc.collect()
    assert pressed
    time.sleep(60)


@pytest.mark.parametrize("by_a_reference", [False, True])
def test_ctrl_c_during_a_garbage_collection_is_not_lost(by_a_reference: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX has the collector call a function, and Python drops what that raises, or the callback of a weak reference."""
    assert "_xla_gc_callback" in [getattr(callback, "__name__", "") for callback in gc.callbacks]
    pressed: list[int] = []

    def press(*_: object) -> None:
        if not pressed:
            pressed.append(1)
            signal.raise_signal(signal.SIGINT)

    class Circle:
        pass

    circle = Circle()
    circle.itself = circle
    references = [weakref.ref(circle, press)] if by_a_reference else []
    monkeypatch.setattr(sys, "unraisablehook", commands.not_lost)
    if not references:
        gc.callbacks.append(press)
    del circle
    began = time.monotonic()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            _collected(pressed)
        assert time.monotonic() - began < 60, "it waited until the sleep was over"
    finally:
        signal.signal(signal.SIGINT, before)
        if not references:
            gc.callbacks.remove(press)


def test_other_exceptions_that_are_dropped_are_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def __del__(self) -> None:
            raise ValueError("as ever")

    monkeypatch.setattr(sys, "unraisablehook", commands.not_lost)
    broken = Broken()
    del broken
    assert "ValueError: as ever" in capsys.readouterr().err
