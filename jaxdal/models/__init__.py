"""Neural networks as pure functions; see `jaxdal.types.Model`."""

import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxdal.calls import blamed, unknown, wrong_kind
from jaxdal.errors import InputError
from jaxdal.models.lenet import lenet
from jaxdal.models.resnet import resnet18, resnet18_thin
from jaxdal.types import Model

MODELS: dict[str, Callable[..., Model]] = {
    "lenet": lenet,
    "resnet18": resnet18,
    "resnet18_thin": resnet18_thin,
}

DTYPES = {"f32": jnp.float32, "bf16": jnp.bfloat16}  # of `--precision`


def build(name: str, image_shape: tuple[int, int, int], num_classes: int, dtype: Any = jnp.float32) -> Model:
    """Make the model called `name` for images [H, W, C], computing in `dtype`; its variables are float32 always.

    Raises:
        InputError: the name is unknown, or what has it is no constructor of models.
    """
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    try:
        inspect.signature(MODELS[name]).bind(image_shape, num_classes, dtype)
    except TypeError as error:
        raise InputError(f"model {name!r} is made as {name}(image_shape, num_classes, dtype): {error}") from None
    with blamed(f"model {name!r}: {name}(image_shape, num_classes, dtype)"):
        made = MODELS[name](image_shape, num_classes, dtype)
    if not isinstance(made, Model):
        raise wrong_kind(f"model {name!r}", made, Model)
    return made
