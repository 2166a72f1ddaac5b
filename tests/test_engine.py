"""The step, the two loops over steps, evaluation, and a run that diverges."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from labs import bench as small_bench
from labs import on_host

from jaxdal import engine
from jaxdal.engine import Engine
from jaxdal.trainers import supervised
from jaxdal.types import Recipe

pytestmark = pytest.mark.usefixtures("full_optimisation")

bench = functools.partial(small_bench, model="lenet")  # not the tiny model: numbers of real ones are compared


def test_learning_rate_falls_to_a_tenth_at_each_milestone():
    recipe = Recipe(epochs=150, batch=256, learning_rate=0.1, milestones=(8 / 15, 0.8))
    epochs = jnp.asarray([0, 79, 80, 119, 120, 149])
    rates = [float(engine.learning_rate(recipe, epoch)) for epoch in epochs]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-6)
    few = [float(engine.learning_rate(recipe._replace(epochs=5), jnp.int32(epoch))) for epoch in range(5)]
    np.testing.assert_allclose(few, [0.1, 0.1, 0.1, 0.01, 0.001], rtol=1e-6)  # 2.67 epochs are 3
    one_epoch = recipe._replace(epochs=1)
    assert float(engine.learning_rate(one_epoch, jnp.int32(0))) == pytest.approx(0.1), "no milestone before the start"


@pytest.mark.parametrize("clamp", [None, 0.1])
def test_optimiser_is_sgd_with_momentum_decay_and_clamp(clamp):
    """Against the formulas of methods 0.2 (torch's SGD): g = clip(g) + wd p; v = 0.9 v + g; p -= lr v."""
    recipe = Recipe(epochs=1, batch=1, learning_rate=0.1, milestones=(), clamp=clamp)
    rng = np.random.default_rng(0)
    weights, velocity = rng.normal(size=5), np.zeros(5)
    params, rule = jnp.asarray(weights, jnp.float32), engine.optimiser(recipe)
    state = rule.init(params)
    for _ in range(4):
        gradient = rng.normal(size=5)
        updates, state = rule.update(jnp.asarray(gradient, jnp.float32), state, params)
        params = params - jnp.float32(0.1) * updates
        clipped = gradient if clamp is None else np.clip(gradient, -clamp, clamp)
        velocity = 0.9 * velocity + clipped + 5e-4 * weights
        weights = weights - 0.1 * velocity
    np.testing.assert_allclose(params, weights, rtol=1e-5, atol=1e-6)


def test_weight_decay_of_kernels_only_leaves_biases_and_scales_alone():
    recipe = Recipe(epochs=1, batch=1, learning_rate=0.1, milestones=(), decay_kernels_only=True, weight_decay=0.5)
    params = {"bias": jnp.ones(3), "matrix": jnp.ones((2, 3)), "filters": jnp.ones((3, 3, 1, 2))}
    rule = engine.optimiser(recipe)
    updates, _ = rule.update(jax.tree.map(jnp.zeros_like, params), rule.init(params), params)
    assert {name: np.unique(leaf).tolist() for name, leaf in updates.items()} == {
        "bias": [0], "matrix": [0.5], "filters": [0.5],
    }  # fmt: skip


def test_device_loop_equals_host_loop(blobs):
    looped, stepped = bench(blobs, [0, 1]), bench(blobs, [0, 1])
    stepped.lab.engine._device_loop = False
    assert looped.lab.engine._device_loop, "LeNet has no convolution that a loop would slow down"
    assert not bench(blobs, [0], model="resnet18_thin").lab.engine._device_loop, "but this one has"
    a, b = on_host(looped.train(8)), on_host(stepped.train(8))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)


def test_cutting_the_steps_elsewhere_changes_nothing(blobs):
    one = bench(blobs, [0])
    whole = on_host(one.train(6))
    state = one.lab.engine.init(one.keys)
    for first, until in [(0, 1), (1, 5), (5, 6)]:
        state = one.lab.engine.advance(state, one.keys, one.known, one.lab.pool, 2, first, until)
    jax.tree.map(np.testing.assert_array_equal, whole, on_host(state))


