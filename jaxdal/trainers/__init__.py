"""The table of trainers: `--trainer=NAME` or, with hyper-parameters, `--trainer='NAME(option=value)'`."""

import inspect
from collections.abc import Callable
from functools import partial

from jaxdal.calls import parse_call
from jaxdal.errors import InputError
from jaxdal.trainers.consistency import consistency
from jaxdal.trainers.fixmatch import fixmatch
from jaxdal.trainers.mixmatch import mixmatch
from jaxdal.trainers.supervised import supervised
from jaxdal.trainers.waal import waal
from jaxdal.types import Phase, Trainer

__all__ = ["TRAINERS", "build"]

TRAINERS: dict[str, Callable[..., Trainer]] = {
    "supervised": supervised,
    "mixmatch": mixmatch,
    "consistency": consistency,
    "fixmatch": fixmatch,
    "waal": waal,
}


def build(text: str, preset: str = "paper") -> Trainer:
    """Make the trainer that `text` names, such as "supervised" or "mixmatch(weight=75)".

    preset: the protocol; trainers that know two sets of hyper-parameters have an argument of this name.

    Raises:
        InputError: the name is unknown, or the options are not those of the trainer.
    """

    def with_preset(make: Callable[..., Trainer]) -> Callable[..., Trainer]:
        return partial(make, preset=preset) if "preset" in inspect.signature(make).parameters else make

    made = parse_call(text, {name: with_preset(make) for name, make in TRAINERS.items()}, "trainer", Trainer)
    if not made.phases or not all(isinstance(phase, Phase) for phase in made.phases):
        raise InputError(f"trainer {text!r}: its phases are no tuple of jaxdal.types.Phase")
    return made
