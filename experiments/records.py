"""What journals below a folder know about planned runs: which are complete, and their lines."""

import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from experiments.plans import SIZES, Run, of_pool
from jaxdal import comparison, data, journal, settings, strategies
from jaxdal.comparison import COMPLETE, CONFLICT, DIVERGED, MISSING, PARTIAL, Experiment, Source
from jaxdal.errors import InputError
from jaxdal.journal import Line
from jaxdal.metrics import balanced
from jaxdal.settings import Settings
from jaxdal.types import Recipe

# What may differ between a planned run and the journal that has it: where and how it was computed, not what.
ELSEWHERE = ("seeds", "pack", "precision", "eval_every", "fingerprint")


def resolved(run: Run) -> Settings:
    """The settings of a run, without its images: their fingerprint is none."""
    size, info = SIZES[run.dataset], data.TABLE[run.dataset]
    one, labels = np.zeros((1, *size.image), np.uint8), np.zeros(run.pool, np.int32)
    images = data.from_arrays(one, labels[:1], one, labels[:1], num_classes=info.num_classes, mirror=info.mirror)
    images = images._replace(train_y=labels, test_y=np.zeros(size.test, np.int32))
    return settings.resolve(
        run.dataset, images, run.strategy, trainer=run.trainer, preset=run.preset, seeds=[run.seed],
        n_start=run.n_start, n_query=run.n_query, n_end=run.n_end, epochs=run.epochs, eval_every=run.eval_every,
        pack=run.pack, fingerprint="not known", **dict(run.way),
    )  # fmt: skip


def expected(run: Run) -> str:
    """Text by which the journals of a run are known, those of its other seeds too, unless each has its own pool."""
    return _expected(run._replace(seed=run.seed if run.pool_share else 0, save_weights=False))


@functools.cache
def _expected(run: Run) -> str:
    return _identity(resolved(run).config(), run.pool_share, run.seed)


def _identity(config: Line, pool_share: str | None, pool_seed: int | None) -> str:
    """Text that is the same for the same experiment, wherever it is computed."""
    usual = Recipe._field_defaults  # what is as usual says nothing: older journals do not have all of these keys
    rest = {
        key: value
        for key, value in config.items()
        if key not in ELSEWHERE and not (key in usual and value == usual[key])
    }
    share = [pool_share, pool_seed if pool_share else None]
    return json.dumps([rest, share], sort_keys=True, default=list)


class Record(NamedTuple):
    """A journal."""

    folder: Path
    header: Line
    groups: list[journal.Group]

    @property
    def seeds(self) -> list[int]:
        """All that it has."""
        return self.header["config"]["seeds"]

    def lines(self, seed: int) -> list[Line]:
        """The rounds of a seed, a diverged one included."""
        return [line for group in self.groups for line in group if line["seed"] == seed]


