"""Training steps: jaxdal's own engine beside PyTorch doing the same thing.

    python -m benchmarks.train_step --model=lenet --batch=64 --runs=1,5
    python -m benchmarks.train_step --model=resnet18_thin --batch=32 --steps=4 --repeats=3 --runs=1   # slow on a CPU

What is timed is the program of the product: `Engine.advance` of a `Lab`, with the pool resident as uint8 and
augmentation inside, for packs of several sizes. On a machine with a GPU (jax 0.10 or newer, torch with CUDA):

    python -m benchmarks.train_step --model=resnet18_thin --batch=256 --runs=1,4 --precision=bf16 --steps=256 --repeats=5   # one GPU, 180 s
    python -m benchmarks.train_step --model=resnet18_thin --batch=256 --runs=2,5,8 --precision=bf16 --steps=256 --repeats=5 --rivals=none   # one GPU, 120 s
    python -m benchmarks.train_step --model=lenet --batch=128 --runs=1,5,25 --steps=500   # one GPU, 180 s
    python -m benchmarks.train_step --model=resnet18 --batch=256 --precision=bf16 --steps=128   # one GPU, 180 s

With --out the table is saved as soon as one contender is warm, and again after each: one that is ended early leaves what
it has measured, and says so (`partial`). A contender that fails or diverges costs its own row.

XLA_PYTHON_CLIENT_PREALLOCATE=false is set by itself where torch takes part, since JAX would otherwise take the memory of the whole card.
"""  # noqa: E501

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple, Protocol

import jax
import numpy as np

from benchmarks.timing import Report, Row, Timing, environment, joined, measure, rounded, seconds
from jaxdal import from_arrays, settings, strategies
from jaxdal.cost import Clock, wait
from jaxdal.data import split
from jaxdal.engine import answering
from jaxdal.lab import Lab, blocks_for
from jaxdal.settings import Settings
from jaxdal.types import Dataset

if TYPE_CHECKING:
    from benchmarks.rival_torch import Rival  # imports torch

PROTOCOL = {"lenet": "mnist", "resnet18_thin": "cifar10", "resnet18": "cifar10"}  # whose recipe a model is trained by
SHAPES = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
RIVALS = {
    "eager": "torch, as commonly written",
    "best": "torch, bf16 channels_last compiled",
    "loader": "torch, behind a DataLoader",
}


Table = tuple[list[Row], str]  # and how far it is


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


def rival(rules: Settings, images: Dataset, known: np.ndarray, name: str) -> "Rival":
    """Make one of RIVALS. known: i64[L], the images that have labels."""
    from benchmarks.rival_torch import Rival
    from benchmarks.rival_torch_loader import LoaderRival

    given = rules, images.train_x, images.train_y, known
    return LoaderRival(*given) if name == "loader" else Rival(*given, best=name == "best")


def theirs(
    rules: Settings, images: Dataset, steps: int, name: str, *, what: str,
    make: Callable[[Settings, Dataset, np.ndarray, str], "Rival"] = rival,
) -> Contender:  # fmt: skip
    """Make and warm a rival; compilation is what its first steps take longer than the same steps later."""
    best = name == "best"
    known = np.random.default_rng(0).permutation(rules.pool)[: rules.budget.n_start]
    trainee = make(rules, images, known, name)
    first = seconds(partial(trainee.steps, steps))
    compiling = max(0.0, first - seconds(partial(trainee.steps, steps))) if best else None
    trainee.choose_threads(steps)
    return Contender(what, 1, "bf16" if best else "f32", compiling, trainee)


@contextlib.contextmanager
def alone(what: str) -> Iterator[None]:
    """Say what went wrong with a contender, and go on: it must not cost the figures of the others."""
    try:
        yield
    except Exception as error:  # compilers and drivers raise what they like
        print(f"left out: {what}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)


def contest(options: argparse.Namespace, names: Sequence[str]) -> Iterator[Table]:
    """Make and measure everything: -> the table as far as it is."""
    images = arrays(PROTOCOL[options.model], options.pool)
    makers = {
        f"{runs} packed": partial(ours, rules_for(options, images, runs), images, options.steps)
        for runs in options.runs
    }
    rules = rules_for(options, images, 1)
    makers |= {RIVALS[name]: partial(theirs, rules, images, options.steps, name, what=RIVALS[name]) for name in names}
    for rows, far in measured(options, makers):
        add_ratios(rows, {name: RIVALS[name] for name in names})
        yield rows, far


def add_ratios(rows: Sequence[Row], rivals: Mapping[str, str]) -> None:
    """Say how many times as many images a second as each rival a row makes. rivals: name -> its row's `what`."""
    rates = {row["what"]: row["images/s"] for row in rows}
    for row in rows:
        for name, what in rivals.items():
            if what in rates:
                row[f"x {name}"] = rounded(rates[row["what"]] / rates[what])


def measured(options: argparse.Namespace, makers: Mapping[str, Callable[[], Contender]]) -> Iterator[Table]:
    """Make contenders and measure each as soon as it is warm, then all again, in turns: -> the rows so far."""
    well: dict[Contender, Timing] = {}

    def measure_once(one: Contender) -> Timing:
        (timing,) = measure([partial(one.trainee.steps, options.steps)], 1)
        if not one.trainee.finite():
            raise ArithmeticError("it diverged: its figures would mean nothing")
        return timing

    for place, (what, make) in enumerate(makers.items(), 1):
        with alone(what):
            one = make()
            well[one] = measure_once(one)
            print(f"ready: {one.what}", file=sys.stderr, flush=True)
        yield [row_of(options, *each) for each in well.items()], f"{place} of {len(makers)}, measured once"
    for turn in range(2, options.repeats + 1):
        for one, before in list(well.items()):
            del well[one]  # it comes back if it is still well
            with alone(one.what):
                well[one] = joined([before, measure_once(one)])
        yield [row_of(options, *each) for each in well.items()], f"turn {turn} of {options.repeats}"


def row_of(options: argparse.Namespace, one: Contender, timing: Timing) -> Row:
    """Return the row of a contender."""
    return {
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


def publish(report: Report, title: str, found: Iterable[Table], out: str | None) -> None:
    """Save the table whenever it has grown, and print it when it is whole."""
    for report.tables[title], report.where["partial"] in found:
        if out:
            report.save(out)
    if not report.tables[title]:
        raise SystemExit("nothing could be measured")
    del report.where["partial"]
    report.table(title, report.tables[title])
    if out:
        report.save(out)


def parser(name: str, doc: str | None) -> argparse.ArgumentParser:
    """Return the options of a benchmark of training steps."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=(doc or "").split("\n")[0])
    parser.add_argument("--model", default="lenet", choices=PROTOCOL)
    parser.add_argument("--batch", type=int, default=64, help="images per step and run")
    parser.add_argument("--runs", type=lambda text: [int(n) for n in text.split(",")], default=[1], help="pack sizes")
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
    options = parser("train_step", __doc__).parse_args(argv)
    names = rivals(options.rivals)
    if names:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # read when JAX first looks for devices
    packages = ["torch"] if names else []
    report = Report("train_step", environment(argv, "benchmarks.train_step", packages))
    title = f"Training step: {options.model}, in turns of {options.steps} steps"
    publish(report, title, contest(options, names), options.out)
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
