"""What a user is told when a device runs out of memory: packs are cut for speed, whatever a device can hold."""

import contextlib
from collections.abc import Iterator, Sequence

import jax

from jaxdal.errors import OutOfMemoryError
from jaxdal.lab import Lab
from jaxdal.types import Pool, Strategy

EXHAUSTED = "RESOURCE_EXHAUSTED"  # so begins what JAX says then


@contextlib.contextmanager
def advised(doing: str, lab: Lab, strategies: Sequence[Strategy]) -> Iterator[None]:
    """Say what to try where a block of code takes more memory than a device has; all other errors pass as they are.

    doing: "training" or "selecting for". strategies: all that look at the images of the lab.

    Raises:
        OutOfMemoryError: JAX has raised that, which is the cause.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        told = str(error)
        if not told.startswith(EXHAUSTED):
            raise
        raise OutOfMemoryError(_advice(doing, lab, strategies, told.splitlines()[0].rstrip(". "))) from error


def _advice(doing: str, lab: Lab, strategies: Sequence[Strategy], told: str) -> str:
    runs = max(lab.lanes.width // lab.lanes.mesh.size, 1)  # on each device
    at_once = f"{runs} runs at once" if runs > 1 else "one run"
    sentences = [f"a device ran out of memory while {doing} {at_once}: {told}."]
    smaller = [f"--pack={runs // 2}"] if runs > 1 else []
    smaller += ["a smaller --batch"] if doing == "training" else []
    if smaller:  # both are keys of the configuration, which a journal keeps to
        sentences.append(
            f"Try {' or '.join(smaller)}: that is another experiment, which starts from round 0 in another folder "
            "(another --workdir, if one was given); this one stays as it is."
        )
    whole = any(signal.prepare is not None for strategy in strategies for signal in strategy.needs)
    if isinstance(lab.pool, Pool) and not whole:
        size = lab.pool.x.nbytes
        sentences.append(
            f"{'Or try' if smaller else 'Try'} a --pool_bytes below {size}, which keeps the training images on the "
            "host: the same command with it goes on after the last finished round."
        )
    if len(sentences) == 1:
        sentences.append("No flag makes that smaller: it takes a device with more memory.")
    return " ".join(sentences)
