"""Two processes with two devices each play what one process with four plays, and survive the death of one."""

import json
import signal
from pathlib import Path
from typing import Any

import jax
import killer
import numpy as np
import pair
import pytest
from conftest import CACHE

from jaxdal import cluster, journal
from jaxdal.journal import Journal

pytestmark = pytest.mark.skipif(
    jax.config.jax_cpu_collectives_implementation != "gloo", reason="CPUs of several processes need gloo"
)


def timeless(workdir: Path) -> list[dict[str, Any]]:
    """The rounds of a journal without their seconds."""
    lines = [json.loads(line) for line in (workdir / journal.NAME).read_text().splitlines()]
    return [{**line, "seconds": None} for line in lines if "seed" in line]


def assert_same(workdir: Path, expected: Path) -> None:
    """Equal picks and accuracies; memory that differs by rounding only."""
    assert timeless(workdir) == timeless(expected)
    for name in ("memory_0.npz", "memory_1.npz"):
        with np.load(workdir / name) as own, np.load(expected / name) as other:
            assert own.files == other.files
            for key in own.files:
                np.testing.assert_allclose(own[key], other[key], rtol=1e-4, atol=1e-5)


def save(path: Path) -> None:
    images = killer.images()
    np.savez(
        path, train_images=images.train_x, train_labels=images.train_y,
        test_images=images.test_x, test_labels=images.test_y,
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scenes as this process plays them, on four of its devices."""
    above, flag = tmp_path_factory.mktemp("alone"), "jax_disable_most_optimizations"
    before = jax.config.read(flag)
    jax.config.update(flag, True)  # as in the processes of `pair.start`
    try:
        for name in pair.SCENES:
            pair.scene(name, above)
    finally:
        jax.config.update(flag, before)
    for name in pair.SCENES:
        assert len({line["accuracy"] for line in timeless(above / name)}) > 1, "equality means something"
    return above


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Where two processes have used the library, and what each of them says."""
    above = tmp_path_factory.mktemp("together")
    save(above / "images.npz")
    with Journal.start(above / "locked", {"pool": 3, "seeds": [0]}, {}):
        ended = pair.start(CACHE, "play", above)
    for code, _, errors in ended:
        assert code == 0, errors
    return above, [told for _, told, _ in ended]


def test_runs_are_spread_over_processes(alone: Path, played: tuple[Path, list[str]]) -> None:
    """From a pool that stays on the hosts."""
    above, told = played
    assert_same(above / "spread", alone / "spread")
    lines = timeless(alone / "spread")
    assert len(lines) == 3 * 2
    result = f"played: {[line['accuracy'] for line in lines]}"
    assert all(result in each.splitlines() for each in told), "both processes know it"
    header = json.loads((above / "spread" / journal.NAME).read_text().splitlines()[0])
    assert (header["environment"]["processes"], len(header["environment"]["devices"])) == (2, 4)


def test_what_one_process_refuses_all_refuse(played: tuple[Path, list[str]]) -> None:
    above, told = played
    refused = [[line for line in each.splitlines() if line.startswith("refused:")] for each in told]
    assert refused[0] == refused[1]
    locked, other, missing, apart = refused[0]
    assert locked == f"refused: {above / 'locked' / journal.NAME} is in use by another process."
    assert other == "refused: process 1 differs from process 0 in: images"
    assert missing.startswith("refused: process 1: ")
    assert "none_1.npz" in missing
    assert apart == "refused: of the 2 processes, some have no device here: give all of jax.devices()"
    assert sorted(path.name for path in above.iterdir()) == ["images.npz", "locked", "spread"], "nothing was written"


def test_a_process_dies_and_the_same_command_goes_on(tmp_path: Path, alone: Path) -> None:
    """One run, split over all devices."""
    save(tmp_path / "images.npz")
    options = pair.OPTIONS | {"seeds": 3, "dataset": f"npz:{tmp_path / 'images.npz'}", "strategy": "grudge"}
    flags = [f"--{name}={value}" for name, value in options.items()]
    flags += [f"--workdir={tmp_path / 'out'}", "--distributed", "--heartbeat=10", "--checkpoint_seconds=0"]

    # Process 1 dies in round 1, at the second call of `advance`. The other one would wait for it for ever.
    (left, _, errors), (dead, _, _) = pair.start(CACHE, "run_command", "1:2", *flags)
    assert dead == -signal.SIGKILL
    assert left in (1, 128 + signal.SIGABRT)
    last = errors.splitlines()[-1]
    assert last.startswith("jaxdal: this process")
    assert "another one died" in last or "the others stop with it, or have stopped before" in last
    assert last.endswith(cluster.AGAIN)
    assert timeless(tmp_path / "out") == timeless(alone / "split")[:1]

    ended = pair.start(CACHE, "run_command", "nobody", *flags)
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert_same(tmp_path / "out", alone / "split")
    (_, told, errors), (_, told_by_other, errors_of_other) = ended
    assert "round 1/2" in errors
    assert "round 0/2" not in errors, "what is in the journal is not trained again"
    assert str(tmp_path / "out" / journal.NAME) in told
    assert "round" not in told_by_other + errors_of_other, "one process speaks"
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {journal.NAME, "accuracy.png", "memory_0.npz", "memory_1.npz", "memory_2.npz"}
