"""MCADL: likeness against all N x N cosines and scikit-learn, the sum against its formulas, the memory over rounds."""

import functools
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from labs import stopped_and_continued
from reference import mcadl as reference
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import KNeighborsClassifier

from jaxdal.errors import InputError
from jaxdal.keys import keys_for
from jaxdal.parallel import Lanes
from jaxdal.signals import Gather
from jaxdal.types import Network, Pool

mcadl = import_module("jaxdal.strategies.mcadl")  # the package exports the function of this name

N, CLASSES, K = 300, 4, 12  # images, classes, picks
INTENT, REFERENCE = mcadl.mcadl(), mcadl.mcadl("reference")


def linear(seed: int) -> Network:
    """A network that is often wrong: a fixed linear map of the pixels."""

    def apply(variables, x, *, train=False, dropout_key=None):
        return x.reshape(len(x), -1) @ variables["params"], {}

    def pixels(x):
        return x.astype(jnp.float32) / 255 - 0.5

    return Network(lambda key: jax.random.normal(key, (18, CLASSES)), apply, lambda key, x: pixels(x), pixels)


NETWORK = linear(0)


class Case:
    """Images of four kinds, some labelled, and what a network says about them."""

    def __init__(self, seed: int, size: int = N, labelled: float = 0.3) -> None:
        """labelled: the share of the images."""
        rng = np.random.default_rng(seed)
        kind = rng.integers(0, CLASSES, size)
        noise = rng.integers(0, 200, (size, 3, 3, 2))
        self.x = (rng.integers(0, 55, (CLASSES, 3, 3, 2))[kind] + noise).astype(np.uint8)
        self.known = np.where(rng.random(size) < labelled, kind, -1).astype(np.int32)
        self.kind = kind
        self.variables = {"params": NETWORK.init(jax.random.key(seed))}

    @property
    def probs(self) -> np.ndarray:
        """f32[size, CLASSES]."""
        logits = NETWORK.apply(self.variables, NETWORK.normalise(jnp.asarray(self.x)))[0]
        return np.asarray(jax.nn.softmax(logits))

    def likeness(self) -> np.ndarray:
        """As the signal has it."""
        found = np.asarray(measured(mcadl.CHUNK)(self.variables, self.x, self.known))
        assert found.dtype == np.float32
        assert found.shape == (len(self.x), 3)
        return found


@functools.cache
def measured(chunk: int):
    @jax.jit
    def measure(variables, x, known):
        aux = mcadl.prepare(jax.random.key(0), NETWORK, variables, Pool(x), known)
        return mcadl.likeness_of(None, NETWORK, variables, aux, x)

    return measure


# Likeness.


@pytest.mark.parametrize("seed", range(3))
def test_likeness_is_that_of_the_definition_and_of_scikit_learn(seed):
    case = Case(seed)
    answer, found = case.probs.argmax(1), case.likeness()
    expected = reference.likeness(reference.cosines(case.x), case.known, answer)
    np.testing.assert_array_equal(found[:, 0], expected[:, 0])
    np.testing.assert_allclose(found[:, 1:], expected[:, 1:], rtol=2e-6)

    flat, labelled = case.x.reshape(N, -1).astype(np.float64), case.known >= 0
    model = KNeighborsClassifier(5, metric="cosine").fit(flat[labelled], answer[labelled])
    np.testing.assert_array_equal(found[:, 0], model.predict(flat))
    cosine = np.where(case.known == found[:, :1], cosine_similarity(flat), np.nan)
    np.testing.assert_allclose(found[:, 1], np.nanmean(cosine, axis=1), rtol=2e-6)
    np.testing.assert_allclose(found[:, 2], np.nanmax(cosine, axis=1), rtol=2e-6)


def test_the_network_is_wrong_about_many_of_those_who_vote():
    """What makes everybody be asked again, which the test above would not see otherwise."""
    case = Case(0)
    answer, cosine = case.probs.argmax(1), reference.cosines(case.x)
    labelled = np.flatnonzero(case.known >= 0)
    nearest = labelled[np.argsort(-cosine[:, labelled], axis=1)[:, :5]]
    pseudo = reference.likeness(cosine, case.known, answer)[:, :1]
    lacking = ~(case.known[nearest] == pseudo).any(axis=1)
    assert 0.05 < lacking.mean() < 0.95


