"""A small network with normalisation by the batch, as `tests/reference/semisupervised.py` has it, and its images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxdal import augment
from jaxdal.types import Batch, Model, Network

SIDE, HIDDEN, CLASSES = 4, 5, 3
MEAN, STD = (0.4,), (0.3,)


def _init(key):
    key_hidden, key_kernel, key_bias = jax.random.split(key, 3)
    params = {
        "hidden": jax.random.normal(key_hidden, (SIDE * SIDE, HIDDEN)),
        "kernel": jax.random.normal(key_kernel, (HIDDEN, CLASSES)),
        "bias": jax.random.normal(key_bias, (CLASSES,)),
    }
    return {"params": params, "batch_stats": {"mean": jnp.zeros(HIDDEN)}}


def _apply(variables, x, *, train=False, dropout_key=None, chunks=1):
    assert train, "nothing is scored with this one"
    params, running = variables["params"], variables["batch_stats"]["mean"]
    hidden = jnp.matmul(x.reshape(x.shape[0], -1), params["hidden"], precision="highest").reshape(chunks, -1, HIDDEN)
    mean, var = hidden.mean(1, keepdims=True), hidden.var(1, keepdims=True)
    for of_chunk in mean[:, 0]:
        running = 0.9 * running + 0.1 * of_chunk
    hidden = jnp.tanh((hidden - mean) / jnp.sqrt(var + 1e-5)).reshape(-1, HIDDEN)
    logits = jnp.matmul(hidden, params["kernel"], precision="highest") + params["bias"]
    return logits, {"features": hidden, "batch_stats": {"mean": running}}


@functools.cache
def network() -> Network:
    """With a crop and a flip, so that views differ."""
    return augment.network(Model(_init, _apply, pack=1), MEAN, STD, crop=1, flip=True)


def batch(size: int, unlabelled: int, seed: int = 0) -> Batch:
    """Random pixels and labels."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (size + unlabelled, SIDE, SIDE, 1), np.uint8)
    labels = rng.integers(0, CLASSES, size).astype(np.int32)
    return Batch(jnp.asarray(pixels[:size]), jnp.asarray(labels), jnp.asarray(pixels[size:]))
