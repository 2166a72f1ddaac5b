"""What strategies share that measure distances between examples: squared distances, nearest rows, D² sampling.

Distances are between rows of features f32[N, d]. Nothing here holds more than O(N (d + CHUNK)) numbers, and nothing
minds whether the rows are split over devices: there are reductions over rows, and gathers of a few of them.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxdal.types import Array

CHUNK = 128  # centres that every row is compared with at once
SHARED = 8  # picks, at most, that share one read of the features
State = tuple[Array, Array, Array, Array]  # of `sample_apart`: closest, picks, how many there are, reads so far


def comparable(x: Array) -> Array:
    """Return numbers whose squares do not overflow, nor vanish as a whole: the largest is brought near 1. f32[N, d].

    By a power of two, which rounds nothing; every rule here chooses the same whatever the unit of length. What is not
    finite is 0. Squares of numbers below 1e-19 of the largest do vanish: one wild row makes all others look alike.
    """
    x = x.astype(jnp.float32)
    x = jnp.where(jnp.isfinite(x), x, 0.0)
    _, exponent = jnp.frexp(jnp.max(jnp.abs(x)))
    return x * jnp.ldexp(jnp.float32(1.0), -jnp.clip(exponent, -120, 120))


def directions(x: Array) -> Array:
    """Scale each row to length 1, whatever its unit; zeros stay, what is not finite is 0. f32[N, d] -> f32[N, d]."""
    finite = jnp.where(jnp.isfinite(x), x, 0)
    largest = jnp.max(jnp.abs(finite), axis=1, keepdims=True)
    scaled = finite / jnp.maximum(largest, jnp.finfo(x.dtype).tiny)  # so that no square overflows
    return scaled / jnp.maximum(jnp.linalg.norm(scaled, axis=1, keepdims=True), 0.5)


def squared_distances(x: Array, centre: Array) -> Array:
    """Return |x_i - c|², as a sum of squared differences: equal rows are at exactly 0. f32[N, d], f32[d] -> f32[N]."""
    return jnp.sum(jnp.square(x - centre), axis=-1)


def squared_distances_to(x: Array, rows: Array) -> Array:
    """Squared distances to a few of the rows themselves, in one read of them: f32[N, d], i32[m] -> f32[m, N]."""
    return jnp.stack([squared_distances(x, x[row]) for row in rows])  # unrolled: one fusion with m results


def nearest(x: Array, rows: Array, places: Array, count: Array | int) -> Array:
    """For each x_i, the number of the nearest among rows[places[:count]]; the first of equal ones.

    x: f32[N, d], rows: f32[M, d], places: i32[L], count <= L -> i32[N], numbers of rows (0 where there is none).
    By |c|² / 2 - x.c in full float32 precision, CHUNK centres at a time, as many times as `count` says. Differences of
    distances below about 1e-6 of |x|² are rounding: callers bring x near the origin.
    """
    chunk = min(CHUNK, places.shape[0])
    places = jnp.pad(places, (0, -places.shape[0] % chunk))

    def compare(number: Array | int, state: tuple[Array, Array]) -> tuple[Array, Array]:
        least, best = state
        begin = jnp.int32(number) * chunk
        some = jax.lax.dynamic_slice_in_dim(places, begin, chunk)
        centres = rows[some]
        score = 0.5 * jnp.sum(jnp.square(centres), axis=-1) - jnp.matmul(x, centres.T, precision="highest")
        column = jnp.arange(chunk, dtype=jnp.int32)
        score = jnp.where(begin + column < count, score, jnp.inf)  # [N, chunk]
        found = jnp.min(score, axis=-1)
        # Not argmin, which XLA does not vectorise on a CPU. The one subtraction is the same however it is fused.
        first = jnp.min(jnp.where(score <= found[:, None], column, chunk - 1), axis=-1)
        closer = found < least
        return jnp.where(closer, found, least), jnp.where(closer, some[first], best)

    size = x.shape[0]
    state = jnp.full(size, jnp.inf, jnp.float32), jnp.zeros(size, jnp.int32)
    return jax.lax.fori_loop(0, (count + chunk - 1) // chunk, compare, state)[1]


def draw(uniform: Array, weights: Array) -> Array:
    """Return an index with probability weights / sum, of positive weight if any is. f32[2], f32[N] >= 0 -> i32[].

    The inverse of the distribution function on two levels, first the block, then the place in it, with a uniform number
    each: float32 sums stay short, and 23 random bits would be too few for a million rows.
    """
    size = weights.shape[0]
    side = math.isqrt(size - 1) + 1
    blocks = jnp.pad(weights, (0, side * side - size)).reshape(side, side)
    block = _invert(jnp.sum(blocks, axis=-1), uniform[0])
    place = _invert(blocks[block], uniform[1])
    return jnp.minimum(block * side + place, size - 1)


def _invert(weights: Array, uniform: Array) -> Array:
    """Return the first index at which the running sum exceeds uniform * sum; sums are rounded, weights of 0 are not."""
    running = jnp.cumsum(weights)
    beyond = (running > uniform * running[-1]) & (weights > 0)
    found = jnp.where(jnp.any(beyond), jnp.argmax(beyond), jnp.argmax(weights))
    return found.astype(jnp.int32)


def shares(closest: Array) -> Array:
    """Return the weights of D² sampling: D², or 1 for every candidate once all D² are 0.

    closest: f32[N], D² to the nearest chosen row, -1 for what is no candidate (any more) -> f32[N] >= 0.
    """
    return jnp.where(jnp.max(closest) > 0, jnp.maximum(closest, 0.0), (closest >= 0).astype(jnp.float32))


def sample_apart(key: Array, closest: Array, first: Array, k: int, to_rows: Callable[[Array], Array]) -> Array:
    """D² sampling: `first`, then always a row with probability D² / sum of D² to the nearest one chosen: -> i32[k].

    closest: f32[N], inf for candidates, -1 for what may not be chosen; to_rows: i32[m] -> f32[m, N], squared distances.
    Several draws share one read of what `to_rows` reads. SHARED rows are proposed at once by the weights w there are;
    one after another is taken with probability w' / w, w' <= w being its weight now that those before it are chosen.
    That is rejection sampling: what is taken has been drawn by w', exactly, and the first is always taken.
    """
    width = min(SHARED, k)

    def read(state: State) -> State:
        closest, picks, done, number = state
        weights, by_distance = shares(closest), jnp.max(closest) > 0
        uniform = jax.random.uniform(jax.random.fold_in(key, number), (width, 3))
        rows = jax.vmap(draw, (0, None))(uniform[:, :2], weights)
        distances = to_rows(rows)
        between = distances[:, rows]

        def take(place: Array | int, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            taken, picks, done = state
            left = jnp.min(jnp.where(taken, between[:, place], jnp.inf))
            kept = jnp.where(by_distance, jnp.minimum(left, weights[rows[place]]), 1.0)
            accept = (uniform[place, 2] * weights[rows[place]] < kept) & ~jnp.any(taken & (rows == rows[place]))
            accept = accept & (done < k)
            picks = picks.at[jnp.where(accept, done, k)].set(rows[place], mode="drop")
            return taken.at[place].set(accept), picks, done + accept.astype(jnp.int32)

        taken, picks, done = jax.lax.fori_loop(0, width, take, (jnp.zeros(width, jnp.bool_), picks, done))
        closest = jnp.minimum(closest, jnp.min(jnp.where(taken[:, None], distances, jnp.inf), axis=0))
        closest = closest.at[jnp.where(taken, rows, closest.shape[0])].set(-1.0, mode="drop")
        return closest, picks, done, number + 1

    closest = jnp.minimum(closest, to_rows(first[None])[0]).at[first].set(-1.0)
    start = closest, jnp.zeros(k, jnp.int32).at[0].set(first), jnp.int32(1), jnp.int32(0)
    return jax.lax.while_loop(lambda state: state[2] < k, read, start)[1]
