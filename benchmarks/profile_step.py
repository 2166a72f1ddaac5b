"""The training step from the inside: kernels, library calls, FLOPs and bytes of the compiled program; where the time goes.

    python -m benchmarks.profile_step --model=lenet --batch=64
    python -m benchmarks.profile_step --model=resnet18_thin --batch=8 --steps=2          # slow on a CPU
    python -m benchmarks.profile_step --trace=/tmp/trace      # kept: tensorboard --logdir=/tmp/trace, or xprof

    python -m benchmarks.profile_step --model=resnet18_thin --batch=256 --runs=4,1 --precision=bf16 --steps=256   # one GPU, 120 s

Counted is the program that `Engine.advance` runs on this device: of a loop over steps its body, which is one step. A
kernel is what XLA starts by itself, a fusion or a call of a library; on a GPU each is a launch. Bytes are those of the
operands and results of each kernel: what it moves if it reads everything once. `before optimisation` counts the
operations that JAX hands to the compiler, the same on every device. `us` are microseconds of a step, from a trace of
JAX's profiler, which slows a step down: a share of the whole is what they tell.
"""  # noqa: E501

import re
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import hlo
from benchmarks.timing import Report, Row, environment, measure, rounded
from benchmarks.train_step import PROTOCOL, Ours, arrays, parser, rules_for
from jaxdal.lab import Lab
from jaxdal.types import Tree

LARGEST = 15  # kernels that are listed
TRACED = 16  # steps


def traced(trainee: Ours, folder: Path) -> dict[str, tuple[float, float]]:
    """Trace some steps into a folder: -> of every kernel its us and calls, per step."""
    with jax.profiler.trace(folder):
        trainee.steps(TRACED)
    newest = max(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    planes = {plane.name: list(plane.lines) for plane in jax.profiler.ProfileData.from_file(str(newest)).planes}
    cards = [line for name, lines in planes.items() if name.startswith("/device:") for line in lines]
    streams = [line for line in cards if line.name.startswith("Stream")]  # other lines say the same in other words
    found: dict[str, tuple[float, float]] = {}
    for line in streams or cards or [line for lines in planes.values() for line in lines]:
        for event in line.events:
            name = dict(event.stats).get("hlo_op") or (event.name if cards else None)  # on a CPU, Python is there too
            if name:
                us, calls = found.get(str(name), (0.0, 0.0))
                found[str(name)] = us + event.duration_ns / 1000 / TRACED, calls + 1 / TRACED
    return found


def lowered_step(lab: Lab, state: Tree, keys: Tree, known: Any, order: Tree) -> tuple[Any, int]:
    """Hand what trains to the compiler: -> it, and in how many loops a step is. Shapes do as well as arrays."""
    engine = lab.engine
    program = engine._many if engine._device_loop else engine._one
    places = (np.int32(0), np.int32(1)) if engine._device_loop else (np.int32(0),)
    given = (state, keys, known, order, lab.pool, np.int32(1), np.int32(0), *places)
    return program.lower(*given), int(engine._device_loop)  # type: ignore[attr-defined]


def contest(trainee: Ours, steps: int, repeats: int, trace: Path) -> dict[str, list[Row]]:
    """Count and time: -> tables."""
    order = trainee.lab.engine._batches(trainee.keys, trainee.known, np.int32(0))
    lowered, depth = lowered_step(trainee.lab, trainee.state, trainee.keys, trainee.known, order)
    compiled = lowered.compile()
    found = hlo.kernels(compiled.as_text(), depth=depth)
    kinds = Counter(hlo.kind_of(one) for one, _ in found)
    moved: Counter[str] = Counter()
    for one, size in found:
        moved[hlo.kind_of(one)] += size
    trainee.steps(steps)
    (timing,) = measure([partial(trainee.steps, steps)], repeats)
    count = hlo.counted(compiled)
    whole: Row = {
        "kernels": len(found), "GFLOP": rounded(count["flops"] / 1e9),
        "MB between kernels": rounded(sum(size for _, size in found) / 1e6),
        "MB by XLA": rounded(count["bytes"] / 1e6), "MB held": rounded(count["held"] / 1e6),
        "ms/step": rounded(1000 * timing.median / steps), "cpu ms": rounded(1000 * timing.median_busy / steps),
    }  # fmt: skip
    spent = traced(trainee, trace)
    whole["us of kernels"] = rounded(sum(us for us, _ in spent.values()))
    before = Counter(re.findall(r"= \"?(?:stablehlo|chlo)\.(\w+)", lowered.as_text()))
    return {
        "One step": [whole],
        "Kernels by kind": [
            {"kind": kind, "kernels": number, "MB": rounded(moved[kind] / 1e6)} for kind, number in kinds.most_common()
        ],
        "The largest kernels": [
            {
                "kernel": one.name,
                "kind": hlo.kind_of(one),
                "MB": rounded(size / 1e6),
                "us": rounded(spent[one.name][0]) if one.name in spent else None,
                "result": one.shape[:60],
            }
            for one, size in found[:LARGEST]
        ],
        "The longest kernels": [
            {"kernel": name, "us": rounded(us), "calls": rounded(calls)}
            for name, (us, calls) in sorted(spent.items(), key=lambda one: -one[1][0])[:LARGEST]
        ],
        "Before optimisation": [{"operation": name, "times": number} for name, number in before.most_common()],
    }


def main(argv: Sequence[str]) -> Report:
    """Count, trace, print and save."""
    own = parser("profile_step", __doc__)
    own.add_argument("--trace", type=Path, help="folder to keep the traces in")
    own.set_defaults(rivals="none", repeats=3)
    options = own.parse_args(argv)
    images = arrays(PROTOCOL[options.model], options.pool)
    report = Report("profile_step", environment(argv, "benchmarks.profile_step"))
    for runs in options.runs:
        trainee = Ours(rules_for(options, images, runs), images)
        told = f"{options.model}, batch {options.batch}, {runs} runs, {trainee.lab.settings.precision}"
        with tempfile.TemporaryDirectory() as folder:
            tables = contest(trainee, options.steps, options.repeats, options.trace or Path(folder))
        for title, rows in tables.items():
            report.table(f"{title}: {told}", rows)
        if options.out:
            report.save(options.out)
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
