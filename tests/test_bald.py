"""BALD against its definition, scipy and scikit-activeml; LeNet's cached form against dropout in its usual place."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from labs import bench
from reference import bald as reference
from reference.scores import most_uncertain, softmax
from skactiveml.base import SkactivemlClassifier
from skactiveml.pool import GreedyBALD, batch_bald

from jaxdal import models
from jaxdal.errors import InputError
from jaxdal.keys import keys_for
from jaxdal.models.lenet import _masks
from jaxdal.signals import Gather
from jaxdal.strategies.bald import bald, mutual_information
from jaxdal.strategies.scores import entropy
from jaxdal.types import Network

N, WIDTH, DRAWS, KEEP = 60, 7, 10, 0.5


class Net(NamedTuple):
    """Dropout of the features of a table, then a linear layer."""

    features: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    keep: float = KEEP
    head: Callable | None = None  # in place of that

    @property
    def variables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the network computes with."""
        return self.features, self.kernel, self.bias

    @property
    def network(self) -> Network:
        """How it does."""
        return network(self.keep, self.head or dropping(self.keep))


@functools.cache
def dropping(keep):
    def head(variables, taps, keys):
        _, kernel, bias = variables
        masks = jax.vmap(lambda key: jax.random.bernoulli(key, keep, taps["features"].shape[1:]))(keys)
        return (taps["features"] * (masks.astype(jnp.float32) / keep)) @ kernel + bias

    return head


def network(keep, head) -> Network:
    """The pixel of an image is its number."""

    def apply(variables, x, *, train=False, dropout_key=None):
        assert not train, "BatchNorm stays in evaluation mode"
        assert dropout_key is None, "what precedes the first mask is computed once"
        features, kernel, bias = variables
        taps = {"features": jnp.asarray(features)[x[:, 0, 0, 0].astype(jnp.int32)]}
        return taps["features"] @ kernel + bias, taps

    def pixels(x):
        return x.astype(jnp.float32)

    return Network(lambda key: {}, apply, lambda key, x: pixels(x), pixels, head)


@functools.cache
def program(keep, head, draws):
    signal, net = mutual_information(draws), network(keep, head)
    return jax.jit(lambda variables, keys, x: signal.per_batch(keys, net, variables, (), x))


@functools.cache
def pass_program(keep, head):
    def one(variables, keys, t):
        net = network(keep, head)
        _, taps = net.apply(variables, images(len(keys)))
        return net.stochastic_head(variables, taps, jax.vmap(jax.random.fold_in, (0, None))(keys, t))

    return jax.jit(one)


