"""Every value that crosses a file border, with shapes. No logic.

Letters: N pool size, M test size, B batch, H W C image, K classes, R runs at once, k picks of one round.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

Array = jax.Array
Tree = Any  # a pytree of arrays


class Dataset(NamedTuple):
    """A whole labelled data set on the host; `data.split` parts it into pool, oracle and test set."""

    train_x: np.ndarray  # u8[N, H, W, C]
    train_y: np.ndarray  # i32[N]
    test_x: np.ndarray  # u8[M, H, W, C]
    test_y: np.ndarray  # i32[M]
    num_classes: int  # stated by the data set; `from_arrays` and folders count them, once and before anything is hidden
    mirror: bool = False  # does a left-right flip keep the label?
    class_names: tuple[str, ...] = ()  # () or one name per class
    files: tuple[str, ...] = ()  # () or a name per training image


class Pool(NamedTuple):
    """What training and selection may see of the training set: nothing but pixels."""

    x: Array  # u8[N, H, W, C]


class TestSet(NamedTuple):
    """The test set; only `Engine.evaluate` receives it."""

    x: Array  # u8[M, H, W, C]
    y: Array  # i32[M]


class Model(NamedTuple):
    """A neural network as pure functions. variables = {"params": f32 tree, "batch_stats": f32 tree}.

    apply(variables, x: f32[B, H, W, C], *, train=False, dropout_key=None, chunks=1) -> (logits: f32[B, K], taps).
    `train` makes BatchNorm use the statistics of the batch, or of each of so many equal `chunks` of it, as if they were
    passed one after another; dropout is active if and only if a key is given.
    taps: "features" f32[B, d] (input of the last linear layer, before dropout), "maps" (the stage outputs),
    "batch_stats" (the updated running statistics; unchanged unless `train`).
    """

    init: Callable[[Array], Tree]
    apply: Callable[..., tuple[Array, dict[str, Any]]]
    pack: int = 1  # most runs that one accelerator trains at once with profit
    pack_multiple: int = 1  # packs of a multiple of it are fastest: `parallel.packs`
    cpu_pack: int = 1  # as `pack`, of a CPU
    cpu_loop: bool = False  # as fast inside a compiled loop on a CPU: no convolution of XLA's in it
    # (variables, taps of `apply`, keys: key[B]) -> logits f32[B, K], with a fresh dropout mask from each example's key
    stochastic_head: Callable[..., Array] | None = None


class Network(NamedTuple):
    """A Model and the preparation of its images: all that a loss or a signal needs besides variables."""

    init: Callable[[Array], Tree]  # key -> variables
    apply: Callable[..., tuple[Array, dict[str, Any]]]  # as Model.apply
    augment: Callable[[Array, Array], Array]  # (key, u8[B, H, W, C]) -> f32[B, H, W, C], normalised
    normalise: Callable[[Array], Array]  # u8[B, H, W, C] -> f32[B, H, W, C]
    stochastic_head: Callable[..., Array] | None = None  # as Model.stochastic_head
    weak: Callable[[Array, Array], Array] = lambda key, x: x  # (key, u8[B, H, W, C]) -> u8: `augment` unnormalised
    # u8[B, H, W, C] -> all that `augment` makes of the images, equally likely, each as it does; None: too many to list
    views: Callable[[Array], tuple[Array, ...]] | None = None


class Batch(NamedTuple):
    """What one training step sees."""

    x: Array  # u8[B, H, W, C], labelled images
    y: Array  # i32[B], their revealed labels
    unlabelled: Array  # u8[U, H, W, C], U = 0 unless the trainer asks for more


class Moment(NamedTuple):
    """Where a round's training stands when a step begins."""

    step: Array  # f32[], steps done
    epoch: Array  # f32[], epochs done
    progress: Array  # f32[], share of the round's steps that are done
    labelled: Array  # f32[], share of the pool that is labelled


class Recipe(NamedTuple):
    """The optimiser of a round: SGD with momentum and a step schedule. Static, a part of the compiled program."""

    epochs: int
    batch: int
    learning_rate: float
    milestones: tuple[float, ...]  # shares of the epochs at which the rate falls to a tenth
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay_kernels_only: bool = False  # False: on every parameter, as in the published runs
    clamp: float | None = None  # every gradient element is clipped to [-clamp, clamp]


class Phase(NamedTuple):
    """One update within a training step: what is minimised, over which parts of the variables.

    loss(network, variables, batch, key, moment) -> (loss: f32[], new batch_stats). Every phase of a step receives the
    same key, so that phases may look at the same augmented images.
    """

    loss: Callable[..., tuple[Array, Tree]]
    trains: tuple[str, ...] = ("params",)


class Trainer(NamedTuple):
    """How a network is trained. Training on labels alone is the case of no unlabelled images per labelled one."""

    phases: tuple[Phase, ...]  # of one step, each with the variables that those before it have left
    unlabelled: int = 0  # unlabelled images per labelled one in a batch
    # (labelled images, pool size) -> how many labelled images an epoch draws, by which its steps are counted
    epoch: Callable[[int, int], int] = lambda labelled, pool: labelled
    # key, taps of one image (shapes alone) -> variables["helpers"], parameters of networks that are trained alongside
    helpers: Callable[[Array, Tree], Tree] | None = None
    average: float | None = None  # answers come from a moving average of weights and statistics with this decay
    recipe: Callable[[Recipe], Recipe] = lambda recipe: recipe  # what it changes in the data set's recipe
    unaugmented: str = ""  # what a user should know where no image is augmented: "so that ..."
    ramp: float = 0.0  # epochs over which its second loss grows, unless its option ramp_epochs says how many


class TrainState(NamedTuple):
    """One run in the middle of a round."""

    variables: Tree  # {"params", "batch_stats"}, and "helpers" if the trainer has some
    optimiser: Tree  # a state for each part of the variables that is trained
    average: Tree  # {"params", "batch_stats"}, or () if the trainer does not average
    loss: Array  # f32[], of the last step
    diverged: Array  # i32[], the first step (counted from 1) that was not finite, 0 while all were


class Signal(NamedTuple):
    """Something worth knowing about each pool example, computed once per round.

    per_batch(keys: key[B], network, variables, aux, x: u8[B, H, W, C]) -> [B, ...]; one key per example, so that
    the batch size of scoring changes nothing. prepare(key, network, variables, pool, known) -> aux, once per round; it
    takes a pool that fits on a device. Keys of examples are folded from the key of `prepare`, by their places, and
    `jax.random.split` of that makes the same ones: a signal that draws in both must fold in something of its own first.
    """

    name: str
    per_batch: Callable[..., Array]
    prepare: Callable[..., Tree] | None = None
    unaugmented: str = ""  # what a user should know where no image is augmented: "so that ..."


class Strategy(NamedTuple):
    """Which examples to label next.

    select(key, known: i32[N], k, memory, *signals: [N, ...]) -> (picks: i32[k], distinct and unknown, memory).
    """

    needs: tuple[Signal, ...]
    select: Callable[..., tuple[Array, Tree]]
    memory: Callable[[int], Tree] = lambda size: ()  # pool size -> what the first round's select receives
    wrap: Callable[[Trainer], Trainer] = lambda trainer: trainer
    trainer: str = "supervised"  # the one that it was made for, used unless another is asked for
