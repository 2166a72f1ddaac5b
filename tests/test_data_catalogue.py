"""`tfds:NAME` from small builders of its own, which need no TensorFlow because they encode the images themselves."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxdal import data
from jaxdal.data import catalogue, published
from jaxdal.errors import InputError
from jaxdal.types import Dataset

SIZES = {"train": 20, "test": 6}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def pictures(split: str, shape: tuple[int, ...] = (6, 5, 3)) -> np.ndarray:
    """u8[N, H, W, C] of one split."""
    rng = np.random.default_rng(len(split))
    return rng.integers(0, 256, (SIZES.get(split, 4), *shape), dtype=np.uint8)


def prepare(root: Path, name: str = "things", splits: tuple[str, ...] = ("train", "test"), **changes: Any) -> None:
    """Write `<root>/<name>/1.0.0`. changes: shape, keys, supervised, config, sizes_differ, secret (a split)."""
    with published.quiet():
        import tensorflow_datasets as tfds

        from jaxdal.data import builders

        shape, keys = changes.get("shape", (6, 5, 3)), changes.get("keys", ("image", "label"))
        label = tfds.features.ClassLabel(names=["cup", "key", "pen"])
        feature = tfds.features.Image(shape=(None, None, shape[-1]))

        class Things(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            VERSION = tfds.core.Version("1.0.0")
            BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=changes["config"])] if "config" in changes else []

            def _info(self) -> tfds.core.DatasetInfo:
                features = {keys[0]: feature, keys[1]: label, "id": tfds.features.Text()}
                supervised = changes.get("supervised", keys)
                return tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=supervised,
                    disable_shuffling=True,
                )  # fmt: skip

            def _split_generators(self, dl_manager: object) -> dict[str, object]:
                return {split: self._generate_examples(split) for split in splits}

            def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, object]]]:
                for index, image in enumerate(pictures(split, shape)):
                    kept = image[: 4 if index == 3 and changes.get("sizes_differ") else None]
                    known = -1 if split == changes.get("secret") else index % 3
                    yield index, {keys[0]: builders.encode_png(kept), keys[1]: known, "id": f"{index}"}

        Things.name = name
        tfds.disable_progress_bar()
        Things(data_dir=root, file_format="array_record").download_and_prepare()


def load(root: Path, name: str = "things", **options: Any) -> Dataset:
    return data.load(f"tfds:{name}", str(root), data.Options(**options))


def test_a_prepared_data_set(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    prepare(tmp_path)
    capfd.readouterr()
    for told in (f"tfds:things: decoded 26 images in .* kept in {tmp_path}/cache", "$"):  # the second from the cache
        got = load(tmp_path)
        np.testing.assert_array_equal(got.train_x, pictures("train"))
        np.testing.assert_array_equal(got.test_x, pictures("test"))
        np.testing.assert_array_equal(got.train_y, np.arange(20) % 3)
        np.testing.assert_array_equal(got.test_y, np.arange(6) % 3)
        assert (got.class_names, got.files[19]) == (("cup", "key", "pen"), "train/19")
        out, err = capfd.readouterr()
        assert out == ""
        assert re.match(told, err), err
    assert "tensorflow" not in sys.modules  # it would take the accelerator's memory


def test_names_with_version_and_configuration(tmp_path: Path) -> None:
    prepare(tmp_path, config="small")
    for name in ("things/small", "things/small:1.0.0"):
        assert len(load(tmp_path, name).train_x) == 20
    with pytest.raises(InputError, match=r"TFDS has no 'things/small:2\.0\.0'"):
        load(tmp_path, "things/small:2.0.0")


@pytest.mark.parametrize("keys", [("picture", "kind"), ("image", "label")])
def test_features_may_have_other_names(tmp_path: Path, keys: tuple[str, str]) -> None:
    prepare(tmp_path, keys=keys, shape=(6, 5, 1), supervised=None if keys[0] == "image" else keys)
    got = load(tmp_path)
    np.testing.assert_array_equal(got.train_x, pictures("train", (6, 5, 1)))


def test_splits(tmp_path: Path) -> None:
    prepare(tmp_path / "a", splits=("train", "validation", "test"))
    np.testing.assert_array_equal(load(tmp_path / "a").test_x, pictures("test"))
    with pytest.raises(InputError, match="--test_share=10%: tfds:things has the split 'test' for testing"):
        load(tmp_path / "a", test_share="10%")
    prepare(tmp_path / "b", splits=("train", "validation"))
    np.testing.assert_array_equal(load(tmp_path / "b").test_x, pictures("validation"))
    prepare(tmp_path / "c", splits=("train",))
    got = load(tmp_path / "c", test_share="50%")
    assert np.bincount(got.test_y).tolist() == [4, 4, 3]  # of 7, 7 and 6
    whole = {image.tobytes() for image in np.concatenate([got.train_x, got.test_x])}
    assert whole == {image.tobytes() for image in pictures("train")}
    for secret, home in (("test", "e"), ("train", "f")):
        prepare(tmp_path / home, splits=("train", "test", "validation"), secret=secret)
    np.testing.assert_array_equal(load(tmp_path / "e").test_x, pictures("validation"))
    with pytest.raises(InputError, match="tfds:things has images without a label"):
        load(tmp_path / "f")
    prepare(tmp_path / "d", splits=("test",))
    with pytest.raises(InputError, match="tfds:things has no split 'train', but test"):
        load(tmp_path / "d")


def test_sizes_that_differ_need_a_choice(tmp_path: Path) -> None:
    prepare(tmp_path, sizes_differ=True)
    with pytest.raises(InputError, match=r"train/0 is 5 x 6 but train/3 is 5 x 4: .* --image_size=5"):
        load(tmp_path)
    assert load(tmp_path, image_size=4).train_x.shape == (20, 4, 4, 3)


def test_other_tasks_are_refused(tmp_path: Path) -> None:
    prepare(tmp_path, keys=("image", "label"), supervised=("id", "label"))
    with pytest.raises(InputError, match="tfds:things is not for image classification: its features are id, "):
        load(tmp_path)


def test_damaged_files_get_one_sentence(tmp_path: Path) -> None:
    prepare(tmp_path)
    (shard,) = (tmp_path / "things/1.0.0").glob("*-train.array_record*")
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(InputError, match=r"things/1.0.0 cannot be read .*: delete it to prepare") as told:
        load(tmp_path)
    assert "\n" not in str(told.value)
    (tmp_path / "things/1.0.0/dataset_info.json").write_text(json.dumps({}))
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path)


def test_what_is_not_prepared_needs_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"beans is not prepared in .* TensorFlow: pip install 'jaxdal\[tfds\]'"):
        load(tmp_path, "beans")
    with pytest.raises(InputError, match=r"TFDS has no 'bean': did you mean beans\?") as told:
        load(tmp_path, "bean")
    assert "\n" not in str(told.value)


def test_without_a_network_it_fails_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue.importlib.util, "find_spec", lambda name: name)
    answers = {"reason": "Name or service not known"}
    monkeypatch.setattr(published, "unreachable", lambda url: answers["reason"])
    with pytest.raises(InputError, match=r"^tfds:beans cannot be downloaded \(Name or service not known\)$"):
        load(tmp_path, "beans")
    urls = ["https://jaxdal.invalid/x.zip"]
    assert catalogue._offline(urls, tmp_path) == answers["reason"]
    assert catalogue._offline([], tmp_path) == ""
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "x.zip.INFO").write_text(json.dumps({"urls": urls}))
    assert catalogue._offline(urls, tmp_path) == "", "there is nothing left to download"
    answers["reason"] = "HTTP status 403"
    assert catalogue._offline(["https://jaxdal.invalid/y.zip"], tmp_path) == "", "some servers answer nothing but GET"
