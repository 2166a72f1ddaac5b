"""MCADL: one query, which compares every image with every labelled one, beside the whole matrix of cosines.

    python -m benchmarks.select_mcadl
    python -m benchmarks.select_mcadl --n=50000 --side=32 --channels=3 --labelled=35000 --k=2500 --rivals=none   # one GPU, 60 s
    python -m benchmarks.select_mcadl --n=50000 --side=32 --channels=3 --labelled=5000 --k=2500 --repeats=2   # one GPU, 90 s

Ours is the pass over the pool and the choice. The network is one matrix product, so that pixels are what is measured;
the rivals start from its answers. They hold N x L cosines: with `--rivals=none` there is no such limit.
"""  # noqa: E501

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.selecting import skipped, torch_device
from benchmarks.timing import Report, Row, environment, measure, rounded, seconds
from jaxdal.cost import wait
from jaxdal.keys import keys_for
from jaxdal.parallel import Lanes
from jaxdal.signals import Gather
from jaxdal.strategies.mcadl import mcadl
from jaxdal.types import Array, Network, Pool

CLASSES = 10
HOST_LIMIT = 1_500_000_000  # cosines of 4 bytes that NumPy is asked to hold, once sorted and once as they are


class Problem(NamedTuple):
    """A pool, and a network that knows little about it."""

    x: np.ndarray  # u8[n, side, side, channels]
    known: np.ndarray  # i32[n]
    weights: np.ndarray  # f32[pixels, CLASSES]
    probs: np.ndarray  # f32[n, CLASSES]


def linear() -> Network:
    """A network that is one matrix product: variables are its weights."""

    def pixels(x: Array) -> Array:
        return x.astype(jnp.float32) / 255 - 0.5

    def apply(variables: Array, x: Array, *, train: bool = False, dropout_key: Array | None = None) -> Any:
        return x.reshape(len(x), -1) @ variables, {}

    return Network(lambda key: {}, apply, lambda key, x: pixels(x), pixels)


def problem(options: argparse.Namespace) -> Problem:
    """Make one at random: ten kinds of images under noise."""
    rng = np.random.default_rng(0)
    shape = (options.side, options.side, options.channels)
    kind = rng.integers(0, CLASSES, options.n)
    x = rng.integers(0, 128, (CLASSES, *shape), np.uint8)[kind] + rng.integers(0, 128, (options.n, *shape), np.uint8)
    known = np.where(np.arange(options.n) < options.labelled, kind, -1).astype(np.int32)
    weights = rng.standard_normal((x[0].size, CLASSES)).astype(np.float32)
    network = linear()
    logits = jax.jit(lambda x: network.apply(jnp.asarray(weights), network.normalise(x))[0])(x)
    return Problem(x, known, weights, np.asarray(jax.nn.softmax(logits)))


def materialised(cosine: Any, nearest: Any, given: Problem, k: int) -> np.ndarray:
    """Choose from all N x L cosines f32 and the five nearest i[N, 5], as arrays of NumPy: a first query."""
    label, answer = given.known[given.known >= 0], given.probs.argmax(1)
    votes = np.zeros((len(cosine), CLASSES), np.int32)
    for column in nearest.T:
        votes[np.arange(len(votes)), answer[given.known >= 0][column]] += 1
    pseudo = votes.argmax(1)
    mean, largest = np.zeros(len(cosine)), np.zeros(len(cosine))
    for kind in np.unique(pseudo):
        like = cosine[np.ix_(pseudo == kind, label == kind)]
        mean[pseudo == kind], largest[pseudo == kind] = like.mean(axis=1), like.max(axis=1)
    second, best = np.sort(given.probs, axis=1)[:, -2:].T
    info = 0.9 * (1 - (mean + largest) / 2) + 0.1 * (0.9 * (1 - best + second) + 0.1 / CLASSES)
    return np.argsort(np.where(given.known < 0, -info, np.inf), kind="stable")[:k]


def in_numpy(given: Problem, k: int) -> np.ndarray:
    """The whole matrix by one product, float32."""
    flat = given.x.reshape(len(given.x), -1).astype(np.float32)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    cosine = flat @ flat[given.known >= 0].T
    return materialised(cosine, np.argpartition(-cosine, 5, axis=1)[:, :5], given, k)


