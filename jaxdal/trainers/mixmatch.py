"""MixMatch: guessed labels for unlabelled images, everything mixed with everything, one loss."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdal.losses import mix, mixing_shares, sharpen, soft_cross_entropy, squared_difference
from jaxdal.trainers.protocol import check_option, passes, protocol
from jaxdal.types import Array, Batch, Moment, Network, Phase, Trainer, Tree

PARTS = 3  # of a mixed batch: the labelled images and two views of the unlabelled ones


def mixmatch(
    weight: float | None = None, temperature: float = 0.5, alpha: float = 0.75, average: float = 0.999,
    ramp_epochs: float | None = None, preset: str = "paper",
) -> Trainer:  # fmt: skip
    """Berthelot et al. (2019), arXiv 1905.02249, with K = 2: the trainer of the paper's semi-supervised methods.

    A step takes B labelled images x and B unlabelled ones in two augmented views u1, u2. The guess for both views is
    the sharpened mean of their softmax (equations 6, 7; in training mode, without gradient). All 3B images and targets
    are mixed with those of a permutation of the 3B (8 to 11), and what is minimised is
    cross-entropy + weight x ramp x squared difference, the latter a mean over 2B images and K classes (3 to 5).

    weight, ramp_epochs: of the squared difference, and over how many epochs it grows; by default the preset's. alpha:
    of the Beta distribution; 0 mixes nothing. average: decay of the averaged weights, which answer.

    BatchNorm sees three chunks of B images that hold a share of the labelled images each, as if they were passed one
    after another: `interleaving`. Only these passes move the running statistics.

    Deviations from MixMatch's authors, as in the benchmark's published runs:
    - SGD instead of Adam; all three chunks move the running statistics, not the first alone.
    Deviations from those runs:
    - a share of its own for each image, as the authors have it, not one for the batch;
    - no second weight decay of 2 % of the learning rate per step on all weights and statistics;
    - guesses, and a pass for a printed accuracy, do not move the running statistics;
    - with fewer labels than a batch they are drawn with replacement, where no step was taken;
    - no clamp of gradients: theirs came after the step, and changed nothing.
    """
    chosen = protocol("mixmatch", preset).adjusted(weight, ramp_epochs)
    check_option("mixmatch", "temperature", temperature, lambda number: number > 0)
    check_option("mixmatch", "alpha", alpha, lambda number: number >= 0)
    check_option("mixmatch", "average", average, lambda number: 0 <= number < 1)

    def loss(network: Network, variables: Tree, batch: Batch, key: Array, moment: Moment) -> tuple[Array, Tree]:
        key_augment, key_more = jax.random.split(key)  # the first is the one of supervised training
        key_views, key_guess, key_share, key_partner, key_dropout = jax.random.split(key_more, 5)
        size = batch.x.shape[0]
        x = network.augment(key_augment, batch.x)
        views = network.augment(key_views, jnp.concatenate([batch.unlabelled, batch.unlabelled]))

        frozen = jax.lax.stop_gradient(variables)
        logits, _ = network.apply(frozen, views, train=True, dropout_key=key_guess, chunks=2)
        num_classes = logits.shape[1]
        guess = sharpen(jnp.mean(jax.nn.softmax(logits).reshape(2, size, num_classes), axis=0), temperature)

        images = jnp.concatenate([x, views])
        targets = jnp.concatenate([jax.nn.one_hot(batch.y, num_classes), guess, guess])
        share = mixing_shares(key_share, alpha, PARTS * size)
        partner = jax.random.permutation(key_partner, PARTS * size)
        images, targets = mix(share, images, images[partner]), mix(share, targets, targets[partner])

        order = interleaving(size)
        logits, taps = network.apply(variables, images[order], train=True, dropout_key=key_dropout, chunks=PARTS)
        logits = logits[order]
        supervised = soft_cross_entropy(logits[:size], targets[:size])
        unsupervised = squared_difference(logits[size:], targets[size:])
        return supervised + chosen.weight(num_classes, moment) * unsupervised, taps["batch_stats"]

    return Trainer(
        (Phase(loss),), unlabelled=1, epoch=passes(1), average=average, recipe=chosen.recipe, ramp=chosen.epochs
    )  # fmt: skip


def interleaving(size: int) -> np.ndarray:
    """Return the order of three parts of `size` rows in which every chunk of `size` rows has a share of the first part.

    i32[3 size], its own inverse, the order of the authors' code: rows are cut into three groups (85, 85 and 86 of 256),
    and the second group of the first part changes places with that of the second part, the third with the third's.
    """
    rows = np.arange(PARTS * size, dtype=np.int32).reshape(PARTS, size)
    ends = np.cumsum([size // PARTS + (group >= PARTS - size % PARTS) for group in range(PARTS)])
    groups = np.split(rows, ends[:-1], axis=1)
    for part in range(1, PARTS):
        groups[part][[0, part]] = groups[part][[part, 0]]
    return np.concatenate(groups, axis=1).ravel()
