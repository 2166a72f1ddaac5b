"""The journal of a run: append-only JSON lines that are also its checkpoint (docs/journal.md has the format).

A group is what one round wrote: a line per seed. Groups are appended in one write, so a kill tears at most the last.
"""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdal.errors import InputError
from jaxdal.files import sync_folder

FORMAT = 1
NAME = "journal.jsonl"
SECONDS = ("train", "infer", "select", "eval", "compile")
KEYS = (
    *("seed", "round", "labelled", "diverged", "accuracy", "accuracy_best", "per_class_accuracy"),
    *("seconds", "runs_at_once", "selected_at_once", "lanes", "devices", "initial", "picks", "class_counts"),
)
HEADER_START = b'{"format":'

Line = dict[str, Any]
Group = list[Line]


class Contents(NamedTuple):
    """A validated journal."""

    header: Line
    groups: list[Group]  # complete rounds, each in the order of config["seeds"]
    environment: Line  # where the last start happened
    end: int  # bytes up to here are complete; what follows is the torn tail of a kill


class Journal:
    """The journal of one running command, which alone may write to it; a context manager."""

    def __init__(self, path: Path, descriptor: int, contents: Contents) -> None:
        self.path = path
        self.header = contents.header
        self._fd = descriptor
        self._end = contents.end
        self._elsewhere = b""  # the line that says so; written in front of the first round that is played there
        self._rules = _Rules(contents.header["config"])
        for group in contents.groups:
            self._rules.accept(group)

    @classmethod
    def start(
        cls, workdir: Path, config: Line, environment: Line, notes: Line | None = None,
        begin: Callable[[bytes], bytes | None] = lambda data: None,
    ) -> "Journal":  # fmt: skip
        """Create the journal, or validate it and drop its torn tail. config needs "pool" and "seeds".

        notes: further keys of a new first line, such as "class_names"; they do not tell experiments apart. begin: told
        what is there, returns what a journal begins with in its place, or None.

        Raises:
            InputError: the journal is damaged, of another configuration or in use; it is then left as it was.
        """
        path = Path(workdir) / NAME
        config, environment, notes = (json.loads(_dump(part)) for part in (config, environment, notes or {}))
        if not _valid_config(config):
            raise ValueError("config needs 'pool', the size of the pool, and 'seeds', a list of distinct integers")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise InputError(f"{path} cannot be opened for writing: {error.strerror} ({error.filename})") from None
        try:
            _lock(fd, path)
            data = path.read_bytes()
            begun = begin(data)
            if new := begun is not None or is_torn(data):
                header = {"format": FORMAT, "config": config, "environment": environment, **notes}
                data = begun or _encode(header)
            contents = _scan(data, path)
            refuse_other_config(contents.header["config"], config, path)
            journal = cls(path, fd, contents._replace(end=0) if new else contents)
            if new:
                os.ftruncate(fd, 0)
                journal._write(data)
                sync_folder(path.parent)
            elif contents.end < len(data):
                os.ftruncate(fd, contents.end)
            if environment != contents.environment:
                journal._elsewhere = _encode({"environment": environment})
            return journal
        except BaseException:
            os.close(fd)
            raise

    @property
    def groups(self) -> list[Group]:
        """The complete rounds, in order."""
        return self._rules.groups

    @property
    def live(self) -> list[int]:
        """The seeds that the next round trains: those that have not diverged."""
        return self._rules.live

    def append(self, group: Group) -> None:
        """Write the lines of the next round, one for every live seed, in one write, and wait for the disk.

        Raises:
            InputError: the lines are not the next round's, or picks are out of range, repeated or already known.
            ValueError: a number is not finite.
        """
        lines = [json.loads(_dump(line)) for line in group]  # what a reader will see
        self._rules.check_group(lines, self.path)
        lines.sort(key=lambda line: self.live.index(line["seed"]))
        texts = [_encode({key: line[key] for key in (*KEYS, *line) if key in line}) for line in lines]
        self._write(b"".join([self._elsewhere, *texts]))
        self._elsewhere = b""
        self._rules.accept(lines)

    def close(self) -> None:
        """Give the workdir free for other processes."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _write(self, data: bytes) -> None:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            os.fsync(self._fd)
        except OSError:  # a full disk, say: half a group must not stay in front of a later one
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._end)
            raise
        self._end += len(data)


def read(workdir: Path) -> tuple[Line, list[Group]]:
    """Header and complete rounds of a journal, which may be in use; changes nothing.

    Raises:
        InputError: there is no journal, or it is damaged.
    """
    path = Path(workdir) / NAME
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    if is_torn(data):
        raise InputError(f"{path} has no complete first line.")
    contents = _scan(data, path)
    return contents.header, contents.groups


def known_picks(groups: Sequence[Group], seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """What a seed has bought: (initial: i32[n], picks: i32[k] of each round it finished)."""
    lines = [line for group in groups for line in group if line["seed"] == seed and "diverged" not in line]
    initial = lines[0]["initial"] if lines else []
    return np.asarray(initial, np.int32), [np.asarray(line["picks"], np.int32) for line in lines]


def diverged(groups: Sequence[Group]) -> dict[int, tuple[int, int]]:
    """Seed -> (round, step) of the runs whose loss became NaN."""
    lines = [line for group in groups for line in group if "diverged" in line]
    return {line["seed"]: (line["round"], line["diverged"]["step"]) for line in lines}


class _Rules:
    """What a valid sequence of rounds is: the next round, its seeds, and what each of them may still buy."""

    def __init__(self, config: Line) -> None:
        self.live: list[int] = list(config["seeds"])
        self.groups: list[Group] = []
        self._seeds = set(config["seeds"])
        self._known = {seed: np.zeros(config["pool"], bool) for seed in self.live}

    def check_group(self, group: Group, path: Path) -> None:
        """Raises InputError unless the lines are a whole next round."""
        for number, line in enumerate(group):
            self.check(line, group[:number], f"The round that was to be added to {path}")
        missing = set(self.live) - {line["seed"] for line in group}
        if missing or not group:
            raise InputError(f"{path}: round {len(self.groups)} lacks a line of seeds {sorted(missing)}.")

    def check(self, line: Line, before: Group, where: str) -> None:
        """Raises InputError unless the line may follow the lines `before` of the same round."""
        for key in ("seed", "round", "labelled"):
            if type(line.get(key)) is not int:
                raise InputError(f"{where} has no valid {key!r}.")
        seed = line["seed"]
        if seed not in self._seeds:
            raise InputError(f"{where} has seed {seed}, which is not one of the configuration's.")
        if line["round"] != len(self.groups):
            raise InputError(f"{where} is of round {line['round']} where round {len(self.groups)} belongs.")
        if seed not in self.live:
            raise InputError(f"{where} continues seed {seed}, which diverged in an earlier round.")
        if seed in [other["seed"] for other in before]:
            raise InputError(f"{where} repeats seed {seed} in round {line['round']}.")
        if "diverged" in line:
            if not isinstance(line["diverged"], dict) or type(line["diverged"].get("step")) is not int:
                raise InputError(f"{where} has no valid 'diverged'.")
            return
        known = self._known[seed]
        if line["round"] == 0:
            known = _buy(line, "initial", known, where)
        _buy(line, "picks", known, where)
        if line["labelled"] != known.sum():
            raise InputError(f"{where} speaks of {line['labelled']} labels where {known.sum()} had been bought.")
        shares = (line.get("accuracy"), line.get("accuracy_best") or 0.0)
        if not all(isinstance(share, int | float) and 0 <= share <= 1 for share in shares):
            raise InputError(f"{where} has an accuracy that is not between 0 and 1.")
        seconds = line.get("seconds", {})
        if not isinstance(seconds, dict) or not all(isinstance(value, int | float) for value in seconds.values()):
            raise InputError(f"{where} has no valid 'seconds'.")

    def accept(self, group: Group) -> None:
        """Take in a checked round."""
        for line in group:
            for key in ("initial", "picks") if len(self.groups) == 0 else ("picks",):
                self._known[line["seed"]][line.get(key, [])] = True
        order = self.live
        self.groups.append(sorted(group, key=lambda line: order.index(line["seed"])))
        self.live = [seed for seed in order if seed not in diverged([group])]


def _buy(line: Line, key: str, known: np.ndarray, where: str) -> np.ndarray:
    """known: bool[N] after the picks under `key`; raises InputError unless they are distinct and were unknown."""
    picks = line.get(key)
    if not isinstance(picks, list) or not all(type(pick) is int for pick in picks):
        raise InputError(f"{where} has no valid {key!r}.")
    outside = [pick for pick in picks if not 0 <= pick < known.size]
    if outside:
        raise InputError(f"{where} has {key} outside the pool of {known.size}: {outside[:5]}.")
    if len(set(picks)) < len(picks):
        raise InputError(f"{where} has {key} that repeat.")
    before = [pick for pick in picks if known[pick]]
    if before:
        raise InputError(f"{where} has {key} that were already known: {before[:5]}.")
    known = known.copy()
    known[picks] = True
    return known


def _scan(data: bytes, path: Path) -> Contents:
    """All of a journal's bytes, validated; raises InputError."""
    *lines, tail = data.split(b"\n")
    header = _parse(lines[0]) if lines else None
    if header is None or not {"format", "config", "environment"} <= header.keys():
        raise InputError(f"{path} does not begin with the first line of a journal, and is left as it is.")
    if header["format"] != FORMAT:
        raise InputError(f"{path} has format {header['format']!r}, but this version of jaxdal knows only {FORMAT}.")
    if not _valid_config(header["config"]):
        raise InputError(f"{path}: line 1 is damaged: its configuration has no valid 'seeds' and 'pool'.")
    rules, environment = _Rules(header["config"]), header["environment"]
    group: Group = []
    end = position = len(lines[0]) + 1
    for number, text in enumerate(lines[1:], 2):
        position += len(text) + 1
        line = _parse(text)
        if line is None:
            if (number == len(lines) and not tail) or _hole(text, [*lines[number:], tail], len(rules.groups)):
                break
            raise InputError(f"{path}: line {number} is damaged, with good lines after it that would be lost.")
        if line.keys() == {"environment"} and not group:
            environment, end = line["environment"], position
            continue
        rules.check(line, group, f"{path}: line {number}")
        group.append(line)
        if len(group) == len(rules.live):
            rules.accept(group)
            group, end = [], position
    return Contents(header, rules.groups, environment, end)


