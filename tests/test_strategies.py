"""One contract for every row of STRATEGIES, and what random, least confidence, margin and entropy must compute."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from reference import scores as reference
from skactiveml.pool import uncertainty_scores

import jaxdal
from jaxdal import signals, strategies, trainers
from jaxdal.keys import keys_for
from jaxdal.strategies import STRATEGIES
from jaxdal.strategies.picking import top_unknown
from jaxdal.strategies.scores import entropy_score, least_confidence_score, margin_score
from jaxdal.types import Network, Pool, Strategy, Trainer

N, CLASSES, WIDTH, K = 40, 5, 6, 7  # pool, classes, features, picks
BUILT = {name: strategies.build(name) for name in STRATEGIES}
ROWS = [pytest.param(strategy, id=name) for name, strategy in BUILT.items()]


def training(strategy: Strategy) -> Trainer:
    """How the strategy has its network trained."""
    return strategy.wrap(trainers.build(strategy.trainer))


# Random looks at nothing: no example is obvious to it. Nor is one to strategies that ask a network trained alongside,
# which is not trained here: their own files plant something (see the last test of the contract).
ASKING = [name for name, strategy in BUILT.items() if training(strategy).helpers]
LOOKING = [row for row in ROWS if row.values[0].needs and row.id not in ASKING]
every_strategy = pytest.mark.parametrize("strategy", ROWS)


class Scene(NamedTuple):
    """A pool, and what a network that never was makes of it."""

    logits: np.ndarray  # f32[N, CLASSES]
    features: np.ndarray  # f32[N, WIDTH]
    known: np.ndarray  # i32[N]
    number: np.ndarray  # u8[N], by which the network knows an example
    shades: np.ndarray  # u8[N, 2], what the images show besides

    @property
    def unknown(self) -> list[int]:
        """What may be bought."""
        return np.flatnonzero(self.known < 0).tolist()


def scene(seed: int = 0, labelled: int = 9) -> Scene:
    """Nothing special: no ties, and some examples known."""
    rng = np.random.default_rng(seed)
    known = np.full(N, -1, np.int32)
    known[rng.permutation(N)[:labelled]] = np.arange(labelled) % CLASSES
    logits, features = 2 * rng.standard_normal((N, CLASSES)), rng.standard_normal((N, WIDTH))
    shades = np.array([40, 160]) + rng.integers(0, 20, (N, 2))
    number = np.arange(N, dtype=np.uint8)
    return Scene(logits.astype(np.float32), features.astype(np.float32), known, number, shades.astype(np.uint8))


def obvious(where: list[int], *, apart: bool = True) -> Scene:
    """Some examples in doubt, far from the rest or in its midst; the rest is alike and beyond doubt."""
    plain = scene()
    logits = (12 * np.eye(CLASSES, dtype=np.float32))[np.arange(N) % CLASSES] + 0.1 * plain.logits
    features = (2 * np.eye(CLASSES, WIDTH, dtype=np.float32))[np.arange(N) % CLASSES] + 0.01 * plain.features
    shades = plain.shades.copy()
    for number, example in enumerate(where):
        logits[example] *= 0.001
        shades[example] = [250, 0]
        if apart:
            features[example] = 40 * (-1) ** number * np.eye(WIDTH)[WIDTH - 1 - number // 2]
    return Scene(logits, features, plain.known, plain.number, shades)


def synthetic_network(scene: Scene) -> Network:
    """Answers from a table; the first channel of an image of one pixel is its number, the others are its shades.

    Every second view is brighter by half. That speaks for the first class: it moves the answer where there is doubt.
    """
    logits, features, place = jnp.asarray(scene.logits), jnp.asarray(scene.features), jnp.argsort(scene.number)

    def apply(variables, x, *, train=False, dropout_key=None):
        assert not train, "signals are computed in evaluation mode"
        assert dropout_key is None, "dropout is active in the head alone"
        pixel = 64 * jax.lax.stop_gradient(x[:, 0, 0, 0])  # no attack gets from one number to another
        number = pixel.astype(jnp.int32)
        view = (pixel - number.astype(jnp.float32))[:, None] * jnp.eye(1, logits.shape[1])
        seen = features[place[number]]
        taps = {"features": seen, "maps": (seen[:, None, None],), "batch_stats": variables["batch_stats"]}
        return logits[place[number]] + view, taps

    def stochastic_head(variables, taps, keys):
        """Each example's own dropout of its features, then a linear layer that is sure of large ones."""
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (WIDTH,)))(keys)
        return jnp.square(taps["features"] / 4 * kept.astype(jnp.float32)) @ jnp.eye(WIDTH, CLASSES, -1)

    def pixels(x):
        return x.astype(jnp.float32) / 64

    def views(x):
        return pixels(x), pixels(x) + 0.5 / 64

    def augment(key, x):
        return jnp.where(jax.random.bernoulli(key, shape=(x.shape[0], 1, 1, 1)), *views(x))

    return Network(lambda key: {"params": {}, "batch_stats": {}}, apply, augment, pixels, stochastic_head, views=views)


