"""A device that runs out of memory, as JAX says it: what a user is told, and whether that is true."""

import sys
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
import pytest
from labs import SMALL

import jaxdal
from jaxdal import Dataset, InputError, OutOfMemoryError, journal, loop
from jaxdal.engine import Engine

FULL = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12884901888 bytes."
STARTS_OVER = (
    "that is another experiment, which starts from round 0 in another folder (another --workdir, if one was given); "
    "this one stays as it is."
)
STREAMS = (
    "a --pool_bytes below 12800, which keeps the training images on the host: the same command with it goes on after "
    "the last finished round."
)
NOTHING_HELPS = "It takes a device with more memory, or a smaller pool (--pool_share), which is another experiment."


def raising(text: str) -> tuple[jax.errors.JaxRuntimeError, Any]:
    """An error of JAX, and a function that has it."""
    error = jax.errors.JaxRuntimeError(text)
    return error, mock.Mock(side_effect=error)


def play(blobs: Dataset, workdir: Path, *strategies: str, **options: Any) -> None:
    given = {**SMALL, "seeds": (0, 1, 2, 3), "quiet": True, **options}
    jaxdal.run_together(blobs, strategies, workdirs=workdir, devices=jax.devices()[:1], **given)


def told(blobs: Dataset, workdir: Path, *strategies: str, **options: Any) -> str:
    with pytest.raises(OutOfMemoryError) as raised:
        play(blobs, workdir, *strategies, **options)
    return str(raised.value)


def test_training_and_what_helps(blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error, advance = raising(f"{FULL}\nBuffer assignment: a page of it")
    monkeypatch.setattr(Engine, "advance", advance)
    with pytest.raises(OutOfMemoryError) as raised:
        play(blobs, tmp_path / "out", "margin")
    assert raised.value.__cause__ is error
    assert str(raised.value) == (
        f"a device ran out of memory while training 4 runs at once: {FULL} Try --pack=2 or a smaller --batch: "
        f"{STARTS_OVER} Or try {STREAMS}"
    )
    before = (tmp_path / "out" / "margin" / "journal.jsonl").read_bytes()
    for other, difference in (({"pack": 2}, r"pack \(32 there, 2 now\)"), ({"batch": 8}, r"batch \(16 there, 8 now\)")):
        with pytest.raises(InputError, match=difference):
            play(blobs, tmp_path / "out", "margin", **other)
        assert f"while training {'2' if 'pack' in other else '4'} runs at once" in told(
            blobs, tmp_path / str(other), "margin", **other
        ), "it is trained in another folder"
    streamed = told(blobs, tmp_path / "out", "margin", pool_bytes=12799)
    assert "training 4 runs at once" in streamed, "the journal takes it"
    assert "--pool_bytes" not in streamed
    assert (tmp_path / "out" / "margin" / "journal.jsonl").read_bytes() == before


def test_one_run_has_no_smaller_pack(blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "advance", raising(FULL)[1])
    expected = f"training one run: {FULL} Try a smaller --batch: {STARTS_OVER} Or try {STREAMS}"
    assert told(blobs, tmp_path, "margin", seeds=(0,)) == f"a device ran out of memory while {expected}"


def trained(active: list[loop.Experiment], *_: Any) -> None:
    """In place of training round 0."""
    for run in (run for one in active for run in one.runs):
        run.trained = mock.Mock(seconds={"compile": 0.0, "train": 0.0})


@pytest.mark.parametrize(
    ("fails", "strategies", "seeds", "sentences"),
    [
        ("choose", ["margin"], 2, f"selecting for 2 runs at once: {FULL} Try --pack=1: {STARTS_OVER} Or try {STREAMS}"),
        ("choose", ["margin"], 1, f"selecting for one run: {FULL} Try {STREAMS}"),
        (
            "choose", ["mcadl"], 1,  # looks at the whole pool at once
            f"selecting for one run: {FULL} {NOTHING_HELPS}",
        ),
        ("choose", ["ssl_random", "mcadl"], 1, f"selecting for one run: {FULL} {NOTHING_HELPS}"),  # is refused by mcadl
        (
            "warm", ["margin", "mcadl"], 2,  # what trains round 1 is compiled, and tried, in round 0
            f"training 4 runs at once: {FULL} Try --pack=2 or a smaller --batch: {STARTS_OVER}",
        ),
        ("labs_for", ["margin"], 2, f"taking the images: {FULL} Try {STREAMS}"),
        ("recall", ["margin", "badge"], 2, f"taking the images: {FULL} Try {STREAMS}"),
        ("labs_for", ["mcadl"], 2, f"taking the images: {FULL} {NOTHING_HELPS}"),
    ],
)  # fmt: skip
def test_whatever_was_being_done(
    blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    fails: str, strategies: list[str], seeds: int, sentences: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(loop, "train_first", trained)
    monkeypatch.setattr(loop, fails, raising(FULL)[1])
    expected = f"a device ran out of memory while {sentences}"
    assert told(blobs, tmp_path, *strategies, seeds=tuple(range(seeds))) == expected


def test_it_goes_on_after_the_last_finished_round(
    blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"seeds": (0,), "n_end": "50"}
    with monkeypatch.context() as later:
        later.setattr(loop, "train_all", raising(FULL)[1])  # which trains all rounds but round 0
        assert told(blobs, tmp_path, "margin", **options).endswith(f"Or try {STREAMS}")
    before = (tmp_path / "margin" / journal.NAME).read_bytes()
    assert [line["round"] for group in journal.read(tmp_path / "margin")[1] for line in group] == [0]
    play(blobs, tmp_path, "margin", pool_bytes=12799, **options)
    after = (tmp_path / "margin" / journal.NAME).read_bytes()
    assert after.startswith(before)
    assert [line["round"] for group in journal.read(tmp_path / "margin")[1] for line in group] == [0, 1]


@pytest.mark.parametrize("text", ["INTERNAL: an autotuner failed", f"INTERNAL: {FULL}", ""])
def test_other_errors_pass_unchanged(
    blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    error, failing = raising(text)
    monkeypatch.setattr(loop, "train_first", failing)
    with pytest.raises(jax.errors.JaxRuntimeError) as raised:
        play(blobs, tmp_path, "margin")
    assert raised.value is error


def test_one_round_with_labels_given_by_hand_has_no_journal(blobs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(**options: Any) -> str:
        known = np.where(np.arange(200) < 40, blobs.train_y, -1)
        with pytest.raises(OutOfMemoryError) as raised:
            jaxdal.ask(blobs.train_x, known, 5, "margin", num_classes=4, epochs=1, batch=16, quiet=True, **options)
        return str(raised.value)

    monkeypatch.setattr(Engine, "advance", raising(FULL)[1])
    keeps = "pool_bytes below 12800, which keeps the images on the host."
    full = f"a device ran out of memory while training one run: {FULL}"
    assert asked(model="tiny") == f"{full} Try a smaller batch or {keeps}"
    assert asked(model="tiny", pool_bytes=6400) == f"{full} Try a smaller batch."
    monkeypatch.undo()
    monkeypatch.setattr(sys.modules["jaxdal.ask"], "choose", raising(FULL)[1])
    full = full.replace("training", "selecting for")
    assert asked(model="tiny") == f"{full} Try {keeps}"
    assert asked(model="tiny", pool_bytes=6400) == f"{full} It takes a device with more memory."
