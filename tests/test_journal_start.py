"""How a journal is started: by whom, for which experiment, and where it cannot be."""

import subprocess
import sys
from pathlib import Path

import pytest
from lines import CONFIG, HERE, group, refused, written

from jaxdal import journal
from jaxdal.errors import InputError
from jaxdal.journal import Journal


def test_notes_are_kept_but_tell_no_experiments_apart(tmp_path: Path) -> None:
    with Journal.start(tmp_path, CONFIG, HERE, {"class_names": ("stop", "yield")}) as book:
        assert book.header["class_names"] == ["stop", "yield"]
        book.append(group(0))
    for other in ({"class_names": ["a", "b"]}, None):
        with Journal.start(tmp_path, CONFIG, HERE, other) as book:
            assert book.header["class_names"] == ["stop", "yield"]
            assert len(book.groups) == 1
    assert journal.read(tmp_path)[0]["class_names"] == ["stop", "yield"]


def test_a_new_environment_is_noted_once(tmp_path: Path) -> None:
    first = written(tmp_path, 2)
    there = {"versions": {"jax": "0.1"}, "devices": ["gpu"]}
    path = tmp_path / "journal.jsonl"
    noted = first + b'{"environment":{"versions":{"jax":"0.1"},"devices":["gpu"]}}\n'
    Journal.start(tmp_path, CONFIG, there).close()
    assert path.read_bytes() == first, "nothing was trained there"
    with Journal.start(tmp_path, CONFIG, there) as book:
        book.append(group(2))
    assert path.read_bytes().startswith(noted)
    assert path.read_bytes().count(b'"environment"') == 2
    header, groups = journal.read(tmp_path)
    assert header["environment"] == HERE
    assert groups == [group(0), group(1), group(2)]
    data = path.read_bytes()
    for cut in range(len(noted), len(data), 9):  # a torn group behind it leaves the note
        path.write_bytes(data[:cut])
        Journal.start(tmp_path, CONFIG, there).close()
        assert path.read_bytes() == noted
    inside = noted.splitlines(keepends=True)
    refused(tmp_path, b"".join([*inside[:2], inside[-1], *inside[2:]]), "line 3 has no valid 'seed'")


def test_two_starts_at_once(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from jaxdal.journal import Journal\n"
        f"book = Journal.start(Path(sys.argv[1]), {CONFIG!r}, {HERE!r})\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        before = (tmp_path / "journal.jsonl").read_bytes()
        with pytest.raises(InputError, match="in use by another process"):
            Journal.start(tmp_path, CONFIG, HERE)
        assert (tmp_path / "journal.jsonl").read_bytes() == before
        other.kill()
    with Journal.start(tmp_path, CONFIG, HERE) as book:  # the lock died with its process
        with pytest.raises(InputError, match="in use"):
            Journal.start(tmp_path, CONFIG, HERE)
        book.append(group(0))


def test_a_failed_start_lets_go(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(InputError, match="another configuration"):
        Journal.start(tmp_path, {**CONFIG, "n_start": 9}, HERE)
    Journal.start(tmp_path, CONFIG, HERE).close()


def test_places_that_hold_no_journal(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be opened for writing"):
        Journal.start(tmp_path / "file", CONFIG, HERE)
    with pytest.raises(InputError, match="cannot be read"):
        journal.read(tmp_path / "nowhere")
