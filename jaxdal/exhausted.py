"""What a user is told when a device runs out of memory: packs are cut for speed, whatever a device can hold."""

import contextlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from jaxdal.errors import OutOfMemoryError
from jaxdal.lab import Lab
from jaxdal.streaming import Blocks
from jaxdal.types import Strategy

EXHAUSTED = "RESOURCE_EXHAUSTED"  # so begins what JAX says then


def movable(pool_x: np.ndarray, blocks: Blocks | None, strategies: Sequence[Strategy]) -> int:
    """Return the bytes of training images, on a device, that --pool_bytes would keep on the host; 0 if it cannot.

    blocks: unless None, they are there already. strategies: all of the command: one that needs the whole pool refuses
    the flag for all.
    """
    whole = any(signal.prepare is not None for strategy in strategies for signal in strategy.needs)
    return 0 if whole or blocks is not None else pool_x.nbytes


@contextlib.contextmanager
def advised(doing: str, images: int, lab: Lab | None = None, keeps_journal: bool = True) -> Iterator[None]:
    """Say what to try where a block of code takes more memory than a device has; all other errors pass as they are.

    doing: "training" or "selecting for" the runs of a lab, or something else before there is one. images: bytes, as
    from `movable`. keeps_journal: of rounds that another call goes on from.

    Raises:
        OutOfMemoryError: JAX has raised that, which is the cause.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        told = str(error)
        if not told.startswith(EXHAUSTED):
            raise
        first = told.splitlines()[0].rstrip(". ")
        raise OutOfMemoryError(_advice(doing, images, lab, keeps_journal, first)) from error


def _advice(doing: str, images: int, lab: Lab | None, keeps_journal: bool, told: str) -> str:
    runs = 0 if lab is None else lab.lanes.on_device
    at_once = f" {runs} runs at once" if runs > 1 else " one run" if runs else ""
    sentences = [f"a device ran out of memory while {doing}{at_once}: {told}."]
    if not keeps_journal:
        tries = " or ".join(
            (["a smaller batch"] if doing == "training" else [])
            + ([f"pool_bytes below {images}, which keeps the images on the host"] if images else [])
        )
        return f"{sentences[0]} {f'Try {tries}' if tries else 'It takes a device with more memory'}."
    smaller = [f"--pack={runs // 2}"] if runs > 1 else []
    smaller += ["a smaller --batch"] if doing == "training" else []
    if smaller:  # both are keys of the configuration, which a journal keeps to
        sentences.append(
            f"Try {' or '.join(smaller)}: that is another experiment, which starts from round 0 in another folder "
            "(another --workdir, if one was given); this one stays as it is."
        )
    if images:
        sentences.append(
            f"{'Or try' if smaller else 'Try'} a --pool_bytes below {images}, which keeps the training images on the "
            "host: the same command with it goes on after the last finished round."
        )
    if len(sentences) == 1:
        sentences.append(
            "It takes a device with more memory, or a smaller pool (--pool_share), which is another experiment."
        )
    return " ".join(sentences)
