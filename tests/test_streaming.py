"""A pool that stays on the host: the numbers of a resident one, from blocks that come while others are used."""

import threading
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import killer
import numpy as np
import pytest
from labs import SMALL, bench, on_host

import jaxdal
from jaxdal import environment, loop, settings, strategies, streaming, trainers
from jaxdal.engine import Engine
from jaxdal.lab import blocks_for, packs_of
from jaxdal.parallel import Lanes
from jaxdal.signals import Gather, features, probs
from jaxdal.streaming import Blocks, HostPool
from jaxdal.types import Phase, Strategy, Tree

STEP = 16 * 64  # bytes of the images of a step: 16 of `blobs`
POOL = 200 * 64  # bytes of all of them


def streams(one: Any) -> bool:
    """Does a bench keep its pool on the host?"""
    return isinstance(one.lab.pool, HostPool)


def assert_close(tree: Tree, other: Tree) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), on_host(tree), on_host(other))


@pytest.mark.parametrize(
    ("seeds", "devices", "pool_bytes", "options", "steps"),
    [
        pytest.param([0, 1], 1, 9 * STEP, {}, 2, id="packed"),
        pytest.param([0, 1, 2], 8, 7 * STEP, {}, 3, id="spread"),
        pytest.param([0], 8, STEP, {"batch": 12}, 4, id="split, though 8 devices cannot share 12 images"),
    ],
)
def test_training_equals_that_on_a_resident_pool(blobs, seeds, devices, pool_bytes, options, steps):
    resident = bench(blobs, seeds, devices, **options)
    streamed = bench(blobs, seeds, devices, pool_bytes=pool_bytes, **options)
    assert streamed.lab.pool.blocks.steps == steps
    assert streams(streamed)
    assert not streams(resident)
    assert_close(resident.train(7), streamed.train(7))


def test_so_does_the_loop_of_the_host(blobs):
    """What a CPU does with a ResNet."""
    resident, streamed = bench(blobs, [0, 1]), bench(blobs, [0, 1], pool_bytes=9 * STEP)
    streamed.lab.engine._device_loop = False
    assert_close(resident.train(5), streamed.train(5))


def watching() -> Strategy:
    """One whose trainer learns from labels, and has a parameter that sums up what the unlabelled images look like."""
    (plain,) = trainers.build("supervised").phases

    def loss(network, variables, batch, key, moment):
        value, stats = plain.loss(network, variables, batch, key, moment)
        pattern = jnp.cos(jnp.arange(batch.unlabelled.size, dtype=jnp.float32)).reshape(batch.unlabelled.shape)
        look = jnp.mean(pattern * batch.unlabelled.astype(jnp.float32))
        return value + look * variables["helpers"]["looks"], stats

    phase = Phase(loss, trains=("params", "helpers"))
    margin = strategies.build("margin")
    return margin._replace(
        wrap=lambda trainer: trainer._replace(
            phases=(phase,), unlabelled=3, helpers=lambda key, taps: {"looks": jnp.float32(0)}
        )
    )


@pytest.mark.parametrize(("seeds", "devices", "pool_bytes"), [([0, 1], 1, 9 * STEP), ([0], 8, STEP)])
def test_unlabelled_images_come_as_well(blobs, seeds, devices, pool_bytes):
    options = {"strategy": watching(), "batch": 8}
    resident = bench(blobs, seeds, devices, **options)
    streamed = bench(blobs, seeds, devices, pool_bytes=pool_bytes, **options)
    assert streamed.lab.pool.blocks.steps == devices // 8 + 1, "a block holds four times as many images"
    looks, same = (on_host(one.train(5)) for one in (resident, streamed))
    assert_close(looks, same)
    assert np.all(np.abs(looks.variables["helpers"]["looks"]) > 1e-3)