def tables(classes: int = 5, seed: int = 0, size: int = N) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, kernel and bias of some head."""
    rng = np.random.default_rng(seed)
    draws = rng.standard_normal((size, WIDTH)), rng.standard_normal((WIDTH, classes)), rng.standard_normal(classes)
    return tuple(draw.astype(np.float32) for draw in draws)


@functools.cache
def keys_of(seed: int = 0, size: int = N) -> jax.Array:
    return jax.vmap(jax.random.fold_in, (None, 0))(keys_for(seed, 0).signals, jnp.arange(size))


def images(size: int = N) -> np.ndarray:
    return np.arange(size, dtype=np.uint8).reshape(-1, 1, 1, 1)


def information(net: Net, draws: int = DRAWS, size: int = N) -> np.ndarray:
    compute = program(net.keep, net.head or dropping(net.keep), draws)
    return np.asarray(compute(net.variables, keys_of(size=size), images(size)))


def passes(net: Net, draws: int = DRAWS) -> np.ndarray:
    """The same passes, each by itself: -> f64[T, N, K]."""
    one = pass_program(net.keep, net.head or dropping(net.keep))
    return np.stack([softmax(np.asarray(one(net.variables, keys_of(), np.int32(t)))) for t in range(draws)])


@pytest.mark.parametrize("classes", [2, 5, 100])
@pytest.mark.parametrize("draws", [1, 10])
def test_information_is_that_of_the_paper(classes, draws):
    net = Net(*tables(classes))
    found, each = information(net, draws), passes(net, draws)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= min(np.log(classes), np.log(draws)) + 1e-6
    expected = [reference.information(each[:, example]) for example in range(N)]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    theirs = scipy.stats.entropy(each.mean(0), axis=-1) - scipy.stats.entropy(each, axis=-1).mean(0)
    np.testing.assert_allclose(found, theirs, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found, batch_bald(each.copy(), 1, eps=1e-12)[0], rtol=1e-4, atol=1e-6)


class Committee(SkactivemlClassifier):
    """Answers scikit-activeml from a table of passes; an example is its number."""

    def __init__(self, probs=None, classes=None, missing_label=-1, cost_matrix=None, random_state=None):
        super().__init__(classes, missing_label, cost_matrix, random_state)
        self.probs = probs

    def fit(self, X, y, sample_weight=None):
        """Only note that this was asked for."""
        self.fitted_ = True
        return self

    def predict_proba(self, X):
        """f64[N, K]."""
        return self.sample_proba(X).mean(0)

    def sample_proba(self, X):
        """f64[T, N, K]."""
        return self.probs[:, X[:, 0].astype(int)]


@pytest.mark.parametrize("seed", range(3))
def test_picks_are_those_of_the_paper(seed):
    k = 12
    net = Net(*tables(seed=seed))
    known = np.where(np.random.default_rng(seed).random(N) < 0.3, 0, -1).astype(np.int32)
    each = passes(net)
    expected = np.array([reference.information(each[:, example]) for example in range(N)])
    ranked = most_uncertain(expected, known, k + 1)
    assert np.min(-np.diff(expected[ranked])) > 1e-6, "a tie in the best: take another seed"
    picks, _ = bald().select(jax.random.key(0), known, k, (), information(net))
    assert picks.tolist() == ranked[:k]
    theirs = GreedyBALD(sample_predictions_method_name="sample_proba", missing_label=-1).query(
        np.arange(N)[:, None], known, Committee(each, classes=range(5)), batch_size=k
    )
    assert set(theirs.tolist()) == set(ranked[:k])


def test_many_passes_approach_the_sum_over_all_masks():
    features, kernel, bias = tables()
    some = Net(features[:6], kernel, bias, keep=0.8)
    exact = [reference.expected_information(row.astype(float), kernel, bias, 0.8) for row in features[:6]]
    np.testing.assert_allclose(information(some, draws=4000, size=6), exact, atol=0.015)
    assert min(exact) > 0.03


def test_agreement_is_exactly_nothing_however_uncertain():
    features, kernel, bias = tables()
    sure = Net(features * np.linspace(0, 30, N, dtype=np.float32)[:, None], kernel, bias, keep=1.0)
    found = information(sure)
    np.testing.assert_array_equal(found, 0)
    picks, _ = bald().select(jax.random.key(0), np.full(N, -1, np.int32), 9, (), found)
    assert picks.tolist() == list(range(9))


def test_full_disagreement_is_the_most_there_is():
    def head(variables, taps, keys):
        """Sure of a class that only the mask decides."""
        return 100 * jax.vmap(lambda key: jax.random.normal(key, (50,)))(keys)

    net = Net(*tables(50))._replace(head=head)
    each = passes(net)
    expected = [reference.information(each[:, example]) for example in range(N)]
    np.testing.assert_allclose(information(net), expected, rtol=1e-5)
    assert max(expected) > np.log(DRAWS) - 1e-3, "all ten differ"


def test_disagreement_is_found_where_entropy_sees_doubt():
    """Planted: two features that pull apart. Of the rest half is sure, and half, more uncertain, always undecided."""
    planted = [3, 17, 31, 44, 58]
    kernel = np.zeros((26, 2), np.float32)
    kernel[0, 0] = kernel[1, 1] = 4
    kernel[2:, 0] = 1  # so many that no mask silences them
    features = np.zeros((N, 26), np.float32)
    features[1::2, 2:] = 2
    features[planted] = [2, 1.5] + 24 * [0]
    net = Net(features, kernel, np.zeros(2, np.float32))
    unknown = np.full(N, -1, np.int32)
    picks, _ = bald().select(jax.random.key(0), unknown, 5, (), information(net))
    assert sorted(picks.tolist()) == planted
    by_entropy, _ = entropy().select(jax.random.key(0), unknown, 5, (), net.network.apply(net.variables, images())[0])
    assert not set(by_entropy.tolist()) & set(planted)


def test_the_order_of_the_pool_does_not_matter():
    """A key belongs to an example: class-sorted, shuffled or one by one, each gets its own masks."""
    net = Net(*tables())
    order = np.random.default_rng(1).permutation(N)
    together = information(net)
    shuffled = program(KEEP, dropping(KEEP), DRAWS)(net.variables, keys_of()[order], images()[order])
    np.testing.assert_allclose(shuffled, together[order], rtol=1e-5, atol=1e-7)
    one = program(KEEP, dropping(KEEP), DRAWS)
    alone = [one(net.variables, keys_of()[i : i + 1], images()[i : i + 1])[0] for i in (0, 7, N - 1)]
    np.testing.assert_allclose(alone, together[[0, 7, N - 1]], rtol=1e-5, atol=1e-7)
    twins = Net(np.repeat(tables()[0][:1], N, axis=0), *tables()[1:])
    assert len(np.unique(information(twins))) > 20, "twins have masks of their own"


@pytest.mark.parametrize("scale", [1e4, 1e30, np.inf, np.nan])
def test_picks_are_valid_whatever_the_network_says(scale):
    features, kernel, bias = tables()
    features[::3] *= np.float32(scale)
    known = np.where(np.arange(N) % 4 == 0, 1, -1).astype(np.int32)
    found = information(Net(features, kernel, bias))
    for k in (1, 45):  # 45 are left
        picks, _ = bald().select(jax.random.key(0), known, k, (), found)
        assert len(set(picks.tolist())) == k
        assert np.all(known[picks] < 0)
    if not np.isfinite(scale):
        assert not set(bald().select(jax.random.key(0), known, 20, (), found)[0].tolist()) & set(range(0, N, 3))


def test_one_class_is_no_question():
    np.testing.assert_array_equal(information(Net(*tables(1))), 0)


def test_underflow_is_not_a_number_of_the_published_code_only():
    """A pass that gives a class no probability at all, beside one that is undecided."""
    features = np.full((N, 1), 1, np.float32)
    found = information(Net(features, np.float32([[200, 0]]), np.float32([0, 0])), draws=50)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.mean(), 0.5623 - 0.5 * np.log(2), atol=0.02)  # H(3/4, 1/4) - H(1/2, 1/2) / 2


# The heads of the models.


@pytest.fixture(scope="module")
def lenet():
    model = models.build("lenet", (28, 28, 1), 10)
    variables = model.init(jax.random.key(1))
    x = np.random.default_rng(0).standard_normal((5, 28, 28, 1)).astype(np.float32)
    return model, variables, x


def test_cached_lenet_is_exact(lenet):
    model, variables, x = lenet
    keys = keys_of(size=5)
    _, taps = model.apply(variables, x)
    found = model.stochastic_head(variables, taps, keys)
    channels, units = (np.asarray(mask, np.float64) for mask in _masks(keys))
    assert channels.shape == (5, 20)
    assert units.shape == (5, 50)
    assert set(np.unique(channels)) == set(np.unique(units)) == {0, 2}
    params = variables["params"]
    expected = [reference.lenet(params, *one) for one in zip(x.astype(np.float64), channels, units, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    plain = [reference.lenet(params, image, np.ones(20), np.ones(50)) for image in x.astype(np.float64)]
    np.testing.assert_allclose(model.apply(variables, x)[0], plain, rtol=1e-4, atol=1e-5)


def test_lenet_draws_as_in_training(lenet):
    """The same distribution as `apply` with a dropout key: means and spreads of the logits over many masks."""
    model, variables, x = lenet
    one = np.repeat(x[:1], 400, axis=0)
    dropped, taps = jax.jit(lambda key: model.apply(variables, one, dropout_key=key))(jax.random.key(2))
    found = jax.jit(model.stochastic_head)(variables, taps, keys_of(size=400))
    spread = np.std(dropped, axis=0)
    np.testing.assert_allclose(np.mean(found, axis=0), np.mean(dropped, axis=0), atol=0.3 * spread.max())
    np.testing.assert_allclose(np.std(found, axis=0), spread, rtol=0.25)


def test_residual_networks_drop_a_fifth_of_the_features():
    model = models.build("resnet18_thin", (8, 8, 3), 4)
    variables = model.init(jax.random.key(0))
    features = np.random.default_rng(0).standard_normal((40, 128)).astype(np.float32)
    keys = keys_of(size=40)
    found = model.stochastic_head(variables, {"features": features}, keys)
    kept = np.asarray(jax.vmap(lambda key: jax.random.bernoulli(key, 0.8, (128,)))(keys))
    assert 0.78 < kept.mean() < 0.82
    head = variables["params"]["Linear_0"]
    np.testing.assert_allclose(
        found, (features * kept / 0.8) @ np.asarray(head["kernel"]) + head["bias"], rtol=1e-4, atol=1e-5
    )


def test_models_without_a_head_are_refused():
    without = Net(*tables()).network._replace(stochastic_head=None)
    with pytest.raises(InputError, match="bald needs a model with dropout"):
        mutual_information().per_batch(keys_of(), without, tables(), (), images())
    for draws in (0, 2.5, "ten"):
        with pytest.raises(InputError, match="not a number of passes"):
            bald(draws=draws)


# In a lab.


def gathered(blobs, seeds, devices, batch, **options):
    here = bench(blobs, seeds, devices, bald(), **options)
    gather = Gather(here.lab.lanes, here.network, bald().needs, here.lab.pool, batch)
    (found,) = gather(here.keys, here.train(4).variables, here.known, here.lab.pool)
    picks, memory = here.lab.select(here.keys, here.known, (), found)
    assert memory == ()
    return np.asarray(found)[:, :200], np.asarray(picks)  # beyond are rows that make the shares of 3 devices equal


def test_batches_devices_and_neighbours_change_nothing(blobs):
    alone, picks = gathered(blobs, [0], 1, 200, model="lenet")
    assert alone.min() >= 0
    assert alone.std() > 1e-3, "LeNet disagrees with itself"
    found, same = gathered(blobs, [0], 3, 31, model="lenet")
    np.testing.assert_allclose(found, alone, rtol=1e-3, atol=1e-5)
    assert set(same[0]) == set(picks[0])
    packed, _ = gathered(blobs, [0, 1], 1, 64, model="lenet")
    np.testing.assert_allclose(packed[:1], alone, rtol=1e-3, atol=1e-5)
    assert np.abs(packed[1] - packed[0]).max() > 1e-3
