"""A step of VAAL against the same written out in NumPy, and what many steps do with either pair of weights."""

import functools
import math
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import vaal as reference

from jaxdal.models.vae import critic as make_critic
from jaxdal.models.vae import vae as make_vae

vaal = import_module("jaxdal.strategies.vaal")  # the package exports the function of this name

SHAPE, BATCH, LATENT = (3, 2, 2), 6, 3


def options_of(**changes) -> vaal.Options:
    defaults = vaal.Options(None, BATCH, None, None, None, 1.0, 1.0, 2, 5e-4, "balanced", False)
    return vaal.checked(defaults._replace(**changes))


@functools.cache
def players():
    """Both, before their first step, with something in every parameter."""
    vae, critic = make_vae(SHAPE, LATENT, (7, 5)), make_critic(LATENT, (4, 3))
    state = vaal.start(vae, critic, jax.random.key(3))

    def stir(leaf):
        return leaf + 0.1 * jnp.cos(jnp.arange(leaf.size, dtype=jnp.float32)).reshape(leaf.shape)

    stirred = (vaal.adam(jax.tree.map(stir, state.vae.params)), vaal.adam(jax.tree.map(stir, state.critic.params)))
    return vae, critic, vaal.State(stirred[0], state.batch_stats, stirred[1])


def some_images(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labelled and unlabelled ones, and noise."""
    rng = np.random.default_rng(seed)
    x, noise = rng.standard_normal((2 * BATCH, *SHAPE)), rng.standard_normal((2 * BATCH, LATENT))
    return x.astype(np.float32), noise.astype(np.float32)


def layers(params, prefix: str) -> list[reference.Layer]:
    """Those whose names start alike, in order, in float64."""
    names = sorted(name for name in params if name.startswith(prefix))
    return [{what: np.asarray(leaf, np.float64) for what, leaf in params[name].items()} for name in names]


def in_parts(params) -> dict[str, list[reference.Layer]]:
    posterior = [*layers(params["posterior"], "mean"), *layers(params["posterior"], "log")]
    return {"encoder": layers(params, "encoder"), "posterior": posterior, "decoder": layers(params, "decoder")}


def assert_one_step(before, after, gradients, rate) -> None:
    """The first moment is a tenth of the gradient; weights are compared where its sign is beyond doubt."""
    for old, new, moment, gradient in zip(before, after.params, after.first, gradients, strict=True):
        expected = reference.adam(old, gradient, rate)
        for what, g in gradient.items():
            np.testing.assert_allclose(10 * moment[what], g, rtol=1e-4, atol=1e-5 * np.abs(g).max())
            clear = (np.abs(g) > 1e-4 * np.abs(g).max()) | (g == 0)
            assert clear.mean() > 0.9
            np.testing.assert_allclose(new[what][clear], expected[what][clear], rtol=1e-4, atol=1e-6)


@functools.cache
def stepper(kl: str, beta: float = 0.7, adversary: float = 3.0):
    vae, critic, _ = players()
    options = options_of(kl=kl, beta=beta, adversary=adversary, learning_rate=0.01)
    return jax.jit(functools.partial(vaal.vae_step, options, vae, critic))


@pytest.mark.parametrize("kl", ["balanced", "reference"])
def test_step_of_the_auto_encoder(kl):
    _, _, state = players()
    x, noise = some_images()
    after, loss = stepper(kl)(state, x, noise)
    before = in_parts(state.vae.params)
    flat = x.reshape(len(x), -1).astype(np.float64)
    judge = layers(state.critic.params, "Linear")
    expected, gradients = reference.vae_loss(
        before["encoder"], before["posterior"], before["decoder"], judge, flat[:BATCH], flat[BATCH:],
        noise.astype(np.float64), 0.7, 3.0, kl,
    )  # fmt: skip
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    new, first = in_parts(after.vae.params), in_parts(after.vae.first)
    for part in before:
        moved = vaal.Adam(new[part], first[part], None, None)
        assert_one_step(before[part], moved, gradients[part], 0.01)
    jax.tree.map(np.testing.assert_array_equal, after.critic, state.critic)  # it watches


def test_step_of_the_discriminator():
    vae, critic, state = players()
    x, _ = some_images()
    after, loss = jax.jit(vaal.critic_step, static_argnums=(0, 1, 2))(
        options_of(learning_rate=0.01), vae, critic, state, x
    )
    parts = in_parts(state.vae.params)
    codes = reference.forward([*parts["encoder"], parts["posterior"][0]], x.reshape(len(x), -1).astype(float))[-1]
    before = layers(state.critic.params, "Linear")
    expected, gradients = reference.critic_loss(before, codes[:BATCH], codes[BATCH:])
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    moved = vaal.Adam(layers(after.critic.params, "Linear"), layers(after.critic.first, "Linear"), None, None)
    assert_one_step(before, moved, gradients, 0.01)
    jax.tree.map(np.testing.assert_array_equal, (after.vae, after.batch_stats), (state.vae, state.batch_stats))


def test_batch_norm_of_both_steps():
    """The discriminator sees codes by the statistics of the batch; the running ones follow the auto-encoder's alone."""
    vae, critic = make_vae((16, 16, 3), LATENT, (3, 4)), make_critic(LATENT, (4,))
    state = vaal.start(vae, critic, jax.random.key(0))
    rng = np.random.default_rng(0)
    x = 3 + 2 * rng.standard_normal((2 * BATCH, 16, 16, 3)).astype(np.float32)
    noise = rng.standard_normal((2 * BATCH, LATENT)).astype(np.float32)

    @jax.jit
    def both(state):
        variables = {"params": state.vae.params, "batch_stats": state.batch_stats}
        _, mean, _, followed = vae.train(variables, x, noise)
        judged = [critic.apply(state.critic.params, codes) for codes in (mean, vae.encode(variables, x)[0])]
        moved, _ = vaal.vae_step(options_of(), vae, critic, state, x, noise)
        return judged, followed, moved.batch_stats, vaal.critic_step(options_of(), vae, critic, state, x)

    judged, followed, moved, (after, loss) = both(state)
    sign = np.repeat([-1.0, 1.0], BATCH)  # labelled first
    by_batch, by_running = (2 * np.logaddexp(0, sign * np.asarray(logits)).mean() for logits in judged)
    assert abs(by_batch - by_running) > 0.01
    assert float(loss) == pytest.approx(by_batch, rel=1e-5)
    jax.tree.map(np.testing.assert_array_equal, (after.vae, after.batch_stats), (state.vae, state.batch_stats))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), moved, followed)
    assert not np.allclose(moved["encoder_norms_0"]["mean"], state.batch_stats["encoder_norms_0"]["mean"])


