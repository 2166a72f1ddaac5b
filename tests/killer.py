"""A small experiment, and `main`, which has it killed in its middle.

The process kills itself (SIGKILL: nothing is flushed, closed or undone) when it comes to a point for the n-th time.
Until then it prints a line per call of `Engine.advance`: labels, first step, last step.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import jaxdal
from jaxdal import Dataset, Result, Strategy, checkpoint, environment, from_arrays, loop, signals
from jaxdal.engine import Engine
from jaxdal.journal import Journal
from jaxdal.strategies.picking import top_unknown
from jaxdal.strategies.scores import margin_score
from jaxdal.types import Array, Tree

SEEDS, PACKS = (3, 1, 7), 2  # two runs, and a third with an idle lane
LABELS = (48, 64, 80)  # of each round
CALLS = 3  # of `advance` per round and pack, each followed by an evaluation
OPTIONS: dict[str, Any] = {
    "seeds": SEEDS, "pack": 2, "n_start": 48, "n_query": 16, "n_end": 80, "batch": 16, "epochs": 2 * CALLS,
    "eval_every": 2, "learning_rate": 0.1, "quiet": True,
}  # fmt: skip
STEPS = [2 * labels // 16 for labels in LABELS]  # of each of these calls


def images() -> Dataset:
    """Noise with a bright spot, at a place of its own for each of four classes; hard enough to leave some mistakes."""
    rng = np.random.default_rng(0)
    labels = np.arange(280, dtype=np.int32) % 4
    pixels = rng.integers(0, 200, (280, 8, 8, 1))
    for label, (row, column) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
        pixels[labels == label, row : row + 4, column : column + 4] += 50
    pixels = pixels.astype(np.uint8)
    return from_arrays(pixels[:200], labels[:200], pixels[200:], labels[200:], num_classes=4)


def grudge() -> Strategy:
    """Buy what has been uncertain in all rounds so far: without its memory it picks others."""

    def select(key: Array, known: Array, k: int, memory: Tree, probs: Array) -> tuple[Array, Tree]:
        del key
        total = memory["total"] * 2 + margin_score(probs)
        return top_unknown(total, known, k), {"rounds": memory["rounds"] + jnp.int32(1), "total": total}

    def memory(size: int) -> Tree:
        return {"rounds": np.int32(0), "total": np.zeros(size, np.float32)}

    return Strategy(needs=(signals.probs,), select=select, memory=memory)


def experiment(workdir: Path, **options: Any) -> Result:
    """Three rounds of three seeds, on one device."""
    with mock.patch.object(environment, "_commit", return_value="somebody may commit while tests run"):
        return jaxdal.run(images(), grudge(), workdir=workdir, devices=jax.devices()[:1], **{**OPTIONS, **options})


def die() -> None:
    """Be killed."""
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def watched(advance: Callable[..., Any], tell: Callable[[tuple[int, int, int]], None]) -> Callable[..., Any]:
    """`Engine.advance` that tells what it is asked for: (labels, first step, last step)."""

    def watched_advance(self: Engine, state: Tree, keys: Tree, known: Array, *rest: Any) -> Tree:
        *_, first, until = rest
        tell((int((np.asarray(known)[0] >= 0).sum()), first, until))
        return advance(self, state, keys, known, *rest)

    return watched_advance


def _at(owner: Any, name: str, count: int, last_act: Callable[..., None] = lambda *arguments: None) -> None:
    """Die at the count-th call of owner.name, after `last_act` with its arguments."""
    calls, call = 0, getattr(owner, name)

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            last_act(*arguments, **options)
            die()
        return call(*arguments, **options)

    setattr(owner, name, counted)


def _half_a_group(share: float) -> Callable[..., None]:
    """Write the first part of the lines of a round, as a kill within `write` may do."""

    def write_part(journal: Journal, group: list[dict[str, Any]]) -> None:
        def part(data: bytes) -> None:
            os.write(journal._fd, data[: int(share * len(data))])
            die()

        journal._write = part
        Journal._append(journal, group)

    return write_part


def _within_orbax(count: int) -> None:
    """Die when Orbax has written everything and is about to give the folder its name."""
    renames = 0

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal renames
        if event == "os.rename" and str(arguments[0]).endswith(".orbax-checkpoint-tmp"):
            renames += 1
            if renames == count:
                die()

    sys.addaudithook(heard)


Journal._append = Journal.append
POINTS: dict[str, Callable[[int], None]] = {
    "advance": lambda count: _at(Engine, "advance", count),
    "evaluate": lambda count: _at(Engine, "evaluate", count),
    "remembered": lambda count: _at(loop, "remember", count, loop.remember),
    "a quarter of the lines": lambda count: _at(Journal, "append", count, _half_a_group(0.25)),
    "half of the lines": lambda count: _at(Journal, "append", count, _half_a_group(0.5)),
    "appended": lambda count: _at(checkpoint.InsideRound, "clear", count),
    "within orbax": _within_orbax,
}


def main(workdir: str, point: str, count: str, *options: str) -> None:
    """Run the experiment until the point is reached."""
    Engine.advance = watched(Engine.advance, lambda call: print(*call, flush=True))
    POINTS[point](int(count))
    values = dict(option.split("=") for option in options)
    experiment(Path(workdir), **{name: float(value) for name, value in values.items()})
