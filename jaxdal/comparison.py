"""Many journals side by side: which of them can be compared, which runs are there, and their rounds as a pandas frame.

Two journals belong to one experiment if they agree in all that decides accuracy but the strategy and its trainer. What
a trainer changes about the optimiser is part of the method; the rest (data, model, preset, budgets, epochs, batch...)
must be equal. Runs of one method and different seeds are merged, whichever journals they are in.
"""

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from jaxdal import journal, likeness, naming, strategies
from jaxdal.budgets import Budget
from jaxdal.errors import InputError
from jaxdal.journal import SECONDS, Group, Line
from jaxdal.metrics import balanced, bought, worst
from jaxdal.strategies import STRATEGIES
from jaxdal.trainers import TRAINERS

FREE = ("strategy", "trainer", "seeds", "pack", "eval_every")  # these differ within an experiment
OPTIMISER = ("learning_rate", "momentum", "weight_decay", "clamp", "decay_kernels_only")  # a trainer may change these
BASELINE = "random"
PLAIN = "supervised"
OF_DATA = ("pool", "test", "num_classes", "fingerprint", "mean", "std")  # follow from the data set
COMPARED = ("labelled", "accuracy", "initial", "picks", "diverged")  # what two accounts of one run must agree in

COMPLETE, PARTIAL, DIVERGED, CONFLICT, MISSING = "complete", "partial", "diverged", "in conflict", "missing"


class Source(NamedTuple):
    """One journal."""

    folder: Path
    config: Line
    groups: list[Group]
    environments: list[Line]  # where it was started, then wherever it went on


class Experiment(NamedTuple):
    """What can be compared."""

    title: str
    config: Line  # what its journals share, with the optimiser of the baseline's trainer
    labels: list[int]  # of each round, from the budgets
    methods: list[str]  # the baseline first, if it is there
    seeds: list[int]  # of all methods
    rounds: pd.DataFrame  # method, seed, round, labelled, accuracy and its kin, query_classes...
    runs: pd.DataFrame  # method, seed, state, told, journals: a row for every method and seed, missing ones too
    sources: list[Source]

    @property
    def baseline(self) -> str | None:
        """Random sampling with supervised training, or None if no journal has it."""
        return BASELINE if BASELINE in self.methods else None

    def curves(self, method: str, key: str = "accuracy", complete: bool = True) -> pd.DataFrame:
        """A row per seed, a column per number of labels; `complete`: of seeds that finished every round."""
        rounds = self.rounds[self.rounds["method"] == method]
        if complete:
            rounds = rounds[rounds["seed"].isin(self.finished(method))]
        return rounds.pivot(index="seed", columns="labelled", values=key).astype(float)

    def finished(self, method: str) -> list[int]:
        """The seeds of a method that finished every round."""
        runs = self.runs[(self.runs["method"] == method) & (self.runs["state"] == COMPLETE)]
        return [int(seed) for seed in runs["seed"]]


class Comparison(NamedTuple):
    """All that was found."""

    experiments: list[Experiment]
    unreadable: dict[Path, str]  # journal -> what is wrong with it
    remarks: list[str]


def read(folders: Sequence[Path]) -> Comparison:
    """Read the journals in and below some folders.

    Raises:
        InputError: a folder has no journal, or none at all can be read.
    """
    sources, unreadable = [], {}
    for path in find(folders):
        try:
            header, groups = journal.read(path.parent)
        except InputError as error:
            unreadable[path] = str(error)
        else:
            sources.append(Source(path.parent, header["config"], groups, [header["environment"], *moves(path)]))
    if not sources:
        raise InputError(" ".join(unreadable.values()))
    found = experiments(sources)
    longer = [next((other for other in found if _begins(one, other)), None) for one in found]
    pairs = [*zip(found, longer, strict=True)]
    remarks = [f"{one.title} is the beginning of {other.title}, and left out here" for one, other in pairs if other]
    return Comparison([one for one, other in pairs if other is None], unreadable, remarks)


def find(folders: Sequence[Path]) -> list[Path]:
    """The journals in and below some folders, each once; raises InputError for a folder without."""
    found: dict[Path, Path] = {}
    for folder in folders:
        paths = sorted(Path(folder).rglob(journal.NAME))
        if not paths:
            raise InputError(f"{folder} has no {journal.NAME} in or below it")
        for path in paths:
            found.setdefault(path.resolve(), path)
    return list(found.values())


