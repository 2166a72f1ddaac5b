"""What a trainer can ask of the engine: phases, networks alongside, unlabelled images, averaged weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from labs import SMALL, bench, on_host

import jaxdal
from jaxdal import engine, strategies, trainers
from jaxdal.parallel import Lanes
from jaxdal.types import Batch, Moment, Network, Phase, Pool, Recipe, Strategy, Trainer

RECIPE = Recipe(epochs=2, batch=2, learning_rate=0.1, milestones=(), momentum=0.9, weight_decay=0.0)


def network() -> Network:
    """A number times the mean pixel; nothing else."""

    def apply(variables, x, *, train=False, dropout_key=None, chunks=1):
        answer = variables["params"]["w"] * jnp.mean(x, axis=(1, 2, 3))
        return answer[:, None], {"features": answer[:, None], "batch_stats": variables["batch_stats"]}

    return Network(
        lambda key: {"params": {"w": jnp.float32(2)}, "batch_stats": {"seen": jnp.float32(0)}}, apply,
        lambda key, x: x.astype(jnp.float32), lambda x: x.astype(jnp.float32),
    )  # fmt: skip


def first(network, variables, batch, key, moment):
    """Pulls w to 0, and counts."""
    return 0.5 * variables["params"]["w"] ** 2, {"seen": variables["batch_stats"]["seen"] + 1}


def second(network, variables, batch, key, moment):
    """Pulls the helper to w as the first phase has left it, plus what the moment says."""
    gap = variables["helpers"]["h"] - variables["params"]["w"] - moment.labelled - moment.epoch
    return 0.5 * gap**2, variables["batch_stats"]


TWO = Trainer(
    (Phase(first), Phase(second, trains=("helpers",))),
    helpers=lambda key, taps: {"h": jnp.float32(taps["features"].shape[-1] + 4)},
    average=0.75,
)


def test_phases_train_their_parts_one_after_another():
    keys = jaxdal.lab.keys_for(0, 0)
    state = engine.init(network(), TWO, RECIPE, (1, 1, 1), keys)
    assert state.variables["helpers"]["h"] == 5, "made for the taps: one feature"
    batch = Batch(jnp.zeros((2, 1, 1, 1), jnp.uint8), jnp.zeros(2, jnp.int32), jnp.zeros((0, 1, 1, 1), jnp.uint8))
    w, h, average, seen = 2.0, 5.0, 2.0, 0.0
    speed_w = speed_h = 0.0
    for step in range(5):
        state = engine.train_step(
            network(), TWO, RECIPE, state, batch, keys.step, jnp.int32(step), jnp.int32(2), jnp.float32(0.25)
        )
        speed_w = 0.9 * speed_w + w
        w -= 0.1 * speed_w
        speed_h = 0.9 * speed_h + (h - w - 0.25 - step / 2)
        h -= 0.1 * speed_h
        average, seen = 0.75 * average + 0.25 * w, 0.75 * seen + 0.25 * (step + 1)
    np.testing.assert_allclose(state.variables["params"]["w"], w, rtol=1e-5)
    np.testing.assert_allclose(state.variables["helpers"]["h"], h, rtol=1e-5)
    assert state.variables["batch_stats"]["seen"] == 5
    answers = engine.answering(state)
    np.testing.assert_allclose(answers["params"]["w"], average, rtol=1e-5)
    np.testing.assert_allclose(answers["batch_stats"]["seen"], seen, rtol=1e-5)
    assert answers["helpers"] is state.variables["helpers"], "which are not averaged"


def test_an_average_of_constant_weights_comes_closer_by_its_decay():
    still = Trainer((Phase(lambda *_: (jnp.float32(0), {"seen": jnp.float32(1)})),), average=0.9)
    keys = jaxdal.lab.keys_for(0, 0)
    state = engine.init(network(), still, RECIPE, (1, 1, 1), keys)
    batch = Batch(jnp.zeros((2, 1, 1, 1), jnp.uint8), jnp.zeros(2, jnp.int32), jnp.zeros((0, 1, 1, 1), jnp.uint8))
    for step in range(7):
        state = engine.train_step(
            network(), still, RECIPE, state, batch, keys.step, jnp.int32(step), jnp.int32(9), jnp.float32(0)
        )
    np.testing.assert_allclose(engine.answering(state)["batch_stats"]["seen"], 1 - 0.9**7, rtol=1e-5)
    assert engine.answering(state)["params"]["w"] == 2


def test_without_an_average_the_weights_themselves_answer():
    plain = trainers.build("supervised")
    state = engine.init(network(), plain, RECIPE, (1, 1, 1), jaxdal.lab.keys_for(0, 0))
    assert engine.answering(state) is state.variables
    assert state.average == ()


def test_where_everything_is_labelled_the_share_is_exactly_one():
    """Of 82 images, whose mean XLA computes as 82 x (1 / 82), less than 1: WAAL divides by what is missing."""

    def share(network, variables, batch, key, moment):
        return moment.labelled + 0 * variables["params"]["w"], variables["batch_stats"]

    lanes = Lanes(1, jax.devices()[:1])
    whole = engine.Engine(
        lanes, network(), Trainer((Phase(share),)), RECIPE, num_classes=1, labels=(81, 82), pool=(82, 1, 1, 1), rows=1,
        device_loop=True, chunk=1,
    )  # fmt: skip
    keys = lanes.lift(jaxdal.lab.keys_for, "rs")(lanes.per_run(np.zeros(1, np.uint32)), np.int32(0))
    pool = Pool(lanes.shared(np.zeros((82, 1, 1, 1), np.uint8)))
    shares = []
    for labelled in (81, 82):
        known = lanes.per_run(np.where(np.arange(82) < labelled, 0, -1).astype(np.int32)[None])
        shares.append(float(whole.advance(whole.init(keys), keys, known, pool, 1, 0, 1).loss[0]))
    assert shares == [pytest.approx(81 / 82), 1]


def test_decay_of_kernels_alone():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2), "scale": jnp.ones(2)}
    rule = engine.optimiser(RECIPE._replace(weight_decay=0.5, decay_kernels_only=True))
    updates, _ = rule.update(jax.tree.map(jnp.zeros_like, params), rule.init(params), params)
    assert {name: float(leaf.max()) for name, leaf in updates.items()} == {"kernel": 0.5, "bias": 0, "scale": 0}


@pytest.fixture
def watching(monkeypatch):
    """A trainer that learns from labels and keeps what it saw of the others: the sum of all their pixels."""

    def loss(network, variables, batch, key, moment):
        value, stats = trainers.build("supervised").phases[0].loss(network, variables, batch, key, moment)
        seen = jnp.sum(batch.unlabelled.astype(jnp.float32)) + moment.labelled
        assert batch.unlabelled.shape == (3 * batch.x.shape[0], *batch.x.shape[1:])
        return value + 0 * jnp.sum(variables["helpers"]["seen"]) + 1e-7 * seen * variables["helpers"]["seen"], stats

    trainer = Trainer(
        (Phase(loss, trains=("params", "helpers")),), unlabelled=3, epoch=lambda labelled, pool: pool,
        helpers=lambda key, taps: {"seen": jnp.float32(0)}, average=0.5,
    )  # fmt: skip
    monkeypatch.setitem(trainers.TRAINERS, "watching", lambda: trainer)
    margin = strategies.build("margin")
    return Strategy(margin.needs, margin.select, trainer="watching")


def test_a_trainer_sees_pixels_that_are_not_labelled_and_no_label(blobs, watching, tmp_path):
    """A whole experiment: the strategy's own trainer is used, epochs count the pool, hidden labels stay hidden."""
    options = {**SMALL, "n_start": 20, "n_end": 30, "quiet": True}
    devices = jax.devices()[:1]
    before = jaxdal.run(blobs, watching, workdir=tmp_path / "before", devices=devices, **options)
    assert before.header["config"]["trainer"].startswith("watching, code ")
    bought = before.groups[0][0]["initial"] + before.groups[0][0]["picks"]
    labels = blobs.train_y.copy()
    hidden = np.setdiff1d(np.arange(labels.size), bought)
    labels[hidden] = (labels[hidden] + 1) % 4
    other = jaxdal.run(blobs._replace(train_y=labels), watching, workdir=tmp_path / "other", devices=devices, **options)
    for line, same in zip(before.groups, other.groups, strict=True):
        assert [line[0][key] for key in ("picks", "accuracy")] == [same[0][key] for key in ("picks", "accuracy")]


