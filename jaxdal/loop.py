"""Experiments as a straight line: train, score the pool, buy labels, repeat; one strategy, or several side by side."""

import contextlib
import hashlib
import inspect
import io
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdal import contracts, data, environment, extension, hosts, remarks, settings, streaming
from jaxdal.calls import unknown
from jaxdal.checkpoint import InsideRound
from jaxdal.data import Oracle
from jaxdal.errors import InputError
from jaxdal.exhausted import advised, movable
from jaxdal.files import at_home
from jaxdal.journal import Group, Journal, Line, known_picks
from jaxdal.lab import Lab, blocks_for, labs_for
from jaxdal.memory import load_memory, memory_leaves, remember
from jaxdal.pack import Run, choose, clocks, keep_weights, lines, train, warm
from jaxdal.progress import Progress
from jaxdal.strategies import build
from jaxdal.types import Dataset, Strategy


class Result(NamedTuple):
    """What `run` leaves behind: the journal in `workdir`, as `journal.read` gives it (docs/journal.md)."""

    workdir: Path
    header: Line
    groups: list[Group]  # a list per round, with a line per seed


class Experiment(NamedTuple):
    """One strategy with its journal; its runs are added when it has something left to do."""

    strategy: Strategy
    rules: settings.Settings
    folder: Path
    journal: Journal
    runs: list[Run]

    @property
    def lacks(self) -> int:
        """Rounds that are to be played: none where every seed has diverged."""
        return self.rules.budget.rounds - len(self.journal.groups) if self.journal.live else 0


def run(
    dataset: str | Dataset = "digits", strategy: str | Strategy = "badge", *,
    workdir: str | Path | None = None, extend: str | Path | None = None, **options: Any,
) -> Result:  # fmt: skip
    """Run, or continue, an experiment. `options` are those of `run_together`; extend: one folder, as workdir.

    Raises:
        InputError: something does not fit; nothing was overwritten.
        OutOfMemoryError: a device ran out of memory; finished rounds are kept.
    """
    others = {*inspect.signature(run_together).parameters, *settings.OPTIONS} - {"strategies", "workdirs"}
    for slip in options.keys() - others:
        raise unknown("option", slip, {*inspect.signature(run).parameters, *others} - settings.INTERNAL)
    workdirs, starts = (None if folder is None else [folder] for folder in (workdir, extend))
    return run_together(dataset, [strategy], workdirs=workdirs, extend=starts, **options)[0]


