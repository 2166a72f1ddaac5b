"""One round for those who label by hand: the same as a round of an experiment, from labels that others give."""

import dataclasses
import io
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import heard, missed
from jax.experimental.compilation_cache import compilation_cache
from killer import grudge

import jaxdal
from jaxdal import Asked, InputError, ask, journal
from jaxdal.progress import Progress
from jaxdal.types import Dataset, Strategy

OPTIONS: dict[str, Any] = {"epochs": 3, "batch": 16, "learning_rate": 0.05, "quiet": True}
TINY: dict[str, Any] = {**OPTIONS, "num_classes": 4, "model": "tiny"}
SMALL: dict[str, Any] = {**TINY, "devices": jax.devices()[:1]}


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
        ({"after": [[3]]}, "after is the answer to the question before, as ask gave it, and not list"),
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
        ask(blobs.train_x, known, 5, "margin", **SMALL | {"learning_rate": 1e30})


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
        ask(blobs.train_x, known, 5, "margin", **SMALL)
        assert bool(missed) == (count == 66)


def test_picks_that_may_not_be_are_refused(blobs: Dataset) -> None:
    known = np.where(np.arange(200) < 40, blobs.train_y, -1)
    stubborn = Strategy((), lambda key, known, k, memory: (jnp.zeros(k, jnp.int32), memory))
    with pytest.raises(InputError, match="has picked what it may not: pick 0 occurs more than once"):
        ask(blobs.train_x, known, 5, stubborn, **SMALL)


@pytest.mark.parametrize("count", [3, 197])
def test_a_trainer_that_sees_unlabelled_images(count: int, blobs: Dataset, tmp_path: Path) -> None:
    """Whatever their number, it is a round of a run."""
    budgets = {"n_start": count, "n_query": 2, "n_end": count + 2}
    options = {"trainer": "consistency", **SMALL}
    classes = options.pop("num_classes")
    (first, _) = jaxdal.run(blobs, "margin", workdir=tmp_path, seeds=[1], **budgets, **options).groups
    known = np.full(200, -1)
    known[first[0]["initial"]] = blobs.train_y[first[0]["initial"]]
    asked = ask(blobs.train_x, known, 2, "margin", num_classes=classes, seed=1, test=blobs[2:4], **options)
    assert asked.picks.tolist() == first[0]["picks"]
    assert asked.accuracy == first[0]["accuracy"]


