"""A dense convolution that stays dense under `jax.vmap`.

XLA turns a vmap over per-run weights into a grouped convolution, which accelerators run slower than one run after
another. Here the batching rule merges the runs into the channels instead and convolves once with a block-diagonal
kernel, so that models are written for one run and packed by `jax.vmap` alone. The work grows with the square of the
pack: a handful of runs pays, a hundred does not (nor do per-example weight gradients). Reverse mode only.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

Array = jax.Array
Padding = int | str


class _Geometry(NamedTuple):
    """Everything static about a convolution; hashable, so that each geometry builds its functions once."""

    image: tuple[int, int]
    kernel: tuple[int, int]
    stride: int
    padding: tuple[tuple[int, int], ...]
    tamed: bool = False  # what it is given, and the gradients that it sends back


def conv2d(x: Array, w: Array, stride: int = 1, padding: Padding = "SAME", *, tamed: bool = False) -> Array:
    """x: [B, H, W, C], w: [kh, kw, C, O] -> [B, H', W', O]; an int pads every border by as much, as torch does.

    tamed: x is what `tame` returns, or finite for other reasons. Then a pack keeps no second copy of x, nor of the
    gradient, which is tamed for the weights as well, of a single run too. So neither gradient shows what was not
    finite in it: what the convolution is followed by has to (`layers.BatchNorm` does).
    """
    image, kernel = (x.shape[1], x.shape[2]), (w.shape[0], w.shape[1])
    if isinstance(padding, str):
        pairs = tuple((low, high) for low, high in jax.lax.padtype_to_pads(image, kernel, (stride, stride), padding))
    else:
        pairs = ((padding, padding), (padding, padding))
    return _conv2d(x, w, _Geometry(image, kernel, stride, pairs, tamed))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv2d(x: Array, w: Array, geometry: _Geometry) -> Array:
    return _forward(geometry)(x, w)


def _conv2d_fwd(x: Array, w: Array, geometry: _Geometry) -> tuple[Array, tuple[Array, Array]]:
    return _forward(geometry)(x, w), (x, w)


def _conv2d_bwd(geometry: _Geometry, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, w = saved
    dy = tame(dy) if geometry.tamed else dy
    return _input_gradient(geometry)(dy, w), _weight_gradient(geometry)(x, dy)


_conv2d.defvjp(_conv2d_fwd, _conv2d_bwd)


def conv_transpose2d(x: Array, w: Array, stride: int = 1, padding: int = 0) -> Array:
    """The transpose of `conv2d(., w)`, torch's ConvTranspose2d: x: [B, H, W, O], w: [kh, kw, C, O] -> [B, H', W', C].

    H' = (H - 1) stride - 2 padding + kh: the smallest image that the convolution makes an image of H rows from.
    """
    sides = zip(x.shape[1:3], w.shape[:2], strict=True)
    height, width = ((side - 1) * stride - 2 * padding + kernel for side, kernel in sides)
    pairs = ((padding, padding), (padding, padding))
    return _transposed(x, w, _Geometry((height, width), (w.shape[0], w.shape[1]), stride, pairs))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _transposed(x: Array, w: Array, geometry: _Geometry) -> Array:
    return _input_gradient(geometry)(x, w)


def _transposed_fwd(x: Array, w: Array, geometry: _Geometry) -> tuple[Array, tuple[Array, Array]]:
    return _input_gradient(geometry)(x, w), (x, w)


def _transposed_bwd(geometry: _Geometry, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, w = saved
    return _forward(geometry)(dy, w), _weight_gradient(geometry)(dy, x)


_transposed.defvjp(_transposed_fwd, _transposed_bwd)


def _dense(x: Array, w: Array, geometry: _Geometry) -> Array:
    strides = (geometry.stride, geometry.stride)
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, w, strides, geometry.padding, dimension_numbers=layout)


# Each factory below makes one function of two arrays and its batching rule. A rule calls the function itself, not the
# bare convolution, on the merged arrays: that is all that nested vmaps need.


@functools.cache
def _forward(geometry: _Geometry) -> Callable[[Array, Array], Array]:
    """(x, w) -> y."""

    @custom_vmap
    def forward(x: Array, w: Array) -> Array:
        return _dense(x, w, geometry)

    def pack(runs: int, batched: tuple[bool, bool], x: Array, w: Array) -> Array:
        if all(batched):
            return _split(forward(_merge(x if geometry.tamed else tame(x), -1), _block_diagonal(w)), -1, runs)
        if batched[0]:
            return _split(forward(_merge(x, 0), w), 0, runs)
        return _split(forward(x, _merge(w, -1)), -1, runs)

    forward.def_vmap(_rule(forward, pack))
    return forward


@functools.cache
def _input_gradient(geometry: _Geometry) -> Callable[[Array, Array], Array]:
    """(dy, w) -> dx."""

    @custom_vmap
    def input_gradient(dy: Array, w: Array) -> Array:
        x = jax.ShapeDtypeStruct((dy.shape[0], *geometry.image, w.shape[2]), dy.dtype)
        (dx,) = jax.linear_transpose(lambda x: _dense(x, w, geometry), x)(dy)
        return dx

    def pack(runs: int, batched: tuple[bool, bool], dy: Array, w: Array) -> Array:
        if all(batched):
            dy = dy if geometry.tamed else tame(dy)
            return _split(input_gradient(_merge(dy, -1), _block_diagonal(w)), -1, runs)
        if batched[0]:
            return _split(input_gradient(_merge(dy, 0), w), 0, runs)
        return _split(input_gradient(dy, _merge(w, -2)), -1, runs)

    input_gradient.def_vmap(_rule(input_gradient, pack))
    return input_gradient


@functools.cache
def _weight_gradient(geometry: _Geometry) -> Callable[[Array, Array], Array]:
    """(x, dy) -> dw."""

    def whole(x: Array, dy: Array) -> Array:
        w = jax.ShapeDtypeStruct((*geometry.kernel, x.shape[-1], dy.shape[-1]), x.dtype)
        (dw,) = jax.linear_transpose(lambda w: _dense(x, w, geometry), w)(dy)
        return dw

    def in_pieces(x: Array, dy: Array) -> Array:
        """The same for a CPU, whose caches a sum over many large maps overflows: some images at a time."""
        size = 8 * -(-len(x) // 128)  # of a vector of floats, images being the last axis here; few, for the compiler
        if dy.shape[1] * dy.shape[2] < 256 or len(x) % size:
            return whole(x, dy)
        # Every so many-th image: where devices have shares of a batch, each has its share of every piece.
        x, dy = (each.reshape(size, -1, *each.shape[1:]) for each in (x, dy))
        pieces = [whole(x[:, piece], dy[:, piece]).astype(jnp.float32) for piece in range(x.shape[1])]
        return functools.reduce(jnp.add, pieces).astype(x.dtype)

    @custom_vmap
    def weight_gradient(x: Array, dy: Array) -> Array:
        dw: Array = jax.lax.platform_dependent(x, dy, cpu=in_pieces, default=whole)
        return dw

    def pack(runs: int, batched: tuple[bool, bool], x: Array, dy: Array) -> Array:
        # Element (c, o) sees channel c of x and channel o of dy only: a diverged run cannot reach its neighbours
        # here, so nothing is tamed, and its own weights turn NaN as they would alone, unless x and dy were tame before.
        if all(batched):
            pairs = _split(_split(weight_gradient(_merge(x, -1), _merge(dy, -1)), -1, runs), -2, runs)
            return jnp.moveaxis(jnp.diagonal(pairs), -1, 0)
        if batched[0]:
            return _split(weight_gradient(_merge(x, -1), dy), -2, runs)
        return _split(weight_gradient(x, _merge(dy, -1)), -1, runs)

    weight_gradient.def_vmap(_rule(weight_gradient, pack))
    return weight_gradient


def _rule(function: Callable[[Array, Array], Array], pack: Callable[..., Array]) -> Callable[..., tuple[Array, bool]]:
    """A batching rule from `pack`, which need not know the trivial cases: nothing batched, or a single run."""

    def rule(runs: int, batched: list[bool], a: Array, b: Array) -> tuple[Array, bool]:
        if not any(batched):
            return function(a, b), False
        if runs == 1:
            return function(a[0] if batched[0] else a, b[0] if batched[1] else b)[None], True
        return pack(runs, tuple(batched), a, b), True

    return rule


def _merge(a: Array, axis: int) -> Array:
    """Merge the leading axis of runs into `axis` of one run's array: [R, ..., n, ...] -> [..., R * n, ...]."""
    one = list(a.shape[1:])
    one[axis] *= a.shape[0]
    return jnp.moveaxis(a, 0, axis % len(one)).reshape(one)


