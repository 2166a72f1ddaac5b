"""Archives of image files: a zip file and the folder that it was unpacked to are read alike, and nothing is written."""

import io
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdal.errors import InputError


class Split(NamedTuple):
    """Images and labels of one split, in the order of the official files."""

    x: np.ndarray  # u8[N, H, W, C]
    y: np.ndarray  # u8[N]


class Listing(NamedTuple):
    """The image files of one split, not read yet."""

    path: Path  # a zip file that holds the folder `root`, or this folder, unpacked
    root: str
    names: list[str]  # below `root`, in the order of the split
    labels: list[int]


def list_files(path: Path, root: str) -> list[str]:
    """Names of all files below `root`, sorted; raises InputError if there are none."""
    if path.is_dir():
        folders = ((os.path.relpath(folder, path), files) for folder, _, files in os.walk(path))
        found = [Path(folder, file).as_posix() for folder, files in folders for file in files]
    else:
        with zipfile.ZipFile(path) as archive:
            inside = [name for name in archive.namelist() if name.startswith(f"{root}/") and not name.endswith("/")]
        found = [name.removeprefix(f"{root}/") for name in inside]
    if not found:
        raise InputError(f"{path} has no files in {root}: it is another archive, or it is not complete")
    return sorted(found)


def read_files(path: Path, root: str, names: Sequence[str]) -> Iterator[bytes]:
    """Contents of files below `root`, one after the other."""
    if path.is_dir():
        for name in names:
            yield (path / name).read_bytes()
    else:
        with zipfile.ZipFile(path) as archive:
            for name in names:
                yield archive.read(f"{root}/{name}")


def check_lists(path: Path, listed: set[str], found: set[str]) -> None:
    """Raises InputError unless the lists that come with an archive and its image files name the same images."""
    if missing := sorted(listed - found):
        raise InputError(f"{path} is not complete: it lists {missing[0]}, which is not there ({len(missing)} missing)")
    if extra := sorted(found - listed):
        raise InputError(f"{path} has {extra[0]}, which its list does not name ({len(extra)} such images)")


def decode(listing: Listing, size: int, kind: str, resize: bool = False) -> Split:
    """Read and decode all images of a split to RGB; raises InputError naming the image that is damaged.

    Args:
        listing: N image files and their labels.
        size: height and width of the result, pixels.
        kind: what Pillow calls the format: "PPM" or "JPEG".
        resize: bring the whole frame to this size (bilinear with antialiasing); otherwise images must have it.
    """
    from PIL import Image  # not needed for most data sets

    images = np.empty((len(listing.names), size, size, 3), np.uint8)
    contents = read_files(listing.path, listing.root, listing.names)
    for position, (name, content) in enumerate(zip(listing.names, contents, strict=True)):
        try:
            picture = Image.open(io.BytesIO(content), formats=(kind,)).convert("RGB")
        except (OSError, ValueError) as error:
            raise InputError(f"{listing.path}: {name} is not a whole {kind} image") from error
        if resize:
            picture = picture.resize((size, size), Image.Resampling.BILINEAR)
        elif picture.size != (size, size):
            raise InputError(f"{listing.path}: {name} is {picture.width}x{picture.height}, not {size}x{size}")
        images[position] = np.asarray(picture)
    return Split(images, np.array(listing.labels, np.uint8))
