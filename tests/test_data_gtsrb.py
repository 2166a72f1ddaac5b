"""GTSRB from small archives laid out like the official ones: zipped, unpacked, damaged, through TFDS."""

import functools
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from publishing import redirect

from jaxdal import data
from jaxdal.data import gtsrb, official, published
from jaxdal.errors import InputError
from jaxdal.types import Dataset

Archives = dict[str, dict[str, bytes]]  # archive -> member -> content
NAMES = ("gtsrb", "gtsrb:competition")
HEADER = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2"
TEST = 17


def ppm(image: np.ndarray) -> bytes:
    return f"P6\n{image.shape[1]} {image.shape[0]}\n255\n".encode() + image.tobytes()


def scaled(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR))


def draw(rng: np.random.Generator) -> np.ndarray:
    """An image with edges, of a size as odd as those of GTSRB."""
    height, width = rng.integers(15, 80, 2)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def row(name: str, image: np.ndarray) -> str:
    height, width = image.shape[:2]
    return f"{name};{width};{height};5;5;{width - 5};{height - 5}"


def folders(root: str, seed: int, tracks: int) -> tuple[dict[str, bytes], list[np.ndarray], list[int]]:
    """Members of an archive of class folders; scaled images and labels in the order of the file names."""
    rng = np.random.default_rng(seed)
    members, images, labels = {}, [], []
    for label in range(43):
        lines = [f"{HEADER};ClassId"]
        for position in range(1 + label % 2):
            name = f"{position % tracks:05d}_{position:05d}.ppm"
            image = draw(rng)
            members[f"{root}/{label:05d}/{name}"] = ppm(image)
            lines.append(f"{row(name, image)};{label}")
            images.append(scaled(image))
            labels.append(label)
        members[f"{root}/{label:05d}/GT-{label:05d}.csv"] = "\r\n".join(lines).encode() + b"\r\n"
    order = rng.permutation(list(members))  # nothing promises an order of members
    return {"GTSRB/Readme-Images.txt": b"text", **{str(name): members[str(name)] for name in order}}, images, labels


@functools.cache
def made(name: str) -> tuple[Archives, Dataset]:
    """The archives of one data set and what must be read from them."""
    if name == "gtsrb:competition":
        train, x, y = folders(gtsrb.ONLINE_TRAIN, 1, 2)
        test, test_x, test_y = folders(gtsrb.ONLINE_TEST, 2, 1)
        test["GTSRB/Online-Test-sort/Images/stray.ppm"] = b"no image"  # in no class folder
        archives = dict(zip(official.OFFICIAL[name].files, (train, test), strict=True))
        return archives, data.from_arrays(np.stack(x), np.array(y), np.stack(test_x), np.array(test_y), num_classes=43)
    train, x, y = folders(gtsrb.TRAIN, 0, 2)
    rng = np.random.default_rng(3)
    test, lines, test_x, test_y = {}, [], [], rng.integers(0, 43, TEST)
    for position, label in enumerate(test_y):
        image = draw(rng)
        test[f"{gtsrb.TEST}/{position:05d}.ppm"] = ppm(image)
        lines.append(f"{row(f'{position:05d}.ppm', image)};{label}")
        test_x.append(scaled(image))
    test[f"{gtsrb.TEST}/GT-final_test.test.csv"] = f"{HEADER}\n".encode()  # the official archive has it, without labels
    table = "\n".join([f"{HEADER};ClassId", *rng.permutation(lines)]).encode()  # labels belong to names, not to places
    archives = dict(zip(official.OFFICIAL[name].files, (train, test, {gtsrb.TEST_LABELS: table}), strict=True))
    return archives, data.from_arrays(np.stack(x), np.array(y), np.stack(test_x), test_y, num_classes=43)


