"""Steps of the semi-supervised trainers against a slow restatement and PyTorch, and the pieces they are made of."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import perceptron
import pytest
import scipy.stats
from reference import semisupervised as slow

from jaxdal import InputError, engine, losses, trainers
from jaxdal.keys import keys_for
from jaxdal.models.layers import BatchNorm
from jaxdal.randaugment import randaugment
from jaxdal.trainers import protocol
from jaxdal.trainers.mixmatch import interleaving
from jaxdal.types import Batch, Moment, Network, Recipe, Trainer, TrainState

SIZE, STEP, PER_EPOCH = 5, 3, 4
RECIPE = Recipe(epochs=10, batch=SIZE, learning_rate=0.05, milestones=(), clamp=1e-3)
KEY = jax.random.key(11)


def test_sharpening():
    probs = jnp.asarray([[0.5, 0.3, 0.2], [1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [1e-30, 1 - 1e-6, 1e-6]], jnp.float32)
    found = np.asarray(losses.sharpen(probs, 0.5))
    np.testing.assert_allclose(found[0], [0.6579, 0.2368, 0.1053], atol=5e-5)
    np.testing.assert_allclose(found[1:3], probs[1:3], rtol=1e-6)
    np.testing.assert_allclose(losses.sharpen(probs, 1.0), probs, rtol=1e-6)
    for temperature in (1e-3, 0.5, 2.0):
        sharp = np.asarray(losses.sharpen(probs, temperature))
        np.testing.assert_allclose(sharp.sum(axis=1), 1, rtol=1e-6)
        assert (sharp.argmax(axis=1) == np.asarray(probs).argmax(axis=1)).all()


@pytest.mark.parametrize("alpha", [0.25, 0.75, 3.0])
def test_shares_are_the_larger_ones_of_a_beta_distribution(alpha):
    shares = np.asarray(losses.mixing_shares(jax.random.key(3), alpha, 20_000), np.float64)
    assert (shares >= 0.5).all()
    assert (shares <= 1).all()
    own, edge = scipy.stats.beta(alpha, alpha), 0.999  # beyond it float32 has few numbers, and a small alpha much mass
    below = own.cdf(edge) - own.cdf(1 - edge)
    assert scipy.stats.kstest(shares[shares < edge], lambda s: (own.cdf(s) - own.cdf(1 - s)) / below).pvalue > 1e-3
    assert scipy.stats.binomtest(int((shares < edge).sum()), len(shares), below).pvalue > 1e-3


def test_nothing_is_mixed_without_a_beta_distribution():
    assert losses.mixing_shares(jax.random.key(0), 0, 3).tolist() == [1, 1, 1]


def test_squared_difference_is_a_mean_over_images_and_classes():
    logits, targets = jnp.zeros((2, 4)), jnp.eye(2, 4)
    assert float(losses.squared_difference(logits, targets)) == pytest.approx((0.75**2 + 3 * 0.25**2) / 4)


@pytest.mark.parametrize("size", [3, 4, 5, 256])
def test_interleaving_is_the_published_one_and_its_own_inverse(size):
    order = interleaving(size)
    parts = [np.arange(part * size, (part + 1) * size) for part in range(3)]
    np.testing.assert_array_equal(order, np.concatenate(slow.interleave(parts)))
    np.testing.assert_array_equal(order[order], np.arange(3 * size))
    labelled = (order.reshape(3, size) < size).sum(axis=1).tolist()
    assert labelled == {3: [1, 1, 1], 4: [1, 1, 2], 5: [1, 2, 2], 256: [85, 85, 86]}[size]


def test_chunks_of_a_batch_are_normalised_as_if_passed_one_after_another():
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (12, 3, 3, 4))
    norm = BatchNorm()
    variables = norm.init(jax.random.key(1), x, False)
    passed = jax.jit(functools.partial(norm.apply, train=True, mutable=["batch_stats"]), static_argnames="chunks")
    at_once, after = passed(variables, x, chunks=3)
    parts = []
    for part in jnp.split(x, 3):
        y, updated = passed(variables, part)
        parts.append(y)
        variables = {**variables, **updated}
    # The statistics of all parts are taken around the same running mean: hence rounding, of some ulp.
    np.testing.assert_allclose(at_once, jnp.concatenate(parts), rtol=1e-5, atol=2e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), after["batch_stats"], variables["batch_stats"]
    )


def moment(step: float, per_epoch: float, epochs: float) -> Moment:
    values = step, step / per_epoch, step / (per_epoch * epochs), 0.1
    return Moment(*(jnp.float32(value) for value in values))


@pytest.mark.parametrize(
    ("preset", "where", "weight"),
    [
        ("paper", (0, 195, 150), 0),
        ("paper", (195 * 50, 195, 150), 25),
        ("paper", (195 * 150 - 1, 195, 150), 75),  # the published ramp is longer than the round
        ("paper", (195 * 300, 195, 400), 100),
        ("clean", (0, 195, 150), 0),
        ("clean", (8192, 195, 150), 75 * 8192 / 14625),  # half of 29,250 steps comes before 16,384
        ("clean", (8192, 1000, 1000), 75 / 2),
        ("clean", (16384, 1000, 1000), 75),
        ("clean", (999_999, 1000, 1000), 75),
    ],
)
def test_the_weight_grows(preset, where, weight):
    found = protocol.PROTOCOLS[preset].weight(10, moment(*where))
    assert float(found) == pytest.approx(weight, rel=1e-4)


def test_many_classes_and_options_change_the_weight():
    late = moment(10_000, 10, 1000)
    assert float(protocol.PROTOCOLS["clean"].weight(100, late)) == 150
    assert float(protocol.PROTOCOLS["clean"].weight(99, late)) == 75
    own = protocol.PROTOCOLS["paper"].adjusted(weight=8.0, ramp_epochs=2)
    assert [float(own.weight(k, moment(1, 1, 10))) for k in (10, 200)] == [4, 4]
    assert float(own.adjusted(None, 0).weight(10, moment(0, 1, 10))) == 8


def test_recipes_of_the_presets():
    supervised = Recipe(epochs=1, batch=1, learning_rate=0.1, milestones=(0.5,), clamp=0.1)
    for name in ("mixmatch", "consistency"):
        assert trainers.build(name, "paper").recipe(supervised) == supervised._replace(clamp=None)
        clean = trainers.build(name, "clean").recipe(supervised)
        assert clean == supervised._replace(clamp=None, learning_rate=pytest.approx(0.03), decay_kernels_only=True)
        assert trainers.build(name).epoch(10, 60) == 60
    assert trainers.build("fixmatch").recipe(supervised) == clean, "the authors', whatever the preset"
    assert trainers.build("fixmatch").epoch(10, 70) == 10
    assert trainers.build("fixmatch").epoch(5, 70) == 10


@pytest.mark.parametrize(
    "text",
    [
        "mixmatch(weight=-1)", "mixmatch(temperature=0)", "mixmatch(alpha=-0.1)", "mixmatch(average=1)",
        "mixmatch(ramp_epochs=-1)", "consistency(weight=-1)", "fixmatch(threshold=2)", "fixmatch(unlabelled=0)",
        "fixmatch(unlabelled=1.5)", "fixmatch(weight=-1)", "mixmatch(speed=3)", "mixmatch(weight='a')",
        "mixmatch(preset='x')", "mixmatch(preset=[])", "consistency(preset='x')", "consistency(preset=[])",
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(text):
    with pytest.raises(InputError):
        trainers.build(text)


def test_no_weight_is_infinite():
    for make in (trainers.mixmatch, trainers.consistency, trainers.fixmatch):
        with pytest.raises(InputError, match="weight=inf"):
            make(weight=float("inf"))


def start(network: Network, trainer: Trainer) -> TrainState:
    def init(seed):
        return engine.init(
            network,
            trainer,
            trainer.recipe(RECIPE),
            (perceptron.SIDE, perceptron.SIDE, 1),
            keys_for(seed, jnp.int32(0)),
        )

    return jax.jit(init)(jnp.uint32(0))


@functools.cache
def step_of(network: Network, trainer: Trainer):
    return jax.jit(functools.partial(engine.train_step, network, trainer, trainer.recipe(RECIPE)))


def take_step(network: Network, trainer: Trainer, state: TrainState, batch: Batch, step: int = STEP) -> TrainState:
    return step_of(network, trainer)(state, batch, KEY, jnp.int32(step), jnp.int32(PER_EPOCH), jnp.float32(0.1))


def test_the_average_forgets_where_it_began():
    """Constant weights w, an average that began at a: after t steps it is w - 0.999^t (w - a)."""
    network, trainer = perceptron.network(), trainers.build("mixmatch(weight=0)")
    trainer = trainer._replace(recipe=lambda recipe: recipe._replace(learning_rate=0.0))
    state = start(network, trainer)
    began = jax.tree.map(lambda leaf: leaf + 1, state.average["params"])
    state = state._replace(average={**state.average, "params": began})
    for step in range(3):
        state = take_step(network, trainer, state, perceptron.batch(SIZE, SIZE), step)
    expected = jax.tree.map(lambda w, a: w - 0.999**3 * (w - a), state.variables["params"], began)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.average["params"], expected)
    assert engine.answering(state)["params"] is state.average["params"]
    assert engine.answering(state)["batch_stats"] is state.average["batch_stats"]


@pytest.mark.parametrize(
    ("text", "passes"), [("supervised", 1), ("mixmatch", 2), ("consistency", 2), ("fixmatch(unlabelled=2)", 1)]
)
def test_every_pass_drops_out_by_a_key_of_its_own(text, passes):
    """Guesses too, and not what the mixed images drop. Running statistics follow what is learnt from, and no guess."""
    network, trainer, used = perceptron.network(), trainers.build(text), []

    def note(key):
        used.append(tuple(jax.random.key_data(key).tolist()))

    def apply(variables, x, *, train=False, dropout_key=None, chunks=1):
        assert dropout_key is not None
        note(dropout_key)
        logits, taps = perceptron.network().apply(variables, x, train=train, chunks=chunks)
        return logits, {**taps, "batch_stats": {"mean": 0.0, "chunks": variables["batch_stats"]["chunks"] + chunks}}

    def noted(view):
        return lambda key, x: note(key) or view(key, x)

    network = network._replace(apply=apply, augment=noted(network.augment), weak=noted(network.weak))
    variables = perceptron.network().init(jax.random.key(0)) | {"batch_stats": {"mean": 0.0, "chunks": 0}}
    batch = perceptron.batch(SIZE, SIZE * trainer.unlabelled)
    (phase,) = trainer.phases
    for key in (KEY, jax.random.key(12)):
        _, stats = phase.loss(network, variables, batch, key, moment(STEP, PER_EPOCH, 10))
        assert stats["chunks"] == {"mixmatch": 3, "consistency": 2}.get(text, 1)
    views = {"supervised": 1, "mixmatch": 2, "consistency": 2}.get(text, 3)
    assert len(used) == 2 * (passes + views)
    assert len(set(used)) == len(used), "of dropout or of augmentation, in one step or in two"


def test_what_is_not_said():
    """Numbers as the papers have them; of the weight and the ramp of the squared difference, the presets have them."""
    numbers = {
        "mixmatch": {"weight": None, "temperature": 0.5, "alpha": 0.75, "average": 0.999, "ramp_epochs": None},
        "consistency": {"weight": None, "ramp_epochs": None},
        "fixmatch": {"threshold": 0.95, "unlabelled": 7, "weight": 1, "average": 0.999},
    }
    for name, expected in numbers.items():
        options = inspect.signature(trainers.TRAINERS[name]).parameters
        presets = {} if name == "fixmatch" else {"preset": "paper"}
        assert {option: options[option].default for option in options} == expected | presets, name
    assert {trainers.build(f"{name}(average=0.9)").average for name in ("mixmatch", "fixmatch")} == {0.9}
    built = {name: trainers.build(name) for name in numbers}
    assert {name: (one.unlabelled, one.average) for name, one in built.items()} == {
        "mixmatch": (1, 0.999), "consistency": (1, None), "fixmatch": (7, 0.999),
    }  # fmt: skip


@pytest.mark.parametrize("text", ["mixmatch(weight=0, alpha=0)", "consistency(weight=0)", "fixmatch(weight=0)"])
def test_without_its_second_term_a_step_is_the_supervised_one(text):
    """On a network without BatchNorm and dropout, which see the other images."""

    def apply(variables, x, *, train=False, dropout_key=None, chunks=1):
        params = variables["params"]
        return jnp.tanh(x.reshape(x.shape[0], -1) @ params["hidden"]) @ params["kernel"], variables

    plain = perceptron.network()._replace(apply=apply)
    other = trainers.build(text)._replace(recipe=lambda recipe: recipe)
    batch = perceptron.batch(SIZE, SIZE * other.unlabelled)
    states = [start(plain, trainer) for trainer in (trainers.build("supervised"), other)]
    expected = take_step(
        plain, trainers.build("supervised"), states[0], batch._replace(unlabelled=batch.unlabelled[:0])
    )
    found = take_step(plain, other, states[1], batch)
    assert float(found.loss) == pytest.approx(float(expected.loss), rel=1e-6)
    assert float(expected.loss) > 0.1
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6),
        found.variables["params"], expected.variables["params"],
    )  # fmt: skip


def wide(tree):
    """To float64."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def one_hot(labels) -> np.ndarray:
    return np.eye(perceptron.CLASSES)[np.asarray(labels)]


