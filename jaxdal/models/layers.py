"""What the models share: initial values, layers. The layers state shapes only; `initialise` fills them."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.initializers import ones, zeros
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxdal.models.convolution import Padding, conv2d, is_tame, tame
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
    tamed: bool = False  # its input: see conv2d

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, H', W', width]."""
        shape = (self.size, self.size, x.shape[-1], self.width)
        kernel = self.param("kernel", zeros, shape)
        return conv2d(x, kernel.astype(x.dtype), self.stride, self.padding, tamed=self.tamed)


@jax.custom_vjp
def relu(x: Array) -> Array:
    """A ReLU, tamed, for sums: the gradient is told by the answer, so that no sum is kept or added up again."""
    return tame(nn.relu(x))


relu.defvjp(lambda x: (relu(x),) * 2, lambda y, g: (jnp.where(y > 0, g, jnp.zeros((), g.dtype)),))


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015) in torch's convention, in float32 whatever the dtype of its input.

    The variance that normalises is biased, the running one unbiased. First derivatives in reverse mode only.
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
        mean, var = running_mean.value, running_var.value
        if not train:
            gain = scale * jax.lax.rsqrt(var + self.epsilon)
            return ((x.astype(jnp.float32) - mean) * gain + bias).astype(x.dtype)
        y, mean, var = _normalise(x, scale, bias, mean, self.epsilon, chunks)
        n = x.size // x.shape[-1] // chunks
        running_mean.value = self._follow(running_mean.value, mean)
        running_var.value = self._follow(running_var.value, var * (n / max(n - 1, 1)))
        return y

    def _follow(self, running: Array, batches: Array) -> Array:
        for batch in jax.lax.stop_gradient(batches):
            running = (1 - self.momentum) * running + self.momentum * batch
        return running


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _normalise(
    x: Array, scale: Array, bias: Array, around: Array, epsilon: float, chunks: int
) -> tuple[Array, Array, Array]:
    """[B, H, W, C] -> the same, every chunk of its rows by its own moments, and these, f32[chunks, C].

    around: f32[C], a guess of the means. Neither the guess nor the moments that are returned have a gradient. That of x
    is the closed formula, with two sums over x; the derivatives of single operations would make three.
    """
    mean, var = _moments(x, around, chunks)
    gain = scale * jax.lax.rsqrt(var + epsilon)
    return ((x.astype(jnp.float32) - _rows(mean, x)) * _rows(gain, x) + bias).astype(x.dtype), mean, var


def _normalise_fwd(x: Array, scale: Array, bias: Array, around: Array, epsilon: float, chunks: int) -> tuple[Any, Any]:
    y, mean, var = _normalise(x, scale, bias, around, epsilon, chunks)
    return (y, mean, var), (x, scale, mean, jax.lax.rsqrt(var + epsilon))


def _normalise_bwd(epsilon: float, chunks: int, saved: Any, cotangents: Any) -> tuple[Array, Array, Array, Array]:
    del epsilon
    x, scale, mean, root = saved  # root: 1 / sqrt(var + epsilon)
    dy, distance = cotangents[0].astype(jnp.float32), x.astype(jnp.float32) - _rows(mean, x)
    level, slope = _sums(chunks, dy, dy * distance)
    n = x.size // x.shape[-1] // chunks
    gain = scale * root
    dx = _rows(gain, x) * (dy - _rows(level / n, x) - distance * _rows(jnp.square(root) * slope / n, x))
    # The convolution that x came from tames dx: what would be lost there has to show here, and after any clamp.
    fine = is_tame(jnp.abs(gain) * level) & is_tame(jnp.abs(gain) * slope * root)
    dscale, dbias = (jnp.sum(jnp.where(fine, each, jnp.nan), 0) for each in (slope * root, level))
    return dx.astype(x.dtype), dscale, dbias, jnp.zeros_like(scale)


_normalise.defvjp(_normalise_fwd, _normalise_bwd)


def _moments(x: Array, around: Array, chunks: int) -> tuple[Array, Array]:
    """[B, H, W, C] -> means and biased variances of its chunks, f32[chunks, C], in one pass over x.

    The squares are taken around a guess of the mean (the running one), which loses no digits to cancellation.
    """
    distance = x.astype(jnp.float32) - around
    n = x.size // x.shape[-1] // chunks
    offset, square = (each / n for each in _sums(chunks, distance, jnp.square(distance)))
    var = square - jnp.square(offset)
    return around + offset, jnp.maximum(var, 0)  # all rows alike and far from the guess: rounding is below 0


def _sums(chunks: int, *maps: Array) -> tuple[Array, ...]:
    """f32[B, H, W, C] each -> f32[chunks, C] each: of every image, then of the images of a chunk.

    So no map is cut into chunks, which in a pack would copy it. And XLA sums so many numbers in two kernels on a GPU,
    the second one for each map: this way it is one for all of them.
    """
    of_images = tuple(each.sum((1, 2)).reshape(chunks, -1, each.shape[-1]) for each in maps)
    return tuple(jax.lax.reduce(of_images, (jnp.float32(0),) * len(maps), _add, (1,)))


def _add(some: tuple[Array, ...], more: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(a + b for a, b in zip(some, more, strict=True))


def _rows(of_chunks: Array, x: Array) -> Array:
    """What belongs to each image of x: f32[chunks, C] -> f32[B, 1, 1, C], or [1, 1, 1, C] of a single chunk."""
    chunks = of_chunks.shape[0]
    return (of_chunks if chunks == 1 else jnp.repeat(of_chunks, x.shape[0] // chunks, axis=0))[:, None, None, :]
