"""Strategies for networks that learn from unlabelled images too: what differently augmented views of an image say."""

import jax
import jax.numpy as jnp

from jaxdal import signals
from jaxdal.errors import InputError
from jaxdal.strategies.distances import comparable
from jaxdal.strategies.kmeans import lloyd, seed_rows
from jaxdal.strategies.picking import top_unknown
from jaxdal.strategies.scores import margin_score, random
from jaxdal.types import Array, Network, Signal, Strategy, Tree

TRAINER = "mixmatch"  # of all four, as in the published runs


def _answers(network: Network, variables: Tree, x: Array) -> Array:
    """Softmax of prepared images: f32[B, H, W, C] -> f32[B, K]."""
    logits, _ = network.apply(variables, x)
    return jax.nn.softmax(logits)


def _random_view(network: Network, keys: Array, number: Array | int, x: Array) -> Array:
    """Augment each image by its own key: key[B], the number of the view, u8[B, H, W, C] -> f32[B, H, W, C]."""

    def one(key: Array, image: Array) -> Array:
        return network.augment(jax.random.fold_in(key, number), image[None])[0]

    return jax.vmap(one)(keys, x)


def view_variance(views: int = 50) -> Signal:
    """How much the answer depends on the augmentation: the sum over classes of the variance over views, f32[N].

    sum_c Var_k p_c(a_k(x)) with divisor `views`: Gao et al. (2020, arXiv 1910.07153). Views are streamed, so that a
    batch takes O(B K) memory however many there are, and by Welford's update (1962): views that agree have exactly 0,
    and sure examples have variances of 1e-8, which a difference of squares would lose.

    Where there are few views at all (`Network.views`: crops are off), it is the expectation, of each view once. Of an
    image and its mirror image that is |p(x) - p(flip x)|² / 4; of one view it is 0.
    """
    if not (isinstance(views, int) and views >= 2):
        raise InputError(f"views={views} of ssl_consistency is not a number of views from 2 on")

    def per_batch(keys: Array, network: Network, variables: Tree, aux: Tree, x: Array) -> Array:
        del aux
        if network.views is not None:
            answers = jnp.stack([_answers(network, variables, view) for view in network.views(x)])
            return jnp.sum(jnp.var(answers, axis=0), axis=-1)

        def look(number: Array, so_far: tuple[Array, Array]) -> tuple[Array, Array]:
            mean, squares = so_far
            probs = _answers(network, variables, _random_view(network, keys, number, x))
            # A fused multiply-add may subtract from what probs was before it was rounded: 0 is said, not computed.
            step = jnp.where(probs != mean, probs - mean, 0)
            weight = 1 / (number + 1).astype(jnp.float32)
            return mean + weight * step, squares + (1 - weight) * jnp.square(step)

        blank = jnp.zeros(jax.eval_shape(lambda: _answers(network, variables, network.normalise(x))).shape)
        _, squares = jax.lax.fori_loop(0, views, look, (blank, blank))
        return jnp.sum(squares, axis=-1) / views

    alike = "all views of an image are alike and picks are random"
    return Signal(f"view_variance_{views}", per_batch, unaugmented=alike)


def two_view_margin(clean: bool = True) -> Signal:
    """`margin_score` of the mean answer to two views: f32[N], the larger, the smaller the margin.

    Song et al. (2019, arXiv 1912.00594): Diff2Aug. clean: the first view is the image as it is.
    """
    if not isinstance(clean, bool):
        raise InputError(f"clean={clean} of ssl_diff2aug is neither True nor False")

    def per_batch(keys: Array, network: Network, variables: Tree, aux: Tree, x: Array) -> Array:
        del aux
        first = network.normalise(x) if clean else _random_view(network, keys, 0, x)
        views = first, _random_view(network, keys, 1, x)
        one, other = (_answers(network, variables, view) for view in views)
        return margin_score((one + other) / 2)

    alike = "both views of an image are alike and their margin is the plain one"
    return Signal(f"two_view_margin_{'clean' if clean else 'augmented'}", per_batch, unaugmented=alike)


def ssl_random() -> Strategy:
    """Uniform without replacement, of a network trained by MixMatch: what the other three must beat."""
    return random()._replace(trainer=TRAINER)


