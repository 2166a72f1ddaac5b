"""A MixMatch step on a network with convolution and BatchNorm against PyTorch, which passes chunk after chunk."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from perceptron import CLASSES, MEAN, STD, batch
from reference import semisupervised as slow
from test_mixmatch import PAPER, SIZE, mixmatch_draws, one_hot, start, take_step

from jaxdal import augment, trainers
from jaxdal.models.layers import BatchNorm, Conv, Linear
from jaxdal.types import Model, Network

torch = pytest.importorskip("torch")
WIDTH = 4


class Small(nn.Module):
    """Convolution, BatchNorm, rectifier, mean over the image, linear."""

    @nn.compact
    def __call__(self, x, train, chunks=1):  # noqa: D102
        x = nn.relu(BatchNorm()(Conv(WIDTH, 3, padding=1)(x), train, chunks))
        return Linear(CLASSES)(x.mean((1, 2)))


@functools.cache
def network() -> Network:
    module = Small()

    def init(key):
        variables = module.init(key, jnp.zeros((1, 4, 4, 1)), False)
        leaves, form = jax.tree.flatten(variables["params"])
        keys = jax.random.split(key, len(leaves))
        drawn = [0.7 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
        return {"params": jax.tree.unflatten(form, drawn), "batch_stats": variables["batch_stats"]}

    def apply(variables, x, *, train=False, dropout_key=None, chunks=1):
        logits, updated = module.apply(variables, x, train, chunks, mutable=["batch_stats"])
        return logits, updated

    return augment.network(Model(init, apply, pack=1), MEAN, STD, crop=1, flip=True)


class Twin:
    """The same network in PyTorch."""

    def __init__(self, variables) -> None:
        own = jax.tree.map(lambda leaf: torch.from_numpy(np.array(leaf)), variables["params"])
        self.kernel = own["Conv_0"]["kernel"].permute(3, 2, 0, 1)
        self.scale, self.shift = own["BatchNorm_0"]["scale"], own["BatchNorm_0"]["bias"]
        self.head, self.bias = own["Linear_0"]["kernel"], own["Linear_0"]["bias"]
        self.mean, self.var = torch.zeros(WIDTH), torch.ones(WIDTH)
        for leaf in self.trained:
            leaf.requires_grad_()

    @property
    def trained(self):  # noqa: D102
        return [self.kernel, self.scale, self.shift, self.head, self.bias]

    def __call__(self, x):  # noqa: D102
        y = torch.nn.functional.conv2d(x, self.kernel, padding=1)
        y = torch.nn.functional.batch_norm(y, self.mean, self.var, self.scale, self.shift, training=True)
        return torch.relu(y).mean((2, 3)) @ self.head + self.bias


def published_loss(twin: Twin, x, y, first, second, share, partner, weight):
    """The loss of the published code with a share for each image."""
    with torch.no_grad():
        kept = twin.mean.clone(), twin.var.clone()
        probs = (torch.softmax(twin(first), 1) + torch.softmax(twin(second), 1)) / 2
        twin.mean, twin.var = kept  # the deviation: guesses do not move the running statistics
        guess = probs**2 / (probs**2).sum(1, keepdim=True)
    images, targets = torch.cat([x, first, second]), torch.cat([y, guess, guess])
    images = share[:, None, None, None] * images + (1 - share)[:, None, None, None] * images[partner]
    targets = share[:, None] * targets + (1 - share)[:, None] * targets[partner]
    order = [torch.from_numpy(part) for part in slow.interleave(list(np.arange(3 * SIZE).reshape(3, SIZE)))]
    answers = [twin(images[rows]) for rows in order]
    logits = torch.empty_like(targets).index_copy(0, torch.cat(order), torch.cat(answers))
    supervised = -(targets * torch.log_softmax(logits, 1))[:SIZE].sum(1).mean()
    return supervised + weight * ((torch.softmax(logits, 1) - targets)[SIZE:] ** 2).mean()


def test_a_step_is_pytorchs():
    trainer, images = trainers.build("mixmatch"), batch(SIZE, SIZE)
    state = start(network(), trainer)
    after = take_step(network(), trainer, state, images)

    *views, share, partner = (np.array(leaf) for leaf in mixmatch_draws(network(), images))
    x, first, second = (torch.from_numpy(view.transpose(0, 3, 1, 2).copy()) for view in views)
    labels = torch.from_numpy(one_hot(images.y).astype(np.float32))
    twin = Twin(state.variables)
    sgd = torch.optim.SGD(twin.trained, lr=0.05, momentum=0.9, weight_decay=5e-4)
    order = torch.from_numpy(partner.astype(np.int64))
    loss = published_loss(twin, x, labels, first, second, torch.from_numpy(share), order, PAPER)
    loss.backward()
    sgd.step()

    assert float(after.loss) == pytest.approx(loss.item(), rel=1e-4)
    found, kernel = after.variables["params"], twin.kernel.detach().permute(2, 3, 1, 0)
    norm, head = found["BatchNorm_0"], found["Linear_0"]
    pairs = [
        (found["Conv_0"]["kernel"], kernel), (norm["scale"], twin.scale), (norm["bias"], twin.shift),
        (head["kernel"], twin.head), (head["bias"], twin.bias),
        (after.variables["batch_stats"]["BatchNorm_0"]["mean"], twin.mean),
        (after.variables["batch_stats"]["BatchNorm_0"]["var"], twin.var),
    ]  # fmt: skip
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-5)
    moved = np.abs(np.asarray(state.variables["params"]["Linear_0"]["kernel"]) - np.asarray(head["kernel"]))
    assert moved.max() > 1e-3
    averaged = 0.999 * np.ones(WIDTH) + 0.001 * twin.var.numpy()
    np.testing.assert_allclose(after.average["batch_stats"]["BatchNorm_0"]["var"], averaged, rtol=1e-5)
