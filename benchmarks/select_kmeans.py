"""K-means selection: jaxdal's tiled Lloyd beside scikit-learn's KMeans and PyTorch with all distances at once.

    python -m benchmarks.select_kmeans
    python -m benchmarks.select_kmeans --n=1281167 --d=512 --k=10000 --labelled=10000 --repeats=1 --rivals=none   # one GPU, 120 s
    python -m benchmarks.select_kmeans --n=50000 --d=512 --k=2500 --labelled=5000 --rivals=device   # one GPU, 60 s

All start by k-means++ and stop after --iterations steps or by scikit-learn's tolerance. `GB/s` is the features read
once per pick, as the seeding does, over the time of everything; `x ours` how many times longer it takes.
"""  # noqa: E501

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances_argmin_min

from benchmarks.selecting import Contender, Pool, contest, ours, parser, pool, skipped, torch_device
from benchmarks.timing import Report
from jaxdal.strategies.kmeans import kmeans


def representatives(owner: np.ndarray, gap: np.ndarray, unknown: np.ndarray, k: int) -> np.ndarray:
    """The nearest member of each cluster; none of them is empty here."""
    order = np.lexsort((gap, owner))
    return unknown[order[np.searchsorted(owner[order], np.arange(k))]]


def in_scikit_learn(data: Pool, k: int, iterations: int) -> np.ndarray:
    """One start, as jaxdal; its k-means++ tries several candidates per centre."""
    x = data.features[data.unknown]
    fitted = KMeans(k, n_init=1, max_iter=iterations, random_state=0).fit(x)
    owner, gap = pairwise_distances_argmin_min(x, fitted.cluster_centers_)
    return representatives(owner, gap, data.unknown, k)


def in_torch(data: Pool, k: int, iterations: int, device: Any) -> Contender:
    """As people write it: cdist to all centres at once, means by index_add."""
    import torch

    x = torch.from_numpy(data.features[data.unknown]).to(device)
    enough = 1e-4 * x.var(dim=0, correction=0).mean()

    def pick() -> np.ndarray:
        rows = [torch.randint(len(x), (), device=device)]
        closest = torch.full((len(x),), torch.inf, device=device)
        while len(rows) < k:
            closest = torch.minimum(closest, (x - x[rows[-1]]).square().sum(dim=1))
            rows.append(torch.multinomial(closest, 1)[0])
        centres, before = x[torch.stack(rows)], None
        for _ in range(iterations):
            owner = torch.cdist(x, centres).argmin(dim=1)
            total = torch.zeros_like(centres).index_add_(0, owner, x)
            count = torch.bincount(owner, minlength=k)[:, None]
            old, centres = centres, torch.where(count > 0, total / count.clamp(min=1), centres)
            if (before is not None and torch.equal(owner, before)) or (centres - old).square().sum() <= enough:
                break
            before = owner
        gap, owner = torch.cdist(x, centres).min(dim=1)
        return representatives(np.asarray(owner.cpu()), np.asarray(gap.cpu()), data.unknown, k)

    return Contender(f"torch on {device}, all distances at once", pick)


def contenders(options: argparse.Namespace, data: Pool) -> list[Contender]:
    """Ours first."""
    found = [ours("jaxdal", kmeans(max_iter=options.iterations), data.known, [data.features], options.k)]
    if options.rivals == "none":
        return found
    if options.rivals != "device":
        found.append(Contender("scikit-learn", lambda: in_scikit_learn(data, options.k, options.iterations)))
    device = torch_device(options)
    if device is None:
        skipped("torch", "it is not installed")
    else:
        found.append(in_torch(data, options.k, options.iterations, device))
    return found


def main(argv: Sequence[str]) -> Report:
    """Measure, print and save."""
    flags = parser("select_kmeans", (__doc__ or "").split("\n")[0])
    flags.add_argument("--iterations", type=int, default=100, help="most steps of Lloyd's algorithm")
    options = flags.parse_args(argv)
    reads = 4 * options.n * options.d * options.k
    return contest("select_kmeans", argv, options, contenders(options, pool(options)), reads)


if __name__ == "__main__":
    main(sys.argv[1:])
