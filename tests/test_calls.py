"""Names and calls from the command line: read, never evaluated."""

import contextlib
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxdal import run, settings, signals, strategies, trainers
from jaxdal.calls import parse_call
from jaxdal.errors import InputError
from jaxdal.strategies import STRATEGIES
from jaxdal.types import Signal, Strategy


def bald(draws: int = 10, *, rates: tuple[float, ...] = (0.5,), where: str | None = None):
    return draws, rates, where


def vaal(latent: int):
    return latent


TABLE = {"bald": bald, "vaal": vaal, "core_set": lambda: "core"}


def refusal(text: str) -> str:
    with pytest.raises(InputError) as error:
        parse_call(text, TABLE, "strategy")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("bald", (10, (0.5,), None)),
        ("  bald ", (10, (0.5,), None)),
        ("bald()", (10, (0.5,), None)),
        ("bald(20)", (20, (0.5,), None)),
        ("bald(draws=20)", (20, (0.5,), None)),
        ("bald( draws = -20, )", (-20, (0.5,), None)),
        ("bald(5, rates=(0.1, 1e-3), where='head')", (5, (0.1, 1e-3), "head")),
        ("bald(rates=[0.1], where=None)", (10, [0.1], None)),
        ("bald(draws=True)", (True, (0.5,), None)),
        ("vaal(32)", 32),
        ("core_set", "core"),
    ],
)
def test_names_and_calls(text, made):
    assert parse_call(text, TABLE, "strategy") == made


@pytest.mark.parametrize(
    ("text", "near"), [("vall", "vaal"), ("coreset", "core_set"), ("blad(3)", "bald"), ("baldd", "bald")]
)
def test_the_nearest_name_is_offered(text, near):
    name = text.partition("(")[0]
    assert refusal(text) == f"unknown strategy {name!r}: did you mean {near!r}? there are bald, core_set, vaal"


@pytest.mark.parametrize(
    ("text", "near"),
    [("core-set", "core_set"), ("BALD", "bald"), ("Core Set", "core_set"), ("core.set", "core_set")],
)
def test_the_nearest_name_is_offered_for_other_spellings(text, near):
    assert f"did you mean {near!r}?" in refusal(text)


def test_all_names_are_listed_if_none_is_near():
    assert refusal("xyz") == "unknown strategy 'xyz': there are bald, core_set, vaal"


@pytest.mark.parametrize("text", ["", "  ", "bald(", "bald)", "bald(draws=)", "bald(draws=1 2)", "bald; vaal", "1"])
def test_what_is_no_call(text):
    assert refusal(text)


@pytest.mark.parametrize("text", ["bald()()", "bald(1).x", "bald(1)(2)", "[bald(1)]", "not bald(1)", "lambda: bald(1)"])
def test_expressions_are_no_calls(text):
    assert refusal(text) == f"strategy {text!r} is neither a name nor a call such as name(option=1)"


HOSTILE = [
    "bald(__import__('os'))",
    "bald(draws=__import__('os').system('touch {trace}'))",
    "bald(open('{trace}', 'w'))",
    "bald(draws=[open('{trace}', 'w')])",
    "bald(where=f'{{1}}')",
    "bald(draws=print)",
    "bald(draws=1 if 1 else 2)",
    "bald(draws=lambda: 1)",
    "bald(draws=2 * 10)",
    "bald(draws=[n for n in (1, 2)])",
    "bald(*[1])",
    "bald(*(1,))",
    "bald(**dict(draws=1))",
    "bald(draws={{**{{}}}})",
    "bald(draws={{[1]: 2}})",
    "bald(draws={{[1]}})",
    "bald(draws=bald)",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_options_are_never_evaluated(text, tmp_path):
    text = text.format(trace=tmp_path / "trace")
    assert refusal(text) == f"the options of strategy {text!r} must be plain numbers, texts, tuples or lists"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text", ["__import__('os').system('touch {trace}')", "open('{trace}', 'w')", "(bald, open)[1]()"]
)
def test_no_name_outside_the_table_is_called(text, tmp_path):
    assert refusal(text.format(trace=tmp_path / "trace"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("bald(draw=20)", "got an unexpected keyword argument 'draw'; it is bald(draws: int = 10, *, rates: "),
        ("bald(1, 2)", "too many positional arguments; it is bald(draws: int = 10, *, rates: "),
        ("bald(1, draws=2)", "multiple values for argument 'draws'; it is bald(draws: int = 10, *, rates: "),
        ("bald(**{'draws': 1})", "got an unexpected keyword argument '**'; it is bald(draws: int = 10, *, rates: "),
        ("vaal", "missing a required argument: 'latent'; it is vaal(latent: int)"),
        ("core_set(1)", "too many positional arguments; it is core_set()"),
    ],
)
def test_wrong_options_name_the_signature(text, told):
    assert refusal(text).startswith(f"strategy {text!r}: {told}")


