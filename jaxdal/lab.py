"""The compiled programs and the images of one experiment: made once, used in every round."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdal import augment, models, streaming, trainers
from jaxdal.engine import Engine
from jaxdal.errors import InputError
from jaxdal.keys import Keys, keys_for
from jaxdal.parallel import Lanes, packs
from jaxdal.settings import Settings
from jaxdal.signals import Gather
from jaxdal.streaming import Blocks, HostPool
from jaxdal.types import Array, Pool, Strategy, TestSet, Tree

DTYPES = {"f32": jnp.float32, "bf16": jnp.bfloat16}


class Sizes(NamedTuple):
    """What changes speed and no result."""

    steps: int  # of one call, between two reports of progress
    rows: int  # images scored at once


ON_CPU = Sizes(steps=32, rows=256)  # 1,024 rows are scored at half the speed of 256: benchmarks/README.md
ON_ACCELERATOR = Sizes(steps=256, rows=2048)


def blocks_for(
    settings: Settings, strategy: Strategy, image: Sequence[int], devices: Sequence[jax.Device], pool_bytes: int | None
) -> Blocks | None:
    """Decide whether the pool stays on the host, and how much of it comes at once; None if it fits on each device.

    image: [H, W, C]. pool_bytes: most bytes of a device that its images may take; None: half of its memory.

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
    lanes = lanes_of(settings, devices)
    batch = settings.recipe.batch
    unlabelled = strategy.wrap(trainers.build(settings.trainer, settings.preset)).unlabelled * batch
    runs = max(lanes.width // lanes.mesh.size, 1)  # on each device
    step = runs * sum(-(-images // lanes.shares) for images in (batch, unlabelled)) * bytes_each
    steps = most // (streaming.AT_ONCE * step)
    if steps < 1:
        raise InputError(f"{told}, nor do those of two training steps, {streaming.AT_ONCE * step:,} bytes")
    rows = most // (streaming.AT_ONCE * bytes_each) * lanes.shares
    return Blocks(min(steps, streaming.STEPS), rows)


def lanes_of(settings: Settings, devices: Sequence[jax.Device]) -> Lanes:
    """Lay out the packs of an experiment."""
    return Lanes(len(packs(len(settings.seeds), len(devices), settings.pack)[0]), devices)


class Lab:
    """What all rounds share. All shapes are static: what round 0 has compiled serves every later round."""

    def __init__(
        self, settings: Settings, pool_x: np.ndarray, test: tuple[np.ndarray, np.ndarray], strategy: Strategy,
        devices: Sequence[jax.Device], blocks: Blocks | None = None,
    ) -> None:  # fmt: skip
        """Put the images on the devices; programs are compiled at their first use.

        blocks: what `blocks_for` has decided: unless None, the pool stays on the host.
        """
        budget, platform = settings.budget, devices[0].platform
        self.settings = settings
        sizes = ON_CPU if platform == "cpu" else ON_ACCELERATOR
        self.packs = packs(len(settings.seeds), len(devices), settings.pack)
        self.lanes = lanes_of(settings, devices)
        self.pool: Pool | HostPool
        if blocks is None:
            self.pool, rows = Pool(self.lanes.shared(pool_x)), sizes.rows
        else:
            self.pool, rows = HostPool(pool_x, self.lanes, blocks), min(blocks.rows, sizes.rows)
        self.test = TestSet(*self.lanes.shared(test))
        self.test_counts = np.bincount(test[1], minlength=settings.num_classes)
        model = models.build(settings.model, pool_x.shape[1:], settings.num_classes, DTYPES[settings.precision])
        network = augment.network(model, settings.mean, settings.std, crop=settings.crop, flip=settings.flip)
        trainer = strategy.wrap(trainers.build(settings.trainer, settings.preset))
        self.engine = Engine(
            self.lanes, network, trainer, settings.recipe, num_classes=settings.num_classes,
            labels=(budget.labels[0], budget.labels[-1]), pool=pool_x.shape,
            rows=self.lanes.chunk(test[1].shape[0], sizes.rows), device_loop=platform != "cpu" or model.cpu_loop,
            chunk=sizes.steps, streams=blocks is not None,
        )  # fmt: skip
        self.gather = Gather(self.lanes, network, strategy.needs, self.pool, rows)

        def initial(keys: Keys) -> Array:
            return jax.random.permutation(keys.initial_set, settings.pool)[: budget.n_start].astype(jnp.int32)

        def select(keys: Keys, known: Array, memory: Tree, *found: Array) -> tuple[Array, Tree]:
            return strategy.select(keys.select, known, budget.n_query, memory, *found)

        self.keys = self.lanes.lift(keys_for, "rs")  # (seeds: u32[R], round: i32[]) -> Keys
        self.initial = self.lanes.lift(initial, "r")  # Keys -> the start sets, i32[R, n_start]
        self.select = self.lanes.lift(select, "rrr" + "r" * len(strategy.needs))
