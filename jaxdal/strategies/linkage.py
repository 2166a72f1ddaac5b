"""Average linkage by cosine distance in O(N d) memory: all pairs that are nearest to each other, pass after pass."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdal.types import Array

ROWS, COLUMNS = 128, 4096  # clusters that are compared with how many at once
# What a matrix product in float32 may mistake for the other, at cosines near 1: twice 7e-7, the largest error found at
# up to 512 features (9e-7 at 2,048), with room for other machines.
CLOSE = 4e-6
UNKNOWN, NEVER = -1, np.iinfo(np.int32).max


class Forest(NamedTuple):
    """Clusters between two passes. Each lives at a place in [0, n), that of one of its members."""

    mean: Array  # f32[n, d], of its unit vectors
    size: Array  # f32[n]
    spread: Array  # f32[n], w
    level: Array  # f32[n], the highest merge in it
    live: Array  # bool[n], does a cluster live here?
    near: Array  # i32[n], the place of the nearest other one; UNKNOWN since that one has merged
    gap: Array  # f32[n], the distance to that one; while it is unknown, a lower bound
    parent: Array  # i32[n], into which place it has moved
    height: Array  # f32[n], at which distance; inf for those that have not moved
    moved: Array  # i32[n], in which pass; NEVER for those that have not moved
    passes: Array  # i32[]
    alive: Array  # i32[], clusters
    quota: Array  # i32[], searches in the next pass, at most
    limit: Array  # f32[], no merge above it is asked for
    done: Array  # bool[]


def average_linkage(unit: Array, count: int = 1) -> tuple[Array, Array, Array]:
    """Agglomerative clustering of unit vectors, by cosine distance and exact average linkage: unit f32[n, d].

    -> child, parent: i32[n - 1], height: f32[n - 1]. A cluster lives in the place of one of its members; in merge i
    what lives at `child` moves in with what lives at `parent`. Parts are merged before wholes. count: how many clusters
    the tree will be cut into, at least; what is above that cut may be left out, and has height inf.

    Two clusters that are nearest to each other may be merged in any order, since with average linkage no merge brings
    any other cluster closer (reducibility: Bruynooghe 1977; Murtagh 1983). So a pass merges all such pairs at once
    (Sumengen et al. 2021, "Scaling hierarchical agglomerative clustering to billion-sized datasets", algorithm RAC).
    For the same reason, the distance to a nearest cluster that has been merged away is a lower bound: the next pass
    searches anew for those of least bound first, twice as many as there were merges. It ends when as many merges as
    are asked for are not above any bound: heights never fall on the way up.

    Distances are never stored: with m the mean of a cluster's unit vectors,
        mean of 1 - u.v over pairs = 1 - m_A.m_B = (|m_A - m_B|² + w_A + w_B) / 2,  w = 1 - |m|²,
        w_AB = a² w_A + b² w_B + 2 a b d(A, B)  with a and b the shares of A and B,
    which has no cancellation. Searches compare by matrix products; where these cannot tell the two nearest apart, by
    this formula. Equal distances go by the exclusive or of the places, which is symmetric: rows that are all alike are
    paired at once, and not one in a pass. Should rounding still leave nobody nearest to each other, the two closest of
    all are merged. So every pass merges, or searches for the cluster of least bound; that ends.

    O(n d) memory. The cut into n / 1.25 took 1.6 to 1.8 n searches of O(n d) in some tens of passes, the whole tree 3.5
    to 4.7 n in some hundreds, on 20,000 features of LeNet and on 10,000 random ones. There is worse, as exact but slow:
    where all clusters are nearest to the same one there is one merge in a pass, which compares ROWS clusters with all;
    and of rows that are closer to each other than CLOSE each is searched for alone, O(n d) at the speed of memory.
    """
    n = unit.shape[0]
    if n == 1:
        return jnp.zeros(0, jnp.int32), jnp.zeros(0, jnp.int32), jnp.zeros(0)
    need = n - count

    def step(now: Forest) -> Forest:
        now = merge(search(now))
        limit = jax.lax.cond(n - now.alive >= need, lambda: jnp.sort(now.height)[need - 1], lambda: now.limit)
        return now._replace(limit=limit)

    start = Forest(
        mean=unit, size=jnp.ones(n), spread=jnp.where(jnp.any(unit != 0, axis=1), 0.0, 1.0), level=jnp.zeros(n),
        live=jnp.ones(n, jnp.bool_), near=jnp.full(n, UNKNOWN, jnp.int32), gap=jnp.zeros(n),
        parent=jnp.zeros(n, jnp.int32), height=jnp.full(n, jnp.inf), moved=jnp.full(n, NEVER, jnp.int32),
        passes=jnp.int32(0), alive=jnp.int32(n), quota=jnp.int32(n), limit=jnp.float32(jnp.inf),
        done=jnp.bool_(need <= 0),
    )  # fmt: skip
    end = jax.lax.while_loop(lambda now: ~now.done, step, start)
    child = jnp.argsort(end.moved, stable=True)[:-1].astype(jnp.int32)
    return child, end.parent[child], end.height[child]


def cut(child: Array, parent: Array, height: Array, count: int) -> Array:
    """Undo the count - 1 highest merges: -> i32[n], the place at which each one's cluster lives; ties by order."""
    n = len(child) + 1
    kept = jnp.argsort(height, stable=True)[: n - count]
    up = jnp.arange(n, dtype=jnp.int32).at[child[kept]].set(parent[kept])
    return jax.lax.fori_loop(0, n.bit_length(), lambda _, up: up[up], up)


