"""MixMatch steps: beside supervised ones of the same network and batch, and beside PyTorch doing the same thing.

    python -m benchmarks.train_ssl_step --model=lenet --batch=64
    python -m benchmarks.train_ssl_step --model=resnet18_thin --batch=256 --precision=bf16 --steps=128 --repeats=5   # one GPU, 240 s
    python -m benchmarks.train_ssl_step --model=resnet18_thin --batch=256 --runs=4 --trainers=supervised,mixmatch,waal --precision=bf16 --steps=128 --rivals=none   # one GPU, 180 s

`x supervised` is how many times as long as a supervised step of ours, of as many runs, a step takes. Counted in forward passes of B images,
F, a supervised step takes 3 F and MixMatch 2 F for the guesses and 9 F for the mixed images: 3.67 times as much arithmetic.
`images/s` counts the B labelled images of a step in every row; `x eager` and its like compare MixMatch with MixMatch.
"""  # noqa: E501

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import train_step
from benchmarks.timing import Report, environment, rounded
from benchmarks.train_step import (
    PROTOCOL,
    Contender,
    Table,
    add_ratios,
    arrays,
    measured,
    ours,
    parser,
    publish,
    rivals,
    rules_for,
    theirs,
)
from jaxdal.settings import Settings
from jaxdal.types import Dataset

if TYPE_CHECKING:
    from benchmarks.rival_torch_mixmatch import MixMatchRival  # imports torch

RIVALS = {name: what.replace("torch, ", "torch, mixmatch ") for name, what in train_step.RIVALS.items()}


def rival(rules: Settings, images: Dataset, known: np.ndarray, name: str) -> "MixMatchRival":
    """Make one of RIVALS. known: i64[L], the images that have labels."""
    from benchmarks.rival_torch_mixmatch import MixMatchLoaderRival, MixMatchRival

    given = rules, images.train_x, images.train_y, known
    return MixMatchLoaderRival(*given) if name == "loader" else MixMatchRival(*given, best=name == "best")


def contest(options: argparse.Namespace, names: Sequence[str]) -> Iterator[Table]:
    """Make and measure packs of every size and trainer, and the rivals: -> the table as far as it is."""
    images = arrays(PROTOCOL[options.model], options.pool)

    def make(runs: int, trainer: str) -> Contender:
        one = ours(rules_for(options, images, runs, trainer), images, options.steps)
        return one._replace(what=one.what.replace("jaxdal", f"jaxdal, {trainer}"))

    makers = {
        f"{trainer}, {runs} packed": partial(make, runs, trainer)
        for runs in options.runs
        for trainer in options.trainers.split(",")
    }
    rules = rules_for(options, images, 1, "mixmatch")
    makers |= {
        RIVALS[name]: partial(theirs, rules, images, options.steps, name, what=RIVALS[name], make=rival)
        for name in names
    }
    for rows, far in measured(options, makers):
        supervised = {row["runs"]: row["ms/step"] for row in rows if row["what"].startswith("jaxdal, supervised")}
        for row in rows:
            row["x supervised"] = (
                rounded(row["ms/step"] / supervised[row["runs"]]) if row["runs"] in supervised else None
            )
        add_ratios([row for row in rows if "mixmatch" in row["what"]], {name: RIVALS[name] for name in names})
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
    publish(report, title, contest(options, names), options.out)
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
