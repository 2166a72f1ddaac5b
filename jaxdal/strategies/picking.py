"""What selection rules share."""

import math

import jax
import jax.numpy as jnp

from jaxdal.types import Array

MANY = 2**17  # numbers from which on they are searched in blocks; below, sorting them all is as fast or faster
MULTIPLE = 128  # of how many blocks there are: one of any likely number of devices


def top_unknown(score: Array, known: Array, k: int) -> Array:
    """Return the k unknown examples of largest score, best first, ties by index. score: f32[N] -> i32[k].

    A score that is not finite counts as the worst (NaN, -inf) or the best (inf) finite one, so that k picks are always
    unknown as long as k examples are. -0 is 0, which `jax.lax.top_k` would put above it.
    """
    limit = jnp.finfo(score.dtype)
    score = jnp.nan_to_num(score, nan=limit.min, posinf=limit.max, neginf=limit.min)
    score = jnp.where(score == 0, 0, score)  # a sum may leave out + 0
    return jax.lax.top_k(jnp.where(known < 0, score, -jnp.inf), k)[1].astype(jnp.int32)


def few_largest(score: Array, k: int) -> Array:
    """Return the places of the k largest numbers, the largest first, ties by place: f32[N], no NaN -> i32[k], k small.

    Among many, only the k blocks with the largest maxima are looked at, which all of them are in. Maxima are found
    where the numbers are; `jax.lax.top_k` alone would gather all N on each of the devices they are split over.
    """
    size = score.shape[0]
    if size < MANY:
        return jax.lax.top_k(score, k)[1].astype(jnp.int32)
    count = -(-math.isqrt(size * k) // MULTIPLE) * MULTIPLE
    width = -(-size // count)
    blocks = jnp.pad(score, (0, count * width - size), constant_values=-jnp.inf).reshape(count, width)
    chosen = jnp.sort(jax.lax.top_k(jnp.max(blocks, axis=1), k)[1].astype(jnp.int32))  # sorted, for the sake of ties
    place = jax.lax.top_k(blocks[chosen].reshape(-1), k)[1].astype(jnp.int32)
    return chosen[place // width] * width + place % width
