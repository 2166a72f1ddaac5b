"""Selecting by Cluster-Margin: the first query, which clusters the whole pool, and a later one, beside PyTorch.

python -m benchmarks.select_cluster_margin --rows=8000 --width=128
python -m benchmarks.select_cluster_margin --rows=50000 --rivals=device   # one GPU, 90 s
python -m benchmarks.select_cluster_margin --rows=50000 --width=512 --rivals=device   # one GPU, 120 s

PyTorch keeps all distances in the device's memory, 4 N² bytes and for a moment as much again. scipy and scikit-learn
cluster only. Before a figure is taken, PyTorch's picks of a later query must be ours, of the same draws, and its
clusters ours but for what rounding decides.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from scipy.cluster.hierarchy import linkage
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from benchmarks.selecting import skipped, torch_device
from benchmarks.timing import Report, Row, environment, measure, rounded, seconds
from benchmarks.train_step import alone
from jaxdal.cost import wait
from jaxdal.strategies.cluster_margin import cluster_margin

CANDIDATES = 10  # per pick
AGREEMENT = 0.99  # of two clusterings, as adjusted Rand index

Works = dict[str, Callable[[], Any]]


def pool(rows: int, width: int, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Features as a rectifier leaves them, in groups, and probabilities."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((classes, width))
    features = np.maximum(centres[rng.integers(0, classes, rows)] + 0.7 * rng.standard_normal((rows, width)), 0)
    return features.astype(np.float32), rng.dirichlet(np.ones(classes), rows).astype(np.float32)


class InTorch:
    """Both queries in PyTorch; probabilities and features resident."""

    def __init__(self, device: Any, probs: np.ndarray, features: np.ndarray, known: np.ndarray, k: int) -> None:
        """k: picks."""
        import torch

        self._device = device
        self._probs, self._features = (torch.from_numpy(leaf).to(device) for leaf in (probs, features))
        self._known = torch.from_numpy(known >= 0).to(device)
        self._k, self._candidates = k, min(CANDIDATES * k, int(np.sum(known < 0)))

    def clusters(self) -> np.ndarray:
        """Cluster the pool: -> i64[N]."""
        return np.asarray(self._clusters().cpu())

    def first(self) -> np.ndarray:
        """Cluster the pool and pick."""
        return self._picks(self._clusters())

    def later(self, cluster: np.ndarray) -> Callable[..., np.ndarray]:
        """Return what picks, given the clusters, with draws of its own or with those that are given."""
        import torch

        return partial(self._picks, torch.from_numpy(cluster.astype(np.int64)).to(self._device))

    def _clusters(self) -> Any:
        from benchmarks.rival_torch_cluster_margin import clusters

        return clusters(self._features, max(1, round(len(self._known) / 1.25)))

    def _picks(self, cluster: Any, draws: np.ndarray | None = None) -> np.ndarray:
        import torch

        from benchmarks.rival_torch_cluster_margin import picks

        drawn = torch.rand(len(cluster), device=self._device)
        if draws is not None:
            drawn = torch.from_numpy(draws).to(self._device)
        return np.asarray(picks(self._probs, self._known, cluster, drawn, self._k, self._candidates).cpu())


def contest(options: argparse.Namespace) -> Iterator[tuple[str, list[Row]]]:
    """Measure the first query and a later one: -> the title and the rows of each."""
    features, probs = pool(options.rows, options.width)
    strategy = cluster_margin(candidates=CANDIDATES)
    known = np.full(options.rows, -1, np.int32)
    known[: options.rows // 10] = 0
    select, resident = jax.jit(strategy.select, static_argnums=2), jax.device_put((known, probs, features))
    key = jax.random.key(0)

    def query(memory: jax.Array) -> tuple[np.ndarray, jax.Array]:
        picks, memory = wait(select(key, resident[0], options.picks, memory, *resident[1:]))
        return np.asarray(picks), memory

    fresh = jax.device_put(strategy.memory(options.rows))
    compiling = seconds(partial(query, fresh))
    _, clustered = query(fresh)
    first: Works = {"jaxdal": partial(query, fresh)}
    later: Works = {"jaxdal": partial(query, clustered)}
    device = torch_device(options)
    if options.rivals != "none" and device is None:
        skipped("torch", "it is not installed")
    if device is not None:
        rival = InTorch(device, probs, features, known, options.picks)
        pick = rival.later(np.asarray(clustered))
        draws = jax.random.uniform(jax.random.split(key)[1], (options.rows,))  # as `cluster_margin` draws them
        if not np.array_equal(pick(np.array(draws)), query(clustered)[0]):
            raise SystemExit("torch makes other picks than jaxdal of the same clusters")
        later[f"torch on {device}, by sorting"] = pick
        what = f"torch on {device}, all distances in memory"
        with alone(what):
            agreement = adjusted_rand_score(np.asarray(clustered), rival.clusters())
            if agreement < AGREEMENT:
                raise ArithmeticError(f"other clusters: adjusted Rand index {agreement:.4f}")
            first[what] = rival.first
    if options.rivals == "auto":
        exact = features.astype(np.float64)
        model = AgglomerativeClustering(round(options.rows / 1.25), metric="cosine", linkage="average")
        first["scipy linkage, clustering alone"] = partial(linkage, exact, "average", "cosine")
        first["scikit-learn, clustering alone"] = partial(model.fit, exact)
    rows = table(options, first)
    rows[0]["compile s"] = rounded(max(0.0, compiling - rows[0]["s"]))
    size = f"{options.picks:,} picks of {options.rows:,} x {options.width}"
    yield f"Cluster-Margin, first query: {size}", rows
    yield f"Cluster-Margin, later query: {size}", table(options, later)


def table(options: argparse.Namespace, works: Mapping[str, Callable[[], Any]]) -> list[Row]:
    """Measure in turns; ours is the first."""
    timings = measure(list(works.values()), options.repeats)
    return [
        {
            "what": what, "rows": options.rows, "width": options.width, "picks": options.picks,
            "s": rounded(timing.median), "least s": rounded(timing.least), "cpu s": rounded(timing.median_busy),
            "x ours": rounded(timing.median / timings[0].median),
        }
        for what, timing in zip(works, timings, strict=True)
    ]  # fmt: skip


def main(argv: Sequence[str]) -> Report:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.select_cluster_margin")
    parser.add_argument("--rows", type=int, default=8_000, help="examples in the pool")
    parser.add_argument("--width", type=int, default=128, help="features of each")
    parser.add_argument("--picks", type=int, default=400, help="examples to buy")
    parser.add_argument("--repeats", type=int, default=3, help="measurements; the median counts")
    parser.add_argument(
        "--rivals", default="auto", choices=["auto", "device", "none"],
        help="auto: PyTorch, if it is there, scipy and scikit-learn, which keep N^2 / 2 distances; device: PyTorch",
    )  # fmt: skip
    parser.add_argument("--out", help="folder for the .json and the .md")
    options = parser.parse_args(argv)
    if options.rivals != "none":
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # read when JAX first looks for devices
    packages = ["torch", "scipy", "scikit-learn"] if options.rivals != "none" else []
    report = Report("select_cluster_margin", environment(argv, "benchmarks.select_cluster_margin", packages))
    for title, rows in contest(options):
        report.table(title, rows)
    if options.out:
        report.save(options.out)
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
