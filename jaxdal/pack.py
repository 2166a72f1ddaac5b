"""One round of some runs: trained pack by pack, each as one program, then asked for picks, strategy by strategy."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxdal import checkpoint
from jaxdal.checkpoint import InsideRound
from jaxdal.cost import Clock, wait
from jaxdal.data import Oracle
from jaxdal.engine import answering
from jaxdal.errors import InputError
from jaxdal.journal import Group, Line
from jaxdal.lab import Lab
from jaxdal.progress import Progress
from jaxdal.types import TrainState, Tree


class Trained(NamedTuple):
    """What training has made of a run in a round."""

    variables: Tree  # those that answer, on the host
    correct: np.ndarray  # i32[K], right answers of the test set per class
    best: float  # accuracy of the evaluations before the last one
    diverged: int  # the first step that was not finite, 0 if all were
    seconds: dict[str, float]  # of the pack
    at_once: int  # runs of the pack
    lanes: int  # of a device, which a last pack may not fill
    devices: int = 1  # over which a run was split


class Run:
    """One seed of one strategy: what it knows, whom it asks, and what its strategy remembers."""

    def __init__(self, seed: int, oracle: Oracle, memory: Tree) -> None:
        self.seed, self.oracle = seed, oracle
        self.known = np.full(len(oracle), -1, np.int32)
        self.initial = np.zeros(0, np.int32)
        self.memory = jax.tree.map(np.asarray, memory)
        self.picks = np.zeros(0, np.int32)  # of the round that is played
        self.trained: Trained | None = None  # in the round that is played

    def buy(self, picks: Sequence[int] | np.ndarray) -> None:
        """Have the picked examples labelled."""
        self.known = self.oracle.reveal(self.known, np.asarray(picks, np.int32))


def train(
    lab: Lab, runs: Sequence[Run], names: Sequence[int], round_: int, inside: InsideRound | None,
    shared: InsideRound | None, progress: Progress,
) -> list[Trained]:  # fmt: skip
    """Train one pack for one round, from its kept state if there is one, and evaluate it: -> a result per run.

    names: a number for each run, by which its checkpoints know it. inside: None: no state is kept.
    Runs that have nothing to do here (they diverged, or are a round ahead) keep their lanes, so that their neighbours'
    program stays the same.
    """
    rules, engine, lanes, clock = lab.settings, lab.engine, lab.lanes, Clock()
    known = lanes.per_run(np.stack([run.known for run in runs]))
    per_epoch = rules.per_epoch[round_]
    total = rules.recipe.epochs * per_epoch
    between = rules.eval_every * per_epoch or total  # steps from one evaluation to the next
    done, best = 0, np.zeros(len(runs))

    def evaluated(state: TrainState) -> np.ndarray:
        with clock.charge("eval"):
            return np.asarray(lanes.fetch(engine.evaluate(answering(state), lab.test)))[: len(runs)]

    with clock.charge("train"):
        keys = lab.keys(lanes.per_run(np.asarray([run.seed for run in runs], np.uint32)), np.int32(round_))
        state = wait(engine.init(keys))
    kept, there = None if inside is None else inside.restore(round_, names, state), 0
    if kept is None and shared is not None:  # what it cost is charged to every run that uses it
        kept = shared.restore(round_, names, state)
        there = 0 if kept is None else kept.done
    if kept is not None:
        state = jax.tree.unflatten(jax.tree.structure(state), lanes.per_run(kept.leaves))
        done, best = kept.done, kept.best
        # What this start has compiled so far was spent besides.
        clock.seconds = kept.seconds | {"compile": kept.seconds["compile"] + clock.seconds["compile"]}
        progress.advance(done * len(runs), before=True)
    while done < total and not np.all(lanes.fetch(state.diverged)):
        until = min(done + engine.chunk, total, (done // between + 1) * between)
        with clock.charge("train"):
            state = wait(engine.advance(state, keys, known, lab.pool, per_epoch, done, until))
        progress.advance((until - done) * len(runs))
        done = until
        if done % between == 0 and done < total:
            best = np.maximum(best, [accuracy(correct, lab) for correct in evaluated(state)])
        why = "" if inside is None else inside.offer(round_, names, state, done, clock.seconds, best, end=done == total)
        if why:
            progress.note(f"the state inside of the round could not be kept: {why}")
    if shared is not None and there < done:  # also where a kill has left the whole round for this process alone
        try:
            shared.publish(round_, names, state, done, clock.seconds, best)
        except Exception as error:  # whatever Orbax stumbles over: the run itself needs nothing of it
            progress.note(f"round 0 could not be shared: {' '.join(str(error).split())}")
    correct, variables, diverged = evaluated(state), lanes.fetch(answering(state)), lanes.fetch(state.diverged)
    return [
        Trained(
            jax.tree.map(lambda leaf, lane=lane: leaf[lane], variables),
            correct[lane], float(best[lane]), int(diverged[lane]), clock.seconds, len(runs), lanes.on_device,
            lanes.shares,
        )
        for lane in range(len(runs))
    ]  # fmt: skip


def warm(lab: Lab, runs: Sequence[Run]) -> dict[str, float]:
    """Compile what trains the first pack in later rounds: -> the seconds it took."""
    clock, engine = Clock(), lab.engine
    members = runs[: len(lab.packs[0])]
    with clock.charge("train"):
        keys = lab.keys(lab.lanes.per_run(np.asarray([run.seed for run in members], np.uint32)), np.int32(0))
        state = engine.init(keys)
        known = lab.lanes.per_run(np.stack([run.known for run in members]))
        state = wait(engine.advance(state, keys, known, lab.pool, lab.settings.per_epoch[0], 0, 1))
    with clock.charge("eval"):
        wait(engine.evaluate(answering(state), lab.test))
    return clock.seconds


def choose(lab: Lab, runs: Sequence[Run], live: Sequence[int], round_: int) -> list[dict[str, float]]:
    """Score the pool for the runs of one strategy and take their picks: -> the seconds it took, for every run.

    live: seeds that have not diverged before; what the others would pick is not looked at.
    """
    lanes, spent = lab.lanes, []
    for pack in lab.packs:
        members, clock = runs[pack.start : pack.stop], Clock()
        known = lanes.per_run(np.stack([run.known for run in members]))
        variables = lanes.per_run(stacked([run.trained.variables for run in members if run.trained]))
        with clock.charge("infer"):
            keys = lab.keys(lanes.per_run(np.asarray([run.seed for run in members], np.uint32)), np.int32(round_))
            found = wait(lab.gather(keys, variables, known, lab.pool))
        with clock.charge("select"):
            memory = lanes.per_run(stacked([run.memory for run in members]))
            picks, memory = lanes.fetch(lab.select(keys, known, memory, *found))
        del found  # of a large pool the most that a device holds, and the next pack has its own
        for lane, run in enumerate(members):  # looking at picks is no part of choosing them
            run.picks = _checked(picks[lane], run, lab) if run.seed in live else picks[lane]
            run.memory = jax.tree.map(lambda leaf, lane=lane: leaf[lane], memory)
        spent += [clock.seconds] * len(members)
    return spent


def clocks(seconds: Iterable[dict[str, float]]) -> list[dict[str, float]]:
    """Return each clock's seconds once: all runs of a pack have the same."""
    return list({id(each): each for each in seconds}.values())


