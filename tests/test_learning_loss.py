"""Learning loss: module, ranking loss, where its gradient goes, and what is bought."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from labs import bench, on_host
from reference import learning_loss as reference
from selecting import after_scoring_in_batches

import jaxdal
from jaxdal import strategies
from jaxdal.errors import InputError
from jaxdal.losses import cross_entropies
from jaxdal.strategies.learning_loss import learning_loss, predict, ranking_loss
from jaxdal.trainers import build
from jaxdal.trainers.supervised import answers
from jaxdal.types import Batch, Moment, Phase, Trainer


@pytest.mark.parametrize("size", [2, 4, 5, 16])
@pytest.mark.parametrize("margin", [0.0, 1.0])
def test_ranking_loss_is_that_of_the_paper(size, margin):
    rng = np.random.default_rng(size)
    predicted, losses = rng.standard_normal((2, size)).astype(np.float32)
    losses[0] = losses[-1]  # equal losses: the second of the pair counts as larger
    expected = reference.ranking_loss(predicted, losses, margin)
    np.testing.assert_allclose(ranking_loss(predicted, losses, margin), expected, rtol=1e-6)


def test_ranking_loss_by_hand():
    """Pairs (0, 3) and (1, 2): 0.5 - 2 is wrong by 1.5, so 1 + 1.5; 3 - 0 is right by more than the margin, so 0."""
    loss = ranking_loss(jnp.asarray([0.5, 3.0, 0.0, 2.0]), jnp.asarray([2.0, 5.0, 1.0, 1.0]), 1.0)
    assert float(loss) == pytest.approx(2.5 / 2)


@functools.cache
def small_bench(blobs_id: int, strategy: str, seeds: tuple[int, ...] = (0,)):
    return bench(KEPT[blobs_id], seeds, strategy=strategy, model="lenet")


KEPT: dict[int, jaxdal.Dataset] = {}


@pytest.fixture
def trained(blobs):
    """Make a lab and train it a few steps; labs are kept between tests."""
    KEPT[id(blobs)] = blobs

    def make(strategy: str, steps: int = 6):
        one = small_bench(id(blobs), strategy)
        return one, one.train(steps)

    return make


def test_module_is_that_of_the_paper(blobs, trained):
    one, state = trained("learning_loss")
    variables = jax.tree.map(lambda leaf: leaf[0], state.variables)
    _, taps = one.network.apply(variables, one.network.normalise(jnp.asarray(blobs.test_x[:9])))
    helpers = on_host(variables["helpers"])
    layers = [(helpers[f"Linear_{n}"]["kernel"], helpers[f"Linear_{n}"]["bias"]) for n in range(3)]
    assert [matrix.shape for matrix, _ in layers] == [(10, 128), (20, 128), (256, 1)]
    expected = reference.predict(layers, [np.asarray(one_map) for one_map in taps["maps"]])
    np.testing.assert_allclose(predict(variables["helpers"], taps["maps"]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strategy", ["learning_loss", "learning_loss(stop=0)"])
def test_the_module_is_trained(trained, strategy):
    """A module that is not may still rank the planted noise below first: doubtful images have maps of their own."""
    one, state = trained(strategy)
    fresh = one.lab.engine.init(one.keys).variables["helpers"]
    for name, layer in state.variables["helpers"].items():
        assert np.ptp(np.divide(layer["kernel"], fresh[name]["kernel"])) > 0.001, "decay shrinks all by one factor"


def test_a_module_that_is_kept_out_changes_nothing_in_the_classifier(trained):
    _, plain = trained("margin")
    _, kept_out = trained("learning_loss(stop=0)")
    _, let_in = trained("learning_loss")
    equal = jax.tree.map(np.allclose, plain.variables["params"], kept_out.variables["params"])
    assert all(jax.tree.leaves(equal)), "supervised training, plus a module that watches"
    differ = jax.tree.map(np.array_equal, plain.variables["params"], let_in.variables["params"])
    assert not all(jax.tree.leaves(differ))


@pytest.mark.parametrize(("progress", "reaches"), [(0.0, True), (0.599, True), (0.6, False), (1.0, False)])
def test_the_gradient_stops_at_its_time(blobs, trained, progress, reaches):
    one, state = trained("learning_loss")
    variables = jax.tree.map(lambda leaf: leaf[0], state.variables)
    batch = Batch(jnp.asarray(blobs.train_x[:8]), jnp.asarray(blobs.train_y[:8]), jnp.zeros((0, 8, 8, 1), jnp.uint8))
    moment = Moment(jnp.float32(0), jnp.float32(0), jnp.float32(progress), jnp.float32(0.2))

    @functools.cache
    def gradient(strategy: str):
        (phase,) = strategies.build(strategy).wrap(build("supervised")).phases

        def loss(params, moment):
            return phase.loss(one.network, {**variables, "params": params}, batch, jax.random.key(0), moment)[0]

        return jax.jit(jax.grad(loss))

    alone = gradient("margin")(variables["params"], moment)
    joint = gradient("learning_loss")(variables["params"], moment)
    same = jax.tree.map(lambda a, b: np.allclose(a, b, rtol=1e-5, atol=1e-7), alone, joint)
    assert all(jax.tree.leaves(same)) != reaches


def test_margin_and_weight_have_their_say(blobs, trained):
    """The mean cross-entropy + weight * `ranking_loss`, neither of the two being 1, as by default."""
    one, state = trained("learning_loss")
    variables = jax.tree.map(lambda leaf: leaf[0], state.variables)
    batch = Batch(jnp.asarray(blobs.train_x[:8]), jnp.asarray(blobs.train_y[:8]), jnp.zeros((0, 8, 8, 1), jnp.uint8))
    (phase,) = learning_loss(margin=0.3, weight=2.5).wrap(build("supervised")).phases

    @jax.jit
    def look(key):
        logits, taps = answers(one.network, variables, batch, key)
        found, _ = phase.loss(one.network, variables, batch, key, Moment(*jnp.zeros(len(Moment._fields))))
        return found, cross_entropies(logits, batch.y), predict(variables["helpers"], taps["maps"])

    found, losses, predicted = on_host(look(jax.random.key(1)))
    assert found == pytest.approx(losses.mean() + 2.5 * reference.ranking_loss(predicted, losses, 0.3), rel=1e-5)


def test_planted_noise_is_predicted_and_bought(blobs):
    """Labels of one of four kinds of images are drawn by lot: their loss stays high, and the module sees which kind."""
    rng = np.random.default_rng(5)
    noisy = blobs.train_y == 2
    labels = np.where(noisy, rng.integers(0, 4, noisy.size), blobs.train_y).astype(np.int32)
    one = bench(blobs._replace(train_y=labels), [0], strategy="learning_loss(stop=0)", epochs=60, model="lenet")
    state = one.train(120)
    (predicted,) = one.lab.gather(one.keys, state.variables, one.known, one.lab.pool)
    picks = on_host(one.lab.select(one.keys, one.known, (), predicted)[0])[0]
    assert noisy[picks].sum() >= 9, "of 10; a random choice finds 2.5"


def test_only_the_subset_is_looked_at():
    rng = np.random.default_rng(0)
    predicted = rng.permutation(200).astype(np.float32)
    known = np.where(np.arange(200) < 20, 1, -1).astype(np.int32)
    select = jax.jit(learning_loss(subset=30).select, static_argnums=2)
    best = set(np.argsort(-np.where(known < 0, predicted, -1))[:10].tolist())
    draws = [select(jax.random.key(seed), known, 10, (), predicted)[0].tolist() for seed in range(40)]
    assert all(known[picks].max() < 0 and len(set(picks)) == 10 for picks in draws)
    assert all(np.all(np.diff(predicted[picks]) < 0) for picks in draws), "best first"
    found = np.mean([len(best & set(picks)) for picks in draws])
    assert 0.8 < found < 2.7, "30 of 180 hold a sixth of the best ten: 1.7 on average"
    assert len({pick for picks in draws for pick in picks}) > 30, "of all, each time others: not the first of the file"
    everything = select(jax.random.key(0), known, 180, (), predicted)[0]
    assert everything.tolist() == sorted(range(20, 200), key=lambda i: -predicted[i]), "all that there is, best first"


@pytest.mark.parametrize("subset", [1, 100, 1800, None])
def test_the_largest_are_found_where_no_less_is_bought_than_the_subset_has(subset):
    """100 of 1,800: of a subset of 100, all would be bought, a random choice; so all are looked at."""
    predicted = np.random.default_rng(1).permutation(2000).astype(np.float32)
    known = np.where(np.arange(2000) < 200, 1, -1).astype(np.int32)
    select = jax.jit(learning_loss(subset=subset).select, static_argnums=2)
    best = np.argsort(np.where(known < 0, -predicted, np.inf), kind="stable")[:100].tolist()
    assert select(jax.random.key(0), known, 100, (), predicted)[0].tolist() == best


def test_a_subset_larger_than_what_is_left_has_nothing_known_in_it():
    """80 are left, of which 150 cannot be drawn; what is known has the largest predictions."""
    known = np.where(np.arange(200) < 120, 1, -1).astype(np.int32)
    select = jax.jit(learning_loss(subset=150).select, static_argnums=2)
    picks, _ = select(jax.random.key(0), known, 10, (), -np.arange(200, dtype=np.float32))
    assert picks.tolist() == list(range(120, 130))


def test_scoring_batch(blobs):
    first, *others = after_scoring_in_batches(strategies.build("learning_loss"), blobs, [200, 64, 7])
    assert others == [first, first]


def test_what_does_not_fit_is_refused():
    other = Trainer((Phase(lambda *_: None),))
    with pytest.raises(InputError, match="it needs --trainer=supervised"):
        learning_loss().wrap(other)
    for option in ({"margin": -1}, {"margin": float("inf")}, {"weight": "x"}, {"stop": 1.5}, {"subset": 0}):
        with pytest.raises(InputError, match="of learning_loss"):
            learning_loss(**option)
