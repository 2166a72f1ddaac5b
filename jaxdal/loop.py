"""The experiment as a straight line: train, score the pool, buy labels, repeat."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdal import checkpoint, data, environment, settings, strategies, trainers
from jaxdal.checkpoint import InsideRound
from jaxdal.cost import Clock, wait
from jaxdal.data import Oracle
from jaxdal.engine import answering
from jaxdal.errors import InputError
from jaxdal.journal import Group, Journal, Line, known_picks
from jaxdal.keys import Keys
from jaxdal.lab import Lab, blocks_for
from jaxdal.memory import load_memory, save_memory
from jaxdal.progress import Progress
from jaxdal.types import Array, Dataset, Strategy, TrainState, Tree


class Result(NamedTuple):
    """What `run` leaves behind: the journal in `workdir`, as `journal.read` gives it (docs/journal.md)."""

    workdir: Path
    header: Line
    groups: list[Group]  # a list per round, with a line per seed


class Run:
    """One seed: what it knows, whom it asks, and what its strategy remembers."""

    def __init__(self, seed: int, oracle: Oracle, memory: Tree) -> None:
        self.seed, self.oracle = seed, oracle
        self.known = np.full(len(oracle), -1, np.int32)
        self.initial = np.zeros(0, np.int32)
        self.memory = jax.tree.map(np.asarray, memory)

    def buy(self, picks: Sequence[int] | np.ndarray) -> None:
        """Have the picked examples labelled."""
        self.known = self.oracle.reveal(self.known, np.asarray(picks, np.int32))


def run(
    dataset: str | Dataset = "digits", strategy: str | Strategy = "badge", *, workdir: str | Path | None = None,
    data_dir: str | None = None, image_size: int | None = None, test_share: str | None = None,
    skip_broken: bool = False, save_weights: bool = False, checkpoint_seconds: float = 300.0,
    share_round_0: str | Path | None = None, pool_bytes: int | None = None, pool_share: str | None = None,
    pool_seed: int = 0,
    devices: Sequence[jax.Device] | None = None, quiet: bool = False, **options: Any,
) -> Result:  # fmt: skip
    """Run, or continue, an experiment. `options` are those of `settings.resolve`: the flags of the command.

    image_size, test_share, skip_broken: how `folder:PATH` and `tfds:NAME` are read (data.Options).
    share_round_0: a folder where strategies find the round 0 that another one with the same training has trained.
    pool_bytes: of a device, for training images (default: half of its memory); larger pools stream from the host.
    pool_share, pool_seed: use a random share of the training images, "40%" (data.share_of_pool); budgets are of it.

    Raises:
        InputError: something does not fit; nothing was overwritten.
    """
    if not checkpoint_seconds >= 0:
        raise InputError(f"--checkpoint_seconds={checkpoint_seconds} is not a number of seconds")
    devices = jax.devices() if devices is None else devices
    settings.check_names(strategy, **options)
    reading = data.Options(image_size, test_share, skip_broken)
    if isinstance(dataset, Dataset):
        data.check_options("arrays", reading)
    images = data.load(dataset, data_dir, reading) if isinstance(dataset, str) else dataset
    images = images if pool_share is None else data.share_of_pool(images, pool_share, pool_seed)
    chosen = strategies.build(strategy) if isinstance(strategy, str) else strategy
    rules = settings.resolve(dataset, images, strategy, platform=devices[0].platform, **options)
    blocks = blocks_for(rules, chosen, images.train_x.shape[1:], devices, pool_bytes)
    folder = settings.default_workdir(rules) if workdir is None else Path(workdir)
    budget = rules.budget

    notes: Line = {"class_names": images.class_names} if images.class_names else {}
    notes |= {} if pool_share is None else {"pool_share": pool_share, "pool_seed": pool_seed}
    with Journal.start(folder, rules.config(), environment.describe(devices), notes) as journal:
        first = len(journal.groups)
        if first == budget.rounds or not journal.live:
            return Result(folder, journal.header, journal.groups)
        introduce(images, rules, chosen, folder, quiet)
        pool_x, oracle, test = data.split(images)
        lab = Lab(rules, pool_x, test, chosen, devices, blocks)
        inside = InsideRound(folder, checkpoint_seconds, rules.config())
        shared = None
        if share_round_0 is not None:
            here = {"environment": environment.describe(devices), "source": environment.source()}
            same = rules.training(chosen) | here
            shared = InsideRound(Path(share_round_0), 0.0, same)
        runs = [Run(seed, oracle, chosen.memory(rules.pool)) for seed in rules.seeds]
        recall(runs, lab, journal, folder)
        with Progress(
            rules.steps, rules.recipe.batch, len(runs), first_round=first, epochs=rules.recipe.epochs, quiet=quiet
        ) as progress:
            for round_ in range(first, budget.rounds):
                if not journal.live:
                    break
                progress.start_round(round_, budget.labels[round_])
                group: Group = []
                for pack in lab.packs:
                    weights = folder if save_weights else None
                    members = runs[pack.start : pack.stop]
                    start = shared if round_ == 0 else None
                    group += play(lab, members, round_, journal.live, inside, start, weights, progress)
                remember(runs, round_, folder)
                journal.append(group)
                inside.clear()
                progress.end_round(group)
                for line in group:
                    runs[rules.seeds.index(line["seed"])].buy(line.get("picks", []))
        return Result(folder, journal.header, journal.groups)


def introduce(images: Dataset, rules: settings.Settings, strategy: Strategy, folder: Path, quiet: bool) -> None:
    """Say what own images are and what is suspicious; note which file each pool index is."""
    if not quiet and rules.dataset not in data.TABLE:
        print(settings.told(rules, images), file=sys.stderr, flush=True)
    for remark in data.remarks(images):
        print(f"{rules.dataset}: {remark}", file=sys.stderr, flush=True)
    average = strategy.wrap(trainers.build(rules.trainer, rules.preset)).average or 0.0
    if (start := average ** min(rules.steps)) > 0.05:
        told = f"after the {min(rules.steps)} steps of the shortest round, {start:.0%} of the average are first weights"
        print(f"--trainer={rules.trainer}: {told}; try average=0.99, or more epochs", file=sys.stderr, flush=True)
    if images.files:
        (folder / "pool.txt").write_text("\n".join(images.files) + "\n", errors="surrogateescape")


def play(
    lab: Lab, runs: list[Run], round_: int, live: Sequence[int], inside: InsideRound, shared: InsideRound | None,
    weights: Path | None, progress: Progress,
) -> Group:  # fmt: skip
    """Play one round of one pack: -> a journal line per live run.

    Runs that diverged in an earlier round keep their lane, so that their neighbours' program stays the same.
    """
    rules, clock = lab.settings, Clock()
    keys = lab.keys(lab.lanes.per_run(np.asarray([run.seed for run in runs], np.uint32)), np.int32(round_))
    known = lab.lanes.per_run(np.stack([run.known for run in runs]))

    state, best = train(lab, runs, keys, known, round_, clock, inside, shared, progress)
    variables = answering(state)
    with clock.charge("eval"):
        correct = np.asarray(lab.engine.evaluate(variables, lab.test))
    picks = np.zeros((len(runs), 0), np.int32)
    if round_ + 1 < rules.budget.rounds:
        with clock.charge("infer"):
            found = wait(lab.gather(keys, variables, known, lab.pool))
        with clock.charge("select"):
            memory = lab.lanes.per_run(jax.tree.map(lambda *leaves: np.stack(leaves), *(run.memory for run in runs)))
            picks, memory = jax.tree.map(np.asarray, lab.select(keys, known, memory, *found))
            for lane, run in enumerate(runs):
                run.memory = jax.tree.map(lambda leaf, lane=lane: leaf[lane], memory)

    diverged = np.asarray(state.diverged)
    lines = []
    for lane, run in enumerate(runs):
        if run.seed not in live:
            continue
        line: Line = {"seed": run.seed, "round": round_, "labelled": rules.budget.labels[round_]}
        if diverged[lane]:
            line["diverged"] = {"step": int(diverged[lane])}
            progress.note(f"seed {run.seed} diverged in round {round_} at step {diverged[lane]}: it stops here")
        else:
            line["accuracy"] = accuracy(correct[lane], lab)
            line["accuracy_best"] = max(best[lane], line["accuracy"]) if rules.eval_every else None
            line["per_class_accuracy"] = per_class_accuracy(correct[lane], lab)
            line["picks"] = picks[lane].tolist()
        if round_ == 0:
            line["initial"] = run.initial.tolist()
        line["class_counts"] = np.bincount(run.known[run.known >= 0], minlength=rules.num_classes).tolist()
        line["seconds"] = {stage: round(seconds, 4) for stage, seconds in clock.seconds.items()}
        line["runs_at_once"] = len(runs)
        lines.append(line)
        if weights is not None:
            own = jax.tree.map(lambda leaf, lane=lane: np.asarray(leaf[lane]), variables)
            checkpoint.save(checkpoint.weights_path(weights, run.seed, round_), own)
    return lines


def train(
    lab: Lab, runs: list[Run], keys: Keys, known: Array, round_: int, clock: Clock, inside: InsideRound,
    shared: InsideRound | None, progress: Progress,
) -> tuple[TrainState, np.ndarray]:  # fmt: skip
    """Train a pack for one round, from its kept state if there is one: -> (state, best accuracies, f64[runs])."""
    rules, engine = lab.settings, lab.engine
    per_epoch = rules.per_epoch[round_]
    total = rules.recipe.epochs * per_epoch
    between = rules.eval_every * per_epoch or total  # steps from one evaluation to the next
    names = [run.seed for run in runs]
    done, best = 0, np.zeros(len(runs))

    with clock.charge("train"):
        state = wait(engine.init(keys))
    kept = inside.restore(round_, names, state)
    if kept is None and shared is not None:  # what it cost is charged to every run that uses it
        kept = shared.restore(round_, names, state)
    if kept is not None:
        state = jax.tree.unflatten(jax.tree.structure(state), lab.lanes.per_run(kept.leaves))
        done, best, clock.seconds = kept.done, kept.best, kept.seconds
        progress.advance(done * len(runs))
    while done < total and not np.all(np.asarray(state.diverged)):
        until = min(done + engine.chunk, total, (done // between + 1) * between)
        with clock.charge("train"):
            state = wait(engine.advance(state, keys, known, lab.pool, per_epoch, done, until))
        progress.advance((until - done) * len(runs))
        done = until
        if done % between == 0 and done < total:
            with clock.charge("eval"):
                correct = np.asarray(engine.evaluate(answering(state), lab.test))
            best = np.maximum(best, [accuracy(correct[lane], lab) for lane in range(len(runs))])
        inside.offer(round_, names, state, done, clock.seconds, best)
    if shared is not None and (kept is None or kept.done < done):
        try:
            shared.publish(round_, names, state, done, clock.seconds, best)
        except Exception as error:  # whatever Orbax stumbles over: the run itself needs nothing of it
            progress.note(f"round 0 could not be shared: {' '.join(str(error).split())}")
    return state, best


def accuracy(correct: np.ndarray, lab: Lab) -> float:
    """Share of the test images that are classified rightly. correct: i32[K], right answers per class."""
    return int(correct.sum()) / int(lab.test_counts.sum())


def per_class_accuracy(correct: np.ndarray, lab: Lab) -> list[float | None]:
    """The same for each class; None for one without test images. correct: i32[K]."""
    pairs = zip(correct.tolist(), lab.test_counts.tolist(), strict=True)
    return [right / count if count else None for right, count in pairs]


def recall(runs: list[Run], lab: Lab, journal: Journal, folder: Path) -> None:
    """Give every run its start set and what the journal says that it has bought and remembered."""
    for pack in lab.packs:
        members = runs[pack.start : pack.stop]
        keys = lab.keys(lab.lanes.per_run(np.asarray([run.seed for run in members], np.uint32)), np.int32(0))
        for run, initial in zip(members, np.asarray(lab.initial(keys)), strict=False):
            known, picks = known_picks(journal.groups, run.seed)
            run.initial = known if known.size else initial
            for batch in (run.initial, *picks):
                run.buy(batch)
    if journal.groups and jax.tree.leaves(runs[0].memory):
        arrays = load_memory(folder, len(journal.groups) - 1)
        for run in runs:
            leaves = [arrays[f"seed_{run.seed}_{place}"] for place in range(len(jax.tree.leaves(run.memory)))]
            run.memory = jax.tree.unflatten(jax.tree.structure(run.memory), leaves)


def remember(runs: list[Run], round_: int, folder: Path) -> None:
    """Keep what the strategy remembers, before the journal calls the round complete."""
    arrays = {
        f"seed_{run.seed}_{place}": leaf for run in runs for place, leaf in enumerate(jax.tree.leaves(run.memory))
    }
    if arrays:
        save_memory(folder, round_, arrays)
