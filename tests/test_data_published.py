"""MNIST, Fashion-MNIST and CIFAR from small fake archives: by hand and through TFDS."""

import gzip
import io
import socket
import struct
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from fakes import NAMES, assert_same, cifar_members, fake, write_official
from publishing import redirect

from jaxdal import data
from jaxdal.data import official, prepared, published
from jaxdal.errors import InputError

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
