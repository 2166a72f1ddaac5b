"""Selecting by Cluster-Margin: the clustering of a whole pool, beside scipy's and scikit-learn's.

python -m benchmarks.select_cluster_margin --rows=8000 --width=128
python -m benchmarks.select_cluster_margin --rows=50000 --rivals=none   # one GPU, 60 s
python -m benchmarks.select_cluster_margin --rows=50000 --width=512 --rivals=none   # one GPU, 90 s
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial

import jax
import numpy as np
from scipy.cluster.hierarchy import linkage
from sklearn.cluster import AgglomerativeClustering

from benchmarks.timing import Report, Row, environment, measure, rounded, seconds
from jaxdal.cost import wait
from jaxdal.strategies.cluster_margin import cluster_margin


def pool(rows: int, width: int, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Features as a rectifier leaves them, in groups, and probabilities."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((classes, width))
    features = np.maximum(centres[rng.integers(0, classes, rows)] + 0.7 * rng.standard_normal((rows, width)), 0)
    return features.astype(np.float32), rng.dirichlet(np.ones(classes), rows).astype(np.float32)


def contest(options: argparse.Namespace) -> list[Row]:
    """Measure the first query, which clusters, a later one, and the rivals' clustering alone."""
    features, probs = jax.device_put(pool(options.rows, options.width))
    strategy = cluster_margin()
    known = np.full(options.rows, -1, np.int32)
    known[: options.rows // 10] = 0
    select = jax.jit(strategy.select, static_argnums=2)

    def query(memory: jax.Array) -> jax.Array:
        return wait(select(jax.random.key(0), known, options.picks, memory, probs, features))[1]

    fresh = jax.device_put(strategy.memory(options.rows))
    first = seconds(partial(query, fresh))
    clustered = query(fresh)
    works = {"jaxdal, first query": partial(query, fresh), "jaxdal, later query": partial(query, clustered)}
    if options.rivals != "none":
        exact = np.asarray(features, np.float64)
        model = AgglomerativeClustering(round(options.rows / 1.25), metric="cosine", linkage="average")
        works["scipy linkage, clustering alone"] = partial(linkage, exact, "average", "cosine")
        works["scikit-learn, clustering alone"] = partial(model.fit, exact)
    timings = measure(list(works.values()), options.repeats)
    rows: list[Row] = [
        {
            "what": what, "rows": options.rows, "width": options.width, "picks": options.picks,
            "seconds": rounded(timing.median), "least": rounded(timing.least), "cpu s": rounded(timing.median_busy),
        }
        for what, timing in zip(works, timings, strict=True)
    ]  # fmt: skip
    rows[0]["compile s"] = rounded(max(0.0, first - timings[0].median))
    return rows


def main(argv: Sequence[str]) -> Report:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.select_cluster_margin")
    parser.add_argument("--rows", type=int, default=8_000, help="examples in the pool")
    parser.add_argument("--width", type=int, default=128, help="features of each")
    parser.add_argument("--picks", type=int, default=400, help="examples to buy")
    parser.add_argument("--repeats", type=int, default=3, help="measurements; the median counts")
    parser.add_argument("--rivals", default="all", choices=["all", "none"], help="libraries keep N^2 / 2 distances")
    parser.add_argument("--out", help="folder for the .json and the .md")
    options = parser.parse_args(argv)
    report = Report(
        "select_cluster_margin", environment(argv, "benchmarks.select_cluster_margin", ["scipy", "scikit-learn"])
    )
    report.table("Cluster-Margin: one query", contest(options))
    if options.out:
        report.save(options.out)
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