@pytest.mark.parametrize(("seeds", "devices"), [([0, 1], 1), ([0], 8)])
def test_signals_equal_those_of_a_resident_pool(blobs, seeds, devices):
    """In chunks of 37 images or, for 8 devices, 40: the last one is not full. Random ones have their images' keys."""
    (information,) = strategies.build("bald(draws=2)").needs
    one = bench(blobs, seeds, devices)
    host = HostPool(blobs.train_x, one.lab.lanes, Blocks(steps=1, rows=37))
    variables = one.lab.engine.init(one.keys).variables
    found = []
    for pool in (one.lab.pool, host):
        gather = Gather(one.lab.lanes, one.network, (probs, information, features), pool, 37)
        found.append(gather(one.keys, variables, one.known, pool))
    assert [leaf.sharding for leaf in found[0]] == [leaf.sharding for leaf in found[1]]
    assert_close(*found)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of pool images on the fullest device, each time some have come."""
    most, alive, rows = [], [], Lanes.rows

    def watched(self: Lanes, array: np.ndarray, axis: int, *, per_run: bool) -> jax.Array:
        alive.append(rows(self, array, axis, per_run=per_run))
        alive[:] = [leaf for leaf in alive if not leaf.is_deleted()]
        shards = [shard for leaf in alive for shard in leaf.addressable_shards]
        most.append(max(sum(one.data.nbytes for one in shards if one.device == device) for device in jax.devices()))
        return alive[-1]

    monkeypatch.setattr(Lanes, "rows", watched)
    return most


def timeless(result: jaxdal.Result) -> list[Any]:
    """Lines without their seconds."""
    return [[{**line, "seconds": None} for line in group] for group in result.groups]


def test_a_whole_experiment_is_the_same_and_never_holds_more_than_it_may(tmp_path, held, monkeypatch):
    """Though it was stopped within a round."""
    monkeypatch.setattr(environment, "_commit", lambda: "somebody may commit while tests run")
    options = {"n_start": 48, "n_query": 16, "n_end": 64, "epochs": 6, "batch": 16, "eval_every": 2}
    options |= {"seeds": [0, 1], "model": "tiny"}

    def play(name: str, **more: Any) -> jaxdal.Result:
        fixed = {"workdir": tmp_path / name, "devices": jax.devices()[:1], "quiet": True, "checkpoint_seconds": 0.0}
        return jaxdal.run(killer.images(), "bald(draws=2)", **fixed, **options, **more)

    resident = play("resident")
    assert not held
    advance, calls = Engine.advance, []

    def stopped(self: Engine, *arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return advance(self, *arguments)

    monkeypatch.setattr(Engine, "advance", stopped)
    with pytest.raises(KeyboardInterrupt):
        play("streamed", pool_bytes=9 * STEP)
    streamed = play("streamed", pool_bytes=9 * STEP)
    assert len(calls) == 3 + 1 + 3, "the two that were done are not done again"
    assert streamed.header == resident.header, "the journal does not know"
    assert timeless(streamed) == timeless(resident)
    assert 0 < max(held) <= 9 * STEP
    assert len({line["accuracy"] for group in resident.groups for line in group}) > 2, "equality means something"


def test_a_pool_streams_if_it_does_not_fit(blobs, monkeypatch):
    assert not streams(bench(blobs, [0])), "a CPU does not say what it can hold"
    assert not streams(bench(blobs, [0], pool_bytes=POOL))
    assert streams(bench(blobs, [0], pool_bytes=POOL - 1))
    monkeypatch.setattr(streaming, "room", lambda devices: POOL - 1)
    assert streams(bench(blobs, [0]))
    assert not streams(bench(blobs, [0], pool_bytes=POOL)), "what is asked for is done"
    monkeypatch.undo()
    devices = [
        SimpleNamespace(process_index=0, memory_stats=lambda size=size: {"bytes_limit": size}) for size in (900, 800)
    ]
    assert streaming.room(devices) == 400
    silent = SimpleNamespace(process_index=0, memory_stats=lambda: None)
    assert streaming.room([silent]) is None


def test_what_does_not_stream_is_refused(blobs, tmp_path):
    for strategy, pool_bytes in [("mcadl", POOL - 1), ("margin", 2 * STEP - 1)]:
        with pytest.raises(jaxdal.InputError, match=r"12,800 bytes .* do not fit into --pool_bytes="):
            jaxdal.run(
                blobs, strategy, workdir=tmp_path / "new", n_start=40, n_query=10, n_end=50, batch=16, quiet=True,
                pool_bytes=pool_bytes, devices=jax.devices()[:1],
            )  # fmt: skip
    assert not (tmp_path / "new").exists()
    with pytest.raises(jaxdal.InputError, match="two training steps, 2,048 bytes"):
        bench(blobs, [0], pool_bytes=2 * STEP - 1)
    assert streams(bench(blobs, [0], pool_bytes=2 * STEP))


def test_blocks_are_no_larger_than_the_wider_of_two_packs_allows(blobs):
    """Five seeds start in one pack of 5; ten runs go on in packs of 4, which leave room for another step."""
    rules = settings.resolve("arrays", blobs, "margin", seeds=range(5), **{**SMALL, "batch": 4})
    rules, margin = rules._replace(pack=5, pack_multiple=4), strategies.build("margin")
    assert [len(packs_of(rules, jax.devices()[:1], runs)[0]) for runs in (None, 10)] == [5, 4]
    blocks = blocks_for(rules, margin, (8, 8, 1), jax.devices()[:1], 45 * STEP // 4, 10)
    assert blocks is not None
    assert blocks.steps == 45 // (2 * 5)


def test_what_does_not_fit_together_is_refused_before_others_are_trained(blobs, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "play", lambda *_: pytest.fail("the first of two groups was trained"))
    names = ["learning_loss", "random", "margin", "entropy"]
    with pytest.raises(jaxdal.InputError, match="two training steps, 6,144 bytes, of 3 runs at once"):
        jaxdal.run_together(
            blobs, names, workdirs=tmp_path, quiet=True, pool_bytes=3 * STEP, devices=jax.devices()[:1],
            **{**SMALL, "pack": 3},
        )  # fmt: skip
    assert not list(tmp_path.iterdir()), "a journal of this --pack would refuse the smaller one that is proposed"


def test_the_next_block_comes_while_one_is_used():
    asked = [threading.Event() for _ in range(4)]

    def bring(start: int) -> jax.Array:
        asked[start].set()
        return jnp.full(3, start)

    blocks = []
    for place, block in enumerate(streaming.ahead(bring, range(4))):
        assert place == 3 or asked[place + 1].wait(timeout=60), "the thread is at it"
        assert not any(event.is_set() for event in asked[place + 2 :]), "but at no more"
        assert block.tolist() == [place] * 3
        assert all(old.is_deleted() for old in blocks)
        blocks.append(block)
    assert len(blocks) == 4


def test_what_goes_wrong_in_the_thread_is_raised(blobs, monkeypatch):
    one = bench(blobs, [0], pool_bytes=4 * STEP)
    before, rows, threads = threading.active_count(), Lanes.rows, []

    def broken(*arguments: Any, **options: Any) -> jax.Array:
        threads.append(threading.current_thread())
        if len(threads) == 5:  # in the third block, since each has two arrays
            raise OSError("the disk is gone")
        return rows(*arguments, **options)

    monkeypatch.setattr(Lanes, "rows", broken)
    with pytest.raises(OSError, match="the disk is gone"):
        one.train(7)
    assert len(threads) == 5
    assert threading.main_thread() not in threads
    assert threading.active_count() == before
