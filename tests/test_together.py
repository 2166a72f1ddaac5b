"""Strategies that train together: the numbers of each alone, a journal each, and a kill that nobody notices."""

import gc
import json
import weakref
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
import pytest
from absl.testing import flagsaver
from compiling import heard
from killer import grudge, watched

import jaxdal
from jaxdal import InputError, environment, journal, loop, settings, strategies
from jaxdal.engine import Engine
from jaxdal.journal import Journal
from jaxdal.keys import keys_for
from jaxdal.main import FLAGS, main

NAMES = ["random", "margin", "grudge"]
OPTIONS: dict[str, Any] = {
    "n_start": 40, "n_query": 20, "n_end": 80, "epochs": 3, "batch": 16, "seeds": [5, 2], "pack": 3, "quiet": True,
    "learning_rate": 0.05, "eval_every": 1,
}  # fmt: skip


def play(blobs: jaxdal.Dataset, folder: Path) -> list[jaxdal.Result]:
    """Three rounds of three strategies, one of which has a memory: six runs in packs of three."""
    strategies = ["random", "margin", grudge()]
    workdirs = [folder / name for name in NAMES]
    with mock.patch.object(environment, "_commit", return_value="somebody may commit while tests run"):
        return jaxdal.run_together(blobs, strategies, workdirs=workdirs, devices=jax.devices()[:1], **OPTIONS)


@pytest.fixture(scope="module")
def compiled() -> list[int]:
    """Events of compilation before each group of lines that `together` appends."""
    return []


@pytest.fixture(scope="module")
def together(blobs, compiled, tmp_path_factory) -> Path:
    """The folders of an undisturbed command."""
    folder = tmp_path_factory.mktemp("together")
    append = Journal.append

    def watched(self: Journal, group: Any) -> None:
        compiled.append(len(heard))
        heard.clear()
        append(self, group)

    heard.clear()
    with mock.patch.object(Journal, "append", watched):
        results = play(blobs, folder)
    assert [result.workdir for result in results] == [folder / name for name in NAMES]
    assert [len(result.groups) for result in results] == [3, 3, 3]
    return folder


def test_nothing_is_compiled_after_round_0(together, compiled):
    assert all(compiled[:3]), "round 0, of each strategy"
    assert compiled[3:] == [0] * 6


def timeless(folder: Path) -> list[dict[str, Any]]:
    return [{**json.loads(line), "seconds": None} for line in (folder / journal.NAME).read_text().splitlines()]


def test_each_is_what_it_is_alone(blobs, tmp_path, together):
    """Packs of three in place of two round differently; picks of three rounds would show it if they did much."""
    alone = jaxdal.run(blobs, "margin", workdir=tmp_path, devices=jax.devices()[:1], **OPTIONS)
    header, groups = journal.read(together / "margin")
    assert header["config"] == alone.header["config"]
    assert groups[0][0]["picks"] == alone.groups[0][0]["picks"], "round 0 is the same, bit for bit"
    for group, expected in zip(groups, alone.groups, strict=True):
        for line, other in zip(group, expected, strict=True):
            assert set(line["picks"]) == set(other["picks"])
            for key in ("accuracy", "accuracy_best"):
                assert line[key] == pytest.approx(other[key], abs=1 / 80)
    accuracies = {line["accuracy"] for group in groups for line in group}
    assert len(accuracies) > 2, "else equality proved little"


def test_every_seed_draws_anew_in_every_round(together):
    """By its own key of that round: drawn by one key alone, the picks of three rounds are one list, cut to pieces."""
    groups, select = journal.read(together / "random")[1], strategies.build("random").select
    for lane, seed in enumerate(OPTIONS["seeds"]):
        known = np.full(200, -1, np.int32)
        known[groups[0][lane]["initial"]] = 0
        for round_ in range(2):
            picks = groups[round_][lane]["picks"]
            assert picks == select(keys_for(np.uint32(seed), np.int32(round_)).select, known, 20, ())[0].tolist()
            known[picks] = 0