def experiments(sources: Sequence[Source]) -> list[Experiment]:
    """Sort journals into experiments, in the order of their first journals."""
    alike: dict[str, list[Source]] = {}
    for source in sources:
        alike.setdefault(_dump(_rest(source.config)), []).append(source)
    groups: dict[tuple[str, str], list[Source]] = {}
    for same, members in alike.items():
        variants = {_dump(optimiser_of(one.config)) for one in members if trainer_of(one.config) == PLAIN}
        for one in members:
            variant = _dump(optimiser_of(one.config))
            if trainer_of(one.config) != PLAIN:
                # Another optimiser is part of its design: it goes with the supervised runs, if these share one.
                variant = next(iter(variants)) if len(variants) == 1 else f"{trainer_of(one.config)} {variant}"
            groups.setdefault((same, variant), []).append(one)
    configs = [_shared(members) for members in groups.values()]
    titles = _titles(configs)
    return [
        _experiment(title, config, members)
        for title, config, members in zip(titles, configs, groups.values(), strict=True)
    ]


def _begins(one: Experiment, other: Experiment) -> bool:
    """Whether all journals of `one` have gone on to the end of `other`, as by --extend: rounds would count twice."""
    if len(one.labels) >= len(other.labels) or _but_n_end(one.config) != _but_n_end(other.config):
        return False
    finished = [source for source in other.sources if len(source.groups) == len(other.labels)]
    return all(any(_goes_on(short, long, len(one.labels) - 1) for long in finished) for short in one.sources)


def _goes_on(short: Source, long: Source, rounds: int) -> bool:
    """Whether so many rounds, or those that there are, are the same in both; in the last one nothing was bought."""
    first, second = (
        [[[line.get(key) for key in COMPARED] for line in group] for group in source.groups[:rounds]]
        for source in (short, long)
    )
    return _but_n_end(short.config) == _but_n_end(long.config) and len(first) > 0 and first == second[: len(first)]


def _but_n_end(config: Line) -> str:
    return _dump(config | {"n_end": None})


def differing(configs: Sequence[Line]) -> dict[str, list[Any]]:
    """Key -> its value in each configuration, for keys that are not the same in all of them."""
    keys = {key: None for config in configs for key in config}
    values = {key: [config.get(key) for config in configs] for key in keys}
    told = {key: row for key, row in values.items() if len(set(map(_dump, row))) > 1}
    if "dataset" in told:
        told = {key: row for key, row in told.items() if key not in OF_DATA}
    return told


def _experiment(title: str, config: Line, sources: list[Source]) -> Experiment:
    names = _names(sources)
    methods = sorted(dict.fromkeys(names), key=lambda name: name != BASELINE)
    seeds = sorted({seed for source in sources for seed in source.config["seeds"]})
    seen = sorted({line["labelled"] for source in sources for group in source.groups for line in group})
    budget: list[Any] = [config.get(key) for key in Budget._fields]
    labels = Budget(*budget).labels if all(type(number) is int for number in budget) else seen
    rows, runs = [], []
    nothing: Line = {}
    for method in methods:
        members = [source for source, name in zip(sources, names, strict=True) if name == method]
        for seed in seeds:
            state, told, lines, where = _run(seed, members, len(labels))
            runs.append({"method": method, "seed": seed, "state": state, "told": told, "journals": where})
            pairs = itertools.zip_longest(lines, lines[1:], fillvalue=nothing)
            rows += [{"method": method, **_row(line, later)} for line, later in pairs if "diverged" not in line]
    columns = ["method", *_row({}, {})]
    return Experiment(
        title, config, labels, methods, seeds, pd.DataFrame(rows, columns=columns), pd.DataFrame(runs), sources
    )


def _run(seed: int, sources: list[Source], rounds: int) -> tuple[str, str, list[Line], str]:
    """One run, from all journals that have it: -> (state, what a reader must know, lines, the journals)."""
    accounts = [
        (source, [line for group in source.groups for line in group if line["seed"] == seed])
        for source in sources
        if seed in source.config["seeds"]
    ]
    if not accounts:
        return MISSING, "no journal has this seed", [], ""
    where = ", ".join(str(source.folder) for source, _ in accounts)
    lines = max((account for _, account in accounts), key=len)
    disagreed = disagreement([account for _, account in accounts])
    if disagreed is not None:
        return CONFLICT, f"accounts disagree from round {disagreed} on: in no number below", [], where
    copies = f"; {len(accounts)} journals agree" if len(accounts) > 1 else ""
    if lines and "diverged" in lines[-1]:
        told = f"the loss was not finite in round {lines[-1]['round']} at step {lines[-1]['diverged']['step']}"
        return DIVERGED, told + copies, lines, where
    if not lines or len(lines) < rounds:
        return PARTIAL, f"{len(lines)} of {rounds} rounds: still running, or stopped" + copies, lines, where
    return COMPLETE, copies.removeprefix("; "), lines, where


def disagreement(accounts: Sequence[Sequence[Line]]) -> int | None:
    """The first round of which accounts of one run, its lines in several journals, do not say the same; or None."""
    longest = max(accounts, key=len)
    pairs = (pair for account in accounts for pair in zip(longest, account, strict=False))
    found = [one["round"] for one, other in pairs if any(one.get(key) != other.get(key) for key in COMPARED)]
    return min(found, default=None)


