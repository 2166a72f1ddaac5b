"""The four strategies beside MixMatch: variance and margin over views, proportional shares, and what is bought."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from labs import bench
from reference import ssl as reference
from reference.scores import most_uncertain, softmax
from selecting import alone, some_pool, split, spread
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from jaxdal import augment, remarks, settings, strategies
from jaxdal.errors import InputError
from jaxdal.keys import keys_for
from jaxdal.signals import Gather
from jaxdal.strategies import distances
from jaxdal.strategies.kmeans import seed_rows
from jaxdal.strategies.ssl import quotas, two_view_margin, view_variance
from jaxdal.types import Model, Network

N, CLASSES = 60, 5


def table_network(bend) -> Network:
    """The first channel of an image is its number; a view has a fraction in the second, on which the answer depends."""

    def apply(variables, x, *, train=False, dropout_key=None, chunks=1):
        assert not train, "signals are computed in evaluation mode"
        assert dropout_key is None
        number, fraction = x[:, 0, 0, 0].astype(jnp.int32), x[:, 0, 0, 1]
        return variables[0][number] + bend(fraction)[:, None] * variables[1][number], {}

    def pixels(x):
        return jnp.asarray(x, jnp.float32)

    def augment(key, x):
        return pixels(x).at[..., 1].set(jax.random.uniform(key, x.shape[:3]))

    return Network(lambda key: (), apply, augment, pixels)


NETWORK = table_network(lambda fraction: fraction)
STILL = table_network(jnp.zeros_like)


@functools.cache
def program(signal, network):
    return jax.jit(lambda variables, keys, x: signal.per_batch(keys, network, variables, (), x))


@functools.cache
def keys_of(seed: int = 0, size: int = N) -> jax.Array:
    return jax.vmap(jax.random.fold_in, (None, 0))(keys_for(seed, 0).signals, jnp.arange(size))


def images(size: int = N) -> np.ndarray:
    return np.stack([np.arange(size), np.zeros(size)], axis=-1).astype(np.uint8).reshape(-1, 1, 1, 2)


def tables(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, from undecided to sure, and what a view adds to them, from next to nothing to much."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((N, CLASSES)) * rng.uniform(0.1, 6, (N, 1))
    return logits.astype(np.float32), (rng.standard_normal((N, CLASSES)) * np.logspace(-3, 0.5, N)[:, None]).astype(
        np.float32
    )


@functools.cache
def view(number: int):
    """The network's answers to one view: f64[N, K]; -1: to the image as it is."""

    def answer(variables, keys):
        x = images()
        if number < 0:
            return NETWORK.apply(variables, NETWORK.normalise(x))[0]
        own = [NETWORK.augment(jax.random.fold_in(key, number), x[i : i + 1]) for i, key in enumerate(keys)]
        return NETWORK.apply(variables, jnp.concatenate(own))[0]

    return lambda variables: softmax(np.asarray(answer(variables, keys_of())))


@pytest.mark.parametrize("views", [2, 5])
def test_variance_is_that_of_the_paper(views):
    variables = tables()
    found = np.asarray(program(view_variance(views), NETWORK)(variables, keys_of(), images()))
    passes = np.stack([view(number)(variables) for number in range(views)])
    expected = np.array([reference.variance(passes[:, example]) for example in range(N)])
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-12)
    np.testing.assert_allclose(found, passes.var(axis=0).sum(axis=-1), rtol=2e-3, atol=1e-12)
    assert expected.min() < 1e-7 < 1e-3 < expected.max(), "also of sure examples"


def test_views_that_agree_have_exactly_no_variance_and_ties_go_by_the_key():
    found = np.asarray(program(view_variance(), STILL)(tables(), keys_of(), images()))
    np.testing.assert_array_equal(found, 0)
    pool = {"known": np.where(np.arange(N) < 3, 0, -1).astype(np.int32), view_variance().name: found}
    consistency = strategies.build("ssl_consistency")
    picks = [alone(consistency, pool, 20, seed) for seed in range(3)]
    bought, counts = np.unique(picks, return_counts=True)
    assert bought.max() > N - 10, "from all of a file that may be sorted by class"
    assert (counts < 3).any(), "not the same ones at every seed"
    pool[view_variance().name] = np.where(np.arange(N) % 10 == 9, 1 + np.arange(N), 0).astype(np.float32)
    best = [59, 49, 39, 29, 19, 9]
    assert [alone(consistency, pool, 8, seed)[:6] for seed in range(3)] == [best] * 3, "ties alone"