def test_the_first_round_is_shared_and_later_ones_are_packed(together):
    rounds = {name: journal.read(together / name)[1] for name in NAMES}
    for groups in rounds.values():
        at_once = [[(line["runs_at_once"], line.get("selected_at_once")) for line in group] for group in groups]
        assert at_once == [[(2, None)] * 2, [(3, 2)] * 2, [(3, None)] * 2], "the seeds alone, then packs of three"
    first = rounds["random"][0]
    for name in ("margin", "grudge"):
        for line, other in zip(rounds[name][0], first, strict=True):
            for key in ("accuracy", "per_class_accuracy", "initial"):
                assert line[key] == other[key]
            assert line["seconds"]["train"] == other["seconds"]["train"] > 0, "charged to each"
            assert line["picks"] != other["picks"]


@pytest.mark.parametrize(
    ("complete", "trained"),
    [
        # In round 1 the first run of the first pack is a round ahead.
        pytest.param({"random": 2, "margin": 1, "grudge": 1}, {80: 9, 60: 3}, id="in round 1"),
        pytest.param({"random": 3, "margin": 3, "grudge": 2}, {80: 3}, id="in the last round"),
        pytest.param({"random": 3, "margin": 1, "grudge": 3}, {60: 3, 80: 3}, id="others are complete"),
    ],
)
def test_what_a_kill_has_left_is_continued(blobs, tmp_path, together, monkeypatch, complete, trained):
    """Between the lines of a round, those who have none play it again, in the lanes they had; nobody else does."""
    for name in NAMES:
        (tmp_path / name).mkdir()
        lines = (together / name / journal.NAME).read_bytes().splitlines(keepends=True)
        (tmp_path / name / journal.NAME).write_bytes(b"".join(lines[: 1 + 2 * complete[name]]))
        for path in (together / name).glob("memory_*.npz"):
            (tmp_path / name / path.name).write_bytes(path.read_bytes())
    calls: list[int] = []
    monkeypatch.setattr(Engine, "advance", watched(Engine.advance, lambda call: calls.append(call[0])))
    play(blobs, tmp_path)
    assert {labels: calls.count(labels) for labels in calls} == trained
    for name in NAMES:
        ours, expected = timeless(tmp_path / name), timeless(together / name)
        if complete["random"] == complete["grudge"] == 3:  # margin is alone, in a pack of two
            assert [line.get("initial") for line in ours] == [line.get("initial") for line in expected]
        else:
            assert ours == expected, name
    assert not (tmp_path / "random" / "inside_round").exists()


def test_only_what_is_trained_alike_trains_together(blobs):
    names = ["random", "ssl_random", "margin", "learning_loss", "ssl_diff2aug_direct", "waal"]
    every = []
    for name in names:
        rules = settings.resolve("arrays", blobs, name, n_start=20, n_query=10, n_end=30)
        journal_ = mock.Mock(groups=[], live=[0])
        every.append(loop.Experiment(strategies.build(name), rules, Path(name), journal_, []))
    groups = loop.trained_alike(every)
    assert [[one.rules.strategy for one in group] for group in groups] == [
        ["random", "margin"], ["ssl_random", "ssl_diff2aug_direct"], ["learning_loss"], ["waal"],
    ]  # fmt: skip


def played(blobs: jaxdal.Dataset, rounds: int, *live: int) -> loop.Experiment:
    """An experiment of three rounds, of which so many have been played."""
    rules = settings.resolve("arrays", blobs, "margin", seeds=(0, 1), n_start=20, n_query=10, n_end=40)
    journal_ = mock.Mock(groups=[[]] * rounds, live=list(live))
    return loop.Experiment(strategies.build("margin"), rules, Path("margin"), journal_, [])


def test_a_strategy_whose_seeds_have_all_diverged_keeps_its_lanes(blobs):
    """As in the command that saw it: after a kill the packs are the same, whoever is the first of them."""
    stopped, going, done = played(blobs, 1), played(blobs, 1, 0, 1), played(blobs, 3, 0, 1)
    assert loop.trained_alike([stopped, going, done]) == [[stopped, going]]
    assert loop.trained_alike([stopped, done]) == []


def test_rounds_are_counted_from_the_first_that_somebody_lacks(blobs):
    members = [played(blobs, 1), played(blobs, 2, 0)]
    shown = mock.patch.object(loop, "Progress", side_effect=InterruptedError)
    with shown as progress, pytest.raises(InterruptedError):
        loop.play(members, [mock.Mock()] * 2, mock.Mock(), mock.Mock(), None, 0, False, True)
    assert progress.call_args.kwargs["first_round"] == 2