def search(now: Forest) -> Forest:
    """Find the nearest cluster for those that have lost it, of least bound first, up to the quota and the limit."""
    place = jnp.arange(len(now.near), dtype=jnp.int32)
    lost = now.live & (now.near < 0) & (now.gap < now.limit)
    number = jnp.minimum(jnp.sum(lost.astype(jnp.int32)), now.quota)
    _, rows = jax.lax.sort((jnp.where(lost, now.gap, jnp.inf), place), num_keys=1)
    near = nearest(now, rows, number)
    gap = jnp.where(near >= 0, distance(now.mean, now.spread, now.mean[near], now.spread[near]), now.gap)
    return now._replace(near=near, gap=gap)


def distance(mean: Array, spread: Array, other: Array, spread_other: Array) -> Array:
    """Return the average distance of the members of two clusters, the same both ways: f32[n, d], f32[n] -> f32[n]."""
    return (jnp.sum(jnp.square(mean - other), axis=-1) + (spread + spread_other)) / 2


def nearest(now: Forest, rows: Array, number: Array) -> Array:
    """Return now.near, with what is nearest to rows[:number]: i32[n], i32[] -> i32[n].

    A block of rows is compared with a block of columns, the live clusters, by one matrix product.
    """
    n = len(now.near)
    height, width = min(ROWS, n), min(COLUMNS, n)
    place = jnp.arange(n, dtype=jnp.int32)
    rows = jnp.pad(rows, (0, -n % height))
    columns = jnp.pad(jnp.sort(jnp.where(now.live, place, n)), (0, -n % width), constant_values=n)
    packed = now.mean[columns]
    across = jnp.arange(width, dtype=jnp.int32)

    def look(block: Array | int, near: Array) -> Array:
        begin = jnp.int32(block) * height
        mine = jax.lax.dynamic_slice_in_dim(rows, begin, height)
        mine = jnp.where(begin + jnp.arange(height, dtype=jnp.int32) < number, mine, n)
        mean = now.mean[mine]

        def compare(block: Array | int, found: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            most, second, best = found
            begin = jnp.int32(block) * width
            theirs = jax.lax.dynamic_slice_in_dim(columns, begin, width)
            likeness = jnp.matmul(mean, jax.lax.dynamic_slice_in_dim(packed, begin, width).T, precision="highest")
            likeness = jnp.where((mine[:, None] == theirs) | (theirs == n), -jnp.inf, likeness)
            top = jnp.max(likeness, axis=1)
            first = jnp.min(jnp.where(likeness >= top[:, None], across, width - 1), axis=1)
            runner_up = jnp.max(jnp.where(across == first[:, None], -jnp.inf, likeness), axis=1)
            second = jnp.maximum(jnp.maximum(second, runner_up), jnp.minimum(most, top))
            return jnp.maximum(most, top), second, jnp.where(top > most, theirs[first], best)

        def compare_carefully(number: Array | int, best: Array) -> Array:
            row = order[number]
            own = mine[row]
            gaps = distance(now.mean, now.spread, now.mean[own], now.spread[own])
            gaps = jnp.where(now.live & (place != own), gaps, jnp.inf)
            code = jnp.min(jnp.where(gaps <= jnp.min(gaps), place ^ own, NEVER))
            return best.at[row].set(code ^ own)

        low = jnp.full(height, -jnp.inf)
        start = low, low, jnp.zeros(height, jnp.int32)
        most, second, best = jax.lax.fori_loop(0, blocks(now.alive, width), compare, start)
        unsure = (most - second <= CLOSE) & (mine < n)
        order = jnp.argsort(~unsure)
        best = jax.lax.fori_loop(0, jnp.sum(unsure.astype(jnp.int32)), compare_carefully, best)
        return near.at[mine].set(best, mode="drop")

    return jax.lax.fori_loop(0, blocks(number, height), look, now.near)


def blocks(number: Array, size: int) -> Array:
    """How many blocks hold so many rows."""
    return jax.lax.div(number + (size - 1), jnp.int32(size))


def merge(now: Forest) -> Forest:
    """Merge all pairs that are nearest to each other: what lives at the higher place moves to the lower one."""
    place = jnp.arange(len(now.near), dtype=jnp.int32)
    # The two closest clusters of all are nearest to each other, whatever rounding has made of that.
    closest = jnp.argmin(jnp.where(now.live, now.gap, jnp.inf)).astype(jnp.int32)
    bound, other = now.gap[closest], now.near[closest]
    near = jnp.where(place == other, closest, now.near)
    gap = jnp.where(place == other, bound, now.gap)

    pair = (near >= 0) & (near[near] == place)
    stays, moves = pair & (place < near), pair & (place > near)
    both = now.size + now.size[near]
    a, b = now.size / both, now.size[near] / both
    mean = jnp.where(stays[:, None], a[:, None] * now.mean + b[:, None] * now.mean[near], now.mean)
    grown = a * a * now.spread + b * b * now.spread[near] + 2 * a * b * gap
    level = jnp.maximum(gap, jnp.maximum(now.level, now.level[near]))
    parent = jnp.where(moves, near, now.parent)
    merges = jnp.sum(moves.astype(jnp.int32))
    alive = now.alive - merges
    near = jnp.where(pair | pair[near], UNKNOWN, near)
    return now._replace(
        mean=mean, size=jnp.where(stays, both, now.size), spread=jnp.where(stays, grown, now.spread),
        level=jnp.where(stays, level, now.level), live=now.live & ~moves, near=near,
        gap=gap, parent=parent, height=jnp.where(moves, level, now.height),
        moved=jnp.where(moves, now.passes, now.moved), passes=now.passes + 1, alive=alive,
        quota=jnp.maximum(2 * merges, ROWS), done=(alive == 1) | (bound >= now.limit),
    )  # fmt: skip