def look(strategy: Strategy, scene: Scene, key: jax.Array) -> list[jax.Array]:
    """The signals that a strategy needs, as `signals.Gather` computes them."""
    helpers = training(strategy).helpers
    return [signalled(signal, helpers)(scene, key) for signal in strategy.needs]


@functools.cache
def signalled(signal: signals.Signal, helpers: Callable[..., Any] | None):
    """Compiled once, as there: some signals train a network of their own."""

    def compute(scene: Scene, key: jax.Array) -> jax.Array:
        network = synthetic_network(scene)
        pool = Pool(jnp.concatenate([scene.number[:, None], scene.shades], axis=1).reshape(N, 1, 1, -1))
        variables = network.init(key)
        if helpers is not None:
            _, taps = jax.eval_shape(network.apply, variables, jnp.zeros((1, 1, 1, 3)))
            variables["helpers"] = helpers(key, taps)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(N))
        try:
            aux = () if signal.prepare is None else signal.prepare(key, network, variables, pool, scene.known)
            return signal.per_batch(keys, network, variables, aux, pool.x)
        except Exception as error:
            missing = f"the synthetic network has not what signal {signal.name!r} asks for: teach it ({error!r})"
            raise NotImplementedError(missing) from error

    return jax.jit(compute)


@functools.cache
def compiled(strategy: Strategy):
    return jax.jit(strategy.select, static_argnums=2)


def choose(strategy: Strategy, scene: Scene, k: int = K, seed: int = 0) -> list[int]:
    """The picks of a first round, which must be valid whatever the scene."""
    keys = keys_for(seed, 0)
    found = look(strategy, scene, keys.signals)
    picks, _ = compiled(strategy)(keys.select, scene.known, k, strategy.memory(N), *found)
    assert picks.shape == (k,)
    assert picks.dtype == jnp.int32
    picks = picks.tolist()
    assert set(picks) <= set(scene.unknown), "out of range, or known already"
    assert len(set(picks)) == k, "the same example twice"
    return picks


def deterministic(strategy: Strategy) -> bool:
    """Does the key matter? Asked of the strategy, not of its name."""
    return len({tuple(choose(strategy, scene(), seed=seed)) for seed in range(4)}) == 1


# The contract.


@every_strategy
@pytest.mark.parametrize("seed", range(3))
def test_picks_are_distinct_and_unknown(strategy, seed):
    choose(strategy, scene(seed), seed=seed)


@every_strategy
def test_known_examples_are_not_bought_again_however_tempting(strategy):
    tempting = obvious([3, 11, 29, 30])
    tempting.known[:] = -1
    tempting.known[[3, 11, 29, 30]] = [0, 4, 2, 2]
    choose(strategy, tempting)


@every_strategy
def test_same_key_same_picks(strategy):
    for seed in range(3):
        assert choose(strategy, scene(), seed=seed) == choose(strategy, scene(), seed=seed)


