"""What is kept of a round that is running, and ways to damage it."""

import shutil
from pathlib import Path


def paths(workdir: Path) -> list[Path]:
    """What is kept of the running round."""
    return sorted((workdir / "inside_round").glob("*/*"))


def states(workdir: Path) -> dict[int, list[str]]:
    """The same by name, for the first seed of each pack."""
    names: dict[int, list[str]] = {}
    for path in paths(workdir):
        names.setdefault(int(path.parent.name.rpartition("_")[2]), []).append(path.name)
    return names


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def break_data(state: Path) -> None:
    for path in (path for path in state.rglob("d/*") if path.is_file()):
        half(path)


def break_metadata(state: Path) -> None:
    half(state / "_METADATA")


def empty(state: Path) -> None:
    shutil.rmtree(state)
    state.mkdir()


def no_folder(state: Path) -> None:
    shutil.rmtree(state)
    state.write_bytes(b"")
