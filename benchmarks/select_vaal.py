"""VAAL: seconds of a game between auto-encoder and discriminator, and of the pass that scores a pool.

    python -m benchmarks.select_vaal
    python -m benchmarks.select_vaal --side=32 --channels=3 --pool=50000 --iterations=300   # one GPU, 120 s

A game of 3,000 iterations takes 10 times as long as one of 300. No library has VAAL as a function to call beside it.
"""

import argparse
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import Report, Row, environment, measure, rounded, seconds
from jaxdal import augment, models
from jaxdal.cost import wait
from jaxdal.strategies.vaal import vaal
from jaxdal.types import Array, Pool, Tree


def contest(options: argparse.Namespace) -> list[Row]:
    """Measure both stages, with a tenth of the pool labelled."""
    shape = options.side, options.side, options.channels
    batch = min(options.rows, options.pool)
    images = np.random.default_rng(0).integers(0, 256, (options.pool // batch * batch, *shape), np.uint8)
    model = models.build("resnet18_thin", (32, 32, 3), 10)  # for its place: VAAL asks it nothing
    network = augment.network(model, [0.5] * shape[2], [0.25] * shape[2], crop=0, flip=False)
    (signal,) = vaal(iterations=options.iterations, batch=options.batch).needs
    known = jnp.where(jnp.arange(len(images)) % 10 == 0, jnp.int32(0), jnp.int32(-1))
    pool, key = Pool(jax.device_put(images)), jax.random.key(1)
    parts = pool.x.reshape(-1, batch, *shape)

    @jax.jit
    def play(known: Array, pool: Pool) -> Tree:
        assert signal.prepare is not None
        return signal.prepare(key, network, {}, pool, known)

    @jax.jit
    def score(aux: Tree, x: Array) -> Array:
        return signal.per_batch(jax.random.split(key, batch), network, {}, aux, x)

    first = seconds(lambda: wait(play(known, pool)))
    aux = wait(play(known, pool))
    works = {
        f"{options.iterations} iterations": (lambda: wait(play(known, pool)), 2 * options.batch * options.iterations),
        "scores of the pool": (lambda: wait([score(aux, x) for x in parts]), len(images)),
    }
    firsts = [first, seconds(works["scores of the pool"][0])]
    timings = measure([work for work, _ in works.values()], options.repeats)
    return [
        {
            "what": what, "seconds": rounded(timing.median), "least": rounded(timing.least),
            "cpu s": rounded(timing.median_busy), "images/s": rounded(count / timing.median),
            "compile s": rounded(max(0.0, once - timing.median)),
        }
        for (what, (_, count)), timing, once in zip(works.items(), timings, firsts, strict=True)
    ]  # fmt: skip


def main(argv: Sequence[str]) -> Report:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.select_vaal")
    parser.add_argument("--side", type=int, default=28, help="of square images")
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--pool", type=int, default=2_000, help="images, cut to whole batches")
    parser.add_argument("--rows", type=int, default=250, help="images scored at once")
    parser.add_argument("--batch", type=int, default=128, help="labelled, and unlabelled, images of a step")
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3, help="measurements; the median counts")
    parser.add_argument("--out", help="folder for the .json and the .md")
    options = parser.parse_args(argv)
    report = Report("select_vaal", environment(argv, "benchmarks.select_vaal"))
    size = f"{options.side}x{options.side}x{options.channels}, {options.batch} + {options.batch} in a batch"
    report.table(f"VAAL: {size}", contest(options))
    if options.out:
        report.save(options.out)
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
