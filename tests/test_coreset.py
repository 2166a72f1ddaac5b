"""Core-set: the greedy k-centre of its paper, on one device and on eight."""

import math
import re
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import coreset as reference
from selecting import after_scoring_in_batches, alone, some_pool, split, spread
from skactiveml.pool import CoreSet

from jaxdal.parallel import Lanes
from jaxdal.strategies import distances
from jaxdal.strategies.picking import MANY, few_largest

coreset = import_module("jaxdal.strategies.coreset")  # the package exports the function of this name

STRATEGY = coreset.coreset()


def pool_of(features: np.ndarray, labelled: list[int]) -> dict[str, np.ndarray]:
    known = np.full(len(features), -1, np.int32)
    known[labelled] = 0
    return {"known": known, "features": features.astype(np.float32)}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("offset", [0, 30, 1000])
def test_picks_are_those_of_the_paper_and_of_scikit_activeml(seed, offset):
    pool = some_pool(seed, 150, 9)
    pool["features"] += np.float32(offset)  # far from the origin, where matrix products lose digits
    expected, radii, lead = reference.k_centre_greedy(pool["features"], pool["known"], 25)
    assert lead > 1e-5, "a tie: take another seed"
    assert alone(STRATEGY, pool, 25) == expected
    assert (np.diff(radii) <= 0).all()
    labels = np.where(pool["known"] < 0, np.nan, pool["known"])
    theirs = CoreSet(random_state=0).query(pool["features"].astype(np.float64), labels, batch_size=25)
    assert theirs.tolist() == expected


@pytest.mark.parametrize("seed", range(4))
def test_radius_is_at_most_twice_the_best(seed):
    rng = np.random.default_rng(seed)
    pool = pool_of(rng.standard_normal((11, 2)), [4, 7])
    ours = reference.radius(pool["features"], [4, 7, *alone(STRATEGY, pool, 3)])
    assert ours <= 2 * reference.best_radius(pool["features"], pool["known"], 3) + 1e-6


@pytest.mark.parametrize("labelled", [0, 1, 127, 128, 129, 300])
def test_gaps_whatever_the_number_of_labels(labelled):
    """Chunks of labelled rows: none, one, one less than full, full, one more."""
    rng = np.random.default_rng(labelled)
    features = rng.standard_normal((310, 5)).astype(np.float32) + 3
    pool = pool_of(features, rng.permutation(310)[:labelled].tolist())
    found = np.asarray(coreset.gaps(jnp.asarray(features), jnp.asarray(pool["known"])))
    centres = np.flatnonzero(pool["known"] >= 0).tolist()
    for example in range(0, 310, 7):
        expected = -np.inf if example in centres else reference.gap(features.astype(float), example, centres) ** 2
        assert found[example] == pytest.approx(expected, rel=1e-5)


def test_equal_rows_are_at_no_distance_at_all():
    rng = np.random.default_rng(0)
    features = np.repeat(rng.standard_normal((20, 6)).astype(np.float32) + 100, 2, axis=0)
    gap = np.asarray(coreset.gaps(jnp.asarray(features), jnp.asarray(np.arange(40) % 2 - 1, jnp.int32)))
    assert (gap[::2] == 0).all()


@pytest.mark.parametrize("groups", [1, 3, 9, 40])
def test_picks_that_can_not_share_a_read(groups):
    """The examples of largest gap are close together, so that one pick serves all of them."""
    rng = np.random.default_rng(groups)
    features = 100 * rng.standard_normal((groups, 5))[rng.integers(0, groups, 200)] + rng.standard_normal((200, 5))
    pool = pool_of(features, [0])
    expected, _, lead = reference.k_centre_greedy(pool["features"], pool["known"], 30)
    assert lead > 1e-5, "a tie: take another seed"
    assert alone(STRATEGY, pool, 30) == expected


def test_lonely_examples_are_found():
    """Ten of a thousand are far from the crowd and from each other: chance finds one of them in ten picks, if that."""
    rng = np.random.default_rng(1)
    features = 0.1 * rng.standard_normal((1000, 12))
    lonely = rng.permutation(1000)[:10]
    features[lonely] += 5 * np.eye(10, 12)
    labelled = np.setdiff1d(np.arange(1000), lonely)[:50]
    pool = pool_of(features, labelled.tolist())
    assert set(alone(STRATEGY, pool, 10)) == set(lonely.tolist())
    left = np.flatnonzero(pool["known"] < 0)
    assert len(set(rng.choice(left, 10, replace=False).tolist()) & set(lonely.tolist())) <= 3