@pytest.mark.parametrize(
    ("name", "augmentation", "told"),
    [
        ("ssl_consistency", {"mirror": False, "crop": 0}, "all views of an image are alike and picks are random"),
        ("ssl_diff2aug_kmeans", {"mirror": False, "crop": 0}, "their margin is the plain one"),
        ("ssl_consistency", {"mirror": True, "crop": 0}, ""),
        ("ssl_diff2aug_direct", {"mirror": False, "crop": 2}, ""),
        ("ssl_random", {"mirror": False, "crop": 0}, ""),
        ("vaal(augment=True)", {"mirror": False, "crop": 0}, "augment=True changes nothing"),
        ("vaal", {"mirror": False, "crop": 0}, ""),
    ],
)
def test_a_command_that_augments_nothing_says_what_is_left_of_the_strategy(blobs, capsys, name, augmentation, told):
    rules = settings.resolve("arrays", blobs, name, n_start=20, n_query=10, n_end=30, **augmentation)
    remarks.on_strategy(rules, strategies.build(name))
    said = capsys.readouterr().err
    assert said.endswith(f"{told}\n" if told else "")
    assert bool(told) == said.startswith(f"{name}: no image is augmented (--crop=0 --nomirror), so that ")


def test_planted_disagreement_between_views_is_bought():
    """Views of five examples differ. Half of the rest is sure, the other half undecided in every view."""
    planted = [3, 17, 31, 44, 58]
    logits, shift = np.zeros((N, CLASSES), np.float32), np.zeros((N, CLASSES), np.float32)
    logits[1::2, 2] = 9
    logits[planted, 2], shift[planted, 1] = 4, 8
    found = np.asarray(program(view_variance(), NETWORK)((logits, shift), keys_of(), images()))
    pool = {"known": np.full(N, -1, np.int32), view_variance().name: found, "logits": logits}
    assert sorted(alone(strategies.build("ssl_consistency"), pool, 5)) == planted
    assert not set(alone(strategies.build("entropy"), pool, 5)) & set(planted)
    assert not set(alone(strategies.build("ssl_random"), pool, 5)) >= set(planted)


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("name", ["ssl_diff2aug_direct", "ssl_diff2aug_kmeans(clusters=1, clean={})"])
def test_margins_and_picks_are_those_of_the_paper(clean, name):
    variables, signal = tables(1), two_view_margin(clean)
    found = np.asarray(program(signal, NETWORK)(variables, keys_of(), images()))
    one, other = view(-1 if clean else 0)(variables), view(1)(variables)
    expected = np.array([reference.margin(one[i], other[i]) for i in range(N)])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    known = np.where(np.random.default_rng(1).random(N) < 0.3, 0, -1).astype(np.int32)
    ranked = most_uncertain(expected, known, 13)
    assert np.min(-np.diff(expected[ranked])) > 1e-6, "a tie in the best: take another seed"
    strategy = strategies.build(name.format(clean) if "{}" in name else f"{name}(clean={clean})")
    pool = {"known": known, signal.name: found, "features": some_pool(1, N, 3)["features"]}
    assert alone(strategy, pool, 12) == ranked[:12], "one cluster is none"


# Networks whose augmentation is a flip, or nothing.


def linear(image_shape=(4, 4, 1)) -> tuple[Model, np.ndarray]:
    """Logits that are linear in the pixels."""
    kernel = np.random.default_rng(2).standard_normal((int(np.prod(image_shape)), CLASSES)).astype(np.float32) / 2

    def apply(variables, x, *, train=False, dropout_key=None, chunks=1):
        pixels = x.reshape(x.shape[0], -1)
        return pixels @ variables, {"features": pixels}

    return Model(lambda key: jnp.asarray(kernel), apply, pack=1), kernel


@functools.cache
def linear_network(crop: int, flip: bool) -> Network:
    return augment.network(linear()[0], (0.5,), (0.25,), crop=crop, flip=flip)


