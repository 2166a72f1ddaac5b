"""Tables of experiments, from journals alone."""

import jaxdal
from jaxdal import metrics, report


def side_by_side(results: dict[str, jaxdal.Result]) -> list[str]:
    """Return lines of markdown: accuracies by labels, API against "random", seconds of a round and run."""
    baseline = results["random"].groups
    labels = [group[0]["labelled"] for group in baseline]
    lines = [
        "| strategy | " + " | ".join(map(str, labels)) + " | API | without round 0 | selection s | training s |",
        "|---" + "|--:" * (len(labels) + 4) + "|",
    ]
    for name, result in results.items():
        rows = {row.labelled: 100 * row.accuracy for row in report.summary(result.header, result.groups)}
        cells = [f"{rows[count]:.2f}" if count in rows else "-" for count in labels]
        gain = [metrics.api(result.groups, baseline, first=first) for first in (0, 1)] if len(labels) > 1 else []
        spent = [metrics.seconds(result.groups, stages) for stages in (("infer", "select"), ("train",))]
        cells += [f"{value:+.2f}" for value in gain] or ["-", "-"]
        lines.append(f"| `{name}` | " + " | ".join([*cells, *(f"{value:.2f}" for value in spent)]) + " |")
    return lines
