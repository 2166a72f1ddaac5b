"""VAAL of linear layers from Sinha et al. (2019): losses, gradients by hand and Adam, image by image where it can be.

Everything in float64. Layers are dictionaries {"kernel": [in, out], "bias": [out]}.
"""

import math

import numpy as np

Layer = dict[str, np.ndarray]


def divergence(mean: np.ndarray, log_variance: np.ndarray) -> float:
    """KL(N(mean, diag exp(log_variance)) || N(0, 1)) of one image in nats; Kingma and Welling (2014), appendix B."""
    return math.fsum(
        -0.5 * (1 + float(v) - float(m) ** 2 - math.exp(v)) for m, v in zip(mean, log_variance, strict=True)
    )


def sigmoid(x: np.ndarray) -> np.ndarray:
    """f64 -> f64."""
    return 1 / (1 + np.exp(-x))


def cross_entropy(logits: np.ndarray, target: float) -> float:
    """Binary cross-entropy, mean over the batch, as torch's BCELoss takes it of sigmoids."""
    p = sigmoid(logits)
    return float(-np.mean(target * np.log(p) + (1 - target) * np.log(1 - p)))


def forward(layers: list[Layer], x: np.ndarray) -> list[np.ndarray]:
    """Inputs of all layers, and the output of the last; ReLU between layers."""
    seen = [x]
    for number, layer in enumerate(layers):
        y = seen[-1] @ layer["kernel"] + layer["bias"]
        seen.append(np.maximum(y, 0) if number < len(layers) - 1 else y)
    return seen


def backward(layers: list[Layer], seen: list[np.ndarray], dy: np.ndarray) -> tuple[list[Layer], np.ndarray]:
    """Gradients of the layers and of their input, for the gradient of the output of the last."""
    gradients: list[Layer] = []
    for number in reversed(range(len(layers))):
        if number < len(layers) - 1:
            dy = dy * (seen[number + 1] > 0)
        gradients.insert(0, {"kernel": seen[number].T @ dy, "bias": dy.sum(0)})
        dy = dy @ layers[number]["kernel"].T
    return gradients, dy


def adam(parameters: Layer, gradients: Layer, rate: float) -> Layer:
    """The first step of Adam (Kingma and Ba 2015, algorithm 1) from moments of 0."""
    after = {}
    for name, g in gradients.items():
        m, v = (1 - 0.9) * g / (1 - 0.9), (1 - 0.999) * g**2 / (1 - 0.999)
        after[name] = parameters[name] - rate * m / (np.sqrt(v) + 1e-8)
    return after


def vae_loss(
    encoder: list[Layer], posterior: list[Layer], decoder: list[Layer], critic: list[Layer], labelled: np.ndarray,
    unlabelled: np.ndarray, noise: np.ndarray, beta: float, adversary: float, kl: str,
) -> tuple[float, dict[str, list[Layer]]]:  # fmt: skip
    """Loss and gradients of the auto-encoder: labelled and unlabelled images one batch after the other, and summed.

    labelled, unlabelled: [B, pixels]; noise: [2 B, latent], of the labelled ones first.
    """
    total, sums = 0.0, None
    for x, e in ((labelled, noise[: len(labelled)]), (unlabelled, noise[len(labelled) :])):
        seen = forward([*encoder, posterior[0]], x)
        hidden, mean = seen[-2], seen[-1]
        log_variance = hidden @ posterior[1]["kernel"] + posterior[1]["bias"]
        sigma = np.exp(log_variance / 2)
        back = forward(decoder, mean + sigma * e)
        error = back[-1] - x
        bounds = [divergence(m, v) for m, v in zip(mean, log_variance, strict=True)]
        look = forward(critic, mean)
        if kl == "balanced":
            of_error, of_kl = 1 / len(x), 1 / len(x)
        else:
            of_error, of_kl = 1 / x.size, 1.0
        total += of_error * np.sum(error**2) + beta * of_kl * sum(bounds) + adversary * cross_entropy(look[-1], 1)
        to_decoder, dz = backward(decoder, back, 2 * of_error * error)
        _, deceived = backward(critic, look, adversary * (sigmoid(look[-1]) - 1) / len(x))
        d_mean = dz + beta * of_kl * mean + deceived
        d_log = dz * e * sigma / 2 + beta * of_kl * (np.exp(log_variance) - 1) / 2
        d_hidden = d_mean @ posterior[0]["kernel"].T + d_log @ posterior[1]["kernel"].T
        to_log = {"kernel": hidden.T @ d_log, "bias": d_log.sum(0)}
        to_mean = {"kernel": hidden.T @ d_mean, "bias": d_mean.sum(0)}
        below = seen[: len(encoder) + 1]
        to_encoder, _ = backward(encoder, below, d_hidden * (hidden > 0))
        found = {"encoder": to_encoder, "posterior": [to_mean, to_log], "decoder": to_decoder}
        sums = found if sums is None else {
            part: [{w: a[w] + b[w] for w in a} for a, b in zip(sums[part], found[part], strict=True)] for part in found
        }  # fmt: skip
    assert sums is not None
    return total, sums


def critic_loss(critic: list[Layer], labelled: np.ndarray, unlabelled: np.ndarray) -> tuple[float, list[Layer]]:
    """Loss and gradients of the discriminator, for mean codes [B, latent]."""
    one, other = forward(critic, labelled), forward(critic, unlabelled)
    loss = cross_entropy(one[-1], 1) + cross_entropy(other[-1], 0)
    first, _ = backward(critic, one, (sigmoid(one[-1]) - 1) / len(labelled))
    second, _ = backward(critic, other, sigmoid(other[-1]) / len(unlabelled))
    return loss, [{w: a[w] + b[w] for w in a} for a, b in zip(first, second, strict=True)]


def transposed(x: np.ndarray, kernel: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """ConvTranspose2d as torch documents it: every pixel of x stamps the kernel; borders are cut.

    x: [B, H, W, in], kernel: [kh, kw, out, in] -> [B, (H - 1) stride - 2 padding + kh, ..., out].
    """
    batch, height, width, _ = x.shape
    kh, kw, out, _ = kernel.shape
    y = np.zeros((batch, (height - 1) * stride + kh, (width - 1) * stride + kw, out))
    for i in range(height):
        for j in range(width):
            stamp = np.einsum("hwoc,bc->bhwo", kernel, x[:, i, j])
            y[:, i * stride : i * stride + kh, j * stride : j * stride + kw] += stamp
    return y[:, padding : y.shape[1] - padding, padding : y.shape[2] - padding]
