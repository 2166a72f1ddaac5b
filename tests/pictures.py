"""Small image files, and trees of them."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from jaxdal import data
from jaxdal.types import Dataset


def picture(seed: int, shape: tuple[int, ...] = (6, 5, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, array: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def tree(root: Path, *, test: str = "test", per_class: int = 3) -> Path:
    """Classes b, a and C, with images that differ; test images have seeds of 100 and more."""
    for label, name in enumerate("Cab"):
        for number in range(per_class):
            save(root / "train" / name / f"{number}.png", picture(10 * label + number))
        save(root / test / name / "x.png", picture(100 + label))
    return root


def load(root: Path, **options: object) -> Dataset:
    return data.load(f"folder:{root}", options=data.Options(**options))


def encoded(array: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()
