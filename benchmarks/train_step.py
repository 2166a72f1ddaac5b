"""Training steps: jaxdal's own engine beside PyTorch doing the same thing.

    python -m benchmarks.train_step --model=lenet --batch=64 --runs=1,5
    python -m benchmarks.train_step --model=resnet18_thin --batch=32 --steps=4 --repeats=3 --runs=1   # slow on a CPU

What is timed is the program of the product: `Engine.advance` of a `Lab`, with the pool resident as uint8 and
augmentation inside, for packs of several sizes. On a machine with a GPU (jax 0.10 or newer, torch with CUDA):

    python -m benchmarks.train_step --model=resnet18_thin --batch=256 --runs=1,2,4,5,8 --precision=bf16 --steps=256 --repeats=5   # one GPU
    python -m benchmarks.train_step --model=lenet --batch=128 --runs=1,5,25 --steps=500   # one GPU
    python -m benchmarks.train_step --model=resnet18 --batch=256 --precision=bf16 --steps=128   # one GPU

XLA_PYTHON_CLIENT_PREALLOCATE=false is set by itself where torch takes part, since JAX would otherwise take the memory of the whole card.
"""  # noqa: E501

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import NamedTuple, Protocol

import jax
import numpy as np

from benchmarks.timing import Report, Row, environment, measure, rounded, seconds
from jaxdal import from_arrays, settings, strategies
from jaxdal.cost import Clock, wait
from jaxdal.data import split
from jaxdal.engine import answering
from jaxdal.lab import Lab, blocks_for
from jaxdal.settings import Settings
from jaxdal.types import Dataset

PROTOCOL = {"lenet": "mnist", "resnet18_thin": "cifar10", "resnet18": "cifar10"}  # whose recipe a model is trained by
SHAPES = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
RIVALS = {
    "eager": "torch, as commonly written",
    "best": "torch, bf16 channels_last compiled",
    "loader": "torch, behind a DataLoader",
}


class Trainee(Protocol):
    """Something that can take steps and wait for them."""

    def steps(self, count: int) -> None: ...  # noqa: D102

    def finite(self) -> bool: ...  # noqa: D102


class Contender(NamedTuple):
    """A trainee, made and warm."""

    what: str
    runs: int
    precision: str
    compile: float | None  # seconds; None where nothing is compiled
    trainee: Trainee


class Ours:
    """A pack of runs in jaxdal's engine."""

    def __init__(
        self, rules: Settings, images: Dataset, strategy: str = "random", pool_bytes: int | None = None
    ) -> None:
        pool_x, oracle, test = split(images)
        chosen, devices = strategies.build(strategy), jax.devices()[:1]
        blocks = blocks_for(rules, chosen, pool_x.shape[1:], devices, pool_bytes)
        self.lab = Lab(rules, pool_x, test, chosen, devices, blocks)
        lanes = self.lab.lanes
        self.keys = self.lab.keys(lanes.per_run(np.asarray(rules.seeds, np.uint32)), np.int32(0))
        nothing = np.full(rules.pool, -1, np.int32)
        known = [oracle.reveal(nothing, picks) for picks in np.asarray(self.lab.initial(self.keys))]
        self.known = lanes.per_run(np.stack(known))
        self._per_epoch = rules.per_epoch[0]
        self.state = wait(self.lab.engine.init(self.keys))
        self._done = 0

    def steps(self, count: int) -> None:
        """As the loop over rounds does: a chunk, wait, and the next one."""
        engine, until = self.lab.engine, self._done + count
        while self._done < until:
            end = min(until, self._done + engine.chunk)
            fixed = self.keys, self.known, self.lab.pool, self._per_epoch
            self.state = wait(engine.advance(self.state, *fixed, self._done, end))
            self._done = end

    def score(self) -> None:
        """Compute the strategy's signals of the whole pool, for every run."""
        wait(self.lab.gather(self.keys, answering(self.state), self.known, self.lab.pool))

    def finite(self) -> bool:
        """Is every run alive?"""
        return not np.any(np.asarray(self.state.diverged))


def arrays(protocol: str, pool: int) -> Dataset:
    """Random pixels and labels in the shape of a data set: never zeros, which can be faster than real data."""
    rng = np.random.default_rng(0)
    shape = SHAPES[protocol]
    labels = rng.integers(0, 10, pool)
    tests = rng.integers(0, 256, (16, *shape), np.uint8), np.arange(16) % 10
    return from_arrays(rng.integers(0, 256, (pool, *shape), np.uint8), labels, *tests, num_classes=10)


def rules_for(options: argparse.Namespace, images: Dataset, runs: int, trainer: str = "supervised") -> Settings:
    """Return the published protocol of the model's data set, for one round and a pack of `runs`."""
    return settings.resolve(
        PROTOCOL[options.model], images, "random", platform=jax.devices()[0].platform, model=options.model,
        seeds=range(runs), n_start=options.labels, n_query=1, n_end=options.labels, batch=options.batch,
        precision=options.precision, pack=runs, trainer=trainer,
    )  # fmt: skip


