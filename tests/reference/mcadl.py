"""MCADL by its formulas, with all N x N cosines and a loop over examples; float64."""

import math

import numpy as np


def cosines(pixels: np.ndarray) -> np.ndarray:
    """Between all images; 0 for one that is black."""
    flat = pixels.reshape(len(pixels), -1).astype(np.float64)
    length = np.linalg.norm(flat, axis=1)
    length[length == 0] = 1
    return flat @ flat.T / np.outer(length, length)


def pseudo_class(cosine: np.ndarray, known: np.ndarray, answer: np.ndarray, example: int) -> int:
    """Answer of the network for most of the five labelled images most like this one, the least of equal ones."""
    labelled = np.flatnonzero(known >= 0)
    nearest = sorted(labelled, key=lambda other: (-cosine[example, other], other))[:5]
    votes = [int(answer[other]) for other in nearest]
    return min(votes, key=lambda label: (-votes.count(label), label), default=0)


def likeness(cosine: np.ndarray, known: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """Pseudo-class, and mean and largest cosine to what is labelled with it, of every example."""
    rows = []
    for example in range(len(known)):
        label = pseudo_class(cosine, known, answer, example)
        like = cosine[example, known == label]
        rows.append([label, like.mean(), like.max()] if len(like) else [label, 0, 0])
    return np.array(rows)


def accuracies(exam: dict[int, int], known: np.ndarray, classes: int) -> tuple[list[float], float]:
    """Of each class and of all; exam: example -> answer that is marked."""
    right = {example: answer == known[example] for example, answer in exam.items()}
    overall = float(np.mean(list(right.values()))) if right else 0.0
    per_class = []
    for label in range(classes):
        own = [hit for example, hit in right.items() if known[example] == label]
        per_class.append(float(np.mean(own)) if own else overall)
    return per_class, overall


def class_weights(now: list[float], last: list[float]) -> np.ndarray:
    """By growth while a class is below 0.5, by the inverse of the accuracy afterwards."""
    if min(now) < 0.5:
        gain = np.array([max(0.0, n - old) for n, old in zip(now, last, strict=True)])
        return gain / gain.sum() if gain.sum() > 0 else np.full(len(now), 1 / len(now))
    inverse = 1 / np.array(now)
    return inverse / inverse.sum()


def best_versus_second(p: np.ndarray) -> float:
    """1 - (p_1 - p_2)."""
    second, best = np.sort(p)[-2:]
    return 1 - (best - second)


def spread_of_top(p: np.ndarray) -> float:
    """As published: the fewest top classes that make more than a half, and how they differ."""
    p = np.sort(p)[::-1]
    k = next(k for k in range(1, len(p) + 1) if p[:k].sum() > 0.5)
    return 1 - float(np.mean(np.abs(p[:k] - p[:k].mean())))


def information(
    like: np.ndarray, uncertainty: list[float], now: tuple[list[float], float], last: list[float]
) -> np.ndarray:
    """The sum that is ranked; now: accuracies of each class, and of all."""
    weight = class_weights(now[0], last)
    alpha = beta = 0.9 * math.exp(-now[1])
    result = []
    for (label, mean, largest), u in zip(like, uncertainty, strict=True):
        density, similarity = 1 - mean, 1 - largest
        other = beta * u + (1 - beta) * weight[int(label)]
        result.append(alpha * (0.5 * density + 0.5 * similarity) + (1 - alpha) * other)
    return np.array(result)
