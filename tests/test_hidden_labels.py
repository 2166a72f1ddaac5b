"""Whole first rounds: nothing that a strategy is given depends on a label that nobody has bought."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdal
from jaxdal import strategies
from jaxdal.strategies import STRATEGIES, top_unknown
from jaxdal.types import Strategy

K = 7
BUILT = {name: strategies.build(name) for name in STRATEGIES}
TRAINED_ALIKE = [
    [name for name, strategy in BUILT.items() if (strategy.trainer, strategy.wrap) == way]
    for way in dict.fromkeys((strategy.trainer, strategy.wrap) for strategy in BUILT.values())
]

WIDTHS = {"features": (48,), "likeness": (3,), "logits": (4,), "probs": (4,)}  # numbers of a signal, if not one


def side_by_side(names: list[str]) -> Strategy:
    """Remember all that the `select` of each of these would be given, and see that it takes it.

    A `select` is a function of what it is given: where that is the same, so are the picks. Compiling each of them
    would cost as much as all the rest.
    """
    members = [BUILT[name] for name in names]
    needs = tuple({signal.name: signal for member in members for signal in member.needs}.values())

    def select(key, known, k, memory, *found):
        values = {signal.name: value for signal, value in zip(needs, found, strict=True)}
        for member in members:
            own = [values[signal.name] for signal in member.needs]
            picks, _ = jax.eval_shape(
                lambda *given, member=member: member.select(*given[:2], k, member.memory(known.shape[0]), *given[2:]),
                key, known, *own,
            )  # fmt: skip
            assert (picks.shape, picks.dtype) == ((k,), jnp.int32)
        everything = {"key": jax.random.key_data(key), "known": known, **values}
        return top_unknown(jnp.zeros(known.shape), known, k), everything

    def memory(n: int) -> dict[str, np.ndarray]:
        found = {signal.name: np.zeros((n, *WIDTHS.get(signal.name, ())), np.float32) for signal in needs}
        return {"key": np.zeros(2, np.uint32), "known": np.zeros(n, np.int32), **found}

    return Strategy(needs, select, memory, members[0].wrap, members[0].trainer)


def first_round(dataset: jaxdal.Dataset, names: list[str], folder: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """A whole first round (start set, training, signals): -> (its journal line, what strategies are given)."""
    result = jaxdal.run(
        dataset, side_by_side(names), workdir=folder, quiet=True, devices=jax.devices()[:1],
        model="tiny", n_start=12, n_query=K, n_end=12 + K, epochs=3, batch=4,
    )  # fmt: skip
    with np.load(folder / "memory_0.npz") as memory:  # of the only seed
        return result.groups[0][0], dict(memory)


@pytest.mark.parametrize("names", TRAINED_ALIKE, ids="-".join)
def test_hidden_labels_are_hidden(names, blobs, tmp_path):
    before, given_before = first_round(blobs, names, tmp_path / "before")
    hidden = np.setdiff1d(np.arange(len(blobs.train_y)), before["initial"])
    labels = blobs.train_y.copy()
    labels[hidden] = (labels[hidden] + 1 + hidden % 3) % 4
    after, given_after = first_round(blobs._replace(train_y=labels), names, tmp_path / "after")
    signals = {signal.name for name in names for signal in BUILT[name].needs}
    assert len(given_before) == 2 + len(signals)
    for name, leaf in given_before.items():
        np.testing.assert_array_equal(given_after[name], leaf, err_msg=name)
    for what in ("initial", "picks", "accuracy", "class_counts"):
        assert after[what] == before[what], what
