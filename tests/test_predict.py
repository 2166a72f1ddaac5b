"""Trained networks on other images: those that `run` keeps, and that of an answer of `ask`."""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from labs import SMALL

import jaxdal
from jaxdal import InputError, ask, checkpoint, predict
from jaxdal.lab import Sizes
from jaxdal.types import Dataset

TINY: dict[str, Any] = {"num_classes": 4, "epochs": 1, "batch": 16, "model": "tiny", "quiet": True}


def answer_about(images: np.ndarray, labels: np.ndarray, **options: Any) -> jaxdal.Asked:
    known = np.where(np.arange(len(labels)) < 40, labels, -1)
    return ask(images, known, 5, devices=jax.devices()[:1], **{**TINY, "strategy": "margin", **options})


@pytest.fixture(scope="module")
def answer(blobs: Dataset) -> jaxdal.Asked:
    return answer_about(blobs.train_x, blobs.train_y)


@pytest.mark.parametrize("model", ["tiny", "lenet"])
def test_a_network_that_was_kept(blobs: Dataset, tmp_path: Path, model: str) -> None:
    """Its journal is all that is known of it."""
    options = {**SMALL, "n_end": 50, "model": model, "save_weights": True, "quiet": True}
    result = jaxdal.run(blobs, "margin", workdir=tmp_path, devices=jax.devices()[:1], **options)
    config = json.loads((tmp_path / "journal.jsonl").read_text().partition("\n")[0])["config"]
    for round_, (line,) in enumerate(result.groups):
        variables = checkpoint.load(checkpoint.weights_path(str(tmp_path), 0, round_))
        found = predict(blobs.test_x, variables, config)
        assert (found.argmax(1) == blobs.test_y).mean() == line["accuracy"]
        np.testing.assert_array_equal(found, predict(blobs.test_x, variables, result.header["config"]))


@pytest.mark.parametrize(
    "options",
    [{"strategy": "learning_loss"}, {"trainer": "mixmatch(average=0.5)"}, {"model": "lenet", "precision": "bf16"}],
    ids=["beside its network, another one", "a moving average", "bfloat16"],
)
def test_the_network_of_an_answer(blobs: Dataset, options: dict[str, Any]) -> None:
    answer = answer_about(blobs.train_x, blobs.train_y, **options)
    found = predict(blobs.train_x, answer.variables, answer.config)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, answer.probs, rtol=1e-5, atol=1e-6)


def test_a_residual_network_and_colours() -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (48, 16, 16, 3), np.uint8), np.arange(48) % 4
    answer = answer_about(images, labels, model="two_stages", mean=(0.1, 0.5, 0.7), std=(0.2, 0.3, 0.4), crop=4)
    found = predict(images, answer.variables, answer.config)
    np.testing.assert_allclose(found, answer.probs, rtol=1e-5, atol=1e-6)
    other = predict(images, answer.variables, answer.config | {"mean": [0.7, 0.5, 0.1]})
    assert abs(found - other).max() > 1e-3


@pytest.mark.parametrize("count", [0, 1, 3, 63, 64, 65, 200])
def test_any_number_of_images(
    blobs: Dataset, answer: jaxdal.Asked, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(sys.modules["jaxdal.predict"], "ON_CPU", Sizes(steps=1, rows=64))
    found = predict(blobs.train_x[:count, ..., 0], answer.variables, answer.config)
    assert found.shape == (count, 4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, answer.probs[:count], rtol=1e-5, atol=1e-6)


def test_another_model_of_that_name(blobs: Dataset, answer: jaxdal.Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    predict(blobs.test_x, answer.variables, answer.config)
    monkeypatch.setitem(jaxdal.models.MODELS, "tiny", jaxdal.models.lenet)
    with (
        pytest.warns(UserWarning, match="'tiny' is another one than"),
        pytest.raises(InputError, match="variables are not those of a tiny for images of 8 x 8 x 1 and 4 classes"),
    ):
        predict(blobs.test_x, answer.variables, answer.config)


GREY = np.zeros((2, 8, 8, 1), np.uint8)


@pytest.mark.parametrize(
    ("images", "changes", "told"),
    [
        (GREY / 255, {}, "uint8 with values 0..255, as those of training, got float64: multiply by 255"),
        (GREY.astype(int), {}, "uint8 with values 0..255, as those of training, got int64: use .astype"),
        (GREY + 2.0, {}, "as those of training, got float64: round and use .astype"),
        ([[0], [1, 2]], {}, "images cannot be read as one array"),
        (GREY[0, ..., 0], {}, r"must have the shape \[N, height, width, channels\], got \[8, 8\]"),
        (GREY[:, :0], {}, r"must have the shape \[N, height, width, channels\], got \[2, 0, 8, 1\]"),
        (GREY[:, :7], {}, r"have the shape \[2, 7, 8, 1\], and the network was trained on images of 8 x 8 x 1"),
        (GREY[:0, :7], {}, r"have the shape \[0, 7, 8, 1\], and the network"),
        (GREY[:, :7], {"image_shape": None}, "variables are not those of a tiny for images of 7 x 8 x 1"),
        (np.zeros((2, 8, 8, 3), np.uint8), {"image_shape": None}, "was trained on images of 1 channels"),
        (GREY, {"mean": None, "model": None}, r"config lacks model, mean: it is answer.config of ask, or header"),
        (GREY, {"num_classes": 5}, "variables are not those of a tiny for images of 8 x 8 x 1 and 5 classes"),
        (GREY, {"model": "tinny"}, "unknown model 'tinny': did you mean 'tiny'"),
        (GREY, {"precision": "f16"}, "config: unknown precision 'f16': there are f32, bf16"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(answer: jaxdal.Asked, images: Any, changes: dict[str, Any], told: str) -> None:
    config = {key: value for key, value in (answer.config | changes).items() if value is not None}
    with pytest.raises(InputError, match=told):
        predict(images, answer.variables, config)


@pytest.mark.parametrize("variables", [None, {}, {"params": {}, "batch_stats": {}}])
def test_variables_of_nothing(answer: jaxdal.Asked, variables: Any) -> None:
    with pytest.raises(InputError, match="the variables are not those of a tiny"):
        predict(GREY, variables, answer.config)
    with pytest.raises(InputError, match="config is NoneType: it is answer"):
        predict(GREY, variables, None)  # type: ignore[arg-type]


def test_places_of_weights_are_told_as_texts(tmp_path: Path) -> None:
    place = checkpoint.weights_path(str(tmp_path), 3, 1)
    assert place == checkpoint.weights_path(tmp_path, 3, 1) == tmp_path / "weights" / "seed_3_round_1"
    assert checkpoint.weights_path("~/kept", 0, 0).is_relative_to(Path.home())
    checkpoint.save(place, {"a": np.arange(3)})
    assert checkpoint.load(str(place))["a"].tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="nowhere does not exist"):
        checkpoint.load("nowhere")
