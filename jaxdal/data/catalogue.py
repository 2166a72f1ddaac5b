"""Any image classification data set of TFDS: `tfds:NAME`, `tfds:NAME/CONFIG`, `tfds:NAME:VERSION`.

What is prepared already is read without TensorFlow. Preparing needs it, since TFDS's own builders encode with it.
"""

import difflib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxdal.data import cache, prepared, published
from jaxdal.data.cache import Options, Sources
from jaxdal.data.holdout import hold_out
from jaxdal.data.images import Source
from jaxdal.errors import InputError
from jaxdal.types import Dataset

TEST_SPLITS = ("test", "validation", "val", "valid")


def load(name: str, data_dir: Path, options: Options) -> Dataset:
    """One data set of TFDS, prepared below the data directory earlier or now.

    The split `train` is trained on; for testing there is `test`, else `validation`, else a part of each class of
    `train`. The pool has the order of the records.

    Raises:
        InputError: no such data set, not one of image classification, TensorFlow is needed and absent, ...
    """
    with published.quiet():
        where = _find(name, data_dir) or _prepare(name, data_dir)
    files = sorted(path for path in where.iterdir() if path.is_file())
    stamps = [cache.stamp(path.name, path.stat()) for path in files]
    return cache.dataset(f"tfds:{name}", stamps, options, lambda: _sources(name, where, options))


def _find(name: str, data_dir: Path) -> Path | None:
    """The folder where a data set is prepared, as its name alone tells; None if it does not."""
    path, _, version = name.partition(":")
    if not version:
        return prepared.find(data_dir, path)
    return data_dir / path / version if (data_dir / path / version / "dataset_info.json").exists() else None


def _prepare(name: str, data_dir: Path) -> Path:
    """Let TFDS find, or download and write, a data set; raises InputError."""
    import tensorflow_datasets as tfds

    tfds.core.utils.gcs_utils._is_gcs_disabled = True  # without a network it would wait long
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        where = Path(builder.data_dir)  # with the default configuration, which the name need not say
        if (where / "dataset_info.json").exists():
            return where
        if importlib.util.find_spec("tensorflow") is None:
            raise InputError(
                f"tfds:{name} is not prepared in {data_dir} (--data_dir), and preparing it needs TensorFlow: "
                "pip install 'jaxdal[tfds]'"
            )
        if reason := _offline(list(builder.url_infos or ()), data_dir):
            raise InputError(f"tfds:{name} cannot be downloaded ({reason})")
        import tensorflow as tf

        tf.config.set_visible_devices([], "GPU")  # or it takes all memory of the accelerators
        print(f"downloading and preparing tfds:{name} in {data_dir}", file=sys.stderr, flush=True)
        if not sys.stderr.isatty():
            tfds.disable_progress_bar()  # a bar in a log file is one line per refresh
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    except InputError:
        raise
    except tfds.core.DatasetNotFoundError as error:
        near = difflib.get_close_matches(name, tfds.list_builders(with_community_datasets=False), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"TFDS has no {name!r}: {hint}They are listed at tensorflow.org/datasets/catalog") from error
    except Exception as error:  # requests, urllib3 and every builder have their own
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"tfds:{name} cannot be prepared ({reason})") from error
    return where


def _offline(urls: list[str], data_dir: Path) -> str:
    """Why the first URL is out of reach, or "": TFDS itself would try for minutes. An answer of any kind will do."""
    noted = [path.read_text() for path in (data_dir / "downloads").rglob("*.INFO")]  # by a start that was interrupted
    if not urls or any(urls[0] in note for note in noted):
        return ""
    reason = published.unreachable(urls[0])
    return "" if reason.startswith("HTTP status") else reason


def _sources(name: str, where: Path, options: Options) -> Sources:
    """All records, still encoded; raises InputError."""
    import tensorflow_datasets as tfds

    try:
        with published.quiet():
            builder = tfds.builder_from_directory(where)
            image, label, class_names = _keys(name, builder.info)
            splits = dict.fromkeys(builder.info.splits)
            given = (split for split in TEST_SPLITS if split in splits)
            # Of some, such as imagenet2012, the labels of the test images are kept secret: they are -1.
            test = next((split for split in given if next(_records(builder, split, image, label)).label >= 0), None)
            if "train" not in splits:
                raise InputError(f"tfds:{name} has no split 'train', but {', '.join(splits)}")
            if test is not None and options.test_share is not None:
                raise InputError(f"--test_share={options.test_share}: tfds:{name} has the split {test!r} for testing")
            train = list(_records(builder, "train", image, label))
            held_out = list(_records(builder, test, image, label)) if test else []
    except InputError:
        raise
    except Exception as error:  # protobuf, json and array_record each have their own for a damaged file
        raise InputError(
            f"{where} cannot be read ({type(error).__name__}: {error}): delete it to prepare the data again"
        ) from error
    if test is None:
        train, held_out = hold_out(train, options.test_share)
    if any(source.label < 0 for source in [*train, *held_out]):
        raise InputError(f"tfds:{name} has images without a label")
    return Sources(train, held_out, class_names)


def _keys(name: str, info: Any) -> tuple[str, str, tuple[str, ...]]:
    """The features of image and label, and the class names; raises InputError when there are none."""
    import tensorflow_datasets as tfds

    image, label = keys = info.supervised_keys if len(info.supervised_keys or ()) == 2 else ("image", "label")
    features = [info.features[key] if isinstance(key, str) and key in info.features else None for key in keys]
    if not isinstance(features[0], tfds.features.Image) or not isinstance(features[1], tfds.features.ClassLabel):
        raise InputError(
            f"tfds:{name} is not for image classification: its features are {', '.join(sorted(info.features))}"
        )
    return image, label, tuple(features[1].names)


def _records(builder: Any, split: str, image: str, label: str) -> Iterator[Source]:
    from tensorflow_datasets.proto import tf_example_pb2

    for number, record in enumerate(prepared.records(builder, split)):
        feature = tf_example_pb2.Example.FromString(record).features.feature
        content, number_of_class = feature[image].bytes_list.value[0], feature[label].int64_list.value[0]
        yield Source(f"{split}/{number}", content, number_of_class)
