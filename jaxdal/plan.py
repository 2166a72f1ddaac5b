"""The order of training, as data: which images each step sees. For one run, on the device."""

import jax
import jax.numpy as jnp

from jaxdal.types import Array

AT_ONCE = 2**18  # numbers that are sorted at once: more is no faster, and takes memory


def steps_per_epoch(images: int, batch: int) -> int:
    """Full batches only, at least one: a padded or partial batch would corrupt BatchNorm's statistics."""
    return max(images // batch, 1)


def labelled_batches(
    key: Array, known: Array, first_step: Array, *, steps: int, batch: int, least: int, most: int
) -> Array:
    """Return the labelled images of the next `steps` batches. known: i32[N], first_step: i32[] -> i32[steps, batch].

    least, most: bounds of the number of labels over all rounds.
    """
    return batches(key, known >= 0, first_step, steps=steps, batch=batch, least=least, most=most)


def unlabelled_batches(
    key: Array, known: Array, first_step: Array, *, steps: int, batch: int, least: int, most: int
) -> Array:
    """Return the unlabelled images of the next `steps` batches: as `labelled_batches`, of the others.

    Where everything is labelled, all images stand in for the unlabelled ones, without their labels.
    """
    member = (known < 0) | jnp.all(known >= 0)
    if least == 0:
        least, most = 1, known.shape[0]
    return batches(key, member, first_step, steps=steps, batch=batch, least=least, most=most)


def batches(key: Array, member: Array, first_step: Array, *, steps: int, batch: int, least: int, most: int) -> Array:
    """Return the pool indices of the next `steps` batches. member: bool[N], first_step: i32[] -> i32[steps, batch].

    Every pass is a new permutation of the members, cut into full batches; with fewer members than a batch, batches are
    drawn with replacement. The order depends on the key, the pass and the members only, not on where the steps are cut.
    least, most: bounds of the number of members over all rounds, which make the shapes static. Only passes that these
    steps touch are made, several at once, in O(max(most, AT_ONCE)) memory.
    """
    size = max(most, batch)
    images = jnp.nonzero(member, size=size, fill_value=0)[0].astype(jnp.int32)
    count = jnp.sum(member, dtype=jnp.int32)
    per_epoch = jnp.maximum(count // batch, 1)
    first_epoch = first_step // per_epoch
    place = jnp.arange(size, dtype=jnp.int32)

    def epoch_order(epoch: Array) -> Array:
        bits = jax.random.bits(jax.random.fold_in(key, epoch), place.shape) >> 1
        shuffled = jnp.argsort(jnp.where(place < count, bits, jnp.uint32(2**32 - 1))).astype(jnp.int32)
        drawn = (bits % count.astype(jnp.uint32)).astype(jnp.int32)
        return images[jnp.where(count < batch, drawn, shuffled)]

    step = first_step + jnp.arange(steps, dtype=jnp.int32)
    column = (step % per_epoch)[:, None] * batch + jnp.arange(batch, dtype=jnp.int32)
    at_once = max(min(steps // steps_per_epoch(least, batch) + 2, AT_ONCE // size), 1)

    def fill(state: tuple[Array, Array]) -> tuple[Array, Array]:
        epoch, found = state
        orders = jax.vmap(epoch_order)(epoch + jnp.arange(at_once, dtype=jnp.int32))
        row = step // per_epoch - epoch
        here = (row >= 0) & (row < at_once)
        found = jnp.where(here[:, None], orders[jnp.where(here, row, 0)[:, None], column], found)
        return epoch + at_once, found

    blank = jnp.zeros((steps, batch), jnp.int32)
    return jax.lax.while_loop(lambda state: state[0] <= step[-1] // per_epoch, fill, (first_epoch, blank))[1]
