"""Strategies with the same training share their first round."""

from pathlib import Path

import jax
import pytest

import jaxdal
from jaxdal import settings, strategies
from jaxdal.engine import Engine

OPTIONS = {"n_start": 20, "n_query": 10, "n_end": 30, "epochs": 1, "batch": 40, "seeds": [0, 3], "quiet": True}
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
