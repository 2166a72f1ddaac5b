"""What is one's own and wrong is refused with a sentence, before anything is trained or written."""

import contextlib
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdal
from jaxdal import InputError, Strategy, calls, contracts, models, settings, signals, strategies, trainers
from jaxdal.losses import cross_entropy
from jaxdal.strategies import top_unknown
from jaxdal.types import Model, Phase, Trainer

SHORT = {"n_start": 20, "n_query": 10, "n_end": 30, "batch": 16, "epochs": 1}


class Net(nn.Module):
    """A linear network."""

    outputs: int

    @nn.compact
    def __call__(self, x):
        """Images to logits and features."""
        features = x.reshape(x.shape[0], -1)
        return nn.Dense(self.outputs)(features), features


def linear(image_shape, num_classes, dtype, **changes) -> Model:
    """Right, but for what is changed."""
    net = Net(num_classes)

    def init(key):
        return {"batch_stats": {}, **net.init(key, jnp.zeros((1, *image_shape)))}

    def apply(variables, x, *, train=False, dropout_key=None, chunks=1):
        logits, features = net.apply({"params": variables["params"]}, x)
        return logits, {"features": features, "batch_stats": variables["batch_stats"]}

    return Model(**({"init": init, "apply": apply} | changes))


def answering(change):
    """A model whose answers are changed."""

    def make(image_shape, num_classes, dtype):
        plain = linear(image_shape, num_classes, dtype)
        return plain._replace(apply=lambda variables, x, **rest: change(*plain.apply(variables, x, **rest)))

    return make


def plain_loss(network, variables, batch, key, moment):
    logits, taps = network.apply(variables, network.augment(key, batch.x), train=True, dropout_key=key)
    return cross_entropy(logits, batch.y), taps["batch_stats"]


def trained_by(loss=plain_loss, **changes):
    return lambda: Trainer(**({"phases": (Phase(loss),)} | changes))


def choosing(select, needs=(signals.probs,), **more) -> Strategy:
    return Strategy(needs=needs, select=select, **more)


def least(key, known, k, memory, probs):
    return top_unknown(-probs.max(-1), known, k), memory


def refusal(blobs, workdir, monkeypatch, model=None, trainer=None, strategy="random") -> str:
    """The sentence; nothing was written."""
    options = {}
    if model is not None:
        monkeypatch.setitem(models.MODELS, "mine", model)
        options["model"] = "mine"
    if trainer is not None:
        monkeypatch.setitem(trainers.TRAINERS, "mine", trainer)
        options["trainer"] = "mine"
    with pytest.raises(InputError) as error:
        jaxdal.run(blobs, strategy, workdir=workdir / "none", quiet=True, **SHORT, **options)
    assert not (workdir / "none").exists()
    assert "\n" not in str(error.value)
    return str(error.value)


def raw(network, variables, batch, key, moment):
    logits, taps = network.apply(variables, batch.x, train=True, dropout_key=key)
    return cross_entropy(logits, batch.y), taps["batch_stats"]


def raw_probs(keys, network, variables, aux, x):
    return jax.nn.softmax(network.apply(variables, x)[0])


