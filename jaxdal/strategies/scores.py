"""Strategies that score every example by itself and buy the best: random and the uncertainty trio."""

import jax
import jax.numpy as jnp

from jaxdal import signals
from jaxdal.strategies.picking import top_unknown
from jaxdal.types import Array, Strategy, Tree


def best_and_others(probs: Array) -> tuple[Array, Array]:
    """The largest probability, f32[N], and all others, f32[N, K], 0 in its place; the first of equal ones is it."""
    top = jnp.argmax(probs, axis=-1, keepdims=True)  # `top_k` would bring all rows to each device
    return jnp.max(probs, axis=-1), jnp.where(jnp.arange(probs.shape[-1]) == top, 0, probs)


def least_confidence_score(probs: Array) -> Array:
    """One minus the largest probability (Lewis and Gale 1994; Wang and Shang 2014). probs: f32[N, K] -> f32[N].

    As the sum of the other ones: in float32, whatever is surer than 1 - 3e-8 has a largest probability of exactly 1.
    """
    return jnp.sum(best_and_others(probs)[1], axis=-1)


def margin_score(probs: Array) -> Array:
    """log((1 - m) / m) of the margin m = p_1 - p_2 (Scheffer et al. 2001): the larger, the less m. f32[N, K] -> f32[N].

    Not m itself, which in float32 is exactly 1 for all that the network is sure of, but a monotone function of it. As
    1 - m is p_2 + sum of all but p_1, the one subtraction is of two numbers that are near each other where it counts:
    it is precise at both ends. inf: a tie of the two best; -inf: all others underflow, beyond 87 between the logits.
    """
    best, others = best_and_others(probs)
    second = jnp.max(others, axis=-1)
    return jnp.log(second + jnp.sum(others, axis=-1)) - jnp.log(best - second)


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
    """The smallest top probability first (Wang and Shang 2014), by what is left to all others."""

    def select(key: Array, known: Array, k: int, memory: Tree, probs: Array) -> tuple[Array, Tree]:
        del key
        return top_unknown(least_confidence_score(probs), known, k), memory

    return Strategy(needs=(signals.probs,), select=select)


def margin() -> Strategy:
    """The smallest margin between the two best classes first (Scheffer et al. 2001), by `margin_score`."""

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
