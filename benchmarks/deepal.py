"""Whole experiments: our command beside that of DeepAL, the repository that many rivals began as, which is not changed.

    git clone https://github.com/ej0cl6/deep-active-learning /tmp/deepal
    python -m benchmarks.deepal --rival=/tmp/deepal --data=mnist.npz
    python -m benchmarks.deepal --rival=/tmp/deepal --data=mnist.npz --strategies=coreset --n_init=1000 --n_query=200 --rounds=1

Each is a process of its own, timed from its start to its end: imports, data, training, scoring, selection, evaluation. Ours
starts with an empty cache of compiled programs (cold), then with what that start has left (warm). Both have DeepAL's
protocol for MNIST: its LeNet, which is ours, 40,000 images, 10 epochs of batches of 64 at a rate of 0.01 from new weights in
every round, all test images after it, one random set at the start. What is not the same:
- momentum (0.9, there 0.5), weight decay, clamped gradients and a rate that falls, which cost no time worth the name;
- it also trains the last, smaller batch of an epoch: of 1,000 images 16 steps, where ours takes 15;
- `kmeans`: both take one start (scikit-learn since 1.4) and at most 300 iterations, but scikit-learn draws each first centre
  from several candidates;
- `bald`: it passes the images through the whole network ten times, ours once, and through the last layers ten times;
- which images are drawn. Accuracies are there to show that both learn.
Its AdversarialBIM is left out: it needs a CUDA device, and takes the images one by one. `--python` is an interpreter with torch
and torchvision, if this one has none. Waiting threads of OpenMP sleep on both sides (OMP_WAIT_POLICY=passive), so that
processor seconds mean something.
"""  # noqa: E501

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.rounds import CACHES, ROOT
from benchmarks.timing import Report, Row, environment, rounded
from benchmarks.train_step import alone
from jaxdal.cost import now

NAMES = {
    "random": "RandomSampling", "least_confidence": "LeastConfidence", "margin": "MarginSampling",
    "entropy": "EntropySampling", "kmeans": "KMeansSampling", "coreset": "KCenterGreedy", "bald": "BALDDropout",
}  # fmt: skip
SAME = {"kmeans": "kmeans(max_iter=300)"}  # options with which ours does the same work
POOL, EPOCHS, BATCH, RATE = 40_000, 10, 64, 0.01  # as its files have them
KEYS = ("train_images", "train_labels", "test_images", "test_labels")  # of npz:PATH
QUIET = {"OMP_WAIT_POLICY": "passive"}


def keep_for_torchvision(images: Mapping[str, np.ndarray], folder: Path) -> None:
    """Write the four files that torchvision looks for below ./data/MNIST. images: as of npz:PATH."""
    raw = folder / "data" / "MNIST" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, prefix in (("train", "train"), ("test", "t10k")):
        pixels, labels = images[f"{name}_images"].reshape(-1, 28, 28), images[f"{name}_labels"]
        for array, kind in ((pixels, "images-idx3"), (labels, "labels-idx1")):
            head = bytes([0, 0, 8, array.ndim]) + np.asarray(array.shape, ">i4").tobytes()
            (raw / f"{prefix}-{kind}-ubyte").write_bytes(head + array.astype(np.uint8).tobytes())


VERSIONS = """
from importlib import metadata
names = "torch", "torchvision", "scikit-learn", "numpy", "pillow"
found = {one.metadata["Name"].lower(): one.version for one in metadata.distributions()}
print(", ".join(f"{name} {found[name]}" for name in names if name in found))
"""


def told_of(rival: str, python: str) -> str:
    """What the rival is: its commit, whether its files are as they were committed, and the packages that it uses."""
    ask = partial(subprocess.run, capture_output=True, text=True)
    commit = ask(["git", "-C", rival, "rev-parse", "--short=12", "HEAD"]).stdout.strip() or "unknown commit"
    changed = ask(["git", "-C", rival, "status", "--porcelain", "--untracked-files=no"]).stdout
    return f"DeepAL {commit}{', changed' if changed else ''}; {ask([python, '-c', VERSIONS]).stdout.strip()}"


def timed(command: Sequence[str], folder: Path, environ: Mapping[str, str]) -> tuple[float, float, str]:
    """Run a command: -> seconds, processor seconds of it and its workers, what it printed.

    Raises:
        RuntimeError: it failed; with the end of what it printed.
    """
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), now()
    done = subprocess.run(command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    took, after = now() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-2000:]}")
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def row(what: str, strategy: str, took: float, busy: float, accuracies: Sequence[float]) -> Row:
    """A line of the table."""
    first, last = (rounded(100 * accuracies[place]) for place in (0, -1))
    return {
        "strategy": strategy, "what": what, "seconds": rounded(took), "cpu s": rounded(busy), "first %": first,
        "last %": last, "x ours": None, "x ours by cpu": None,
    }  # fmt: skip


