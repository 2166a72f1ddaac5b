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
    num_classes: int  # stated, never inferred from labels
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

    apply(variables, x: f32[B, H, W, C], *, train=False, dropout_key=None) -> (logits: f32[B, K], taps).
    `train` makes BatchNorm use the statistics of the batch; dropout is active if and only if a key is given.
    taps: "features" f32[B, d] (input of the last linear layer, before dropout), "maps" (the stage outputs),
    "batch_stats" (the updated running statistics; unchanged unless `train`).
    """

    init: Callable[[Array], Tree]
    apply: Callable[..., tuple[Array, dict[str, Any]]]
    pack: int  # runs that one accelerator trains at once with profit
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


class Batch(NamedTuple):
    """What one training step sees."""

    x: Array  # u8[B, H, W, C], labelled images
    y: Array  # i32[B], their revealed labels


class Trainer(NamedTuple):
    """How a network is trained on one batch.

    loss(network, params, batch_stats, batch, key, progress) -> (loss: f32[], new batch_stats);
    progress: f32[], the share of the round's steps that are done.
    """

    loss: Callable[..., tuple[Array, Tree]]


class Recipe(NamedTuple):
    """The optimiser of a round: SGD with momentum and a step schedule. Static, a part of the compiled program."""

    epochs: int
    batch: int
    learning_rate: float
    milestones: tuple[float, ...]  # shares of the epochs at which the rate falls to a tenth
    momentum: float = 0.9
    weight_decay: float = 5e-4  # on every parameter, as in the published runs
    clamp: float | None = None  # every gradient element is clipped to [-clamp, clamp]


class TrainState(NamedTuple):
    """One run in the middle of a round."""

    variables: Tree  # {"params", "batch_stats"}
    optimiser: Tree
    loss: Array  # f32[], of the last step
    diverged: Array  # i32[], the first step (counted from 1) that was not finite, 0 while all were


class Signal(NamedTuple):
    """Something worth knowing about each pool example, computed once per round.

    per_batch(keys: key[B], network, variables, aux, x: u8[B, H, W, C]) -> [B, ...]; one key per example, so that
    the batch size of scoring changes nothing. prepare(key, network, variables, pool, known) -> aux, once per round.
    """

    name: str
    per_batch: Callable[..., Array]
    prepare: Callable[..., Tree] | None = None


class Strategy(NamedTuple):
    """Which examples to label next.

    select(key, known: i32[N], k, memory, *signals: [N, ...]) -> (picks: i32[k], distinct and unknown, memory).
    """

    needs: tuple[Signal, ...]
    select: Callable[..., tuple[Array, Tree]]
    memory: Callable[[int], Tree] = lambda size: ()  # pool size -> what the first round's select receives
    wrap: Callable[[Trainer], Trainer] = lambda trainer: trainer
