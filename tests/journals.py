"""Journals made by hand, valid in every byte, for tests of what reads many of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxdal import comparison, verdicts
from jaxdal.budgets import Budget
from jaxdal.cost import STAGES
from jaxdal.journal import Journal

CONFIG: dict[str, Any] = {
    "dataset": "digits", "strategy": "random", "trainer": "supervised", "model": "lenet", "preset": "paper",
    "seeds": [0], "eval_every": 0, "pack": 1, "pool": 200, "n_start": 10, "n_query": 10, "n_end": 40, "epochs": 5,
    "batch": 16, "learning_rate": 0.1, "clamp": 0.1,
}  # fmt: skip
HERE = {"devices": ["cpu"], "jax": "0.10.2", "jaxdal": "0.1.0", "commit": "0123456789ab", "python": "3.11.7"}
SECONDS = dict.fromkeys((*STAGES, "compile"), 0.0) | {"train": 4.0, "infer": 1.0, "select": 0.5, "eval": 9.0}
RANDOM = {0: [0.5, 0.6, 0.7, 0.8], 1: [0.52, 0.61, 0.72, 0.81], 2: [0.51, 0.62, 0.71, 0.82]}
BETTER = {seed: [shares[0], *(share + 0.04 + 0.001 * seed for share in shares[1:])] for seed, shares in RANDOM.items()}


def write(
    folder: Path, curves: dict[int, Sequence[float | None]], *, lines: dict[str, Any] | None = None,
    environment: dict[str, Any] | None = None, counts: dict[int, Sequence[Sequence[int]]] | None = None, **config: Any,
) -> Path:  # fmt: skip
    """A journal with the accuracies of each seed and round; None: the run diverges there. -> its folder.

    lines: further keys of every line, `seconds` and `runs_at_once` among them. counts: `class_counts` of each seed and
    round.
    """
    told = CONFIG | {"seeds": list(curves)} | config
    labels = Budget(told["n_start"], told["n_query"], told["n_end"]).labels
    orders = {seed: np.random.default_rng(seed).permutation(told["pool"]).tolist() for seed in curves}
    with Journal.start(folder, told, HERE if environment is None else environment) as book:
        for round_ in range(max(map(len, curves.values()))):
            group: list[dict[str, Any]] = []
            for seed in [seed for seed in book.live if len(curves[seed]) > round_]:
                accuracy, order = curves[seed][round_], orders[seed]
                line = {"seed": seed, "round": round_, "labelled": labels[round_]}
                line |= {"seconds": SECONDS, "runs_at_once": 1}
                if accuracy is None:
                    group.append(line | {"diverged": {"step": 7}})
                    continue
                end = labels[round_ + 1] if round_ + 1 < len(labels) else labels[round_]
                line |= {"accuracy": accuracy, "picks": order[labels[round_] : end]}
                line |= {"class_counts": counts[seed][round_]} if counts else {}
                group.append(line | ({"initial": order[: labels[0]]} if round_ == 0 else {}) | (lines or {}))
            book.append(group)
    return Path(folder)


def judged(folder: Path) -> list[verdicts.Verdict]:
    """The experiments of all journals below a folder."""
    return [verdicts.judge(one) for one in comparison.read([folder]).experiments]
