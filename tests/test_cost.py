"""The clock: to which stage seconds are charged, by a time that the test tells."""

from collections.abc import Callable

import pytest

from jaxdal import cost
from jaxdal.cost import Clock


@pytest.fixture
def until(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Move the time on."""
    time = [0.0]
    monkeypatch.setattr(cost, "now", lambda: time[0])
    return lambda moment: time.__setitem__(0, moment)


def compiled(event: str, seconds: float) -> None:
    cost._heard(f"/jax/core/compile/{event}", seconds)


def test_what_is_compiled_counts_once_and_not_for_the_stage(until: Callable[[float], None]) -> None:
    """From second 1 to 5 a function is traced, and within it, from 2 to 3, another; then both are compiled, 6 to 8."""
    clock = Clock()
    with clock.charge("train"):
        until(3)
        compiled("jaxpr_trace_duration", 1)
        until(5)
        compiled("jaxpr_trace_duration", 4)
        until(8)
        compiled("backend_compile_duration", 2)
        cost._heard("/jax/compilation_cache/cache_retrieval_time_sec", 1.0)
        until(10)
    expected = dict.fromkeys(clock.seconds, 0.0) | {"train": 4, "compile": 6}
    assert clock.seconds == expected

    def broken() -> None:
        with clock.charge("train"):
            until(13)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert clock.seconds == expected | {"train": 7}


def test_what_is_compiled_elsewhere_is_no_part_of_a_stage(until: Callable[[float], None]) -> None:
    """Between stages, and before one that a thread's compiling reaches into: no stage has less than no seconds."""
    clock = Clock()
    until(5)
    compiled("backend_compile_duration", 4)
    with clock.charge("infer"):
        until(6)
    with clock.charge("select"):
        until(7)
        compiled("backend_compile_duration", 3)
        until(8)
    assert clock.seconds == dict.fromkeys(clock.seconds, 0.0) | {"infer": 1, "select": 0, "compile": 2}
    with clock.charge("eval"):
        until(9)
    assert clock.seconds["eval"] == 1
