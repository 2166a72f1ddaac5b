"""Whole rounds of the real command: where their seconds go, and how long a start takes.

    python -m benchmarks.rounds                                  # the default command, digits, with both starts
    python -m benchmarks.rounds --dataset=npz:mnist.npz --n_start=2% --n_query=2% --n_end=6% --epochs=5 --no-starts
    python -m benchmarks.rounds --dataset=synthetic --model=resnet18_thin --seeds=0,1,2,3 --no-starts

    python -m benchmarks.rounds --dataset=synthetic --pool=50000 --strategy=margin,badge,coreset,bald --model=resnet18_thin --seeds=0,1,2,3 --pack=4 --n_start=10% --n_query=5% --n_end=15% --epochs=150 --no-starts   # one GPU, 240 s, continues
    python -m benchmarks.rounds --dataset=synthetic --pool=50000 --strategy=kmeans,uncertain_gcn,core_gcn,cluster_margin --model=resnet18_thin --seeds=0,1,2,3 --pack=4 --n_start=10% --n_query=5% --n_end=15% --epochs=150 --no-starts   # one GPU, 240 s, continues
    python -m benchmarks.rounds   # one GPU, 90 s

Several strategies share the first round and its compilation, as they do in one command of `jaxdal.main`. That round has
the least training of the protocol: a share of selection that holds there holds for the mean.
Rounds run in this process through `jaxdal.run_together`, and the seconds are those of its journal. Starts are processes of
their own, `python -m jaxdal.main` with the defaults, from the first import to the last line: cold with an empty cache
of compiled programs, then warm with the cache that the cold one has left.

With --out the tables are saved after each round and each start. The same command with the same code and device goes on
where it was ended, from its journals in OUT/unfinished, which it deletes at its end.
"""  # noqa: E501

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxdal
from benchmarks.timing import Report, Row, environment, rounded, seconds
from benchmarks.train_step import Table, publish
from jaxdal import journal, naming
from jaxdal.calls import names
from jaxdal.environment import describe, source
from jaxdal.errors import InputError
from jaxdal.journal import SECONDS
from jaxdal.metrics import at_once
from jaxdal.plan import steps_per_epoch
from jaxdal.types import Dataset

ROOT = Path(__file__).parent.parent
MNIST, CIFAR = (28, 28, 1), (32, 32, 3)
OPTIONS = ("model", "n_start", "n_query", "n_end", "epochs", "batch", "precision", "pack")  # handed on to the run
EVERY = 2.0  # seconds from one look at the journals to the next
CACHES = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")


def synthetic(shape: tuple[int, int, int], pool: int) -> Dataset:
    """Noise around one random pattern per class: learnt at once, in the shape and number of a real data set."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 128, (10, *shape), np.uint8)

    def draw(size: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, 10, size)
        return patterns[labels] + rng.integers(0, 128, (size, *shape), np.uint8), labels

    return jaxdal.from_arrays(*draw(pool), *draw(max(pool // 6, 10)), num_classes=10)


def rounds(options: argparse.Namespace, folder: Path, report: Report) -> dict[str, list[Row]]:
    """Run or continue the command: -> of every strategy a row per round, with the seconds of its runs together.

    folder: of the journals. The report is saved whenever they have grown.
    """
    strategies = names(options.strategy)
    folders = {name: folder / naming.folder(name) for name in strategies}
    before = {name: rows_of(place) for name, place in folders.items()}
    if any(before.values()):
        report.where["continued"] = told(before)
    seen = before

    def look() -> None:
        nonlocal seen
        found = {name: rows_of(place) for name, place in folders.items()}
        if options.out and found != seen:
            seen = found
            report.tables, report.where["partial"] = tables(options.dataset, found), told(found)
            report.save(options.out)

    chosen: dict[str, Any] = {name: getattr(options, name) for name in OPTIONS if getattr(options, name) is not None}
    dataset: str | Dataset = options.dataset
    if dataset == "synthetic":
        dataset = synthetic(CIFAR if str(options.model).startswith("resnet") else MNIST, options.pool)
    with watched(look):
        results = jaxdal.run_together(dataset, strategies, workdirs=folder, seeds=options.seeds, quiet=True, **chosen)
    report.where.pop("partial", None)
    return {
        name: [round_row(result.header["config"], group) for group in result.groups]
        for name, result in zip(strategies, results, strict=True)
    }


def rows_of(folder: Path) -> list[Row]:
    """Return a row for each round of a journal, which may be in use, or not be there yet."""
    try:
        header, groups = journal.read(folder)
    except InputError:
        return []
    return [round_row(header["config"], group) for group in groups]


def told(found: Mapping[str, Sequence[Row]]) -> str:
    """Say how far strategies are."""
    return ", ".join(f"{name}: {len(rows)} rounds" for name, rows in found.items())


@contextlib.contextmanager
def watched(look: Callable[[], None]) -> Iterator[None]:
    """Call a function now and then while something runs that calls nobody, and once more at its end, be it good or bad.

    What ends a command for good gives no notice, and no Python runs while a program is compiled.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(EVERY):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        look()


