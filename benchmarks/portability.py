"""Does this backend compute what the references do? Kernels and trainers in small, then tiny rounds, f32 and bf16.

    python -m benchmarks.portability                     # all of it
    python -m benchmarks.portability --strategies=all    # a tiny round of every strategy: minutes of compilation
    python -m benchmarks.portability --parts=kernels   # one GPU, 60 s
    python -m benchmarks.portability --parts=training   # one GPU, 90 s
    python -m benchmarks.portability --parts=rounds   # one GPU, 120 s

`error` is the largest deviation from the float64 references of tests/reference (from a checkout), relative to their
largest value, or the share of picks that differ; of ResNet-18, the deviation from the same program in f32 on the CPU.
Selection works in f32 whatever the precision of the network. Convolutions in f32 may be TF32 on an accelerator, which
the tolerance of networks allows. The exit code is 1 if a row fails.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxdal
from benchmarks.checking import (
    BF16,
    CLASSES,
    DTYPES,
    F32,
    PICKS,
    SIZE,
    TF32,
    WIDTH,
    Check,
    linear_network,
    off,
    other,
    picks,
    some_pool,
)
from benchmarks.portability_training import bandit, distortions, games, trainers, views
from benchmarks.selecting import Pool
from benchmarks.timing import Report, Row, environment, rounded
from jaxdal import augment, models, strategies
from jaxdal.errors import InputError
from jaxdal.models.convolution import conv2d, conv_transpose2d
from jaxdal.types import Dataset
from jaxdal.types import Pool as Images


def scores(pool: Pool) -> Iterator[Check]:
    """The uncertainty trio, and its picks."""
    from reference import scores as reference

    from jaxdal.strategies import scores as ours

    probs = np.asarray(jax.nn.softmax(pool.logits))
    exact = reference.softmax(pool.logits)
    rules = {
        "least_confidence": (ours.least_confidence_score, reference.least_confidence, probs, 1),
        "margin": (ours.margin_score, reference.margin, probs, -1),
        "entropy": (ours.entropy_score, reference.entropy, pool.logits, 1),
    }
    for name, (score, expected_score, signal, sign) in rules.items():
        found, expected = jax.jit(score)(signal), reference.of_all(expected_score, exact)
        yield f"{name}: score", "f32", off(np.abs(found), np.abs(expected)), F32
        bought = reference.most_uncertain(sign * expected, pool.known, PICKS)
        yield f"{name}: picks", "f32", other(picks(name, pool, signal), bought), 0.0


def distances(pool: Pool) -> Iterator[Check]:
    """Core-set, BADGE and k-means: rules that compare features."""
    from reference import badge as gradients
    from reference import coreset, kmeans, scores

    ours, lloyd = import_module("jaxdal.strategies.badge"), import_module("jaxdal.strategies.kmeans")
    expected, _, _ = coreset.k_centre_greedy(pool.features, pool.known, PICKS)
    yield "coreset: picks", "f32", other(picks("coreset", pool, pool.features), expected), 0.0

    g = gradients.gradients(scores.softmax(pool.logits), pool.features)
    first = picks("badge", pool, pool.logits, pool.features)[0]
    yield "badge: first pick", "f32", other(first, gradients.largest(g, pool.known)), 0.0
    a = ours.residuals(jnp.asarray(pool.logits), jnp.asarray(pool.known))
    rows = np.asarray([3, 77], np.int32)
    found = jax.jit(ours.squared_distances_to)(a, pool.features, rows)
    squares = np.square(g[rows][:, None] - g[None]).sum(-1)
    plain = gradients.gradients(scores.softmax(pool.logits), np.ones((SIZE, 1)))
    unit = float(a[0, 0]) / plain[0, 0]
    yield "badge: distances", "f32", off(found, squares * unit**2), F32

    member = pool.known < 0
    x, start = pool.features[member].astype(np.float64), pool.features[member][:7]
    centres = jax.jit(lloyd.lloyd)(pool.features, member, start, np.int32(5), np.float32(0))[0]
    yield "kmeans: centres", "f32", off(centres, kmeans.lloyd(x, start.astype(np.float64), 5)[0]), 1e-3


def graphs(pool: Pool) -> Iterator[Check]:
    """The graph network, and the tree of Cluster-Margin."""
    from reference import cluster_margin, gcn

    ours, tree = import_module("jaxdal.strategies.gcn"), import_module("jaxdal.strategies.linkage")
    node, labelled, unit = np.ones(SIZE, bool), pool.known >= 0, gcn.unit_rows(pool.features)
    a, y = gcn.adjacency(unit), np.random.default_rng(1).standard_normal((SIZE, 3)).astype(np.float32)
    graph = jax.jit(ours.connect)(pool.features, node)
    yield "gcn: adjacency x matrix", "f32", off(jax.jit(ours.propagate)(graph, y), a @ y), F32
    weights = ours.initial(jax.random.key(0), WIDTH, 11)

    def loss(weights: Any) -> jax.Array:
        hidden = ours.hidden_layer(weights, ours.propagate(graph, graph.unit))
        return ours.loss(ours.logits(weights, graph, hidden), *ours.loss_weights(pool.known, node, 1.2))

    exact = gcn.gradients([np.asarray(leaf, np.float64) for leaf in weights], a, unit, labelled)
    found = jax.jit(jax.grad(loss))(weights)
    yield "gcn: gradient", "f32", max(map(off, found, exact)), F32

    rows = pool.features[:30]
    _, _, height = jax.jit(tree.average_linkage)(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    merges = cluster_margin.average_linkage(rows)
    yield "cluster_margin: heights", "f32", off(np.sort(height), [merge[2] for merge in merges]), F32


def pixels(pool: Pool) -> Iterator[Check]:
    """AdversarialBIM and MCADL, which look at images; learning loss."""
    from reference import adversarial_bim, learning_loss, mcadl

    bim, likeness = import_module("jaxdal.strategies.adversarial_bim"), import_module("jaxdal.strategies.mcadl")
    ranking = import_module("jaxdal.strategies.learning_loss")
    rng = np.random.default_rng(2)
    x = rng.integers(0, 256, (SIZE, 2, 3, 2), np.uint8)
    kernel, bias = rng.standard_normal((12, CLASSES)).astype(np.float32), np.zeros(CLASSES, np.float32)
    network, some = linear_network(kernel, bias), x[:40]
    signal, keys = bim.squared_distance(0.05, 100), jax.random.split(jax.random.key(0), 40)
    found = jax.jit(lambda keys, x: signal.per_batch(keys, network, {}, (), x))(keys, some)
    f, gradient = adversarial_bim.linear(kernel.astype(np.float64), bias.astype(np.float64))
    expected = [adversarial_bim.squared_distance(f, gradient, one.astype(float) / 64 - 2, 0.05, 100) for one in some]
    # A step more or less where float32 is at a boundary: one in twenty, as the tests have it.
    yield "adversarial_bim: distances", "f32", float(np.mean(~np.isclose(found, expected, rtol=1e-4))), 0.05

    def measure(x: jax.Array, known: jax.Array) -> jax.Array:
        aux = likeness.prepare(jax.random.key(0), network, {}, Images(x), known)
        return likeness.likeness_of(None, network, {}, aux, x)

    answer = np.argmax([f(one.astype(float) / 64 - 2) for one in x], axis=1)
    exact = mcadl.likeness(mcadl.cosines(x), pool.known, answer)
    yield "mcadl: likeness", "f32", off(jax.jit(measure)(x, pool.known), exact), F32

    predicted, losses = rng.standard_normal((2, 16)).astype(np.float32)
    loss = jax.jit(ranking.ranking_loss)(predicted, losses, 1.0)
    yield "learning_loss: loss", "f32", off(loss, learning_loss.ranking_loss(predicted, losses, 1.0)), F32
    maps = [rng.standard_normal((5, side, side, 8)).astype(np.float32) for side in (8, 4)]
    helpers = ranking.LossModule().init(jax.random.key(0), tuple(maps))["params"]
    helpers = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), helpers)
    layers = [tuple(np.asarray(helpers[f"Linear_{n}"][part]) for part in ("kernel", "bias")) for n in range(3)]
    found = jax.jit(ranking.predict)(helpers, tuple(maps))
    yield "learning_loss: predicted", "f32", off(found, learning_loss.predict(layers, maps)), TF32


def convolution(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The sum written out, in float64, padded by one pixel: [B, H, W, C], [3, 3, C, O] -> [B, H, W, O]."""
    side, padded = x.shape[1], np.pad(x.astype(np.float64), [(0, 0), (1, 1), (1, 1), (0, 0)])
    shifts = [(i, j) for i in range(3) for j in range(3)]
    parts = [padded[:, i : i + side, j : j + side] @ w[i, j].astype(np.float64) for i, j in shifts]
    return np.asarray(np.sum(parts, axis=0))