def step_keys(count: int) -> list[jax.Array]:
    """The key of the labelled images' augmentation, and those of the rest of a step."""
    first, more = jax.random.split(jax.random.fold_in(KEY, STEP))
    return [first, *jax.random.split(more, count)]


@functools.partial(jax.jit, static_argnums=0)
def mixmatch_draws(network: Network, batch: Batch):
    first, views, _, share, partner, _ = step_keys(5)
    u = network.augment(views, jnp.concatenate([batch.unlabelled] * 2))
    shares, order = losses.mixing_shares(share, 0.75, 3 * SIZE), jax.random.permutation(partner, 3 * SIZE)
    return network.augment(first, batch.x), u[:SIZE], u[SIZE:], shares, order


def mixmatch_case(network: Network, batch: Batch, params: slow.Params, weight: float, temperature: float = 0.5):
    x, first, second, shares, order = wide(mixmatch_draws(network, batch))
    assert (first != second).any(), "two views that differ"
    guessed = slow.guess(params, first, second, temperature)
    fixed = x, one_hot(batch.y), first, second, guessed, shares, order.astype(int), weight
    return lambda params: slow.mixmatch(params, *fixed)


@functools.partial(jax.jit, static_argnums=0)
def consistency_draws(network: Network, batch: Batch):
    first, view, _, _ = step_keys(3)
    clean = network.normalise(batch.unlabelled)
    return network.augment(first, batch.x), network.augment(view, batch.unlabelled), clean


