"""UncertainGCN and CoreGCN: the graph network of their paper with its whole adjacency matrix, and what they buy."""

import functools
import re
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from reference import coreset as k_centre
from reference import gcn as reference
from selecting import alone, some_pool, split

from jaxdal.errors import InputError
from jaxdal.keys import keys_for
from jaxdal.strategies import build
from jaxdal.types import Strategy

gcn = import_module("jaxdal.strategies.gcn")  # by name, as in the tests of the other strategies
BOTH = ["uncertain_gcn", "core_gcn"]
SIZE, WIDTH, HIDDEN, K = 61, 7, 11, 10
FEW = 2  # picks of a query for which a subset of 25 nodes is drawn


@functools.cache  # so that tests share compiled programs
def small(name: str, options: str) -> Strategy:
    """A strategy with a small network."""
    return build(f"{name}(hidden_units={HIDDEN}, {options})")


def certain(name: str) -> Strategy:
    """Nothing is drawn for a place in the pool: the same whatever its order."""
    return small(name, "dropout=0")


ON_SOME = small("core_gcn", "subset=25, epochs=2")  # of the unlabelled examples, 25 are nodes


def some_nodes(seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A pool with a row of zeros and one that is opposed to the others; three in four are nodes, those two as well."""
    pool = some_pool(seed, SIZE, WIDTH)
    pool["features"][3], pool["features"][5] = 0, -1
    node = np.random.default_rng(seed).random(SIZE) < 0.75
    node[[3, 5]] = True
    return pool, node


def initial(key: jax.Array) -> list[np.ndarray]:
    """First weights, as a fit with this key draws them."""
    return [np.asarray(leaf) for leaf in gcn.initial(jax.random.split(key)[0], WIDTH, HIDDEN)]


def nodes_of(pool: dict[str, np.ndarray], subset: int) -> np.ndarray:
    """Which examples are nodes in a query of `alone` for FEW."""
    key = jax.random.split(keys_for(0, 0).select)[0]
    return np.asarray(gcn.nodes(key, jnp.asarray(pool["known"]), subset, FEW))


def test_low_rank_adjacency_is_the_adjacency():
    pool, node = some_nodes(0)
    y = np.random.default_rng(1).standard_normal((SIZE, 3)).astype(np.float32)
    graph = gcn.connect(pool["features"], node)
    a = reference.adjacency(reference.unit_rows(pool["features"][node]))
    np.testing.assert_allclose(np.asarray(gcn.propagate(graph, y))[node], a @ y[node], atol=1e-5)
    place = np.flatnonzero(node).tolist()
    assert (a[:, place.index(3)] == np.eye(len(place))[place.index(3)]).all(), "zeros are connected with nothing"
    assert (np.asarray(graph.inverse)[[3, 5]] == 0).all()
    assert (np.asarray(graph.inverse)[~node] == 0).all()


def test_a_node_that_is_hardly_similar_to_any_is_alone():
    """Cosines that sum to 0.0005 may be rounding; to 0.002 they are none."""
    near, far = (gcn.connect(np.float32([[1, 0], [cosine, 1]]), np.ones(2, bool)) for cosine in (0.002, 0.0005))
    np.testing.assert_allclose(near.inverse, 500, rtol=1e-3)
    assert far.inverse.tolist() == [0, 0]


def test_features_of_any_unit_make_the_same_graph():
    pool, node = some_nodes(1)
    scale = np.float32(10) ** np.random.default_rng(2).uniform(-37, 37, (SIZE, 1))
    one, other = (gcn.connect(jnp.asarray(pool["features"] * factor, jnp.float32), node) for factor in (1, scale))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), one, other)


def test_gradient_is_that_of_the_loss():
    pool, node = some_nodes(2)
    labelled, unit = pool["known"][node] >= 0, reference.unit_rows(pool["features"][node])
    a, weights = reference.adjacency(unit), [leaf.astype(float) for leaf in initial(jax.random.key(0))]
    exact = reference.gradients(weights, a, unit, labelled)
    rng = np.random.default_rng(0)
    for i, leaf in enumerate(weights):
        for _ in range(4):
            place = tuple(rng.integers(0, leaf.shape))
            sides = []
            for step in (1e-5, -1e-5):
                moved = [value.copy() for value in weights]
                moved[i][place] += step
                sides.append(reference.loss(reference.forward(moved, a, unit)[1], labelled))
            assert exact[i][place] == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-4, abs=1e-8)

    graph, shares = gcn.connect(pool["features"], node), gcn.loss_weights(pool["known"], node, 1.2)

    def ours(weights):
        hidden = gcn.hidden_layer(weights, gcn.propagate(graph, graph.unit))
        return gcn.loss(gcn.logits(weights, graph, hidden), *shares)

    value, found = jax.jit(jax.value_and_grad(ours))(gcn.Weights(*(leaf.astype(np.float32) for leaf in weights)))
    assert value == pytest.approx(reference.loss(reference.forward(weights, a, unit)[1], labelled), rel=1e-5)
    for leaf, expected in zip(found, exact, strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=1e-4, atol=1e-6)


def test_saturated_scores_have_a_finite_loss_and_gradient():
    one = np.ones(2, np.float32)
    value, slope = jax.value_and_grad(gcn.loss)(np.asarray([-200, 200], np.float32), one * [1, 0], one * [0, 1])
    assert value == 400
    assert slope.tolist() == [-1, 1]


@pytest.mark.parametrize("epochs", [3, 200])
def test_as_many_epochs_as_were_asked_for(epochs):
    """Every number of a whole fit, from the same first weights and masks."""
    pool, node = some_nodes(3)
    key, number = jax.random.key(5), np.arange(epochs, dtype=np.int32)
    options = gcn.Options(subset=None, hidden_units=HIDDEN, dropout=0.3, lambda_loss=1.2, epochs=epochs)
    fit = jax.jit(lambda key, features, *rest: gcn.fit(key, gcn.connect(features, node), *rest, options))
    hidden, logit = fit(key, pool["features"], pool["known"], node)
    mask_key = jax.random.split(key)[1]
    mask = jax.vmap(lambda epoch: jax.random.bernoulli(jax.random.fold_in(mask_key, epoch), 0.7, (SIZE, HIDDEN)))
    factors = np.asarray(jax.jit(mask)(number))[:, node] / 0.7
    unit = reference.unit_rows(pool["features"][node])
    a, labelled = reference.adjacency(unit), pool["known"][node] >= 0
    expected = reference.fit(initial(key), a, unit, labelled, list(factors))
    np.testing.assert_allclose(np.asarray(hidden)[node], expected[0], atol=1e-4)
    np.testing.assert_allclose(reference.sigmoid(np.asarray(logit))[node], reference.sigmoid(expected[1]), atol=1e-4)
    start = reference.sigmoid(reference.forward(initial(key), a, unit)[1])
    learnt = np.abs(start - reference.sigmoid(expected[1])).max()
    assert learnt > 0.1 if epochs == 200 else 1e-3 < learnt < 0.1, "something, by as many steps of 0.001"


@pytest.mark.parametrize("seed", range(3))
def test_picks_are_those_of_the_paper(seed):
    """From features to picks, without dropout."""
    pool = some_pool(seed, SIZE, WIDTH)
    fit_key = jax.random.split(keys_for(seed, 0).select)[1]
    unit = reference.unit_rows(pool["features"])
    a, labelled = reference.adjacency(unit), pool["known"] >= 0
    hidden, logit = reference.fit(initial(fit_key), a, unit, labelled, [1.0] * 200)
    doubt = np.where(labelled, np.inf, np.abs(reference.sigmoid(logit) - 0.1))
    order = np.argsort(doubt)[: K + 1]
    assert np.diff(doubt[order]).min() > 1e-6, "a tie: take another seed"
    assert alone(certain("uncertain_gcn"), pool, K, seed) == order[:K].tolist()
    expected, _, lead = k_centre.k_centre_greedy(hidden, pool["known"], K)
    assert lead > 1e-5, "a tie: take another seed"
    assert alone(certain("core_gcn"), pool, K, seed) == expected


def test_first_weights():
    """U(-s, s) with s = 1 / sqrt(outputs), as the authors have it, whatever the inputs."""
    weights = gcn.initial(jax.random.key(0), 300, 64)
    assert [leaf.shape for leaf in weights] == [(300, 64), (64,), (64, 1), (1,)]
    for leaf, most, rough in zip(weights, (1 / 8, 1 / 8, 1), (0.02, 0.3, 0.3), strict=False):
        assert most * (1 - rough / 2) < np.abs(leaf).max() <= most
        assert np.std(leaf) == pytest.approx(most / 3**0.5, rel=rough)
        assert abs(np.mean(leaf)) < rough * most
    assert np.abs(weights.second_bias) <= 1


def test_margin_and_lambda_have_their_say(monkeypatch):
    """At other values than the defaults: which q is closest to s_margin, and with which lambda the loss is made."""
    everything, q = np.full(6, -1, np.int32), np.float32([0.05, 0.1, 0.3, 0.55, 0.62, 0.9])
    features, seen, weights = np.ones((6, 2), np.float32), [], gcn.loss_weights

    def noted(known, node, lambda_loss):
        seen.append(lambda_loss)
        return weights(known, node, lambda_loss)

    monkeypatch.setattr(gcn, "loss_weights", noted)
    select = gcn.core_gcn(lambda_loss=3.0).select
    jax.eval_shape(lambda key: select(key, everything, 2, (), features), jax.random.key(0))
    assert seen == [3.0]
    positive, negative = weights(np.int32([0, 1, -1, -1, -1]), np.array([1, 1, 1, 1, 0], bool), 3.0)
    assert (positive.tolist(), negative.tolist()) == ([0.5, 0.5, 0, 0, 0], [0, 0, 1.5, 1.5, 0])

    monkeypatch.setattr(gcn, "learn", lambda *_: (np.ones(6, bool), None, jnp.log(q / (1 - q))))
    picks, _ = gcn.uncertain_gcn(s_margin=0.6).select(jax.random.key(0), everything, 2, (), features)
    assert picks.tolist() == [4, 3]


def islands(seed: int) -> dict[str, np.ndarray]:
    """A continent of 43, half of it labelled, and islands 1 to 6 of three each that nothing is known about."""
    rng = np.random.default_rng(seed)
    group = rng.permutation(np.repeat(np.arange(7), [43, *[3] * 6]))
    features = np.maximum(3 * np.eye(WIDTH)[group] + 0.1 * rng.standard_normal((SIZE, WIDTH)), 0)
    known = np.full(SIZE, -1)
    known[np.flatnonzero(group == 0)[:21]] = 0
    return {"known": known.astype(np.int32), "features": features.astype(np.float32), "group": group}


@pytest.mark.parametrize("seed", range(3))
def test_what_is_like_nothing_labelled_comes_first(seed):
    """18 of the 40 unlabelled ones are on islands: picks at random are now here, now there."""
    pool = islands(seed)
    assert sorted(pool["group"][alone(certain("core_gcn"), pool, K, seed)][:6]) == [1, 2, 3, 4, 5, 6]
    assert (pool["group"][alone(certain("uncertain_gcn"), pool, K, seed)] > 0).all()
    by_chance = np.random.default_rng(seed).permutation(np.flatnonzero(pool["known"] < 0))[:K]
    assert (pool["group"][by_chance] > 0).sum() < 8
    assert len(set(pool["group"][by_chance[:6]]) - {0}) < 5


@pytest.mark.parametrize("name", BOTH)
def test_order_of_the_pool(name):
    pool = some_pool(1, SIZE, WIDTH)
    order = np.argsort(pool["known"] * 1000 + np.argmax(pool["logits"], axis=1))
    after = {field: leaf[order] for field, leaf in pool.items()}
    assert sorted(order[alone(certain(name), after, K, 1)].tolist()) == sorted(alone(certain(name), pool, K, 1))


# Who takes part.


def test_nodes_are_drawn_uniformly_and_anew():
    known = np.full(10, -1, np.int32)
    known[[0, 3, 4, 9]] = 1
    draw = jax.jit(jax.vmap(lambda seed, known: gcn.nodes(jax.random.key(seed), known, 2, 1), (0, None)))
    node = np.asarray(draw(np.arange(3000, dtype=np.uint32), known))
    assert node[:, known >= 0].all()
    assert (node[:, known < 0].sum(axis=1) == 2).all()
    _, counts = np.unique(node, axis=0, return_counts=True)
    assert len(counts) == 15, "pairs of six"
    assert scipy.stats.chisquare(counts).pvalue > 1e-4


def test_the_first_ones_are_few_classes_of_a_sorted_pool():
    """43 classes of 600 as in a folder of classes: what the published runs could buy of GTSRB, and what we can."""
    label = np.repeat(np.arange(43), 600)
    known = np.where(np.arange(len(label)) % 10 == 0, label, -1).astype(np.int32)
    draw = jax.jit(gcn.nodes, static_argnums=(2, 3))
    first, drawn = (np.asarray(draw(jax.random.key(0), known, subset, 100)) for subset in ("first", 10_000))
    unlabelled = np.flatnonzero(known < 0)
    assert first[known >= 0].all()
    assert np.flatnonzero(first & (known < 0)).tolist() == unlabelled[:10_000].tolist()
    assert np.unique(label[first & (known < 0)]).tolist() == list(range(19))
    assert (drawn & (known < 0)).sum() == 10_000
    share = np.bincount(label[drawn & (known < 0)], minlength=43) / 540
    assert (abs(share - 10_000 / len(unlabelled)) < 0.1).all(), "more than four standard deviations"


def test_the_first_ones_are_no_fewer_than_are_bought():
    node = gcn.nodes(jax.random.key(0), jnp.full(12_000, -1, jnp.int32), "first", 11_000)
    assert np.flatnonzero(node).tolist() == list(range(11_000))


def test_only_nodes_are_bought_and_nothing_else_matters():
    pool = some_pool(4, SIZE, WIDTH)
    node, picks = nodes_of(pool, 25), alone(ON_SOME, pool, FEW)
    assert (node & (pool["known"] < 0)).sum() == 25
    assert node[picks].all()
    pool["features"][~node] = 100
    assert alone(ON_SOME, pool, FEW) == picks


@pytest.mark.parametrize("subset", [2, 4, 25])
def test_there_are_always_enough_nodes(subset):
    """More than are picked, or all: to buy all nodes would be a random choice."""
    pool = some_pool(4, SIZE, WIDTH)
    node = nodes_of(pool, subset) & (pool["known"] < 0)
    assert node.sum() == (subset if subset > FEW else (pool["known"] < 0).sum())
    assert node[alone(small("uncertain_gcn", f"subset={subset}, epochs=2"), pool, FEW)].all()


@pytest.mark.parametrize("name", BOTH)
def test_a_choice_remains_where_more_is_bought_than_the_subset_has(name):
    """K of a subset of K: nodes are all that is unlabelled. Six islands, 18 of 40 examples, are not found by chance."""
    pool = islands(0)
    picks = alone(small(name, f"dropout=0, subset={K}"), pool, K)
    assert picks == alone(small(name, "dropout=0, subset=None"), pool, K)
    found = set(pool["group"][picks].tolist())
    assert found >= set(range(1, 7)) if name == "core_gcn" else 0 not in found


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("uncertain_gcn(subset='last')", "subset='last' of uncertain_gcn"),
        ("core_gcn(subset=0)", "subset=0 of core_gcn"),
        ("core_gcn(hidden_units=1.5)", "hidden_units=1.5"),
        ("core_gcn(epochs=None)", "epochs=None"),
        ("uncertain_gcn(dropout=1)", "dropout=1"),
        ("uncertain_gcn(lambda_loss=0)", "lambda_loss=0"),
        ("uncertain_gcn(s_margin=2)", "s_margin=2"),
        ("core_gcn(dropout='a')", "dropout='a' of core_gcn"),
        ("uncertain_gcn(lambda_loss='x')", "lambda_loss='x' of uncertain_gcn"),
        ("uncertain_gcn(s_margin='x')", "s_margin='x' of uncertain_gcn"),
    ],
)
def test_options_that_mean_nothing(text, what):
    with pytest.raises(InputError, match=re.escape(what)):
        build(text)


def test_one_run_on_eight_devices():
    pool = some_pool(7, SIZE, WIDTH)
    picks, program = split(ON_SOME, pool, FEW, devices=8)
    assert picks == alone(ON_SOME, pool, FEW)
    for width in (WIDTH, HIDDEN):
        rows = {int(rows) for rows in re.findall(rf"f32\[(\d+),{width}\]", program)}
        assert 8 in rows, "an eighth, rounded up"
        assert max(rows) < SIZE, "no device has all rows of the features or of the hidden layer"
