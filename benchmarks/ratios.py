"""The targets beside what was measured, and everything that was measured beside its rivals: one command, no clock.

    python -m benchmarks.ratios                              # of what is committed
    python -m benchmarks.ratios --run                        # measure what is missing first; on a CPU, in small
    python -m benchmarks.ratios --run --minutes=9 --keep=/tmp/ratios   # continued from call to call
    python -m benchmarks.ratios --out=benchmarks/results/ratios.md

Figures come from the JSON files that other benchmarks write with --out and `on_gpu --merge` puts into results/DEVICE.
A ratio has both its sides from one run, which one file is; sides of two runs are refused. `by cpu` is the same ratio in
processor seconds, the fairer one where other programs share a CPU, and nothing where a GPU does the work.
"""

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from benchmarks import merging, on_gpu
from benchmarks.queueing import ROOT, Item, work
from benchmarks.targets import OWN, TARGETS, UNITS, Target
from benchmarks.timing import Row, cell, markdown, rounded
from jaxdal import journal
from jaxdal.cost import now
from jaxdal.journal import SECONDS
from jaxdal.metrics import at_once

ABOUT = ("machine", "load", "load at the end", "versions", "command", "partial")
METHODS = 19  # of the paper, in the column that has a target


class Run(NamedTuple):
    """One run of a benchmark, as it described itself."""

    path: Path
    device: str
    date: str
    commit: str
    about: Row  # the rest: machine, load, versions, command
    tables: dict[str, list[Row]]


class Figure(NamedTuple):
    """A number, its unit, and the run that it was measured in."""

    value: float
    unit: str
    run: Run
    busy: float | None = None  # processor seconds of the same work

    def __str__(self) -> str:
        return f"{cell(self.value)} {self.unit}".strip()


# On a CPU: what ends in minutes. The larger marks are for a GPU, whose list is that of benchmarks.on_gpu.
ON_CPU = {
    "train_step": ("train_step", "--model=lenet --batch=64 --runs=1,5 --steps=32 --repeats=5 --rivals=eager,loader"),
    "train_ssl_step": ("train_ssl_step", "--model=lenet --batch=64 --steps=16 --repeats=3 --rivals=eager,loader"),
    **{f"select_{name}": (f"select_{name}", "--n=5000 --d=128 --k=100") for name in ("coreset", "badge", "kmeans")},
    "select_cluster_margin": ("select_cluster_margin", "--rows=4000 --width=128"),
    "rounds": ("rounds", ""),
}


def runs(folder: Path) -> list[Run]:
    """Read all results under a folder, the newest first."""
    found = []
    for path in sorted(folder.rglob("*.json")):
        content = json.loads(path.read_text())
        if "tables" not in content or "device" not in content:
            continue
        about = {key: content[key] for key in ABOUT if key in content}
        found.append(
            Run(path, content["device"], content["date"], content.get("commit", "-"), about, content["tables"])
        )
    return sorted(found, key=lambda run: run.date, reverse=True)


def ratio(ours: Figure, theirs: Figure) -> float:
    """How many times as fast as theirs ours is; of a ratio of our own steps, as slow.

    Raises:
        ValueError: the two were not measured in one run, or not in one unit.
    """
    if ours.run is not theirs.run:
        raise ValueError(f"two runs make no ratio: {ours.run.path} of {ours.run.date}, {theirs.run.path}")
    if ours.unit != theirs.unit:
        raise ValueError(f"{ours.unit} over {theirs.unit} is no ratio")
    return ours.value / theirs.value if ours.unit in ("images/s", "ms") else theirs.value / ours.value


def busy(row: Row) -> float | None:
    """Processor seconds per image or per selection."""
    if row.get("cpu ms") is not None:
        return float(row["cpu ms"]) / 1000 / (row["batch"] * row["runs"])
    return row.get("cpu s")


def figure(run: Run, row: Row, column: str) -> Figure:
    """Take a number out of a row."""
    return Figure(float(row[column]), UNITS[column], run, busy(row) if "(cpu)" in run.device else None)


def best(run: Run, rows: Sequence[Row], what: str, target: Target) -> Figure | None:
    """Return the best figure of the rows that fit."""
    fitting = [row for row in rows if re.match(what, str(row.get("what", ""))) and target.where(row)]
    figures = [figure(run, row, target.column) for row in fitting if row.get(target.column) is not None]
    if target.total and figures:
        return figures[0]._replace(value=sum(one.value for one in figures))
    return max(figures, key=lambda one: one.value if one.unit == "images/s" else -one.value, default=None)


