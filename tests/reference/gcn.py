"""Sequential GCN (Caramalau et al. 2021) in float64, with the whole adjacency matrix and gradients written out."""

import numpy as np

Weights = list[np.ndarray]  # [d, h], [h], [h, 1], [1]


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays."""
    features = features.astype(np.float64)
    lengths = [np.sqrt(sum(value * value for value in row)) for row in features]
    return np.array([row / length if length else row for row, length in zip(features, lengths, strict=True)])


def adjacency(unit: np.ndarray, isolated: float = 1e-3) -> np.ndarray:
    """(S - I) D^-1 + I: every column of similarities to others is divided by its sum; 0 where there is next to none."""
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, 0)
    for column in similarity.T:
        total = column.sum()
        column[:] = column / total if total > isolated else 0
    return similarity + np.eye(len(unit))


def forward(weights: Weights, a: np.ndarray, unit: np.ndarray, factor: np.ndarray | float = 1.0) -> list[np.ndarray]:
    """Two graph convolutions -> hidden [n, h], logit [n]. factor: of dropout, 0 or 1 / (1 - rate)."""
    first, first_bias, second, second_bias = weights
    hidden = np.maximum(a @ (unit @ first) + first_bias, 0)
    return [hidden, (a @ (hidden * factor @ second) + second_bias)[:, 0]]


def sigmoid(logit: np.ndarray) -> np.ndarray:
    """q, the share of "labelled"."""
    return 1 / (1 + np.exp(-logit))


def loss(logit: np.ndarray, labelled: np.ndarray, lambda_loss: float = 1.2) -> float:
    """Binary cross-entropy, a mean over each of the two kinds."""
    q = sigmoid(logit)
    return -np.mean(np.log(q[labelled])) - lambda_loss * np.mean(np.log(1 - q[~labelled]))


def gradients(
    weights: Weights, a: np.ndarray, unit: np.ndarray, labelled: np.ndarray, factor: np.ndarray | float = 1.0,
    lambda_loss: float = 1.2,
) -> Weights:  # fmt: skip
    """Of the loss, by the chain rule."""
    hidden, logit = forward(weights, a, unit, factor)
    q = sigmoid(logit)
    by_logit = np.where(labelled, (q - 1) / labelled.sum(), lambda_loss * q / (~labelled).sum())[:, None]
    by_hidden = a.T @ by_logit @ weights[2].T * factor * (hidden > 0)
    return [unit.T @ a.T @ by_hidden, by_hidden.sum(0), (hidden * factor).T @ a.T @ by_logit, by_logit.sum(0)]


def fit(
    weights: Weights, a: np.ndarray, unit: np.ndarray, labelled: np.ndarray, factors: list[np.ndarray | float],
    rate: float = 1e-3, decay: float = 5e-4,
) -> list[np.ndarray]:  # fmt: skip
    """Adam (Kingma and Ba 2015, algorithm 1), the decay a part of the gradient; one epoch per factor -> forward."""
    weights = [value.astype(np.float64) for value in weights]
    mean, square = [0 * value for value in weights], [0 * value for value in weights]
    for step, factor in enumerate(factors, start=1):
        for i, gradient in enumerate(gradients(weights, a, unit, labelled, factor)):
            gradient = gradient + decay * weights[i]
            mean[i] = 0.9 * mean[i] + 0.1 * gradient
            square[i] = 0.999 * square[i] + 0.001 * gradient**2
            unbiased, spread = mean[i] / (1 - 0.9**step), np.sqrt(square[i] / (1 - 0.999**step))
            weights[i] = weights[i] - rate * unbiased / (spread + 1e-8)
    return forward(weights, a, unit)
