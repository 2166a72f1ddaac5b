"""One round for those who label by hand: the same as a round of an experiment, from labels that others give."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import missed
from jax.experimental.compilation_cache import compilation_cache
from killer import grudge

import jaxdal
from jaxdal import InputError, ask, journal
from jaxdal.types import Dataset, Strategy

OPTIONS: dict[str, Any] = {"epochs": 3, "batch": 16, "learning_rate": 0.05, "quiet": True}


@pytest.fixture(scope="module")
def played(blobs: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[journal.Group]:
    """Three rounds of a strategy with a memory."""
    budgets = {"n_start": 40, "n_query": 20, "n_end": 80}
    folder = tmp_path_factory.mktemp("played")
    return jaxdal.run(
        blobs, grudge(), workdir=folder, seeds=[5], devices=jax.devices()[:1], **budgets, **OPTIONS
    ).groups


def test_two_questions_are_two_rounds_of_a_run(blobs: Dataset, played: list[journal.Group]) -> None:
    known, memory = np.full(len(blobs.train_y), -1), None
    start = played[0][0]["initial"]
    known[start] = blobs.train_y[start]
    for round_ in range(2):
        (line,) = played[round_]
        before = known.copy()
        asked = ask(
            blobs.train_x, known, 20, grudge(), num_classes=4, test=(blobs.test_x, blobs.test_y), seed=5,
            round_=round_, memory=memory, devices=jax.devices()[:1], **OPTIONS,
        )  # fmt: skip
        assert asked.picks.tolist() == line["picks"]
        assert asked.accuracy == line["accuracy"]
        assert (known == before).all()
        assert asked.probs.shape == (200, 4)
        assert asked.probs.sum(1) == pytest.approx(1, abs=1e-5)
        if round_ == 0:  # what it remembers is nothing yet: it buys the smallest margins
            best, second = np.sort(asked.probs, axis=1)[:, :-3:-1].T
            assert np.argsort(np.where(known < 0, best - second, 2))[:20].tolist() == line["picks"]
        known[asked.picks], memory = blobs.train_y[asked.picks], asked.memory
    assert memory is not None
    assert memory["rounds"] == 2


def test_without_test_images_there_is_no_accuracy(blobs: Dataset) -> None:
    """And a pool that eight devices do not divide has a row of probabilities for each image, no more."""
    known = np.where(np.arange(197) < 40, blobs.train_y[:197], -1)
    asked = ask(blobs.train_x[:197, ..., 0], known.tolist(), 157, "random", num_classes=4, **OPTIONS)
    assert asked.accuracy is None
    assert sorted(asked.picks) == list(range(40, 197))
    assert asked.probs.shape == (197, 4)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"known": np.full(200, -1)}, "no label is known: choose some images at random"),
        ({"known": np.zeros(200, np.uint8)}, "every label is known: one that is not is -1, in a signed type"),
        ({"known": [None] * 200}, "known labels are integers, -1 for those that are not known, and not object"),
        ({"known": [[0], [1, 2]]}, "known labels cannot be read as one array"),
        ({"k": 200}, r"k=200 is not a number of images from 1 to 199"),
        ({"k": 0}, "k=0 is not a number"),
        ({"k": 2.0}, "k=2.0 is not a number"),
        ({"k": True}, "k=True is not a number"),
        ({"known": np.r_[-2, np.zeros(199, int)]}, "classes, or -1 for unknown, and not -2"),
        ({"known": np.r_[4, np.full(199, -1)]}, r"training labels must lie in 0..3 for 4 classes, found 4"),
        ({"known": np.r_[1, np.full(198, -1)]}, "200 training images but 199 training labels"),
        ({"known": np.full(200, np.nan)}, "integers, -1 for those that are not known, and not float64"),
        ({"known": []}, "known labels are integers"),
        ({"known": ["cat"] * 200}, "known labels are integers, -1 for those that are not known, and not <U3"),
        ({"known": np.full(200, 255, np.uint8)}, "255 is not a class of 4, and uint8 has no -1 for unknown"),
        ({"images": "folder:photos"}, "training images must"),
        ({"test": np.zeros((5, 8, 8, 1), np.uint8)}, "test is a pair: images and labels"),
        ({"strategy": "albl", "memory": ()}, "memory is not that of an answer of this strategy"),
        ({"epoch": 3}, "unknown option 'epoch': did you mean 'epochs'"),
        ({"n_start": 3}, "n_start is not an option of ask"),
        ({"strategy": "margn"}, "did you mean 'margin'"),
        ({"test": ([[0]], [0])}, "test images must be uint8"),
        ({"round_": -1}, "round_=-1 is not the number of a question"),
        ({"epochs": 0}, "--epochs=0 is less than 1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(blobs: Dataset, changes: dict[str, Any], told: str) -> None:
    known = np.full(200, -1)
    known[0] = 1
    options = {"known": known, "k": 5, "num_classes": 4, **OPTIONS} | changes
    with pytest.raises(InputError, match=told):
        ask(**{"images": blobs.train_x} | options)


def test_training_that_diverges_is_said(blobs: Dataset) -> None:
    known = np.where(np.arange(200) < 40, blobs.train_y, -1)
    with pytest.raises(InputError, match=r"training diverged at step \d+: try a smaller learning_rate"):
        ask(blobs.train_x, known, 5, "margin", num_classes=4, **OPTIONS | {"learning_rate": 1e30})


@pytest.fixture
def empty_cache(tmp_path: Path) -> Iterator[None]:
    """Compiled programs go to a folder of the test's own."""
    before = jax.config.jax_compilation_cache_dir
    for folder in (str(tmp_path / "programs"), before):
        compilation_cache.reset_cache()
        jax.config.update("jax_compilation_cache_dir", folder)
        if folder != before:
            yield