def rival(options: argparse.Namespace, strategy: str, folder: Path) -> Row:
    """DeepAL's demo.py, in a folder of its own."""
    command = [
        options.python, str(Path(options.rival).resolve() / "demo.py"), "--dataset_name=MNIST",
        f"--strategy_name={NAMES[strategy]}", f"--n_init_labeled={options.n_init}", f"--n_query={options.n_query}",
        f"--n_round={options.rounds}",
    ]  # fmt: skip
    took, busy, told = timed(command, folder, os.environ | QUIET)
    accuracies = [float(found) for found in re.findall(r"testing accuracy: ([0-9.]+)", told)]
    if len(accuracies) != options.rounds + 1:
        raise RuntimeError(f"DeepAL told {len(accuracies)} accuracies, not {options.rounds + 1}")
    return row("DeepAL", strategy, took, busy, accuracies)


def ours(options: argparse.Namespace, strategy: str, data: Path, folder: Path) -> list[Row]:
    """Our command, twice."""
    flags = {
        "dataset": f"npz:{data}", "strategy": SAME.get(strategy, strategy), "model": "lenet", "n_start": options.n_init,
        "n_query": options.n_query, "n_end": options.n_init + options.rounds * options.n_query, "epochs": EPOCHS,
        "batch": BATCH, "learning_rate": RATE, "crop": 0, "mean": 0.1307, "std": 0.3081,
    }  # fmt: skip
    inherited = {key: value for key, value in os.environ.items() if key not in CACHES}
    cache = folder / f"cache {strategy}"
    environ = {**inherited, **QUIET, "XDG_CACHE_HOME": str(cache), "MPLCONFIGDIR": str(folder / "matplotlib")}
    rows = []
    for start in ("cold", "warm"):
        workdir = folder / f"{strategy} {start}"
        command = [sys.executable, "-m", "jaxdal.main", "--nomirror", f"--workdir={workdir}"]
        command += [f"--{name}={value}" for name, value in flags.items()]
        took, busy, _ = timed(command, ROOT, environ)
        lines = [json.loads(line) for line in (workdir / "journal.jsonl").read_text().splitlines()]
        accuracies = [one["accuracy"] for one in lines if "accuracy" in one]
        if len(accuracies) != options.rounds + 1:
            raise RuntimeError(f"ours has {len(accuracies)} accuracies, not {options.rounds + 1}")
        rows.append(row(f"jaxdal, {start}", strategy, took, busy, accuracies))
    return rows


def contest(options: argparse.Namespace, strategy: str, data: Path, folder: Path) -> list[Row]:
    """Both, and how many times longer each takes than our warm start; a rival that fails costs its own row."""
    found = ours(options, strategy, data, folder)
    if options.rival:
        with alone(f"DeepAL, {strategy}"):
            found.append(rival(options, strategy, folder))
    for one in found:
        one["x ours"] = rounded(one["seconds"] / found[1]["seconds"])
        one["x ours by cpu"] = rounded(one["cpu s"] / found[1]["cpu s"])
    return found


def main(argv: Sequence[str]) -> Report:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deepal", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rival", help="a clone of DeepAL; without it, ours alone")
    parser.add_argument("--data", required=True, help="MNIST, as of npz:PATH")
    parser.add_argument("--python", default=sys.executable, help="what runs DeepAL")
    parser.add_argument("--strategies", default="random,least_confidence,kmeans,bald", help=", ".join(NAMES))
    parser.add_argument("--n_init", type=int, default=1000, help="labels at the start")
    parser.add_argument("--n_query", type=int, default=1000, help="labels bought per round")
    parser.add_argument("--rounds", type=int, default=10, help="queries; there is one more training")
    parser.add_argument("--out", help="folder for deepal.json and deepal.md")
    options = parser.parse_args(argv)
    chosen = options.strategies.split(",")
    if wrong := [name for name in chosen if name not in NAMES]:
        parser.error(f"DeepAL has no {wrong[0]}: there are {', '.join(NAMES)}")
    options.python = str(Path(shutil.which(options.python) or options.python).absolute())
    beside = {"rival": told_of(options.rival, options.python)} if options.rival else {}
    report = Report("deepal", environment(argv, "benchmarks.deepal") | beside)
    title = f"MNIST, {options.n_init:,} labels and {options.rounds} queries of {options.n_query:,}; whole commands"
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with np.load(options.data) as images:
            keep_for_torchvision(images, folder)
            data = folder / "mnist.npz"
            cut = {key: images[key][:POOL] for key in KEYS}
            np.savez(data, **cut)
        for strategy in chosen:
            rows += contest(options, strategy, data, folder)
            report.table(title, rows)
            if options.out:  # after each, since a command may be ended at any time
                report.save(options.out)
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
