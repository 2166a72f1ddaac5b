"""The same training step in PyTorch behind a DataLoader: images are cropped and flipped by PIL, one by one, in workers.

This is how most published code trains. The transforms are those that torchvision's RandomCrop, RandomHorizontalFlip,
ToTensor and Normalize make of PIL images, without torchvision, whose build has to fit torch's. Up to two batches per
worker are ready before a measurement begins, in the rival's favour.
"""

import os

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from benchmarks.rival_torch import Rival
from jaxdal.settings import Settings

WORKERS = 4  # or as many as there are cores

Example = tuple[Tensor, int]


class Pictures(Dataset[Example]):
    """Labelled images, transformed one by one."""

    def __init__(self, settings: Settings, images: np.ndarray, labels: np.ndarray) -> None:
        """images: u8[L, H, W, C], labels: int[L]."""
        self._images, self._labels = images, labels
        self._crop, self._flip = settings.crop, settings.flip
        self._mean, self._std = (torch.tensor(one).view(-1, 1, 1) for one in (settings.mean, settings.std))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, place: int) -> Example:
        """-> f32[C, H, W], label."""
        pixels = self._images[place]
        image = Image.fromarray(pixels if pixels.shape[2] > 1 else pixels[:, :, 0])
        if self._crop:
            width, height = image.size
            left, top = torch.randint(2 * self._crop + 1, (2,)).tolist()
            image = ImageOps.expand(image, border=self._crop).crop((left, top, left + width, top + height))
        if self._flip and torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        x = torch.from_numpy(np.array(image).reshape(pixels.shape).transpose(2, 0, 1).copy())
        return (x.float() / 255 - self._mean) / self._std, int(self._labels[place])


class LoaderRival(Rival):
    """One run of training on a device, as commonly written."""

    def __init__(
        self, settings: Settings, images: np.ndarray, labels: np.ndarray, known: np.ndarray, workers: int | None = None
    ) -> None:
        """images: u8[N, H, W, C], labels: int[N], known: int[L], the images that have labels."""
        super().__init__(settings, images[:1], labels[:1], known, best=False)
        if workers is None:
            workers = min(WORKERS, len(os.sched_getaffinity(0)))
        self._loader = DataLoader(
            Pictures(settings, images[known], labels[known]), settings.recipe.batch, shuffle=True, drop_last=True,
            num_workers=workers, pin_memory=self._cuda, persistent_workers=workers > 0,
            multiprocessing_context="spawn" if workers else None,  # JAX's threads do not survive a fork
        )  # fmt: skip
        self._batches = iter(self._loader)

    def _next(self) -> tuple[Tensor, Tensor]:
        """The next batch, of the next epoch where one ends."""
        batch = next(self._batches, None)
        if batch is None:
            self._batches = iter(self._loader)
            batch = next(self._batches)
        x, y = (part.to(self.device, non_blocking=True) for part in batch)
        return x, y

    def _forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        return functional.cross_entropy(self._model(x), y)