def broken(*_, **__):
    raise KeyError("oh")


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (lambda shape, _, dtype: linear(shape, 5, dtype), r"logits: float32\[2, 5\], and not float32\[2, 4\]"),
        (lambda shape, _, dtype: linear(shape, 2, dtype), r"logits: float32\[2, 2\], and not float32\[2, 4\]"),
        (answering(lambda logits, taps: (logits[..., None], taps)), r"logits: float32\[2, 4, 1\]"),
        (answering(lambda logits, taps: (logits.astype(jnp.bfloat16), taps)), r"logits: bfloat16\[2, 4\]"),
        (answering(lambda logits, taps: logits), r"apply gives float32\[2, 4\], and not a pair"),
        (answering(lambda logits, taps: (logits, {})), "its taps lack 'batch_stats' and 'features'"),
        (
            answering(lambda logits, taps: (logits, taps | {"features": jnp.zeros(3)})),
            r"taps\['features'\]: float32\[3\], and not float32\[2, 1\]",
        ),
        (answering(lambda logits, taps: (logits, taps | {"batch_stats": taps})), r"taps\['batch_stats'\]: a dict of"),
        (lambda *_: linear(*_, init=lambda key: {"params": {}}), "init gives a dict of 'params', and not"),
        (lambda *_: linear(*_, init=lambda key: {"params": jnp.int32(1), "batch_stats": {}}), "of type int32"),
        (lambda *_: linear(*_, apply=lambda variables, x: None), r"apply\(variables, x, train=True.*TypeError"),
        (lambda *_: linear(*_, init=broken), r"init\(key\) fails with KeyError \(.*_contracts.py, line \d+\): 'oh'"),
        (lambda shape, classes: None, r"is made as mine\(image_shape, num_classes, dtype\): too many"),
        (lambda *_: Net(4), r"makes a Net, and not a jaxdal\.types\.Model"),
    ],
)  # fmt: skip
def test_models(blobs, tmp_path, monkeypatch, model, told):
    assert re.search(f"^model 'mine'.*{told}", refusal(blobs, tmp_path, monkeypatch, model))


@pytest.mark.parametrize(
    ("trainer", "told"),
    [
        (trained_by(phases=Phase(plain_loss)), "its phases are no tuple of jaxdal.types.Phase"),
        (trained_by(phases=(Phase(plain_loss, ("param",)),)), "trains 'param', which is none of params, batch_stats$"),
        (trained_by(lambda *_: plain_loss(*_)[0]), r"a loss gives float32\[\], and not a pair"),
        (trained_by(lambda *_: (jnp.zeros(3), plain_loss(*_)[1])), r"a loss: float32\[3\], and not float32\[\]"),
        (trained_by(lambda *_: (plain_loss(*_)[0], {"mean": 1})), "new batch_stats: a dict of 'mean', and not"),
        (trained_by(broken), r"loss\(network, .*\) fails with KeyError \(.*test_contracts.py, line \d+\): 'oh'"),
        (trained_by(lambda network, variables, batch: 0), "fails with TypeError"),
        (trained_by(raw), r"TypeError \(.*_contracts.py, line \d+\): network.apply takes .*normalise.* and not uint8"),
        (lambda: "supervised", r"makes a str, and not a jaxdal\.types\.Trainer"),
    ],
)
def test_trainers(blobs, tmp_path, monkeypatch, trainer, told):
    assert re.search(f"^trainer 'mine'.*{told}", refusal(blobs, tmp_path, monkeypatch, trainer=trainer))


def swapped(key, known, k, memory, features, probs):
    return least(key, known, k, memory, probs)


@pytest.mark.parametrize(
    ("strategy", "told"),
    [
        (choosing(lambda key, known, memory, k, probs: least(key, known, k, memory, probs)), "fails with TypeError"),
        (choosing(lambda key, known, k, memory: least(key, known, k, memory, known)), "select.*, probs.*TypeError"),
        (choosing(lambda key, known, k, memory, p: (top_unknown(known, p, k), memory)), r"\(.*_contracts.py, line \d+"),
        (choosing(lambda key, known, k, memory, p: least(key, known, k, memory, p)[0]), "and not a tuple"),
        (choosing(swapped, (signals.probs, signals.features)), "needs probs, features in this order, .* features, pro"),
        (choosing(least, (signals.Signal("probs", lambda *_: jnp.zeros(3)),)), r"'probs' gives float32\[3\] for"),
        (choosing(least, (signals.Signal("probs", raw_probs),)), r"_contracts.py, line \d+\): .* and not uint8"),
        (choosing(least, (signals.Signal("probs", broken),)), r"signal 'probs' .* KeyError \(.*, line \d+\): 'oh'"),
    ],
)  # fmt: skip
def test_strategies(blobs, tmp_path, monkeypatch, strategy, told):
    assert re.search(told, refusal(blobs, tmp_path, monkeypatch, strategy=strategy))


