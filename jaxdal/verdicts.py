"""The numbers of a comparison as pandas frames, and the words and cells that terminal and page show of them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from jaxdal import metrics, significance
from jaxdal.caveats import caveats, of_cost, of_packs, of_seeds, paired
from jaxdal.comparison import COMPLETE, Experiment
from jaxdal.significance import ALPHA, Ranks

BETTER, WORSE, UNDECIDED = "better", "worse", "not told apart"
NOTHING = "–"
OF_IT = ("of it selection", "of it training")  # of what a method costs, in units of random sampling's Cost


class Table(NamedTuple):
    """Cells as text, the first column names."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str]
    marks: Mapping[tuple[int, int], str] = {}  # (row, column) -> what is special about a cell: best, better, worse, gap
    words: bool = False  # sentences rather than numbers


class Verdict(NamedTuple):
    """All numbers of an experiment."""

    experiment: Experiment
    table: pd.DataFrame  # of `measure`
    costs: pd.DataFrame  # of `costs`
    ranks: Ranks
    penalties: pd.DataFrame  # share of the budgets at which the row is better than the column; finished methods only


def judge(experiment: Experiment) -> Verdict:
    """Measure and test."""
    finished = {name: experiment.curves(name) for name in experiment.methods if experiment.finished(name)}
    return Verdict(
        experiment, measure(experiment), costs(experiment), significance.ranks(scores([experiment])),
        significance.penalties(finished),
    )  # fmt: skip


def measure(experiment: Experiment) -> pd.DataFrame:
    """A row per method, all numbers of docs/report.md; missing ones are None or NaN. Shares are in percent.

    Compared with random sampling are the seeds that finished every round in both.
    """
    base = experiment.baseline
    alike = {key: experiment.curves(base, key) for key in _KEYS} if base else {}
    rows = []
    for method in experiment.methods:
        curves = {key: experiment.curves(method, key) for key in _KEYS}
        row: dict[str, object] = {"method": method, "n": len(curves["accuracy"]), "seeds": len(experiment.seeds)}
        if len(curves["accuracy"]):
            final, area = curves["accuracy"].iloc[:, -1], metrics.aubc(curves["accuracy"])
            row |= {"final": 100 * final.mean(), "final_sd": 100 * final.std()}
            row |= {"aubc": 100 * area.mean(), "aubc_sd": 100 * area.std()}
            row |= _mean_sd("final_balanced", 100 * curves["accuracy_balanced"].iloc[:, -1])
        if base and method != base:
            row |= _against(curves, alike)
        rows.append(row)
    table = pd.DataFrame(rows, columns=["method", *_COLUMNS]).set_index("method")
    for kind in ("t", "wilcoxon"):
        table[f"p_{kind}_holm"] = pd.Series(significance.holm(_optional(table[f"p_{kind}"])), table.index, dtype=float)
    table["verdict"] = [_verdict(row) if name != base else "the baseline" for name, row in table.iterrows()]
    return table


_KEYS = ("accuracy", "accuracy_best", "accuracy_balanced")
_COLUMNS = (
    *("n", "seeds", "pairs", "final", "final_sd", "final_balanced", "final_balanced_sd", "api", "api_sd"),
    *("api_low", "api_high", "api_without_round_0", "api_best", "api_best_sd", "api_balanced", "api_balanced_sd"),
    *("aubc", "aubc_sd", "labels_saved", "labels_saved_share", "p_t", "p_wilcoxon", "remark"),
)


def _against(curves: dict[str, pd.DataFrame], base: dict[str, pd.DataFrame]) -> dict[str, object]:
    """One method beside the baseline."""
    if not len(curves["accuracy"]) or not len(base["accuracy"]):
        return {"pairs": 0, "remark": "n/a, no finished pair"}
    gains = metrics.gains(curves["accuracy"], base["accuracy"])
    test = significance.paired(gains.mean(axis=1).to_numpy())
    row: dict[str, object] = {
        "pairs": test.n, "api": test.mean, "api_sd": test.deviation, "api_low": test.low, "api_high": test.high,
        "p_t": test.p_t, "p_wilcoxon": test.p_wilcoxon, "remark": test.remark,
    }  # fmt: skip
    if gains.shape[1] > 1:
        row["api_without_round_0"] = gains.iloc[:, 1:].mean(axis=1).mean()
    for name in ("best", "balanced"):
        others = metrics.gains(curves[f"accuracy_{name}"], base[f"accuracy_{name}"])
        row |= _mean_sd(f"api_{name}", others.mean(axis=1, skipna=False))
    saved = metrics.labels_saved(curves["accuracy"], base["accuracy"])
    if saved is not None:
        row |= {"labels_saved": saved[0], "labels_saved_share": 100 * saved[1]}
    return row