@pytest.mark.parametrize("labelled", [0, 1, 4, 15, 16, 17, 60])
def test_likeness_whatever_the_number_of_labels(labelled, monkeypatch):
    """Chunks of labelled images: none, one, fewer than neighbours, one less than full, full, one more."""
    monkeypatch.setattr(mcadl, "CHUNK", 16)
    case = Case(labelled, size=60)
    case.known = np.where(np.random.default_rng(labelled).permutation(60) < labelled, case.kind, -1).astype(np.int32)
    expected = reference.likeness(reference.cosines(case.x), case.known, case.probs.argmax(1))
    found = case.likeness()
    np.testing.assert_array_equal(found[:, 0], expected[:, 0])
    np.testing.assert_allclose(found[:, 1:], expected[:, 1:], rtol=2e-6)
    if labelled == 0:
        assert not found.any(), "like nobody"


def test_black_and_equal_images():
    """A black one is at cosine 0 from all; of twins each is at cosine 1 from the other; ties go by index."""
    case = Case(1)
    case.x[7] = 0
    case.x[100:200] = case.x[100]
    answer, found = case.probs.argmax(1), case.likeness()
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[7, 1:], 0)
    assert len(np.unique(found[100:200], axis=0)) == 1
    first = [i for i in range(100, 200) if case.known[i] >= 0][:5]
    assert found[150, 0] == np.bincount(answer[first]).argmax()
    case.x[:] = 9
    found = case.likeness()
    np.testing.assert_allclose(found[:, 1:], 1, rtol=1e-6)


def test_one_class_and_a_class_without_labels():
    case = Case(2)
    case.known = np.where(case.known >= 0, 3, -1).astype(np.int32)
    found = case.likeness()
    others = found[:, 0] != 3
    assert others.any(), "the network thinks that there are others"
    assert not others.all()
    np.testing.assert_array_equal(found[others, 1:], 0)
    assert (found[~others, 1:] > 0).all()


def test_large_and_similar_images_keep_their_digits():
    """1 - cosine is about 1e-3, and sums of 3,072 positive terms are rounded to some 1e-6."""
    rng = np.random.default_rng(0)
    x = np.clip(rng.integers(100, 150, (1, 32, 32, 3)) + rng.integers(-6, 7, (40, 32, 32, 3)), 0, 255).astype(np.uint8)
    cosine = reference.cosines(x)
    ours = np.asarray(mcadl.cosines(mcadl.unit(jnp.asarray(x)), mcadl.unit(jnp.asarray(x))))
    assert 1 - cosine.min() < 5e-3
    np.testing.assert_allclose(ours, cosine, rtol=0, atol=1e-5)


# The sum.


def softmax_rows(seed: int, size: int = 200, classes: int = 7) -> np.ndarray:
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((size, classes)) * rng.uniform(0.1, 5, (size, 1))
    return np.asarray(jax.nn.softmax(jnp.float32(logits)))


def test_published_uncertainty():
    probs = softmax_rows(0)
    expected = [reference.spread_of_top(row) for row in probs.astype(float)]
    found = np.asarray(mcadl.spread_of_top(probs))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    sure = probs.max(1) > 0.5
    assert 0 < sure.sum() < len(sure)
    assert (found[sure] == 1).all(), "the largest for what the network is sure of"
    assert found[~sure].mean() < 1


