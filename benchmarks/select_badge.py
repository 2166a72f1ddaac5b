"""BADGE selection: jaxdal's factorised distances beside gradients written out in NumPy, PyTorch, scikit-activeml.

    python -m benchmarks.select_badge
    python -m benchmarks.select_badge --n=1281167 --d=512 --k=10000 --labelled=10000 --repeats=3 --rivals=none   # one GPU, 90 s
    python -m benchmarks.select_badge --n=50000 --d=512 --k=2500 --labelled=5000 --rivals=device   # one GPU, 60 s

`GB/s` is both factors read once per pick over the time of everything; `x ours` how many times longer it takes.
"""  # noqa: E501

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.selecting import Contender, Pool, contest, ours, parser, pool, skipped, torch_device
from benchmarks.timing import Report
from jaxdal.strategies.badge import badge

LARGEST = 2**31  # bytes of gradients that NumPy is asked to hold
LIBRARY_LIMIT = 2_000_000  # examples x picks: scikit-activeml takes minutes beyond


def gradients(data: Pool) -> np.ndarray:
    """f32[unknown, classes * d]."""
    logits, features = data.logits[data.unknown], data.features[data.unknown]
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    probs[np.arange(len(probs)), probs.argmax(axis=1)] -= 1
    return (probs[:, :, None] * features[:, None, :]).reshape(len(probs), -1)


def in_numpy(data: Pool, k: int) -> np.ndarray:
    """Gradients written out, one vector at a time."""
    rng, g = np.random.default_rng(0), gradients(data)
    picks = [int(np.argmax(np.square(g).sum(axis=1)))]
    closest = np.full(len(g), np.inf, np.float32)
    while len(picks) < k:
        np.minimum(closest, np.square(g - g[picks[-1]]).sum(axis=1), out=closest)
        closest[picks] = 0
        weights = closest.astype(np.float64)
        picks.append(int(rng.choice(len(g), p=weights / weights.sum())))
    return data.unknown[picks]


def in_torch(data: Pool, k: int, device: Any) -> Contender:
    """As people write it: gradients written out, one vector at a time; logits and features resident."""
    import torch

    unknown = torch.from_numpy(data.unknown).to(device)
    logits, features = (torch.from_numpy(leaf).to(device)[unknown] for leaf in (data.logits, data.features))

    def pick() -> np.ndarray:
        probs = torch.softmax(logits, dim=1)
        residual = probs - torch.nn.functional.one_hot(probs.argmax(dim=1), probs.shape[1])
        g = (residual[:, :, None] * features[:, None, :]).flatten(1)
        picks = [g.square().sum(dim=1).argmax()]
        closest = torch.full((len(g),), torch.inf, device=device)
        while len(picks) < k:
            closest = torch.minimum(closest, (g - g[picks[-1]]).square().sum(dim=1))
            closest[picks[-1]] = 0
            picks.append(torch.multinomial(closest, 1)[0])
        return np.asarray(unknown[torch.stack(picks)].cpu())

    return Contender(f"torch on {device}, materialised", pick)


def in_library(data: Pool, k: int) -> Contender:
    """scikit-activeml's Badge, which asks a classifier for the probabilities: they are there already."""
    from skactiveml.base import SkactivemlClassifier
    from skactiveml.pool import Badge

    features, labels = data.features.astype(np.float64), np.where(data.known < 0, np.nan, data.known)
    probs = np.exp(data.logits[data.unknown] - data.logits[data.unknown].max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)

    class Fitted(SkactivemlClassifier):
        def fit(self, X: np.ndarray, y: np.ndarray, sample_weight: None = None) -> "Fitted":
            return self

        def predict_proba(self, X: np.ndarray) -> np.ndarray:
            return probs

    def pick() -> np.ndarray:
        picks = Badge(random_state=0).query(features, labels, Fitted(), fit_clf=False, batch_size=k)
        return np.asarray(picks)

    return Contender("scikit-activeml", pick)


def contenders(options: argparse.Namespace, data: Pool) -> list[Contender]:
    """Ours first."""
    found = [ours("jaxdal", badge(), data.known, [data.logits, data.features], options.k)]
    if options.rivals == "none":
        return found
    if 4 * options.n * options.d * options.classes > LARGEST:
        skipped("NumPy", "the gradients are too large to be written out twice")
    elif options.rivals != "device":
        found.append(Contender("NumPy, materialised", lambda: in_numpy(data, options.k)))
    device = torch_device(options)
    if device is None:
        skipped("torch", "it is not installed")
    else:
        found.append(in_torch(data, options.k, device))
    if options.n * options.k > LIBRARY_LIMIT:
        skipped("scikit-activeml", "too slow at this size")
    elif options.rivals != "device":
        found.append(in_library(data, options.k))
    return found


def main(argv: Sequence[str]) -> Report:
    """Measure, print and save."""
    options = parser("select_badge", (__doc__ or "").split("\n")[0]).parse_args(argv)
    reads = 4 * options.n * (options.d + options.classes) * options.k
    return contest("select_badge", argv, options, contenders(options, pool(options)), reads)


if __name__ == "__main__":
    main(sys.argv[1:])
