"""More rounds for an experiment that has had its last one, in a journal that begins with the rounds of the first."""

import json
import shutil
from pathlib import Path
from typing import Any

from jaxdal import journal
from jaxdal.budgets import Budget
from jaxdal.errors import InputError

KEYS = ("n_start", "n_query", "n_end")


def begun(old: Path, workdir: Path, config: dict[str, Any]) -> bytes | None:
    """Return the bytes that a journal in `workdir` begins with, and copy what the strategy remembered there.

    They are those of the journal in `old`, with another first line, and without its last round: nothing was bought in
    that, so that it is trained once more. Nothing random depends on `n_end`, so that the longer experiment becomes what
    it would be alone. None if there already is a journal in `workdir`, which then goes on. `old` stays as it is.

    config: of the longer experiment.

    Raises:
        InputError: `old` has no journal, or one of an experiment that differs in more than `n_end`, or no shorter one.
    """
    if (workdir / journal.NAME).exists():
        return None
    path = old / journal.NAME
    header, groups = journal.read(old)
    own, config = header["config"], json.loads(json.dumps(config))
    journal.refuse_other_config(own, config | {"n_end": own.get("n_end")}, path)
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
    workdir.mkdir(parents=True, exist_ok=True)
    for round_ in range(len(kept)):
        memory = f"memory_{round_}.npz"
        if (old / memory).exists():
            shutil.copyfile(old / memory, workdir / memory)
    return b"".join(texts)
