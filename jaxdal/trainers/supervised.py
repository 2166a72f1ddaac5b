"""Training on the labelled images alone."""

import jax

from jaxdal.losses import cross_entropy
from jaxdal.types import Array, Batch, Network, Trainer, Tree


def supervised() -> Trainer:
    """Cross-entropy on augmented labelled images (the paper's 14 supervised methods)."""

    def loss(
        network: Network, params: Tree, batch_stats: Tree, batch: Batch, key: Array, progress: Array
    ) -> tuple[Array, Tree]:
        del progress
        key_augment, key_dropout = jax.random.split(key)
        variables = {"params": params, "batch_stats": batch_stats}
        x = network.augment(key_augment, batch.x)
        logits, taps = network.apply(variables, x, train=True, dropout_key=key_dropout)
        return cross_entropy(logits, batch.y), taps["batch_stats"]

    return Trainer(loss)