def test_duplicates_come_last():
    rng = np.random.default_rng(2)
    features = np.tile(rng.standard_normal((12, 4)), (5, 1))
    picks = alone(STRATEGY, pool_of(features, [0]), 30)
    assert sorted(pick % 12 for pick in picks[:11]) == list(range(1, 12))
    assert picks[11:] == [i for i in range(1, 60) if i not in picks[:11]][:19], "then all gaps are 0: by index"


@pytest.mark.parametrize("value", [0, 1, 1e30, np.nan, np.inf])
def test_equal_features_go_by_index(value):
    pool = pool_of(np.full((10, 3), value), [0, 5])
    assert alone(STRATEGY, pool, 8) == [1, 2, 3, 4, 6, 7, 8, 9]


def test_without_labels_the_first_example_comes_first():
    features = np.array([[0.0], [1], [5], [2]])
    assert alone(STRATEGY, pool_of(features, []), 4) == [0, 2, 3, 1]


@pytest.mark.parametrize("unit", [1e-30, 1e-3, 2.0**100])
def test_the_unit_of_length_does_not_matter(unit):
    pool = some_pool(5, 60, 4)
    expected = alone(STRATEGY, pool, 12)
    pool["features"] = (pool["features"].astype(np.float64) * unit).astype(np.float32)
    assert alone(STRATEGY, pool, 12) == expected


def test_comparable_numbers_are_the_same_numbers():
    x = np.array([[3.0, -0.1], [np.nan, 1e-3], [np.inf, -np.inf]], np.float32)
    np.testing.assert_array_equal(distances.comparable(jnp.asarray(x)) * 4, [[3, x[0, 1]], [0, x[1, 1]], [0, 0]])
    np.testing.assert_array_equal(distances.comparable(jnp.zeros((2, 2))), np.zeros((2, 2)))


def test_order_of_the_pool():
    pool = some_pool(6, 130, 6)
    order = np.argsort(pool["known"] * 1000 + np.argmax(pool["logits"], axis=1))
    after = {name: leaf[order] for name, leaf in pool.items()}
    assert sorted(order[alone(STRATEGY, after, 20)].tolist()) == sorted(alone(STRATEGY, pool, 20))


def test_scoring_batch(blobs):
    one, other, third = after_scoring_in_batches(STRATEGY, blobs, [200, 37, 16])
    assert one == other == third


def test_eight_devices():
    pools = [some_pool(seed, 203, 6) for seed in range(5)]
    expected = [alone(STRATEGY, pool, 15, seed) for seed, pool in enumerate(pools)]
    assert spread(STRATEGY, pools, 15, devices=8) == expected


@pytest.mark.parametrize("size", [200, 203])
def test_one_run_on_eight_devices(size):
    pool = some_pool(7, size, 6)
    picks, program = split(STRATEGY, pool, 15, devices=8)
    assert picks == alone(STRATEGY, pool, 15)
    rows = {int(rows) for rows in re.findall(r"f32\[(\d+),6\]", program)}
    assert rows == {1, -(-size // 8)}, "each device has its eighth of the features, and the row that is picked"


@pytest.mark.parametrize("kind", ["all different", "ties", "hardly any"])
def test_the_few_largest_of_many(kind):
    """As `top_k` finds them, in blocks; ties go by place, within a block and between blocks."""
    score = np.random.default_rng(0).standard_normal(MANY + 3).astype(np.float32)
    if kind != "all different":
        score = np.round(score)
    if kind == "hardly any":
        score[5:-1] = -np.inf
    for k in (1, 8):
        np.testing.assert_array_equal(few_largest(jnp.asarray(score), k), jax.lax.top_k(score, k)[1])


def test_the_few_largest_of_many_stay_on_their_devices():
    lanes = Lanes(1, jax.devices())

    def find(score):
        return few_largest(lanes.split(score), 8)

    score = lanes.per_run(np.random.default_rng(0).standard_normal((1, MANY + 3)).astype(np.float32))
    program = lanes.lift(find, "r").lower(score).compile().as_text()
    sent = [math.prod(map(int, sides.split(","))) for sides in re.findall(r"= f32\[([\d,]+)\]\S* all-\w+\(", program)]
    assert sent
    assert max(sent) < 0.1 * MANY
