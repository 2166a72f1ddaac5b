"""Does it learn what the published runs learnt? Every way of training on random labels, preset `paper`.

    python -m experiments.check_learning --data_dir=DIR --checks=mnist,cifar10_start,cifar10_end --seeds=0-4
    python -m experiments.check_learning --data_dir=DIR --checks=mnist_mixmatch,cifar10_mixmatch,cifar10_waal --seeds=0

Published raw runs of the same protocol, random sampling: see CHECKS. On 2 CPU cores `--checks=mnist
--seeds=0` trains on 3.3 M images, some minutes; the CIFAR-10 checks are for an accelerator (750 k and 5.25 M images
a seed; the former took 70 minutes of one core). DIR holds the official files (MNIST idx, CIFAR-10 binary), which need
no tensorflow-datasets, or what TFDS prepared. On a GPU machine without a network:

    XLA_PYTHON_CLIENT_PREALLOCATE=false python -m experiments.check_learning --data_dir=carry --results=$OUT/learning

Continues where it was stopped; writes journals and RESULTS/learning.md.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import jaxdal
from experiments.options import told_of_bad_input
from jaxdal import calls, commands


class Check(NamedTuple):
    """A budget, and the accuracies (%) of the published runs at some of its numbers of labels."""

    dataset: str
    budget: tuple[str, str, str]  # n_start, n_query, n_end
    published: dict[int, str]  # labels -> accuracy
    strategy: str = "random"
    trainer: str | None = None


START = ("10%", "5%", "10%")
CHECKS = {
    "mnist": Check("mnist", ("2%", "2%", "20%"), {1200: "87.2 to 90.6", 12000: "about 96.4"}),
    "cifar10_start": Check("cifar10", START, {5000: "76.4 to 77.6"}),
    "cifar10_end": Check("cifar10", ("70%", "5%", "70%"), {35000: "about 90.8"}),
    "mnist_mixmatch": Check("mnist", ("2%", "2%", "2%"), {1200: "clearly above supervised"}, "ssl_random"),
    "cifar10_mixmatch": Check("cifar10", START, {5000: "88.8 (one raw run)"}, "ssl_random"),
    "cifar10_mixmatch_slow": Check(
        "cifar10", START, {5000: "-; a sketch at rate 0.03: 87.0"}, "ssl_random", "mixmatch(preset='clean')"
    ),
    "cifar10_fixmatch": Check("cifar10", START, {5000: "not in the paper"}, "ssl_random", "fixmatch"),
    "cifar10_consistency": Check("cifar10", START, {5000: "not in the paper"}, "ssl_random", "consistency"),
    "cifar10_waal": Check("cifar10", START, {5000: "79.4 to 80.1"}, "waal"),
}


def rows(name: str, result: jaxdal.Result) -> list[str]:
    """Return the lines of the table for one check."""
    lines = []
    for group in result.groups:
        labels = group[0]["labelled"]
        accuracies = [100 * line["accuracy"] for line in group if "accuracy" in line]
        if labels not in CHECKS[name].published or not accuracies:
            continue
        seconds = group[0]["seconds"]["train"]
        lines.append(
            f"| {name} | {labels} | {np.mean(accuracies):.2f} | {min(accuracies):.2f} to {max(accuracies):.2f} | "
            f"{len(accuracies)} | {CHECKS[name].published[labels]} | {seconds:.1f} |"
        )
    return lines


def checks(text: str) -> list[str]:
    """Names of rows of CHECKS, commas between them."""
    if unknown := set(text.split(",")) - set(CHECKS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))} is not one of {', '.join(CHECKS)}")
    return text.split(",")


@told_of_bad_input
def main(arguments: Sequence[str]) -> int:
    """Run the checks and write the table."""
    parser = argparse.ArgumentParser("python -m experiments.check_learning", allow_abbrev=False)
    default = "mnist,cifar10_start,cifar10_end"
    parser.add_argument("--checks", type=checks, default=default, help=", ".join(CHECKS))
    parser.add_argument("--seeds", default="0-4", help="numbers or ranges, trained at once")
    parser.add_argument("--data_dir", help="where the data sets are")
    parser.add_argument("--results", type=Path, default=Path("runs/learning"), help="where journals and the table go")
    given = parser.parse_args(arguments)
    commands.cache_programs()
    table = ["| check | labels | accuracy % | seeds from, to | seeds | published | train s |", "|---" * 7 + "|"]
    for name in given.checks:
        check = CHECKS[name]
        n_start, n_query, n_end = check.budget
        result = jaxdal.run(
            check.dataset, check.strategy, trainer=check.trainer, preset="paper",
            workdir=given.results / name, data_dir=given.data_dir, checkpoint_seconds=60.0,
            seeds=calls.seeds(given.seeds), n_start=n_start, n_query=n_query, n_end=n_end,
        )  # fmt: skip
        table += rows(name, result)
        where = result.header["environment"]
    command = shlex.join(["python", "-m", "experiments.check_learning", *arguments])
    text = "\n".join([f"`{command}` on {where['devices'][0]}, jax {where['jax']}", "", *table, ""])
    (given.results / "learning.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    commands.begin()
    sys.exit(main(sys.argv[1:]))