def consistency_case(network: Network, batch: Batch, params: slow.Params, weight: float):
    x, view, clean = wide(consistency_draws(network, batch))
    target = slow.softmax(slow.logits_of(params, clean))
    return lambda params: slow.consistency(params, x, one_hot(batch.y), view, target, weight)


@functools.partial(jax.jit, static_argnums=0)
def fixmatch_draws(network: Network, batch: Batch):
    first, weak, crop, strong, _ = step_keys(4)
    cropped = network.weak(crop, batch.unlabelled)
    distorted = jax.vmap(randaugment)(jax.random.split(strong, len(cropped)), cropped)
    return network.augment(first, batch.x), network.augment(weak, batch.unlabelled), network.normalise(distorted)


def fixmatch_case(network: Network, batch: Batch, params: slow.Params, weight: float):
    x, weak, strong = wide(fixmatch_draws(network, batch))
    guessed = slow.softmax(slow.logits_of(params, np.concatenate([x, weak, strong])))[SIZE : SIZE + len(weak)]
    assert 0.2 < (guessed.max(axis=1) >= THRESHOLD).mean() < 0.8, "some are sure and some are not"
    return lambda params: slow.fixmatch(params, x, one_hot(batch.y), weak, strong, guessed, THRESHOLD, weight)


THRESHOLD = 0.9
PAPER = 100 * STEP / PER_EPOCH / 200
CLEAN = 75 * 2 * STEP / (PER_EPOCH * RECIPE.epochs)


