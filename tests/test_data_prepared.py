"""Directories that TFDS itself has prepared, in both of its formats."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes import TRAIN, assert_same, fake

from jaxdal import data
from jaxdal.data import prepared, published
from jaxdal.errors import InputError


def prepare_like_tfds(name: str, root: Path) -> Path:
    """What TFDS's own builder leaves in `<root>/<name>/3.0.1`: other order, and more features. -> that folder."""
    with published.quiet():
        import tensorflow_datasets as tfds

        from jaxdal.data import builders

        whole = fake(name)

        class Own(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            VERSION = tfds.core.Version("3.0.1")

            def _info(self) -> tfds.core.DatasetInfo:
                features = {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=whole.train_x.shape[1:]),
                    "label": tfds.features.ClassLabel(names=[f"thing {k}" for k in range(whole.num_classes)]),
                    "coarse_label": tfds.features.ClassLabel(num_classes=20),
                }
                return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

            def _split_generators(self, dl_manager: object) -> dict[str, object]:
                train, test = (whole.train_x, whole.train_y), (whole.test_x, whole.test_y)
                return {"train": self._generate_examples(*train), "test": self._generate_examples(*test)}

            def _generate_examples(self, x: np.ndarray, y: np.ndarray) -> Iterator[tuple[int, dict[str, object]]]:
                for index, (image, label) in enumerate(zip(x, y, strict=True)):
                    png = builders.encode_png(image)
                    yield index, {"id": f"{index}", "image": png, "label": int(label), "coarse_label": 3}

        Own.name = name
        tfds.disable_progress_bar()
        Own(data_dir=root, file_format="array_record").download_and_prepare()
    return root / name / "3.0.1"


def as_tfrecord(folder: Path) -> None:
    """Rewrite a prepared directory the way TFDS writes it by default."""
    with published.quiet():
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(folder)
        records = {split: list(prepared.records(builder, split)) for split in ("train", "test")}
    for split, content in records.items():
        (old,) = folder.glob(f"*-{split}.array_record*")
        frames = [struct.pack("<QI", len(record), 0) + record + b"\0\0\0\0" for record in content]
        old.with_name(old.name.replace("array_record", "tfrecord")).write_bytes(b"".join(frames))
        old.unlink()
    note = folder / "dataset_info.json"
    text = note.read_text()
    assert text.count("array_record") >= 1
    note.write_text(text.replace("array_record", "tfrecord"))


@pytest.mark.parametrize("kind", ["array_record", "tfrecord"])
@pytest.mark.parametrize("name", ["mnist", "cifar100"])
def test_directories_of_tfds_are_read_in_official_order(name: str, kind: str, tmp_path: Path) -> None:
    folder = prepare_like_tfds(name, tmp_path)
    if kind == "tfrecord":
        as_tfrecord(folder)
    got = data.load(name, str(tmp_path))
    assert_same(got, name)
    assert got.class_names[2] == "thing 2"
    assert "tensorflow" not in sys.modules


def test_order_of_tfds() -> None:
    from tensorflow_datasets.core import hashing

    for split, size in (("train", 60000), ("test", 1000)):
        hasher = hashing.Hasher(split)
        keys = [hasher.hash_key(index) for index in range(size)]
        assert list(prepared.official_order(split, size)) == sorted(range(size), key=keys.__getitem__)


def test_order_of_tfds_on_real_labels() -> None:
    path = Path(os.environ.get("JAXDAL_REAL_DATA", "")) / "mnist.npz"
    if "JAXDAL_REAL_DATA" not in os.environ or not path.is_file():
        pytest.skip("JAXDAL_REAL_DATA does not name a folder with mnist.npz")
    labels = data.load(f"npz:{path}").train_y[prepared.official_order("train", 60000)]
    # The first labels of TFDS's own mnist/3.0.1, known independently of official_order.
    assert list(labels[:20]) == [4, 1, 0, 7, 8, 1, 2, 7, 1, 6, 6, 4, 7, 7, 3, 3, 7, 9, 9, 1]


def test_damaged_directories_get_one_sentence(tmp_path: Path) -> None:
    folder = prepare_like_tfds("mnist", tmp_path)
    as_tfrecord(folder)
    (shard,) = folder.glob("*-train.tfrecord*")
    whole = shard.read_bytes()
    for content, message in [
        (whole[:-3], "ends in the middle of a record"),
        (whole[:5], "ends in the middle of a record"),
        (b"", "cannot be read"),
        (struct.pack("<QI", 6, 0) + b"\xff" * 10, "cannot be read"),
    ]:
        shard.write_bytes(content)
        with pytest.raises(InputError, match=message) as caught:
            data.load("mnist", str(tmp_path))
        assert "\n" not in str(caught.value)
    note = folder / "dataset_info.json"
    note.write_text(note.read_text().replace("tfrecord", "riegeli"))
    with pytest.raises(InputError, match="is written as riegeli"):
        data.load("mnist", str(tmp_path))
    note.write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        data.load("mnist", str(tmp_path))


def test_newest_version_wins(tmp_path: Path) -> None:
    for version in ("3.0.1", "3.0.10", "1.0.0", "2.0.0.incompleteABC"):
        (tmp_path / "mnist" / version).mkdir(parents=True)
        (tmp_path / "mnist" / version / "dataset_info.json").write_text(json.dumps({}))
    (tmp_path / "mnist" / "9.9.9").mkdir()
    assert prepared.find(tmp_path, "mnist") == tmp_path / "mnist" / "3.0.10"
    assert prepared.find(tmp_path / "nowhere", "mnist") is None


def test_never_imports_tensorflow(tmp_path: Path) -> None:
    """Even where TensorFlow is installed: it would take the accelerator's memory."""
    prepare_like_tfds("mnist", tmp_path / "data")
    trap = tmp_path / "trap" / "tensorflow"
    trap.mkdir(parents=True)
    (trap / "__init__.py").write_text("raise SystemExit('tensorflow was imported')")
    code = (
        f"import sys; sys.path.insert(0, {str(trap.parent)!r})\n"
        f"import jaxdal.data as data; print(data.load('mnist', {str(tmp_path / 'data')!r}).train_x.shape)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == f"({TRAIN}, 28, 28, 1)", done.stderr
    assert done.stderr == ""
