"""Eight simulated devices: the same numbers as one, and each device really has its share."""

import functools
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from labs import bench as small_bench
from labs import on_host

from jaxdal import models, parallel
from jaxdal.parallel import Lanes, packs
from jaxdal.signals import Gather, logits
from jaxdal.types import Signal

pytestmark = pytest.mark.usefixtures("full_optimisation")

bench = functools.partial(small_bench, model="lenet")  # not the tiny model: numbers of real ones are compared


@pytest.mark.parametrize(
    ("runs", "devices", "most", "sizes"),
    [(1, 1, 32, [1]), (5, 1, 5, [5]), (5, 1, 4, [3, 2]), (5, 1, 1, [1] * 5), (5, 8, 1, [5]), (9, 2, 4, [5, 4])],
)
def test_packs_are_as_equal_as_can_be(runs, devices, most, sizes):
    cut = packs(runs, devices, most)
    assert [len(pack) for pack in cut] == sizes
    assert [run for pack in cut for run in pack] == list(range(runs))


def test_no_pack_is_costed_that_is_not_laid_out():
    """Of 7 runs, 8 at most, one pack would have 7 lanes, an odd number, and not the 8 that are cheap: 4 and 3 it is."""
    assert [len(pack) for pack in packs(7, 1, 8, 4)] == [4, 3]
    assert [len(pack) for pack in packs(3, 1, 5, 4)] == [3]
    assert [len(pack) for pack in packs(14, 2, 8, 4)] == [8, 6]


@pytest.mark.parametrize(
    ("runs", "sizes"), [(1, [1]), (2, [2]), (4, [4]), (5, [5]), (8, [4, 4]), (10, [4, 4, 2]), (95, [4] * 23 + [3])]
)
def test_packs_of_the_thin_resnet_are_those_that_an_h100_trained_fastest(runs, sizes):
    """Seconds of a step by its images a second, in packs of 1, 2, 4, 5, 8; idle lanes fill up the last one."""
    model = models.build("resnet18_thin", (32, 32, 3), 10)
    cut = packs(runs, 1, model.pack, model.pack_multiple)
    assert [len(pack) for pack in cut] == sizes
    step = {size: size / speed for size, speed in zip((1, 2, 4, 5, 8), (115, 184, 245, 195, 239), strict=True)}
    best = min(-(-runs // size) * seconds for size, seconds in step.items())
    assert len(cut) * step[len(cut[0])] == pytest.approx(best)


def test_how_many_packs_may_hold_beyond_all_runs_does_not_matter(monkeypatch):
    tried = []

    def counted(*bounds):
        tried.append(range(*bounds))
        return tried[-1]

    monkeypatch.setattr(parallel, "range", counted, raising=False)
    for runs, devices, multiple in [(5, 1, 1), (5, 1, 4), (95, 8, 4), (9, 2, 1)]:
        assert packs(runs, devices, 10**6, multiple) == packs(runs, devices, 96, multiple)
    assert max(map(len, tried)) <= 96


@pytest.mark.parametrize(
    ("runs", "devices", "width", "used"),
    [(1, 1, 1, 1), (1, 8, 1, 8), (3, 1, 3, 1), (3, 8, 3, 3), (8, 8, 8, 8), (10, 8, 10, 5), (5, 4, 6, 3)],
)
def test_lanes(runs, devices, width, used):
    lanes = Lanes(runs, jax.devices()[:devices])
    assert (lanes.width, lanes.mesh.size) == (width, used)
    held = lanes.per_run(np.arange(runs))
    assert np.asarray(held).tolist() == [*range(runs), *[runs - 1] * (width - runs)]
    doubled = lanes.lift(lambda a, b: a * b, "rs")(held, lanes.shared(np.int32(2)))
    assert np.asarray(doubled)[:runs].tolist() == list(range(0, 2 * runs, 2))


@pytest.mark.parametrize("devices", [1, 2])
def test_where_cores_are_few_runs_take_turns(monkeypatch, devices):
    def f(own, shared):
        assert own.shape == (4,), "written for one run"
        return jnp.tanh(own) * shared, {"shared": shared}

    found = {}
    for cores in (2, 16):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        lanes = Lanes(6, jax.devices()[:devices])
        arguments = lanes.per_run(np.arange(24, dtype=np.float32).reshape(6, 4)), jnp.float32(3)
        program = lanes.lift(f, "rs", in_turn=True)
        assert ("stablehlo.while" in program.lower(*arguments).as_text()) == (cores == 2)
        assert "stablehlo.while" not in lanes.lift(f, "rs").lower(*arguments).as_text()
        found[cores] = on_host(program(*arguments))
    assert found[2][0].shape == (6, 4)
    assert found[2][1]["shared"].shape == (6,)
    jax.tree.map(np.testing.assert_array_equal, found[2], found[16])


def test_steps_in_turn_are_those_at_once(blobs, monkeypatch):
    found = []
    for cores in (2, 16):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        found.append(on_host(bench(blobs, [0, 1, 2]).train(4)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *found)


def test_what_a_device_has_is_not_put_there_again():
    """A run over all eight devices, then three runs on the first three, or ten on five of them: one copy on each."""
    images = np.arange(24, dtype=np.uint8).reshape(6, 4)

    def places(array: jax.Array) -> dict[int, int]:
        return {share.device.id: share.data.unsafe_buffer_pointer() for share in array.addressable_shards}

    one, three, ten = (Lanes(runs, jax.devices()) for runs in (1, 3, 10))
    whole = one.shared(images)
    part = three.shared(images, whole)
    assert part.sharding == three.shared(images).sharding
    assert np.asarray(part).tolist() == images.tolist()
    assert places(part).items() <= places(whole).items()
    more = ten.shared(images, part)
    assert {device: place for device, place in places(more).items() if device < 3} == places(part)
    assert len(places(more)) == 5
    assert np.asarray(more).tolist() == images.tolist()
    assert ten.shared(images, more) is more


@pytest.mark.parametrize(
    ("seeds", "devices", "model"), [([0], 8, "lenet"), ([0, 1, 2], 8, "lenet"), ([0, 1, 2, 3, 4], 3, "tiny")]
)
def test_many_devices_equal_one(blobs, seeds, devices, model):
    """Split or spread, idle lanes included: weights, accuracy, signals and picks."""
    results = []
    for count in (1, devices):
        one = bench(blobs, seeds, devices=count, model=model)
        state = one.train(4)
        correct = one.lab.engine.evaluate(state.variables, one.lab.test)
        found = one.lab.gather(one.keys, state.variables, one.known, one.lab.pool)
        picks, _ = one.lab.select(one.keys, one.known, (), *found)
        results.append(jax.tree.map(lambda leaf: leaf[: len(seeds)], on_host((state, correct, found, picks))))
    (a, correct_a, found_a, picks_a), (b, correct_b, found_b, picks_b) = results
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), (a, found_a), (b, found_b))
    np.testing.assert_array_equal(correct_a, correct_b)
    np.testing.assert_array_equal(picks_a, picks_b)


def test_batchnorm_of_a_split_batch_sees_the_whole_batch(blobs):
    whole, parts = (on_host(bench(blobs, [0], devices=n, model="two_stages").train(1)) for n in (1, 8))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), whole, parts)


