"""Finding a published data set: prepared before, put there by hand, or downloaded now."""

import contextlib
import http.client
import io
import os
import sys
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path

from jaxdal.data import local, official, prepared
from jaxdal.data.arrays import from_arrays
from jaxdal.errors import InputError
from jaxdal.types import Dataset

PROBE_SECONDS = 10.0


def load(name: str, data_dir: Path, mirror: bool) -> Dataset:
    """One of official.OFFICIAL, from the first place that has it.

    1. `<data_dir>/jaxdal_<name>/<version>`: prepared by this function earlier;
    2. the official files, put by hand into one of the folders that official.OFFICIAL names;
    3. `<data_dir>/<name>.npz`, with the keys of `npz:PATH`: one file that is easily carried to another machine;
    4. `<data_dir>/<name>/<version>`: prepared by TFDS itself;
    5. the network; prepared for the next time.

    Raises InputError when there is neither data nor network, or when a file is damaged.
    """
    source = official.OFFICIAL[name]
    if folder := prepared.find(data_dir, source.builder):
        with quiet():
            parts = prepared.read(folder, source)
    elif paths := official.find(source, data_dir):
        parts = official.read(source, paths)
    elif (path := archive(name, data_dir)).is_file():
        return _from_archive(source, path, mirror)
    elif folder := prepared.find(data_dir, name):
        with quiet():
            parts = prepared.read(folder, source)
    else:
        download(source, data_dir)
        return load(name, data_dir, mirror)
    train, test, class_names = parts
    return from_arrays(
        train.x, train.y, test.x, test.y,
        num_classes=source.num_classes or None, mirror=mirror, class_names=class_names,
    )  # fmt: skip


def archive(name: str, data_dir: Path) -> Path:
    """Where a published data set may lie as one file; a colon in its name becomes an underscore."""
    return data_dir / f"{name.replace(':', '_')}.npz"


def _from_archive(source: official.Official, path: Path, mirror: bool) -> Dataset:
    """Raises InputError when the images are not of the shape that this data set has."""
    found = local.load_npz(path, source.num_classes or None, mirror)
    if (shape := found.train_x.shape[1:]) != source.shape:
        raise InputError(f"{path} has images of {shape}, but those of {source.name} are {source.shape}")
    return found


def download(source: official.Official, data_dir: Path) -> None:
    """Fetch and prepare through TFDS; raises InputError within 20 s when there is no network."""
    if not _fetched(source, data_dir) and (reason := unreachable(source.urls[0])):
        raise InputError(_advice(source, data_dir, reason))
    print(f"downloading and preparing {source.name} in {data_dir}", file=sys.stderr, flush=True)
    try:
        with quiet():
            from jaxdal.data import builders

            builders.prepare(source.name, data_dir)
    except InputError:
        raise
    except Exception as error:  # requests, urllib3 and TFDS each have their own for a download that fails
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(_advice(source, data_dir, reason)) from error
    if prepared.find(data_dir, source.builder) is None:
        raise InputError(f"TFDS prepared {source.name} but nothing can be found in {data_dir / source.builder}")


def unreachable(url: str) -> str:
    """Why a URL cannot be read, in words, or "" when it can. Takes no longer than PROBE_SECONDS."""
    answer: list[str] = []

    def probe() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()  # knows proxies, as TFDS does
            answer.append("")
        except urllib.error.HTTPError as error:
            error.close()
            refuses_head = error.code in (405, 501)  # somebody is there, and that is what was asked
            answer.append("" if refuses_head else f"HTTP status {error.code}")
        except urllib.error.URLError as error:
            answer.append(str(error.reason))
        except (OSError, ValueError, http.client.HTTPException) as error:
            answer.append(f"{type(error).__name__}: {error}")

    # In a thread, because a look-up of the host name knows no time limit.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answer[0] if answer else f"no answer in {PROBE_SECONDS:g} seconds"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings, log lines and prints of TFDS; its progress bars, on stderr, stay."""
    import absl.logging

    verbosity = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        absl.logging.set_verbosity(verbosity)


def default_data_dir() -> Path:
    """$TFDS_DATA_DIR, or TFDS's own default."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def _fetched(source: official.Official, data_dir: Path) -> bool:
    """Did an earlier, interrupted start already download everything? TFDS notes the URL beside each file."""
    notes = "".join(path.read_text() for path in (data_dir / "downloads").rglob("*.INFO"))
    return all(url in notes for url in source.urls)


def _advice(source: official.Official, data_dir: Path, reason: str) -> str:
    """The one sentence for somebody without data and without network."""
    host = source.urls[0].removesuffix(source.files[0])
    return (
        f"cannot download {source.name} ({reason}): put {', '.join(source.files)} from {host} into "
        f"{data_dir / source.folders[0]} (--data_dir replaces {data_dir}), or use --dataset=digits or npz:PATH"
    )
