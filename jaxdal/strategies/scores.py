"""Strategies that score every example by itself and buy the best: random and the uncertainty trio."""

import jax
import jax.numpy as jnp

from jaxdal import signals
from jaxdal.strategies.picking import top_unknown
from jaxdal.types import Array, Strategy, Tree


def least_confidence_score(probs: Array) -> Array:
    """One minus the largest probability (Lewis and Gale 1994; Wang and Shang 2014). probs: f32[N, K] -> f32[N]."""
    return 1.0 - jnp.max(probs, axis=-1)


def margin_score(probs: Array) -> Array:
    """Second best minus best probability (Scheffer et al. 2001): 0 is the most uncertain. f32[N, K] -> f32[N]."""
    top = jnp.argmax(probs, axis=-1, keepdims=True)
    others = jnp.where(jnp.arange(probs.shape[-1]) == top, -jnp.inf, probs)
    return jnp.max(others, axis=-1) - jnp.max(probs, axis=-1)  # `top_k` would bring all rows to each device


def entropy_score(logits: Array) -> Array:
    """Entropy of the softmax in nats (Shannon 1948), finite when a probability underflows. f32[N, K] -> f32[N]."""
    log_probs = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)


def random() -> Strategy:
    """Uniform without replacement."""

    def select(key: Array, known: Array, k: int, memory: Tree) -> tuple[Array, Tree]:
        order = jax.random.permutation(key, known.shape[0])  # distinct scores, so that ties favour nobody
        return top_unknown(order.astype(jnp.float32), known, k), memory

    return Strategy(needs=(), select=select)


def least_confidence() -> Strategy:
    """The smallest top probability first (Wang and Shang 2014)."""

    def select(key: Array, known: Array, k: int, memory: Tree, probs: Array) -> tuple[Array, Tree]:
        del key
        return top_unknown(least_confidence_score(probs), known, k), memory

    return Strategy(needs=(signals.probs,), select=select)


def margin() -> Strategy:
    """The smallest margin between the two best classes first (Scheffer et al. 2001)."""

    def select(key: Array, known: Array, k: int, memory: Tree, probs: Array) -> tuple[Array, Tree]:
        del key
        return top_unknown(margin_score(probs), known, k), memory

    return Strategy(needs=(signals.probs,), select=select)


def entropy() -> Strategy:
    """The largest entropy first (Shannon 1948; Settles 2009)."""

    def select(key: Array, known: Array, k: int, memory: Tree, logits: Array) -> tuple[Array, Tree]:
        del key
        return top_unknown(entropy_score(logits), known, k), memory

    return Strategy(needs=(signals.logits,), select=select)
