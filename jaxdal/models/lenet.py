"""The small LeNet of the MNIST experiments, convolved as patches x matrix."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import zeros

from jaxdal.models.layers import Linear, initialise
from jaxdal.types import Model, Tree

Array = jax.Array
SIDE = 28  # at least


class PooledConvolution(nn.Module):
    """5x5 convolution, 2x2 max-pool and ReLU as one matrix product.

    The images are the last axis and every 2x2 block of pixels is one position: a position of the pooled map depends
    on 3x3 blocks, and the four results that it is the maximum of are four shifts of the kernel. Nine slices that
    copy whole rows replace 25, and the pool is a maximum over a leading axis. Exact, and on CPU twice as fast as 25
    slices; a convolution of XLA:CPU would be ten times slower inside loops (jax-ml/jax#12868).
    """

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[C, H, W, B] -> f32[width, H / 2 - 2, W / 2 - 2, B]."""
        channels, height, width, batch = x.shape
        h, w = height // 2 - 2, width // 2 - 2
        kernel = self.param("kernel", zeros, (5, 5, channels, self.width))
        bias = self.param("bias", zeros, (self.width,))
        blocks = x.astype(self.dtype).reshape(channels, h + 2, 2, w + 2, 2, batch).transpose(2, 4, 0, 1, 3, 5)
        blocks = blocks.reshape(4 * channels, h + 2, w + 2, batch)
        patches = jnp.concatenate([blocks[:, i : i + h, j : j + w] for i in range(3) for j in range(3)])
        shifts = [jnp.pad(kernel, ((i, 1 - i), (j, 1 - j), (0, 0), (0, 0))) for i in range(2) for j in range(2)]
        matrix = jnp.stack(shifts).astype(self.dtype).reshape(4, 3, 2, 3, 2, channels, self.width)
        matrix = matrix.transpose(0, 6, 1, 3, 2, 4, 5).reshape(4 * self.width, -1)
        product = _product(matrix, patches.reshape(-1, h * w * batch))
        pooled = _largest(product.reshape(4, self.width, h, w, batch))
        return nn.relu(pooled + bias[:, None, None, None])


@jax.custom_vjp
def _product(a: Array, b: Array) -> Array:
    """[m, k] x [k, n] -> f32[m, n]. JAX's own gradient of b comes transposed, which a CPU reads slowly."""
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def _product_fwd(a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
    return _product(a, b), (a, b)


def _product_bwd(saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    a, b = saved
    da = jax.lax.dot_general(dy, b, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
    db = jax.lax.dot_general(a, dy, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    return da.astype(a.dtype), db.astype(b.dtype)


_product.defvjp(_product_fwd, _product_bwd)


@jax.custom_vjp
def _largest(x: Array) -> Array:
    """[n, ...] -> [...], the maximum over the first axis; the first of equals takes the gradient, as in torch.

    JAX's own gradient shares it among equals, which doubles the time of a step on some versions of XLA:CPU.
    """
    return x.max(0)


def _largest_fwd(x: Array) -> tuple[Array, Array]:
    return x.max(0), x


def _largest_bwd(x: Array, dy: Array) -> tuple[Array]:
    place = jnp.arange(len(x)).reshape(-1, *[1] * dy.ndim)
    return (jnp.where(place == x.argmax(0), dy, jnp.zeros((), dy.dtype)),)


_largest.defvjp(_largest_fwd, _largest_bwd)


class LeNet(nn.Module):
    """LeNet "Net1"; the tensors between its layers keep the images last."""

    num_classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, dropout_key: Array | None) -> tuple[Array, Array, tuple[Array, Array]]:
        """f32[B, S, S, C] -> logits f32[B, K], features f32[B, 50], maps f32[B, M, M, 10], f32[B, M/2-2, M/2-2, 20].

        S, the side, is 28 or a larger multiple of 4, and M is S/2-2.
        """
        first = PooledConvolution(10, self.dtype)(x.transpose(3, 1, 2, 0))
        second = PooledConvolution(20, self.dtype)(first)
        maps = first.transpose(3, 1, 2, 0), second.transpose(3, 1, 2, 0)
        y = maps[1]
        if dropout_key is not None:
            channel_key, feature_key = jax.random.split(dropout_key)
            # Whole channels times 0 or 2: the same after pool and rectifier as, published, before them.
            y = _dropout(channel_key, y, (y.shape[0], 1, 1, y.shape[3]))
        features = nn.relu(Linear(50, self.dtype)(y.reshape(y.shape[0], -1)))
        y = features if dropout_key is None else _dropout(feature_key, features, features.shape)
        return Linear(self.num_classes)(y), features, maps


def _dropout(key: Array, x: Array, shape: tuple[int, ...]) -> Array:
    """Zero half of x, masks of `shape` broadcast, and double the rest (Srivastava et al. 2014)."""
    return x * (2.0 * jax.random.bernoulli(key, 0.5, shape).astype(x.dtype))


def lenet(image_shape: tuple[int, int, int], num_classes: int, dtype: Any = jnp.float32) -> Model:
    """LeNet "Net1": 21,840 parameters at 28x28x1 and 10 classes; smaller images are centred on 28x28.

    Larger ones have larger maps, and more inputs of the first linear layer: 31,340 parameters at 32x32x3; where a side
    is no multiple of 4, or not the longer one, they get a border too. The border is the mean grey of normalised images.
    On 8x8 digits (300 labels, 5 seeds) that gives 95.4 %, a black border 94.9 %, and the image enlarged three times in
    a border of 2 pixels 91.7 %.
    """
    height, width, channels = image_shape
    side = max(SIDE, -4 * (-max(height, width) // 4))
    top, left = (side - height) // 2, (side - width) // 2
    border = ((0, 0), (top, side - height - top), (left, side - width - left), (0, 0))
    module = LeNet(num_classes, dtype)

    def init(key: Array) -> Tree:
        return initialise(module, key, jnp.zeros((1, side, side, channels)), None)

    def apply(
        variables: Tree, x: Array, *, train: bool = False, dropout_key: Array | None = None, chunks: int = 1
    ) -> tuple[Array, dict[str, Any]]:
        del train, chunks  # no statistics of the batch in here
        output: Any = module.apply({"params": variables["params"]}, jnp.pad(x, border), dropout_key)
        logits, features, maps = output
        return logits, {"features": features, "maps": maps, "batch_stats": variables["batch_stats"]}

    def stochastic_head(variables: Tree, taps: dict[str, Any], keys: Array) -> Array:
        """As `apply` with dropout; exact, because everything before the first mask is in the second map."""
        params = variables["params"]
        channels, units = _masks(keys)
        y = taps["maps"][1] * channels[:, None, None, :]
        features: Any = Linear(50, dtype).apply({"params": params["Linear_0"]}, y.reshape(y.shape[0], -1))
        logits: Any = Linear(num_classes).apply({"params": params["Linear_1"]}, nn.relu(features) * units)
        return logits

    return Model(init, apply, pack=32, cpu_pack=8, cpu_loop=True, stochastic_head=stochastic_head)


def _masks(keys: Array) -> tuple[Array, Array]:
    """A mask for every example from its own key: key[B] -> f32[B, 20], f32[B, 50], of zeros and twos."""
    masks = 2.0 * jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (20 + 50,)))(keys).astype(jnp.float32)
    return masks[:, :20], masks[:, 20:]
