"""A step of WAAL against its formulas and PyTorch, and what the critic learns with either sign of the penalty."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import waal as reference

from jaxdal import engine, trainers
from jaxdal.keys import keys_for
from jaxdal.losses import cross_entropy
from jaxdal.trainers.waal import draws, gradient_penalty, judge
from jaxdal.types import Batch, Moment, Network, Recipe

SIZE, PIXELS, WIDTH, CLASSES = 6, 4, 3, 5
RECIPE = Recipe(epochs=2, batch=SIZE, learning_rate=0.1, milestones=(), momentum=0.9, weight_decay=0.01)


def linear_network(scale: float = 64.0) -> Network:
    """Linear features, a linear head, and statistics that count the passes that were let move them."""

    def init(key):
        rng = np.random.default_rng(5)
        shapes = {"W": (PIXELS, WIDTH), "w": (WIDTH,), "V": (WIDTH, CLASSES), "v": (CLASSES,)}
        params = {name: jnp.asarray(rng.standard_normal(shape), jnp.float32) for name, shape in shapes.items()}
        return {"params": params, "batch_stats": {"passes": jnp.float32(0)}}

    def apply(variables, x, *, train=False, dropout_key=None, chunks=1):
        if train:
            assert chunks == 2, "labelled and unlabelled images are normalised separately"
        params, passes = variables["params"], variables["batch_stats"]["passes"] + float(train)
        z = x.reshape(x.shape[0], -1) @ params["W"] + params["w"]
        return z @ params["V"] + params["v"], {"features": z, "batch_stats": {"passes": passes}}

    def pixels(x):
        return x.astype(jnp.float32) / scale

    return Network(init, apply, lambda key, x: pixels(x), pixels)


NETWORK = linear_network()


def some_batch(seed: int = 0, apart: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    x, others = rng.integers(0, 100, (2, SIZE, 2, 2, 1)) + np.array([0, apart]).reshape(2, 1, 1, 1, 1)
    y = rng.integers(0, CLASSES, SIZE)
    return Batch(jnp.asarray(x, jnp.uint8), jnp.asarray(y, jnp.int32), jnp.asarray(others, jnp.uint8))


def flat(helpers) -> dict[str, np.ndarray]:
    """The critic's weights by the names of the reference."""
    first, second = ({k: np.asarray(v, np.float64) for k, v in helpers[f"Linear_{n}"].items()} for n in (0, 1))
    return {"A": first["kernel"], "a": first["bias"], "B": second["kernel"], "b": second["bias"]}


@functools.cache
def program(text: str, first_phase: int = 0):
    """A step of training, or its second phase alone, as one program."""
    trainer = trainers.build(text)
    trainer = trainer._replace(phases=trainer.phases[first_phase:])
    return jax.jit(
        lambda state, batch, key, step, labelled: engine.train_step(
            NETWORK, trainer, RECIPE, state, batch, key, step, jnp.int32(4), labelled
        )
    )


@functools.cache
def start():
    return engine.init(NETWORK, trainers.build("waal"), RECIPE, (2, 2, 1), keys_for(0, 0))


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        ("waal(alpha=0.3)", 5),
        ("waal(alpha=0.3, penalty_weight=9)", 9),
        ("waal(alpha=0.3, penalty='as_published')", -2),
    ],
)
@pytest.mark.parametrize(("labelled", "gamma"), [(0.2, 0.25), (0.75, 3.0), (1.0, 1.0)])
def test_a_step_is_that_of_the_formulas(text, weight, labelled, gamma):
    state, batch, key = start(), some_batch(), keys_for(0, 0).step
    after = program(text)(state, batch, key, jnp.int32(1), jnp.float32(labelled))
    drawn = draws(jax.random.fold_in(key, 1), SIZE)
    x = np.concatenate([batch.x, batch.unlabelled]).reshape(2 * SIZE, -1) / 64
    net = {name: np.asarray(leaf, np.float64) for name, leaf in state.variables["params"].items()}
    loss, net, judging = reference.step(
        net, flat(state.variables["helpers"]), x, np.asarray(batch.y),
        judged=[np.asarray(mask) for mask in drawn.judged], penalised=np.asarray(drawn.penalised),
        share=np.asarray(drawn.share, np.float64), gamma=gamma, alpha=0.3, weight=weight,
        rate=0.1, decay=0.01,
    )  # fmt: skip
    np.testing.assert_allclose(after.loss, loss, rtol=1e-4)
    for name, leaf in net.items():
        np.testing.assert_allclose(after.variables["params"][name], leaf, rtol=1e-5, atol=2e-6, err_msg=name)
    for name, leaf in flat(after.variables["helpers"]).items():
        np.testing.assert_allclose(leaf, judging[name], rtol=1e-5, atol=2e-6, err_msg=name)
        assert np.abs(leaf - flat(state.variables["helpers"])[name]).max() > 2e-4, "it moved"
    assert after.variables["batch_stats"]["passes"] == 1, "the critic's step leaves the statistics alone"


