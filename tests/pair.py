"""One of two processes that play an experiment together, each with two simulated devices: what test_distributed starts.

The network is small and normalises by the batch: it compiles fast, and its statistics are sums over all devices. Nearly
all time is compilation, which is why most of its passes are off: process 1 finds nothing in the cache, since the
programs of CPUs are not the same in all processes, and JAX lets only process 0 write there.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import killer
from compiling import STRICT

import jaxdal
from jaxdal import main as command
from jaxdal import models, strategies
from jaxdal.engine import Engine
from jaxdal.types import Model

HIDDEN = 16
OPTIONS: dict[str, Any] = {
    "model": "layer", "n_start": 40, "n_query": 16, "n_end": 72, "batch": 16, "epochs": 4, "learning_rate": 0.1,
}  # fmt: skip
SCENES: dict[str, dict[str, Any]] = {
    "split": {"seeds": (3,)},  # one run over all four devices
    "spread": {"seeds": (3, 1), "pool_bytes": 200 * 64 - 1},  # a device for each, two idle ones; the pool streams
}


def layer(image: tuple[int, int, int], classes: int, dtype: Any = jnp.float32) -> Model:
    """A hidden layer, normalised by the batch."""
    size = image[0] * image[1] * image[2]

    def init(key: jax.Array) -> Any:
        drawn = jax.random.normal(key, (size + classes, HIDDEN))
        params = {"hidden": drawn[:size] / size**0.5, "last": drawn[size:].T / HIDDEN**0.5}
        return {"params": params, "batch_stats": {"mean": jnp.zeros(HIDDEN), "var": jnp.ones(HIDDEN)}}

    def apply(variables: Any, x: jax.Array, *, train: bool = False, dropout_key: Any = None, chunks: int = 1) -> Any:
        params, stats = variables["params"], variables["batch_stats"]
        hidden = x.reshape(len(x), -1) @ params["hidden"]
        if train:
            moments = {"mean": hidden.mean(0), "var": hidden.var(0)}
            running = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, stats, moments)
        else:
            moments = running = stats
        features = jax.nn.relu((hidden - moments["mean"]) * jax.lax.rsqrt(moments["var"] + 1e-5))
        return features @ params["last"], {"features": features, "batch_stats": running}

    return Model(init, apply, pack=5, cpu_pack=5, cpu_loop=True)


@contextlib.contextmanager
def named() -> Iterator[None]:
    """Have the names of the command; for a while, since other tests go through the tables."""
    with (
        mock.patch.dict(models.MODELS, {"layer": layer}),
        mock.patch.dict(strategies.STRATEGIES, {"grudge": killer.grudge}),
    ):
        yield


@named()
def scene(name: str, above: Path) -> jaxdal.Result:
    """Play one of the scenes on four devices, be they of one process or of two."""
    return jaxdal.run(
        killer.images(), "grudge", workdir=above / name, devices=jax.devices()[:4], quiet=True,
        **OPTIONS, **SCENES[name],
    )  # fmt: skip


@named()
def refusals(above: Path) -> None:
    """Ask for what cannot be, and say what the answer is."""
    own, images = jax.process_index(), killer.images()
    other = images._replace(train_y=images.train_y[::-1]) if own else images
    asked: list[tuple[Any, dict[str, Any]]] = [
        (images, {"workdir": above / "locked"}),
        (other, {"workdir": above / "other"}),
        (f"npz:{above / 'none'}_{own}.npz" if own else f"npz:{above / 'images.npz'}", {"workdir": above / "none"}),
        (images, {"workdir": above / "apart", "devices": jax.local_devices()}),
    ]
    for dataset, more in asked:
        try:
            jaxdal.run(dataset, "grudge", quiet=True, **OPTIONS, **more)
        except jaxdal.InputError as error:
            print("refused:", error, flush=True)


def play(above: str) -> None:
    """Use the library, as a script under jax.distributed would; then ask for what is refused."""
    count, own = int(os.environ["JAX_NUM_PROCESSES"]), int(os.environ["JAX_PROCESS_ID"])
    jax.distributed.initialize(num_processes=count, process_id=own, heartbeat_timeout_seconds=60)
    result = scene("spread", Path(above))
    print("played:", [line["accuracy"] for group in result.groups for line in group], flush=True)
    refusals(Path(above))


@named()
def run_command(dies_at: str, *flags: str) -> None:
    """Run jaxdal.main with flags; process 1 loses its parent, as by `kill -9`, at a call of `Engine.advance`."""
    calls, advance = 0, Engine.advance

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if f"{os.environ['JAX_PROCESS_ID']}:{calls}" == dies_at:
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)  # not reached its end: this process follows
        return advance(*arguments)

    Engine.advance = counted  # type: ignore[method-assign]
    sys.argv = ["jaxdal.main", *flags]
    command.app.run(command.main, flags_parser=command._parse)


def start(cache: Path, call: str, *arguments: object) -> list[tuple[int, str, str]]:
    """Start two processes that call a function of this module, and wait: -> exit code, stdout, stderr of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for own in range(2):
        environment = os.environ | {
            "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2",
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(own),
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_NUMPY_DTYPE_PROMOTION": "strict",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        }
        python = [sys.executable, *STRICT, "-c", f"import sys, pair; pair.{call}(*sys.argv[1:])"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen([*python, *map(str, arguments)], env=environment, text=True, **pipes))
    try:
        told = [process.communicate(timeout=400) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, told, strict=True)]
