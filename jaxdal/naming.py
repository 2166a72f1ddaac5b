"""Names of strategies, models and trainers of one's own, in journals, reports and folders."""

import inspect
import re
from functools import partial
from typing import Any

from jaxdal import likeness, strategies
from jaxdal.errors import InputError
from jaxdal.types import Strategy

GENERIC = ("select", "wrap", "__call__", "<lambda>")  # names that say less than that of what they are written in
CODE = re.compile("[0-9a-f]{8}")


def of_strategy(strategy: str | Strategy) -> str:
    """Name a strategy in the configuration; one of one's own, be it a value or a row of the table, with a digest of its
    code, so that none goes on where another one has begun.

    Raises:
        InputError: it is made of something that does not tell its options.
    """
    if isinstance(strategy, str):
        return with_code(strategy, likeness.of_rows(strategies.STRATEGIES[row(strategy)]))
    name, wraps = (_called(function) for function in (strategy.select, strategy.wrap))
    plain = strategy.wrap is Strategy._field_defaults["wrap"] or wraps == name
    return with_code(name if plain else f"{name} with {wraps}", likeness.digest(strategy))


def row(text: str) -> str:
    """Which row of a table a call names; Python, and so `calls.parse_call`, allows brackets around it."""
    return text.strip().lstrip("( ").partition("(")[0].strip(") ")


def _called(function: Any) -> str:
    """A function as a call: its name, or that of what has made it, and the plain options it encloses."""
    *above, name = _innermost(function).__qualname__.replace(".<locals>", "").split(".")
    options = ", ".join(_enclosed(function))
    return (above[-1] if above and name in GENERIC else name) + (f"({options})" if options else "")


def _innermost(function: Any) -> Any:
    """Return the function, or the method, that partial functions, `jax.jit` and the like were made of.

    Raises:
        InputError: it is another callable, which does not tell what it was made with.
    """
    while not (inspect.isfunction(function) or inspect.ismethod(function)):
        inner = function.func if isinstance(function, partial) else getattr(function, "__wrapped__", None)
        if inner is None:
            raise InputError(f"a strategy is made of functions: {function!r} is none, and its options cannot be told")
        function = inner
    return function


def _enclosed(function: Any, seen: frozenset[int] = frozenset()) -> list[str]:
    """Plain values that a function, and the functions that it encloses, were made with: "name=value", sorted."""
    seen |= {id(function)}
    told: set[str] = set()
    for name, value in _made_with(function).items():
        if isinstance(value, int | float | str | tuple | list):
            told.add(f"{name}={value!r}")
        elif callable(value) and id(value) not in seen:
            told.update(_enclosed(value, seen))
    return sorted(told)


def _made_with(function: Any) -> dict[str, Any]:
    """What a function encloses, a partial one binds, a method's object holds, or `jax.jit` and the like wrap."""
    if isinstance(function, partial):
        bound = inspect.signature(function.func).bind_partial(*function.args, **function.keywords)
        return {**bound.arguments, "": function.func}
    if inspect.ismethod(function):
        return {**getattr(function.__self__, "__dict__", {}), "": function.__func__}
    if inspect.isfunction(function):
        return dict(inspect.getclosurevars(function).nonlocals)
    return {"": function.__wrapped__} if hasattr(function, "__wrapped__") else {}


def with_code(name: str, code: str) -> str:
    """Return a name with the digest of what it names, if there is one: "mine(share=1), code 0123abcd"."""
    return f"{name}, code {code}" if code else name


def parted(text: str) -> tuple[str, str]:
    """Return the name and the digest, "" if there is none, of what `with_code` has made."""
    name, _, code = text.rpartition(", code ")
    return (name, code) if name and CODE.fullmatch(code) else (text, "")


def folder(text: str) -> str:
    """Return the name of a folder for what is written like a call, perhaps with a digest."""
    name, code = parted(text)
    name = name.encode()[:200].decode(errors="ignore")  # file systems allow 255 bytes
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name) + (code and f"-{code}")
