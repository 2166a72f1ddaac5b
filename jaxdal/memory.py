"""What a strategy remembers from round to round, on disk beside the journal; arrays as bytes, and no pickles."""

import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import jax
import numpy as np

from jaxdal.errors import InputError
from jaxdal.files import replacing, sync_folder

if TYPE_CHECKING:
    from jaxdal.pack import Run


def memory_path(workdir: Path, round: int) -> Path:
    """Return where what a strategy remembers after a round is kept."""
    return Path(workdir) / f"memory_{round}.npz"


def save_memory(workdir: Path, round: int, arrays: dict[str, np.ndarray]) -> None:
    """Write memory_<round>.npz so that it is there whole or not at all; to be done before the round's lines.

    Raises:
        ValueError: an array holds Python objects, which only a pickle could store.
    """
    path = memory_path(workdir, round)
    for left in path.parent.glob("memory_*.partial"):  # by processes that were killed
        left.unlink(missing_ok=True)
    with replacing(path) as partial, partial.open("wb") as file:
        write(file, arrays)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def load_memory(workdir: Path, round: int, like: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """The arrays that `save_memory` kept for a round. like: arrays whose names and shapes it must have.

    Raises:
        InputError: the file is missing or damaged, or lacks an array.
    """
    path = memory_path(workdir, round)
    try:
        with path.open("rb") as file:
            arrays = read(file)
    except FileNotFoundError:
        raise InputError(f"{path} is missing, without which round {round + 1} cannot start.") from None
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged ({error}).") from None
    for name, expected in (like or {}).items():
        if name not in arrays or arrays[name].shape != expected.shape:
            raise InputError(f"{path} is damaged (it has no array {name!r} of the shape {expected.shape}).")
    return arrays


def write(file: IO[bytes], arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz; unlike those of `numpy.savez`, its arrays may have any name, "file" as well.

    Raises:
        ValueError: an array holds Python objects, which only a pickle could store.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)


def read(file: IO[bytes]) -> dict[str, np.ndarray]:
    """The arrays that `write` wrote, in their order; other bytes raise what zipfile and NumPy raise."""
    with zipfile.ZipFile(file) as archive:
        entries = {name.removesuffix(".npy"): io.BytesIO(archive.read(name)) for name in archive.namelist()}
    return {name: np.lib.format.read_array(entry, allow_pickle=False) for name, entry in entries.items()}


def remember(runs: "Sequence[Run]", round_: int, folder: Path) -> None:
    """Keep what the strategy remembers, before the journal calls the round complete."""
    arrays = memory_leaves(runs)
    if arrays:
        save_memory(folder, round_, arrays)


def memory_leaves(runs: "Sequence[Run]") -> dict[str, np.ndarray]:
    """What the strategies of some runs remember, with a name for each array."""
    return {f"seed_{run.seed}_{place}": leaf for run in runs for place, leaf in enumerate(jax.tree.leaves(run.memory))}
