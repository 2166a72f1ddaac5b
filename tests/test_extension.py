"""An experiment with a larger n_end takes over the rounds of the shorter one, and becomes what it would be alone."""

import json
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
import pytest
from absl.testing import flagsaver
from killer import LABELS, SEEDS, experiment, watched

from jaxdal import Dataset, InputError, environment, extension, journal, main
from jaxdal.data import local
from jaxdal.engine import Engine
from jaxdal.journal import Journal


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of labels of each call that trains."""
    calls: list[int] = []
    monkeypatch.setattr(Engine, "advance", watched(Engine.advance, lambda call: calls.append(call[0])))
    return calls


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished experiment of two rounds, whose strategy remembers something."""
    return experiment(tmp_path_factory.mktemp("short"), n_end=LABELS[1]).workdir


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with three rounds."""
    return experiment(tmp_path_factory.mktemp("alone")).workdir


def contents(folder: Path) -> dict[str, Any]:
    """All files; of the journal without seconds, and without what `extend` adds to the first line."""
    found: dict[str, Any] = {path.name: path.read_bytes() for path in folder.iterdir()}
    lines = [json.loads(line) for line in found[journal.NAME].splitlines()]
    lines[0].pop("extends", None)
    return found | {journal.NAME: [{**line, "seconds": None} for line in lines]}


def test_it_is_bit_for_bit_what_it_would_be_alone(tmp_path: Path, short: Path, alone: Path, trained: list[int]) -> None:
    before = contents(short)
    result = experiment(tmp_path, extend=short)
    assert sorted(set(trained)) == [*LABELS[1:]], "round 0 is not trained again"
    assert result.header["extends"] == str(short)
    assert contents(tmp_path) == contents(alone)
    assert contents(short) == before

    # The lines of round 0 are those of the shorter experiment, byte by byte, seconds and all.
    first = slice(1, 1 + len(SEEDS))
    lines = [(folder / journal.NAME).read_bytes().splitlines()[first] for folder in (tmp_path, short)]
    assert lines[0] == lines[1]


def test_the_same_command_goes_on_without_the_shorter_experiment(
    tmp_path: Path, alone: Path, short: Path, trained: list[int]
) -> None:
    experiment(tmp_path, extend=short)
    path = tmp_path / journal.NAME
    complete = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(complete[:-2]))  # as a kill within the last lines leaves it
    trained.clear()
    experiment(tmp_path, extend=tmp_path / "deleted")
    assert sorted(set(trained)) == [LABELS[2]]
    assert contents(tmp_path) == contents(alone)


def test_one_that_is_not_finished_gives_all_its_rounds(tmp_path: Path, alone: Path, trained: list[int]) -> None:
    old, elsewhere = tmp_path / "old", {"environment": {"jax": "another one"}}
    old.mkdir()
    lines = (alone / journal.NAME).read_bytes().splitlines(keepends=True)
    other = json.dumps(elsewhere).encode() + b"\n"
    rounds = [lines[1 + at * len(SEEDS) : 1 + (at + 1) * len(SEEDS)] for at in range(3)]
    torn = rounds[2][0] + rounds[2][1][:40]
    (old / journal.NAME).write_bytes(b"".join([lines[0], *rounds[0], other, *rounds[1], torn]))
    for round_ in range(3):
        memory = f"memory_{round_}.npz"
        (old / memory).write_bytes((alone / memory).read_bytes())
    result = experiment(tmp_path / "new", n_end=96, extend=old)
    assert sorted(set(trained)) == [80, 96]
    kept = (result.workdir / journal.NAME).read_bytes().splitlines(keepends=True)
    assert kept[1:8] == [*rounds[0], other, *rounds[1]], "where they were trained is told, too"
    assert json.loads(kept[8]).keys() == {"environment"}, "and that the rest was trained here"
    assert [line["accuracy"] for line in result.groups[2]] == [json.loads(line)["accuracy"] for line in rounds[2]]


def test_it_is_proposed_where_it_may_help(short: Path) -> None:
    with pytest.raises(
        InputError, match=r"n_end \(64 there, 96 now\)\. Try another --workdir; with --extend=DIR it goes on"
    ):
        experiment(short, n_end=96)
    with pytest.raises(
        InputError, match=r"n_end \(64 there, 96 now\), epochs \(6 there, 5 now\)\. Try another --workdir; or give"
    ):
        experiment(short, n_end=96, epochs=5)


def test_a_first_write_that_was_killed_is_written_again(tmp_path: Path, short: Path, alone: Path) -> None:
    """Once its first line is there the journal is one, and would go on without the rounds that are missing."""
    config, environment = (journal.read(alone)[0][key] for key in ("config", "environment"))
    begin = extension.beginning(short, tmp_path, config, remembers=True)
    text = begin(b"")
    assert text is not None
    for share in (0.0, 0.1, 0.5, 0.99, 1.0):
        (tmp_path / journal.NAME).write_bytes(text[: int(share * len(text))])
        with Journal.start(tmp_path, config, environment, begin=begin) as book:
            assert [len(group) for group in book.groups] == [len(SEEDS)]
        assert (tmp_path / journal.NAME).read_bytes() == text
    assert (tmp_path / "memory_0.npz").read_bytes() == (short / "memory_0.npz").read_bytes()

    # A start that had forgotten --extend, and finished no round, is not one to go on from.
    (tmp_path / journal.NAME).unlink()
    for other, begun in ((config, True), (config | {"epochs": 3}, False)):
        with Journal.start(tmp_path, other, environment):
            pass
        assert (begin((tmp_path / journal.NAME).read_bytes()) == text) == begun
        (tmp_path / journal.NAME).unlink()

    # What was played since is not given up for it, nor is another's journal, however it begins.
    for more in (text + b"{", b"{}\n" + text):
        assert begin(more) is None


def test_what_the_strategy_remembered_must_be_there(tmp_path: Path, short: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(short, old)
    kept = (old / "memory_0.npz").read_bytes()
    assert not list(old.glob("*.partial"))
    for damaged in (None, kept[:100]):
        (old / "memory_0.npz").unlink(missing_ok=True)
        if damaged is not None:
            (old / "memory_0.npz").write_bytes(damaged)
        with pytest.raises(InputError, match=rf"{old}/memory_0\.npz is (missing|damaged)"):
            experiment(new, extend=old)
        assert not new.exists()
    (old / "memory_0.npz").write_bytes(kept)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be opened for writing: Not a directory"):
        experiment(tmp_path / "file" / "below", extend=old)


def test_what_is_refused(tmp_path: Path, short: Path) -> None:
    new = tmp_path / "new"
    for options, told in [
        ({"n_end": LABELS[1]}, "2 rounds, to which --n_end=64 adds none"),
        ({"n_end": LABELS[1] + 15}, "2 rounds, to which --n_end=79 adds none"),
        ({"n_end": 96, "epochs": 5}, r"these keys differ: epochs \(6 there, 5 now\)\. Give those of there\.$"),
        ({"n_end": 96, "n_query": 8}, r"these keys differ: n_query \(16 there, 8 now\)\."),
        ({"n_end": 96, "seeds": [3]}, "these keys differ: seeds"),
        ({"n_end": 96, "extend": tmp_path}, "journal.jsonl cannot be read"),
    ]:
        with pytest.raises(InputError, match=told):
            experiment(new, **{"extend": short, **options})
        assert not list(new.glob("*")), "nothing was begun"


def test_the_command_extends_several_strategies(tmp_path: Path, blobs: Dataset, monkeypatch: Any, capsys: Any) -> None:
    """Trained with unlabelled images, whose number, too, bounds shapes of the order of training."""
    monkeypatch.chdir(tmp_path)
    arrays = dict(zip(local.KEYS, (blobs.train_x, blobs.train_y, blobs.test_x, blobs.test_y), strict=True))
    np.savez("blobs.npz", **arrays)
    common = ["main", "--dataset=npz:blobs.npz", "--strategy=random,margin", "--seeds=4,2", "--model=tiny"]
    common += ["--n_start=40", "--n_query=10", "--epochs=1", "--batch=16", "--trainer=mixmatch"]
    monkeypatch.setattr(environment, "_commit", lambda: "somebody may commit while tests run")

    def picks(folder: str, *arguments: str) -> dict[str, Any]:
        with flagsaver.flagsaver(), mock.patch.object(jax, "devices", return_value=jax.devices()[:1]):
            assert main.main(main._parse([*common, f"--workdir={folder}", *arguments])) == 0
        found = {path.parent.name: journal.read(path.parent)[1] for path in Path(folder).glob("*/journal.jsonl")}
        keys = ("accuracy", "labelled", "picks", "class_counts")
        return {
            name: [[[line[key] for key in keys] for line in group] for group in groups]
            for name, groups in found.items()
        }

    picks("short", "--n_end=50")
    extended = picks("long", "--n_end=60", "--extend=short")
    assert extended == picks("alone", "--n_end=60")
    assert extended.keys() == {"random", "margin"}
    assert all(len(groups) == 3 for groups in extended.values())
    header, _ = journal.read(Path("long/margin"))
    assert header["extends"] == "short/margin"
