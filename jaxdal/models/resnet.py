"""Residual networks for small images (He et al. 2016), without a pool in the stem."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdal.models.convolution import tame
from jaxdal.models.layers import BatchNorm, Conv, Linear, initialise, relu
from jaxdal.types import Model, Tree

Array = jax.Array


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    width: int
    stride: int

    @nn.compact
    def __call__(self, x: Array, train: bool, chunks: int) -> Array:
        """[B, H, W, C] -> [B, H / stride, W / stride, width]."""
        y = Conv(self.width, 3, self.stride, padding=1, tamed=True)(x)
        y = tame(nn.relu(BatchNorm()(y, train, chunks)))
        y = Conv(self.width, 3, padding=1, tamed=True)(y)
        y = BatchNorm()(y, train, chunks)
        if x.shape != y.shape:
            x = Conv(self.width, 1, self.stride, padding=0, tamed=True)(x)
            x = BatchNorm()(x, train, chunks)
        return relu(x + y)  # the rule of its own for the gradient pays for sums alone: see layers.relu


class ResNet18(nn.Module):
    """A 3x3 stem, four stages of two blocks, an average pool and a linear head."""

    widths: tuple[int, ...]  # of the stages
    num_classes: int
    window_of_8x8: int  # how an 8x8 last map (64x64 images) is pooled; any other one is averaged whole
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, chunks: int = 1) -> tuple[Array, Array, tuple[Array, ...]]:
        """f32[B, H, W, C] -> logits f32[B, K], features f32[B, d], the stages' maps f32[B, h, w, width]."""
        x = Conv(self.widths[0], 3, padding=1, tamed=True)(x.astype(self.dtype))
        x = tame(nn.relu(BatchNorm()(x, train, chunks)))
        maps = []
        for stage, width in enumerate(self.widths):
            x = Block(width, stride=1 if stage == 0 else 2)(x, train, chunks)
            x = Block(width, stride=1)(x, train, chunks)
            maps.append(x.astype(jnp.float32))
        window = (self.window_of_8x8,) * 2 if x.shape[1:3] == (8, 8) else x.shape[1:3]
        features = _average_pool(maps[-1], window).reshape(x.shape[0], -1)
        return Linear(self.num_classes)(features), features, tuple(maps)


def _average_pool(x: Array, window: tuple[int, ...]) -> Array:
    """[B, H, W, C] -> [B, H / h, W / w, C], means over windows that do not overlap."""
    batch, height, width, channels = x.shape
    h, w = window
    return x.reshape(batch, height // h, h, width // w, w, channels).mean((2, 4))


def as_model(module: ResNet18, image_shape: tuple[int, int, int], pack: int, pack_multiple: int = 1) -> Model:
    """The pure functions of a residual network, for images [H, W, C]."""

    def init(key: Array) -> Tree:
        return initialise(module, key, jnp.zeros((1, *image_shape)), False)

    def apply(
        variables: Tree, x: Array, *, train: bool = False, dropout_key: Array | None = None, chunks: int = 1
    ) -> tuple[Array, dict[str, Any]]:
        del dropout_key  # the published networks have no active dropout
        own = {part: variables[part] for part in ("params", "batch_stats")}
        (logits, features, maps), updated = module.apply(own, x, train, chunks, mutable=["batch_stats"])
        # What is not finite is zeroed on its way into a convolution. The statistics of a diverged run still show it, or
        # the scales and shifts that come after them: let these reach its loss.
        # As one vector: a sum for each of the 80 would be 80 kernels more.
        vectors = [leaf for leaf in jax.tree.leaves((own["params"], updated)) if leaf.ndim == 1]
        doubt = jnp.sum(0 * jax.lax.stop_gradient(jnp.concatenate(vectors)))
        return logits + doubt, {"features": features, "maps": maps, "batch_stats": updated["batch_stats"]}

    def stochastic_head(variables: Tree, taps: dict[str, Any], keys: Array) -> Array:
        """Dropout of a fifth of the features, which the published runs meant to have; training never sees it."""
        features, head = taps["features"], {"params": variables["params"]["Linear_0"]}
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, 0.8, features.shape[1:]))(keys)
        logits: Any = Linear(module.num_classes).apply(head, features * (kept.astype(jnp.float32) / 0.8))
        return logits

    return Model(init, apply, pack, pack_multiple, stochastic_head=stochastic_head)


def resnet18_thin(image_shape: tuple[int, int, int], num_classes: int, dtype: Any = jnp.float32) -> Model:
    """The narrow ResNet-18 behind the published numbers; d = 128, but 512 at 64x64 (pooled to 2x2 there)."""
    return as_model(ResNet18((16, 32, 64, 128), num_classes, 4, dtype), image_shape, pack=5, pack_multiple=4)


def resnet18(image_shape: tuple[int, int, int], num_classes: int, dtype: Any = jnp.float32) -> Model:
    """The standard ResNet-18 with the CIFAR stem (3x3, stride 1); d = 512."""
    return as_model(ResNet18((64, 128, 256, 512), num_classes, 8, dtype), image_shape, pack=2)
