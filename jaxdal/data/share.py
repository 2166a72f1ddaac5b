"""A share of a pool: the same data set with fewer images to choose from."""

from fractions import Fraction

import numpy as np

from jaxdal.errors import InputError
from jaxdal.types import Dataset


def share_asked(share: str | None, seed: int) -> tuple[str, int] | None:
    """A share and its seed; None is the whole pool.

    Raises:
        InputError: a seed of no share.
    """
    if share is None and seed:
        raise InputError(f"--pool_seed={seed} says which share of the pool, and --pool_share is not given")
    return None if share is None else (share, seed)


def share_of_pool(dataset: Dataset, share: str, seed: int = 0) -> Dataset:
    """Keep a random share of the training images, such as "40%", rounded down; the test set stays.

    Kept is the first share of a permutation drawn from `seed`, in the order of the pool: smaller shares of one seed are
    parts of larger ones, and 100% is the data set itself.

    Raises:
        InputError: the share is not one, or no image would be left.
    """
    size, share = len(dataset.train_y), str(share)
    try:
        part = Fraction(share.strip().removesuffix("%").strip()) / 100
    except (ValueError, ZeroDivisionError):
        part = Fraction(0)
    if not (share.strip().endswith("%") and 0 < part <= 1 and int(size * part)):
        raise InputError(f"--pool_share={share} is not a share such as 40% of a pool of {size}")
    if not 0 <= seed < 2**32:
        raise InputError(f"--pool_seed={seed} is not in 0..4294967295")
    # RandomState and not Generator: NumPy promises that its stream never changes.
    rows = np.sort(np.random.RandomState(seed).permutation(size)[: int(size * part)])
    files = tuple(dataset.files[row] for row in rows) if dataset.files else ()
    return dataset._replace(train_x=dataset.train_x[rows], train_y=dataset.train_y[rows], files=files)
