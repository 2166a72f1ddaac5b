"""The operations of RandAugment against Pillow's, and how they are drawn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from jaxdal.randaugment import AFFINE, GREY, PIXEL, cutout, operate, randaugment

NUMBER = {name: number for number, name in enumerate([*PIXEL, *AFFINE])}


def affine(image, *coefficients):
    return image.transform(image.size, Image.Transform.AFFINE, coefficients)


# Strengths are exact in float32, so that both sides round the same numbers.
PILLOW = {
    "auto_contrast": (lambda image, s: ImageOps.autocontrast(image), [0]),
    "brightness": (lambda image, s: ImageEnhance.Brightness(image).enhance(s), [0.0625, 0.5, 0.9375]),
    "color": (lambda image, s: ImageEnhance.Color(image).enhance(s), [0.0625, 0.5, 0.9375]),
    "contrast": (lambda image, s: ImageEnhance.Contrast(image).enhance(s), [0.0625, 0.5, 0.9375]),
    "equalize": (lambda image, s: ImageOps.equalize(image), [0]),
    "posterize": (lambda image, s: ImageOps.posterize(image, min(int(s), 8)), [4, 5.75, 8, 9]),
    "sharpness": (lambda image, s: ImageEnhance.Sharpness(image).enhance(s), [0.0625, 0.5, 0.9375]),
    "solarize": (lambda image, s: ImageOps.solarize(image, int(256 * s)), [0, 0.25, 0.75, 1]),
    "identity": (lambda image, s: image, [0]),
    "rotate": (lambda image, s: image.rotate(s), [-30, -12.5, 0.25, 29]),
    "shear_x": (lambda image, s: affine(image, 1, s, 0, 0, 1, 0), [-0.25, 0.125, 0.28125]),
    "shear_y": (lambda image, s: affine(image, 1, 0, 0, s, 1, 0), [-0.25, 0.125, 0.28125]),
    "translate_x": (lambda image, s: affine(image, 1, 0, int(s * image.size[0]), 0, 1, 0), [-0.28125, 0.125]),
    "translate_y": (lambda image, s: affine(image, 1, 0, 0, 0, 1, int(s * image.size[1])), [-0.28125, 0.125]),
}


RANGES = {  # FixMatch's, appendix E; of 4 to 8 bits each is as likely
    **dict.fromkeys(("brightness", "color", "contrast", "sharpness"), (0.05, 0.95)),
    **dict.fromkeys(("shear_x", "shear_y", "translate_x", "translate_y"), (-0.3, 0.3)),
    "posterize": (4, 9), "rotate": (-30, 30), "solarize": (0, 1),
}  # fmt: skip


def images(channels: int) -> list[np.ndarray]:
    """Smooth, narrow in range, of few values, and constant: 20 x 24."""
    rng = np.random.default_rng(channels)
    row, column, channel = np.mgrid[:20, :24, :channels]
    waves = 128 + 120 * np.sin(row / 3 + channel) * np.cos(column / 4)
    noise = rng.integers(90, 140, (20, 24, channels))
    few = rng.choice([3, 200, 201], (20, 24, channels), p=[0.9, 0.05, 0.05])
    return [image.astype(np.uint8) for image in (waves, noise, few, np.full((20, 24, channels), 77))]


@functools.cache
def program():
    return jax.jit(operate)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PILLOW)
def test_operations_are_pillows(name, channels):
    theirs, strengths = PILLOW[name]
    for image in images(channels):
        for strength in strengths:
            expected = np.asarray(theirs(Image.fromarray(image.squeeze()), strength)).reshape(image.shape)
            found = np.asarray(program()(jnp.int32(NUMBER[name]), jnp.float32(strength), image))
            if name == "auto_contrast":
                expected = expected + missed_by_pillow(image, expected)
            np.testing.assert_array_equal(found, expected, err_msg=f"{strength}")
    assert found.dtype == np.uint8
    assert set(PILLOW) == set(NUMBER)


def missed_by_pillow(image: np.ndarray, stretched: np.ndarray) -> np.ndarray:
    """Where a stretched value is a whole number, Pillow's float64 may end just below it and is cut to one less."""
    low, high = image.min((0, 1)).astype(int), image.max((0, 1)).astype(int)
    whole, rest = np.divmod((image.astype(int) - low) * 255, np.maximum(high - low, 1))
    return ((rest == 0) & (stretched == whole - 1)).astype(np.uint8)


def test_operations_are_drawn_from_all_and_strengths_from_their_ranges(monkeypatch):
    """By a stand-in that writes down what it is asked for."""

    def note(number, strength, x):
        place = jnp.sum(x[0, :, 0] > 0, dtype=jnp.int32)
        return x.at[0, place].set(jnp.stack([(number + 1).astype(jnp.float32), strength]))

    monkeypatch.setattr("jaxdal.randaugment.operate", note)
    monkeypatch.setattr("jaxdal.randaugment.cutout", lambda key, x: x)
    keys = jax.random.split(jax.random.key(0), 4000)
    notes = np.asarray(jax.jit(jax.vmap(randaugment, (0, None)))(keys, jnp.zeros((1, 2, 2)))).reshape(-1, 2)
    counts = np.bincount(notes[:, 0].astype(int) - 1, minlength=len(NUMBER))
    assert counts.sum() == 8000
    assert counts.min() > 0.8 * 8000 / len(NUMBER)
    for name, number in NUMBER.items():
        strengths, (least, most) = notes[notes[:, 0] == number + 1, 1], np.float32(RANGES.get(name, (0, 0)))
        edge = 0.05 * (most - least)
        assert least <= strengths.min() <= least + edge, name
        assert most - edge <= strengths.max() <= most, name


@pytest.mark.parametrize("shape", [(8, 8), (8, 13), (13, 8)])
def test_cutout_is_a_square_around_any_pixel(shape):
    blank, side = jnp.zeros((*shape, 1), jnp.uint8), min(shape)
    found = np.asarray(jax.vmap(cutout, (0, None))(jax.random.split(jax.random.key(1), 3000), blank))[..., 0]
    assert set(np.unique(found)) == {0, GREY}
    heights, widths = (found.max(2) > 0).sum(1), (found.max(1) > 0).sum(1)
    assert ((found > 0).sum((1, 2)) == heights * widths).all()
    assert heights.max() == widths.max() == side // 4 * 2
    assert heights.min() == widths.min() == side // 4, "cut off at the border"
    assert (found > 0).any(0).all()


def test_cutout_comes_last(monkeypatch):
    """Grey as it is, whatever the operations have done to all other pixels."""
    monkeypatch.setattr("jaxdal.randaugment.operate", lambda number, strength, x: x + jnp.uint8(1))
    keys = jax.random.split(jax.random.key(2), 50)
    found = np.asarray(jax.vmap(randaugment, (0, None))(keys, jnp.zeros((8, 8, 1), jnp.uint8)))
    assert set(np.unique(found)) == {2, GREY}


def test_an_image_is_distorted_by_its_own_key_alone():
    x = np.stack(images(3)[:3])
    keys = jax.random.split(jax.random.key(3), 3)
    lifted = jax.jit(jax.vmap(randaugment))
    together = np.asarray(lifted(keys, x))
    assert together.dtype == np.uint8
    for number in range(3):
        again = np.asarray(lifted(jnp.roll(keys, number), np.roll(x, number, axis=0)))
        np.testing.assert_array_equal(np.roll(again, -number, axis=0), together)
    assert (together != x).any((1, 2, 3)).all()
    assert (np.asarray(lifted(jax.random.split(jax.random.key(4), 3), x)) != together).any((1, 2, 3)).all()
