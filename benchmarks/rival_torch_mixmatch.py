"""MixMatch in PyTorch: as its ports are written, at its best, and behind two DataLoaders.

All take B labelled images and two views of B unlabelled ones, guess labels, mix all 3B, and pass them through the
network in three interleaved parts, each with BatchNorm statistics of its own; then the averaged weights follow. As in
the published code, the guesses move the running statistics too, which ours do not: five small updates for three.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.rival_torch import Rival
from benchmarks.rival_torch_loader import Batches, Pictures
from jaxdal.settings import Settings

ALPHA, WEIGHT, RAMP, AVERAGE = 0.75, 100, 200, 0.999  # of the paper's preset; the ramp in epochs


class MixMatchRival(Rival):
    """One run of MixMatch, step after step; images are resident, as for `Rival`.

    best: as for `Rival`, and the two views pass in one batch of 2B and the mixed images in one of 3B, as ours do, with
    BatchNorm by parts; the passes as commonly written are five of B. Shares are drawn on the device, in the graph.
    """

    def __init__(
        self, settings: Settings, images: np.ndarray, labels: np.ndarray, known: np.ndarray, *, best: bool
    ) -> None:
        """images: u8[N, H, W, C], labels: int[N], known: int[L], the images that have labels."""
        super().__init__(settings, images, labels, known, best=best)
        self._unknown = torch.from_numpy(np.setdiff1d(np.arange(len(images)), known)).to(self.device)
        self._classes = settings.num_classes
        self._live = [leaf for leaf in self._model.state_dict().values() if leaf.is_floating_point()]
        self._average = [leaf.clone() for leaf in self._live]
        self._beta = torch.distributions.Beta(ALPHA, ALPHA)
        self._taken, self._ramp = torch.zeros((), device=self.device), RAMP * settings.per_epoch[0]
        self._stay(self._unknown, self._taken)

    def _step(self, batch: Any) -> None:
        super()._step(batch)
        self._taken += 1
        torch._foreach_lerp_(self._average, self._live, 1 - AVERAGE)

    def _forward(self, batch: Any) -> Tensor:
        x, labels, first, second = self._views(batch)
        size = len(x)
        with torch.no_grad():
            probs = torch.stack([logits.softmax(1) for logits in self._answers([first, second])]).mean(0)
            guess = probs.square() / probs.square().sum(1, keepdim=True)
        images = torch.cat([x, first, second])
        targets = torch.cat([functional.one_hot(labels, self._classes).float(), guess, guess])
        share, partner = self._mixing(3 * size)
        targets = share * targets + (1 - share) * targets[partner]
        share = share[:, :, None, None]
        images = share * images + (1 - share) * images[partner]
        x_logits, *u_logits = interleaved(self._answers(interleaved(images.split(size))))
        supervised = functional.cross_entropy(x_logits, targets[:size])
        apart = functional.mse_loss(torch.cat(u_logits).softmax(1), targets[size:])
        return supervised + WEIGHT * (self._taken / self._ramp).clamp(max=1) * apart

    def _views(self, index: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Labelled images, their labels, and two views of as many unlabelled ones."""
        drawn = self._unknown[torch.randint(len(self._unknown), (len(index),), device=self.device)]
        x, first, second = (self._augment(self._images[rows]) for rows in (index, drawn, drawn))
        return x, self._labels[index], first, second

    def _answers(self, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        """Logits of parts of B images, each with BatchNorm statistics of its own."""
        if not self._best:
            return [self._logits(part) for part in parts]
        return self._logits(torch.cat(list(parts)), len(parts)).chunk(len(parts))

    def _mixing(self, count: int) -> tuple[Tensor, Tensor]:
        """max(l, 1 - l) with l ~ Beta(ALPHA, ALPHA), f32[count, 1], and a permutation, i64[count]."""
        if not self._best:
            share = self._beta.sample((count, 1)).to(self.device)
            return torch.maximum(share, 1 - share), torch.randperm(count, device=self.device)
        u, v = torch.rand(2, count, 1, device=self.device).clamp(min=1e-7)  # as in jaxdal.losses.mixing_shares
        z = (u ** (-1 / ALPHA) - 1) * torch.cos(2 * math.pi * v).square()
        # Not randperm: torch 2.13 cannot compile an index that was made by it.
        return 0.5 + 0.5 * torch.rsqrt(1 + 1 / z), torch.rand(count, device=self.device).argsort()


class MixMatchLoaderRival(MixMatchRival):
    """The same with images from two DataLoaders, of labelled ones and of two views of unlabelled ones."""

    def __init__(
        self, settings: Settings, images: np.ndarray, labels: np.ndarray, known: np.ndarray, workers: int | None = None
    ) -> None:
        """images: u8[N, H, W, C], labels: int[N], known: int[L]. workers: of each loader; None for WORKERS."""
        super().__init__(settings, images[:1], labels[:1], known, best=False)
        unknown = np.setdiff1d(np.arange(len(images)), known)
        labelled = Pictures(settings, images[known], labels[known])
        unlabelled = Pictures(settings, images[unknown], np.full(len(unknown), -1), views=2)
        self._labelled, self._unlabelled = (
            Batches(pictures, settings.recipe.batch, self.device, workers) for pictures in (labelled, unlabelled)
        )

    def _next(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The next batch of both."""
        (x, labels), (first, second, _) = next(self._labelled), next(self._unlabelled)
        return x, labels, first, second

    def _views(self, batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return batch


def interleaved(parts: Sequence[Tensor]) -> list[Tensor]:
    """Give each of three parts a third of the labelled one: its own inverse, the order of the published code."""
    size = len(parts[0])
    lengths = [size // 3, (size + 1) // 3, (size + 2) // 3]
    groups = [list(part.split(lengths)) for part in parts]
    for i in (1, 2):
        groups[0][i], groups[i][i] = groups[i][i], groups[0][i]
    return [torch.cat(part) for part in groups]
