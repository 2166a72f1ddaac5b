"""The networks of VAAL: a variational auto-encoder, convolutional or of linear layers, and a discriminator."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import zeros
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxdal.models.convolution import conv_transpose2d
from jaxdal.models.layers import BatchNorm, Conv, Linear, initialise
from jaxdal.types import Tree

Array = jax.Array


class Vae(NamedTuple):
    """A variational auto-encoder (Kingma and Welling 2014) as pure functions; variables as those of a `Model`."""

    init: Callable[[Array], Tree]  # key -> variables
    # (variables, x: f32[B, H, W, C]) -> mean and log variance of the posterior, f32[B, latent] each; running statistics
    encode: Callable[[Tree, Array], tuple[Array, Array]]
    # (variables, x, noise: f32[B, latent], standard normal) -> (reconstruction f32[B, H, W, C], mean, log variance,
    # new batch_stats), with the statistics of the batch
    train: Callable[[Tree, Array, Array], tuple[Array, Array, Array, Tree]]
    latent: int
    convolves: bool


class Critic(NamedTuple):
    """A discriminator: how much a latent code looks labelled, as a logit."""

    init: Callable[[Array], Tree]  # key -> params
    apply: Callable[[Tree, Array], Array]  # (params, f32[B, latent]) -> f32[B]


class ConvTranspose(nn.Module):
    """A square transposed convolution."""

    width: int
    size: int
    stride: int = 1
    padding: int = 0
    bias: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, H', W', width]."""
        kernel = self.param("kernel", zeros, (self.size, self.size, self.width, x.shape[-1]))
        y = conv_transpose2d(x, kernel, self.stride, self.padding)
        return y + self.param("bias", zeros, (self.width,)) if self.bias else y


class Posterior(nn.Module):
    """Mean and log variance of a diagonal Gaussian, each linear in what is known of an image."""

    latent: int

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """f32[B, ...] -> f32[B, latent], f32[B, latent]."""
        x = x.reshape(x.shape[0], -1)
        return Linear(self.latent, name="mean")(x), Linear(self.latent, name="log_variance")(x)


class LinearVae(nn.Module):
    """Linear layers and ReLUs, there and back."""

    shape: tuple[int, int, int]
    widths: Sequence[int]
    latent: int

    def setup(self) -> None:
        """The layers of both ways."""
        pixels = math.prod(self.shape)
        self.encoder = [Linear(width) for width in self.widths]
        self.posterior = Posterior(self.latent)
        self.decoder = [Linear(width) for width in (*reversed(self.widths), pixels)]

    def encode(self, x: Array, train: bool) -> tuple[Array, Array]:
        """f32[B, H, W, C] -> f32[B, latent], f32[B, latent]."""
        del train  # no statistics of the batch in here
        x = x.reshape(x.shape[0], -1)
        for layer in self.encoder:
            x = nn.relu(layer(x))
        return self.posterior(x)

    def __call__(self, x: Array, noise: Array) -> tuple[Array, Array, Array]:
        """Return reconstruction, mean, log variance."""
        mean, log_variance = self.encode(x, train=True)
        y = _draw(mean, log_variance, noise)
        for layer in self.decoder[:-1]:
            y = nn.relu(layer(y))
        return self.decoder[-1](y).reshape(x.shape), mean, log_variance


