"""Strategies side by side: accuracy of every round, API against random sampling (equation 1), seconds of selection.

    python -m experiments.compare --dataset=mnist --data_dir=DIR --seeds=0,1,2,3,4      # the paper's budgets and epochs
    python -m experiments.compare --dataset=digits                                      # 2 CPU cores, some minutes

`--strategies=supervised` are all that train on labels alone, `all` every row of the table; or names with options and
commas between them. On 2 CPU cores a run of MNIST takes 3 minutes a seed and strategy. It continues where it was
stopped, and skips what is complete. DIR holds the official files (MNIST idx), which need no tensorflow-datasets, or
what TFDS prepared. On a GPU machine without a network:

    XLA_PYTHON_CLIENT_PREALLOCATE=false python -m experiments.compare --dataset=mnist --data_dir=carry --results=$OUT/m
"""

import sys
from pathlib import Path

from absl import app, flags

import jaxdal
from experiments.tables import side_by_side
from jaxdal.strategies import STRATEGIES, build

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "digits", "As of jaxdal.main.")
flags.DEFINE_string("data_dir", None, "Where the data sets are.")
flags.DEFINE_string("strategies", "supervised", "supervised, all, or names (with options) and commas between them.")
flags.DEFINE_list("seeds", ["0"], "Seeds, trained at once.")
flags.DEFINE_integer("epochs", None, "Epochs of a round; fewer than the data set's make another experiment.")
flags.DEFINE_string("n_start", None, "Labels at the start (default: the data set's).")
flags.DEFINE_string("n_query", None, "Labels bought per round.")
flags.DEFINE_string("n_end", None, "Labels at the end.")
flags.DEFINE_integer("eval_every", 0, "Epochs between evaluations; 1 also gives the published, best accuracy.")
flags.DEFINE_string("results", "runs/compare", "Where journals and the table go.")


def chosen(text: str) -> list[str]:
    """Which strategies; random, which the others are compared with, is always the first."""
    if text in ("supervised", "all"):
        names = [name for name in STRATEGIES if text == "all" or build(name).trainer == "supervised"]
    else:
        names, depth = [""], 0
        for letter in text:  # commas within brackets belong to options
            depth += (letter in "([") - (letter in ")]")
            names = [*names, ""] if letter == "," and not depth else [*names[:-1], names[-1] + letter]
    return ["random", *(name for name in names if name != "random")]


def main(argv: list[str]) -> None:
    """Run what is not there yet, and write the table after every strategy."""
    del argv
    folder, results = Path(FLAGS.results), {}
    for name in chosen(FLAGS.strategies):
        results[name] = jaxdal.run(
            FLAGS.dataset, name, workdir=folder / "".join(c if c.isalnum() or c in "-_." else "_" for c in name),
            data_dir=FLAGS.data_dir, seeds=[int(seed) for seed in FLAGS.seeds], epochs=FLAGS.epochs,
            n_start=FLAGS.n_start, n_query=FLAGS.n_query, n_end=FLAGS.n_end, eval_every=FLAGS.eval_every,
            share_round_0="runs/round_0",
        )  # fmt: skip
        where = results[name].header["environment"]
        head = [
            f"Last-epoch test accuracy in %, mean over {len(FLAGS.seeds)} seed(s), by number of labels; API in "
            "percentage points, mean over rounds; seconds of a round and run, without compilation.",
            f"`python -m experiments.compare {' '.join(sys.argv[1:])}`; {where['devices'][0]}, jax {where['jax']}, "
            f"commit {where['commit']}.",
        ]
        text = "\n\n".join([*head, "\n".join(side_by_side(results)), ""])
        (folder / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    app.run(main)
