"""One round for those who label by hand: train on the labels that there are, and say what to label next."""

import copy
import inspect
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdal import contracts, data, remarks, settings, signals
from jaxdal.budgets import Budget
from jaxdal.data import Oracle
from jaxdal.errors import InputError
from jaxdal.exhausted import advised, movable
from jaxdal.lab import Lab, blocks_for
from jaxdal.pack import Run, accuracy, choose, stacked, train
from jaxdal.progress import Progress
from jaxdal.settings import Settings
from jaxdal.strategies import build
from jaxdal.streaming import Blocks, HostPool
from jaxdal.types import Dataset, Strategy, Tree

ENOUGH = 2**14  # labels that programs can train on, if there are as many images: more take longer to put in order


class Kept(NamedTuple):
    """What the next question need not make again."""

    lab: Lab
    training: dict[str, Any]  # as `_training` gives it
    labels: range  # how many labels its programs can train on


@dataclass(frozen=True, eq=False, repr=False)
class Asked:
    """An answer of `ask`. It can be pickled; what comes back has to compile its programs again."""

    picks: np.ndarray  # i32[k], pool indices that are to be labelled next, best first
    probs: np.ndarray  # f32[N, K], what the network thinks of every image
    accuracy: float | None  # on the test images, 0 to 1; None without any
    memory: Tree  # of the strategy, for the next question
    variables: Tree  # of the network: {"params": ..., "batch_stats": ...}, as `--save_weights` keeps them
    round_: int  # number of the question, counted from 0
    config: dict[str, Any]  # as in the first line of a journal, and "image_shape", [H, W, C]: for `predict`
    kept: Kept | None = field(default=None, kw_only=True)  # programs, and images on the devices

    def __repr__(self) -> str:
        accuracy = "no test images" if self.accuracy is None else f"accuracy {self.accuracy:.2%}"
        return f"<Asked: question {self.round_}, {len(self.picks)} picks of {len(self.probs):,} images, {accuracy}>"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "kept": None}


def ask(
    images: Any, known: Any, k: int, strategy: str | Strategy = "badge", *, num_classes: int,
    test: tuple[Any, Any] | None = None, seed: int = 0, after: Asked | None = None, round_: int | None = None,
    memory: Tree | None = None, devices: Sequence[jax.Device] | None = None, pool_bytes: int | None = None,
    quiet: bool = False, **options: Any,
) -> Asked:  # fmt: skip
    """Train a network on the labels that are known, and choose k of the other images.

    It is a round of `run` with the same batch, bit for bit, whose labels come from whoever calls: there are no hidden
    ones. Nothing is written; what a strategy remembers goes from answer to question.

    images: u8[N, H, W, C] or [N, H, W]. known: integers [N], a class or -1 where nobody has looked. Both may have
    changed since the question before, but what a strategy remembers of images it remembers by their places. test:
    images and labels that accuracy is counted on. after: the answer before; what it remembers, its programs and the
    images on the devices are used as far as they fit, which changes no result. round_, memory: in its place, to go on
    from disk: the number of the question, counted from 0 (each draws random numbers of its own), and the memory of the
    answer before. Other options are those of `settings.resolve` (epochs, batch, trainer, model, learning_rate, mirror,
    ...); for small sets the batch follows the number of labels, unless stated.

    With `after`, programs are compiled again where options change, the batch being one, and each time that labels
    double beyond 16,000. Processes that ask one question each share them where JAX_COMPILATION_CACHE_DIR says, until
    the labels have doubled.

    Raises:
        InputError: something does not fit, or training diverged.
        OutOfMemoryError: a device ran out of memory.
    """
    devices = jax.devices() if devices is None else devices
    if after is not None:
        _check_after(after, round_, memory)
        round_ = after.round_ + 1
    round_ = 0 if round_ is None else round_
    if isinstance(round_, bool) or not isinstance(round_, int | np.integer) or round_ < 0:
        raise InputError(f"round_={round_} is not the number of a question, counted from 0")
    settings.check_names(strategy, beside=inspect.signature(ask).parameters, **options)
    for name in {"seeds", "n_start", "n_query", "n_end"} & options.keys():
        raise InputError(f"{name} is not an option of ask: it is told by seed, known and k")
    pool = _checked(images, known, k, num_classes, test)
    count, k = int((pool.train_y >= 0).sum()), int(k)
    chosen = build(strategy) if isinstance(strategy, str) else strategy
    rules = settings.resolve(
        pool, pool, strategy, platform=devices[0].platform, seeds=(seed,), n_start=count, n_query=k, n_end=count + k,
        fingerprint="none: no journal is kept", **options,
    )  # fmt: skip
    config = json.loads(json.dumps(rules.config())) | {"image_shape": list(pool.train_x.shape[1:])}
    if after is not None and after.config["strategy"] == rules.strategy:  # another one has memories of its own
        memory = after.memory
    # As many steps as for the labels of now, by programs that serve several questions.
    rules = rules._replace(per_epoch=rules.per_epoch[:1] * (round_ + 1), budget=_bounds(count, k, rules.pool))
    if round_ == 0 and not quiet:
        print(_told(rules, pool, count), file=sys.stderr, flush=True)
    remarks.on_strategy(rules, chosen)
    remarks.on_training(rules, chosen)
    contracts.check(rules, chosen, pool.train_x.shape[1:])
    blocks = blocks_for(rules, chosen, pool.train_x.shape[1:], devices, pool_bytes)
    held = movable(pool.train_x, blocks, [chosen])
    with advised("taking the images", held, keeps_journal=False):
        kept = _going_on(None if after is None else after.kept, rules, chosen, count, pool, devices, blocks)
    lab, run = kept.lab, Run(seed, Oracle(pool.train_y), _remembered(chosen.memory(rules.pool), memory, int(round_)))
    run.known = pool.train_y
    batch, epochs = rules.recipe.batch, rules.recipe.epochs
    with Progress(rules.steps[:1], batch, epochs=epochs, question=int(round_), quiet=quiet) as progress:
        progress.start_round(0, count)
        with advised("training", held, lab, keeps_journal=False):
            (trained,) = train(lab, [run], [seed], round_, None, None, progress)
    if trained.diverged:
        raise InputError(f"training diverged at step {trained.diverged}: try a smaller learning_rate")
    run.trained = trained
    with advised("selecting for", held, lab, keeps_journal=False):
        choose(lab, [run], [seed], round_)
        probs = _probabilities(lab, run, trained.variables, round_)
    right = None if test is None else accuracy(trained.correct, lab)
    return Asked(run.picks, probs, right, run.memory, trained.variables, int(round_), config, kept=kept)


