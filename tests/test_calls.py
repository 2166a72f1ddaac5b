"""Names and calls from the command line: read, never evaluated."""

import contextlib

import pytest

from jaxdal import settings, strategies
from jaxdal.calls import parse_call, seeds
from jaxdal.errors import InputError
from jaxdal.strategies import STRATEGIES
from jaxdal.types import Strategy


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


def test_seeds_are_numbers_and_ranges() -> None:
    assert seeds("0") == [0]
    assert seeds("7, 2-4,10-10") == [7, 2, 3, 4, 10]
    assert seeds("-1") == [-1]  # for whoever looks at their range
    assert seeds("") == []
    for text in ("a", "1,,2", "1-", "-1-2", "1.5", "1-2-3"):
        with pytest.raises(InputError, match="are not whole numbers with commas between them, or ranges such as 0-4"):
            seeds(text)
    assert len(seeds("0-999")) == 1000
    for text, told in (("4-2", "no seed is in 4-2"), ("1,0-4000000000", "more than 1,000 seeds are in 0-4000000000")):
        with pytest.raises(InputError, match=f"--seeds={text}: {told}"):
            seeds(text)
