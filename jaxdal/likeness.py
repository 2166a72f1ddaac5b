"""Whether strategies, models or trainers of one's own are the same: a digest of their code and what it is made with."""

import ast
import contextlib
import dataclasses
import dis
import enum
import hashlib
import importlib.util
import inspect
import os
import re
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePath
from types import CodeType, FunctionType, ModuleType
from typing import Any

import jax
import numpy as np

from jaxdal.types import Strategy

PLAIN = (int, float, complex, str, bytes, range, slice, type(None), type(Ellipsis), PurePath)
JAXDAL = f"{Path(__file__).parent}{os.sep}"
NOT_OWN = (JAXDAL, f"{sysconfig.get_path('stdlib')}{os.sep}", "<frozen")  # how files begin that are not one's own


def digest(strategy: Strategy) -> str:
    """Return eight hexadecimal digits, which change with every line and number of the strategy.

    Looked at: functions, methods and classes that are not installed, with all that they name and enclose, and files
    that they import where they are called; arrays, plain values and containers; fields of dataclasses; attributes of
    objects of one's own classes, but not private ones. Of jaxdal and of installed packages: names. Comments do not
    count; the version of Python does.
    """
    asks = [(signal.per_batch, signal.prepare) for signal in strategy.needs]
    return _Digest().of([strategy.select, strategy.memory, strategy.wrap, asks])


def of_rows(*rows: Callable[..., Any]) -> str:
    """Return the same for what makes models and trainers, rows of their tables; "" if all are jaxdal's."""
    own = [row for row in rows if str(getattr(row, "__module__", "")).partition(".")[0] != __name__.partition(".")[0]]
    return _Digest().of(own) if own else ""


class _Digest:
    """One walk over a value, which comes to every part of it once."""

    def __init__(self) -> None:
        self._met: dict[int, tuple[int, Any]] = {}  # id -> number, and the value, so that no other gets its id

    def of(self, value: Any) -> str:
        found = hashlib.sha256()
        for piece in self._pieces(value):
            found.update(len(piece).to_bytes(8, "little") + piece)
        return found.hexdigest()[:8]

    def _pieces(self, value: Any) -> Iterator[bytes]:
        yield type(value).__qualname__.encode()
        if isinstance(value, PLAIN):
            yield repr(value).encode()
        elif isinstance(value, tuple):  # two that are equal may be one object, or may not
            yield from self._all(value)
        elif isinstance(value, CodeType):
            yield value.co_code
            yield from self._all((value.co_names, value.co_varnames, value.co_consts))
        elif isinstance(value, frozenset):
            yield from self._all(self._in_order(value))
        elif id(value) in self._met:
            yield str(self._met[id(value)][0]).encode()
        else:
            self._met[id(value)] = (len(self._met), value)
            yield from self._of_new(value)

    def _of_new(self, value: Any) -> Iterator[bytes]:
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            yield from self._of_array(value)
        elif isinstance(value, list):
            yield from self._all(value)
        elif isinstance(value, set):
            yield from self._all(self._in_order(value))
        elif isinstance(value, dict):
            yield from self._all([part for pair in value.items() for part in pair])
        elif isinstance(value, partial):
            yield from self._all((value.func, value.args, value.keywords))
        elif inspect.ismethod(value):
            yield from self._all((value.__func__, value.__self__))
        elif isinstance(value, FunctionType):
            yield from self._of_function(value)
        elif isinstance(value, type):
            yield from self._of_class(value)
        elif hasattr(value, "__wrapped__"):  # jax.jit and the like
            yield from self._pieces(value.__wrapped__)
        else:
            yield from self._of_object(value)

    def _all(self, values: Any) -> Iterator[bytes]:
        yield str(len(values)).encode()
        for value in values:
            yield from self._pieces(value)

    def _in_order(self, values: Iterable[Any]) -> list[Any]:
        """The members of a set, in an order that is the same in every process."""

        def digest(value: Any) -> str:
            walk = _Digest()
            walk._met = dict(self._met)  # or a set that its members name would be walked for ever
            return walk.of(value)

        return sorted(values, key=digest)

    def _of_array(self, value: Any) -> Iterator[bytes]:
        if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        array = np.asarray(value)
        yield f"{array.dtype}{array.shape}".encode()
        if array.dtype == object:
            yield from self._all(array.ravel().tolist())
        else:
            yield hashlib.sha256(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"").digest()

    def _of_function(self, function: FunctionType) -> Iterator[bytes]:
        yield f"{function.__module__}.{function.__qualname__}".encode()
        enclosed = {name: cell for name, cell in _enclosed(function).items() if cell is not function}
        if not own(function.__code__.co_filename):
            # What jax.vmap and others make of a function encloses that and their options, and much of theirs beside.
            jaxdals = function.__code__.co_filename.startswith(JAXDAL)
            told = {name: part for name, part in enclosed.items() if jaxdals or _is_plain(part, FunctionType)}
            yield from self._all((told, getattr(function, "__wrapped__", None)))
            return
        yield from self._all((function.__code__, function.__defaults__, function.__kwdefaults__, enclosed))
        names = _names(function.__code__)
        for file in _imported(function.__code__, str(function.__globals__.get("__package__") or "")):
            yield _tree(file)
        met: set[int] = set()
        for name in sorted(names & function.__globals__.keys()):
            yield from self._all((name, function.__globals__[name]))
            yield from self._of_attributes(function.__globals__[name], names, met)

    def _of_attributes(self, value: Any, names: set[str], met: set[int]) -> Iterator[bytes]:
        """Of a module of one's own, what a function names there. met: modules that this was asked of."""
        if not isinstance(value, ModuleType) or id(value) in met or not any(map(own, _places(value))):
            return
        met.add(id(value))
        named = [vars(value)[name] for name in sorted(names & vars(value).keys())]
        yield from self._all(named)
        for part in named:
            yield from self._of_attributes(part, names, met)

    def _of_class(self, value: type) -> Iterator[bytes]:
        """Its name, and members of those of one's own classes that it is made of."""
        yield f"{value.__module__}.{value.__qualname__}".encode()
        if not _of_own_module(value):
            return
        for name, member in sorted(vars(value).items()):
            if isinstance(member, property):
                member = member.fget
            member = getattr(member, "__func__", member)
            member = inspect.unwrap(member) if callable(member) else member
            if isinstance(member, FunctionType):
                made = member.__code__.co_filename == "<string>" and name.startswith("__")  # by `dataclass`
                if not made and own(member.__code__.co_filename):
                    yield from self._all((name, member))
            elif not name.startswith("_") and _is_plain(member):
                yield from self._all((name, member))
        yield from self._all(value.__bases__)

    def _of_object(self, value: Any) -> Iterator[bytes]:
        """A module, by name; anything else by its class and what is public of it."""
        yield str(getattr(value, "__name__", "")).encode()
        if isinstance(value, ModuleType) or inspect.isbuiltin(value):
            return
        if isinstance(value, enum.Enum):
            yield from self._all((type(value), value.name, value.value))
            return
        if isinstance(value, re.Pattern):
            yield from self._all((value.pattern, value.flags))
            return
        kind, parts = type(value), {}
        if dataclasses.is_dataclass(value):
            names = [
                field.name for field in dataclasses.fields(value) if field.name not in ("parent", "name")
            ]  # flax's
            parts = {name: getattr(value, name, None) for name in names}
        elif _of_own_module(kind):
            slots = [name for base in kind.__mro__ for name in getattr(base, "__slots__", ())]
            names = [*getattr(value, "__dict__", ()), *slots]
            parts = {name: getattr(value, name, None) for name in names if not name.startswith("_")}
        yield from self._all((kind, parts))


