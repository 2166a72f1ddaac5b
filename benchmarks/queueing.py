"""Working through a list of commands within a time limit, over several calls: what is done, and what is left."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import string
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxdal.cost import now
from jaxdal.files import replacing, write_text

ROOT = Path(__file__).parent.parent
KINDS = ("benchmarks", "experiments")
ALLOWANCE = 180.0  # seconds that must be left for a command that cannot be continued
LEAST = 60.0  # and for one that can
GRACE = 10.0  # seconds that a command has to end in when it is told to
SMALL = 4_000_000  # bytes of a file that goes into the archive
PARTS, PART = 3, 15_000_000  # files of compiled programs beside the archive, and bytes of each
# arguments of Python, log, seconds -> exit code, or None if it was ended
Start = Callable[[Sequence[str], Path, float], int | None]


class Item(NamedTuple):
    """A command, and where its results go: a folder of its name."""

    name: str
    command: tuple[str, ...]  # of Python; {folder}, {data} and {out} are replaced
    data: str = ""  # the data set that it needs
    continues: bool = False  # where it was stopped: an experiment; others begin anew
    keeps: bool = False  # a benchmark that goes on all the same
    least: float = 0.0  # seconds that must be left for it; 0: as many as for others of its kind

    def folder(self, out: Path) -> Path:
        """Where its results go."""
        return out / KINDS[self.continues] / self.name


class Notes:
    """What is known about every item, in out/state.json."""

    def __init__(self, out: Path, here: dict[str, str] | None = None) -> None:
        """here: device and code that a note must be of; what was done with another one is not done."""
        self._path, self._here = out / "state.json", here or {}
        self._notes: dict[str, dict[str, Any]] = json.loads(self._path.read_text()) if self._path.exists() else {}

    def of(self, item: Item) -> dict[str, Any]:
        """Return status ("waiting", "done", "failed" or "stopped"), seconds of all tries, and of the longest one."""
        note = self._notes.get(item.name, {})
        same = {"command": list(item.command), **self._here}.items() <= note.items()  # another command is another item
        return note if same else {"status": "waiting", "seconds": 0.0, "longest": 0.0}

    def write(self, item: Item, status: str, seconds: float) -> None:
        """Keep how a try ended; the file is replaced as a whole."""
        before = self.of(item)
        longest = max(before["longest"], seconds)
        told = {"status": status, "seconds": round(before["seconds"] + seconds, 1), "longest": round(longest, 1)}
        self._notes[item.name] = {**told, "command": list(item.command), **self._here}
        write_text(self._path, json.dumps(self._notes, indent=1) + "\n")


def work(
    items: Iterable[Item], out: Path, data: Sequence[str], until: float, *, start: Start | None = None,
    clock: Callable[[], float] = now, retry: bool = False, after: Callable[[], None] = lambda: None,
    here: dict[str, str] | None = None,
) -> None:  # fmt: skip
    """Start one item after another while there is time for it. data: the data sets that are there; until: by `clock`.

    An item that does not fit is passed over for later ones that do. One that was ended for lack of time and cannot go
    on is started again only if there is more time than it had. retry: what failed is started again. after: is
    called whenever an item has ended. here: as for `Notes`.
    """
    notes, start = Notes(out, here), start or run
    for item in items:
        note = notes.of(item)
        if note["status"] == "done" or (note["status"] == "failed" and not retry):
            continue
        if item.data and item.data not in data:
            print(f"{item.name}: waits for {item.data}.npz", flush=True)
            continue
        left = until - clock() - GRACE
        enough = item.least or (LEAST if item.continues else ALLOWANCE)
        if left < (enough if item.continues or item.keeps else max(enough, note["longest"] + 1)):
            continue
        folder, begin = item.folder(out), clock()
        folder.mkdir(parents=True, exist_ok=True)
        log = out / "logs" / f"{item.name.replace('/', '-')}.txt"
        log.parent.mkdir(exist_ok=True)
        code = start([part.format(folder=folder, data=out / "data", out=out) for part in item.command], log, left)
        status = "stopped" if code is None else "failed" if code else "done"
        notes.write(item, status, clock() - begin)
        print(f"{item.name}: {status} after {clock() - begin:.0f} s{f', see {log}' if code else ''}", flush=True)
        after()


def run(command: Sequence[str], log: Path, seconds: float) -> int | None:
    """Run Python in a process group of its own, which is ended when the time is over or this process is."""
    out = log.parent.parent
    environ = {
        **os.environ,
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # of torch, which is measured in the same process, some memory too
        # The first of several: figures are those of one, and are kept with and compared to those of one.
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0],
        "JAX_COMPILATION_CACHE_DIR": str(out / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONUNBUFFERED": "1",
    }
    with log.open("ab") as file:
        child = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=environ, stdout=file, stderr=subprocess.STDOUT, process_group=0
        )
        try:
            return child.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            end(child)


def end(child: "subprocess.Popen[bytes]") -> None:
    """End a process group: politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)