def convolutions(precision: str) -> Iterator[Check]:
    """Three runs packed into one convolution, against each run by itself."""
    from reference.vaal import transposed

    rng, tolerance = np.random.default_rng(3), BF16 if precision == "bf16" else TF32
    x = rng.standard_normal((3, 2, 6, 6, 2)).astype(DTYPES[precision]).astype(np.float32)
    w = rng.standard_normal((3, 3, 3, 2, 4)).astype(DTYPES[precision]).astype(np.float32)
    dy = rng.standard_normal((3, 2, 6, 6, 4)).astype(DTYPES[precision]).astype(np.float32)
    typed = [jnp.asarray(value, DTYPES[precision]) for value in (x, w, dy)]

    @jax.jit
    @jax.vmap
    def packed(x: jax.Array, w: jax.Array, dy: jax.Array) -> tuple[jax.Array, ...]:
        y, pull_back = jax.vjp(lambda x, w: conv2d(x, w, 1, 1), x, w)
        return y, *pull_back(dy)

    y, dx, dw = (np.asarray(leaf, np.float32) for leaf in packed(*typed))
    yield "packed convolution", precision, off(y, np.stack(list(map(convolution, x, w)))), tolerance
    turned = w[:, ::-1, ::-1].swapaxes(-1, -2)  # the gradient of the images is a convolution with the turned kernel
    yield "its gradient by images", precision, off(dx, np.stack(list(map(convolution, dy, turned)))), tolerance
    padded, shifts = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)]).astype(np.float64), np.ndindex(3, 3)
    exact = [np.einsum("rbhwc,rbhwo->rco", padded[:, :, i : i + 6, j : j + 6], dy) for i, j in shifts]
    yield "its gradient by kernels", precision, off(dw, np.stack(exact, 1).reshape(w.shape)), tolerance
    back = jax.jit(jax.vmap(lambda y, w: conv_transpose2d(y, w, 2, 1)))(typed[2], typed[1])
    pairs = zip(dy.astype(np.float64), w.astype(np.float64), strict=True)
    exact = [transposed(one, kernel, 2, 1) for one, kernel in pairs]
    yield "packed transpose", precision, off(np.asarray(back, np.float32), np.stack(exact)), tolerance