def measured(target: Target, found: Sequence[Run]) -> Iterator[tuple[Figure, Figure | None]]:
    """Yield (ours, theirs) of the newest run of every device that has what the target asks for."""
    seen = set()
    for run in found:
        if run.device in seen or not run.path.stem.startswith(target.name):
            continue
        if not (re.search(target.command, str(run.about["command"])) and re.search(target.device, run.device)):
            continue
        rows = [row for title, table in run.tables.items() if re.search(target.title, title) for row in table]
        ours = best(run, rows, target.ours, target)
        theirs = best(run, rows, target.rival, target) if target.rival else None
        if ours and (theirs or not target.rival):
            seen.add(run.device)
            yield ours, theirs


def source(run: Run, folder: Path) -> Row:
    """Where a figure comes from: the last columns of its row."""
    place = str(run.path.relative_to(folder)) if run.path.is_relative_to(folder) else str(run.path)
    load = str(run.about.get("load") or "").split()
    return {
        "device": run.device,
        "load": load[0] if load else None,
        "date": run.date[:16],
        "commit": run.commit,
        "from": place,
    }


def verdict(target: Target, value: float, run: Run) -> str:
    """Is a target met? Where it was missed while other programs had the processors, nobody knows."""
    if target.met(value):
        return "yes"
    cores, load = re.search(r"(\d+) cores", str(run.about.get("machine"))), str(run.about.get("load") or "").split()
    crowded = "(cpu)" in run.device and cores and load and float(load[0]) > 1.5 * int(cores.group(1))
    return "busy machine" if crowded else "no"


def targets(found: Sequence[Run], folder: Path) -> list[Row]:
    """Return a row per target and device; `-` where nothing has been measured."""
    rows: list[Row] = []
    for target in TARGETS:
        row: Row = {"what": target.what, "target": target.mark}
        lines = []
        for ours, theirs in measured(target, found):
            value = ratio(ours, theirs) if theirs else ours.value
            result: Row = {"ours": str(ours), "rival": theirs and str(theirs), "ratio": theirs and rounded(value)}
            lines.append({**row, **result, "met": verdict(target, value, ours.run), **source(ours.run, folder)})
        rows += lines or [
            {**row, **dict.fromkeys(("ours", "rival", "ratio", "met", "device", "load", "date", "commit", "from"))}
        ]
    return rows


def of_journals(folder: Path) -> list[Row]:
    """Return the rows of targets whose seconds are in journals of experiments, likewise."""
    rows: list[Row] = []
    for what, most, found, needed, unit in (
        (f"MNIST column, {METHODS} methods x 5 seeds x 10 rounds", 20, column_times(folder), METHODS, "methods"),
        ("CIFAR-10, 13 rounds, a supervised run of a pack", 3, run_times(folder), 1, "runs"),
    ):
        row: Row = {"what": what, "target": f"<= {most} min", "ours": None, "met": None}
        for run, minutes, count in found:
            met = ("yes" if minutes <= most else "no") if count >= needed else None
            rows.append({**row, "ours": f"{cell(minutes)} min, {count} {unit}", "met": met, **source(run, folder)})
        rows += [] if found else [row]
    return rows


def columns(folder: Path, dataset: str, rounds: int, seeds: int) -> Iterator[tuple[Run, list[tuple[Row, list[Row]]]]]:
    """Yield every device's column: configuration and lines of its experiments that have so many rounds and seeds."""
    for column in sorted([*folder.glob(f"*/paper/{dataset}"), *folder.glob(f"*/{dataset}")]):
        every = [journal.read(path.parent) for path in sorted(column.glob(f"*/{journal.NAME}"))]
        whole = [one for one in every if len(one[1]) >= rounds and len(one[0]["config"]["seeds"]) >= seeds]
        if whole:
            environment = whole[-1][0]["environment"]
            device, commit = ", ".join(environment["devices"]), environment.get("commit") or "-"
            lines = [(header["config"], [line for group in groups for line in group]) for header, groups in whole]
            yield Run(column, device, "-", commit, {}, {}), lines


def column_times(folder: Path) -> list[tuple[Run, float, int]]:
    """Return a device's MNIST column, the minutes of all its stages, and of how many strategies.

    Minutes are shared evenly by the runs of a pack; round 0, which strategies that are trained alike share, counts
    once, but for its compilation, which is counted too often: an upper bound.
    """
    result = []
    for run, experiments in columns(folder, "mnist", rounds=10, seeds=5):
        seconds, shared = 0.0, set[tuple[int, float]]()
        for line in (line for _, lines in experiments for line in lines):
            first = (line["seed"], line["seconds"]["train"])
            again = line["round"] == 0 and first in shared
            shared |= {first} if line["round"] == 0 else set()
            stages = [stage for stage in SECONDS if not (again and stage in ("train", "eval"))]
            seconds += sum(line["seconds"][stage] / at_once(line, stage) for stage in stages)
        result.append((run, seconds / 60, len(experiments)))
    return result


