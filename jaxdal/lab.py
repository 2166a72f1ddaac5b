"""The compiled programs and the images of one experiment: made once, used in every round."""

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdal import augment, contracts, models, streaming, trainers
from jaxdal.engine import Engine
from jaxdal.errors import InputError
from jaxdal.keys import Keys, keys_for
from jaxdal.parallel import Lanes, packs
from jaxdal.settings import Settings
from jaxdal.signals import Gather
from jaxdal.streaming import Blocks, HostPool
from jaxdal.types import Array, Pool, Signal, Strategy, TestSet, Tree


class Sizes(NamedTuple):
    """What changes speed and no result."""

    steps: int  # of one call, between two reports of progress
    rows: int  # images scored at once


ON_CPU = Sizes(steps=32, rows=256)  # 1,024 rows are scored at half the speed of 256: benchmarks/README.md
ON_ACCELERATOR = Sizes(steps=256, rows=2048)


def blocks_for(
    settings: Settings, strategy: Strategy, image: Sequence[int], devices: Sequence[jax.Device],
    pool_bytes: int | None, runs: int | None = None,
) -> Blocks | None:  # fmt: skip
    """Decide whether the pool stays on the host, and how much of it comes at once; None if it fits on each device.

    image: [H, W, C]. pool_bytes: most bytes of a device that its images may take; None: half of its memory. runs: to be
    trained together after the first round, which has one per seed, if not those again.

    Raises:
        InputError: the strategy needs the whole pool, or there is no room for the images of two steps.
    """
    most = streaming.room(devices) if pool_bytes is None else pool_bytes
    bytes_each = math.prod(image)
    if most is None or settings.pool * bytes_each <= most:
        return None
    told = f"the {settings.pool * bytes_each:,} bytes of the training images do not fit into --pool_bytes={most}"
    if any(signal.prepare is not None for signal in strategy.needs):
        raise InputError(f"{told}, and strategy {settings.strategy!r} looks at all of them at once")
    batch = settings.recipe.batch
    unlabelled = strategy.wrap(trainers.build(settings.trainer, settings.preset)).unlabelled * batch
    every = [lanes_of(packs_of(settings, devices, count), devices) for count in (None, runs)]
    shares = ((lanes.on_device, sum(-(-size // lanes.shares) for size in (batch, unlabelled))) for lanes in every)
    runs, images = max(shares, key=math.prod)
    step = runs * images * bytes_each
    steps = most // (streaming.AT_ONCE * step)
    if steps < 1:
        fewer = f", of {runs} runs at once (a smaller --pack takes fewer)" if runs > 1 else ""
        raise InputError(f"{told}, nor do those of two training steps, {streaming.AT_ONCE * step:,} bytes{fewer}")
    rows = most // (streaming.AT_ONCE * bytes_each) * min(lanes.shares for lanes in every)
    return Blocks(min(steps, streaming.STEPS), rows)


def packs_of(settings: Settings, devices: Sequence[jax.Device], runs: int | None = None) -> list[range]:
    """Cut the runs of an experiment, one per seed unless stated, into packs."""
    return packs(len(settings.seeds) if runs is None else runs, len(devices), settings.pack, settings.pack_multiple)


def lanes_of(cut: list[range], devices: Sequence[jax.Device]) -> Lanes:
    """Lay out packs of one size."""
    return Lanes(len(cut[0]), devices)


class Lab:
    """What all rounds share. All shapes are static: what round 0 has compiled serves every later round."""

    def __init__(
        self, settings: Settings, pool_x: np.ndarray, test: tuple[np.ndarray, np.ndarray], strategy: Strategy,
        devices: Sequence[jax.Device], blocks: Blocks | None = None, *, runs: int | None = None,
        like: "Lab | None" = None,
    ) -> None:  # fmt: skip
        """Put the images on the devices; programs are compiled at their first use.

        blocks: what `blocks_for` has decided: unless None, the pool stays on the host. runs: how many there are, if not
        one per seed. like: a lab of the same data, whose images are used by the devices that have them.
        """
        budget, platform = settings.budget, devices[0].platform
        self.settings = settings
        sizes = ON_CPU if platform == "cpu" else ON_ACCELERATOR
        self.packs = packs_of(settings, devices, runs)
        self.lanes = lanes_of(self.packs, devices)
        self.pool: Pool | HostPool
        if blocks is None:
            rows = sizes.rows
            self.pool = Pool(self.lanes.shared(pool_x, None if like is None else like.pool.x))
        else:
            self.pool, rows = HostPool(pool_x, self.lanes, blocks), min(blocks.rows, sizes.rows)
        self.test: TestSet = TestSet(*self.lanes.shared(test, None if like is None else tuple(like.test)))
        self.test_counts = np.bincount(test[1], minlength=settings.num_classes)
        model = models.build(settings.model, pool_x.shape[1:], settings.num_classes, models.DTYPES[settings.precision])
        self._network = augment.network(model, settings.mean, settings.std, crop=settings.crop, flip=settings.flip)
        trainer = strategy.wrap(trainers.build(settings.trainer, settings.preset))
        self.engine = Engine(
            self.lanes, self._network, trainer, settings.recipe, num_classes=settings.num_classes,
            labels=(budget.labels[0], budget.labels[-1]), pool=pool_x.shape,
            rows=self.lanes.chunk(test[1].shape[0], sizes.rows), device_loop=platform != "cpu" or model.cpu_loop,
            chunk=sizes.steps, streams=blocks is not None,
        )  # fmt: skip
        self._rows = rows
        self._gathers: dict[tuple[Signal, ...], Gather] = {}

        def initial(keys: Keys) -> Array:
            return jax.random.permutation(keys.initial_set, settings.pool)[: budget.n_start].astype(jnp.int32)

        self.keys = self.lanes.lift(keys_for, "rs")  # (seeds: u32[R], round: i32[]) -> Keys
        self.initial = self.lanes.lift(initial, "r")  # Keys -> the start sets, i32[R, n_start]
        self._choose_by(strategy)

    def beside(self, strategy: Strategy) -> "Lab":
        """Return a lab for another strategy that is trained in the same way: it shares all but scoring and choosing."""
        other = copy.copy(self)
        other._choose_by(strategy)
        return other

    def _choose_by(self, strategy: Strategy) -> None:
        lanes, settings = self.lanes, self.settings  # a lab that its own program refers to would keep its images

        def select(keys: Keys, known: Array, memory: Tree, *found: Array) -> Any:
            # Inside a program, shares may be unequal: those that `Gather` adds to make them equal are left out.
            rows = (lanes.split(leaf[: settings.pool]) for leaf in found)
            return contracts.answer(settings, strategy, keys.select, known, memory, [*rows])

        self.gather = self.gathering(tuple(strategy.needs))
        self.select = lanes.lift(select, "rrr" + "r" * len(strategy.needs))

    def gathering(self, needs: tuple[Signal, ...]) -> Gather:
        """Return the pass over the pool for some signals, the same one whoever asks."""
        if needs not in self._gathers:
            self._gathers[needs] = Gather(self.lanes, self._network, needs, self.pool, self._rows)
        return self._gathers[needs]


def labs_for(
    settings: Settings, pool_x: np.ndarray, test: tuple[np.ndarray, np.ndarray], strategies: Sequence[Strategy],
    devices: Sequence[jax.Device], blocks: Blocks | None, like: Lab | None,
) -> tuple[list[Lab], Lab]:  # fmt: skip
    """Make the labs of strategies that are trained alike: one for each, and one that trains all runs of all of them."""
    given = settings, pool_x, test, strategies[0], devices, blocks
    lab = Lab(*given, like=like)
    wide = lab if len(strategies) == 1 else Lab(*given, runs=len(strategies) * len(settings.seeds), like=lab)
    return [lab, *map(lab.beside, strategies[1:])], wide