@pytest.mark.parametrize(("model", "steps"), [("lenet", 4), ("two_stages", 1)])
def test_packed_runs_equal_single_runs(blobs, model, steps):
    """To float32 rounding; more steps of a deep net at this rate would amplify any rounding."""
    together = on_host(bench(blobs, [3, 5, 8], model=model).train(steps))
    for lane, seed in enumerate([3, 5, 8]):
        alone = on_host(bench(blobs, [seed], model=model).train(steps))
        jax.tree.map(lambda x, y, i=lane: np.testing.assert_allclose(x[i], y[0], rtol=1e-4, atol=1e-5), together, alone)


def test_a_pack_is_one_program_with_as_many_convolutions(blobs):
    def convolutions(seeds: list[int]) -> list[str]:
        one = bench(blobs, seeds, model="resnet18_thin")
        state = one.lab.engine.init(one.keys)
        order = one.lab.engine._batches(one.keys, one.known, np.int32(0))
        scalar = np.int32(0)
        lowered = one.lab.engine._one.lower(
            state, one.keys, one.known, order, one.lab.pool, np.int32(2), scalar, scalar
        )
        return [line for line in lowered.as_text().splitlines() if "stablehlo.convolution" in line]

    single, packed = convolutions([0]), convolutions([0, 1, 2])
    assert len(single) == len(packed) > 50  # 20 convolutions forward, as many weight and nearly as many input gradients
    assert all("feature_group_count = 1 " in line and "batch_group_count = 1 " in line for line in packed)


def test_seeds_differ_and_repeat(blobs):
    kernels = on_host(bench(blobs, [0, 1]).train(2)).variables["params"]
    again = on_host(bench(blobs, [0, 1]).train(2)).variables["params"]
    jax.tree.map(np.testing.assert_array_equal, kernels, again)
    assert all(np.any(leaf[0] != leaf[1]) for leaf in jax.tree.leaves(kernels))


@pytest.mark.parametrize("model", ["lenet", "two_stages"])
def test_a_diverged_run_is_named_and_leaves_its_neighbours_alone(blobs, model):
    def poison(state):
        def spoil(leaf):
            return leaf.at[1].set(jnp.full_like(leaf[1], jnp.nan))

        variables = state.variables | {"params": jax.tree.map(spoil, state.variables["params"])}
        return state._replace(variables=variables)

    one = bench(blobs, [0, 1, 2], model=model)
    healthy, poisoned = on_host(one.train(4)), on_host(one.train(4, change=poison))
    assert healthy.diverged.tolist() == [0, 0, 0]
    assert poisoned.diverged.tolist() == [0, 1, 0]
    for lane in (0, 2):
        jax.tree.map(
            lambda x, y, i=lane: np.testing.assert_array_equal(x[i], y[i]), healthy.variables, poisoned.variables
        )


def test_a_run_diverges_at_the_first_step_whose_loss_is_not_finite(blobs):
    """The third one, after two that went well."""
    one = bench(blobs, [0])
    state = one.train(2)
    spoilt = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), state.variables["params"])
    state = state._replace(variables=state.variables | {"params": spoilt})
    assert one.lab.engine.advance(state, one.keys, one.known, one.lab.pool, 2, 2, 6).diverged.tolist() == [3]


def test_weights_that_are_not_finite_count_as_diverged_though_the_loss_was(blobs):
    one = bench(blobs, [0])
    state = one.lab.engine.init(one.keys)
    first = jax.tree.leaves(state.variables)[0]
    variables = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.inf) if leaf is first else leaf, state.variables)
    assert int(engine.check(state._replace(variables=variables), jnp.int32(7)).diverged[0]) == 7


@pytest.mark.parametrize("rows", [7, 80, 1000])
def test_evaluation_counts_every_test_image_once(blobs, rows):
    one = bench(blobs, [0])
    variables = one.lab.engine.init(one.keys).variables  # fresh weights: right now and then
    network = one.network
    own = jax.tree.map(lambda leaf: leaf[0], variables)
    logits, _ = network.apply(own, network.normalise(jnp.asarray(blobs.test_x)))
    right = np.asarray(logits).argmax(-1) == blobs.test_y
    assert 0 < right.sum() < right.size
    again = Engine(
        one.lab.lanes, network, supervised(), one.lab.settings.recipe, num_classes=4, labels=(40, 80),
        pool=blobs.train_x.shape, rows=rows, device_loop=False, chunk=32,
    )  # fmt: skip
    counted = np.asarray(again.evaluate(variables, one.lab.test))[0]
    np.testing.assert_array_equal(counted, np.bincount(blobs.test_y[right], minlength=4))
