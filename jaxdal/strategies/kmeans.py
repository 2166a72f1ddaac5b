"""k-means: one example from each of k clusters of what is unlabelled."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdal import signals
from jaxdal.errors import InputError
from jaxdal.strategies.distances import comparable, draw, nearest, sample_apart, squared_distances, squared_distances_to
from jaxdal.types import Array, Strategy, Tree


class Clusters(NamedTuple):
    """Lloyd's algorithm between two steps."""

    centres: Array  # f32[k, d]
    owner: Array  # i32[N], the nearest of the centres before the last step; k for rows that take no part
    step: Array  # i32[], steps done
    done: Array  # bool[]


def seed_rows(key: Array, x: Array, member: Array, k: int) -> Array:
    """k-means++ (Arthur and Vassilvitskii 2007): k distinct members, one uniform, then by D² sampling: -> i32[k]."""
    start, rest = jax.random.split(key)
    first = draw(jax.random.uniform(start, (2,)), member.astype(jnp.float32))
    closest = jnp.where(member, jnp.inf, -1.0).astype(jnp.float32)
    return sample_apart(rest, closest, first, k, partial(squared_distances_to, x))


def assign(x: Array, member: Array, centres: Array) -> tuple[Array, Array]:
    """To which centre each row belongs: -> (owner: i32[N], k for no member; squared distance: f32[N], 0 there)."""
    k = centres.shape[0]
    found = nearest(x, centres, jnp.arange(k, dtype=jnp.int32), k)
    gap = jnp.sum(jnp.square(x - centres[found]), axis=-1)
    return jnp.where(member, found, k), jnp.where(member, gap, 0.0)


def update(x: Array, owner: Array, gap: Array, centres: Array) -> Array:
    """Means of the clusters: -> f32[k, d].

    An empty one moves to the row farthest from its own centre, which leaves its cluster: scikit-learn's rule. Where no
    row is at a distance, an empty cluster stays.
    """
    k = centres.shape[0]
    total = jax.ops.segment_sum(x, owner, k)
    count = jax.ops.segment_sum(jnp.ones_like(gap), owner, k)
    State = tuple[Array, Array, Array, Array]

    def farthest(state: State) -> tuple[Array, Array]:
        """The row that may leave: not the only one of its cluster, which would be empty then."""
        _, count, gap, _ = state
        may_leave = jnp.where(count[jnp.minimum(owner, k - 1)] > 1, gap, 0.0)
        row = jnp.argmax(may_leave).astype(jnp.int32)
        return row, may_leave[row]

    def lacking(state: State) -> Array:
        return jnp.any(state[1] == 0) & (farthest(state)[1] > 0)

    def relocate(state: State) -> State:
        total, count, gap, owner = state
        row, _ = farthest(state)
        empty, old = jnp.argmin(count).astype(jnp.int32), owner[row]
        total = total.at[old].add(-x[row]).at[empty].set(x[row])
        count = count.at[old].add(-1.0).at[empty].set(1.0)
        return total, count, gap.at[row].set(0.0), owner.at[row].set(empty)

    total, count, _, _ = jax.lax.while_loop(lacking, relocate, (total, count, gap, owner))
    return jnp.where(count[:, None] > 0, total / jnp.maximum(count, 1.0)[:, None], centres)


def lloyd(
    x: Array, member: Array, centres: Array, max_iter: Array | int, tol: Array | float
) -> tuple[Array, Array, Array]:
    """Lloyd's algorithm: -> centres f32[k, d], and owner i32[N] and squared distance f32[N] as `assign` finds them.

    It ends when no row changes its cluster, when the centres move by no more than tol * mean variance (the sum of their
    squared shifts), or after max_iter steps: scikit-learn's rules.
    """
    share = member.astype(jnp.float32)[:, None]
    mean = jnp.sum(x * share, axis=0) / jnp.sum(share)
    enough = tol * jnp.mean(jnp.sum(share * jnp.square(x - mean), axis=0) / jnp.sum(share))

    def step(now: Clusters) -> Clusters:
        owner, gap = assign(x, member, now.centres)
        centres = update(x, owner, gap, now.centres)
        still = jnp.all(owner == now.owner) | (jnp.sum(jnp.square(centres - now.centres)) <= enough)
        return Clusters(centres, owner, now.step + 1, still)

    start = Clusters(centres, jnp.full(x.shape[0], -1, jnp.int32), jnp.int32(0), jnp.bool_(False))
    end = jax.lax.while_loop(lambda now: ~now.done & (now.step < max_iter), step, start)
    return end.centres, *assign(x, member, end.centres)


