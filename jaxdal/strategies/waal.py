"""WAAL: buy what the network doubts and the critic of its trainer finds unlike all that is labelled."""

import jax
import jax.numpy as jnp

from jaxdal.errors import InputError
from jaxdal.strategies.picking import top_unknown
from jaxdal.trainers.waal import critic, judge
from jaxdal.types import Array, Network, Signal, Strategy, Trainer, Tree


def waal_score(logits: Array, judged: Array, weight: float = 10.0) -> Array:
    """Shui et al. (2020), as their code has it: f32[N, K], f32[N] -> f32[N], the smallest goes first.

    (|log p|_2 + |log p|_1) / 2 - weight g: even answers have short vectors of log-probabilities.
    """
    log_probs = jax.nn.log_softmax(logits)
    lengths = jnp.linalg.norm(log_probs, axis=-1) + jnp.sum(jnp.abs(log_probs), axis=-1)
    return lengths / 2 - weight * judged


def _with_critic(trainer: Trainer) -> Trainer:
    if trainer.helpers is not critic:
        raise InputError("waal asks a critic that is trained alongside: it needs --trainer=waal")
    return trainer


def waal(weight: float = 10.0) -> Strategy:
    """The smallest `waal_score` first: Shui et al. (2020, arXiv 1911.09162); trainers/waal.py trains the critic.

    weight: of the critic's word, 10 as published. It is between 0 and 1, while |log p|_1 is K log K at least: with 100
    classes it hardly counts.
    Deviation from the published code: log p is that of the logits, and not minus infinity where p underflows.
    """
    if not (isinstance(weight, float | int) and 0 <= weight < float("inf")):
        raise InputError(f"weight={weight} of waal is not a number from 0 on")

    def per_batch(keys: Array, network: Network, variables: Tree, aux: Tree, x: Array) -> Array:
        del keys, aux
        logits, taps = network.apply(variables, network.normalise(x))
        return waal_score(logits, judge(variables["helpers"], taps["features"]), weight)

    def select(key: Array, known: Array, k: int, memory: Tree, score: Array) -> tuple[Array, Tree]:
        del key
        return top_unknown(-score, known, k), memory

    needs = (Signal(f"waal_score_{weight}", per_batch),)
    return Strategy(needs=needs, select=select, wrap=_with_critic, trainer="waal")
