"""Decoded images, kept between starts.

One uncompressed .npz per data set below `home() / "images"`, in the form of `npz:PATH`. Its name is a digest of what
the arrays were made from: name, size and times of every file, and the settings. Contents are not read for it: at every
start, that would take as long as decoding small images. A change to a file's content changes its ctime, which no
program can set back, so that nothing stale is found; a copied tree is decoded again.

A file gets its name when it is complete and on the disk, and .npz has checksums: what is half-written or damaged is
never used, but made again.
"""

import contextlib
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdal.data.arrays import from_arrays
from jaxdal.data.images import Source, decode
from jaxdal.errors import InputError
from jaxdal.types import Dataset

FORMAT = "2"  # changes with what decoding or splitting means
KEYS = ("train_images", "train_labels", "test_images", "test_labels", "class_names", "files", "broken")
DAY = 86400.0  # seconds


class Options(NamedTuple):
    """How image files become a data set."""

    image_size: int | None = None  # height and width; None: as the files are
    test_share: str | None = None  # of each class, where there is no test set; None: 20%
    skip_broken: bool = False


DEFAULTS = Options()


class Sources(NamedTuple):
    """Image files, sorted into training and test set."""

    train: list[Source]
    test: list[Source]
    class_names: tuple[str, ...]


def home() -> Path:
    """Where this package keeps what it can make again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxdal"


def stamp(name: str, status: os.stat_result) -> str:
    """What changes whenever a file does."""
    return f"{name}|{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}"


def dataset(title: str, stamps: Iterable[str], options: Options, sources: Callable[[], Sources]) -> Dataset:
    """The data set that `sources` describe, from the cache if it is there.

    Raises:
        InputError: an image is broken, sizes differ, or there is nothing to train or test on.
    """
    digest = hashlib.sha256("\n".join([FORMAT, repr(tuple(options)), *stamps]).encode(errors="surrogateescape"))
    path = home() / "images" / f"{digest.hexdigest()[:32]}.npz"
    arrays = read(path)
    if arrays is None:
        began = time.monotonic()
        arrays = _decoded(title, sources(), options)
        count = len(arrays["train_labels"]) + len(arrays["test_labels"])
        told = f"decoded {count:,} images in {time.monotonic() - began:.1f} s"
        try:
            write(path, arrays)
            print(f"{title}: {told}, kept in {path}", file=sys.stderr, flush=True)
        except OSError as error:
            print(f"{title}: {told}, but they cannot be kept in {path} ({error.strerror})", file=sys.stderr, flush=True)
    broken = arrays["broken"].tolist()
    if broken:
        more = f" and {len(broken) - 20:,} more" if len(broken) > 20 else ""
        listed = ", ".join(broken[:20])
        print(f"{title}: left out as broken ({len(broken):,}): {listed}{more}", file=sys.stderr, flush=True)
    own = from_arrays(*(arrays[key] for key in KEYS[:4]), class_names=arrays["class_names"].tolist())
    return own._replace(files=tuple(arrays["files"].tolist()))


def read(path: Path) -> dict[str, np.ndarray] | None:
    """All arrays of a kept file; None if there is none, or a damaged one."""
    try:
        with path.open("rb") as file:  # numpy leaves a file open that it cannot read
            archive = np.load(file, allow_pickle=False)
            return {key: archive[key] for key in KEYS}
    except Exception:  # a damaged file makes zipfile and NumPy raise half a dozen kinds
        return None


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Keep arrays under a name; raises OSError, and leaves nothing behind, when there is no room."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob("*.partial"):  # by a start that was killed
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > DAY:
                left.unlink()
    descriptor, partial = tempfile.mkstemp(suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise


def _decoded(title: str, sources: Sources, options: Options) -> dict[str, np.ndarray]:
    """All arrays of KEYS; raises InputError."""
    everything = [*sources.train, *sources.test]
    x, good = decode(everything, options.image_size, skip_broken=options.skip_broken, title=title)
    labels = np.asarray([source.label for source in everything], np.int32)
    readable = [source for source, well in zip(everything, good, strict=True) if well]
    broken = [source.name for source, well in zip(everything, good, strict=True) if not well]
    size = int(good[: len(sources.train)].sum())  # of the training set
    y = labels[good]
    if not 0 < size < len(y):
        raise InputError(f"{title}: no image is left for {'testing' if size else 'training'}")
    files = [source.name for source in readable[:size]]
    texts = {"class_names": sources.class_names, "files": files, "broken": broken}
    return {
        "train_images": x[:size], "train_labels": y[:size], "test_images": x[size:], "test_labels": y[size:],
        **{key: np.asarray(text, dtype=str) for key, text in texts.items()},
    }  # fmt: skip
