"""MixMatch steps: beside supervised ones of the same network and batch, and beside PyTorch doing the same thing.

    python -m benchmarks.train_ssl_step --model=lenet --batch=64
    python -m benchmarks.train_ssl_step --model=resnet18_thin --batch=256 --precision=bf16 --steps=256   # one GPU, 120 s
    python -m benchmarks.train_ssl_step --model=resnet18_thin --batch=256 --runs=4 --trainers=supervised,mixmatch,waal --precision=bf16 --steps=128 --rivals=none   # one GPU, 180 s

`x supervised` is how many times as long as a supervised step of ours, of as many runs, a step takes. Counted in forward passes of B images,
F, a supervised step takes 3 F and MixMatch 2 F for the guesses and 9 F for the mixed images: 3.67 times as much arithmetic.
`images/s` counts the B labelled images of a step in every row.
"""  # noqa: E501

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from benchmarks.timing import Report, environment, rounded
from benchmarks.train_step import (
    PROTOCOL,
    Contender,
    Table,
    arrays,
    measured,
    ours,
    parser,
    publish,
    rivals,
    rules_for,
)
from jaxdal.settings import Settings
from jaxdal.types import Dataset

RIVAL = "torch, mixmatch as commonly written"


def theirs(rules: Settings, images: Dataset, steps: int) -> Contender:
    """Make and warm MixMatch in PyTorch."""
    from benchmarks.rival_torch_mixmatch import MixMatchRival

    known = np.random.default_rng(0).permutation(rules.pool)[: rules.budget.n_start]
    trainee = MixMatchRival(rules, images.train_x, images.train_y, known)
    trainee.steps(steps)
    trainee.choose_threads(steps)
    return Contender(RIVAL, 1, "f32", None, trainee)


def contest(options: argparse.Namespace, rival: bool) -> Iterator[Table]:
    """Make and measure packs of every size and trainer, and the rival: -> the table as far as it is."""
    images = arrays(PROTOCOL[options.model], options.pool)

    def make(runs: int, trainer: str) -> Contender:
        one = ours(rules_for(options, images, runs, trainer), images, options.steps)
        return one._replace(what=one.what.replace("jaxdal", f"jaxdal, {trainer}"))

    makers = {
        f"{trainer}, {runs} packed": partial(make, runs, trainer)
        for runs in options.runs
        for trainer in options.trainers.split(",")
    }
    if rival:
        makers[RIVAL] = partial(theirs, rules_for(options, images, 1, "mixmatch"), images, options.steps)
    for rows, far in measured(options, makers):
        supervised = {row["runs"]: row["ms/step"] for row in rows if row["what"].startswith("jaxdal, supervised")}
        for row in rows:
            row["x supervised"] = (
                rounded(row["ms/step"] / supervised[row["runs"]]) if row["runs"] in supervised else None
            )
        yield rows, far


def main(argv: Sequence[str]) -> Report:
    """Measure, print and save."""
    own = parser("train_ssl_step", __doc__)
    own.add_argument("--trainers", default="supervised,mixmatch", help="with commas")
    options = own.parse_args(argv)
    names = rivals(options.rivals)
    if names:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # read when JAX first looks for devices
    report = Report("train_ssl_step", environment(argv, "benchmarks.train_ssl_step", ["torch"] if names else []))
    title = f"MixMatch step: {options.model}, in turns of {options.steps} steps"
    publish(report, title, contest(options, bool(names)), options.out)
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
