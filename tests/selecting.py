"""A select on one device, for several runs spread over devices, and for one run split over them."""

import functools

import jax
import numpy as np
from labs import bench, on_host

from jaxdal.keys import keys_for
from jaxdal.parallel import Lanes
from jaxdal.signals import Gather
from jaxdal.types import Strategy


def some_pool(seed: int, size: int, width: int, classes: int = 4) -> dict[str, np.ndarray]:
    """Random answers of a network, and a fifth of the pool labelled."""
    rng = np.random.default_rng(seed)
    known = np.where(rng.random(size) < 0.2, rng.integers(0, classes, size), -1).astype(np.int32)
    logits = (2 * rng.standard_normal((size, classes))).astype(np.float32)
    features = np.maximum(rng.standard_normal((size, width)) + 0.5, 0).astype(np.float32)
    return {"known": known, "logits": logits, "features": features}


def arguments(strategy: Strategy, pool: dict[str, np.ndarray], seed: int) -> tuple:
    """What a select receives besides k and memory."""
    return keys_for(seed, 0).select, pool["known"], *(pool[signal.name] for signal in strategy.needs)


@functools.cache
def _compiled(strategy: Strategy, k: int):
    return jax.jit(lambda key, known, *found: strategy.select(key, known, k, strategy.memory(len(known)), *found)[0])


def alone(strategy: Strategy, pool: dict[str, np.ndarray], k: int, seed: int = 0) -> list[int]:
    """Picks of one run on one device; valid, or an error."""
    picks = np.asarray(_compiled(strategy, k)(*arguments(strategy, pool, seed)))
    assert picks.dtype == np.int32
    assert picks.shape == (k,)
    assert len(np.unique(picks)) == k
    assert ((picks >= 0) & (picks < len(pool["known"]))).all()
    assert (pool["known"][picks] < 0).all()
    return picks.tolist()


def spread(strategy: Strategy, pools: list[dict[str, np.ndarray]], k: int, devices: int) -> list[list[int]]:
    """Picks of runs 0, 1, 2..., several per device, as `lab.Lab` lifts a select."""
    lanes = Lanes(len(pools), jax.devices()[:devices])
    seeds = lanes.per_run(np.arange(len(pools), dtype=np.uint32))
    keys = lanes.lift(lambda seed: keys_for(seed, 0), "r")(seeds)
    known, *found = (
        lanes.per_run(np.stack([pool[name] for pool in pools]))
        for name in ("known", *(signal.name for signal in strategy.needs))
    )

    def select(keys, known, *found):
        return strategy.select(keys.select, known, k, strategy.memory(len(known)), *found)[0]

    lifted = lanes.lift(select, "rr" + "r" * len(found))
    return np.asarray(lifted(keys, known, *found))[: len(pools)].tolist()


def split(strategy: Strategy, pool: dict[str, np.ndarray], k: int, devices: int) -> tuple[list[int], str]:
    """Picks of one run whose signals are split over devices, and the program of one of them."""
    lanes = Lanes(1, jax.devices()[:devices])
    keys = lanes.lift(lambda seed: keys_for(seed, 0), "r")(lanes.per_run(np.zeros(1, np.uint32)))

    def select(keys, known, *found):
        rows = [lanes.split(leaf) for leaf in found]
        return strategy.select(keys.select, known, k, strategy.memory(len(known)), *rows)[0]

    values = [lanes.per_run(pool[name][None]) for name in ("known", *(signal.name for signal in strategy.needs))]
    program = lanes.lift(select, "r" * (1 + len(values))).lower(keys, *values).compile()
    return np.asarray(program(keys, *values))[0].tolist(), program.as_text()


def after_scoring_in_batches(strategy: Strategy, images, batches: list[int]) -> list[list[int]]:
    """Picks from the signals of a fresh network, computed in batches of different size."""
    one = bench(images, [3], strategy=strategy)
    variables = one.lab.engine.init(one.keys).variables
    picks = []
    for batch in batches:
        gather = Gather(one.lab.lanes, one.network, strategy.needs, one.lab.pool, batch)
        found = gather(one.keys, variables, one.known, one.lab.pool)
        picks.append(on_host(one.lab.select(one.keys, one.known, (), *found)[0])[0].tolist())
    return picks