@pytest.mark.usefixtures("empty_cache")
def test_more_labels_are_the_same_programs(blobs: Dataset) -> None:
    for count in (66, 99, 123):
        missed.clear()
        known = np.where(np.arange(200) < count, blobs.train_y, -1)
        ask(blobs.train_x, known, 5, "margin", num_classes=4, **OPTIONS)
        assert bool(missed) == (count == 66)


def test_picks_that_may_not_be_are_refused(blobs: Dataset) -> None:
    known = np.where(np.arange(200) < 40, blobs.train_y, -1)
    stubborn = Strategy((), lambda key, known, k, memory: (jnp.zeros(k, jnp.int32), memory))
    with pytest.raises(InputError, match="has picked what it may not: pick 0 occurs more than once"):
        ask(blobs.train_x, known, 5, stubborn, num_classes=4, **OPTIONS)


@pytest.mark.parametrize("count", [3, 197])
def test_a_trainer_that_sees_unlabelled_images(count: int, blobs: Dataset, tmp_path: Path) -> None:
    """Whatever their number, it is a round of a run."""
    budgets = {"n_start": count, "n_query": 2, "n_end": count + 2}
    options = {"trainer": "consistency", "devices": jax.devices()[:1], "seeds": [1], **OPTIONS}
    (first, _) = jaxdal.run(blobs, "margin", workdir=tmp_path, **budgets, **options).groups
    known = np.full(200, -1)
    known[first[0]["initial"]] = blobs.train_y[first[0]["initial"]]
    options.pop("seeds")
    asked = ask(blobs.train_x, known, 2, "margin", num_classes=4, seed=1, test=blobs[2:4], **options)
    assert asked.picks.tolist() == first[0]["picks"]
    assert asked.accuracy == first[0]["accuracy"]


def test_nothing_is_written(blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = np.where(np.arange(200) < 40, blobs.train_y, -1)
    ask(blobs.train_x, known, 5, "random", num_classes=4, **OPTIONS)
    assert not list(tmp_path.iterdir())
