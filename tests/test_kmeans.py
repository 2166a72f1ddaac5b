"""K-means: Lloyd's algorithm as scikit-learn's, on one device and on eight."""

import re
import warnings
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from reference import kmeans as reference
from selecting import after_scoring_in_batches, alone, some_pool, split, spread
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from jaxdal.errors import InputError
from jaxdal.keys import keys_for
from jaxdal.strategies import distances

kmeans = import_module("jaxdal.strategies.kmeans")  # the package exports the function of this name

STRATEGY = kmeans.kmeans()


def blobs_pool(seed: int, sizes: list[int], apart: float = 100, width: int = 6) -> tuple[dict, np.ndarray]:
    """Separated blobs in random order, a few of the examples labelled: -> (pool, blob of each)."""
    rng = np.random.default_rng(seed)
    blob = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = apart * rng.permutation(np.eye(max(width, len(sizes))))[: len(sizes)]
    features = (centres[blob] + rng.standard_normal((len(blob), centres.shape[1]))).astype(np.float32)
    known = np.full(len(blob), -1, np.int32)
    large = np.flatnonzero(np.asarray(sizes)[blob] > 10)
    known[large[: len(large) // 5]] = 0
    return {"known": known, "features": features}, blob


def members(pool: dict) -> np.ndarray:
    return pool["features"][pool["known"] < 0].astype(np.float64)


lloyd = jax.jit(kmeans.lloyd)


def run(pool: dict, centres: np.ndarray, max_iter: int = 100, tol: float = 1e-4):
    """`lloyd` on the raw features: -> (centres, owner and squared distance of the unlabelled, inertia)."""
    member = jnp.asarray(pool["known"] < 0)
    start = jnp.asarray(centres, jnp.float32)
    end, owner, gap = lloyd(jnp.asarray(pool["features"]), member, start, np.int32(max_iter), np.float32(tol))
    return np.asarray(end), np.asarray(owner)[member], np.asarray(gap)[member], float(jnp.sum(gap))


@pytest.mark.parametrize(
    ("seed", "k", "tol"), [(0, 3, 1e-4), (1, 3, 1e-4), (0, 40, 1e-4), (1, 40, 1e-4), (2, 140, 1e-4), (0, 40, 0.3)]
)
def test_inertia_is_that_of_scikit_learn(seed, k, tol):
    """The last one ends early, after 5 steps of 12, since the centres move by less than tol * mean variance."""
    pool = some_pool(seed, 300, 5)
    x = members(pool)
    start = x[np.random.default_rng(seed).permutation(len(x))[:k]]
    theirs = KMeans(k, init=start, n_init=1, max_iter=100, tol=tol, algorithm="lloyd").fit(x)
    centres, owner, gap, inertia = run(pool, start, tol=tol)
    assert inertia == pytest.approx(theirs.inertia_, rel=1e-4)
    np.testing.assert_allclose(centres, theirs.cluster_centers_, atol=1e-3)
    assert np.mean(owner == theirs.labels_) > 0.99
    assert gap.sum() == pytest.approx(inertia, rel=1e-6)


@jax.jit
def one_step(x, member, centres):
    owner, gap = kmeans.assign(x, member, centres)
    return kmeans.update(x, owner, gap, centres), jnp.sum(gap)


@pytest.mark.parametrize("seed", range(2))
def test_steps_are_those_of_the_paper(seed):
    pool = some_pool(seed + 10, 120, 4)
    x = members(pool)
    start = x[:7]
    expected_centres, expected = reference.lloyd(x, start, 6)
    member, centres, found = jnp.asarray(pool["known"] < 0), jnp.asarray(start, jnp.float32), []
    for _ in expected:
        centres, inertia = one_step(pool["features"], member, centres)
        found.append(float(inertia))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (np.diff(found) <= 0).all(), "inertia never grows"
    np.testing.assert_allclose(centres, expected_centres, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(run(pool, start, len(expected), 0)[0], expected_centres, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_picks_on_separated_blobs_are_those_of_scikit_learn(seed):
    pool, blob = blobs_pool(seed, [90, 40, 30, 25, 20, 5, 3])
    x, left = members(pool), np.flatnonzero(pool["known"] < 0)
    picks = alone(STRATEGY, pool, 7, seed)
    theirs = KMeans(7, n_init=10, random_state=0).fit(x)
    nearest = left[np.argmin(theirs.transform(x), axis=0)]
    assert set(picks) == set(nearest.tolist())
    assert sorted(blob[picks]) == list(range(7))
    assert set(picks) == {int(left[i]) for i in reference.representatives(x, theirs.cluster_centers_)}


@pytest.mark.parametrize("offset", [0, 1000])
def test_picks_from_a_crowd_are_those_at_the_end_of_the_algorithm(offset):
    """Where nothing is separated and centres move for many steps: scikit-learn's from the same first ones."""
    pool, k = some_pool(2, 300, 3), 15
    pool["features"] += np.float32(offset)  # far from the origin, where matrix products lose digits
    left, x = np.flatnonzero(pool["known"] < 0), members(pool)
    whole = distances.comparable(jnp.asarray(pool["features"]))
    rows = kmeans.seed_rows(keys_for(0, 0).select, whole - whole[left].mean(0), jnp.asarray(pool["known"] < 0), k)
    expected = []
    for steps in (1, 100):
        with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
            theirs = KMeans(k, init=pool["features"][rows].astype(float), n_init=1, max_iter=steps).fit(x)
        expected.append(set(left[reference.representatives(x, theirs.cluster_centers_)].tolist()))
    assert len(expected[0] - expected[1]) > 5
    assert set(alone(STRATEGY, pool, k)) == expected[1]


def test_small_groups_get_their_share():
    """Seven groups of three beside a crowd of 500: chance would take all from the crowd."""
    pool, blob = blobs_pool(11, [500, *[3] * 7], apart=1000)
    for seed in range(5):
        assert sorted(blob[alone(STRATEGY, pool, 8, seed)]) == list(range(8))
    left = np.flatnonzero(pool["known"] < 0)
    assert len(set(blob[np.random.default_rng(0).choice(left, 8, replace=False)])) < 5


def test_seeding_follows_the_probabilities():
    pool = some_pool(12, 8, 3)
    x, member = pool["features"], np.arange(8) != 5
    program = jax.jit(jax.vmap(lambda key: kmeans.seed_rows(key, jnp.asarray(x), jnp.asarray(member), 2)))
    rows = np.asarray(program(jax.random.split(jax.random.key(0), 4000)))
    left = np.flatnonzero(member)
    observed, expected = [], []
    for first in range(7):
        for second, chance in enumerate(reference.seeding(x[left].astype(float), [first])):
            if chance > 0:
                observed.append(np.sum((rows[:, 0] == left[first]) & (rows[:, 1] == left[second])))
                expected.append(4000 * chance / 7)
    assert sum(observed) == 4000
    assert scipy.stats.chisquare(observed, np.array(expected) / sum(expected) * 4000).pvalue > 1e-4


@pytest.mark.parametrize("k", [5, 12])
def test_empty_clusters_move_to_the_farthest_points(k):
    """All centres start far away, at one place but one: scikit-learn's rule, the same inertia."""
    pool, _ = blobs_pool(13, [30, 20, 10, 10, 10])
    x = members(pool)
    start = np.full((k, x.shape[1]), 500.0)
    start[0] = x.mean(axis=0)
    theirs = KMeans(k, init=start, n_init=1, max_iter=100, algorithm="lloyd").fit(x)
    centres, owner, _, inertia = run(pool, start)
    assert len(np.unique(owner)) == k
    assert inertia == pytest.approx(theirs.inertia_, rel=1e-4)
    assert sorted(np.bincount(owner)) == sorted(np.bincount(theirs.labels_))
    assert np.isfinite(centres).all()


def test_a_lonely_row_is_not_moved_to_an_empty_cluster():
    """Its own would be empty then."""
    x = np.array([[0.0], [0], [0], [10]], np.float32)
    owner, gap = jnp.asarray([0, 0, 0, 1], jnp.int32), jnp.asarray([0, 0, 0, 25], jnp.float32)
    moved = kmeans.update(jnp.asarray(x), owner, gap, jnp.asarray([[0.0], [5], [-7]]))
    assert moved.tolist() == [[0], [10], [-7]], "no other row is at a distance: the empty cluster stays"


@pytest.mark.parametrize("rows", [127, 128, 129, 300])
@pytest.mark.parametrize("count", [1, 127, 300])
def test_nearest_in_tiles(rows, count):
    rng = np.random.default_rng(rows)
    x, centres = rng.standard_normal((50, 7)).astype(np.float32), rng.standard_normal((rows, 7)).astype(np.float32)
    places, count = rng.permutation(rows).astype(np.int32), min(count, rows)
    expected = places[np.argmin(np.sum((x[:, None] - centres[places[:count]]) ** 2, axis=-1), axis=1)]
    found = jax.jit(distances.nearest)(x, centres, places, np.int32(count))
    np.testing.assert_array_equal(found, expected)


def test_nothing_of_size_rows_times_centres_is_held():
    """1000 rows, 600 centres: the widest thing that the program has is a tile."""
    shapes = {
        "features": jax.ShapeDtypeStruct((1000, 5), jnp.float32),
        "known": jax.ShapeDtypeStruct((1000,), jnp.int32),
    }
    select = jax.jit(lambda key, known, features: STRATEGY.select(key, known, 600, (), features)[0])
    program = select.lower(jax.random.key(0), shapes["known"], shapes["features"]).compile()
    widest = {int(a) * int(b) for a, b in re.findall(r"f32\[(\d+),(\d+)\]", program.as_text())}
    assert max(widest) == 1000 * distances.CHUNK


def test_more_starts_are_better():
    pool, keys = some_pool(14, 150, 3), jax.random.split(jax.random.key(1), 5)
    x, member = jnp.asarray(pool["features"]), jnp.asarray(pool["known"] < 0)
    start = jax.jit(lambda key: kmeans.cluster(key, x=x, member=member, k=9, max_iter=100, tol=1e-4))
    ends = [start(key) for key in keys]
    inertia = [float(end[1]) for end in ends]
    assert len(set(inertia)) > 1
    centres = ends[int(np.argmin(inertia))][0]
    expected = jax.jit(lambda c: kmeans.representatives(x, c, *kmeans.assign(x, member, c)))(centres)
    select = jax.jit(kmeans.kmeans(n_init=5).select, static_argnums=2)
    picks, _ = select(jax.random.key(1), pool["known"], 9, (), x)
    assert set(picks.tolist()) == set(expected.tolist())


@pytest.mark.parametrize("wrong", [{"n_init": 0}, {"n_init": 2.5}, {"max_iter": 0}, {"tol": -1}, {"tol": "no"}])
def test_options_that_make_no_sense(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))}=.* of kmeans is not"):
        kmeans.kmeans(**wrong)


@pytest.mark.parametrize("value", [0, 1, 1e30, np.nan, np.inf])
def test_more_clusters_than_different_rows(value):
    """The rest is bought by distance to centres that own nobody, and never twice."""
    pool = {
        "known": np.where(np.arange(20) < 4, 0, -1).astype(np.int32),
        "features": np.full((20, 3), value, np.float32),
    }
    assert sorted(alone(STRATEGY, pool, 16)) == list(range(4, 20))
    pool["features"][[7, 9]] = 2
    picks = alone(STRATEGY, pool, 5)
    assert {7, 9} & set(picks)
    assert set(range(4, 20)) - {7, 9} & set(picks)


def test_all_that_is_left_and_one():
    pool = some_pool(15, 30, 4)
    left = np.flatnonzero(pool["known"] < 0)
    assert sorted(alone(STRATEGY, pool, len(left))) == left.tolist()
    x = members(pool)
    middle = np.argmin(np.sum((x - x.mean(axis=0)) ** 2, axis=1))
    assert alone(STRATEGY, pool, 1) == [left[middle]]


def test_order_of_the_pool():
    pool, blob = blobs_pool(16, [60, 30, 30, 20, 15, 12])
    expected = set(alone(STRATEGY, pool, 6))
    for order in (np.argsort(blob, kind="stable"), np.random.default_rng(0).permutation(len(blob))):
        after = {name: leaf[order] for name, leaf in pool.items()}
        assert set(order[alone(STRATEGY, after, 6)].tolist()) == expected


def test_labelled_examples_change_nothing():
    pool, _ = blobs_pool(17, [40, 30, 30])
    expected = alone(STRATEGY, pool, 9)
    pool["features"][pool["known"] >= 0] = 3
    assert alone(STRATEGY, pool, 9) == expected


def test_scoring_batch(blobs):
    one, other, third = after_scoring_in_batches(STRATEGY, blobs, [200, 37, 16])
    assert one == other == third


def test_eight_devices():
    pools = [some_pool(seed, 203, 6) for seed in range(5)]
    expected = [alone(STRATEGY, pool, 15, seed) for seed, pool in enumerate(pools)]
    assert spread(STRATEGY, pools, 15, devices=8) == expected


@pytest.mark.parametrize("size", [203])
def test_one_run_on_eight_devices(size):
    pool = some_pool(18, size, 6)
    picks, program = split(STRATEGY, pool, 15, devices=8)
    assert picks == alone(STRATEGY, pool, 15)
    rows = {int(rows) for rows in re.findall(r"f32\[(\d+),6\]", program)}
    assert rows <= {1, 15, -(-size // 8)}, "each device has its eighth of the features, and all centres"
