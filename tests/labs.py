"""Small labs for tests: the compiled programs of an experiment without its loop over rounds."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdal import augment, models, settings, strategies
from jaxdal.data import split
from jaxdal.lab import Lab
from jaxdal.types import Dataset, Network, Strategy, TrainState

SMALL = {"n_start": "40", "n_query": "10", "n_end": "80", "epochs": 3, "batch": 16}


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
    images: Dataset, seeds: Sequence[int], devices: int = 1, strategy: str | Strategy = "margin", **options: Any
) -> Bench:
    """Make a lab with as many of the simulated devices; every run knows the first 40 labels."""
    rules = settings.resolve("arrays", images, strategy, seeds=seeds, **{**SMALL, "pack": len(seeds), **options})
    chosen = strategies.build(strategy) if isinstance(strategy, str) else strategy
    pool_x, oracle, test = split(images)
    lab = Lab(rules, pool_x, test, chosen, jax.devices()[:devices])
    keys = lab.keys(lab.lanes.per_run(np.asarray(seeds, np.uint32)), np.int32(0))
    known = oracle.reveal(np.full(len(oracle), -1, np.int32), np.arange(40))
    model = models.build(rules.model, pool_x.shape[1:], rules.num_classes)
    network = augment.network(model, rules.mean, rules.std, crop=rules.crop, flip=rules.flip)
    return Bench(lab, network, keys, lab.lanes.per_run(np.stack([known] * len(seeds))))


def on_host(tree: Any) -> Any:
    """Fetch every leaf."""
    return jax.tree.map(np.asarray, tree)
