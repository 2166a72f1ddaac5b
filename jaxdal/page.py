"""A comparison as one HTML file that needs nothing else: no network, no folder beside it."""

import base64
import html
from collections.abc import Sequence

import numpy as np
import pandas as pd

from jaxdal import caveats, comparison, figures, queries, significance, verdicts
from jaxdal.comparison import COMPLETE, Comparison, Experiment
from jaxdal.page_style import SCRIPT, STYLE
from jaxdal.significance import Ranks
from jaxdal.verdicts import Table, Verdict

DEFINITIONS = (
    ("API", "mean over all rounds, round 0 included, of accuracy minus that of random sampling with supervised "
     "training, in percentage points (equation 1 of arXiv 2212.03088); ± is the standard deviation over paired seeds. "
     "Last-epoch accuracy, unless the column says best epoch, which is chosen on the test set, as in the published "
     "runs."),
    ("balanced", "balanced accuracy of the last round: the mean over classes of the share that is classified rightly. "
     "API balanced is API of that."),
    ("AUBC", "area under accuracy over labels, by trapezoids, divided by the range of labels, in %."),
    ("labels saved", "labels that random sampling needs beyond the method at the highest mean accuracy that both "
     "reach, with straight lines between rounds; in brackets as a share of what random sampling needs."),
    ("Cost", "seconds of selection (infer + select) and training per round (equation 2), without compilation and "
     "evaluation, of runs trained alone. Divided by random sampling's Cost it is “× random”, the sum of its two parts, "
     "of it selection and of it training."),
    ("rank", "average over seeds of the place by mean accuracy over rounds; 1 is best."),
    ("penalty", "share of the numbers of labels at which the row is better than the column, p < 0.05 in a paired "
     "t-test."),
)  # fmt: skip


def render(found: Comparison, judged: Sequence[Verdict], command: str) -> str:
    """The whole page. judged: a verdict per experiment; command: what wrote it."""
    names = dict.fromkeys(str(one.config.get("dataset")) for one in found.experiments)
    title = f"Active learning on {', '.join(names)}"
    parts = [
        f"<h1>{_text(title)}</h1><p class=dim>Definitions are at the end. <code>{_text(command)}</code></p>",
        "<h2>What was run</h2>", _protocol(found.experiments), _failures(found),
    ]  # fmt: skip
    if len(several := verdicts.with_api(judged)) > 1:
        parts.append(_together(several))
    parts += map(_experiment, judged)
    meanings = "".join(f"<dt><b>{_text(word)}</b></dt><dd>{_text(told)}</dd>" for word, told in DEFINITIONS)
    parts.append(f"<h2>What the numbers are</h2><dl>{meanings}</dl>")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body>{chr(10).join(parts)}<script>{SCRIPT}</script></body></html>\n"
    )


def _failures(found: Comparison) -> str:
    """What is missing or failed, before any number."""
    broken = "".join(f"<li>{_text(told)}</li>" for told in found.unreadable.values())
    gaps = [table for table in map(verdicts.gap_table, found.experiments) if table.rows]
    total = sum(len(one.runs) for one in found.experiments)
    remarks = "".join(f"<p>{_text(told)}.</p>" for told in found.remarks)
    if not broken and not gaps:
        return f"<p class=well>Nothing is missing: all {total} runs are complete.</p>{remarks}"
    unreadable = f"<p><b>Journals that cannot be read</b></p><ul>{broken}</ul>" if broken else ""
    tables = "".join(f"<p><b>{_text(table.title)}</b></p>{_table(table)}" for table in gaps)
    return f"<div class=alarm>{unreadable}{tables}</div>{remarks}"


def _together(judged: Sequence[Verdict]) -> str:
    """What several experiments say of methods that they share."""
    overview = verdicts.overview(judged)
    ranks = significance.ranks(verdicts.scores([one.experiment for one in judged]))
    told = _ranks(ranks, "an experiment or a seed")
    return f"<h2>{_text(overview.title)}</h2>{_table(overview)}<h3>Ranks over all</h3>{told}"


