"""Small fakes of MNIST, Fashion-MNIST and CIFAR, in the formats of the official files."""

import gzip
import io
import struct
import tarfile
from pathlib import Path

import numpy as np

from jaxdal import data
from jaxdal.data import official
from jaxdal.types import Dataset

NAMES = ("mnist", "fashion_mnist", "cifar10", "cifar100")
TRAIN, TEST = 50, 13


def fake(name: str) -> Dataset:
    """Random images of the right shape; pixels and labels tell the four data sets apart."""
    source = official.OFFICIAL[name]
    rng = np.random.default_rng(NAMES.index(name))
    x, test_x = (rng.integers(0, 256, (size, *source.shape), dtype=np.uint8) for size in (TRAIN, TEST))
    y, test_y = (rng.integers(0, source.num_classes, size, dtype=np.uint8) for size in (TRAIN, TEST))
    return data.from_arrays(x, y, test_x, test_y, num_classes=source.num_classes)


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


def cifar_records(x: np.ndarray, y: np.ndarray, coarse: bool) -> bytes:
    labels = [y.astype(np.uint8) // 5, y.astype(np.uint8)] if coarse else [y.astype(np.uint8)]
    return np.concatenate([np.stack(labels, 1), x.transpose(0, 3, 1, 2).reshape(len(x), -1)], 1).tobytes()


def cifar_members(name: str) -> dict[str, bytes]:
    whole, coarse = fake(name), name == "cifar100"
    names = "".join(f"thing {k}\n" for k in range(whole.num_classes)) + "\n"
    members = {"test.bin" if coarse else "test_batch.bin": cifar_records(whole.test_x, whole.test_y, coarse)}
    if coarse:
        members["coarse_label_names.txt"] = b"wrong\n" * 20
        members["train.bin"] = cifar_records(whole.train_x, whole.train_y, coarse)
    else:
        for part in range(5):
            rows = slice(part * TRAIN // 5, (part + 1) * TRAIN // 5)
            members[f"data_batch_{part + 1}.bin"] = cifar_records(whole.train_x[rows], whole.train_y[rows], coarse)
    members["fine_label_names.txt" if coarse else "batches.meta.txt"] = names.encode()
    return members


def write_official(name: str, folder: Path) -> list[Path]:
    """The published files of one data set, with fake content."""
    folder.mkdir(parents=True, exist_ok=True)
    source, whole = official.OFFICIAL[name], fake(name)
    paths = [folder / file for file in source.files]
    if "cifar" in name:
        with tarfile.open(paths[0], "w:gz") as archive:
            for member, content in cifar_members(name).items():
                entry = tarfile.TarInfo(f"{source.unpacked[0]}/{member}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return paths
    parts = (whole.train_x[..., 0], whole.train_y, whole.test_x[..., 0], whole.test_y)
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(gzip.compress(idx(part.astype(np.uint8))))
    return paths


def assert_same(got: Dataset, name: str) -> None:
    expected = fake(name)
    assert got.num_classes == expected.num_classes
    for field in ("train_x", "train_y", "test_x", "test_y"):
        np.testing.assert_array_equal(getattr(got, field), getattr(expected, field), err_msg=f"{name} {field}")
        assert getattr(got, field).dtype == getattr(expected, field).dtype
    assert len(got.class_names) == got.num_classes
    if "cifar" in name:
        assert got.class_names[1] == "thing 1"
