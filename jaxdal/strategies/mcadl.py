"""MCADL: density, similarity, uncertainty and what a class still lacks, added up."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdal import signals
from jaxdal.errors import InputError
from jaxdal.strategies.picking import top_unknown
from jaxdal.strategies.scores import best_and_others
from jaxdal.types import Array, Network, Pool, Signal, Strategy, Tree

CHUNK = 1024  # labelled images that every image of a batch is compared with at once
NEIGHBOURS = 5  # labelled images whose answers give an image its pseudo-class
MODES = ("paper-intent", "reference")


class Labelled(NamedTuple):
    """The labelled images, as others are compared with them."""

    x: Array  # u8[N, H, W, C], the whole pool: how many of it are labelled is no static number
    places: Array  # i32[at least N], where the labelled ones are, padded to whole chunks
    total: Array  # i32[], how many there are
    label: Array  # i32[N], -1 for the others
    answer: Array  # i32[N], of the network, for the labelled ones
    mean: Array  # f32[K, D], of the unit vectors of each class; 0 for a class that nobody is labelled with
    members: Array  # f32[K]

    @property
    def chunks(self) -> Array:
        """How many chunks have anybody in them: work follows the number of labels, whatever the shapes."""
        return (self.total + self.width - 1) // self.width

    @property
    def width(self) -> int:
        """Images in a chunk."""
        return min(CHUNK, len(self.label))

    def chunk(self, number: Array) -> tuple[Array, Array]:
        """Return the rows of one chunk, i32[width], and which of them are labelled images, bool[width]."""
        begin = number * self.width
        rows = jax.lax.dynamic_slice_in_dim(self.places, begin, self.width)
        return rows, begin + jnp.arange(self.width, dtype=jnp.int32) < self.total


def unit(x: Array) -> Array:
    """Raw pixels as vectors of length 1; an image that is black all over stays 0. u8[B, H, W, C] -> f32[B, H W C]."""
    flat = x.reshape(len(x), -1).astype(jnp.float32)
    return flat / jnp.maximum(jnp.linalg.norm(flat, axis=-1, keepdims=True), 1.0)


def cosines(unit_x: Array, unit_y: Array) -> Array:
    """f32[B, D], f32[M, D] -> f32[B, M]."""
    return jnp.matmul(unit_x, unit_y.T, precision="highest")


def prepare(key: Array, network: Network, variables: Tree, pool: Pool, known: Array) -> Labelled:
    """One pass over the labelled images: the network's answers, and the mean direction of each class."""
    del key
    size = known.shape[0]
    labelled = known >= 0
    places = jnp.nonzero(labelled, size=size, fill_value=0)[0].astype(jnp.int32)
    places = jnp.pad(places, (0, -size % min(CHUNK, size)))
    logits, _ = jax.eval_shape(network.apply, variables, network.normalise(pool.x[:1]))
    classes = logits.shape[-1]
    dimensions = pool.x[0].size
    blank = Labelled(
        pool.x, places, jnp.sum(labelled, dtype=jnp.int32), jnp.asarray(known), jnp.full(size, -1, jnp.int32),
        jnp.zeros((classes, dimensions)), jnp.zeros(classes),
    )  # fmt: skip

    def look(number: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        answer, sums, members = state
        rows, valid = blank.chunk(number)
        x = pool.x[rows]
        found = jnp.argmax(network.apply(variables, network.normalise(x))[0], axis=-1).astype(jnp.int32)
        is_of = jax.nn.one_hot(jnp.where(valid, blank.label[rows], -1), classes)  # a product, so that GPUs add in order
        sums += jnp.matmul(is_of.T, unit(x), precision="highest")
        answer = answer.at[jnp.where(valid, rows, size)].set(found, mode="drop")
        return answer, sums, members + jnp.sum(is_of, axis=0)

    start = (blank.answer, blank.mean, blank.members)
    answer, sums, members = jax.lax.fori_loop(jnp.int32(0), blank.chunks, look, start)
    return blank._replace(answer=answer, mean=sums / jnp.maximum(members, 1.0)[:, None], members=members)


def likeness_of(keys: Array, network: Network, variables: Tree, aux: Labelled, x: Array) -> Array:
    """Compare a batch with all labelled images: u8[B, H, W, C] -> f32[B, 3], see `likeness`."""
    del keys, network, variables
    x = unit(x)
    rows = len(x)

    def compare(number: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
        """Keep the largest cosines, in descending order, and whose they are; the first of equal ones."""
        others, valid = aux.chunk(number)
        found = jnp.where(valid, cosines(x, unit(aux.x[others])), -jnp.inf)
        cosine = jnp.concatenate([best[0], found], axis=1)
        other = jnp.concatenate([best[1], jnp.broadcast_to(others, found.shape)], axis=1)
        top, column = jax.lax.top_k(cosine, NEIGHBOURS)
        return top, jnp.take_along_axis(other, column, axis=1)

    nobody = jnp.full((rows, NEIGHBOURS), -jnp.inf), jnp.zeros((rows, NEIGHBOURS), jnp.int32)
    cosine, other = jax.lax.fori_loop(jnp.int32(0), aux.chunks, compare, nobody)
    votes = jax.nn.one_hot(jnp.where(cosine > -jnp.inf, aux.answer[other], -1), len(aux.members))
    pseudo = jnp.argmax(jnp.sum(votes, axis=1), axis=-1).astype(jnp.int32)

    # If a neighbour is of the pseudo-class, the nearest one of that class is a neighbour. Only where the network is
    # wrong about all those who voted for it must everybody be asked again.
    same = (cosine > -jnp.inf) & (aux.label[other] == pseudo[:, None])
    largest = jnp.max(jnp.where(same, cosine, -jnp.inf), axis=1)
    lacking = (largest == -jnp.inf) & (aux.members[pseudo] > 0)

    def ask(number: Array, largest: Array) -> Array:
        others, valid = aux.chunk(number)
        same = valid & (aux.label[others] == pseudo[:, None])
        found = jnp.max(jnp.where(same, cosines(x, unit(aux.x[others])), -jnp.inf), axis=1)
        return jnp.where(lacking, jnp.maximum(largest, found), largest)

    again = jnp.where(jnp.any(lacking), aux.chunks, 0)
    largest = jax.lax.fori_loop(jnp.int32(0), again, ask, largest)
    mean = jnp.take_along_axis(cosines(x, aux.mean), pseudo[:, None], axis=1)[:, 0]
    return jnp.stack([pseudo.astype(jnp.float32), mean, jnp.where(largest > -jnp.inf, largest, 0.0)], axis=1)


# f32[N, 3]: the pseudo-class, a whole number: the answer of the network for most of the 5 labelled images of largest
# cosine, the least of equal ones; mean and largest cosine to those that are labelled with that class, 0 if none are.
# Cosines are of raw pixels. Of the N x L of them a batch holds B x CHUNK, and the mean is the cosine to the mean. The
# network is asked about the labelled images once more in `prepare`, since a signal does not see another one, and `aux`
# has a copy of the pool's bytes for every run: that is what it takes to compare where the batches are.
likeness = Signal("likeness", likeness_of, prepare)


class Exams(NamedTuple):
    """Answers to be marked when the labels are known: i32[N], -1 where there is none."""

    bought: Array  # of the network that bought the last batch, for that batch
    last: Array  # those that were marked at the last query


def marks(exam: Array, known: Array, classes: int) -> tuple[Array, Array]:
    """Share of right answers for each class, f32[K], and for all, f32[]; a class that was not asked gets that of all.

    0 if nothing was asked.
    """
    asked = (exam >= 0) & (known >= 0)
    right = asked & (exam == known)
    label = jnp.where(asked, known, classes)
    total = jnp.zeros(classes).at[label].add(1.0, mode="drop")
    hits = jnp.zeros(classes).at[label].add(right.astype(jnp.float32), mode="drop")
    overall = jnp.sum(hits) / jnp.maximum(jnp.sum(total), 1.0)
    return jnp.where(total > 0, hits / jnp.maximum(total, 1.0), overall), overall


def class_weights(now: Array, last: Array) -> Array:
    """What is labelled next with class c is worth w_c: f32[K] >= 0, sum 1, from the accuracies now and last time.

    While a class is below 1/2, the classes that improve, by how much (all alike if none does); later, 1 / accuracy.
    """
    gain = jnp.maximum(now - last, 0.0)
    early = jnp.where(jnp.sum(gain) > 0, gain, 1.0)
    worth = jnp.where(jnp.min(now) < 0.5, early, 1.0 / jnp.maximum(now, 0.5))
    return worth / jnp.sum(worth)


def best_versus_second(probs: Array) -> Array:
    """1 - (p_1 - p_2): a term of a sum, so that what rounds to 0 would add nothing anyway. f32[N, K] -> f32[N]."""
    best, others = best_and_others(probs)
    return 1.0 + (jnp.max(others, axis=-1) - best)


def spread_of_top(probs: Array) -> Array:
    """1 - mean |p - mean p| over the fewest top classes that make more than 1/2 together: f32[N, K] -> f32[N].

    As published, where it stands for uncertainty: it is 1, the most there is, for whatever one class alone makes sure.
    """
    p = -jnp.sort(-probs, axis=-1)
    top = (jnp.cumsum(p, axis=-1) - p <= 0.5).astype(jnp.float32)
    number = jnp.sum(top, axis=-1, keepdims=True)
    mean = jnp.sum(p * top, axis=-1, keepdims=True) / number
    return 1.0 - jnp.sum(jnp.abs(p - mean) * top, axis=-1) / number[:, 0]


def mcadl(mode: str = "paper-intent") -> Strategy:
    """Multi-criteria active deep learning (Yuan et al. 2019, Knowledge-Based Systems 172): largest sum of four first.

    With s the pseudo-class of an example, cosines being of raw pixels (`likeness`), and A an accuracy,
        density = 1 - mean cosine to what is labelled s,    similarity = 1 - largest cosine to what is labelled s,
        a = b = 0.9 exp(-A),    info = a (density + similarity) / 2 + (1 - a) (b u + (1 - b) w_s),
    w being `class_weights`. These are the formulas of the comparison's published code (arXiv 2212.03088).

    mode: where the network is asked about accuracy, and the uncertainty u.
        "paper-intent": the batch bought last, by the answers given before its labels were known, so that accuracies
            say something; u = 1 - (p_1 - p_2), as the authors of the method have it. At the first query A is 0.
        "reference", as published: all that is labelled, on which the network has just been trained: A is close to 1 and
            w to 1 / K; u is `spread_of_top`, the largest for what the network is sure of.

    Deviations from the published code, in both modes:
    - K classes, where it has 10; five different neighbours, where equal cosines count one several times;
    - where nobody is labelled with s, density and similarity are 1 (there: an error); a black image is at cosine 0;
    - of classes with as many votes the first is s; a class that no answer was marked for counts as the average;
    - before the first query all accuracies were 0.
    The network answers for the labelled images in a loop, which is slow for convolutional networks on a CPU
    (jax-ml/jax#12868), except for lenet.
    """
    if mode not in MODES:
        raise InputError(f"mode={mode!r} of mcadl is neither {' nor '.join(map(repr, MODES))}")

    def memory(size: int) -> Exams:
        return Exams(jnp.full(size, -1, jnp.int32), jnp.full(size, -1, jnp.int32))

    def select(key: Array, known: Array, k: int, memory: Exams, likeness: Array, probs: Array) -> tuple[Array, Tree]:
        del key
        answer, classes = jnp.argmax(probs, axis=-1).astype(jnp.int32), probs.shape[-1]
        if mode == "reference":
            exam, u = jnp.where(known >= 0, answer, -1), spread_of_top(probs)
        else:
            exam, u = memory.bought, best_versus_second(probs)
        now, accuracy = marks(exam, known, classes)
        last, _ = marks(memory.last, known, classes)
        worth = class_weights(now, last)[likeness[:, 0].astype(jnp.int32)]
        a = b = 0.9 * jnp.exp(-accuracy)
        info = a * (1.0 - (likeness[:, 1] + likeness[:, 2]) / 2.0) + (1.0 - a) * (b * u + (1.0 - b) * worth)
        picks = top_unknown(info, known, k)
        return picks, Exams(jnp.full(known.shape, -1, jnp.int32).at[picks].set(answer[picks]), exam)

    return Strategy(needs=(likeness, signals.probs), select=select, memory=memory)
