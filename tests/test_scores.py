"""Random, least confidence, margin and entropy: what they must compute, by slow references and scikit-activeml."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from reference import scores as reference
from reference import ssl as views
from scenes import K, N, choose, scene
from selecting import alone
from skactiveml.pool import uncertainty_scores

from jaxdal import strategies
from jaxdal.keys import keys_for
from jaxdal.strategies.picking import top_unknown
from jaxdal.strategies.scores import entropy_score, least_confidence_score, margin_score
from jaxdal.strategies.ssl import two_view_margin
from jaxdal.types import Network

TRIO = {
    "least_confidence": (least_confidence_score, reference.least_confidence, +1, "least_confident", 0),
    "margin": (lambda p: -1 / (1 + jnp.exp(margin_score(p))), reference.plain_margin, -1, "margin_sampling", 1),
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


@pytest.mark.parametrize("name", TRIO)
def test_the_whole_order_is_that_of_the_papers(name):
    """But for neighbours that are as near as float32 can tell."""
    logits, probs = softmax_pool(7, size=3000)
    score, slow, sign, _, _ = TRIO[name]
    order = top_unknown(score(logits if name == "entropy" else probs), np.full(3000, -1, np.int32), 3000)
    exact = sign * reference.of_all(slow, reference.softmax(logits))[np.asarray(order)]
    assert np.diff(exact).max() < (1e-6 if name == "entropy" else 1e-7)


def test_two_classes_are_ranked_alike_by_all_three():
    rng = np.random.default_rng(3)
    distance = rng.permutation(np.linspace(0.01, 6, N)).astype(np.float32)  # between the two logits
    logits = np.stack([distance * rng.choice([-1, 1], N), np.zeros(N)], axis=1).astype(np.float32)
    logits += rng.standard_normal((N, 1)).astype(np.float32)  # which softmax does not see
    binary = scene()._replace(logits=logits)
    expected = [index for index in np.argsort(distance).tolist() if binary.known[index] < 0]
    for name in TRIO:
        assert choose(strategies.build(name), binary, k=len(binary.unknown)) == expected, name


def sure_pool() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """1,000 sorted by class, of which the network is sure: -> (logits, what it adds to them in a second view, known).

    Between the best two logits are 18 to 40, so that p_1 rounds to 1 in float32, and in float64 of some.
    """
    rng = np.random.default_rng(0)
    answer, place = np.repeat(np.arange(5), 200), np.arange(1000)
    logits, more = -rng.uniform(0, 3, (2, 1000, 5))
    logits[place, (answer + rng.integers(1, 5, 1000)) % 5] = 0
    logits[place, answer], more[place, answer] = rng.uniform(18, 40, 1000), 0
    known = np.where(rng.random(1000) < 0.1, answer, -1)
    return logits.astype(np.float32), more.astype(np.float32), known.astype(np.int32)


@jax.jit
def two_views(logits: np.ndarray, more: np.ndarray) -> jax.Array:
    """The signal of `ssl_diff2aug`, whose clean images say `logits`, and whose augmented ones `logits + more`."""

    def apply(variables, x):
        number = 256 * x[:, 0, 0, 0] + x[:, 0, 0, 1]
        return logits[number.astype(jnp.int32)] + x[:, 0, 0, 2:] * more[number.astype(jnp.int32)], {}

    def pixels(x):
        return jnp.asarray(x, jnp.float32)

    network = Network(lambda key: (), apply, lambda key, x: pixels(x).at[..., 2].set(1), pixels)
    number = np.arange(1000)
    x = np.stack([number // 256, number % 256, 0 * number], axis=1).reshape(-1, 1, 1, 3).astype(np.uint8)
    return two_view_margin().per_batch(jax.random.split(jax.random.key(0), 1000), network, (), (), x)


@pytest.mark.parametrize(
    "text",
    [
        "least_confidence", "margin", "cluster_margin(candidates=1, subset=2)", "adversarial_bim",
        "albl(experts=('margin', 'margin'))", "ssl_diff2aug_direct", "ssl_diff2aug_kmeans(clusters=1)",
    ],
)  # fmt: skip
def test_what_is_sure_is_ranked_as_well(text):
    """Where 1 - p_1 is 0 and the margin 1, all are tied, and the first ones of the file would be bought: one class."""
    logits, more, known = sure_pool()
    exact = reference.softmax(logits)
    expected = reference.of_all(reference.margin, exact)
    if text == "least_confidence":
        expected = -reference.of_all(reference.least_confidence, exact)
    elif "ssl" in text:
        pairs = zip(exact, reference.softmax(logits + more), strict=True)
        expected = -np.array([views.margin(*pair) for pair in pairs])
    strategy = strategies.build(text)
    distance = next((signal.name for signal in strategy.needs if signal.name.startswith("adversarial")), "")
    signals = {
        "known": known, "probs": np.asarray(jax.nn.softmax(logits)), distance: np.ones(1000, np.float32),
        "features": np.random.default_rng(0).random((1000, 3), np.float32),
        two_view_margin().name: np.asarray(two_views(logits, more)),
    }  # fmt: skip
    picks = alone(strategy, signals, 50)
    assert set(picks) == set(reference.most_uncertain(-expected, known, 50))
    assert (np.bincount(np.asarray(picks) // 200, minlength=5) > 2).all(), "of each class, whatever their order"


@pytest.mark.parametrize("gap", [0.3, 3, 18, 40, 80])
def test_margins_keep_their_digits(gap):
    """log((1 - m) / m), from the logits, of few classes and of many."""
    rng = np.random.default_rng(1)
    for classes in (2, 5, 100):
        logits = -rng.uniform(0, 3, (50, classes)).astype(np.float32)
        logits[:, 1], logits[:, 0] = 0, gap
        expected = -reference.of_all(reference.margin, reference.softmax(logits))
        np.testing.assert_allclose(margin_score(jax.nn.softmax(logits)), expected, rtol=1e-6, atol=1e-5)


def test_saturated_scores_are_least():
    sure, unsure = [1e4, 0, -1e4], [1, 1, 0]
    logits = np.asarray([sure, unsure], np.float32)
    probs = jax.nn.softmax(logits)
    assert least_confidence_score(probs)[0] == 0
    assert margin_score(probs).tolist() == [-np.inf, np.inf]
    assert entropy_score(logits)[0] == 0
    assert entropy_score(logits)[1] > 0.5


def test_the_best_unknown_ones_come_in_order():
    score = np.asarray([1, 5, 2, 5, np.nan, -np.inf, np.inf, 3], np.float32)
    known = np.full(8, -1, np.int32)
    assert top_unknown(score, known, 8).tolist() == [6, 1, 3, 7, 2, 0, 4, 5]  # the last two: not finite, by index
    known[[1, 6]] = 0
    assert top_unknown(score, known, 6).tolist() == [3, 7, 2, 0, 4, 5]


def test_zero_has_no_sign():
    """Entropies of what is sure are -0 here and 0 there."""
    known = np.full(6, -1, np.int32)
    for choosing in (top_unknown, jax.jit(top_unknown, static_argnums=2)):
        assert choosing(np.float32([-0.0, 0, -0.0, 0, -1, 1]), known, 6).tolist() == [5, 0, 1, 2, 3, 4]


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