def test_an_option_given_twice_is_refused():
    assert refusal("bald(draws=1, draws=2)")


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1e39", "99999999999", "-2147483648", "(0.5, [1e999])"])
def test_numbers_that_no_program_can_compute_with_are_refused(number):
    told = refusal(f"bald(rates={number})")
    assert told == f"strategy 'bald(rates={number})' has a number that is beyond those of 32 bits"
    assert parse_call("bald(2147483647, rates=(3e38, True))", TABLE, "strategy") == (2147483647, (3e38, True), None)


@pytest.mark.parametrize("depth", [90, 300, 5_000, 100_000])
@pytest.mark.parametrize(("before", "after"), [("[", "]"), ("(", ",)"), ("-", "")])
def test_deep_nesting_is_read_or_refused(before, after, depth):
    with contextlib.suppress(InputError):
        parse_call(f"bald(draws={before * depth}1{after * depth})", TABLE, "strategy")


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_needs_no_options(name):
    assert isinstance(strategies.build(name), Strategy)
    assert isinstance(strategies.build(f" {name}() "), Strategy)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_found_with_a_slip(name):
    with pytest.raises(InputError, match=f"unknown strategy '{name}x': did you mean '{name}'"):
        strategies.build(name + "x")


def test_the_command_s_example_of_an_attack_is_refused():
    with pytest.raises(InputError, match="must be plain numbers, texts, tuples or lists"):
        strategies.build("margin(__import__('os'))")


def test_other_names_are_checked_in_the_same_way(blobs):
    with pytest.raises(InputError, match="unknown trainer 'supervise': did you mean 'supervised'"):
        settings.resolve(blobs, blobs, "random", trainer="supervise")
    with pytest.raises(InputError, match="unknown preset 'papper': did you mean 'paper'"):
        settings.resolve(blobs, blobs, "random", preset="papper")


# Strategies that are values: their name in the configuration tells all options.


def first(key, known, k, memory, *, share: float, order: str = "up"):
    return known[: int(share * k)], memory


def closing_over(share: float):
    def inner(known, k):
        return known[: int(share * k)]

    @jax.jit
    def select(key, known, k, memory):
        return inner(known, k), memory

    return select


class Buyer:
    """Options in an object."""

    def __init__(self, share: float) -> None:
        self.share = share

    def select(self, key, known, k, memory):
        """Buy the first ones."""
        return known[: int(self.share * k)], memory

    __call__ = select


def named(select, **more) -> str:
    return settings._name(Strategy(needs=(), select=select, **more))


@pytest.mark.parametrize(
    "make",
    [
        lambda share: partial(first, share=share),
        lambda share: partial(partial(first, order="down"), share=share),
        lambda share: jax.jit(partial(first, share=share)),
        closing_over,
        lambda share: partial(closing_over(share), k=3),
        lambda share: Buyer(share).select,
        lambda share: jax.jit(Buyer(share).select),
    ],
)
def test_a_strategy_of_one_s_own_is_named_with_its_options(make):
    one, same, other = (named(make(share)) for share in (0.25, 0.25, 0.5))
    assert "share=0.25" in one
    assert one == same != other
    assert one.startswith("custom test_calls.")
    assert " at 0x" not in one, "another name in every process"


