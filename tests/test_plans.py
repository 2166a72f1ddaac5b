"""Which runs every table and figure needs, against experiments.md of the paper's protocol; nothing is trained."""

import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # the experiments are not part of the package

from experiments import options as flags
from experiments import published
from experiments.estimate import hours
from experiments.estimate import told as in_words
from experiments.plans import PLANS, SIZES, Options, Run, landing
from experiments.records import expected, resolved
from experiments.scales import SCALES, short_mixmatch
from jaxdal import data
from jaxdal.budgets import Budget
from jaxdal.strategies import build

FULL, SMOKE, HALF = Options(), Options(scale="smoke"), Options(scale="half")


def counted(name: str, options: Options = FULL) -> int:
    return len(PLANS[name](options))


def some(name: str, options: Options = FULL, **fields) -> list[Run]:
    return [run for run in PLANS[name](options) if all(getattr(run, key) == value for key, value in fields.items())]


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("table1", 0),
        ("table2", 5 * 5),  # data sets, seeds
        ("table3", 19 * 5 * 5),
        ("table4", 19 * 5 * 5),
        ("table5", 3 * 5 * 5),
        ("table6", 0),
        ("fig2", 4 * 5),
        ("fig3", 4),
        ("fig4", 2 * 7 * 5),  # data sets, starts, seeds
        ("fig5", 2 * 5 * 5),  # strategies, shares, seeds
        ("fig6", 4 * 4 * 5),  # strategies, query sizes, seeds
        ("fig7", 19 * 4 * 5),
        ("fig8", 5 * (5 + 4) * 5),  # strategies, starts and query sizes, seeds
    ],
)
def test_number_of_runs_at_full_scale(name, runs):
    plan = PLANS[name](FULL)
    assert len(plan) == len(set(plan)) == runs
    assert {run.seed for run in plan} <= {0, 1, 2, 3, 4}
    assert all(run.preset == "paper" and run.trainer is None and run.eval_every == 0 for run in plan)


def test_what_shares_its_runs():
    grid = set(PLANS["table3"](FULL))
    assert set(PLANS["table4"](FULL)) == grid
    assert set(PLANS["table5"](FULL)) < grid
    assert set(PLANS["fig7"](FULL)) == {run for run in grid if run.dataset != "cifar100"}
    assert set(PLANS["fig3"](FULL)) == {run for run in PLANS["fig2"](FULL) if run.seed == 0}


def test_the_19_methods():
    made_for = {name: build(name).trainer for name in published.METHODS}
    assert Counter(made_for.values()) == {"supervised": 14, "waal": 1, "mixmatch": 4}
    assert [name for name in made_for if made_for[name] == "supervised"] == list(published.SAL)
    trained = Counter(build(run.strategy).trainer for run in PLANS["table3"](FULL))
    assert (trained["waal"], trained["mixmatch"]) == (25, 100), "the semi-supervised part of Table 3"


@pytest.mark.parametrize(
    ("dataset", "budget", "rounds", "epochs"),
    [
        ("mnist", (1200, 1200, 12000), 10, 50),
        ("cifar10", (5000, 2500, 35000), 13, 150),
        ("cifar100", (5000, 2500, 35000), 13, 150),
        ("gtsrb", (3920, 1960, 27446), 13, 150),  # rounding leaves 6 images, for which there is no 14th round
        ("tiny_imagenet", (10000, 5000, 70000), 13, 150),
    ],
)
def test_budgets_of_the_grid(dataset, budget, rounds, epochs):
    """With shares in floating point int((0.7 - 0.1) / 0.05) is 11, and a round would be missing."""
    assert int((0.7 - 0.1) / 0.05) == 11
    runs = some("table3", dataset=dataset)
    assert {tuple(run.budget) for run in runs} == {budget}
    assert {run.budget.rounds for run in runs} == {rounds}
    assert {run.epochs for run in runs} == {epochs}


def test_full_data_is_one_round_with_all_labels():
    for run in PLANS["table2"](FULL):
        assert run.strategy == "random"
        assert run.budget.labels == [SIZES[run.dataset].pool]