def networks(precision: str) -> Iterator[Check]:
    """LeNet and BALD against loops in float64; ResNet-18 against a CPU."""
    from reference import bald, scores

    from jaxdal.models.lenet import _masks

    tolerance = BF16 if precision == "bf16" else TF32
    rng = np.random.default_rng(4)
    images = rng.integers(0, 256, (6, 28, 28, 1), np.uint8)
    model = models.build("lenet", (28, 28, 1), 10, DTYPES[precision])
    variables, keys = model.init(jax.random.key(1)), jax.random.split(jax.random.key(2), 6)
    network = augment.network(model, (0.13,), (0.31,), crop=0, flip=False)
    x = (images / 255 - 0.13) / 0.31
    exact = [bald.lenet(variables["params"], one, np.ones(20), np.ones(50)) for one in x]
    found, _ = jax.jit(lambda x: network.apply(variables, network.normalise(x)))(images)
    yield "lenet: logits", precision, off(found, np.stack(exact)), tolerance

    signal = import_module("jaxdal.strategies.bald").mutual_information(5)
    information = jax.jit(lambda keys, x: signal.per_batch(keys, network, variables, (), x))(keys, images)
    passes = []
    for t in range(5):
        channels, units = _masks(jax.vmap(jax.random.fold_in, (0, None))(keys, t))
        factors = zip(x, np.asarray(channels), np.asarray(units), strict=True)
        answers = [bald.lenet(variables["params"], *one) for one in factors]
        passes.append(scores.softmax(np.stack(answers)))
    expected = [bald.information(np.stack(passes)[:, example]) for example in range(6)]
    yield "bald: information", precision, off(information, expected), 3 * tolerance  # a difference of near numbers

    images = rng.integers(0, 256, (8, 32, 32, 3), np.uint8)
    model = models.build("resnet18_thin", (32, 32, 3), 10)
    variables = jax.tree.map(np.asarray, model.init(jax.random.key(1)))
    logits = []
    for dtype, device in ((DTYPES[precision], jax.devices()[0]), (jnp.float32, jax.devices("cpu")[0])):
        with jax.default_device(device):
            model = models.build("resnet18_thin", (32, 32, 3), 10, dtype)
            network = augment.network(model, (0.5,) * 3, (0.25,) * 3, crop=4, flip=True)
            apply = jax.jit(lambda variables, x, network=network: network.apply(variables, network.normalise(x))[0])
            logits.append(np.asarray(apply(variables, images)))
    yield "resnet18_thin: logits", precision, off(*logits), 2 * tolerance  # of 20 layers


