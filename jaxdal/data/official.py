"""Official files: where they are and how they are read; here, too, how those of MNIST and CIFAR are laid out.

Of CIFAR only the plain binary form is read, never a pickle. No network and no TensorFlow Datasets in this file.
"""

import gzip
import math
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from jaxdal.data import gtsrb, tiny_imagenet
from jaxdal.data.archives import Split
from jaxdal.errors import InputError


class Official(NamedTuple):
    """How one data set was published."""

    name: str
    urls: tuple[str, ...]  # what is downloaded
    unpacked: tuple[str, ...]  # what each file is called once unpacked
    folders: tuple[str, ...]  # where users put these files, relative to the data directory
    shape: tuple[int, int, int]  # [H, W, C]
    num_classes: int  # 0: as many as the files name
    read: Callable[[list[Path]], tuple[Split, Split, tuple[str, ...]]]  # files -> training set, test set, class names
    moved: Mapping[str, tuple[str, ...]] = MappingProxyType({})  # unpacked file -> where else people keep it

    @property
    def builder(self) -> str:
        """Name of this package's TFDS builder."""
        return f"jaxdal_{self.name.replace(':', '_')}"

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the published files."""
        return tuple(url.rpartition("/")[2] for url in self.urls)


def find(official: Official, data_dir: Path) -> list[Path] | None:
    """The official files that the user has put under the data directory, packed or unpacked; None if one is missing."""
    folders = [data_dir / folder for folder in official.folders]
    here = data_dir.absolute()
    if any(Path(name).parts[0] == here.name for name in official.unpacked):
        folders.append(here.parent)  # the data directory is itself what was unpacked
    for folder in folders:
        pairs = zip(official.files, official.unpacked, strict=True)
        places = [[folder / name for name in (*names, *official.moved.get(names[1], ()))] for names in pairs]
        found = [next((path for path in choice if path.exists()), None) for choice in places]
        complete = [path for path in found if path is not None]
        if len(complete) == len(places):
            return complete
    return None


def read(official: Official, paths: list[Path]) -> tuple[Split, Split, tuple[str, ...]]:
    """Training set, test set and class names from the official files; raises InputError for a damaged one."""
    try:
        return official.read(paths)
    except (OSError, EOFError, KeyError, zlib.error, tarfile.TarError, zipfile.BadZipFile) as error:
        where = ", ".join(str(path) for path in paths)
        raise InputError(f"{official.name}: cannot read {where}, download again ({error})") from error


def read_idx(path: Path) -> np.ndarray:
    """One idx file of bytes, gzipped or not -> u8[...]; raises InputError when it is not one."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        data = file.read()
    rank = data[3] if len(data) > 3 else 0
    if data[:3] != b"\0\0\x08" or not rank or len(data) < 4 + 4 * rank:
        raise InputError(f"{path} is not an idx file of bytes")
    shape = tuple(int(size) for size in np.frombuffer(data, ">i4", rank, offset=4))
    if math.prod(shape) != len(data) - 4 - 4 * rank:
        raise InputError(f"{path} is damaged: its header promises {shape}, but {len(data)} bytes are there")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _read_mnist(paths: list[Path], class_names: tuple[str, ...]) -> tuple[Split, Split, tuple[str, ...]]:
    """Four idx files: training images and labels, test images and labels."""
    train_x, train_y, test_x, test_y = (read_idx(path) for path in paths)
    if (train_x.ndim, train_y.ndim, test_x.ndim, test_y.ndim) != (3, 1, 3, 1):
        raise InputError(f"the idx files in {paths[0].parent} hold other things than images and labels")
    return Split(train_x[..., None], train_y), Split(test_x[..., None], test_y), class_names


def _members(path: Path) -> dict[str, bytes]:
    """File name -> content, of a gzipped tar archive or a folder; nothing is written to disk."""
    if path.is_dir():
        return {file.name: file.read_bytes() for file in path.iterdir() if file.suffix in (".bin", ".txt")}
    contents = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            file = archive.extractfile(member)  # None for folders
            if file is not None:
                contents[member.name.rpartition("/")[2]] = file.read()
    return contents


def _cifar_records(data: bytes, labels: int) -> Split:
    """Records of `labels` label bytes, of which the last is the finest, and 3 x 32 x 32 image bytes."""
    size = labels + 3072
    if not data or len(data) % size:
        raise InputError(f"a CIFAR file of {len(data)} bytes is not made of records of {size} bytes")
    records = np.frombuffer(data, np.uint8).reshape(-1, size)
    images = records[:, labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), records[:, labels - 1])


