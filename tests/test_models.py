"""Every model of the table against its contract, LeNet and BatchNorm against independent computations."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from jaxdal.errors import InputError
from jaxdal.models import MODELS, build
from jaxdal.models.convolution import tame
from jaxdal.models.layers import BatchNorm, relu
from jaxdal.models.resnet import ResNet18, as_model

pytestmark = pytest.mark.usefixtures("full_optimisation")

SMALL = {"lenet": (8, 8, 1), "resnet18": (8, 8, 3), "resnet18_thin": (8, 8, 3)}


def tiny(dtype=jnp.float32, side=16):
    """The residual network at widths that compile and run quickly."""
    return as_model(ResNet18((2, 3, 4, 5), 4, 4, dtype), (side, side, 3), pack=2)


def images(*shape, seed=0):
    """Not by JAX, which would compile a program for every shape."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("name", "shape", "classes", "parameters", "features", "maps"),
    [
        ("lenet", (28, 28, 1), 10, 21_840, 50, [(12, 12, 10), (4, 4, 20)]),
        ("lenet", (8, 8, 1), 10, 21_840, 50, [(12, 12, 10), (4, 4, 20)]),
        ("lenet", (28, 28, 3), 10, 22_340, 50, [(12, 12, 10), (4, 4, 20)]),
        ("lenet", (32, 32, 3), 10, 31_340, 50, [(14, 14, 10), (5, 5, 20)]),
        ("lenet", (30, 37, 1), 10, 54_840, 50, [(18, 18, 10), (7, 7, 20)]),
        ("resnet18_thin", (32, 32, 3), 10, 701_466, 128, [(32, 32, 16), (16, 16, 32), (8, 8, 64), (4, 4, 128)]),
        ("resnet18_thin", (64, 64, 3), 200, 802_776, 512, [(64, 64, 16), (32, 32, 32), (16, 16, 64), (8, 8, 128)]),
        ("resnet18_thin", (28, 28, 1), 10, 701_178, 128, [(28, 28, 16), (14, 14, 32), (7, 7, 64), (4, 4, 128)]),
        ("resnet18", (32, 32, 3), 10, 11_173_962, 512, [(32, 32, 64), (16, 16, 128), (8, 8, 256), (4, 4, 512)]),
        ("resnet18", (64, 64, 3), 10, 11_173_962, 512, [(64, 64, 64), (32, 32, 128), (16, 16, 256), (8, 8, 512)]),
    ],
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_sizes(name, shape, classes, parameters, features, maps, dtype):
    model = build(name, shape, classes, dtype)
    variables = jax.eval_shape(model.init, jax.random.key(0))
    assert set(variables) == {"params", "batch_stats"}
    assert size(variables["params"]) == parameters
    x, key = jax.ShapeDtypeStruct((5, *shape), jnp.float32), jax.random.key(1)
    logits, taps = jax.eval_shape(lambda v, x: model.apply(v, x, train=True, dropout_key=key), variables, x)
    assert logits.shape == (5, classes)
    assert taps["features"].shape == (5, features)
    assert [m.shape for m in taps["maps"]] == [(5, *m) for m in maps]
    assert jax.tree.map(lambda a: a.shape, taps["batch_stats"]) == jax.tree.map(
        lambda a: a.shape, variables["batch_stats"]
    )
    assert {a.dtype for a in jax.tree.leaves((variables, logits, taps))} == {jnp.dtype("float32")}
    assert model.pack > 1


@pytest.mark.parametrize("name", MODELS)
def test_initial_weights(name):
    model = build(name, SMALL[name], 10)
    init = jax.jit(model.init)
    first, again, other = (jax.device_get(init(jax.random.key(seed))["params"]) for seed in (0, 0, 1))
    leaves = zip(*map(jax.tree.leaves_with_path, (first, again, other)), strict=True)
    for (path, a), (_, b), (_, c) in leaves:
        np.testing.assert_array_equal(a, b)
        constant = "BatchNorm" in jax.tree_util.keystr(path)
        assert (a == c).all() == constant
        if not constant and a.size > 500:  # U(-bound, bound) has the deviation bound / sqrt 3
            bound = np.prod(a.shape[:-1]) ** -0.5
            assert 0.98 * bound < np.abs(a).max() <= (1 + 1e-6) * bound
            np.testing.assert_allclose(a.std(), bound / 3**0.5, rtol=0.05)


