"""Decoded images on disk: read again where nothing has changed, made again where anything has."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pictures import load, picture, save, tree

from jaxdal import data
from jaxdal.data import cache, images
from jaxdal.data.images import Source

pytestmark = pytest.mark.usefixtures("kept")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of all images that are decoded."""
    seen: list[str] = []
    original = images._try

    def spy(source: Source, image_size: int | None) -> tuple[np.ndarray | None, str]:
        seen.append(source.name)
        return original(source, image_size)

    monkeypatch.setattr(images, "_try", spy)
    return seen


def test_a_second_start_decodes_nothing(
    tmp_path: Path, decoded: list[str], capsys: pytest.CaptureFixture[str], kept: Path
) -> None:
    root = tree(tmp_path / "own")
    first = load(root)
    (file,) = kept.iterdir()
    assert capsys.readouterr().err.startswith(f"folder:{root}: decoded 12 images in ")
    decoded.clear()
    second = load(root)
    assert not decoded
    assert capsys.readouterr().err == ""
    assert data.fingerprint(second) == data.fingerprint(first)
    assert (second.files, second.class_names) == (first.files, first.class_names)
    root.rename(tmp_path / "elsewhere")
    load(tmp_path / "elsewhere")
    assert not decoded, "files keep their times when a folder above them moves"
    assert data.fingerprint(data.load(f"npz:{file}")) == data.fingerprint(first)


def test_other_files_and_other_settings_are_decoded(tmp_path: Path, decoded: list[str], kept: Path) -> None:
    root = tree(tmp_path / "own")
    before = load(root)
    file = root / "train" / "C" / "0.ppm"  # uncompressed: every content has the same size
    (root / "train" / "C" / "0.png").unlink()
    save(file, picture(0))
    assert data.fingerprint(load(root)) == data.fingerprint(before)
    status = file.stat()
    save(file, picture(50))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    np.testing.assert_array_equal(load(root).train_x[0], picture(50))
    for change in ({"image_size": 4}, {"skip_broken": True}):
        decoded.clear()
        load(root, **change)
        assert decoded
    file.rename(root / "train" / "C" / "9.ppm")
    assert load(root).files[2] == "train/C/9.ppm"
    assert len(list(kept.iterdir())) == 6


def test_a_full_disk_leaves_nothing_that_is_read_back(
    tmp_path: Path, decoded: list[str], capsys: pytest.CaptureFixture[str], kept: Path
) -> None:
    root = tree(tmp_path / "own")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # no file may grow beyond: writing fails midway
    try:
        got = load(root)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be kept in" in capsys.readouterr().err
    assert list(kept.iterdir()) == []
    np.testing.assert_array_equal(got.train_x[0], picture(0))
    decoded.clear()
    assert data.fingerprint(load(root)) == data.fingerprint(got)
    assert decoded


def test_a_cache_that_cannot_be_written_stops_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cache").write_text("in the way")
    assert len(load(tree(tmp_path / "own")).train_x) == 9
    assert "cannot be kept in" in capsys.readouterr().err


def test_damaged_files_of_the_cache_are_made_again(tmp_path: Path, decoded: list[str], kept: Path) -> None:
    root = tree(tmp_path / "own", per_class=20)
    mark = data.fingerprint(load(root))
    (file,) = kept.iterdir()
    whole = file.read_bytes()
    bit = bytearray(whole)
    bit[1000] ^= 1  # a pixel
    for content in (b"", whole[:-30], whole[:2000], bytes(bit), b"\0" * len(whole)):
        file.write_bytes(content)
        decoded.clear()
        assert data.fingerprint(load(root)) == mark
        assert decoded
        assert file.read_bytes()[:500] == whole[:500]


def test_a_killed_start_leaves_at_most_a_day_old_part(tmp_path: Path, kept: Path) -> None:
    kept.mkdir(parents=True)
    for name, age in (("old.partial", 2 * cache.DAY), ("young.partial", 0.0)):
        (kept / name).write_bytes(b"half")
        now = (kept / name).stat().st_mtime
        os.utime(kept / name, (now - age, now - age))
    load(tree(tmp_path / "own"))
    assert sorted(path.suffix for path in kept.iterdir()) == [".npz", ".partial"]
    assert (kept / "young.partial").exists()
