"""Pools that are larger than a device: images stay on the host and come in blocks, each while the one before is used.

Blocks have one shape, so that one compilation serves them all. A step or a signal computes what it computes with a
resident pool; only where it finds its images differs.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdal.cost import wait
from jaxdal.parallel import Lanes
from jaxdal.types import Array, Pool

SHARE = 0.5  # of a device's memory that a pool may fill; weights, activations and the test set need the rest
STEPS = 16  # of a block at most: nothing is computed while the first block of a call comes
AT_ONCE = 2  # blocks on a device: one in use, one coming


class Blocks(NamedTuple):
    """How many images of a pool that stays on the host come at once."""

    steps: int  # of training, with all their images
    rows: int  # images to be scored, at most


class Images(NamedTuple):
    """The images of some training steps, in the order of their use. Those beyond the batch fill up the devices."""

    labelled: Array  # u8[steps, B or more, H, W, C]
    unlabelled: Array  # u8[steps, U or more, H, W, C]


@dataclass(frozen=True)
class HostPool:
    """A pool that stays on the host: unlike `Pool`, nothing that a compiled program can receive."""

    x: np.ndarray  # u8[N, H, W, C]
    lanes: Lanes
    blocks: Blocks


def room(devices: Sequence[jax.Device]) -> int | None:
    """Return how many bytes of a pool a device of this process can hold; None if none says so, as on a CPU."""
    own = [device for device in devices if device.process_index == jax.process_index()]
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in own]
    known = [limit for limit in limits if limit]
    return int(SHARE * min(known)) if known else None


def steps(pool: Pool | HostPool, order: tuple[Array, Array], count: int) -> Iterator[tuple[Pool | Images, int, int]]:
    """Yield (where to find images, first step, end) until `count` steps are done.

    order: pool indices of every run's batches, labelled and not, i32[R, chunk, B] and i32[R, chunk, U]. Of a block,
    step s has the images at s modulo the length of the block. It is deleted when the next one is asked for: the caller
    has to wait for what it computes from it.
    """
    if isinstance(pool, Pool):
        yield pool, 0, count
        return
    size = pool.blocks.steps
    labelled, unlabelled = pool.lanes.fetch(order)

    def bring(begin: int) -> Images:
        coming = slice(begin, min(begin + size, count))
        return wait(Images(*(_put(pool, index[:, coming]) for index in (labelled, unlabelled))))

    starts = range(0, count, size)
    for begin, images in zip(starts, ahead(bring, starts), strict=True):
        yield images, begin, min(begin + size, count)


def _put(pool: HostPool, index: np.ndarray) -> Array:
    """Copy the images of some steps and put them on the devices. index: i32[R, up to a block of steps, B]."""
    runs, count, batch = index.shape
    filled = pool.lanes.chunk(batch, batch) if batch else 0
    block = np.empty((runs, pool.blocks.steps, filled, *pool.x.shape[1:]), pool.x.dtype)  # not all of it is ever read
    for run in range(runs):
        for step in range(count):  # "clip" changes no index, but NumPy copies twice where it may have to raise
            np.take(pool.x, index[run, step], axis=0, out=block[run, step, :batch], mode="clip")
    return pool.lanes.rows(block, axis=2, per_run=True)


def chunks(pool: Pool | HostPool, rows: int) -> Iterator[Pool | Array]:
    """Yield where to find the next `rows` images of the pool, u8[rows, H, W, C] of a pool on the host.

    The last image fills up the last chunk. As in `steps`, a chunk is deleted when the next one is asked for.
    """
    starts = range(0, pool.x.shape[0], rows)
    if isinstance(pool, Pool):
        yield from [pool] * len(starts)
        return

    def bring(begin: int) -> Array:
        part = pool.x[begin : begin + rows]
        lacking = rows - len(part)
        whole = np.concatenate([part, np.repeat(part[-1:], lacking, axis=0)])
        return wait(pool.lanes.rows(whole, axis=0, per_run=False))

    yield from ahead(bring, starts)


def ahead(bring: Callable[[int], Any], starts: Sequence[int]) -> Iterator[Any]:
    """Yield bring(start) for each start; a thread brings the next tree of device arrays while the caller uses one."""
    with ThreadPoolExecutor(1, thread_name_prefix="jaxdal-streaming") as thread:
        coming = thread.submit(bring, starts[0])
        for following in (*starts[1:], None):
            block = coming.result()  # raises what went wrong in the thread
            if following is not None:
                coming = thread.submit(bring, following)
            yield block
            for leaf in jax.tree.leaves(block):
                leaf.delete()
