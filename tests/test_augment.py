"""Crops, flips and normalisation of images, against all that can be drawn of one image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxdal import augment
from jaxdal.types import Model

CROP, DRAWN = 2, 5000
MODEL = Model(lambda key: {}, lambda variables, x: (x, {}))


@pytest.mark.parametrize("flip", [False, True])
def test_every_crop_comes_as_often_with_black_from_outside_and_mirrored_or_not(flip):
    image = np.random.default_rng(0).integers(1, 256, (4, 5, 2)).astype(np.uint8)
    padded = np.pad(image, ((CROP, CROP), (CROP, CROP), (0, 0)))
    shifts = range(2 * CROP + 1)
    possible = [padded[row : row + 4, column : column + 5] for row in shifts for column in shifts]
    if flip:
        possible += [one[:, ::-1] for one in possible]
    network = augment.network(MODEL, (0.4, 0.6), (0.2, 0.3), crop=CROP, flip=flip)
    key, images = jax.random.key(0), jnp.asarray(np.tile(image, (DRAWN, 1, 1, 1)))
    drawn = np.asarray(jax.jit(network.weak)(key, images))
    counts = [int((drawn == one).all((1, 2, 3)).sum()) for one in possible]
    assert sum(counts) == DRAWN, "and nothing else; each image of a batch by a key of its own"
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    expected = (drawn / 255 - [0.4, 0.6]) / [0.2, 0.3]
    np.testing.assert_allclose(jax.jit(network.augment)(key, images), expected, rtol=1e-5, atol=1e-6)
