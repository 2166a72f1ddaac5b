"""What a trained network says of other images, with the scale of pixels that it was trained with."""

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxdal import augment, likeness, models, signals
from jaxdal.data.arrays import to_bytes
from jaxdal.errors import InputError
from jaxdal.lab import ON_ACCELERATOR, ON_CPU
from jaxdal.models import DTYPES
from jaxdal.types import Model, Tree

KEYS = ("model", "num_classes", "mean", "std", "precision")  # of a configuration, that are needed here
PARTS = ("params", "batch_stats")  # of the variables, likewise


def predict(images: Any, variables: Tree, config: Mapping[str, Any]) -> np.ndarray:
    """Return what a network thinks of images, none of which is augmented: f32[N, K], probabilities of the classes.

    images: u8[N, H, W, C] or [N, H, W], any number. variables, config: those of an answer of `ask`; or what
    `checkpoint.load` has read and the "config" of the journal beside it, `run(...).header["config"]`. Variables are
    those that answer: of `mixmatch` and `fixmatch`, moving averages. Computed on one device, batch by batch.

    Raises:
        InputError: images are not like those of training, the configuration lacks something, or variables are not of
            its network.
    """
    if not isinstance(config, Mapping) or (missing := [key for key in KEYS if key not in config]):
        lacks = f"lacks {', '.join(missing)}" if isinstance(config, Mapping) else f"is {type(config).__name__}"
        raise InputError(f"config {lacks}: it is answer.config of ask, or header['config'] of what run returns")
    x = _checked(images, config)
    shape, classes, name = x.shape[1:], int(config["num_classes"]), config["model"]
    mean, std = (tuple(map(float, config[key])) for key in ("mean", "std"))
    row = models.MODELS.get(name)
    if row is not None and likeness.of_rows(row) != config.get("own_code", ""):
        told = f"the code of model {name!r} is another one than it was trained with, or Python another version"
        warnings.warn(told, stacklevel=2)
    program, expected = _program(name, row, shape, classes, config["precision"], mean, std)
    if not isinstance(variables, Mapping) or _shapes({part: variables.get(part) for part in PARTS}) != expected:
        size = " x ".join(map(str, shape))
        raise InputError(f"the variables are not those of a {name} for images of {size} and {classes} classes")
    on_device = jax.device_put({part: jax.tree.map(np.asarray, variables[part]) for part in PARTS})
    most = (ON_CPU if jax.default_backend() == "cpu" else ON_ACCELERATOR).rows
    rows = min(most, 1 << (max(len(x), 1) - 1).bit_length())  # powers of two, so that few images are few programs
    found = [np.zeros((0, classes), np.float32)]
    for first in range(0, len(x), rows):
        part = x[first : first + rows]
        whole = np.concatenate([part, np.repeat(part[-1:], rows - len(part), axis=0)])
        found.append(np.asarray(program(on_device, whole))[: len(part)])
    return np.concatenate(found)


def _checked(images: Any, config: Mapping[str, Any]) -> np.ndarray:
    """The images as u8[N, H, W, C], if they are like those of training as far as the configuration tells."""
    try:
        x = np.asarray(images)
    except ValueError as error:
        raise InputError(f"images cannot be read as one array: {error}") from error
    if x.dtype != np.uint8:
        told = f"got {x.dtype}: {to_bytes(x)}"
        raise InputError(f"images must be uint8 with values 0..255, as those of training, {told}")
    x = x[..., None] if x.ndim == 3 else x
    if x.ndim != 4 or 0 in x.shape[1:]:
        raise InputError(f"images must have the shape [N, height, width, channels], got {list(x.shape)}")
    channels = len(config["mean"])
    trained = config.get("image_shape", [*x.shape[1:3], channels])  # a journal tells the channels alone
    if list(x.shape[1:]) != list(trained):
        size = f"{channels} channels" if "image_shape" not in config else " x ".join(map(str, trained))
        raise InputError(f"images have the shape {list(x.shape)}, and the network was trained on images of {size}")
    return x


@functools.lru_cache(maxsize=8)
def _program(
    name: str, row: Callable[..., Model] | None, shape: tuple[int, int, int], classes: int, precision: str,
    mean: tuple[float, ...], std: tuple[float, ...],
) -> tuple[Callable[..., jax.Array], dict[str, tuple[int, ...]]]:  # fmt: skip
    """Return (variables, u8[B, H, W, C]) -> f32[B, K], compiled, and the shapes of these variables.

    row: of the table of models; another one of the same name is another network.
    """
    del row
    if precision not in DTYPES:
        raise InputError(f"config: unknown precision {precision!r}: there are {', '.join(DTYPES)}")
    model = models.build(name, shape, classes, DTYPES[precision])
    network = augment.network(model, mean, std, crop=0, flip=False)

    def probs(variables: Tree, x: jax.Array) -> jax.Array:
        return signals.probs.per_batch((), network, variables, (), x)

    made = jax.eval_shape(model.init, jax.random.key(0))
    return jax.jit(probs), _shapes({part: made[part] for part in PARTS})


def _shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
    """The shape of each array of a tree, by its place."""
    return {jax.tree_util.keystr(path): np.shape(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
