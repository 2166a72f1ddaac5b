"""The only place that knows about runs-at-once and devices: the SPMD layer.

Everything else is written for one run on one device. `Lanes.lift` turns such a function into one program for all runs
of a pack: `jax.vmap` over the runs of a device (convolutions pack by their own batching rule, models/convolution.py),
or one after another where that is faster, and `jax.shard_map` over the devices outside of it. A run that is alone
splits its batches and its pool over all devices instead: the compiler partitions what follows from the constraint that
`Lanes.split` puts on the rows.

Devices of several processes (hosts.py) are like those of one: all compute the same program, and each process holds the
shares of its own devices. `fetch` brings every share to every process.
"""

import functools
import os
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxdal.types import Array, Tree

AXIS = "devices"


def packs(runs: int, devices: int, most: int, multiple: int = 1) -> list[range]:
    """Cut `runs` into packs of one size, at most `most` runs per device; the last pack may have fewer.

    multiple: of how many runs per device the packs are that a model trains fastest. A step takes a device about as long
    as its runs, and 1.5 more, with 1.4 times as much for each run of an odd size: measured for the thin ResNet-18 on an
    H100, whose packs of 1, 2, 4, 5 and 8 trained 115, 184, 245, 195 and 239 thousand images a second; LeNet's sizes are
    all alike. Its packs are of 5 at most: 8 are slower than 4 and take more memory, but five seeds at once, slower per
    run, are faster than four and one. Of equal choices, the one with fewer packs is taken.
    """

    def count(size: int) -> int:
        return -(-runs // (devices * size))

    def cost(size: int) -> float:
        return count(size) * (size * (1.4 if size % multiple else 1.0) + 1.5)

    enough = -(-runs // devices)  # for all runs at once; none is laid out larger, not to fill a multiple either
    best = min(range(min(most, enough), 0, -1), key=lambda size: (cost(size), count(size)))
    even = multiple == 1 or best % multiple
    size = -(-runs // count(best)) if even else devices * best
    return [range(first, min(first + size, runs)) for first in range(0, runs, size)]


def fetch(leaves: Tree) -> Tree:
    """Bring device arrays to the host, as NumPy arrays; to every host, where they lie on several."""
    flat, structure = jax.tree.flatten(leaves)
    afar = [place for place, leaf in enumerate(flat) if isinstance(leaf, jax.Array) and not _is_here(leaf)]
    if afar:
        shares = [flat[place] for place in afar]
        for place, whole in zip(afar, _gather(shares[0].sharding.mesh)(shares), strict=True):
            flat[place] = whole
    return jax.tree.unflatten(structure, [np.asarray(leaf) for leaf in flat])


def _is_here(leaf: jax.Array) -> bool:
    return leaf.is_fully_addressable or leaf.is_fully_replicated


@functools.cache
def _gather(mesh: Mesh) -> Callable[[list[Array]], list[Array]]:
    """Return the program that copies arrays to all devices."""
    return jax.jit(lambda shares: shares, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _at_once(f: Callable[..., Tree], roles: str) -> Callable[..., Tree]:
    return jax.vmap(f, in_axes=tuple(0 if role == "r" else None for role in roles))


def _one_by_one(f: Callable[..., Tree], roles: str) -> Callable[..., Tree]:
    """As `_at_once`, for a CPU whose cores one run keeps busy: its caches hold the maps of one run, not of all."""

    def every(*arguments: Tree) -> Tree:
        own = [argument for argument, role in zip(arguments, roles, strict=True) if role == "r"]

        def one(each: list[Tree]) -> Tree:
            left = iter(each)
            return f(*(next(left) if role == "r" else shared for shared, role in zip(arguments, roles, strict=True)))

        return jax.lax.map(one, own)

    return every


class Lanes:
    """How the runs of a pack lie on the devices: several are spread, each whole on one device; one is split over all.

    `width` counts the lanes, one per run and as many idle ones as it takes to fill the last device or the last pack, or
    all devices where they belong to several processes, none of which may be left out.
    """

    def __init__(self, runs: int, devices: Sequence[jax.Device]) -> None:
        """Lay out packs of (at most) `runs` runs."""
        self.alone = runs == 1
        per_device = -(-runs // len(devices))
        everywhere = self.alone or len({device.process_index for device in devices}) > 1
        used = len(devices) if everywhere else -(-runs // per_device)
        self.width = 1 if self.alone else used * per_device
        self.mesh = Mesh(np.asarray(devices[:used]), (AXIS,), axis_types=(AxisType.Auto,))
        self._splits = self.alone and used > 1
        # Of the machine: how a run rounds does not depend on how many cores a command may use. Measured on two.
        self._few_cores = devices[0].platform == "cpu" and (os.cpu_count() or 1) <= 2
        self._per_run = PartitionSpec() if self.alone else PartitionSpec(AXIS)

    def lift(
        self, f: Callable[..., Tree], roles: str, *, donate: tuple[int, ...] = (), rows: bool = False,
        in_turn: bool = False,
    ) -> Callable[..., Tree]:  # fmt: skip
        """Return the compiled program that computes `f` for every lane.

        roles: a letter per argument, "r" if each run has its own (leaves [width, ...]), "s" if all share it.
        Results are [width, ...]. donate: numbers of the arguments whose memory may be reused. rows: `f` splits its
        results itself; otherwise a run that has several devices gets them whole on each. in_turn: the runs of a device
        may take turns, where it computes one faster than its share of many: as in `_one_by_one`.
        """
        lift = _one_by_one if in_turn and self.on_device > 1 and self._few_cores else _at_once
        lifted = lift(f, roles)
        if not self.alone and self.mesh.size > 1:
            in_specs = tuple(self._per_run if role == "r" else PartitionSpec() for role in roles)
            # The packing rule cannot say which mesh axes its results vary over, hence no check_vma.
            lifted = jax.shard_map(lifted, mesh=self.mesh, in_specs=in_specs, out_specs=self._per_run, check_vma=False)
        # Stated, since a result that is placed differently from call to call is compiled for again.
        placed = None if rows and self._splits else NamedSharding(self.mesh, self._per_run)
        return jax.jit(lifted, donate_argnums=donate, out_shardings=placed)

    def split(self, rows: Array, axis: int = 0) -> Array:
        """Split an axis over the devices if a run has several to itself. For use inside a lifted function."""
        if not self._splits:
            return rows
        spec = PartitionSpec(*[None] * axis, AXIS)
        return jax.lax.with_sharding_constraint(rows, NamedSharding(self.mesh, spec))

    def over_rows(self, f: Callable[..., Tree]) -> Callable[..., Tree]:
        """Return `f`, with its rows split over the devices if a run has several to itself.

        f(rows: leaves [n, ...], *whole) -> leaves [n, ...] must compute each row by itself; n is a size that `chunk`
        gave. Unlike `split`, which leaves it to the compiler how far a split goes, this holds for whatever `f` does.
        """
        if not self._splits:
            return f

        def split(rows: Tree, *whole: Tree) -> Tree:
            over_devices = PartitionSpec(AXIS)
            in_specs = (over_devices, *[PartitionSpec()] * len(whole))
            shares = jax.shard_map(f, mesh=self.mesh, in_specs=in_specs, out_specs=over_devices, check_vma=False)
            return shares(rows, *whole)

        return split

    @property
    def on_device(self) -> int:
        """For how many runs a device computes at once, idle lanes counted."""
        return max(self.width // self.mesh.size, 1)

    @property
    def shares(self) -> int:
        """Into how many shares the rows of a run are split."""
        return self.mesh.size if self._splits else 1

    def chunk(self, rows: int, most: int) -> int:
        """Return the size of equal chunks of (about) at most `most` rows that every device can have its share of."""
        size = -(-rows // -(-rows // most))
        return -(-size // self.shares) * self.shares

    def per_run(self, leaves: Tree) -> Tree:
        """Put host arrays [runs, ...] on the devices: -> [width, ...]; idle lanes repeat the last run."""

        def put(leaf: np.ndarray) -> Array:
            idle = self.width - leaf.shape[0]
            lanes = np.concatenate([leaf, np.repeat(leaf[-1:], idle, axis=0)]) if idle else leaf
            return self._put(lanes, self._per_run)

        return jax.tree.map(put, leaves)

    def fetch(self, leaves: Tree) -> Tree:
        """Bring device arrays to the host, as NumPy arrays."""
        return fetch(leaves)

    def shared(self, leaves: Tree, like: Tree = None) -> Tree:
        """Put host arrays that all runs share on every device. like: the same on devices, which do not get another."""
        if like is not None:
            return jax.tree.map(self._spread, leaves, like)
        return jax.tree.map(lambda leaf: self._put(leaf, PartitionSpec()), leaves)

    def _spread(self, leaf: np.ndarray, like: Array) -> Array:
        sharding = NamedSharding(self.mesh, PartitionSpec())
        if like.sharding == sharding:
            return like
        there = {share.device: share.data for share in like.addressable_shards}
        own = [device for device in self.mesh.devices if device in sharding.addressable_devices]
        copies = [there[device] if device in there else jax.device_put(leaf, device) for device in own]
        return jax.make_array_from_single_device_arrays(leaf.shape, sharding, copies)

    def rows(self, array: np.ndarray, axis: int, *, per_run: bool) -> Array:
        """Put rows, those on `axis`, where they are used: a share on each device of a run that has several.

        per_run: each run has its own, [width, ...]; otherwise all share them. The axis has a length that `chunk` gave,
        or 0.
        """
        spec: list[str | None] = [None] * array.ndim
        if self._splits and array.shape[axis]:
            spec[axis] = AXIS
        elif per_run and not self.alone:
            spec[0] = AXIS
        return self._put(array, PartitionSpec(*spec))

    def _put(self, array: np.ndarray, spec: PartitionSpec) -> Array:
        sharding = NamedSharding(self.mesh, spec)
        if sharding.is_fully_addressable:
            return jax.device_put(array, sharding)
        # `device_put` would compare the array with that of every other process.
        return jax.make_array_from_callback(np.shape(array), sharding, lambda share: np.asarray(array)[share])
