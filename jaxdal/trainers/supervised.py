"""Training on the labelled images alone."""

import jax

from jaxdal.losses import cross_entropy
from jaxdal.types import Array, Batch, Moment, Network, Phase, Trainer, Tree


def _loss(network: Network, variables: Tree, batch: Batch, key: Array, moment: Moment) -> tuple[Array, Tree]:
    del moment
    key_augment, key_dropout = jax.random.split(key)
    x = network.augment(key_augment, batch.x)
    logits, taps = network.apply(variables, x, train=True, dropout_key=key_dropout)
    return cross_entropy(logits, batch.y), taps["batch_stats"]


def supervised() -> Trainer:
    """Cross-entropy on augmented labelled images (the paper's 14 supervised methods)."""
    return Trainer((Phase(_loss),))
