"""Consistency regularisation: an unlabelled image and its augmented view shall be answered alike."""

import jax
import jax.numpy as jnp

from jaxdal.losses import cross_entropy, squared_difference
from jaxdal.trainers.protocol import passes, protocol
from jaxdal.types import Array, Batch, Moment, Network, Phase, Trainer, Tree


def consistency(weight: float | None = None, ramp_epochs: float | None = None, preset: str = "paper") -> Trainer:
    """Cross-entropy + weight x ramp x mean over images and classes of (p(augmented u) - p(u))^2, no gradient in p(u).

    The term is equation (1) of MixMatch's paper (Sajjadi et al. 2016, Laine and Aila 2017) between a clean image and
    one augmented view; p(u) is computed as MixMatch's guesses are, in training mode. With BatchNorm, labelled and
    unlabelled images are normalised by statistics of their own, and both move the running ones. Weight, ramp and recipe
    are those of `mixmatch`; nothing is averaged. The benchmark describes its semi-supervised methods like this in its
    text (arXiv 2212.03088); its published runs trained them by MixMatch.
    """
    chosen = protocol("consistency", preset).adjusted(weight, ramp_epochs)

    def loss(network: Network, variables: Tree, batch: Batch, key: Array, moment: Moment) -> tuple[Array, Tree]:
        key_augment, key_more = jax.random.split(key)  # the first is the one of supervised training
        key_view, key_target, key_dropout = jax.random.split(key_more, 3)
        size, clean = batch.x.shape[0], network.normalise(batch.unlabelled)
        frozen = jax.lax.stop_gradient(variables)
        target, _ = network.apply(frozen, clean, train=True, dropout_key=key_target)

        images = jnp.concatenate([network.augment(key_augment, batch.x), network.augment(key_view, batch.unlabelled)])
        logits, taps = network.apply(variables, images, train=True, dropout_key=key_dropout, chunks=2)
        apart = squared_difference(logits[size:], jax.nn.softmax(target))
        total = cross_entropy(logits[:size], batch.y) + chosen.weight(logits.shape[1], moment) * apart
        return total, taps["batch_stats"]

    alike = "an image and its view are alike but for dropout, and unlabelled images teach little or nothing"
    return Trainer(
        (Phase(loss),), unlabelled=1, epoch=passes(1), recipe=chosen.recipe, unaugmented=alike, ramp=chosen.epochs
    )  # fmt: skip
