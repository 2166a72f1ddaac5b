"""What the models share: initial values, layers. The layers state shapes only; `initialise` fills them."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.initializers import ones, zeros
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxdal.models.convolution import Padding, conv2d
from jaxdal.types import Tree

Array = jax.Array


def initialise(module: nn.Module, key: Array, *inputs: Any) -> Tree:
    """The variables of a module, as torch initialises: weights and biases U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    All from one draw, cut to pieces: compiling a draw for each parameter takes XLA:CPU longer than the training step.
    """
    shapes = jax.eval_shape(lambda: module.init(key, *inputs))
    params = flatten_dict(shapes["params"])
    ends = np.cumsum([leaf.size for leaf in params.values()])
    pieces = jnp.split(jax.random.uniform(key, (ends[-1],), minval=-1, maxval=1), ends[:-1])

    def draw(path: tuple[str, ...], leaf: jax.ShapeDtypeStruct, piece: Array) -> Array:
        kernel = params.get((*path[:-1], "kernel"))
        if kernel is None:  # batch normalisation
            return jnp.full(leaf.shape, float(path[-1] == "scale"), jnp.float32)
        return piece.reshape(leaf.shape) * float(np.prod(kernel.shape[:-1])) ** -0.5

    drawn = {path: draw(path, leaf, piece) for (path, leaf), piece in zip(params.items(), pieces, strict=True)}
    stats = flatten_dict(shapes.get("batch_stats", {}))
    start = {path: jnp.full(leaf.shape, float(path[-1] == "var"), jnp.float32) for path, leaf in stats.items()}
    return {"params": unflatten_dict(drawn), "batch_stats": unflatten_dict(start)}


class Linear(nn.Module):
    """x W + b, multiplied in `dtype`, summed in float32."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., d] -> f32[..., width]."""
        fan_in = x.shape[-1]
        kernel = self.param("kernel", zeros, (fan_in, self.width))
        bias = self.param("bias", zeros, (self.width,))
        product = jnp.matmul(x.astype(self.dtype), kernel.astype(self.dtype), preferred_element_type=jnp.float32)
        return product + bias


class Conv(nn.Module):
    """A square convolution without bias, in the dtype of its input."""

    width: int
    size: int
    stride: int = 1
    padding: Padding = "SAME"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, H', W', width]."""
        shape = (self.size, self.size, x.shape[-1], self.width)
        kernel = self.param("kernel", zeros, shape)
        return conv2d(x, kernel.astype(x.dtype), self.stride, self.padding)


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015) in torch's convention, in float32 whatever the dtype of its input.

    The variance that normalises is biased, the running one unbiased.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array, train: bool, chunks: int = 1) -> Array:
        """[B, H, W, C] -> the same; `train` normalises by the batch and updates the running statistics.

        With several chunks, B / chunks rows each, as `chunks` calls one after another: by the statistics of their own.
        """
        width = (x.shape[-1],)
        scale = self.param("scale", ones, width)
        bias = self.param("bias", zeros, width)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, width)
        running_var = self.variable("batch_stats", "var", jnp.ones, width)
        images = x.astype(jnp.float32)
        mean, var = running_mean.value, running_var.value
        if train:
            if chunks > 1:
                images = images.reshape(chunks, -1, *x.shape[1:])
            mean, var = _moments(images, around=mean)
            n = x.size // x.shape[-1] // chunks
            running_mean.value = self._follow(running_mean.value, mean)
            running_var.value = self._follow(running_var.value, var * (n / max(n - 1, 1)))
        gain = scale * jax.lax.rsqrt(var + self.epsilon)
        return ((images - mean) * gain + bias).astype(x.dtype).reshape(x.shape)

    def _follow(self, running: Array, batches: Array) -> Array:
        for batch in jax.lax.stop_gradient(batches.reshape(-1, *running.shape)):
            running = (1 - self.momentum) * running + self.momentum * batch
        return running


def _moments(x: Array, around: Array) -> tuple[Array, Array]:
    """f32[..., B, H, W, C] -> mean and biased variance, f32[..., 1, 1, 1, C], in one pass over x.

    The squares are taken around a guess of the mean (the running one), which loses no digits to cancellation.
    """
    axes = (-4, -3, -2)
    distance = x - around
    offset = distance.mean(axes, keepdims=True)
    var = jnp.square(distance).mean(axes, keepdims=True) - jnp.square(offset)
    return around + offset, jnp.maximum(var, 0)  # all rows alike and far from the guess: rounding is below 0
