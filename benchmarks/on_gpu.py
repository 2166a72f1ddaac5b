"""One queue for scarce time on an accelerator: what is most worth knowing first, continued over calls.

    python -m benchmarks.on_gpu --list
    python -m benchmarks.on_gpu --minutes=9 --out=/tmp/queue --data=carry --archive=queue.tar.gz
    python -m benchmarks.on_gpu --merge=queue.tar.gz      # at home: into benchmarks/results and experiments/results
    python -m benchmarks.on_gpu --toy --out=/tmp/toy      # the same in small, on a CPU

The order is ORDER: does it compute the right numbers; steps, packs, MixMatch and selection beside the rivals, with the
figures that have a target first (every command that the docstring of a benchmark marks `# one GPU`, perhaps with the
seconds that it must have left, and with `continues` if it goes on where it was ended); does it learn what the published
runs learnt; whole rounds; the rest; then tables and figures of the paper, whose journals and reports are in OUT/paper.
A call skips what an earlier one has completed with the same code on the same device, starts nothing that it has no time
for, continues half-done experiments, and prints every new figure beside the committed one of the same device. Where JAX
finds no accelerator, nothing is started.
README.md in this folder has the commands of a session.
"""

import argparse
import ast
import json
import re
import signal
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import merging
from benchmarks.queueing import ROOT, Item, Notes, collect, pack, run, work
from benchmarks.timing import Row, markdown
from jaxdal import environment
from jaxdal.cost import now
from jaxdal.strategies import STRATEGIES, build
from jaxdal.trainers import TRAINERS

ORDER = (  # names, with *
    "portability", "train_step", "train_ssl_step", "select_coreset", "select_badge", "select_kmeans",
    "select_cluster_margin*", "learning_mnist", "convolution_forms", "portability_2", "rounds", "rounds_[23]",
    "train_step_2", "select_*", "learning_*", "*",
)  # fmt: skip
MARKED = re.compile(r"python -m (benchmarks\.\w+)( .*?)? +# one GPU(?:, (\d+) s)?(, continues)?$", re.MULTILINE)
CHECK = 120.0  # seconds that JAX has to find a device
LEARNING = {"mnist": "mnist", "cifar10_start": "cifar10", "cifar10_end": "cifar10"}  # check -> data set
PAPER = (  # table or figure, data set, seeds
    ("table3", "mnist", "0-4"), ("fig2", "mnist", "0-4"), ("fig4", "mnist", "0-4"), ("table3", "cifar10", "0"),
    ("table3", "gtsrb", "0"),
)  # fmt: skip


def benchmarks() -> Iterator[Item]:
    """Whatever the docstrings of this folder mark."""
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        found = MARKED.findall(ast.get_docstring(ast.parse(path.read_text())) or "")
        for number, (module, flags, least, again) in enumerate(found, 1):
            if module != f"benchmarks.{path.stem}":
                continue
            name = path.stem if number == 1 else f"{path.stem}_{number}"
            options = [flag for flag in flags.split() if not flag.startswith("--out=")]
            yield Item(name, ("-m", module, *options, "--out={folder}"), least=float(least or 0), keeps=bool(again))


def learning() -> Iterator[Item]:
    """Accuracies beside those of the published runs."""
    for check, data in LEARNING.items():
        flags = (f"--checks={check}", "--data_dir={data}", "--results={folder}")
        yield Item(f"learning_{check}", ("-m", "experiments.check_learning", *flags), data, continues=True)


def paper() -> Iterator[Item]:
    """Tables and figures, which share their runs; strategies that are trained alike train as one program."""
    for name, dataset, seeds in PAPER:
        flags = (f"--datasets={dataset}", f"--seeds={seeds}", "--data_dir={data}", "--results={out}/paper")
        yield Item(f"{name}_{dataset}", ("-m", f"experiments.{name}", *flags), dataset, continues=True)


def others(dataset: str) -> Iterator[Item]:
    """Trainers that no strategy was made for, on random labels."""
    named = {build(name).trainer for name in STRATEGIES}
    for trainer in (name for name in TRAINERS if name not in named):
        command = (
            "-m", "jaxdal.main", f"--dataset={dataset}", "--strategy=random", f"--trainer={trainer}",
            "--seeds=0,1,2,3,4", "--data_dir={data}", "--workdir={folder}", "--checkpoint_seconds=60",
        )  # fmt: skip
        yield Item(f"{dataset}_{trainer}", command, dataset, continues=True)


