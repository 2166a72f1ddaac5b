"""A folder of images that is labelled by hand, from the shell."""

import csv
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from pictures import picture, save

from jaxdal import InputError, ask, label
from jaxdal.types import Dataset

OPTIONS: dict[str, Any] = {"model": "tiny", "epochs": 3, "batch": 16, "learning_rate": 0.05}
CLASSES = ("a", "b", "c", "d")  # of the blobs


def spread(root: Path, images: Dataset, labelled: int) -> Path:
    """All images of a pool, of which the first ones are labelled, and its test images."""
    for number, (image, of) in enumerate(zip(images.train_x, images.train_y, strict=True)):
        save(root / (CLASSES[of] if number < labelled else "") / f"{number:03}.png", image[..., 0])
    for number, (image, of) in enumerate(zip(images.test_x, images.test_y, strict=True)):
        save(root / "test" / CLASSES[of] / f"{number:03}.png", image[..., 0])
    for name in CLASSES:
        (root / name).mkdir(exist_ok=True)
    return root


def rows(root: Path) -> list[dict[str, str]]:
    with (root / label.GUESSES).open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_is_a_question(blobs: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = spread(tmp_path, blobs, 40)
    known = np.where(np.arange(200) < 40, blobs.train_y, -1)
    told = ["--k=7", "--strategy=margin", "--seed=3", *(f"--{name}={value}" for name, value in OPTIONS.items())]
    assert label.main([str(root), *told]) == 0
    out, err = capsys.readouterr()
    asked = ask(
        blobs.train_x, known, 7, "margin", num_classes=4, test=blobs[2:4], seed=3, mirror=False, quiet=True, **OPTIONS
    )
    assert out.splitlines() == [f"{root}/{place:03}.png" for place in asked.picks]
    summary = (
        f"accuracy on test images {asked.accuracy:.2%}; guesses are in {root / label.GUESSES}; to be labelled next:"
    )
    assert err.splitlines()[-1] == f"{root}: {summary}"
    found = rows(root)
    assert [row["file"] for row in found[:7]] == [f"{place:03}.png" for place in asked.picks]
    assert [row["next"] for row in found] == [*"1234567", *[""] * 153]
    rest = [place for place in range(40, 200) if place not in asked.picks]
    assert [int(row["file"][:3]) for row in found[7:]] == rest
    for row, place in zip(found, [*asked.picks, *rest], strict=True):
        assert row["guess"] == CLASSES[asked.probs[place].argmax()]
        assert row["probability"] == f"{asked.probs[place].max():.4f}"


def test_images_are_labelled_by_moving_them(blobs: Dataset, tmp_path: Path) -> None:
    root, seen = spread(tmp_path, blobs, 0), set()
    options = {**OPTIONS, "quiet": True, "devices": jax.devices()[:1]}
    for question in range(3):
        chosen = label.choose(root, 30, "margin", move=True, **options)
        assert (chosen.accuracy is None) == (question == 0)
        assert sorted(chosen.files) == sorted((root / label.NEXT).iterdir())
        assert len(chosen.files) == 30
        for path in chosen.files:
            path.rename(root / CLASSES[blobs.train_y[int(path.stem)]] / path.name)
        names = {path.name for path in chosen.files}
        assert not names & seen
        seen |= names
    assert chosen.accuracy is not None
    assert chosen.accuracy > 0.9
    assert len(label.choose(root, 999, "random", **options).files) == 110


def test_what_was_moved_and_not_labelled_is_asked_again_after_all_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
    for number in range(9):
        save(tmp_path / f"{number}.png", picture(number))
    first = label.choose(tmp_path, 4, move=True)
    assert [row["file"] for row in rows(tmp_path)[:4]] == [f"next/{path.name}" for path in first.files]
    assert rows(tmp_path)[0] | {"file": ""} == {"file": "", "next": "1", "guess": "", "probability": ""}
    everything = label.choose(tmp_path, 50, move=True)
    assert len(everything.files) == 9
    assert sorted(everything.files) == sorted((tmp_path / "next").iterdir())
    assert [path.name for path in everything.files[5:]] == [path.name for path in first.files]  # the same seed
    assert "others come first" in capsys.readouterr().err
    other = label.choose(tmp_path, 50, seed=1)
    assert "others come first" not in capsys.readouterr().err, "there are none"
    assert [path.name for path in other.files] != [path.name for path in everything.files]


def test_what_was_skipped_takes_nobodys_place(
    blobs: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images that nobody can tell are those of which a network is least sure: it asked for them every time."""
    root, options = spread(tmp_path, blobs, 40), {**OPTIONS, "devices": jax.devices()[:1]}
    skipped = label.choose(root, 6, "margin", move=True, **options).files
    capsys.readouterr()
    chosen = label.choose(root, 6, "margin", move=True, **options).files
    assert not {*chosen} & {*skipped}
    assert sorted((root / label.NEXT).iterdir()) == sorted([*skipped, *chosen])
    assert f"{root}: 6 images still wait in next: others come first\n" in capsys.readouterr().err
    known = np.where(np.arange(200) < 40, blobs.train_y, -1)
    asked = ask(blobs.train_x, known, 12, "margin", num_classes=4, mirror=False, quiet=True, **options)
    names = [f"{place:03}.png" for place in asked.picks]
    assert [path.name for path in [*skipped, *chosen]] == names


def test_links_stay_links_to_the_same_files(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
    for number in range(3):
        save(tmp_path / "raw" / f"{number}.png", picture(number))
    (root / "0.png").symlink_to("../raw/0.png")
    (root / "1.png").symlink_to(tmp_path / "raw" / "1.png")
    (tmp_path / "other").symlink_to("raw")
    (root / "2.png").symlink_to("../other/2.png")
    label.choose(root, 3, move=True)
    for number in range(3):
        path = root / label.NEXT / f"{number}.png"
        assert path.is_symlink()
        assert path.samefile(tmp_path / "raw" / f"{number}.png")
        assert not (root / path.name).is_symlink()
        assert path.rename(root / "cat" / path.name).samefile(tmp_path / "raw" / path.name), "as a person moves it on"


def test_a_broken_file_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
    save(tmp_path / "good.png", picture(0))
    (tmp_path / "bad.png").write_text("x")
    with pytest.raises(InputError, match=r"bad\.png cannot be read"):
        label.choose(tmp_path, 4)
    assert label.choose(tmp_path, 4, skip_broken=True).files == [tmp_path / "good.png"]
    assert "left out as broken: bad.png\n" in capsys.readouterr().err
    (tmp_path / "good.png").rename(tmp_path / "cat" / "good.png")
    with pytest.raises(InputError, match=r"nothing is left to label: every image in .* itself is broken"):
        label.choose(tmp_path, 4, skip_broken=True)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ([], "make a folder in .* for each class, at least two, empty or not: there is none"),
        (["1.png", "cat/2.png", "next/3.png"], "at least two, empty or not: there is cat alone"),
        (["cat/1.png", "dog/2.png", "notes.txt"], "nothing is left to label: no image is in .* itself"),
        (["cat/1.png", "dog/2.png", "3.png", "next/3.png"], "next/3.png and .*/3.png have one name: rename one"),
        (["cat/1.png", "dog/2.png", "3.png", "test/owl/4.png"], "test holds classes that .* lacks: owl"),
    ],
)
def test_what_does_not_fit_is_refused(files: list[str], told: str, tmp_path: Path) -> None:
    for number, name in enumerate(files):
        save(tmp_path / name, picture(number)) if name.endswith("png") else (tmp_path / name).write_text("x")
    with pytest.raises(InputError, match=told):
        label.choose(tmp_path, 1)


def test_errors_are_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, told in [
        ((str(tmp_path / "absent"),), f"jaxdal: {tmp_path / 'absent'} does not exist: give a folder of images\n"),
        ((str(tmp_path), "--k=0"), "jaxdal: --k=0 is less than 1\n"),
        ((str(tmp_path), "--seed=-1"), "jaxdal: --seed=-1 is not in 0..4294967295\n"),
        ((str(tmp_path), "--image_size=0"), "jaxdal: --image_size=0 is less than 1\n"),
        ((str(tmp_path), "--strategy=margn"), "jaxdal: unknown strategy 'margn': did you mean 'margin'?"),
        ((str(tmp_path), "--model=lente"), "jaxdal: unknown model 'lente': did you mean 'lenet'?"),
        ((str(tmp_path), "--plugins=absent_plugin"), "jaxdal: --plugins=absent_plugin: there is no module"),
    ]:
        assert label.main(arguments) == 2
        assert capsys.readouterr().err.startswith(told)


def test_a_class_called_test_and_folders_within(tmp_path: Path) -> None:
    """A folder `test` is that of test images if it holds folders of classes, else it is a class."""
    for number, name in enumerate(["test/1.png", "rest/deep/2.png", "rest/.hidden/4.png", "b.png", ".c.png"]):
        save(tmp_path / name, picture(number))
    shelf = label.look(tmp_path)
    assert shelf.classes == ("rest", "test")
    assert [(one.name, one.label) for one in shelf.pool] == [("test/1.png", 1), ("rest/deep/2.png", 0), ("b.png", -1)]
    shutil.move(tmp_path / "test", tmp_path / "later")
    save(tmp_path / "test" / "rest" / "x.png", picture(9))
    shelf = label.look(tmp_path)
    assert shelf.classes == ("later", "rest")
    assert [(one.name, one.label) for one in shelf.tests] == [("test/rest/x.png", 1)]


def test_a_validation_set_beside_a_test_set_is_no_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(["cat/1.png", "dog/2.png", "3.png", "val/cat/4.png", "test/cat/5.png"]):
        save(tmp_path / name, picture(number))
    shelf = label.look(tmp_path)
    assert (shelf.classes, [one.name for one in shelf.tests]) == (("cat", "dog"), ["test/cat/5.png"])
    assert [one.name for one in shelf.pool] == ["cat/1.png", "dog/2.png", "3.png"]
    assert capsys.readouterr().err == f"{tmp_path}: left out: val (test images are those of test)\n"


def test_what_cannot_be_used_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(["cat/1.png", "dog/2.png", "3.png", "test/cat/4.png", "test/5.png"]):
        save(tmp_path / name, picture(number))
    for name in ("6.heic", "dog/7.tiff", label.GUESSES):
        (tmp_path / name).write_text("x")
    shelf = label.look(tmp_path)
    assert (len(shelf.pool), len(shelf.tests)) == (3, 1)
    told = capsys.readouterr().err.splitlines()
    assert told[0].endswith(".webp (2): 6.heic, dog/7.tiff")
    assert told[1:] == [f"{tmp_path}: left out, for they are in no folder of a class (1): test/5.png"]


def test_a_class_called_none_has_no_test_images(tmp_path: Path) -> None:
    for number, name in enumerate(["None/cat/1.png", "cat/2.png", "3.png"]):
        save(tmp_path / name, picture(number))
    shelf = label.look(tmp_path)
    assert (len(shelf.pool), shelf.tests) == (3, [])


def test_what_people_do_while_it_thinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they have labelled meanwhile is not asked, and what they have put into `next` is not overwritten."""
    for number, name in enumerate(["cat/1.png", "dog/2.png", "3.png", "4.png", "5.png"]):
        save(tmp_path / name, picture(number))
    decode = label.decode_once

    def meanwhile(*given: Any, **more: Any) -> Any:
        found = decode(*given, **more)
        (tmp_path / "3.png").rename(tmp_path / "cat" / "3.png")
        save(tmp_path / "next" / "4.png", picture(9))
        return found

    monkeypatch.setattr(label, "decode_once", meanwhile)
    before = (tmp_path / "4.png").read_bytes()
    chosen = label.choose(tmp_path, 3, "random", move=True, devices=jax.devices()[:1], **OPTIONS)
    assert sorted(chosen.files) == [tmp_path / "4.png", tmp_path / "next" / "5.png"]
    assert (tmp_path / "4.png").read_bytes() == before
    assert (tmp_path / "next" / "4.png").read_bytes() != before
    assert [row["next"] for row in rows(tmp_path)] == ["1", "2", ""]