def _experiment(verdict: Verdict) -> str:
    experiment, table = verdict.experiment, verdict.table
    gains = ""
    if table["api"].notna().any():
        gains = _wide(
            figures.gains(table, figures.pairs(experiment)), "API of every method",
            "API with its 95 % interval (Student), and each seed as a stroke. ▲ better, ▼ worse, ● not told apart.",
        )  # fmt: skip
    bought, unequal = queries.query_table(experiment), caveats.of_seeds(experiment)
    worst = _table(verdicts.accuracy_table(experiment, "accuracy_worst"))
    return "\n".join([
        f"<h2>{_text(experiment.title)}</h2>",
        "<h3>Verdicts</h3>", _table(verdicts.verdict_table(verdict)), gains,
        "<h3>Accuracy against labels</h3>", _panels(verdict), _table(verdicts.accuracy_table(experiment)),
        *(["<h3>Worst class against labels</h3>", worst] if experiment.rounds["accuracy_worst"].notna().any() else []),
        "<h3>Cost</h3>", _table(verdicts.cost_table(verdict)),
        *(["<h3>Queries</h3>", _table(bought)] if bought.rows else []),
        "<h3>Pairwise penalties</h3>", _heat(verdict.penalties),
        *(f"<p class=notes>{_text(told)} Of fewer seeds in common, less is significant.</p>" for told in unequal),
        "<h3>Ranks</h3>", _ranks(verdict.ranks),
    ])  # fmt: skip


def _protocol(experiments: Sequence[Experiment]) -> str:
    """What was run, and where: a column per experiment, and what keeps them apart."""
    told = [_run(one) for one in experiments]
    rows = [[key, *(column[key] for column in told)] for key in told[0]]
    table = _table(Table("", ["", *(one.title for one in experiments)], rows, [], words=True))
    if len(experiments) == 1:
        return table
    keys = ", ".join(comparison.differing([one.config for one in experiments]))
    return f"{table}<p>Accuracies are compared within a column only: the columns differ in {_text(keys)}.</p>"


def _run(experiment: Experiment) -> dict[str, str]:
    config, labels = experiment.config, experiment.labels
    done = (experiment.runs["state"] == COMPLETE).sum()
    environments = [one for source in experiment.sources for one in source.environments]
    versions = [
        f"{key} {_each([str(one.get(key) or 'unknown') for one in environments])}"
        for key in ("jaxdal", "jax", "jaxlib", "flax", "optax", "numpy", "python")
        if any(one.get(key) for one in environments)
    ]
    trainers = {comparison.trainer_of(one.config): comparison.optimiser_of(one.config) for one in experiment.sources}
    others = []
    for name in [name for name in trainers if name != config["trainer"]]:
        changes = comparison.differing([comparison.optimiser_of(config), trainers[name]])
        told = ", ".join(f"{key} {_plain(theirs)}" for key, (_, theirs) in changes.items())
        others.append(f"{name} ({told or 'same optimiser'})")
    return {
        "data set": f"{config.get('dataset')}: {config['pool']:,} in the pool"
        + (f", {config['test']:,} to test" if "test" in config else "")
        + (f", {config['num_classes']} classes" if "num_classes" in config else ""),
        "labels": f"{len(labels)} rounds, {labels[0]:,} to {labels[-1]:,} labels" if labels else "no round",
        "methods": f"{len(experiment.methods)}: {', '.join(experiment.methods)}",
        "seeds": ", ".join(map(str, experiment.seeds)),
        "runs": f"{done} of {len(experiment.runs)} complete, in {len(experiment.sources)} journals",
        "protocol": ", ".join(f"{key} {_plain(value)}" for key, value in config.items() if key not in _TOLD),
        "other trainers": "; ".join(others) or "none",
        "devices": _each([" + ".join(_counted(one.get("devices") or ["unknown"])) for one in environments]),
        "versions": ", ".join(versions) or "unknown",
        "commits": _each([str(one.get("commit") or "unknown") for one in environments]),
    }


_TOLD = ("dataset", "pool", "test", "num_classes", "n_start", "n_query", "n_end")


def _panels(verdict: Verdict) -> str:
    experiment, table = verdict.experiment, verdict.table
    pictures = figures.panels(experiment, table)
    boxes = []
    for name in (name for name in table.sort_values("api", ascending=False).index if name in pictures):
        gain = table.loc[name, "api"]
        told = f"n = {table.loc[name, 'n']}{caveats.paired(table.loc[name])}"
        if name != experiment.baseline:
            told = f"API {'n/a' if pd.isna(gain) else verdicts.number(gain, '+.2f')}, {told}"
        note = ", own scale" if pictures[name].own_scale else ""
        boxes.append(
            f"<figure><figcaption><b>{_text(name)}</b><br>{told}{note}</figcaption>"
            f"{_image(pictures[name].svg, f'accuracy of {name}')}</figure>"
        )
    return (
        "<p class=notes>Mean and ± 1 standard deviation over seeds; unfinished runs count where they got to. Dashed: "
        "random sampling. Below, the paired difference in percentage points, with one scale for all but those that say "
        f"otherwise.</p><div class=panels>{''.join(boxes)}</div>"
    )


