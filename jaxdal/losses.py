"""Loss functions: pure, of logits and targets, in f32."""

import jax
import jax.numpy as jnp

from jaxdal.types import Array


def cross_entropies(logits: Array, labels: Array) -> Array:
    """Cross-entropy of every example. logits: f32[B, K], labels: i32[B] -> f32[B]."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Mean cross-entropy. logits: f32[B, K], labels: i32[B] -> f32[]."""
    return jnp.mean(cross_entropies(logits, labels))
