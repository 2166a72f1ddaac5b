"""Loss functions and their targets: pure, of logits and probabilities, in f32."""

import math

import jax
import jax.numpy as jnp

from jaxdal.types import Array


def cross_entropies(logits: Array, labels: Array) -> Array:
    """Cross-entropy of every example. logits: f32[B, K], labels: i32[B], 0 to K - 1 -> f32[B].

    Labels are compared, not gathered by: the gradient of a gather is a scatter, two kernels more on a GPU.
    """
    own = labels[:, None] == jnp.arange(logits.shape[1], dtype=labels.dtype)
    return -jnp.sum(jnp.where(own, jax.nn.log_softmax(logits), jnp.float32(0)), axis=1)


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Mean cross-entropy. logits: f32[B, K], labels: i32[B] -> f32[]."""
    return jnp.mean(cross_entropies(logits, labels))


def soft_cross_entropy(logits: Array, targets: Array) -> Array:
    """Mean of -sum_k t_k log p_k. logits, targets: f32[B, K], of targets every row sums to 1 -> f32[].

    Equation (3) of Berthelot et al. (2019), "MixMatch", arXiv 1905.02249, as are those numbered below.
    """
    return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits), axis=1))


def squared_difference(logits: Array, targets: Array) -> Array:
    """Mean over examples and classes of (p - t)^2, p = softmax: equation (4). logits, targets: f32[B, K] -> f32[]."""
    return jnp.mean(jnp.square(jax.nn.softmax(logits) - targets))


def sharpen(probs: Array, temperature: float) -> Array:
    """p_k^(1/T) / sum_j p_j^(1/T): equation (7). f32[B, K] -> f32[B, K]."""
    powers = (probs / jnp.max(probs, axis=1, keepdims=True)) ** (1 / temperature)  # of 1 at most: no sum is 0
    return powers / jnp.sum(powers, axis=1, keepdims=True)


def mixing_shares(key: Array, alpha: float, count: int) -> Array:
    """max(l, 1 - l) with l ~ Beta(alpha, alpha), `count` times: equations (8) and (9). -> f32[count], from 1/2 to 1.

    l = 1/2 +- 1/2 (1 + 1 / z)^(-1/2) with z = (u^(-1/alpha) - 1) cos^2(2 pi v), u and v uniform, is exact for every
    alpha > 0 (Devroye 1996, "Random variate generation in one line of code") and rejects nothing, so that no loop of
    unknown length is compiled. alpha = 0 is its limit, no mixing.
    """
    if alpha == 0:
        return jnp.ones(count, jnp.float32)
    u, v = jax.random.uniform(key, (2, count), minval=1e-7)
    z = (u ** (-1 / alpha) - 1) * jnp.square(jnp.cos(2 * math.pi * v))
    return 0.5 + 0.5 * jax.lax.rsqrt(1 + 1 / z)


def mix(share: Array, x: Array, other: Array) -> Array:
    """Return share x + (1 - share) other: equations (10), (11). share: f32[B], x, other: f32[B, ...] -> f32[B, ...]."""
    share = share.reshape(-1, *[1] * (x.ndim - 1))
    return share * x + (1 - share) * other
