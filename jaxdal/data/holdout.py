"""Setting a test set aside where none is given."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction

from jaxdal.data.images import Source
from jaxdal.errors import InputError

SHARE = "20%"
SEED = 0


def hold_out(sources: Sequence[Source], share: str | None) -> tuple[list[Source], list[Source]]:
    """Split each class: -> (for training, for testing), both in the given order.

    A place is drawn from an image's name and SEED alone: other classes and other folders do not matter. Both sides get
    at least one image of a class; of a single image, training does.

    Raises:
        InputError: share is not a share such as "20%", the default.
    """
    wanted = _fraction(SHARE if share is None else str(share))
    classes: dict[int, list[tuple[bytes, int]]] = defaultdict(list)
    for place, source in enumerate(sources):
        draw = hashlib.sha256(f"{SEED}/{source.name}".encode(errors="surrogateescape")).digest()
        classes[source.label].append((draw, place))
    test: set[int] = set()
    for drawn in classes.values():
        count = min(len(drawn) - 1, max(1, round(len(drawn) * wanted)))
        test.update(place for _, place in sorted(drawn)[:count])
    return (
        [source for place, source in enumerate(sources) if place not in test],
        [source for place, source in enumerate(sources) if place in test],
    )


def _fraction(text: str) -> Fraction:
    try:
        share = Fraction(text.strip().removesuffix("%")) / 100
    except (ValueError, ZeroDivisionError):
        share = Fraction(0)
    if not text.strip().endswith("%") or not 0 < share < 1:
        raise InputError(f"--test_share={text} is not a share between 0% and 100%, such as {SHARE}")
    return share
