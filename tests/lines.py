"""Lines and groups of a small journal, and what a start makes of its bytes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxdal import journal
from jaxdal.errors import InputError
from jaxdal.journal import Journal

POOL = 40
CONFIG = {"dataset": "digits", "strategy": "margin", "pool": POOL, "seeds": [3, 1, 2], "n_start": 4}
HERE = {"versions": {"jax": "0.0"}, "devices": ["cpu é"]}


def line(seed: int, round: int, **changes: Any) -> dict[str, Any]:
    order = np.random.default_rng(seed).permutation(POOL).tolist()
    start = {"initial": order[:4]} if round == 0 else {}
    return {
        "seed": seed,
        "round": round,
        "labelled": 4 + 3 * round,
        "accuracy": 0.5 + 0.1 * round,
        "accuracy_best": None,
        "per_class_accuracy": [0.5, None],
        "seconds": {"train": 1.0, "infer": 0.1, "select": 0.1, "eval": 0.1, "compile": 0.0},
        "runs_at_once": 3,
        "picks": order[4 + 3 * round : 7 + 3 * round],
        "class_counts": [2, 2],
        **start,
        **changes,
    }


def dead(seed: int, round: int) -> dict[str, Any]:
    return {"seed": seed, "round": round, "labelled": 4 + 3 * round, "diverged": {"step": 37}}


def group(round: int, seeds: tuple[int, ...] = (3, 1, 2)) -> list[dict[str, Any]]:
    return [line(seed, round) for seed in seeds]


def written(workdir: Path, rounds: int = 3) -> bytes:
    """The bytes of a journal with some finished rounds."""
    with Journal.start(workdir, CONFIG, HERE) as book:
        for round in range(rounds):
            book.append(group(round))
    return (workdir / "journal.jsonl").read_bytes()


def restart(workdir: Path, data: bytes) -> list[list[dict[str, Any]]]:
    """What a start makes of these bytes."""
    (workdir / "journal.jsonl").write_bytes(data)
    with Journal.start(workdir, CONFIG, HERE) as book:
        return book.groups


def refused(workdir: Path, data: bytes, *words: str) -> None:
    """Starting and reading fail with one sentence that has all the words; the file stays as it is."""
    path = workdir / "journal.jsonl"
    for attempt in (lambda: restart(workdir, data), lambda: journal.read(workdir)):
        with pytest.raises(InputError) as error:
            attempt()
        text = str(error.value)
        assert all(word in text for word in words), text
        assert text.endswith(".")
        assert "\n" not in text
        assert path.read_bytes() == data