def everything() -> list[Item]:
    """The list, in order."""

    def place(item: Item) -> int:
        return next(place for place, pattern in enumerate(ORDER) if fnmatch(item.name, pattern))

    return [*sorted([*benchmarks(), *learning()], key=place), *paper(), *others("mnist")]


def toy() -> list[Item]:
    """An item of each kind, small enough for a CPU."""
    step = "--batch=4 --runs=1,2 --steps=2 --repeats=2 --pool=32 --labels=16 --rivals=none"
    pool = "--n=300 --k=5 --labelled=30"
    table = ("--datasets=digits", "--scale=smoke", "--strategies=random,margin", "--results={out}/paper")
    return [
        Item("train_step", ("-m", "benchmarks.train_step", *step.split(), "--out={folder}")),
        Item("select_coreset", ("-m", "benchmarks.select_coreset", *pool.split(), "--out={folder}")),
        Item("table3_digits", ("-m", "experiments.table3", *table), continues=True),
    ]


def found_here(out: Path, cpu: bool) -> dict[str, Any]:
    """Ask JAX, in a process of its own, for its device: -> what `benchmarks.device` says, if it is worth the time.

    cpu: one will do.
    """
    path, log = out / "device.json", out / "logs/device.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    for old in (path, log):
        old.unlink(missing_ok=True)
    code = run(("-m", "benchmarks.device", str(path)), log, CHECK)
    found: dict[str, Any] = json.loads(path.read_text()) if code == 0 else {"device": log.read_text()}
    print(*(f"{key}: {found[key]}" for key in ("device", "versions", "commit") if key in found), sep="\n", flush=True)
    if code != 0 or ("(cpu)" in found["device"] and not cpu):
        print("no accelerator: nothing is started", file=sys.stderr, flush=True)
        sys.exit(2)
    return found


def show(items: Sequence[Item], out: Path | None, here: dict[str, str] | None = None) -> None:
    """Print the list with what is known about each item."""
    notes = Notes(out, here) if out else None
    rows: list[Row] = []
    for item in items:
        note = notes.of(item) if notes else {"status": "waiting", "seconds": 0.0}
        seconds = note["seconds"] or None
        rows.append({"item": item.name, "needs": item.data or None, "status": note["status"], "seconds": seconds})
    print(markdown(rows))


def taken_back(source: Path) -> None:
    """Compare and merge the folder of a queue, or its archive."""
    with tempfile.TemporaryDirectory() as unpacked:
        if source.is_file():
            with tarfile.open(source) as archive:
                archive.extractall(unpacked, filter="data")
            source = Path(unpacked)
        print(markdown(merging.compare(source)))
        places = merging.merge(source)
    print(f"merged {len(places)} files:", *sorted({str(place.parent) for place in places}), sep="\n")


def main(argv: Sequence[str]) -> None:
    """Work, or list, or merge."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.on_gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=9, help="to work for")
    parser.add_argument("--out", type=Path, help="folder that is kept from call to call")
    parser.add_argument("--data", type=Path, help="folder of NAME.npz or NAME.npz.part-aa, -ab...")
    parser.add_argument(
        "--archive",
        type=Path,
        help="a .tar.gz for the small files, with compiled programs beside it; written after every item",
    )
    parser.add_argument("--only", default="*", help="names of items, with * and commas")
    parser.add_argument("--retry", action="store_true", help="start again what failed")
    parser.add_argument("--toy", action="store_true", help="another list, for a CPU")
    parser.add_argument("--list", action="store_true", help="print the list and what is done")
    parser.add_argument("--merge", type=Path, help="folder or archive of a queue, to be copied into the repository")
    options = parser.parse_args(argv)
    begin = now()
    if options.merge:
        taken_back(options.merge)
        return
    patterns = options.only.split(",")
    items = [
        item for item in (toy() if options.toy else everything()) if any(fnmatch(item.name, each) for each in patterns)
    ]
    if options.list:
        show(items, options.out)
        return
    if options.out is None:
        parser.error("--out is missing: the folder that is kept from call to call")
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the item in progress is ended as well
    after = partial(pack, out, options.archive) if options.archive else lambda: None
    found = found_here(out, cpu=options.toy)
    here = {"device": found["device"], "source": environment.source()}
    if found["checkpoints"]:
        print(f"no experiments, since checkpoints do not work here: {found['checkpoints']}", flush=True)
        items = [item for item in items if not item.continues]
    try:
        needed = dict.fromkeys(item.data for item in items if item.data)
        data = collect(options.data, out / "data", needed)
        work(items, out, data, begin + 60 * options.minutes, retry=options.retry, after=after, here=here)
    finally:
        after()
    show(items, out, here)
    if rows := merging.compare(out):
        print(markdown(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
