"""TFDS's own test of builders, on small archives. It needs TensorFlow, which nothing else here does: optional."""

import tempfile
import warnings
from pathlib import Path

import pytest
import test_data_gtsrb
import test_data_tiny

from jaxdal.data import official

pytest.importorskip("tensorflow")
pytest.importorskip("dill")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tensorflow_datasets as tfds

    from jaxdal.data import builders
pytestmark = pytest.mark.filterwarnings("ignore")  # TensorFlow's


def case(name: str) -> type:
    """The test of one builder; TFDS finds all it needs in class attributes."""
    tiny = name == "tiny_imagenet"
    archives, whole = test_data_tiny.made() if tiny else test_data_gtsrb.made(name)
    write = test_data_tiny.write if tiny else test_data_gtsrb.write

    class Case(tfds.testing.DatasetBuilderTestCase):
        DATASET_CLASS = builders.BUILDERS[name]
        SPLITS = {"train": len(whole.train_y), "test": len(whole.test_y)}  # noqa: RUF012
        DL_DOWNLOAD_RESULT = list(official.OFFICIAL[name].files)  # noqa: RUF012
        SKIP_CHECKSUMS = not builders.BUILDERS[name].ALL_CHECKSUMS

        @classmethod
        def setUpClass(cls) -> None:
            cls.folder = tempfile.TemporaryDirectory()
            cls.EXAMPLE_DIR = cls.folder.name
            write(archives, Path(cls.folder.name))
            super().setUpClass()

        @classmethod
        def tearDownClass(cls) -> None:
            super().tearDownClass()
            cls.folder.cleanup()

    return Case


class TestGtsrb(case("gtsrb")):
    """Of the builder of GTSRB."""


class TestGtsrbCompetition(case("gtsrb:competition")):
    """Of the builder of its online competition."""


class TestTinyImagenet(case("tiny_imagenet")):
    """Of the builder of Tiny-ImageNet."""
