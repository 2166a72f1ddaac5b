"""Networks and trainers of one's own are told apart by their code, in every process alike."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

import jaxdal
from jaxdal import InputError, likeness, models, trainers
from jaxdal.types import Dataset

MODEL = """
from typing import Any
import flax.linen as nn
import jax.numpy as jnp
from jaxdal.types import Model

WIDTH = 8


class Net(nn.Module):
    num_classes: int
    width: int = 3

    @nn.compact
    def __call__(self, x):
        features = jnp.tanh(nn.Dense(WIDTH)(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.num_classes)(features), features


def mine(image_shape, num_classes, dtype):
    net = Net(num_classes)

    def init(key):
        return {**net.init(key, jnp.zeros((1, *image_shape))), "batch_stats": {}}

    def apply(variables, x, *, train=False, dropout_key=None, chunks=1):
        logits, features = net.apply({"params": variables["params"]}, x)
        return logits, {"features": features, "batch_stats": {}}

    return Model(init, apply)
"""


def written(folder: Path, name: str, text: str) -> Any:
    """The function `mine` of a module of this text."""
    (folder / f"{name}.py").write_text(text)
    importlib.invalidate_caches()
    sys.modules.pop(name, None)
    return importlib.import_module(name).mine


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that modules are imported from, without files of compiled code, which would outlive a change."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


def test_a_change_anywhere_in_a_model_shows(folder: Path) -> None:
    first = likeness.of_rows(written(folder, "net", MODEL))
    assert likeness.of_rows(written(folder, "net", f"# a remark\n{MODEL}")) == first
    changes = [("WIDTH = 8", "WIDTH = 9"), ("tanh", "sin"), ("width: int = 3", "width: int = 4"), ("(1, *", "(2, *")]
    digests = {likeness.of_rows(written(folder, "net", MODEL.replace(*change))) for change in changes}
    assert len(digests - {first}) == len(changes)
    code = "import net; from jaxdal import likeness; print(likeness.of_rows(net.mine))"
    written(folder, "net", MODEL)
    told = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == first, "another process says the same"


def test_what_is_jaxdals_has_none() -> None:
    for model in (models.lenet, models.resnet18, models.resnet18_thin):
        assert likeness.of_rows(model, *trainers.TRAINERS.values()) == ""


def test_a_changed_model_does_not_continue_a_journal(
    folder: Path, blobs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {
        "workdir": folder / "run", "n_start": 20, "n_query": 10, "n_end": 30, "epochs": 1, "batch": 16, "quiet": True,
        "model": "mine", "devices": jax.devices()[:1],
    }  # fmt: skip
    monkeypatch.setitem(models.MODELS, "mine", written(folder, "net", MODEL))
    header = jaxdal.run(blobs, "random", **options).header
    assert header["config"]["own_code"] == likeness.of_rows(models.MODELS["mine"])
    assert jaxdal.run(blobs, "random", **options).header == header
    monkeypatch.setitem(models.MODELS, "mine", written(folder, "net", MODEL.replace("tanh", "sin")))
    with pytest.raises(InputError, match=r"another configuration.*own_code"):
        jaxdal.run(blobs, "random", **options)
