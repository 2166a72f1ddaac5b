"""Pools of 40 examples, a network that answers from a table, and the picks of a strategy there."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdal import signals, trainers
from jaxdal.keys import keys_for
from jaxdal.types import Network, Pool, Strategy, Trainer

N, CLASSES, WIDTH, K = 40, 5, 6, 7  # pool, classes, features, picks


def training(strategy: Strategy) -> Trainer:
    """How the strategy has its network trained."""
    return strategy.wrap(trainers.build(strategy.trainer))


class Scene(NamedTuple):
    """A pool, and what a network that never was makes of it."""

    logits: np.ndarray  # f32[N, CLASSES]
    features: np.ndarray  # f32[N, WIDTH]
    known: np.ndarray  # i32[N]
    number: np.ndarray  # u8[N], by which the network knows an example
    shades: np.ndarray  # u8[N, 2], what the images show besides

    @property
    def unknown(self) -> list[int]:
        """What may be bought."""
        return np.flatnonzero(self.known < 0).tolist()


def scene(seed: int = 0, labelled: int = 9) -> Scene:
    """Nothing special: no ties, and some examples known."""
    rng = np.random.default_rng(seed)
    known = np.full(N, -1, np.int32)
    known[rng.permutation(N)[:labelled]] = np.arange(labelled) % CLASSES
    logits, features = 2 * rng.standard_normal((N, CLASSES)), rng.standard_normal((N, WIDTH))
    shades = np.array([40, 160]) + rng.integers(0, 20, (N, 2))
    number = np.arange(N, dtype=np.uint8)
    return Scene(logits.astype(np.float32), features.astype(np.float32), known, number, shades.astype(np.uint8))


def obvious(where: list[int], *, apart: bool = True) -> Scene:
    """Some examples in doubt, far from the rest or in its midst; the rest is alike and beyond doubt."""
    plain = scene()
    logits = (12 * np.eye(CLASSES, dtype=np.float32))[np.arange(N) % CLASSES] + 0.1 * plain.logits
    features = (2 * np.eye(CLASSES, WIDTH, dtype=np.float32))[np.arange(N) % CLASSES] + 0.01 * plain.features
    shades = plain.shades.copy()
    for number, example in enumerate(where):
        logits[example] *= 0.001
        shades[example] = [250, 0]
        if apart:
            features[example] = 40 * (-1) ** number * np.eye(WIDTH)[WIDTH - 1 - number // 2]
    return Scene(logits, features, plain.known, plain.number, shades)


def synthetic_network(scene: Scene) -> Network:
    """Answers from a table; the first channel of an image of one pixel is its number, the others are its shades.

    Every second view is brighter by half. That speaks for the first class: it moves the answer where there is doubt.
    """
    logits, features, place = jnp.asarray(scene.logits), jnp.asarray(scene.features), jnp.argsort(scene.number)

    def apply(variables, x, *, train=False, dropout_key=None):
        assert not train, "signals are computed in evaluation mode"
        assert dropout_key is None, "dropout is active in the head alone"
        pixel = 64 * jax.lax.stop_gradient(x[:, 0, 0, 0])  # no attack gets from one number to another
        number = pixel.astype(jnp.int32)
        view = (pixel - number.astype(jnp.float32))[:, None] * jnp.eye(1, logits.shape[1])
        seen = features[place[number]]
        taps = {"features": seen, "maps": (seen[:, None, None],), "batch_stats": variables["batch_stats"]}
        return logits[place[number]] + view, taps

    def stochastic_head(variables, taps, keys):
        """Each example's own dropout of its features, then a linear layer that is sure of large ones."""
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (WIDTH,)))(keys)
        return jnp.square(taps["features"] / 4 * kept.astype(jnp.float32)) @ jnp.eye(WIDTH, CLASSES, -1)

    def pixels(x):
        return x.astype(jnp.float32) / 64

    def views(x):
        return pixels(x), pixels(x) + 0.5 / 64

    def augment(key, x):
        return jnp.where(jax.random.bernoulli(key, shape=(x.shape[0], 1, 1, 1)), *views(x))

    return Network(lambda key: {"params": {}, "batch_stats": {}}, apply, augment, pixels, stochastic_head, views=views)


def look(strategy: Strategy, scene: Scene, key: jax.Array) -> list[jax.Array]:
    """The signals that a strategy needs, as `signals.Gather` computes them."""
    helpers = training(strategy).helpers
    return [signalled(signal, helpers)(scene, key) for signal in strategy.needs]


@functools.cache
def signalled(signal: signals.Signal, helpers: Callable[..., Any] | None):
    """Compiled once, as there: some signals train a network of their own."""

    def compute(scene: Scene, key: jax.Array) -> jax.Array:
        network = synthetic_network(scene)
        pool = Pool(jnp.concatenate([scene.number[:, None], scene.shades], axis=1).reshape(N, 1, 1, -1))
        variables = network.init(key)
        if helpers is not None:
            _, taps = jax.eval_shape(network.apply, variables, jnp.zeros((1, 1, 1, 3)))
            variables["helpers"] = helpers(key, taps)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(N))
        try:
            aux = () if signal.prepare is None else signal.prepare(key, network, variables, pool, scene.known)
            return signal.per_batch(keys, network, variables, aux, pool.x)
        except Exception as error:
            missing = f"the synthetic network has not what signal {signal.name!r} asks for: teach it ({error!r})"
            raise NotImplementedError(missing) from error

    return jax.jit(compute)


@functools.cache
def compiled(strategy: Strategy):
    return jax.jit(strategy.select, static_argnums=2)


def choose(strategy: Strategy, scene: Scene, k: int = K, seed: int = 0) -> list[int]:
    """The picks of a first round, which must be valid whatever the scene."""
    keys = keys_for(seed, 0)
    found = look(strategy, scene, keys.signals)
    picks, _ = compiled(strategy)(keys.select, scene.known, k, strategy.memory(N), *found)
    assert picks.shape == (k,)
    assert picks.dtype == jnp.int32
    picks = picks.tolist()
    assert set(picks) <= set(scene.unknown), "out of range, or known already"
    assert len(set(picks)) == k, "the same example twice"
    return picks