@pytest.mark.parametrize("name", ["lenet", "resnet18_thin"])
def test_evaluation_treats_images_alone_and_changes_no_statistics(name):
    model = build(name, SMALL[name], 10)
    variables = jax.jit(model.init)(jax.random.key(0))
    x = images(4, *SMALL[name])
    apply = jax.jit(model.apply)
    logits, taps = apply(variables, x)
    alone, _ = apply(variables, x.at[1:].set(7.0))
    np.testing.assert_allclose(logits[0], alone[0], rtol=1e-5, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, taps["batch_stats"], variables["batch_stats"])
    head = [p for p in variables["params"].values() if p.get("bias", np.zeros(0)).shape == (10,) and "kernel" in p]
    by_hand = [taps["features"] @ p["kernel"] + p["bias"] for p in head if p["kernel"].ndim == 2]
    np.testing.assert_allclose(logits, by_hand[-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [28, 32])
def test_lenet_against_plain_convolutions(side):
    """Net1 as it is published: convolution, pool, rectifier, with XLA's own convolution and pooling."""
    model = build("lenet", (side, side, 2), 7)
    variables = jax.jit(model.init)(jax.random.key(3))
    x = images(3, side, side, 2)
    p = variables["params"]

    def stage(x, layer):
        y = jax.lax.conv_general_dilated(
            x, layer["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        pooled = jax.lax.reduce_window(y + layer["bias"], -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return jax.nn.relu(pooled)

    def expected(p, x):
        first = stage(x, p["PooledConvolution_0"])
        second = stage(first, p["PooledConvolution_1"])
        features = jax.nn.relu(second.reshape(3, -1) @ p["Linear_0"]["kernel"] + p["Linear_0"]["bias"])
        return features @ p["Linear_1"]["kernel"] + p["Linear_1"]["bias"], features, first, second

    def actual(p, x):
        logits, taps = model.apply({"params": p, "batch_stats": {}}, x)
        return logits, taps["features"], *taps["maps"]

    def gradients(function):
        return jax.jit(jax.grad(lambda p, x: jnp.square(function(p, x)[0]).sum(), (0, 1)))(p, x)

    for a, b in zip(actual(p, x), expected(p, x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *map(gradients, (actual, expected))
    )


def test_dropout_is_on_if_and_only_if_a_key_is_given():
    model = build("lenet", (28, 28, 1), 10)
    variables = jax.jit(model.init)(jax.random.key(0))
    x = images(64, 28, 28, 1)
    apply = jax.jit(model.apply, static_argnames="train")
    plain, plain_taps = apply(variables, x, train=True)
    np.testing.assert_array_equal(plain, apply(variables, x)[0])
    keys = jax.random.split(jax.random.key(1), 64)
    draws = jax.jit(jax.vmap(lambda key: model.apply(variables, x, dropout_key=key)[0]))(keys)
    np.testing.assert_allclose(apply(variables, x, dropout_key=keys[0])[0], draws[0], rtol=1e-5, atol=1e-6)
    assert jnp.unique(draws[:, 0, 0]).size > 32
    # Half of the channels are gone, for a whole image each: what is left of the features comes from doubled maps.
    _, taps = apply(variables, x, dropout_key=jax.random.key(5))
    np.testing.assert_array_equal(taps["maps"][1], plain_taps["maps"][1])
    assert not np.allclose(taps["features"], plain_taps["features"])
    # The last layer is linear: with features fixed, draws of the last dropout average to the plain logits.
    np.testing.assert_allclose(draws.mean((0, 1)), plain.mean(0), atol=0.05)


def test_residual_networks_have_no_dropout():
    model = tiny()
    variables = jax.jit(model.init)(jax.random.key(0))
    x = images(2, 16, 16, 3)
    apply = jax.jit(lambda x, **options: model.apply(variables, x, **options)[0])
    np.testing.assert_array_equal(apply(x), apply(x, dropout_key=jax.random.key(1)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_batch_norm(dtype):
    module = BatchNorm()
    x = (3 + 2 * images(4, 3, 5, 6)).astype(dtype)
    params = {"scale": images(6, seed=1), "bias": images(6, seed=2)}
    stats = {"mean": jnp.zeros(6), "var": jnp.ones(6)}
    pixels = np.asarray(x, np.float64).reshape(-1, 6)
    mean, var = np.zeros(6), np.ones(6)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == jnp.float32 else {"rtol": 1e-2, "atol": 1e-2}
    for _ in range(3):
        y, updated = module.apply({"params": params, "batch_stats": stats}, x, True, mutable=["batch_stats"])
        stats = updated["batch_stats"]
        expected = (pixels - pixels.mean(0)) / np.sqrt(pixels.var(0) + 1e-5) * params["scale"] + params["bias"]
        np.testing.assert_allclose(np.asarray(y, np.float32).reshape(-1, 6), expected, **tolerance)
        mean, var = 0.9 * mean + 0.1 * pixels.mean(0), 0.9 * var + 0.1 * pixels.var(0, ddof=1)
        np.testing.assert_allclose(stats["mean"], mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(stats["var"], var, rtol=1e-5)
    assert y.dtype == dtype
    assert {a.dtype for a in jax.tree.leaves(stats)} == {jnp.dtype("float32")}
    y = module.apply({"params": params, "batch_stats": stats}, x, False)
    expected = (pixels - mean) / np.sqrt(var + 1e-5) * params["scale"] + params["bias"]
    np.testing.assert_allclose(np.asarray(y, np.float32).reshape(-1, 6), expected, **tolerance)


def test_batch_norm_keeps_its_digits_far_from_zero_and_survives_one_pixel():
    module = BatchNorm()
    x = 1000 + images(64, 4, 4, 2)
    stats = {"mean": jnp.full(2, 990.0), "var": jnp.ones(2)}
    variables = {"params": {"scale": jnp.ones(2), "bias": jnp.zeros(2)}, "batch_stats": stats}
    y, _ = module.apply(variables, x, True, mutable=["batch_stats"])
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, atol=1e-3)
    y, updated = module.apply(variables, x[:1, :1, :1], True, mutable=["batch_stats"])
    assert np.isfinite(y).all()
    assert np.isfinite(updated["batch_stats"]["var"]).all()


@pytest.mark.parametrize("chunks", [1, 3])
def test_the_gradient_of_batch_norm_is_that_of_its_formula(chunks):
    """Which is written by hand: here beside differences of a float64 version."""
    module, x, weights = BatchNorm(), 3 + 2 * images(6, 3, 2, 4), np.asarray(images(6, 3, 2, 4, seed=3), np.float64)
    params = {"scale": images(4, seed=1), "bias": images(4, seed=2)}
    stats = {"mean": jnp.full(4, 2.5), "var": jnp.ones(4)}  # the guess of the mean must not matter

    def loss(params, x):
        y, _ = module.apply({"params": params, "batch_stats": stats}, x, True, chunks, mutable=["batch_stats"])
        return jnp.sum(y * jnp.asarray(weights, jnp.float32))

    def slow(scale, bias, x):
        parts = x.reshape(chunks, -1, 4)
        normal = (parts - parts.mean(1, keepdims=True)) / np.sqrt(parts.var(1, keepdims=True) + 1e-5)
        return np.sum((normal * scale + bias).reshape(weights.shape) * weights)

    own, of_images = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, x)
    for place, found in enumerate((own["scale"], own["bias"], of_images)):
        given = [np.asarray(each, np.float64) for each in (params["scale"], params["bias"], x)]
        expected = np.zeros(found.shape)
        for entry in np.ndindex(*found.shape):
            sides = []
            for step in (1e-5, -1e-5):
                moved = [each.copy() for each in given]
                moved[place][entry] += step
                sides.append(slow(*moved))
            expected[entry] = (sides[0] - sides[1]) / 2e-5
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)


def training_step(model):
    """(variables, momentum, x, y, key) -> the same after one step of the paper's recipe, and the loss."""
    optimiser = optax.chain(optax.clip(0.1), optax.add_decayed_weights(5e-4), optax.trace(0.9))

    def step(variables, state, x, y, key):
        def loss(params):
            logits, taps = model.apply({**variables, "params": params}, x, train=True, dropout_key=key)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), taps["batch_stats"]

        (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        direction, state = optimiser.update(gradient, state, variables["params"])
        params = jax.tree.map(lambda p, d: p - jnp.float32(0.1) * d, variables["params"], direction)
        return {"params": params, "batch_stats": stats}, state, value

    return step, optimiser


def pack_of(model, shape, runs=3, batch=8):
    """The step and the arguments of all runs, as numpy arrays: to index and stack them compiles nothing."""
    step, optimiser = training_step(model)
    variables = jax.jit(jax.vmap(model.init))(jax.random.split(jax.random.key(0), runs))
    state = jax.jit(jax.vmap(optimiser.init))(variables["params"])
    y = np.arange(runs * batch, dtype=np.int32).reshape(runs, batch) % 4
    arguments = jax.device_get((variables, state, images(runs, batch, *shape, seed=1), y))
    return step, (*arguments, jax.random.split(jax.random.key(3), runs))


@pytest.mark.parametrize("name", ["lenet", "tiny"])
def test_a_vmapped_training_step_equals_single_runs(name):
    model, shape = (tiny(), (16, 16, 3)) if name == "tiny" else (build("lenet", (8, 8, 1), 4), (8, 8, 1))
    step, arguments = pack_of(model, shape)
    packed = jax.device_get(jax.jit(jax.vmap(step))(*arguments))
    one = jax.jit(step)
    runs = [jax.device_get(one(*jax.tree.map(lambda a, r=r: a[r], arguments))) for r in range(3)]
    jax.tree.map(lambda a, *b: np.testing.assert_allclose(a, np.stack(b), rtol=1e-5, atol=1e-5), packed, *runs)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), packed[0]["params"], arguments[0]["params"])
    assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_a_training_step_under_strict_promotion(name, dtype):
    model = build(name, SMALL[name], 10, dtype)
    step, optimiser = training_step(model)

    def start_and_step(key):
        variables = model.init(key)
        y = jnp.zeros(4, jnp.int32)
        return step(variables, optimiser.init(variables["params"]), jnp.zeros((4, *SMALL[name])), y, key)

    with jax.numpy_dtype_promotion("strict"):
        after = jax.eval_shape(start_and_step, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype("float32")}


def test_a_diverged_run_shows_in_its_own_loss_only():
    """The layers above zero what is not finite, wherever it begins: the loss must tell all the same."""
    step, (variables, *rest) = pack_of(tiny(jnp.bfloat16), (16, 16, 3))
    packed = jax.jit(jax.vmap(step))
    healthy = jax.device_get(packed(variables, *rest))
    paths = flatten_dict(variables["params"])
    assert {path[-1] for path in paths} == {"kernel", "scale", "bias"}
    for path in paths:
        poisoned = jax.tree.map(np.copy, variables)
        flatten_dict(poisoned["params"])[path][1] = np.nan
        broken = jax.device_get(packed(poisoned, *rest))
        assert np.isfinite(broken[2]).tolist() == [True, False, True], path
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[::2], b[::2]), broken, healthy)