def test_an_image_and_its_mirror_image_are_looked_at_once_each():
    """Closed form, against which 50 random views are an estimate, 1/50 too small on average."""
    rng = np.random.default_rng(3)
    x = rng.integers(0, 256, (N, 4, 4, 1)).astype(np.uint8)
    x[::10] = x[::10, :, [0, 1, 1, 0]]  # their own mirror images
    network, kernel = linear_network(0, True), linear()[1]
    found = np.asarray(program(view_variance(), network)(kernel, keys_of(), x))
    p, flipped = (softmax((some / 255.0 - 0.5).reshape(N, -1) / 0.25 @ kernel) for some in (x, x[:, :, ::-1]))
    np.testing.assert_allclose(found, np.square(p - flipped).sum(-1) / 4, rtol=1e-4, atol=1e-12)
    np.testing.assert_allclose(found, np.stack([p, flipped]).var(0).sum(-1), rtol=1e-4, atol=1e-12)
    np.testing.assert_array_equal(found[::10], 0)
    random = np.asarray(program(view_variance(), network._replace(views=None))(kernel, keys_of(), x))
    ratio = np.delete(random / np.maximum(found, 1e-30), np.s_[::10])
    assert ratio.max() < 1 + 1e-3, "f (1 - f) is 1/4 at most"
    assert ratio.std() > 0.005, "random views are not the same shares for all"
    assert 0.965 < ratio.mean() < 0.995
    np.testing.assert_array_equal(random[::10], 0)


def test_views_are_listed_where_they_are_all_that_augmentation_draws():
    x = np.random.default_rng(4).integers(0, 256, (9, 4, 4, 1)).astype(np.uint8)
    for flip, count in ((False, 1), (True, 2)):
        network = linear_network(0, flip)
        listed = [np.asarray(one) for one in network.views(jnp.asarray(x))]
        assert len(listed) == count
        drawn = np.concatenate([network.augment(jax.random.key(seed), x) for seed in range(3)])
        number = np.tile(np.arange(9), 3)
        hits = np.stack([(drawn == one[number]).all((1, 2, 3)) for one in listed])
        assert (hits.sum(0) == 1).all()
        assert hits.any(1).all()
    assert linear_network(1, True).views is None
    still = np.asarray(program(view_variance(), linear_network(0, False))(linear()[1], keys_of(size=9), x))
    np.testing.assert_array_equal(still, 0)


