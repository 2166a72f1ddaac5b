"""AdversarialBIM against a loop over single examples, against a closed form, and on planted boundaries."""

import decimal
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from labs import bench
from reference import adversarial_bim as reference

from jaxdal.errors import InputError
from jaxdal.signals import Gather
from jaxdal.strategies.adversarial_bim import adversarial_bim, log_odds_against, squared_distance
from jaxdal.types import Network

N, SHAPE, CLASSES = 40, (2, 3, 2), 4


def linear(variables, x):
    kernel, bias = variables
    return x.reshape(x.shape[0], -1) @ kernel + bias


def bent(variables, x):
    """Two layers, so that the direction changes on the way."""
    kernel, bias, top = variables
    return jnp.tanh(x.reshape(x.shape[0], -1) @ kernel + bias) @ top


@functools.cache
def program(logits, epsilon, cap):
    def apply(variables, x, *, train=False, dropout_key=None):
        assert not train
        assert dropout_key is None
        return logits(variables, x), {}

    def pixels(x):
        return x.astype(jnp.float32) / 64 - 2

    net = Network(lambda key: {}, apply, lambda key, x: pixels(x), pixels)
    signal = squared_distance(epsilon, cap)
    return jax.jit(lambda variables, x: signal.per_batch(jax.random.split(jax.random.key(0), N), net, variables, (), x))


def distances(logits, variables, x, epsilon=0.05, cap=100) -> np.ndarray:
    found = np.asarray(program(logits, epsilon, cap)(variables, x))
    assert found.shape == (len(x),)
    assert found.dtype == np.float32
    return found


def images(seed: int = 0, size: int = N) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, *SHAPE), np.uint8)


def exact(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) / 64 - 2


