"""Preparing images on the device: crop, flip, normalise. Written for one image; `network` lifts it to batches."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxdal.types import Array, Model, Network


def normalise(x: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """Scale pixels to zero mean and unit variance per channel. x: u8[..., C] -> f32[..., C]."""
    scale = 1.0 / (255.0 * jnp.asarray(std, jnp.float32))
    shift = jnp.asarray(mean, jnp.float32) / jnp.asarray(std, jnp.float32)
    return x.astype(jnp.float32) * scale - shift


def random_crop(key: Array, x: Array, padding: int) -> Array:
    """Shift one image by up to `padding` pixels each way, black coming in. x: u8[H, W, C] -> u8[H, W, C].

    The padding is black before normalisation, as in the published runs.
    """
    if padding == 0:
        return x
    offsets = jax.random.randint(key, (2,), 0, 2 * padding + 1)
    padded = jnp.pad(x, ((padding, padding), (padding, padding), (0, 0)))
    return jax.lax.dynamic_slice(padded, (offsets[0], offsets[1], jnp.int32(0)), x.shape)


def random_flip(key: Array, x: Array) -> Array:
    """Mirror one image left to right with probability one half. x: u8[H, W, C] -> u8[H, W, C]."""
    return jnp.where(jax.random.bernoulli(key), x[:, ::-1], x)


def network(model: Model, mean: Sequence[float], std: Sequence[float], *, crop: int, flip: bool) -> Network:
    """Join a model with the preparation of its images."""

    def augment_one(key: Array, x: Array) -> Array:
        key_crop, key_flip = jax.random.split(key)
        x = random_crop(key_crop, x, crop)
        return random_flip(key_flip, x) if flip else x

    def weak(key: Array, x: Array) -> Array:
        return jax.vmap(augment_one)(jax.random.split(key, x.shape[0]), x)

    def augment(key: Array, x: Array) -> Array:
        return normalise(weak(key, x), mean, std)

    def views(x: Array) -> tuple[Array, ...]:
        return tuple(normalise(one, mean, std) for one in ((x, x[:, :, ::-1]) if flip else (x,)))

    return Network(
        model.init, model.apply, augment, lambda x: normalise(x, mean, std), model.stochastic_head,
        views=views if crop == 0 else None, weak=weak,
    )  # fmt: skip