def _mean_sd(name: str, values: pd.Series) -> dict[str, object]:
    """Of numbers that not every journal has: NaN if one seed lacks them."""
    return {name: values.mean(skipna=False), f"{name}_sd": values.std(skipna=False)}


def _verdict(row: pd.Series) -> str:
    p = row["p_t_holm"]
    if pd.isna(p):
        return row["remark"] if isinstance(row["remark"], str) and row["remark"] else "n/a, no random sampling"
    return UNDECIDED if p >= ALPHA else BETTER if row["api"] > 0 else WORSE


def costs(experiment: Experiment) -> pd.DataFrame:
    """A row per method: seconds of a round, mean over rounds and runs, trained alone and (`shared_*`) together."""
    rows = []
    for method in experiment.methods:
        rounds = experiment.rounds[experiment.rounds["method"] == method]
        rounds = rounds[rounds["seed"].isin(experiment.finished(method))]
        row: dict[str, object] = {"method": method}
        for prefix, together in (("", False), ("shared_", True)):
            table = metrics.cost(rounds, together)
            row |= {f"{prefix}{stage}": value for stage, value in table.mean().items()}
            row |= {f"{prefix}n": len(table), f"{prefix}cost_sd": table["cost"].std()}
        row["at_once"] = rounds["runs_at_once"].max()
        rows.append(row)
    table = pd.DataFrame(rows).set_index("method")
    for prefix in ("", "shared_"):
        table[f"{prefix}selection"] = table[f"{prefix}infer"] + table[f"{prefix}select"]
        whole = table.loc[experiment.baseline, f"{prefix}cost"] if experiment.baseline else float("nan")
        for part, ratio in (("cost", "ratio"), ("selection", "selection_ratio"), ("train", "train_ratio")):
            table[f"{prefix}{ratio}"] = table[f"{prefix}{part}"] / whole
    return table


def scores(experiments: Sequence[Experiment]) -> pd.DataFrame:
    """What is ranked: mean accuracy over rounds, a row per experiment and seed, a column per method.

    The seeds are those that random sampling finished, or else any method.
    """
    frames = []
    for number, experiment in enumerate(experiments):
        means = {name: experiment.curves(name).mean(axis=1) for name in experiment.methods}
        base = experiment.baseline
        blocks = experiment.finished(base) if base else sorted({seed for one in means.values() for seed in one.index})
        frame = pd.DataFrame(means, index=pd.Index(blocks, name="seed"), dtype=float)
        frames.append(frame.assign(experiment=number).set_index("experiment", append=True))
    return pd.concat(frames)


def verdict_table(verdict: Verdict) -> Table:
    """The table that a reader wants first, best API first."""
    experiment, table, ranks = verdict.experiment, verdict.table, verdict.ranks
    columns = [
        "method", "n", "API", "verdict", "p (t)", "p (Wilcoxon)", "without round 0", "API best epoch", "API balanced",
        "final accuracy", "balanced", "AUBC", "labels saved", "rank",
    ]  # fmt: skip
    order = table.sort_values("api", ascending=False, na_position="last", kind="stable").index
    best = table["api"].max()
    rows: list[list[str]] = []
    marks = {}
    for place, name in enumerate(order):
        row = table.loc[name]
        rows.append([
            str(name), f"{row['n']}/{row['seeds']}{paired(row)}", spread(row["api"], row["api_sd"], "+.2f"),
            str(row["verdict"]), *(p_value(row[f"p_{kind}_holm"], row[f"p_{kind}"]) for kind in ("t", "wilcoxon")),
            *(number(row[f"api_{kind}"], "+.2f") for kind in ("without_round_0", "best", "balanced")),
            *(spread(row[key], row[f"{key}_sd"]) for key in ("final", "final_balanced", "aubc")), saved(row),
            number(ranks.ranks.get(name), ".2f"),
        ])  # fmt: skip
        if row["verdict"] in (BETTER, WORSE):
            marks[place, 3] = str(row["verdict"])
        if row["api"] == best and best > 0:
            marks[place, 2] = "best"
        if row["n"] < row["seeds"]:
            marks[place, 1] = "gap"
    notes = caveats(experiment, table, ranks.left_out)
    return Table(f"Verdicts: {experiment.title}", columns, rows, notes, marks)


