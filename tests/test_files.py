"""Files are there whole or not at all."""

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
