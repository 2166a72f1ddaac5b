"""Tiny-ImageNet-200 from its official archive (Stanford CS231n): 100,000 / 10,000 images of 64x64.

The validation images are the test set, as everywhere: the labels of the official test images were never published.
Classes are numbered by sorted WordNet id, and both sets sorted by file name, as an image folder is; the pool is
therefore sorted by class. Some files are grey, and become RGB.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from jaxdal.data.archives import Listing, Split, check_lists, decode, list_files, read_files
from jaxdal.errors import InputError

SIZE = 64
ROOT = "tiny-imagenet-200"
CLASSES, TEST_LABELS, WORDS = "wnids.txt", "val/val_annotations.txt", "words.txt"


def read(paths: list[Path]) -> tuple[Split, Split, tuple[str, ...]]:
    """Training set, test set and class names from the one archive."""
    train, test, class_names = listings(paths[0])
    return decode(train, SIZE, "JPEG"), decode(test, SIZE, "JPEG"), class_names


def listings(path: Path) -> tuple[Listing, Listing, tuple[str, ...]]:
    """Training images, test images and class names ("n01443537 goldfish, Carassius auratus").

    Raises InputError when a list or an image is missing. An archive cut down to fewer classes is as good.
    """
    files = list_files(path, ROOT)
    known = set(files)
    classes, labels = _tables(path, known, [CLASSES, TEST_LABELS])
    words = _tables(path, known, [WORDS])[0] if WORDS in known else []
    ids = sorted(row[0] for row in classes)
    number = {wnid: label for label, wnid in enumerate(ids)}
    boxes = _tables(path, known, [f"train/{wnid}/{wnid}_boxes.txt" for wnid in ids])
    train = [name for name in files if re.fullmatch(r"train/[^/]+/images/[^/]+\.JPEG", name)]
    listed = {f"train/{wnid}/images/{row[0]}" for wnid, box in zip(ids, boxes, strict=True) for row in box}
    check_lists(path, listed, set(train))
    test = [name for name in files if re.fullmatch(r"val/images/[^/]+\.JPEG", name)]
    named = {f"val/images/{row[0]}": number.get(row[1], -1) for row in labels if len(row) > 1}
    check_lists(path, set(named), set(test))
    if -1 in named.values():
        raise InputError(f"{path}: {TEST_LABELS} names a class that {CLASSES} does not")
    gloss = {row[0]: f"{row[0]} {row[1]}" for row in words if len(row) > 1}
    return (
        Listing(path, ROOT, train, [number[name.split("/")[1]] for name in train]),
        Listing(path, ROOT, test, [named[name] for name in test]),
        tuple(gloss.get(wnid, wnid) for wnid in ids),
    )


def _tables(path: Path, known: set[str], names: Sequence[str]) -> list[list[list[str]]]:
    """Rows and columns of text files; raises InputError when one is not there."""
    if absent := sorted(set(names) - known):
        raise InputError(f"{path} has no {absent[0]} in {ROOT}: it is not complete")
    texts = [content.decode(errors="replace") for content in read_files(path, ROOT, names)]
    return [[line.strip().split("\t") for line in text.splitlines() if line.strip()] for text in texts]
