"""VAAL on planted images, in packs and on several devices."""

import functools
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from labs import bench, on_host
from selecting import alone
from sklearn.metrics import roc_auc_score

from jaxdal import strategies
from jaxdal.errors import InputError
from jaxdal.models.vae import critic as make_critic
from jaxdal.models.vae import vae as make_vae
from jaxdal.signals import Gather
from jaxdal.types import Network, Pool

vaal = import_module("jaxdal.strategies.vaal")  # the package exports the function of this name

BATCH = 6
TINY = "vaal(iterations=12, batch=8, widths=(8,), critic_widths=(6,))"


def options_of(**changes) -> vaal.Options:
    defaults = vaal.Options(None, BATCH, None, None, None, 1.0, 1.0, 2, 5e-4, "balanced", False)
    return vaal.checked(defaults._replace(**changes))


def normalise(x):
    return x.astype(jnp.float32) / 64 - 2


NETWORK = Network(lambda key: {}, lambda *_: ({}, {}), lambda key, x: normalise(x), normalise)


def planted(seed: int = 0, size: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half of the images have a bright upper half; labels are known of others only. -> (images, bright, known)."""
    rng = np.random.default_rng(seed)
    bright = rng.permutation(size) < size // 2
    images = rng.integers(60, 180, (size, 8, 8, 1))
    images[bright, :4] += 70
    known = np.full(size, -1, np.int32)
    known[np.flatnonzero(~bright)[: size // 5]] = 0
    return images.astype(np.uint8), bright, known


@functools.cache
def game():
    options = options_of(iterations=300, batch=64, widths=(64, 32))
    signal = vaal.unlabelled_look(options)

    def play(key, known, x):
        aux = signal.prepare(key, NETWORK, {}, Pool(x), known)
        return signal.per_batch(key, NETWORK, {}, aux, x)

    return jax.jit(play)


@pytest.mark.parametrize("seed", range(3))
def test_images_unlike_all_labelled_ones_are_bought(seed):
    images, bright, known = planted(seed)
    look = game()(jax.random.key(seed), known, images)
    unknown = known < 0
    assert roc_auc_score(bright[unknown], look[unknown]) > 0.9
    picks = alone(vaal.vaal(), {"known": known, vaal.vaal().needs[0].name: np.asarray(look)}, 30)
    assert bright[picks].mean() > 0.9
    chance = np.random.default_rng(seed).choice(np.flatnonzero(unknown), 30, replace=False)
    assert bright[chance].mean() < 0.9


def test_kinds():
    where, count = vaal.members(jnp.asarray([False, True, False, True]))
    assert (where.tolist(), int(count)) == ([1, 3, 0, 0], 2)
    where, count = vaal.members(jnp.zeros(3, bool))
    assert (where.tolist(), int(count)) == ([0, 1, 2], 3), "the whole pool, if there is none"


def test_batches_are_half_labelled_and_half_not(monkeypatch):
    """The first half of every batch is drawn from what is known, the second from what is not; all get their turn."""
    known = np.asarray([-1, 5, -1, -1, 0, -1, 2], np.int32)
    monkeypatch.setattr(vaal, "start", lambda *_: (jnp.zeros((2, 7), jnp.int32), jnp.zeros((2, 7), jnp.int32)))

    def count(state, x):
        hits = jax.nn.one_hot(x[:, 0, 0, 0].astype(jnp.int32), 7, dtype=jnp.int32).reshape(2, -1, 7).sum(1)
        return state[0] + hits, state[1]

    monkeypatch.setattr(vaal, "vae_step", lambda o, v, c, state, x, noise: (count(state, x), None))
    monkeypatch.setattr(vaal, "critic_step", lambda o, v, c, state, x: ((state[0], count((state[1],) * 2, x)[0]), None))
    pool = np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1)
    options = options_of(iterations=50, batch=10, vae_steps=3)
    vae, critic = make_vae((1, 1, 1)), make_critic(2, (3,))

    def as_they_are(key, x):
        return x.astype(jnp.float32)

    of_vae, of_critic = vaal.fit(options, vae, critic, as_they_are, jax.random.key(0), known, jnp.asarray(pool))
    assert of_vae.sum(1).tolist() == [1500, 1500], "3 batches of 10 in 50 iterations"
    assert of_critic.sum(1).tolist() == [500, 500], "the last of the 3"
    for counts in (of_vae, of_critic):
        assert (counts[0, known < 0] == 0).all()
        assert (counts[1, known >= 0] == 0).all()
    assert np.asarray(of_vae[0, known >= 0]).min() > 400
    assert np.asarray(of_vae[1, known < 0]).min() > 300


def test_every_step_has_images_and_noise_of_its_own(monkeypatch):
    """Six steps of the auto-encoder, two in an iteration: standard normal noise, and other images each time."""
    steps, size = 6, 10
    blank = (jnp.int32(0), jnp.zeros((steps, 2 * size)), jnp.zeros((steps, 2 * size, 50)))

    def note(o, v, c, state, x, noise):
        number, images, noises = state
        return (number + 1, images.at[number].set(x[:, 0, 0, 0]), noises.at[number].set(noise)), None

    monkeypatch.setattr(vaal, "start", lambda *_: blank)
    monkeypatch.setattr(vaal, "vae_step", note)
    monkeypatch.setattr(vaal, "critic_step", lambda o, v, c, state, x: (state, None))
    known = np.where(np.arange(200) < 100, 0, -1).astype(np.int32)
    pool = jnp.arange(200, dtype=jnp.uint8).reshape(200, 1, 1, 1)
    vae, critic = make_vae((1, 1, 1), 50), make_critic(50, (3,))
    options = options_of(iterations=3, batch=size, vae_steps=2)
    _, images, noises = vaal.fit(
        options, vae, critic, lambda _, x: x.astype(jnp.float32), jax.random.key(0), known, pool
    )
    assert len(np.unique(images, axis=0)) == steps
    assert (images[:, :size] + 100 != images[:, size:]).mean() > 0.9, "the two kinds are drawn apart"
    rows = np.asarray(noises).reshape(steps * 2 * size, -1)
    assert len(np.unique(rows, axis=0)) == len(rows)
    assert abs(rows.mean()) < 0.05
    assert abs(rows.std() - 1) < 0.05


@pytest.mark.parametrize(("shape", "widths"), [((8, 8, 1), (64, 64)), ((16, 16, 3), (512, 512))])
def test_size_of_the_discriminator(shape, widths):
    (signal,) = vaal.vaal().needs
    known, pool = np.zeros(4, np.int32), Pool(jnp.zeros((4, *shape), jnp.uint8))
    _, params = jax.eval_shape(lambda key: signal.prepare(key, NETWORK, {}, pool, known), jax.random.key(0))
    assert [params[f"Linear_{n}"]["bias"].shape for n in range(3)] == [*((wide,) for wide in widths), (1,)]


def test_options_reach_the_players():
    signal = vaal.unlabelled_look(options_of(latent=3, widths=(5, 4), critic_widths=(6,)))
    (variables, params) = jax.eval_shape(
        lambda key, known, x: signal.prepare(key, NETWORK, {}, Pool(x), known),
        jax.random.key(0), np.int32([0, -1]), np.zeros((2, 8, 8, 1), np.uint8),
    )  # fmt: skip
    assert variables["params"]["posterior"]["mean"]["kernel"].shape == (4, 3)
    assert [params[f"Linear_{n}"]["kernel"].shape for n in range(2)] == [(3, 6), (6, 1)]


def test_length_of_a_game():
    sizes = [1, 40, 1438, 10_000, 50_000]
    lengths = [vaal.length(options_of(batch=128), size) for size in sizes]
    assert lengths == [100, 100, 240, 1580, 3000]
    assert vaal.length(options_of(iterations=7), 50_000) == 7


@pytest.mark.parametrize("augment", [False, True])
def test_images_of_the_game_are_clean_unless_told(augment):
    asked = []

    def note(what):
        asked.append(what)
        return normalise

    network = NETWORK._replace(augment=lambda key, x: note("augment")(x), normalise=lambda x: note("normalise")(x))
    signal = vaal.unlabelled_look(options_of(iterations=2, augment=augment))
    images, _, known = planted()
    jax.eval_shape(lambda key: signal.prepare(key, network, {}, Pool(jnp.asarray(images)), known), jax.random.key(0))
    assert set(asked) == {"augment" if augment else "normalise"}


def test_the_discriminator_is_asked_about_normalised_images():
    """At the mean code, by the weights that the game has left: as the players saw them, and not raw pixels."""
    images, _, _ = planted()
    vae, critic = make_vae(images.shape[1:], 2, (4,)), make_critic(2, (3,))
    state = vaal.start(vae, critic, jax.random.key(1))
    (signal,) = vaal.vaal(latent=2, widths=(4,), critic_widths=(3,)).needs
    variables = {"params": state.vae.params, "batch_stats": state.batch_stats}
    look = signal.per_batch(None, NETWORK, {}, (variables, state.critic.params), jnp.asarray(images))
    expected = -critic.apply(state.critic.params, vae.encode(variables, normalise(images))[0])
    assert np.std(expected) > 0.01
    np.testing.assert_allclose(look, expected, rtol=1e-5, atol=1e-6)


def test_a_game_that_diverged_leaves_valid_picks():
    images, _, known = planted()
    vae, critic = make_vae(images.shape[1:], 2, (4,)), make_critic(2, (3,))
    lost = jax.tree.map(lambda leaf: leaf * jnp.nan, vaal.start(vae, critic, jax.random.key(0)))
    strategy = vaal.vaal(latent=2, widths=(4,), critic_widths=(3,))
    aux = {"params": lost.vae.params, "batch_stats": lost.batch_stats}, lost.critic.params
    look = np.asarray(strategy.needs[0].per_batch(None, NETWORK, {}, aux, jnp.asarray(images)))
    assert np.isnan(look).all()
    picks = alone(strategy, {"known": known, strategy.needs[0].name: look}, 30)
    assert picks == np.flatnonzero(known < 0)[:30].tolist()


@functools.cache
def convolutional():
    options = options_of(iterations=2, batch=3, widths=(3, 4), latent=2, critic_widths=(4,))
    signal = vaal.unlabelled_look(options)

    def play(key, known, x):
        aux = signal.prepare(key, NETWORK, {}, Pool(x), known)
        return aux, signal.per_batch(key, NETWORK, {}, aux, x)

    return play


def test_convolutional_games_of_two_runs():
    """Colour, sides that no stride divides: what each run plays alone, and running statistics that have moved."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (10, 18, 17, 3), np.uint8)
    known = np.stack([np.where(np.arange(10) < count, 0, -1) for count in (3, 6)]).astype(np.int32)
    keys = jax.random.split(jax.random.key(0), 2)
    aux, look = jax.jit(jax.vmap(convolutional(), (0, 0, None)))(keys, known, x)
    for leaf in jax.tree.leaves(aux):
        assert np.isfinite(leaf).all()
    assert np.abs(aux[0]["batch_stats"]["encoder_norms_0"]["mean"]).max() > 0
    single = jax.jit(convolutional())
    for run in range(2):
        np.testing.assert_allclose(look[run], single(keys[run], known[run], x)[1], rtol=1e-3, atol=1e-4)
    assert np.std(look, axis=1).min() > 1e-3


# In the laboratory.


def looks(blobs, seeds: list[int], devices: int, batch: int = 64) -> np.ndarray:
    """f32[R, N], as the loop over rounds has them made; the network that is trained has no part in it."""
    one = bench(blobs, seeds, devices=devices, strategy=TINY)
    gather = Gather(one.lab.lanes, one.network, strategies.build(TINY).needs, one.lab.pool, batch)
    return on_host(gather(one.keys, {}, one.known, one.lab.pool)[0])[: len(seeds)]


def test_runs_devices_and_scoring_batches(blobs):
    """Two runs at once on a device, one run split over eight, batches of other sizes: the looks that each has alone."""
    single = np.concatenate([looks(blobs, [seed], 1) for seed in (0, 1)])
    assert np.ptp(single, axis=1).min() > 0.01
    np.testing.assert_allclose(looks(blobs, [0, 1], 1), single, atol=1e-4)
    np.testing.assert_allclose(looks(blobs, [0], 8), single[:1], atol=1e-4)
    np.testing.assert_allclose(looks(blobs, [0], 1, batch=37), single[:1], atol=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "vaal(iterations=0)", "vaal(batch=None)", "vaal(batch=1.5)", "vaal(latent=-1)", "vaal(vae_steps=0)",
        "vaal(widths=(3, 0))", "vaal(widths='ab')", "vaal(critic_widths=5)", "vaal(beta=-1)", "vaal(adversary='x')",
        "vaal(kl='mean')",
    ],
)  # fmt: skip
def test_options_that_mean_nothing(text):
    name = text.split("(")[1].split("=")[0]
    with pytest.raises(InputError, match=f"{name}=.* of vaal"):
        strategies.build(text)
