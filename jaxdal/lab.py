"""The compiled programs and the resident data of one experiment: made once, used in every round."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdal import augment, models, trainers
from jaxdal.engine import Engine
from jaxdal.keys import Keys, keys_for
from jaxdal.parallel import Lanes, packs
from jaxdal.settings import Settings
from jaxdal.signals import Gather
from jaxdal.types import Array, Pool, Strategy, TestSet, Tree

DTYPES = {"f32": jnp.float32, "bf16": jnp.bfloat16}


class Sizes(NamedTuple):
    """What changes speed and no result."""

    steps: int  # of one call, between two reports of progress
    rows: int  # images scored at once


ON_CPU = Sizes(steps=32, rows=256)  # 1,024 rows are scored at half the speed of 256: benchmarks/README.md
ON_ACCELERATOR = Sizes(steps=256, rows=2048)


class Lab:
    """What all rounds share. All shapes are static: what round 0 has compiled serves every later round."""

    def __init__(
        self, settings: Settings, pool_x: np.ndarray, test: tuple[np.ndarray, np.ndarray], strategy: Strategy,
        devices: Sequence[jax.Device],
    ) -> None:  # fmt: skip
        """Put the images on the devices; programs are compiled at their first use."""
        budget, platform = settings.budget, devices[0].platform
        self.settings = settings
        sizes = ON_CPU if platform == "cpu" else ON_ACCELERATOR
        self.packs = packs(len(settings.seeds), len(devices), settings.pack)
        self.lanes = Lanes(len(self.packs[0]), devices)
        self.pool = Pool(self.lanes.shared(pool_x))
        self.test = TestSet(*self.lanes.shared(test))
        self.test_counts = np.bincount(test[1], minlength=settings.num_classes)
        model = models.build(settings.model, pool_x.shape[1:], settings.num_classes, DTYPES[settings.precision])
        network = augment.network(model, settings.mean, settings.std, crop=settings.crop, flip=settings.flip)
        trainer = strategy.wrap(trainers.build(settings.trainer, settings.preset))
        self.engine = Engine(
            self.lanes, network, trainer, settings.recipe, num_classes=settings.num_classes,
            labels=(budget.labels[0], budget.labels[-1]), pool=pool_x.shape,
            rows=self.lanes.chunk(test[1].shape[0], sizes.rows), device_loop=platform != "cpu" or model.cpu_loop,
            chunk=sizes.steps,
        )  # fmt: skip
        self.gather = Gather(self.lanes, network, strategy.needs, self.pool, sizes.rows)

        def initial(keys: Keys) -> Array:
            return jax.random.permutation(keys.initial_set, settings.pool)[: budget.n_start].astype(jnp.int32)

        def select(keys: Keys, known: Array, memory: Tree, *found: Array) -> tuple[Array, Tree]:
            return strategy.select(keys.select, known, budget.n_query, memory, *found)

        self.keys = self.lanes.lift(keys_for, "rs")  # (seeds: u32[R], round: i32[]) -> Keys
        self.initial = self.lanes.lift(initial, "r")  # Keys -> the start sets, i32[R, n_start]
        self.select = self.lanes.lift(select, "rrr" + "r" * len(strategy.needs))