def in_torch(given: Problem, k: int, device: Any) -> np.ndarray:
    """The same, with product and neighbours on the device."""
    import torch

    flat = torch.from_numpy(given.x).to(device).flatten(1).float()
    flat /= flat.norm(dim=1, keepdim=True)
    cosine = flat @ flat[torch.from_numpy(given.known >= 0).to(device)].T
    nearest = cosine.topk(5, dim=1).indices
    return materialised(cosine.cpu().numpy(), nearest.cpu().numpy(), given, k)


class Ours:
    """A query as an experiment makes it, for one run on one device; the pool is resident."""

    def __init__(self, given: Problem, options: argparse.Namespace) -> None:
        lanes, self.strategy = Lanes(1, jax.devices()[:1]), mcadl()
        self.pool = Pool(lanes.shared(given.x))
        self.keys = lanes.lift(keys_for, "rs")(lanes.per_run(np.zeros(1, np.uint32)), np.int32(0))
        self.variables, self.known = lanes.per_run((given.weights[None], given.known[None]))
        self.memory = lanes.per_run(jax.tree.map(lambda leaf: np.asarray(leaf)[None], self.strategy.memory(options.n)))
        self.gather = Gather(lanes, linear(), self.strategy.needs, self.pool, options.batch)

        def select(keys: Any, known: Array, memory: Any, *found: Array) -> Array:
            return self.strategy.select(keys.select, known, options.k, memory, *found)[0]

        self.select = lanes.lift(select, "rrrrr")

    def query(self) -> np.ndarray:
        """Score the pool and choose."""
        found = self.gather(self.keys, self.variables, self.known, self.pool)
        return np.asarray(wait(self.select(self.keys, self.known, self.memory, *found)))[0]


def contest(options: argparse.Namespace) -> list[Row]:
    """Measure in turns; all must choose the same, up to near ties."""
    given = problem(options)
    ours = Ours(given, options)
    first = seconds(ours.query)
    works = {"jaxdal": ours.query}
    device = torch_device(options)
    if options.rivals != "none" and options.n * options.labelled <= HOST_LIMIT:
        works["NumPy, the whole matrix"] = partial(in_numpy, given, options.k)
        if device is None:
            skipped("torch", "it is not installed")
        else:
            works[f"torch on {device}, the whole matrix"] = partial(in_torch, given, options.k, device)
    elif options.rivals != "none":
        skipped("NumPy and torch", "too many cosines")
    picks = {what: set(work().tolist()) for what, work in works.items()}  # also warms up
    for what, chosen in picks.items():
        if len(chosen & picks["jaxdal"]) < 0.98 * options.k:
            raise SystemExit(f"{what}: other picks")
    timings = measure(list(works.values()), options.repeats)
    operations = 2 * given.x.size * options.labelled
    rows: list[Row] = [
        {
            "what": what, "s": rounded(timing.median), "least s": rounded(timing.least),
            "cpu s": rounded(timing.median_busy), "GFLOP/s": rounded(operations / timing.median / 1e9),
            "x ours": rounded(timing.median / timings[0].median),
        }
        for what, timing in zip(works, timings, strict=True)
    ]  # fmt: skip
    rows[0]["first call s"] = rounded(first)
    return rows


def main(argv: Sequence[str]) -> Report:
    """Measure, print and save."""
    flags = argparse.ArgumentParser(prog="python -m benchmarks.select_mcadl", description="MCADL: one query")
    flags.add_argument("--n", type=int, default=10_000, help="images in the pool")
    flags.add_argument("--side", type=int, default=28, help="pixels")
    flags.add_argument("--channels", type=int, default=1)
    flags.add_argument("--labelled", type=int, default=1_000, help="images that are labelled already")
    flags.add_argument("--k", type=int, default=100, help="picks")
    flags.add_argument("--batch", type=int, default=256 if jax.devices()[0].platform == "cpu" else 2048)
    flags.add_argument("--repeats", type=int, default=5, help="measurements in turns; the median counts")
    flags.add_argument("--rivals", default="auto", choices=["auto", "none"])
    flags.add_argument("--out", help="folder for the table as JSON and markdown")
    options = flags.parse_args(argv)
    packages = ["torch"] if options.rivals != "none" else []
    report = Report("select_mcadl", environment(argv, "benchmarks.select_mcadl", packages))
    size = f"{options.n:,} x {options.side}x{options.side}x{options.channels}, {options.labelled:,} labelled"
    report.table(f"select_mcadl: {options.k:,} picks of {size}", contest(options))
    if options.out:
        report.save(options.out)
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
