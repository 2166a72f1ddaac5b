"""Random, least confidence, margin and entropy: what they must compute, by slow references and scikit-activeml."""

import jax
import numpy as np
import pytest
import scipy.stats
from reference import scores as reference
from scenes import K, N, choose, scene
from skactiveml.pool import uncertainty_scores

from jaxdal import strategies
from jaxdal.keys import keys_for
from jaxdal.strategies.picking import top_unknown
from jaxdal.strategies.scores import entropy_score, least_confidence_score, margin_score

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
