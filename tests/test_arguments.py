"""Values of Python that `run` is given: alike if they mean the same, refused with a sentence if they mean nothing."""

import json
from typing import Any

import numpy as np
import pytest

from jaxdal import naming, remarks, run, run_together, settings, signals, trainers
from jaxdal.errors import InputError
from jaxdal.types import Strategy


def first(key, known, k, memory):
    return known[:k], memory


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
        ({"batch": "32"}, "--batch='32' is not a whole number"),
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


def test_options_that_are_not_for_users_and_shares_that_are_numbers(blobs, tmp_path):
    for options, told in [
        ({"platform": "gpu"}, "unknown option 'platform'"), ({"fingerprint": "x"}, "unknown option 'fingerprint'"),
        ({"pool_share": 0.4}, "--pool_share=0.4 is not a share such as 40%"), ({"epochs": 10**10}, "more than can be"),
        ({"strategy": ["random", "margin"]}, "run_together takes several"), ({"save_weight": True}, "'save_weights'"),
        ({"workdirs": tmp_path}, "'workdirs': did you mean 'workdir'.* strategy, .* trainer, workdir$"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=told):
            run(**{"dataset": blobs, "strategy": "random", "workdir": tmp_path / "none", **options})
    with pytest.raises(InputError, match="takes a list of strategies"):
        run_together(blobs, "random,margin", workdirs=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_brackets_around_a_name_change_nothing(blobs):
    for text in ("(margin)", "((margin))()", " (margin) "):
        assert naming.row(text) == "margin"
        assert settings.resolve(blobs, blobs, text).strategy == text
    assert settings.resolve(blobs, blobs, "margin", trainer="(supervised)").own_trainer == ""


def test_a_long_name_in_many_bytes_is_a_folder_all_the_same(blobs):
    rules = settings.resolve(blobs, blobs, "margin")._replace(dataset="folder:" + 80 * "\u6f22")
    assert len(settings.default_workdir(rules).name.encode()) <= 255


@pytest.mark.parametrize(("n_end", "told"), [(100, False), (109, False), (110, True)])
def test_labels_that_are_not_bought_are_told_if_they_are_many(blobs, n_end, told, capsys):
    rules = settings.resolve(blobs, blobs, "random", n_start=40, n_query=20, n_end=n_end)
    remarks.on_images(blobs, rules, quiet=True)
    line = "--n_end=110: the last query ends at 100, another would go beyond\n"
    assert capsys.readouterr().err == (line if told else "")
