"""What views of an image say (Gao et al. 2020, Song et al. 2019) and proportional shares: float64 and fractions."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from reference import scores


def variance(passes: np.ndarray) -> float:
    """Sum over classes of the variance over views, with divisor T. passes: [T, K], probabilities of one image."""
    total = 0.0
    for column in np.asarray(passes, np.float64).T:
        mean = math.fsum(column) / len(column)
        total += math.fsum((p - mean) ** 2 for p in column) / len(column)
    return total


def margin(one: Sequence[float], other: Sequence[float]) -> float:
    """log((1 - m) / m) of the margin m of the mean of two answers."""
    return -scores.margin([(float(a) + float(b)) / 2 for a, b in zip(one, other, strict=True)])


def quotas(sizes: Sequence[int], k: int) -> list[int]:
    """Hamilton's method: whole shares first, what is left to the largest remainders, the first of equal ones."""
    shares = [Fraction(k * int(size), int(sum(sizes))) for size in sizes]
    quota = [math.floor(share) for share in shares]
    by_remainder = sorted(range(len(sizes)), key=lambda c: quota[c] - shares[c])
    for cluster in by_remainder[: k - sum(quota)]:
        quota[cluster] += 1
    return quota


def proportional(margins: np.ndarray, cluster: np.ndarray, known: np.ndarray, k: int) -> list[int]:
    """Of each cluster the unknown examples of largest score, as many as its quota; all by score."""
    left = np.flatnonzero(known < 0)
    names = sorted(set(cluster[left].tolist()))
    members = [sorted((i for i in left if cluster[i] == name), key=lambda i: -margins[i]) for name in names]
    shares = quotas([len(some) for some in members], k)
    picks = [int(i) for some, share in zip(members, shares, strict=True) for i in some[:share]]
    return sorted(picks, key=lambda i: -margins[i])
