"""MixMatch steps: beside supervised ones of the same network and batch, and beside PyTorch doing the same thing.

    python -m benchmarks.train_ssl_step --model=lenet --batch=64
    XLA_PYTHON_CLIENT_PREALLOCATE=false python -m benchmarks.train_ssl_step --model=resnet18_thin --batch=256 --precision=bf16 --steps=256 --out=DIR   # one GPU

`x supervised` is how many times as long as a supervised step of ours a step takes. Counted in forward passes of B images,
F, a supervised step takes 3 F and MixMatch 2 F for the guesses and 9 F for the mixed images: 3.67 times as much arithmetic.
`images/s` counts the B labelled images of a step in every row.
"""  # noqa: E501

import os
import sys
from collections.abc import Sequence
from functools import partial

import numpy as np

from benchmarks.timing import Report, environment, rounded
from benchmarks.train_step import PROTOCOL, Contender, arrays, measured, ours, parser, rivals, rules_for
from jaxdal.settings import Settings
from jaxdal.types import Dataset


def theirs(rules: Settings, images: Dataset, steps: int) -> Contender:
    """Make and warm MixMatch in PyTorch."""
    from benchmarks.rival_torch_mixmatch import MixMatchRival

    known = np.random.default_rng(0).permutation(rules.pool)[: rules.budget.n_start]
    trainee = MixMatchRival(rules, images.train_x, images.train_y, known)
    trainee.steps(steps)
    trainee.choose_threads(steps)
    return Contender("torch, mixmatch as commonly written", 1, "f32", None, trainee)


def main(argv: Sequence[str]) -> Report:
    """Measure, print and save."""
    options = parser("train_ssl_step", __doc__).parse_args(argv)
    names = rivals(options.rivals)
    if names:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # read when JAX first looks for devices
    images = arrays(PROTOCOL[options.model], options.pool)
    resolved = partial(rules_for, options, images, 1)
    contenders = [
        ours(resolved(trainer), images, options.steps)._replace(what=f"jaxdal, {trainer}")
        for trainer in ("supervised", "mixmatch")
    ]
    if names:
        contenders.append(theirs(resolved("mixmatch"), images, options.steps))
    report = Report("train_ssl_step", environment(argv, "benchmarks.train_ssl_step", ["torch"] if names else []))
    rows = measured(options, contenders)
    for row in rows:
        row["x supervised"] = rounded(row["ms/step"] / rows[0]["ms/step"])
    report.table(f"MixMatch step: {options.model}, in turns of {options.steps} steps", rows)
    if options.out:
        report.save(options.out)
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
