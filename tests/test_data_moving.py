"""Images that somebody moves about are decoded once, and are what decoding all of them gives."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import picture, save

from jaxdal.data import cache, moving
from jaxdal.data.images import Source, decode
from jaxdal.errors import InputError

GREY = (6, 5)


@pytest.fixture(autouse=True)
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call has decoded, of those that it needs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(moving, "WORTH", -1.0)
    counts: list[int] = []

    def counting(sources: Sequence[Source], *given: Any, **more: Any) -> Any:
        counts.append(len(sources))
        return decode(sources, *given, **more)

    monkeypatch.setattr(moving, "decode", counting)
    return counts


def same(root: Path, image_size: int | None = None, skip_broken: bool = False) -> None:
    """Compare with decoding everything."""
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))
    sources = [Source(name, f"{root}/{name}", -1) for name in names]
    found = moving.decode_once(sources, image_size, skip_broken=skip_broken, root=root)
    told = decode(sources, image_size, skip_broken=skip_broken, title="x")
    np.testing.assert_array_equal(found.good, told.good)
    np.testing.assert_array_equal(found.x, told.x)
    assert found.x.dtype == np.uint8


def test_what_was_moved_is_not_read_again(tmp_path: Path, counted: list[int]) -> None:
    root = tmp_path / "photos"
    for number in range(9):
        save(root / f"{number}.png", picture(number))
    same(root)
    (root / "cat").mkdir()
    for number in (3, 0):
        (root / f"{number}.png").rename(root / "cat" / f"{number}.png")
    same(root)
    same(root, image_size=4)
    save(root / "a.png", picture(9))
    save(root / "cat" / "z.png", picture(10))
    (root / "5.png").unlink()
    same(root)
    status = (root / "4.png").stat()
    (root / "4.png").write_bytes((root / "2.png").read_bytes())
    os.utime(root / "4.png", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    same(root)
    (root / "2.png").rename(root / "new.png")
    same(root)
    assert counted == [9, 1, 9, 1 + 2, 1 + 1, 1 + 1]


def test_channels_are_those_of_all_images(tmp_path: Path) -> None:
    """One channel if all are grey: colour comes, and goes."""
    root = tmp_path / "photos"
    for number in range(4):
        save(root / f"{number}.png", picture(number, GREY))
    same(root)
    save(root / "colour.png", picture(9))
    same(root)
    save(root / "more.png", picture(10, GREY))
    same(root)
    (root / "colour.png").rename(root / "zz.png")
    same(root)
    (root / "zz.png").unlink()
    save(root / "z.png", picture(12, GREY))
    same(root)
    save(root / "flat.png", np.repeat(picture(11, GREY)[..., None], 3, 2))  # RGB, and grey to look at
    same(root)
    (root / "flat.png").unlink()
    same(root)


def test_broken_files_and_sizes(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for number in range(3):
        save(root / f"{number}.png", picture(number))
    same(root)
    (root / "0bad.png").write_bytes(b"x")
    same(root, skip_broken=True)
    same(root, skip_broken=True)
    with pytest.raises(InputError, match=r"0bad.png cannot be read"):
        same(root)
    (root / "0bad.png").unlink()
    save(root / "3.png", picture(3, (9, 8, 3)))
    with pytest.raises(InputError, match=r"0.png is 5 x 6 but 3.png is 8 x 9"):
        same(root)
    same(root, image_size=4)


def test_what_is_moved_while_others_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "photos"
    for number in range(3):
        save(root / f"{number}.png", picture(number))
    same(root)
    save(root / "3.png", picture(3))
    sources = [Source(f"{number}.png", f"{root}/{number}.png", -1) for number in range(4)]

    def meanwhile(*given: Any, **more: Any) -> Any:
        (root / "0.png").unlink()
        return decode(*given, **more)

    monkeypatch.setattr(moving, "decode", meanwhile)
    found = moving.decode_once(sources, None, skip_broken=True, root=root)
    np.testing.assert_array_equal(found.x, [picture(number) for number in range(4)])


def test_a_damaged_file_is_made_again_and_a_full_disk_said(
    tmp_path: Path, counted: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "photos"
    for number in range(3):
        save(root / f"{number}.png", picture(number))
    same(root)
    (path,) = (tmp_path / "cache" / "jaxdal" / "images").iterdir()
    assert capsys.readouterr().err == f"{root}: 3 decoded images, kept in {path}\n"
    path.write_bytes(path.read_bytes()[:-200])
    same(root)
    same(root)
    assert counted == [3, 3, 1]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "write", full)
    same(root)
    assert f"which cannot be kept in {path} (No space left on device)\n" in capsys.readouterr().err


def test_what_is_decoded_in_no_time_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "WORTH", 60.0)
    save(tmp_path / "photos" / "0.png", picture(0))
    same(tmp_path / "photos")
    assert not (tmp_path / "cache").exists()
