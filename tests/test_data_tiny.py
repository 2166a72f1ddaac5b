"""Tiny-ImageNet from small archives laid out like the official one: zipped, unpacked, damaged, through TFDS."""

import functools
import io
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
from jaxdal.data import published
from jaxdal.errors import InputError
from jaxdal.types import Dataset

Members = dict[str, bytes]
ZIP = "tiny-imagenet-200.zip"
IDS = ("n02124075", "n04067472", "n01443537", "n07749582")  # as in the official list, in no order
WORDS = "n01443537\tgoldfish, Carassius auratus\nn02124075\tEgyptian cat\nn00000001\tnot in Tiny-ImageNet\n"
NAMES = ("n01443537 goldfish, Carassius auratus", "n02124075 Egyptian cat", "n04067472", "n07749582")
TRAIN, TEST = 12, 25  # images of each class, and of all: enough for names to be sorted otherwise than numbers


def jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def decoded(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def draw(rng: np.random.Generator, grey: bool = False, size: int = 64) -> np.ndarray:
    """A smooth image, of which JPEG leaves something."""
    small = rng.integers(0, 256, (4, 4) if grey else (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC))


@functools.cache
def made() -> tuple[Members, Dataset]:
    """The members of a small archive and what must be read from them."""
    rng = np.random.default_rng(0)
    members: Members = {"wnids.txt": "\n".join(IDS).encode(), "words.txt": WORDS.encode()}
    for wnid in IDS:
        names = [f"{wnid}_{k}.JPEG" for k in range(TRAIN)]
        for k, name in enumerate(names):
            members[f"train/{wnid}/images/{name}"] = jpeg(draw(rng, grey=k == 3))
        members[f"train/{wnid}/{wnid}_boxes.txt"] = "".join(f"{name}\t0\t10\t63\t58\n" for name in names).encode()
    owners = rng.choice(IDS, TEST)
    for k in range(TEST):
        members[f"val/images/val_{k}.JPEG"] = jpeg(draw(rng, grey=k == 5))
        members[f"test/images/test_{k}.JPEG"] = b"never read"
    lines = [f"val_{k}.JPEG\t{wnid}\t0\t32\t44\t62\n" for k, wnid in enumerate(owners)]
    members["val/val_annotations.txt"] = "".join(rng.permutation(lines)).encode()  # labels belong to names
    train = sorted(name for name in members if name.startswith("train") and name.endswith(".JPEG"))
    test = sorted(name for name in members if name.startswith("val/images"))
    number = {wnid: label for label, wnid in enumerate(sorted(IDS))}
    whole = data.from_arrays(
        np.stack([decoded(members[name]) for name in train]),
        np.array([number[name.split("/")[1]] for name in train]),
        np.stack([decoded(members[name]) for name in test]),
        np.array([number[owners[int(name.split("_")[1].split(".")[0])]] for name in test]),
        num_classes=4, mirror=True, class_names=NAMES,
    )  # fmt: skip
    return members, whole


def write(members: Members, folder: Path, packed: bool = True) -> Path:
    """Write the archive below a folder, or what is in it. -> the archive's path."""
    folder.mkdir(parents=True, exist_ok=True)
    if packed:
        with zipfile.ZipFile(folder / ZIP, "w") as archive:
            archive.writestr(
                zipfile.ZipInfo("tiny-imagenet-200/"), b""
            )  # the official archive has its folders as members, too
            for member, content in members.items():
                archive.writestr(zipfile.ZipInfo(f"tiny-imagenet-200/{member}"), content)
    else:
        for member, content in members.items():
            path = folder / "tiny-imagenet-200" / member
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return folder / ZIP


def assert_same(got: Dataset) -> None:
    expected = made()[1]
    for field in ("train_x", "train_y", "test_x", "test_y"):
        np.testing.assert_array_equal(getattr(got, field), getattr(expected, field), err_msg=field)
    assert got[4:] == expected[4:]  # classes, mirror, names


# --- by hand ---


def test_the_archive_by_hand(tmp_path: Path) -> None:
    write(made()[0], tmp_path / "tiny_imagenet")
    got = data.load("tiny_imagenet", str(tmp_path))
    assert_same(got)
    assert got.train_x.shape == (4 * TRAIN, 64, 64, 3)
    assert (np.diff(got.train_y) >= 0).all()  # class by class
    # An image folder's order: _0, _1, _10, _11, _2...; the fourth, which is grey, comes sixth.
    assert [int(np.ptp(image, axis=-1).max()) == 0 for image in got.train_x[:TRAIN]] == [k == 5 for k in range(TRAIN)]
    assert [path.name for path in tmp_path.iterdir()] == ["tiny_imagenet"]  # nothing is written


@pytest.mark.parametrize("place", ["data_dir", "below tiny_imagenet", "data_dir is it"])
def test_an_unpacked_archive(place: str, tmp_path: Path) -> None:
    write(made()[0], tmp_path / "tiny_imagenet" if place == "below tiny_imagenet" else tmp_path, packed=False)
    home = tmp_path / "tiny-imagenet-200" if place == "data_dir is it" else tmp_path
    assert_same(data.load("tiny_imagenet", str(home)))


def test_without_words_classes_are_ids(tmp_path: Path) -> None:
    write({name: content for name, content in made()[0].items() if name != "words.txt"}, tmp_path)
    got = data.load("tiny_imagenet", str(tmp_path))
    assert got.class_names == tuple(sorted(IDS))
    assert_same(got._replace(class_names=NAMES))


# --- damaged ---


def without(*names: str) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        for name in names:
            del members[name]

    return change


def edited(name: str, old: bytes, new: bytes) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        assert old in members[name]
        members[name] = members[name].replace(old, new)

    return change


def another(name: str, content: bytes) -> Callable[[Members], None]:
    return lambda members: members.update({name: content})


IMAGE = "train/n01443537/images/n01443537_3.JPEG"
BOXES = "train/n01443537/n01443537_boxes.txt"
LABELS = "val/val_annotations.txt"
DAMAGES: dict[str, tuple[Callable[[Members], None], str]] = {
    "image missing": (without(IMAGE), rf"lists {IMAGE}, which is not there \(1 missing\)"),
    "box row missing": (edited(BOXES, b"n01443537_3.JPEG\t0\t10\t63\t58\n", b""), f"has {IMAGE}, which its list"),
    "boxes missing": (without(BOXES), f"has no {BOXES} in tiny-imagenet-200"),
    "class not listed": (
        edited("wnids.txt", b"n01443537\n", b""),
        "has train/n01443537/images/n01443537_0.JPEG, which",
    ),
    "class missing": (another("wnids.txt", b"n01443537\nn99999999"), "has no train/n99999999/n99999999_boxes.txt"),
    "no classes": (without("wnids.txt"), "has no wnids.txt"),
    "no labels": (without(LABELS), f"has no {LABELS}"),
    "label row missing": (edited(LABELS, b"val_7.JPEG", b"val_8.JPEG"), "has val/images/val_7.JPEG, which its list"),
    "label of no class": (edited(LABELS, b"n0", b"m0"), f"{LABELS} names a class that wnids.txt does not"),
    "test image missing": (without("val/images/val_7.JPEG"), "lists val/images/val_7.JPEG, which is not there"),
    "image cut": (another(IMAGE, jpeg(draw(np.random.default_rng(1)))[:-300]), f"{IMAGE} is not a whole JPEG image"),
    "no image": (another(IMAGE, b"<html>"), f"{IMAGE} is not a whole JPEG image"),
    "another size": (another(IMAGE, jpeg(draw(np.random.default_rng(1), size=63))), f"{IMAGE} is 63x63, not 64x64"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_archives_get_one_sentence(case: str, tmp_path: Path) -> None:
    change, message = DAMAGES[case]
    members = dict(made()[0])
    change(members)
    write(members, tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        data.load("tiny_imagenet", str(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how", ["truncated", "another archive", "no archive"])
def test_other_files_get_one_sentence(how: str, tmp_path: Path) -> None:
    path = write(made()[0], tmp_path)
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "no archive":
        path.write_text("<html>not found</html>")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("imagenet/wnids.txt", "n01443537")
    with pytest.raises(InputError, match=r"File is not a zip file|has no files in tiny-imagenet-200") as caught:
        data.load("tiny_imagenet", str(tmp_path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# --- through TFDS ---


def test_download_prepare_and_read_again(
    served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, folder = served
    path = write(made()[0], folder)
    redirect("tiny_imagenet", base, [path], monkeypatch)
    home = tmp_path / "data"
    assert_same(data.load("tiny_imagenet", str(home)))
    path.unlink()
    assert_same(data.load("tiny_imagenet", str(home)))  # from ArrayRecord, with its grey files

    import tensorflow_datasets as tfds

    with published.quiet():
        builder = tfds.builder_from_directory(home / "jaxdal_tiny_imagenet/1.0.0")
        raw = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})[1]["image"]
    assert bytes(raw) == made()[0]["train/n01443537/images/n01443537_1.JPEG"]  # the very file
    assert "Le, Ya" in builder.info.citation
    assert "tensorflow" not in sys.modules


def test_wrong_checksum_is_refused(served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, folder = served
    path = write(made()[0], folder)
    redirect("tiny_imagenet", base, [path], monkeypatch)
    write({**made()[0], "more": b""}, folder)
    with pytest.raises(InputError, match=r"cannot download tiny_imagenet .*wrong checksum"):
        data.load("tiny_imagenet", str(tmp_path / "data"))


def test_a_damaged_download_gets_one_sentence(
    served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, folder = served
    path = write({name: content for name, content in made()[0].items() if name != LABELS}, folder)
    redirect("tiny_imagenet", base, [path], monkeypatch)
    with pytest.raises(InputError, match=f"has no {LABELS}") as caught:
        data.load("tiny_imagenet", str(tmp_path / "data"))
    assert "\n" not in str(caught.value)


# --- real images ---


def test_real_images(tmp_path: Path) -> None:
    """Fifty classes of Tiny-ImageNet, brought back into the form of its archive."""
    source = Path(os.environ.get("JAXDAL_REAL_DATA", "")) / "tiny_imagenet50.npz"
    if "JAXDAL_REAL_DATA" not in os.environ or not source.is_file():
        pytest.skip("JAXDAL_REAL_DATA does not name a folder with tiny_imagenet50.npz")
    whole = data.load(f"npz:{source}")
    write(as_members(whole), tmp_path)
    got = data.load("tiny_imagenet", str(tmp_path))
    assert (got.train_x.shape, got.test_x.shape) == ((25000, 64, 64, 3), (2500, 64, 64, 3))
    np.testing.assert_array_equal(np.bincount(got.train_y), 500)
    np.testing.assert_array_equal(np.bincount(got.test_y), 50)
    assert got.class_names == whole.class_names
    order = [
        k for label in range(50) for k in sorted(range(label * 500, label * 500 + 500), key=lambda k: str(k % 500))
    ]
    test = sorted(range(2500), key=str)
    np.testing.assert_array_equal(got.train_y, whole.train_y[order])
    np.testing.assert_array_equal(got.test_y, whole.test_y[test])
    for mine, theirs in ((got.train_x, whole.train_x[order]), (got.test_x, whole.test_x[test])):
        errors = [np.abs(a.astype(np.int32) - b).mean() for a, b in zip(mine, theirs, strict=True)]
        assert np.mean(errors) < 3  # grey levels lost to a second JPEG
        assert np.max(errors) < 12


def as_members(whole: Dataset) -> Members:
    """Class-sorted images in the form of the archive."""
    ids = [name.split()[0] for name in whole.class_names]
    members = {
        "wnids.txt": "\n".join(ids[::-1]).encode(),
        "words.txt": "\n".join(name.replace(" ", "\t", 1) for name in whole.class_names).encode(),
    }
    boxes: dict[str, list[str]] = {wnid: [] for wnid in ids}
    for k, (image, label) in enumerate(zip(whole.train_x, whole.train_y, strict=True)):
        wnid = ids[label]
        boxes[wnid].append(f"{wnid}_{k % 500}.JPEG\t0\t0\t63\t63\n")
        members[f"train/{wnid}/images/{wnid}_{k % 500}.JPEG"] = jpeg(image)
    members |= {f"train/{wnid}/{wnid}_boxes.txt": "".join(rows).encode() for wnid, rows in boxes.items()}
    rows = [f"val_{k}.JPEG\t{ids[label]}\t0\t0\t63\t63\n" for k, label in enumerate(whole.test_y)]
    members[LABELS] = "".join(rows).encode()
    return members | {f"val/images/val_{k}.JPEG": jpeg(image) for k, image in enumerate(whole.test_x)}
