"""VAAL: an auto-encoder hides from a discriminator what is labelled; buy what looks unlabelled all the same."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap

from jaxdal.errors import InputError
from jaxdal.models.vae import Critic, Vae, critic, vae
from jaxdal.strategies.picking import top_unknown
from jaxdal.types import Array, Network, Pool, Signal, Strategy, Tree

PASSES, LEAST, MOST = 20, 100, 3000  # over the pool; iterations, at least and at most, unless told otherwise


class Options(NamedTuple):
    """All that decides a fit; see `vaal`."""

    iterations: int | None
    batch: int
    latent: int | None
    widths: Sequence[int] | None
    critic_widths: Sequence[int] | None
    beta: float
    adversary: float
    vae_steps: int
    learning_rate: float
    kl: str
    augment: bool


class Adam(NamedTuple):
    """Parameters with their moments (Kingma and Ba 2015)."""

    params: Tree
    first: Tree
    second: Tree
    steps: Array  # f32[]


class State(NamedTuple):
    """Both players in the middle of their game."""

    vae: Adam
    batch_stats: Tree
    critic: Adam


def adam(params: Tree) -> Adam:
    """Before the first step."""
    zeros = jax.tree.map(jnp.zeros_like, params)
    return Adam(params, zeros, zeros, jnp.float32(0))


def descend(state: Adam, gradients: Tree, rate: float) -> Adam:
    """Take a step, with torch's constants: 0.9, 0.999, 1e-8. (optax's fails under strict promotion of dtypes.)"""
    steps = state.steps + 1
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state.first, gradients)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * jnp.square(g), state.second, gradients)
    one, other = 1 - jnp.power(0.9, steps), 1 - jnp.power(0.999, steps)

    def move(p: Array, m: Array, v: Array) -> Array:
        return p - rate * (m / one) / (jnp.sqrt(v / other) + 1e-8)

    return Adam(jax.tree.map(move, state.params, first, second), first, second, steps)


def divergence(mean: Array, log_variance: Array) -> Array:
    """KL(N(mean, exp(log_variance)) || N(0, 1)), in nats, summed over latent numbers: f32[B, z] twice -> f32[B]."""
    return 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance, axis=-1)


def called_labelled(logits: Array) -> Array:
    """Mean cross-entropy of the answer "labelled" (1): -log D. f32[B] -> f32[]."""
    return jnp.mean(jax.nn.softplus(-logits))


def called_unlabelled(logits: Array) -> Array:
    """Mean cross-entropy of the answer "unlabelled" (0): -log(1 - D). f32[B] -> f32[]."""
    return jnp.mean(jax.nn.softplus(logits))


def vae_step(options: Options, vae: Vae, critic: Critic, state: State, x: Array, noise: Array) -> tuple[State, Array]:
    """Move the auto-encoder alone. x: f32[2 B, H, W, C], labelled first; noise: f32[2 B, latent] -> and the loss."""

    def loss_of(params: Tree) -> tuple[Array, Tree]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        image, mean, log_variance, batch_stats = vae.train(variables, x, noise)
        # Sums of the means over labelled and over unlabelled images, which are as many: twice the mean of all.
        error, kl = 2 * jnp.mean(jnp.square(image - x)), jnp.sum(divergence(mean, log_variance))
        if options.kl == "balanced":  # of an image both, as in a bound on its likelihood
            error, kl = error * math.prod(x.shape[1:]), kl / options.batch
        seen = 2 * called_labelled(critic.apply(state.critic.params, mean))  # "labelled" both: to deceive is the aim
        return error + options.beta * kl + options.adversary * seen, batch_stats

    (loss, batch_stats), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.vae.params)
    after = state._replace(vae=descend(state.vae, gradients, options.learning_rate), batch_stats=batch_stats)
    return unless_broken(state, after, loss), loss


def critic_step(options: Options, vae: Vae, critic: Critic, state: State, x: Array) -> tuple[State, Array]:
    """Move the discriminator alone. x: f32[2 B, H, W, C], labelled first -> and the loss."""
    variables = {"params": state.vae.params, "batch_stats": state.batch_stats}
    _, mean, _, _ = vae.train(variables, x, jnp.zeros((len(x), vae.latent)))

    def loss_of(params: Tree) -> Array:
        logits = critic.apply(params, mean)
        return called_labelled(logits[: len(x) // 2]) + called_unlabelled(logits[len(x) // 2 :])

    loss, gradients = jax.value_and_grad(loss_of)(state.critic.params)
    after = state._replace(critic=descend(state.critic, gradients, options.learning_rate))
    return unless_broken(state, after, loss), loss


def unless_broken(before: State, after: State, loss: Array) -> State:
    """Leave a step out whose loss is not finite, as the comparison does: weights that are NaN would rank nothing."""
    return jax.tree.map(lambda new, old: jnp.where(jnp.isfinite(loss), new, old), after, before)


def start(vae: Vae, critic: Critic, key: Array) -> State:
    """Fresh players."""
    vae_key, critic_key = jax.random.split(key)
    variables = vae.init(vae_key)
    return State(adam(variables["params"]), variables["batch_stats"], adam(critic.init(critic_key)))


def members(which: Array) -> tuple[Array, Array]:
    """Where a mask is true, filled up, and how many these are; everywhere, if nowhere. bool[N] -> i32[N], i32[]."""
    which = which | ~jnp.any(which)
    return jnp.nonzero(which, size=len(which), fill_value=0)[0].astype(jnp.int32), jnp.sum(which, dtype=jnp.int32)


def length(options: Options, size: int) -> int:
    """How many iterations a pool of this size gets."""
    if options.iterations is not None:
        return options.iterations
    return min(max(PASSES * -(-size // options.batch), LEAST), MOST)


def fit(
    options: Options, vae: Vae, critic: Critic, prepare: Callable[[Array, Array], Array], key: Array, known: Array,
    pool: Array,
) -> State:  # fmt: skip
    """Let them play. prepare(key, u8[B, H, W, C]) -> f32[B, H, W, C]; known: i32[N], pool: u8[N, H, W, C]."""
    start_key, steps_key = jax.random.split(key)
    sides = members(known >= 0), members(known < 0)

    def batch(key: Array) -> tuple[Array, Array]:
        place_key, noise_key, image_key = jax.random.split(key, 3)
        uniform = jax.random.uniform(place_key, (2, options.batch))
        places = [
            place[jnp.minimum((share * count.astype(jnp.float32)).astype(jnp.int32), count - 1)]
            for share, (place, count) in zip(uniform, sides, strict=True)
        ]
        noise = jax.random.normal(noise_key, (2 * options.batch, vae.latent))
        return prepare(image_key, pool[jnp.concatenate(places)]), noise

    def iteration(number: Array | int, state: State) -> State:
        def move(part: Array | int, carried: tuple[State, Array]) -> tuple[State, Array]:
            state, _ = carried
            part_key = jax.random.fold_in(jax.random.fold_in(steps_key, number), part)
            x, noise = batch(part_key)
            return vae_step(options, vae, critic, state, x, noise)[0], x

        blank = jnp.zeros((2 * options.batch, *pool.shape[1:]))
        state, x = jax.lax.fori_loop(0, options.vae_steps, move, (state, blank))
        return critic_step(options, vae, critic, state, x)[0]

    return jax.lax.fori_loop(0, length(options, len(known)), iteration, start(vae, critic, start_key))


def unlabelled_look(options: Options) -> Signal:
    """How much an image looks unlabelled to the discriminator, as a logit: -log(D / (1 - D)) at the mean code. f32[N].

    Players of their own, which share nothing with the network that is trained, are fitted once per round.
    """

    def players(shape: Sequence[int]) -> tuple[Vae, Critic]:
        encoder = vae((shape[1], shape[2], shape[3]), options.latent, options.widths)
        return encoder, critic(encoder.latent, options.critic_widths or ((512, 512) if encoder.convolves else (64, 64)))

    def prepare(key: Array, network: Network, variables: Tree, pool: Pool, known: Array) -> Tree:
        del variables
        both = players(pool.x.shape)

        def fitted(key_data: Array, known: Array, x: Array) -> Tree:
            key = jax.random.wrap_key_data(key_data)
            images = network.augment if options.augment else lambda key, x: network.normalise(x)
            state = fit(options, *both, images, key, known, x)
            return {"params": state.vae.params, "batch_stats": state.batch_stats}, state.critic.params

        # A convolutional player keeps an accelerator busy alone, and packed with others it costs their number of times
        # as much (models/convolution.py): one run after another. Small matrices are better packed.
        lifted = sequential_vmap(fitted) if both[0].convolves else fitted
        return lifted(jax.random.key_data(key), known, pool.x)

    def per_batch(keys: Array, network: Network, variables: Tree, aux: Tree, x: Array) -> Array:
        del keys, variables
        encoder, discriminator = players(x.shape)
        variables, params = aux
        return -discriminator.apply(params, encoder.encode(variables, network.normalise(x))[0])

    alike = "augment=True changes nothing" if options.augment else ""
    return Signal(f"unlabelled_look {tuple(options)}", per_batch, prepare, unaugmented=alike)


def checked(options: Options) -> Options:
    """Return them, widths as tuples.

    Raises:
        InputError: one of them means nothing.
    """
    for name in ("iterations", "batch", "latent", "vae_steps"):
        number = getattr(options, name)
        if not (isinstance(number, int) and number >= 1) and not (number is None and name in ("iterations", "latent")):
            raise InputError(f"{name}={number} of vaal is not a positive whole number")
    for name in ("widths", "critic_widths"):
        layers = getattr(options, name)
        if layers is not None and not (
            isinstance(layers, Sequence) and layers and all(isinstance(wide, int) and wide >= 1 for wide in layers)
        ):
            raise InputError(f"{name}={layers!r} of vaal is not a list of layer widths")
    for name in ("beta", "adversary", "learning_rate"):
        number = getattr(options, name)
        if not (isinstance(number, int | float) and 0 <= number < math.inf):
            raise InputError(f"{name}={number} of vaal is not a number from 0 on")
    if options.kl not in ("balanced", "reference"):
        raise InputError(f"kl={options.kl!r} of vaal is neither 'balanced' nor 'reference'")
    widths, critic_widths = (layers and tuple(layers) for layers in (options.widths, options.critic_widths))
    return options._replace(widths=widths, critic_widths=critic_widths)


def vaal(
    iterations: int | None = None, batch: int = 128, latent: int | None = None, widths: Sequence[int] | None = None,
    critic_widths: Sequence[int] | None = None, beta: float = 1.0, adversary: float = 1.0, vae_steps: int = 2,
    learning_rate: float = 5e-4, kl: str = "balanced", augment: bool = False,
) -> Strategy:  # fmt: skip
    """What a discriminator is surest is unlabelled first: Sinha, Ebrahimi and Darrell 2019 (arXiv 1904.00370).

    A variational auto-encoder of all pixels learns to pass its codes to the discriminator D as labelled, and D to tell
    labelled codes from unlabelled ones, in turns, anew every round. Then the k lowest D(mean code) are bought. With
    means over a batch of labelled (L) and one of unlabelled images (U), per iteration `vae_steps` times the first:
        VAE: min |x - x'|^2 + beta KL(q(z|x) || N(0, 1)) on L and U, - adversary [log D(mean_L) + log D(mean_U)];
        D: min - log D(mean_L) - log (1 - D(mean_U)).

    iterations: None: 20 passes over the pool, at least 100, at most 3,000. The authors make 100 passes, the comparison
        as many iterations as its network takes training steps: on CIFAR-10 3,000 at the start, 20,550 at the end.
        By arithmetic an iteration of the convolutional form on 32x32 images is 1.7 TFLOP: for accelerators, the more
        so since XLA:CPU is slow at convolutions in loops (jax-ml/jax#12868). One of the linear form on 28x28x1 images
        took 0.07 seconds of CPU time on a busy machine.
    batch: images of each kind. latent, widths: see `models.vae.vae`. critic_widths: hidden layers of D; None: 512-512
        (Sinha et al.) for the convolutional one, else 64-64. learning_rate: of Adam, for both.
    kl: "balanced": squared errors and divergence are sums over an image, a bound on its likelihood. "reference": as
        published, where the error is a mean over pixels and images and the divergence a sum over latent numbers and
        images. It outweighs the error by orders of magnitude, the codes collapse to 0, and D has little to look at.
    augment: train on augmented images, as the comparison, and not on clean ones, as D sees them at the query.

    Deviations from the authors' code, besides "balanced" and clean images:
    - labelled and unlabelled images form one batch, so that BatchNorm treats both alike, as at the query. There each
      kind has statistics of its own, which hides from D what tells the kinds apart on average;
    - the query uses running statistics, there those of its batches: the batch size of scoring changes nothing;
    - batches are drawn with replacement; a kind without images is drawn from the whole pool;
    - linear form (from the comparison's code): no sigmoid at the end of the decoder, which normalised images do not fit
      in; narrower layers for less than 256 pixels; D has 64-64 hidden units and not 5, which stay near where they begin
      in as many steps;
    - sides that the strides do not divide are padded with the mean; the reconstruction is cut to the image.
    """
    options = checked(
        Options(
            iterations, batch, latent, widths, critic_widths, beta, adversary, vae_steps, learning_rate, kl, augment
        )
    )

    def select(key: Array, known: Array, k: int, memory: Tree, look: Array) -> tuple[Array, Tree]:
        del key
        return top_unknown(look, known, k), memory

    return Strategy(needs=(unlabelled_look(options),), select=select)