def _checked(picks: np.ndarray, run: Run, lab: Lab) -> np.ndarray:
    """Refuse picks that cannot be bought, unless the run is lost and buys nothing."""
    if run.trained is None or not run.trained.diverged:
        try:
            run.oracle.check(run.known, picks)
        except ValueError as error:
            told = f"strategy {lab.settings.strategy!r} has picked what it may not: {error}"
            raise InputError(f"{told} (jaxdal.strategies.top_unknown takes the best k unknown ones)") from error
    return picks


def stacked(trees: Sequence[Tree]) -> Tree:
    """Make one tree [runs, ...] of a tree per run."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def lines(
    lab: Lab, runs: Sequence[Run], live: Sequence[int], round_: int, spent: Sequence[dict[str, float]],
    progress: Progress,
) -> Group:  # fmt: skip
    """Return the journal lines of a round of one strategy. spent: seconds of choosing, for every run, or nothing."""
    rules, group = lab.settings, []
    for place, run in enumerate(runs):
        trained = run.trained
        if run.seed not in live or trained is None:
            continue
        line: Line = {"seed": run.seed, "round": round_, "labelled": rules.budget.labels[round_]}
        if trained.diverged:
            line["diverged"] = {"step": trained.diverged}
            told = f"seed {run.seed} diverged in round {round_} at step {trained.diverged}"
            progress.note(f"{rules.strategy}: {told}: it stops here")
        else:
            line["accuracy"] = accuracy(trained.correct, lab)
            line["accuracy_best"] = max(trained.best, line["accuracy"]) if rules.eval_every else None
            line["per_class_accuracy"] = per_class_accuracy(trained.correct, lab)
            line["picks"] = run.picks.tolist() if spent else []
        if round_ == 0:
            line["initial"] = run.initial.tolist()
        line["class_counts"] = np.bincount(run.known[run.known >= 0], minlength=rules.num_classes).tolist()
        more = spent[place] if spent else {}
        line["seconds"] = {stage: round(took + more.get(stage, 0.0), 4) for stage, took in trained.seconds.items()}
        line["runs_at_once"] = trained.at_once
        together = next(len(pack) for pack in lab.packs if place in pack)
        if spent and together != trained.at_once:
            line["selected_at_once"] = together
        lanes = max(trained.lanes, lab.lanes.on_device if spent else 0)
        if lanes != trained.at_once:
            line["lanes"] = lanes
        devices = max(trained.devices, lab.lanes.shares if spent else 1)
        if devices > 1:
            line["devices"] = devices
        group.append(line)
    return group


def keep_weights(runs: Sequence[Run], live: Sequence[int], round_: int, folder: Path) -> None:
    """Save the networks of a round."""
    for run in runs:
        if run.seed in live and run.trained:
            checkpoint.save(checkpoint.weights_path(folder, run.seed, round_), run.trained.variables)


def accuracy(correct: np.ndarray, lab: Lab) -> float:
    """Share of the test images that are classified rightly. correct: i32[K], right answers per class."""
    return int(correct.sum()) / int(lab.test_counts.sum())


def per_class_accuracy(correct: np.ndarray, lab: Lab) -> list[float | None]:
    """The same for each class; None for one without test images. correct: i32[K]."""
    pairs = zip(correct.tolist(), lab.test_counts.tolist(), strict=True)
    return [right / count if count else None for right, count in pairs]