class ConvVae(nn.Module):
    """Convolutions 4x4 of stride 2 with BatchNorm and ReLU, and their transposes on the way back."""

    shape: tuple[int, int, int]
    widths: Sequence[int]
    latent: int

    def setup(self) -> None:
        """The layers of both ways. Images are padded with 0 until every stride halves them exactly."""
        height, width, channels = self.shape
        half = 2 ** (len(self.widths) - 1)
        self.grid = [-(-side // (2 * half)) * 2 for side in (height, width)]  # of the last map but one
        self.border = [(0, 0), (0, self.grid[0] * half - height), (0, self.grid[1] * half - width), (0, 0)]
        self.encoder = [Conv(wide, 4, 2, 1) for wide in self.widths]
        self.encoder_norms = [BatchNorm() for _ in self.widths]
        self.posterior = Posterior(self.latent)
        self.unfold = Linear(math.prod(self.grid) * self.widths[-1])
        self.up = [
            *(ConvTranspose(wide, 4, 2, 1) for wide in reversed(self.widths[:-1])),
            ConvTranspose(channels, 1, bias=True),
        ]
        self.up_norms = [BatchNorm() for _ in self.widths[:-1]]

    def encode(self, x: Array, train: bool) -> tuple[Array, Array]:
        """f32[B, H, W, C] -> f32[B, latent], f32[B, latent]."""
        x = jnp.pad(x, self.border)
        for layer, norm in zip(self.encoder, self.encoder_norms, strict=True):
            x = nn.relu(norm(layer(x), train))
        return self.posterior(x)

    def __call__(self, x: Array, noise: Array) -> tuple[Array, Array, Array]:
        """Return reconstruction, mean, log variance, with the statistics of the batch."""
        mean, log_variance = self.encode(x, train=True)
        y = self.unfold(_draw(mean, log_variance, noise)).reshape(x.shape[0], *self.grid, -1)
        for layer, norm in zip(self.up[:-1], self.up_norms, strict=True):
            y = nn.relu(norm(layer(y), True))
        return self.up[-1](y)[:, : self.shape[0], : self.shape[1]], mean, log_variance


class Discriminator(nn.Module):
    """Linear layers and ReLUs, and one number at the end."""

    widths: Sequence[int]

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """f32[B, latent] -> f32[B]."""
        for width in self.widths:
            z = nn.relu(Linear(width)(z))
        return Linear(1)(z)[:, 0]


def _draw(mean: Array, log_variance: Array, noise: Array) -> Array:
    """From the posterior, so that gradients reach its parameters (the trick of Kingma and Welling)."""
    return mean + jnp.exp(log_variance / 2) * noise


def _kaiming(params: Tree) -> Tree:
    """Convolutions and linear layers as the authors draw them: N(0, 2 / fan_in), biases 0 (He et al. 2015).

    From draws U(-1/sqrt(fan_in), 1/sqrt(fan_in)), which the posterior and the transposed convolutions keep, as there.
    """
    flat = flatten_dict(params)

    def change(path: tuple[str, ...], leaf: Array) -> Array:
        layer, what = path[-2:]
        if "posterior" in path or layer.startswith("up_") or (*path[:-1], "kernel") not in flat:
            return leaf
        if what == "bias":
            return jnp.zeros_like(leaf)
        root = math.sqrt(math.prod(leaf.shape[:-1]))
        below_one = 1 - 2**-24  # in float32 the largest such number: no draw is infinite
        return jax.lax.erf_inv(jnp.clip(leaf * root, -below_one, below_one)) * (2 / root)

    return unflatten_dict({path: change(path, leaf) for path, leaf in flat.items()})


def vae(image_shape: tuple[int, int, int], latent: int | None = None, widths: Sequence[int] | None = None) -> Vae:
    """The auto-encoder for images [H, W, C]: convolutional for colour of 16x16 or more, linear layers for the rest.

    Convolutional: Sinha et al. (2019), widths 128-256-512-1024 and 32 latent numbers. Linear: 512-256 and 2, as the
    published code has it for MNIST, but for the sigmoid at its end, which no normalised image fits in; images of fewer
    pixels get layers at most twice as wide as they have pixels, but at least 32.
    """
    height, width, channels = image_shape
    convolves = channels > 1 and min(height, width) >= 16
    most = max(2 * math.prod(image_shape), 32)
    widths = tuple(widths or ((128, 256, 512, 1024) if convolves else (min(512, most), min(256, most))))
    latent = latent or (32 if convolves else 2)
    module: Any = (ConvVae if convolves else LinearVae)(image_shape, widths, latent)

    def init(key: Array) -> Tree:
        variables = initialise(module, key, jnp.zeros((1, *image_shape)), jnp.zeros((1, latent)))
        return {**variables, "params": _kaiming(variables["params"])}

    def encode(variables: Tree, x: Array) -> tuple[Array, Array]:
        posterior: Any = module.apply(variables, x, train=False, method="encode")
        return posterior

    def train(variables: Tree, x: Array, noise: Array) -> tuple[Array, Array, Array, Tree]:
        output, changed = module.apply(variables, x, noise, mutable=["batch_stats"])
        return *output, changed.get("batch_stats", {})

    return Vae(init, encode, train, latent, convolves)


def critic(latent: int, widths: Sequence[int]) -> Critic:
    """The discriminator of latent codes, with hidden layers of these widths."""
    module = Discriminator(widths)

    def init(key: Array) -> Tree:
        return _kaiming(initialise(module, key, jnp.zeros((1, latent)))["params"])

    def apply(params: Tree, z: Array) -> Array:
        logits: Any = module.apply({"params": params}, z)
        return logits

    return Critic(init, apply)