_ROUNDS = {  # title and note of a table of rounds
    "accuracy": ("Accuracy", "Test accuracy after the last epoch"),
    "accuracy_worst": ("Worst class", "Accuracy of the class that is worst in that round of that seed"),
}


def accuracy_table(experiment: Experiment, key: str = "accuracy") -> Table:
    """Every round of every method, also of runs that did not finish. key: "accuracy" or "accuracy_worst"."""
    title, told = _ROUNDS[key]
    rows = []
    for method in experiment.methods:
        curves = 100 * experiment.curves(method, key, complete=False)
        total = len(experiment.finished(method))
        cells = []
        for labels in experiment.labels:
            column = curves[labels].dropna() if labels in curves else pd.Series(dtype=float)
            other = f" (n={len(column)})" if len(column) not in (0, total) else ""
            cells.append(spread(column.mean(), column.std()) + other)
        rows.append([method, *cells])
    columns = ["method", *(f"{labels:,}" for labels in experiment.labels)]
    notes = [f"{told} in %, mean ± standard deviation over seeds, by number of labels.", *of_seeds(experiment)]
    return Table(f"{title}: {experiment.title}", columns, rows, notes)


def cost_table(verdict: Verdict) -> Table:
    """Seconds, in the order of the methods."""
    experiment, table = verdict.experiment, verdict.costs
    columns = ["method", "n", "infer", "select", "selection", "training", "Cost", "× random", *OF_IT]
    shared = bool(table["shared_n"].sum())
    if shared:
        columns += ["n together", "selection, shared", "training, shared", "× random, shared"]
    rows = []
    for name, row in table.iterrows():
        cells = [seconds(row[key]) for key in ("infer", "select", "selection", "train")]
        ratios = ("ratio", "selection_ratio", "train_ratio")
        cells += [spread(row["cost"], row["cost_sd"]), *(number(row[key], ".2f") for key in ratios)]
        if shared:
            cells.append(f"{int(row['shared_n'])}" + (f" ({int(row['at_once'])} at once)" if row["shared_n"] else ""))
            cells += [seconds(row[f"shared_{key}"]) for key in ("selection", "train")]
            cells.append(number(row["shared_ratio"], ".2f"))
        rows.append([str(name), str(int(row["n"])), *cells])
    notes = [
        "Seconds per round, mean over all rounds of finished runs, without compilation and evaluation. Cost is that of "
        "equation 2, and only from runs that were alone on their devices in every round (--pack=1)"
        + ("; what runs trained together took is shared evenly." if shared else "."),
        "“× random” is Cost divided by random sampling's; of it, selection and training are the two parts of that sum.",
    ]
    if not table["n"].sum():
        notes.append("No finished run was trained alone, so there is no Cost: that needs --pack=1.")
    notes += [*of_cost(experiment, False), *of_cost(experiment, True), *of_packs(experiment)]
    return Table(f"Cost: {experiment.title}", columns, rows, [*notes, *other_devices(experiment)])


def other_devices(experiment: Experiment) -> list[str]:
    """Warnings, if not all journals are of the same devices, or not all runs had as many."""
    devices = sorted({_devices(source.environments) for source in experiment.sources})
    split = sorted(experiment.rounds["devices"].unique())
    told = {
        f"The journals come from different devices ({'; '.join(devices)}): do not compare seconds.": devices,
        f"Not all runs were split over as many devices ({', '.join(map(str, split))}): do not compare seconds.": split,
    }
    return [sentence for sentence, kinds in told.items() if len(kinds) > 1]


def _devices(environments: Sequence[dict]) -> str:
    told = [", ".join(dict.fromkeys(map(str, one.get("devices") or ["unknown"]))) for one in environments]
    return ", then ".join(dict.fromkeys(told))


