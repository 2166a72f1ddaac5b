"""Random keys are derived from (seed, round, purpose), never carried.

What is compared at one seed shares its initial set, initial weights and batch order, because none of these keys
depends on the strategy; and a round can be computed again from its number alone, which is what makes resuming exact.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdal.types import Array


class Keys(NamedTuple):
    """The keys of one run in one round, by purpose. Append only: a changed place changes every result."""

    initial_set: Array
    weights: Array
    order: Array  # of the labelled images in the batches
    step: Array  # augmentation and dropout, folded with the number of the step
    signals: Array
    select: Array
    unlabelled_order: Array  # of the unlabelled images in the batches
    helpers: Array  # weights of networks that are trained alongside


def keys_for(seed: Array, round_: Array) -> Keys:
    """Return the keys of a run. seed: u32[], round_: i32[]."""
    key = jax.random.fold_in(jax.random.key(seed), round_)
    purposes = jnp.arange(len(Keys._fields), dtype=jnp.uint32)
    return Keys(*jax.vmap(jax.random.fold_in, (None, 0))(key, purposes))
