"""TFDS builders that need no TensorFlow. This module imports TFDS: import it only inside a function.

The builders of TFDS encode images and write TFRecords with TensorFlow. These encode PNG with Pillow, or leave images as
encoded as they come, hand TFDS the bytes, and write ArrayRecord in the order of the official files.
"""

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from PIL import Image

from jaxdal.data import official, tiny_imagenet
from jaxdal.data.archives import Listing, Split, read_files

# Size, SHA-256 and name of archives for which TFDS itself has none. They are what several public projects record
# independently of each other. For the test images of GTSRB's online competition nothing of the kind was found.
_ARCHIVES = (
    (276294756, "d32ac4b5fa9a1cbd1994768413902e8193599d9434cf0a8eb9cfd00a6d3a290c", "GTSRB_Final_Training_Images.zip"),
    (88978620, "48ba6fab7e877eb64eaf8de99035b0aaecfbc279bee23e35deca4ac1d0a837fa", "GTSRB_Final_Test_Images.zip"),
    (99620, "f94e5a7614d75845c74c04ddb26b8796b9e483f43541dd95dd5b726504e16d6d", "GTSRB_Final_Test_GT.zip"),
    (187490228, "df4144942083645bd60b594de348aa6930126c3e0e5de09e39611630abf8455a", "GTSRB-Training_fixed.zip"),
    (248100043, "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821", "tiny-imagenet-200.zip"),
)


def _url_infos(source: official.Official) -> dict[str, Any]:
    """What TFDS compares the downloaded files of a data set with."""
    known = {name: tfds.download.checksums.UrlInfo(size, digest, name) for size, digest, name in _ARCHIVES}
    return {url: known[file] for url, file in zip(source.urls, source.files, strict=True) if file in known}


class OfficialBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """One published data set; subclasses say which."""

    VERSION = tfds.core.Version("1.0.0")
    SOURCE: ClassVar[official.Official]
    ENCODING: ClassVar[str] = "png"
    HOMEPAGE: ClassVar[str | None] = None
    CITATION: ClassVar[str | None] = None
    # Must every file that is downloaded have a known checksum? One that is known is compared in any case.
    ALL_CHECKSUMS: ClassVar[bool] = True

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=self.SOURCE.shape, encoding_format=self.ENCODING),
            "label": tfds.features.ClassLabel(num_classes=self.SOURCE.num_classes or None),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
            disable_shuffling=True,  # the pool keeps the order of the official files
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        paths = [Path(path) for path in dl_manager.download(list(self.SOURCE.urls))]
        train, test, names = official.read(self.SOURCE, paths)
        if len(names) == self.SOURCE.num_classes:
            self.info.features["label"].names = list(names)
        return {"train": self._generate_examples(train), "test": self._generate_examples(test)}

    def _generate_examples(self, split: Split) -> Iterator[tuple[int, dict[str, Any]]]:
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


class JaxdalGtsrb(OfficialBuilder):
    """German Traffic Sign Recognition Benchmark, whole frames at 32x32."""

    SOURCE = official.OFFICIAL["gtsrb"]
    HOMEPAGE = "https://benchmark.ini.rub.de/"
    CITATION = """
        @article{stallkamp2012man,
          title={Man vs. computer: Benchmarking machine learning algorithms for traffic sign recognition},
          author={Stallkamp, Johannes and Schlipsing, Marc and Salmen, Jan and Igel, Christian},
          journal={Neural Networks}, volume={32}, pages={323--332}, year={2012}
        }"""
    url_infos = _url_infos(SOURCE)


class JaxdalGtsrbCompetition(JaxdalGtsrb):
    """The online competition that preceded the benchmark: its training set, in two parts."""

    SOURCE = official.OFFICIAL["gtsrb:competition"]
    ALL_CHECKSUMS = False
    url_infos = _url_infos(SOURCE)


class JaxdalTinyImagenet(OfficialBuilder):
    """Tiny-ImageNet-200; the validation images are the test set. The files are kept as they are."""

    SOURCE = official.OFFICIAL["tiny_imagenet"]
    ENCODING = "jpeg"
    HOMEPAGE = "http://cs231n.stanford.edu/"
    CITATION = """
        @misc{le2015tiny,
          title={Tiny ImageNet Visual Recognition Challenge},
          author={Le, Ya and Yang, Xuan}, howpublished={CS 231N, Stanford University}, year={2015}
        }"""
    url_infos = _url_infos(SOURCE)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        (path,) = dl_manager.download(list(self.SOURCE.urls))
        train, test, names = tiny_imagenet.listings(Path(path))
        self.info.features["label"].names = list(names)
        return {"train": self._generate_encoded(train), "test": self._generate_encoded(test)}

    def _generate_encoded(self, listing: Listing) -> Iterator[tuple[int, dict[str, Any]]]:
        contents = read_files(listing.path, listing.root, listing.names)
        for index, (content, label) in enumerate(zip(contents, listing.labels, strict=True)):
            yield index, {"image": content, "label": label}


BUILDERS: dict[str, type[OfficialBuilder]] = {
    builder.SOURCE.name: builder
    for builder in (
        JaxdalMnist, JaxdalFashionMnist, JaxdalCifar10, JaxdalCifar100,
        JaxdalGtsrb, JaxdalGtsrbCompetition, JaxdalTinyImagenet,
    )
}  # fmt: skip


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
    config = tfds.download.DownloadConfig(try_download_gcs=False, force_checksums_validation=builder.ALL_CHECKSUMS)
    builder.download_and_prepare(download_config=config)
