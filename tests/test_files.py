"""Files are there whole or not at all."""

import platform
from pathlib import Path

import pytest

from jaxdal.files import replacing, write_text


def test_a_failed_write_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = write_text(tmp_path / "told.txt", "größer\n")

    def stop_in_the_middle() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            assert path.read_bytes() == "größer\n".encode()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_in_the_middle()
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("told.txt", "größer\n".encode())]


def test_processes_of_one_number_on_two_hosts_do_not_write_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Number 1 of each of two containers that share a disk."""
    path = tmp_path / "report.html"
    monkeypatch.setattr(platform, "node", lambda: "pod-a")
    with replacing(path) as one:
        one.write_text("a whole page of the first")
        monkeypatch.setattr(platform, "node", lambda: "pod-b")
        with replacing(path) as other:
            other.write_text("of the second")
        assert path.read_text() == "of the second"
        assert one.read_text() == "a whole page of the first"
    assert path.read_text() == "a whole page of the first"