def collect(source: Path | None, kept: Path, names: Iterable[str]) -> list[str]:
    """Copy NAME.npz, or its parts, into a folder that is kept: -> the data sets that are whole there.

    Parts are named as `split -b 55M NAME.npz NAME.npz.part-` does. They may come one call after another, and are joined
    in the order of their names as soon as they make a whole archive.
    """
    kept.mkdir(parents=True, exist_ok=True)
    for name in names:
        target = kept / f"{name}.npz"
        if source is not None and source.resolve() != kept.resolve() and not target.exists():
            for path in [*source.glob(target.name), *source.glob(f"{target.name}.part-??")]:
                with replacing(kept / path.name) as partial:
                    shutil.copyfile(path, partial)
        parts = sorted(kept.glob(f"{target.name}.part-??"))
        letters = ("".join(pair) for pair in itertools.product(string.ascii_lowercase, repeat=2))
        if target.exists() or any(not part.name.endswith(pair) for part, pair in zip(parts, letters, strict=False)):
            continue
        joined = kept / "joined.partial"
        with joined.open("wb") as file:
            for part in parts:
                with part.open("rb") as piece:
                    shutil.copyfileobj(piece, file)
        if not whole(joined):
            joined.unlink()
            continue
        os.replace(joined, target)
        for part in parts:
            part.unlink()
    return [name for name in names if (kept / f"{name}.npz").exists()]


def whole(path: Path) -> bool:
    """Is this a complete .npz file? It is a zip archive, which has its length at its end, and checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError):
        return False


def small_files(out: Path) -> list[Path]:
    """Return what is worth taking away: notes, logs, tables, journals and what strategies remember; no weights."""
    paper = ("paper/reports/*", *(f"paper/**/{name}" for name in ("journal.jsonl", "memory_*.npz", "measures_*.json")))
    depths = (
        "state.json",
        "device.json",
        "logs/*",
        *(f"{kind}/{depth}" for kind in KINDS for depth in ("*/*", "*/*/*")),
        *(f"benchmarks/*/unfinished/*/*/{name}" for name in ("journal.jsonl", "memory_*.npz")),
        *paper,
    )
    found = (path for depth in depths for path in out.glob(depth))
    whole = (path for path in found if path.is_file() and path.suffix != ".partial")
    return sorted(path for path in whole if path.stat().st_size <= SMALL)


def programs(out: Path) -> Iterator[list[Path]]:
    """Yield the newest compiled programs, as many as fit into a part, and again."""
    found = sorted((out / "programs").glob("*-cache"), key=lambda path: path.stat().st_mtime, reverse=True)
    part, size = list[Path](), 0
    for path in found:
        needs = path.stat().st_size + 2048  # with its header in a .tar
        if part and size + needs > PART:
            yield part
            part, size = [], 0
        if needs <= PART:
            part, size = [*part, path], size + needs
    yield part


def pack(out: Path, archive: Path) -> None:
    """Write the small files into one .tar.gz, from which another machine can continue; compiled programs beside it."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    parts = {
        archive.with_name(f"programs-{n}.tar"): part for n, part in enumerate(itertools.islice(programs(out), PARTS))
    }
    for place, paths in {archive: small_files(out), **parts}.items():
        with replacing(place) as partial, tarfile.open(partial, "w:gz" if place == archive else "w") as file:
            for path in paths:
                file.add(path, path.relative_to(out))
