"""Whether strategies, models or trainers of one's own are the same: a digest of their code and what it is made with."""

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import CodeType
from typing import Any

import jax
import numpy as np

from jaxdal.types import Strategy

OWN = __name__.partition(".")[0]


def digest(strategy: Strategy) -> str:
    """Return eight hexadecimal digits, which are others once a line or a number of the strategy is another.

    Looked at: code, defaults and enclosed values of its functions, and the globals that they name, as far as these are
    values or are written in the same package; not the code of jaxdal and of other packages. Comments do not count. The
    version of Python does.
    """
    functions = [strategy.select, strategy.memory, strategy.wrap]
    asks = [(signal.per_batch, signal.prepare) for signal in strategy.needs]
    return _digest([functions, asks])


def of_rows(*rows: Callable[..., Any]) -> str:
    """Return the same for what makes models and trainers, rows of their tables; "" if all are jaxdal's."""
    own = [row for row in rows if _package(row) != OWN]
    return _digest(own) if own else ""


def _digest(value: Any) -> str:
    found = hashlib.sha256()
    for piece in _pieces(value, set()):
        found.update(len(piece).to_bytes(8, "little") + piece)
    return found.hexdigest()[:8]


def _pieces(value: Any, above: set[int]) -> Iterator[bytes]:
    """What tells a value from others, the same in every process. above: ids of the values that it is a part of."""
    if value is None or isinstance(value, int | float | complex | str | bytes):
        yield repr(value).encode()
        return
    if id(value) in above:
        return
    above = above | {id(value)}
    yield type(value).__qualname__.encode()
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        yield from _of_array(value)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _pieces(part, above)
    elif isinstance(value, set | frozenset):
        yield from sorted(b"|".join(_pieces(part, above)) for part in value)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _pieces((key, part), above)
    elif isinstance(value, CodeType):
        yield value.co_code
        yield from _pieces((value.co_names, value.co_varnames, value.co_consts), above)
    elif isinstance(value, partial):
        yield from _pieces((value.func, value.args, value.keywords), above)
    elif inspect.ismethod(value):
        yield from _pieces((value.__func__, value.__self__), above)
    elif inspect.isfunction(value):
        yield from _of_function(value, above)
    elif hasattr(value, "__wrapped__"):  # jax.jit and the like
        yield from _pieces(value.__wrapped__, above)
    elif inspect.ismodule(value) or isinstance(value, type) or inspect.isbuiltin(value):
        yield f"{getattr(value, '__module__', '')}.{value.__name__}".encode()
        if isinstance(value, type) and not _installed(value):
            yield from _of_class(value, above)
    else:
        yield from _pieces(getattr(value, "__dict__", None), above)


def _of_array(value: Any) -> Iterator[bytes]:
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    array = np.asarray(value)
    yield f"{array.dtype}{array.shape}".encode()
    yield array.tobytes()


def _of_class(value: type, above: set[int]) -> Iterator[bytes]:
    """Its methods and plain values, without what decorators such as `dataclass` have written into it."""
    for name, member in sorted(vars(value).items()):
        written = inspect.unwrap(member) if callable(member) else member
        if inspect.isfunction(written):
            if written.__code__.co_filename != "<string>" and written.__module__ == value.__module__:
                yield from _pieces((name, written), above)
        elif not name.startswith("_") and (written is None or isinstance(written, int | float | str | tuple | list)):
            yield from _pieces((name, written), above)


def _of_function(function: Any, above: set[int]) -> Iterator[bytes]:
    package = _package(function)
    yield f"{function.__module__}.{function.__qualname__}".encode()
    yield from _pieces((function.__defaults__, function.__kwdefaults__), above)
    named = inspect.getclosurevars(function)
    yield from _pieces(dict(named.nonlocals), above)
    if package == OWN:
        return
    yield from _pieces(function.__code__, above)
    for name, value in named.globals.items():
        if not (callable(value) or inspect.ismodule(value)) or _package(value) == package:
            yield from _pieces((name, value), above)


def _installed(value: type) -> bool:
    """Whether a class belongs to Python, jaxdal or another package that users do not write."""
    file = getattr(sys.modules.get(value.__module__), "__file__", None) or ""
    return _package(value) in (OWN, *sys.stdlib_module_names) or "-packages" in file


def _package(value: Any) -> str:
    return str(getattr(value, "__module__", None)).partition(".")[0]