def _parse(text: bytes) -> Line | None:
    """A JSON object, or None where the bytes are not one."""
    try:
        value = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _hole(text: bytes, rest: list[bytes], round: int) -> bool:
    """Whether power loss explains the damage: NULs within the last write, so nothing of a later round follows."""
    return b"\0" in text and all(line is None or line.get("round") == round for line in map(_parse, rest))


def is_torn(data: bytes) -> bool:
    """Whether a start was killed before its first line was complete; a foreign file is not taken for that."""
    start = data.rstrip(b"\0")
    return b"\n" not in data and (start.startswith(HEADER_START) or HEADER_START.startswith(start))


def _valid_config(config: Any) -> bool:
    if not isinstance(config, dict) or type(config.get("pool")) is not int or config["pool"] < 0:
        return False
    seeds = config.get("seeds")
    return isinstance(seeds, list) and all(type(seed) is int for seed in seeds) and len(set(seeds)) == len(seeds) > 0


def refuse_other_config(old: Line, new: Line, path: Path, extends: bool = False) -> None:
    """Raises InputError unless the configurations are the same. extends: that of `path`, from another folder."""
    differ = [key for key in {**old, **new} if key not in old or key not in new or old[key] != new[key]]
    if differ:
        there, here = ([_dump(side[key]) if key in side else "nothing" for key in differ] for side in (old, new))
        told = ", ".join(f"{key} ({was} there, {now} now)" for key, was, now in zip(differ, there, here, strict=True))
        way = "Give those of there" if extends else "Try another --workdir; or give those of there"
        if differ == ["n_end"] and old.get("n_end", 0) < new.get("n_end", 0):
            way = "Try another --workdir; with --extend=DIR it goes on from there"
        raise InputError(f"{path} belongs to another configuration; these keys differ: {told}. {way}.")


def _encode(line: Line) -> bytes:
    return _dump(line).encode() + b"\n"


def _dump(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    """Arrays and scalars of NumPy and JAX as JSON values."""
    if not hasattr(value, "tolist"):
        raise TypeError(f"{type(value).__name__} is not a value for the journal: {value!r}")
    return value.tolist()


def _lock(fd: int, path: Path) -> None:
    """Hold the journal until its descriptor closes, at the latest with the process."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{path} is in use by another process.") from None
    except OSError as error:  # some network file systems know no locks, but can hold a journal
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise
