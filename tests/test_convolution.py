"""The packed convolution against a plain one, run after run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.vaal import transposed

from jaxdal.models.convolution import conv2d, conv_transpose2d

pytestmark = pytest.mark.usefixtures("full_optimisation")

RUNS, BATCH, SIDE, INPUTS, OUTPUTS = 3, 2, 6, 2, 3
TOLERANCE = {jnp.float32: {"rtol": 1e-5, "atol": 1e-5}, jnp.bfloat16: {"rtol": 2e-2, "atol": 6e-2}}


def plain(x, w, stride, padding):
    pads = [(padding, padding)] * 2 if isinstance(padding, int) else padding
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, w, (stride, stride), pads, dimension_numbers=layout)


def normal(shape, dtype=jnp.float32, seed=0):
    """Not by JAX, which would compile a program for every shape."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32), dtype)


def operands(size=3, lead=(RUNS,), dtype=jnp.float32, seed=0):
    x = normal((*lead, BATCH, SIDE, SIDE, INPUTS), dtype, seed)
    return x, normal((*lead, size, size, INPUTS, OUTPUTS), dtype, seed + 100)


def with_gradients(convolution, stride=1, padding="SAME"):
    """(x, w) -> the convolution, and its gradients for a cotangent that differs everywhere."""

    def function(x, w):
        y, pull_back = jax.vjp(lambda x, w: convolution(x, w, stride, padding), x, w)
        weights = jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape).astype(y.dtype)
        return y, *pull_back(weights * y)

    return function


def assert_close(actual, expected, dtype=jnp.float32):
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == b.dtype == dtype
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        scale = max(1.0, np.abs(b).max())
        np.testing.assert_allclose(a / scale, b / scale, **TOLERANCE[dtype])


BOTH, ONLY_X, ONLY_W = (0, 0), (0, None), (None, 0)


@pytest.mark.parametrize(
    ("batched", "stride", "size", "padding"),
    [
        *((BOTH, *case) for case in [(1, 3, "SAME"), (2, 3, "SAME"), (2, 3, 1), (1, 5, "VALID"), (1, 1, 0), (2, 1, 0)]),
        *((ONLY_X, *case) for case in [(1, 3, 1), (2, 5, "VALID"), (2, 1, "SAME")]),
        *((ONLY_W, *case) for case in [(1, 3, 1), (2, 5, "VALID"), (2, 1, "SAME")]),
    ],
)
def test_packed_equals_one_run_after_another(batched, stride, size, padding):
    x, w = operands(size)
    x, w = (x if batched[0] == 0 else x[0]), (w if batched[1] == 0 else w[0])
    actual = jax.jit(jax.vmap(with_gradients(conv2d, stride, padding), batched))(x, w)
    one = jax.jit(with_gradients(plain, stride, padding))
    runs = [one(x[r] if batched[0] == 0 else x, w[r] if batched[1] == 0 else w) for r in range(RUNS)]
    assert_close(actual, [np.stack(run) for run in zip(*runs, strict=True)])


def test_large_maps_in_pieces():
    x, w = normal((2, 24, 32, 33, 2)), normal((2, 3, 3, 2, 3), seed=1)
    actual, expected = (jax.jit(jax.vmap(with_gradients(c, 1, 1)))(x, w) for c in (conv2d, plain))
    assert_close(actual, expected)
    lowered = {
        platform: jax.jit(with_gradients(conv2d, 1, 1))
        .trace(x[0], w[0])
        .lower(lowering_platforms=(platform,))
        .as_text()
        for platform in ("cpu", "cuda", "tpu")
    }
    assert {platform: text.count("stablehlo.convolution") for platform, text in lowered.items()} == {
        "cpu": 2 + 3, "cuda": 2 + 1, "tpu": 2 + 1
    }  # fmt: skip


def test_bfloat16():
    x, w = operands(dtype=jnp.bfloat16)
    actual, expected = (jax.jit(jax.vmap(with_gradients(c, 2, 1)))(x, w) for c in (conv2d, plain))
    assert_close(actual, expected, jnp.bfloat16)


@pytest.mark.parametrize(
    ("outer", "inner"), [(BOTH, BOTH), (BOTH, ONLY_X), (BOTH, ONLY_W), (ONLY_X, BOTH), (ONLY_W, ONLY_X)]
)
def test_nested_vmaps(outer, inner):
    lead = [[2] * (outer[i] == 0) + [3] * (inner[i] == 0) for i in range(2)]
    x, w = operands(lead=lead[0])[0], operands(lead=lead[1])[1]
    actual, expected = (
        jax.jit(jax.vmap(jax.vmap(with_gradients(c, 2, 1), inner), outer))(x, w) for c in (conv2d, plain)
    )
    assert_close(actual, expected)


def test_other_axes():
    x, w = operands()
    function = jax.jit(jax.vmap(with_gradients(conv2d), in_axes=(2, 4), out_axes=1))
    actual = function(jnp.moveaxis(x, 0, 2), jnp.moveaxis(w, 0, 4))
    assert_close(actual, [jnp.moveaxis(a, 0, 1) for a in jax.jit(jax.vmap(with_gradients(plain)))(x, w)])


@pytest.mark.parametrize(("size", "stride", "padding"), [(4, 2, 1), (1, 1, 0), (3, 3, 1), (5, 1, 2)])
def test_transposed_is_torchs(size, stride, padding):
    """Forward against stamps of the kernel; gradients, and several runs, against JAX's own dilated convolution."""
    x, w = operands(size)
    w = w.swapaxes(-1, -2)  # [kh, kw, out, in]

    def dilated(x, w, stride, padding):
        pads, layout = [(size - 1 - padding,) * 2] * 2, ("NHWC", "HWIO", "NHWC")
        turned = w[::-1, ::-1].swapaxes(-1, -2)
        return jax.lax.conv_general_dilated(
            x, turned, (1, 1), pads, lhs_dilation=(stride, stride), dimension_numbers=layout
        )

    actual = jax.jit(jax.vmap(with_gradients(conv_transpose2d, stride, padding)))(x, w)
    one = jax.jit(with_gradients(dilated, stride, padding))
    runs = [one(x[r], w[r]) for r in range(RUNS)]
    assert_close(actual, [np.stack(run) for run in zip(*runs, strict=True)])
    stamps = transposed(np.asarray(x[0], float), np.asarray(w[0], float), stride, padding)
    np.testing.assert_allclose(actual[0][0], stamps, rtol=1e-4, atol=1e-4)


def descend(convolution, loop):
    """(x, w) -> w after three steps down the gradient of a loss, in one of JAX's loops."""

    def function(x, w):
        step = jax.grad(lambda w: jnp.square(convolution(x, w, 1, 1)).mean())
        if loop == "fori_loop":
            return jax.lax.fori_loop(0, 3, lambda _, w: w - 0.1 * step(w), w)
        return jax.lax.scan(lambda w, _: (w - 0.1 * step(w), None), w, length=3)[0]

    return function


@pytest.mark.parametrize("loop", ["fori_loop", "scan"])
def test_inside_loops(loop):
    x, w = operands()
    actual, expected = (jax.jit(jax.vmap(descend(c, loop)))(x, w) for c in (conv2d, plain))
    assert_close([actual], [expected])


def test_a_loop_around_vmap_and_gradient_through_a_scan():
    x, w = operands()

    def loss(w, convolution):
        y = jax.lax.scan(lambda y, x: (y + convolution(x, w, 1, 1).sum(), None), 0.0, x[:, :1])[0]
        return jnp.square(y)

    both = [jax.jit(jax.vmap(jax.grad(lambda w, c=c: loss(w, c))))(w) for c in (conv2d, plain)]
    assert_close([both[0] / 100], [both[1] / 100])


def test_inside_shard_map():
    assert jax.device_count() == 8, "tests simulate 8 devices"
    mesh = jax.make_mesh((8,), ("runs",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("runs")
    x, w = operands(lead=(16,))
    function = jax.vmap(descend(conv2d, "fori_loop"))
    packed = jax.jit(jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))(x, w)
    assert packed.sharding.shard_shape(packed.shape)[0] == 2
    assert_close([packed], [jax.jit(jax.vmap(descend(plain, "fori_loop")))(x, w)])


def convolutions(function, *arguments):
    """The convolutions of a function before XLA's own passes, one line each."""
    text = jax.jit(function).lower(*arguments).as_text()
    return [line for line in text.splitlines() if "stablehlo.convolution" in line]


@pytest.mark.parametrize("runs", [1, 3])
def test_one_dense_convolution_each_way(runs):
    x, w = operands(lead=(runs,))
    lines = convolutions(jax.vmap(with_gradients(conv2d, 2, 1)), x, w)
    assert len(lines) == 3  # forward, input gradient, weight gradient
    assert all("feature_group_count = 1 " in line and "batch_group_count = 1 " in line for line in lines)
    assert any(f"x{runs * INPUTS}x{runs * OUTPUTS}xf32" in line for line in lines)
    grouped = convolutions(jax.vmap(with_gradients(plain, 2, 1)), x, w)
    assert runs == 1 or any("group_count = 3 " in line for line in grouped), "the test would not notice groups"


@jax.jit
@jax.vmap
def pulled_back(x, w, dy):
    y, pull_back = jax.vjp(lambda x, w: conv2d(x, w, 1, 1), x, w)
    return y, *pull_back(dy)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf, 3e38])
@pytest.mark.parametrize("where", ["x", "w", "dy"])
def test_a_diverged_run_leaves_its_neighbours_alone(where, bad):
    x, w = operands()
    dy = normal((RUNS, BATCH, SIDE, SIDE, OUTPUTS), seed=9)
    healthy = {"x": x, "w": w, "dy": dy}
    broken = {**healthy, where: healthy[where].at[1, ..., 1].set(bad)}

    y, dx, dw = pulled_back(*broken.values())
    for actual, expected in zip((y, dx, dw), pulled_back(*healthy.values()), strict=True):
        np.testing.assert_array_equal(actual[::2], expected[::2])
    if where != "w" and bad != 3e38:  # its own weights show it
        assert not np.isfinite(dw[1]).all()


def test_a_single_run_is_not_touched():
    x, w = operands(lead=(1,))
    x = x.at[0, 0, 0, 0, 0].set(jnp.nan)
    np.testing.assert_array_equal(jax.vmap(lambda x, w: conv2d(x, w, 1, 1))(x, w)[0], plain(x[0], w[0], 1, 1))