def _read_cifar(
    path: Path, labels: int, train: tuple[str, ...], test: str, names: str
) -> tuple[Split, Split, tuple[str, ...]]:
    """One archive of binary files; `names` is the member that lists the class names."""
    members = _members(path)
    pool = _cifar_records(b"".join(members[name] for name in train), labels)
    class_names = tuple(line.strip() for line in members[names].decode().splitlines() if line.strip())
    return pool, _cifar_records(members[test], labels), class_names


def _read_cifar10(paths: list[Path]) -> tuple[Split, Split, tuple[str, ...]]:
    train = tuple(f"data_batch_{part}.bin" for part in range(1, 6))
    return _read_cifar(paths[0], 1, train, "test_batch.bin", "batches.meta.txt")


def _read_cifar100(paths: list[Path]) -> tuple[Split, Split, tuple[str, ...]]:
    # Two label bytes, coarse then fine: the hundred fine classes are what everybody means by CIFAR-100.
    return _read_cifar(paths[0], 2, ("train.bin",), "test.bin", "fine_label_names.txt")


_DIGITS = tuple(str(digit) for digit in range(10))
_CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_CIFAR_URL = "https://www.cs.toronto.edu/~kriz/"
_GTSRB_URL = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"

# MNIST and Fashion-MNIST use the same four file names, so that only folders that tell them apart are searched.
OFFICIAL = {
    "mnist": Official(
        name="mnist",
        urls=tuple(f"{_MNIST_URL}{name}.gz" for name in _IDX),
        unpacked=_IDX,
        folders=("mnist", "MNIST/raw"),  # the second is torchvision's
        shape=(28, 28, 1),
        num_classes=10,
        read=lambda paths: _read_mnist(paths, _DIGITS),
    ),
    "fashion_mnist": Official(
        name="fashion_mnist",
        urls=tuple(f"{_FASHION_URL}{name}.gz" for name in _IDX),
        unpacked=_IDX,
        folders=("fashion_mnist", "fashion-mnist", "FashionMNIST/raw"),  # ours, Debian's, torchvision's
        shape=(28, 28, 1),
        num_classes=10,
        read=lambda paths: _read_mnist(paths, _CLOTHES),
    ),
    "cifar10": Official(
        name="cifar10",
        urls=(f"{_CIFAR_URL}cifar-10-binary.tar.gz",),
        unpacked=("cifar-10-batches-bin",),
        folders=("cifar10", "."),
        shape=(32, 32, 3),
        num_classes=10,
        read=_read_cifar10,
    ),
    "cifar100": Official(
        name="cifar100",
        urls=(f"{_CIFAR_URL}cifar-100-binary.tar.gz",),
        unpacked=("cifar-100-binary",),
        folders=("cifar100", "."),
        shape=(32, 32, 3),
        num_classes=100,
        read=_read_cifar100,
    ),
    "gtsrb": Official(
        name="gtsrb",
        urls=(
            f"{_GTSRB_URL}GTSRB_Final_Training_Images.zip",
            f"{_GTSRB_URL}GTSRB_Final_Test_Images.zip",
            f"{_GTSRB_URL}GTSRB_Final_Test_GT.zip",
        ),
        unpacked=(gtsrb.TRAIN, gtsrb.TEST, gtsrb.TEST_LABELS),
        folders=("gtsrb", "."),  # the first is torchvision's, too
        shape=(gtsrb.SIZE, gtsrb.SIZE, 3),
        num_classes=len(gtsrb.SIGNS),
        read=gtsrb.read,
        moved={gtsrb.TEST_LABELS: (f"GTSRB/{gtsrb.TEST_LABELS}", f"{gtsrb.TEST}/{gtsrb.TEST_LABELS}")},
    ),
    "gtsrb:competition": Official(
        name="gtsrb:competition",
        urls=(f"{_GTSRB_URL}GTSRB-Training_fixed.zip", f"{_GTSRB_URL}GTSRB_Online-Test-Images-Sorted.zip"),
        unpacked=(gtsrb.ONLINE_TRAIN, gtsrb.ONLINE_TEST),
        folders=("gtsrb", "."),
        shape=(gtsrb.SIZE, gtsrb.SIZE, 3),
        num_classes=len(gtsrb.SIGNS),
        read=gtsrb.read_competition,
    ),
    "tiny_imagenet": Official(
        name="tiny_imagenet",
        urls=("http://cs231n.stanford.edu/tiny-imagenet-200.zip",),
        unpacked=(tiny_imagenet.ROOT,),
        folders=("tiny_imagenet", "."),
        shape=(tiny_imagenet.SIZE, tiny_imagenet.SIZE, 3),
        num_classes=0,
        read=tiny_imagenet.read,
    ),
}
