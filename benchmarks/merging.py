"""From the folder of a queue into the repository: small files, by device, and new figures beside the committed ones."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.queueing import KINDS, ROOT
from benchmarks.timing import Row, rounded
from jaxdal import journal, report
from jaxdal.errors import InputError

FIGURES = ("images/s", "train images/s", "s", "seconds", "error")  # the one of a row that is compared, by preference
LARGE = 1_000_000  # bytes; a file that is larger is named

Figures = dict[tuple[Any, ...], float]


def results(out: Path) -> Iterator[tuple[Path, str, Path]]:
    """Yield every file of results that can be merged, its device, and its place in the repository.

    What was stopped counts too: tables say how far they are, and the rounds of a journal are whole.
    """
    for kind in KINDS:
        for folder in sorted(path for path in (out / kind).glob("*") if path.is_dir()):
            device = next(filter(None, map(device_of, measured(folder))), None)
            for path in sorted(folder.rglob("*")):
                kept = path.name == journal.NAME or path.suffix in (".json", ".md")
                if device and kept and len(path.relative_to(folder).parts) <= 2:  # deeper: checkpoints
                    yield path, device, Path(kind) / "results" / device / path.relative_to(out / kind)
    journals = sorted((out / "paper").rglob(journal.NAME))
    devices = {path: device for path in journals if (device := device_of(path))}
    for path, device in devices.items():
        yield path, device, Path("experiments/results") / device / path.relative_to(out)
    for path in sorted((out / "paper/reports").glob("*")):
        for device in list(devices.values())[:1]:
            yield path, device, Path("experiments/results") / device / path.relative_to(out)


def measured(folder: Path) -> list[Path]:
    """Return the files that have figures."""
    return sorted([*folder.glob("*.json"), *folder.glob(journal.NAME), *folder.glob(f"*/{journal.NAME}")])


def device_of(path: Path) -> str | None:
    """Name the device that a file's figures come from, for a folder: "nvidia_h100_80gb_hbm3"."""
    try:
        if path.name == journal.NAME:
            device = journal.read(path.parent)[0]["environment"]["devices"][0]
        else:
            device = re.sub(r"^\d+ x | \(\w+\)$", "", json.loads(path.read_text())["device"])
    except (KeyError, ValueError, OSError, InputError):
        return None
    return re.sub(r"\W+", "_", device.lower()).strip("_")


def figures(path: Path) -> Figures:
    """Return (table, figure, row...) -> number: one of each row; of a journal, accuracy and seconds of every round."""
    found: Figures = {}
    if path.name == journal.NAME:
        _, groups = journal.read(path.parent)
        for row in report.summary(groups):
            found[path.parent.name, "accuracy %", row.labelled] = 100 * row.accuracy
            found[path.parent.name, "train s", row.labelled] = row.seconds["train"]
        return found
    for title, rows in json.loads(path.read_text())["tables"].items():
        for row in rows:
            numbers = [column for column, value in row.items() if isinstance(value, float)]
            column = next((name for name in (*FIGURES, *numbers) if name in numbers), None)
            if column is not None:
                which = [str(value) for value in row.values() if isinstance(value, str | int)]
                found[title, column, *which] = row[column]
    return found


def compare(out: Path, repository: Path = ROOT) -> list[Row]:
    """Put every figure beside the one of the same device that the repository has."""
    rows: list[Row] = []
    for path, device, place in results(out):
        if path.name != journal.NAME and path.suffix != ".json":
            continue
        old = figures(repository / place) if (repository / place).exists() else {}
        for key, value in figures(path).items():
            before = old.get(key)
            rows.append({
                "device": device, "item": "/".join(place.parent.parts[3:]), "row": " ".join(map(str, key[2:])),
                "figure": key[1], "now": rounded(value),
                "committed": None if before is None else rounded(before),
                "now / committed": rounded(value / before) if before else None,
            })  # fmt: skip
    return rows


def merge(out: Path, repository: Path = ROOT) -> list[Path]:
    """Copy tables and journals to their places: -> those places. Weights never; what is large is named."""
    places = []
    for path, _, place in results(out):
        target = repository / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        places.append(place)
        if path.stat().st_size > LARGE:
            print(f"{place}: {path.stat().st_size / 1e6:.1f} MB")
    return places
