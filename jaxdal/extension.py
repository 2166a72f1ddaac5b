"""More rounds for an experiment that has had its last one, in a journal that begins with the rounds of the first."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxdal import journal
from jaxdal.budgets import Budget
from jaxdal.errors import InputError
from jaxdal.files import replacing
from jaxdal.memory import load_memory, memory_path

KEYS = ("n_start", "n_query", "n_end")


def beginning(old: Path, workdir: Path, config: dict[str, Any], remembers: bool) -> Callable[[bytes], bytes | None]:
    """Return how a journal in `workdir` begins, for `Journal.start`: as the one in `old`, without its last round.

    Nothing was bought in that, so that it is trained once more. Nothing random depends on `n_end`, so that the longer
    experiment becomes what it would be alone. A journal in `workdir` that has more goes on, and needs `old` no longer,
    which stays as it is.

    config: of the longer experiment. remembers: whether its strategy does, for which files are copied.

    Raises:
        InputError: `old` has no journal, or lacks what the strategy remembered, or is of an experiment that differs in
            more than `n_end`, or of no shorter one.
    """
    config = json.loads(json.dumps(config))
    try:
        text, rounds = _rounds(old, config)
        for round_ in range(rounds if remembers else 0):
            load_memory(old, round_)
    except InputError as error:
        if not _goes_on(workdir):
            raise InputError(f"--extend={old}: {error}") from None
        return lambda data: None

    def begin(data: bytes) -> bytes | None:
        """data: nothing, a part that a kill has left, or a start without --extend; what is more goes on."""
        part = len(data) < len(text) and text.startswith(data)
        if not (part or journal.is_torn(data) or _has_no_round(data, config)):
            return None
        for round_ in range(rounds if remembers else 0):
            _copy(memory_path(old, round_), memory_path(workdir, round_))
        return text

    return begin


def _rounds(old: Path, config: dict[str, Any]) -> tuple[bytes, int]:
    """The bytes that the journal begins with, and how many rounds they have."""
    path = old / journal.NAME
    header, groups = journal.read(old)
    own = header["config"]
    journal.refuse_other_config(own, config | {"n_end": own.get("n_end")}, path, extends=True)
    rounds, wanted = (Budget(*(each[key] for key in KEYS)).rounds for each in (own, config))
    if wanted <= rounds:
        raise InputError(f"{path} has {rounds} rounds, to which --n_end={config['n_end']} adds none.")
    kept = groups[: rounds - 1]
    first = header | {"config": config, "extends": str(old)}
    texts, missing = [json.dumps(first, separators=(",", ":")).encode() + b"\n"], sum(map(len, kept))
    for text in path.read_bytes().splitlines(keepends=True)[1:]:
        if not missing:
            break
        texts.append(text)
        missing -= "round" in json.loads(text)  # not where a line tells another environment
    return b"".join(texts), len(kept)


def _has_no_round(data: bytes, config: dict[str, Any]) -> bool:
    """Whether this is the first line of a journal of the same experiment, and nothing else."""
    first, _, rest = data.partition(b"\n")
    try:
        return not rest and json.loads(first).get("config") == config
    except (ValueError, AttributeError):  # another file, which is refused
        return False


def _goes_on(workdir: Path) -> bool:
    """Whether there is a journal already."""
    try:
        journal.read(workdir)
    except InputError:
        return False
    return True


def _copy(old: Path, new: Path) -> None:
    """Copy a file, and wait for the disk, since the journal will speak of it."""
    try:
        with replacing(new) as partial:
            shutil.copyfile(old, partial)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f"{old} cannot be copied to {new}: {error.strerror}.") from None
