"""Names from the command line, with or without options: "margin", "bald(draws=20)"."""

import ast
import contextlib
import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np

from jaxdal import likeness
from jaxdal.errors import InputError

T = TypeVar("T")
MOST_SEEDS = 1000  # of a range: more are a slip


def unknown(what: str, name: str, names: Iterable[str]) -> InputError:
    """Return the error for a name that is in no table, with the nearest that is."""
    known = sorted(names)
    spelt = re.sub(r"[^0-9a-z]+", "_", name.lower())
    near = difflib.get_close_matches(spelt, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InputError(f"unknown {what} {name!r}: {hint}there are {', '.join(known)}")


def names(text: str) -> list[str]:
    """Part names and calls at the commas between them: "random,bald(draws=20)"; those within brackets are options'."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def seeds(text: str) -> list[int]:
    """Part seeds at the commas between them, each a number, or a range with both ends: "0,2-4" -> 0, 2, 3, 4.

    Raises:
        InputError: something is neither.
    """
    found: list[int] = []
    for part in text.split(",") if text else ():
        ends = re.fullmatch(r"\s*(\d+)-(\d+)\s*", part)
        try:
            first, last = map(int, ends.groups()) if ends else (int(part), int(part))
        except ValueError:
            told = "are not whole numbers with commas between them, or ranges such as 0-4"
            raise InputError(f"--seeds={text} {told}") from None
        if not 0 <= last - first < MOST_SEEDS:
            many = f"more than {MOST_SEEDS:,} seeds are" if first < last else "no seed is"
            raise InputError(f"--seeds={text}: {many} in {part.strip()}")
        found += range(first, last + 1)
    return found


def parse_call(text: str, table: Mapping[str, Callable[..., T]], what: str, kind: type | None = None) -> T:
    """Make the value that `text` names in a table of constructors; options are Python literals, never evaluated.

    kind: of jaxdal.types, which it must be.

    Raises:
        InputError: the text is no name or call, the name is not in the table, or the options do not fit; or what is
            made is of another kind.
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: nested beyond reason
        node = None
    arguments: list[Any] = []
    options: dict[str, Any] = {}
    if isinstance(node, ast.Call):
        try:
            arguments = [ast.literal_eval(argument) for argument in node.args]
            options = {keyword.arg or "**": ast.literal_eval(keyword.value) for keyword in node.keywords}
        except (ValueError, TypeError, RecursionError):
            raise InputError(f"the options of {what} {text!r} must be plain numbers, texts, tuples or lists") from None
        if not all(map(_fits, (*arguments, *options.values()))):
            raise InputError(f"{what} {text!r} has a number that is beyond those of 32 bits")
        if len(options) < len(node.keywords):
            raise InputError(f"{what} {text!r} gives an option twice")
        node = node.func
    if not isinstance(node, ast.Name):
        if "(" not in text:
            raise unknown(what, text.strip(), table)
        raise InputError(f"{what} {text!r} is neither a name nor a call such as name(option=1)")
    if node.id not in table:
        raise unknown(what, node.id, table)
    make = table[node.id]
    try:
        inspect.signature(make).bind(*arguments, **options)
    except TypeError as error:
        options_text = str(inspect.signature(make)).partition(" ->")[0]
        raise InputError(f"{what} {text!r}: {error}; it is {node.id}{options_text}") from None
    with blamed(f"{what} {text!r}"):
        made = make(*arguments, **options)
    if kind is not None and not isinstance(made, kind):
        raise wrong_kind(f"{what} {text!r}", made, kind)
    return made


@contextlib.contextmanager
def blamed(what: str) -> Iterator[None]:
    """Turn what goes wrong inside, in code of a user's, into a sentence with the last place of it.

    Raises:
        InputError: something went wrong.
    """
    try:
        yield
    except (InputError, jax.errors.JaxRuntimeError):  # a device out of memory is nobody's slip
        raise
    except Exception as error:
        said = " ".join(str(error).split("\n\n")[0].split())
        raise InputError(f"{what} fails with {type(error).__name__}{likeness.place(error)}: {said}") from error


def wrong_kind(told: str, made: object, kind: type) -> InputError:
    """Return the error for a constructor of one's own that makes something else."""
    return InputError(f"{told} makes a {type(made).__name__}, and not a jaxdal.types.{kind.__name__}")


def _fits(option: Any) -> bool:
    """Whether compiled programs can compute with the numbers of an option: they have 32 bits."""
    if isinstance(option, tuple | list):
        return all(map(_fits, option))
    if isinstance(option, float):
        return abs(option) <= float(np.finfo(np.float32).max)
    return not isinstance(option, int) or abs(option) <= np.iinfo(np.int32).max