def test_one_run_splits_its_batches(blobs):
    """16 images a step over 8 devices: every device takes two out of the pool, and the gradients are summed."""
    one = bench(blobs, [0], devices=8, model="resnet18_thin")
    state = one.lab.engine.init(one.keys)
    order = one.lab.engine._batches(one.keys, one.known, np.int32(0))
    shared = (one.lab.pool, np.int32(2), np.int32(0), np.int32(0))
    program = one.lab.engine._one.lower(state, one.keys, one.known, order, *shared).compile().as_text()
    pixels = re.findall(r"u8\[([\d,]+)\]", program)
    assert {np.prod([int(n) for n in shape.split(",")]) // 64 for shape in pixels} == {200, 2}
    maps = set(re.findall(r"f32\[(\d+),8,8,16\]", program))  # of the first stage
    assert maps == {"2"}
    assert "all-reduce" in program
    weights = jax.tree.leaves(state.variables)[0]
    assert weights.sharding.shard_shape(weights.shape) == weights.shape, "weights are whole on each device"


def test_one_run_splits_its_pool(blobs):
    one = bench(blobs, [0], devices=8)
    state = one.lab.engine.init(one.keys)
    (probs,) = one.lab.gather(one.keys, state.variables, one.known, one.lab.pool)
    assert probs.shape == (1, 200, 4)
    assert probs.sharding.shard_shape(probs.shape) == (1, 25, 4)
    assert {shard.device for shard in probs.addressable_shards} == set(jax.devices())
    out = one.lab.gather._empty(one.keys, state.variables, ((),), one.lab.pool)
    lowered = one.lab.gather._fill.lower(out, one.keys, state.variables, ((),), one.lab.pool, np.int32(0))
    pixels = re.findall(r"u8\[([\d,]+)\]", lowered.compile().as_text())
    assert {np.prod([int(n) for n in shape.split(",")]) // 64 for shape in pixels} == {200, 25}


def test_chunks_are_joined_without_gathering_them(blobs):
    """13 chunks of 16 rows, which 8 devices do not divide either."""
    one = bench(blobs, [0], devices=8)
    variables = one.lab.engine.init(one.keys).variables
    gather = Gather(one.lab.lanes, one.network, (logits,), one.lab.pool, 16)
    out = gather._empty(one.keys, variables, ((),), one.lab.pool)
    assert [leaf.sharding.shard_shape(leaf.shape) for leaf in out] == [(1, 16, 2, 4)]
    program = gather._join.lower(out).compile().as_text()
    assert "all-to-all" in program
    assert "all-gather" not in program


@pytest.mark.parametrize("strategy", ["margin", "badge"])
def test_a_pool_that_the_devices_do_not_divide_is_split_as_well(blobs, strategy):
    """Up to the picks, which are those of one device: none has probabilities or features of more than 26 images."""
    first = slice(0, 3)
    odd = blobs._replace(
        train_x=np.concatenate([blobs.train_x, blobs.train_x[first]]),
        train_y=np.concatenate([blobs.train_y, blobs.train_y[first]]),
    )
    picks = []
    for devices in (1, 8):
        one = bench(odd, [0], devices=devices, strategy=strategy)
        variables = one.lab.engine.init(one.keys).variables
        found = one.lab.gather(one.keys, variables, one.known, one.lab.pool)
        picks.append(on_host(one.lab.select(one.keys, one.known, (), *found)[0])[0].tolist())
    assert picks[0] == picks[1]
    for signal in found:
        assert signal.shape[:2] == (1, 208)
        assert signal.sharding.shard_shape(signal.shape)[:2] == (1, 26)
    program = one.lab.select.lower(one.keys, one.known, (), *found).compile().as_text()
    rows = {int(n) for n in re.findall(r"f32\[(?:1,)?(\d+),(?:4|50)\]", program)}
    assert 26 in rows
    assert max(rows) == 26


def test_several_runs_are_spread(blobs):
    one = bench(blobs, [0, 1, 2, 3], devices=4)
    state = one.lab.engine.init(one.keys)
    (probs,) = one.lab.gather(one.keys, state.variables, one.known, one.lab.pool)
    for leaf in (*jax.tree.leaves(state), probs):
        assert leaf.sharding.shard_shape(leaf.shape) == (1, *leaf.shape[1:])
        assert len({shard.device for shard in leaf.addressable_shards}) == 4


@pytest.mark.parametrize("devices", [1, 8])
def test_the_scoring_batch_changes_no_signal(blobs, devices):
    """Not even a random one: each example has a key of its own."""

    def draw(keys, network, variables, aux, x):
        return jnp.stack([jax.vmap(jax.random.uniform)(keys), jnp.broadcast_to(aux, keys.shape)], axis=-1)

    def prepare(key, network, variables, pool, known):
        return jnp.sum(known >= 0).astype(jnp.float32)

    one = bench(blobs, [4], devices=devices)
    variables = one.lab.engine.init(one.keys).variables
    results = []
    for batch in (200, 37, 16):
        gather = Gather(one.lab.lanes, one.network, (logits, Signal("draw", draw, prepare)), one.lab.pool, batch)
        results.append(on_host(gather(one.keys, variables, one.known, one.lab.pool)))
    expected, _ = one.network.apply(
        jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[0]), variables), one.network.normalise(blobs.train_x)
    )
    for found, drawn in results:
        np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(drawn, results[0][1])
    assert len(np.unique(drawn[..., 0])) == 200
    assert (drawn[..., 1] == 40).all(), "what `prepare` found, 40 labels, reaches every batch"


def test_signals_draw_by_keys_of_their_own(blobs):
    """Which are the same for the same signal beside any other."""

    def draw(keys, network, variables, aux, x):
        return jax.vmap(jax.random.uniform)(keys)

    one, signals = bench(blobs, [4]), [Signal(name, draw) for name in ("some", "other")]
    both, alone = (
        on_host(Gather(one.lab.lanes, one.network, needs, one.lab.pool, 64)(one.keys, {}, one.known, one.lab.pool))
        for needs in (tuple(signals), (signals[1],))
    )
    assert (both[0] != both[1]).mean() > 0.99
    np.testing.assert_array_equal(both[1], alone[0])
