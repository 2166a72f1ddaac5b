"""Scoring a pool for AdversarialBIM: whole batches with frozen rows, beside one image at a time.

python -m benchmarks.select_adversarial_bim --pool=500
python -m benchmarks.select_adversarial_bim --model=resnet18_thin --pool=5000 --repeats=1   # one GPU, 120 s
"""

import argparse
import sys
from collections.abc import Sequence

import jax
import numpy as np

from benchmarks.timing import Report, Row, environment, measure, rounded, seconds
from jaxdal import augment, models
from jaxdal.cost import wait
from jaxdal.strategies.adversarial_bim import squared_distance
from jaxdal.types import Array

SHAPES = {"lenet": (28, 28, 1), "resnet18_thin": (32, 32, 3), "resnet18": (32, 32, 3)}


def contest(options: argparse.Namespace) -> list[Row]:
    """Measure batches, and single images as the published code takes them: some, and their seconds scaled up.

    The network is untrained, with its weights enlarged: the steps that its images take are part of the table.
    """
    shape = SHAPES[options.model]
    model = models.build(options.model, shape, 10)
    network = augment.network(model, [0.5] * shape[2], [0.25] * shape[2], crop=0, flip=False)
    variables = jax.tree.map(lambda leaf: options.gain * leaf, model.init(jax.random.key(0))["params"])
    variables = {"params": variables, "batch_stats": model.init(jax.random.key(0))["batch_stats"]}
    batch = min(options.batch, options.pool)
    images = np.random.default_rng(0).integers(0, 256, (options.pool // batch, batch, *shape), np.uint8)
    pool, keys = jax.device_put(images), jax.random.split(jax.random.key(1), batch)
    signal = squared_distance(options.epsilon, options.cap)

    @jax.jit
    def attack(x: Array) -> Array:
        return signal.per_batch(keys[: len(x)], network, variables, (), x)

    def batches() -> Array:
        return wait([attack(x) for x in pool])

    def singles() -> Array:
        return wait([attack(pool[0, i : i + 1]) for i in range(options.singles)])

    firsts = [seconds(batches), seconds(singles)]
    timings = measure([batches, singles], options.repeats)
    distance = np.concatenate([np.asarray(part) for part in batches()])
    steps = np.sqrt(distance[np.isfinite(distance)] / options.epsilon**2 / np.prod(shape))
    count = len(distance)
    changed = f"{np.isfinite(distance).mean():.1%} of {count}"
    print(f"changed: {changed}; steps: mean {steps.mean():.1f}, most {steps.max():.0f}")
    rows: list[Row] = []
    for what, timing, first, scale in zip(
        ("jaxdal", "one at a time"), timings, firsts, (1.0, count / options.singles), strict=True
    ):
        rows.append(
            {
                "what": what, "model": options.model, "images": count, "seconds": rounded(scale * timing.median),
                "least": rounded(scale * timing.least), "cpu s": rounded(scale * timing.median_busy),
                "compile s": rounded(max(0.0, first - timing.median)),
            }
        )  # fmt: skip
    return rows


def main(argv: Sequence[str]) -> Report:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.select_adversarial_bim")
    parser.add_argument("--model", default="lenet", choices=SHAPES)
    parser.add_argument("--pool", type=int, default=500, help="images, cut to whole batches")
    parser.add_argument("--batch", type=int, default=500, help="images at once")
    parser.add_argument("--singles", type=int, default=20, help="images that are also taken one at a time")
    parser.add_argument("--epsilon", type=float, default=0.05, help="length of a step")
    parser.add_argument("--cap", type=int, default=100, help="most steps")
    parser.add_argument("--gain", type=float, default=1.5, help="what the weights are multiplied by")
    parser.add_argument("--repeats", type=int, default=3, help="measurements; the median counts")
    parser.add_argument("--out", help="folder for the .json and the .md")
    options = parser.parse_args(argv)
    report = Report("select_adversarial_bim", environment(argv, "benchmarks.select_adversarial_bim"))
    report.table("AdversarialBIM: scores of a pool", contest(options))
    if options.out:
        report.save(options.out)
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
