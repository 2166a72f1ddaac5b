"""What is worth knowing about each pool example, and one pass over the pool that computes it.

Signals are computed on clean images in evaluation mode. All signals of a pass share one forward computation: each asks
the network for what it wants, and the compiler merges what they ask twice.
"""

import zlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxdal import streaming
from jaxdal.cost import wait
from jaxdal.keys import Keys
from jaxdal.parallel import Lanes
from jaxdal.streaming import HostPool
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

    def __init__(
        self, lanes: Lanes, network: Network, needs: tuple[Signal, ...], pool: Pool | HostPool, batch: int
    ) -> None:
        """batch: most images per forward pass; it changes no result."""
        size = pool.x.shape[0]
        self._batch = batch = lanes.chunk(size, batch)
        self._needs, self._streams = needs, isinstance(pool, HostPool)
        self._chunks = -(-size // batch)

        def keys_of(keys: Keys) -> list[Array]:
            return [jax.random.fold_in(keys.signals, zlib.crc32(signal.name.encode())) for signal in needs]

        def prepare(keys: Keys, variables: Tree, known: Array, pool: Pool | None) -> tuple[Tree, ...]:
            return tuple(
                () if signal.prepare is None else signal.prepare(key, network, variables, pool, known)
                for signal, key in zip(needs, keys_of(keys), strict=True)
            )

        def of_rows(
            rows: Tree, keys: Keys, variables: Tree, aux: tuple[Tree, ...], pool: Pool | None = None
        ) -> tuple[Array, ...]:
            row, x = rows if pool is None else (rows, pool.x[rows])
            result = []
            for signal, key, prepared in zip(needs, keys_of(keys), aux, strict=True):
                row_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, row)
                result.append(signal.per_batch(row_keys, network, variables, prepared, x))
            return tuple(result)

        def values(
            keys: Keys, variables: Tree, aux: tuple[Tree, ...], source: Pool | Array, chunk: Array
        ) -> tuple[Array, ...]:
            row = jnp.minimum(chunk * batch + jnp.arange(batch, dtype=jnp.int32), size - 1)
            of_chunk = lanes.over_rows(of_rows)
            if isinstance(source, Pool):
                return of_chunk(row, keys, variables, aux, source)
            return of_chunk((row, source), keys, variables, aux)

        def empty(keys: Keys, variables: Tree, aux: tuple[Tree, ...], source: Pool | Array) -> tuple[Array, ...]:
            shapes = jax.eval_shape(values, keys, variables, aux, source, jnp.int32(0))
            # So many chunks that `join` can exchange equal parts of them: otherwise, each device would get all of them.
            few = self._chunks < lanes.shares
            chunks = self._chunks if few else -(-self._chunks // lanes.shares) * lanes.shares
            blank = (jnp.zeros((chunks, *shape.shape), shape.dtype) for shape in shapes)
            return tuple(lanes.split(leaf, axis=1) for leaf in blank)

        def fill(
            out: tuple[Array, ...], keys: Keys, variables: Tree, aux: tuple[Tree, ...], source: Pool | Array,
            chunk: Array,
        ) -> tuple[Array, ...]:  # fmt: skip
            found = values(keys, variables, aux, source, chunk)
            filled = (whole.at[chunk].set(part) for whole, part in zip(out, found, strict=True))
            return tuple(lanes.split(leaf, axis=1) for leaf in filled)

        def join(out: tuple[Array, ...]) -> tuple[Array, ...]:
            return tuple(lanes.split(whole.reshape(-1, *whole.shape[2:])[: lanes.chunk(size, size)]) for whole in out)

        self._prepare = lanes.lift(prepare, "rrrs")
        self._empty = lanes.lift(empty, "rrrs", rows=True)
        self._fill = lanes.lift(fill, "rrrrss", donate=(0,), rows=True)
        self._join = lanes.lift(join, "r", rows=True)

    def __call__(self, keys: Keys, variables: Tree, known: Array, pool: Pool | HostPool) -> tuple[Array, ...]:
        """Compute the signals of every run. known: i32[R, N] -> one array [R, N, ...] per signal.

        A pool that is split over devices which do not divide it has a few rows more, without a meaning: what leaves a
        compiled program is split into equal shares or not at all.
        """
        if not self._needs:
            return ()
        aux = self._prepare(keys, variables, known, None if self._streams else pool)
        out: tuple[Array, ...] = ()
        for chunk, source in enumerate(streaming.chunks(pool, self._batch)):
            out = out or self._empty(keys, variables, aux, source)
            out = self._fill(out, keys, variables, aux, source, np.int32(chunk))
            if self._streams:
                wait(out)
        return self._join(out)