def test_rows_of_the_table_are_looked_at_as_values_are(blobs, tmp_path, monkeypatch):
    monkeypatch.setitem(strategies.STRATEGIES, "mine", lambda: choosing(broken))
    told = refusal(blobs, tmp_path, monkeypatch, strategy="mine")
    assert re.search("^strategy 'mine, code [0-9a-f]{8}': select.* fails with KeyError", told)
    monkeypatch.setitem(strategies.STRATEGIES, "mine", lambda: least)
    assert "makes a function, and not a jaxdal.types.Strategy" in refusal(blobs, tmp_path, monkeypatch, strategy="mine")


@pytest.mark.parametrize(
    ("choose", "told"),
    [
        (lambda known, k: jnp.zeros(k, jnp.int32), "pick 0 occurs more than once"),
        (lambda known, k: jnp.flatnonzero(known >= 0, size=k).astype(jnp.int32), "is already known"),
        (lambda known, k: 200 + jnp.arange(k, dtype=jnp.int32), "pick 200 is outside the pool of 200 examples"),
    ],
)
def test_picks_that_cannot_be_bought_are_the_strategy_s(blobs, tmp_path, choose, told):
    """Which no tracing can see; no line of the round is written."""
    strategy = Strategy((), lambda key, known, k, memory: (choose(known, k), memory))
    with pytest.raises(InputError, match=f"strategy .* has picked what it may not: .*{told}.*top_unknown"):
        jaxdal.run(blobs, strategy, workdir=tmp_path, quiet=True, model="tiny", **SHORT)
    assert len((tmp_path / "journal.jsonl").read_text().splitlines()) == 1


def test_what_is_right_passes(blobs, tmp_path, monkeypatch):
    monkeypatch.setitem(models.MODELS, "mine", linear)
    monkeypatch.setitem(trainers.TRAINERS, "mine", trained_by())
    options = {"model": "mine", "trainer": "mine", "workdir": tmp_path, "quiet": True}
    result = jaxdal.run(blobs, choosing(least), **SHORT, **options)
    assert len(result.groups) == 2
    assert np.isfinite(result.groups[-1][0]["accuracy"])


@pytest.mark.parametrize("trainer", trainers.TRAINERS)
def test_jaxdals_trainers_with_a_model_of_one_s_own(blobs, monkeypatch, trainer):
    """All of them are traced, with helpers and phases."""
    monkeypatch.setitem(models.MODELS, "mine", lambda *_: models.MODELS["tiny"](*_))
    rules = settings.resolve(blobs, blobs, "random", model="mine", trainer=trainer, **SHORT)
    assert rules.own_code
    contracts.check(rules, strategies.build("random"), (8, 8, 1))


@pytest.mark.parametrize("name", ["albl", "bald", "learning_loss", "mcadl", "vaal"])
def test_strategies_with_memories_helpers_and_players_pass_as_values(blobs, name):
    """As tests/tiny.py has a stochastic head as well."""
    strategy = strategies.build(name)
    contracts.check(settings.resolve(blobs, blobs, strategy, model="tiny", **SHORT), strategy, (8, 8, 1))


def test_nothing_is_looked_at_twice_unless_it_has_changed(blobs, monkeypatch):
    looked: list[str] = []
    plain = contracts._check_model
    monkeypatch.setattr(contracts, "_check_model", lambda *given: looked.append(given[0].model) or plain(*given))
    monkeypatch.setattr(contracts, "_right", set())
    for classes in (4, 4, 5):
        monkeypatch.setitem(models.MODELS, "mine", lambda *given, classes=classes: linear(given[0], classes, given[2]))
        for seeds, name in (((0,), "margin"), ((1, 2), "badge")):
            rules = settings.resolve(blobs, blobs, name, model="mine", seeds=seeds, **SHORT)
            with contextlib.nullcontext() if classes == 4 else pytest.raises(InputError, match="float32"):
                contracts.check(rules, strategies.build(name), (8, 8, 1))
    assert len(looked) == 1 + 2, "the second model of four classes is the first one, and what is wrong stays wrong"


