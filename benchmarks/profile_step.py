"""The training step from the inside: kernels, library calls, FLOPs and bytes of the compiled program; a trace.

    python -m benchmarks.profile_step --model=lenet --batch=64
    python -m benchmarks.profile_step --model=resnet18_thin --batch=8 --steps=2          # slow on a CPU
    python -m benchmarks.profile_step --trace=/tmp/trace      # then: tensorboard --logdir=/tmp/trace, or xprof

    python -m benchmarks.profile_step --model=resnet18_thin --batch=256 --runs=4 --precision=bf16 --steps=256   # one GPU
    python -m benchmarks.profile_step --model=resnet18_thin --batch=256 --runs=1 --precision=bf16 --steps=256   # one GPU

Counted is the program that `Engine.advance` runs on this device: of a loop over steps its body, which is one step. A
kernel is what XLA starts by itself, a fusion or a call of a library; on a GPU each is a launch. Bytes are those of the
operands and results of each kernel: what it moves if it reads everything once. `before optimisation` counts the
operations that JAX hands to the compiler, the same on every device. Nsight shows the same names:
nsys profile python -m benchmarks.profile_step ...
"""  # noqa: E501

import re
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial

import jax
import numpy as np

from benchmarks import hlo
from benchmarks.timing import Report, Row, environment, measure, rounded
from benchmarks.train_step import PROTOCOL, Ours, arrays, parser, rules_for

LARGEST = 15  # kernels that are listed


def contest(trainee: Ours, steps: int, repeats: int) -> dict[str, list[Row]]:
    """Count and time: -> tables."""
    engine = trainee.lab.engine
    program = engine._many if engine._device_loop else engine._one
    order = engine._batches(trainee.keys, trainee.known, np.int32(0))
    given = (trainee.state, trainee.keys, trainee.known, order, trainee.lab.pool, np.int32(1), np.int32(0))
    places = (np.int32(0), np.int32(1)) if engine._device_loop else (np.int32(0),)
    lowered = program.lower(*given, *places)  # type: ignore[attr-defined]
    compiled = lowered.compile()
    found = hlo.kernels(compiled.as_text(), depth=int(engine._device_loop))
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
    before = Counter(re.findall(r"= \"?(?:stablehlo|chlo)\.(\w+)", lowered.as_text()))
    return {
        "One step": [whole],
        "Kernels by kind": [
            {"kind": kind, "kernels": number, "MB": rounded(moved[kind] / 1e6)} for kind, number in kinds.most_common()
        ],
        "The largest kernels": [
            {"kernel": one.name, "kind": hlo.kind_of(one), "MB": rounded(size / 1e6), "result": one.shape[:60]}
            for one, size in found[:LARGEST]
        ],
        "Before optimisation": [{"operation": name, "times": number} for name, number in before.most_common()],
    }


def main(argv: Sequence[str]) -> Report:
    """Count, print, trace and save."""
    own = parser("profile_step", __doc__)
    own.add_argument("--runs", type=int, default=1, help="of the pack")
    own.add_argument("--trace", help="folder for a trace of JAX's profiler")
    own.set_defaults(rivals="none", repeats=3)
    options = own.parse_args(argv)
    images = arrays(PROTOCOL[options.model], options.pool)
    trainee = Ours(rules_for(options, images, options.runs), images)
    report = Report("profile_step", environment(argv, "benchmarks.profile_step"))
    told = f"{options.model}, batch {options.batch}, {options.runs} runs, {trainee.lab.settings.precision}"
    for title, rows in contest(trainee, options.steps, options.repeats).items():
        report.table(f"{title}: {told}", rows)
    if options.trace:
        with jax.profiler.trace(options.trace):
            trainee.steps(options.steps)
        print(f"trace: {options.trace}")
    if options.out:
        report.save(options.out)
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
