"""kill -9 at any moment and start again: nothing is lost, nothing is trained twice, and every number is the same."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import killer
import numpy as np
import pytest
from compiling import STRICT
from conftest import CACHE
from killer import CALLS, LABELS, PACKS, SEEDS, STEPS, experiment
from states import break_metadata, states

from jaxdal import InputError, checkpoint, engine, journal, models
from jaxdal.augment import normalise
from jaxdal.data.table import measure
from jaxdal.engine import Engine
from jaxdal.keys import keys_for

UNFINISHED = ".orbax-checkpoint-tmp"
Call = tuple[int, int, int]  # of `Engine.advance`: labels, first step, last step


def calls_of(round_: int) -> list[Call]:
    """All the training of a round: of its first pack, then of its second."""
    steps = STEPS[round_]
    return PACKS * [(LABELS[round_], call * steps, (call + 1) * steps) for call in range(CALLS)]


def start_and_kill(workdir: Path, point: str, count: int, **options: float) -> list[Call]:
    """Let a process of its own run until it is killed: -> what it trained."""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(CACHE),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "PYTHONPATH": str(Path(killer.__file__).parent),
    }
    values = [f"{name}={value}" for name, value in options.items()]
    python = [sys.executable, *STRICT, "-c", "import sys, killer; killer.main(*sys.argv[1:])"]
    command = [*python, str(workdir), point, str(count), *values]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL, f"it was not killed but ended: {done.stderr}"
    return [tuple(map(int, line.split())) for line in done.stdout.splitlines()]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """What this process trains."""
    calls: list[Call] = []
    monkeypatch.setattr(Engine, "advance", killer.watched(Engine.advance, calls.append))
    return calls


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of the experiment when nobody kills it."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    assert len(experiment(workdir).groups) == len(LABELS)
    return workdir


def data(workdir: Path) -> bytes:
    return (workdir / journal.NAME).read_bytes()


def timeless(workdir: Path) -> list[dict[str, Any]]:
    """The lines of a journal without their seconds."""
    return [{**json.loads(line), "seconds": None} for line in data(workdir).splitlines()]


def assert_same(workdir: Path, expected: Path) -> None:
    """Same picks and accuracies, bit for bit; same memory; nothing left over."""
    assert timeless(workdir) == timeless(expected)
    for round_ in range(len(LABELS)):
        name = f"memory_{round_}.npz"
        assert (workdir / name).read_bytes() == (expected / name).read_bytes()
    names = {path.name for path in workdir.iterdir()} - {"weights"}
    assert names == {path.name for path in expected.iterdir()} - {"weights"}


def test_the_experiment_would_notice(undisturbed: Path) -> None:
    """It learns something but not everything, seeds differ, picks depend on memory: else equality proved little."""
    _, groups = journal.read(undisturbed)
    accuracies = {line["accuracy"] for group in groups for line in group}
    assert len(accuracies) > 3
    assert max(accuracies) > 0.5
    assert min(accuracies) < 1
    assert all(line["accuracy_best"] >= line["accuracy"] for group in groups for line in group)
    lanes = [[(line["runs_at_once"], line.get("lanes")) for line in group] for group in groups]
    assert lanes == 3 * [[(2, None), (2, None), (1, 2)]], "the last run is not alone in its program"
    totals = journal.known_picks(groups, SEEDS[0])[1]
    assert [len(picks) for picks in totals] == [16, 16, 0]
    memory = remembered(undisturbed, 1)
    assert memory["rounds"] == 2
    chosen = memory["total"][totals[1]]
    latest = chosen - 2 * remembered(undisturbed, 0)["total"][totals[1]]
    assert (np.diff(chosen) <= 0).all(), "picked in the order of what is remembered"
    assert (np.diff(latest) > 0).any(), "and not of the last round alone"


def remembered(workdir: Path, round_: int) -> dict[str, np.ndarray]:
    arrays = np.load(workdir / f"memory_{round_}.npz", allow_pickle=False)
    with arrays:
        return {name: arrays[f"seed_{SEEDS[0]}_{place}"] for place, name in enumerate(["rounds", "total"])}


def test_killed_again_and_again(tmp_path: Path, undisturbed: Path, trained: list[Call]) -> None:
    """Five kills, each of the process that goes on after the one before."""
    expected, lines = timeless(undisturbed), data(undisturbed).count(b"\n")
    assert lines == 1 + len(LABELS) * len(SEEDS)

    # In the middle of training.
    assert start_and_kill(tmp_path, "advance", 3) == calls_of(0)[:2]
    assert timeless(tmp_path) == expected[:1]

    # The memory is on disk, the line is not.
    assert start_and_kill(tmp_path, "remembered", 1) == calls_of(0)
    assert (tmp_path / "memory_0.npz").exists()
    assert timeless(tmp_path) == expected[:1]

    # Of round 0 there is half a line.
    assert start_and_kill(tmp_path, "a quarter of the lines", 1) == calls_of(0)
    assert (data(tmp_path).count(b"\n"), len(data(tmp_path).splitlines())) == (1, 2)

    # Round 0 is complete at last; of round 1 there is one line and a half.
    assert start_and_kill(tmp_path, "half of the lines", 2) == calls_of(0) + calls_of(1)
    assert (data(tmp_path).count(b"\n"), len(data(tmp_path).splitlines())) == (5, 6)
    complete = b"".join(data(tmp_path).splitlines(keepends=True)[:4])

    # Round 1 is trained, and the second pack about to be evaluated. Round 0 is not trained again.
    assert start_and_kill(tmp_path, "evaluate", PACKS * CALLS) == calls_of(1)
    assert data(tmp_path) == complete

    experiment(tmp_path)
    assert trained == calls_of(1) + calls_of(2)
    assert data(tmp_path).startswith(complete)
    assert_same(tmp_path, undisturbed)

    # A finished experiment is finished.
    trained.clear()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    result = experiment(tmp_path)
    assert len(result.groups) == len(LABELS)
    assert not trained
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_killed_inside_a_round_with_checkpoints(tmp_path: Path, undisturbed: Path, trained: list[Call]) -> None:
    always = {"checkpoint_seconds": 0.0}

    # In round 0 the first pack is ready; of the second Orbax has kept two states, and has written the third but not
    # given it its name.
    assert start_and_kill(tmp_path, "within orbax", CALLS + 3, **always) == calls_of(0)[: CALLS + 3]
    assert timeless(tmp_path) == timeless(undisturbed)[:1]
    last, second, third = (f"step_{call * STEPS[0]:08}" for call in (CALLS, 2, 3))
    assert states(tmp_path) == {SEEDS[0]: [last], SEEDS[2]: [second, third + UNFINISHED]}

    # The next process goes on where that was. It dies after round 1, whose states must not be taken for round 2.
    assert start_and_kill(tmp_path, "appended", 2, **always) == calls_of(0)[CALLS + 2 :] + calls_of(1)
    complete = data(tmp_path)
    assert timeless(tmp_path) == timeless(undisturbed)[: 1 + 2 * len(SEEDS)]
    last = f"step_{CALLS * STEPS[1]:08}"
    assert states(tmp_path) == {SEEDS[0]: [last], SEEDS[2]: [last]}

    # A state that was broken otherwise is ignored: that pack starts the round afresh.
    assert start_and_kill(tmp_path, "within orbax", CALLS + 2, **always) == calls_of(2)[: CALLS + 2]
    break_metadata(next(tmp_path.glob(f"inside_round/*_{SEEDS[2]}/step_{STEPS[2]:08}")))
    experiment(tmp_path)
    assert trained == calls_of(2)[CALLS:]
    assert data(tmp_path).startswith(complete)
    assert_same(tmp_path, undisturbed)


class Stop(BaseException):
    """A cheaper end than a kill, where what is on disk is the same."""


def stop_after(count: int, trained: list[Call], monkeypatch: pytest.MonkeyPatch, run: Callable[[], Any]) -> None:
    """Let `run` end before the evaluation that follows so many calls of `Engine.advance`; forget the calls."""
    evaluate = Engine.evaluate

    def stop(*arguments: Any) -> Any:
        if len(trained) == count:
            raise Stop
        return evaluate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "evaluate", stop)
        with pytest.raises(Stop):
            run()
    trained.clear()


def test_a_diverged_seed_leaves_the_others_as_they_are_and_stays_out(
    tmp_path: Path, undisturbed: Path, trained: list[Call], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Seed 1 starts round 1 with weights that are NaN; the experiment is stopped once in round 2."""
    init, bad = engine.init, np.asarray(jax.random.key_data(keys_for(jnp.uint32(SEEDS[1]), jnp.int32(1)).weights))

    def poisoned(*arguments: Any) -> Any:
        state, keys = init(*arguments), arguments[-1]
        hit = jnp.all(jax.random.key_data(keys.weights) == bad)
        params = jax.tree.map(lambda leaf: jnp.where(hit, jnp.float32(np.nan), leaf), state.variables["params"])
        return state._replace(variables=state.variables | {"params": params})

    monkeypatch.setattr(engine, "init", poisoned)
    stop_after(2 * PACKS * CALLS + 1, trained, monkeypatch, lambda: experiment(tmp_path))
    assert "seed 1 diverged in round 1 at step 1" in capsys.readouterr().err
    complete = data(tmp_path)
    assert complete.count(b"\n") == 1 + 2 * len(SEEDS)
    result = experiment(tmp_path)
    assert trained == calls_of(2)
    assert data(tmp_path).startswith(complete)
    assert journal.diverged(result.groups) == {SEEDS[1]: (1, 1)}
    died = [line for line in timeless(tmp_path)[1:] if line["seed"] == SEEDS[1]]
    assert [line.get("diverged") for line in died] == [None, {"step": 1}]
    neighbours, as_ever = (
        [line for line in timeless(workdir)[1:] if line["seed"] != SEEDS[1]] for workdir in (tmp_path, undisturbed)
    )
    assert neighbours == as_ever