def gap_table(experiment: Experiment) -> Table:
    """Runs that are missing, failed or not finished; those of which the same is known in one row."""
    gaps = experiment.runs[experiment.runs["state"] != COMPLETE]
    seeds: dict[tuple[str, str, str, str], list[str]] = {}
    for run in gaps.itertuples():
        seeds.setdefault((str(run.state), str(run.told), str(run.method), str(run.journals)), []).append(str(run.seed))
    methods: dict[tuple[str, str, str, str], list[str]] = {}
    for (state, told, method, where), which in seeds.items():
        methods.setdefault((state, ", ".join(which), told, where), []).append(method)
    rows = [[state, which, told, ", ".join(names), where] for (state, which, told, where), names in methods.items()]
    columns = ["state", "seeds", "what is known", "methods", "journals"]
    title = f"Not complete: {len(gaps)} of {len(experiment.runs)} runs of {experiment.title}"
    return Table(title, columns, rows, [], words=True)


def with_api(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Those of experiments that have random sampling and something to compare with it."""
    return [one for one in verdicts if one.table["api"].notna().any()]


def overview(verdicts: Sequence[Verdict]) -> Table:
    """API of every method on every experiment, as the paper's Table 3. verdicts: `with_api`."""
    experiments = [verdict.experiment for verdict in verdicts]
    methods = list(dict.fromkeys(name for one in experiments for name in one.methods if name != one.baseline))
    together = pd.DataFrame({place: one.table["api"] for place, one in enumerate(verdicts)}).reindex(methods)
    rows, marks = [], {}
    for at, method in enumerate(methods):
        values = together.loc[method]
        rows.append([method, *(number(value, "+.2f") for value in values)])
        if (values > 0).all():
            marks[at, 0] = BETTER
        marks |= {(at, 1 + place): "best" for place, value in enumerate(values) if 0 < value == together[place].max()}
    notes = ["Percentage points over random sampling, round 0 included; in report.html, ▲ is above it everywhere."]
    return Table("API on all experiments", ["method", *(one.title for one in experiments)], rows, notes, marks)


def spreadsheets(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """All numbers as CSV texts: methods, rounds, runs and penalties, with the experiment in front."""
    titles = [one.experiment.title for one in verdicts]
    parts = {
        "methods": [one.table.join(one.costs.add_prefix("seconds_")) for one in verdicts],
        "rounds": [one.experiment.rounds.set_index("method") for one in verdicts],
        "runs": [one.experiment.runs.set_index("method") for one in verdicts],
        "penalties": [one.penalties.rename_axis("better than") for one in verdicts],
    }
    return {name: pd.concat(frames, keys=titles, names=["experiment"]).to_csv() for name, frames in parts.items()}


def number(value: object, form: str) -> str:
    """A number as text, or a dash."""
    if not isinstance(value, int | float) or pd.isna(value):
        return NOTHING
    return f"{round(value, 12) + 0.0:{form}}".replace("-", "−")


def seconds(value: float) -> str:
    """Seconds, with more digits where they are few."""
    return number(value, ".2f" if value >= 0.1 else ".4f")


def spread(mean: object, deviation: object, form: str = ".2f") -> str:
    """Mean ± standard deviation; the mean alone where one seed has none."""
    told = number(mean, form)
    return told if told == NOTHING or pd.isna(deviation) else f"{told} ± {deviation:.2f}"


def saved(row: pd.Series) -> str:
    """Labels saved, with their share."""
    if pd.isna(row["labels_saved"]):
        return NOTHING
    count, share = round(row["labels_saved"]), round(row["labels_saved_share"])  # as integers: there is no -0
    return f"{count:+,} ({share:+} %)".replace("-", "−")


def p_value(corrected: object, plain: object) -> str:
    """A corrected p-value, and the plain one in brackets."""
    told = ["<0.001" if text == "0.000" else text for text in (number(corrected, ".3f"), number(plain, ".3f"))]
    return "n/a" if told[0] == NOTHING else f"{told[0]} ({told[1]})"


def _optional(column: pd.Series) -> list[float | None]:
    return [None if pd.isna(value) else float(value) for value in column]