# Shares.


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [3, 40, 300_000])
def test_quotas_are_those_of_hamilton(seed, scale):
    rng = np.random.default_rng(seed)
    sizes = (rng.integers(0, scale, 20) * (rng.random(20) < 0.8)).astype(np.int32)
    for k in (1, 7, int(sizes.sum()) // 3, int(sizes.sum()) - 1, int(sizes.sum())):
        found = np.asarray(quotas(jnp.asarray(sizes), k))
        assert found.tolist() == reference.quotas(sizes.tolist(), k)
        assert found.sum() == k
        assert (found <= sizes).all()


def crowd(seed: int, sizes: list[int]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Separated groups in random order, a quarter labelled, with random margins: -> (pool, group of each)."""
    rng = np.random.default_rng(seed)
    group = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    features = (100 * np.eye(len(sizes))[group] + rng.standard_normal((len(group), len(sizes)))).astype(np.float32)
    known = np.where(rng.random(len(group)) < 0.25, 1, -1).astype(np.int32)
    margins = -rng.permutation(len(group)).astype(np.float32) / len(group)
    return {"known": known, two_view_margin().name: margins, "features": features}, group


SIZES = [70, 50, 31, 17, 9, 6, 5]
KMEANS = strategies.build("ssl_diff2aug_kmeans(clusters=7)")


@pytest.mark.parametrize("seed", range(4))
def test_groups_get_their_shares_and_the_smallest_margins_go_first(seed):
    pool, group = crowd(seed, SIZES)
    expected = reference.proportional(pool[two_view_margin().name], group, pool["known"], 23)
    assert alone(KMEANS, pool, 23, seed) == expected
    direct = alone(strategies.build("ssl_diff2aug_direct"), pool, 23)
    assert direct != expected, "shares matter"
    labelled = pool["known"] >= 0
    moved = np.where(labelled[:, None], np.float32(3e5), pool["features"])
    assert alone(KMEANS, {**pool, "features": moved}, 23, seed) == expected, "labelled examples take no part"
    order = np.argsort(group, kind="stable")
    after = alone(KMEANS, {name: leaf[order] for name, leaf in pool.items()}, 23, seed)
    assert order[after].tolist() == expected, "the order of the pool does not matter"


@pytest.mark.parametrize("offset", [0, 1000])
def test_clusters_are_those_at_the_end_of_lloyd_s_algorithm(offset):
    """Of a crowd without groups, where the first centres are far from the last ones: scikit-learn's from the same."""
    pool, known = some_pool(3, 300, 3), some_pool(3, 300, 3)["known"]
    pool["features"] += np.float32(offset)  # far from the origin, where matrix products lose digits
    pool[two_view_margin().name] = -np.random.default_rng(0).permutation(300).astype(np.float32) / 300
    left, x = known < 0, distances.comparable(jnp.asarray(pool["features"]))
    start = seed_rows(keys_for(0, 0).select, x - x[left].mean(0), jnp.asarray(left), 7)
    expected = {}
    for steps in (10, 50):
        group = np.full(300, -1)
        theirs = KMeans(7, init=np.asarray(x[start], float), n_init=1, max_iter=steps, tol=1e-4)
        with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
            group[left] = theirs.fit_predict(np.asarray(x, float)[left])
        expected[steps] = reference.proportional(pool[two_view_margin().name], group, known, 23)
    assert expected[10] != expected[50], "as of two pools in sixteen: after other random draws, take another one"
    assert alone(KMEANS, pool, 23) == expected[50]


def test_there_are_no_more_clusters_than_picks():
    pool, _ = crowd(0, SIZES)
    assert alone(KMEANS, pool, 3) == alone(strategies.build("ssl_diff2aug_kmeans(clusters=3)"), pool, 3)


@pytest.mark.parametrize("value", [0, np.nan])
def test_few_examples_and_all_alike(value):
    pool, _ = crowd(5, [12, 9, 6])
    left = np.flatnonzero(pool["known"] < 0)
    assert sorted(alone(KMEANS, pool, len(left))) == left.tolist()
    alike = {**pool, "features": np.full_like(pool["features"], value)}
    best = sorted(left, key=lambda i: -pool[two_view_margin().name][i])
    assert alone(KMEANS, alike, 9) == best[:9], "one cluster has all"
    none = {**alike, two_view_margin().name: np.full(27, np.nan, np.float32)}
    assert alone(KMEANS, none, 9) == left[:9].tolist()


def test_eight_devices():
    pools = [crowd(seed, SIZES)[0] for seed in range(3)]
    expected = [alone(KMEANS, pool, 23, seed) for seed, pool in enumerate(pools)]
    assert spread(KMEANS, pools, 23, devices=8) == expected
    assert split(KMEANS, pools[0], 23, devices=8)[0] == expected[0]


# In a lab.


@pytest.fixture(scope="module")
def gathered(blobs):
    """Variance, margin and features with crops and flips, by seeds, devices and scoring batch."""
    needs = (view_variance(4), two_view_margin(), *strategies.build("coreset").needs)

    @functools.cache
    def gather(seeds: tuple[int, ...], devices: int, batch: int) -> list[np.ndarray]:
        one = bench(blobs, seeds, devices, "random")
        model, kernel = linear((8, 8, 1))
        network = augment.network(model, (0.3,), (0.25,), crop=2, flip=True)
        variables = one.lab.lanes.per_run(np.stack([kernel] * len(seeds)))
        found = Gather(one.lab.lanes, network, needs, one.lab.pool, batch)(one.keys, variables, one.known, one.lab.pool)
        return [np.asarray(leaf) for leaf in found]

    return gather


@pytest.mark.parametrize(("seeds", "devices", "batch"), [((3,), 8, 64), ((3, 4), 2, 37)])
def test_batches_devices_and_neighbours_change_nothing(gathered, seeds, devices, batch):
    whole = gathered((3,), 1, 200)
    for signal, expected in zip(gathered(seeds, devices, batch), whole, strict=True):
        np.testing.assert_allclose(signal[:1], expected, rtol=1e-3, atol=1e-6)
        assert expected.std() > 1e-3
    assert len(np.unique(whole[2][0], axis=0)) == 200, "each example has its own features, not its batch"


@pytest.mark.parametrize(
    "text",
    ["ssl_consistency(views=1)", "ssl_consistency(views=2.5)", "ssl_diff2aug_direct(clean=3)",
     "ssl_diff2aug_kmeans(clusters=0)", "ssl_diff2aug_kmeans(clean='no')"],
)  # fmt: skip
def test_options_that_make_no_sense(text):
    with pytest.raises(InputError, match="of ssl_"):
        strategies.build(text)


def test_all_are_made_for_mixmatch():
    names = [name for name in strategies.STRATEGIES if name.startswith("ssl_")]
    assert len(names) == 4
    assert {strategies.build(name).trainer for name in names} == {"mixmatch"}