@functools.cache
def clamped_gradient():
    """(weights of the features -> the clamped gradient of their sum, the shape of the features)."""
    model = tiny()
    variables, x = model.init(jax.random.key(0)), images(4, 16, 16, 3)

    @jax.jit
    def clamped(weights):
        def loss(params):
            return jnp.sum(model.apply({**variables, "params": params}, x, train=True)[1]["features"] * weights)

        gradient = jax.grad(loss)(variables["params"])
        return optax.clip(0.1).update(gradient, optax.EmptyState())[0]

    return clamped, jax.eval_shape(lambda: model.apply(variables, x)[1]["features"]).shape


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf, 3e37])
def test_gradients_that_are_not_finite_show_in_weights_though_the_loss_was_finite(bad):
    """Convolutions zero them on their way down, and a clamp would make 0.1 of what is infinite."""
    clamped, shape = clamped_gradient()
    weights = np.asarray(images(*shape, seed=1)).copy()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(clamped(weights)))
    weights[0] = bad
    assert not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(clamped(weights)))


def test_relu_and_its_gradient():
    x = jnp.asarray([-2.0, -0.0, 0.0, 1e-30, 3.0, jnp.nan, jnp.inf, -jnp.inf])
    expected = np.asarray([0, 0, 0, 1e-30, 3, 0, 0, 0], np.float32)
    np.testing.assert_array_equal(relu(x), expected)
    weights = jnp.arange(1.0, 9.0)
    found = jax.grad(lambda x: jnp.sum(relu(x) * weights))(x)
    np.testing.assert_array_equal(found, [0, 0, 0, 4, 5, 0, 0, 0])
    np.testing.assert_array_equal(found[:5], jax.grad(lambda x: jnp.sum(nn.relu(x) * weights[:5]))(x[:5]))


def test_taming_passes_gradients_on():
    x = jnp.asarray([2.0, jnp.nan, jnp.inf, 3e38])
    np.testing.assert_array_equal(tame(x), [2, 0, 0, 0])
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.sum(tame(x) * jnp.arange(1.0, 5.0)))(x), [1, 2, 3, 4])


def test_unusable_requests():
    with pytest.raises(InputError, match=r"did you mean 'resnet18_thin'.*lenet"):
        build("resnet18-thin", (32, 32, 3), 10)
