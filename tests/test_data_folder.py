"""Own image files: trees, what can be wrong with them, and the way to an experiment."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, load, picture, save, tree

from jaxdal import data, journal, loop, settings
from jaxdal.data import cache
from jaxdal.data import folder as folders
from jaxdal.data.holdout import hold_out
from jaxdal.data.images import Source
from jaxdal.errors import InputError
from jaxdal.types import Dataset

pytestmark = pytest.mark.usefixtures("kept")

# --- trees ---


def test_train_and_test_folders(tmp_path: Path) -> None:
    got = load(tree(tmp_path / "own"))
    assert got.class_names == ("C", "a", "b")  # sorted as text is
    np.testing.assert_array_equal(
        got.train_x, [picture(10 * label + number) for label in range(3) for number in range(3)]
    )
    np.testing.assert_array_equal(got.test_x, [picture(100 + label) for label in range(3)])
    np.testing.assert_array_equal(got.train_y, np.repeat([0, 1, 2], 3))
    np.testing.assert_array_equal(got.test_y, [0, 1, 2])
    assert got.train_y.dtype == np.int32
    assert got.files[:2] == ("train/C/0.png", "train/C/1.png")
    assert len(got.files) == 9


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_other_names_of_the_test_folder(tmp_path: Path, name: str) -> None:
    assert data.fingerprint(load(tree(tmp_path / "own", test=name))) == data.fingerprint(load(tree(tmp_path / "b")))


def test_a_second_test_folder_and_one_without_classes_are_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tree(tmp_path / "own")
    shutil.copytree(root / "test", root / "val")
    load(root)
    assert f"folder:{root}: left out: val (test images are those of test)\n" in capsys.readouterr().err
    shutil.rmtree(root / "val")
    for folder in [*(root / "test").iterdir()]:
        (folder / "x.png").rename(root / "test" / f"{folder.name}.png")
        folder.rmdir()
    assert len(load(root).test_x) == 3  # one of three of each class of train
    told = f"folder:{root}: left out: test (no folder per class; a share of train tests)\n"
    assert told in capsys.readouterr().err


def test_what_is_no_image_is_left_out_and_folders_may_be_deep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tree(tmp_path / "own")
    plain = data.fingerprint(load(root))
    (root / "train" / "C" / "notes.txt").write_text("x")
    (root / "train" / "a" / ".hidden.png").write_text("x")
    (root / "train" / ".cache").mkdir()
    (root / "README").write_text("x")
    (root / "train" / "b" / "images" / "deep").mkdir(parents=True)
    (root / "train" / "b" / "1.png").rename(root / "train" / "b" / "images" / "deep" / "1.PNG")
    (root / "test" / "a" / "half.tiff").write_text("x")
    capsys.readouterr()
    got = load(root)
    told = capsys.readouterr().err.splitlines()[0]
    assert ": left out, for they are not .png" in told
    assert told.endswith("(2): train/C/notes.txt, test/a/half.tiff")
    assert got.files[6:] == ("train/b/0.png", "train/b/2.png", "train/b/images/deep/1.PNG")
    assert sorted(got.train_x.sum((1, 2, 3))) == sorted(load(tree(tmp_path / "other")).train_x.sum((1, 2, 3)))
    assert data.fingerprint(got) != plain  # the order of the pool is that of the names


def test_no_image_is_left_out_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree(tmp_path / "own")
    for place, name in enumerate(
        ["0.png", "train/1.png", "test/2.png", "owl/3.png", "train/a/deep/4.png", "val/5.png"]
    ):
        save(root / name, picture(50 + place))
    got = load(root)
    assert got.class_names == ("C", "a", "b")
    assert got.files[6] == "train/a/deep/4.png"
    title = f"folder:{root}: "
    assert capsys.readouterr().err.splitlines()[:4] == [
        f"{title}left out, for they are in no folder of a class (3): train/1.png, test/2.png, 0.png",
        f"{title}images in folders within that of a class are of that class (1): train/a/deep",
        f"{title}left out: val (test images are those of test)",
        f"{title}left out: owl (training images are those of train)",
    ]


def test_classes_beside_a_test_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `python -m jaxdal.label` has it; `test` was a class, trained on its images."""
    plain, root = load(tree(tmp_path / "a")), tree(tmp_path / "b")
    for name in "Cab":
        (root / "train" / name).rename(root / name)
    (root / "train").rmdir()
    shutil.copytree(root / "test", root / "val")
    save(root / "left.png", picture(50))
    capsys.readouterr()
    got = load(root)
    assert data.fingerprint(got) == data.fingerprint(plain)
    assert got.files[0] == "C/0.png"
    told = capsys.readouterr().err
    assert "left out, for they are in no folder of a class (1): left.png\n" in told
    assert "left out: val (test images are those of test)\n" in told
    shutil.rmtree(root / "a")
    with pytest.raises(InputError, match=r"b/test holds classes that .*/b lacks: a$"):
        load(root)


