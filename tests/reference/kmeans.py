"""K-means (Lloyd 1982) and the nearest example of each cluster (Zhdanov 2019): float64, point by point."""

import numpy as np


def assign(x: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest centre of each point, the first of equal ones, and the squared distance to it."""
    owner, gap = np.zeros(len(x), int), np.zeros(len(x))
    for i, point in enumerate(x):
        squares = [float(np.sum((point - centre) ** 2)) for centre in centres]
        owner[i], gap[i] = int(np.argmin(squares)), min(squares)
    return owner, gap


def lloyd(x: np.ndarray, centres: np.ndarray, steps: int) -> tuple[np.ndarray, list[float]]:
    """Return the centres and the inertia before every step; stops when nothing changes. No cluster may become empty."""
    inertia, before = [], None
    for _ in range(steps):
        owner, gap = assign(x, centres)
        inertia.append(float(gap.sum()))
        if before is not None and (owner == before).all():
            break
        centres = np.stack([np.mean(x[owner == number], axis=0) for number in range(len(centres))])
        before = owner
    return centres, inertia


def representatives(x: np.ndarray, centres: np.ndarray) -> list[int]:
    """Of each cluster the point nearest to its centre."""
    owner, gap = assign(x, centres)
    return [min(np.flatnonzero(owner == number).tolist(), key=lambda i: gap[i]) for number in range(len(centres))]


def seeding(x: np.ndarray, path: list[int]) -> np.ndarray:
    """Arthur and Vassilvitskii 2007, section 2.2: probability of each point to be the next centre after `path`."""
    if not path:
        return np.full(len(x), 1 / len(x))
    weight = np.array([0.0 if i in path else min(np.sum((x[i] - x[j]) ** 2) for j in path) for i in range(len(x))])
    return weight / weight.sum()