def test_weights_that_nobody_kept_are_missed(undisturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment(undisturbed, save_weights=True)
    assert "no networks are kept of rounds that were finished before (0, 1, 2)" in capsys.readouterr().err
    with pytest.raises(InputError, match="does not exist: a round that was trained without --save_weights"):
        checkpoint.load(checkpoint.weights_path(undisturbed, SEEDS[0], 1))


def test_weights_of_every_round_load_and_give_the_accuracies(tmp_path: Path, undisturbed: Path) -> None:
    experiment(tmp_path, save_weights=True)
    assert_same(tmp_path, undisturbed)
    images = killer.images()
    mean, std = measure(images.train_x)
    network = models.build("lenet", images.test_x.shape[1:], images.num_classes)

    @jax.jit
    def predict(variables: Any) -> jax.Array:
        return network.apply(variables, normalise(jnp.asarray(images.test_x), mean, std))[0].argmax(-1)

    lines = [line for group in journal.read(tmp_path)[1] for line in group]
    assert len(lines) == len(list((tmp_path / "weights").iterdir())) == len(LABELS) * len(SEEDS)
    for line in lines:
        variables = checkpoint.load(checkpoint.weights_path(tmp_path, line["seed"], line["round"]))
        right = np.asarray(predict(variables)) == images.test_y
        assert right.mean() == pytest.approx(line["accuracy"], abs=1e-9)
        per_class = [right[images.test_y == label].mean() for label in range(images.num_classes)]
        np.testing.assert_allclose(per_class, line["per_class_accuracy"], rtol=1e-9)
