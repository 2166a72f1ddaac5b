"""What the paper measures, from journals alone: API and the seconds of a round."""

from collections.abc import Sequence
from statistics import mean

from jaxdal.errors import InputError
from jaxdal.journal import Group


def accuracies(groups: Sequence[Group], key: str = "accuracy") -> dict[int, dict[int, float]]:
    """Number of labels -> seed -> accuracy (or another number of the line); runs that diverged are not there."""
    table: dict[int, dict[int, float]] = {}
    for line in (line for group in groups for line in group if line.get(key) is not None):
        table.setdefault(line["labelled"], {})[line["seed"]] = line[key]
    return table


def api(groups: Sequence[Group], baseline: Sequence[Group], *, first: int = 0, key: str = "accuracy") -> float:
    """Average performance improvement over random sampling, in percentage points: arXiv 2212.03088, equation 1.

    The mean over rounds of the difference of accuracies, each the mean over the seeds that both have finished; the
    paper's round 0 is in it, `first=1` leaves it out. key: accuracy, or accuracy_best, which published numbers are.

    Raises:
        InputError: the journals have different numbers of labels, or no round and seed in common.
    """
    ours, theirs = accuracies(groups, key), accuracies(baseline, key)
    if set(ours) != set(theirs):
        raise InputError(f"API compares equal budgets, not {sorted(ours)} and {sorted(theirs)} labels")
    differences = []
    for labels in sorted(ours)[first:]:
        seeds = ours[labels].keys() & theirs[labels].keys()
        if seeds:
            differences.append(mean(ours[labels][seed] - theirs[labels][seed] for seed in sorted(seeds)))
    if not differences:
        raise InputError("API needs a round that both journals have for one seed")
    return 100 * mean(differences)


def seconds(groups: Sequence[Group], stages: Sequence[str]) -> float:
    """Mean over rounds with picks, and runs, of the seconds of some stages; a pack's are shared evenly.

    Selection is ("infer", "select"), fitting of helper networks included; training is ("train",).
    """
    spent = [
        sum(line["seconds"][stage] for stage in stages) / line["runs_at_once"]
        for group in groups
        for line in group
        if line.get("picks")
    ]
    return mean(spent) if spent else 0.0
