"""Which form of a packed convolution is fastest: microseconds of each, for the layers of the thin ResNet-18.

    python -m benchmarks.convolution_forms --batch=8 --runs=2 --repeats=3                      # a CPU, in small
    python -m benchmarks.convolution_forms --batch=256 --runs=4 --precision=bf16 --repeats=5   # one GPU, 150 s

`block-diagonal` is the product's (models/convolution.py): R runs of C channels become one convolution of R C channels,
with R times the arithmetic. `in pairs` are such of two runs each, `one by one` R convolutions, `grouped` what a plain
vmap makes of them, `patches x matrix` a batched matrix product of 9 shifted copies. `2x2 pixels as channels` is one run
at a time on maps of half the side and four times the channels, with four times the arithmetic: a kernel of 3x3 becomes
one of 3x3 again, three quarters of it zeros. Every form gets its operands as it likes them: in a network, a change of
layout may hide in what comes before. All are checked against `one by one`.

`us` is for all runs together: the time of a program with COPIES of the same convolution, of different operands, by COPIES.
"""  # noqa: E501

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import Report, Row, environment, measure, rounded
from jaxdal.cost import wait
from jaxdal.models import DTYPES

Array = jax.Array
SIDES = {16: 32, 32: 16, 64: 8, 128: 4}  # channels of a stage -> of its maps
COPIES = 8
NEAR = 2e-2  # of the largest number: bf16, and f32 as GPUs multiply it; a wrong form is off by about all of it
LAYOUT = ("NHWC", "HWIO", "NHWC")


class Form(NamedTuple):
    """A way to convolve the maps of R runs, x: [R, B, H, W, C], by their own kernels, w: [R, 3, 3, C, C]."""

    images: Callable[[Array], Array]  # x -> [parts, ...]; maps that come out are laid out in the same way
    kernel: Callable[[Array], Array]  # w -> [parts, ...]
    convolve: Callable[[Array, Array], Array]  # of one part
    back: Callable[[Array], Array]  # as images, undone
    back_kernel: Callable[[Array], Array]  # a gradient of the kernel as this form has it -> that of w


def dense(x: Array, w: Array, groups: int = 1) -> Array:
    """A 3x3 convolution of stride 1."""
    return jax.lax.conv_general_dilated(
        x, w, (1, 1), ((1, 1), (1, 1)), dimension_numbers=LAYOUT, feature_group_count=groups
    )


