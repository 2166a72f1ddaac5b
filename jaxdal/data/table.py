"""One row per data set: where it comes from and how it is trained on by default.

Numbers of MNIST, CIFAR, GTSRB and Tiny-ImageNet are those of the published runs (text and code of arXiv 2212.03088).
"""

import difflib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdal.data import catalogue, folder, local, published
from jaxdal.data.cache import DEFAULTS, Options
from jaxdal.errors import InputError
from jaxdal.files import at_home
from jaxdal.types import Dataset


class Info(NamedTuple):
    """A data set and its defaults."""

    loader: Callable[[Path], Dataset] | None  # data directory -> Dataset; None for own arrays
    num_classes: int
    mean: tuple[float, ...]  # per channel, of pixels scaled to 0..1
    std: tuple[float, ...]
    mirror: bool  # does a left-right flip keep the label?
    published_flip: bool  # the published runs flipped it all the same
    padding: int  # zero pixels around an image before the random crop of training; 0: no crop
    model: str
    batch: int
    learning_rate: float
    epochs: int
    milestones: tuple[float, ...]  # shares of the epochs at which the learning rate falls to a tenth
    n_start: str  # budgets: a share of the training set, or a count
    n_query: str
    n_end: str


def _row(name: str, mirror: bool) -> Callable[[Path], Dataset]:
    return functools.partial(published.load, name, mirror=mirror)


TABLE: dict[str, Info] = {
    "digits": Info(
        loader=lambda data_dir: local.load_digits(),
        num_classes=10, mean=(0.3059,), std=(0.3763,),
        mirror=False, published_flip=False, padding=0,
        model="lenet", batch=32, learning_rate=0.05, epochs=40, milestones=(8 / 15, 0.8),
        n_start="5%", n_query="5%", n_end="25%",
    ),
    "mnist": Info(
        loader=_row("mnist", mirror=False),
        num_classes=10, mean=(0.1307,), std=(0.3081,),
        mirror=False, published_flip=True, padding=0,
        model="lenet", batch=128, learning_rate=0.1, epochs=50, milestones=(0.4, 0.8),
        n_start="2%", n_query="2%", n_end="20%",
    ),
    "fashion_mnist": Info(  # not among the published runs: the protocol of MNIST
        loader=_row("fashion_mnist", mirror=True),
        num_classes=10, mean=(0.2860,), std=(0.3530,),
        mirror=True, published_flip=True, padding=0,
        model="lenet", batch=128, learning_rate=0.1, epochs=50, milestones=(0.4, 0.8),
        n_start="2%", n_query="2%", n_end="20%",
    ),
    "cifar10": Info(
        loader=_row("cifar10", mirror=True),
        num_classes=10, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616),
        mirror=True, published_flip=True, padding=4,
        model="resnet18_thin", batch=256, learning_rate=0.1, epochs=150, milestones=(8 / 15, 0.8),
        n_start="10%", n_query="5%", n_end="70%",
    ),
    "cifar100": Info(  # published with batches of 2048 too: which of both the paper used is not known
        loader=_row("cifar100", mirror=True),
        num_classes=100, mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761),
        mirror=True, published_flip=True, padding=4,
        model="resnet18_thin", batch=256, learning_rate=0.1, epochs=150, milestones=(8 / 15, 0.8),
        n_start="10%", n_query="5%", n_end="70%",
    ),
    "gtsrb": Info(
        loader=_row("gtsrb", mirror=False),
        num_classes=43, mean=(0.3337, 0.3064, 0.3171), std=(0.2672, 0.2564, 0.2629),
        mirror=False, published_flip=True, padding=4,
        model="resnet18_thin", batch=256, learning_rate=0.1, epochs=150, milestones=(8 / 15, 0.8),
        n_start="10%", n_query="5%", n_end="70%",
    ),
    "gtsrb:competition": Info(  # the split of the published runs, where the paper names the one above
        loader=_row("gtsrb:competition", mirror=False),
        num_classes=43, mean=(0.3337, 0.3064, 0.3171), std=(0.2672, 0.2564, 0.2629),
        mirror=False, published_flip=True, padding=4,
        model="resnet18_thin", batch=256, learning_rate=0.1, epochs=150, milestones=(8 / 15, 0.8),
        n_start="10%", n_query="5%", n_end="70%",
    ),
    "tiny_imagenet": Info(  # published with batches of 1024 too; mean and deviation are ImageNet's
        loader=_row("tiny_imagenet", mirror=True),
        num_classes=200, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
        mirror=True, published_flip=True, padding=4,
        model="resnet18_thin", batch=256, learning_rate=0.1, epochs=150, milestones=(8 / 15, 0.8),
        n_start="10%", n_query="5%", n_end="70%",
    ),
}  # fmt: skip