def write(archives: Archives, folder: Path, packed: bool = True) -> list[Path]:
    """Write archives below a folder, or what is in them. -> the archives' paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, members in archives.items():
        if packed:
            with zipfile.ZipFile(folder / name, "w") as archive:
                for member, content in members.items():
                    undated = zipfile.ZipInfo(member)  # the same bytes, whenever they are written
                    archive.writestr(undated, content, zipfile.ZIP_DEFLATED)
        else:
            for member, content in members.items():
                (folder / member).parent.mkdir(parents=True, exist_ok=True)
                (folder / member).write_bytes(content)
    return [folder / name for name in archives]


def assert_same(got: Dataset, name: str) -> None:
    expected = made(name)[1]
    for field in ("train_x", "train_y", "test_x", "test_y"):
        np.testing.assert_array_equal(getattr(got, field), getattr(expected, field), err_msg=f"{name} {field}")
    assert (got.num_classes, got.mirror, got.class_names) == (43, False, gtsrb.SIGNS)


# --- by hand ---


@pytest.mark.parametrize("name", NAMES)
def test_archives_by_hand(name: str, tmp_path: Path) -> None:
    write(made(name)[0], tmp_path / "gtsrb")
    got = data.load(name, str(tmp_path))
    assert_same(got, name)
    assert (np.diff(got.train_y) >= 0).all()  # class by class
    assert [path.name for path in tmp_path.iterdir()] == ["gtsrb"]  # nothing is written


@pytest.mark.parametrize("place", ["data_dir", "below gtsrb", "data_dir is GTSRB"])
def test_unpacked_archives(place: str, tmp_path: Path) -> None:
    for name in NAMES:  # both beside each other are not confused
        write(made(name)[0], tmp_path / "gtsrb" if place == "below gtsrb" else tmp_path, packed=False)
    home = tmp_path / "GTSRB" if place == "data_dir is GTSRB" else tmp_path
    for name in NAMES:
        assert_same(data.load(name, str(home)), name)


@pytest.mark.parametrize("place", official.OFFICIAL["gtsrb"].moved[gtsrb.TEST_LABELS])
def test_labels_of_the_test_moved_elsewhere(place: str, tmp_path: Path) -> None:
    archives = dict(made("gtsrb")[0])
    labels = archives.pop("GTSRB_Final_Test_GT.zip")
    write({"GTSRB_Final_Training_Images.zip": archives.pop("GTSRB_Final_Training_Images.zip")}, tmp_path)
    write(archives, tmp_path, packed=False)  # one packed, one not
    (tmp_path / place).write_bytes(labels[gtsrb.TEST_LABELS])
    assert_same(data.load("gtsrb", str(tmp_path)), "gtsrb")


def test_the_online_test_needs_no_lists(tmp_path: Path) -> None:
    archives = {name: dict(members) for name, members in made("gtsrb:competition")[0].items()}
    test = archives["GTSRB_Online-Test-Images-Sorted.zip"]
    for member in [member for member in test if member.endswith(".csv")]:
        del test[member]
    write(archives, tmp_path)
    assert_same(data.load("gtsrb:competition", str(tmp_path)), "gtsrb:competition")


# --- scaling ---


def triangle(image: np.ndarray, size: int) -> np.ndarray:
    """f64[size, size, C]: bilinear scaling whose filter grows with the scale, straight from its definition."""
    for axis in (0, 1):
        scale = image.shape[axis] / size
        centres = (np.arange(size) + 0.5) * scale - 0.5
        distance = np.abs(np.arange(image.shape[axis])[None] - centres[:, None]) / max(scale, 1)
        weights = np.maximum(0, 1 - distance)
        weights /= weights.sum(1, keepdims=True)
        image = np.moveaxis(np.tensordot(weights, image.astype(np.float64), (1, axis)), 0, axis)
    return image


def test_whole_frames_are_scaled_with_antialiasing(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for height, width in ((25, 90), (32, 32), (31, 33), (222, 193)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        (tmp_path / "one.ppm").write_bytes(ppm(image))
        split = gtsrb._decode(gtsrb.Listing(tmp_path, "", ["one.ppm"], [7]))
        # Pillow rounds between its two passes and works with fixed-point weights.
        np.testing.assert_allclose(split.x[0], triangle(image, 32), atol=1.01)
        if (height, width) == (32, 32):
            np.testing.assert_array_equal(split.x[0], image)
    assert (split.x.shape, split.y.tolist()) == ((1, 32, 32, 3), [7])


# --- damaged ---


def without(member: str) -> Callable[[Archives], None]:
    def change(archives: Archives) -> None:
        for members in archives.values():
            members.pop(member, None)

    return change


def edited(member: str, old: bytes, new: bytes) -> Callable[[Archives], None]:
    def change(archives: Archives) -> None:
        for members in archives.values():
            if member in members:
                assert old in members[member]
                members[member] = members[member].replace(old, new)

    return change


def without_class(archives: Archives) -> None:
    members = next(iter(archives.values()))
    for member in [member for member in members if "/00007/" in member]:
        del members[member]


LIST = f"{gtsrb.TRAIN}/00005/GT-00005.csv"
DAMAGES: dict[str, tuple[Callable[[Archives], None], str]] = {
    "image missing": (without(f"{gtsrb.TRAIN}/00005/00001_00001.ppm"), r"lists 00005/00001_00001.ppm.*\(1 missing\)"),
    "row missing": (edited(LIST, b"00001_00001.ppm", b"00009_00009.ppm"), "lists 00005/00009_00009.ppm"),
    "class missing": (without_class, "folders 00000 to 00042: see 00007"),
    "list missing": (without(LIST), "has no 00005/GT-00005.csv"),
    "other class": (edited(LIST, b";5\r\n", b";6\r\n"), "GT-00005.csv lists images of other classes"),
    "list of nothing": (edited(LIST, b"ClassId", b"Class"), "is not a list with the columns Filename and ClassId"),
    "test image missing": (without(f"{gtsrb.TEST}/00003.ppm"), "lists 00003.ppm, which is not there"),
    "test row missing": (edited(gtsrb.TEST_LABELS, b"00003.ppm", b"00004.ppm"), "GT.zip names an image twice"),
    "test list cut": (
        lambda archives: archives.update(
            {"GTSRB_Final_Test_GT.zip": {gtsrb.TEST_LABELS: f"{HEADER};ClassId".encode()}}
        ),
        r"has 00000.ppm, which its list does not name \(17 such images\)",
    ),
    "list without labels": (edited(gtsrb.TEST_LABELS, b";ClassId", b""), "columns Filename and ClassId"),
    "no such class": (
        lambda archives: archives["GTSRB_Final_Test_GT.zip"].update({gtsrb.TEST_LABELS: b"Filename;ClassId\n0.ppm;43"}),
        r"names class 43, which is not in 0\.\.42",
    ),
    "no list inside": (
        lambda archives: archives.update({"GTSRB_Final_Test_GT.zip": {"other.csv": b""}}),
        "no item named 'GT-final_test.csv'",
    ),
    "archives mixed up": (
        lambda archives: archives.update({"GTSRB_Final_Training_Images.zip": archives["GTSRB_Final_Test_Images.zip"]}),
        "has no files in GTSRB/Final_Training/Images: it is another archive",
    ),
    "image cut": (
        edited(f"{gtsrb.TRAIN}/00005/00001_00001.ppm", b"\n255\n", b"0\n255\n"),
        "00005/00001_00001.ppm is not a whole PPM image",
    ),
    "no image": (edited(f"{gtsrb.TRAIN}/00005/00001_00001.ppm", b"P6", b"GIF"), "is not a whole PPM image"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_archives_get_one_sentence(case: str, tmp_path: Path) -> None:
    change, message = DAMAGES[case]
    archives = {name: dict(members) for name, members in made("gtsrb")[0].items()}
    change(archives)
    write(archives, tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        data.load("gtsrb", str(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_archive_gets_one_sentence(tmp_path: Path) -> None:
    (path, *_) = write(made("gtsrb")[0], tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"gtsrb: cannot read .*File is not a zip file") as caught:
        data.load("gtsrb", str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_missing_archive_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "unreachable", lambda url: "no network")
    write(made("gtsrb")[0], tmp_path)[2].unlink()
    with pytest.raises(InputError, match=r"cannot download gtsrb \(no network\): put .*GTSRB_Final_Test_GT.zip"):
        data.load("gtsrb", str(tmp_path))


# --- through TFDS ---


@pytest.mark.parametrize("name", NAMES)
def test_download_prepare_and_read_again(
    name: str, served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, folder = served
    files = write(made(name)[0], folder)
    redirect(name, base, files, monkeypatch)
    home = tmp_path / "data"
    assert_same(data.load(name, str(home)), name)
    for file in files:
        file.unlink()
    assert_same(data.load(name, str(home)), name)  # from ArrayRecord

    import tensorflow_datasets as tfds

    with published.quiet():
        builder = tfds.builder_from_directory(home / f"jaxdal_{name.replace(':', '_')}/1.0.0")
        example = builder.as_data_source("train")[3]
    np.testing.assert_array_equal(example["image"], made(name)[1].train_x[3])
    assert example["label"] == made(name)[1].train_y[3]
    assert builder.info.features["label"].int2str(14) == "Stop"
    assert "Stallkamp" in builder.info.citation
    assert "tensorflow" not in sys.modules


def test_wrong_checksum_is_refused(served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the competition one archive has no known checksum; that of the other must hold all the same."""
    base, folder = served
    files = write(made("gtsrb:competition")[0], folder)
    redirect("gtsrb:competition", base, files, monkeypatch)
    from jaxdal.data import builders

    builder = builders.BUILDERS["gtsrb:competition"]
    monkeypatch.setattr(builder, "url_infos", {url: builder.url_infos[url] for url in list(builder.url_infos)[:1]})
    archives = {name: dict(members) for name, members in made("gtsrb:competition")[0].items()}
    archives["GTSRB-Training_fixed.zip"]["more"] = b""
    write(archives, folder)
    with pytest.raises(InputError, match=r"cannot download gtsrb:competition .*wrong checksum"):
        data.load("gtsrb:competition", str(tmp_path / "data"))
    write(made("gtsrb:competition")[0], folder)
    assert_same(data.load("gtsrb:competition", str(tmp_path / "data")), "gtsrb:competition")


