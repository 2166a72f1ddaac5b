"""Small labs for tests: the compiled programs of an experiment without its loop over rounds."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np

from jaxdal import augment, environment, journal, models, run, settings, strategies
from jaxdal.data import split
from jaxdal.lab import Lab, blocks_for
from jaxdal.types import Dataset, Network, Strategy, TrainState

# The same for as many tests as possible: they share compiled programs.
SMALL = {
    "n_start": "40", "n_query": "10", "n_end": "80", "epochs": 3, "batch": 16, "learning_rate": 0.1, "model": "tiny",
}  # fmt: skip


class Bench(NamedTuple):
    """A lab, the keys of its first round, what its runs know there, and the network by itself."""

    lab: Lab
    network: Network
    keys: Any
    known: jax.Array

    def train(self, steps: int, change: Callable[[TrainState], TrainState] = lambda state: state) -> TrainState:
        """Train all lanes; `change` may spoil the fresh state."""
        state = change(self.lab.engine.init(self.keys))
        done = 0
        while done < steps:
            until = min(steps, done + self.lab.engine.chunk)
            state = self.lab.engine.advance(state, self.keys, self.known, self.lab.pool, 2, done, until)
            done = until
        return state


def bench(
    images: Dataset, seeds: Sequence[int], devices: int = 1, strategy: str | Strategy = "margin",
    pool_bytes: int | None = None, **options: Any,
) -> Bench:  # fmt: skip
    """Make a lab with as many of the simulated devices; every run knows the first 40 labels."""
    rules = settings.resolve("arrays", images, strategy, seeds=seeds, **{**SMALL, "pack": len(seeds), **options})
    chosen = strategies.build(strategy) if isinstance(strategy, str) else strategy
    pool_x, oracle, test = split(images)
    blocks = blocks_for(rules, chosen, pool_x.shape[1:], jax.devices()[:devices], pool_bytes)
    lab = Lab(rules, pool_x, test, chosen, jax.devices()[:devices], blocks)
    keys = lab.keys(lab.lanes.per_run(np.asarray(seeds, np.uint32)), np.int32(0))
    known = oracle.reveal(np.full(len(oracle), -1, np.int32), np.arange(40))
    model = models.build(rules.model, pool_x.shape[1:], rules.num_classes)
    network = augment.network(model, rules.mean, rules.std, crop=rules.crop, flip=rules.flip)
    return Bench(lab, network, keys, lab.lanes.per_run(np.stack([known] * len(seeds))))


def on_host(tree: Any) -> Any:
    """Fetch every leaf."""
    return jax.tree.map(np.asarray, tree)


def stopped_and_continued(
    images: Dataset, strategy: str, folder: Path
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, np.ndarray]]]:
    """Four rounds of two seeds, undisturbed, and as if killed when two were on disk, then started again.

    -> (journal lines without seconds of the one and of the other, the memory after each round, which must be the same).
    """
    options = {**SMALL, "n_end": "70", "seeds": (0, 1), "quiet": True}
    workdirs = folder / "undisturbed", folder / "stopped"
    with mock.patch.object(environment, "_commit", return_value="somebody may commit while tests run"):
        run(images, strategy, workdir=workdirs[0], devices=jax.devices()[:1], **options)
        workdirs[1].mkdir()
        complete = (workdirs[0] / journal.NAME).read_bytes().splitlines(keepends=True)[: 1 + 2 * 2]
        (workdirs[1] / journal.NAME).write_bytes(b"".join(complete))
        (workdirs[1] / "memory_1.npz").write_bytes((workdirs[0] / "memory_1.npz").read_bytes())
        run(images, strategy, workdir=workdirs[1], devices=jax.devices()[:1], **options)
    before, after = (
        [{**json.loads(line), "seconds": None} for line in (workdir / journal.NAME).read_bytes().splitlines()[1:]]
        for workdir in workdirs
    )
    kept = []
    for round_ in range(4):
        path = workdirs[0] / f"memory_{round_}.npz"
        assert round_ == 0 or path.read_bytes() == (workdirs[1] / path.name).read_bytes()
        with np.load(path) as memory:
            kept.append({name: memory[name] for name in memory.files})
    return before, after, kept