@every_strategy
@pytest.mark.parametrize("labelled", [1, 9, N - 1])
def test_one_pick_and_all_that_is_left(strategy, labelled):
    somewhere, left = scene(labelled=labelled), N - labelled
    choose(strategy, somewhere, k=1)
    everything = min(left, N - 9)  # of the pool with one label it is not everything: another program would cost seconds
    picks = choose(strategy, somewhere, k=everything)
    assert everything < left or sorted(picks) == somewhere.unknown


@pytest.mark.parametrize("strategy", LOOKING)
@pytest.mark.parametrize("place", [[0, 1], [N - 1, 17], [20, N - 2]])
def test_an_obvious_example_is_picked(strategy, place):
    """Far from all others; or among its like, by doubt alone, for a strategy that gives each cluster its share."""

    def is_picked(apart: bool) -> bool:
        planted = obvious(place, apart=apart)
        planted.known[place] = -1
        return set(place) <= set(choose(strategy, planted))

    assert is_picked(apart=True) or is_picked(apart=False)


@every_strategy
def test_the_order_of_the_pool_does_not_matter(strategy):
    if not deterministic(strategy):
        return  # its draws belong to places in the pool
    for seed in range(3):
        order = np.random.default_rng(seed + 50).permutation(N)
        before, after = scene(seed), jax.tree.map(lambda leaf, order=order: leaf[order], scene(seed))
        assert sorted(order[choose(strategy, after)].tolist()) == sorted(choose(strategy, before))


BROKEN = {
    "saturated": lambda s: s._replace(logits=(1e4 * np.eye(CLASSES, dtype=np.float32))[np.arange(N) % CLASSES]),
    "huge": lambda s: s._replace(logits=s.logits * np.float32(1e37), features=s.features * np.float32(1e18)),
    "equal": lambda s: s._replace(logits=s.logits * 0 + 1, features=s.features * 0 + 1),
    "zero": lambda s: s._replace(logits=s.logits * 0, features=s.features * 0),
    "some NaN": lambda s: jax.tree.map(with_nan, s),
    "all NaN": lambda s: s._replace(logits=s.logits * np.nan, features=s.features * np.nan),
    "infinite": lambda s: s._replace(logits=s.logits * np.float32(np.inf), features=s.features * np.float32(np.inf)),
}


def with_nan(leaf: np.ndarray) -> np.ndarray:
    bad = (np.arange(N) % 3 == 0) & (leaf.dtype.kind == "f")
    return np.where(bad.reshape(-1, *[1] * (leaf.ndim - 1)), np.nan, leaf).astype(leaf.dtype)


@every_strategy
@pytest.mark.parametrize("kind", BROKEN)
def test_picks_are_valid_whatever_the_network_says(strategy, kind):
    broken = BROKEN[kind](scene())
    for k in (1, K, len(broken.unknown)):
        choose(strategy, broken, k)


@every_strategy
@pytest.mark.parametrize("kind", ["equal", "zero", "all NaN"])
def test_ties_go_by_index(strategy, kind):
    """Where all examples look alike to the strategy: images differ, and some look at them."""
    broken = BROKEN[kind](scene())
    found = look(strategy, broken, keys_for(0, 0).signals)
    alike = all(np.array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape), equal_nan=True) for leaf in found)
    if alike and deterministic(strategy):
        assert choose(strategy, broken) == broken.unknown[:K]


@every_strategy
def test_runs_at_once_pick_what_each_picks_alone(strategy):
    scenes, keys = [scene(seed) for seed in range(3)], [keys_for(seed, 0) for seed in range(3)]
    found = [look(strategy, one, of_run.signals) for one, of_run in zip(scenes, keys, strict=True)]

    def select(key, known, *found):
        return strategy.select(key, known, K, strategy.memory(N), *found)[0]

    lanes = jax.tree.map(lambda *leaves: jnp.stack(leaves), *found) if strategy.needs else []
    known = np.stack([one.known for one in scenes])
    together = jax.jit(jax.vmap(select))(jnp.stack([of_run.select for of_run in keys]), known, *lanes)
    assert together.tolist() == [choose(strategy, one, seed=seed) for seed, one in enumerate(scenes)]


