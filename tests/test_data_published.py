"""MNIST, Fashion-MNIST and CIFAR from small fake archives: by hand, through TFDS, from TFDS's own directories."""

import gzip
import io
import json
import os
import socket
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from publishing import redirect

from jaxdal import data
from jaxdal.data import official, prepared, published
from jaxdal.errors import InputError
from jaxdal.types import Dataset

NAMES = ("mnist", "fashion_mnist", "cifar10", "cifar100")
TRAIN, TEST = 50, 13


def fake(name: str) -> Dataset:
    """Random images of the right shape; pixels and labels tell the four data sets apart."""
    source = official.OFFICIAL[name]
    rng = np.random.default_rng(NAMES.index(name))
    x, test_x = (rng.integers(0, 256, (size, *source.shape), dtype=np.uint8) for size in (TRAIN, TEST))
    y, test_y = (rng.integers(0, source.num_classes, size, dtype=np.uint8) for size in (TRAIN, TEST))
    return data.from_arrays(x, y, test_x, test_y, num_classes=source.num_classes)


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


def cifar_records(x: np.ndarray, y: np.ndarray, coarse: bool) -> bytes:
    labels = [y.astype(np.uint8) // 5, y.astype(np.uint8)] if coarse else [y.astype(np.uint8)]
    return np.concatenate([np.stack(labels, 1), x.transpose(0, 3, 1, 2).reshape(len(x), -1)], 1).tobytes()


def cifar_members(name: str) -> dict[str, bytes]:
    whole, coarse = fake(name), name == "cifar100"
    names = "".join(f"thing {k}\n" for k in range(whole.num_classes)) + "\n"
    members = {"test.bin" if coarse else "test_batch.bin": cifar_records(whole.test_x, whole.test_y, coarse)}
    if coarse:
        members["coarse_label_names.txt"] = b"wrong\n" * 20
        members["train.bin"] = cifar_records(whole.train_x, whole.train_y, coarse)
    else:
        for part in range(5):
            rows = slice(part * TRAIN // 5, (part + 1) * TRAIN // 5)
            members[f"data_batch_{part + 1}.bin"] = cifar_records(whole.train_x[rows], whole.train_y[rows], coarse)
    members["fine_label_names.txt" if coarse else "batches.meta.txt"] = names.encode()
    return members


def write_official(name: str, folder: Path) -> list[Path]:
    """The published files of one data set, with fake content."""
    folder.mkdir(parents=True, exist_ok=True)
    source, whole = official.OFFICIAL[name], fake(name)
    paths = [folder / file for file in source.files]
    if "cifar" in name:
        with tarfile.open(paths[0], "w:gz") as archive:
            for member, content in cifar_members(name).items():
                entry = tarfile.TarInfo(f"{source.unpacked[0]}/{member}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return paths
    parts = (whole.train_x[..., 0], whole.train_y, whole.test_x[..., 0], whole.test_y)
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(gzip.compress(idx(part.astype(np.uint8))))
    return paths


def assert_same(got: Dataset, name: str) -> None:
    expected = fake(name)
    assert got.num_classes == expected.num_classes
    for field in ("train_x", "train_y", "test_x", "test_y"):
        np.testing.assert_array_equal(getattr(got, field), getattr(expected, field), err_msg=f"{name} {field}")
        assert getattr(got, field).dtype == getattr(expected, field).dtype
    assert len(got.class_names) == got.num_classes
    if "cifar" in name:
        assert got.class_names[1] == "thing 1"


# --- official files, put there by hand ---


@pytest.mark.parametrize("name", NAMES)
def test_packed_files_by_hand(name: str, tmp_path: Path) -> None:
    write_official(name, tmp_path / name)
    got = data.load(name, str(tmp_path))
    assert_same(got, name)
    assert got.mirror == data.TABLE[name].mirror
    assert [path.name for path in tmp_path.iterdir()] == [name]  # nothing is written


@pytest.mark.parametrize("name", NAMES)
def test_unpacked_files_by_hand(name: str, tmp_path: Path) -> None:
    source = official.OFFICIAL[name]
    folder = tmp_path / source.folders[-1]  # torchvision's place, or the data directory itself
    folder.mkdir(parents=True, exist_ok=True)
    if "cifar" in name:
        (folder / source.unpacked[0]).mkdir()
        for member, content in cifar_members(name).items():
            (folder / source.unpacked[0] / member).write_bytes(content)
    else:
        for packed, unpacked in zip(write_official(name, tmp_path / "packed"), source.unpacked, strict=True):
            (folder / unpacked).write_bytes(gzip.decompress(packed.read_bytes()))
    assert_same(data.load(name, str(tmp_path)), name)


def test_mnist_and_fashion_mnist_are_not_confused(tmp_path: Path) -> None:
    write_official("fashion_mnist", tmp_path)  # same file names, in no telling folder
    write_official("fashion_mnist", tmp_path / "fashion_mnist")
    assert official.find(official.OFFICIAL["mnist"], tmp_path) is None
    assert_same(data.load("fashion_mnist", str(tmp_path)), "fashion_mnist")


@pytest.mark.parametrize("name", NAMES)
def test_one_npz_file_by_hand(name: str, tmp_path: Path) -> None:
    whole = fake(name)
    parts = {"train_images": whole.train_x, "train_labels": whole.train_y}
    parts |= {"test_images": whole.test_x, "test_labels": whole.test_y}
    names = [f"thing {k}" for k in range(whole.num_classes)]
    np.savez(published.archive(name, tmp_path), **parts, class_names=names)
    got = data.load(name, str(tmp_path))
    assert_same(got, name)
    assert got.mirror == data.TABLE[name].mirror
    assert data.info(name, got) == data.TABLE[name], "and it is trained with the protocol of its name"


def test_npz_file_of_something_else_is_refused(tmp_path: Path) -> None:
    x, y = np.zeros((4, 28, 28, 1), np.uint8), np.arange(4)
    np.savez(tmp_path / "cifar10.npz", train_images=x, train_labels=y, test_images=x, test_labels=y)
    with pytest.raises(InputError, match=r"images of \(28, 28, 1\), but those of cifar10 are \(32, 32, 3\)"):
        data.load("cifar10", str(tmp_path))


def test_data_dir_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_official("mnist", tmp_path / "mnist")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert_same(data.load("mnist"), "mnist")
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert published.default_data_dir() == tmp_path / "tensorflow_datasets"


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "not packed":
        path.write_bytes(b"<html>not found</html>")
    elif path.name.endswith(".tar.gz"):  # a whole archive of something else
        with tarfile.open(path, "w:gz") as archive:
            archive.addfile(tarfile.TarInfo("readme.txt"), io.BytesIO())
    else:
        path.write_bytes(gzip.compress(gzip.decompress(content)[:-5]))


@pytest.mark.parametrize("how", ["cut", "not packed", "other content"])
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_damaged_files_get_one_sentence(name: str, how: str, tmp_path: Path) -> None:
    damage(write_official(name, tmp_path / name)[0], how)
    with pytest.raises(InputError, match=r"mnist|cifar") as caught:
        data.load(name, str(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_idx_of_another_type_is_refused(tmp_path: Path) -> None:
    (tmp_path / "floats").write_bytes(b"\0\0\x0d\x01" + struct.pack(">if", 1, 0.5))
    with pytest.raises(InputError, match="is not an idx file of bytes"):
        official.read_idx(tmp_path / "floats")


# --- through TFDS ---


@pytest.mark.parametrize("name", NAMES)
def test_download_prepare_and_read_again(
    name: str,
    served: tuple[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    base, folder = served
    files = write_official(name, folder)
    redirect(name, base, files, monkeypatch)
    home = tmp_path / "data"
    assert_same(data.load(name, str(home)), name)
    written = sorted(path.name for path in (home / f"jaxdal_{name}/1.0.0").iterdir())
    assert any("train.array_record" in file for file in written)
    out, err = capfd.readouterr()
    assert out == ""
    assert err == f"downloading and preparing {name} in {home}\n"
    for file in files:  # and from now on without the network
        file.unlink()
    assert_same(data.load(name, str(home)), name)
    assert capfd.readouterr() == ("", "")
    assert "tensorflow" not in sys.modules


def test_wrong_checksum_is_refused(served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, folder = served
    files = write_official("mnist", folder)
    redirect("mnist", base, files, monkeypatch)
    files[0].write_bytes(gzip.compress(b"something else"))
    with pytest.raises(InputError, match=r"cannot download mnist .*wrong checksum") as caught:
        data.load("mnist", str(tmp_path / "data"))
    assert "\n" not in str(caught.value)
    assert prepared.find(tmp_path / "data", "jaxdal_mnist") is None


def test_interrupted_preparation_does_not_need_the_network_again(
    served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, folder = served
    files = write_official("cifar10", folder)
    redirect("cifar10", base, files, monkeypatch)

    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(official, "read", stop)
        with pytest.raises(KeyboardInterrupt):
            data.load("cifar10", str(tmp_path / "data"))
    for file in files:
        file.unlink()
    assert_same(data.load("cifar10", str(tmp_path / "data")), "cifar10")


def test_urls_are_those_that_there_are_checksums_for() -> None:
    with published.quiet():
        from tensorflow_datasets.core.download import checksums

        from jaxdal.data import builders

        known = checksums.get_all_url_infos()
    assert set(builders.BUILDERS) == set(official.OFFICIAL)
    for name, source in official.OFFICIAL.items():
        builder = builders.BUILDERS[name]
        recorded = known | (builder.url_infos or {})
        unknown = {file for url, file in zip(source.urls, source.files, strict=True) if url not in recorded}
        assert unknown == ({"GTSRB_Online-Test-Images-Sorted.zip"} if name == "gtsrb:competition" else set())
        assert (not unknown) == builder.ALL_CHECKSUMS
        assert {recorded[url].filename for url in source.urls if url in recorded} == set(source.files) - unknown


# --- directories that TFDS has prepared ---


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
        records = {split: list(prepared._records(builder, split)) for split in ("train", "test")}
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


# --- without a network ---


def assert_advice(error: str, name: str, home: Path) -> None:
    source = official.OFFICIAL[name]
    assert "\n" not in error
    for word in (*source.files, source.urls[0].removesuffix(source.files[0]), str(home / name), "--data_dir"):
        assert word in error


@pytest.mark.parametrize("name", NAMES)
def test_unknown_host_fails_fast(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = official.OFFICIAL[name]
    urls = tuple(f"http://jaxdal.invalid/{file}" for file in source.files)  # .invalid never resolves (RFC 2606)
    monkeypatch.setitem(official.OFFICIAL, name, source._replace(urls=urls))
    start = time.monotonic()
    with pytest.raises(InputError, match=f"cannot download {name}") as caught:
        data.load(name, str(tmp_path))
    assert time.monotonic() - start < 20
    assert_advice(str(caught.value), name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_silent_host_fails_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert published.PROBE_SECONDS <= 15
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and never answers
        source = official.OFFICIAL["mnist"]
        urls = tuple(f"http://127.0.0.1:{silent.getsockname()[1]}/{file}" for file in source.files)
        monkeypatch.setitem(official.OFFICIAL, "mnist", source._replace(urls=urls))
        monkeypatch.setattr(published, "PROBE_SECONDS", 0.5)
        start = time.monotonic()
        with pytest.raises(InputError, match=r"\((no answer in 0.5 seconds|TimeoutError: timed out|timed out)\)"):
            data.load("mnist", str(tmp_path))
        assert time.monotonic() - start < 5
        time.sleep(0.1)  # let the probe end before its socket is closed


def test_missing_file_on_the_server(served: tuple[str, Path], tmp_path: Path) -> None:
    assert published.unreachable(f"{served[0]}nothing.gz") == "HTTP status 404"
    (served[1] / "file").write_text("x")
    assert published.unreachable(f"{served[0]}file") == ""


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
