"""BADGE: diverse, large gradients of the last layer."""

from functools import partial

import jax
import jax.numpy as jnp

from jaxdal import signals
from jaxdal.strategies.distances import comparable, sample_apart
from jaxdal.types import Array, Strategy, Tree


def residuals(logits: Array, known: Array) -> Array:
    """Gradient of the cross entropy with respect to the logits, if the likeliest label were true: p - e_argmax.

    f32[N, K] -> f32[N, K], all in a unit that makes the largest entry of an unknown example 1: D² sampling does not see
    it, and a network that is sure beyond the range of float32 (1 - p = 0) is still ranked. Each row sums to 0 exactly.
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    top = jax.nn.one_hot(jnp.argmax(log_probs, axis=-1), logits.shape[-1], dtype=jnp.bool_)
    others = jnp.where(top | jnp.isnan(log_probs), -jnp.inf, log_probs)
    unit = jnp.max(jnp.where(known[:, None] < 0, others, -jnp.inf))
    others = jnp.exp(jnp.minimum(others - jnp.where(jnp.isfinite(unit), unit, 0.0), 0.0))
    return jnp.where(top, -jnp.sum(others, axis=-1, keepdims=True), others)


def squared_distances_to(a: Array, h: Array, rows: Array) -> Array:
    """Squared distances of the gradients to a few of them: a f32[N, K], h f32[N, d], rows i32[m] -> f32[m, N].

    Without making the gradients g_i = a_i (x) h_i, f32[K d]:
    |g_i - g_j|² = |a_i|² |h_i - h_j|² + |a_i - a_j|² |h_j|² + 2 (a_i.(a_i - a_j)) ((h_i - h_j).h_j),
    since g_i - g_j = a_i (x) (h_i - h_j) + (a_i - a_j) (x) h_j. Every term vanishes with the differences, so that near
    pairs keep their digits.
    """
    norm = jnp.sum(jnp.square(a), axis=-1)

    def to(row: Array) -> Array:
        a_j, h_j = a[row], h[row]
        da, dh = a - a_j, h - h_j
        distance = (
            norm * jnp.sum(jnp.square(dh), axis=-1)
            + jnp.sum(jnp.square(da), axis=-1) * jnp.sum(jnp.square(h_j))
            + 2.0 * jnp.sum(a * da, axis=-1) * jnp.sum(dh * h_j, axis=-1)
        )
        return jnp.maximum(distance, 0.0)

    return jnp.stack([to(row) for row in rows])  # unrolled: one read for all


def badge() -> Strategy:
    """Batch active learning by diverse gradient embeddings: k-means++ seeding of the last layer's gradients.

    Ash et al. 2020 (arXiv 1906.03671), algorithm 1: g_i = (p_i - e_argmax) (x) h_i, equation 1; k-means++ as their
    code: the first centre is the gradient of largest norm, each next one is drawn with probability D_i² / sum D²,
    D_i the distance to the nearest centre (the code's variable `D2` is D, squared when drawing).
    logits: f32[N, K], features: f32[N, d] -> picks: i32[k], in order. O(k N (K + d)) time, O(N (K + d)) memory.

    Deviations, none of which changes a probability of the paper, but among examples of less than 1e-19 of the largest
    doubt (1 - p), of which float32 has no squares: their gradients are at distance 0 from each other.
    - distances from the factors (see `squared_distances_to`), not from N x K d numbers in float64;
    - K is the number of classes, where the published code counts the classes among hidden labels;
    - a picked example never returns (there it can, by a rounding residue);
    - if all distances are 0, the draw is uniform over what is left (there: a debugger);
    - what is not finite counts as 0: no gradient.
    scikit-activeml 1.0.1 differs from the paper: its distances never exceed the norm, as if 0 had been a centre too.
    """

    def select(key: Array, known: Array, k: int, memory: Tree, logits: Array, features: Array) -> tuple[Array, Tree]:
        a, h = residuals(logits, known), comparable(features)
        norm = jnp.sum(jnp.square(a), axis=-1) * jnp.sum(jnp.square(h), axis=-1)
        first = jnp.argmax(jnp.where(known < 0, norm, -1.0)).astype(jnp.int32)
        closest = jnp.where(known < 0, jnp.inf, -1.0).astype(jnp.float32)
        return sample_apart(key, closest, first, k, partial(squared_distances_to, a, h)), memory

    return Strategy(needs=(signals.logits, signals.features), select=select)
