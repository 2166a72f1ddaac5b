"""RandAugment as array functions: strong distortion of one image, on the device. The results are Pillow's.

But for `auto_contrast`, which in rare pixels is brighter by one: where a stretched value is a whole number, Pillow's
floating-point scale may end just below it, and is cut.

Cubuk et al. (2020), arXiv 1909.13719, with the operations and ranges of FixMatch (Sohn et al. 2020, arXiv 2001.07685,
appendix E). An image is u8[H, W, C]; what is said of grey values or colours holds for one channel or three.
Arithmetic is in integers wherever Pillow rounds.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdal.types import Array

GREY = 127  # of Cutout's patch
HALF = 1 << 15  # a half in fixed point with 16 bits after the point


class Operation(NamedTuple):
    """A distortion, and the range that its strength is drawn from."""

    apply: Callable[..., Array]  # (x, strength) -> x, or for AFFINE (strength, height, width) -> f32[6]
    least: float = 0.0
    most: float = 0.0


def identity(x: Array, strength: Array) -> Array:
    """Leave the image alone."""
    del strength
    return x


def auto_contrast(x: Array, strength: Array) -> Array:
    """Stretch every channel to 0..255; a constant one stays."""
    del strength
    value = x.astype(jnp.int32)
    low, high = value.min((0, 1)), value.max((0, 1))
    stretched = (value - low) * 255 // jnp.maximum(high - low, 1)
    return jnp.where(high > low, stretched, value).astype(jnp.uint8)


def equalize(x: Array, strength: Array) -> Array:
    """Spread the grey values of every channel evenly, by its histogram."""
    del strength
    channel = jnp.arange(x.shape[2], dtype=jnp.int32)
    value = x.astype(jnp.int32)
    histogram = jnp.zeros((x.shape[2], 256), jnp.int32).at[channel, value].add(1)
    of_largest = jnp.take_along_axis(histogram, value.max((0, 1))[:, None], axis=1)
    step = (x.shape[0] * x.shape[1] - of_largest) // 255  # [C, 1]
    below = jnp.cumsum(histogram, axis=1) - histogram
    table = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    return jnp.where(step[:, 0] > 0, table[channel, value], value).astype(jnp.uint8)


def brightness(x: Array, strength: Array) -> Array:
    """Blend with black; a strength of 1 is the image."""
    return _blend(jnp.zeros_like(x), x, strength)


def color(x: Array, strength: Array) -> Array:
    """Blend with the grey version."""
    return _blend(_grey(x), x, strength)


def contrast(x: Array, strength: Array) -> Array:
    """Blend with the mean grey value."""
    pixels = x.shape[0] * x.shape[1]
    total = jnp.sum(_grey(x)[:, :, 0].astype(jnp.int32))
    mean = (2 * total + pixels) // (2 * pixels)
    return _blend(jnp.full_like(x, mean.astype(jnp.uint8)), x, strength)


def sharpness(x: Array, strength: Array) -> Array:
    """Blend with the image smoothed by a 3x3 kernel, whose border is left as it is."""
    height, width, _ = x.shape
    value = x.astype(jnp.int32)
    around = sum(value[i : height - 2 + i, j : width - 2 + j] for i in range(3) for j in range(3))
    smooth = (2 * (around + 4 * value[1:-1, 1:-1]) + 13) // 26  # the centre counts five times, all of them 13
    return _blend(x.at[1:-1, 1:-1].set(smooth.astype(jnp.uint8)), x, strength)


def posterize(x: Array, strength: Array) -> Array:
    """Keep so many bits, rounded down, of every value."""
    dropped = 8 - jnp.minimum(jnp.floor(strength).astype(jnp.int32), 8)
    return (x.astype(jnp.int32) >> dropped << dropped).astype(jnp.uint8)


def solarize(x: Array, strength: Array) -> Array:
    """Invert values of at least strength x 256."""
    return jnp.where(x.astype(jnp.int32) < jnp.floor(256 * strength).astype(jnp.int32), x, 255 - x)


def _grey(x: Array) -> Array:
    """Luma (ITU-R 601-2) in every channel."""
    if x.shape[2] != 3:
        return x
    luma = jnp.sum(x.astype(jnp.int32) * jnp.asarray([19595, 38470, 7471], jnp.int32), axis=2, keepdims=True) + HALF
    return jnp.broadcast_to((luma >> 16).astype(jnp.uint8), x.shape)


def _blend(plain: Array, x: Array, strength: Array) -> Array:
    """Return plain + strength (x - plain), rounded down; strength from 0 to 1."""
    start, end = plain.astype(jnp.float32), x.astype(jnp.float32)
    return jnp.floor(start + strength * (end - start)).astype(jnp.uint8)


def stay(strength: Array, height: int, width: int) -> Array:
    """(a, b, c, d, e, f): the pixel at column u, row v comes from column a u + b v + c, row d u + e v + f."""
    del height, width
    return _coefficients(strength)


def rotate(strength: Array, height: int, width: int) -> Array:
    """Turn anticlockwise by so many degrees about the centre."""
    cos, sin = jnp.cos(strength * (math.pi / 180)), -jnp.sin(strength * (math.pi / 180))
    u, v = width / 2, height / 2
    return _coefficients(strength, a=cos, b=sin, c=u - cos * u - sin * v, d=-sin, e=cos, f=v + sin * u - cos * v)


def shear_x(strength: Array, height: int, width: int) -> Array:
    """Shift rows to the left, in proportion to their number."""
    del height, width
    return _coefficients(strength, b=strength)


def shear_y(strength: Array, height: int, width: int) -> Array:
    """Shift columns upwards, in proportion to their number."""
    del height, width
    return _coefficients(strength, d=strength)


def translate_x(strength: Array, height: int, width: int) -> Array:
    """Shift to the left by a share of the width, in whole pixels."""
    del height
    return _coefficients(strength, c=jnp.trunc(strength * width))


def translate_y(strength: Array, height: int, width: int) -> Array:
    """Shift upwards by a share of the height, in whole pixels."""
    del width
    return _coefficients(strength, f=jnp.trunc(strength * height))


def _coefficients(strength: Array, **changed: Array) -> Array:
    values = {"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0, "e": 1.0, "f": 0.0} | changed
    return jnp.stack([jnp.broadcast_to(jnp.asarray(value, jnp.float32), strength.shape) for value in values.values()])


PIXEL = {
    "auto_contrast": Operation(auto_contrast),
    "brightness": Operation(brightness, 0.05, 0.95),
    "color": Operation(color, 0.05, 0.95),
    "contrast": Operation(contrast, 0.05, 0.95),
    "equalize": Operation(equalize),
    "posterize": Operation(posterize, 4, 9),  # 4 to 8 are equally likely
    "sharpness": Operation(sharpness, 0.05, 0.95),
    "solarize": Operation(solarize, 0, 1),
    "identity": Operation(identity),
}
AFFINE = {
    "rotate": Operation(rotate, -30, 30),
    "shear_x": Operation(shear_x, -0.3, 0.3),
    "shear_y": Operation(shear_y, -0.3, 0.3),
    "translate_x": Operation(translate_x, -0.3, 0.3),
    "translate_y": Operation(translate_y, -0.3, 0.3),
}


def warp(x: Array, coefficients: Array) -> Array:
    """Take every pixel from where the coefficients of `stay` say, the nearest one; from outside comes black."""
    height, width, _ = x.shape
    a, b, c, d, e, f = coefficients
    offsets = jnp.stack([c + 0.5 * a + 0.5 * b, f + 0.5 * d + 0.5 * e])  # pixels are where their centres are
    fixed = jnp.floor(jnp.stack([a, b, d, e, *offsets]) * 65536 + 0.5).astype(jnp.int32)
    u, v = jnp.arange(width, dtype=jnp.int32), jnp.arange(height, dtype=jnp.int32)[:, None]
    column = (fixed[0] * u + fixed[1] * v + fixed[4]) >> 16
    row = (fixed[2] * u + fixed[3] * v + fixed[5]) >> 16
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    taken = x[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
    return jnp.where(inside[:, :, None], taken, jnp.uint8(0))


def operate(number: Array, strength: Array, x: Array) -> Array:
    """Apply the operation of this place in PIXEL, then AFFINE. Lifted to a batch, all are computed, but one `warp`."""
    last = len(PIXEL) - 1  # the identity, which the affine ones start from
    x = jax.lax.switch(jnp.minimum(number, last), [operation.apply for operation in PIXEL.values()], x, strength)
    shapes = [stay, *(operation.apply for operation in AFFINE.values())]
    height, width, _ = x.shape
    branches = [lambda strength, shape=shape: shape(strength, height, width) for shape in shapes]
    return warp(x, jax.lax.switch(jnp.maximum(number - last, 0), branches, strength))


def cutout(key: Array, x: Array) -> Array:
    """Grey out a square of half the image's side around a random pixel (DeVries and Taylor 2017)."""
    height, width, _ = x.shape
    half = min(height, width) // 4
    row, column = (jax.random.uniform(key, (2,)) * jnp.asarray([height, width], jnp.float32)).astype(jnp.int32)
    rows, columns = jnp.arange(height, dtype=jnp.int32)[:, None], jnp.arange(width, dtype=jnp.int32)
    hidden = (rows >= row - half) & (rows < row + half) & (columns >= column - half) & (columns < column + half)
    return jnp.where(hidden[:, :, None], jnp.uint8(GREY), x)


def randaugment(key: Array, x: Array, count: int = 2) -> Array:
    """Apply `count` operations, each drawn from all with a strength of its own from the whole range, then Cutout.

    FixMatch's variant, as its paper has it: strengths are drawn, not tuned. Its authors' code for images like CIFAR's
    skips an operation with a probability of a half, draws strengths from nine levels of other ranges, and fills with
    grey what comes from outside; of skipping and filling the paper says nothing.
    """
    key_operations, key_cutout = jax.random.split(key)
    operations = [*PIXEL.values(), *AFFINE.values()]
    ranges = np.asarray([(operation.least, operation.most) for operation in operations], np.float32)

    def one(x: Array, key: Array) -> tuple[Array, None]:
        key_number, key_strength = jax.random.split(key)
        number = jax.random.randint(key_number, (), 0, len(operations))
        least, most = jnp.asarray(ranges)[number]
        return operate(number, least + (most - least) * jax.random.uniform(key_strength), x), None

    x, _ = jax.lax.scan(one, x, jax.random.split(key_operations, count))
    return cutout(key_cutout, x)
