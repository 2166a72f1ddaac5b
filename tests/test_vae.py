"""The auto-encoder of VAAL: its form, its size, its first weights."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import vaal as reference

from jaxdal.models.vae import _kaiming
from jaxdal.models.vae import critic as make_critic
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


@pytest.mark.parametrize(
    ("shape", "widths"),
    [((28, 28, 1), (512, 256)), ((10, 10, 2), (400, 256)), ((8, 8, 1), (128, 128)), ((3, 2, 1), (32, 32))],
)
def test_linear_layers_are_at_most_twice_as_wide_as_small_images(shape, widths):
    params = jax.eval_shape(make_vae(shape).init, jax.random.key(0))["params"]
    pixels = math.prod(shape)
    assert [params[f"encoder_{n}"]["kernel"].shape for n in range(2)] == [(pixels, widths[0]), widths]
    assert [params[f"decoder_{n}"]["kernel"].shape for n in range(3)] == [
        (2, widths[1]),
        widths[::-1],
        (widths[0], pixels),
    ]


def test_no_first_weight_is_infinite():
    """One uniform draw in eight million is the end of its range, where a normal distribution has none."""
    ends = jnp.asarray([[0.5, -0.5], [0.0, 0.1], [0.0, 0.1], [0.0, 0.1]])
    kernel = np.asarray(_kaiming({"encoder_0": {"kernel": ends}})["encoder_0"]["kernel"])
    assert np.isfinite(kernel).all()
    assert kernel[0, 0] == -kernel[0, 1] > 3


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
    judge = make_critic(32, (512, 512)).init(jax.random.key(0))["Linear_1"]
    assert np.std(judge["kernel"]) == pytest.approx(math.sqrt(2 / 512), rel=0.02)
    assert (judge["bias"] == 0).all()


def test_convolutional_form_is_that_of_the_paper():
    """There and back by patches and stamps, in training: BatchNorm by the batch and a ReLU behind all but the last."""
    vae, rng = make_vae((18, 17, 3), 2, (3, 4)), np.random.default_rng(0)
    fresh = vae.init(jax.random.key(0))
    variables = jax.tree.map(lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape, np.float32), fresh)
    x, noise = rng.standard_normal((5, 18, 17, 3), np.float32), rng.standard_normal((5, 2), np.float32)
    found = jax.jit(vae.train)(variables, x, noise)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, float), variables["params"])

    def normalised(y, norm):
        scaled = (y - y.mean((0, 1, 2))) / np.sqrt(y.var((0, 1, 2)) + 1e-5)
        return np.maximum(scaled * norm["scale"] + norm["bias"], 0)

    y = np.pad(x.astype(float), ((0, 0), (0, 2), (0, 3), (0, 0)))  # 20 x 20, which two strides halve to 5 x 5
    for n in range(2):
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0))), (4, 4), (1, 2))
        y = np.einsum("bijchw,hwco->bijo", windows[:, ::2, ::2], params[f"encoder_{n}"]["kernel"])
        y = normalised(y, params[f"encoder_norms_{n}"])
    codes = params["posterior"]
    mean, log_variance = (y.reshape(5, -1) @ codes[n]["kernel"] + codes[n]["bias"] for n in ("mean", "log_variance"))
    z = mean + np.exp(log_variance / 2) * noise
    y = (z @ params["unfold"]["kernel"] + params["unfold"]["bias"]).reshape(5, 10, 10, 4)
    y = normalised(reference.transposed(y, params["up_0"]["kernel"], 2, 1), params["up_norms_0"])
    image = (reference.transposed(y, params["up_1"]["kernel"], 1, 0) + params["up_1"]["bias"])[:, :18, :17]
    for leaf, expected in zip(found, (image, mean, log_variance), strict=False):
        np.testing.assert_allclose(leaf, expected, rtol=1e-3, atol=1e-3)
