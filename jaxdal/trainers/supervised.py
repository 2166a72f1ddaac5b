"""Training on the labelled images alone."""

from typing import Any

import jax

from jaxdal.losses import cross_entropy
from jaxdal.types import Array, Batch, Moment, Network, Phase, Trainer, Tree


def answers(network: Network, variables: Tree, batch: Batch, key: Array) -> tuple[Array, dict[str, Any]]:
    """What the network says of the labelled images, augmented, in training: -> (logits f32[B, K], taps)."""
    key_augment, key_dropout = jax.random.split(key)
    x = network.augment(key_augment, batch.x)
    return network.apply(variables, x, train=True, dropout_key=key_dropout)


def _loss(network: Network, variables: Tree, batch: Batch, key: Array, moment: Moment) -> tuple[Array, Tree]:
    del moment
    logits, taps = answers(network, variables, batch, key)
    return cross_entropy(logits, batch.y), taps["batch_stats"]


def supervised() -> Trainer:
    """Cross-entropy on augmented labelled images (the paper's 14 supervised methods)."""
    return Trainer((Phase(_loss),))
