"""Sequential GCN: a small graph network learns which examples are labelled, and tells which are least so."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdal import signals
from jaxdal.errors import InputError
from jaxdal.strategies.coreset import farthest_first, gaps
from jaxdal.strategies.distances import directions
from jaxdal.strategies.picking import top_unknown
from jaxdal.types import Array, Strategy, Tree

PUBLISHED_NODES = 10_000  # unlabelled ones in the graph, in the paper and in the comparison
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 5e-4
ISOLATED = 1e-3  # a node whose similarities to all others sum to less is alone; 10,000 times what rounding leaves of 0


class Options(NamedTuple):
    """What both strategies can be told."""

    subset: int | str | None
    hidden_units: int
    dropout: float
    lambda_loss: float
    epochs: int


class Graph(NamedTuple):
    """Nodes and their similarities, f_i.f_j, in O(N d). What is no node is a row of zeros, and touches none."""

    unit: Array  # f32[N, d], f_i: features of length 1
    own: Array  # f32[N], |f_i|², 1 or 0
    inverse: Array  # f32[N], 1 / D_i with D_i the sum of f_i.f_j over all other nodes; 0 for a node that is alone


class Weights(NamedTuple):
    """Parameters of the graph network."""

    first: Array  # f32[d, h]
    first_bias: Array  # f32[h]
    second: Array  # f32[h, 1]
    second_bias: Array  # f32[1]


def product(a: Array, b: Array) -> Array:
    """Multiply in full float32: the scores of nodes differ by less than the products of an accelerator are off."""
    return jnp.matmul(a, b, precision="highest")


def connect(features: Array, node: Array) -> Graph:
    """Make the graph of those examples that take part. features: f32[N, d], node: bool[N]."""
    unit = jnp.where(node[:, None], directions(features), 0)
    own = jnp.sum(jnp.square(unit), axis=1)
    degree = product(unit, jnp.sum(unit, axis=0)) - own
    return Graph(unit, own, jnp.where(degree > ISOLATED, 1 / jnp.maximum(degree, ISOLATED), 0))


def propagate(graph: Graph, y: Array) -> Array:
    """Return A Y for A = (S - I) D^-1 + I, S = F F^T, without the N x N matrix. f32[N, m] -> f32[N, m].

    Each column of (S - I) D^-1 sums to 1, or to 0 for a node that is alone; the diagonal of A is 1.
        A Y = F (F^T D^-1 Y) - D^-1 Y + Y
    is exact, with |f_i|² for the 1 of the diagonal of S, so that a row of zeros is connected with nothing.
    """
    scaled = y * graph.inverse[:, None]
    return product(graph.unit, product(graph.unit.T, scaled)) - graph.own[:, None] * scaled + y


def initial(key: Array, width: int, hidden_units: int) -> Weights:
    """Draw weights and biases from U(-s, s), s = 1 / sqrt(outputs of the layer). width: d."""
    shapes = [(width, hidden_units), (hidden_units,), (hidden_units, 1), (1,)]
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    # One draw, cut to pieces, as for every network here: compiling four takes longer.
    pieces = jnp.split(jax.random.uniform(key, (ends[-1],), minval=-1, maxval=1), ends[:-1])
    return Weights(*(piece.reshape(shape) * shape[-1] ** -0.5 for piece, shape in zip(pieces, shapes, strict=True)))


def hidden_layer(weights: Weights, mixed: Array) -> Array:
    """Return relu(A F W1 + b1). mixed: f32[N, d], A F, which does not change while the network learns -> f32[N, h]."""
    return jax.nn.relu(product(mixed, weights.first) + weights.first_bias)


def logits(weights: Weights, graph: Graph, hidden: Array) -> Array:
    """Return the logit of "is labelled" of every node: A H W2 + b2, f32[N, h] -> f32[N]."""
    return (propagate(graph, product(hidden, weights.second)) + weights.second_bias)[:, 0]


def loss_weights(known: Array, node: Array, lambda_loss: float) -> tuple[Array, Array]:
    """Return how much each node counts in the loss, as labelled and as unlabelled: i32[N], bool[N] -> 2 f32[N]."""
    labelled, unlabelled = (mask.astype(jnp.float32) for mask in (node & (known >= 0), node & (known < 0)))
    return (
        labelled / jnp.maximum(jnp.sum(labelled), 1),
        lambda_loss * unlabelled / jnp.maximum(jnp.sum(unlabelled), 1),
    )


def loss(logit: Array, positive: Array, negative: Array) -> Array:
    """Return -mean of log q over the labelled - lambda mean of log(1 - q) over the rest: f32[]."""
    return -jnp.sum(positive * jax.nn.log_sigmoid(logit) + negative * jax.nn.log_sigmoid(-logit))


def fit(key: Array, graph: Graph, known: Array, node: Array, options: Options) -> tuple[Array, Array]:
    """Train a fresh network on the whole graph: -> hidden f32[N, h], logit f32[N], both without dropout."""
    init_key, dropout_key = jax.random.split(key)
    mixed = propagate(graph, graph.unit)
    positive, negative = loss_weights(known, node, options.lambda_loss)
    optimiser = optax.chain(optax.add_decayed_weights(WEIGHT_DECAY), optax.adam(LEARNING_RATE))
    keep = 1 - options.dropout

    def epoch_loss(weights: Weights, key: Array) -> Array:
        hidden = hidden_layer(weights, mixed)
        if options.dropout > 0:
            hidden = jnp.where(jax.random.bernoulli(key, keep, hidden.shape), hidden / keep, 0)
        return loss(logits(weights, graph, hidden), positive, negative)

    def epoch(number: Array | int, state: tuple[Weights, Tree]) -> tuple[Weights, Tree]:
        weights, moments = state
        gradients = jax.grad(epoch_loss)(weights, jax.random.fold_in(dropout_key, number))
        with jax.numpy_dtype_promotion("standard"):  # Optax takes a Python float to the power of its int32 count
            updates, moments = optimiser.update(gradients, moments, weights)
        return Weights(*optax.apply_updates(weights, updates)), moments

    start = initial(init_key, mixed.shape[1], options.hidden_units)
    weights, _ = jax.lax.fori_loop(0, options.epochs, epoch, (start, optimiser.init(start)))
    hidden = hidden_layer(weights, mixed)
    return hidden, logits(weights, graph, hidden)


def nodes(key: Array, known: Array, subset: int | str | None, k: int) -> Array:
    """Choose who takes part: all that is labelled, and `subset` of the rest, all of it if k is no less. -> bool[N]."""
    size = known.shape[0]
    if subset == "first":
        count = max(PUBLISHED_NODES, k)
    else:
        count = size if subset is None or k >= int(subset) else int(subset)
    if count >= size:
        return jnp.ones(size, jnp.bool_)
    place = jnp.arange(size, dtype=jnp.int32)
    order = place if subset == "first" else jax.random.permutation(key, place)
    return (known >= 0).at[top_unknown(-order.astype(jnp.float32), known, count)].set(True)


def learn(key: Array, known: Array, features: Array, k: int, options: Options) -> tuple[Array, Array, Array]:
    """Choose nodes and train on them: -> node bool[N], hidden f32[N, h], logit f32[N].

    Part of `select`, and not of a signal, since it needs the features of the whole pool, which are gathered by then; a
    signal would compute them once more to prepare itself. Either way its seconds are seconds of selection.
    """
    nodes_key, fit_key = jax.random.split(key)
    node = nodes(nodes_key, known, options.subset, k)
    return node, *fit(fit_key, connect(features, node), known, node, options)


def checked(strategy: str, options: Options) -> Options:
    """Refuse options that mean nothing."""
    for name in ("subset", "hidden_units", "epochs"):
        number = getattr(options, name)
        if name == "subset" and number in (None, "first"):
            continue
        if not (isinstance(number, int) and number >= 1):
            other = ", None or 'first'" if name == "subset" else ""
            raise InputError(f"{name}={number!r} of {strategy} is not a positive whole number{other}")
    if not (isinstance(options.dropout, int | float) and 0 <= options.dropout < 1):
        raise InputError(f"dropout={options.dropout!r} of {strategy} is not in [0, 1)")
    if not (isinstance(options.lambda_loss, int | float) and 0 < options.lambda_loss < float("inf")):
        raise InputError(f"lambda_loss={options.lambda_loss!r} of {strategy} is not a positive number")
    return options


def uncertain_gcn(
    subset: int | str | None = PUBLISHED_NODES, s_margin: float = 0.1, hidden_units: int = 128, dropout: float = 0.3,
    lambda_loss: float = 1.2, epochs: int = 200,
) -> Strategy:  # fmt: skip
    """Buy where a graph network is least sure that an example is labelled: Caramalau et al. 2021 (arXiv 2006.10219).

    Nodes are examples, edges the cosines of their features. Two graph convolutions learn to tell labelled from
    unlabelled nodes; q, their answer, is near 0 far from everything labelled. The smallest |q - s_margin| first.
    features: f32[N, d] -> picks: i32[k].

    subset: unlabelled nodes, drawn anew at every query; all if it is None, or no more than k, since only nodes are
        bought, and buying all of them would be a random choice. The paper buys 1,000 of 10,000. "first" takes the first
        10,000 of the pool (k if that is more), as the published comparison did: where the pool is sorted by class, as
        GTSRB and Tiny-ImageNet are, it can only buy the first few classes.
        Work and memory are those of the whole pool whatever it says: shapes are static, and there may be labels for
        almost all of it.
    s_margin, hidden_units, dropout, lambda_loss, epochs: as in the paper and the comparison.

    Deviations from both:
    - the adjacency is applied in its exact low-rank form: O(N d) and not O(N²) memory, O(N d h) time an epoch;
    - log_sigmoid for log(sigmoid), which is NaN where the sigmoid is saturated;
    - a node that is similar to no other, its features being zero, or opposed to those of most nodes, passes nothing
      on (there it divides by a number near or below 0); a feature that is not finite counts as 0;
    - fewer unlabelled examples than `subset` are all taken (there the shapes do not fit);
    - ties go by index. What is drawn (nodes, dropout) belongs to places in the pool.
    """
    options = checked("uncertain_gcn", Options(subset, hidden_units, dropout, lambda_loss, epochs))
    if not (isinstance(s_margin, int | float) and 0 <= s_margin <= 1):
        raise InputError(f"s_margin={s_margin!r} of uncertain_gcn is not a probability")

    def select(key: Array, known: Array, k: int, memory: Tree, features: Array) -> tuple[Array, Tree]:
        node, _, logit = learn(key, known, features, k, options)
        doubt = -jnp.abs(jax.nn.sigmoid(logit) - s_margin)
        return top_unknown(doubt, jnp.where(node, known, 0), k), memory

    return Strategy(needs=(signals.features,), select=select)


def core_gcn(
    subset: int | str | None = PUBLISHED_NODES, hidden_units: int = 128, dropout: float = 0.3,
    lambda_loss: float = 1.2, epochs: int = 200,
) -> Strategy:  # fmt: skip
    """Greedy k-centre of what the graph network of `uncertain_gcn` sees: Caramalau et al. 2021 (arXiv 2006.10219).

    The examples farthest from all that is labelled or picked, one after another, as `coreset` has it, by the hidden
    layer relu(A F W1 + b1), without dropout. features: f32[N, d] -> picks: i32[k], in order. Options are those of
    `uncertain_gcn`; unlabelled examples that are no nodes are not bought.

    Deviations, besides those of `uncertain_gcn` and `coreset`:
    - the comparison's code appends the logit to the hidden layer; the paper does not, nor do we;
    - the authors' code overwrites the hidden layer with the features, which makes it core-set on a subset.
    """
    options = checked("core_gcn", Options(subset, hidden_units, dropout, lambda_loss, epochs))

    def select(key: Array, known: Array, k: int, memory: Tree, features: Array) -> tuple[Array, Tree]:
        node, hidden, _ = learn(key, known, features, k, options)
        return farthest_first(hidden, jnp.where(node, gaps(hidden, known), -jnp.inf), k), memory

    return Strategy(needs=(signals.features,), select=select)
