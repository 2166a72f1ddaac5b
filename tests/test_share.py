"""Strategies with the same training share their first round."""

import gc
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxdal
from jaxdal import remarks, settings, strategies
from jaxdal.checkpoint import InsideRound
from jaxdal.engine import Engine

OPTIONS = {
    "n_start": 20, "n_query": 10, "n_end": 30, "epochs": 1, "batch": 40, "model": "tiny", "seeds": [0, 3],
    "quiet": True,
}  # fmt: skip
STEPS = 5  # of a round of MixMatch: one epoch of a pool of 200


def timeless(groups: list) -> list:
    """Lines without their seconds."""
    return [[{key: value for key, value in line.items() if key != "seconds"} for line in group] for group in groups]


@pytest.fixture
def played(blobs, tmp_path, monkeypatch):
    """Run a strategy in a folder of its own: -> (its groups, the steps it took in round 0 and in round 1)."""
    calls: list[int] = []
    advance = Engine.advance

    def counting(self, state, keys, known, pool, per_epoch, first, until):
        calls.append((int((known[0] >= 0).sum()), until - first))
        return advance(self, state, keys, known, pool, per_epoch, first, until)

    monkeypatch.setattr(Engine, "advance", counting)

    def play(strategy: str, name: str, share: Path | None, **options) -> tuple[list, list[int]]:
        calls.clear()
        result = jaxdal.run(
            blobs, strategy, workdir=tmp_path / name, share_round_0=share, devices=jax.devices()[:1],
            **{**OPTIONS, **options},
        )  # fmt: skip
        return result.groups, [sum(steps for labels, steps in calls if labels == count) for count in (20, 30)]

    return play


def test_a_shared_round_is_trained_once_and_bit_equal(played, tmp_path):
    store = tmp_path / "store"
    first, steps = played("ssl_random", "first", store)
    assert steps == [STEPS, STEPS]
    second, steps = played("ssl_diff2aug_direct", "second", store)
    assert steps == [0, STEPS], "already trained"
    alone, steps = played("ssl_diff2aug_direct", "alone", None)
    assert steps == [STEPS, STEPS]
    assert timeless(second) == timeless(alone)
    assert [line["accuracy"] for line in first[0]] == [line["accuracy"] for line in second[0]]
    assert second[0][0]["seconds"]["train"] >= first[0][0]["seconds"]["train"] > 0, "charged to both"


def test_only_the_same_training_is_shared(blobs):
    def training(strategy: str, **options):
        rules = settings.resolve("arrays", blobs, strategy, **{"n_start": 20, "n_query": 10, "n_end": 30, **options})
        return rules.training(strategies.build(strategy))

    same = training("margin")
    assert training("entropy") == training("coreset") == same
    mixmatch = training("ssl_random")
    assert mixmatch != same
    for strategy in ("ssl_consistency", "ssl_diff2aug_direct", "ssl_diff2aug_kmeans"):
        assert training(strategy) == mixmatch
    for strategy, options in [
        ("learning_loss", {}),  # it wraps the trainer
        ("margin", {"learning_rate": 0.01}),
        ("margin", {"seeds": [1]}),
        ("margin", {"n_start": 10}),
        ("margin", {"preset": "clean", "epochs": 3}),
    ]:
        assert training(strategy, **options) != same


def test_strategies_that_are_values_are_told_apart_by_all_their_options(blobs):
    def name(text: str) -> str:
        rules = settings.resolve("arrays", blobs, strategies.build(text), n_start=20, n_query=10, n_end=30)
        return rules.strategy

    for one, other in [
        ("learning_loss(weight=1)", "learning_loss(weight=5)"),
        ("ssl_consistency(views=10)", "ssl_consistency(views=50)"),
        ("ssl_diff2aug_direct(clean=True)", "ssl_diff2aug_direct(clean=False)"),
        ("waal(weight=1)", "waal(weight=10)"),
        ("margin", "least_confidence"),
    ]:
        assert name(one) == name(one)
        assert name(one) != name(other), one


