"""The semi-supervised trainers in the engine and in whole experiments: what they see, packs, resuming, scoring."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from labs import SMALL, bench, on_host

import jaxdal
from jaxdal import checkpoint, journal
from jaxdal.engine import Engine, answering
from jaxdal.types import Pool

MIXMATCH = "mixmatch(average=0.9, ramp_epochs=1)"
TRAINERS = [MIXMATCH, "consistency(ramp_epochs=1)", "fixmatch(unlabelled=2, threshold=0.3)"]
FROM_FEW_TO_ALL = {"n_start": 3, "n_query": 197, "n_end": 200}


def relabelled(blobs: jaxdal.Dataset, known: np.ndarray) -> jaxdal.Dataset:
    """Other labels for all that is not known."""
    labels = blobs.train_y.copy()
    hidden = np.flatnonzero(known < 0)
    labels[hidden] = (labels[hidden] + 1 + hidden % 3) % 4
    return blobs._replace(train_y=labels)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_unlabelled_images_count_and_their_number_may_be_anything(trainer, blobs):
    """One program for three labels, fewer than a batch, and for everything labelled."""
    one = bench(blobs, [0], trainer=trainer, **FROM_FEW_TO_ALL)
    engine, pool = one.lab.engine, one.lab.pool

    def train(labels: int, pool: Pool):
        known = np.full(200, -1, np.int32)
        known[:labels] = blobs.train_y[:labels]
        state = engine.init(one.keys)
        return on_host(engine.advance(state, one.keys, one.lab.lanes.per_run(known[None]), pool, 2, 0, 4))

    few, all_of_them = train(3, pool), train(200, pool)
    for state in (few, all_of_them):
        assert np.isfinite(state.loss).all()
        assert state.diverged.tolist() == [0]
    jax.tree.map(np.testing.assert_array_equal, few, train(3, pool))
    labelled, others = engine._batches(one.keys, one.lab.lanes.per_run(blobs.train_y[None]), np.int32(0))
    some = others[..., : labelled.shape[-1]]
    assert (np.sort(labelled) != np.sort(some)).any(), "where all are labelled, others than those of the same step"
    darker = train(3, Pool(pool.x.at[3:].set(pool.x[3:] // 2)))
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (few, darker)), strict=True))


def test_hidden_labels_change_nothing(blobs):
    one = bench(blobs, [0], trainer=MIXMATCH)
    other = bench(relabelled(blobs, np.asarray(one.known)[0]), [0], trainer=MIXMATCH)
    jax.tree.map(np.testing.assert_array_equal, on_host(one.train(3)), on_host(other.train(3)))


def test_packed_runs_equal_single_runs(blobs):
    together = on_host(bench(blobs, [3, 5], trainer=MIXMATCH).train(4))
    for lane, seed in enumerate([3, 5]):
        alone = on_host(bench(blobs, [seed], trainer=MIXMATCH).train(4))
        jax.tree.map(lambda x, y, i=lane: np.testing.assert_allclose(x[i], y[0], rtol=1e-4, atol=1e-5), together, alone)


def test_a_run_split_over_devices_is_the_same_run(blobs):
    alone, split = (on_host(bench(blobs, [3], devices=n, trainer=MIXMATCH).train(4)) for n in (1, 2))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), alone, split)


def test_the_average_follows_what_each_step_has_made(blobs):
    """Weights and running statistics, after the step and not before it."""
    one = bench(blobs, [0], trainer=MIXMATCH)
    before, after = (on_host(one.train(steps)) for steps in (2, 3))
    follows = jax.tree.map(lambda a, v: 0.9 * a + 0.1 * v, before.average, dict(after.variables))
    assert set(follows) == {"params", "batch_stats"}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), after.average, follows)


def test_the_average_is_evaluated_and_scores_the_pool(blobs):
    """An average that never moves from zero: every answer is class 0, and all margins are equal."""
    one = bench(blobs, [0], trainer=MIXMATCH)
    state = one.train(2)
    frozen = state._replace(average={**state.average, "params": jax.tree.map(jnp.zeros_like, state.average["params"])})
    counts = np.asarray(one.lab.engine.evaluate(answering(frozen), one.lab.test))[0]
    assert counts.tolist() == [20, 0, 0, 0]
    (probs,) = one.lab.gather(one.keys, answering(frozen), one.known, one.lab.pool)
    np.testing.assert_array_equal(probs, np.full((1, 200, 4), 0.25))


def test_the_average_is_what_a_round_reports_and_buys_by(blobs, tmp_path, monkeypatch):
    """In a whole experiment, with such an average: the first class alone is right, and ties go by index."""
    advance = Engine.advance

    def frozen(self: Engine, *arguments):
        state = advance(self, *arguments)
        zeros = jax.tree.map(jnp.zeros_like, state.average["params"])
        return state._replace(average={**state.average, "params": zeros})

    monkeypatch.setattr(Engine, "advance", frozen)
    (line,) = experiment(blobs, tmp_path).groups[0]
    assert line["per_class_accuracy"] == [1, 0, 0, 0]
    assert line["picks"] == np.setdiff1d(np.arange(200), line["initial"])[:10].tolist()


def outcome(workdir: Path) -> list[dict]:
    """The lines of a journal without their seconds."""
    return [{**json.loads(line), "seconds": None} for line in (workdir / journal.NAME).read_bytes().splitlines()]


class Stop(BaseException):
    """An end in the middle."""


def experiment(blobs: jaxdal.Dataset, workdir: Path, strategy: str = "margin", **options) -> jaxdal.Result:
    """Two rounds of one run; its training program is the one of the tests above."""
    fixed = {"trainer": MIXMATCH, **SMALL, "n_end": 50, "quiet": True}
    return jaxdal.run(blobs, strategy, workdir=workdir, devices=jax.devices()[:1], **fixed, **options)


def test_a_round_continues_with_its_average(blobs, tmp_path, monkeypatch):
    """Stopped once in the middle of round 1, the experiment ends with the same averaged weights, bit for bit."""
    options = {"checkpoint_seconds": 0.0, "save_weights": True, "eval_every": 1}
    experiment(blobs, tmp_path / "undisturbed", **options)
    begun: list[int] = []  # the first step of every call of `advance`
    advance = Engine.advance

    def watched(self: Engine, *arguments):
        begun.append(arguments[-2])
        if len(begun) == 3 + 2:
            raise Stop
        return advance(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "advance", watched)
        with pytest.raises(Stop):
            experiment(blobs, tmp_path / "stopped", **options)
        experiment(blobs, tmp_path / "stopped", **options)
    assert begun == [0, 12, 24, 0, 12, 12, 24], "an epoch has 12 steps, by the size of the pool"
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "undisturbed")
    for round_ in range(2):
        weights = [
            checkpoint.load(checkpoint.weights_path(tmp_path / name, 0, round_)) for name in ("stopped", "undisturbed")
        ]
        jax.tree.map(np.testing.assert_array_equal, *weights)
        assert set(weights[0]) == {"params", "batch_stats"}


@pytest.mark.parametrize("strategy", ["badge", "bald", "coreset"])
def test_strategies_score_what_was_trained_so(strategy, blobs, tmp_path):
    result = experiment(blobs, tmp_path, strategy)
    picks = result.groups[0][0]["picks"]
    assert len(set(picks)) == 10
    assert not set(picks) & set(result.groups[0][0]["initial"])
    assert result.header["config"]["trainer"] == MIXMATCH
