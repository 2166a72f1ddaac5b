"""Cluster-Margin: the tree against scipy and scikit-learn, the turns against a loop, the memory over rounds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from labs import SMALL, bench
from reference import cluster_margin as reference
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.cluster import AgglomerativeClustering

import jaxdal
from jaxdal.errors import InputError
from jaxdal.strategies.cluster_margin import cluster_margin, clusters, round_robin
from jaxdal.strategies.linkage import average_linkage, cut

N, WIDTH = 60, 6


def features_of(seed: int, size: int = N, width: int = WIDTH) -> np.ndarray:
    """As a rectifier leaves them: not negative, in some groups, of very different lengths."""
    rng = np.random.default_rng(seed)
    groups = rng.random((7, width))[rng.integers(0, 7, size)]
    rows = np.abs(groups + 0.2 * rng.standard_normal((size, width))) * rng.lognormal(0, 2, (size, 1))
    return rows.astype(np.float32)


def probs_of(seed: int, size: int = N) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(4), size).astype(np.float32)


def known_of(seed: int, size: int = N) -> np.ndarray:
    """Three in ten are known, always as many, since each number of picks is a program of its own."""
    known = np.where(np.arange(size) < 0.3 * size, 1, -1).astype(np.int32)
    return np.random.default_rng(seed).permutation(known)


def partition(label: np.ndarray) -> set[frozenset]:
    return {frozenset(np.flatnonzero(label == value).tolist()) for value in np.unique(label)}


@functools.cache
def compiled(count: int):
    return jax.jit(lambda features, rows: clusters(features, rows, count))


def clustered(features: np.ndarray, count: int) -> np.ndarray:
    label = np.asarray(compiled(count)(features, np.arange(len(features), dtype=np.int32)))
    assert label.dtype == np.int32
    assert label.min() >= 0
    assert label.max() < len(features)
    return label


@functools.cache
def selecting(strategy):
    return jax.jit(strategy.select, static_argnums=2)


def choose(strategy, known, k, probs, features, seed=0, memory=None):
    memory = strategy.memory(len(known)) if memory is None else memory
    picks, memory = selecting(strategy)(jax.random.key(seed), known, k, memory, probs, features)
    picks = picks.tolist()
    assert len(set(picks)) == k
    assert np.all(known[picks] < 0)
    return picks, np.asarray(memory)


# The tree.


@pytest.mark.parametrize("seed", range(3))
def test_tree_is_that_of_the_definition(seed):
    features = features_of(seed, 30)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    _, _, height = average_linkage(unit)
    merges = reference.average_linkage(features)
    np.testing.assert_allclose(np.sort(height), [merge[2] for merge in merges], rtol=1e-4, atol=1e-7)
    for count in (1, 4, 24, 29, 30):
        assert partition(clustered(features, count)) == reference.partition(merges, 30, count)


@pytest.mark.parametrize(("size", "width"), [(11, 2), (257, 5), (600, 24)])
def test_tree_is_that_of_scipy_and_scikit_learn(size, width):
    features = features_of(size, size, width)
    theirs = linkage(features.astype(np.float64), "average", "cosine")
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    child, parent, height = jax.jit(average_linkage)(unit)
    np.testing.assert_allclose(np.sort(height), theirs[:, 2], rtol=1e-3, atol=1e-7)
    for count in (3, round(size / 10), round(size / 1.25)):
        found = partition(clustered(features, count))
        assert len(found) == count
        assert found == partition(fcluster(theirs, count, "maxclust"))
        model = AgglomerativeClustering(count, metric="cosine", linkage="average")
        assert found == partition(model.fit_predict(features.astype(np.float64)))
        assert found == partition(np.asarray(cut(child, parent, height, count)))


def test_tiny_distances_keep_their_digits():
    """What 1 - u.v in float32 would be lost in: angles of 1e-4, squared."""
    angles = np.cumsum(np.random.default_rng(0).permutation(np.geomspace(1, 30, 40))) * 1e-5
    unit = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    _, _, height = average_linkage(unit.astype(np.float32))
    chord = linkage(np.stack([angles, 0 * angles], axis=1), "average", "sqeuclidean")[:, 2] / 2
    np.testing.assert_allclose(np.sort(height)[-20:], chord[-20:], rtol=0.02)
    assert chord[-20:].min() < 1e-7


@pytest.mark.parametrize("kind", ["equal", "zero", "nan", "some zero", "some nan", "huge", "tiny", "twins", "ramp"])
@pytest.mark.parametrize("size", [1, 2, 31])
def test_whatever_the_features_there_are_as_many_clusters(kind, size):
    features = features_of(5, size)
    features = {
        "equal": features * 0 + 1, "zero": features * 0, "nan": np.full_like(features, np.nan),
        "some zero": features * (np.arange(size) % 3 > 0)[:, None],
        "some nan": np.where((np.arange(size) % 3 == 0)[:, None], np.float32(np.nan), features),
        "huge": features * np.float32(1e30), "tiny": features * np.float32(1e-36),
        "twins": np.repeat(features, 2, axis=0)[:size],
        "ramp": np.stack([np.ones(size), 1.1 ** np.arange(size)] + 4 * [np.zeros(size)], axis=1),
    }[kind].astype(np.float32)  # fmt: skip
    for count in {1, max(1, round(size / 1.25))}:
        label = clustered(features, count)
        assert len(partition(label)) == count
    if kind == "huge":
        assert partition(label) == partition(clustered(features_of(5, size), count))
    if kind == "twins" and size == 31:
        label = clustered(features, 16)
        assert (label[:-1:2] == label[1::2]).all(), "equal rows come together first"


def test_rows_without_direction_are_at_distance_one():
    features = features_of(0, 12)
    features[3] = 0
    features[7, 0] = np.inf
    features[9, 2] = np.nan
    _, _, height = average_linkage(np.zeros((12, 3), np.float32))
    np.testing.assert_array_equal(height, 1)
    label = clustered(features_of(0, 12) * np.where(np.arange(12) == 3, np.float32(0), 1)[:, None], 2)
    assert frozenset([3]) in partition(label)
    assert len(partition(clustered(features, 5))) == 5


# The turns.


@pytest.mark.parametrize("seed", range(8))
def test_turns_are_those_of_the_loop(seed):
    rng = np.random.default_rng(seed)
    cluster, valid = rng.integers(0, [3, 12, 40][seed % 3], 40).astype(np.int32), rng.random(40) < 0.8
    lists: dict[int, list[int]] = {}
    for place in np.flatnonzero(valid).tolist():
        lists.setdefault(int(cluster[place]), []).append(place)
    turns = jax.jit(round_robin, static_argnums=3)
    for k in (1, 9, int(valid.sum())):
        assert turns(cluster, valid, None, k).tolist() == reference.round_robin(list(lists.values()), k)
        draws = rng.random(40).astype(np.float32)
        drawn = [sorted(members, key=lambda place: draws[place]) for members in lists.values()]
        assert turns(cluster, valid, draws, k).tolist() == reference.round_robin(drawn, k)


def test_members_are_drawn_uniformly():
    """Clusters of 3 and 4 of which 2 and 1 are taken: 3 * 2 * 4 outcomes, equally likely."""
    cluster = np.asarray([5, 5, 9, 9, 5, 9, 9], np.int32)
    draws = jax.random.uniform(jax.random.key(0), (4800, 7))
    picks = jax.jit(jax.vmap(lambda draw: round_robin(cluster, np.ones(7, bool), draw, 3)))(draws)
    outcomes, counts = np.unique(picks, axis=0, return_counts=True)
    assert len(outcomes) == 24
    assert scipy.stats.chisquare(counts).pvalue > 1e-4


# The strategy.

BY_MARGIN = cluster_margin(order="margin", candidates=3, n_clusters=20)


def margins(probs: np.ndarray) -> np.ndarray:
    second, first = np.sort(probs.astype(np.float64), axis=1)[:, -2:].T
    return first - second


@pytest.mark.parametrize("seed", range(4))
def test_picks_are_those_of_the_paper(seed):
    features, probs, known = features_of(seed), probs_of(seed), known_of(seed)
    merges = reference.average_linkage(features)
    cluster = np.zeros(N, int)
    for number, members in enumerate(reference.partition(merges, N, 20)):
        cluster[list(members)] = number
    for k in (1, 9, int((known < 0).sum())):
        expected = reference.picks(margins(probs), known, cluster, candidates=3, k=k)
        assert choose(BY_MARGIN, known, k, probs, features)[0] == expected


def test_random_members_are_candidates_in_turns():
    """[O]: which clusters are visited is the same for every key, whom of them is not."""
    strategy = cluster_margin(n_clusters=6, candidates=3)
    features, probs, known = features_of(1), probs_of(1), known_of(1)
    seen = set()
    for seed in range(5):
        picks, memory = choose(strategy, known, 10, probs, features, seed)
        few = [i for i in np.argsort(margins(probs), kind="stable") if known[i] < 0][:30]
        assert set(picks) <= set(few)
        sizes = {label: np.sum(memory[few] == label) for label in np.unique(memory[few])}
        turns = np.bincount(memory[picks], minlength=N)
        assert max(abs(turns[label] - min(size, turns.max())) for label, size in sizes.items()) <= 1
        seen.add(tuple(picks))
    assert len(seen) == 5


def test_every_group_is_asked_about_where_margins_alone_see_one():
    """Planted: 50 doubtful twins, and five lone examples, a bit less doubtful. Random finds all in 1 of 5e6 draws."""
    rng = np.random.default_rng(0)
    features = np.concatenate(
        [np.eye(1, 8) + 0.01 * rng.random((50, 8)), np.eye(8)[2:7], np.eye(1, 8, 7).repeat(145, 0)]
    )
    doubt = np.concatenate([np.full(50, 0.01), np.full(5, 0.1), np.full(145, 0.9)])
    probs = np.stack([0.5 + doubt / 2, 0.5 - doubt / 2], axis=1).astype(np.float32)
    order = rng.permutation(200)
    where = np.argsort(order)
    for by in ("random", "margin"):
        strategy = cluster_margin(n_clusters=7, candidates=5, order=by)
        picks, _ = choose(strategy, np.full(200, -1, np.int32), 11, probs[order], features[order].astype(np.float32))
        assert set(picks[:5]) == set(where[50:55].tolist())
        assert set(picks[5:]) <= set(where[:50].tolist())


def test_the_order_of_the_pool_does_not_matter():
    """Neither for the tree, nor, class-sorted or shuffled, for the picks."""
    features, probs, known = features_of(2), probs_of(2), known_of(2)
    ranked = np.argsort(probs.argmax(1), kind="stable")
    before, memory = choose(BY_MARGIN, known[ranked], 8, probs[ranked], features[ranked])
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(N)
        after, shuffled = choose(BY_MARGIN, known[order], 8, probs[order], features[order])
        assert order[after].tolist() == ranked[before].tolist()
        assert {frozenset(order[list(c)]) for c in partition(shuffled)} == {
            frozenset(ranked[list(c)]) for c in partition(memory)
        }


def test_clusters_are_made_once():
    features, probs, known = features_of(3), probs_of(3), known_of(3)
    strategy = cluster_margin()
    fresh = strategy.memory(N)
    assert fresh.dtype == np.int32
    assert fresh.tolist() == [-1] * N
    _, first = choose(strategy, known, 5, probs, features)
    assert len(partition(first)) == round(N / 1.25)
    _, later = choose(strategy, known, 5, probs, features[::-1] * np.nan, memory=first)
    np.testing.assert_array_equal(later, first)


def test_packed_runs_cluster_for_themselves():
    """Under vmap: one run remembers, two do not; each gets what it gets alone."""
    scenes = [(known_of(seed), probs_of(seed), features_of(seed)) for seed in range(3)]
    keys = jax.random.split(jax.random.key(0), 3)
    strategy = cluster_margin()
    memory = np.stack([strategy.memory(N)] * 3)
    memory[1] = np.arange(N) % 7
    known, probs, features = (np.stack(column) for column in zip(*scenes, strict=True))
    packed = jax.jit(jax.vmap(lambda key, known, *rest: strategy.select(key, known, 9, *rest)))
    picks, after = packed(keys, known, memory, probs, features)
    for run in range(3):
        alone = selecting(strategy)(keys[run], known[run], 9, memory[run], probs[run], features[run])
        np.testing.assert_array_equal(picks[run], alone[0])
        np.testing.assert_array_equal(after[run], alone[1])
    np.testing.assert_array_equal(after[1], memory[1])


def test_a_subset_takes_the_others_along():
    features, probs, known = features_of(4), probs_of(4), known_of(4)
    strategy = cluster_margin(subset=25, n_clusters=6)
    _, label = choose(strategy, known, 5, probs, features)
    rows = np.asarray(jax.random.permutation(jax.random.split(jax.random.key(0))[0], jnp.arange(N))[:25])
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    merges = reference.average_linkage(features[rows])
    parts = [sorted(rows[list(part)]) for part in reference.partition(merges, 25, 6)]
    assert {frozenset(part) for part in parts} == {frozenset(p) & frozenset(rows) for p in partition(label)}
    for row in np.setdiff1d(np.arange(N), rows):
        average = [np.mean([1 - unit[row] @ unit[member] for member in part]) for part in parts]
        assert label[row] == label[parts[int(np.argmin(average))][0]]
    whole, _ = choose(cluster_margin(subset=N, n_clusters=6), known, 5, probs, features)
    assert whole == choose(cluster_margin(n_clusters=6), known, 5, probs, features)[0]


@pytest.mark.parametrize("broken", [np.nan, 0, np.inf])
def test_picks_are_valid_whatever_the_network_says(broken):
    features, probs, known = features_of(6), probs_of(6), known_of(6)
    for strategy in (cluster_margin(), BY_MARGIN):
        for k in (1, int((known < 0).sum())):
            choose(strategy, known, k, np.full_like(probs, broken), np.full_like(features, broken))
    everything = np.full(N, -1, np.int32)
    picks, _ = choose(cluster_margin(), everything, 7, probs * 0, features * 0 + 1)
    assert picks == list(range(7)), "ties go by index"


def test_what_cannot_be_is_refused():
    for options in ({"n_clusters": 0}, {"candidates": 0}, {"candidates": None}, {"subset": 1.5}, {"subset": 200_000}):
        with pytest.raises(InputError, match="of cluster_margin is"):
            cluster_margin(**options)
    with pytest.raises(InputError, match="neither 'random' nor 'margin'"):
        cluster_margin(order="size")
    with pytest.raises(InputError, match=r"the pool has 100,001: try --strategy='cluster_margin\(subset=50000\)'"):
        cluster_margin().memory(100_001)
    assert len(cluster_margin().memory(100_000)) == 100_000
    assert len(cluster_margin(subset=50_000).memory(1_000_000)) == 1_000_000


# In a lab.


def test_devices_change_nothing(blobs):
    """A run that is split over two devices, and runs spread over two."""
    picks = {}
    for seeds, devices in [((0,), 1), ((0,), 2), ((0, 1), 2)]:
        here = bench(blobs, seeds, devices, cluster_margin())
        found = here.lab.gather(here.keys, here.train(4).variables, here.known, here.lab.pool)
        memory = here.lab.lanes.per_run(np.stack([cluster_margin().memory(200)] * len(seeds)))
        picks[seeds, devices] = np.asarray(here.lab.select(here.keys, here.known, memory, *found)[0])
    alone = set(picks[(0,), 1][0].tolist())
    for found in picks.values():  # nothing stronger: rounding differs, and near ties with it
        assert len(alone & set(found[0].tolist())) >= 8
    assert set(picks[(0, 1), 2][1].tolist()) != alone


def test_memory_survives_a_run(blobs, tmp_path):
    options = {**SMALL, "n_start": 40, "n_query": 10, "seeds": [0, 1]}
    where = {"workdir": tmp_path, "quiet": True, "devices": jax.devices()[:1]}
    jaxdal.run(blobs, cluster_margin(n_clusters=50), **options | {"n_end": 70}, **where)
    kept = []
    for round_ in (0, 1, 2):
        with np.load(tmp_path / f"memory_{round_}.npz") as memory:
            kept.append([memory[name] for name in sorted(memory.files)])
    for run in range(2):
        assert len(partition(kept[0][run])) == 50
        np.testing.assert_array_equal(kept[0][run], kept[1][run])
        np.testing.assert_array_equal(kept[0][run], kept[2][run])
    assert partition(kept[0][0]) != partition(kept[0][1])
