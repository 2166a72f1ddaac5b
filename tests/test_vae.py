"""The auto-encoder of VAAL: its form, its size, its first weights."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdal.models.vae import vae as make_vae


@pytest.mark.parametrize(
    ("shape", "convolves"),
    [((28, 28, 1), False), ((8, 8, 1), False), ((32, 32, 3), True), ((15, 40, 3), False), ((16, 17, 3), True)],
)
def test_form_by_the_shape_of_the_image(shape, convolves):
    vae = make_vae(shape)
    assert vae.convolves == convolves
    assert vae.latent == (32 if convolves else 2)
    x, noise = jnp.zeros((2, *shape)), jnp.zeros((2, vae.latent))
    output = jax.eval_shape(lambda key: vae.train(vae.init(key), x, noise), jax.random.key(0))
    assert [leaf.shape for leaf in output[:3]] == [x.shape, noise.shape, noise.shape]


def parameters(shape: tuple[int, int, int]) -> int:
    leaves = jax.tree.leaves(jax.eval_shape(make_vae(shape).init, jax.random.key(0))["params"])
    return sum(leaf.size for leaf in leaves)


def test_sizes_of_the_published_networks():
    convolutions = 16 * (3 * 128 + 128 * 256 + 256 * 512 + 512 * 1024)
    norms = 2 * (128 + 256 + 512 + 1024)
    codes = 2 * (1024 * 2 * 2 + 1) * 32
    back = 33 * 1024 * 4 * 4 + 16 * (1024 * 512 + 512 * 256 + 256 * 128) + 2 * (512 + 256 + 128) + 128 * 3 + 3
    assert parameters((32, 32, 3)) == convolutions + norms + codes + back
    linear = 785 * 512 + 513 * 256 + 2 * 257 * 2 + 3 * 256 + 257 * 512 + 513 * 784
    assert parameters((28, 28, 1)) == linear


def test_first_weights():
    """He's normal numbers inside the chains, torch's uniform ones at the codes."""
    params = make_vae((16, 16, 3), 8, (64, 128)).init(jax.random.key(0))["params"]
    kernel = np.asarray(params["encoder_1"]["kernel"])
    assert np.std(kernel) == pytest.approx(math.sqrt(2 / (16 * 64)), rel=0.02)
    assert np.mean(kernel**4) / np.var(kernel) ** 2 == pytest.approx(3, rel=0.05), "a normal distribution"
    assert np.asarray(params["unfold"]["bias"] == 0).all()
    for layer, fan_in in ((params["posterior"]["mean"], 4 * 4 * 128), (params["up_0"], 16 * 64)):
        assert np.abs(layer["kernel"]).max() == pytest.approx(fan_in**-0.5, rel=0.01)
        assert np.std(layer["kernel"]) == pytest.approx((3 * fan_in) ** -0.5, rel=0.02)
    assert np.asarray(params["encoder_norms_0"]["scale"] == 1).all()
