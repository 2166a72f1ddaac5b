"""Models with little to compile, for tests of what is done with a network; real ones take several times as long.

`tiny` has all that a model can have: dropout, statistics of the batch, maps, a head. `two_stages` is half of a real
residual network, with all of its kinds of layers.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdal.models.layers import BatchNorm, Linear, initialise
from jaxdal.models.resnet import ResNet18, as_model
from jaxdal.types import Array, Model, Tree

WIDTH = 12


class Tiny(nn.Module):
    """Pixels to a map of 2 x 2 positions, its features, their classes."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Array, dropout: Array | None, train: bool, chunks: int) -> tuple[Array, Array, Array]:
        """f32[B, H, W, C] -> logits f32[B, K], features f32[B, 4 WIDTH], map f32[B, 2, 2, WIDTH]."""
        size = x.shape[0]
        first = Linear(4 * WIDTH)(x.reshape(size, -1)).reshape(size, 2, 2, WIDTH)
        maps = nn.relu(BatchNorm()(first, train, chunks))
        features = maps.reshape(size, -1)
        kept = features if dropout is None else features * 2 * dropout.astype(jnp.float32)
        return Linear(self.num_classes)(kept), features, maps


def tiny(image_shape: tuple[int, int, int], num_classes: int, dtype: Any = jnp.float32) -> Model:
    """As `jaxdal.models.lenet` is one; in float32 whatever the dtype."""
    del dtype
    module = Tiny(num_classes)

    def init(key: Array) -> Tree:
        return initialise(module, key, jnp.zeros((1, *image_shape)), None, False, 1)

    def apply(
        variables: Tree, x: Array, *, train: bool = False, dropout_key: Array | None = None, chunks: int = 1
    ) -> tuple[Array, dict[str, Any]]:
        kept = None if dropout_key is None else jax.random.bernoulli(dropout_key, 0.5, (x.shape[0], 4 * WIDTH))
        variables = {"params": variables["params"], "batch_stats": variables["batch_stats"]}
        output: Any = module.apply(variables, x, kept, train, chunks, mutable=["batch_stats"] if train else [])
        (logits, features, maps), updated = output
        stats = updated["batch_stats"] if train else variables["batch_stats"]
        return logits, {"features": features, "maps": (maps,), "batch_stats": stats}

    def stochastic_head(variables: Tree, taps: dict[str, Any], keys: Array) -> Array:
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (4 * WIDTH,)))(keys).astype(jnp.float32)
        logits: Any = Linear(num_classes).apply(
            {"params": variables["params"]["Linear_1"]}, taps["features"] * 2 * kept
        )
        return logits

    return Model(init, apply, pack=32, cpu_pack=32, cpu_loop=True, stochastic_head=stochastic_head)


def two_stages(image_shape: tuple[int, int, int], num_classes: int, dtype: Any = jnp.float32) -> Model:
    """The thin ResNet-18 without its last two stages."""
    return as_model(ResNet18((16, 32), num_classes, 4, dtype), image_shape, pack=8, pack_multiple=4)