def run_together(
    dataset: str | Dataset, strategies: Sequence[str | Strategy], *,
    workdirs: Sequence[str | Path] | str | Path | None = None, extend: Sequence[str | Path] | str | Path | None = None,
    data_dir: str | None = None,
    image_size: int | None = None, test_share: str | None = None, skip_broken: bool = False,
    save_weights: bool = False, checkpoint_seconds: float = 300.0, share_round_0: str | Path | None = None,
    pool_bytes: int | None = None, pool_share: str | None = None, pool_seed: int = 0,
    devices: Sequence[jax.Device] | None = None, quiet: bool = False, **options: Any,
) -> list[Result]:  # fmt: skip
    """Run, or continue, several strategies, each with a journal of its own; `options` are those of `settings.resolve`.

    Those that are trained alike share their first round, which is the same for all, and train in packs from then on: as
    many runs, of whatever strategy and seed, as a device trains at once with profit (`pack`).

    workdirs: a folder for each strategy, or one above all of them (default: below runs/). extend: likewise, of the same
    experiments with a smaller n_end: their rounds but the last are not trained again (`extension.py`). image_size,
    test_share, skip_broken: how `folder:PATH` and `tfds:NAME` are read (data.Options). share_round_0: a folder where
    strategies find the round 0 that another command with the same training has trained. pool_bytes: of a device, for
    training images (default: half of its memory); larger pools stream from the host. pool_share, pool_seed: use a
    random share of the training images, "40%" (data.share_of_pool); budgets are of it.

    Under `jax.distributed`, every process calls this with the same arguments; the first one alone writes.

    Raises:
        InputError: something does not fit; nothing was overwritten.
        OutOfMemoryError: a device ran out of memory; finished rounds are kept.
    """
    if isinstance(strategies, str):
        raise InputError(f"strategies={strategies!r} is one text: run_together takes a list of strategies")
    strategies = list(strategies)
    if not checkpoint_seconds >= 0:
        raise InputError(f"--checkpoint_seconds={checkpoint_seconds} is not a number of seconds")
    devices = jax.devices() if devices is None else devices
    hosts.meet(devices)
    reading = data.Options(image_size, test_share, skip_broken)
    platform = devices[0].platform
    share = data.share_asked(pool_share, pool_seed)
    images, every = hosts.from_each(lambda: read(dataset, strategies, data_dir, reading, share, platform, options))
    here = environment.describe(devices)
    if hosts.together():
        require_same(every, here, share_round_0 is not None)
    chosen = [build(each) if isinstance(each, str) else each for each in strategies]
    folders = settings.folders(workdirs, every, "workdirs")
    starts: Sequence[Path | None] = (
        len(every) * [None] if extend is None else settings.folders(extend, every, "folders to extend")
    )
    if len({folder.resolve() for folder in folders}) < len(folders):
        names = ", ".join(rules.strategy for rules in every)
        raise InputError(f"two of the strategies {names} have the same folder: are they the same?")
    pool_bytes = hosts.from_first(lambda: streaming.room(devices) if pool_bytes is None else pool_bytes)
    image = images.train_x.shape[1:]
    trainings = [rules.training(strategy) for rules, strategy in zip(every, chosen, strict=True)]
    for rules, strategy, training in zip(every, chosen, trainings, strict=True):
        hosts.from_each(partial(contracts.check, rules, strategy, image))
        runs = trainings.count(training) * len(rules.seeds)
        blocks_for(rules, strategy, image, devices, pool_bytes, runs)  # refuses what does not fit, before it is begun

    notes: Line = {"class_names": images.class_names} if images.class_names else {}
    notes |= {} if pool_share is None else {"pool_share": pool_share, "pool_seed": pool_seed}
    with contextlib.ExitStack() as journals:
        experiments = []
        for strategy, rules, folder, start in zip(chosen, every, folders, starts, strict=True):
            opening = partial(open_journal, folder, rules, strategy, here, notes, start)
            journal = journals.enter_context(hosts.open_journal(opening))
            experiments.append(Experiment(strategy, rules, folder, journal, runs=[]))
        if any(one.lacks for one in experiments):
            remarks.on_images(images, every[0], quiet)
        for one in experiments if save_weights else []:
            remarks.on_weights(one.folder, one.journal.groups, one.journal.header.get("extends"))
        for one in experiments if images.files and hosts.first() else []:
            (one.folder / "pool.txt").write_text("\n".join(images.files) + "\n", errors="surrogateescape")
        pool_x, oracle, test = data.split(images)
        groups = trained_alike(experiments)
        every_blocks = [  # before any group is trained, since this refuses what does not fit
            blocks_for(one.rules, one.strategy, image, devices, pool_bytes, (1 + len(rest)) * len(one.rules.seeds))
            for one, *rest in groups
        ]
        lab: Lab | None = None
        for one in experiments:  # a kill may have left a state of the last round
            if not any(one.folder == members[0].folder for members in groups):
                InsideRound(one.folder, 0.0, {}).clear()
        for members, blocks in zip(groups, every_blocks, strict=True):
            for one in members:
                remarks.on_strategy(one.rules, one.strategy)
            remarks.on_training(members[0].rules, members[0].strategy)
            held = movable(pool_x, blocks, chosen)
            with advised("taking the images", held):
                together = [one.strategy for one in members]
                labs, wide = labs_for(members[0].rules, pool_x, test, together, devices, blocks, like=lab)
                lab = labs[0]
                for one in members:
                    recall(one, lab, oracle)
            inside, shared = states(members, checkpoint_seconds, share_round_0, here)
            play(members, labs, wide, inside, shared, held, save_weights, quiet)
            del labs, wide  # those of the next group need the room
        return [Result(one.folder, one.journal.header, one.journal.groups) for one in experiments]


