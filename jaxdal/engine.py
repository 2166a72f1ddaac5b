"""Training and evaluation: one step, one loop over steps. Written for one run, lifted by parallel.py."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdal import plan, streaming
from jaxdal.cost import wait
from jaxdal.keys import Keys
from jaxdal.parallel import Lanes
from jaxdal.streaming import HostPool, Images
from jaxdal.types import Array, Batch, Moment, Network, Phase, Pool, Recipe, TestSet, Trainer, TrainState, Tree


def optimiser(recipe: Recipe) -> optax.GradientTransformation:
    """Clamp, weight decay, momentum, in the order of the published runs; the learning rate is the step's own."""
    clamp = optax.identity() if recipe.clamp is None else optax.clip(recipe.clamp)
    decay = optax.add_decayed_weights(recipe.weight_decay, mask=_kernels if recipe.decay_kernels_only else None)
    return optax.chain(clamp, decay, optax.trace(recipe.momentum))


def _kernels(params: Tree) -> Tree:
    """Which parameters are matrices or filters: not biases, and nothing of a BatchNorm."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def learning_rate(recipe: Recipe, epoch: Array) -> Array:
    """Return the rate of an epoch (counted from 0). epoch: i32[] -> f32[]."""
    passed = sum((epoch >= max(round(share * recipe.epochs), 1)).astype(jnp.int32) for share in recipe.milestones)
    rates = recipe.learning_rate * 0.1 ** np.arange(len(recipe.milestones) + 1)
    return jnp.asarray(rates, jnp.float32)[passed]


def init(network: Network, trainer: Trainer, recipe: Recipe, image: tuple[int, ...], keys: Keys) -> TrainState:
    """Return a fresh run: every round starts from new weights, the same for all strategies at one seed.

    image: [H, W, C].
    """
    variables = network.init(keys.weights)
    average = () if trainer.average is None else jax.tree.map(jnp.copy, variables)  # a copy: both are donated
    if trainer.helpers is not None:
        _, taps = jax.eval_shape(network.apply, variables, jnp.zeros((1, *image)))
        variables = {**variables, "helpers": trainer.helpers(keys.helpers, taps)}
    trained = {part for phase in trainer.phases for part in phase.trains}
    momentum = {part: optimiser(recipe).init(variables[part]) for part in sorted(trained)}
    return TrainState(variables, momentum, average, loss=jnp.float32(0), diverged=jnp.int32(0))


def train_step(
    network: Network, trainer: Trainer, recipe: Recipe, state: TrainState, batch: Batch, key: Array, step: Array,
    per_epoch: Array, labelled: Array,
) -> TrainState:  # fmt: skip
    """Take one step of one run. key: of the round, step: i32[] counted from 0, per_epoch: i32[], labelled: f32[]."""
    done, of = step.astype(jnp.float32), per_epoch.astype(jnp.float32)
    moment = Moment(step=done, epoch=done / of, progress=done / (of * recipe.epochs), labelled=labelled)
    key, rate = jax.random.fold_in(key, step), learning_rate(recipe, step // per_epoch)
    variables, momentum, total = state.variables, state.optimiser, jnp.float32(0)
    for phase in trainer.phases:

        def loss_of(trained: Tree, phase: Phase = phase, variables: Tree = variables) -> tuple[Array, Tree]:
            return phase.loss(network, {**variables, **trained}, batch, key, moment)

        trained = {part: variables[part] for part in phase.trains}
        (loss, batch_stats), gradients = jax.value_and_grad(loss_of, has_aux=True)(trained)
        variables, total = {**variables, "batch_stats": batch_stats}, total + loss
        for part, params in trained.items():
            updates, after = optimiser(recipe).update(gradients[part], momentum[part], params)
            variables = {**variables, part: jax.tree.map(lambda p, u: p - rate * u, params, updates)}
            momentum = {**momentum, part: after}
    average, decay = state.average, trainer.average
    if decay is not None:
        own = {part: variables[part] for part in average}
        average = jax.tree.map(lambda a, v: decay * a + (1 - decay) * v, average, own)
    first_bad = (state.diverged == 0) & ~jnp.isfinite(total)
    diverged = jnp.where(first_bad, step + 1, state.diverged)
    return TrainState(variables, momentum, average, total, diverged)


def answering(state: TrainState) -> Tree:
    """Return the variables that are evaluated and that score the pool: the average where there is one."""
    return {**state.variables, **state.average} if state.average else state.variables


def check(state: TrainState, step: Array) -> TrainState:
    """Notice weights or statistics that are not finite although every loss was. step: i32[], steps done."""
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(state.variables)]))
    return state._replace(diverged=jnp.where((state.diverged == 0) & ~finite, step, state.diverged))


def is_right(network: Network, row: Array, variables: Tree, test: TestSet) -> Array:
    """Tell which test images are classified rightly. row: i32[B], those beyond the last image are not -> bool[B]."""
    image = jnp.minimum(row, test.y.shape[0] - 1)
    logits, _ = network.apply(variables, network.normalise(test.x[image]))
    return (jnp.argmax(logits, axis=-1).astype(jnp.int32) == test.y[image]) & (row < test.y.shape[0])


class Engine:
    """The compiled programs that train and evaluate a pack of runs: made once, used in every round.

    device_loop: many steps as one program, or the host calls step after step (ResNets on a CPU, where XLA runs
    convolutions inside loops about 10x slower than outside, jax-ml/jax#12868). The same numbers come from both.
    """

    def __init__(
        self, lanes: Lanes, network: Network, trainer: Trainer, recipe: Recipe, *, num_classes: int,
        labels: tuple[int, int], pool: tuple[int, ...], rows: int, device_loop: bool, chunk: int,
        streams: bool = False,
    ) -> None:  # fmt: skip
        """labels: least and most labelled images of any round. pool: its shape [N, H, W, C].

        rows: test images at once, as `Lanes.chunk` gave. chunk: the most steps of one `advance`. streams: the pool
        stays on the host.
        """
        self.chunk = chunk
        self._lanes, self._device_loop = lanes, device_loop
        self._num_classes, self._rows, self._streams = num_classes, rows, streams

        def batches(keys: Keys, known: Array, first: Array) -> tuple[Array, Array]:
            least, most = labels
            own = plan.labelled_batches(
                keys.order, known, first, steps=chunk, batch=recipe.batch, least=least, most=most
            )
            if not trainer.unlabelled:
                return own, jnp.zeros((chunk, 0), jnp.int32)
            others = plan.unlabelled_batches(
                keys.unlabelled_order, known, first,
                steps=chunk, batch=trainer.unlabelled * recipe.batch, least=pool[0] - most, most=pool[0] - least,
            )  # fmt: skip
            return own, others

        def split(whole: Array, place: Array) -> Array:
            return lanes.split(whole[place]) if whole.size else whole[0]

        def one(
            state: TrainState, keys: Keys, known: Array, order: tuple[Array, Array], source: Pool | Images,
            per_epoch: Array, first: Array, place: Array,
        ) -> TrainState:  # fmt: skip
            rows = [split(whole, place) for whole in order]
            if isinstance(source, Pool):
                x, unlabelled = (source.x[row] for row in rows)
            else:
                images = (split(whole, place % len(whole)) for whole in source)
                x, unlabelled = (image[: len(row)] for image, row in zip(images, rows, strict=True))
            batch = Batch(x, known[rows[0]], unlabelled)
            # XLA multiplies by 1 / N where a mean divides by N: for one N in eight, all of N would be less than 1.
            mean = jnp.mean((known >= 0).astype(jnp.float32))
            labelled = jnp.where(jnp.all(known >= 0), jnp.float32(1), mean)
            return train_step(network, trainer, recipe, state, batch, keys.step, first + place, per_epoch, labelled)

        def many(
            state: TrainState, keys: Keys, known: Array, order: tuple[Array, Array], source: Pool | Images,
            per_epoch: Array, first: Array, begin: Array, end: Array,
        ) -> TrainState:  # fmt: skip
            def body(place: Array, state: TrainState) -> TrainState:
                return one(state, keys, known, order, source, per_epoch, first, place)

            return jax.lax.fori_loop(begin, end, body, state)

        def count(variables: Tree, test: TestSet, counts: Array, first: Array) -> Array:
            row = first + jnp.arange(self._rows, dtype=jnp.int32)
            right = lanes.over_rows(partial(is_right, network))(row, variables, test)
            return counts.at[test.y[jnp.minimum(row, test.y.shape[0] - 1)]].add(right.astype(jnp.int32))

        self.init = lanes.lift(partial(init, network, trainer, recipe, pool[1:]), "r")  # Keys -> TrainState
        self._batches = lanes.lift(batches, "rrs")
        source = "r" if streams else "s"  # every run has images of its own in a block
        self._one = lanes.lift(one, f"rrrr{source}sss", donate=(0,))
        self._many = lanes.lift(many, f"rrrr{source}ssss", donate=(0,), in_turn=True)
        self._check = lanes.lift(check, "rs", donate=(0,))
        self._count = lanes.lift(count, "rsrs", donate=(2,))

    def advance(
        self, state: TrainState, keys: Keys, known: Array, pool: Pool | HostPool, per_epoch: int, first: int, until: int
    ) -> TrainState:
        """Take the steps first..until-1 of a round (at most `chunk`). known: i32[R, N]."""
        order = self._batches(keys, known, np.int32(first))
        for source, begin, end in streaming.steps(pool, order, until - first):
            fixed = (keys, known, order, source, np.int32(per_epoch), np.int32(first))
            if self._device_loop:
                state = self._many(state, *fixed, np.int32(begin), np.int32(end))
            else:
                for place in range(begin, end):
                    state = self._one(state, *fixed, np.int32(place))
            if self._streams:
                wait(state)
        return self._check(state, np.int32(until))

    def evaluate(self, variables: Tree, test: TestSet) -> Array:
        """Count the right answers of `answering` variables on the test set per class: -> i32[R, K]."""
        counts = self._lanes.per_run(np.zeros((self._lanes.width, self._num_classes), np.int32))
        for first in range(0, test.y.shape[0], self._rows):
            counts = self._count(variables, test, counts, np.int32(first))
        return counts
