"""Models, trainers and strategies of one's own must do what jaxdal.types says of them: looked at on shapes alone.

Before anything is trained or written: what is wrong would otherwise show in the middle of a round, as an error of JAX
in jaxdal's own code, or not at all, such as a network with too few outputs.
"""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxdal import augment, engine, models, naming, trainers
from jaxdal.calls import blamed
from jaxdal.errors import InputError
from jaxdal.keys import Keys, keys_for
from jaxdal.settings import Settings
from jaxdal.types import Array, Batch, Model, Moment, Network, Pool, Strategy, TrainState, Tree

IMAGES = 2  # of a batch that is looked at
# Of a configuration, what decides no shape of training; the last two decide those of `select`.
BESIDE_THE_POINT = ("seeds", "dataset", "fingerprint", "test", "pack", "eval_every", "n_start", "n_end")
OF_SELECTION = ("pool", "n_query")
_right: set[str] = set()  # what this process has looked at, with digests of code among it: tracing takes a second


def check(rules: Settings, strategy: Strategy, image: tuple[int, int, int]) -> None:
    """Trace what is one's own, and the training that it takes part in, on shapes. image: [H, W, C].

    Raises:
        InputError: it cannot be traced, or gives what it should not; with the place in its file.
    """
    own_strategy = bool(naming.parted(rules.strategy)[1])
    if not (own_strategy or rules.own_code or rules.own_trainer):
        return
    config = rules.training(strategy) | ({"strategy": rules.strategy} if own_strategy else {})
    left_out = BESIDE_THE_POINT if own_strategy else (*BESIDE_THE_POINT, *OF_SELECTION)
    looked_at = json.dumps([image, {key: value for key, value in config.items() if key not in left_out}])
    if looked_at in _right:
        return
    if own_strategy:
        _check_order(rules, strategy)
    keys = jax.eval_shape(keys_for, _shape(jnp.uint32), _shape(jnp.int32))
    model = models.build(rules.model, image, rules.num_classes, models.DTYPES[rules.precision])
    if rules.own_code:
        _check_model(rules, model, image, keys)
    network = augment.network(model, rules.mean, rules.std, crop=rules.crop, flip=rules.flip)
    network = network._replace(apply=_taking_no_bytes(network.apply))
    state = _check_trainer(rules, strategy, network, image, keys)
    if own_strategy:
        _check_selection(rules, strategy, network, image, keys, engine.answering(state))
    _right.add(looked_at)


def _taking_no_bytes(apply: Callable[..., Any]) -> Callable[..., Any]:
    """Images as they are stored would be trained on as well, and badly: their pixels reach 255."""

    def checked(variables: Tree, x: Array, **options: Any) -> Any:
        if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
            raise TypeError(f"network.apply takes what network.normalise or network.augment gives, and not {x.dtype}")
        return apply(variables, x, **options)

    return checked


def answer(rules: Settings, strategy: Strategy, key: Array, known: Array, memory: Tree, found: Sequence[Array]) -> Any:
    """What `select` gives, if it is picks and a memory as they should be: with wrong picks in the journal, no start
    could go on from there.

    Raises:
        InputError: it cannot be traced, or gives something else.
    """
    count, name = rules.budget.n_query, f"strategy {rules.strategy!r}"
    called = ", ".join(["key", "known", "k", "memory", *(signal.name for signal in strategy.needs)])
    with blamed(f"{name}: select({called})"):
        given = strategy.select(key, known, count, memory, *found)
    if not isinstance(given, tuple) or len(given) != 2:
        raise InputError(f"{name} gives {type(given).__name__}, and not a tuple (picks, memory)")
    picks, after = given
    picks = jnp.asarray(picks) if isinstance(picks, list | tuple) else picks
    if jnp.shape(picks) != (count,):
        raise InputError(f"{name} was asked for {count} picks, and gives the shape {jnp.shape(picks)}")
    if not jnp.issubdtype(jnp.result_type(picks), jnp.integer):
        raise InputError(f"{name} gives picks of type {jnp.result_type(picks)}, and not indices")
    for what, of in (("shapes", jnp.shape), ("types", lambda leaf: str(jnp.result_type(leaf)))):
        before, now = ([of(leaf) for leaf in jax.tree.leaves(tree)] for tree in (memory, after))
        if before != now:
            raise InputError(f"{name} got a memory of the {what} {before}, and gives back {now}")
    before, now = map(jax.tree.structure, (memory, after))
    if before != now:
        raise InputError(f"{name} got a memory of the structure {before}, and gives back {now}")
    return picks, after


def _check_order(rules: Settings, strategy: Strategy) -> None:
    """Refuse a `select` that has its signals under their names, but in another order than they come in."""
    needed = [signal.name for signal in strategy.needs]
    named = [name for name in inspect.signature(strategy.select).parameters if name in needed]
    if len(named) == len(needed) and named != needed:
        raise InputError(
            f"strategy {rules.strategy!r} needs {', '.join(needed)} in this order, and its select names them "
            f"{', '.join(named)}"
        )