def open_journal(
    folder: Path, rules: settings.Settings, strategy: Strategy, here: Line, notes: Line, start: Path | None
) -> Journal:
    """Begin or continue the journal in `folder`. start: of a shorter experiment, whose rounds it takes over."""
    config = rules.config()
    if start is None:
        return Journal.start(folder, config, here, notes)
    remembers = bool(jax.tree.leaves(strategy.memory(rules.pool)))
    return Journal.start(folder, config, here, notes, extension.beginning(start, folder, config, remembers))


def read(
    dataset: str | Dataset, strategies: Sequence[str | Strategy], data_dir: str | None, reading: data.Options,
    share: tuple[str, int] | None, platform: str, options: dict[str, Any],
) -> tuple[Dataset, list[settings.Settings]]:  # fmt: skip
    """Return the images, and the settings of each strategy; what needs no images is refused before they are read.

    share: of the pool, and the seed that it is drawn from.
    """
    for strategy in strategies:
        settings.check_names(strategy, beside=inspect.signature(run_together).parameters, **options)
    if isinstance(dataset, Dataset):
        data.check_options("arrays", reading)
    elif not isinstance(dataset, str):
        raise InputError(f"a data set is a name or what jaxdal.from_arrays gives, got {type(dataset).__name__}")
    images = data.load(dataset, data_dir, reading) if isinstance(dataset, str) else dataset
    images = images if share is None else data.share_of_pool(images, *share)
    known = data.fingerprint(images)
    more = {"fingerprint": known, "platform": platform, **options}
    return images, [settings.resolve(dataset, images, one, **more) for one in strategies]


def require_same(every: Sequence[settings.Settings], here: dict[str, Any], shares: bool) -> None:
    """Refuse processes that would not play the same experiment. shares: whether round 0 is."""
    flags = json.dumps([shares, *(rules.config() | {"fingerprint": None} for rules in every)])
    hosts.require_same({
        "images": every[0].fingerprint, "flags": hashlib.sha256(flags.encode()).hexdigest(),
        "code": environment.source(), "libraries": [here[name] for name in environment.PACKAGES],
    })  # fmt: skip


def states(
    members: Sequence[Experiment], every: float, share_round_0: str | Path | None, here: Line
) -> tuple[InsideRound, InsideRound | None]:
    """Where those that train together keep a state inside of a round, and where they share their first one."""
    rules, strategy = members[0].rules, members[0].strategy
    config = rules.config() if len(members) == 1 else {"together": [one.rules.config() for one in members]}
    inside = InsideRound(members[0].folder, every, config)
    if share_round_0 is None:
        return inside, None
    same = rules.training(strategy) | {"environment": here, "source": environment.source()}
    return inside, InsideRound(at_home(share_round_0), 0.0, same)


def trained_alike(experiments: Sequence[Experiment]) -> list[list[Experiment]]:
    """Group what can train as one program, and has something to do.

    What has all its rounds takes no lane, unless the others lack but their last one, as after a kill between the last
    lines of a command: then all keep the lanes that they had, and the numbers are those of an undisturbed command. What
    lacks rounds because all its seeds have diverged keeps its lanes, as in the command that saw it.
    """
    groups: list[tuple[Any, list[Experiment]]] = []
    for one in experiments:
        training = one.rules.training(one.strategy)
        for other, members in groups:
            if other == training:
                members.append(one)
                break
        else:
            groups.append((training, [one]))
    result = []
    for _, members in groups:
        missing = max(one.lacks for one in members)
        if missing:
            rounds = members[0].rules.budget.rounds
            result.append([one for one in members if len(one.journal.groups) < rounds or missing == 1])
    return result


