"""Own images as files: `folder:PATH`, with one folder per class."""

import os
import sys
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxdal.data import cache
from jaxdal.data.cache import Options, Sources
from jaxdal.data.holdout import hold_out
from jaxdal.data.images import SUFFIXES, Source
from jaxdal.errors import InputError
from jaxdal.files import at_home
from jaxdal.types import Dataset

TEST_FOLDERS = ("test", "val", "valid", "validation")
PARTS = ("train", "training", "testing", *TEST_FOLDERS)  # in any case: no names of classes, if there are no others


class Seen(NamedTuple):
    """What is found on the way, to be appended to."""

    stamps: list[str]  # of all images of classes
    others: list[str]  # files that are no images
    loose: list[str]  # images in no folder of a class
    within: list[str]  # folders of images within those of classes


def load(path: str, options: Options) -> Dataset:
    """A tree of PNG, JPEG, PPM and WebP files.

    Either PATH/train/CLASS/... or PATH/CLASS/..., and for testing PATH/test/CLASS/... (or val, valid, validation) or a
    part of each class, which is set aside. Folders within that of a class do not count. Classes are sorted by name, and
    images by class and name below it: that is the order of the pool. Names that begin with a dot are ignored; files
    with other endings, and images and folders that lie elsewhere, are named and left out.

    Raises:
        InputError: the tree is not as described, or an image is broken.
    """
    root = at_home(path)
    if not root.is_dir():
        told = "is a file; folder:PATH names an unpacked folder" if root.exists() else "does not exist"
        raise InputError(f"{root} {told}")
    seen = Seen([], [], [], [])
    try:
        train_folder, *tests = _parts(root)
        test_folder = tests[0] if tests else ""
        train = _classes(root, train_folder, seen, () if train_folder else tests)
        test = _classes(root, test_folder, seen) if test_folder else {}
        beside = _beside(root, train_folder, seen) if train_folder else tests
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
    tell(f"folder:{path}", seen, [name for name in beside if name != test_folder], test_folder)
    labels = {name: label for label, name in enumerate(train)}

    def sources() -> Sources:
        given = _sources(root, train, labels)
        first, held_out = (given, _sources(root, test, labels)) if test_folder else hold_out(given, options.test_share)
        return Sources(first, held_out, tuple(train))

    return cache.dataset(f"folder:{path}", seen.stamps, options, sources)


def _parts(root: Path) -> list[str]:
    """The folder of the training set below `root`, "" for `root` itself, then those that may be of the test set.

    A class may be called "train" or "test": it holds nothing but images, where these hold folders.
    """
    tests = [name for name in TEST_FOLDERS if holds_folders(root / name)]
    return ["train" if holds_folders(root / "train") else "", *tests]


def _beside(root: Path, train_folder: str, seen: Seen) -> list[str]:
    """Other folders than that of the training set; the images beside it are appended."""
    entries = sorted((one for one in os.scandir(root) if not one.name.startswith(".")), key=lambda one: one.name)
    seen.loose.extend(one.name for one in entries if is_image(one.name) and not one.is_dir())
    return [one.name for one in entries if one.is_dir() and one.name != train_folder]


def tell(title: str, seen: Seen, beside: Sequence[str], test_folder: str) -> None:
    """Print what does not count, or perhaps not as was meant."""
    tests = [name for name in TEST_FOLDERS if name in beside]
    why = f"test images are those of {test_folder}" if test_folder else "no folder per class; a share of train tests"
    for names, told in (
        (seen.others, f"left out, for they are not {' '.join(SUFFIXES)} ({len(seen.others):,}): {{}}"),
        (seen.loose, f"left out, for they are in no folder of a class ({len(seen.loose):,}): {{}}"),
        (seen.within, f"images in folders within that of a class are of that class ({len(seen.within):,}): {{}}"),
        (tests, f"left out: {{}} ({why})"),
        ([name for name in beside if name not in tests], "left out: {} (training images are those of train)"),
    ):
        if names:
            print(f"{title}: {told.format(_listed(names))}", file=sys.stderr, flush=True)


def holds_folders(folder: Path) -> bool:
    """Whether it is one, with others in it."""
    return folder.is_dir() and any(path.is_dir() and not path.name.startswith(".") for path in folder.iterdir())


def _classes(root: Path, folder: str, seen: Seen, but: Container[str] = ()) -> dict[str, list[str]]:
    """Class name -> its images as sorted paths below `root`. but: folders that are no classes.

    Raises InputError for a class without images.
    """
    entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
    classes: dict[str, list[str]] = {}
    for entry in entries:
        name = f"{folder}/{entry.name}".lstrip("/")
        if entry.name.startswith(".") or entry.name in but:
            continue
        if entry.is_dir():
            found = list(images_below(entry.path, f"{name}/", seen.others))
            classes[entry.name] = [name for name, _ in found]
            seen.stamps.extend(mark for _, mark in found)
            seen.within.extend(sorted({file.rpartition("/")[0] for file, _ in found} - {name}))
        elif is_image(entry.name):
            seen.loose.append(name)
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
