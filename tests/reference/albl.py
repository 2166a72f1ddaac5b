"""EXP4.P as its paper has it, with advice vectors and products; the published code's rule; float64."""

import math

import numpy as np


class Exp4P:
    """Algorithm 1 of Beygelzimer et al. (2011): advice[k, j] is the chance that expert k gives action j."""

    def __init__(self, experts: int, actions: int, least: float, delta: float) -> None:
        self.weight = np.ones(experts)
        self.actions, self.least, self.delta = actions, least, delta

    def chances(self, advice: np.ndarray) -> np.ndarray:
        """With which an action is drawn."""
        mixed = sum(w * xi for w, xi in zip(self.weight, advice, strict=True)) / self.weight.sum()
        return (1 - self.actions * self.least) * mixed + self.least

    def pay(self, advice: np.ndarray, drawn: int, reward: float, horizon: int) -> None:
        """Update the experts after an action has been drawn by `chances` and rewarded."""
        q = self.chances(advice)
        r_hat = np.zeros(self.actions)
        r_hat[drawn] = reward / q[drawn]
        radius = math.sqrt(math.log(len(self.weight) / self.delta) / (self.actions * horizon))
        for k, xi in enumerate(advice):
            y_hat = sum(xi[j] * r_hat[j] for j in range(self.actions))
            v_hat = sum(xi[j] / q[j] for j in range(self.actions))
            self.weight[k] *= math.exp(self.least / 2 * (y_hat + v_hat * radius))


def iw_accuracy(answers: list[int], labels: list[int], chances: list[float], actions: int) -> float:
    """Importance-weighted accuracy of what was drawn with these chances among so many actions, at most 1."""
    right = [(f == y) / p for f, y, p in zip(answers, labels, chances, strict=True)]
    return min(1.0, sum(right) / (actions * len(right)))


class Published:
    """The rule of the comparison's published code."""

    def __init__(self, experts: int, delta: float) -> None:
        self.weight, self.delta = np.ones(experts), delta

    def chances(self) -> np.ndarray:
        """With which an expert is drawn."""
        experts = len(self.weight)
        least = 1 / (10 * experts)
        return (1 - experts * least) * self.weight / self.weight.sum() + least

    def pay(self, drawn: int, answers: list[int], labels: list[int], chances: list[float]) -> None:
        """Update the one that was drawn, from all that is labelled; a chance of 1 for the start set."""
        experts = len(self.weight)
        reward = np.mean([(f == y) / a for f, y, a in zip(answers, labels, chances, strict=True)])
        bonus = math.sqrt(math.log(experts / self.delta) / experts) / self.chances()[drawn]
        self.weight[drawn] *= math.exp(1 / (10 * experts) / 2 * (reward + bonus))