def test_case_study():
    for run in PLANS["fig2"](FULL):
        assert run.budget.labels == [1200, 1800]
        assert run.save_weights
        assert run.dataset == "mnist"
    assert {run.strategy for run in PLANS["fig2"](FULL)} == {name for name in published.SSAL if name != "waal"}


def test_starts_land_on_one_end():
    mnist = {run.n_start: run for run in some("fig4", dataset="mnist")}
    assert list(mnist) == [300, 600, 1200, 2400, 3600, 4800, 6000]
    assert {run.budget.labels[-1] for run in mnist.values()} == {6000}
    assert mnist[300].budget == Budget(300, 570, 6000), "9.5 queries of 1 % become 10 of 0.95 %"
    assert {run.n_query for start, run in mnist.items() if start > 300} == {600}
    assert [run.budget.rounds for run in mnist.values()] == [11, 10, 9, 7, 5, 3, 1]
    cifar = {run.n_start: run for run in some("fig4", dataset="cifar10")}
    assert list(cifar) == [500, 2500, 5000, 7500, 10000, 12500, 15000]
    assert [run.budget.labels[-1] for run in cifar.values()] == [14996, *[15000] * 6]
    assert {run.strategy for run in PLANS["fig4"](FULL)} == {"ssl_diff2aug_direct"}


def test_shares_of_the_pool():
    runs = some("fig5", seed=0, strategy="ssl_random")
    assert [run.pool_share for run in runs] == ["20%", "40%", "60%", "80%", None]
    assert [run.pool for run in runs] == [10000, 20000, 30000, 40000, 50000]
    assert runs[1].pool - runs[1].n_start == 15000, "the example of the paper's section 5.2"
    assert {tuple(run.budget.labels) for run in runs} == {(5000, 7500, 10000)}


def test_query_sizes():
    for name in ("fig6", "fig8"):
        runs = [run for run in some(name, seed=0) if (run.n_start, run.n_end) == (5000, 25000)]
        rounds = {run.n_query: run.budget.rounds for run in runs}
        assert rounds == {2500: 9, 5000: 5, 10000: 3, 20000: 2}
        assert {run.budget.labels[-1] for run in runs} == {25000}


def test_starts_of_supervised_methods():
    runs = [run for run in some("fig8", seed=0, strategy="badge") if run.budget.labels[-1] < 25000]
    assert [run.n_start for run in runs] == [500, 1000, 2500, 5000, 10000]
    assert [run.budget.rounds for run in runs] == [9, 9, 8, 7, 5], "9 as in the authors' raw runs from 1 and 2 %"
    assert [run.budget.labels[-1] for run in runs] == [19996, 20000, 20000, 20000, 20000]