def run_times(folder: Path) -> list[tuple[Run, float, int]]:
    """Return a device's CIFAR-10 column, the mean minutes of a supervised run that shared packs, and of how many."""
    result = []
    for run, experiments in columns(folder, "cifar10", rounds=13, seeds=1):
        packed = [
            (config["seeds"], lines) for config, lines in experiments
            if config["trainer"] == "supervised" and max(line["runs_at_once"] for line in lines) > 1
        ]  # fmt: skip
        count = sum(len(seeds) for seeds, _ in packed)
        seconds = sum(
            line["seconds"][stage] / at_once(line, stage) for _, lines in packed for line in lines for stage in SECONDS
        )
        if count:
            result.append((run, seconds / 60 / count, count))
    return result


def beside_rivals(found: Sequence[Run], folder: Path) -> list[Row]:
    """Return a row per rival of every table that has one, with the best of ours."""
    rows: list[Row] = []
    for run in found:
        for title, table in run.tables.items():
            column = next((name for name in ("images/s", "s") if table and name in table[0]), None)
            if column is None or not any(str(row.get("what")).startswith(OWN) for row in table):
                continue
            own = [row for row in table if str(row["what"]).startswith(OWN)]
            own = [
                row for row in own if "mixmatch" in row["what"]
            ] or own  # a supervised step is no twin of a MixMatch one
            pick = max if column == "images/s" else min
            ours_row = pick(own, key=lambda row: row[column])
            ours = figure(run, ours_row, column)
            for row in table:
                if str(row["what"]).startswith(OWN) or row.get(column) is None:
                    continue
                theirs = figure(run, row, column)
                rows.append({
                    "what": title, "ours": f"{ours} ({ours_row['what']})", "rival": f"{theirs} ({row['what']})",
                    "ratio": rounded(ratio(ours, theirs)),
                    "by cpu": rounded(theirs.busy / ours.busy) if theirs.busy and ours.busy else None,
                    **source(run, folder),
                })  # fmt: skip
    return rows


def sources(found: Sequence[Run], folder: Path) -> list[Row]:
    """Return what every run said of itself."""
    return [{"from": source(run, folder)["from"], "device": run.device, **run.about} for run in found]


def needed(platform: str) -> list[Item]:
    """Return the benchmarks that the tables are made of: on an accelerator those marked `# one GPU`."""
    if platform == "cpu":
        return [
            Item(name, ("-m", f"benchmarks.{module}", *flags.split(), "--out={folder}"))
            for name, (module, flags) in ON_CPU.items()
        ]
    names = {target.name for target in TARGETS}
    return [item for item in on_gpu.everything() if item.command[1].removeprefix("benchmarks.") in names]


def run_missing(folder: Path, keep: Path, seconds: float) -> None:
    """Run what this device has no results of, while there is time, and copy the results. keep: for logs and notes."""
    keep.mkdir(parents=True, exist_ok=True)
    device = re.sub(r"\W+", "_", jax.devices()[0].device_kind.lower()).strip("_")
    whole = {run.path.parent for run in runs(folder / device) if "partial" not in run.about}
    items = [one for one in needed(jax.devices()[0].platform) if folder / device / one.name not in whole]
    work(items, keep, (), now() + seconds)
    for path, _, place in merging.results(keep):
        target = folder / place.relative_to("benchmarks/results")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def main(argv: Sequence[str]) -> dict[str, list[Row]]:
    """Print the tables; -> them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ratios", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--results", type=Path, default=ROOT / "benchmarks/results", help="folder of DEVICE/ITEM/*.json"
    )
    parser.add_argument("--experiments", type=Path, default=ROOT / "experiments/results", help="folder of DEVICE/mnist")
    parser.add_argument("--run", action="store_true", help="measure what this device has no results of")
    parser.add_argument("--minutes", type=float, default=60, help="of --run")
    parser.add_argument("--keep", type=Path, help="folder for logs of --run, and to continue from; default: a new one")
    parser.add_argument("--out", type=Path, help="a .md file for the tables")
    options = parser.parse_args(argv)
    if options.run:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the card's memory is for those that measure
        keep = options.keep or Path(tempfile.mkdtemp(prefix="ratios-"))
        print(f"logs: {keep / 'logs'}", flush=True)
        run_missing(options.results, keep.absolute(), 60 * options.minutes)
    found = runs(options.results)
    tables = {
        "Targets, for one H100 unless stated": [
            *targets(found, options.results),
            *of_journals(options.experiments),
        ],
        "Beside the rivals, all that was measured": beside_rivals(found, options.results),
        "Where the figures come from": sources(found, options.results),
    }
    text = "\n\n".join(f"## {title}\n\n{markdown(rows)}" for title, rows in tables.items() if rows)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(f"`python -m benchmarks.ratios {' '.join(argv)}`\n\n{text}\n")
    return tables


if __name__ == "__main__":
    main(sys.argv[1:])