def _check_model(rules: Settings, model: Model, image: tuple[int, int, int], keys: Keys) -> None:
    name, floats = f"model {rules.model!r}", jnp.float32
    with blamed(f"{name}: init(key)"):
        variables = jax.eval_shape(model.init, keys.weights)
    if not isinstance(variables, Mapping) or set(variables) != {"params", "batch_stats"}:
        raise InputError(f"{name}: init gives {_kind(variables)}, and not a dict of 'params' and 'batch_stats'")
    others = {str(leaf.dtype) for leaf in jax.tree.leaves(variables) if leaf.dtype != floats}
    if others:
        raise InputError(f"{name}: init gives variables of type {', '.join(sorted(others))}, and not float32")

    def apply(variables: Tree, x: Array, key: Array) -> Any:
        return model.apply(variables, x, train=True, dropout_key=key, chunks=1)

    with blamed(f"{name}: apply(variables, x, train=True, dropout_key=key, chunks=1)"):
        given = jax.eval_shape(apply, variables, _shape(floats, IMAGES, *image), keys.step)
    if not isinstance(given, tuple) or len(given) != 2 or not isinstance(given[1], Mapping):
        raise InputError(f"{name}: apply gives {_kind(given)}, and not a pair of logits and a dict of taps")
    logits, taps = given
    _expect(f"{name}: apply: logits", logits, _shape(floats, IMAGES, rules.num_classes))
    if missing := {"features", "batch_stats"} - set(taps):
        raise InputError(f"{name}: apply: its taps lack {' and '.join(map(repr, sorted(missing)))}")
    width = taps["features"].shape[1:2] if hasattr(taps["features"], "shape") else ()
    _expect(f"{name}: apply: taps['features']", taps["features"], _shape(floats, IMAGES, *(width or (1,))))
    _expect(f"{name}: apply: taps['batch_stats']", taps["batch_stats"], variables["batch_stats"])


def _check_trainer(
    rules: Settings, strategy: Strategy, network: Network, image: tuple[int, int, int], keys: Keys
) -> TrainState:
    """Trace a step: -> the shapes of a run."""
    trainer = strategy.wrap(trainers.build(rules.trainer, rules.preset))
    name = f"trainer {rules.trainer!r}"
    unlabelled = trainer.unlabelled * IMAGES
    batch = Batch(*(_shape(*part) for part in (
        (jnp.uint8, IMAGES, *image), (jnp.int32, IMAGES), (jnp.uint8, unlabelled, *image)
    )))  # fmt: skip
    parts = ["params", "batch_stats", *(["helpers"] if trainer.helpers else [])]
    for phase in trainer.phases:
        for part in phase.trains:
            if part not in parts:
                raise InputError(f"{name} trains {part!r}, which is none of {', '.join(parts)}")
    with blamed(name):
        state = jax.eval_shape(
            lambda keys: engine.init(network, trainer, rules.recipe, image, keys), keys
        )  # fmt: skip
    moment = Moment(*(_shape(jnp.float32) for _ in Moment._fields))
    for phase in trainer.phases:

        def loss(
            variables: Tree, batch: Batch, key: Array, moment: Moment, loss: Callable[..., Any] = phase.loss
        ) -> Any:
            return loss(network, variables, batch, key, moment)

        with blamed(f"{name}: loss(network, variables, batch, key, moment)"):
            given = jax.eval_shape(loss, state.variables, batch, keys.step, moment)
        if not isinstance(given, tuple) or len(given) != 2:
            raise InputError(f"{name}: a loss gives {_kind(given)}, and not a pair (loss, new batch_stats)")
        _expect(f"{name}: a loss", given[0], _shape(jnp.float32))
        _expect(f"{name}: new batch_stats", given[1], state.variables["batch_stats"])
    return state


def _check_selection(
    rules: Settings, strategy: Strategy, network: Network, image: tuple[int, int, int], keys: Keys, variables: Tree
) -> None:
    """Trace the signals of a batch, and `select` on those of the whole pool."""
    known, found = _shape(jnp.int32, rules.pool), []
    pool, x = Pool(_shape(jnp.uint8, rules.pool, *image)), _shape(jnp.uint8, IMAGES, *image)
    rows = jax.eval_shape(lambda key: jax.random.split(key, IMAGES), keys.signals)
    for signal in strategy.needs:

        def values(
            keys: Keys, rows: Array, variables: Tree, pool: Pool, known: Array, x: Array, signal: Any = signal
        ) -> Any:
            aux = () if signal.prepare is None else signal.prepare(keys.signals, network, variables, pool, known)
            return signal.per_batch(rows, network, variables, aux, x)

        with blamed(f"signal {signal.name!r} of strategy {rules.strategy!r}"):
            value = jax.eval_shape(values, keys, rows, variables, pool, known, x)
        if not hasattr(value, "shape") or value.shape[:1] != (IMAGES,):
            raise InputError(f"signal {signal.name!r} gives {_kind(value)} for {IMAGES} images, and not a row for each")
        found.append(_shape(value.dtype, rules.pool, *value.shape[1:]))
    with blamed(f"strategy {rules.strategy!r}: memory(size)"):
        memory = jax.eval_shape(lambda: strategy.memory(rules.pool))
    jax.eval_shape(
        lambda key, known, memory, found: answer(rules, strategy, key, known, memory, found),
        keys.select, known, memory, found,
    )  # fmt: skip


def _shape(dtype: Any, *shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)


def _kind(value: Any) -> str:
    """What something is, in a few words."""
    if hasattr(value, "shape"):
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(repr, value)) or 'nothing'}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return type(value).__name__


def _expect(name: str, value: Any, wanted: Any) -> None:
    """Refuse a tree of other shapes or types."""
    if str(jax.tree.structure(value)) != str(jax.tree.structure(wanted)):
        raise InputError(f"{name}: {_kind(value)}, and not {_kind(wanted)} with the same parts")
    for one, other in zip(jax.tree.leaves(value), jax.tree.leaves(wanted), strict=True):
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            raise InputError(f"{name}: {_kind(one)}, and not {_kind(other)}")
