"""How much of the paper is run: the scales of tables and figures.

- full: the paper's budgets and epochs, seeds 0 to 4.
- half: half of the epochs, seeds 0 to 4; and on the grid of Tables 3 to 5 and Figure 7 queries twice as large, so that
  it has half of the rounds and a quarter of the work. MixMatch's second loss has the same share of its weight at the
  end, and its average of weights about the same share of the steps. Another experiment, with journals of its own.
- cpu: what two cores can do in an afternoon. As half, with seed 0, the ends of every sweep, and MNIST in place of every
  data set that was not asked for; methods that train on unlabelled images too pass over them 4 times. Data sets of a
  ResNet, which takes days there: LeNet, without crops, and mirrored only where that keeps the label, for 10 epochs; the
  grid has queries of the usual size, up to 30 %.
- smoke: does it work at all? Seed 0, one epoch, at most three rounds, the ends of every sweep, the first method of
  Figures 6 and 8, and digits in place of every data set that was not asked for. Its numbers mean nothing.
"""

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxdal import data

if TYPE_CHECKING:
    from experiments.plans import Run


class Small(NamedTuple):
    """A network for a CPU in place of a ResNet, with what it takes to learn in few epochs."""

    epochs: int
    n_end: str  # of the grid
    way: dict[str, Any]  # options of `jaxdal.run`


class Scale(NamedTuple):
    """See above."""

    seeds: tuple[int, ...]
    epochs: Fraction | int  # a share of the data set's epochs, or their number
    queries: int = 1  # how many times as large they are on the main grid
    rounds: int | None = None  # at most
    passes: int | None = None  # epochs of methods whose epochs are of the whole pool, however few the labels
    trainers: Mapping[str, Callable[["Run"], str]] = {}  # name -> the trainer with options that fit so few epochs
    ends: bool = False  # only the first and the last point of a sweep
    methods: int | None = None  # at most, of a sweep
    small: Small | None = None  # None: every data set has its own network
    stand_in: str | None = None  # for data sets that were not asked for
    folder: str = "paper"  # below runs/: the reports of one scale never replace those of another

    def small_of(self, dataset: str) -> Small | None:
        """What stands in for the data set's own network, if anything does; mirrored where that keeps the label."""
        info = data.TABLE[dataset]
        if self.small is None or not info.model.startswith("resnet"):
            return None
        return self.small._replace(way={**self.small.way, "mirror": info.mirror})


def short_mixmatch(run: "Run") -> str:
    """MixMatch as it is published, with an average of 0.999 and a ramp of 200 epochs, for a run of fewer epochs."""
    whole = data.TABLE[run.dataset].epochs
    average = round(1 - float(f"{0.001 * whole / run.epochs:.1g}"), 9)
    ramp = f", ramp_epochs={200 * run.epochs // whole}" if run.preset == "paper" else ""  # clean: as long as the round
    return f"mixmatch(average={average}{ramp})"


FIVE = (0, 1, 2, 3, 4)
SCALES = {
    "full": Scale(FIVE, Fraction(1)),
    "half": Scale(FIVE, Fraction(1, 2), queries=2, trainers={"mixmatch": short_mixmatch}, folder="half"),
    "cpu": Scale(
        (0,), Fraction(1, 2), queries=2, passes=4, trainers={"mixmatch": short_mixmatch}, ends=True, stand_in="mnist",
        folder="cpu",
        small=Small(10, "30%", {"model": "lenet", "batch": 128, "learning_rate": 0.03, "crop": 0}),
    ),
    "smoke": Scale((0,), 1, rounds=3, ends=True, methods=1, stand_in="digits", folder="smoke"),
}  # fmt: skip
