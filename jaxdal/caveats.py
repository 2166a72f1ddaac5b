"""What a reader of a comparison must know: of which seeds its numbers are, and what so few can tell."""

from collections.abc import Mapping, Sequence

import pandas as pd

from jaxdal import metrics, significance
from jaxdal.comparison import Experiment
from jaxdal.significance import ALPHA


def caveats(experiment: Experiment, table: pd.DataFrame, left_out: Sequence[str] = ()) -> list[str]:
    """Sentences below the verdicts. table: of verdicts.measure; left_out: methods without a rank."""
    told = []
    if experiment.baseline is None:
        told.append("No journal has random sampling with supervised training: API, savings and tests need it.")
    pairs = sorted({int(n) for n in table["pairs"].dropna() if n > 0})
    if pairs and pairs[-1] < 2:
        told.append("Tests are n/a: they need two seeds that both methods finished, and there is 1.")
    elif pairs:
        told += _power(pairs)
    told.append(
        "p-values are two-sided and corrected for all methods of this table by Holm (in brackets: uncorrected); "
        "verdicts are corrected p (t) < 0.05. All API are percentage points; accuracies, balanced and AUBC are in %."
    )
    if (table["n"] < table["seeds"]).any():
        told.append(
            "Seeds that did not finish are in no number: a method that fails on hard seeds looks better for it."
        )
    if of_seeds(experiment):
        paired_ones = "API, tests, labels saved and ranks are of those that random sampling has finished too, "
        told.append(
            f"Methods have finished different seeds: {paired_ones if experiment.baseline else ''}"
            "final accuracy, balanced and AUBC are of all of a method's own, so that these do not pair."
        )
    if left_out:
        told.append(f"Without a rank, since a seed is missing: {', '.join(left_out)}.")
    return told


def _power(pairs: Sequence[int]) -> list[str]:
    """What the fewest and the most pairs of a table can tell; one pair is not tested."""
    ends = dict.fromkeys((pairs[0], pairs[-1]))
    sizes = {n: size for n in ends if (size := significance.detectable(n)) is not None}
    n, *more = sizes
    told = [
        f"n = {' to '.join(map(str, ends))} paired seeds. A paired t-test with n = {n} finds an effect of "
        f"{sizes[n]:.2f} standard deviations in 80 % of cases, "
        + "".join(f"with n = {other} one of {sizes[other]:.2f}, " for other in more)
        + "before correction"
        + (": the power is low, and “not told apart” does not mean equal." if n < 10 else ".")
    ]
    few = [n for n in sizes if 2 / 2**n >= ALPHA]
    if few:
        counts, least = (" or ".join(map(str, these)) for these in (few, [f"{2 / 2**n:.3g}" for n in few]))
        told.append(f"With n = {counts}, Wilcoxon's test cannot give a p below {least}, whatever the data.")
    return told


def of_seeds(experiment: Experiment) -> list[str]:
    """Which seeds each method has finished, if that is not the same for all that have finished any."""
    told = _unlike({method: experiment.finished(method) for method in experiment.methods})
    return [f"Finished seeds are not the same. {told}."] if told else []


def of_cost(experiment: Experiment, together: bool) -> list[str]:
    """Which seeds the seconds of each method are of, likewise: of runs that were alone, or trained together."""
    told = _unlike({method: _counted(experiment, method, together)["seed"].unique() for method in experiment.methods})
    kind = "were trained together" if together else "were alone"
    those = f"Runs that {kind} are not of the same seeds. {told}. Ratios are of means over these, not of pairs."
    return [those] if told else []


def of_packs(experiment: Experiment) -> list[str]:
    """How many runs were trained at once with those of each method, likewise; of runs that were trained together."""
    told = _unlike({name: _counted(experiment, name, True)["runs_at_once"].unique() for name in experiment.methods})
    those = "Not as many runs were trained together with those of each method. Runs at once: "
    return [f"{those}{told}. An even share depends on that, and so do ratios of shares."] if told else []


def _counted(experiment: Experiment, method: str, together: bool) -> pd.DataFrame:
    """The rounds that seconds of a method are taken from."""
    rounds = experiment.rounds[experiment.rounds["method"] == method]
    rounds = rounds[rounds["seed"].isin(experiment.finished(method))]
    return rounds[rounds["seed"].isin(metrics.cost(rounds, together).index)]


def _unlike(numbers: Mapping[str, Sequence[int]]) -> str:
    """Methods by their numbers, as in "random, badge: 0, 1; margin: 0"; nothing if all that have any have the same."""
    methods: dict[tuple[int, ...], list[str]] = {}
    for method, own in numbers.items():
        if len(own):
            methods.setdefault(tuple(sorted(map(int, own))), []).append(method)
    told = [f"{', '.join(names)}: {', '.join(map(str, own))}" for own, names in methods.items()]
    return "; ".join(told) if len(told) > 1 else ""


def paired(row: pd.Series) -> str:
    """What stands behind n where fewer seeds of the method pair with random sampling's. row: of verdicts.measure."""
    return f", {int(row['pairs'])} paired" if 0 < row["pairs"] < row["n"] else ""
