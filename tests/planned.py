"""Runs of the plans of experiments, and journals of them made by hand."""

import json
import sys
from pathlib import Path

import journals

sys.path.insert(0, str(Path(__file__).parent.parent))  # the experiments are not part of the package

from experiments.plans import PLANS, Options, Run
from experiments.records import resolved

GRID = Options(datasets=("digits",), scale="half", strategies=("badge", "margin"), seeds=(0, 1))
CURVE = [0.5, 0.6, 0.7]  # the three rounds of the grid on digits at half scale
FLAGS = ["--datasets=digits", "--scale=half", "--strategies=badge,margin", "--seeds=0,1"]


def grid(**options) -> list[Run]:
    return PLANS["table3"](GRID._replace(**options))


def run_of(strategy: str, seed: int = 0) -> Run:
    return next(run for run in grid(strategies=(strategy,), seeds=(seed,)) if run.strategy == strategy)


def write(folder: Path, run: Run, curves: dict, **changed) -> Path:
    """A journal of a planned run, with the accuracies of each seed."""
    config = {key: value for key, value in resolved(run).config().items() if key != "seeds"}
    return journals.write(folder, curves, **config | changed)


def note(folder: Path, **notes) -> None:
    """Add notes to the first line of a journal."""
    first, rest = (folder / "journal.jsonl").read_text().split("\n", 1)
    (folder / "journal.jsonl").write_text(json.dumps(json.loads(first) | notes) + "\n" + rest)