@pytest.mark.parametrize(
    ("text", "preset", "weight", "case"),
    [
        ("mixmatch", "paper", PAPER, mixmatch_case),
        ("mixmatch(temperature=0.8)", "clean", CLEAN, functools.partial(mixmatch_case, temperature=0.8)),
        ("consistency", "paper", PAPER, consistency_case),
        ("consistency", "clean", CLEAN, consistency_case),
        (f"fixmatch(threshold={THRESHOLD}, unlabelled=2, weight=2)", "paper", 2.0, fixmatch_case),
    ],
)
def test_a_step_is_that_of_the_slow_restatement(text, preset, weight, case):
    network, trainer = perceptron.network(), trainers.build(text, preset)
    recipe, state = trainer.recipe(RECIPE), start(network, trainer)
    batch = perceptron.batch(SIZE, SIZE * trainer.unlabelled)
    params = wide(state.variables["params"])
    after = take_step(network, trainer, state, batch)

    loss = case(network, batch, params, weight)
    assert float(after.loss) == pytest.approx(loss(params), rel=1e-4)
    gradients = slow.gradient(loss, params)
    for name, leaf in params.items():
        decay = recipe.weight_decay * (leaf.ndim > 1 or not recipe.decay_kernels_only)
        expected = leaf - recipe.learning_rate * (gradients[name] + decay * leaf)
        assert np.abs(expected - leaf).max() > 1e-3, "a step that would be seen"
        np.testing.assert_allclose(after.variables["params"][name], expected, rtol=1e-4, atol=1e-5)
