"""Cluster-Margin: small margins, taken in turns from clusters that are made once."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import sequential_vmap

from jaxdal import signals
from jaxdal.errors import InputError
from jaxdal.strategies.distances import directions
from jaxdal.strategies.linkage import average_linkage, cut
from jaxdal.strategies.picking import top_unknown
from jaxdal.strategies.scores import margin_score
from jaxdal.types import Array, Strategy, Tree

LARGEST = 100_000  # rows to cluster: the work grows with the square


def cluster_margin(
    n_clusters: int | None = None, candidates: int = 10, order: str = "random", subset: int | None = None
) -> Strategy:
    """Buy small margins, in turns from clusters, smallest cluster first: Citovsky et al. (2021), algorithms 1 and 2.

    At the first query the features of the whole pool, labelled or not, are clustered once and for all: the memory is
    the cluster of every example, i32[N], -1 before that. Every query takes the candidates * k unknown examples of
    smallest margin, and visits their clusters by ascending number of candidates, again and again until it has k.

    n_clusters: how many to cut the tree into; None: N / 1.25, the average size that the authors are said to use for
        CIFAR-10 and SVHN, where a distance threshold is tuned to it. The comparison's code takes 20.
    candidates: k_m / k; 10 as in the paper and the comparison, and all that is unknown where that is less.
    order: who goes first in a cluster, a uniformly "random" member (paper) or that of smallest "margin" (comparison).
    subset: above so many rows (there is no other way above 100,000) cluster a random subset of that size; every other
        example joins the cluster to which its average distance is smallest. Then n_clusters is at most the size of the
        subset, by default that / 1.25, and the clusters are larger.

    Deviations from the comparison's published code: features of every example (there all examples of a batch get those
    of its second one, which makes clusters of batches); cosine distance, as in other implementations of the paper, and
    not Euclidean; 1.25 examples per cluster and not N / 20. Clusters of equal size, about which the paper is silent, go
    by the smallest margin among their members, as a stable sort has it when clusters are listed by margin.
    """
    for name, number in (("n_clusters", n_clusters), ("candidates", candidates), ("subset", subset)):
        if not (isinstance(number, int) and number >= 1) and (number is not None or name == "candidates"):
            raise InputError(f"{name}={number} of cluster_margin is not a positive whole number")
    if order not in ("random", "margin"):
        raise InputError(f"order={order!r} of cluster_margin is neither 'random' nor 'margin'")
    if subset is not None and subset > LARGEST:
        raise InputError(f"subset={subset} of cluster_margin is more than the {LARGEST:,} rows that it can cluster")

    def memory(size: int) -> Tree:
        if subset is None and size > LARGEST:
            raise InputError(
                f"cluster_margin clusters up to {LARGEST:,} examples, and the pool has {size:,}: "
                "try --strategy='cluster_margin(subset=50000)'"
            )
        return np.full(size, -1, np.int32)

    # One run after another, where runs are packed: a loop of one program that ends when its run has ended, and is not
    # entered at all when the clusters are there. Under vmap all runs would copy their whole state in every step.
    @sequential_vmap
    def remembered(cluster: Array, features: Array, rows: Array) -> Array:
        count = max(1, round(len(rows) / 1.25)) if n_clusters is None else min(n_clusters, len(rows))
        return jax.lax.cond(cluster[0] < 0, lambda: clusters(features, rows, count), lambda: cluster)

    def select(key: Array, known: Array, k: int, memory: Tree, probs: Array, features: Array) -> tuple[Array, Tree]:
        size = known.shape[0]
        subset_key, member_key = jax.random.split(key)
        rows = jnp.arange(size, dtype=jnp.int32)
        if subset is not None and subset < size:
            rows = jax.random.permutation(subset_key, rows)[:subset]
        cluster = remembered(memory, features, rows)
        few = top_unknown(margin_score(probs), known, min(candidates * k, size))  # by ascending margin
        draws = jax.random.uniform(member_key, (size,))[few] if order == "random" else None
        return few[round_robin(cluster[few], known[few] < 0, draws, k)], cluster

    return Strategy(needs=(signals.probs, signals.features), select=select, memory=memory)


def round_robin(cluster: Array, valid: Array, draws: Array | None, k: int) -> Array:
    """Take k of n candidates, one from each cluster in turns, smallest cluster first: -> i32[k], places among them.

    cluster: i32[n], below any number; valid: bool[n], k or more are; draws: f32[n], who goes first within a cluster, or
    None for the order given. Clusters of equal size go by their first candidate. In closed form: a candidate is
    taken in the turn that is its rank within its cluster, so that all are sorted by (rank, size, cluster).
    """
    n = len(cluster)
    place = jnp.arange(n, dtype=jnp.int32)
    label = jnp.where(valid, cluster, jnp.iinfo(jnp.int32).max)
    order = jnp.lexsort((place if draws is None else draws, label))
    new = jnp.concatenate([jnp.ones(1, bool), jnp.diff(label[order]) != 0])
    start = jax.lax.cummax(jnp.where(new, place, 0))
    group = jnp.zeros(n, jnp.int32).at[order].set(start)  # a number for each cluster
    rank = jnp.zeros(n, jnp.int32).at[order].set(place - start)
    size = jnp.zeros(n, jnp.int32).at[group].add(1)[group]
    first = jnp.full(n, n, jnp.int32).at[group].min(place)[group]
    return jnp.lexsort((first, size, rank, ~valid))[:k].astype(jnp.int32)


def clusters(features: Array, rows: Array, count: int) -> Array:
    """Cut `rows` into `count` clusters, by cosine distance and average linkage; other rows join the nearest one.

    features: f32[N, d], rows: i32[n], distinct -> i32[N], a number in [0, N) for each cluster. A feature vector that is
    zero or not finite is at distance 1 from everything.
    """
    size = features.shape[0]
    unit = directions(features)
    # From the last row to the first, so that of rows that are all alike the first ones stay alone.
    own = unit[rows[::-1]]
    label = cut(*average_linkage(own, count), count)[::-1]
    if len(rows) == size:
        return label
    sums = jax.ops.segment_sum(own[::-1], label, len(rows))
    members = jax.ops.segment_sum(jnp.ones(len(rows)), label, len(rows))
    means = sums / jnp.maximum(members, 1)[:, None]

    def nearest(row: Array) -> Array:
        likeness = jnp.matmul(means, row, precision=jax.lax.Precision.HIGHEST)
        return jnp.argmax(jnp.where(members > 0, likeness, -jnp.inf)).astype(jnp.int32)

    return jax.lax.map(nearest, unit, batch_size=512).at[rows].set(label)