def test_nothing_is_written(blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = np.where(np.arange(200) < 40, blobs.train_y, -1)
    ask(blobs.train_x, known, 5, "random", **SMALL)
    assert not list(tmp_path.iterdir())


def first_labels(images: Dataset, count: int) -> np.ndarray:
    return np.where(np.arange(len(images.train_y)) < count, images.train_y, -1)


def assert_same(one: Asked, other: Asked) -> None:
    """Bit for bit."""
    assert (one.round_, one.accuracy, one.config) == (other.round_, other.accuracy, other.config)
    trees = [(each.picks, each.probs, each.memory, each.variables) for each in (one, other)]
    jax.tree.map(np.testing.assert_array_equal, *trees)


@pytest.mark.parametrize(
    ("devices", "options"),
    [(1, {}), (8, {"trainer": "consistency"}), (1, {"pool_bytes": 9000})],
    ids=["one device", "eight, with unlabelled images", "images that stream"],
)
def test_the_next_question_compiles_nothing(blobs: Dataset, devices: int, options: dict[str, Any]) -> None:
    """A strategy of one's own, made anew for each question; the labels double between the first two."""
    options = {**TINY, "devices": jax.devices()[:devices], "test": blobs[2:4], "seed": 5, **options}
    known, answer = first_labels(blobs, 24), None
    for question in range(3):
        memory = None if answer is None else answer.memory
        heard.clear()
        answer = ask(blobs.train_x, known, 24, grudge(), after=answer, **options)
        assert bool(heard) == (question == 0)
        if question < 2:
            known[answer.picks] = blobs.train_y[answer.picks]
    assert answer is not None
    assert answer.memory["rounds"] == 3
    assert_same(answer, ask(blobs.train_x, known, 24, grudge(), round_=2, memory=memory, **options))


BASE: dict[str, Any] = {"strategy": "margin", "k": 20, "known": 40, **SMALL}


def asked(images: Dataset, changes: dict[str, Any], **more: Any) -> Asked:
    given = {"test": images[2:4], **BASE, **changes, **more}
    return ask(images.train_x, **given | {"known": first_labels(images, given["known"])})


@pytest.fixture(scope="module")
def before(blobs: Dataset) -> Asked:
    return asked(blobs, {})


@pytest.mark.parametrize(
    ("changes", "trains_alike"),
    [
        ({"k": 7}, True), ({"strategy": grudge()}, True), ({"seed": 1}, True), ({"known": 70}, True),
        ({"strategy": "learning_loss"}, False), ({"known": 10}, False), ({"test": None}, False),
        ({"trainer": "consistency"}, False), ({"devices": jax.devices()[:2]}, False), ({"pool_bytes": 9000}, False),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_is_another_than_before_is_made_anew(
    blobs: Dataset, before: Asked, changes: dict[str, Any], trains_alike: bool
) -> None:
    changed = asked(blobs, changes, after=before)
    assert_same(changed, asked(blobs, changes, round_=1))
    assert before.kept is not None
    assert changed.kept is not None
    assert (changed.kept.lab.engine is before.kept.lab.engine) == trains_alike


def test_to_and_fro(blobs: Dataset, before: Asked) -> None:
    """What was kept of a question with another k, or another strategy, is not used for the one after it."""
    following = asked(blobs, {}, round_=2)
    for changes in ({"k": 7}, {"strategy": grudge()}):
        assert_same(asked(blobs, {}, after=asked(blobs, changes, after=before)), following)


def test_other_images_are_seen_whatever_array_they_are_in(blobs: Dataset) -> None:
    """Of one mean and deviation, so that no option tells that they are others."""
    images, tests = blobs.train_x.copy(), blobs.test_x.copy()
    options = {**SMALL, "test": (tests, blobs.test_y)}
    known = first_labels(blobs, 40)
    answer = ask(images, known, 20, "margin", **options)
    images[:] = images[:, ::-1]
    answer = ask(images, known, 20, "margin", after=answer, **options)
    assert_same(answer, ask(images.copy(), known, 20, "margin", round_=1, **options))
    tests[:] = np.roll(tests, 1, axis=0)
    answer = ask(images, known, 20, "margin", after=answer, **options)
    assert_same(answer, ask(images.copy(), known, 20, "margin", round_=2, **options))
    assert answer.accuracy is not None
    assert answer.accuracy < 0.5


def test_an_answer_that_was_pickled(blobs: Dataset) -> None:
    known = first_labels(blobs, 40)
    answer = ask(blobs.train_x, known, 20, grudge(), test=blobs[2:4], **SMALL)
    back = pickle.loads(pickle.dumps(answer))
    assert_same(back, answer)
    assert back.kept is None
    following = [ask(blobs.train_x, known, 20, grudge(), test=blobs[2:4], after=one, **SMALL) for one in (answer, back)]
    assert_same(*following)
    with pytest.raises(InputError, match="this pool: round_=1 in place of after and memory begins with a fresh one"):
        ask(blobs.train_x[:150], known[:150], 20, grudge(), after=answer, **SMALL)
    for twice in ({"round_": 1}, {"memory": answer.memory}):
        with pytest.raises(InputError, match="after tells the number of the question and the memory: give it, or"):
            ask(blobs.train_x, known, 20, grudge(), after=answer, **twice, **SMALL)


def test_an_answer_is_shown_in_a_line(before: Asked) -> None:
    assert str(before) == f"<Asked: question 0, 20 picks of 200 images, accuracy {before.accuracy:.2%}>"
    untested = dataclasses.replace(before, accuracy=None, round_=3, probs=np.zeros((6000, 4)))
    assert repr(untested) == "<Asked: question 3, 20 picks of 6,000 images, no test images>"


def test_what_is_assumed_is_said_once(
    blobs: Dataset, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**SMALL, "batch": None, "learning_rate": None, "quiet": False, "mean": (0.25,), "std": (0.125,)}
    monkeypatch.setattr(sys.modules["jaxdal.progress"], "EVERY", 1e9)  # however long compiling takes
    answer = ask(blobs.train_x, first_labels(blobs, 40), 5, "random", **options)
    assert capsys.readouterr().err.splitlines() == [
        "ask: 200 images of 8 x 8 x 1, 40 of them labelled, 4 classes; trained with mean=(0.25,), std=(0.125,), "
        "mirror=False, crop=0, model='tiny', batch=16, learning_rate=0.0354, epochs=3, milestones=(0.5333, 0.8)"
    ]
    monkeypatch.setattr(sys.modules["jaxdal.progress"], "EVERY", 0.0)
    ask(blobs.train_x, first_labels(blobs, 45), 5, "random", after=answer, **options)
    told = capsys.readouterr().err.splitlines()
    assert told
    assert all(line.startswith("question 1, 45 labels: epoch ") for line in told)


def test_a_question_has_its_number() -> None:
    stream = io.StringIO()
    with Progress([8], 16, question=3, epochs=2, stream=stream, now=iter(range(0, 900, 100)).__next__) as progress:
        progress.start_round(0, 40)
        progress.advance(4)
    assert stream.getvalue() == "question 3, 40 labels: epoch 2/2, - images/s, - left\n"
