"""The uncertainty of one probability vector, and whom to ask: float64, example by example, class by class."""

import math
from collections.abc import Callable, Sequence

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """f[N, K] -> f64[N, K]."""
    powers = np.exp(logits.astype(np.float64) - logits.astype(np.float64).max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def least_confidence(p: Sequence[float]) -> float:
    """Settles 2009, section 3.1: 1 - P(y* | x), y* being the most likely class: all others, for 1 - 1e-17 is 1."""
    return math.fsum(sorted(p)[:-1])


def plain_margin(p: Sequence[float]) -> float:
    """Scheffer et al. 2001: P(y1 | x) - P(y2 | x) of the two most likely classes. Small is uncertain."""
    second, first = sorted(p)[-2:]
    return first - second


def margin(p: Sequence[float]) -> float:
    """log(m / (1 - m)) of that m: small is uncertain here too, also where m is 1, from 37 between the logits on."""
    *others, second, first = sorted(p)
    with np.errstate(divide="ignore"):
        return float(np.log(first - second) - np.log(math.fsum([*others, second, second])))


def entropy(p: Sequence[float]) -> float:
    """Shannon 1948, section 6: - sum p log p in nats, where 0 log 0 is 0."""
    return -math.fsum(q * math.log(q) for q in p if q > 0)


def of_all(score: Callable[[Sequence[float]], float], probs: np.ndarray) -> np.ndarray:
    """Apply a score to every row. probs: f[N, K] -> f64[N]."""
    return np.array([score([float(q) for q in row]) for row in probs])


def most_uncertain(uncertainty: np.ndarray, known: np.ndarray, k: int) -> list[int]:
    """Return the k unlabelled examples of largest uncertainty, one after another; the first of equal ones."""
    left = [index for index in range(len(known)) if known[index] < 0]
    picks = []
    for _ in range(k):
        best = max(left, key=lambda index: (uncertainty[index], -index))
        left.remove(best)
        picks.append(best)
    return picks
