"""What the checks of portability share: a pool, deviations, tolerances, and where the references are."""

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.selecting import Pool
from jaxdal import strategies
from jaxdal.types import Network

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))  # `import reference...`

SIZE, WIDTH, CLASSES, PICKS = 150, 9, 4, 12
F32 = 1e-4  # of kernels, which are in full float32 everywhere
TF32, BF16 = 2e-3, 0.03  # of networks, by precision
DTYPES = {"f32": jnp.float32, "bf16": jnp.bfloat16}
Check = tuple[str, str, float, float]  # what, precision, error, tolerance


def off(found: Any, expected: Any) -> float:
    """Largest deviation, relative to the largest value; not finite if a number is not."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))


def other(found: Any, expected: Any) -> float:
    """Share of the entries that are not the same."""
    return float(np.mean(np.asarray(found) != np.asarray(expected)))


def some_pool() -> Pool:
    """Answers of a network about a small pool, a fifth of it labelled."""
    rng = np.random.default_rng(0)
    known = np.where(rng.random(SIZE) < 0.2, rng.integers(0, CLASSES, SIZE), -1).astype(np.int32)
    logits = (2 * rng.standard_normal((SIZE, CLASSES))).astype(np.float32)
    return Pool(known, logits, np.maximum(rng.standard_normal((SIZE, WIDTH)) + 0.5, 0).astype(np.float32))


def picks(name: str, pool: Pool, *signals: np.ndarray) -> np.ndarray:
    """What a strategy without a memory buys."""
    select = jax.jit(strategies.build(name).select, static_argnums=2)
    return np.asarray(select(jax.random.key(0), pool.known, PICKS, (), *signals)[0])


def linear_network(kernel: np.ndarray, bias: np.ndarray) -> Network:
    """A network that is one matrix product of the pixels."""

    def pixels(x: jax.Array) -> jax.Array:
        return x.astype(jnp.float32) / 64 - 2

    def apply(variables: Any, x: jax.Array, **_: Any) -> tuple[jax.Array, dict[str, Any]]:
        return jnp.matmul(x.reshape(len(x), -1), kernel, precision="highest") + bias, {}

    return Network(lambda key: {}, apply, lambda key, x: pixels(x), pixels)
