"""Neural networks as pure functions; see `jaxdal.types.Model`."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxdal.calls import unknown
from jaxdal.models.lenet import lenet
from jaxdal.models.resnet import resnet18, resnet18_thin
from jaxdal.types import Model

MODELS: dict[str, Callable[..., Model]] = {
    "lenet": lenet,
    "resnet18": resnet18,
    "resnet18_thin": resnet18_thin,
}


def build(name: str, image_shape: tuple[int, int, int], num_classes: int, dtype: Any = jnp.float32) -> Model:
    """The model called `name` for images [H, W, C], computing in `dtype`; its variables are float32 always."""
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    return MODELS[name](image_shape, num_classes, dtype)
