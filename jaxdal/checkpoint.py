"""Weights on disk, with Orbax: inside a long round, and of finished rounds for whoever wants the trained networks.

The journal, not these files, says which rounds are complete.
"""

import contextlib
import hashlib
import json
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from jaxdal import cost, hosts
from jaxdal.errors import InputError
from jaxdal.files import at_home
from jaxdal.parallel import fetch
from jaxdal.types import Tree


def save(path: Path, tree: Tree) -> None:
    """Write a tree of dicts of arrays, after deleting what was there; the folder gets its name when it is whole."""
    path.absolute().parent.mkdir(parents=True, exist_ok=True)  # if that fails, Orbax's threads would wait 5 minutes
    with _checkpointer() as checkpointer:
        checkpointer.save(path.absolute(), jax.tree.map(np.asarray, tree), force=True)


def load(path: str | Path) -> Tree:
    """Read what `save` wrote, as NumPy arrays.

    Raises:
        InputError: there is nothing, or a part is missing.
    """
    path = at_home(path)
    if not path.exists():
        raise InputError(f"{path} does not exist: a round that was trained without --save_weights keeps no network")
    try:
        with _checkpointer() as checkpointer:
            shapes = checkpointer.metadata(path.absolute()).item_metadata.tree
            shapes = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)
            return checkpointer.restore(path.absolute(), shapes)
    except Exception as error:  # whatever Orbax and TensorStore stumble over, be it None
        raise InputError(f"{path} is not a whole checkpoint") from error


def _checkpointer() -> Any:
    """Return Orbax's, which does not wait for other processes: only one has files."""
    import orbax.checkpoint as ocp  # here, because most commands write no weights

    if not hosts.together():
        return ocp.StandardCheckpointer()
    here = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process_{here}"
    )
    return ocp.StandardCheckpointer(multiprocessing_options=alone)


def weights_path(workdir: str | Path, seed: int, round_: int) -> Path:
    """Return where `--save_weights` keeps the network of a run: {"params": ..., "batch_stats": ...}."""
    return at_home(workdir) / "weights" / f"seed_{seed}_round_{round_}"


class Interrupted(NamedTuple):
    """A pack in the middle of a round."""

    leaves: list[np.ndarray]  # of its TrainState, [runs, ...]
    done: int  # steps
    seconds: dict[str, float]  # charged so far
    best: np.ndarray  # f64[runs], best accuracy so far


class InsideRound:
    """Keeps the newest state of each pack of the running round, at most every `every` seconds.

    Of several processes the first one has the files and the clock; all of them call the same methods.
    """

    def __init__(self, workdir: Path, every: float, config: dict[str, Any]) -> None:
        """config: of the journal; what a deleted journal of another one has left behind is not taken up."""
        self._folder, self._every, self._saved = workdir / "inside_round", every, cost.now()
        self._digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]

    def restore(self, round_: int, seeds: Sequence[int], state: Tree) -> Interrupted | None:
        """Return the newest readable state of the pack of these seeds in this round. state: a fresh one."""
        kept = hosts.arrays_from_first(lambda: self._newest(round_, seeds, state))
        if not kept:
            return None
        # As what they are, since files of NumPy have no name for bfloat16.
        leaves = [kept[f"leaves/{at:04}"].view(leaf.dtype) for at, leaf in enumerate(jax.tree.leaves(state))]
        start = "seconds/"
        seconds = {name.removeprefix(start): float(kept[name]) for name in kept if name.startswith(start)}
        return Interrupted(leaves, int(kept["done"]), seconds, kept["best"])

    def _newest(self, round_: int, seeds: Sequence[int], state: Tree) -> dict[str, np.ndarray]:
        """Return the arrays of a file under their names, those of folders with a slash; none if no file is readable."""
        shapes = [(leaf.shape[1:], leaf.dtype) for leaf in jax.tree.leaves(state)]
        for path in sorted(self._path(seeds).glob("step_" + "[0-9]" * 8), reverse=True):
            with contextlib.suppress(InputError):
                tree = load(path)
                leaves = [tree["leaves"][name] for name in sorted(tree["leaves"])]
                if int(tree["round"]) != round_ or tree["seeds"].tolist() != list(seeds):
                    continue
                if [(leaf.shape[1:], leaf.dtype) for leaf in leaves] != shapes:  # of another version of a library
                    continue
                return flatten_dict(tree, sep="/")
        return {}

    def offer(self, round_: int, seeds: Sequence[int], state: Tree, done: int, seconds: dict[str, float],
              best: np.ndarray, *, end: bool = False) -> str:  # fmt: skip
        """Keep the state of a pack if the last one is old enough: -> what kept it from that, "" if nothing did.

        done: steps. end: of its training; other packs, or a long selection, may follow, so that a tenth of the time is
        enough.
        """
        if hosts.from_first(lambda: cost.now() - self._saved < self._every / (10 if end else 1)):
            return ""
        tree = _as_tree(round_, seeds, state, done, seconds, best)
        if not hosts.first():
            return ""
        newest = self._path(seeds) / f"step_{done:08}"
        try:
            save(newest, tree)
            for path in newest.parent.iterdir():  # only now, so that a kill while saving leaves the one before
                if path != newest:
                    shutil.rmtree(path)
        except Exception as error:  # of Orbax or the disk: training goes on without
            return " ".join(str(error).split())[:200]
        finally:
            self._saved = cost.now()
        return ""

    def publish(self, round_: int, seeds: Sequence[int], state: Tree, done: int, seconds: dict[str, float],
                best: np.ndarray) -> None:  # fmt: skip
        """Keep the state of a pack where others look for it, who may be about to do the same; replace a damaged one."""
        final = self._path(seeds) / f"step_{done:08}"
        own = final.with_name(f"{final.name}.of_{uuid.uuid4().hex}")
        tree = _as_tree(round_, seeds, state, done, seconds, best)
        there = final.exists()
        if not hosts.first() or (there and self._newest(round_, seeds, state).get("done") == done):
            return
        save(own, tree)
        if there:  # but not readable
            shutil.rmtree(final, ignore_errors=True)
        try:
            own.rename(final)
        except OSError:  # somebody was faster
            shutil.rmtree(own)

    def clear(self) -> None:
        """Forget the round that has just been journalled."""
        if hosts.first() and self._folder.exists():
            shutil.rmtree(self._folder)

    def _path(self, seeds: Sequence[int]) -> Path:
        return self._folder / f"{self._digest}_pack_of_seed_{seeds[0]}"


def _as_tree(
    round_: int, seeds: Sequence[int], state: Tree, done: int, seconds: dict[str, float], best: np.ndarray
) -> Tree:
    leaves = {f"{place:04}": leaf[: len(seeds)] for place, leaf in enumerate(fetch(jax.tree.leaves(state)))}
    return {
        "round": np.asarray(round_), "seeds": np.asarray(seeds), "done": np.asarray(done), "best": best,
        "seconds": {stage: np.asarray(value) for stage, value in seconds.items()}, "leaves": leaves,
    }  # fmt: skip
