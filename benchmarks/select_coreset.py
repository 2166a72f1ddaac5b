"""Core-set selection: jaxdal's greedy k-centre beside the same in NumPy and PyTorch and scikit-activeml's.

    python -m benchmarks.select_coreset
    python -m benchmarks.select_coreset --n=1281167 --d=512 --k=10000 --labelled=10000 --repeats=3 --rivals=none   # one GPU, 90 s
    python -m benchmarks.select_coreset --n=50000 --d=512 --k=2500 --labelled=5000 --rivals=device   # one GPU, 60 s

`GB/s` is the features read once per pick over the time of everything; `x ours` how many times longer it takes.
"""  # noqa: E501

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.selecting import Contender, Pool, contest, ours, parser, pool, skipped, torch_device
from benchmarks.timing import Report
from jaxdal.strategies.coreset import coreset

LIBRARY_LIMIT = 2_000_000  # examples x picks: scikit-activeml takes minutes beyond


def in_numpy(data: Pool, k: int) -> list[int]:
    """One vector at a time, labelled examples included."""
    features, picks = data.features, []
    gap = np.full(len(features), np.inf, np.float32)
    for centre in np.flatnonzero(data.known >= 0):
        np.minimum(gap, np.square(features - features[centre]).sum(axis=1), out=gap)
    gap[data.known >= 0] = -np.inf
    for _ in range(k):
        best = int(np.argmax(gap))
        np.minimum(gap, np.square(features - features[best]).sum(axis=1), out=gap)
        gap[best] = -np.inf
        picks.append(best)
    return picks


def in_torch(data: Pool, k: int, device: Any) -> Contender:
    """As people write it: cdist for the labelled ones, then one vector at a time; features resident."""
    import torch

    features = torch.from_numpy(data.features).to(device)
    known = torch.from_numpy(data.known >= 0).to(device)

    def pick() -> np.ndarray:
        gap = torch.cat([torch.cdist(part, features[known]).amin(dim=1).square() for part in features.split(8192)])
        gap[known] = -torch.inf
        picks = []
        for _ in range(k):
            best = torch.argmax(gap)
            gap = torch.minimum(gap, (features - features[best]).square().sum(dim=1))
            gap[best] = -torch.inf
            picks.append(best)
        return np.asarray(torch.stack(picks).cpu())

    return Contender(f"torch on {device}, one vector at a time", pick)


def in_library(data: Pool, k: int) -> Contender:
    """scikit-activeml's CoreSet."""
    from skactiveml.pool import CoreSet

    features, labels = data.features.astype(np.float64), np.where(data.known < 0, np.nan, data.known)
    return Contender("scikit-activeml", lambda: CoreSet(random_state=0).query(features, labels, batch_size=k))


def contenders(options: argparse.Namespace, data: Pool) -> list[Contender]:
    """Ours first."""
    found = [ours("jaxdal", coreset(), data.known, [data.features], options.k)]
    if options.rivals == "none":
        return found
    if options.rivals != "device":
        found.append(Contender("NumPy, one vector at a time", lambda: in_numpy(data, options.k)))
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
    options = parser("select_coreset", (__doc__ or "").split("\n")[0]).parse_args(argv)
    reads = 4 * options.n * options.d * options.k
    return contest("select_coreset", argv, options, contenders(options, pool(options)), reads)


if __name__ == "__main__":
    main(sys.argv[1:])
