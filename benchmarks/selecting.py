"""What the benchmarks of single selection rules share: a pool, contenders in turns, a table."""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.timing import Report, Row, environment, measure, rounded
from jaxdal.cost import now, wait
from jaxdal.types import Strategy

Picks = Sequence[int] | np.ndarray


class Pool(NamedTuple):
    """Signals of a pool that is clustered by class, as a trained network leaves it; the first examples are labelled."""

    known: np.ndarray  # i32[n]
    logits: np.ndarray  # f32[n, classes]
    features: np.ndarray  # f32[n, d], not negative

    @property
    def unknown(self) -> np.ndarray:
        """Numbers of the examples that may be picked."""
        return np.flatnonzero(self.known < 0)


class Contender(NamedTuple):
    """One way to make the picks."""

    what: str
    pick: Callable[[], Picks]
    first: float | None = None  # seconds of the first call, where something is compiled
    picks: Picks | None = None  # of that call


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return the flags that all of them have."""
    flags = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    flags.add_argument("--n", type=int, default=5_000, help="examples in the pool")
    flags.add_argument("--d", type=int, default=128, help="features")
    flags.add_argument("--k", type=int, default=100, help="picks")
    flags.add_argument("--classes", type=int, default=10)
    flags.add_argument("--labelled", type=int, default=500, help="examples that are labelled already")
    flags.add_argument("--repeats", type=int, default=5, help="measurements in turns; the median counts")
    flags.add_argument(
        "--rivals", default="auto", help="auto: those that can be had; device: of them, those in PyTorch; none"
    )
    flags.add_argument("--out", help="folder for the table as JSON and markdown")
    return flags


def pool(options: argparse.Namespace) -> Pool:
    """Make a pool at random."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, options.classes, options.n)
    centres = rng.standard_normal((options.classes, options.d), np.float32)
    features = np.maximum(centres[label] + rng.standard_normal((options.n, options.d), np.float32), 0)
    logits = rng.standard_normal((options.n, options.classes), np.float32)
    logits[np.arange(options.n), label] += 4
    known = np.where(np.arange(options.n) < options.labelled, label, -1).astype(np.int32)
    return Pool(known, logits, features)


def ours(what: str, strategy: Strategy, known: np.ndarray, signals: Sequence[np.ndarray], k: int) -> Contender:
    """Compile a select for one run on one device, signals resident."""
    program = jax.jit(strategy.select, static_argnums=2)
    values = [jax.device_put(value) for value in (known, *signals)]

    def pick() -> np.ndarray:
        picks, _ = wait(program(jax.random.key(0), values[0], k, (), *values[1:]))
        return np.asarray(picks)

    begin = now()
    picks = pick()
    return Contender(what, pick, now() - begin, picks)


def torch_device(options: argparse.Namespace) -> Any | None:
    """Return the device for rivals in PyTorch; None if they do not take part."""
    if options.rivals == "none" or find_spec("torch") is None:
        return None
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def contest(
    name: str, argv: Sequence[str], options: argparse.Namespace, contenders: Sequence[Contender], reads: int
) -> Report:
    """Measure in turns and print. reads: bytes that a kernel must read which reads its signals once per pick."""
    for one in contenders:
        picks = np.asarray(one.pick() if one.picks is None else one.picks)  # also warms up
        if len(np.unique(picks)) != options.k or np.any(picks < options.labelled):
            raise SystemExit(f"{one.what}: wrong picks")
    timings = measure([one.pick for one in contenders], options.repeats)
    rows: list[Row] = [
        {
            "what": one.what,
            "s": rounded(timing.median),
            "least s": rounded(timing.least),
            "cpu s": rounded(timing.median_busy),
            "GB/s": rounded(reads / timing.median / 1e9),
            "first call s": None if one.first is None else rounded(one.first),
            "x ours": rounded(timing.median / timings[0].median),
        }
        for one, timing in zip(contenders, timings, strict=True)
    ]
    packages = ["torch", "scikit-learn", "scikit-activeml"] if options.rivals != "none" else []
    report = Report(name, environment(argv, f"benchmarks.{name}", packages))
    size = f"{options.n:,} x {options.d}, {options.classes} classes, {options.labelled:,} labelled"
    report.table(f"{name}: {options.k:,} picks of {size}", rows)
    if options.out:
        report.save(options.out)
    return report


def skipped(what: str, why: str) -> None:
    """Say which rival is left out."""
    print(f"left out: {what}: {why}", file=sys.stderr, flush=True)