def ssl_consistency(views: int = 50) -> Strategy:
    """The largest variance of the answer over random augmentations first: Gao et al. (2020), `view_variance`.

    Ties go by the key, not by the order of the file, which may be that of the classes: where nothing is augmented all
    variances are 0.
    views: augmentations per image, each a forward pass; 50 as in the published runs.
    Deviations from the published code:
    - crops off (MNIST): the two views there are, once each; 50 passes would estimate their shares at random;
    - keys per example and view: the batch size of scoring changes nothing.
    Kept from it: the clean image is none of the views, where the paper is said to count it as one more; the variance is
    the biased one; MixMatch trains the network.
    A loop of forward passes is slow for convolutional networks on a CPU (jax-ml/jax#12868), except for lenet.
    """

    def select(key: Array, known: Array, k: int, memory: Tree, variance: Array) -> tuple[Array, Tree]:
        order = jax.random.permutation(key, jnp.arange(known.shape[0], dtype=jnp.int32))
        return order[top_unknown(variance[order], known[order], k)], memory

    return Strategy(needs=(view_variance(views),), select=select, trainer=TRAINER)


def ssl_diff2aug_direct(clean: bool = True) -> Strategy:
    """The smallest margin of the mean answer to two views first: Song et al. (2019), `two_view_margin`.

    clean: the image itself and one augmentation, as in the published runs; False: two augmentations, as in the paper of
    the method, whose own code scores the clean image alone, by mistake.
    """

    def select(key: Array, known: Array, k: int, memory: Tree, margin: Array) -> tuple[Array, Tree]:
        del key
        return top_unknown(margin, known, k), memory

    return Strategy(needs=(two_view_margin(clean),), select=select, trainer=TRAINER)


def quotas(counts: Array, k: int) -> Array:
    """Share k picks among clusters in proportion to their sizes, by largest remainder (Hamilton): i32[c] -> i32[c].

    counts: sizes, k or more in all. The sum is k, and no quota is more than its size: k count / total rounded down, or
    up for the largest remainders, the first of equal ones. By long division, as the product may overflow.
    """
    total = jnp.maximum(jnp.sum(counts), 1)
    quota = rest = jnp.zeros_like(counts)
    for bit in f"{k:b}":
        rest = 2 * rest + int(bit) * counts
        quota, rest = 2 * quota + rest // total, rest % total
    left = k - jnp.sum(quota)
    place = jnp.arange(counts.shape[0], dtype=jnp.int32)
    return quota.at[jnp.argsort(-rest, stable=True)].add((place < left).astype(jnp.int32))


def ssl_diff2aug_kmeans(clusters: int = 20, clean: bool = True) -> Strategy:
    """The smallest margins of two views within each of 20 clusters, in proportion to its size: Song et al. (2019).

    Clusters are those of the unlabelled examples, by k-means (strategies/kmeans.py: k-means++, one start, at most 50
    steps) on features f32[N, d], the input of the last layer. A cluster's quota is its share of the unlabelled examples
    (`quotas`); within it the smallest `two_view_margin` goes first. picks: i32[k], smallest margin first.

    clusters: 20 as in the papers, and at most k; with 1 this is `ssl_diff2aug_direct`. clean: as there.
    Deviations from the published code:
    - Each example has its own features. There all examples of a batch get those of its second one (a stray `[1]`), so
      that k-means sees a point per batch (98 for CIFAR-10) and its clusters are stretches of the file.
    - Labelled examples take no part. There the whole pool is clustered, and then what is unlabelled of it counted.
    - Pooled features, and not the flattened last map (2,048 numbers for CIFAR-10).
    - Quotas by largest remainder. There what rounding leaves over goes round from the first cluster on.
    - A feature that is not finite counts as 0.
    """
    if not (isinstance(clusters, int) and clusters >= 1):
        raise InputError(f"clusters={clusters} of ssl_diff2aug_kmeans is not a positive whole number")

    def select(key: Array, known: Array, k: int, memory: Tree, margin: Array, features: Array) -> tuple[Array, Tree]:
        member = known < 0
        x = comparable(features)
        share = member.astype(jnp.float32)[:, None]
        x = x - jnp.sum(x * share, axis=0) / jnp.sum(share)
        count = min(clusters, k)
        _, owner, _ = lloyd(x, member, x[seed_rows(key, x, member, count)], max_iter=50, tol=1e-4)
        sizes = jax.ops.segment_sum(member.astype(jnp.int32), owner, count)

        # The order by cluster, and within it by ascending margin: a cluster's first ones, as many as its quota, are
        # bought. What is known comes after all clusters.
        order = top_unknown(margin, known, known.shape[0])
        order = order[jnp.argsort(owner[order], stable=True)]
        cluster = jnp.minimum(owner[order], count - 1)
        rank = jnp.arange(known.shape[0], dtype=jnp.int32) - (jnp.cumsum(sizes) - sizes)[cluster]
        bought = jnp.zeros_like(member).at[order].set(rank < quotas(sizes, k)[cluster]) & member
        return top_unknown(margin, jnp.where(bought, -1, 0), k), memory

    return Strategy(needs=(two_view_margin(clean), signals.features), select=select, trainer=TRAINER)
