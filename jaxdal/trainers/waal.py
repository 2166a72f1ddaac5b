"""WAAL: a critic learns to tell labelled from unlabelled features, and the network learns to make them alike."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdal.errors import InputError
from jaxdal.losses import cross_entropy
from jaxdal.models.layers import Linear, initialise
from jaxdal.types import Array, Batch, Moment, Network, Phase, Recipe, Trainer, Tree

WIDTH = 50  # of the critic's hidden layer
CORRECTED = 5.0  # weight of the penalty in the network's step of the authors' code, where it has no effect
AS_PUBLISHED = -2.0  # and in the critic's step there


class Critic(nn.Module):
    """Two layers with a ReLU, dropout of half of the hidden units, and a sigmoid."""

    @nn.compact
    def __call__(self, z: Array, kept: Array | None) -> Array:
        """Features f32[B, d] and masks f32[B, WIDTH] of zeros and twos, or None -> f32[B], in (0, 1)."""
        hidden = nn.relu(Linear(WIDTH)(z))
        if kept is not None:
            hidden = hidden * kept
        return nn.sigmoid(Linear(1)(hidden))[:, 0]


def critic(key: Array, taps: Tree) -> Tree:
    """Return the first weights of a critic of what the last layer reads."""
    return initialise(Critic(), key, jnp.zeros(taps["features"].shape), None)["params"]


def judge(helpers: Tree, z: Array, kept: Array | None = None) -> Array:
    """How unlike labelled examples these features look to the critic: f32[B, d] -> f32[B]."""
    judged: Any = Critic().apply({"params": helpers}, z, kept)
    return judged


def gradient_penalty(helpers: Tree, z: Array, kept: Array) -> Array:
    """Mean of (|grad_z g(z)|_2 - 1)²: Gulrajani et al. (2017, arXiv 1704.00028), equation 3. f32[B, d] -> f32[]."""
    gradient = jax.grad(lambda z: jnp.sum(judge(helpers, z, kept)))(z)
    square = jnp.sum(jnp.square(gradient), axis=-1)
    slopes = square > 0  # where dropout leaves no path the root has no derivative
    return jnp.mean(jnp.square(jnp.where(slopes, jnp.sqrt(jnp.where(slopes, square, 1.0)), 0.0) - 1))


class Draws(NamedTuple):
    """All randomness of a step, of B labelled and B unlabelled images; the labelled ones come first."""

    augment: Array  # key, the one of supervised training
    dropout: tuple[Array, Array]  # keys of the network's own dropout, one per phase
    judged: tuple[Array, Array]  # f32[2 B, WIDTH], masks of the critic, one per phase
    penalised: Array  # f32[3 B, WIDTH], its masks under the penalty
    share: Array  # f32[B, 1], of the labelled features in those between


def draws(key: Array, size: int) -> Draws:
    """Draw what a step of B = `size` needs; its phases share these draws."""
    key_augment, key_more = jax.random.split(key)
    key_first, key_second, key_masks, key_share = jax.random.split(key_more, 4)
    kept = 2.0 * jax.random.bernoulli(key_masks, 0.5, (7 * size, WIDTH)).astype(jnp.float32)
    share = jax.random.uniform(key_share, (size, 1))
    return Draws(
        key_augment, (key_first, key_second), (kept[: 2 * size], kept[2 * size : 4 * size]), kept[4 * size :], share
    )


def waal(alpha: float = 2e-3, penalty_weight: float = CORRECTED, penalty: str = "corrected") -> Trainer:
    """Shui et al. (2020, arXiv 1911.09162): active learning by a Wasserstein distance, its training.

    With f the network up to the last layer, z = f(x) of B labelled and B unlabelled images and g the critic, a step is
        1. of the network: cross-entropy + alpha D,    D = mean g(z_U) - gamma mean g(z_L), gamma = |L| / |U|;
        2. of the critic, with z by the new network: -alpha D + penalty_weight alpha GP,
    GP = `gradient_penalty` over 3B points: z_U, z_L and as many at random places between pairs of them. gamma weighs
    the smaller set down, which comes more often; where everything is labelled all images are U, and gamma is 1. An
    epoch is a pass over the larger set. Each set is normalised by its own batch statistics; the running ones follow
    both, the labelled one first, in the network's step alone.

    alpha, penalty_weight: 2e-3 as published, and 5, the weight there where the penalty has no effect. penalty:
    "corrected", or "as_published": -2 alpha GP, a sign that drives the critic's slope away from 1.

    Deviations from the published code, of WAAL and of the comparison:
    - the sign of the penalty; and it is left out of the network's step, where its gradient is 0;
    - z is what the last layer reads of every model, for LeNet 50 numbers after its first linear layer, where the
      comparison takes the 320 before it;
    - labelled and unlabelled images are shuffled on their own, where pairs are fixed for all epochs;
    - full batches only; running statistics follow 2 passes of a step and not 6;
    - new weights in every round, as in the authors' code; the comparison goes on with the old ones.
    Kept: one optimiser recipe for all parts, weight decay of the critic included; no gradient is clamped.
    """
    for name, number in (("alpha", alpha), ("penalty_weight", penalty_weight)):
        if not (isinstance(number, float | int) and 0 <= number < float("inf")):
            raise InputError(f"{name}={number} of waal is not a number from 0 on")
    if penalty not in ("corrected", "as_published"):
        raise InputError(f"penalty={penalty!r} of waal is neither 'corrected' nor 'as_published'")
    if penalty == "as_published" and penalty_weight != CORRECTED:
        told = "changes nothing with penalty='as_published', whose weight is fixed"
        raise InputError(f"penalty_weight={penalty_weight} of waal {told}")
    weight = penalty_weight if penalty == "corrected" else AS_PUBLISHED

    def look(network: Network, variables: Tree, batch: Batch, drawn: Draws, phase: int) -> tuple[Array, Tree]:
        x = network.augment(drawn.augment, jnp.concatenate([batch.x, batch.unlabelled]))
        return network.apply(variables, x, train=True, dropout_key=drawn.dropout[phase], chunks=2)

    def difference(variables: Tree, z: Array, kept: Array, moment: Moment) -> Array:
        labelled, others = jnp.mean(judge(variables["helpers"], z, kept).reshape(2, -1), axis=1)
        share = moment.labelled
        return others - share / jnp.where(share < 1, 1 - share, 1) * labelled

    def alike(network: Network, variables: Tree, batch: Batch, key: Array, moment: Moment) -> tuple[Array, Tree]:
        size = batch.x.shape[0]
        drawn = draws(key, size)
        logits, taps = look(network, variables, batch, drawn, 0)
        apart = difference(variables, taps["features"], drawn.judged[0], moment)
        return cross_entropy(logits[:size], batch.y) + alpha * apart, taps["batch_stats"]

    def telling(network: Network, variables: Tree, batch: Batch, key: Array, moment: Moment) -> tuple[Array, Tree]:
        size = batch.x.shape[0]
        drawn = draws(key, size)
        _, taps = look(network, variables, batch, drawn, 1)
        z = taps["features"]
        between = z[size:] + drawn.share * (z[:size] - z[size:])
        slope = gradient_penalty(variables["helpers"], jnp.concatenate([between, z]), drawn.penalised)
        apart = difference(variables, z, drawn.judged[1], moment)
        return alpha * (weight * slope - apart), variables["batch_stats"]

    def recipe(recipe: Recipe) -> Recipe:
        return recipe._replace(clamp=None)

    return Trainer(
        (Phase(alike), Phase(telling, trains=("helpers",))), unlabelled=1,
        epoch=lambda labelled, pool: max(labelled, pool - labelled), helpers=critic, recipe=recipe,
    )  # fmt: skip
