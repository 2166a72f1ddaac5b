"""MixMatch in PyTorch, as its ports are written: two guess passes, three interleaved passes, averaged weights."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.rival_torch import Rival
from jaxdal.settings import Settings


class MixMatchRival(Rival):
    """One run of MixMatch, step after step; images are resident, as for `Rival`."""

    def __init__(self, settings: Settings, images: np.ndarray, labels: np.ndarray, known: np.ndarray) -> None:
        """images: u8[N, H, W, C], labels: int[N], known: int[L], the images that have labels."""
        super().__init__(settings, images, labels, known, best=False)
        self._unknown = torch.from_numpy(np.setdiff1d(np.arange(len(images)), known)).to(self.device)
        self._classes = settings.num_classes
        self._live = [leaf for leaf in self._model.state_dict().values() if leaf.is_floating_point()]
        self._average = [leaf.clone() for leaf in self._live]
        self._beta = torch.distributions.Beta(0.75, 0.75)
        self._taken, self._ramp = 0, 200 * settings.per_epoch[0]

    def _step(self, batch: Tensor) -> None:
        super()._step(batch)
        self._taken += 1
        torch._foreach_lerp_(self._average, self._live, 0.001)

    def _forward(self, index: Tensor) -> Tensor:
        size = len(index)
        drawn = self._unknown[torch.randint(len(self._unknown), (size,), device=self.device)]
        x, first, second = (self._augment(self._images[rows]) for rows in (index, drawn, drawn))
        with torch.no_grad():
            probs = (self._model(first).softmax(1) + self._model(second).softmax(1)) / 2
            guess = probs.square() / probs.square().sum(1, keepdim=True)
        images = torch.cat([x, first, second])
        targets = torch.cat([functional.one_hot(self._labels[index], self._classes).float(), guess, guess])
        share = self._beta.sample((3 * size, 1)).to(self.device)
        share = torch.maximum(share, 1 - share)
        partner = torch.randperm(3 * size, device=self.device)
        targets = share * targets + (1 - share) * targets[partner]
        share = share[:, :, None, None]
        images = share * images + (1 - share) * images[partner]
        answers = [self._model(part) for part in self._interleaved(images.split(size))]
        x_logits, *u_logits = self._interleaved(answers)
        supervised = functional.cross_entropy(x_logits, targets[:size])
        apart = functional.mse_loss(torch.cat(u_logits).softmax(1), targets[size:])
        return supervised + 100 * min(self._taken / self._ramp, 1) * apart

    def _interleaved(self, parts: list[Tensor] | tuple[Tensor, ...]) -> list[Tensor]:
        size = len(parts[0])
        lengths = [size // 3, (size + 1) // 3, (size + 2) // 3]
        groups = [list(part.split(lengths)) for part in parts]
        for i in (1, 2):
            groups[0][i], groups[i][i] = groups[i][i], groups[0][i]
        return [torch.cat(part) for part in groups]