class Records:
    """All journals below a folder, read once; those of `alone` are a world of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.unreadable: dict[Path, str] = {}
        self._of: dict[tuple[bool, str], list[Record]] = {}
        for path in sorted(self.folder.rglob(journal.NAME)):
            try:
                header, groups = journal.read(path.parent)
            except InputError as error:
                self.unreadable[path.parent] = str(error)
                continue
            identity = _identity(header["config"], header.get("pool_share"), header.get("pool_seed"))
            record = Record(path.parent, header, groups)
            alone = path.is_relative_to(self.folder / "alone")
            self._of.setdefault((alone, identity), []).append(record)

    def all_of(self, run: Run) -> list[Record]:
        """Every journal of a run."""
        return [
            record
            for record in self._of.get((run.pack == 1, expected(run)), [])
            if run.seed in record.seeds and record.header["config"].get("eval_every", 0) in (run.eval_every, 1)
        ]

    def of(self, run: Run) -> Record | None:
        """The journal that has got furthest with a run, where it is continued, or None."""
        return max(self.all_of(run), key=lambda record: len(record.lines(run.seed)), default=None)

    def shown(self, run: Run) -> Record | None:
        """The journal whose numbers are those of a run, or None, also where journals do not agree about it."""
        return None if self.state(run)[0] == CONFLICT else self.of(run)

    def state(self, run: Run) -> tuple[str, str]:
        """COMPLETE, PARTIAL, DIVERGED, CONFLICT or MISSING, and what a reader must know of it."""
        records = self.all_of(run)
        if not records:
            return MISSING, "no journal"
        lines = max((record.lines(run.seed) for record in records), key=len)
        disagreed = comparison.disagreement([record.lines(run.seed) for record in records])
        if disagreed is not None:
            where = ", ".join(str(record.folder) for record in records)
            return CONFLICT, f"journals disagree from round {disagreed} on, so it is in no number: {where}"
        if lines and "diverged" in lines[-1]:
            return DIVERGED, f"the loss was not finite in round {lines[-1]['round']}"
        rounds = run.budget.rounds
        return (PARTIAL, f"{len(lines)} of {rounds} rounds") if len(lines) < rounds else (COMPLETE, "")

    def sources(self, runs: Iterable[Run]) -> list[Source]:
        """The journals of some runs, with the seeds of these runs only, and what they are compared by.

        Epochs over the pool and over the labelled images are two units, and a scale may have options for the trainer:
        the plan says that they are compared all the same, and the report what they are.
        """
        wanted: dict[Path, tuple[Record, Run, list[int]]] = {}
        epochs: dict[str, int] = {}
        for run in runs:
            if not of_pool(run):
                epochs.setdefault(run.dataset, run.epochs)
            if record := self.shown(run):
                wanted.setdefault(record.folder, (record, run, []))[2].append(run.seed)
        told = []
        for record, run, seeds in wanted.values():
            groups = [[line for line in group if line["seed"] in seeds] for group in record.groups]
            config = record.header["config"] | {"seeds": [seed for seed in record.seeds if seed in seeds]}
            if of_pool(run):
                config |= {"epochs": epochs.get(run.dataset, run.epochs)}
            # By the names of the plan, without options that the scale has chosen or digests of somebody's own code.
            config |= {"strategy": run.strategy, "trainer": strategies.build(run.strategy).trainer}
            moves = [record.header["environment"], *comparison.moves(record.folder / journal.NAME)]
            told.append(Source(record.folder, config, groups, moves))
        return told

    def experiment(self, runs: Sequence[Run]) -> tuple[Experiment | None, list[str]]:
        """The journals of some runs that can be compared, those with random sampling first; and what is left out."""
        sources = self.sources(runs)
        if not sources:
            return None, []
        found = sorted(
            comparison.experiments(sources), key=lambda one: (one.baseline is None, -len(one.runs), one.title)
        )
        others = [name for one in found[1:] for name in one.methods]
        told = [f"Not comparable with the others ({found[1].title}): {', '.join(others)}."] if others else []
        return found[0], told

    def mixed(self, runs: Iterable[Run]) -> list[str]:
        """What a reader of runs that are shown together must know: that precision or images are not the same in all."""
        precisions: dict[str, None] = {}
        images: dict[tuple[str, str | None, int], dict[str, None]] = {}  # data set, and share and seed of its pool
        for run in runs:
            if record := self.shown(run):
                config = record.header["config"]
                precisions[str(config.get("precision", "unknown"))] = None
                pool = (run.dataset, run.pool_share, run.seed if run.pool_share else 0)
                images.setdefault(pool, {})[str(config.get("fingerprint", "unknown"))] = None
        told = [f"precision ({', '.join(precisions)})"] if len(precisions) > 1 else []
        different = next((one for one in images.values() if len(one) > 1), {})
        told += [f"images (fingerprints {', '.join(one[:8] for one in different)})"] if different else []
        return [f"runs of different {' and '.join(told)} are shown as one"] if told else []

    def frame(self, runs: Sequence[Run]) -> pd.DataFrame:
        """A row per run and finished round: all of Run, and round, labelled, accuracy, accuracy_best..."""
        rows: list[dict[str, Any]] = []
        for run in runs:
            record = self.shown(run)
            if record is None:
                continue
            where = {"folder": str(record.folder.relative_to(self.folder))}
            for line in record.lines(run.seed):
                if "diverged" not in line:
                    keys = ("round", "labelled", "accuracy", "accuracy_best")
                    told = {key: line.get(key) for key in keys} | {"accuracy_balanced": balanced(line)}
                    rows.append(run.row | told | where)
        columns = [*Run._fields, "round", "labelled", "accuracy", "accuracy_best", "accuracy_balanced", "folder"]
        return pd.DataFrame(rows, columns=columns)