def _row(line: Line, later: Line) -> dict[str, Any]:
    """later: the next round of the same run, which knows what this one has bought."""
    seconds, (classes, largest) = line.get("seconds", {}), bought(line, later)
    return {
        "seed": line.get("seed"),
        "round": line.get("round"),
        "labelled": line.get("labelled"),
        "accuracy": line.get("accuracy"),
        "accuracy_best": line.get("accuracy_best"),
        "accuracy_balanced": balanced(line),
        "accuracy_worst": worst(line),
        "query_classes": classes,
        "query_largest": largest,
        **{key: seconds.get(key) for key in SECONDS},
        "runs_at_once": line.get("runs_at_once"),
        "selected_at_once": line.get("selected_at_once", line.get("runs_at_once")),
        "lanes": line.get("lanes", line.get("runs_at_once")),
        "devices": line.get("devices", 1),
    }


def _names(sources: list[Source]) -> list[str]:
    """A name per journal: the strategy; the trainer, where it is not the strategy's own; whatever else is needed."""
    trainers: dict[str, set[str]] = {}
    for source in sources:
        trainers.setdefault(str(source.config.get("strategy")), set()).add(trainer_of(source.config))
    names = []
    for source in sources:
        strategy, trainer = str(source.config.get("strategy")), trainer_of(source.config)
        own = _own_trainer(strategy) or (trainer if len(trainers[strategy]) == 1 else PLAIN)
        names.append(strategy if trainer == own else f"{strategy} + {trainer}")
    names = _short(names)
    optimisers: dict[str, list[Line]] = {}
    for name, source in zip(names, sources, strict=True):
        optimisers.setdefault(name, []).append(optimiser_of(source.config))
    told = []
    for name, source in zip(names, sources, strict=True):
        keys = differing(optimisers[name])
        more = ", ".join(f"{key}={source.config.get(key)}" for key in keys)
        told.append(f"{name} ({more})" if more else name)
    return told


def _short(names: list[str]) -> list[str]:
    """Leave digests of code out, but where others are called the same, or a method of jaxdal's is."""
    jaxdals = {name for table in (STRATEGIES, TRAINERS) for name, row in table.items() if not likeness.of_rows(row)}
    short = []
    for name in names:
        parts = [naming.parted(part) for part in name.split(" + ")]
        own = any(code and naming.row(plain) in jaxdals for plain, code in parts)
        short.append(name if own else " + ".join(plain for plain, _ in parts))
    meant: dict[str, set[str]] = {}
    for plain, name in zip(short, names, strict=True):
        meant.setdefault(plain, set()).add(name)
    return [plain if len(meant[plain]) == 1 else name for plain, name in zip(short, names, strict=True)]


def _own_trainer(strategy: str) -> str | None:
    if naming.parted(strategy)[1]:  # somebody's own, of which another process knows no more than its name
        return PLAIN
    try:
        return strategies.build(strategy).trainer
    except InputError:  # of another version
        return None


def trainer_of(config: Line) -> str:
    """Which trainer a journal is of."""
    return str(config.get("trainer") or PLAIN)


def _rest(config: Line) -> Line:
    return {key: value for key, value in config.items() if key not in (*FREE, *OPTIMISER)}


def optimiser_of(config: Line) -> Line:
    """What its trainer may have changed."""
    return {key: config[key] for key in OPTIMISER if config.get(key) is not None}


def _shared(sources: list[Source]) -> Line:
    plain = [source for source in sources if trainer_of(source.config) == PLAIN]
    config = (plain or sources)[0].config
    return _rest(config) | {"trainer": trainer_of(config)} | optimiser_of(config)


def _titles(configs: list[Line]) -> list[str]:
    """Data set, model and preset, and what else tells the experiments apart."""
    plain = [
        " · ".join(str(config[key]) for key in ("dataset", "model", "preset") if config.get(key)) or "experiment"
        for config in configs
    ]
    told = []
    for title, config in zip(plain, configs, strict=True):
        same = [other for other, name in zip(configs, plain, strict=True) if name == title]
        more = [f"{key}={config.get(key)}" for key in differing(same) if key not in ("fingerprint", "mean", "std")]
        if not more and len(same) > 1:
            more = [f"images {str(config.get('fingerprint'))[:8]}"]
        told.append(" · ".join([title, *more]))
    return told


def moves(path: Path) -> Iterable[Line]:
    """Where else a journal was continued."""
    for text in path.read_bytes().split(b"\n"):
        if text.startswith(b'{"environment":'):
            try:
                yield json.loads(text)["environment"]
            except ValueError:  # the torn tail of a kill
                return


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
