"""Works off what tables and figures need: skips what is complete, continues what is not, packs what is alike.

    python -m experiments.runs --list --plan=table3,fig4 --datasets=mnist     # what there is, and what is missing
    python -m experiments.runs --plan=table3 --datasets=mnist --data_dir=DIR  # do it; stop and repeat at will
    python -m experiments.runs --plan=table3 --launcher=slurm                 # the same, a job for each group

With `--plugins=mine --strategies=random,mine`, strategies of your own are in it (jaxdal/plugins.py).

What is complete is read from the journals below --results. A seed that a journal has is continued there, with all the
seeds of that journal; the other seeds of a method make one new journal, so that later seeds are added and nothing is
replaced. A group is what can be trained as one program: methods on one data set with one budget, way of training and
set of seeds; for a launcher, as many of them as a device trains at once with profit. One that fails does not end the
others; it is reported at the end, and the exit code is 1.
"""

import argparse
import hashlib
import json
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

import jaxdal
from experiments import launchers
from experiments import options as flags
from experiments.estimate import hours
from experiments.estimate import told as in_words
from experiments.plans import SIZES, Run
from experiments.records import Record, Records, expected, resolved
from jaxdal import commands, models, naming, strategies, trainers
from jaxdal.comparison import COMPLETE, CONFLICT, DIVERGED, MISSING
from jaxdal.errors import InputError
from jaxdal.types import Model

DONE = (COMPLETE, DIVERGED, CONFLICT)  # training again would settle none of them
Results = list[jaxdal.Result]


class Member(NamedTuple):
    """One journal, that is there or is to be made."""

    run: Run  # of the first seed
    seeds: tuple[int, ...]  # all of the journal
    record: Record | None
    states: tuple[str, ...]  # of the planned seeds

    @property
    def done(self) -> bool:
        """Whether there is nothing to do."""
        return all(state in DONE for state in self.states)


class Group(NamedTuple):
    """What is trained together."""

    key: str  # of the same plan the same, whatever is done already
    members: list[Member]
    settings: tuple[str, int, int]  # precision, pack, eval_every
    together: int  # most members that a group of its kind has

    @property
    def name(self) -> str:
        """What a reader calls it."""
        one, budget = self.members[0], self.members[0].run.budget
        share = f" of {one.run.pool_share} of the pool" if one.run.pool_share else ""
        seeds, way = ",".join(map(str, one.seeds)), f", {one.run.way_told}" if one.run.way else ""
        return f"{one.run.dataset} {budget.n_start}+{budget.n_query}..{budget.n_end}{share}{way}, seeds {seeds}"

    @property
    def state(self) -> str:
        """Done, partly done or missing."""
        states = [state for member in self.members for state in member.states]
        if all(state in DONE for state in states):
            return "done"
        return "missing" if set(states) == {MISSING} else "partly done"


def groups(runs: Sequence[Run], records: Records, together: int | None = 0, gpus: float | None = None) -> list[Group]:
    """Sort runs into groups, in their order.

    together: most methods of a group, 0 for all that are alike, None for as many as so many `gpus` train at once.
    """
    alike: dict[str, list[Member]] = {}
    for member in _members(runs, records):
        alike.setdefault(_kind(member), []).append(member)
    found: list[Group] = []
    for kind, members in alike.items():
        size = at_once(members, gpus) if together is None else together or len(members)
        for number, first in enumerate(range(0, len(members), size)):
            key = hashlib.sha256(kind.encode()).hexdigest()[:10] + (f".{number}" if size < len(members) else "")
            # Journals that were begun on different devices go on with what they have; new ones join the first of them.
            settings = {_settings(one): None for one in members[first : first + size] if one.record}
            default = next(iter(settings), _settings(members[first]))
            parts: dict[tuple[str, int, int], list[Member]] = {}
            for one in members[first : first + size]:
                parts.setdefault(_settings(one) if one.record else default, []).append(one)
            found += [Group(key, part, setting, size) for setting, part in parts.items()]
    return found


def of_command(runs: Sequence[Run], records: Records, given: argparse.Namespace) -> list[Group]:
    """The groups of a command: small ones for a launcher, unless it was told otherwise."""
    usual = 0 if given.launcher == "local" else None
    return groups(runs, records, usual if given.together is None else given.together, given.gpus)


