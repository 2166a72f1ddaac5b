"""Reading directories that TFDS has prepared, by this package's builders or by its own, without TensorFlow."""

import hashlib
import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxdal.data.archives import Split
from jaxdal.data.official import Official
from jaxdal.errors import InputError


def find(data_dir: Path, name: str) -> Path | None:
    """Newest prepared version of a data set below `<data_dir>/<name>`, or None."""
    versions = [path.parent for path in (data_dir / name).glob("*.*.*/dataset_info.json")]
    numbered = [path for path in versions if all(part.isdigit() for part in path.name.split("."))]
    return max(numbered, key=lambda path: tuple(map(int, path.name.split("."))), default=None)


def read(folder: Path, official: Official) -> tuple[Split, Split, tuple[str, ...]]:
    """Training set, test set and class names, in the order of the official files.

    Raises InputError when the directory is damaged or written in a format other than ArrayRecord and TFRecord.
    """
    import tensorflow_datasets as tfds  # a second and much memory, for those who need it

    try:
        builder = tfds.builder_from_directory(folder)
        train, test = (_read_split(builder, split, official.shape) for split in ("train", "test"))
        return train, test, tuple(builder.info.features["label"].names)
    except InputError:
        raise
    except Exception as error:  # protobuf, json, array_record and Pillow each have their own for a damaged file
        raise InputError(
            f"{folder} cannot be read ({type(error).__name__}: {error}): delete it to prepare the data again"
        ) from error


def _read_split(builder: Any, name: str, shape: tuple[int, int, int]) -> Split:
    """One split of a builder that is prepared."""
    from PIL import Image
    from tensorflow_datasets.proto import tf_example_pb2

    size = int(builder.info.splits[name].num_examples)
    images, labels = np.empty((size, *shape), np.uint8), np.empty(size, np.uint8)
    mode = "L" if shape[-1] == 1 else "RGB"
    order = range(size) if builder.info.disable_shuffling else official_order(name, size)
    # Decoding in threads was measured and takes twice as long: the images are so small that threads only fight for
    # the interpreter lock.
    for position, record in zip(order, records(builder, name), strict=True):
        feature = tf_example_pb2.Example.FromString(record).features.feature
        picture = Image.open(io.BytesIO(feature["image"].bytes_list.value[0]), formats=("PNG", "JPEG"))
        whole = picture if picture.mode == mode else picture.convert(mode)  # Tiny-ImageNet has grey files
        images[position] = np.asarray(whole).reshape(shape)
        labels[position] = feature["label"].int64_list.value[0]
    return Split(images, labels)


def official_order(split: str, size: int) -> np.ndarray:
    """i64[size]: which example of the official files each record of TFDS's own builders is.

    Those write the examples sorted by the MD5 of split name and index. Undoing that gives every source of a data set
    the same order, and so every seed the same picks.
    """
    keys = [hashlib.md5(f"{split}{index}".encode(), usedforsecurity=False).digest() for index in range(size)]
    return np.array(sorted(range(size), key=keys.__getitem__))


def records(builder: Any, split: str) -> Iterator[bytes]:
    """Serialised examples of one split, undecoded, in the order of the files."""
    import tensorflow_datasets as tfds

    kind = builder.info.file_format.value
    if kind == "array_record":
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        source = builder.as_data_source(split, deserialize_method=raw)
        for start in range(0, len(source), 1024):
            yield from source.__getitems__(list(range(start, min(start + 1024, len(source)))))
    elif kind == "tfrecord":
        for path in builder.info.splits[split].filepaths:
            yield from tfrecords(Path(path))
    else:
        raise InputError(
            f"{builder.data_dir} is written as {kind}: delete it to prepare the data again as array_record"
        )


def tfrecords(path: Path) -> Iterator[bytes]:
    """Records of one TFRecord file: length u64, its checksum u32, bytes, their checksum u32 (not verified)."""
    with path.open("rb") as file:
        while header := file.read(12):
            if len(header) < 12:
                raise InputError(f"{path} ends in the middle of a record")
            (length,) = struct.unpack("<Q", header[:8])
            record = file.read(length)
            if len(record) < length or len(file.read(4)) < 4:
                raise InputError(f"{path} ends in the middle of a record")
            yield record