def test_players_begin_with_weights_of_their_own():
    vae, critic, _ = players()
    keys = []

    def noted(init):
        return lambda key: keys.append(tuple(jax.random.key_data(key).tolist())) or init(key)

    vaal.start(vae._replace(init=noted(vae.init)), critic._replace(init=noted(critic.init)), jax.random.key(3))
    assert len(keys) == len(set(keys)) == 2


def test_adam_goes_on():
    """Three steps with different gradients, by the book."""
    state, p, m, v = vaal.adam({"w": jnp.float32(1)}), 1.0, 0.0, 0.0
    for t, g in enumerate([0.5, -2.0, 3.0], start=1):
        state = vaal.descend(state, {"w": jnp.float32(g)}, 0.1)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        p -= 0.1 * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
        assert float(state.params["w"]) == pytest.approx(p, rel=1e-5)


def test_divergence():
    rng = np.random.default_rng(0)
    mean, log_variance = rng.standard_normal((2, 9, 4)).astype(np.float32)
    found = vaal.divergence(jnp.asarray(mean), jnp.asarray(log_variance))
    expected = [reference.divergence(m, v) for m, v in zip(mean, log_variance, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert vaal.divergence(jnp.zeros((1, 4)), jnp.zeros((1, 4))).tolist() == [0]


def test_an_undecided_discriminator_loses_two_bits():
    logits = jnp.zeros(5)
    assert float(vaal.called_labelled(logits) + vaal.called_unlabelled(logits)) == pytest.approx(2 * math.log(2))


def test_a_step_that_is_not_finite_is_left_out():
    *_, state = players()
    x, noise = some_images()
    x[0] = np.inf
    after, loss = stepper("balanced")(state, x, noise)
    assert not np.isfinite(loss)
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_the_published_weights_collapse():
    """Of two kinds of images: the divergence is a sum over the batch, the error a mean, and codes shrink to 0.

    No adversary, who pulls at the codes as well. Printed at 100, 200, 400, 700 and 1,000 steps, the ratio of the widest
    spreads was 0.065, 0.031, 0.030, 0.031 and 0.037.
    """
    vae, _, state = players()
    x = some_images()[0] / 10
    x[::2] += 2
    x[1::2] -= 2
    spread = {}
    for kl in ("balanced", "reference"):
        after = state
        for seed in range(200):
            after, _ = stepper(kl, beta=1.0, adversary=0.0)(after, x, some_images(seed)[1])
        codes, _ = vae.encode({"params": after.vae.params, "batch_stats": {}}, x)
        spread[kl] = np.std(codes, axis=0).max()
    assert spread["balanced"] > 1, "as wide as the prior, and more"
    assert spread["reference"] < spread["balanced"] / 10
