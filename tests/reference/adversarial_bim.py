"""The basic iterative method on one example, in float64, as a loop over steps; and a linear model's gradient."""

from collections.abc import Callable

import numpy as np

from reference.scores import softmax


def squared_distance(f: Callable, gradient: Callable, x: np.ndarray, epsilon: float, cap: int) -> float:
    """|eta|² of the first eta_s = eta_(s-1) + epsilon sign(grad CE(f(x + eta_(s-1)), y)) with another answer than y.

    Infinite if there is none up to s = cap. f(x) -> logits, gradient(x, y) -> of the direction of grad_x CE.
    """
    y, eta = int(np.argmax(f(x))), np.zeros_like(x)
    for _ in range(cap):
        eta = eta + epsilon * np.sign(gradient(x + eta, y))
        if int(np.argmax(f(x + eta))) != y:
            return float(np.sum(eta**2))
    return np.inf


def linear(kernel: np.ndarray, bias: np.ndarray) -> tuple[Callable, Callable]:
    """f(x) = x W + b, and what has the direction of grad_x CE: W (q - e_y), q the softmax without class y, q_y = 0.

    Since p_j = (1 - p_y) q_j for j != y, p - e_y = (1 - p_y) (q - e_y), and 1 - p_y > 0. In this form, since p_y - 1 is
    exactly 0 from 37 between the logits on, in float64 as well.
    """

    def f(x):
        return x.reshape(-1) @ kernel + bias

    def gradient(x, y):
        logits, own = f(x), np.arange(kernel.shape[1]) == y
        q = np.zeros(len(own))
        q[~own] = softmax(logits[None, ~own])[0]
        return (kernel @ (q - own)).reshape(x.shape)

    return f, gradient


def steps_of_two_classes(gap: float, weight: np.ndarray, epsilon: float) -> int:
    """In closed form, with gap = f_y - f_z at x and weight = W_y - W_z: a step takes epsilon |weight|_1 off the gap."""
    return int(np.floor(gap / (epsilon * np.abs(weight).sum()))) + 1