def at_once(members: Sequence[Member], gpus: float | None = None) -> int:
    """How many methods, all their seeds, a job's devices train at once with profit: one at least, in even shares.

    gpus: of a job; None: one; with 0 it computes on a CPU.
    """
    run = members[0].run
    model = _model(run)
    most = model.cpu_pack if gpus == 0 else max(1, model.pack // model.pack_multiple * model.pack_multiple)
    runs = (1 if run.pack == 1 else most) * max(1, int(gpus or 1))
    jobs = -(-len(members) // max(1, runs // len(members[0].seeds)))
    return -(-len(members) // jobs)


def _model(run: Run) -> Model:
    settings = resolved(run)
    return models.build(settings.model, SIZES[run.dataset].image, settings.num_classes)


def _members(runs: Sequence[Run], records: Records) -> list[Member]:
    methods: dict[Run, list[int]] = {}
    for run in dict.fromkeys(runs):
        methods.setdefault(run._replace(seed=run.seed if run.pool_share else 0), []).append(run.seed)
    members = []
    for method, seeds in methods.items():
        journals: dict[Path | None, tuple[Record | None, list[int]]] = {}
        for seed in seeds:
            record = records.of(method._replace(seed=seed))
            journals.setdefault(record.folder if record else None, (record, []))[1].append(seed)
        for record, planned in journals.values():
            states = tuple(records.state(method._replace(seed=seed))[0] for seed in planned)
            whole = tuple(record.seeds if record else planned)
            members.append(Member(method._replace(seed=whole[0]), whole, record, states))
    return members


def _kind(member: Member) -> str:
    """What members of a group share; not the device, and not what is done of it."""
    run, strategy = member.run, strategies.build(member.run.strategy)
    trainer = run.trainer or strategy.trainer
    plain = trainers.build(trainer, run.preset)
    wrapped = run.strategy if strategy.wrap(plain) is not plain else None
    rest = run._replace(strategy="", seed=0, save_weights=False)._asdict() | {"trainer": trainer, "wrapped": wrapped}
    if not run.way:  # as before there were any: jobs that wait in a queue were given these keys
        del rest["way"]
    return json.dumps([rest, member.seeds])


def _settings(member: Member) -> tuple[str, int, int]:
    """What a journal that is continued must keep."""
    if member.record is None:
        return "auto", member.run.pack, member.run.eval_every
    config = member.record.header["config"]
    return config["precision"], config["pack"], config["eval_every"]


def workdir(member: Member, results: Path) -> Path:
    """Where a journal is, or will be."""
    if member.record:
        return member.record.folder
    run = member.run
    digest = hashlib.sha256(expected(run).encode()).hexdigest()[:8]
    seeds = "_".join(map(str, member.seeds))
    name = f"{run.strategy}-{digest}{'-best' if run.eval_every else ''}-seeds_{seeds}"
    if len(name) > 120:
        name = f"{name[:100]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    above = results / "alone" if run.pack == 1 else results
    return above / naming.folder(run.dataset) / naming.folder(name)


def train(group: Group, members: Sequence[Member], results: Path, data_dir: str | None) -> Results:
    """Run, or continue, some members of a group."""
    run = members[0].run
    precision, pack, eval_every = group.settings
    model = _model(run)
    if pack == (model.cpu_pack if jax.devices()[0].platform == "cpu" else model.pack):
        pack = 0  # what a journal has in its place; stated, the same number would cut the runs into other packs
    options: dict[str, Any] = {
        "trainer": run.trainer, "preset": run.preset, "seeds": list(members[0].seeds), "epochs": run.epochs,
        **run.budget._asdict(), "eval_every": eval_every, "precision": precision, "pack": pack,
        "save_weights": any(member.run.save_weights for member in members), "data_dir": data_dir,
        "checkpoint_seconds": 60.0, **dict(run.way),
    }  # fmt: skip
    if run.pool_share:
        options |= {"pool_share": run.pool_share, "pool_seed": run.seed}
    names = [member.run.strategy for member in members]
    return run_together(run.dataset, names, [workdir(member, results) for member in members], results, options)


def run_together(
    dataset: str, names: Sequence[str], workdirs: Sequence[Path], results: Path, options: dict[str, Any]
) -> Results:
    """All strategies as one program; other groups with the same training find their first round in `results`."""
    return jaxdal.run_together(dataset, names, workdirs=workdirs, share_round_0=results / "round_0", **options)


def work(found: Sequence[Group], results: Path, data_dir: str | None = None) -> list[str]:
    """Work off groups: -> what failed. A group that fails is tried again a method at a time, to save the others."""
    failures = []
    for group in found:
        waiting = [member for member in group.members if not member.done]
        if not waiting:
            continue
        names = ", ".join(member.run.strategy for member in waiting)
        print(f"{group.key}  {group.name}: {names}", file=sys.stderr, flush=True)
        note = _note(group, results)
        told = _try(group, group.members, results, data_dir)
        if told and len(waiting) > 1:
            alone = {member.run.strategy: _try(group, [member], results, data_dir) for member in waiting}
            names = ", ".join(name for name, one in alone.items() if one)
            told = "\n".join(f"{name}: {one}" for name, one in alone.items() if one)
        if told:
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(f"{group.name}: {names}\n{told}\n")
            failures.append(_said(note))
        else:
            for path in _notes(group, results):
                path.unlink(missing_ok=True)
    return failures


def _note(group: Group, results: Path) -> Path:
    return results / "failed" / f"{group.key}.txt"


def _notes(group: Group, results: Path) -> list[Path]:
    """What a group that failed has left, and parts of it, which were jobs of their own."""
    note = _note(group, results)
    return [note, *([] if "." in group.key else sorted(note.parent.glob(f"{group.key}.*.txt")))]


def _said(note: Path) -> str:
    lines = note.read_text().strip().splitlines() or ["nothing is known"]
    return f"{note.stem}  {lines[0]}: {lines[-1]} (all of it: {note})"


def failed(found: Sequence[Group], results: Path) -> list[str]:
    """What went wrong with groups that are not done: key, methods, last line of the error, and where the rest is."""
    notes = dict.fromkeys(note for group in found if group.state != "done" for note in _notes(group, results))
    return [_said(note) for note in notes if note.exists()]


def _try(group: Group, members: Sequence[Member], results: Path, data_dir: str | None) -> str:
    """Train: -> the error, or nothing."""
    try:
        train(group, members, results, data_dir)
    except Exception:  # whatever a strategy, a driver or a disk comes up with: the other groups go on
        return traceback.format_exc()
    return ""


def show(plan: Sequence[Run], given: argparse.Namespace) -> int:
    """Print the groups of a plan with what is known about each method: -> exit code."""
    records = Records(given.results)
    found = of_command(plan, records, given)
    count: dict[str, int] = {}
    for group in found:
        state = f"{group.state}, failed" if failed([group], given.results) else group.state
        print(f"{group.key}  {group.name}: {state}")
        for member in group.members:
            told = ", ".join(f"{member.states.count(state)} {state}" for state in dict.fromkeys(member.states))
            where = f"  {member.record.folder}" if member.record else ""
            print(f"    {member.run.strategy}: {told}{where}")
            for each in member.states:
                count[each] = count.get(each, 0) + 1
    print(", ".join(f"{number} {state}" for state, number in count.items()) or "nothing to run", "in all")
    print(f"to do: {to_do(found)} of training on one H100 (estimate, experiments/estimate.py)")
    for path, told in records.unreadable.items():
        print(f"{path}: {told}")
    return 0


def to_do(found: Sequence[Group]) -> str:
    """How long what is missing takes."""
    waiting = [one.run for group in found for one in group.members for state in one.states if state not in DONE]
    return in_words(hours(waiting))


def jobs(found: Sequence[Group], given: argparse.Namespace, names: Sequence[str]) -> list[launchers.Job]:
    """A command for each key, which does the groups of that key and no others, and what is in it. names: of plans."""
    alike: dict[str, list[Group]] = {}
    for group in found:
        if group.state != "done":
            alike.setdefault(group.key, []).append(group)
    told = []
    for key, parts in alike.items():
        methods = [member.run.strategy for part in parts for member in part.members if not member.done]
        content = f"{parts[0].name}: {', '.join(dict.fromkeys(methods))}; {to_do(parts)} on one H100 (estimate)"
        flag = f"--together={parts[0].together}"
        argv = ("-m", "experiments.runs", f"--plan={','.join(names)}", *flags.told(given), flag, f"--only={key}")
        told.append(launchers.Job(key, argv, content))
    return told


def bring(plan: Sequence[Run], given: argparse.Namespace, names: Sequence[str]) -> list[str]:
    """Have all runs of a plan done, here or by a launcher: -> what failed. names: of the plans, for jobs.

    Raises:
        InputError: no group has a key that was asked for, or the launcher cannot do what it was asked for.
    """
    found = of_command(plan, Records(given.results), given)
    if given.only:
        if unknown := set(given.only) - {group.key for group in found}:
            raise InputError(f"No group has the key {', '.join(sorted(unknown))}: --list prints those that there are.")
        found = [group for group in found if group.key in given.only]
    if given.launcher == "local":
        commands.cache_programs()
        return work(found, given.results, given.data_dir)
    waiting = jobs(found, given, names)
    launching = {name: getattr(given, name) for name in launchers.Options._fields}
    code = launchers.launch(waiting, given.launcher, given.results, **launching) if waiting else 0
    return [f"--launcher={given.launcher} ended with code {code}"] if code else []


@flags.told_of_bad_input
def main(arguments: Sequence[str]) -> int:
    """Run the command; the exit code is 1 if something failed."""
    parser = flags.parser("python -m experiments.runs", "Works off what tables and figures need.")
    parser.add_argument("--plan", type=flags.plans, required=True, help="tables and figures, commas between them")
    given = flags.parse(parser, arguments)
    plan = flags.planned(given, given.plan)
    if given.list:
        return show(plan, given)
    failures = bring(plan, given, given.plan)
    for told in failures:
        print(f"failed: {told}", file=sys.stderr)
    if failures:
        print(f"again: python -m experiments.runs {shlex.join(arguments)}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    commands.begin()
    sys.exit(main(sys.argv[1:]))
