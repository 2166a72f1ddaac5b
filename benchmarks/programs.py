"""The programs of the product, lowered from shapes alone, for devices that need not be there."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from benchmarks.profile_step import lowered_step
from benchmarks.train_step import PROTOCOL
from jaxdal import settings, strategies
from jaxdal.data import split
from jaxdal.keys import Keys
from jaxdal.lab import Lab, lanes_of, packs_of
from jaxdal.parallel import AXIS, Lanes
from jaxdal.types import Dataset, Pool, Strategy, TestSet, Tree

Lowered = tuple[Any, int]  # what goes to the compiler, and in how many loops the part is that counts


class Program(NamedTuple):
    """Something to compile. What it costs to know it is paid when it is lowered."""

    what: str
    lower: Callable[[], Lowered]


class Sizes(NamedTuple):
    """Of a selection from signals alone."""

    rows: int
    width: int  # d
    classes: int
    picks: int


class Images(NamedTuple):
    """What a new lab takes from one of the same data: here the shapes of its images, instead of images."""

    lanes: Lanes
    pool: Pool
    test: TestSet


def shapes(tree: Tree, lanes: Lanes, spec: PartitionSpec) -> Tree:
    """Say how the leaves of a tree lie on devices: -> the same, without values."""
    sharding = NamedSharding(lanes.mesh, spec)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


class Bench:
    """A pack of runs before the first step and the first query, of which nothing but shapes is there."""

    def __init__(
        self, images: Dataset, devices: Sequence[jax.Device], *, strategy: str = "random", **flags: Any
    ) -> None:
        """flags: those of `settings.resolve`, with `model` among them; every run has a seed."""
        rules = settings.resolve(
            PROTOCOL[flags["model"]], images, strategy, platform=devices[0].platform, pack=len(flags["seeds"]), **flags
        )
        pool_x, _, test = split(images)
        chosen, self.lanes = strategies.build(strategy), lanes_of(packs_of(rules, devices), devices)
        self._own = self.lanes._per_run
        pool, tests = shapes(((pool_x,), test), self.lanes, PartitionSpec())
        blank = Images(self.lanes, Pool(*pool), TestSet(*tests))
        self.lab = Lab(rules, pool_x, test, chosen, devices, like=cast(Lab, blank))
        seeds = jax.ShapeDtypeStruct((self.lanes.width,), np.uint32)
        self.keys: Keys = self._per_run(jax.eval_shape(self.lab.keys, seeds, np.int32(0)))
        self.known = self._per_run(jax.ShapeDtypeStruct((self.lanes.width, rules.pool), np.int32))
        self.state = self._per_run(jax.eval_shape(self.lab.engine.init, self.keys))
        self._memory = partial(chosen.memory, rules.pool)

    def _per_run(self, tree: Tree) -> Tree:
        return shapes(tree, self.lanes, self._own)

    def _rows(self, tree: Tree, axis: int) -> Tree:
        """Rows that a run has split over its devices, if it has several."""
        splits = self.lanes.shares > 1
        return shapes(tree, self.lanes, PartitionSpec(*[None] * axis, AXIS) if splits else self._own)

    def step(self) -> Lowered:
        """Lower the loop over training steps."""
        order = self._per_run(jax.eval_shape(self.lab.engine._batches, self.keys, self.known, np.int32(0)))
        return lowered_step(self.lab, self.state, self.keys, self.known, order)

    def _aux(self) -> Tree:
        given = self.keys, self.state.variables, self.known, self.lab.pool
        return self._per_run(jax.eval_shape(self.lab.gather._prepare, *given))

    def _chunks(self) -> Tree:
        given = self.keys, self.state.variables, self._aux(), self.lab.pool
        return self._rows(jax.eval_shape(self.lab.gather._empty, *given), axis=2)

    def prepare(self) -> Lowered:
        """Lower what comes before scoring."""
        return self.lab.gather._prepare.lower(self.keys, self.state.variables, self.known, self.lab.pool), 0  # type: ignore[attr-defined]

    def score(self) -> Lowered:
        """Lower the pass over one chunk of the pool."""
        given = self._chunks(), self.keys, self.state.variables, self._aux(), self.lab.pool, np.int32(0)
        return self.lab.gather._fill.lower(*given), 0  # type: ignore[attr-defined]

    def join(self) -> Lowered:
        """Lower what makes signals of the whole pool of its chunks."""
        return self.lab.gather._join.lower(self._chunks()), 0  # type: ignore[attr-defined]

    def select(self) -> Lowered:
        """Lower the choice."""
        found: Tree = ()
        if self.lab.gather._needs:
            found = self._rows(jax.eval_shape(self.lab.gather._join, self._chunks()), axis=1)
        width = self.lanes.width
        memory = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((width, *np.shape(leaf)), leaf.dtype), self._memory())
        return self.lab.select.lower(self.keys, self.known, self._per_run(memory), *found), 0  # type: ignore[attr-defined]


def _made(lower: Callable[[Bench], Lowered], make: Callable[..., Bench], **how: str) -> Lowered:
    return lower(make(**how))


def training(make: Callable[..., Bench], trainers: Sequence[str], names: Sequence[str]) -> Iterator[Program]:
    """Yield the steps of trainers, and of strategies that change how others train. make: (strategy=, trainer=)."""
    for trainer in trainers:
        yield Program(trainer, partial(_made, Bench.step, make, trainer=trainer))
    for name in names:
        if strategies.build(name).wrap is not Strategy._field_defaults["wrap"]:
            yield Program(f"as {name} trains", partial(_made, Bench.step, make, strategy=name))


def scoring(make: Callable[..., Bench], names: Sequence[str]) -> Iterator[Program]:
    """Yield the passes over the pool, each once: many strategies want the same signals."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        alike.setdefault(tuple(signal.name for signal in strategies.build(name).needs), []).append(name)
    for needs, (name, *others) in alike.items():
        told = ", ".join([name, *others])
        if any(signal.prepare is not None for signal in strategies.build(name).needs):
            yield Program(f"before scoring for {told}", partial(_made, Bench.prepare, make, strategy=name))
        if needs:
            yield Program(f"a chunk for {told}", partial(_made, Bench.score, make, strategy=name))
            yield Program(f"joining chunks for {told}", partial(_made, Bench.join, make, strategy=name))


def selecting(make: Callable[..., Bench], names: Sequence[str]) -> Iterator[Program]:
    """Yield the choices of strategies."""
    for name in names:
        yield Program(name, partial(_made, Bench.select, make, strategy=name))


def from_signals(device: jax.Device, names: Sequence[str], sizes: Sizes) -> Iterator[Program]:
    """Yield choices of one run on one device, as the benchmarks of single selection rules make them."""
    widths = {"features": (sizes.width,), "logits": (sizes.classes,), "probs": (sizes.classes,)}

    def lower(name: str) -> Lowered:
        chosen, place = strategies.build(name), SingleDeviceSharding(device)
        if others := [signal.name for signal in chosen.needs if signal.name not in widths]:
            raise ValueError(f"it chooses by {', '.join(others)}, of no size that was given")
        known = jax.ShapeDtypeStruct((sizes.rows,), np.int32, sharding=place)
        found = [
            jax.ShapeDtypeStruct((sizes.rows, *widths[signal.name]), np.float32, sharding=place)
            for signal in chosen.needs
        ]
        memory = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=place), chosen.memory(sizes.rows)
        )
        key = jax.eval_shape(jax.random.key, 0)
        return jax.jit(chosen.select, static_argnums=2).lower(key, known, sizes.picks, memory, *found), 0

    for name in names:
        yield Program(name, partial(lower, name))
