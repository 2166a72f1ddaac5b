"""MixMatch, consistency and FixMatch in float64, image by image, with gradients by finite differences.

Written from Berthelot et al. (2019), Sohn et al. (2020) and the published interleaving. The network is a perceptron
whose hidden layer is normalised by the batch: params = {"hidden": [d, h], "kernel": [h, K], "bias": [K]}.
"""

from collections.abc import Callable

import numpy as np

Params = dict[str, np.ndarray]


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def logits_of(params: Params, images: np.ndarray) -> np.ndarray:
    """One batch, normalised by its own statistics."""
    hidden = images.reshape(len(images), -1) @ params["hidden"]
    hidden = (hidden - hidden.mean(axis=0)) / np.sqrt(hidden.var(axis=0) + 1e-5)
    return np.tanh(hidden) @ params["kernel"] + params["bias"]


def cross_entropy(target: np.ndarray, logits: np.ndarray) -> float:
    """Of one image."""
    return float(-np.sum(target * np.log(softmax(logits[None])[0])))


def sharpen(probs: np.ndarray, temperature: float) -> np.ndarray:
    """Of one image."""
    powers = np.array([p ** (1 / temperature) for p in probs])
    return powers / powers.sum()


def guess(params: Params, first: np.ndarray, second: np.ndarray, temperature: float) -> np.ndarray:
    """The common target of two views of each image."""
    a, b = softmax(logits_of(params, first)), softmax(logits_of(params, second))
    return np.array([sharpen((p + q) / 2, temperature) for p, q in zip(a, b, strict=True)])


def interleave(parts: list[np.ndarray]) -> list[np.ndarray]:
    """As published: groups of each part, the later ones one longer, change places with those of the first part."""
    count, size = len(parts), len(parts[0])
    lengths = [size // count] * count
    for place in range(size % count):
        lengths[-place - 1] += 1
    cut = [0, *np.cumsum(lengths)]
    groups = [[part[cut[g] : cut[g + 1]] for g in range(count)] for part in parts]
    for i in range(1, count):
        groups[0][i], groups[i][i] = groups[i][i], groups[0][i]
    return [np.concatenate(part) for part in groups]


def mixmatch(
    params: Params, x: np.ndarray, y: np.ndarray, first: np.ndarray, second: np.ndarray, guessed: np.ndarray,
    share: np.ndarray, partner: np.ndarray, weight: float,
) -> float:  # fmt: skip
    """The loss of a step. x, first, second: [B, ...], y, guessed: [B, K], share, partner: [3B]."""
    size, classes = y.shape
    images, targets = np.concatenate([x, first, second]), np.concatenate([y, guessed, guessed])
    mixed = np.array([s * images[i] + (1 - s) * images[j] for i, (s, j) in enumerate(zip(share, partner, strict=True))])
    wanted = np.array(
        [s * targets[i] + (1 - s) * targets[j] for i, (s, j) in enumerate(zip(share, partner, strict=True))]
    )
    batches = interleave([mixed[:size], mixed[size : 2 * size], mixed[2 * size :]])
    answers = np.concatenate(interleave([logits_of(params, batch) for batch in batches]))
    supervised = sum(cross_entropy(wanted[i], answers[i]) for i in range(size)) / size
    apart = np.sum((softmax(answers[size:]) - wanted[size:]) ** 2) / (2 * size * classes)
    return supervised + weight * apart


def consistency(
    params: Params, x: np.ndarray, y: np.ndarray, view: np.ndarray, target: np.ndarray, weight: float
) -> float:
    """target: [B, K], the softmax of the clean images; labelled and unlabelled ones are batches of their own."""
    own, other = logits_of(params, x), softmax(logits_of(params, view))
    supervised = sum(cross_entropy(y[i], own[i]) for i in range(len(x))) / len(x)
    return supervised + weight * np.sum((other - target) ** 2) / target.size


def fixmatch(
    params: Params, x: np.ndarray, y: np.ndarray, weak: np.ndarray, strong: np.ndarray, guessed: np.ndarray,
    threshold: float, weight: float,
) -> float:  # fmt: skip
    """guessed: [U, K], the softmax of the weak views, which pass in one batch with all others."""
    answers = logits_of(params, np.concatenate([x, weak, strong]))
    supervised = sum(cross_entropy(y[i], answers[i]) for i in range(len(x))) / len(x)
    strong_answers, unsupervised = answers[len(x) + len(weak) :], 0.0
    for i, probs in enumerate(guessed):
        if probs.max() >= threshold:
            unsupervised += cross_entropy(np.eye(len(probs))[probs.argmax()], strong_answers[i]) / len(guessed)
    return supervised + weight * unsupervised


def gradient(loss: Callable[[Params], float], params: Params, h: float = 1e-6) -> Params:
    """Central differences in every single parameter."""
    found = {name: np.zeros_like(leaf) for name, leaf in params.items()}
    for name, leaf in params.items():
        for place in np.ndindex(leaf.shape):
            moved = []
            for sign in (1, -1):
                near = {**params, name: leaf.copy()}
                near[name][place] += sign * h
                moved.append(loss(near))
            found[name][place] = (moved[0] - moved[1]) / (2 * h)
    return found
