"""Modules of one's own, which add rows to the tables of strategies, models and trainers: `--plugins=mine,dir/other.py`.

from jaxdal.strategies import STRATEGIES

STRATEGIES["mine"] = mine  # from now on --strategy=mine and --strategy='mine(share=0.5)', with a digest of its code
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from jaxdal import likeness
from jaxdal.errors import InputError
from jaxdal.files import at_home
from jaxdal.models import MODELS
from jaxdal.strategies import STRATEGIES
from jaxdal.trainers import TRAINERS

Rows = Mapping[str, Callable[..., Any]]
TABLES: dict[str, Rows] = {"STRATEGIES": STRATEGIES, "MODELS": MODELS, "TRAINERS": TRAINERS}


def load(plugins: Iterable[str]) -> None:
    """Import modules, each by its name or by its file, once; a file can be imported by the name of it from then on.

    Raises:
        InputError: one cannot be imported, or what it has put into a table is no row of its own.
    """
    for plugin in plugins:
        before = {name: dict(rows) for name, rows in TABLES.items()}
        is_file = plugin.endswith(".py") or os.sep in plugin
        module = _with_its_folder(plugin) if is_file else plugin
        try:
            importlib.import_module(module)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever it comes up with, be it sys.exit()
            raise InputError(f"--plugins={plugin}: {_told(error, module)}") from error
        for name, rows in TABLES.items():
            _check(f"--plugins={plugin}: {name}", rows, before[name])


def _with_its_folder(plugin: str) -> str:
    """Have a file found by Python, after all that it finds without: -> the name of the module.

    Raises:
        InputError: there is no such file, or its name is no name of a module, or that of another one.
    """
    path = Path(os.path.abspath(at_home(plugin)))
    if path.suffix != ".py":
        raise InputError(f"--plugins={plugin}: a plugin is the name of a module or a file NAME.py")
    if not path.is_file():
        raise InputError(f"--plugins={plugin}: there is no file {path}")
    name = path.stem
    if not name.isidentifier():
        raise InputError(
            f"--plugins={plugin}: no module can be called {name!r}: letters, digits and _ can be in a name"
        )
    if _spec(name) is None:
        sys.path.append(str(path.parent))
        importlib.invalidate_caches()  # it may have been written a moment ago
    spec = _spec(name)
    origin = spec.origin if spec else None
    if origin is None or not os.path.exists(origin) or not os.path.samefile(origin, path):
        raise InputError(
            f"--plugins={plugin}: another module is called {name!r} ({origin}): give the file another name"
        )
    return name


def _spec(name: str) -> ModuleSpec | None:
    """Where Python finds a module; None if it finds none."""
    try:
        return importlib.util.find_spec(name)
    except ValueError:  # there is one that was made by hand, such as __main__
        return ModuleSpec(name, None, origin="in memory")


def _told(error: BaseException, module: str) -> str:
    """Say what went wrong, and where in code of one's own."""
    missing = error.name if isinstance(error, ModuleNotFoundError) and error.name else None
    if missing and f"{module}.".startswith(f"{missing}."):
        return f"there is no module {missing!r} in {os.getcwd()} or elsewhere on Python's path (PYTHONPATH adds to it)"
    said, where = str(error), likeness.place(error)
    if isinstance(error, SyntaxError) and error.filename:
        said, where = error.msg, f" ({error.filename}, line {error.lineno})"
    return f"it cannot be imported: {type(error).__name__}: {' '.join(said.split())}{where}"


def _check(told: str, rows: Rows, before: Rows) -> None:
    """Refuse rows that no command could name, or that take the name of others. told: where they are."""
    for name, row in rows.items():
        if name in before and row is before[name]:
            continue
        if name in before:
            raise InputError(f"{told} has a row {name!r} already: give the new one another name")
        if not isinstance(name, str) or not name.isidentifier():
            raise InputError(f"{told}[{name!r}]: letters, digits and _ can be in a name")
        if not callable(row):
            raise InputError(f"{told}[{name!r}] is no function that makes one, but {type(row).__name__}")
