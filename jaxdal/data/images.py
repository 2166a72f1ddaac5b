"""Image files to arrays, in parallel: grey, palette, transparency, 16 bits and EXIF rotation are settled here."""

import contextlib
import io
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from jaxdal.errors import InputError

FORMATS = ("PNG", "JPEG", "PPM", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".ppm", ".pgm", ".pbm", ".webp")
CHUNK = 64  # images per task of a thread
MOST_THREADS = 16  # the lock of the interpreter bounds what more of them could do
EVERY = 10.0  # seconds between plain lines where there is no terminal


class Source(NamedTuple):
    """An image that is not decoded yet."""

    name: str  # within its data set
    file: str | bytes  # a path, or the content of a file
    label: int


class Decoded(NamedTuple):
    """Images of one size, in the order of their sources."""

    x: np.ndarray  # u8[n, H, W, C]; C is 1 if all are grey, else 3
    good: np.ndarray  # bool[N]: which of the sources could be read; n of them


def decode(sources: Sequence[Source], image_size: int | None, *, skip_broken: bool, title: str) -> Decoded:
    """Decode with all cores; a bar on a terminal, a line now and then elsewhere.

    Args:
        sources: N images.
        image_size: height and width to which every image is stretched; None: all have one size already.
        skip_broken: leave out what cannot be read, in place of stopping.
        title: whose images these are, for the user.

    Raises:
        InputError: an image is broken, the sizes differ, or nothing can be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about metadata: who could mend them?
        return _decode(sources, image_size, skip_broken, title)


def _decode(sources: Sequence[Source], image_size: int | None, skip_broken: bool, title: str) -> Decoded:
    first, shape = _first(sources, image_size, skip_broken, title)
    x = np.empty((len(sources), *shape, 3), np.uint8)
    good, grey = np.zeros(len(sources), bool), np.zeros(len(sources), bool)

    def work(start: int) -> InputError | None:
        """Fill rows from `start` on; returns the error of the first image that ends it all."""
        for row in range(start, min(start + CHUNK, len(sources))):
            picture, reason = _try(sources[row], image_size)
            if picture is None and not skip_broken:
                return _broken(title, sources[row], reason)
            if picture is None:
                continue
            if picture.shape[:2] != shape:
                return _sizes_differ(title, first, shape, sources[row], picture.shape[:2])
            grey[row], good[row] = picture.ndim == 2, True
            x[row] = picture[..., None] if picture.ndim == 2 else picture
        return None

    starts = range(0, len(sources), CHUNK)
    # Threads, not processes: Pillow decodes without the interpreter lock. Images of 32 x 32 gain nothing from either.
    pool = ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1))
    try:
        for problem in _shown(pool.map(work, starts), len(starts), len(sources), title):
            if problem is not None:
                raise problem
    finally:
        pool.shutdown(cancel_futures=True)
    if not good.all():
        x, grey = x[good], grey[good]
    return Decoded(np.ascontiguousarray(x[..., :1]) if grey.all() else x, good)


def read_image(file: str | bytes, image_size: int | None) -> np.ndarray:
    """One image as u8[H, W] if it is grey, else u8[H, W, 3]; raises whatever Pillow raises.

    Transparent parts become white. Of an animation, the first frame counts.
    """
    with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=FORMATS) as picture:
        if image_size:
            picture.draft(None, (2 * image_size, 2 * image_size))  # JPEG: large photographs are never fully decoded
        picture.load()  # whatever is broken shows here; notes about the camera may be broken as they like
        with contextlib.suppress(Exception):
            ImageOps.exif_transpose(picture, in_place=True)
        flat = _flat(picture)
        if image_size and flat.size != (image_size, image_size):
            flat = flat.resize((image_size, image_size), Image.Resampling.BILINEAR)  # antialiased
        return np.asarray(flat)


def _flat(picture: Image.Image) -> Image.Image:
    """The same without transparency, palette and depth: mode L or RGB."""
    if picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    if picture.mode.startswith("I"):  # 16 bits a pixel: Pillow's own conversion would clip at 255
        return Image.fromarray((np.clip(np.asarray(picture), 0, 65535) >> 8).astype(np.uint8))
    mode = "L" if picture.mode in ("1", "L", "LA") else "RGB"
    if picture.has_transparency_data:
        page = Image.new("RGBA", picture.size, "white")
        page.alpha_composite(picture.convert("RGBA"))
        return page.convert(mode)
    return picture.convert(mode)


def _try(source: Source, image_size: int | None) -> tuple[np.ndarray | None, str]:
    """The image, or None and why it cannot be read."""
    try:
        return read_image(source.file, image_size), ""
    except UnidentifiedImageError:
        return None, "it is no PNG, JPEG, PPM or WebP image"
    except Exception as error:  # each decoder has its own: OSError, SyntaxError, struct.error, ...
        return None, " ".join(str(error).split()) or type(error).__name__


def _first(
    sources: Sequence[Source], image_size: int | None, skip_broken: bool, title: str
) -> tuple[Source, tuple[int, ...]]:
    """The first image that can be read, and its height and width: those of all others. Raises InputError."""
    for source in sources:
        picture, reason = _try(source, image_size)
        if picture is not None:
            return source, picture.shape[:2]
        if not skip_broken:
            raise _broken(title, source, reason)
    raise InputError(f"{title}: none of {len(sources):,} images can be read")


def _broken(title: str, source: Source, reason: str) -> InputError:
    return InputError(
        f"{title}: {source.name} cannot be read ({reason}): mend it, remove it, or leave it out with --skip_broken"
    )


def _sizes_differ(
    title: str, one: Source, shape: tuple[int, ...], other: Source, other_shape: tuple[int, ...]
) -> InputError:
    sizes = [f"{width} x {height}" for height, width in (shape, other_shape)]
    return InputError(
        f"{title}: {one.name} is {sizes[0]} but {other.name} is {sizes[1]}: "
        f"choose one size for all, such as --image_size={min(64, *shape)}"
    )


def _shown(results: Iterator[InputError | None], tasks: int, images: int, title: str) -> Iterator[InputError | None]:
    """Pass the results of all tasks on, and show on stderr how far they are."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(results, f"decoding {images:,} images", tasks, console=Console(stderr=True), transient=True)
        return
    printed = time.monotonic()
    for number, result in enumerate(results):
        yield result
        if time.monotonic() - printed >= EVERY:
            printed = time.monotonic()
            done = min(images, (number + 1) * CHUNK)
            print(f"{title}: decoded {done:,} of {images:,} images", file=sys.stderr, flush=True)
