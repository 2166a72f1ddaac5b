"""Loss functions: pure, of logits and targets, in f32."""

import jax
import jax.numpy as jnp

from jaxdal.types import Array


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Mean cross-entropy. logits: f32[B, K], labels: i32[B] -> f32[]."""
    log_probs = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(log_probs, labels[:, None], axis=1))