def test_two_steps_are_those_of_pytorch():
    """Both optimisers with their momentum, and the second derivatives of the penalty, by autograd."""
    torch = pytest.importorskip("torch")
    state, key = start(), keys_for(0, 0).step

    def leaves(part) -> dict:
        return {name: torch.tensor(np.asarray(leaf, np.float32), requires_grad=True) for name, leaf in part.items()}

    net, judging = leaves(state.variables["params"]), leaves(flat(state.variables["helpers"]))
    rules = [torch.optim.SGD(part.values(), lr=0.1, momentum=0.9, weight_decay=0.01) for part in (net, judging)]

    def judged(z, kept):
        hidden = torch.relu(z @ judging["A"] + judging["a"]) * torch.tensor(np.asarray(kept))
        return torch.sigmoid(hidden @ judging["B"] + judging["b"])[:, 0]

    def apart(z, kept):
        g = judged(z, kept)
        return g[SIZE:].mean() - 0.25 * g[:SIZE].mean()

    def minimise(loss, rule):
        rule.zero_grad()
        loss.backward()
        rule.step()

    for step in range(2):
        batch, drawn = some_batch(step), draws(jax.random.fold_in(key, step), SIZE)
        x = torch.tensor(np.concatenate([batch.x, batch.unlabelled]).reshape(2 * SIZE, -1).astype(np.float32) / 64)
        z = x @ net["W"] + net["w"]
        logits, y = z[:SIZE] @ net["V"] + net["v"], torch.tensor(np.asarray(batch.y, np.int64))
        first = torch.nn.functional.cross_entropy(logits, y) + 0.3 * apart(z, drawn.judged[0])
        minimise(first, rules[0])
        z = (x @ net["W"] + net["w"]).detach()
        between = z[SIZE:] + torch.tensor(np.asarray(drawn.share)) * (z[:SIZE] - z[SIZE:])
        points = torch.cat([between, z]).requires_grad_()
        (gradient,) = torch.autograd.grad(judged(points, drawn.penalised).sum(), points, create_graph=True)
        penalty = ((gradient.norm(2, dim=1) - 1) ** 2).mean()
        second = 0.3 * (5 * penalty - apart(z, drawn.judged[1]))
        minimise(second, rules[1])
        state = program("waal(alpha=0.3)")(state, batch, key, jnp.int32(step), jnp.float32(0.2))
        np.testing.assert_allclose(state.loss, (first + second).detach().numpy(), rtol=1e-4)
    found = {**state.variables["params"], **flat(state.variables["helpers"])}
    for name, leaf in {**net, **judging}.items():
        np.testing.assert_allclose(found[name], leaf.detach().numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


def test_derivatives_of_the_reference_are_those_of_differences():
    rng = np.random.default_rng(1)
    judging = flat(start().variables["helpers"])
    z, kept = rng.standard_normal((4, WIDTH)), 2.0 * (rng.random((4, 50)) < 0.5)
    _, found = reference.of_penalty(judging, z, kept)
    for name, leaf in judging.items():
        for place in list(np.ndindex(leaf.shape))[:: max(1, leaf.size // 9)]:
            ends = []
            for sign in (1, -1):
                moved = {**judging, name: leaf.copy()}
                moved[name][place] += sign * 1e-6
                ends.append(np.mean((reference.slopes(moved, z, kept) - 1) ** 2))
            assert found[name][place] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4, abs=1e-8), name


def test_draws_are_half_masks_for_each_example_and_phase():
    drawn = draws(jax.random.key(0), 40)
    masks = np.concatenate([*drawn.judged, drawn.penalised])
    assert masks.shape == (280, 50)
    assert set(np.unique(masks)) == {0, 2}
    assert 0.95 < masks.mean() < 1.05
    assert len(np.unique(masks, axis=0)) == 280
    assert drawn.share.shape == (40, 1)
    assert 0.35 < drawn.share.mean() < 0.65
    keys = [drawn.augment, *drawn.dropout, drawn.augment]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 3
    supervised, _ = jax.random.split(jax.random.key(0))
    np.testing.assert_array_equal(jax.random.key_data(drawn.augment), jax.random.key_data(supervised))


def test_both_phases_see_the_same_augmented_images_with_dropouts_of_their_own():
    used = []

    def apply(variables, x, *, train, dropout_key, chunks):
        used.append(dropout_key)
        return NETWORK.apply(variables, x, train=train, chunks=chunks)

    def augment(key, x):
        used.append(key)
        assert len(x) == 2 * SIZE
        return NETWORK.augment(key, x)

    network, key = NETWORK._replace(apply=apply, augment=augment, normalise=None), jax.random.key(3)
    for phase in trainers.build("waal").phases:
        phase.loss(network, start().variables, some_batch(), key, Moment(*jnp.zeros(len(Moment._fields))))
    drawn = draws(key, SIZE)
    expected = [drawn.augment, drawn.dropout[0], drawn.augment, drawn.dropout[1]]
    np.testing.assert_array_equal(*(jax.random.key_data(jnp.stack(keys)) for keys in (used, expected)))


def test_the_penalty_has_no_say_in_the_network_s_step():
    """As published, with it, of detached features and a critic at rest: the gradient is the one without it."""
    first, _ = trainers.build("waal(alpha=0.3)").phases
    variables, batch, key = start().variables, some_batch(), jax.random.key(3)
    moment = Moment(*jnp.zeros(len(Moment._fields)))._replace(labelled=jnp.float32(0.2))

    def published(params):
        drawn = draws(key, SIZE)
        x = NETWORK.augment(drawn.augment, jnp.concatenate([batch.x, batch.unlabelled]))
        logits, taps = NETWORK.apply({**variables, "params": params}, x)
        z = taps["features"]
        g = judge(variables["helpers"], z, drawn.judged[0])
        detached = jnp.concatenate([jax.lax.stop_gradient(z)] * 2)[: 3 * SIZE]
        penalty = gradient_penalty(variables["helpers"], detached, drawn.penalised)
        apart = jnp.mean(g[SIZE:]) - 0.25 * jnp.mean(g[:SIZE])
        return cross_entropy(logits[:SIZE], batch.y) + 0.3 * (apart + 5 * penalty)

    def ours(params):
        return first.loss(NETWORK, {**variables, "params": params}, batch, key, moment)[0]

    (theirs, gradient), (own, same) = (jax.jit(jax.value_and_grad(f))(variables["params"]) for f in (published, ours))
    assert theirs > own + 0.1, "the penalty is there"
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), gradient, same)