def side_by_side(x: Array, of: int) -> Array:
    """[R, B, H, W, C] -> [R / of, B, H, W, of C]."""
    runs, batch, height, width, channels = x.shape
    beside = jnp.moveaxis(x.reshape(runs // of, of, batch, height, width, channels), 1, 4)
    return beside.reshape(runs // of, batch, height, width, of * channels)


def apart(x: Array, of: int) -> Array:
    """The inverse of `side_by_side`."""
    parts, batch, height, width, channels = x.shape
    one_by_one = jnp.moveaxis(x.reshape(parts, batch, height, width, of, -1), 4, 1)
    return one_by_one.reshape(parts * of, batch, height, width, channels // of)


def block_diagonal(runs: int, of: int) -> Form:
    """Convolutions of `of` runs each."""
    own = np.eye(of, dtype=bool)[:, None, :, None]

    def kernel(w: Array) -> Array:
        blocks = w.reshape(runs // of, of, 3, 3, *w.shape[3:]).transpose(0, 2, 3, 1, 4, 5)  # [R / of, 3, 3, of, C, C]
        full = jnp.where(own, blocks[..., None, :], jnp.zeros((), w.dtype))
        return full.reshape(runs // of, 3, 3, of * w.shape[3], of * w.shape[4])

    def back_kernel(w: Array) -> Array:
        inputs, outputs = w.shape[3] // of, w.shape[4] // of
        blocks = w.reshape(runs // of, 3, 3, of, inputs, of, outputs)
        own_blocks = jnp.moveaxis(jnp.diagonal(blocks, axis1=3, axis2=5), -1, 1)
        return own_blocks.reshape(runs, 3, 3, inputs, outputs)

    return Form(partial(side_by_side, of=of), kernel, dense, partial(apart, of=of), back_kernel)


def grouped(runs: int) -> Form:
    """R groups of channels."""
    return Form(
        partial(side_by_side, of=runs), lambda w: jnp.concatenate(list(w), -1)[None],
        partial(dense, groups=runs), partial(apart, of=runs),
        lambda w: jnp.stack(jnp.split(w[0], runs, -1)),
    )  # fmt: skip


def patches() -> Form:
    """A batched matrix product."""

    def convolve(x: Array, w: Array) -> Array:
        side = x.shape[2]
        padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
        shifted = [padded[:, :, i : i + side, j : j + side] for i in range(3) for j in range(3)]
        found = jnp.einsum(
            "rbhwk,rko->rbhwo", jnp.concatenate(shifted, -1), w.reshape(len(w), -1, w.shape[-1]),
            preferred_element_type=jnp.float32,
        )  # fmt: skip
        return found.astype(x.dtype)

    return Form(lambda x: x[None], lambda w: w[None], convolve, lambda x: x[0], lambda w: w[0])


def folded() -> Form:
    """2x2 pixels as channels, one run after another."""

    def fold(x: Array) -> Array:
        runs, batch, side, _, channels = x.shape
        pixels = x.reshape(runs, batch, side // 2, 2, side // 2, 2, channels).transpose(0, 1, 2, 4, 3, 5, 6)
        return pixels.reshape(runs, batch, side // 2, side // 2, 4 * channels)

    def unfold(x: Array) -> Array:
        runs, batch, half, _, channels = x.shape
        pixels = x.reshape(runs, batch, half, half, 2, 2, channels // 4).transpose(0, 1, 2, 4, 3, 5, 6)
        return pixels.reshape(runs, batch, 2 * half, 2 * half, channels // 4)

    def kernel(w: Array) -> Array:
        """From pixel p of block a to pixel q of the middle one: the step 2 (a - 1) + p - q, where it is -1, 0 or 1."""
        steps = np.zeros((3, 2, 2, 3), np.float32)
        for block, p, q in np.ndindex(3, 2, 2):
            step = 2 * (block - 1) + p - q
            if abs(step) <= 1:
                steps[block, p, q, step + 1] = 1
        place = jnp.asarray(steps, w.dtype)
        spread = jnp.einsum("aprs,bqtu,xsuio->xabpqirto", place, place, w)
        runs, inputs, outputs = len(w), w.shape[3], w.shape[4]
        return spread.reshape(runs, 3, 3, 4 * inputs, 4 * outputs)

    def back_kernel(w: Array) -> Array:
        own = jax.ShapeDtypeStruct((len(w), 3, 3, w.shape[3] // 4, w.shape[4] // 4), w.dtype)
        (gradient,) = jax.linear_transpose(kernel, own)(w)
        return gradient

    return Form(fold, kernel, dense, unfold, back_kernel)


def same(x: Array) -> Array:
    """As it is."""
    return x


def forms(runs: int) -> dict[str, Form]:
    """All that `runs` allow; the one that all are checked against comes first."""
    found = {
        "one by one": Form(same, same, dense, same, same), "patches x matrix": patches(),
        "2x2 pixels as channels": folded(),
    }  # fmt: skip
    if runs > 1:
        found |= {"block-diagonal": block_diagonal(runs, runs), "grouped": grouped(runs)}
    if runs > 2 and runs % 2 == 0:
        found["in pairs"] = block_diagonal(runs, 2)
    return found


def passes(form: Form) -> dict[str, Callable[[Array, Array, Array], Array]]:
    """(x, w, dy) as the form likes them -> what each of the three convolutions of training makes of them."""

    def to_images(x: Array, w: Array, dy: Array) -> Array:
        (dx,) = jax.linear_transpose(lambda x: form.convolve(x, w), x)(dy)
        return dx

    def to_kernel(x: Array, w: Array, dy: Array) -> Array:
        (dw,) = jax.linear_transpose(lambda w: form.convolve(x, w), w)(dy)
        return dw

    return {"forward": lambda x, w, dy: form.convolve(x, w), "to images": to_images, "to kernels": to_kernel}


def contest(options: argparse.Namespace, channels: int, side: int) -> list[Row]:
    """Measure all forms of a layer: -> a row for each, with a column for each pass."""
    dtype = DTYPES[options.precision]
    keys = jax.random.split(jax.random.key(0), 3)
    maps = (COPIES, options.runs, options.batch, side, side, channels)
    x, dy = (jax.random.normal(key, maps, dtype) for key in keys[:2])
    w = jax.random.normal(keys[2], (COPIES, options.runs, 3, 3, channels, channels), dtype) / (3 * channels**0.5)
    truth: dict[str, np.ndarray] = {}
    rows: list[Row] = []
    for name, form in forms(options.runs).items():
        ways = zip((form.images, form.kernel, form.images), (x, w, dy), strict=True)
        laid = [jax.jit(jax.vmap(make))(operand) for make, operand in ways]
        given = [[part for copy in operand for part in copy] for operand in laid]  # each part an array of its own
        parts = len(given[0]) // COPIES
        row: Row = {"form": name, "channels": channels, "side": side}
        for told, one_pass in passes(form).items():

            def program(
                x: list[Array], w: list[Array], dy: list[Array], one_pass: Callable[..., Array] = one_pass
            ) -> list[Array]:
                return [one_pass(*operands) for operands in zip(x, w, dy, strict=True)]

            compiled = jax.jit(program).lower(*given).compile()
            back = form.back_kernel if told == "to kernels" else form.back
            found = np.asarray(back(jnp.stack(wait(compiled(*given))[:parts])), np.float32)
            scale = np.abs(truth.setdefault(told, found)).max()
            off = np.abs(found - truth[told]).max() / scale
            if not off < NEAR:
                raise AssertionError(f"{name}, {told}: off by {off:.1e} of the largest")
            (timing,) = measure([lambda: wait(compiled(*given))], options.repeats)  # noqa: B023
            row[f"us {told}"] = rounded(1e6 * timing.median / COPIES)
        row["us"] = rounded(sum(row[f"us {told}"] for told in truth))
        rows.append(row)
    return rows


def main(argv: Sequence[str]) -> Report:
    """Measure, print and save."""
    own = argparse.ArgumentParser(
        prog="python -m benchmarks.convolution_forms", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    own.add_argument("--channels", type=lambda text: [int(one) for one in text.split(",")], default=list(SIDES))
    own.add_argument("--batch", type=int, default=64)
    own.add_argument("--runs", type=int, default=4)
    own.add_argument("--precision", choices=DTYPES, default="f32")
    own.add_argument("--repeats", type=int, default=5)
    own.add_argument("--out", help="folder for the tables")
    options = own.parse_args(argv)
    report = Report("convolution_forms", environment(argv, "benchmarks.convolution_forms"))
    for channels in options.channels:
        what = f"{channels} channels, {SIDES[channels]}x{SIDES[channels]}, batch {options.batch}, {options.runs} runs"
        report.table(f"{what}, {options.precision}", contest(options, channels, SIDES[channels]))
        if options.out:
            report.save(options.out)
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