# --- real images ---


def test_real_images(tmp_path: Path) -> None:
    """All images of GTSRB, brought back into the form of its archives."""
    source = Path(os.environ.get("JAXDAL_REAL_DATA", "")) / "gtsrb.npz"
    if "JAXDAL_REAL_DATA" not in os.environ or not source.is_file():
        pytest.skip("JAXDAL_REAL_DATA does not name a folder with gtsrb.npz")
    whole = data.load(f"npz:{source}")
    rank = np.arange(len(whole.train_y)) - np.searchsorted(whole.train_y, whole.train_y)  # place within its class
    names = [f"{label:05d}/{k // 30:05d}_{k % 30:05d}.ppm" for label, k in zip(whole.train_y, rank, strict=True)]
    train = {f"{gtsrb.TRAIN}/{name}": ppm(image) for name, image in zip(names, whole.train_x, strict=True)}
    for label in range(43):
        mine = [name.split("/")[1] for name in names if name.startswith(f"{label:05d}")]
        table = "\n".join([f"{HEADER};ClassId", *(f"{name};32;32;5;5;27;27;{label}" for name in mine)])
        train[f"{gtsrb.TRAIN}/{label:05d}/GT-{label:05d}.csv"] = table.encode()
    order = np.random.default_rng(0).permutation(len(whole.test_y))  # official test images are in no order
    test = {f"{gtsrb.TEST}/{k:05d}.ppm": ppm(whole.test_x[index]) for k, index in enumerate(order)}
    rows = [f"{k:05d}.ppm;32;32;5;5;27;27;{whole.test_y[index]}" for k, index in enumerate(order)]
    labels = {gtsrb.TEST_LABELS: "\n".join([f"{HEADER};ClassId", *rows]).encode()}
    write(dict(zip(official.OFFICIAL["gtsrb"].files, (train, test, labels), strict=True)), tmp_path)
    got = data.load("gtsrb", str(tmp_path))
    assert (got.train_x.shape, got.test_x.shape) == ((39209, 32, 32, 3), (12630, 32, 32, 3))
    counts = np.bincount(got.train_y)
    assert (counts.min(), counts.max(), len(counts)) == (210, 2250, 43)
    np.testing.assert_array_equal(got.train_x, whole.train_x)
    np.testing.assert_array_equal(got.train_y, whole.train_y)
    np.testing.assert_array_equal(got.test_x, whole.test_x[order])
    np.testing.assert_array_equal(got.test_y, whole.test_y[order])
    assert got.class_names == whole.class_names
    mean, std = data.table.measure(got.train_x)
    assert mean == pytest.approx(data.TABLE["gtsrb"].mean, abs=0.02)
    assert std == pytest.approx(data.TABLE["gtsrb"].std, abs=0.02)
