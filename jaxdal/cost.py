"""The only clock: what the seconds of a round were spent on, with compilation apart."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax
from jax import monitoring

from jaxdal.types import Tree

STAGES = ("train", "infer", "select", "eval")
_COMPILING = "/jax/core/compile/"  # tracing, lowering and backend compilation are events below this name
_intervals: list[tuple[float, float]] = []
_listening = False

now = time.perf_counter


def wait(tree: Tree) -> Tree:
    """Return `tree` when the devices have computed it."""
    return jax.block_until_ready(tree)


def _heard(event: str, duration_secs: float, **_: str | int) -> None:
    if event.startswith(_COMPILING):
        end = now()
        _intervals.append((end - duration_secs, end))


def _listen() -> None:
    """Ask JAX to report compilations; once per process, since a listener cannot be taken back."""
    global _listening
    if not _listening:
        monitoring.register_event_duration_secs_listener(_heard)
        _listening = True


def _union(intervals: list[tuple[float, float]]) -> float:
    """Return the length of a union of intervals: events nest (a jit traced within a jit) and must not count twice."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


class Clock:
    """Seconds per stage of one round; what was compiled meanwhile is charged to "compile" instead."""

    def __init__(self) -> None:
        """Start from zero."""
        _listen()
        self.seconds = dict.fromkeys((*STAGES, "compile"), 0.0)

    @contextmanager
    def charge(self, stage: str) -> Iterator[None]:
        """Charge a block of code to a stage; the block must `wait` for its results."""
        _intervals.clear()
        begin = now()
        try:
            yield
        finally:
            elapsed = now() - begin
            compiling = min(_union(_intervals), elapsed)
            _intervals.clear()
            self.seconds["compile"] += compiling
            self.seconds[stage] += elapsed - compiling
