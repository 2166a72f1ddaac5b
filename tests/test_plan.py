"""The order of training: what each step sees, and the keys that everything random is drawn from."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdal import plan
from jaxdal.keys import Keys, keys_for
from jaxdal.plan import labelled_batches, steps_per_epoch, unlabelled_batches

POOL, BATCH = 60, 8
KEY = keys_for(0, 0).order


def knowledge(labelled: int) -> np.ndarray:
    """A pool of which `labelled` examples, scattered, are known."""
    known = np.full(POOL, -1, np.int32)
    chosen = np.random.default_rng(7).permutation(POOL)[:labelled]
    known[chosen] = chosen % 4
    return known


BOUNDS = {"steps": 28, "batch": BATCH, "least": 4, "most": 40}
cut = jax.jit(labelled_batches, static_argnames=tuple(BOUNDS))


def batches(labelled, first=0, *, key=KEY, **bounds) -> np.ndarray:
    """The pool indices of the next steps of a round with so many labels."""
    return np.asarray(cut(key, knowledge(labelled), np.int32(first), **{**BOUNDS, **bounds}))


@pytest.mark.parametrize(("labelled", "steps"), [(1, 1), (7, 1), (8, 1), (15, 1), (16, 2), (17, 2), (40, 5)])
def test_only_full_batches_and_at_least_one(labelled, steps):
    assert steps_per_epoch(labelled, 8) == steps


@pytest.mark.parametrize("labelled", [4, 7, 8, 9, 23, 24, 39, 40])
def test_every_image_is_labelled(labelled):
    found = batches(labelled)
    assert found.shape == (28, BATCH)
    assert found.dtype == np.int32
    assert (knowledge(labelled)[found] >= 0).all()


@pytest.mark.parametrize("labelled", [8, 9, 23, 24, 40])
def test_an_epoch_shows_no_image_twice(labelled):
    found, per_epoch = batches(labelled), steps_per_epoch(labelled, BATCH)
    for first in range(0, 28 - per_epoch + 1, per_epoch):
        seen = found[first : first + per_epoch].ravel()
        assert len(set(seen.tolist())) == per_epoch * BATCH


def test_an_epoch_of_whole_batches_shows_every_labelled_image():
    found, everyone = batches(24), np.flatnonzero(knowledge(24) >= 0).tolist()
    for first in range(0, 27, 3):
        assert sorted(found[first : first + 3].ravel().tolist()) == everyone


def test_what_an_epoch_leaves_out_changes():
    found = batches(15)  # epochs of 8 images
    assert set(found.ravel().tolist()) == set(np.flatnonzero(knowledge(15) >= 0).tolist())


def test_fewer_labels_than_a_batch_are_drawn_with_replacement():
    found = batches(5)
    counts = np.bincount(found.ravel(), minlength=POOL)
    assert set(np.flatnonzero(counts)) == set(np.flatnonzero(knowledge(5) >= 0))
    assert (counts[counts > 0] > 25).all()  # 45 expected, with a deviation of 6
    assert len({row.tobytes() for row in found}) == 28


def test_a_batch_larger_than_any_round():
    found = batches(10, batch=64, least=10, most=20)
    assert found.shape == (28, 64)
    assert set(found.ravel().tolist()) == set(np.flatnonzero(knowledge(10) >= 0).tolist())


def test_a_single_label():
    assert (batches(1) == np.flatnonzero(knowledge(1) >= 0)[0]).all()


@pytest.mark.parametrize("steps", [1, 4, 7])
@pytest.mark.parametrize("labelled", [5, 8, 15, 24, 40])
def test_the_order_does_not_depend_on_where_it_is_cut(labelled, steps):
    parts = [batches(labelled, first, steps=steps) for first in range(0, 28, steps)]
    np.testing.assert_array_equal(np.concatenate(parts), batches(labelled))


@pytest.mark.parametrize("labelled", [5, 15, 24])
def test_the_order_does_not_depend_on_the_bounds(labelled):
    whole = batches(labelled)
    np.testing.assert_array_equal(batches(labelled, least=1, most=POOL), whole)
    for first in range(6):  # bounds as narrow as can be, and cuts that touch as many epochs as can be
        tight = batches(labelled, first, steps=5, least=labelled, most=labelled)
        np.testing.assert_array_equal(tight, whole[first : first + 5])


@pytest.mark.parametrize("at_once", [1, 100])
def test_the_order_does_not_depend_on_how_many_passes_are_made_at_once(monkeypatch, at_once):
    whole = {labelled: batches(labelled, 3) for labelled in (5, 24)}
    monkeypatch.setattr(plan, "AT_ONCE", at_once)
    few = jax.jit(partial(labelled_batches, **BOUNDS))
    for labelled, expected in whole.items():
        np.testing.assert_array_equal(few(KEY, knowledge(labelled), np.int32(3)), expected)


@pytest.mark.parametrize("least", [0, 1])
def test_memory_is_that_of_the_pool_and_not_of_a_pass_for_each_step(least):
    """Of an ImageNet whose labelled images are few at first, or its unlabelled ones at last. Nothing is compiled."""
    pool = 1_280_000
    made = unlabelled_batches if least == 0 else labelled_batches
    known, number = jax.ShapeDtypeStruct((pool,), np.int32), jax.ShapeDtypeStruct((), np.int32)
    order = partial(made, steps=256, batch=BATCH, least=least, most=pool)
    shapes = re.findall(r"\w\d+\[([\d,]+)\]", str(jax.make_jaxpr(order)(KEY, known, number)))
    sizes = {np.prod([int(n) for n in shape.split(",")]) for shape in shapes}
    assert max(sizes) <= 2 * pool


@pytest.mark.parametrize("labelled", [5, 24])
def test_runs_at_once_get_the_order_of_each_alone(labelled):
    keys = [keys_for(seed, 2).order for seed in range(3)]
    known = [knowledge(labelled), knowledge(labelled)[::-1], np.roll(knowledge(labelled), 5)]
    together = jax.vmap(partial(cut, **BOUNDS), (0, 0, None))(jnp.stack(keys), np.stack(known), np.int32(5))
    for lane in range(3):
        np.testing.assert_array_equal(together[lane], cut(keys[lane], known[lane], np.int32(5), **BOUNDS))


def test_label_values_do_not_matter():
    known = knowledge(24)
    other = np.where(known >= 0, 3 - known, -1).astype(np.int32)
    np.testing.assert_array_equal(cut(KEY, other, np.int32(0), **BOUNDS), batches(24))


@pytest.mark.parametrize("labelled", [5, 8, 24])
def test_epochs_and_keys_differ(labelled):
    per_epoch = steps_per_epoch(labelled, BATCH)
    epochs = batches(labelled)[: 5 * per_epoch].reshape(5, -1)
    assert len({epoch.tobytes() for epoch in epochs}) == 5
    others = [keys_for(1, 0).order, keys_for(0, 1).order, keys_for(0, 0).step]
    orders = [batches(labelled, key=key) for key in (KEY, *others)]
    assert len({order.tobytes() for order in orders}) == 4


def test_no_two_keys_are_equal():
    seeds = np.asarray([*range(6), 2**31 - 1, 2**31, 2**32 - 1], np.uint32)
    seed, round_ = (axis.ravel() for axis in np.meshgrid(seeds, np.arange(7, dtype=np.int32)))
    keys = jax.vmap(keys_for)(seed, round_)
    data = np.concatenate([jax.random.key_data(of_purpose) for of_purpose in keys])
    assert len({tuple(key) for key in data.tolist()}) == len(Keys._fields) * len(seeds) * 7


@pytest.mark.parametrize("seed", [0, 5, 2**31, 2**32 - 1])
def test_a_key_is_the_same_from_python_numbers_and_inside_a_program(seed):
    traced = jax.jit(keys_for)(np.uint32(seed), np.int32(3))
    for inside, plain in zip(traced, keys_for(seed, 3), strict=True):
        np.testing.assert_array_equal(jax.random.key_data(inside), jax.random.key_data(plain))


def test_a_new_purpose_leaves_the_keys_of_the_others_alone():
    """Appending is safe: a key depends on the place of its purpose, not on how many there are."""
    base = jax.random.fold_in(jax.random.key(4), 2)
    for place, key in enumerate(keys_for(4, 2)):
        np.testing.assert_array_equal(jax.random.key_data(key), jax.random.key_data(jax.random.fold_in(base, place)))


def test_unlabelled_batches_are_passes_over_the_others():
    known, bounds = knowledge(24), {"steps": 28, "batch": BATCH, "least": POOL - 40, "most": POOL - 4}
    found = np.asarray(jax.jit(partial(unlabelled_batches, **bounds))(KEY, known, np.int32(0)))
    others = np.flatnonzero(known < 0)
    assert np.isin(found, others).all()
    per_pass = len(others) // BATCH
    for first in range(0, 28 - per_pass + 1, per_pass):
        seen = found[first : first + per_pass].ravel()
        assert len(np.unique(seen)) == len(seen)
    assert len(np.unique(found)) == len(others), "what one pass leaves out comes in another"


def test_where_everything_is_labelled_all_images_stand_in():
    bounds = {"steps": 12, "batch": BATCH, "least": 0, "most": POOL - 4}
    found = np.asarray(unlabelled_batches(KEY, np.zeros(POOL, np.int32), np.int32(0), **bounds))
    per_pass = POOL // BATCH
    assert len(np.unique(found[:per_pass])) == per_pass * BATCH
