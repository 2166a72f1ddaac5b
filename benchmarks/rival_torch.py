"""The same training step in PyTorch: the same networks, images, augmentation and optimiser, on one device.

Images are resident on the device as uint8; a step draws a batch, crops, flips and normalises it there, clamps the
gradients and takes a step of SGD. No DataLoader, no transfers: the best that eager PyTorch can be.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.timing import seconds
from jaxdal.settings import Settings


class LeNet(nn.Module):
    """LeNet "Net1" for 28x28 images, with dropout."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, 10, 5), nn.Conv2d(10, 20, 5)
        self.hidden, self.head = nn.Linear(320, 50), nn.Linear(50, num_classes)

    def forward(self, x: Tensor, chunks: int = 1) -> Tensor:
        """[B, C, 28, 28] -> [B, K]; without BatchNorm, `chunks` change nothing."""
        x = functional.relu(functional.max_pool2d(self.first(x), 2))
        x = functional.relu(functional.max_pool2d(functional.dropout2d(self.second(x), 0.5, self.training), 2))
        x = functional.relu(self.hidden(x.flatten(1)))
        return self.head(functional.dropout(x, 0.5, self.training))


def normalised(norm: nn.Module, x: Tensor, chunks: int) -> Tensor:
    """Apply BatchNorm as if so many equal parts of a batch came one after another."""
    return norm(x) if chunks == 1 else torch.cat([norm(part) for part in x.chunk(chunks)])


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.second, self.second_norm = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.same = stride == 1 and channels == width
        if not self.same:
            self.shortcut = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor, chunks: int) -> Tensor:
        """[B, C, H, W] -> [B, width, H / stride, W / stride]."""
        y = functional.relu(normalised(self.first_norm, self.first(x), chunks))
        if not self.same:
            x = normalised(self.shortcut_norm, self.shortcut(x), chunks)
        return functional.relu(normalised(self.second_norm, self.second(y), chunks) + x)


class ResNet18(nn.Module):
    """ResNet-18 for 32x32 images, without a pool in the stem."""

    def __init__(self, widths: tuple[int, ...], channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0])
        blocks, width = [], widths[0]
        for stage, wider in enumerate(widths):
            blocks += [Block(width, wider, 1 if stage == 0 else 2), Block(wider, wider, 1)]
            width = wider
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor, chunks: int = 1) -> Tensor:
        """[B, C, 32, 32] -> [B, K]; chunks: as for `normalised`."""
        x = functional.relu(normalised(self.norm, self.stem(x), chunks))
        for block in self.blocks:
            x = block(x, chunks)
        return self.head(x.mean((2, 3)))


def network(name: str, channels: int, num_classes: int) -> nn.Module:
    """Return the twin of `jaxdal.models.build(name, ...)`: the same layers and the same initial distribution."""
    if name == "lenet":
        return LeNet(channels, num_classes)
    widths = {"resnet18_thin": (16, 32, 64, 128), "resnet18": (64, 128, 256, 512)}[name]
    return ResNet18(widths, channels, num_classes)


