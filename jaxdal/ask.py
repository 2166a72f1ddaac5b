"""One round for those who label by hand: train on the labels that there are, and say what to label next."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdal import data, remarks, settings, signals
from jaxdal.budgets import Budget
from jaxdal.data import Oracle
from jaxdal.errors import InputError
from jaxdal.exhausted import advised, movable
from jaxdal.lab import Lab, blocks_for
from jaxdal.pack import Run, accuracy, choose, stacked, train
from jaxdal.progress import Progress
from jaxdal.strategies import build
from jaxdal.types import Dataset, Strategy, Tree


class Asked(NamedTuple):
    """An answer of `ask`."""

    picks: np.ndarray  # i32[k], pool indices that are to be labelled next, best first
    probs: np.ndarray  # f32[N, K], what the network thinks of every image
    accuracy: float | None  # on the test images, 0 to 1; None without any
    memory: Tree  # of the strategy, for the next question
    variables: Tree  # of the network: {"params": ..., "batch_stats": ...}, as `--save_weights` keeps them


def ask(
    images: Any, known: Any, k: int, strategy: str | Strategy = "badge", *, num_classes: int,
    test: tuple[Any, Any] | None = None, seed: int = 0, round_: int = 0, memory: Tree | None = None,
    devices: Sequence[jax.Device] | None = None, pool_bytes: int | None = None, quiet: bool = False, **options: Any,
) -> Asked:  # fmt: skip
    """Train a network on the labels that are known, and choose k of the other images.

    It is a round of `run` with the same batch, bit for bit, whose labels come from whoever calls: there are no hidden
    ones. Nothing is written; what a strategy remembers goes from answer to question.

    images: u8[N, H, W, C] or [N, H, W]. known: integers [N], a class or -1 where nobody has looked. test: images and
    labels that accuracy is counted on. round_: number of the question, counted from 0, each of which draws random
    numbers of its own; memory: that of the answer before. Other options are those of `settings.resolve` (epochs, batch,
    trainer, model, learning_rate, mirror, ...); for small sets the batch follows the number of labels, unless stated.
    Programs change with k, with options and where the number of labels doubles; JAX keeps them where
    JAX_COMPILATION_CACHE_DIR says.

    Raises:
        InputError: something does not fit, or training diverged.
        OutOfMemoryError: a device ran out of memory.
    """
    devices = jax.devices() if devices is None else devices
    if isinstance(round_, bool) or not isinstance(round_, int | np.integer) or round_ < 0:
        raise InputError(f"round_={round_} is not the number of a question, counted from 0")
    settings.check_names(strategy, **options)
    for name in {"seeds", "n_start", "n_query", "n_end", "platform", "fingerprint"} & options.keys():
        raise InputError(f"{name} is not an option of ask: it is told by seed, known, k, devices and images")
    pool = _checked(images, known, k, num_classes, test)
    count, k = int((pool.train_y >= 0).sum()), int(k)
    chosen = build(strategy) if isinstance(strategy, str) else strategy
    rules = settings.resolve(
        pool, pool, strategy, platform=devices[0].platform, seeds=(seed,), n_start=count, n_query=k, n_end=count + k,
        fingerprint="none: no journal is kept", **options,
    )  # fmt: skip
    # As many steps as for the labels of now; programs between powers of two, so that they serve several questions.
    least, most = 1 << (count.bit_length() - 1), min(1 << (count + k - 1).bit_length(), rules.pool)
    rules = rules._replace(per_epoch=rules.per_epoch[:1] * (round_ + 1), budget=Budget(least, k, most))
    remarks.on_strategy(rules, chosen)
    remarks.on_training(rules, chosen)
    blocks = blocks_for(rules, chosen, pool.train_x.shape[1:], devices, pool_bytes)
    held = movable(pool.train_x, blocks, [chosen])
    with advised("taking the images", held, keeps_journal=False):
        lab = Lab(rules, pool.train_x, (pool.test_x, pool.test_y), chosen, devices, blocks)
    run = Run(seed, Oracle(pool.train_y), _remembered(chosen.memory(rules.pool), memory))
    run.known = pool.train_y
    with Progress(rules.steps[:1], rules.recipe.batch, epochs=rules.recipe.epochs, quiet=quiet) as progress:
        progress.start_round(0, count)
        with advised("training", held, lab, keeps_journal=False):
            (trained,) = train(lab, [run], [seed], round_, None, None, progress)
    if trained.diverged:
        raise InputError(f"training diverged at step {trained.diverged}: try a smaller learning_rate")
    run.trained = trained
    with advised("selecting for", held, lab, keeps_journal=False):
        choose(lab, [run], round_)
        try:
            run.oracle.reveal(run.known, run.picks)  # an answer is checked as that of a round is
        except ValueError as error:
            raise InputError(f"strategy {rules.strategy!r} has picked what it may not: {error}") from error
        probs = _probabilities(lab, run, trained.variables, round_)
    right = None if test is None else accuracy(trained.correct, lab)
    return Asked(run.picks, probs, right, run.memory, trained.variables)


def _checked(images: Any, known: Any, k: int, num_classes: int, test: tuple[Any, Any] | None) -> Dataset:
    """The images as a data set whose training labels are those that are known; without test images, one of the pool."""
    try:
        labels = np.asarray(known)
    except ValueError as error:
        raise InputError(f"known labels cannot be read as one array: {error}") from error
    if labels.dtype.kind not in "iu":
        raise InputError(f"known labels are integers, -1 for those that are not known, and not {labels.dtype}")
    if labels.size and labels.min() < -1:
        raise InputError(f"known labels are classes, or -1 for unknown, and not {labels.min()}")
    counted = isinstance(num_classes, int | np.integer)
    if labels.dtype.kind == "u" and labels.size and counted and labels.max() >= num_classes:
        told = f"{labels.max()} is not a class of {num_classes}, and {labels.dtype} has no -1 for unknown"
        raise InputError(f"known labels: {told}: use a signed type of integers")
    if test is not None and not (isinstance(test, tuple | list) and len(test) == 2):
        raise InputError("test is a pair: images and labels")
    unknown = labels < 0
    if test is None:
        test = np.asarray(images)[:1] if np.ndim(images) else images, [0]
    pool = data.from_arrays(images, np.where(unknown, 0, labels), *test, num_classes=num_classes)
    if labels.size and not unknown.any():
        raise InputError("every label is known: one that is not is -1, in a signed type of integers")
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= unknown.sum():
        raise InputError(f"k={k} is not a number of images from 1 to {unknown.sum()}, of which no label is known")
    if unknown.all():
        raise InputError("no label is known: choose some images at random, and label these first")
    return pool._replace(train_y=np.where(unknown, -1, labels).astype(np.int32))


def _remembered(fresh: Tree, memory: Tree | None) -> Tree:
    """The memory of the answer before, or a fresh one."""
    if memory is None:
        return fresh
    shapes = [
        (jax.tree.structure(tree), [np.shape(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (fresh, memory)
    ]
    if shapes[0] != shapes[1]:
        raise InputError("memory is not that of an answer of this strategy for this pool")
    return memory


def _probabilities(lab: Lab, run: Run, variables: Tree, round_: int) -> np.ndarray:
    """What the network of a run says of every image: -> f32[N, K]."""
    lanes, gather = lab.lanes, lab.gathering((signals.probs,))
    keys = lab.keys(lanes.per_run(np.asarray([run.seed], np.uint32)), np.int32(round_))
    (probs,) = gather(keys, lanes.per_run(stacked([variables])), lanes.per_run(run.known[None]), lab.pool)
    result: np.ndarray = lanes.fetch(probs)[0, : len(run.known)]
    return result