def spots(channels: int) -> Dataset:
    """A bright spot at the place of its class, and noise: 8x8 images that are learnt in some tens of steps."""
    rng = np.random.default_rng(5)

    def draw(size: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(size) % 4
        images = rng.integers(0, 60, (size, 2, 4, 2, 4, channels))
        images[np.arange(size), labels // 2, :, labels % 2] += 120
        return images.reshape(size, 8, 8, channels).astype(np.uint8), labels

    return jaxdal.from_arrays(*draw(200), *draw(80), num_classes=4)


def tiny_round(strategy: str, model: str, precision: str) -> Iterator[Check]:
    """Two packed runs, one query; the journal refuses picks that are not valid."""
    with tempfile.TemporaryDirectory() as folder:
        result = jaxdal.run(
            spots(1 if model == "lenet" else 3), strategy, workdir=folder, quiet=True, model=model,
            precision=precision, seeds=(0, 1), pack=2, n_start=40, n_query=10, n_end=50, epochs=20, batch=20,
            learning_rate=0.1, crop=0, mirror=False,
        )  # fmt: skip
    wrong = [1 - line.get("accuracy", 0.0) for line in result.groups[-1]]
    yield f"{strategy}, {model}: wrong answers", precision, max(wrong), 0.1


def checks(parts: Sequence[str], names: Sequence[str]) -> Iterator[Check]:
    """All of the parts; a family that breaks is one row that fails. names: the strategies of the rounds."""
    pool = some_pool()
    families: list[partial[Iterator[Check]]] = []
    if "kernels" in parts:
        families += [partial(family, pool) for family in (scores, distances, graphs, pixels)]
        families += [partial(family, precision) for precision in DTYPES for family in (convolutions, networks)]
    if "training" in parts:
        families += [partial(bandit, pool), partial(views, pool), *map(partial, (distortions, games, trainers))]
    if "rounds" in parts:
        families += [partial(tiny_round, "margin", "resnet18_thin", precision) for precision in DTYPES]
        families += [partial(tiny_round, name, "lenet", "f32") for name in names]
    for family in families:
        try:
            yield from family()
        except InputError as error:
            print(f"left out: {family.args}: {error}", file=sys.stderr, flush=True)
        except Exception as error:
            yield f"{family.func.__name__}: {type(error).__name__}: {error}", "-", np.inf, 0.0


def main(argv: Sequence[str]) -> Report:
    """Check, print and save."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.portability", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--strategies", default="margin", help="all, or names with commas: a tiny round of each")
    parser.add_argument("--parts", default="kernels,training,rounds", help="some of these")
    parser.add_argument("--out", help="folder for portability.json and portability.md")
    options = parser.parse_args(argv)
    if wanted := getattr(jax.config, "jax_platforms", None):  # such as cuda: the ResNet is compared with a CPU
        jax.config.update("jax_platforms", ",".join(dict.fromkeys([*wanted.split(","), "cpu"])))
    names = list(strategies.STRATEGIES) if options.strategies == "all" else options.strategies.split(",")
    report = Report("portability", environment(argv, "benchmarks.portability"))
    rows: list[Row] = []
    for what, precision, error, tolerance in checks(options.parts.split(","), names):
        passed = error <= tolerance  # not if it is not a number
        told = {"error": rounded(error) if np.isfinite(error) else None, "tolerance": tolerance}
        rows.append({"what": what, "precision": precision, **told, "": "ok" if passed else "FAILED"})
        print(f"{what}, {precision}: {error:.2g}", file=sys.stderr, flush=True)
    report.table("Portability: deviation from the float64 references", rows)
    if options.out:
        report.save(options.out)
    return report


if __name__ == "__main__":
    (table,) = main(sys.argv[1:]).tables.values()
    sys.exit(1 if any(row[""] != "ok" for row in table) else 0)