def _check_after(after: Any, round_: int | None, memory: Tree | None) -> None:
    """Refuse what is no answer, and what would say twice where to go on."""
    if not isinstance(after, Asked):
        raise InputError(f"after is the answer to the question before, as ask gave it, and not {type(after).__name__}")
    if round_ is not None or memory is not None:
        raise InputError("after tells the number of the question and the memory: give it, or round_ and memory")


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
        raise InputError(f"k={k!r} is not a number of images from 1 to {unknown.sum()}, of which no label is known")
    if unknown.all():
        raise InputError("no label is known: choose some images at random, and label these first")
    return pool._replace(train_y=np.where(unknown, -1, labels).astype(np.int32))


def _bounds(count: int, k: int, pool: int) -> Budget:
    """How few and how many labels the programs of a question can train on: -> (least, k, most).

    The same for many questions, and with k more than now at least, which the next question has.
    """
    most = max(ENOUGH, 1 << (count + 2 * k - 1).bit_length())
    return Budget(1 << (count.bit_length() - 1), k, min(most, pool))


def _told(rules: Settings, pool: Dataset, count: int) -> str:
    """What the images are and what they are trained with, in the words of the arguments that change it."""
    height, width, channels = pool.train_x.shape[1:]
    recipe = rules.recipe
    mean, std, milestones = (
        tuple(round(value, 4) for value in values) for values in (rules.mean, rules.std, recipe.milestones)
    )
    return (
        f"ask: {rules.pool:,} images of {height} x {width} x {channels}, {count:,} of them labelled, "
        f"{rules.num_classes} classes; trained with {mean=}, {std=}, mirror={rules.flip}, crop={rules.crop}, "
        f"model={rules.model!r}, batch={recipe.batch}, learning_rate={recipe.learning_rate:.3g}, "
        f"epochs={recipe.epochs}, {milestones=}"
    )


def _going_on(
    kept: Kept | None, rules: Settings, strategy: Strategy, count: int, pool: Dataset, devices: Sequence[jax.Device],
    blocks: Blocks | None,
) -> Kept:  # fmt: skip
    """Return the lab of a question: that of the answer before, or a new one with as much of it as fits."""
    training = _training(rules, strategy)
    if kept is not None and not _holds(kept.lab, pool, devices, blocks):
        kept = None
    if kept is None or kept.training != training or count not in kept.labels:
        like = None if kept is None else kept.lab
        lab = Lab(rules, pool.train_x, (pool.test_x, pool.test_y), strategy, devices, blocks, like=like)
        least, *_, most = rules.budget.labels
        return Kept(lab, training, range(least, most + 1))
    before, lab = kept.lab.settings, copy.copy(kept.lab)
    lab.settings = rules
    if (before.strategy, before.budget.n_query) != (rules.strategy, rules.budget.n_query):
        lab = lab.beside(strategy)  # which trains as the one before
    return kept._replace(lab=lab)


def _training(rules: Settings, strategy: Strategy) -> dict[str, Any]:
    """What decides how a question is trained, but for what its programs are told."""
    told = ("seeds", "n_start", "n_query", "n_end")
    return {name: value for name, value in rules.training(strategy).items() if name not in told}


def _holds(lab: Lab, pool: Dataset, devices: Sequence[jax.Device], blocks: Blocks | None) -> bool:
    """Whether the images of a lab are these, pixel for pixel, and lie where they would be put."""
    where = lab.pool.blocks if isinstance(lab.pool, HostPool) else None
    if list(lab.lanes.mesh.devices.flat) != list(devices) or where != blocks:
        return False
    # What is on the devices is compared, since whoever asks may have changed images in their place.
    held = lab.lanes.fetch((lab.pool.x, lab.test.x, lab.test.y))
    return all(map(np.array_equal, held, (pool.train_x, pool.test_x, pool.test_y)))


def _remembered(fresh: Tree, memory: Tree | None, round_: int) -> Tree:
    """The memory of the answer before, or a fresh one."""
    if memory is None:
        return fresh
    shapes = [
        (jax.tree.structure(tree), [np.shape(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (fresh, memory)
    ]
    if shapes[0] != shapes[1]:
        told = "memory is not that of an answer of this strategy for this pool"
        raise InputError(f"{told}: {round_=} in place of after and memory begins with a fresh one")
    return memory


def _probabilities(lab: Lab, run: Run, variables: Tree, round_: int) -> np.ndarray:
    """What the network of a run says of every image: -> f32[N, K]."""
    lanes, gather = lab.lanes, lab.gathering((signals.probs,))
    keys = lab.keys(lanes.per_run(np.asarray([run.seed], np.uint32)), np.int32(round_))
    (probs,) = gather(keys, lanes.per_run(stacked([variables])), lanes.per_run(run.known[None]), lab.pool)
    result: np.ndarray = lanes.fetch(probs)[0, : len(run.known)]
    return result
