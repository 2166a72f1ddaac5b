"""Several processes, usually one on each host, that play one experiment: what they tell each other.

Every process runs the same program on the same flags and images: what follows from those is the same everywhere, and
nobody needs orders. What does not follow from them (files, clocks, errors) is found by process 0, or by each for
itself, and told to all, here. All processes call these functions in the same order; one that is alone tells nobody.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxdal import memory
from jaxdal.errors import InputError
from jaxdal.journal import Contents, Journal
from jaxdal.parallel import Lanes

T = TypeVar("T")
TEXT = 4096  # bytes of a text that every process tells all others; longer ones are cut
PART = 2**26  # bytes that process 0 tells at once, at most


def together() -> bool:
    """Tell whether there is more than one process."""
    return jax.process_count() > 1


def first() -> bool:
    """Tell whether this is process 0, which alone writes files and speaks."""
    return jax.process_index() == 0


def meet(devices: Sequence[jax.Device]) -> None:
    """Have the devices of all processes connected.

    Those of CPUs wait half a minute for each other at their first meeting, and for good at later ones: so the first
    one is here, where no process has anything else to do.

    Raises:
        InputError: a process has none of the devices.
    """
    if not together():
        return
    if {device.process_index for device in devices} != set(range(jax.process_count())):
        raise InputError(f"of the {jax.process_count()} processes, some have no device here: give all of jax.devices()")
    multihost_utils.sync_global_devices("jaxdal")  # one device of each process; below, all with all
    lanes = Lanes(1, devices)
    lanes.fetch(lanes.rows(np.zeros(len(devices), np.float32), axis=0, per_run=False))


def from_first(find: Callable[[], T]) -> T:
    """Return what `find` returns in process 0, which alone calls it: values that are the same again after JSON.

    Raises:
        InputError: `find` has raised it; then everywhere.
        TypeError: there are tuples, arrays or keys that are not text in it, and others to tell.
    """
    if not together():
        return find()
    found: T = json.loads(_tell(lambda: as_json(find())))
    return found


def arrays_from_first(find: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the arrays that `find` returns in process 0, which alone calls it; bfloat16 comes as bytes without type.

    Raises:
        InputError: `find` has raised it; then everywhere.
    """
    return memory.read(io.BytesIO(_tell(lambda: as_npz(find())))) if together() else find()


def as_json(value: Any) -> bytes:
    """Return a value as JSON, of which `json.loads` makes the same value: -0.0, NaN, and the order of keys as well.

    Raises:
        TypeError: it would make another one.
    """
    if not _plain(value):
        raise TypeError("only None, numbers, texts, and lists and dicts of them can be told to other processes")
    return json.dumps(value).encode()


def as_npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return arrays as the bytes of an .npz."""
    file = io.BytesIO()
    memory.write(file, arrays)
    return file.getvalue()


def _plain(value: Any) -> bool:
    if type(value) is dict:
        return all(type(key) is str for key in value) and all(map(_plain, value.values()))
    if type(value) is list:
        return all(map(_plain, value))
    return value is None or type(value) in (bool, int, float, str)  # not their heirs, such as numpy.float64


def _tell(find: Callable[[], bytes]) -> bytes:
    """Return the bytes that `find` returns in process 0; raises InputError where it does, in all of them."""
    data, refused = b"", False
    if first():
        outcome = _outcome(find)
        refused = outcome.refused is not None
        data = json.dumps(outcome.refused).encode() if refused else outcome.found
    sizes = np.asarray([*divmod(len(data), PART), refused], np.int32)
    parts, last, refused = multihost_utils.broadcast_one_to_all(sizes).tolist()
    told = []
    for part, size in enumerate([PART] * parts + [last]):
        block = np.zeros(2 ** max(size - 1, 63).bit_length(), np.uint8)  # of few sizes: each is a program
        if first():
            block[:size] = np.frombuffer(data[part * PART : part * PART + size], np.uint8)
        told.append(multihost_utils.broadcast_one_to_all(block)[:size].tobytes())
    data = b"".join(told)
    if refused:
        raise InputError(json.loads(data))
    return data


def from_each(find: Callable[[], T]) -> T:
    """Return what `find` returns in this process; those after 0 begin when 0 is done, and may use what it has kept.

    Raises:
        InputError: `find` has raised it in some process; then everywhere.
    """
    if not together():
        return find()
    outcome = _Outcome(None, None)
    for turn in (True, False):
        if first() == turn:
            outcome = _outcome(find)
        texts = _of_all(outcome.refused or "")
        for number, text in enumerate(texts):
            if text:
                raise InputError(f"process {number}: {text}" if number else text)
    return outcome.found


def require_same(parts: Mapping[str, Any]) -> None:
    """Refuse to start what would not be one experiment. parts: name -> digest, or something as short.

    Raises:
        InputError: a process has other parts than process 0.
    """
    if not together():
        return
    every = [json.loads(text) for text in _of_all(json.dumps(parts))]
    for number, other in enumerate(every):
        differ = [name for name in parts if other[name] != every[0][name]]
        if differ:
            raise InputError(f"process {number} differs from process 0 in: {', '.join(differ)}")


def open_journal(start: Callable[[], Journal]) -> Journal:
    """Open the journal in process 0; the others follow what it says, and see no file.

    Raises:
        InputError: as `Journal.start` does, in every process.
    """
    opened: list[Journal] = []

    def begin() -> list[Any]:
        opened.append(start())
        return [str(opened[0].path), opened[0].header, opened[0].groups]

    path, header, groups = from_first(begin)
    return opened[0] if opened else Echo(Path(path), -1, Contents(header, groups, header["environment"], 0))


class Echo(Journal):
    """The journal that process 0 writes, as the others know it: by the same rules, in memory alone."""

    def _write(self, data: bytes) -> None:
        pass


class _Outcome(NamedTuple):
    found: Any
    refused: str | None


def _outcome(find: Callable[[], Any]) -> _Outcome:
    try:
        return _Outcome(find(), None)
    except InputError as error:
        return _Outcome(None, str(error))


def _of_all(text: str) -> list[str]:
    """Return the text of every process, in their order."""
    block = np.zeros(TEXT, np.uint8)
    data = np.frombuffer(text.encode()[:TEXT], np.uint8)
    block[: len(data)] = data
    return [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in multihost_utils.process_allgather(block)]