@pytest.mark.parametrize("start", ["1%", "3%", "7%", "10%", "33%", "39%", "40%"])
@pytest.mark.parametrize("query", ["1%", "5%", "7%", "40%"])
def test_landing_is_as_near_as_equal_queries_can_be(start, query):
    budget = landing("gtsrb", start, query, "40%")
    end = 39209 * 40 // 100
    assert budget.labels[-1] == budget.n_end
    assert 0 <= end - budget.n_end < max(1, budget.rounds - 1)
    asked = Fraction(end - budget.n_start, 39209 * int(query[:-1]) // 100)
    assert budget.rounds - 1 == (0 if start == "40%" else max(1, round(asked)))


def test_smoke_is_small_and_on_digits():
    for name in PLANS:
        for run in PLANS[name](SMOKE):
            assert (run.dataset, run.seed, run.epochs) == ("digits", 0, 1)
            assert run.budget.rounds <= 3
    assert counted("table3", SMOKE) == 19
    assert counted("fig4", SMOKE) == counted("table2", SMOKE) * 2 == 2
    assert counted("fig6", SMOKE) == 2
    assert counted("fig8", SMOKE) == 2 + 2
    for name in ("fig4", "fig6"):
        assert len({run.budget.labels[-1] for run in PLANS[name](SMOKE)} - {430}) == 1, "equal ends, but for rounding"
    (asked,) = {run.dataset for run in PLANS["fig5"](SMOKE._replace(datasets=("cifar10",)))}
    assert asked == "cifar10", "a data set that is asked for is not replaced"


def test_half_has_half_the_epochs_and_on_the_grid_half_the_rounds():
    for dataset, rounds, epochs in [("mnist", 5, 25), ("cifar10", 7, 75), ("gtsrb", 7, 75)]:
        runs = some("table3", HALF, dataset=dataset)
        assert {(run.budget.rounds, run.epochs) for run in runs} == {(rounds, epochs)}
    for name in ("fig4", "fig5", "fig6", "fig8"):
        full, half = PLANS[name](FULL), PLANS[name](HALF)
        trainers = [short_mixmatch(run) if run.strategy.startswith("ssl_") else None for run in half]
        changed = zip(full, trainers, strict=True)
        assert [run._replace(epochs=run.epochs // 2, trainer=trainer) for run, trainer in changed] == half


@pytest.mark.parametrize("scale", ["half", "cpu"])
@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_a_short_mixmatch_ends_at_the_weight_of_the_full_one(scale, dataset):
    """And its average goes as far back, as a share of the steps; both options are round numbers."""
    (whole,), (run,) = (
        some("table3", Options(scale=name, datasets=(dataset,)), strategy="ssl_random", seed=0)
        for name in ("full", scale)
    )
    assert whole.trainer is None
    options = dict(option.split("=") for option in run.trainer.removeprefix("mixmatch(")[:-1].split(", "))
    assert run.epochs / int(options["ramp_epochs"]) == pytest.approx(whole.epochs / 200, rel=0.07)
    assert run.epochs * (1 - float(options["average"])) == pytest.approx(whole.epochs * 0.001, rel=0.25)


def test_cpu_is_half_with_few_passes_over_the_unlabelled_images():
    of = {run.strategy: run for run in PLANS["table3"](Options(scale="cpu", datasets=("mnist",)))}
    for run in some("table3", HALF, seed=0, dataset="mnist"):
        if run.strategy in published.SAL:
            assert of[run.strategy] == run, "the journals of one are those of the other"
    assert len(of) == 19
    assert {(of[name].epochs, of[name].trainer) for name in published.SSAL} == {
        (4, None),
        (4, "mixmatch(average=0.99, ramp_epochs=16)"),
    }
    assert of["waal"].trainer is None
    assert {run.trainer for run in PLANS["fig2"](Options(scale="cpu", preset="clean"))} == {"mixmatch(average=0.99)"}
    assert {run.trainer for run in PLANS["fig6"](Options(scale="cpu", datasets=("cifar10",)))} == {
        "mixmatch(average=0.96, ramp_epochs=5)"
    }
    assert {run.way for name in PLANS for run in PLANS[name](Options(scale="cpu"))} == {()}
    assert {run.dataset for name in PLANS for run in PLANS[name](Options(scale="cpu"))} == {"mnist"}
    assert [run.n_start for run in PLANS["fig4"](Options(scale="cpu", datasets=("mnist",)))] == [300, 6000]


def test_table_3_at_scale_cpu_is_what_was_measured():
    """RESULTS.md: another plan would not find the journals in experiments/results/mnist_cpu."""
    mixmatch = "mixmatch(average=0.99, ramp_epochs=16)"
    few = {"waal": None, **dict.fromkeys((name for name in published.SSAL if name != "waal"), mixmatch)}
    measured = [Run("mnist", name, 0, 1200, 2400, 12000, 25) for name in published.SAL]
    measured += [Run("mnist", name, 0, 1200, 2400, 12000, 4, trainer=trainer) for name, trainer in few.items()]
    runs = PLANS["table3"](Options(scale="cpu"))
    assert len(runs) == len(set(measured)) == 19
    assert set(runs) == set(measured)


def test_a_scale_has_options_for_trainers_whatever_their_names(monkeypatch):
    short = SCALES["cpu"]._replace(trainers={"waal": lambda run: f"waal(epochs={run.epochs})"})
    monkeypatch.setitem(SCALES, "cpu", short)
    trainers = {run.strategy: run.trainer for run in PLANS["table3"](Options(scale="cpu"))}
    assert {name: trainer for name, trainer in trainers.items() if trainer} == {"waal": "waal(epochs=4)"}
    monkeypatch.setitem(SCALES, "cpu", short._replace(passes=None))
    assert {run.trainer for run in PLANS["table3"](Options(scale="cpu"))} == {None, "waal(epochs=25)"}


@pytest.mark.parametrize(("dataset", "mirror", "budget"), [
    ("gtsrb", False, (3920, 1960, 11762)), ("cifar10", True, (5000, 2500, 15000)),
])  # fmt: skip
def test_a_cpu_has_lenet_in_place_of_a_resnet(dataset, mirror, budget):
    runs = PLANS["table3"](Options(scale="cpu", datasets=(dataset,)))
    assert len(runs) == 19
    assert {tuple(run.budget) for run in runs} == {budget}
    assert {run.epochs for run in runs} == {4, 10}
    for run in runs:
        found = resolved(run)
        told = (found.model, found.recipe.batch, found.recipe.learning_rate, found.crop, found.flip)
        if run.strategy in published.SAL:  # the trainers of others have a batch and a rate of their own
            assert told == ("lenet", 128, 0.03, 0, mirror)
        assert (told[0], *told[3:]) == ("lenet", 0, mirror)


def test_another_network_and_what_it_takes():
    runs = PLANS["table3"](Options(datasets=("cifar10",), model="lenet", batch=64, seeds=(0,)))
    assert {run.way for run in runs} == {(("model", "lenet"), ("batch", 64))}
    assert {resolved(run).model for run in runs} == {"lenet"}
    usual = PLANS["table3"](Options(datasets=("cifar10",), seeds=(0,)))
    assert not {expected(run) for run in runs} & {expected(run) for run in usual}, "other journals"
    (random, *_) = PLANS["table5"](Options(datasets=("mnist",), mirror=False))
    assert not resolved(random).flip
    of_scale = Options(datasets=("gtsrb",), scale="cpu", learning_rate=0.1, model="resnet18_thin")
    assert dict(PLANS["table3"](of_scale)[0].way) == {
        "model": "resnet18_thin", "batch": 128, "learning_rate": 0.1, "crop": 0, "mirror": False
    }  # fmt: skip


def test_points_of_a_sweep():
    starts = [run.n_start for run in PLANS["fig4"](Options(scale="cpu", datasets=("mnist",), points="all"))]
    assert starts == [300, 600, 1200, 2400, 3600, 4800, 6000]
    assert [run.n_start for run in PLANS["fig4"](Options(datasets=("mnist",), points="ends", seeds=(0,)))] == [
        300,
        6000,
    ]


def test_options_choose():
    options = Options(("digits", "mnist"), ("badge", "bald(draws=20)"), (7, 9), preset="clean", best=True, pack=1)
    runs = PLANS["table3"](options)
    assert [run.strategy for run in runs[:6:2]] == ["random", "badge", "bald(draws=20)"], "random is always there"
    assert len(runs) == 2 * 3 * 2
    assert {(run.seed, run.preset, run.eval_every, run.pack) for run in runs} == {
        (7, "clean", 1, 1), (9, "clean", 1, 1)
    }  # fmt: skip
    assert {run.strategy for run in PLANS["fig8"](options)} == {"badge", "bald(draws=20)"}
    assert {run.dataset for run in PLANS["fig2"](options)} == {"digits", "mnist"}


def test_sizes_are_those_of_the_data_sets():
    digits = data.load("digits")
    assert SIZES["digits"] == (len(digits.train_x), len(digits.test_x), digits.train_x.shape[1:])
    assert set(SIZES) == set(data.TABLE)
    assert {SCALES[name].seeds for name in ("full", "half")} == {(0, 1, 2, 3, 4)}


def test_settings_of_a_planned_run_are_those_of_a_real_one():
    run = PLANS["table3"](SMOKE)[0]
    from jaxdal import settings

    real = settings.resolve(
        "digits", data.load("digits"), run.strategy, n_start="5%", n_query="5%", n_end="15%", epochs=1
    ).config()
    planned = resolved(run).config()
    assert real.pop("fingerprint") != planned.pop("fingerprint")
    assert real.pop("n_end") - planned.pop("n_end") == 2, "215 of which 213 are used"
    assert real == planned


def test_hours_are_those_of_the_measured_speeds():
    """A CIFAR-10 run: 2.7 minutes supervised and packed, 14 by MixMatch; 3.3 and 39 M training images."""

    def minutes(dataset: str, strategy: str) -> float:
        return 60 * hours(some("table3", dataset=dataset, strategy=strategy, seed=0))

    assert minutes("cifar10", "random") == pytest.approx(2.7, abs=0.1)
    assert minutes("cifar10", "ssl_random") == pytest.approx(14, abs=0.1)
    assert 60 * 2.2e6 * minutes("mnist", "random") == pytest.approx(3.3e6, rel=0.02)
    assert 60 * 240e3 * minutes("cifar10", "random") == pytest.approx(39e6, rel=0.02)


@pytest.mark.parametrize(
    ("length", "told"),
    [
        (0, "0 minutes"), (0.001, "less than a minute"), (1 / 60, "1 minute"), (0.2, "12 minutes"), (1, "1.0 hours"),
        (34.56, "34.6 hours"),
    ],
)  # fmt: skip
def test_hours_in_words(length, told):
    assert in_words(length) == told


def test_published_table_3_is_as_the_text_counts_it():
    worse = {
        dataset: sum(1 for name in published.SAL if (published.API[name][dataset] or 0) < 0)
        for dataset in ("mnist", "cifar10", "gtsrb")
    }
    assert worse == {"mnist": 6, "cifar10": 3, "gtsrb": 6}, "6/14, 3/14, 6/14 (section 4.1)"
    for dataset, gain in [("mnist", 1.66), ("cifar10", 3.88), ("gtsrb", 0.85)]:
        best = [
            max(published.API[name][dataset] or 0 for name in kind if name != "waal")
            for kind in (published.SSAL, published.SAL)
        ]
        assert best[0] - best[1] == pytest.approx(gain, abs=1e-9)
    for dataset, (_, ratio) in published.IMPROVEMENT.items():
        direct, random = (published.API[name][dataset] for name in ("ssl_diff2aug_direct", "ssl_random"))
        if direct is not None and random is not None:
            assert direct / random == pytest.approx(ratio, abs=0.008)
    assert [sum(row[dataset] is None for row in published.API.values()) for dataset in published.DATASETS] == [
        0, 0, 0, 0, 4
    ]  # fmt: skip


def test_flags():
    parser = flags.parser("x", None)
    given = flags.parse(parser, ["--strategies=badge,bald(draws=20),vaal(iterations=3)", "--seeds=0-2,7", "--best"])
    assert flags.options(given) == Options(
        strategies=("badge", "bald(draws=20)", "vaal(iterations=3)"), seeds=(0, 1, 2, 7), best=True
    )
    some = flags.parse(parser, ["--strategies=waal,ssl_*,ssl_random,vaal(widths=[3])"])
    ssl = ["ssl_random", "ssl_consistency", "ssl_diff2aug_direct", "ssl_diff2aug_kmeans"]
    assert sorted(some.strategies) == sorted(["waal", *ssl, "vaal(widths=[3])"])
    trained = ["--points=all", "--model=lenet", "--batch=64", "--learning_rate=0.03", "--nomirror"]
    assert flags.options(flags.parse(parser, trained)) == Options(
        points="all", model="lenet", batch=64, learning_rate=0.03, mirror=False
    )
    for each in (given, flags.parse(parser, trained)):
        again = flags.parse(parser, flags.told(each))
        assert flags.options(again) == flags.options(each)
    for wrong in ("--datasets=mnits", "--strategies=bagde", "--scale=big", "--seeds=a", "--seeds=4-0", "--map=pca"):
        with pytest.raises(SystemExit):
            parser.parse_args([wrong])


def test_scales_do_not_overwrite_each_other():
    parser = flags.parser("x", None)
    folders = {scale: flags.parse(parser, [f"--scale={scale}"]).results for scale in SCALES}
    names = {"full": "paper", "half": "half", "cpu": "cpu", "smoke": "smoke"}
    assert folders == {scale: Path("runs", name) for scale, name in names.items()}
    assert flags.parse(parser, ["--scale=smoke", "--results=here"]).results == Path("here")
