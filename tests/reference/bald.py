"""BALD from Gal, Islam and Ghahramani (2017), and LeNet with its dropout where its authors put it; all in float64."""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from reference.scores import entropy, softmax


def information(passes: Sequence[Sequence[float]]) -> float:
    """H[y | x] - E_w H[y | x, w], with the mean over passes for the expectation. passes: T probability vectors."""
    mean = [math.fsum(column) / len(passes) for column in zip(*passes, strict=True)]
    return entropy(mean) - math.fsum(entropy(p) for p in passes) / len(passes)


def expected_information(features: np.ndarray, kernel: np.ndarray, bias: np.ndarray, keep: float) -> float:
    """The limit of infinitely many passes of dropout before a linear layer: every mask, with its probability."""
    answers, weights = [], []
    for mask in itertools.product([0, 1], repeat=len(features)):
        answers.append(softmax((features * mask / keep @ kernel + bias)[None])[0])
        weights.append(math.prod(keep if kept else 1 - keep for kept in mask))
    mean = np.average(answers, axis=0, weights=weights)
    return entropy(mean.tolist()) - math.fsum(
        weight * entropy(p.tolist()) for weight, p in zip(weights, answers, strict=True)
    )


def lenet(params: dict, image: np.ndarray, channels: np.ndarray, units: np.ndarray) -> np.ndarray:
    """LeNet "Net1" of one 28x28x1 image: convolution, pool, ReLU; convolution, Dropout2d, pool, ReLU; head: -> f64[K].

    channels: [20] and units: [50], the factors 0 or 2 of dropout.
    """
    leaf = {name: {k: np.asarray(v, np.float64) for k, v in layer.items()} for name, layer in params.items()}
    y = np.maximum(_pool(_convolve(image, **leaf["PooledConvolution_0"])), 0)
    y = np.maximum(_pool(_convolve(y, **leaf["PooledConvolution_1"]) * channels), 0)
    h = np.maximum(y.reshape(-1) @ leaf["Linear_0"]["kernel"] + leaf["Linear_0"]["bias"], 0)
    return (h * units) @ leaf["Linear_1"]["kernel"] + leaf["Linear_1"]["bias"]


def _convolve(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    side = x.shape[0] - 4
    rows = [[np.tensordot(x[i : i + 5, j : j + 5], kernel, 3) + bias for j in range(side)] for i in range(side)]
    return np.array(rows)


def _pool(x: np.ndarray) -> np.ndarray:
    return np.max([x[i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=0)
