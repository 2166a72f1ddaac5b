"""Weights on disk, with Orbax: inside a long round, and of finished rounds for whoever wants the trained networks.

The journal, not these files, says which rounds are complete.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdal import cost
from jaxdal.types import Tree


def save(path: Path, tree: Tree) -> None:
    """Write a tree of dicts of arrays so that it is there whole or not at all, replacing what was there."""
    import orbax.checkpoint as ocp  # here, because most commands write no weights

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), jax.tree.map(np.asarray, tree), force=True)


def load(path: Path) -> Tree:
    """Read what `save` wrote, as NumPy arrays."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        shapes = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), _metadata(checkpointer, path))
        return checkpointer.restore(path.absolute(), shapes)


def _metadata(checkpointer: Any, path: Path) -> Tree:
    return checkpointer.metadata(path.absolute()).item_metadata.tree


def weights_path(workdir: Path, seed: int, round_: int) -> Path:
    """Return where `--save_weights` keeps the network of a run: {"params": ..., "batch_stats": ...}."""
    return workdir / "weights" / f"seed_{seed}_round_{round_}"


class Interrupted(NamedTuple):
    """A pack in the middle of a round."""

    leaves: list[np.ndarray]  # of its TrainState, [runs, ...]
    done: int  # steps
    seconds: dict[str, float]  # charged so far
    best: np.ndarray  # f64[runs], best accuracy so far


class InsideRound:
    """Keeps the newest state of each pack of the running round, at most every `every` seconds."""

    def __init__(self, workdir: Path, every: float) -> None:
        self._folder, self._every, self._saved = workdir / "inside_round", every, cost.now()

    def restore(self, round_: int, seeds: Sequence[int]) -> Interrupted | None:
        """Return the state of the pack of these seeds in this round, if it was kept and is readable."""
        path = self._path(seeds)
        if not path.is_dir():
            return None
        tree = load(path)
        if int(tree["round"]) != round_ or tree["seeds"].tolist() != list(seeds):
            return None
        seconds = {stage: float(value) for stage, value in tree["seconds"].items()}
        leaves = [tree["leaves"][name] for name in sorted(tree["leaves"])]
        return Interrupted(leaves, int(tree["done"]), seconds, tree["best"])

    def offer(self, round_: int, seeds: Sequence[int], state: Tree, done: int, seconds: dict[str, float],
              best: np.ndarray) -> None:  # fmt: skip
        """Keep the state of a pack if the last one is old enough. done: steps."""
        if cost.now() - self._saved < self._every:
            return
        leaves = {f"{place:04}": np.asarray(leaf)[: len(seeds)] for place, leaf in enumerate(jax.tree.leaves(state))}
        tree = {
            "round": np.asarray(round_), "seeds": np.asarray(seeds), "done": np.asarray(done), "best": best,
            "seconds": {stage: np.asarray(value) for stage, value in seconds.items()}, "leaves": leaves,
        }  # fmt: skip
        save(self._path(seeds), tree)
        self._saved = cost.now()

    def clear(self) -> None:
        """Forget the round that has just been journalled."""
        if self._folder.exists():
            shutil.rmtree(self._folder)

    def _path(self, seeds: Sequence[int]) -> Path:
        return self._folder / f"pack_of_seed_{seeds[0]}"