def test_no_path_through_the_critic_is_no_division_by_zero():
    helpers = start().variables["helpers"]
    z, kept = jnp.ones((4, WIDTH)), jnp.zeros((4, 50))
    penalty, gradient = jax.jit(jax.value_and_grad(gradient_penalty))(helpers, z, kept)
    assert penalty == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@functools.cache
def critic_alone(penalty: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """The critic's step alone, 300 times: -> (E_U g - E_L g, mean |grad g|), before and after.

    After: the mean over every fifth step from 100 on. One step says little: dropout, and rounding that has had hundreds
    of steps to grow, move the first by 0.06 to 0.11 (standard deviation).
    """
    step = program(f"waal(alpha=0.5, penalty={penalty!r})", first_phase=1)
    state, batch = start(), some_batch(apart=120)
    params = state.variables["params"]
    z = (np.concatenate([batch.x, batch.unlabelled]).reshape(2 * SIZE, -1) / 64) @ params["W"] + params["w"]
    z, seen = np.asarray(z, np.float64), []
    for number in range(301):
        if number == 0 or (number >= 100 and number % 5 == 0):
            judging = flat(state.variables["helpers"])
            g = reference.judge(judging, z)
            seen.append((g[SIZE:].mean() - g[:SIZE].mean(), reference.slopes(judging, z).mean()))
        state = step(state, batch, keys_for(0, 0).step, jnp.int32(number), jnp.float32(0.5))
    assert all(np.array_equal(params[name], state.variables["params"][name]) for name in params)
    gaps, lengths = zip(seen[0], np.mean(seen[1:], axis=0), strict=True)
    return gaps, lengths


def test_a_critic_alone_learns_to_tell_and_its_slope_goes_to_one():
    gaps, lengths = critic_alone("corrected")
    assert gaps[1] > gaps[0] + 0.2, gaps
    assert abs(lengths[1] - 1) < abs(lengths[0] - 1) - 0.25, lengths


def test_the_published_sign_drives_the_slope_away_from_one():
    _, lengths = critic_alone("as_published")
    assert abs(lengths[1] - 1) > abs(lengths[0] - 1), lengths


def test_rounds_start_from_different_weights():
    rounds = [engine.init(NETWORK, trainers.build("waal"), RECIPE, (2, 2, 1), keys_for(0, r)) for r in (0, 1)]
    helpers = [state.variables["helpers"] for state in rounds]
    assert not any(jax.tree.leaves(jax.tree.map(np.array_equal, *helpers)))
    assert helpers[0]["Linear_0"]["kernel"].shape == (WIDTH, 50)
    assert helpers[0]["Linear_1"]["kernel"].shape == (50, 1)