def _split(a: Array, axis: int, runs: int) -> Array:
    """The inverse of `_merge`: [..., R * n, ...] -> [R, ..., n, ...]."""
    axis %= a.ndim
    return jnp.moveaxis(a.reshape(*a.shape[:axis], runs, -1, *a.shape[axis + 1 :]), axis, 0)


def _block_diagonal(w: Array) -> Array:
    """[R, kh, kw, C, O] -> [kh, kw, R * C, R * O]; chosen, not multiplied: 0 x NaN is NaN."""
    own = jnp.eye(w.shape[0], dtype=bool)[:, None, None, None, :, None]
    blocks = jnp.where(own, w[:, :, :, :, None, :], jnp.zeros((), w.dtype))  # [R, kh, kw, C, R, O]
    return _merge(blocks.reshape(*w.shape[:4], -1), 2)


@jax.custom_jvp
def tame(a: Array) -> Array:
    """Zero what would leak into the other runs through a zero of the block-diagonal kernel: 0 x NaN, 0 x inf.

    Gradients pass as if it were not there. The margin below the largest number is for convolution algorithms that add
    neighbours before they multiply.
    """
    return jnp.where(is_tame(a), a, jnp.zeros((), a.dtype))


def is_tame(a: Array) -> Array:
    """Whether a number may go into a packed convolution: f[...] -> bool[...]."""
    return jnp.abs(a) < float(jnp.finfo(a.dtype).max) / 1024


tame.defjvp(lambda primals, tangents: (tame(*primals), tangents[0]))
