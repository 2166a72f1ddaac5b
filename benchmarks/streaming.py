"""A pool that streams from the host beside the same pool on the device: training steps, and scoring with `margin`.

    python -m benchmarks.streaming --model=lenet --batch=64
    python -m benchmarks.streaming --model=resnet18_thin --batch=32 --steps=8 --repeats=3 --pool=2000 --labels=500   # slow on a CPU

On a machine with a GPU, where streamed training is to keep 70 % of the resident speed:

    python -m benchmarks.streaming --model=resnet18_thin --batch=256 --runs=1,5 --precision=bf16 --steps=256 --repeats=3   # one GPU

`GB/s` is what comes from the host: the images that are trained, or for all runs together the pool that is scored.
`x resident` is the ratio of median images/s to the resident pool in the same command.
"""  # noqa: E501

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from benchmarks.timing import Report, Row, Timing, environment, measure, rounded
from benchmarks.train_step import PROTOCOL, Ours, arrays, rules_for
from jaxdal import settings

STRATEGY = "margin"


def compare(options: argparse.Namespace, runs: int) -> tuple[list[Row], list[Row]]:
    """Measure a pack both ways, in turns: -> the rows of training and of scoring."""
    images = arrays(PROTOCOL[options.model], options.pool)
    rules, nbytes = rules_for(options, images, runs), images.train_x.nbytes
    budgets = {"resident": nbytes, "streamed": min(options.pool_bytes or nbytes, nbytes - 1)}
    packs = {what: Ours(rules, images, STRATEGY, budget) for what, budget in budgets.items()}
    for pack in packs.values():
        pack.steps(options.steps)
        pack.score()
    print(f"ready: {runs} at once", file=sys.stderr, flush=True)
    trained = measure([partial(pack.steps, options.steps) for pack in packs.values()], options.repeats)
    scored = measure([pack.score for pack in packs.values()], options.repeats)
    for what, pack in packs.items():
        if not pack.finite():
            raise SystemExit(f"{what}: a run diverged: its figures would mean nothing")

    def rows(timings: Sequence[Timing], done: int, brought: int) -> list[Row]:
        """done, brought: images that all runs have seen, and that it takes to show them."""
        found: list[Row] = []
        for what, timing in zip(packs, timings, strict=True):
            sent = brought * nbytes / options.pool / timing.median / 1e9 if what == "streamed" else None
            found.append(
                {
                    "what": what,
                    "precision": rules.precision,
                    "batch": options.batch,
                    "runs": runs,
                    "seconds": rounded(timing.median),
                    "least s": rounded(timing.least),
                    "cpu s": rounded(timing.median_busy),
                    "images/s": rounded(done / timing.median),
                    "GB/s": None if sent is None else rounded(sent),
                    "x resident": rounded(timings[0].median / timing.median),
                }
            )
        return found

    seen = runs * options.batch * options.steps
    return rows(trained, seen, seen), rows(scored, runs * options.pool, options.pool)


def main(argv: Sequence[str]) -> Report:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streaming", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="lenet", choices=PROTOCOL)
    parser.add_argument("--batch", type=int, default=64, help="images per step and run")
    parser.add_argument("--runs", type=lambda text: [int(n) for n in text.split(",")], default=[1], help="pack sizes")
    parser.add_argument("--precision", default="auto", choices=settings.PRECISIONS)
    parser.add_argument("--steps", type=int, default=64, help="steps per measurement")
    parser.add_argument("--repeats", type=int, default=7, help="measurements; the median counts")
    parser.add_argument("--pool", type=int, default=50_000, help="images")
    parser.add_argument("--labels", type=int, default=5_000, help="images with labels")
    parser.add_argument("--pool_bytes", type=int, help="as jaxdal.main (default: too few for the pool by one)")
    parser.add_argument("--out", help="folder for streaming.json and streaming.md")
    options = parser.parse_args(argv)
    report = Report("streaming", environment(argv, "benchmarks.streaming"))
    tables = [compare(options, runs) for runs in options.runs]
    trained, scored = ([row for table in kind for row in table] for kind in zip(*tables, strict=True))
    report.table(f"Training: {options.model}, in turns of {options.steps} steps", trained)
    report.table(f"Scoring {options.pool:,} images with {STRATEGY}", scored)
    if options.out:
        report.save(options.out)
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
