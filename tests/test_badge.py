"""BADGE: the sampling probabilities of its paper along every path, on one device and on eight."""

import itertools
import re
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from reference import badge as reference
from selecting import after_scoring_in_batches, alone, arguments, some_pool, split, spread
from skactiveml.base import SkactivemlClassifier
from skactiveml.pool import Badge

from jaxdal.keys import keys_for
from jaxdal.strategies import distances

badge = import_module("jaxdal.strategies.badge")  # the package exports the function of this name

STRATEGY = badge.badge()


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


to_rows, shares = jax.jit(badge.squared_distances_to), jax.jit(distances.shares)


def probabilities(pool: dict[str, np.ndarray], path: list[int], *, origin: bool = False) -> list[np.ndarray]:
    """Of every step along a path but the first, which is no draw: computed by what `select` is made of.

    origin: as if the gradient 0 had been chosen before.
    """
    _, known, logits, features = arguments(STRATEGY, pool, 0)
    a, h = badge.residuals(jnp.asarray(logits), jnp.asarray(known)), distances.comparable(jnp.asarray(features))
    norm = jnp.sum(a**2, axis=1) * jnp.sum(h**2, axis=1)
    closest = jnp.where(known < 0, norm if origin else jnp.inf, -1.0).astype(jnp.float32)
    found = []
    for centre in path[:-1]:
        closest = jnp.minimum(closest, to_rows(a, h, np.int32([centre]))[0]).at[centre].set(-1.0)
        weights = np.asarray(shares(closest), np.float64)
        found.append(weights / weights.sum())
    return found


class Answers(SkactivemlClassifier):
    """What a network said, looked up by number, for scikit-activeml."""

    def __init__(self, probs=None, features=None):
        super().__init__(classes=list(range(probs.shape[1])))
        self.probs, self.features = probs, features

    def fit(self, X, y):  # noqa: D102
        return self

    def predict_proba(self, X):  # noqa: D102
        rows = X[:, 0].astype(int)
        return self.probs[rows], self.features[rows]


class Led(Badge):
    """scikit-activeml's, whose source of random numbers draws what it is told to."""

    def lead(self, path: list[int]) -> "Led":  # noqa: D102
        self._path = iter(path)
        return self

    @property
    def random_state_(self):  # noqa: D102
        return self

    @random_state_.setter
    def random_state_(self, value):
        """Keep this one."""

    def choice(self, size, count, replace, p):  # noqa: D102
        return [next(self._path)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("size", "width", "classes"), [(60, 5, 3), (90, 16, 20)])
