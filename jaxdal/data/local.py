"""Data sets that need no download: scikit-learn's digits and the user's own .npz file."""

from pathlib import Path

import numpy as np

from jaxdal.data.arrays import from_arrays
from jaxdal.errors import InputError
from jaxdal.files import at_home
from jaxdal.types import Dataset

KEYS = ("train_images", "train_labels", "test_images", "test_labels")
KERAS_KEYS = ("x_train", "y_train", "x_test", "y_test")


def load_digits() -> Dataset:
    """The 1,797 handwritten 8x8 digits that come with scikit-learn; every fifth image is for testing."""
    import sklearn.datasets  # half a second, and only this data set needs it

    source = sklearn.datasets.load_digits()
    images = np.rint(source.images * (255 / 16)).astype(np.uint8)  # 17 grey levels: 0..16
    labels = source.target.astype(np.int32)
    test = np.arange(len(labels)) % 5 == 4
    names = tuple(str(digit) for digit in range(10))
    return from_arrays(
        images[~test], labels[~test], images[test], labels[test], num_classes=10, mirror=False, class_names=names
    )


def load_npz(path: str | Path, num_classes: int | None = None, mirror: bool = False) -> Dataset:
    """Arrays from one .npz file; raises InputError when it is missing, damaged, pickled or has other keys.

    Keys: train_images, train_labels, test_images, test_labels (or x_train, y_train, x_test, y_test), and optionally
    class_names, without which the number of classes, unless it is given, is the largest label plus one.
    """
    path = at_home(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        with path.open("rb") as file:  # numpy leaves a file open that it cannot read
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InputError(f"{path} holds a single array: save all four with numpy.savez")
            keys = next((keys for keys in (KEYS, KERAS_KEYS) if set(keys) <= set(archive.files)), None)
            if keys is None:
                raise InputError(
                    f"{path} must hold {', '.join(KEYS)} (or {', '.join(KERAS_KEYS)}), "
                    f"but it holds {', '.join(archive.files) or 'nothing'}"
                )
            arrays = [archive[key] for key in keys]
            names = archive["class_names"].tolist() if "class_names" in archive.files else ()
    except InputError:
        raise
    except Exception as error:  # whatever a damaged archive makes zipfile, zlib and NumPy come up with
        if "pickle" in str(error):
            raise InputError(
                f"{path} holds pickled Python objects, which are never read: save plain arrays with numpy.savez"
            ) from error
        raise InputError(f"{path} cannot be read as an .npz file: {error}") from error
    return from_arrays(*arrays, num_classes=num_classes, mirror=mirror, class_names=names)