def weights(seed: int, classes: int = CLASSES, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    draws = scale * rng.standard_normal((int(np.prod(SHAPE)), classes)), scale * rng.standard_normal(classes)
    return tuple(draw.astype(np.float32) for draw in draws)


def compare(found: np.ndarray, expected: list[float]) -> None:
    """Equal, but for a step more or less where float32 is at a boundary, or at a gradient of nearly 0."""
    agree = np.isclose(found, expected, rtol=1e-4)
    assert agree.mean() >= 0.95, np.stack([found, expected])[:, ~agree]


@pytest.mark.parametrize("scale", [1, 30])
@pytest.mark.parametrize("seed", range(3))
def test_distance_is_that_of_the_loop(seed, scale):
    """A network that is 30 times as sure has gaps of up to 400 between its logits, and the same boundaries."""
    kernel, bias = weights(seed, scale=scale)
    f, gradient = reference.linear(kernel.astype(np.float64), bias.astype(np.float64))
    expected = [reference.squared_distance(f, gradient, x, 0.05, 100) for x in exact(images(seed))]
    assert len(set(np.round(expected, 6))) > 10
    compare(distances(linear, (kernel, bias), images(seed)), expected)


@pytest.mark.parametrize("cap", [1, 3, 100])
def test_distance_is_that_of_the_loop_where_gradients_turn(cap):
    """With a gradient by finite differences of central steps: nothing of JAX in it."""
    kernel, bias = weights(7, 9, 0.6)
    top = np.random.default_rng(8).standard_normal((9, CLASSES)).astype(np.float32)

    def f(x):
        return np.tanh(x.reshape(-1) @ kernel.astype(np.float64) + bias) @ top.astype(np.float64)

    def loss(x, y):
        return np.log(np.sum(np.exp(f(x) - f(x)[y])))

    def gradient(x, y):
        found = np.zeros(x.size)
        for place, step in enumerate(1e-5 * np.eye(x.size).reshape(x.size, *SHAPE)):
            found[place] = loss(x + step, y) - loss(x - step, y)
        return found.reshape(SHAPE)

    expected = [reference.squared_distance(f, gradient, x, 0.05, cap) for x in exact(images(1))]
    assert np.isinf(expected).any() == (cap < 100) or cap == 100
    compare(distances(bent, (kernel, bias, top), images(1), cap=cap), expected)


def test_two_classes_in_closed_form():
    kernel, bias = weights(5, 2)
    f, _ = reference.linear(kernel.astype(np.float64), bias.astype(np.float64))
    x, weight = images(5), (kernel[:, 0] - kernel[:, 1]).astype(np.float64)
    gaps = [abs(f(one)[0] - f(one)[1]) for one in exact(x)]
    steps = np.array([reference.steps_of_two_classes(gap, weight, 0.02) for gap in gaps])
    assert steps.max() > 5
    compare(distances(linear, (kernel, bias), x, epsilon=0.02), (steps**2 * 0.02**2 * np.prod(SHAPE)).tolist())


@pytest.mark.parametrize("moved", ["one logit", "both"])
def test_two_classes_in_closed_form_however_sure(moved):
    """The gap is added as a bias: a step takes as much off it where p_y rounds to 1 as elsewhere."""
    kernel = np.random.default_rng(0).standard_normal((12, 2)).astype(np.float32) / 5
    if moved == "one logit":
        kernel = np.float32([[1 / 12, 0]] * 12)
    x, gaps = np.full((1, *SHAPE), 128, np.uint8), (5.1, 20.1, 30.1, 36.1, 50.1, 80.1)
    found = [distances(linear, (kernel, np.float32([gap, 0])), x, epsilon=0.5, cap=200)[0] for gap in gaps]
    weight = (kernel[:, 0] - kernel[:, 1]).astype(np.float64)
    expected = [reference.steps_of_two_classes(gap, weight, 0.5) ** 2 * 0.5**2 * 12 for gap in gaps]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("gap", [0, 3, 12, 30, 100])
def test_the_direction_is_that_of_the_cross_entropy(gap):
    """With 60 digits for W (p - e_y), which hold 1 - p_y, down to 1e-43 here."""
    kernel, bias = weights(3)
    bias[2] += gap
    x = exact(images(0))[:1]
    f, gradient = reference.linear(kernel.astype(np.float64), bias.astype(np.float64))
    y = int(np.argmax(f(x[0])))
    with decimal.localcontext(prec=60):
        powers = [decimal.Decimal(float(z)).exp() for z in f(x[0])]
        residual = [power / sum(powers) - (number == y) for number, power in enumerate(powers)]
        of_ce = [sum(decimal.Decimal(float(w)) * r for w, r in zip(row, residual, strict=True)) for row in kernel]
    expected = gradient(x[0], y)
    np.testing.assert_array_equal(np.sign(expected).ravel(), [-1 if one < 0 else 1 for one in of_ce])
    ours = jax.grad(lambda x: jnp.sum(log_odds_against(linear((kernel, bias), x), jnp.asarray([y]))))
    np.testing.assert_allclose(ours(x.astype(np.float32))[0], expected, rtol=1e-4, atol=1e-5)


def test_the_cap_is_the_last_step_that_counts():
    """Gaps of up to 13 steps."""
    kernel = np.zeros((12, 2), np.float32)
    kernel[:, 0] = 1 / 12
    x = np.full((N, *SHAPE), 128, np.uint8) + np.arange(N, dtype=np.uint8)[:, None, None, None]  # 0, 1/64, ...
    gaps = np.arange(N) / 64 + 0.001
    found = distances(linear, (kernel, np.float32([0.001, 0])), x, epsilon=0.05, cap=4)
    steps = np.floor(gaps / 0.05) + 1
    assert set(steps) >= {3, 4, 5}
    compare(found, np.where(steps <= 4, steps**2 * 0.05**2 * 12, np.inf).tolist())


def test_batches_change_nothing():
    """One by one, and in batches whose last rows go on among themselves."""
    variables = weights(1)
    together = distances(linear, variables, images())
    for size in (1, 7, 16):
        parts = [distances(linear, variables, images()[i : i + size]) for i in range(0, 32, size)][: 32 // size]
        np.testing.assert_allclose(np.concatenate(parts), together[: len(parts) * size], rtol=1e-5)
    order = np.random.default_rng(0).permutation(N)
    np.testing.assert_allclose(distances(linear, variables, images()[order]), together[order], rtol=1e-5)


def test_a_sure_network_is_no_farther_from_its_boundaries():
    """Two classes, whose boundary and directions stay when all is multiplied by 1000; the gaps are some thousands."""
    kernel, bias = weights(2, 2)
    near = distances(linear, (kernel, bias), images(2))
    assert np.isfinite(near).all()
    compare(distances(linear, (1000 * kernel, 1000 * bias), images(2)), near)


def test_a_gradient_that_is_zero_is_no_small_distance():
    """Where tanh rounds to 1, no step is taken. The published code gives such an example 0, and buys it first."""
    kernel, bias = weights(7, 9, 0.6)
    top, x = np.random.default_rng(8).standard_normal((9, CLASSES)).astype(np.float32), images(1)
    flat = distances(bent, (1000 * kernel, 1000 * bias, top), x)
    assert np.isinf(flat).sum() > N // 2
    near = distances(bent, (kernel, bias, top), x)
    assert np.isfinite(near).sum() > N // 2
    both = np.where(np.arange(N) % 2, flat, near)
    picks, _ = adversarial_bim().select(
        jax.random.key(0), np.full(N, -1, np.int32), N, (), both, np.full((N, 3), 1 / 3)
    )
    assert np.isfinite(both[picks[: int(np.isfinite(both).sum())]]).all()


def test_ties_go_by_margin_and_what_never_changes_comes_last():
    distance = np.float32([4, np.inf, 1, 1, np.inf, 1, 0.5, 4])
    top = np.float32([0.9, 0.5, 0.7, 0.6, 0.55, 0.6, 0.99, 0.5])
    probs, known = np.stack([top, 1 - top], axis=1), np.full(8, -1, np.int32)
    select = adversarial_bim().select
    assert select(jax.random.key(0), known, 8, (), distance, probs)[0].tolist() == [6, 3, 5, 2, 7, 0, 1, 4]
    known[[6, 3]] = 1
    picks, memory = select(jax.random.key(0), known, 6, (), distance, probs)
    assert picks.tolist() == [5, 2, 7, 0, 1, 4]
    assert picks.dtype == jnp.int32
    assert memory == ()
    probs[5] = np.nan
    assert select(jax.random.key(0), known, 2, (), distance, probs)[0].tolist() == [2, 5]


def test_near_boundaries_are_found_where_margins_mislead():
    """Planted: large margins, but steep, so that a step crosses the boundary; the rest is doubtful, and flat."""
    planted = [4, 9, 23, 31]
    x = np.full((N, *SHAPE), 128, np.uint8)
    x[:, 0, 0, 0] = 140  # the class, by a little
    x[planted, 0, 0, 1] = 255  # how steep
    x[planted, 0, 0, 0] = 129

    def steep(variables, x):
        slope = 0.01 + 200 * jnp.maximum(x[:, 0, 0, 1], 0)
        return jnp.stack([slope * x[:, 0, 0, 0], 0 * slope], axis=1)

    found = distances(steep, (), x)
    probs = jax.nn.softmax(steep((), exact(x).astype(np.float32)))
    assert probs[planted, 0].min() > 0.9 > 0.6 > np.delete(np.asarray(probs[:, 0]), planted).max()
    picks, _ = adversarial_bim().select(jax.random.key(0), np.full(N, -1, np.int32), 4, (), found, probs)
    assert sorted(picks.tolist()) == planted


@pytest.mark.parametrize("scale", [0, 1e30, np.inf, np.nan])
def test_picks_are_valid_whatever_the_network_says(scale):
    kernel, bias = np.full((12, CLASSES), scale, np.float32), np.arange(CLASSES, dtype=np.float32)
    found = distances(linear, (kernel, bias), images())
    np.testing.assert_array_equal(found, np.inf)
    known = np.where(np.arange(N) % 4 == 0, 1, -1).astype(np.int32)
    probs = jax.nn.softmax(linear((kernel, bias), jnp.asarray(exact(images()), jnp.float32)))
    for k in (1, 30):  # 30 are left
        picks, _ = adversarial_bim().select(jax.random.key(0), known, k, (), found, probs)
        assert len(set(picks.tolist())) == k
        assert np.all(known[picks] < 0)


def test_one_class_is_never_left():
    np.testing.assert_array_equal(distances(linear, weights(0, 1), images()), np.inf)
    np.testing.assert_array_equal(log_odds_against(jnp.ones((3, 1)), jnp.zeros(3, jnp.int32)), 0)


def test_classes_that_are_ruled_out_are_never_reached():
    kernel, _ = weights(0)
    bias = np.float32([1, -np.inf, -np.inf, -np.inf])
    np.testing.assert_array_equal(distances(linear, (kernel, bias), images()), np.inf)
    kernel[:, 1:] = 0
    np.testing.assert_array_equal(distances(linear, (kernel, bias), images(), cap=3), np.inf)


def test_what_cannot_be_is_refused():
    for options in ({"epsilon": 0}, {"epsilon": np.nan}, {"epsilon": "x"}, {"cap": 0}, {"cap": 2.5}):
        with pytest.raises(InputError, match="of adversarial_bim is not"):
            adversarial_bim(**options)


# In a lab.


def test_devices_and_neighbours_change_nothing(blobs):
    """A network in a while-loop: split over devices, and beside a run that needs another number of steps."""
    strategy = adversarial_bim(epsilon=0.3, cap=6)
    found = {}
    for seeds, devices, batch in [((0,), 3, 50), ((0, 1), 1, 200)]:
        here = bench(blobs, seeds, devices, strategy)
        gather = Gather(here.lab.lanes, here.network, strategy.needs, here.lab.pool, batch)
        distance, probs = gather(here.keys, here.train(6).variables, here.known, here.lab.pool)
        found[seeds, devices] = np.asarray(distance)[:, :200]  # beyond are rows that make shares equal
        picks, _ = here.lab.select(here.keys, here.known, (), distance, probs)
        assert np.all(np.take_along_axis(np.asarray(here.known), np.asarray(picks), axis=1) < 0)
    alone = found[(0,), 3][0]
    assert len(np.unique(alone)) > 20
    agree = np.isclose(found[(0, 1), 1][0], alone, rtol=0.02)  # a pixel whose gradient is nearly 0 may go the other way
    assert agree.mean() > 0.95
