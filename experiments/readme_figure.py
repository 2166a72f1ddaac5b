"""The figure of the README: what choosing is worth on digits, five seeds.

python -m experiments.readme_figure          # 2 CPU cores, 2 minutes without the journals: docs/digits.png
"""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import jaxdal
from jaxdal import report

RESULTS = Path(__file__).parent / "results" / "readme_digits"
STRATEGIES = {"random": "#8a8a8a", "margin": "#1f6fb4"}


def main() -> None:
    """Run what is not there yet, and draw."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for strategy, colour in STRATEGIES.items():
        result = jaxdal.run("digits", strategy, seeds=range(5), workdir=RESULTS / strategy)
        rows = report.summary(result.groups)
        labels = [row.labelled for row in rows]
        means = [100 * row.accuracy for row in rows]
        spread = [100 * (row.deviation or 0) for row in rows]
        below = [mean - by for mean, by in zip(means, spread, strict=True)]
        above = [mean + by for mean, by in zip(means, spread, strict=True)]
        axes.fill_between(labels, below, above, color=colour, alpha=0.18, lw=0)
        axes.plot(labels, means, "o-", color=colour, label=strategy)
        axes.annotate(f"{means[-1]:.1f} %", (labels[-1], means[-1]), (6, -3), textcoords="offset points", color=colour)
    axes.set(
        xlabel="labelled images of 1,438", ylabel="test accuracy, %", title="digits, LeNet, mean ± s.d. of 5 seeds"
    )
    axes.set_xlim(right=labels[-1] * 1.09)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92")
    axes.legend(loc="lower right", frameon=False)
    figure.savefig("docs/digits.png")


if __name__ == "__main__":
    main()