def test_jaxdals_own_are_not_looked_at(blobs, monkeypatch):
    monkeypatch.setattr(jax, "eval_shape", None)
    rules = settings.resolve(blobs, blobs, "badge", model="lenet", **SHORT)
    contracts.check(rules, strategies.build("badge"), (8, 8, 1))


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (lambda memory: memory[:2], r"memory of the shapes \[\(3,\)\], and gives back \[\(2,\)\]"),
        (lambda memory: memory.astype(jnp.float32), r"memory of the types \['int32'\], and gives back \['float32'\]"),
        (lambda memory: {"b": memory}, r"memory of the structure .*, and gives back .*'b'"),
    ],
)
def test_memories_that_the_next_round_could_not_take(blobs, tmp_path, monkeypatch, after, told):
    def select(key, known, k, memory, probs):
        return least(key, known, k, memory, probs)[0], after(memory)

    strategy = choosing(select, memory=lambda size: jnp.zeros(3, jnp.int32))
    assert re.search(told, refusal(blobs, tmp_path, monkeypatch, strategy=strategy))


def test_lists_are_as_good_as_tuples_and_arrays(blobs, tmp_path):
    """Of signals, and of picks."""
    strategy = choosing(
        lambda key, known, k, memory, p: ([*least(key, known, k, memory, p)[0]], memory), [signals.probs]
    )
    result = jaxdal.run(blobs, strategy, workdir=tmp_path, quiet=True, model="tiny", **SHORT)
    assert len(set(result.groups[0][0]["picks"])) == 10


def test_what_a_strategy_does_is_a_function(blobs, tmp_path, monkeypatch):
    for name in ("memory", "wrap", "select"):
        told = refusal(blobs, tmp_path, monkeypatch, strategy=choosing(least)._replace(**{name: ()}))
        assert told == f"{name} of a strategy is a function, and not ()"
    assert "its phases are no" in refusal(blobs, tmp_path, monkeypatch, trainer=trained_by(phases=()))


def test_code_that_fails_where_it_is_made_is_named_with_its_line(blobs, tmp_path, monkeypatch):
    where = r"fails with KeyError \(.*test_contracts.py, line \d+\): 'oh'"
    for options, told in [
        ({"model": lambda shape, classes, dtype: broken()}, r"^model 'mine': mine\(image_shape, num_classes, dtype\) "),
        ({"trainer": broken}, "^trainer 'mine' "),
        ({"strategy": choosing(least, memory=broken)}, r"^strategy .*: memory\(size\) "),
        ({"strategy": choosing(least, wrap=broken)}, r"^wrap\(trainer\) of a strategy "),
    ]:
        assert re.search(told + where, refusal(blobs, tmp_path, monkeypatch, **options))


def test_a_network_is_traced_in_its_own_precision(blobs, tmp_path, monkeypatch):
    def typed(image_shape, num_classes, dtype):
        change = answering(lambda logits, taps: (logits.astype(dtype), taps))
        return change(image_shape, num_classes, dtype)

    monkeypatch.setitem(models.MODELS, "mine", typed)
    for precision in ("f32", "bf16"):
        rules = settings.resolve(blobs, blobs, "margin", model="mine", precision=precision, **SHORT)
        with contextlib.nullcontext() if precision == "f32" else pytest.raises(InputError, match="logits: bfloat16"):
            contracts.check(rules, strategies.build("margin"), (8, 8, 1))


def test_a_device_out_of_memory_is_blamed_on_nobody():
    full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
    with pytest.raises(jax.errors.JaxRuntimeError) as error, calls.blamed("select"):
        raise full
    assert error.value is full
