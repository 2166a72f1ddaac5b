"""How many labels each round has, in integers: `10%` of a pool, or a count."""

from fractions import Fraction
from typing import NamedTuple

from jaxdal.errors import InputError


class Budget(NamedTuple):
    """Labels at the start, bought per round, and at the end."""

    n_start: int
    n_query: int
    n_end: int

    @property
    def rounds(self) -> int:
        """How many times a network is trained; labels that do not fill a whole query are not bought."""
        return 1 if self.n_end == self.n_start else 1 + (self.n_end - self.n_start) // self.n_query

    @property
    def labels(self) -> list[int]:
        """The number of labels in each round."""
        return [self.n_start + self.n_query * number for number in range(self.rounds)]


def count(text: str | int, pool: int, flag: str) -> int:
    """Return a number of images, "10%" of the pool rounded down or a count.

    Raises:
        InputError: the text is not a number, or the number is not in 1..pool.
    """
    text = str(text).strip()
    try:
        number = int(pool * Fraction(text[:-1].strip()) / 100) if text.endswith("%") else int(text)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"--{flag}={text} is neither a count such as 500 nor a share such as 10%") from None
    if number < 1:
        raise InputError(f"--{flag}={text} is {number} images of a pool of {pool}: at least one is needed")
    if number > pool:
        raise InputError(f"--{flag}={text} is {number} images, more than the pool of {pool}")
    return number


def budget(n_start: str | int, n_query: str | int, n_end: str | int, pool: int) -> Budget:
    """Return the budget of an experiment on a pool of `pool` images.

    Raises:
        InputError: a number is out of range, the start is beyond the end, or no query fits between them.
    """
    start, query, end = (
        count(text, pool, flag) for text, flag in ((n_start, "n_start"), (n_query, "n_query"), (n_end, "n_end"))
    )
    if start > end:
        raise InputError(f"--n_start={n_start} ({start} images) is beyond --n_end={n_end} ({end} images)")
    if start < end < start + query:
        raise InputError(
            f"--n_query={n_query} ({query} images) does not fit between --n_start={n_start} ({start}) and "
            f"--n_end={n_end} ({end})"
        )
    return Budget(start, query, end)