def test_unlabelled_images_of_packed_runs_are_those_of_single_runs(blobs, watching):
    together = on_host(bench(blobs, [3, 5], strategy=watching).train(4)).variables["helpers"]["seen"]
    alone = [on_host(bench(blobs, [seed], strategy=watching).train(4)).variables["helpers"]["seen"] for seed in (3, 5)]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-5)
    assert abs(together[0] - together[1]) > 1e-4 * abs(together[0]), "each has its own"
    assert np.all(together < -1e-3), "there were pixels"


def test_the_moment_counts_epochs_and_the_share_of_the_round():
    seen = []

    def loss(network, variables, batch, key, moment: Moment):
        jax.debug.callback(lambda *now: seen.append([float(value) for value in now]), *moment)
        return 0 * variables["params"]["w"], variables["batch_stats"]

    trainer, keys = Trainer((Phase(loss),)), jaxdal.lab.keys_for(0, 0)
    state = engine.init(network(), trainer, RECIPE, (1, 1, 1), keys)
    batch = Batch(jnp.zeros((2, 1, 1, 1), jnp.uint8), jnp.zeros(2, jnp.int32), jnp.zeros((0, 1, 1, 1), jnp.uint8))
    for step in (0, 3, 7):
        engine.train_step(
            network(), trainer, RECIPE, state, batch, keys.step, jnp.int32(step), jnp.int32(4), jnp.float32(0.1)
        )
    np.testing.assert_allclose(seen, [[0, 0, 0, 0.1], [3, 0.75, 0.375, 0.1], [7, 1.75, 0.875, 0.1]], rtol=1e-6)
