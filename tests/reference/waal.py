"""One step of WAAL (Shui et al. 2020) with a linear network: float64, every gradient by hand."""

from collections.abc import Sequence

import numpy as np

Weights = dict[str, np.ndarray]


def score(logits: Sequence[float], judged: float, weight: float = 10) -> float:
    """(|log p|_2 + |log p|_1) / 2 - weight g of one example."""
    z = np.asarray(logits, np.float64)
    log_p = z - z.max() - np.log(np.sum(np.exp(z - z.max())))
    return float((np.sqrt(np.sum(log_p**2)) + np.sum(np.abs(log_p))) / 2 - weight * judged)


def judge(critic: Weights, z: np.ndarray, kept: np.ndarray | float = 1.0) -> np.ndarray:
    """Sigmoid of (ReLU of z A + a, dropped out) times B + b: [B, d] -> [B]."""
    hidden = np.maximum(z @ critic["A"] + critic["a"], 0) * kept
    return 1 / (1 + np.exp(-(hidden @ critic["B"] + critic["b"])[:, 0]))


def of_judgement(critic: Weights, z: np.ndarray, kept: np.ndarray, upstream: np.ndarray) -> tuple[Weights, np.ndarray]:
    """Derivatives of sum_i upstream_i g(z_i) by the critic's weights and by z."""
    before = z @ critic["A"] + critic["a"]
    passes = kept * (before > 0)
    g = judge(critic, z, kept)
    du = upstream * g * (1 - g)
    dh = du[:, None] * passes * critic["B"][:, 0]
    weights = {
        "A": z.T @ dh,
        "a": dh.sum(0),
        "B": (passes * before).T @ du[:, None],
        "b": np.array([du.sum()]),
    }
    return weights, dh @ critic["A"].T


def slopes(critic: Weights, z: np.ndarray, kept: np.ndarray | float = 1.0) -> np.ndarray:
    """|grad_z g(z_i)| for every i."""
    kept = np.broadcast_to(kept, (len(z), len(critic["a"])))
    return np.linalg.norm(of_judgement(critic, z, kept, np.ones(len(z)))[1], axis=1)


def of_penalty(critic: Weights, z: np.ndarray, kept: np.ndarray) -> tuple[float, Weights]:
    """Mean of (|grad_z g| - 1)², and its derivatives by the critic's weights, example by example."""
    total, weights = 0.0, {name: np.zeros_like(leaf) for name, leaf in critic.items()}
    for row, mask in zip(z, kept, strict=True):
        before = row @ critic["A"] + critic["a"]
        passes = mask * (before > 0)
        path = passes * critic["B"][:, 0]  # du/dh
        direction = critic["A"] @ path  # du/dz
        length = np.linalg.norm(direction)
        g = judge(critic, row[None], mask)[0]
        slope = g * (1 - g) * length
        total += (slope - 1) ** 2 / len(z)
        up = 2 * (slope - 1) / len(z)
        du = up * g * (1 - g) * (1 - 2 * g) * length
        dv = up * g * (1 - g) * direction / length
        weights["A"] += du * np.outer(row, path) + np.outer(dv, path)
        weights["a"] += du * path
        weights["B"][:, 0] += du * passes * before + passes * (critic["A"].T @ dv)
        weights["b"] += du
    return total, weights


def step(
    net: Weights, critic: Weights, x: np.ndarray, y: np.ndarray, *, judged: Sequence[np.ndarray],
    penalised: np.ndarray, share: np.ndarray, gamma: float, alpha: float, weight: float, rate: float, decay: float,
) -> tuple[float, Weights, Weights]:  # fmt: skip
    """Return the sum of both losses, and the new weights: first those of the network, then those of the critic.

    net: z = x W + w, logits = z V + v. x: [2 B, pixels], the labelled images first. weight: of the penalty.
    """
    size = len(y)
    toward = np.concatenate([np.full(size, -gamma / size), np.full(size, 1 / size)])  # of D by each g
    z = x @ net["W"] + net["w"]
    logits = z[:size] @ net["V"] + net["v"]
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    loss = -np.log(p[np.arange(size), y]).mean() + alpha * toward @ judge(critic, z, judged[0])
    dlogits = (p - np.eye(p.shape[1])[y]) / size
    dz = alpha * of_judgement(critic, z, judged[0], toward)[1]
    dz[:size] += dlogits @ net["V"].T
    gradients = {"W": x.T @ dz, "w": dz.sum(0), "V": z[:size].T @ dlogits, "v": dlogits.sum(0)}
    net = {name: leaf - rate * (gradients[name] + decay * leaf) for name, leaf in net.items()}

    z = x @ net["W"] + net["w"]
    between = z[size:] + share * (z[:size] - z[size:])
    penalty, of_slopes = of_penalty(critic, np.concatenate([between, z]), penalised)
    loss += alpha * (weight * penalty - toward @ judge(critic, z, judged[1]))
    of_gap, _ = of_judgement(critic, z, judged[1], toward)
    critic = {
        name: leaf - rate * (alpha * (weight * of_slopes[name] - of_gap[name]) + decay * leaf)
        for name, leaf in critic.items()
    }
    return float(loss), net, critic
