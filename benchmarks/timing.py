"""What the benchmarks share: measuring, tables, and the lines that say where figures come from."""

import contextlib
import datetime
import json
import math
import multiprocessing
import os
import platform
import resource
import shlex
import statistics
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxdal.cost import now
from jaxdal.environment import PACKAGES, describe
from jaxdal.files import write_text

Row = dict[str, Any]  # column -> text, a number, or None for what was not measured


class Timing(NamedTuple):
    """Seconds of one piece of work, measured several times."""

    samples: tuple[float, ...]
    busy: tuple[float, ...]  # seconds of this process on all cores: what other programs disturb least

    @property
    def median(self) -> float:
        """The figure to quote."""
        return statistics.median(self.samples)

    @property
    def least(self) -> float:
        """The measurement that other programs disturbed least."""
        return min(self.samples)

    @property
    def median_busy(self) -> float:
        """Processor seconds; on a machine that is shared, the fairer comparison of two programs on a CPU."""
        return statistics.median(self.busy)


def seconds(work: Callable[[], Any]) -> float:
    """Time `work` once; it must wait for what it computes."""
    begin = now()
    work()
    return now() - begin


def processor_seconds() -> float:
    """Return the seconds that all threads of this process, and workers that it has started, have computed for."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    workers = 0
    for child in multiprocessing.active_children():  # not in RUSAGE_CHILDREN, which counts those that have ended
        with contextlib.suppress(OSError):  # it has ended just now
            fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
            workers += int(fields[11]) + int(fields[12])
    return usage.ru_utime + usage.ru_stime + workers / os.sysconf("SC_CLK_TCK")


def measure(works: Sequence[Callable[[], Any]], repeats: int) -> list[Timing]:
    """Time pieces of work that are warm already, in turns, so that all see the same disturbances of the machine."""
    samples: list[list[float]] = [[] for _ in works]
    busy: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for place, work in enumerate(works):
            begin = processor_seconds()
            samples[place].append(seconds(work))
            busy[place].append(processor_seconds() - begin)
    return [Timing(tuple(wall), tuple(cpu)) for wall, cpu in zip(samples, busy, strict=True)]


def joined(timings: Sequence[Timing]) -> Timing:
    """Return all measurements of one piece of work together."""
    return Timing(*(tuple(each for timing in timings for each in timing[part]) for part in (0, 1)))


def environment(argv: Sequence[str], module: str, packages: Sequence[str] = ()) -> Row:
    """Return all that a figure must be read with: devices, versions, date, load, command."""
    versions = {name: _version(name) for name in ("jaxdal", *PACKAGES, *packages)}
    devices = jax.devices()
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
        "device": f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})",
        "machine": f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {platform.system()} {platform.release()}",
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        "python": platform.python_version(),
        "commit": describe(devices)["commit"] or "unknown",
        "command": shlex.join(["python", "-m", module, *argv]),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # jaxdal itself on a rented machine, where it runs from its folder
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


class Report:
    """Lines that say where the figures come from, then tables; printed as they come, and kept for `save`."""

    def __init__(self, name: str, where: Row) -> None:
        """name: of the files that `save` writes."""
        self.name, self.where = name, where
        self.tables: dict[str, list[Row]] = {}
        for key, value in where.items():
            print(f"{key + ':':10}{value}", flush=True)

    def table(self, title: str, rows: list[Row]) -> None:
        """Print a table and keep it."""
        self.tables[title] = rows
        print(f"\n{title}\n{markdown(rows)}", flush=True)

    def save(self, folder: str | Path) -> None:
        """Write NAME.json and NAME.md."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        load = " ".join(f"{load:.1f}" for load in os.getloadavg())
        content = {**self.where, "load at the end": load, "tables": self.tables}
        write_text(folder / f"{self.name}.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
        head = [f"- {key}: {value}" for key, value in content.items() if key != "tables"]
        parts = [f"## {title}\n\n{markdown(rows)}" for title, rows in self.tables.items()]
        (folder / f"{self.name}.md").write_text("\n\n".join(["\n".join(head), *parts]) + "\n")


def markdown(rows: Sequence[Row]) -> str:
    """Return a table with aligned columns, text to the left and numbers to the right."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [columns, *([cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    words = [any(isinstance(row.get(column), str) for row in rows) for column in columns]
    lines = [
        "| "
        + " | ".join(c.ljust(w) if left else c.rjust(w) for c, w, left in zip(line, widths, words, strict=True))
        + " |"
        for line in cells
    ]
    rule = "|" + "|".join("-" * (w + 1) + ("-" if left else ":") for w, left in zip(widths, words, strict=True)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def cell(value: Any) -> str:
    """Write a number with the digits that a measurement has: three, and no fewer than it takes before the point."""
    if value is None:
        return "-"
    if isinstance(value, float):
        if 0 < abs(value) < 1e-4:
            return f"{value:.1e}"
        digits = 2 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:,.{min(digits, 4)}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def rounded(value: float) -> float:
    """Return a number to five digits, for files that people read."""
    return float(f"{value:.5g}")
