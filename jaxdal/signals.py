"""What is worth knowing about each pool example, and one pass over the pool that computes it.

Signals are computed on clean images in evaluation mode. All signals of a pass share one forward computation: each asks
the network for what it wants, and the compiler merges what they ask twice.
"""

import zlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxdal.keys import Keys
from jaxdal.parallel import Lanes
from jaxdal.types import Array, Network, Pool, Signal, Tree


def _probs(keys: Array, network: Network, variables: Tree, aux: Tree, x: Array) -> Array:
    del keys, aux
    logits, _ = network.apply(variables, network.normalise(x))
    return jax.nn.softmax(logits)


def _logits(keys: Array, network: Network, variables: Tree, aux: Tree, x: Array) -> Array:
    del keys, aux
    logits, _ = network.apply(variables, network.normalise(x))
    return logits


def _features(keys: Array, network: Network, variables: Tree, aux: Tree, x: Array) -> Array:
    del keys, aux
    _, taps = network.apply(variables, network.normalise(x))
    return taps["features"]


probs = Signal("probs", _probs)  # f32[N, K], softmax
logits = Signal("logits", _logits)  # f32[N, K]
features = Signal("features", _features)  # f32[N, d], input of the last linear layer


class Gather:
    """The compiled pass over the pool for some signals: made once, used in every round."""

    def __init__(self, lanes: Lanes, network: Network, needs: tuple[Signal, ...], pool: Pool, batch: int) -> None:
        """batch: most images per forward pass; it changes no result."""
        size = pool.x.shape[0]
        batch = lanes.chunk(size, batch)
        self._needs = needs
        self._chunks = -(-size // batch)

        def keys_of(keys: Keys) -> list[Array]:
            return [jax.random.fold_in(keys.signals, zlib.crc32(signal.name.encode())) for signal in needs]

        def prepare(keys: Keys, variables: Tree, known: Array, pool: Pool) -> tuple[Tree, ...]:
            return tuple(
                () if signal.prepare is None else signal.prepare(key, network, variables, pool, known)
                for signal, key in zip(needs, keys_of(keys), strict=True)
            )

        def of_rows(row: Array, keys: Keys, variables: Tree, aux: tuple[Tree, ...], pool: Pool) -> tuple[Array, ...]:
            x = pool.x[row]
            result = []
            for signal, key, prepared in zip(needs, keys_of(keys), aux, strict=True):
                row_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, row)
                result.append(signal.per_batch(row_keys, network, variables, prepared, x))
            return tuple(result)

        def values(keys: Keys, variables: Tree, aux: tuple[Tree, ...], pool: Pool, chunk: Array) -> tuple[Array, ...]:
            row = jnp.minimum(chunk * batch + jnp.arange(batch, dtype=jnp.int32), size - 1)
            return lanes.over_rows(of_rows)(row, keys, variables, aux, pool)

        def empty(keys: Keys, variables: Tree, aux: tuple[Tree, ...], pool: Pool) -> tuple[Array, ...]:
            shapes = jax.eval_shape(values, keys, variables, aux, pool, jnp.int32(0))
            blank = (jnp.zeros((self._chunks, *shape.shape), shape.dtype) for shape in shapes)
            return tuple(lanes.split(leaf, axis=1) for leaf in blank)

        def fill(
            out: tuple[Array, ...], keys: Keys, variables: Tree, aux: tuple[Tree, ...], pool: Pool, chunk: Array
        ) -> tuple[Array, ...]:
            found = values(keys, variables, aux, pool, chunk)
            filled = (whole.at[chunk].set(part) for whole, part in zip(out, found, strict=True))
            return tuple(lanes.split(leaf, axis=1) for leaf in filled)

        def join(out: tuple[Array, ...]) -> tuple[Array, ...]:
            return tuple(lanes.split(whole.reshape(-1, *whole.shape[2:])[:size]) for whole in out)

        self._prepare = lanes.lift(prepare, "rrrs")
        self._empty = lanes.lift(empty, "rrrs", rows=True)
        self._fill = lanes.lift(fill, "rrrrss", donate=(0,), rows=True)
        self._join = lanes.lift(join, "r", rows=True)

    def __call__(self, keys: Keys, variables: Tree, known: Array, pool: Pool) -> tuple[Array, ...]:
        """Compute the signals of every run. known: i32[R, N] -> one array [R, N, ...] per signal."""
        if not self._needs:
            return ()
        aux = self._prepare(keys, variables, known, pool)
        out = self._empty(keys, variables, aux, pool)
        for chunk in range(self._chunks):
            out = self._fill(out, keys, variables, aux, pool, np.int32(chunk))
        return self._join(out)
