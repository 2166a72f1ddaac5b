"""Cluster-Margin as Citovsky et al. (2021) write it: naive average linkage, a loop for the rounds; float64."""

import numpy as np


def average_linkage(features: np.ndarray) -> list[tuple[frozenset, frozenset, float]]:
    """Merge the two clusters of least average cosine distance until one is left: -> (A, B, height) per merge."""
    rows = features.astype(np.float64)
    distance = np.array([[1 - a @ b / np.sqrt(a @ a) / np.sqrt(b @ b) for b in rows] for a in rows])
    alive = [frozenset([i]) for i in range(len(rows))]
    merges = []
    while len(alive) > 1:
        pairs = [(distance[np.ix_(sorted(a), sorted(b))].mean(), i, j) for i, a in enumerate(alive)
                 for j, b in enumerate(alive[:i])]  # fmt: skip
        height, i, j = min(pairs)
        merges.append((alive[i], alive[j], height))
        union = alive[i] | alive[j]
        alive = [cluster for place, cluster in enumerate(alive) if place not in (i, j)] + [union]
    return merges


def partition(merges: list[tuple[frozenset, frozenset, float]], size: int, count: int) -> set[frozenset]:
    """The clusters after size - count merges."""
    alive = {frozenset([i]) for i in range(size)}
    for a, b, _ in merges[: size - count]:
        alive = alive - {a, b} | {a | b}
    return alive


def round_robin(clusters: list[list], k: int) -> list:
    """Algorithm 2: smallest cluster first, a member of each in turns (here: its next), until there are k."""
    queues = [list(cluster) for cluster in sorted(clusters, key=len)]
    picks: list = []
    while len(picks) < k:
        for queue in queues:
            if queue and len(picks) < k:
                picks.append(queue.pop(0))
    return picks


def picks(margins: np.ndarray, known: np.ndarray, cluster: np.ndarray, candidates: int, k: int) -> list[int]:
    """A query, with the members of a cluster by margin; margins: f[N], small is uncertain."""
    few = [i for i in np.argsort(margins, kind="stable").tolist() if known[i] < 0][: candidates * k]
    lists: dict[int, list[int]] = {}
    for i in few:
        lists.setdefault(int(cluster[i]), []).append(i)
    return round_robin(list(lists.values()), k)