def test_best_versus_second():
    probs = softmax_rows(1)
    expected = [reference.best_versus_second(row) for row in probs.astype(float)]
    np.testing.assert_allclose(mcadl.best_versus_second(probs), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("now", [[0.2, 0.9, 0.5], [0.6, 0.9, 0.5], [0, 0, 0], [0.1, 0.1, 1]])
@pytest.mark.parametrize("last", [[0, 0, 0], [0.3, 0.3, 0.3], [1, 1, 1]])
def test_class_weights(now, last):
    weight = np.asarray(mcadl.class_weights(jnp.float32(now), jnp.float32(last)))
    np.testing.assert_allclose(weight, reference.class_weights(now, last), rtol=1e-5)
    assert weight.sum() == pytest.approx(1)


@functools.cache
def selecting(strategy):
    return jax.jit(strategy.select, static_argnums=2)


def choose(strategy, case, memory, k=K, probs=None):
    found = case.likeness()
    probs = case.probs if probs is None else probs
    picks, memory = selecting(strategy)(jax.random.key(0), case.known, k, memory, found, probs)
    picks = picks.tolist()
    assert len(set(picks)) == k
    assert (case.known[picks] < 0).all()
    return picks, jax.tree.map(np.asarray, memory)


@pytest.mark.parametrize("strategy", [INTENT, REFERENCE], ids=mcadl.MODES)
@pytest.mark.parametrize("seed", range(2))
def test_picks_are_those_of_the_formulas(strategy, seed):
    """Four queries, a better network for each; `exam` is what the memory is for."""
    case = Case(seed, labelled=0.1)
    memory, last, bought, uniform = strategy.memory(N), [0.0] * CLASSES, {}, 0
    for turn in range(4):
        probs = np.asarray(jax.nn.softmax(jnp.log(case.probs) + turn * jax.nn.one_hot(case.kind, CLASSES)))
        answer = probs.argmax(1)
        like = reference.likeness(reference.cosines(case.x), case.known, case.probs.argmax(1))
        if strategy is REFERENCE:
            exam = {i: answer[i] for i in np.flatnonzero(case.known >= 0)}
            uncertainty = [reference.spread_of_top(row) for row in probs.astype(float)]
        else:
            exam = bought
            uncertainty = [reference.best_versus_second(row) for row in probs.astype(float)]
        now = reference.accuracies(exam, case.known, CLASSES)
        info = np.where(case.known < 0, reference.information(like, uncertainty, now, last), -np.inf)
        ranked = np.sort(info)[::-1]
        assert ranked[K - 1] - ranked[K] > 1e-6, "a tie: take another seed"
        uniform += len(set(reference.class_weights(now[0], last).tolist())) == 1
        picks, memory = choose(strategy, case, memory, probs=probs)
        assert set(picks) == set(np.argsort(-info, kind="stable")[:K].tolist())
        last, bought = now[0], {i: answer[i] for i in picks}
        case.known = case.known.copy()
        case.known[picks] = case.kind[picks]
    assert uniform <= 2, "classes must differ, or their weights were not tested"


def test_marks_of_what_was_asked():
    exam, known = np.array([0, 1, 2, 2, -1, 1], np.int32), np.array([0, 0, 2, -1, 1, 1], np.int32)
    per_class, overall = mcadl.marks(jnp.asarray(exam), jnp.asarray(known), 4)
    assert overall == pytest.approx(3 / 4)
    np.testing.assert_allclose(per_class, [1 / 2, 1, 1, 3 / 4])
    nothing = mcadl.marks(jnp.full(6, -1, jnp.int32), jnp.asarray(known), 4)
    assert [leaf.tolist() for leaf in nothing] == [[0] * 4, 0]


# Its behaviour.


def test_what_looks_like_nobody_is_found():
    """Eight of 300 images are bright where all others are dark. Chance finds at most two of them in eight picks."""
    for strategy in (INTENT, REFERENCE):
        case = Case(3)
        odd = np.flatnonzero(case.known < 0)[::20][:8]
        case.x[...] = case.x // 8
        case.x[..., 0] += np.uint8(200)
        case.x[odd] = case.x[odd][..., ::-1]
        even = np.full((N, CLASSES), 1 / CLASSES, np.float32)
        assert set(choose(strategy, case, strategy.memory(N), 8, even)[0]) == set(odd.tolist())
    draws = [np.random.default_rng(seed).choice(np.flatnonzero(case.known < 0), 8, False) for seed in range(20)]
    assert max(len(set(draw.tolist()) & set(odd.tolist())) for draw in draws) <= 2


def test_modes_differ_about_what_is_uncertain():
    """Where all look the same, paper-intent buys what the network doubts; the published code buys what is sure."""
    case = Case(4)
    case.x[:] = case.x[0]
    doubt = np.flatnonzero(case.known < 0)[:K]
    probs = np.full((N, CLASSES), 0.01, np.float32)
    probs[:, 0] = 0.97
    probs[doubt] = [0.45, 0.35, 0.1, 0.1]
    assert set(choose(INTENT, case, INTENT.memory(N), K, probs)[0]) == set(doubt.tolist())
    assert not set(choose(REFERENCE, case, REFERENCE.memory(N), K, probs)[0]) & set(doubt.tolist())


def test_class_sorted_pool():
    case, after = Case(5), Case(5)
    order = np.argsort(case.kind, kind="stable")
    after.x, after.known, after.kind = case.x[order], case.known[order], case.kind[order]
    for strategy in (INTENT, REFERENCE):
        before = choose(strategy, case, strategy.memory(N))[0]
        assert sorted(order[choose(strategy, after, strategy.memory(N))[0]].tolist()) == sorted(before)


def test_all_that_is_left_and_answers_that_are_none():
    case = Case(6)
    left = int((case.known < 0).sum())
    for probs in (None, np.full((N, CLASSES), np.nan, np.float32)):
        picks, memory = choose(INTENT, case, INTENT.memory(N), left, probs)
        assert sorted(picks) == np.flatnonzero(case.known < 0).tolist()
        assert (memory.bought >= 0).sum() == left


def test_unknown_mode():
    with pytest.raises(InputError, match="mode='published' of mcadl is neither 'paper-intent' nor 'reference'"):
        mcadl.mcadl("published")


# In an experiment.


def gathered(cases: list[Case], batch: int, devices: int) -> tuple[np.ndarray, list[list[int]]]:
    """Likeness and picks of runs that share the images of the first, scored in batches, on so many devices."""
    lanes = Lanes(len(cases), jax.devices()[:devices])
    pool = Pool(lanes.shared(cases[0].x))
    keys = lanes.lift(keys_for, "rs")(lanes.per_run(np.arange(len(cases), dtype=np.uint32)), np.int32(0))
    known = lanes.per_run(np.stack([case.known for case in cases]))
    variables = {"params": lanes.per_run(np.stack([np.asarray(case.variables["params"]) for case in cases]))}
    found = Gather(lanes, NETWORK, INTENT.needs, pool, batch)(keys, variables, known, pool)
    memory = jax.tree.map(lambda leaf: np.stack([leaf] * len(cases)), INTENT.memory(len(cases[0].x)))

    def select(keys, known, memory, *found):
        rows = (leaf[: known.shape[0]] for leaf in found)  # as Lab does: Gather adds some to make shares equal
        return INTENT.select(keys.select, known, K, memory, *rows)[0]

    picks = lanes.lift(select, "rrrrr")(keys, known, lanes.per_run(memory), *found)
    return np.asarray(found[0])[: len(cases), : len(cases[0].x)], np.asarray(picks)[: len(cases)].tolist()


@functools.cache
def three_runs() -> tuple[list[Case], np.ndarray, list[list[int]]]:
    """Three runs with the same images, and what comes out on one device in one batch."""
    cases = [Case(7, size=203), Case(8, size=203), Case(9, size=203, labelled=0.6)]
    cases[1].x = cases[2].x = cases[0].x
    return cases, *gathered(cases, 203, 1)


@pytest.mark.parametrize(("runs", "batch", "devices"), [(3, 37, 2), (1, 64, 8)], ids=["spread", "split"])
def test_scoring_batch_and_devices_change_nothing(runs, batch, devices):
    cases, likeness, picks = three_runs()
    found, others = gathered(cases[:runs], batch, devices)
    np.testing.assert_allclose(found, likeness[:runs], rtol=1e-6)
    assert others == picks[:runs]


def test_memory_survives_an_interruption(blobs, tmp_path):
    undisturbed, continued, kept = stopped_and_continued(blobs, "mcadl", tmp_path)
    assert continued == undisturbed
    for seed in range(2):
        lines = [line for line in continued if line["seed"] == seed]
        for round_ in range(3):
            bought, last = kept[round_][f"seed_{seed}_0"], kept[round_][f"seed_{seed}_1"]
            assert np.flatnonzero(bought >= 0).tolist() == sorted(lines[round_]["picks"])
            expected = kept[round_ - 1][f"seed_{seed}_0"] if round_ else np.full(200, -1)
            np.testing.assert_array_equal(last, expected)