def test_so_are_the_options_of_what_it_does_to_its_trainer():
    def change(trainer, share):
        return trainer

    names = [named(closing_over(1.0), wrap=partial(change, share=share)) for share in (0.25, 0.5)]
    assert [f"change(share={share})" in name for share, name in zip((0.25, 0.5), names, strict=True)] == [True, True]


def doubled(score):
    return 2 * score


FACTOR = 1.0


def test_strategies_that_do_something_else_have_other_names(monkeypatch):
    def enclosing(options):
        return lambda key, known, k, memory: (options, memory)

    def of_global(key, known, k, memory):
        return doubled(known) * FACTOR, memory

    def per_batch(keys, network, variables, aux, x):
        return x

    pairs = [
        (named(lambda key, known, k, memory: (known, memory)), named(lambda key, known, k, memory: (-known, memory))),
        *(
            (named(enclosing(one)), named(enclosing(other)))
            for one, other in [
                (np.arange(3), np.arange(3)[::-1]), (jax.numpy.zeros(2), jax.numpy.ones(2)), ({"a": 1}, {"a": 2}),
                (None, True), (jax.random.key(0), jax.random.key(1)), (Buyer(0.5), Buyer(0.25)), ({1, 2}, {1, 3}),
            ]
        ),
        (named(first), named(first, memory=lambda size: 0)),
        (named(first), named(first, wrap=lambda trainer: trainer)),
    ]  # fmt: skip
    for one, other in pairs:
        assert one != other
    asked = [settings._name(Strategy((Signal("s", one),), first)) for one in (per_batch, lambda *rest: 0)]
    assert asked[0] != asked[1]
    before = named(of_global)
    assert before == named(of_global)
    monkeypatch.setitem(globals(), "FACTOR", 2.0)
    with_factor = named(of_global)
    monkeypatch.setitem(globals(), "doubled", lambda score: 3 * score)
    assert len({before, with_factor, named(of_global)}) == 3


def test_every_strategy_given_as_a_value_has_the_same_name_in_every_process():
    told = "import sys; sys.path.insert(0, 'tests'); from test_calls import values; print(values())"
    names = [
        subprocess.run([sys.executable, "-c", told], env=os.environ | {"PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"},
                       capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent).stdout
        for seed in "12"
    ]  # fmt: skip
    assert names[0] == names[1] != ""
    assert " at 0x" not in names[0]


def values() -> list[str]:
    """The names of strategies that are values, written here or in jaxdal."""
    mine = [first, lambda key, known, k, memory: (known in {"a", "b", "c"}, memory), Buyer(0.5).select]
    return [settings._name(make()) for make in STRATEGIES.values()] + [named(select) for select in mine]


def test_an_object_that_hides_its_options_is_refused():
    with pytest.raises(InputError, match=r"a strategy is made of functions: .*Buyer object .* is none"):
        named(Buyer(0.5))


def test_seeds_may_be_an_array_of_whole_numbers(blobs):
    rules = settings.resolve(blobs, blobs, "random", seeds=np.arange(3))
    assert rules.seeds == (0, 1, 2)
    assert settings.default_workdir(rules) == settings.default_workdir(rules._replace(seeds=(0, 1, 2)))
    for seeds, told in [([0.5], "0.5 is not a whole number"), (np.arange(0), "names no seed"), (["1"], "1 is not a")]:
        with pytest.raises(InputError, match=f"--seeds:? {told}"):
            settings.resolve(blobs, blobs, "random", seeds=seeds)


