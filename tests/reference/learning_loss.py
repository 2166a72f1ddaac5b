"""Learning loss (Yoo and Kweon 2019) in float64 loops: figure 2 and equation 2."""

import numpy as np


def predict(layers: list[tuple[np.ndarray, np.ndarray]], maps: list[np.ndarray]) -> list[float]:
    """Average pool, a layer with ReLU for each map, and a last one for all. layers: (matrix, bias) in this order."""
    predicted = []
    for image in range(len(maps[0])):
        parts: list[float] = []
        for (matrix, bias), one in zip(layers[:-1], maps, strict=True):
            pooled = np.asarray(one[image], np.float64).mean(axis=(0, 1))
            parts += np.maximum(pooled @ np.asarray(matrix, np.float64) + bias, 0).tolist()
        matrix, bias = layers[-1]
        predicted.append(float(np.asarray(parts) @ np.asarray(matrix, np.float64)[:, 0] + bias[0]))
    return predicted


def ranking_loss(predicted: np.ndarray, losses: np.ndarray, margin: float) -> float:
    """Mean over the pairs from outside to inside."""
    size, total, pairs = len(predicted), 0.0, 0
    for i in range(size // 2):
        j = size - 1 - i
        sign = 1.0 if losses[i] > losses[j] else -1.0
        total += max(0.0, -sign * (float(predicted[i]) - float(predicted[j])) + margin)
        pairs += 1
    return total / pairs