def test_probabilities_are_those_of_the_paper(seed, size, width, classes):
    pool = some_pool(seed, size, width, classes)
    path = alone(STRATEGY, pool, 12, seed)
    g = reference.gradients(softmax(pool["logits"]), pool["features"])
    assert path[0] == reference.largest(g, pool["known"])
    for step, found in enumerate(probabilities(pool, path), 1):
        assert found[path[step]] > 0
        np.testing.assert_allclose(found, reference.probabilities(g, pool["known"], path[:step]), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_probabilities_are_those_of_scikit_activeml_but_for_its_first_centre(seed):
    """Theirs (1.0.1) takes the minimum with the squared norms too: one more centre at 0, which the paper has not."""
    pool = some_pool(seed, 70, 8, 6)
    path = alone(STRATEGY, pool, 12, seed)
    left = np.flatnonzero(pool["known"] < 0)
    labels = np.where(pool["known"] < 0, np.nan, pool["known"])
    network = Answers(softmax(pool["logits"]), pool["features"].astype(np.float64))
    query = Led(random_state=0).lead(np.searchsorted(left, path[1:]).tolist())
    rows = np.arange(70, dtype=float)[:, None]
    theirs, utilities = query.query(rows, labels, network, fit_clf=False, batch_size=12, return_utilities=True)
    assert [int(index) for index in theirs] == path
    for step, found in enumerate(probabilities(pool, path, origin=True), 1):
        np.testing.assert_allclose(found, np.nan_to_num(utilities[step]), atol=1e-5)


def test_draws_follow_the_probabilities():
    """First three picks of 7 candidates over 4000 keys, against the gradients written out."""
    pool = some_pool(3, 9, 4, 3)
    pool["known"] = np.where(np.isin(np.arange(9), [2, 6]), 0, -1).astype(np.int32)
    g = reference.gradients(softmax(pool["logits"]), pool["features"])
    _, known, *found = arguments(STRATEGY, pool, 0)
    many = jax.jit(jax.vmap(lambda seed: STRATEGY.select(keys_for(seed, 0).select, known, 3, (), *found)[0]))
    picks = np.asarray(many(np.arange(4000, dtype=np.uint32)))
    first = reference.largest(g, known)
    assert (picks[:, 0] == first).all()
    left = [i for i in range(9) if known[i] < 0 and i != first]
    expected, counts = [], []
    for second, third in itertools.permutations(left, 2):
        chance = reference.probabilities(g, known, [first])[second]
        expected.append(4000 * chance * reference.probabilities(g, known, [first, second])[third])
        counts.append(np.sum((picks[:, 1] == second) & (picks[:, 2] == third)))
    assert sum(counts) == 4000
    assert min(expected) > 5
    assert scipy.stats.chisquare(counts, expected).pvalue > 1e-4


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 10, 17, 1000])
def test_drawing(size):
    """Every index by its weight, on two levels, whatever the size; what weighs nothing never."""
    rng = np.random.default_rng(size)
    weights = (rng.random(size) * (rng.random(size) < 0.7)).astype(np.float32)
    weights[-1] = 1
    uniform = rng.random((20_000, 2)).astype(np.float32)
    drawn = np.asarray(jax.jit(jax.vmap(distances.draw, (0, None)))(uniform, weights))
    assert (weights[drawn] > 0).all()
    counts, expected = np.bincount(drawn, minlength=size), 20_000 * weights.astype(np.float64) / weights.sum()
    if (weights > 0).sum() > 1:
        some = weights > 0
        chance = expected[some] / expected[some].sum() * 20_000
        assert scipy.stats.chisquare(counts[some], chance).pvalue > 1e-4


@pytest.mark.parametrize("uniform", [0, 1 - 2**-24])
def test_drawing_at_the_ends(uniform):
    weights = np.zeros(50, np.float32)
    weights[[7, 31]] = [1e-20, 1e-20]
    assert int(distances.draw(np.float32([uniform, uniform]), weights)) == (31 if uniform else 7)


def test_near_pairs_keep_their_digits():
    rng = np.random.default_rng(4)
    features = np.repeat(rng.standard_normal((30, 8)) + 5, 2, axis=0)
    logits = np.repeat(rng.standard_normal((30, 4)), 2, axis=0)
    features[1::2] += 1e-4 * rng.standard_normal((30, 8))
    logits[1::2] += 1e-4 * rng.standard_normal((30, 4))
    features, logits = features.astype(np.float32), logits.astype(np.float32)
    known = np.full(60, -1, np.int32)
    a = badge.residuals(jnp.asarray(logits), jnp.asarray(known))
    unit = float(a[0, 0] / (softmax(logits) - np.eye(4)[logits.argmax(1)])[0, 0])
    g = reference.gradients(softmax(logits), features) * unit
    for pair in range(30):
        found = to_rows(a, features, np.int32([2 * pair]))[0]
        exact = np.sum((g[2 * pair] - g[2 * pair + 1]) ** 2)
        assert exact < 1e-4 * np.sum(g[2 * pair] ** 2)
        assert float(found[2 * pair + 1]) == pytest.approx(exact, rel=0.02), "and not all digits cancelled"