@every_strategy
def test_later_rounds_compile_nothing(strategy):
    traces = []

    def select(key, known, memory, *found):
        traces.append(known.shape)
        return strategy.select(key, known, K, memory, *found)

    now, memory, program = scene(), jax.tree.map(np.asarray, strategy.memory(N)), jax.jit(select)
    for round_ in range(3):
        keys = keys_for(0, round_)
        picks, memory = program(keys.select, now.known, memory, *look(strategy, now, keys.signals))
        memory = jax.tree.map(np.asarray, memory)
        now.known[np.asarray(picks)] = round_
        now = now._replace(logits=now.logits[:, ::-1] + 1)
    assert len(traces) == 1
    assert (now.known >= 0).sum() == 9 + 3 * K


def side_by_side(names: list[str]) -> Strategy:
    """Buys what the first of these buys, and remembers what each would have bought."""
    members = [BUILT[name] for name in names]
    needs = tuple({signal.name: signal for member in members for signal in member.needs}.values())

    def select(key, known, k, memory, *found):
        values = {signal.name: value for signal, value in zip(needs, found, strict=True)}
        picks = []
        for member in members:
            own = [values[signal.name] for signal in member.needs]
            picks.append(member.select(key, known, k, member.memory(known.shape[0]), *own)[0])
        return picks[0], jnp.stack(picks)

    memory = np.zeros((len(names), K), np.int32)
    return Strategy(needs, select, lambda size: memory, members[0].wrap, members[0].trainer)


def first_round(dataset: jaxdal.Dataset, names: list[str], folder: Path) -> tuple[dict, dict[str, list[int]]]:
    """A whole first round (start set, training, signals, picks): -> (its journal line, the picks of each strategy)."""
    result = jaxdal.run(
        dataset, side_by_side(names), workdir=folder, quiet=True, devices=jax.devices()[:1],
        model="lenet", n_start=12, n_query=K, n_end=12 + K, epochs=2, batch=4,
    )  # fmt: skip
    with np.load(folder / "memory_0.npz") as memory:  # of the only seed
        (picks,) = memory.values()
    return result.groups[0][0], dict(zip(names, picks.tolist(), strict=True))


TRAINED_ALIKE = [
    [name for name, strategy in BUILT.items() if (strategy.trainer, strategy.wrap) == way]
    for way in dict.fromkeys((strategy.trainer, strategy.wrap) for strategy in BUILT.values())
]


@pytest.mark.parametrize("names", TRAINED_ALIKE, ids="-".join)
def test_hidden_labels_are_hidden(names, blobs, tmp_path):
    before, picks_before = first_round(blobs, names, tmp_path / "before")
    hidden = np.setdiff1d(np.arange(len(blobs.train_y)), before["initial"])
    labels = blobs.train_y.copy()
    labels[hidden] = (labels[hidden] + 1 + hidden % 3) % 4
    after, picks_after = first_round(blobs._replace(train_y=labels), names, tmp_path / "after")
    assert picks_after == picks_before
    for what in ("initial", "picks", "accuracy", "class_counts"):
        assert after[what] == before[what], what


@pytest.mark.parametrize("name", ASKING)
def test_what_a_network_trained_alongside_must_find_is_planted_elsewhere(name):
    own = Path(__file__).with_name(f"test_{name}.py").read_text()
    assert "\ndef test_planted" in own, "a test that random selection fails"


# The contract refuses what is wrong.


def wrong(score, needs=(signals.probs,)) -> Strategy:
    """A strategy that takes the best of a score without asking what is known."""

    def select(key, known, k, memory, *found):
        return jax.lax.top_k(score(key, known, *found), k)[1].astype(jnp.int32), memory

    return Strategy(needs, select)