def test_several_processes_may_share_the_same_round(tmp_path):
    state = {"w": np.arange(3.0, dtype=np.float32)[None]}

    def publish(number: int) -> None:
        mine = InsideRound(tmp_path, 0.0, {"pool": 3})
        mine.publish(0, [7], state, 4, {"train": float(number)}, np.zeros(1))

    for number in range(3):  # one after another: what a process meets that was not the first
        publish(number)
    kept = InsideRound(tmp_path, 0.0, {"pool": 3}).restore(0, [7], state)
    assert kept is not None
    assert kept.done == 4
    np.testing.assert_array_equal(kept.leaves[0], state["w"])
    (folder,) = (tmp_path / "inside_round").iterdir()
    assert [path.name for path in folder.iterdir()] == ["step_00000004"], "those who were slower left nothing"


# Orbax, failing midway, leaves coroutines behind: they go here, and not in whatever test Python next looks for garbage.
@pytest.mark.filterwarnings("ignore:coroutine '.*' was never awaited:RuntimeWarning")
def test_a_share_that_fails_does_not_end_the_run(blobs, tmp_path, capsys):
    (tmp_path / "store").write_text("not a folder")
    result = jaxdal.run(
        blobs, "random", workdir=tmp_path / "run", share_round_0=tmp_path / "store", devices=jax.devices()[:1],
        **{**OPTIONS, "n_end": 20, "trainer": "supervised", "quiet": False},
    )  # fmt: skip
    assert len(result.groups) == 1
    assert "round 0 could not be shared" in capsys.readouterr().err
    gc.collect()


def test_an_average_that_is_mostly_first_weights_is_announced(blobs, capsys):
    chosen = strategies.build("random")
    for trainer, told in [("mixmatch", True), ("mixmatch(average=0.1)", False), ("supervised", False)]:
        rules = settings.resolve("arrays", blobs, chosen, n_start=20, n_query=10, n_end=30, epochs=9, trainer=trainer)
        remarks.on_training(rules, chosen)
        assert ("of the average are first weights" in capsys.readouterr().err) == told


@pytest.mark.parametrize(
    ("trainer", "preset", "epochs", "told"),
    [
        ("mixmatch", "paper", 6, "3% of its weight, 25% with the data set's --epochs=50; try ramp_epochs=24"),
        ("consistency", "paper", 49, "24% of its weight, 25% with the data set's --epochs=50; try ramp_epochs=196"),
        ("mixmatch", "paper", None, ""),
        ("mixmatch", "paper", 60, ""),
        ("mixmatch", "clean", 6, ""),
        ("mixmatch(ramp_epochs=200)", "paper", 6, ""),
        ("fixmatch", "paper", 6, ""),
        ("supervised", "paper", 6, ""),
    ],
)
def test_a_loss_that_hardly_counts_is_announced(trainer, preset, epochs, told, blobs, capsys):
    options = {"n_start": 20, "n_query": 10, "n_end": 30, "trainer": trainer, "preset": preset, "epochs": epochs}
    rules = settings.resolve("arrays", blobs, "random", **options)
    remarks.on_training(rules, strategies.build("random"))
    err = capsys.readouterr().err
    assert told in err
    assert ("grows over 200 epochs and ends at" in err) == bool(told)
    assert "usual_epochs" not in rules.config()


@pytest.mark.parametrize(
    ("trainer", "augmentation", "told"),
    [
        ("consistency", {}, True),
        ("(consistency(weight=3))", {}, True),
        ("consistency", {"crop": 1}, False),
        ("consistency", {"mirror": True}, False),
        ("mixmatch(average=0.1)", {}, False),
    ],
)
def test_consistency_without_augmentation_is_announced(trainer, augmentation, told, blobs, capsys):
    options = {"n_start": 20, "n_query": 10, "n_end": 30, "trainer": trainer, "crop": 0, "mirror": False}
    rules = settings.resolve("arrays", blobs, "random", **options | augmentation)
    remarks.on_training(rules, strategies.build("random"))
    assert ("unlabelled images teach little or nothing" in capsys.readouterr().err) == told
