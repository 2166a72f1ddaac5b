"""Decoded images of a folder whose files somebody moves about, kept between calls.

`cache.py` knows a data set by the names and times of all its files, which change with every move. Here, an image is
known by what a move leaves as it is: the last part of its name, its inode, size and time of the last change of content.
Only who changes a content and sets back the time, the size being the same, is not noticed. One uncompressed .npz per
folder and size of images.
"""

import hashlib
import itertools
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxdal.data import cache
from jaxdal.data.images import Decoded, Source, decode

FORMAT = "1"  # changes with what decoding means
WORTH = 2.0  # seconds of decoding that are worth a file


def decode_once(sources: Sequence[Source], image_size: int | None, *, skip_broken: bool, root: Path) -> Decoded:
    """What `decode` gives of N files below `root`; those that an earlier call has decoded are not read.

    Raises:
        InputError: as `decode`.
    """
    told = hashlib.sha256(f"{FORMAT} {image_size} {root.resolve()}".encode(errors="surrogateescape"))
    path = cache.home() / "images" / f"moving-{told.hexdigest()[:32]}.npz"
    keys = [_key(source) for source in sources]  # before decoding: what changes meanwhile has another one next time
    known, kept = _read(path)
    rows = np.asarray([known.get(key, -1) for key in keys])
    if kept.shape[-1] == 3 and not known.keys() <= {*keys} and not _coloured(kept, rows):
        rows[:] = -1  # those that made all of them RGB may be gone
    found, new = rows >= 0, np.flatnonzero(rows < 0)
    first = np.flatnonzero(found)[:1]  # one that is known goes with the others, which have to be of its size
    began = time.monotonic()
    fresh = decode([sources[row] for row in (*first, *new)], image_size, skip_broken=skip_broken, title=str(root))
    seconds, whole = time.monotonic() - began, fresh
    if first.size:
        good = found.copy()
        good[new] = fresh.good[1:]
        x = np.empty((good.sum(), *fresh.x.shape[1:3], max(kept.shape[-1], fresh.x.shape[-1])), np.uint8)
        x[found[good]], x[~found[good]] = kept[rows[found]], fresh.x[int(fresh.good[0]) :]  # it may have just gone
        whole = Decoded(x, good)
    if seconds > WORTH:
        _keep(path, [*itertools.compress(keys, whole.good)], whole.x, str(root))
    return whole


def _coloured(kept: np.ndarray, rows: np.ndarray) -> bool:
    """Whether one of these rows, -1 meaning none, has a pixel that is not grey."""
    return any((kept[row] != kept[row, ..., :1]).any() for row in rows if row >= 0)


def _key(source: Source) -> str:
    assert isinstance(source.file, str)
    try:
        status = os.stat(source.file)
    except OSError:  # a link to nowhere: decoding will say so
        return ""
    return f"{os.path.basename(source.file)}|{status.st_ino}|{status.st_size}|{status.st_mtime_ns}"


def _read(path: Path) -> tuple[dict[str, int], np.ndarray]:
    """Row of each image that is kept, and the rows, u8[n, H, W, C]; nothing where no file is, or a damaged one."""
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            return {key: row for row, key in enumerate(archive["keys"].tolist())}, archive["images"]
    except Exception:  # as in `cache.read`
        return {}, np.empty((0, 0, 0, 1), np.uint8)


def _keep(path: Path, keys: list[str], images: np.ndarray, title: str) -> None:
    try:
        cache.write(path, {"keys": np.asarray(keys, dtype=str), "images": images})
        told = f"kept in {path}"
    except OSError as error:
        told = f"which cannot be kept in {path} ({error.strerror})"
    print(f"{title}: {len(keys):,} decoded images, {told}", file=sys.stderr, flush=True)
