"""Cluster-Margin in PyTorch, vectorised: all distances in the device's memory, and the turns of a query by sorting."""

import torch
from torch import Tensor
from torch.nn import functional


def clusters(features: Tensor, count: int) -> Tensor:
    """Cut the tree of average linkage, by cosine distance, into so many clusters: f32[n, d] -> i64[n], a number each.

    Pass after pass, all pairs of clusters that are nearest to each other are merged at once (reciprocal nearest
    neighbours: Sumengen et al. 2021), their rows and columns becoming weighted means, until as many merges as the cut
    needs are not above the least distance that is left. 4 n² bytes, and in the first pass about as much again.
    """
    n, need = len(features), len(features) - count
    place = torch.arange(n, device=features.device)
    if need <= 0:
        return place
    unit = functional.normalize(features)
    gap = unit @ unit.T
    gap = torch.maximum(gap, gap.T).neg_().add_(1).fill_diagonal_(torch.inf)  # the same both ways, to the last bit
    size, level = torch.ones_like(gap[0]), torch.zeros_like(gap[0])
    children, parents, heights = [place[:0]], [place[:0]], [level[:0]]
    while True:
        low, near = gap.min(dim=1)
        child, parent, height = map(torch.cat, (children, parents, heights))
        if len(child) == n - 1 or (len(child) >= need and low.min() >= height.kthvalue(need).values):
            break
        i = torch.nonzero((near[near] == place) & (place < near) & low.isfinite())[:, 0]
        j = near[i]
        a, b = size[i] / (size[i] + size[j]), size[j] / (size[i] + size[j])
        rows = a[:, None] * gap[i] + b[:, None] * gap[j]
        both = a * rows[:, i] + b * rows[:, j]
        rows[:, i], rows[:, j] = (both + both.T) / 2, torch.inf
        gap[i], gap[:, i] = rows, rows.T
        gap[j], gap[:, j] = torch.inf, torch.inf
        size[i] += size[j]
        level[i] = torch.maximum(low[i], torch.maximum(level[i], level[j]))
        children.append(j)
        parents.append(i)
        heights.append(level[i])
    kept = height.argsort(stable=True)[:need]
    up = place.clone()
    up[child[kept]] = parent[kept]
    for _ in range(n.bit_length()):
        up = up[up]
    return up


def picks(probs: Tensor, known: Tensor, cluster: Tensor, draws: Tensor, k: int, candidates: int) -> Tensor:
    """Take examples of small margin in turns from their clusters, the smallest cluster first: -> i64[k].

    probs: f32[n, K], known: bool[n], cluster: i64[n], draws: f32[n], who goes first within a cluster. candidates: how
    many of small margin there are, all unknown. Clusters of equal size go by their first candidate.
    """
    best, second = probs.topk(2).values.unbind(dim=1)
    few = (best - second).masked_fill(known, torch.inf).argsort(stable=True)[:candidates]
    _, group, size = cluster[few].unique(return_inverse=True, return_counts=True)
    place = torch.arange(candidates, device=few.device)
    first = torch.full_like(size, candidates).scatter_reduce(0, group, place, "amin")
    drawn = draws[few].argsort(stable=True)
    order = drawn[group[drawn].argsort(stable=True)]  # cluster by cluster
    start = size.cumsum(0) - size
    rank = torch.empty_like(place)
    rank[order] = place - start[group[order]]
    turn = (rank * (candidates + 1) + size[group]) * candidates + first[group]  # no two are alike
    return few[turn.argsort()[:k]]
