"""Sequential GCN: jaxdal's low-rank adjacency beside the whole matrix in NumPy and PyTorch.

    python -m benchmarks.select_gcn
    python -m benchmarks.select_gcn --n=10000 --k=2500 --labelled=5000 --epochs=200 --rivals=device   # one GPU, 90 s

`GB/s` is the features read twice per epoch over the time of everything; `x ours` how many times longer it takes.
200 epochs are the method's; on a CPU the whole matrix takes minutes for them.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.selecting import Contender, Pool, contest, ours, parser, pool, skipped, torch_device
from benchmarks.timing import Report
from jaxdal.strategies.gcn import LEARNING_RATE, WEIGHT_DECAY, core_gcn, uncertain_gcn

HIDDEN, DROPOUT, LAMBDA, MARGIN = 128, 0.3, 1.2, 0.1


def least_certain(q: np.ndarray, known: np.ndarray, k: int) -> np.ndarray:
    """Take the k unknown examples nearest to the margin."""
    return np.argsort(np.where(known < 0, np.abs(q - MARGIN), np.inf))[:k]


def in_numpy(data: Pool, k: int, epochs: int) -> np.ndarray:
    """The whole matrix, gradients written out; float32."""
    rng = np.random.default_rng(0)
    unit = data.features / np.maximum(np.linalg.norm(data.features, axis=1, keepdims=True), 1e-12)
    a = unit @ unit.T
    np.fill_diagonal(a, 0)
    a /= a.sum(axis=0)
    np.fill_diagonal(a, 1)
    labelled = data.known >= 0
    scale = [HIDDEN**-0.5, HIDDEN**-0.5, 1, 1]
    shapes = [(unit.shape[1], HIDDEN), (HIDDEN,), (HIDDEN, 1), (1,)]
    weights = [rng.uniform(-s, s, shape).astype(np.float32) for s, shape in zip(scale, shapes, strict=True)]
    mean, square = [0 * leaf for leaf in weights], [0 * leaf for leaf in weights]
    for step in range(1, epochs + 1):
        kept = (rng.random((len(unit), HIDDEN), np.float32) >= DROPOUT).astype(np.float32) / np.float32(1 - DROPOUT)
        hidden = np.maximum(a @ (unit @ weights[0]) + weights[1], 0)
        q = 1 / (1 + np.exp(-(a @ ((hidden * kept) @ weights[2]) + weights[3])[:, 0]))
        by_logit = np.where(labelled, (q - 1) / labelled.sum(), LAMBDA * q / (~labelled).sum()).astype(np.float32)
        back = a.T @ by_logit[:, None]
        by_hidden = back @ weights[2].T * kept * (hidden > 0)
        gradients = [
            unit.T @ (a.T @ by_hidden),
            by_hidden.sum(0),
            (hidden * kept).T @ back,
            by_logit.sum(keepdims=True),
        ]
        for i, gradient in enumerate(gradients):
            gradient = gradient + WEIGHT_DECAY * weights[i]
            mean[i] = 0.9 * mean[i] + 0.1 * gradient
            square[i] = 0.999 * square[i] + 0.001 * gradient**2
            spread = np.sqrt(square[i] / (1 - 0.999**step)) + 1e-8
            weights[i] = weights[i] - np.float32(LEARNING_RATE) * mean[i] / (1 - 0.9**step) / spread
    hidden = np.maximum(a @ (unit @ weights[0]) + weights[1], 0)
    q = 1 / (1 + np.exp(-(a @ (hidden @ weights[2]) + weights[3])[:, 0]))
    return least_certain(q, data.known, k)


def in_torch(data: Pool, k: int, epochs: int, device: Any) -> Contender:
    """As people write it: the whole matrix, two layers, autograd, Adam; features resident."""
    import torch

    features = torch.from_numpy(data.features).to(device)
    labelled = torch.from_numpy(data.known >= 0).to(device)

    def pick() -> np.ndarray:
        unit = torch.nn.functional.normalize(features)
        a = (unit @ unit.T).fill_diagonal_(0)
        a = (a / a.sum(dim=0)).fill_diagonal_(1)
        sizes = [(unit.shape[1], HIDDEN), (HIDDEN,), (HIDDEN, 1), (1,)]
        weights = [torch.empty(size, device=device).uniform_(-1, 1).mul_(size[-1] ** -0.5) for size in sizes]
        for leaf in weights:
            leaf.requires_grad_()
        adam = torch.optim.Adam(weights, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)

        def logits(dropout: bool) -> Any:
            hidden = torch.relu(a @ (unit @ weights[0]) + weights[1])
            hidden = torch.nn.functional.dropout(hidden, DROPOUT, dropout)
            return (a @ (hidden @ weights[2]) + weights[3])[:, 0]

        sure = torch.nn.functional.logsigmoid
        for _ in range(epochs):
            adam.zero_grad()
            logit = logits(True)
            (-sure(logit[labelled]).mean() - LAMBDA * sure(-logit[~labelled]).mean()).backward()
            adam.step()
        with torch.no_grad():
            return least_certain(np.asarray(torch.sigmoid(logits(False)).cpu()), data.known, k)

    return Contender(f"torch on {device}, whole matrix", pick)


def contenders(options: argparse.Namespace, data: Pool) -> list[Contender]:
    """Ours first; every example is a node."""
    signals = [data.features]
    found = [
        ours("jaxdal, uncertain", uncertain_gcn(None, epochs=options.epochs), data.known, signals, options.k),
        ours("jaxdal, core", core_gcn(None, epochs=options.epochs), data.known, signals, options.k),
    ]
    if options.rivals == "none":
        return found
    device = torch_device(options)
    if device is None:
        skipped("torch", "it is not installed")
    if device is None and options.rivals != "device":
        found.append(Contender("NumPy, whole matrix", lambda: in_numpy(data, options.k, options.epochs)))
    elif device is not None:
        found.append(in_torch(data, options.k, options.epochs, device))
    return found


def main(argv: Sequence[str]) -> Report:
    """Measure, print and save."""
    flags = parser("select_gcn", (__doc__ or "").split("\n")[0])
    flags.add_argument("--epochs", type=int, default=20)
    options = flags.parse_args(argv)
    reads = 2 * 4 * options.n * options.d * options.epochs
    return contest("select_gcn", argv, options, contenders(options, pool(options)), reads)


if __name__ == "__main__":
    main(sys.argv[1:])
