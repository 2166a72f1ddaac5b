"""Strategies that are values: their name in the configuration tells all options, and is the same everywhere."""

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxdal import naming
from jaxdal.errors import InputError
from jaxdal.strategies import STRATEGIES
from jaxdal.types import Signal, Strategy


def first(key, known, k, memory, *, share: float, order: str = "up"):
    return known[: int(share * k)], memory


def closing_over(share: float):
    def inner(known, k):
        return known[: int(share * k)]

    @jax.jit
    def select(key, known, k, memory):
        return inner(known, k), memory

    return select


class Buyer:
    """Options in an object."""

    def __init__(self, share: float) -> None:
        self.share = share

    def select(self, key, known, k, memory):
        """Buy the first ones."""
        return known[: int(self.share * k)], memory

    __call__ = select


def named(select, **more) -> str:
    return naming.of_strategy(Strategy(needs=(), select=select, **more))


@pytest.mark.parametrize(
    "make",
    [
        lambda share: partial(first, share=share),
        lambda share: partial(partial(first, order="down"), share=share),
        lambda share: jax.jit(partial(first, share=share)),
        closing_over,
        lambda share: partial(closing_over(share), k=3),
        lambda share: Buyer(share).select,
        lambda share: jax.jit(Buyer(share).select),
    ],
)
def test_a_strategy_of_one_s_own_is_named_with_its_options(make):
    one, same, other = (named(make(share)) for share in (0.25, 0.25, 0.5))
    assert "share=0.25" in one
    assert one == same != other
    assert re.fullmatch(r"(first|closing_over|Buyer)\(.*share=0.25.*\), code [0-9a-f]{8}", one)
    assert " at 0x" not in one, "another name in every process"


def test_so_are_the_options_of_what_it_does_to_its_trainer():
    def change(trainer, share):
        return trainer

    names = [named(closing_over(1.0), wrap=partial(change, share=share)) for share in (0.25, 0.5)]
    assert [f"change(share={share})" in name for share, name in zip((0.25, 0.5), names, strict=True)] == [True, True]


def doubled(score):
    return 2 * score


FACTOR = 1.0


def test_strategies_that_do_something_else_have_other_names(monkeypatch):
    def enclosing(options):
        return lambda key, known, k, memory: (options, memory)

    def of_global(key, known, k, memory):
        return doubled(known) * FACTOR, memory

    def per_batch(keys, network, variables, aux, x):
        return x

    pairs = [
        (named(lambda key, known, k, memory: (known, memory)), named(lambda key, known, k, memory: (-known, memory))),
        *(
            (named(enclosing(one)), named(enclosing(other)))
            for one, other in [
                (np.arange(3), np.arange(3)[::-1]), (jax.numpy.zeros(2), jax.numpy.ones(2)), ({"a": 1}, {"a": 2}),
                (None, True), (jax.random.key(0), jax.random.key(1)), (Buyer(0.5), Buyer(0.25)), ({1, 2}, {1, 3}),
            ]
        ),
        (named(first), named(first, memory=lambda size: 0)),
        (named(first), named(first, wrap=lambda trainer: trainer)),
    ]  # fmt: skip
    for one, other in pairs:
        assert one != other
    asked = [naming.of_strategy(Strategy((Signal("s", one),), first)) for one in (per_batch, lambda *rest: 0)]
    assert asked[0] != asked[1]
    before = named(of_global)
    assert before == named(of_global)
    monkeypatch.setitem(globals(), "FACTOR", 2.0)
    with_factor = named(of_global)
    monkeypatch.setitem(globals(), "doubled", lambda score: 3 * score)
    assert len({before, with_factor, named(of_global)}) == 3


def test_every_strategy_given_as_a_value_has_the_same_name_in_every_process():
    told = "import sys; sys.path.insert(0, 'tests'); from test_named_values import values; print(values())"
    names = [
        subprocess.run([sys.executable, "-c", told], env=os.environ | {"PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"},
                       capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent).stdout
        for seed in "12"
    ]  # fmt: skip
    assert names[0] == names[1] != ""
    assert " at 0x" not in names[0]


def values() -> list[str]:
    """The names of strategies that are values, written here or in jaxdal."""
    mine = [first, lambda key, known, k, memory: (known in {"a", "b", "c"}, memory), Buyer(0.5).select]
    return [naming.of_strategy(make()) for make in STRATEGIES.values()] + [named(select) for select in mine]


def test_an_object_that_hides_its_options_is_refused():
    with pytest.raises(InputError, match=r"a strategy is made of functions: .*Buyer object .* is none"):
        named(Buyer(0.5))
