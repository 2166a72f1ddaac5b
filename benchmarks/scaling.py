"""Scoring and selection over several devices: what each computes, reads, holds and sends. Counted, not extrapolated.

    python -m benchmarks.scaling                    # 1, 2, 4 and 8 simulated devices of a CPU
    python -m benchmarks.scaling --strategies=coreset --pool=65536 --modes=strong

One run that has several devices to itself, in the programs of the product: `Lab.gather` and `Lab.select`. Strong: the
same pool over more devices; weak: as many images more. Simulated devices share the cores of one CPU, so that no clock
can show a speed-up. What can be shown: FLOPs and bytes of the compiled program of a device, the bytes that it sends, by
how many loops are around the instruction (`sent once`, `sent a pass`, `sent inside`: bodies of loops are counted once,
in FLOPs and bytes too), and processor seconds of all devices together, which would not grow if splitting cost nothing.
docs/scaling.md has the table, and what follows from it for eight GPUs and for a hundred million images.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import hlo
from benchmarks.timing import Report, Row, environment, processor_seconds, rounded
from benchmarks.train_step import PROTOCOL, arrays
from jaxdal import settings, strategies
from jaxdal.cost import wait
from jaxdal.data import split
from jaxdal.lab import Lab
from jaxdal.types import Tree

SIMULATED = 8


class Bench(NamedTuple):
    """One run with several devices to itself, before its first query."""

    lab: Lab
    keys: Any
    known: jax.Array
    variables: Tree
    memory: Tree


def bench(options: argparse.Namespace, strategy: str, devices: int, pool: int) -> Bench:
    """Make it, with a fresh network."""
    images, used = arrays(PROTOCOL[options.model], pool), jax.devices()[:devices]
    rules = settings.resolve(
        PROTOCOL[options.model], images, strategy, platform=used[0].platform, model=options.model, seeds=(0,), pack=1,
        n_start=options.labels, n_query=options.k, n_end=options.labels + options.k, precision=options.precision,
    )  # fmt: skip
    pool_x, oracle, test = split(images)
    chosen = strategies.build(strategy)
    lab = Lab(rules, pool_x, test, chosen, used)
    keys = lab.keys(lab.lanes.per_run(np.zeros(1, np.uint32)), np.int32(0))
    known = oracle.reveal(np.full(pool, -1, np.int32), np.arange(options.labels))
    memory = jax.tree.map(lambda leaf: np.asarray(leaf)[None], chosen.memory(pool))
    variables = lab.engine.init(keys).variables
    return Bench(lab, keys, lab.lanes.per_run(known[None]), variables, lab.lanes.per_run(memory))


def program_row(compiled: Any, devices: int, times: int = 1) -> Row:
    """What a device does in a program, `times` times."""
    count, bytes_sent = hlo.counted(compiled), hlo.sent(compiled.as_text(), devices)
    depths = [times * sum(size for (depth, _), size in bytes_sent.items() if depth == level) for level in (0, 1)]
    inside = times * sum(size for (depth, _), size in bytes_sent.items() if depth > 1)
    return {
        "MFLOP": rounded(times * count["flops"] / 1e6), "MB moved": rounded(times * count["bytes"] / 1e6),
        "MB held": rounded(count["held"] / 1e6), "kB sent once": rounded(depths[0] / 1e3),
        "kB sent a pass": rounded(depths[1] / 1e3), "kB sent inside": rounded(inside / 1e3),
    }  # fmt: skip


def scoring(one: Bench, devices: int) -> tuple[Row, Row, tuple[jax.Array, ...]]:
    """The pass over the pool: -> its row, that of joining the chunks, and the signals."""
    gather, lab = one.lab.gather, one.lab
    aux = gather._prepare(one.keys, one.variables, one.known, lab.pool)
    out = gather._empty(one.keys, one.variables, aux, lab.pool)
    fill = gather._fill.lower(out, one.keys, one.variables, aux, lab.pool, np.int32(0)).compile()  # type: ignore[attr-defined]
    join = gather._join.lower(out).compile()  # type: ignore[attr-defined]
    found = wait(gather(one.keys, one.variables, one.known, lab.pool))
    return program_row(fill, devices, gather._chunks), program_row(join, devices), found


def busy(work: Any, repeats: int) -> float:
    """Processor seconds of all devices, the median of several; what is compiled is compiled before."""
    wait(work())
    samples = []
    for _ in range(repeats):
        begin = processor_seconds()
        wait(work())
        samples.append(processor_seconds() - begin)
    return statistics.median(samples)


def contest(options: argparse.Namespace, mode: str) -> list[Row]:
    """Count and measure one kind of scaling: -> a row per number of devices and program."""
    rows: list[Row] = []
    for devices in options.devices:
        pool = options.pool if mode == "strong" else options.pool // max(options.devices) * devices
        for number, strategy in enumerate(options.strategies):
            one = bench(options, strategy, devices, pool)
            row, joined, found = scoring(one, devices)
            same: Row = {"devices": devices, "pool": pool}
            if number == 0:  # the others score with the same network
                seconds = busy(lambda one=one: one.lab.gather(one.keys, one.variables, one.known, one.lab.pool), 3)
                rows.append({"what": f"scoring, {options.model}", **same, **row, "cpu s": rounded(seconds)})
            rows.append({"what": f"joining signals, {strategy}", **same, **joined, "cpu s": None})
            select = one.lab.select.lower(one.keys, one.known, one.memory, *found).compile()  # type: ignore[attr-defined]
            seconds = busy(lambda one=one, found=found: one.lab.select(one.keys, one.known, one.memory, *found), 3)
            rows.append(
                {"what": f"select, {strategy}", **same, **program_row(select, devices), "cpu s": rounded(seconds)}
            )
            print(f"{mode}: {strategy} on {devices}", file=sys.stderr, flush=True)
    first = {row["what"]: row for row in reversed(rows)}
    for row in rows:
        if row["cpu s"] is not None:
            each = [one["cpu s"] / one["pool"] for one in (row, first[row["what"]])]
            row["x one device"] = rounded(each[0] / each[1])
    return sorted(rows, key=lambda row: row["what"])


def words(text: str) -> list[str]:
    """Cut at commas."""
    return text.split(",")


def main(argv: Sequence[str]) -> Report:
    """Count, measure, print and save."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--strategies", default=["margin", "coreset", "badge"], type=words, help="to select by")
    parser.add_argument("--modes", default=["strong", "weak"], type=words, help="strong, weak, or both")
    parser.add_argument("--devices", default=[1, 2, 4, 8], type=lambda text: [int(n) for n in words(text)])
    parser.add_argument("--pool", type=int, default=16_384, help="images on the most devices")
    parser.add_argument("--labels", type=int, default=500, help="images with labels")
    parser.add_argument("--k", type=int, default=100, help="picks")
    parser.add_argument("--model", default="lenet", choices=PROTOCOL)
    parser.add_argument("--precision", default="f32", choices=settings.PRECISIONS)
    parser.add_argument("--out", help="folder for scaling.json and scaling.md")
    options = parser.parse_args(argv)
    if len(jax.devices()) < max(options.devices):
        raise SystemExit(f"there are {len(jax.devices())} devices")
    report = Report("scaling", environment(argv, "benchmarks.scaling"))
    for mode in options.modes:
        report.table(
            f"{mode.capitalize()} scaling, per device; {options.labels} labels, {options.k} picks",
            contest(options, mode),
        )
    if options.out:
        report.save(options.out)
    return report


if __name__ == "__main__":
    flag = (
        f"--xla_force_host_platform_device_count={SIMULATED}"  # read when JAX first looks for devices; for a CPU only
    )
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
    main(sys.argv[1:])
