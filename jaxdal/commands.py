"""What every command does before anything else, and where programs that it compiles are kept."""

import contextlib
import io
import mmap
import signal
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import jax

from jaxdal.data import cache


def begin() -> None:
    """Be a command that lets readers leave, and that Ctrl-C stops."""
    outlive_readers()
    sys.unraisablehook = not_lost


def not_lost(dropped: Any) -> None:
    """Press Ctrl-C again where Python drops what it raises: in what JAX has the garbage collector call, for one."""
    if issubclass(dropped.exc_type, KeyboardInterrupt):
        # As the keyboard does, since `_thread.interrupt_main` would not wake whatever waits or sleeps.
        threading.Timer(0.05, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(dropped)


def cache_programs() -> None:
    """Keep compiled programs between starts, unless JAX was already told where."""
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        mend(cache.home() / "programs")
        jax.config.update("jax_compilation_cache_dir", str(cache.home() / "programs"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # many small programs make a start long


def mend(programs: Path) -> None:
    """Remove programs of which a kill or a full disk has left a part: JAX warns of them at every start, and keeps them.

    Only files of whole pages are read, which is where writing stops, and few others have such a size.
    """
    for path in programs.glob("*-cache"):
        with contextlib.suppress(OSError):  # another process may be doing the same
            if path.stat().st_size % mmap.PAGESIZE == 0 and not _decompresses(path.read_bytes()):
                path.unlink()


def _decompresses(data: bytes) -> bool:
    try:
        import zstandard  # which JAX uses where it is installed
    except ImportError:
        zstandard = None
    for decompress in (zlib.decompress, *([zstandard.ZstdDecompressor().decompress] if zstandard else [])):
        with contextlib.suppress(Exception):
            decompress(data)
            return True
    return False


class _Patient(io.FileIO):
    """A pipe that goes on taking what is written when nobody reads it any more."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """Let a command whose output goes to `| head` come to its end in silence, with all files and its own exit code."""
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper) and out is sys.__stdout__:  # not where somebody has put something else
        out.flush()
        pipe, at_once = io.BufferedWriter(_Patient(out.fileno(), "w", closefd=False)), out.line_buffering
        errors = "backslashreplace" if out.errors == "strict" else out.errors  # names of classes may be no text
        sys.stdout = io.TextIOWrapper(pipe, out.encoding, errors, line_buffering=at_once or out.write_through)
