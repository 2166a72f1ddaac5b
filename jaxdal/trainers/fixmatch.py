"""FixMatch: what the network is sure of in a weakly augmented image is the label of a strongly augmented one."""

import jax
import jax.numpy as jnp

from jaxdal.losses import cross_entropies, cross_entropy
from jaxdal.randaugment import randaugment
from jaxdal.trainers.protocol import check_option, gentle, passes
from jaxdal.types import Array, Batch, Moment, Network, Phase, Trainer, Tree


def fixmatch(threshold: float = 0.95, unlabelled: int = 7, weight: float = 1.0, average: float = 0.999) -> Trainer:
    """Sohn et al. (2020), arXiv 2001.07685: cross-entropy (3) + weight x pseudo-label loss (4).

    The weak view is the augmentation of supervised training; the strong one is another of these, then RandAugment and
    Cutout. Images whose weak view has no class of probability `threshold` add nothing to the mean over all. All three
    groups of images pass as one batch with common BatchNorm statistics, as in the authors' code.

    unlabelled: mu, unlabelled images per labelled one. average: decay of the averaged weights, which answer.

    Beside the authors' code: unlabelled images are those without a label (there, all images), the learning rate falls
    by the data set's steps (there, by a cosine), momentum is plain (there, Nesterov's), and RandAugment is the paper's
    (there, every second operation is skipped: `randaugment`). An epoch passes over the pool once. Rate 0.03 where
    supervised training has 0.1, and weight decay on kernels only, are the authors'.
    """
    check_option("fixmatch", "threshold", threshold, lambda number: 0 <= number <= 1)
    check_option("fixmatch", "unlabelled", unlabelled, lambda number: isinstance(number, int) and number >= 1)
    check_option("fixmatch", "weight", weight, lambda number: number >= 0)
    check_option("fixmatch", "average", average, lambda number: 0 <= number < 1)

    def loss(network: Network, variables: Tree, batch: Batch, key: Array, moment: Moment) -> tuple[Array, Tree]:
        del moment
        key_augment, key_more = jax.random.split(key)  # the first is the one of supervised training
        key_weak, key_crop, key_strong, key_dropout = jax.random.split(key_more, 4)
        size, count = batch.x.shape[0], batch.unlabelled.shape[0]
        x, weak = network.augment(key_augment, batch.x), network.augment(key_weak, batch.unlabelled)
        cropped = network.weak(key_crop, batch.unlabelled)
        strong = network.normalise(jax.vmap(randaugment)(jax.random.split(key_strong, count), cropped))

        images = jnp.concatenate([x, weak, strong])
        logits, taps = network.apply(variables, images, train=True, dropout_key=key_dropout)
        guess = jax.nn.softmax(jax.lax.stop_gradient(logits[size : size + count]))
        sure = (jnp.max(guess, axis=1) >= threshold).astype(jnp.float32)
        pseudo_label = jnp.argmax(guess, axis=1).astype(jnp.int32)
        unsupervised = jnp.mean(sure * cross_entropies(logits[size + count :], pseudo_label))
        return cross_entropy(logits[:size], batch.y) + weight * unsupervised, taps["batch_stats"]

    return Trainer((Phase(loss),), unlabelled=unlabelled, epoch=passes(unlabelled), average=average, recipe=gentle)
