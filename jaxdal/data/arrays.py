"""From plain NumPy arrays to a checked Dataset. Everything a user can get wrong is refused here, in one sentence."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxdal.errors import InputError
from jaxdal.types import Dataset


def from_arrays(
    train_x: Any,
    train_y: Any,
    test_x: Any,
    test_y: Any,
    *,
    num_classes: int | None = None,
    mirror: bool = False,
    class_names: Sequence[str] = (),
) -> Dataset:
    """Check images and labels and wrap them. Arrays that already fit are not copied.

    Args:
        train_x: u8[N, H, W, C] or u8[N, H, W], values 0..255.
        train_y: any integer type, [N], values 0..num_classes-1.
        test_x: u8[M, H, W, C] or u8[M, H, W], of the same image shape.
        test_y: any integer type, [M].
        num_classes: how many classes there are. When None: one per class name, or, without names, the largest label
            of both sets plus one (the only place where labels are looked at to find it).
        mirror: does a left-right flip keep the label?
        class_names: () or one name per class.

    Raises:
        InputError: anything of the above does not hold.
    """
    train_images, test_images = _images("training", train_x), _images("test", test_x)
    if train_images.shape[1:] != test_images.shape[1:]:
        raise InputError(
            f"training images are {_shape(train_images.shape[1:])} but test images are "
            f"{_shape(test_images.shape[1:])}: both must have one height, width and number of channels"
        )
    train_labels = _labels("training", train_y, len(train_images))
    test_labels = _labels("test", test_y, len(test_images))
    names = tuple(str(name) for name in class_names)
    if num_classes is None:
        num_classes = len(names) or _counted(train_labels, test_labels)
    if isinstance(num_classes, bool) or not isinstance(num_classes, int | np.integer) or num_classes < 2:
        raise InputError(f"num_classes must be an integer of at least 2, got {num_classes!r}")
    if names and len(names) != num_classes:
        raise InputError(f"got {len(names)} class names for {num_classes} classes: give one name per class, or none")
    for which, labels in (("training", train_labels), ("test", test_labels)):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= num_classes:
            wrong = low if low < 0 else high
            hint = ": every image needs its label, also those that a run has yet to buy" if low == -1 else ""
            raise InputError(
                f"{which} labels must lie in 0..{num_classes - 1} for {num_classes} classes, found {wrong}{hint}"
            )
    return Dataset(
        train_x=train_images,
        train_y=train_labels.astype(np.int32),
        test_x=test_images,
        test_y=test_labels.astype(np.int32),
        num_classes=int(num_classes),
        mirror=bool(mirror),
        class_names=names,
    )


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 over classes, shapes and bytes of all four arrays: equal if and only if the data are equal."""
    digest = hashlib.sha256(f"{dataset.num_classes}".encode())
    for array in (dataset.train_x, dataset.train_y, dataset.test_x, dataset.test_y):
        digest.update(f"|{array.dtype.str}{array.shape}|".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def to_bytes(images: np.ndarray) -> str:
    """What makes uint8 of such pixels, by their range: those of 0..255 are not to be multiplied once more."""
    if images.dtype.kind not in "fbiu" or images.size == 0:
        return "use 0..255"
    low, high, cast = images.min(), images.max(), "use .astype(numpy.uint8)"
    if low >= 0 and high <= 1 and images.dtype.kind in "fb":
        return f"multiply by 255, round and {cast}"
    if low >= 0 and high <= 255:
        return f"round and {cast}" if images.dtype.kind == "f" else cast
    return f"scale what is {low:.4g} to {high:.4g} here to 0..255, round and {cast}"


def _images(which: str, x: Any) -> np.ndarray:
    """Any array-like -> contiguous u8[N, H, W, C]; raises InputError for another type or shape."""
    images = _array(f"{which} images", x)
    if images.dtype != np.uint8:
        told = f"got {images.dtype}: {to_bytes(images)}"
        raise InputError(f"{which} images must be uint8 with values 0..255, {told}")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4:
        raise InputError(
            f"{which} images must have the shape [N, height, width, channels] or [N, height, width], "
            f"got {_shape(images.shape)}"
        )
    if images.size == 0:
        raise InputError(f"there are no {which} images: the array has the shape {_shape(images.shape)}")
    if images.shape[1] in (1, 3) and images.shape[3] > 4:
        raise InputError(
            f"{which} images of the shape {_shape(images.shape)} look channels-first: "
            "use .transpose(0, 2, 3, 1) to put the channels last"
        )
    return np.ascontiguousarray(images)


def _labels(which: str, y: Any, count: int) -> np.ndarray:
    """Any array-like -> integer [count]; raises InputError for another type, shape or length."""
    labels = _array(f"{which} labels", y)
    if labels.dtype.kind in "USO":
        hint = "names, numbers = numpy.unique(labels, return_inverse=True) makes some of names"
        raise InputError(f"{which} labels must be integers, got {labels.dtype}: {hint}")
    if labels.dtype.kind not in "iu" and labels.ndim == 1:
        raise InputError(f"{which} labels must be integers, got {labels.dtype}: use .astype(numpy.int32)")
    if labels.ndim != 1:
        hint = "use .ravel()" if labels.size == count else "give class numbers, not one-hot rows"
        raise InputError(f"{which} labels must be one-dimensional, got the shape {_shape(labels.shape)}: {hint}")
    if len(labels) != count:
        raise InputError(f"there are {count} {which} images but {len(labels)} {which} labels")
    return labels


def _counted(train: np.ndarray, test: np.ndarray) -> int:
    """How many classes there are, by the labels; raises InputError for labels that cannot number them."""
    lowest, largest = int(min(train.min(), test.min())), int(max(train.max(), test.max()))
    if lowest < 0 and largest < 1:  # else the number of classes is clear, and which label is wrong
        hint = ": every image needs its label, also those that a run has yet to buy" if lowest == -1 else ""
        raise InputError(f"labels are counted from 0, found {lowest}{hint}")
    if largest >= len(train) + len(test):
        told = f"the largest label is {largest}, of {len(train) + len(test)} images"
        raise InputError(f"{told}: number the classes from 0, or give num_classes")
    return 1 + largest


def _array(what: str, value: Any) -> np.ndarray:
    """np.asarray with a sentence instead of a traceback for ragged lists and objects."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} cannot be read as one array: {error}") from error


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(str(size) for size in shape) + "]"