def test_what_is_trained_in_turns_shares_the_images(blobs, tmp_path, monkeypatch):
    pools = []
    monkeypatch.setattr(loop, "play", lambda members, labs, wide, *_: pools.append([labs[0].pool.x, wide.pool.x]))
    folders = [tmp_path / "a", tmp_path / "b"]
    jaxdal.run_together(blobs, ["random", "learning_loss"], workdirs=folders, devices=jax.devices()[:1], **OPTIONS)
    (first, also), (second, too) = pools
    assert first is also is second is too


def test_images_leave_the_devices_with_their_command(blobs, tmp_path, monkeypatch):
    """At once, and not when Python next looks for cycles: the next command in this process may need all the memory."""
    there: list[weakref.ref[Any]] = []
    play = loop.play

    def watched(members: Any, labs: Any, wide: Any, *rest: Any) -> None:
        there.extend(map(weakref.ref, [*labs, wide, *(lab.pool.x for lab in labs)]))
        play(members, labs, wide, *rest)

    monkeypatch.setattr(loop, "play", watched)
    gc.disable()
    try:
        folders, devices = [tmp_path / "a", tmp_path / "b"], jax.devices()[:1]
        jaxdal.run_together(blobs, ["random", "margin"], workdirs=folders, devices=devices, **OPTIONS)
        assert [one() for one in there] == [None] * 5
    finally:
        gc.enable()


def test_a_folder_for_each_strategy(blobs, tmp_path):
    with pytest.raises(InputError, match="there are 1 workdirs for 2 strategies"):
        jaxdal.run_together(blobs, ["random", "margin"], workdirs=[tmp_path / "one"], **OPTIONS)
    assert not list(tmp_path.iterdir())


def test_two_strategies_cannot_have_one_folder(blobs, tmp_path):
    with pytest.raises(InputError, match="random, random have the same folder"):
        jaxdal.run_together(blobs, ["random", "random"], workdirs=tmp_path, **OPTIONS)
    assert not list(tmp_path.iterdir())


def test_the_command_takes_several(blobs, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    arrays = {f"{part}_images": x for part, x in (("train", blobs.train_x), ("test", blobs.test_x))}
    np.savez(tmp_path / "blobs.npz", train_labels=blobs.train_y, test_labels=blobs.test_y, **arrays)
    given = {**OPTIONS, "dataset": f"npz:{tmp_path / 'blobs.npz'}", "seeds": "5,2", "strategy": "random, margin"}
    flags = [f"--{name}={value}" for name, value in given.items() if name != "quiet"]
    with flagsaver.flagsaver():
        FLAGS(["main", *flags, "--workdir=~/out"])  # which a shell leaves as it is
        assert main(["main"]) == 0
    assert "Verdicts: " in capsys.readouterr().out
    for name in ("random", "margin"):
        assert (tmp_path / "out" / name / "accuracy.png").exists()
        assert len(journal.read(tmp_path / "out" / name)[1]) == 3
    assert (tmp_path / "out" / "report.html").exists()
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    ("strategies", "seeds", "devices", "told"),
    [
        (["random"], [5, 2, 3], 2, [[(2, 1, None), (2, 1, None), (1, None, None)]] * 2),
        (["random"], [5], 2, [[(1, None, 2)]] * 2),
        (["random", "margin"], [5], 2, [[(1, None, 2)], [(2, 1, None)]]),
        (["random", "margin"], [5, 2], 1, [[(1, None, None)] * 2] * 2),
    ],
)
def test_lines_say_how_runs_lay_on_the_devices(blobs, tmp_path, strategies, seeds, devices, told):
    """How many were trained together, for how many a device computed, and over how many devices each was split."""
    options = OPTIONS | {"seeds": seeds, "pack": 1, "n_end": 60, "epochs": 1, "model": "tiny"}
    results = jaxdal.run_together(blobs, strategies, workdirs=tmp_path, devices=jax.devices()[:devices], **options)
    keys = ("runs_at_once", "lanes", "devices")
    for result in results:
        assert [[tuple(line.get(key) for key in keys) for line in group] for group in result.groups] == told