def test_uncertain_groups_are_all_visited():
    """Six small groups that the network doubts, each in its own direction; chance would miss most of them.

    What it is sure of has no gradient, which is one more place to cover.
    """
    rng = np.random.default_rng(5)
    size, groups = 600, 6
    features = (2 + 0.05 * rng.standard_normal((size, 8))).astype(np.float32)
    logits = np.eye(4, dtype=np.float32)[rng.integers(0, 4, size)] * 12
    rows = rng.permutation(size)[: 4 * groups].reshape(groups, 4)
    for group, members in enumerate(rows):
        logits[members] = 0.01 * rng.standard_normal((4, 4))
        logits[members, group % 4] += 0.1
        features[members] = 10 * np.eye(8)[group] + 0.01 * rng.standard_normal((4, 8))
    pool = {"known": np.full(size, -1, np.int32), "logits": logits, "features": features}
    for seed in range(5):
        picks = alone(STRATEGY, pool, groups + 1, seed)
        assert all(set(members) & set(picks) for members in rows.tolist())


def test_saturated_networks_are_ranked():
    """1 - p is 0 in float32 for both: the doubt is 1e-50 and 1e-60."""
    logits = np.zeros((20, 3), np.float32)
    logits[:, 0] = 138
    logits[13, 0] = 115
    pool = {"known": np.full(20, -1, np.int32), "logits": logits, "features": np.ones((20, 2), np.float32)}
    assert alone(STRATEGY, pool, 1) == [13]


@pytest.mark.parametrize("what", ["equal", "zero", "duplicates", "NaN", "infinite", "huge"])
def test_without_distances_the_rest_is_drawn_evenly(what):
    values = {"equal": 1, "zero": 0, "NaN": np.nan, "infinite": np.inf, "huge": 1e30}
    pool = some_pool(6, 30, 3)
    if what == "duplicates":
        pool = {
            **pool,
            "logits": np.tile(pool["logits"][:3], (10, 1)),
            "features": np.tile(pool["features"][:3], (10, 1)),
        }
    else:
        pool |= {name: np.full_like(pool[name], values[what]) for name in ("logits", "features")}
    left = np.flatnonzero(pool["known"] < 0)
    seen = set()
    for seed in range(20):
        picks = alone(STRATEGY, pool, 8, seed)
        seen |= set(picks)
        if what == "duplicates":
            assert {pick % 3 for pick in picks[:3]} == {0, 1, 2}
    assert len(seen) > 0.9 * len(left)
    assert sorted(alone(STRATEGY, pool, len(left))) == left.tolist()


def test_order_of_the_pool():
    """Draws belong to places, probabilities to examples: sorted by class, each has the same."""
    pool = some_pool(7, 80, 6)
    path = alone(STRATEGY, pool, 10)
    order = np.argsort(np.argmax(pool["logits"], axis=1), kind="stable")
    place = np.argsort(order)
    after = {name: leaf[order] for name, leaf in pool.items()}
    assert alone(STRATEGY, after, 1) == [place[path[0]]]
    moved = probabilities(after, place[path].tolist())
    for before, now in zip(probabilities(pool, path), moved, strict=True):
        np.testing.assert_allclose(now[place], before, rtol=1e-5)


def test_labelled_examples_change_nothing():
    pool = some_pool(8, 80, 6)
    expected = alone(STRATEGY, pool, 10)
    labelled = pool["known"] >= 0
    pool["features"][labelled] = 1e3 - pool["features"][labelled]
    pool["logits"][labelled] = 0
    assert alone(STRATEGY, pool, 10) == expected


def test_scoring_batch(blobs):
    one, other, third = after_scoring_in_batches(STRATEGY, blobs, [200, 37, 16])
    assert one == other == third


def test_eight_devices():
    pools = [some_pool(seed, 203, 6) for seed in range(5)]
    expected = [alone(STRATEGY, pool, 15, seed) for seed, pool in enumerate(pools)]
    assert spread(STRATEGY, pools, 15, devices=8) == expected


@pytest.mark.parametrize("size", [203])
def test_one_run_on_eight_devices(size):
    pool = some_pool(9, size, 6)
    picks, program = split(STRATEGY, pool, 15, devices=8)
    assert picks == alone(STRATEGY, pool, 15)
    for width in (4, 6):
        rows = {int(rows) for rows in re.findall(rf"f32\[(\d+),{width}\]", program)}
        assert rows <= {1, -(-size // 8)}, "each device has its eighth of both factors, and the row that is picked"