def rivals(wanted: str) -> list[str]:
    """Return which of RIVALS take part: those asked for, or by default what this machine's torch can do."""
    if wanted == "none":
        return []
    if find_spec("torch") is None:
        if wanted == "auto":
            print("torch is not installed, so nothing is compared: pip install -e '.[bench]'", file=sys.stderr)
            return []
        raise SystemExit("torch is not installed: pip install -e '.[bench]', or --rivals=none")
    if wanted == "auto":
        import torch

        return list(RIVALS) if torch.cuda.is_available() else ["eager", "loader"]
    names = wanted.split(",")
    if unknown := set(names) - set(RIVALS):
        raise SystemExit(f"no rival is called {', '.join(unknown)}: there are {', '.join(RIVALS)}, auto and none")
    return names


def ours(rules: Settings, images: Dataset, steps: int) -> Contender:
    """Make and warm a pack; compilation is heard from JAX itself."""
    clock, runs = Clock(), len(rules.seeds)
    with clock.charge("train"):
        trainee = Ours(rules, images)
        trainee.steps(steps)
    packed = f"jaxdal, {runs} packed" if runs > 1 else "jaxdal"
    return Contender(packed, runs, rules.precision, clock.seconds["compile"], trainee)


def theirs(rules: Settings, images: Dataset, steps: int, name: str) -> Contender:
    """Make and warm a rival; compilation is what its first steps take longer than the same steps later."""
    from benchmarks.rival_torch import Rival
    from benchmarks.rival_torch_loader import LoaderRival

    best = name == "best"
    known = np.random.default_rng(0).permutation(rules.pool)[: rules.budget.n_start]
    given = rules, images.train_x, images.train_y, known
    trainee = LoaderRival(*given) if name == "loader" else Rival(*given, best=best)
    first = seconds(partial(trainee.steps, steps))
    compiling = max(0.0, first - seconds(partial(trainee.steps, steps))) if best else None
    trainee.choose_threads(steps)
    return Contender(RIVALS[name], 1, "bf16" if best else "f32", compiling, trainee)


def contest(options: argparse.Namespace, names: Sequence[str]) -> list[Row]:
    """Measure everything in turns: -> the rows of the table."""
    images = arrays(PROTOCOL[options.model], options.pool)
    contenders = []
    for runs in options.runs:
        contenders.append(ours(rules_for(options, images, runs), images, options.steps))
        print(f"ready: {contenders[-1].what}", file=sys.stderr, flush=True)
    able = []
    for name in names:
        try:
            contenders.append(theirs(rules_for(options, images, 1), images, options.steps, name))
        except Exception as error:  # a rival that cannot run here must not cost the other figures
            print(f"left out: {RIVALS[name]}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            continue
        able.append(name)
        print(f"ready: {contenders[-1].what}", file=sys.stderr, flush=True)
    rows = measured(options, contenders)
    rates = {row["what"]: row["images/s"] for row in rows}
    for row in rows:
        for name in able:
            row[f"x {name}"] = rounded(rates[row["what"]] / rates[RIVALS[name]])
    return rows


def measured(options: argparse.Namespace, contenders: Sequence[Contender]) -> list[Row]:
    """Measure in turns: -> a row for each, in order."""
    timings = measure([partial(one.trainee.steps, options.steps) for one in contenders], options.repeats)
    rows: list[Row] = []
    for one, timing in zip(contenders, timings, strict=True):
        if not one.trainee.finite():
            raise SystemExit(f"{one.what} diverged: its figures would mean nothing")
        rows.append(
            {
                "what": one.what,
                "precision": one.precision,
                "batch": options.batch,
                "runs": one.runs,
                "ms/step": rounded(1000 * timing.median / options.steps),
                "least ms": rounded(1000 * timing.least / options.steps),
                "cpu ms": rounded(1000 * timing.median_busy / options.steps),
                "images/s": rounded(options.batch * one.runs * options.steps / timing.median),
                "compile s": None if one.compile is None else rounded(one.compile),
            }
        )
    return rows


def parser(name: str, doc: str | None) -> argparse.ArgumentParser:
    """Return the options of a benchmark of training steps."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=(doc or "").split("\n")[0])
    parser.add_argument("--model", default="lenet", choices=PROTOCOL)
    parser.add_argument("--batch", type=int, default=64, help="images per step and run")
    parser.add_argument("--precision", default="auto", choices=settings.PRECISIONS)
    parser.add_argument("--steps", type=int, default=50, help="steps per measurement")
    parser.add_argument("--repeats", type=int, default=7, help="measurements; the median counts")
    parser.add_argument("--pool", type=int, default=50_000, help="images on the device")
    parser.add_argument("--labels", type=int, default=5_000, help="images with labels")
    parser.add_argument("--rivals", default="auto", help=f"{','.join(RIVALS)}; auto: what this machine can do; none")
    parser.add_argument("--out", help=f"folder for {name}.json and {name}.md")
    return parser


def main(argv: Sequence[str]) -> Report:
    """Measure, print and save."""
    own = parser("train_step", __doc__)
    own.add_argument("--runs", type=lambda text: [int(n) for n in text.split(",")], default=[1], help="pack sizes")
    options = own.parse_args(argv)
    names = rivals(options.rivals)
    if names:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # read when JAX first looks for devices
    packages = ["torch"] if names else []
    report = Report("train_step", environment(argv, "benchmarks.train_step", packages))
    report.table(f"Training step: {options.model}, in turns of {options.steps} steps", contest(options, names))
    if options.out:
        report.save(options.out)
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