def test_what_was_kept_when_test_was_a_class_is_not_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until format 1, of the same files: a folder `test` beside those of classes was one of them."""
    root = tree(tmp_path / "own")
    for name in "Cab":
        (root / "train" / name).rename(root / name)
    (root / "train").rmdir()
    with monkeypatch.context() as before:
        before.setattr(cache, "FORMAT", "1")
        before.setattr(folders, "_parts", lambda root: [""])
        assert load(root).class_names == ("C", "a", "b", "test")
    assert load(root).class_names == ("C", "a", "b")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for label, name in enumerate(("car", "train")):
        for number in range(5):
            save(tmp_path / "own" / name / f"{number}.png", picture(10 * label + number))
    got = load(tmp_path / "own")
    assert got.class_names == ("car", "train")
    np.testing.assert_array_equal(np.bincount(got.train_y), [4, 4])


def test_split_is_stratified_and_depends_on_names_alone() -> None:
    def sources(sizes: dict[str, int]) -> list[Source]:
        pairs = enumerate(sizes.items())
        return [Source(f"{name}/{number}", "", label) for label, (name, size) in pairs for number in range(size)]

    train, test = hold_out(sources({"many": 50, "two": 2, "one": 1, "seven": 7}), "20%")
    assert np.bincount([source.label for source in test], minlength=4).tolist() == [10, 1, 0, 1]
    assert [source.label for source in train] == sorted(source.label for source in train)
    places = [int(source.name.partition("/")[2]) for source in test if source.label == 0]
    assert places == sorted(places)
    assert places != list(range(10)), "not simply the first"
    assert places != list(range(0, 50, 5))
    alone = hold_out(sources({"many": 50}), "20%")[1]
    assert alone == [source for source in test if source.label == 0]
    assert hold_out(sources({"many": 50}), None)[1] == alone
    later = hold_out(sources({"eight": 8, "many": 50}), "20%")[1]
    assert [source.name for source in later[2:]] == [source.name for source in alone], "and 1.6 of 8 are 2"
    assert len(hold_out(sources({"many": 50}), "99.9%")[0]) == 1
    half = hold_out(sources({"many": 50}), "50%")[1]
    assert len(half) == 25
    assert set(alone) < set(half)


@pytest.mark.parametrize("share", ["0%", "100%", "-5%", "20", "0.2", "some", "1/0%", "nan%"])
def test_bad_shares_are_refused(share: str) -> None:
    with pytest.raises(InputError, match="is not a share between 0% and 100%"):
        hold_out([], share)


# --- what is refused ---


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def write(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


BROKEN: dict[str, Callable[[Path], object]] = {
    "cut": cut,
    "empty": write(b""),
    "text": write(b"<html>not found</html>"),
    "a bitmap": write(encoded(picture(0), "BMP")),
    "floats": write(b"Pf\n1 1\n-1.0\n\0\0\0\0"),
    "a bomb": write(b"P5\n60000 60000\n255\n"),
    "a link to nowhere": lambda path: (path.unlink(), path.symlink_to("nowhere")),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_file_is_named_or_skipped(
    tmp_path: Path, how: str, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tree(tmp_path / "own")
    BROKEN[how](root / "train" / "a" / "1.png")
    with pytest.raises(InputError, match=r"own: train/a/1.png cannot be read \(.+\): .* --skip_broken$") as caught:
        load(root)
    assert "\n" not in str(caught.value)
    assert not list(kept.glob("*"))
    for _ in range(2):  # the second time from the cache
        capsys.readouterr()
        got = load(root, skip_broken=True)
        assert capsys.readouterr().err.endswith("own: left out as broken (1): train/a/1.png\n")
        assert got.files[3:5] == ("train/a/0.png", "train/a/2.png")
        np.testing.assert_array_equal(got.train_x[3:5], [picture(10), picture(12)])
        np.testing.assert_array_equal(got.train_y, [0, 0, 0, 1, 1, 2, 2, 2])


def test_the_first_of_many_broken_files_is_named(tmp_path: Path) -> None:
    root = tree(tmp_path / "own", per_class=60)
    for name in ("C/7", "a/3", "b/1"):
        (root / f"train/{name}.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"train/C/7\.png"):
        load(root)


def test_two_sizes_need_a_choice(tmp_path: Path) -> None:
    root = tree(tmp_path / "own")
    save(root / "test" / "a" / "x.png", picture(0, (9, 8, 3)))
    with pytest.raises(InputError, match=r"0.png is 5 x 6 but test/a/x.png is 8 x 9: .* --image_size=5$"):
        load(root, skip_broken=True)
    assert load(root, image_size=4).test_x.shape == (3, 4, 4, 3)


def remove(*names: str) -> Callable[[Path], object]:
    return lambda root: [shutil.rmtree(root / name) for name in names]


def empty(*names: str) -> Callable[[Path], object]:
    return lambda root: [file.unlink() for name in names for file in (root / name).iterdir()]


def spoil(*names: str) -> Callable[[Path], object]:
    return lambda root: [file.write_bytes(b"x") for name in names for file in (root / name).iterdir()]


TREES: dict[str, tuple[Callable[[Path], object], dict[str, object], str]] = {
    "no folder": (shutil.rmtree, {}, "own does not exist"),
    "an archive": (lambda root: (shutil.rmtree(root), root.write_bytes(b"PK")), {}, "own is a file; .* unpacked"),
    "nothing": (remove("train", "test"), {}, "must hold a folder per class, at least two, but it holds none"),
    "other names of the parts": (
        lambda root: [(root / name).rename(root / other) for name, other in [("train", "Training"), ("test", "TEST")]],
        {}, "own holds TEST, Training: training and test sets are called train and test, with a folder per class$",
    ),
    "images of no class": (
        lambda root: [shutil.rmtree(root / "test"), *((root / "train" / name).rename(root / name) for name in "Cab"),
                      *((root / "C" / name).rename(root / "train" / name) for name in ("0.png", "1.png")),
                      *(shutil.rmtree(root / name) for name in "Cab")],
        {}, "own holds train: training and test sets are called train and test, with a folder per class$",
    ),
    "one class": (remove("train/a", "train/b", "test/a", "test/b"), {}, "at least two, but it holds C"),
    "a class for testing only": (remove("train/a"), {}, "own/test holds classes that .*own/train lacks: a"),
    "an empty class": (empty("train/b"), {}, r"no image \(.png .*\) is in these folders of .*own/train: b"),
    "two test sets": (lambda root: None, {"test_share": "10%"}, "--test_share=10%: the test images are in .*own/test"),
    "broken training files": (spoil("train/a", "train/b", "train/C"), {"skip_broken": True}, "is left for training"),
    "broken test files": (spoil("test/a", "test/b", "test/C"), {"skip_broken": True}, "no image is left for testing"),
    "broken files": (spoil(*(f"{part}/{name}" for part in ("train", "test") for name in "Cab")), {"skip_broken": True},
                     "none of 12 images can be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", TREES)
def test_bad_trees_get_one_sentence(tmp_path: Path, case: str, kept: Path) -> None:
    spoiler, options, told = TREES[case]
    root = tree(tmp_path / "own")
    spoiler(root)
    with pytest.raises(InputError, match=told) as caught:
        load(root, **options)
    assert "\n" not in str(caught.value)
    assert not list(kept.glob("*"))


def test_classes_without_images_are_remarked(tmp_path: Path) -> None:
    root = tree(tmp_path / "own")
    shutil.rmtree(root / "test" / "a")
    spoil("train/C")(root)
    told = ["there is no training image of class C", "there is no test image of class a"]
    assert data.remarks(load(root, skip_broken=True)) == told


def test_shared_images_are_counted() -> None:
    x, test_x = np.stack([picture(seed) for seed in range(6)]), np.stack([picture(seed + 4) for seed in range(5)])
    test_x[4] = test_x[0]  # the training images 4 and 5 are there thrice, in two versions
    own = data.from_arrays(x, np.arange(6) % 2, test_x, np.arange(5) % 2, num_classes=3)
    assert data.remarks(own) == [
        "3 of 5 test images are also training images, pixel for pixel",
        "there is no training image of class 2",
        "there is no test image of class 2",
    ]
    test_x[:, 0, 0, 0] ^= 1  # one bit of each
    assert data.remarks(data.from_arrays(x, np.arange(6) % 2, test_x, np.arange(5) % 2)) == []


# --- from files to a report ---


class Prepared(Exception):  # noqa: N818
    """All is said and written that comes before training."""


def test_an_experiment_on_a_folder(
    tmp_path: Path, blobs: Dataset, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("north", "east", "south", "west")
    for which, x, y in (("train", blobs.train_x, blobs.train_y), ("test", blobs.test_x, blobs.test_y)):
        for number, (image, label) in enumerate(zip(x, y, strict=True)):
            save(tmp_path / "own" / which / names[label] / f"{number:03}.png", image[..., 0])
    shutil.copy(tmp_path / "own/train/north/000.png", tmp_path / "own/test/north/copy.png")

    def stop(*arguments: object, **options: object) -> None:
        raise Prepared

    monkeypatch.setattr(loop, "labs_for", stop)  # what follows is the same for all images
    options = {"n_start": 40, "n_query": 10, "n_end": 50, "epochs": 2, "batch": 16, "mirror": True, "crop": 0}
    with pytest.raises(Prepared):
        loop.run(f"folder:{tmp_path}/own", "margin", workdir=tmp_path / "out", std=[0.5], **options)
    header, _ = journal.read(tmp_path / "out")
    assert header["class_names"] == sorted(names)
    config = header["config"]
    assert (config["flip"], config["crop"], config["std"]) == (True, 0, [0.5])
    assert config["mean"] == [pytest.approx(blobs.train_x.mean() / 255)]  # of training images only
    files = (tmp_path / "out" / "pool.txt").read_text().splitlines()
    assert len(files) == config["pool"] == 200
    assert files[50] == f"train/north/{np.flatnonzero(blobs.train_y == 0)[0]:03}.png"  # after 50 of east
    err = capsys.readouterr().err
    assert ": 200 training and 81 test images of 8 x 8 x 1, 4 classes; trained with --mean=" in err
    assert " --std=0.5000 --mirror --crop=0 --model=lenet --batch=16 " in err
    assert ": 1 of 81 test images are also training images, pixel for pixel\n" in err


def test_statistics_can_be_set(blobs: Dataset) -> None:
    """And what is not set is measured, or the preset's."""
    given = settings.resolve(blobs, blobs, "margin", mean=[0.25], std=[1], crop=3, mirror=True)
    assert (given.mean, given.std, given.crop, given.flip) == ((0.25,), (1.0,), 3, True)
    measured = settings.resolve(blobs, blobs, "margin")
    assert (measured.mean, measured.std) == data.table.measure(blobs.train_x)
    assert (measured.crop, measured.flip) == (0, False)
    assert settings.resolve("mnist", blobs, "margin").flip
    assert not settings.resolve("mnist", blobs, "margin", mirror=False).flip


def test_options_of_reading_are_refused_where_nothing_is_read(blobs: Dataset) -> None:
    with pytest.raises(InputError, match="--image_size is for folder:PATH and tfds:NAME, not for arrays"):
        loop.run(blobs, image_size=8)