def test_numbers_of_numpy_are_the_same_experiment(blobs):
    whole = {"epochs": 2, "batch": 16, "crop": 1, "eval_every": 1, "pack": 2}
    plain: dict[str, Any] = {**whole, "learning_rate": 0.5, "mean": [0.5]}
    drawn = {name: np.asarray(value)[()] for name, value in plain.items()}
    assert type(drawn["epochs"]) is np.int64
    expected, found = (settings.resolve(blobs, blobs, "random", **options) for options in (plain, drawn))
    assert json.dumps(found.config()) == json.dumps(expected.config())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"strategy": lambda: None}, "is neither; call it, if it makes one"),
        ({"strategy": None}, "a strategy is a name or a jaxdal.Strategy, and None is neither$"),
        ({"strategy": Strategy(("probs",), first)}, "a tuple of signals, such as"),
        ({"strategy": Strategy(signals.probs, first)}, "a tuple of signals, such as"),
        ({"trainer": trainers.build("supervised")}, "trainers of one's own are added to a table"),
        ({"model": first}, "models of one's own are added to a table"),
        ({"epoch": 3}, "unknown option 'epoch': did you mean 'epochs'"),
        ({"epochs": 2.5}, "--epochs=2.5 is not a whole number"),
        ({"batch": "32"}, "--batch=32 is not a whole number"),
        ({"learning_rate": "0.1"}, "--learning_rate=0.1 is not a positive number"),
        ({"learning_rate": True}, "--learning_rate=True is not a positive number"),
        ({"mirror": "no"}, "mirror='no' is neither True nor False"),
        ({"mirror": 1}, "mirror=1 is neither True nor False"),
        ({"preset": None}, "preset=None is no name"),
        ({"precision": ["f32"]}, r"precision=\['f32'\] is no name"),
        ({"mean": 0.5}, "--mean=0.5 is no list of numbers, one for each channel"),
        ({"std": ["0.5"]}, r"--std=\['0.5'\] is no list of numbers"),
        ({"milestones": 0.5}, "--milestones=0.5 is no list of numbers, such as 0.5,0.8"),
        ({"seeds": 3}, r"--seeds=3 is no list of seeds: one seed is \(3,\)"),
        ({"dataset": ([[1]], [0])}, "what jaxdal.from_arrays gives, got tuple"),
    ],
)
def test_values_of_python_that_are_refused_before_anything_starts(blobs, tmp_path, options, told):
    with pytest.raises(InputError, match=told):
        run(**{"dataset": blobs, "strategy": "random", "workdir": tmp_path / "none", **options})
    assert not (tmp_path / "none").exists()


def test_a_batch_of_own_images_has_one_learning_rate_be_it_stated_or_chosen(blobs):
    def rate(**options):
        rules = settings.resolve(blobs, blobs, "random", n_start=20, n_query=10, n_end=30, **options)
        return rules.recipe.batch, rules.recipe.learning_rate

    batch, chosen = rate()
    most, highest = rate(batch=4096)
    assert (batch, most) == (16, 4096)
    assert rate(batch=batch) == (batch, chosen)
    assert chosen < highest
    assert rate(batch=8) == (8, pytest.approx(chosen / 2**0.5))
    assert rate(batch=12) == (12, pytest.approx(chosen * (12 / 16) ** 0.5))
    assert rate(batch=8, learning_rate=0.3) == (8, 0.3)
    table = settings.resolve("digits", blobs, "random", n_start=20, n_query=10, n_end=30)
    assert table.recipe.learning_rate == settings.resolve("digits", blobs, "random", batch=8).recipe.learning_rate


def test_a_tilde_is_the_users_home(blobs, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    rules = settings.resolve(blobs, blobs, "random")
    told = [settings.folders(given, [rules], "workdirs") for given in ("~/runs", ["~/runs"])]
    assert [str(folder) for (folder,) in told] == ["/home/somebody/runs/random", "/home/somebody/runs"]


@pytest.mark.parametrize(
    ("model", "platform", "pack"), [("lenet", "cpu", 8), ("lenet", "gpu", 32), ("resnet18_thin", "cpu", 1)]
)
def test_how_many_runs_train_at_once_is_chosen_by_model_and_device(blobs, model, platform, pack):
    assert settings.resolve(blobs, blobs, "random", model=model, platform=platform).pack == pack
    assert settings.resolve(blobs, blobs, "random", model=model, platform=platform, pack=3).pack == 3
