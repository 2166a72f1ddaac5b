"""WAAL: how it is trained in packs, on many devices and from checkpoints, and what is bought."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from labs import SMALL, bench, on_host
from reference import waal as reference
from reference.scores import most_uncertain

import jaxdal
from jaxdal import strategies, trainers
from jaxdal.checkpoint import InsideRound
from jaxdal.errors import InputError
from jaxdal.signals import Gather
from jaxdal.strategies.waal import waal_score
from jaxdal.trainers.waal import critic, judge


def test_epochs_count_the_larger_set_and_nothing_is_clamped(blobs):
    trainer = trainers.build("waal")
    assert [trainer.epoch(labelled, 100) for labelled in (10, 50, 70, 100)] == [90, 50, 70, 100]
    one = bench(blobs, [0], strategy="waal")
    assert one.lab.settings.per_epoch[0] == 160 // 16
    assert one.lab.settings.recipe.clamp is None
    assert bench(blobs, [0], strategy="margin").lab.settings.recipe.clamp == 0.1


@pytest.fixture(scope="module")
def trained(blobs):
    """States after 4 steps, for some seeds on some devices; kept between tests."""

    @functools.cache
    def train(seeds: tuple[int, ...], devices: int = 1):
        one = bench(blobs, seeds, devices, "waal")
        return one, on_host(one.train(4))

    return train


def assert_close(found, expected):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), found, expected)


def test_packed_runs_and_many_devices_equal_single_runs(trained):
    _, alone = trained((3,))
    _, packed = trained((3, 5))
    assert_close(jax.tree.map(lambda leaf: leaf[:1], packed.variables), alone.variables)
    assert not np.allclose(*packed.variables["helpers"]["Linear_0"]["kernel"])
    _, divided = trained((3,), 2)
    assert_close(divided.variables, alone.variables)


def test_a_round_goes_on_from_its_checkpoint_with_its_critic(trained, tmp_path):
    one, undisturbed = trained((3,))
    inside, lab = InsideRound(tmp_path, 0.0, {}), one.lab
    half = lab.engine.advance(lab.engine.init(one.keys), one.keys, one.known, lab.pool, 2, 0, 2)
    inside.offer(0, [3], half, 2, {}, np.zeros(1))
    kept = inside.restore(0, [3], lab.engine.init(one.keys))
    state = jax.tree.unflatten(jax.tree.structure(half), lab.lanes.per_run(kept.leaves))
    assert set(state.variables) == {"params", "batch_stats", "helpers"}
    state = lab.engine.advance(state, one.keys, one.known, lab.pool, 2, kept.done, 4)
    jax.tree.map(np.testing.assert_array_equal, on_host(state), undisturbed)


# The strategy.


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_scores_and_picks_are_those_of_the_formulas(classes):
    rng = np.random.default_rng(classes)
    logits = (rng.standard_normal((60, classes)) * rng.uniform(0.1, 4, (60, 1))).astype(np.float32)
    judged = rng.random(60).astype(np.float32)
    logits[7, 0] = 1e4  # the others underflow
    found = waal_score(logits, judged)
    expected = np.array([reference.score(row, g) for row, g in zip(logits, judged, strict=True)])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    known = np.where(rng.random(60) < 0.3, 0, -1).astype(np.int32)
    ranked = most_uncertain(-expected, known, 13)
    assert np.min(np.diff(expected[ranked])) > 1e-4, "a tie in the best: take another seed"
    picks, _ = strategies.build("waal").select(jax.random.key(0), known, 12, (), found)
    assert picks.tolist() == ranked[:12]


def test_both_terms_have_their_sign():
    even, sure = jnp.zeros((1, 4)), jnp.asarray([[9.0, 0, 0, 0]])
    assert waal_score(even, jnp.zeros(1)) < waal_score(sure, jnp.zeros(1)), "doubt is bought first"
    assert waal_score(sure, jnp.ones(1)) < waal_score(sure, jnp.zeros(1)), "and what is unlike all labelled ones"


def test_planted_kind_that_nobody_labelled_is_bought(blobs):
    """The 40 labelled images show three kinds of four: the critic learns that the fourth is unlike them."""
    order = np.argsort((blobs.train_y == 2) & (np.arange(200) < 56), kind="stable")
    images = blobs._replace(train_x=blobs.train_x[order], train_y=blobs.train_y[order])
    assert set(images.train_y[:40].tolist()) == {0, 1, 3}
    options = {"trainer": "waal(alpha=0.1)", "epochs": 60, "learning_rate": 0.05, "model": "lenet"}
    one = bench(images, [0], strategy="waal(weight=1000)", **options)  # so that doubt, which finds six, hardly counts
    state = one.train(150)
    variables = jax.tree.map(lambda leaf: leaf[0], state.variables)
    _, taps = one.network.apply(variables, one.network.normalise(jnp.asarray(images.train_x)))
    judged, new = np.asarray(judge(variables["helpers"], taps["features"])), images.train_y == 2
    assert judged[new].mean() > judged[~new].mean() + 0.1
    (found,) = one.lab.gather(one.keys, state.variables, one.known, one.lab.pool)
    picks = on_host(one.lab.select(one.keys, one.known, (), found)[0])[0]
    assert new[picks].all(), "a random choice finds three of ten"


def test_batches_of_scoring_change_nothing(trained):
    one, state = trained((3,))
    (found,) = one.lab.gather(one.keys, state.variables, one.known, one.lab.pool)
    variables = jax.tree.map(lambda leaf: leaf[0], state.variables)
    logits, taps = one.network.apply(variables, one.network.normalise(one.lab.pool.x[:5]))
    judged = judge(variables["helpers"], taps["features"])
    np.testing.assert_allclose(found[0, :5], waal_score(logits, judged), rtol=1e-4, atol=1e-4)
    small = Gather(one.lab.lanes, one.network, strategies.build("waal").needs, one.lab.pool, 37)
    (again,) = small(one.keys, state.variables, one.known, one.lab.pool)
    np.testing.assert_allclose(again, found, rtol=1e-5, atol=1e-5)


def test_two_rounds(blobs, tmp_path):
    result = jaxdal.run(
        blobs, "waal", trainer="waal(penalty='as_published')", workdir=tmp_path, quiet=True, devices=jax.devices()[:1],
        **SMALL | {"n_end": 50},
    )  # fmt: skip
    assert result.header["config"]["trainer"] == "waal(penalty='as_published')"
    assert len(set(result.groups[0][0]["picks"])) == 10


def test_what_does_not_fit_is_refused(blobs):
    with pytest.raises(InputError, match="it needs --trainer=waal"):
        bench(blobs, [0], strategy="waal", trainer="supervised")
    for option in ("alpha=-1", "penalty_weight='x'", "penalty='no'"):
        with pytest.raises(InputError, match="of waal is n"):
            trainers.build(f"waal({option})")
    with pytest.raises(InputError, match="penalty_weight=9 of waal changes nothing with penalty='as_published'"):
        trainers.build("waal(penalty='as_published', penalty_weight=9)")
    trainers.build("waal(penalty='as_published', penalty_weight=5)")  # as by default
    with pytest.raises(InputError, match="of waal is not"):
        strategies.build("waal(weight=-1)")
    assert trainers.build("waal").helpers is critic