class Rival:
    """One run of training on a device, step after step.

    best: bf16, channels last, fused optimiser, and compiled; on CUDA as graphs, which take the launches off the host.
    """

    def __init__(
        self, settings: Settings, images: np.ndarray, labels: np.ndarray, known: np.ndarray, *, best: bool
    ) -> None:
        """images: u8[N, H, W, C], labels: int[N], known: int[L], the images that have labels."""
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._cuda, self._best, self._recipe = self.device.type == "cuda", best, settings.recipe
        self._crop, self._flip = settings.crop, settings.flip
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        self._images = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(self.device)
        self._labels = torch.from_numpy(labels.astype(np.int64)).to(self.device)
        self._known = torch.from_numpy(known.astype(np.int64)).to(self.device)
        self._mean = torch.tensor(settings.mean, device=self.device).view(-1, 1, 1)
        self._std = torch.tensor(settings.std, device=self.device).view(-1, 1, 1)
        self._model = network(settings.model, images.shape[-1], settings.num_classes).to(self.device)
        if best:
            self._model = self._model.to(memory_format=torch.channels_last)
        self._model.train()
        self._parameters = list(self._model.parameters())
        self._sgd = torch.optim.SGD(
            self._parameters, settings.recipe.learning_rate, settings.recipe.momentum,
            weight_decay=settings.recipe.weight_decay, fused=best or None,
        )  # fmt: skip
        mode = "reduce-overhead" if self._cuda else "default"
        self._loss: Callable[[Any], Tensor] = torch.compile(self._forward, mode=mode) if best else self._forward
        self._stay(self._images, self._labels, self._mean, self._std)
        self._order = torch.zeros(0, dtype=torch.int64, device=self.device)
        self.last = torch.zeros(())

    def steps(self, count: int) -> None:
        """Take so many steps and wait for them."""
        for _ in range(count):
            self._step(self._next())
        if self._cuda:
            torch.cuda.synchronize()

    def choose_threads(self, steps: int) -> None:
        """On a CPU, keep the faster of all threads and one: on a busy machine, torch's threads wait for each other."""
        if self._cuda:
            return
        timed = {}
        for threads in (torch.get_num_threads(), 1):
            torch.set_num_threads(threads)
            timed[min(seconds(partial(self.steps, steps)) for _ in range(2))] = threads
        torch.set_num_threads(timed[min(timed)])

    def finite(self) -> bool:
        """Was the last loss a number?"""
        return bool(torch.isfinite(self.last))

    def _next(self) -> Any:
        """The indices of the next batch: a new permutation of the labelled images every epoch, full batches only."""
        batch = self._recipe.batch
        if len(self._order) < batch:
            self._order = self._known[torch.randperm(len(self._known), device=self.device)]
        index, self._order = self._order[:batch], self._order[batch:]
        return index

    def _step(self, batch: Any) -> None:
        if self._best and self._cuda:
            torch.compiler.cudagraph_mark_step_begin()
        self._sgd.zero_grad(set_to_none=True)
        loss = self._loss(batch)
        loss.backward()
        self.last = loss.detach()
        if self._recipe.clamp is not None:
            clamp = self._recipe.clamp
            gradients: list[Any] = [parameter.grad for parameter in self._parameters]
            if self._best:
                torch._foreach_clamp_max_(gradients, clamp)
                torch._foreach_clamp_min_(gradients, -clamp)
            else:
                for gradient in gradients:
                    gradient.clamp_(-clamp, clamp)
        self._sgd.step()

    def _stay(self, *residents: Tensor) -> None:
        """Say that these are never replaced: else each replay of a graph would copy them, even the whole pool.

        Attributes of a plain class are inputs to it.
        """
        for resident in residents if self._best else ():
            torch._dynamo.mark_static_address(resident)

    def _forward(self, index: Any) -> Tensor:
        return functional.cross_entropy(self._logits(self._augment(self._images[index])), self._labels[index])

    def _logits(self, x: Tensor, chunks: int = 1) -> Tensor:
        """f32[B, C, H, W] -> f32[B, K]; chunks: as for `normalised`."""
        if not self._best:
            return self._model(x, chunks)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            logits = self._model(x.contiguous(memory_format=torch.channels_last), chunks)
        return logits.float()

    def _augment(self, x: Tensor) -> Tensor:
        """u8[B, C, H, W] -> f32[B, C, H, W]: crop, flip, normalise, each image by its own draw."""
        batch, _, height, width = x.shape
        if self._crop:
            padded = functional.pad(x, [self._crop] * 4)
            corner = torch.randint(2 * self._crop + 1, (2, batch, 1), device=x.device)
            rows = (corner[0] + torch.arange(height, device=x.device))[:, None, :, None]
            columns = (corner[1] + torch.arange(width, device=x.device))[:, None, None, :]
            image = torch.arange(batch, device=x.device)[:, None, None, None]
            channel = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
            x = padded[image, channel, rows, columns]
        if self._flip:
            x = torch.where(torch.rand(batch, 1, 1, 1, device=x.device) < 0.5, x.flip(3), x)
        return (x.float() / 255 - self._mean) / self._std