def confidence(key, known, probs):
    return jnp.where(known < 0, jnp.max(probs, axis=-1), -1)


@pytest.mark.parametrize(
    ("refused_by", "strategy"),
    [
        pytest.param(
            functools.partial(test_picks_are_distinct_and_unknown, seed=0),
            wrong(lambda key, known, probs: margin_score(probs)),
            id="buys what is known",
        ),
        pytest.param(
            functools.partial(test_picks_are_distinct_and_unknown, seed=0),
            Strategy((), lambda key, known, k, memory: (jnp.full(k, jnp.argmin(known), jnp.int32), memory)),
            id="buys the same twice",
        ),
        pytest.param(
            functools.partial(test_an_obvious_example_is_picked, place=[0, 1]), wrong(confidence), id="upside down"
        ),
        pytest.param(
            functools.partial(test_an_obvious_example_is_picked, place=[N - 1, 17]),
            strategies.build("random"),
            id="blind",
        ),
        pytest.param(
            test_the_order_of_the_pool_does_not_matter,
            wrong(lambda key, known: jnp.where(known < 0, 1.0, 0.0), needs=()),
            id="first in the file",
        ),
        pytest.param(
            functools.partial(test_picks_are_valid_whatever_the_network_says, kind="some NaN"),
            wrong(lambda key, known, probs: jnp.where(known < 0, 2.0, 1.0) - jnp.max(probs, axis=-1)),
            id="fooled by NaN",
        ),
        pytest.param(
            test_later_rounds_compile_nothing,
            strategies.build("margin")._replace(
                memory=lambda size: np.int32(0),
                select=lambda key, known, k, memory, probs: (
                    top_unknown(margin_score(probs), known, k),
                    memory.astype(jnp.float32),
                ),
            ),
            id="memory of another type",
        ),
    ],
)
def test_the_contract_refuses(refused_by, strategy):
    with pytest.raises(AssertionError):
        refused_by(strategy=strategy)


def test_signals_are_what_the_network_says():
    needs = (signals.probs, signals.logits, signals.features)
    probs, logits, features = look(Strategy(needs, lambda *_: None), scene(), jax.random.key(0))
    np.testing.assert_allclose(probs, reference.softmax(scene().logits), rtol=1e-5)
    np.testing.assert_array_equal(logits, scene().logits)
    np.testing.assert_array_equal(features, scene().features)


def test_a_signal_that_cannot_be_made_here_says_so():
    asks = signals.Signal("gradients", lambda keys, network, variables, aux, x: variables["params"]["kernel"])
    with pytest.raises(NotImplementedError, match="has not what signal 'gradients' asks for: teach it"):
        choose(Strategy((asks,), lambda *_: None), scene())


# Scores and picks of the first four, against slow references and against scikit-activeml.

TRIO = {
    "least_confidence": (least_confidence_score, reference.least_confidence, +1, "least_confident", 0),
    "margin": (margin_score, reference.margin, -1, "margin_sampling", 1),
    "entropy": (entropy_score, reference.entropy, +1, "entropy", 0),
}


