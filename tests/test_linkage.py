"""Average linkage in bulk: the tree against scipy's, early ends, blocks, ties, and the pools that are worst for it."""

import jax
import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from jaxdal.strategies.linkage import average_linkage, cut

N = 150


def directions_of(seed: int, width: int = 6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = np.abs(rng.random((7, width))[rng.integers(0, 7, N)] + 0.2 * rng.standard_normal((N, width)))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def planted(kind: str) -> np.ndarray:
    """Unit vectors: some many times over, some closer than float32 products can tell, some zero, all near one."""
    rng = np.random.default_rng(0)
    unit = directions_of(0)
    if kind == "twins":
        return unit[rng.integers(0, 30, N)]
    if kind == "close":
        unit = unit[rng.integers(0, 30, N)] + 1e-4 * rng.standard_normal((N, 6))
        return (unit / np.linalg.norm(unit, axis=1, keepdims=True)).astype(np.float32)
    if kind == "some zero":
        return np.where(rng.random((N, 1)) < 0.3, np.float32(0), unit)
    near = np.linspace(0.05, 0.95, N)  # of two rows 1 - d is a product: everybody's nearest is the last
    return np.concatenate([near[:, None], np.diag(np.sqrt(1 - near**2))], axis=1).astype(np.float32)


def exact(unit: np.ndarray) -> np.ndarray:
    """Scipy's tree; zero vectors are at distance 1."""
    rows = unit.astype(np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 0.5)
    distances = np.square(rows[:, None] - rows).sum(-1) / 2  # 1 - u.v without its cancellation
    zero = ~rows.any(axis=1)
    distances[zero] = distances[:, zero] = 1
    np.fill_diagonal(distances, 0)
    return linkage(squareform(distances), "average")


def partition(label: np.ndarray) -> set[frozenset]:
    return {frozenset(np.flatnonzero(label == value).tolist()) for value in np.unique(label)}


def tree_of(unit: np.ndarray, count: int = 1) -> tuple[np.ndarray, ...]:
    return tuple(map(np.asarray, jax.jit(average_linkage, static_argnums=1)(unit, count)))


@pytest.mark.parametrize("kind", ["twins", "close", "some zero", "hub"])
def test_planted_trees(kind):
    unit = planted(kind)
    child, parent, height = tree_of(unit)
    theirs = exact(unit)
    np.testing.assert_allclose(np.sort(height), theirs[:, 2], rtol=1e-3, atol=1e-12)
    assert len(set(child.tolist())) == N - 1
    gone = np.full(N, N)
    gone[child] = np.arange(N - 1)
    assert (gone[parent] > np.arange(N - 1)).all(), "nothing moves in with what has moved away"
    level = np.zeros(N)
    for moved, into, at in zip(child, parent, height, strict=True):
        assert at >= max(level[moved], level[into]), "parts before wholes"
        level[into] = at
    if kind == "hub":
        assert (parent[:-1] == child[1:]).all(), "one after another"
    for count in {"twins": (30, 12), "close": (30, 12), "some zero": (110,), "hub": (120, 40, 2)}[kind]:
        found = partition(np.asarray(cut(child, parent, height, count)))
        assert len(found) == count
        if theirs[N - count, 2] > 1.001 * theirs[N - count - 1, 2]:  # no tie at the cut
            assert found == partition(fcluster(theirs, count, "maxclust"))


@pytest.mark.parametrize("count", [N, 120, 15])
def test_an_early_end_changes_no_cut(count):
    unit = directions_of(1)
    whole, part = tree_of(unit), tree_of(unit, count)
    assert np.isfinite(part[2]).sum() >= N - count
    if count > 100:
        assert np.isinf(part[2]).sum() > N / 4, "it has ended early"
    np.testing.assert_array_equal(np.sort(part[2])[: N - count], np.sort(whole[2])[: N - count])
    found = partition(np.asarray(cut(*part, count)))
    assert found == partition(np.asarray(cut(*whole, count)))
    assert found == partition(fcluster(exact(unit), count, "maxclust"))


def test_blocks_change_nothing(monkeypatch):
    """Of a size that divides neither the rows nor the clusters; and with few rows searched for in a pass."""
    unit = planted("close")
    whole = tree_of(unit)
    monkeypatch.setattr("jaxdal.strategies.linkage.ROWS", 8)
    monkeypatch.setattr("jaxdal.strategies.linkage.COLUMNS", 32)
    blocks = tree_of(unit[:-1])[2], jax.jit(lambda unit: average_linkage(unit))(unit)
    np.testing.assert_allclose(np.sort(blocks[0]), exact(unit[:-1])[:, 2], rtol=1e-3)
    np.testing.assert_allclose(np.sort(blocks[1][2]), np.sort(whole[2]), rtol=1e-5)
    for count in (30, 12):
        assert partition(np.asarray(cut(*blocks[1], count))) == partition(np.asarray(cut(*whole, count)))