@contextlib.contextmanager
def workdir(options: argparse.Namespace) -> Iterator[Path]:
    """Give a folder for journals: of this command, code and device, below --out, where it stays if all does not end."""
    if not options.out:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    this = [vars(options) | {"out": None}, describe(jax.devices()) | {"commit": None}, source()]
    digest = hashlib.sha256(json.dumps(this, sort_keys=True).encode()).hexdigest()[:8]
    kept = Path(options.out) / "unfinished"
    yield kept / digest
    shutil.rmtree(kept / digest)
    with contextlib.suppress(OSError):  # another command has not ended either
        kept.rmdir()


def round_row(config: Row, group: Sequence[Row]) -> Row:
    """Return the seconds, rates and shares of one round. group: its journal lines."""
    # Each line of a pack has the seconds of the whole pack, in which there may be runs of other strategies.
    spent = {stage: sum(line["seconds"][stage] / at_once(line, stage) for line in group) for stage in SECONDS}
    labelled, runs = group[0]["labelled"], len(group)
    trained = runs * config["epochs"] * steps_per_epoch(labelled, config["batch"]) * config["batch"]
    selection = spent["infer"] + spent["select"]
    queried = bool(group[0].get("picks"))  # the last round buys nothing
    row: Row = {"round": group[0]["round"], "labels": labelled, "runs": runs}
    row |= {stage: rounded(value) for stage, value in spent.items()}
    row["train images/s"] = rounded(trained / spent["train"]) if spent["train"] > 0 else None
    row["score images/s"] = rounded(runs * config["pool"] / spent["infer"]) if spent["infer"] > 0 and queried else None
    row["selection %"] = rounded(100 * selection / (spent["train"] + selection)) if queried else None
    return row


def total(rows: Sequence[Row]) -> Row:
    """Return the sums over all rounds."""
    whole: Row = {stage: rounded(sum(row[stage] for row in rows)) for stage in SECONDS}
    selection = whole["infer"] + whole["select"]
    return {**whole, "selection %": rounded(100 * selection / (whole["train"] + selection))}


def tables(dataset: str, found: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """Return a table for each strategy that has finished a round, and the sums."""
    begun = {name: [*rows] for name, rows in found.items() if rows}
    made = {f"Rounds: {dataset}, {name}; seconds per stage": rows for name, rows in begun.items()}
    return made | {"All rounds": [{"strategy": name, **total(rows)} for name, rows in begun.items()]}


def starts(flags: Sequence[str], module: str = "jaxdal.main") -> Iterator[Table]:
    """Time the command from its start to its end: cold, then warm. module: what `python -m` starts."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        inherited = {key: value for key, value in os.environ.items() if key not in CACHES}
        environ = {**inherited, "XDG_CACHE_HOME": folder, "MPLCONFIGDIR": f"{folder}/matplotlib"}
        for name in ("cold", "warm"):
            place = Path(folder) / name
            command = [sys.executable, "-m", module, f"--workdir={place}", *flags]
            go = partial(subprocess.run, command, cwd=ROOT, env=environ, check=True, capture_output=True)
            whole = seconds(go)
            lines = [json.loads(line) for line in (place / "journal.jsonl").read_text().splitlines()]
            spent = [line["seconds"] for line in lines if "seconds" in line]
            stages = {stage: rounded(sum(one[stage] for one in spent)) for stage in SECONDS}
            rows.append({"start": name, "seconds": rounded(whole), **stages})
            yield rows, f"{len(rows)} of 2 starts"


def main(argv: Sequence[str]) -> Report:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rounds", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--dataset", default="digits", help="as jaxdal.main, or synthetic")
    parser.add_argument("--strategy", default="margin", help="of several, with commas, a table each")
    parser.add_argument("--seeds", type=lambda text: [int(n) for n in text.split(",")], default=[0])
    for name in OPTIONS:
        kind = int if name in ("epochs", "batch", "pack") else str
        parser.add_argument(f"--{name}", type=kind, help="as jaxdal.main")
    parser.add_argument("--pool", type=int, default=60_000, help="images of --dataset=synthetic")
    parser.add_argument("--starts", action=argparse.BooleanOptionalAction, default=True, help="time cold and warm ones")
    parser.add_argument("--start_flags", default="", help="flags for the command that is started; default: none")
    parser.add_argument("--out", help="folder for rounds.json and rounds.md")
    options = parser.parse_args(argv)
    report = Report("rounds", environment(argv, "benchmarks.rounds"))
    with workdir(options) as folder:
        found = rounds(options, folder, report)
        for title, rows in tables(options.dataset, found).items():
            report.table(title, rows)
        if options.out:
            report.save(options.out)
        if options.starts:
            command = f"python -m jaxdal.main {options.start_flags}".strip()
            title = f"{command}: seconds from start to end, and of its stages"
            publish(report, title, starts(options.start_flags.split()), options.out)
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