def play(
    members: Sequence[Experiment], labs: Sequence[Lab], wide: Lab, inside: InsideRound, shared: InsideRound | None,
    held: int, save_weights: bool, quiet: bool,
) -> None:  # fmt: skip
    """Play all rounds of experiments that are trained alike.

    labs: one for each, for scoring and choosing; the first one also trains round 0, as it would for that strategy
    alone. wide: trains all runs of all experiments. held: as `exhausted.movable` gives it.
    """
    rules, rounds = members[0].rules, members[0].rules.budget.rounds
    everyone = [run for one in members for run in one.runs]
    names = rules.seeds if len(members) == 1 else range(len(everyone))
    steps = [count * (len(everyone) if round_ else len(rules.seeds)) for round_, count in enumerate(rules.steps)]
    first = min(len(one.journal.groups) for one in members if one.lacks)
    batch, epochs = rules.recipe.batch, rules.recipe.epochs
    speaks = hosts.first()
    stream = sys.stderr if speaks else io.StringIO()
    with Progress(
        steps, batch, first_round=first, epochs=epochs, quiet=quiet or not speaks, stream=stream
    ) as progress:  # fmt: skip
        for round_ in range(first, rounds):
            active = [one for one in members if len(one.journal.groups) == round_ and one.journal.live]
            if not active:
                continue
            progress.start_round(round_, rules.budget.labels[round_])
            with advised("training", held, wide if round_ else labs[0]):
                if round_ == 0:
                    train_first(active, labs[0], inside, shared, progress)
                else:
                    runs = [run for one in active for run in one.runs]
                    train_all(everyone, names, runs, wide, round_, inside, progress)
            spent = clocks(run.trained.seconds for one in active for run in one.runs if run.trained)
            training = sum(seconds["train"] for seconds in spent)
            if round_ == 0 and wide is not labs[0] and rounds > 1:
                with advised("training", held, wide):
                    spent[0]["compile"] += warm(wide, everyone)["compile"]
            for one, lab in zip(members, labs, strict=True):
                if one not in active:
                    continue
                with advised("selecting for", held, lab):
                    choosing = choose(lab, one.runs, one.journal.live, round_) if round_ + 1 < rounds else []
                spent += clocks(choosing)
                group = lines(lab, one.runs, one.journal.live, round_, choosing, progress)
                if save_weights and speaks:
                    keep_weights(one.runs, one.journal.live, round_, one.folder)
                if speaks:
                    remember(one.runs, round_, one.folder)
                one.journal.append(group)
                for line in group:
                    one.runs[rules.seeds.index(line["seed"])].buy(line.get("picks", []))
            inside.clear()
            groups = {one.rules.strategy: one.journal.groups[round_] for one in active}
            progress.end_round(groups, sum(seconds["compile"] for seconds in spent), training)


def train_first(
    active: Sequence[Experiment], lab: Lab, inside: InsideRound, shared: InsideRound | None, progress: Progress
) -> None:
    """Train round 0 of the seeds, once for all strategies."""
    runs = active[0].runs
    for pack in lab.packs:
        members = runs[pack.start : pack.stop]
        names = [run.seed for run in members]
        for run, trained in zip(members, train(lab, members, names, 0, inside, shared, progress), strict=True):
            run.trained = trained
    for one in active[1:]:
        for run, other in zip(one.runs, runs, strict=True):
            run.trained = other.trained


def train_all(
    everyone: Sequence[Run], names: Sequence[int], active: Sequence[Run], lab: Lab, round_: int, inside: InsideRound,
    progress: Progress,
) -> None:  # fmt: skip
    """Train a later round, in packs that are the same in every round."""
    for pack in lab.packs:
        members = everyone[pack.start : pack.stop]
        if not any(run in active for run in members):
            continue
        results = train(lab, members, names[pack.start : pack.stop], round_, inside, None, progress)
        for run, trained in zip(members, results, strict=True):
            run.trained = trained


def recall(one: Experiment, lab: Lab, oracle: Oracle) -> None:
    """Give every run its start set and what the journal says that it has bought and remembered."""
    rules, groups = one.rules, one.journal.groups
    one.runs.extend(Run(seed, oracle, one.strategy.memory(rules.pool)) for seed in rules.seeds)
    for pack in lab.packs:
        members = one.runs[pack.start : pack.stop]
        keys = lab.keys(lab.lanes.per_run(np.asarray([run.seed for run in members], np.uint32)), np.int32(0))
        for run, initial in zip(members, lab.lanes.fetch(lab.initial(keys)), strict=False):
            known, picks = known_picks(groups, run.seed)
            run.initial = known if known.size else initial
            for batch in (run.initial, *picks):
                run.buy(batch)
    if groups and jax.tree.leaves(one.runs[0].memory):
        arrays = hosts.arrays_from_first(lambda: load_memory(one.folder, len(groups) - 1, memory_leaves(one.runs)))
        for run in one.runs:
            leaves = [arrays[name] for name in memory_leaves([run])]
            run.memory = jax.tree.unflatten(jax.tree.structure(run.memory), leaves)
