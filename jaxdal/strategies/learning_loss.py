"""Learning loss: a small network beside the classifier learns how large its losses are; buy where it expects most."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdal.errors import InputError
from jaxdal.losses import cross_entropies
from jaxdal.models.layers import Linear, initialise
from jaxdal.strategies.picking import top_unknown
from jaxdal.trainers.supervised import answers, supervised
from jaxdal.types import Array, Batch, Moment, Network, Phase, Signal, Strategy, Trainer, Tree


class LossModule(nn.Module):
    """Yoo and Kweon (2019), figure 2: every map averaged, a layer of 128 with ReLU each, one number from them all."""

    width: int = 128

    @nn.compact
    def __call__(self, maps: tuple[Array, ...]) -> Array:
        """f32[B, h, w, c] of every stage -> f32[B], the predicted loss."""
        parts = [nn.relu(Linear(self.width)(one.astype(jnp.float32).mean((1, 2)))) for one in maps]
        return Linear(1)(jnp.concatenate(parts, axis=-1))[:, 0]


def predict(helpers: Tree, maps: tuple[Array, ...]) -> Array:
    """Predicted loss of every image, from the maps of the classifier: -> f32[B]."""
    predicted: Any = LossModule().apply({"params": helpers}, maps)
    return predicted


def ranking_loss(predicted: Array, losses: Array, margin: float) -> Array:
    """Yoo and Kweon (2019), equation 2: is the larger loss predicted to be larger? f32[B], f32[B] -> f32[].

    Pairs are (i, B - 1 - i); the middle one of an odd batch has none. The mean over pairs of
        max(0, -s (l^_i - l^_j) + margin),    s = 1 if l_i > l_j else -1,    no gradient reaches l.
    """
    half = predicted.shape[0] // 2
    difference = predicted[:half] - predicted[::-1][:half]
    larger = jax.lax.stop_gradient(losses[:half] > losses[::-1][:half])
    return jnp.mean(jnp.maximum(0.0, jnp.where(larger, -difference, difference) + margin))


def _predicted_loss(keys: Array, network: Network, variables: Tree, aux: Tree, x: Array) -> Array:
    del keys, aux
    _, taps = network.apply(variables, network.normalise(x))
    return predict(variables["helpers"], taps["maps"])


predicted_loss = Signal("predicted_loss", _predicted_loss)  # f32[N], of a trainer that `learning_loss` has wrapped


def learning_loss(
    margin: float = 1.0, weight: float = 1.0, stop: float = 0.6, subset: int | None = 10_000
) -> Strategy:  # fmt: skip
    """The largest predicted loss first, within a random subset of the pool: Yoo and Kweon (2019).

    The loss module reads the maps of the classifier's stages and is trained with it, by the same optimiser:
    cross-entropy + weight * `ranking_loss`. predicted_loss: f32[N] -> picks: i32[k], best first.

    margin, weight: xi and lambda of the paper, equations 2 and 3. stop: share of the epochs after which the module's
    gradient no longer reaches the classifier, 120 of 200 there; 0 keeps it out altogether, so that the classifier is
    that of all other methods. subset: unlabelled examples that are looked at, redrawn each round; all if it is None, or
    no more than k, since buying all that is looked at would be a random choice. The paper buys 1,000 of 10,000.

    Deviations from the comparison's published code, all of them errors there:
    - it buys the smallest predicted losses, of scores whose order was shuffled: a random choice;
    - the layers of 128 are never trained, as they are in a Python list;
    - the gradient is never stopped (`f = f.detach()` changes a loop variable);
    - gradients are clipped after the step, or not at all, where other methods clip them before.
    """
    for name, number in (("margin", margin), ("weight", weight)):
        if not (isinstance(number, float | int) and 0 <= number < float("inf")):
            raise InputError(f"{name}={number!r} of learning_loss is not a number from 0 on")
    if not (isinstance(stop, float | int) and 0 <= stop <= 1):
        raise InputError(f"stop={stop} of learning_loss is not a share of the epochs")
    if not (subset is None or (isinstance(subset, int) and subset >= 1)):
        raise InputError(f"subset={subset} of learning_loss is not a positive whole number")

    def loss(network: Network, variables: Tree, batch: Batch, key: Array, moment: Moment) -> tuple[Array, Tree]:
        logits, taps = answers(network, variables, batch, key)
        losses = cross_entropies(logits, batch.y)
        reaches = moment.progress < stop
        maps = tuple(jnp.where(reaches, one, jax.lax.stop_gradient(one)) for one in taps["maps"])
        ranking = ranking_loss(predict(variables["helpers"], maps), losses, margin)
        return jnp.mean(losses) + weight * ranking, taps["batch_stats"]

    def helpers(key: Array, taps: Tree) -> Tree:
        return initialise(LossModule(), key, tuple(jnp.zeros(one.shape) for one in taps["maps"]))["params"]

    def wrap(trainer: Trainer) -> Trainer:
        if trainer.phases != supervised().phases:
            raise InputError("learning_loss is a way of supervised training: it needs --trainer=supervised")
        return trainer._replace(phases=(Phase(loss, trains=("params", "helpers")),), helpers=helpers)

    def select(key: Array, known: Array, k: int, memory: Tree, predicted: Array) -> tuple[Array, Tree]:
        size = known.shape[0]
        looked_at = size if subset is None or k >= subset else subset
        if looked_at < size:
            few = top_unknown(jax.random.permutation(key, size).astype(jnp.float32), known, looked_at)
            among = jnp.zeros(size, jnp.bool_).at[few].set(True) & (known < 0)
            known = jnp.where(among, -1, 0)
        return top_unknown(predicted, known, k), memory

    return Strategy(needs=(predicted_loss,), select=select, wrap=wrap)