def _heat(penalty: pd.DataFrame) -> str:
    """The penalty matrix, with means: how often a method wins (row), and how often it is beaten (column)."""
    if len(penalty) < 2 or penalty.isna().to_numpy().sum() == penalty.size - len(penalty):
        return "<p>n/a: it needs two methods with two seeds that both finished.</p>"
    tested = penalty.where(~np.eye(len(penalty), dtype=bool))  # NaN: less than two seeds in common, or itself
    order = tested.mean().sort_values(kind="stable", na_position="last").index
    tested = tested.loc[order, order]
    heads = "".join(f"<th scope=col>{_text(name)}</th>" for name in [*order, "wins"])
    rows = []
    for name in order:
        cells = "".join("<td>·</td>" if name == other else _shade(tested.loc[name, other]) for other in order)
        wins = verdicts.number(tested.loc[name].mean(), ".2f")
        rows.append(f"<tr><th scope=row>{_text(name)}</th>{cells}<td>{wins}</td></tr>")
    beaten = "".join(f"<td><b>{verdicts.number(tested[name].mean(), '.2f')}</b></td>" for name in order)
    rows.append(f"<tr><th scope=row>is beaten (less is better)</th>{beaten}<td></td></tr>")
    return (
        "<p class=notes>Share of the numbers of labels at which the row is significantly better than the column.</p>"
        f'<div class=scroll><table class="heat"><thead><tr><th></th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody>'
        "</table></div>"
    )


def _shade(share: float) -> str:
    if pd.isna(share):
        return "<td>–</td>"
    ink = "#fff" if share > 0.55 else "#1c1c1c"
    back = f"rgba(0, 114, 178, {share:.2f})"
    return f'<td style="background: {back}; color: {ink}">{share:.2f}</td>'.replace("0.00<", "0<")


def _ranks(ranks: Ranks, lacking: str = "a seed") -> str:
    left = f" Left out, since {lacking} is missing: {', '.join(ranks.left_out)}." if ranks.left_out else ""
    if len(ranks.ranks) < 2:
        return f"<p>n/a: it needs two methods that finished the same seeds.{_text(left)}</p>"
    if ranks.critical_difference is None:
        why = f"Average ranks of {len(ranks.ranks)} methods over n = {ranks.blocks}; tests need 3 methods and 2 blocks."
    else:
        why = (
            f"Average ranks over n = {ranks.blocks} blocks (seeds, of each experiment); Friedman's test: p = "
            f"{ranks.p_friedman:.3g}. Bars join methods within Nemenyi's critical difference at 5 %. Seeds of one data "
            "set are not independent data sets: this speaks of the data that were run."
        )
    return _wide(figures.critical_difference(ranks), "critical-difference diagram", why + left)


def _table(table: Table) -> str:
    kind = "words" if table.words else "sortable"
    heads = "".join(f"<th scope=col>{_text(name)}</th>" for name in table.columns)
    rows = []
    for at, row in enumerate(table.rows):
        marks = [table.marks.get((at, place)) for place in range(len(row))]
        cells = [
            f'<td class="{mark.replace(" ", "-")}">{_text(cell)}</td>' if mark else f"<td>{_text(cell)}</td>"
            for cell, mark in zip(row, marks, strict=True)
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    notes = "".join(f"<li>{_text(note)}</li>" for note in table.notes)
    return (
        f'<div class=scroll><table class="{kind}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>" + (f"<ul class=notes>{notes}</ul>" if notes else "")
    )


def _wide(svg: str, told: str, caption: str) -> str:
    told = f"<div class=scroll>{_image(svg, told)}</div><figcaption>{_text(caption)}</figcaption>"
    return f"<figure class=wide>{told}</figure>"


def _image(svg: str, told: str) -> str:
    data = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{_text(told)}" src="data:image/svg+xml;base64,{data}">'


def _each(values: Sequence[str]) -> str:
    """All different values; how many journals have each, where there are several."""
    counts = {value: values.count(value) for value in dict.fromkeys(values)}
    return ", ".join(value if len(counts) == 1 else f"{value} ({count}×)" for value, count in counts.items())


def _counted(devices: Sequence[str]) -> list[str]:
    counts = {name: list(devices).count(name) for name in dict.fromkeys(devices)}
    return [name if count == 1 else f"{count} × {name}" for name, count in counts.items()]


def _plain(value: object) -> str:
    if isinstance(value, list):
        return "/".join(map(_plain, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value[:12]}…" if isinstance(value, str) and len(value) > 40 else str(value)


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)
