"""Greedy k-centre (Sener and Savarese 2018, algorithm 1): float64, every distance anew at every pick."""

import itertools
import math

import numpy as np


def gap(features: np.ndarray, example: int, centres: list[int]) -> float:
    """Distance to the nearest centre, infinite if there is none."""
    return min((math.dist(features[example], features[centre]) for centre in centres), default=math.inf)


def k_centre_greedy(features: np.ndarray, known: np.ndarray, k: int) -> tuple[list[int], list[float], float]:
    """Return the picks, the gap of each when it was picked, and the least lead of one over the second best."""
    features = features.astype(np.float64)
    centres = np.flatnonzero(known >= 0).tolist()
    left = np.flatnonzero(known < 0).tolist()
    picks, radii, lead = [], [], math.inf
    for _ in range(k):
        gaps = {example: gap(features, example, centres) for example in left}
        best = max(left, key=lambda example: (gaps[example], -example))
        others = [gaps[example] for example in left if example != best]
        if others and math.isfinite(gaps[best]):
            lead = min(lead, gaps[best] - max(others))
        picks.append(best)
        radii.append(gaps[best])
        centres.append(best)
        left.remove(best)
    return picks, radii, lead


def radius(features: np.ndarray, centres: list[int]) -> float:
    """How far the worst example is from all centres: what the method makes small."""
    return max(gap(features, example, centres) for example in range(len(features)))


def best_radius(features: np.ndarray, known: np.ndarray, k: int) -> float:
    """Return the least radius that any k examples reach, by trying all."""
    labelled = np.flatnonzero(known >= 0).tolist()
    left = np.flatnonzero(known < 0).tolist()
    return min(radius(features, labelled + list(chosen)) for chosen in itertools.combinations(left, k))
