"""What is suspicious about a data set, but may be meant."""

import collections

import numpy as np

from jaxdal.types import Dataset


def remarks(dataset: Dataset) -> list[str]:
    """A sentence about images that training and test set share, and one about classes that either lacks."""
    told = []
    shared = shared_images(dataset)
    if shared:
        told.append(f"{shared:,} of {len(dataset.test_y):,} test images are also training images, pixel for pixel")
    for which, labels in (("training", dataset.train_y), ("test", dataset.test_y)):
        missing = np.flatnonzero(np.bincount(labels, minlength=dataset.num_classes) == 0)
        if missing.size:
            names = [dataset.class_names[label] if dataset.class_names else str(label) for label in missing]
            more = f" and {len(names) - 10} more" if len(names) > 10 else ""
            told.append(f"there is no {which} image of class {', '.join(names[:10])}{more}")
    return told


def shared_images(dataset: Dataset) -> int:
    """How many test images equal a training image in every pixel."""
    # Bytes as keys are compared in full. Only those of the test set, the smaller one, are held.
    counts = collections.Counter(image.tobytes() for image in dataset.test_x)
    return sum(counts.pop(image.tobytes(), 0) for image in dataset.train_x)