def own(file: str) -> bool:
    """Return whether code of this file is neither jaxdal's nor installed."""
    return "-packages" not in file and not file.startswith(NOT_OWN)


def place(error: BaseException) -> str:
    """Return " (file, line n)", the last place in code of one's own that an error comes from; "" if there is none."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if own(frame.filename)]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def _of_own_module(value: type) -> bool:
    """Whether a class is written in a file of one's own, or in none, as in a notebook."""
    try:
        return own(inspect.getfile(value))
    except OSError:
        return True  # of __main__, which has no file there
    except TypeError:
        return False  # built in


def _enclosed(function: FunctionType) -> dict[str, Any]:
    """Its free variables, as far as they have a value yet."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue
    return found


def _names(code: CodeType) -> set[str]:
    """All names of globals and attributes in a code and in the functions that are written inside of it."""
    inner = [_names(part) for part in code.co_consts if isinstance(part, CodeType)]
    return set(code.co_names).union(*inner)


def _places(module: ModuleType) -> list[str]:
    """The file of a module, or the folders of a package that has none."""
    file = getattr(module, "__file__", None)
    return [file] if file else [f"{folder}{os.sep}" for folder in getattr(module, "__path__", ())]


def _imported(code: CodeType, package: str) -> Iterator[Path]:
    """Files of one's own that a function imports where it is called; nothing is imported, and so run, for a digest."""
    names, module, steps = [], "", [*dis.get_instructions(code)]
    for at, step in enumerate(steps):
        if step.opname == "IMPORT_NAME":
            level = steps[at - 2].argval  # how many dots
            with contextlib.suppress(ImportError):  # dots without a package
                module = importlib.util.resolve_name("." * level + step.argval, package) if level else step.argval
                names.append(module)
        elif step.opname == "IMPORT_FROM":  # a module, or something in one
            names.append(f"{module}.{step.argval}")
    for name in names:
        yield from _files(name)
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _imported(part, package)


def _files(name: str) -> Iterator[Path]:
    """The files of a module or package of one's own, none if there is none."""
    top, *parts = name.split(".")
    spec = None
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(top)  # which imports nothing, as it would for what is below
    if spec is None:
        return
    files = [Path(spec.origin)] if spec.origin and not parts else []
    for folder in spec.submodule_search_locations or []:
        place = Path(folder, *parts)
        files += [place.with_suffix(".py"), place / "__init__.py"] if parts else []
    yield from (file for file in files if own(str(file)) and file.is_file())


def _tree(file: Path) -> bytes:
    """What Python reads in a file: no comments, no layout."""
    text = file.read_bytes()
    try:
        return ast.dump(ast.parse(text)).encode()
    except (SyntaxError, ValueError):
        return text


def _is_plain(value: Any, *more: type) -> bool:
    """Whether a value is plain, or of more kinds, or has but such parts."""
    if isinstance(value, tuple | list):
        return all(_is_plain(part, *more) for part in value)
    return isinstance(value, (*PLAIN, *more))
