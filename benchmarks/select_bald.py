"""Scoring a pool for BALD: the stochastic head alone and with its network, beside whole passes with dropout.

python -m benchmarks.select_bald --model=lenet --pool=2000
python -m benchmarks.select_bald --model=resnet18_thin --pool=50000   # one GPU, 60 s
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import Report, Row, environment, measure, rounded, seconds
from jaxdal import augment, models
from jaxdal.cost import wait
from jaxdal.strategies.bald import mutual_information
from jaxdal.strategies.scores import entropy_score
from jaxdal.types import Array

SHAPES = {"lenet": (28, 28, 1), "resnet18_thin": (32, 32, 3), "resnet18": (32, 32, 3)}


def contest(options: argparse.Namespace) -> list[Row]:
    """Measure BALD, one plain forward pass, and T whole passes as the published code computes them."""
    shape = SHAPES[options.model]
    model = models.build(options.model, shape, 10)
    network = augment.network(model, [0.5] * shape[2], [0.25] * shape[2], crop=0, flip=False)
    variables = model.init(jax.random.key(0))
    batch = min(options.batch, options.pool)
    images = np.random.default_rng(0).integers(0, 256, (options.pool // batch, batch, *shape), np.uint8)
    pool, key = jax.device_put(images), jax.random.key(1)
    signal = mutual_information(options.draws)

    @jax.jit
    def bald(x: Array) -> Array:
        return signal.per_batch(jax.random.split(key, batch), network, variables, (), x)

    @jax.jit
    def plain(x: Array) -> Array:
        return entropy_score(network.apply(variables, network.normalise(x))[0])

    @jax.jit
    def one_pass(x: Array, t: Array) -> Array:
        dropout_key = jax.random.fold_in(key, t)
        return jax.nn.softmax(network.apply(variables, network.normalise(x), dropout_key=dropout_key)[0])

    def whole_passes(x: Array) -> Array:
        probs = jnp.stack([one_pass(x, jnp.int32(t)) for t in range(options.draws)])
        return entropy_score(jnp.log(jnp.mean(probs, 0))) - jnp.mean(entropy_score(jnp.log(probs)), 0)

    def over_pool(score: Callable[[Array], Array]) -> None:
        wait([score(x) for x in pool])

    works = {
        f"jaxdal, {options.draws} draws": partial(over_pool, bald),
        "one forward pass": partial(over_pool, plain),
        f"{options.draws} whole passes": partial(over_pool, whole_passes),
    }
    firsts = [seconds(work) for work in works.values()]
    timings = measure(list(works.values()), options.repeats)
    return [
        {
            "what": what, "model": options.model, "images": pool.shape[0] * batch, "seconds": rounded(timing.median),
            "least": rounded(timing.least), "cpu s": rounded(timing.median_busy),
            "compile s": rounded(max(0.0, first - timing.median)),
        }
        for what, timing, first in zip(works, timings, firsts, strict=True)
    ]  # fmt: skip


def main(argv: Sequence[str]) -> Report:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.select_bald")
    parser.add_argument("--model", default="lenet", choices=SHAPES)
    parser.add_argument("--pool", type=int, default=2_000, help="images, cut to whole batches")
    parser.add_argument("--batch", type=int, default=1_000, help="images at once")
    parser.add_argument("--draws", type=int, default=10, help="passes")
    parser.add_argument("--repeats", type=int, default=3, help="measurements; the median counts")
    parser.add_argument("--out", help="folder for the .json and the .md")
    options = parser.parse_args(argv)
    report = Report("select_bald", environment(argv, "benchmarks.select_bald"))
    report.table("BALD: scores of a pool", contest(options))
    if options.out:
        report.save(options.out)
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
