"""jaxdal's programs, compiled for accelerators that are not in this machine: what they would start, move and hold.

    python -m benchmarks.deviceless --target=h100
    python -m benchmarks.deviceless --target=h100 --programs=train --model=lenet --batch=128 --runs=1,5
    python -m benchmarks.deviceless --target=v5e --programs=select --strategies=margin,coreset

In a virtual environment of its own, on any Linux machine: `pip install -e . 'jax[cuda13]' libtpu`. Nothing is run and
nothing is timed but the compiler. What is compiled are the programs of the product, as `Lab` and `Engine` make them:
of the loop over training steps its body, one step; of scoring one chunk of the pool; each strategy's choice; and with
--programs=large choices from signals alone, at the size that has a target. `cpu` is a target too: it is always there.

- Kernels are counted as `profile_step` does: whatever XLA starts by itself. Bodies of loops count once.
- `under 0.1 MB` are kernels that move less than that: they cost a launch, and nothing else.
- `MB held` are arguments, results and what is needed in between, of one device. A library's workspace is not in it.
- For a GPU, XLA tries the algorithms of cuBLAS and cuDNN, and its own, on the device itself. Where there is none,
  nothing is tried: the choice between a library and a fusion is a default, and may be another one on a real card, so
  that kernels differ by some, and so does memory. Sorts are XLA's own, where a card has CUB's. FLOPs are not known.
- For a TPU, `k cycles` are the compiler's own estimates, added up. There, bytes between kernels may stay on the chip,
  and what is done with single numbers counts as a kernel too.

What fails has a row that says why. `--text=DIR` keeps the compiled programs, to be read with `benchmarks.hlo`.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from benchmarks import hlo, programs
from benchmarks.programs import Bench, Program, Sizes
from benchmarks.timing import Report, Row, environment, rounded
from benchmarks.train_step import PROTOCOL, Table, arrays, publish
from jaxdal import settings
from jaxdal.calls import names
from jaxdal.cost import now
from jaxdal.strategies import STRATEGIES
from jaxdal.trainers import TRAINERS

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84929347584
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
ENVIRONMENT = {  # read when JAX starts its plugins: no looking for devices, nor for the cloud that they would be in
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1", "CUDA_VISIBLE_DEVICES": "-1", "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_HOSTNAMES": "localhost",
}  # fmt: skip
SMALL = 100_000  # bytes


class Target(NamedTuple):
    """Something to compile for."""

    devices: Callable[[int], Sequence[jax.Device]]  # of so many
    needs: str  # what is to be installed
    memory: float | None  # bytes of one device


def _h100(count: int) -> Sequence[jax.Device]:
    return topologies.get_topology_desc(platform="cuda", target_config=H100, topology=f"1x1x{count}").devices


def _v5e(count: int) -> Sequence[jax.Device]:
    return topologies.get_topology_desc("v5e:2x2", platform="tpu").devices[:count]


TARGETS = {
    "h100": Target(_h100, "'jax[cuda13]'", 84_929_347_584),
    "v5e": Target(_v5e, "libtpu", 16 * 2**30),
    "cpu": Target(lambda count: jax.devices("cpu")[:count], "jax", None),
}


def devices_of(target: str, count: int) -> Sequence[jax.Device]:
    """Describe the devices of a target. Where this cannot be done, the command ends and says why, with exit code 2."""
    try:
        found = TARGETS[target].devices(count)
    except Exception as error:  # each version of JAX and each plugin has another one
        print(
            f"--target={target}: this JAX ({jax.__version__}) cannot compile for it: {first_line(error)}\n"
            f"In a virtual environment of its own: pip install {TARGETS[target].needs}",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    if len(found) < count:
        print(f"--target={target} has {len(found)} devices, not --devices={count}", file=sys.stderr)
        raise SystemExit(2)
    return found


def first_line(error: Exception) -> str:
    """What to say of an error in a table."""
    told = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {told}"[:200]


def row_of(target: str, program: Program, devices: int, keep: Path | None) -> Row:
    """Compile and count."""
    head: Row = {"target": target, "program": program.what}
    try:
        lowered, depth = program.lower()
        begin = now()
        compiled = lowered.compile()
        seconds = now() - begin
    except Exception as error:  # compilers raise what they like
        return {**head, "note": f"does not compile: {first_line(error)}"}
    text, counted, memory = compiled.as_text(), hlo.counted(compiled), TARGETS[target].memory
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{re.sub(r'[^a-z0-9_]+', '-', f'{target} {program.what}'.lower())}.txt").write_text(text)
    found = hlo.kernels(text, depth=depth)
    cycles = [int(cost) for one, _ in found for cost in re.findall(r'"estimated_cycles":"(\d+)"', one.rest)]
    return {
        **head,
        "kernels": len(found),
        "in loops": sum(one.depth > depth for one, _ in found),
        "library calls": sum(hlo.kind_of(one).startswith("library") for one, _ in found),
        "under 0.1 MB": sum(size < SMALL for _, size in found),
        "MB between kernels": rounded(sum(size for _, size in found) / 1e6),
        **({"k cycles": rounded(sum(cycles) / 1e3)} if cycles else {}),
        **({"kB sent": rounded(sum(hlo.sent(text, devices).values()) / 1e3)} if devices > 1 else {}),
        "MB held": rounded(counted["held"] / 1e6),
        "MB in between": rounded(counted["temporary"] / 1e6),
        "compile s": rounded(seconds),
        "note": "more than a device has" if memory and counted["held"] > memory else "",
    }


def compiled(options: argparse.Namespace, made: Iterable[tuple[str, Program]]) -> Iterator[Table]:
    """Compile one after the other: -> the table as far as it is."""
    rows: list[Row] = []
    every = list(made)
    for number, (target, program) in enumerate(every, 1):
        print(f"{number} of {len(every)}: {target}, {program.what}", file=sys.stderr, flush=True)
        rows.append(row_of(target, program, options.devices, options.text))
        yield rows, f"{number} of {len(every)}"


def tables(options: argparse.Namespace) -> Iterator[tuple[str, Iterable[tuple[str, Program]]]]:
    """Yield titles and what is to be compiled for each."""
    places = {target: devices_of(target, options.devices) for target in options.target}
    images = arrays(PROTOCOL[options.model], options.pool)

    def each(make: Callable[..., Iterator[Program]], *given: Any) -> Iterator[tuple[str, Program]]:
        for target, devices in places.items():
            for runs in options.runs:
                bench = partial(
                    Bench, images, devices, model=options.model, seeds=range(runs), batch=options.batch,
                    n_start=options.labels, n_query=options.k, n_end=options.labels + options.k,
                    precision=options.precision,
                )  # fmt: skip
                for program in make(lru_cache(1)(bench), *given):  # what is scored in parts is made once
                    yield target, program._replace(what=f"{program.what}; {runs} {'runs' if runs > 1 else 'run'}")

    told = f"{options.model}, {options.precision}"
    pool = f"{options.pool:,} images, {options.labels:,} labels, {options.k:,} picks"
    if "train" in options.programs:
        title = f"One training step: {told}, batch {options.batch}"
        yield title, each(programs.training, options.trainers, options.strategies)
    if "score" in options.programs:
        yield f"Scoring: {told}, {options.pool:,} images", each(programs.scoring, options.strategies)
    if "select" in options.programs:
        yield f"Selection: {told}, {pool}", each(programs.selecting, options.strategies)
    if "large" in options.programs:
        rows, width, classes, picks = sizes = Sizes(*options.sizes)
        made = [
            (target, program)
            for target, devices in places.items()
            for program in programs.from_signals(devices[0], options.large, sizes)
        ]
        yield f"Selection from signals: {picks:,} picks of {rows:,} x {width}, {classes:,} classes", made


def words(text: str) -> list[str]:
    """Cut at commas."""
    return text.split(",")


def numbers(text: str) -> list[int]:
    """Cut at commas."""
    return [int(word) for word in words(text)]


def main(argv: Sequence[str]) -> Report:
    """Compile, count, print and save."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deviceless", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--target", action="append", choices=TARGETS, help="may be given several times; default: h100")
    parser.add_argument("--programs", default=["train", "score", "select", "large"], type=words)
    parser.add_argument("--model", default="resnet18_thin", choices=PROTOCOL)
    parser.add_argument("--trainers", default=list(TRAINERS), type=names)
    parser.add_argument("--strategies", default=list(STRATEGIES), type=names)
    parser.add_argument("--large", default=["coreset", "badge", "kmeans"], type=names, help="strategies, at --sizes")
    parser.add_argument("--sizes", default=[1_281_167, 512, 10, 10_000], type=numbers, help="rows,width,classes,picks")
    parser.add_argument("--runs", default=[1, 4], type=numbers, help="pack sizes")
    parser.add_argument("--devices", default=1, type=int, help="that a pack, or one run, has to itself")
    parser.add_argument("--batch", type=int, default=256, help="images per step and run")
    parser.add_argument("--precision", default="auto", choices=settings.PRECISIONS)
    parser.add_argument("--pool", type=int, default=50_000, help="images on the device")
    parser.add_argument("--labels", type=int, default=5_000, help="images with labels")
    parser.add_argument("--k", type=int, default=2_500, help="picks")
    parser.add_argument("--text", type=Path, help="folder to keep the compiled programs in")
    parser.add_argument("--out", help="folder for deviceless.json and deviceless.md")
    options = parser.parse_args(argv)
    options.target = options.target or ["h100"]
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")  # a card that is there stays free
    where = environment(argv, "benchmarks.deviceless")
    report = Report("deviceless", {**where, "device": f"none: compiled for {', '.join(options.target)}"})
    for title, made in tables(options):
        publish(report, title, compiled(options, made), options.out)
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
