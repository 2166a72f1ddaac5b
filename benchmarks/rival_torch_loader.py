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


class Pictures(Dataset[tuple[Tensor | int, ...]]):
    """Images and labels; each image is transformed whenever it is asked for."""

    def __init__(self, settings: Settings, images: np.ndarray, labels: np.ndarray, views: int = 1) -> None:
        """images: u8[L, H, W, C], labels: int[L]. views: how many of an image there are in an example."""
        self._images, self._labels, self._views = images, labels, views
        self._crop, self._flip = settings.crop, settings.flip
        self._mean, self._std = (torch.tensor(one).view(-1, 1, 1) for one in (settings.mean, settings.std))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, place: int) -> tuple[Tensor | int, ...]:
        """-> f32[C, H, W], as many as there are views, and the label."""
        return *(self._view(self._images[place]) for _ in range(self._views)), int(self._labels[place])

    def _view(self, pixels: np.ndarray) -> Tensor:
        image = Image.fromarray(pixels if pixels.shape[2] > 1 else pixels[:, :, 0])
        if self._crop:
            width, height = image.size
            left, top = torch.randint(2 * self._crop + 1, (2,)).tolist()
            image = ImageOps.expand(image, border=self._crop).crop((left, top, left + width, top + height))
        if self._flip and torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        x = torch.from_numpy(np.array(image).reshape(pixels.shape).transpose(2, 0, 1).copy())
        return (x.float() / 255 - self._mean) / self._std


class Batches:
    """Batches of a DataLoader, epoch after epoch, on a device."""

    def __init__(self, pictures: Pictures, batch: int, device: torch.device, workers: int | None = None) -> None:
        """workers: None for WORKERS."""
        if workers is None:
            workers = min(WORKERS, len(os.sched_getaffinity(0)))
        self._device = device
        self._loader = DataLoader(
            pictures, batch, shuffle=True, drop_last=True, num_workers=workers, pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
            multiprocessing_context="spawn" if workers else None,  # JAX's threads do not survive a fork
        )  # fmt: skip
        self._epoch = iter(self._loader)

    def __next__(self) -> list[Tensor]:
        batch = next(self._epoch, None)
        if batch is None:
            self._epoch = iter(self._loader)
            batch = next(self._epoch)
        return [part.to(self._device, non_blocking=True) for part in batch]


class LoaderRival(Rival):
    """One run of training on a device, as commonly written."""

    def __init__(
        self, settings: Settings, images: np.ndarray, labels: np.ndarray, known: np.ndarray, workers: int | None = None
    ) -> None:
        """images: u8[N, H, W, C], labels: int[N], known: int[L], the images that have labels."""
        super().__init__(settings, images[:1], labels[:1], known, best=False)
        pictures = Pictures(settings, images[known], labels[known])
        self._batches = Batches(pictures, settings.recipe.batch, self.device, workers)

    def _next(self) -> list[Tensor]:
        """The next batch, of the next epoch where one ends."""
        return next(self._batches)

    def _forward(self, batch: list[Tensor]) -> Tensor:
        x, y = batch
        return functional.cross_entropy(self._logits(x), y)
