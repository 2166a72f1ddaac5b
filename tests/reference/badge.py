"""BADGE (Ash et al. 2020, algorithm 1): float64, gradients written out, probabilities of every step along a path."""

import numpy as np


def gradients(probs: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Equation 1: (g_x)_i = (p_i - 1(yhat = i)) z(x), one block per class: -> f64[N, K d]."""
    rows = []
    for p, z in zip(probs.astype(np.float64), features.astype(np.float64), strict=True):
        guess = int(np.argmax(p))
        rows.append(np.concatenate([(p[i] - (1.0 if i == guess else 0.0)) * z for i in range(len(p))]))
    return np.stack(rows)


def largest(g: np.ndarray, known: np.ndarray) -> int:
    """Return the first centre: the unlabelled example of largest norm, the first of equal ones."""
    left = np.flatnonzero(known < 0)
    return int(left[np.argmax([g[i] @ g[i] for i in left])])


def probabilities(g: np.ndarray, known: np.ndarray, path: list[int]) -> np.ndarray:
    """Probability of every example to be drawn after the centres of `path`: -> f64[N]."""
    weight = np.zeros(len(g))
    left = [i for i in range(len(g)) if known[i] < 0 and i not in path]
    for i in left:
        weight[i] = min(np.sum((g[i] - g[j]) ** 2) for j in path)
    if weight.sum() == 0:
        weight[left] = 1
    return weight / weight.sum()
