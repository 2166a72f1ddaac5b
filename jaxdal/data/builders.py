"""TFDS builders that need no TensorFlow. This module imports TFDS: import it only inside a function.

The builders of TFDS encode images and write TFRecords with TensorFlow. These encode PNG with Pillow, hand TFDS the
bytes, and write ArrayRecord in the order of the official files.
"""

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from PIL import Image

from jaxdal.data import official


class OfficialBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """One published data set; subclasses say which."""

    VERSION = tfds.core.Version("1.0.0")
    SOURCE: ClassVar[official.Official]

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=self.SOURCE.shape, encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=self.SOURCE.num_classes),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            disable_shuffling=True,  # the pool keeps the order of the official files
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        paths = [Path(path) for path in dl_manager.download(list(self.SOURCE.urls))]
        train, test, names = official.read(self.SOURCE, paths)
        if len(names) == self.SOURCE.num_classes:
            self.info.features["label"].names = list(names)
        return {"train": self._generate_examples(train), "test": self._generate_examples(test)}

    def _generate_examples(self, split: official.Split) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, (image, label) in enumerate(zip(split.x, split.y, strict=True)):
            yield index, {"image": encode_png(image), "label": int(label)}


class JaxdalMnist(OfficialBuilder):
    """MNIST."""

    SOURCE = official.OFFICIAL["mnist"]


class JaxdalFashionMnist(OfficialBuilder):
    """Fashion-MNIST."""

    SOURCE = official.OFFICIAL["fashion_mnist"]


class JaxdalCifar10(OfficialBuilder):
    """CIFAR-10."""

    SOURCE = official.OFFICIAL["cifar10"]


class JaxdalCifar100(OfficialBuilder):
    """CIFAR-100, fine labels."""

    SOURCE = official.OFFICIAL["cifar100"]


BUILDERS: dict[str, type[OfficialBuilder]] = {
    builder.SOURCE.name: builder for builder in (JaxdalMnist, JaxdalFashionMnist, JaxdalCifar10, JaxdalCifar100)
}


def encode_png(image: Any) -> bytes:
    """u8[H, W, C] with 1 or 3 channels -> PNG file."""
    buffer = io.BytesIO()
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    picture.save(buffer, "PNG", compress_level=1)  # thrice as fast as the default, and little larger
    return buffer.getvalue()


def prepare(name: str, data_dir: Path) -> None:
    """Download one data set and write it as ArrayRecord under the data directory; raises what TFDS raises."""
    # Newer versions of TFDS look nothing up in cloud storage; older ones do, and wait long where there is no network.
    tfds.core.utils.gcs_utils._is_gcs_disabled = True
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()  # a bar in a log file is one line per refresh
    builder = BUILDERS[name](data_dir=data_dir, file_format="array_record")
    config = tfds.download.DownloadConfig(try_download_gcs=False, force_checksums_validation=True)
    builder.download_and_prepare(download_config=config)
