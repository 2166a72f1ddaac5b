"""What networks compute: a residual one written out with XLA's own convolutions, and what LeNet's dropout drops."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdal.models import build
from jaxdal.models.lenet import _largest
from jaxdal.models.resnet import ResNet18, as_model

WIDTHS, CLASSES, WINDOW = (4, 6), 5, 4  # of two stages; of an 8x8 map


def written_out(variables, x, train: bool):
    """He et al. (2016) with torch's borders: -> logits, features, maps."""
    params, stats = variables["params"], variables["batch_stats"]

    def conv(x, layer, stride, border):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, layer["kernel"], (stride, stride), ((border, border),) * 2, dimension_numbers=layout
        )

    def norm(x, layer, running):
        mean, var = (x.mean((0, 1, 2)), x.var((0, 1, 2))) if train else (running["mean"], running["var"])
        return (x - mean) / jnp.sqrt(var + 1e-5) * layer["scale"] + layer["bias"]

    def block(x, number, stride):
        own, running = params[f"Block_{number}"], stats[f"Block_{number}"]
        y = jax.nn.relu(norm(conv(x, own["Conv_0"], stride, 1), own["BatchNorm_0"], running["BatchNorm_0"]))
        y = norm(conv(y, own["Conv_1"], 1, 1), own["BatchNorm_1"], running["BatchNorm_1"])
        assert ("Conv_2" in own) == (stride == 2), "a shortcut as it is, where the shape stays"
        if stride == 2:
            x = norm(conv(x, own["Conv_2"], 2, 0), own["BatchNorm_2"], running["BatchNorm_2"])
        return jax.nn.relu(x + y)

    x = jax.nn.relu(norm(conv(x, params["Conv_0"], 1, 1), params["BatchNorm_0"], stats["BatchNorm_0"]))
    first = block(block(x, 0, 1), 1, 1)
    second = block(block(first, 2, 2), 3, 1)
    if second.shape[1] == 8:
        corners = [second[:, i : i + WINDOW, j : j + WINDOW].mean((1, 2)) for i in (0, WINDOW) for j in (0, WINDOW)]
        features = jnp.concatenate(corners, axis=1)
    else:
        features = second.mean((1, 2))
    return features @ params["Linear_0"]["kernel"] + params["Linear_0"]["bias"], features, (first, second)


@pytest.mark.parametrize("side", [9, 16])
@pytest.mark.parametrize("train", [False, True])
def test_answers_and_gradients_are_those_of_the_network_written_out(side, train):
    model = as_model(ResNet18(WIDTHS, CLASSES, WINDOW, jnp.float32), (side, side, 3), pack=1)
    rng = np.random.default_rng(side)
    variables = jax.tree.map(
        lambda leaf: leaf + rng.uniform(-0.3, 0.3, leaf.shape).astype(np.float32), model.init(jax.random.key(0))
    )
    x = rng.standard_normal((4, side, side, 3)).astype(np.float32)
    weights = rng.standard_normal((4, CLASSES)).astype(np.float32)

    def ours(variables):
        logits, taps = model.apply(variables, x, train=train)
        return logits, taps["features"], taps["maps"]

    def both(of):
        def loss(params):
            found = of({**variables, "params": params})
            return jnp.sum(weights * found[0]), found

        return jax.jit(jax.grad(loss, has_aux=True))(variables["params"])

    found, expected = both(ours), both(lambda variables: written_out(variables, x, train))
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(expected[1]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), found, expected)


def test_lenet_drops_whole_channels_of_an_image_and_then_single_features():
    """With layers that add up the positions of each channel, and then pass features on: answers show both masks."""
    model, size = build("lenet", (28, 28, 1), 10), 40
    params = model.init(jax.random.key(0))["params"] | {
        "Linear_0": {"kernel": jnp.tile(jnp.eye(20, 50), (16, 1)), "bias": jnp.zeros(50)},
        "Linear_1": {"kernel": jnp.eye(50, 10), "bias": jnp.zeros(10)},
    }
    x = np.random.default_rng(0).standard_normal((size, 28, 28, 1)).astype(np.float32)
    apply = jax.jit(lambda key: model.apply({"params": params, "batch_stats": {}}, x, dropout_key=key))
    (_, plain), (logits, taps) = apply(None), apply(jax.random.key(1))
    channels = plain["features"][:, :20]
    for dropped, whole in ((taps["features"][:, :20], channels), (logits, taps["features"][:, :10])):
        alive = np.asarray(whole) > 1e-3
        factor = np.where(alive, dropped / np.where(alive, whole, 1), 0)
        np.testing.assert_allclose(np.minimum(np.abs(factor), np.abs(factor - 2)), 0, atol=1e-4)
        assert 0.4 < (factor > 1)[alive].mean() < 0.6
        assert len(np.unique(factor > 1, axis=0)) > size / 2, "each image has a mask of its own"


def test_lenet_centres_smaller_images_in_mean_grey():
    small, whole = build("lenet", (8, 5, 1), 4), build("lenet", (28, 28, 1), 4)
    variables = small.init(jax.random.key(0))
    x = np.random.default_rng(0).standard_normal((3, 8, 5, 1)).astype(np.float32)
    centred = np.zeros((3, 28, 28, 1), np.float32)
    centred[:, 10:18, 11:16] = x
    np.testing.assert_array_equal(small.apply(variables, x)[0], whole.apply(variables, centred)[0])


def test_the_first_of_equals_in_a_pool_takes_the_gradient():
    """As in torch; in a border of grey, all four are equal."""
    x = jnp.asarray([[1.0, 2, 5], [1, 3, 5], [0, 3, 5]])
    found = jax.grad(lambda x: _largest(x) @ jnp.asarray([1.0, 10, 100]))(x)
    assert found.tolist() == [[1, 0, 100], [0, 10, 0], [0, 0, 0]]


def test_both_masks_of_lenet_have_keys_of_their_own(monkeypatch):
    keys = []

    def note(key, x, shape):
        keys.append(tuple(jax.random.key_data(key).tolist()))
        return x

    monkeypatch.setattr(sys.modules["jaxdal.models.lenet"], "_dropout", note)
    model = build("lenet", (28, 28, 1), 10)
    model.apply(model.init(jax.random.key(0)), np.zeros((2, 28, 28, 1), np.float32), dropout_key=jax.random.key(1))
    assert len(keys) == len(set(keys)) == 2
