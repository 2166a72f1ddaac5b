"""What the trainers with a squared difference share: its weight, how that grows, and the optimiser, by preset."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from jaxdal.errors import InputError
from jaxdal.types import Array, Moment, Recipe


class Protocol(NamedTuple):
    """A set of hyper-parameters."""

    few_classes: float  # the full weight of the squared difference
    many_classes: float  # the same with 100 classes and more, where its mean over classes is smaller
    ramp: Callable[[Moment], Array]  # the share of the weight that counts already, f32[] from 0 to 1
    recipe: Callable[[Recipe], Recipe]
    epochs: float = 0.0  # of a ramp whose length does not depend on the round, else 0

    def weight(self, num_classes: int, moment: Moment) -> Array:
        """Return the weight of the squared difference: f32[]."""
        return (self.many_classes if num_classes >= 100 else self.few_classes) * self.ramp(moment)

    def adjusted(self, weight: float | None, ramp_epochs: float | None) -> "Protocol":
        """Return the protocol with another weight, or with a ramp over so many epochs, where they are given.

        Raises:
            InputError: one of them is negative.
        """
        changed = self
        if weight is not None:
            check_option("the trainer", "weight", weight, lambda number: number >= 0)
            changed = changed._replace(few_classes=weight, many_classes=weight)
        if ramp_epochs is not None:
            check_option("the trainer", "ramp_epochs", ramp_epochs, lambda number: number >= 0)
            changed = changed._replace(ramp=over_epochs(ramp_epochs), epochs=0.0)
        return changed


def over_epochs(epochs: float) -> Callable[[Moment], Array]:
    """Return the ramp that grows step by step over so many epochs, even if the round has fewer."""
    return lambda moment: jnp.minimum(moment.epoch / epochs, 1) if epochs else jnp.ones_like(moment.epoch)


def over_steps(moment: Moment) -> Array:
    """Grow over 16,384 steps as in MixMatch's code (2^20 images in batches of 64), or half of the round if shorter."""
    return jnp.clip(jnp.maximum(moment.step / 2**14, 2 * moment.progress), 0, 1)


def passes(unlabelled: int) -> Callable[[int, int], int]:
    """Return what counts as an epoch, in labelled images: one pass over all labelled and all unlabelled ones."""
    return lambda labelled, pool: max(labelled, pool // unlabelled)


def as_published(recipe: Recipe) -> Recipe:
    """SGD as for supervised training, but no gradient is clamped: the published clamp came after the step."""
    return recipe._replace(clamp=None)


def gentle(recipe: Recipe) -> Recipe:
    """A third of the learning rate (0.03 where it is 0.1) and weight decay on kernels only."""
    return recipe._replace(clamp=None, decay_kernels_only=True, learning_rate=0.3 * recipe.learning_rate)


PROTOCOLS = {
    "paper": Protocol(few_classes=100, many_classes=100, ramp=over_epochs(200), recipe=as_published, epochs=200),
    "clean": Protocol(few_classes=75, many_classes=150, ramp=over_steps, recipe=gentle),
}


def protocol(trainer: str, preset: str) -> Protocol:
    """Return the hyper-parameters of a preset.

    Raises:
        InputError: there is no such preset.
    """
    if preset not in tuple(PROTOCOLS):  # it may be a list, which no dict can look up
        raise InputError(f"preset={preset!r} of {trainer} is neither {' nor '.join(map(repr, PROTOCOLS))}")
    return PROTOCOLS[preset]


def check_option(trainer: str, name: str, value: object, fits: Callable[[float], bool]) -> None:
    """Raises InputError unless the option is a number that fits."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value == float("inf") or not fits(value):
        raise InputError(f"{name}={value!r} of {trainer} is out of range")