def softmax_pool(seed: int, classes: int = 10, size: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """From undecided to quite sure: -> (logits, probs), both f32."""
    rng = np.random.default_rng(seed)
    logits = (rng.standard_normal((size, classes)) * rng.uniform(0.1, 4, (size, 1))).astype(np.float32)
    return logits, np.asarray(jax.nn.softmax(logits))


@pytest.mark.parametrize("name", TRIO)
@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_scores_are_those_of_the_papers(name, classes):
    score, slow, sign, their_name, their_offset = TRIO[name]
    logits, probs = softmax_pool(classes, classes)
    found = np.asarray(score(logits if name == "entropy" else probs))
    expected = sign * reference.of_all(slow, reference.softmax(logits) if name == "entropy" else probs)
    assert found.dtype == np.float32
    # Entropies near 0 are sums of terms that are rounded near 1, hence the absolute part, of some ulp.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 if name == "entropy" else 0)
    theirs = uncertainty_scores(reference.softmax(logits), method=their_name) - their_offset
    np.testing.assert_allclose(found, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", TRIO)
@pytest.mark.parametrize("seed", range(4))
def test_picks_are_those_of_the_papers(name, seed):
    _, slow, sign, their_name, _ = TRIO[name]
    logits, probs = softmax_pool(seed)
    known = np.where(np.random.default_rng(seed).random(300) < 0.3, 0, -1).astype(np.int32)
    exact = reference.softmax(logits)
    uncertainty = sign * reference.of_all(slow, exact)
    expected = reference.most_uncertain(uncertainty, known, 21)
    assert np.min(-np.diff(uncertainty[expected])) > 1e-6, "a tie in the 21 best: take another seed"
    strategy = strategies.build(name)
    signal = {"probs": probs, "logits": logits}[strategy.needs[0].name]
    picks, _ = strategy.select(jax.random.key(0), known, 20, (), signal)
    assert picks.tolist() == expected[:20]
    theirs = np.where(known < 0, uncertainty_scores(exact, method=their_name), -np.inf)
    assert picks.tolist() == np.argsort(-theirs, kind="stable")[:20].tolist()


def test_two_classes_are_ranked_alike_by_all_three():
    rng = np.random.default_rng(3)
    distance = rng.permutation(np.linspace(0.01, 6, N)).astype(np.float32)  # between the two logits
    logits = np.stack([distance * rng.choice([-1, 1], N), np.zeros(N)], axis=1).astype(np.float32)
    logits += rng.standard_normal((N, 1)).astype(np.float32)  # which softmax does not see
    binary = scene()._replace(logits=logits)
    expected = [index for index in np.argsort(distance).tolist() if binary.known[index] < 0]
    for name in TRIO:
        assert choose(strategies.build(name), binary, k=len(binary.unknown)) == expected, name


def test_saturated_scores_are_finite_and_least():
    sure, unsure = [1e4, 0, -1e4], [1, 1, 0]
    logits = np.asarray([sure, unsure], np.float32)
    probs = jax.nn.softmax(logits)
    assert least_confidence_score(probs)[0] == 0
    assert margin_score(probs).tolist() == [-1, 0]
    assert entropy_score(logits)[0] == 0
    assert entropy_score(logits)[1] > 0.5


def test_the_best_unknown_ones_come_in_order():
    score = np.asarray([1, 5, 2, 5, np.nan, -np.inf, np.inf, 3], np.float32)
    known = np.full(8, -1, np.int32)
    assert top_unknown(score, known, 8).tolist() == [6, 1, 3, 7, 2, 0, 4, 5]  # the last two: not finite, by index
    known[[1, 6]] = 0
    assert top_unknown(score, known, 6).tolist() == [3, 7, 2, 0, 4, 5]


def test_random_is_uniform():
    """First and second pick together: 30 ordered pairs of 6 unknown examples, over the keys of 3000 seeds."""
    known = np.full(10, -1, np.int32)
    known[[0, 3, 4, 9]] = 1
    select = strategies.build("random").select
    first_two = jax.jit(jax.vmap(lambda seed: select(keys_for(seed, 0).select, known, 2, ())[0]))
    picks = np.asarray(first_two(np.arange(3000, dtype=np.uint32)))
    pairs, counts = np.unique(picks, axis=0, return_counts=True)
    assert len(pairs) == 30
    assert not np.isin(pairs, [0, 3, 4, 9]).any()
    assert scipy.stats.chisquare(counts).pvalue > 1e-4


def test_random_differs_between_seeds_and_rounds():
    select, known = strategies.build("random").select, scene().known
    keys = [keys_for(seed, round_).select for seed in range(3) for round_ in range(3)]
    assert len({tuple(select(key, known, K, ())[0].tolist()) for key in keys}) == 9
