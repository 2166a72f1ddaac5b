"""Own images as files: `folder:PATH`, with one folder per class."""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from jaxdal.data import cache
from jaxdal.data.cache import Options, Sources
from jaxdal.data.holdout import hold_out
from jaxdal.data.images import SUFFIXES, Source
from jaxdal.errors import InputError
from jaxdal.files import at_home
from jaxdal.types import Dataset

TEST_FOLDERS = ("test", "val", "valid", "validation")
PARTS = ("train", "training", "testing", *TEST_FOLDERS)  # in any case: no names of classes, if there are no others


def load(path: str, options: Options) -> Dataset:
    """A tree of PNG, JPEG, PPM and WebP files.

    Either PATH/train/CLASS/... and PATH/test/CLASS/... (or val, valid, validation), or PATH/CLASS/..., of which a part
    of each class is set aside for testing. Classes are sorted by name, and images by class and name below it: that is
    the order of the pool. Names that begin with a dot are ignored, files with other endings named and left out.

    Raises:
        InputError: the tree is not as described, or an image is broken.
    """
    root = at_home(path)
    if not root.is_dir():
        told = "is a file; folder:PATH names an unpacked folder" if root.exists() else "does not exist"
        raise InputError(f"{root} {told}")
    stamps: list[str] = []
    others: list[str] = []
    try:
        train_folder, test_folder = _parts(root)
        train = _classes(root, train_folder, stamps, others)
        test = _classes(root, test_folder, stamps, others) if test_folder else {}
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error
    if train and all(name.lower() in PARTS for name in train):
        raise InputError(
            f"{root} holds {_listed(train)}: training and test sets are called train and test, with a folder per class"
        )
    if len(train) < 2:
        where = root / train_folder
        raise InputError(f"{where} must hold a folder per class, at least two, but it holds {_listed(train)}")
    if test_folder and options.test_share is not None:
        raise InputError(f"--test_share={options.test_share}: the test images are in {root / test_folder}")
    unknown = [name for name in test if name not in train]
    if unknown:
        raise InputError(f"{root / test_folder} holds classes that {root / train_folder} lacks: {_listed(unknown)}")
    if others:
        told = f"left out, for they are not {' '.join(SUFFIXES)} ({len(others):,}): {_listed(others)}"
        print(f"folder:{path}: {told}", file=sys.stderr, flush=True)
    if beside := [name for name in TEST_FOLDERS if train_folder and name != test_folder and (root / name).is_dir()]:
        why = (
            f"test images are those of {test_folder}" if test_folder else "no folder per class; a share of train tests"
        )
        print(f"folder:{path}: left out: {', '.join(beside)} ({why})", file=sys.stderr, flush=True)
    labels = {name: label for label, name in enumerate(train)}

    def sources() -> Sources:
        given = _sources(root, train, labels)
        first, held_out = (given, _sources(root, test, labels)) if test_folder else hold_out(given, options.test_share)
        return Sources(first, held_out, tuple(train))

    return cache.dataset(f"folder:{path}", stamps, options, sources)


def _parts(root: Path) -> tuple[str, str]:
    """The folders of training and test set below `root`; "" for the second where none is set apart.

    A class may be called "train": it holds nothing but images, where a training set holds folders.
    """
    if not holds_folders(root / "train"):
        return "", ""
    return "train", next((name for name in TEST_FOLDERS if holds_folders(root / name)), "")


def holds_folders(folder: Path) -> bool:
    """Whether it is one, with others in it."""
    return folder.is_dir() and any(path.is_dir() and not path.name.startswith(".") for path in folder.iterdir())


def _classes(root: Path, folder: str, stamps: list[str], others: list[str]) -> dict[str, list[str]]:
    """Class name -> its images as sorted paths below `root`; their stamps, and names of other files, are appended.

    Raises InputError for a class without images.
    """
    entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
    classes: dict[str, list[str]] = {}
    for entry in entries:
        if entry.is_dir() and not entry.name.startswith("."):
            found = list(images_below(entry.path, f"{folder}/{entry.name}/".lstrip("/"), others))
            classes[entry.name] = [name for name, _ in found]
            stamps += [mark for _, mark in found]
    empty = [name for name, files in classes.items() if not files]
    if empty:
        raise InputError(f"no image ({' '.join(SUFFIXES)}) is in these folders of {root / folder}: {_listed(empty)}")
    return classes


def _sources(root: Path, classes: dict[str, list[str]], labels: dict[str, int]) -> list[Source]:
    return [Source(file, f"{root}/{file}", labels[name]) for name, files in classes.items() for file in files]


def images_below(folder: str, prefix: str, others: list[str]) -> Iterator[tuple[str, str]]:
    """Names and stamps of all images below a folder, sorted; names of other files are appended."""
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if entry.name.startswith("."):
            continue
        name = prefix + entry.name
        if is_image(entry.name):
            try:
                yield name, cache.stamp(name, entry.stat())
            except OSError:  # a link to nowhere: decoding will say so
                yield name, name
        elif entry.is_dir():
            yield from images_below(entry.path, f"{name}/", others)
        else:
            others.append(name)


def is_image(name: str) -> bool:
    """Whether a file has an ending that is read."""
    return name.lower().endswith(SUFFIXES)


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - 10} more" if len(shown) > 10 else ""
    return (", ".join(shown[:10]) or "none") + more