def representatives(x: Array, centres: Array, owner: Array, gap: Array) -> Array:
    """The row nearest to each centre among those it owns, the first of equal ones: -> i32[k], distinct.

    A centre that owns none takes the nearest row that nobody has taken, in the order of the centres.
    """
    k, size = centres.shape[0], x.shape[0]
    least = jax.ops.segment_min(gap, owner, k)
    row = jnp.arange(size, dtype=jnp.int32)
    is_nearest = (owner < k) & (gap <= least[jnp.minimum(owner, k - 1)])
    picks = jax.ops.segment_min(jnp.where(is_nearest, row, size), owner, k)
    picks = jnp.minimum(picks, size)  # an empty segment is the largest integer
    free = (owner < k).at[picks].set(False, mode="drop")

    def fill(state: tuple[Array, Array]) -> tuple[Array, Array]:
        picks, free = state
        place = jnp.argmax(picks).astype(jnp.int32)
        best = jnp.argmin(jnp.where(free, squared_distances(x, centres[place]), jnp.inf)).astype(jnp.int32)
        return picks.at[place].set(best), free.at[best].set(False)

    return jax.lax.while_loop(lambda state: jnp.any(state[0] == size), fill, (picks, free))[0]


def kmeans(n_init: int = 1, max_iter: int = 100, tol: float = 1e-4) -> Strategy:
    """The example nearest to each of k centres of the unlabelled ones, in the space of the features.

    Zhdanov 2019 (arXiv 1901.05954), section 3, in the unweighted form of the benchmark (arXiv 2212.03088):
    K-means with as many clusters as picks, without the first selection by margin and without its weights.
    features: f32[N, d] -> picks: i32[k], in the order of the centres, which is random.
    Memory O(N (d + CHUNK)): rows are compared with CHUNK centres at a time, never with all k.

    n_init, max_iter, tol: as in scikit-learn's KMeans; the best of n_init runs is taken, by inertia.

    Deviations from scikit-learn's KMeans, as the published code calls it:
    - one start and 100 iterations instead of 10 and 300: `kmeans(n_init=10, max_iter=300)` is theirs;
    - k-means++ draws one candidate per centre (as in its paper), not the best of 2 + log k;
    - the only row of a cluster is never moved to an empty one;
    - a centre that owns nobody (more clusters than different rows) takes the nearest example nobody has taken, where
      the published code fails;
    - a feature that is not finite counts as 0.

    Where classes are so tight that examples are 100 times nearer to several centres than to the mean of all, or more,
    some go to another of these than the nearest (`nearest`): 4 % at 170 times, 30 % at 500 (30 centres in each class).

    Sums over a cluster are a scatter: on a GPU their last bits, and with them a pick in ten thousand, may depend on the
    order of additions, unless XLA_FLAGS has --xla_gpu_deterministic_ops=true.
    """
    for name, number in (("n_init", n_init), ("max_iter", max_iter)):
        if not (isinstance(number, int) and number >= 1):
            raise InputError(f"{name}={number} of kmeans is not a positive whole number")
    if not (isinstance(tol, int | float) and tol >= 0):
        raise InputError(f"tol={tol} of kmeans is not a number from 0 on")

    def select(key: Array, known: Array, k: int, memory: Tree, features: Array) -> tuple[Array, Tree]:
        member = known < 0
        x = comparable(features)
        share = member.astype(jnp.float32)
        x = x - jnp.sum(x * share[:, None], axis=0) / jnp.sum(share)
        one = partial(cluster, x=x, member=member, k=k, max_iter=max_iter, tol=tol)
        if n_init == 1:
            centres = one(key)[0]
        else:
            found, inertia = jax.lax.map(one, jax.random.split(key, n_init))
            centres = found[jnp.argmin(inertia)]
        return representatives(x, centres, *assign(x, member, centres)), memory

    return Strategy(needs=(signals.features,), select=select)


def cluster(key: Array, *, x: Array, member: Array, k: int, max_iter: int, tol: float) -> tuple[Array, Array]:
    """One start: -> (centres f32[k, d], inertia f32[])."""
    centres, _, gap = lloyd(x, member, x[seed_rows(key, x, member, k)], max_iter, tol)
    return centres, jnp.sum(gap)