OWN = ("folder:PATH", "npz:PATH", "tfds:NAME")


def check_name(name: str, options: Options = DEFAULTS) -> None:
    """Raises InputError, with the nearest match, unless a data set of this name and these options can be asked for."""
    kind, colon, rest = name.partition(":")
    if name in TABLE or (rest and any(own.startswith(kind + colon) for own in OWN)):
        check_options(name, options)
        return
    known = [*TABLE, *OWN]
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    path = at_home(name)
    if name and (path.is_dir() or path.suffix == ".npz"):
        near = [f"{'folder' if path.is_dir() else 'npz'}:{name}"]
    hint = f"did you mean {near[0]}? " if near else ""
    raise InputError(f"unknown dataset {name!r}: {hint}there are {', '.join(known)}")


def check_options(name: str, options: Options) -> None:
    """Raises InputError for an option that is out of range, or does not apply to a data set of this name."""
    if options.image_size is not None and options.image_size < 1:
        raise InputError(f"--image_size={options.image_size} is less than 1")
    if name.startswith(("folder:", "tfds:")):
        return
    for option, value in options._asdict().items():
        if value != getattr(DEFAULTS, option):
            raise InputError(f"--{option} is for folder:PATH and tfds:NAME, not for {name}")


def load(name: str, data_dir: str | None = None, options: Options = DEFAULTS) -> Dataset:
    """A data set by name: a row of TABLE, or `folder:PATH`, `npz:PATH`, `tfds:NAME`.

    data_dir: where data sets are prepared and official files are looked for; by default $TFDS_DATA_DIR, else
    ~/tensorflow_datasets.

    Raises:
        InputError: unknown name, an option that does not apply, no data and no network, or damaged files.
    """
    check_name(name, options)
    kind, _, rest = name.partition(":")
    where = at_home(data_dir) if data_dir else published.default_data_dir()
    if kind == "folder":
        return folder.load(rest, options)
    if kind == "npz":
        return local.load_npz(rest)
    if kind == "tfds":
        return catalogue.load(rest, where, options)
    loader = TABLE[name].loader
    assert loader is not None  # every row has one
    return loader(where)


def info(name: str, dataset: Dataset) -> Info:
    """The row of a named data set; for own data (any name not in the table) one made from its images."""
    return TABLE[name] if name in TABLE else own(dataset)


def own(dataset: Dataset) -> Info:
    """Defaults for own data. Mean and standard deviation come from the training images alone."""
    mean, std = measure(dataset.train_x)
    height, width, channels = dataset.train_x.shape[1:]
    small = channels == 1 and height <= 28 and width <= 28
    return Info(
        loader=None,
        num_classes=dataset.num_classes, mean=mean, std=std,
        mirror=dataset.mirror, published_flip=dataset.mirror, padding=0 if small else 4,
        model="lenet" if small else "resnet18_thin",
        batch=128 if small else 256,
        learning_rate=0.1,
        epochs=50 if small else 150,
        milestones=(8 / 15, 0.8),
        n_start="10%", n_query="5%", n_end="70%",
    )  # fmt: skip


def measure(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of u8[N, H, W, C], scaled to 0..1; exact, from histograms."""
    values = np.arange(256) / 255
    means, stds = [], []
    for channel in range(images.shape[-1]):
        share = np.bincount(images[..., channel].ravel(), minlength=256) / images[..., channel].size
        mean = float(share @ values)
        std = float(np.sqrt(share @ (values - mean) ** 2))
        means.append(mean)
        stds.append(std or 1.0)  # a constant channel: nothing to scale, and nothing may be divided by zero
    return tuple(means), tuple(stds)
