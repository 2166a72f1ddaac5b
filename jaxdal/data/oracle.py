"""The one who knows the hidden labels. It lives on the host, and no traced function can hold it."""

from typing import Any

import numpy as np

from jaxdal.types import Dataset


class Oracle:
    """Hidden labels of a pool, sold one by one.

    Deliberately not a pytree and not hashable: jax.jit refuses it both as a traced and as a static argument, so that
    no part of training or selection can be handed a label that was not bought.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, labels: np.ndarray) -> None:
        """labels: i32[N], kept as a private copy."""
        self.__labels = np.array(labels, dtype=np.int32)
        self.__labels.setflags(write=False)
        self.__revealed = 0

    @property
    def revealed(self) -> int:
        """How many labels were sold so far."""
        return self.__revealed

    def __len__(self) -> int:
        return len(self.__labels)

    def __repr__(self) -> str:
        return f"Oracle(size={len(self)}, revealed={self.revealed})"

    def reveal(self, known: Any, picks: Any) -> np.ndarray:
        """Buy the labels of some pool examples.

        Args:
            known: i32[N], revealed label or -1; not changed.
            picks: integer [k], distinct pool indices whose label is not known.

        Returns:
            i32[N], a new array: `known` with the labels of `picks` filled in.

        Raises:
            ValueError: picks repeat, are out of range or already known, or the arrays have another shape or type.
        """
        known, picks = self.check(known, picks)
        result = known.astype(np.int32)  # astype copies
        result[picks] = self.__labels[picks]
        self.__revealed += len(picks)
        return result

    def check(self, known: Any, picks: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return both as arrays if `reveal` would take them; raises ValueError as that does."""
        size = len(self)
        known, picks = np.asarray(known), np.asarray(picks)
        if known.shape != (size,) or known.dtype.kind not in "iu":
            raise ValueError(f"known must be {size} integers, got {known.dtype}{list(known.shape)}")
        if picks.size == 0:
            return known, picks.astype(np.int32)
        if picks.ndim != 1 or picks.dtype.kind not in "iu":
            raise ValueError(f"picks must be a list of pool indices, got {picks.dtype}{list(picks.shape)}")
        if picks.min() < 0 or picks.max() >= size:
            wrong = picks[(picks < 0) | (picks >= size)][0]
            raise ValueError(f"pick {wrong} is outside the pool of {size} examples")
        values, counts = np.unique(picks, return_counts=True)
        if len(values) < len(picks):
            raise ValueError(f"pick {values[counts > 1][0]} occurs more than once")
        if (known[picks] >= 0).any():
            raise ValueError(f"the label of pick {picks[known[picks] >= 0][0]} is already known")
        return known, picks


def split(dataset: Dataset) -> tuple[np.ndarray, Oracle, tuple[np.ndarray, np.ndarray]]:
    """Part a data set into pool pixels u8[N, H, W, C], the Oracle of their labels, and the test set (x, y)."""
    return dataset.train_x, Oracle(dataset.train_y), (dataset.test_x, dataset.test_y)
