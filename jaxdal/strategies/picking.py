"""What selection rules share."""

import jax
import jax.numpy as jnp

from jaxdal.types import Array


def top_unknown(score: Array, known: Array, k: int) -> Array:
    """Return the k unknown examples of largest score, best first, ties by index. score: f32[N] -> i32[k].

    A score that is not finite counts as the worst (NaN, -inf) or the best (inf) finite one, so that k picks are always
    unknown as long as k examples are.
    """
    limit = jnp.finfo(score.dtype)
    score = jnp.nan_to_num(score, nan=limit.min, posinf=limit.max, neginf=limit.min)
    return jax.lax.top_k(jnp.where(known < 0, score, -jnp.inf), k)[1].astype(jnp.int32)
