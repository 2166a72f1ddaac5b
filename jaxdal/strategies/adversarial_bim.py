"""AdversarialBIM: buy what the smallest steps against the gradient of the input push over the boundary."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdal import signals
from jaxdal.errors import InputError
from jaxdal.strategies.scores import margin_score
from jaxdal.types import Array, Network, Signal, Strategy, Tree

Walk = tuple[Array, Array, Array]  # signed steps so far f32[B, H, W, C], state i32[B], steps gone i32[]
WALKING, FLIPPED, STUCK = (np.int32(state) for state in range(3))
TAIL = 8  # once this part of a batch is left, the others are not computed any more


def log_odds_against(logits: Array, answer: Array) -> Array:
    """log((1 - p_y) / p_y) of the class y that is the answer: f32[B, K], i32[B] -> f32[B].

    As logsumexp of the other logits minus that of y. 0 where that is not finite, as for a single class.
    """
    own = answer[:, None] == jnp.arange(logits.shape[-1], dtype=answer.dtype)
    others = jax.nn.logsumexp(jnp.where(own, -jnp.inf, logits), axis=-1)
    against = others - jnp.sum(jnp.where(own, logits, 0), axis=-1)
    return jnp.where(jnp.isfinite(against), against, 0)


def squared_distance(epsilon: float = 0.05, cap: int = 100) -> Signal:
    """How far the basic iterative method goes until the answer changes: |eta|², f32[N], normalised units; inf if never.

    With y the network's own answer for x, eta_0 = 0 and CE the cross entropy,
        eta_{s+1} = eta_s + epsilon sign(grad_x CE(f(x + eta_s), y))    until argmax f(x + eta_s) != y or s = cap:
    Kurakin, Goodfellow and Bengio (2017), section 2.2, without its clipping. Where no element of the gradient is other
    than 0 or NaN nothing will change any more, and the example counts as one that never does.

    The sign is taken of the gradient of o = `log_odds_against` y, of which CE = log(1 + exp(o)) is a function:
        grad CE = (1 - p_y) grad o,    1 - p_y > 0.
    That of CE itself loses -grad f_y where the network is sure: in float32, p_y - 1 is exactly 0 from 17 between the
    logits on.
    """
    if not (isinstance(epsilon, float | int) and 0 < epsilon < float("inf")):
        raise InputError(f"epsilon={epsilon} of adversarial_bim is not a step")
    if not (isinstance(cap, int) and cap >= 1):
        raise InputError(f"cap={cap} of adversarial_bim is not a number of steps")

    def per_batch(keys: Array, network: Network, variables: Tree, aux: Tree, x: Array) -> Array:
        del keys, aux
        start = network.normalise(x)
        answer = jnp.argmax(network.apply(variables, start)[0], axis=-1)

        def climbed(x: Array, answer: Array) -> tuple[Array, Array]:
            logits, _ = network.apply(variables, x)
            against = jnp.sum(log_odds_against(logits, answer))  # each row's gradient is its own: evaluation mode
            return against, jnp.argmax(logits, axis=-1)

        def attack(start: Array, answer: Array, walked: Walk, enough: int) -> Walk:
            """Go on until `enough` rows or fewer are on their way, or all have gone `cap` steps."""

            def unfinished(walk: Walk) -> Array:
                _, state, step = walk
                return (jnp.sum(state == WALKING) > enough) & (step <= cap)

            def one_step(walk: Walk) -> Walk:
                steps, state, step = walk
                gradient, now = jax.grad(climbed, has_aux=True)(start + epsilon * steps, answer)
                direction = jnp.nan_to_num(jnp.sign(gradient))
                stuck = ~jnp.any(direction != 0, axis=(1, 2, 3))
                after = jnp.where(now != answer, FLIPPED, jnp.where(stuck, STUCK, WALKING))
                state = jnp.where(state == WALKING, after, state)
                walks = (state == WALKING) & (step < cap)
                return steps + jnp.where(walks[:, None, None, None], direction, 0), state, step + 1

            return jax.lax.while_loop(unfinished, one_step, walked)

        rows = x.shape[0]
        walking = jnp.full(rows, WALKING)
        few = rows // TAIL
        steps, state, step = attack(start, answer, (jnp.zeros_like(start), walking, jnp.int32(0)), few)
        if few:  # most rows need few steps and some all: those go on in a smaller batch
            last = jnp.argsort(state, stable=True)[:few]  # WALKING is the least
            late = attack(start[last], answer[last], (steps[last], state[last], step), 0)
            steps, state = steps.at[last].set(late[0]), state.at[last].set(late[1])
        # Of whole numbers, so that ties are ties: exact below 2^24, which takes 40 steps in 10,000 pixels.
        distance = jnp.sum(jnp.square(steps), axis=(1, 2, 3)) * epsilon**2
        return jnp.where(state == FLIPPED, distance, jnp.inf)

    return Signal(f"adversarial_distance_{epsilon}_{cap}", per_batch)


def adversarial_bim(epsilon: float = 0.05, cap: int = 100) -> Strategy:
    """The smallest adversarial perturbation |eta|² first; ties by margin, then by index.

    Ties are the rule: all that change at the first step are as far, epsilon² for each pixel whose gradient is not 0.
    What never changes comes last. The comparison (its code, after Huang's deep-active-learning) names Ducoffe and
    Precioso (2018), who measure by DeepFool and train on the perturbed twins as well: neither is done here or there.

    epsilon: the length of a step in every pixel, in normalised units. cap: steps before an example is given up.
    Deviations from the comparison's published code:
    - An example that never changes is infinitely far. There it gets the distance that it went, which is 0 where the
      gradient is: examples that the network is very sure of are bought first.
    - The gradient of the cross entropy is that of the log-odds, times a factor that does not change its sign. There it
      loses -grad f_y, and with it its direction, where the network is sure (see `squared_distance`).
    - Ties go by the margin of the clean example, and not by what the sort makes of the order of the file.
    - All examples of a batch go at once. As there, nothing is clipped to valid pixels or to a largest perturbation.
    A loop of gradients is slow for convolutional networks on a CPU (jax-ml/jax#12868), except for lenet.
    """

    def select(key: Array, known: Array, k: int, memory: Tree, distance: Array, probs: Array) -> tuple[Array, Tree]:
        del key
        return jnp.lexsort((-margin_score(probs), distance, known >= 0))[:k].astype(jnp.int32), memory

    return Strategy(needs=(squared_distance(epsilon, cap), signals.probs), select=select)
