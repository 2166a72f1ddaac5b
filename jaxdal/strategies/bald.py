"""BALD: buy where the network's dropout masks disagree about the answer."""

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

from jaxdal.errors import InputError
from jaxdal.strategies.picking import top_unknown
from jaxdal.types import Array, Network, Signal, Strategy, Tree


def mutual_information(draws: int = 10) -> Signal:
    """What an answer would tell about the dropout mask, in nats: Gal, Islam and Ghahramani (2017), section 3.

    With p_t the softmax of the t-th of T = `draws` passes, each with masks of its own for every example,
        I[y, w | x] = H(mean_t p_t) - mean_t H(p_t),    0 <= I <= min(log K, log T).
    f32[N]. Houlsby et al. (2011) proposed it, Gal et al. made w a dropout mask. Passes are streamed, so that a batch
    takes O(B K) memory whatever T, and only what comes after the first mask is computed T times.
    """
    if not (isinstance(draws, int) and draws >= 1):
        raise InputError(f"draws={draws} of bald is not a number of passes")

    def per_batch(keys: Array, network: Network, variables: Tree, aux: Tree, x: Array) -> Array:
        del aux
        head = network.stochastic_head
        if head is None:
            raise InputError("bald needs a model with dropout to draw from, and this one has no stochastic_head")
        _, taps = network.apply(variables, network.normalise(x))

        def one_pass(t: Array, so_far: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            mean, mean_product, differ = so_far
            probs = jax.nn.softmax(head(variables, taps, jax.vmap(jax.random.fold_in, (0, None))(keys, t)))
            differ |= (probs != mean) & (t > 0)
            weight = 1 / (t + 1).astype(jnp.float32)  # running means: those of equal numbers are equal to them
            mean_product += (xlogy(probs, probs) - mean_product) * weight
            return mean + (probs - mean) * weight, mean_product, differ

        blank = jnp.zeros(jax.eval_shape(head, variables, taps, keys).shape, jnp.float32)
        mean, mean_product, differ = jax.lax.fori_loop(0, draws, one_pass, (blank, blank, blank > 0))
        # Passes that agree leave exactly 0, and not rounding: that grows with the entropy, and would make an
        # uncertainty sampler of a network that drops nothing. By Jensen's inequality no class adds less than 0.
        gain = jnp.maximum(mean_product - xlogy(mean, mean), 0)
        return jnp.sum(jnp.where(differ, gain, 0), axis=-1)

    return Signal(f"mutual_information_{draws}", per_batch)


def bald(draws: int = 10) -> Strategy:
    """The largest mutual information between answer and dropout mask first (Gal et al. 2017; Houlsby et al. 2011).

    draws: passes per image. 10 as in the published comparison; the authors' script is said to have taken 100.
    Deviations from the comparison's published code, which is wrong in the first three:
    - BatchNorm stays in evaluation mode. There a pass normalises by its own, often class-sorted, batch.
    - The residual networks drop features. There their dropout is off, the passes agree, and rounding is ranked.
    - A probability that underflows to 0 counts as 0 log 0 = 0. There its NaN keeps the example from being picked.
    - Masks come from a key per example and pass: the batch size of scoring changes nothing.
    Kept from it: dropout of trained networks at query time only, except for LeNet, which trains with it anyway.
    """

    def select(key: Array, known: Array, k: int, memory: Tree, information: Array) -> tuple[Array, Tree]:
        del key
        return top_unknown(information, known, k), memory

    return Strategy(needs=(mutual_information(draws),), select=select)
