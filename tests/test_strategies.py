"""One contract for every row of STRATEGIES."""

import functools
import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from labs import bench
from reference import scores as reference
from scenes import CLASSES, K, N, choose, look, obvious, scene, training

from jaxdal import signals, strategies
from jaxdal.errors import InputError
from jaxdal.keys import keys_for
from jaxdal.strategies import STRATEGIES
from jaxdal.strategies.picking import top_unknown
from jaxdal.strategies.scores import margin_score
from jaxdal.trainers import TRAINERS
from jaxdal.types import Strategy

BUILT = {name: strategies.build(name) for name in STRATEGIES}
ROWS = [pytest.param(strategy, id=name) for name, strategy in BUILT.items()]


# Random looks at nothing: no example is obvious to it. Nor is one to strategies that ask a network trained alongside,
# which is not trained here: their own files plant something (see the last test of the contract).
ASKING = [name for name, strategy in BUILT.items() if training(strategy).helpers]
LOOKING = [row for row in ROWS if row.values[0].needs and row.id not in ASKING]
every_strategy = pytest.mark.parametrize("strategy", ROWS)


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
@pytest.mark.parametrize("labelled", [1, N - K, N - 1])
def test_one_pick_and_all_that_is_left(strategy, labelled):
    """Of which k = 1 and K are enough: a program for each k costs seconds."""
    somewhere, left = scene(labelled=labelled), N - labelled
    for k in (k for k in (1, K) if k <= left):
        picks = choose(strategy, somewhere, k=k)
        assert k < left or sorted(picks) == somewhere.unknown


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
    for k in (1, K):
        choose(strategy, broken, k)
    choose(strategy, BROKEN[kind](scene(labelled=N - K)))  # all that is left


@every_strategy
@pytest.mark.parametrize("kind", ["equal", "zero", "all NaN"])
def test_ties_go_by_index(strategy, kind):
    """Where all examples look alike to the strategy: images differ, and some look at them.

    One goes by the key: where no image is augmented there are only ties, and files may be sorted by class.
    """
    broken = BROKEN[kind](scene())
    found = look(strategy, broken, keys_for(0, 0).signals)
    alike = all(np.array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape), equal_nan=True) for leaf in found)
    if alike and deterministic(strategy):
        picks = {tuple(choose(strategy, broken, seed=seed)) for seed in range(4)}
        by_key = strategy is BUILT["ssl_consistency"]
        assert len(picks) == 4 if by_key else picks == {tuple(broken.unknown[:K])}


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


@pytest.mark.parametrize("name", ASKING)
def test_what_a_network_trained_alongside_must_find_is_planted_elsewhere(name):
    own = Path(__file__).with_name(f"test_{name}.py").read_text()
    assert "\ndef test_planted" in own, "a test that random selection fails"


# What a name alone stands for.


def test_names_are_those_of_the_functions():
    assert {name: make.__name__ for name, make in STRATEGIES.items()} == {name: name for name in STRATEGIES}


# Numbers as the papers have them, or the code of the comparison; and of two modes the one that is not "as published".
DEFAULTS = {
    "adversarial_bim": {"epsilon": 0.05, "cap": 100},
    "albl": {"experts": ("least_confidence", "coreset"), "mode": "iwacc", "delta": 0.1},
    "bald": {"draws": 10},
    "cluster_margin": {"n_clusters": None, "candidates": 10, "order": "random"},
    "kmeans": {"n_init": 1, "max_iter": 100, "tol": 1e-4},
    "uncertain_gcn": {"s_margin": 0.1},
    "learning_loss": {"margin": 1, "weight": 1, "stop": 0.6, "subset": 10_000},
    "mcadl": {"mode": "paper-intent"},
    "ssl_consistency": {"views": 50},
    "ssl_diff2aug_direct": {"clean": True},
    "ssl_diff2aug_kmeans": {"clusters": 20, "clean": True},
    "vaal": {
        "batch": 128, "beta": 1, "adversary": 1, "vae_steps": 2, "learning_rate": 5e-4, "kl": "balanced",
        "augment": False,
    },
    "waal": {"weight": 10},
}  # fmt: skip
GRAPH = {"subset": 10_000, "hidden_units": 128, "dropout": 0.3, "lambda_loss": 1.2, "epochs": 200}


def test_what_is_not_said():
    """Tests elsewhere say what options do, most of them with smaller numbers."""
    defaults = DEFAULTS | {name: DEFAULTS.get(name, {}) | GRAPH for name in ("core_gcn", "uncertain_gcn")}
    for name, numbers in defaults.items():
        options = inspect.signature(STRATEGIES[name]).parameters
        assert {option: options[option].default for option in numbers} == numbers, name
    options = inspect.signature(TRAINERS["waal"]).parameters
    assert (options["alpha"].default, options["penalty_weight"].default) == (2e-3, 5)


@pytest.mark.parametrize(
    ("text", "signal"),
    [
        ("adversarial_bim(epsilon=0.3, cap=6)", "adversarial_distance_0.3_6"),
        ("bald(draws=3)", "mutual_information_3"),
        ("ssl_consistency(views=7)", "view_variance_7"),
        ("ssl_diff2aug_direct(clean=False)", "two_view_margin_augmented"),
        ("ssl_diff2aug_kmeans(clean=False)", "two_view_margin_augmented"),
        ("waal(weight=3)", "waal_score_3"),
    ],
)
def test_options_reach_the_signal(text, signal):
    """Whose own tests say what it makes of them."""
    assert strategies.build(text).needs[0].name == signal


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


@pytest.mark.parametrize(
    ("picks", "remembered", "told"),
    [
        (9, 3, r"was asked for 10 picks, and gives the shape \(9,\)"),
        (11, 3, r"was asked for 10 picks, and gives the shape \(11,\)"),
        (10, 4, r"got a memory of the shapes \[\(3,\)\], and gives back \[\(4,\)\]"),
    ],
)
def test_a_strategy_of_one_s_own_that_gives_something_else_is_refused(blobs, picks, remembered, told):
    """Before it is in the journal, from where the next start would take it."""

    def select(key, known, k, memory):
        return top_unknown(-jnp.arange(known.shape[0], dtype=jnp.float32), known, picks), jnp.zeros(remembered)

    one = bench(blobs, [0], strategy=Strategy(needs=(), select=select, memory=lambda size: np.zeros(3)))
    with pytest.raises(InputError, match=told):
        one.lab.select(one.keys, one.known, jnp.zeros((1, 3)))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda picks: picks, r"gives \w+, and not a tuple \(picks, memory\)"),
        (lambda picks: [picks, ()], r"gives list, and not a tuple \(picks, memory\)"),
        (lambda picks: (picks.astype(jnp.float32), ()), "gives picks of type float32, and not indices"),
    ],
)
def test_so_is_one_that_gives_another_type(blobs, answer, told):
    def select(key, known, k, memory):
        return answer(top_unknown(-jnp.arange(known.shape[0], dtype=jnp.float32), known, k))

    one = bench(blobs, [0], strategy=Strategy(needs=(), select=select))
    with pytest.raises(InputError, match=told):
        one.lab.select(one.keys, one.known, ())
