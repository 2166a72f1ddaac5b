"""Files that a reader, or the start after a kill, finds whole or not at all."""

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name of this process alone to write under; what is there at the end of the block replaces `path`."""
    # Hosts that share a disk count their processes each for itself, and in containers all of them begin with 1.
    partial = path.with_name(f"{path.name}.{platform.node()}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def at_home(path: str | Path) -> Path:
    """Return a path with ~ as the user's folder; that of a user who does not exist is an ordinary name."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def write_text(path: Path, text: str) -> Path:
    """Write a file anew, in UTF-8: -> its path."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def sync_folder(folder: Path) -> None:
    """Make a new name in a folder survive power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
