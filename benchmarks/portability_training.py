"""Rows of portability about whatever is trained beside or instead of a supervised network, and about views of images.

VAAL's and WAAL's players, MixMatch and FixMatch, RandAugment, the bandit of ALBL, and what views of an image say: one
step or one query of each against the float64 references of tests/reference, or against Pillow.
"""

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from benchmarks.checking import CLASSES, F32, PICKS, SIZE, TF32, Check, linear_network, off, other
from benchmarks.selecting import Pool
from jaxdal import engine, losses
from jaxdal import trainers as every_trainer
from jaxdal.keys import keys_for
from jaxdal.models.vae import critic as make_critic
from jaxdal.models.vae import vae as make_vae
from jaxdal.randaugment import AFFINE, PIXEL, operate, randaugment
from jaxdal.types import Batch, Network, Recipe

B, LATENT = 6, 3  # images of a kind in a step, width of VAAL's code
STEP, PER_EPOCH = 3, 4
RECIPE = Recipe(epochs=10, batch=B, learning_rate=0.05, milestones=(), momentum=0.9, weight_decay=0.01)
Layers = list[dict[str, np.ndarray]]


def wide(tree: Any) -> Any:
    """Arrays on the host, in float64."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def bandit(pool: Pool) -> Iterator[Check]:
    """Three queries of ALBL, whose answers are right every other time."""
    from reference import albl as reference

    strategy = import_module("jaxdal.strategies.albl").albl(("least_confidence", "margin"))
    select = jax.jit(strategy.select, static_argnums=2)
    known, probs, memory = pool.known, np.asarray(jax.nn.softmax(pool.logits)), strategy.memory(SIZE)
    answer, exact, chance, bought = probs.argmax(1), reference.Exp4P(2, 2, 1 / 20, 0.1), np.ones(SIZE), None
    for turn in range(3):
        if bought is not None:
            reward = reference.iw_accuracy(answer[bought], known[bought], chance[bought], 2)
            exact.pay(np.eye(2), int(memory.arm), reward, turn)
        found, memory = select(jax.random.key(turn), known, PICKS, memory, *[probs] * len(strategy.needs))
        bought = np.asarray(found)
        chance[bought] = exact.chances(np.eye(2))[int(memory.arm)]
        if turn:  # at first all are alike
            yield f"albl: chances, query {turn}", "f32", off(memory.probability[bought], chance[bought]), F32
        known = known.copy()
        known[bought] = (answer[bought] + np.arange(PICKS) % 2) % CLASSES


def views(pool: Pool) -> Iterator[Check]:
    """What the scores of the semi-supervised strategies are, of a network whose views are noisy."""
    from reference import scores
    from reference import ssl as reference

    ours = import_module("jaxdal.strategies.ssl")
    rng = np.random.default_rng(6)
    x = jnp.asarray(rng.integers(0, 256, (40, 2, 3, 2), np.uint8))
    kernel = rng.standard_normal((12, CLASSES)).astype(np.float32)

    def augment(key: jax.Array, x: jax.Array) -> jax.Array:
        return network.normalise(x) + 0.3 * jax.random.normal(key, x.shape)

    network = linear_network(kernel, np.zeros(CLASSES, np.float32))._replace(augment=augment)
    keys = jax.random.split(jax.random.key(0), len(x))

    @partial(jax.jit, static_argnums=0)
    def view(number: int) -> jax.Array:
        return jax.vmap(lambda key, one: augment(jax.random.fold_in(key, number), one[None])[0])(keys, x)

    answers = [scores.softmax(wide(view(number)).reshape(len(x), -1) @ kernel.astype(float)) for number in range(5)]
    clean = scores.softmax(wide(network.normalise(x)).reshape(len(x), -1) @ kernel.astype(float))
    score = {
        "variance of views": (ours.view_variance(5), map(reference.variance, np.stack(answers, 1))),
        "margin of two views": (ours.two_view_margin(), map(reference.margin, clean, answers[1])),
    }
    for what, (signal, expected) in score.items():
        found = jax.jit(lambda keys, x, signal=signal: signal.per_batch(keys, network, {}, (), x))(keys, x)
        yield f"ssl: {what}", "f32", off(found, list(expected)), F32
    sizes, k = np.asarray([1, 7, 30, 2, 0, 60], np.int32), 23
    yield (
        "ssl: quotas",
        "f32",
        other(jax.jit(ours.quotas, static_argnums=1)(jnp.asarray(sizes), k), reference.quotas(sizes.tolist(), k)),
        0.0,
    )


def distortions() -> Iterator[Check]:
    """RandAugment's operations against Pillow's: pixels that differ."""
    row, column, channel = np.mgrid[:20, :24, :3]
    x = (128 + 120 * np.sin(row / 3 + channel) * np.cos(column / 4)).astype(np.uint8)
    image, names, program = Image.fromarray(x), [*PIXEL, *AFFINE], jax.jit(operate)
    shear = image.transform(image.size, Image.Transform.AFFINE, (1, 0.125, 0, 0, 1, 0))
    expected = {
        "equalize": (0.0, ImageOps.equalize(image)), "posterize": (5.75, ImageOps.posterize(image, 5)),
        "solarize": (0.25, ImageOps.solarize(image, 64)), "color": (0.5, ImageEnhance.Color(image).enhance(0.5)),
        "contrast": (0.5, ImageEnhance.Contrast(image).enhance(0.5)),
        "sharpness": (0.5, ImageEnhance.Sharpness(image).enhance(0.5)),
        "rotate": (-12.5, image.rotate(-12.5)), "shear_x": (0.125, shear),
    }  # fmt: skip
    for name, (strength, theirs) in expected.items():
        found = program(jnp.int32(names.index(name)), jnp.float32(strength), x)
        # A coordinate between two pixels may be rounded to either.
        yield f"randaugment: {name}", "u8", other(found, theirs), 0.01 if name in AFFINE else 0.0


def layers(params: Any, prefix: str) -> Layers:
    """Those whose names start alike, in order, in float64."""
    return [wide(params[name]) for name in sorted(params) if name.startswith(prefix)]


def furthest(found: Layers, expected: Layers) -> float:
    """The largest deviation of any array."""
    return max(off(one[name], other[name]) for one, other in zip(found, expected, strict=True) for name in other)


def games() -> Iterator[Check]:
    """VAAL: a step of the auto-encoder and one of the discriminator. Adam's first moment is a tenth of the gradient."""
    from reference import vaal as reference

    ours = import_module("jaxdal.strategies.vaal")
    options = ours.checked(ours.Options(None, B, None, None, None, 0.7, 3.0, 2, 0.01, "balanced", False))
    vae, critic = make_vae((3, 2, 2), LATENT, (7, 5)), make_critic(LATENT, (4, 3))
    state = ours.start(vae, critic, jax.random.key(3))
    rng = np.random.default_rng(7)
    x, noise = (rng.standard_normal((2 * B, *shape)).astype(np.float32) for shape in ((3, 2, 2), (LATENT,)))
    flat, judge = wide(x).reshape(2 * B, -1), layers(state.critic.params, "Linear")

    def parts(params: Any) -> dict[str, Layers]:
        posterior = [*layers(params["posterior"], "mean"), *layers(params["posterior"], "log")]
        return {"encoder": layers(params, "encoder"), "posterior": posterior, "decoder": layers(params, "decoder")}

    before = parts(state.vae.params)
    loss, gradients = reference.vae_loss(*before.values(), judge, flat[:B], flat[B:], wide(noise), 0.7, 3.0, "balanced")
    after, found = jax.jit(partial(ours.vae_step, options, vae, critic))(state, x, noise)
    yield "vaal: loss of the auto-encoder", "f32", off(found, loss), TF32
    moments = parts(jax.tree.map(lambda leaf: 10 * leaf, after.vae.first))
    yield "vaal: its gradient", "f32", max(furthest(moments[name], gradients[name]) for name in before), 2 * TF32

    codes = reference.forward([*before["encoder"], before["posterior"][0]], flat)[-1]
    loss, gradient = reference.critic_loss(judge, codes[:B], codes[B:])
    after, found = jax.jit(partial(ours.critic_step, options, vae, critic))(state, x)
    yield "vaal: loss of the discriminator", "f32", off(found, loss), TF32
    moved = layers(jax.tree.map(lambda leaf: 10 * leaf, after.critic.first), "Linear")
    yield "vaal: its gradient", "f32", furthest(moved, gradient), 2 * TF32


def trainers() -> Iterator[Check]:
    """A step of WAAL, MixMatch and FixMatch: the loss, and the weights after it."""
    yield from waal()
    for text, case in {"mixmatch": mixmatch, "fixmatch(threshold=0.9, unlabelled=2, weight=2)": fixmatch}.items():
        yield from semisupervised(text, case)


def waal() -> Iterator[Check]:
    """Both players, with a linear network."""
    from reference import waal as reference

    from jaxdal.trainers.waal import draws

    def init(key: jax.Array) -> Any:
        shapes, rng = {"W": (4, 3), "w": (3,), "V": (3, CLASSES), "v": (CLASSES,)}, np.random.default_rng(8)
        params = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        return {"params": params, "batch_stats": {}}

    def apply(variables: Any, x: jax.Array, **_: Any) -> tuple[jax.Array, dict[str, Any]]:
        own = variables["params"]
        z = jnp.matmul(x.reshape(len(x), -1), own["W"], precision="highest") + own["w"]
        logits = jnp.matmul(z, own["V"], precision="highest") + own["v"]
        return logits, {"features": z, "batch_stats": variables["batch_stats"]}

    def pixels(x: jax.Array) -> jax.Array:
        return x.astype(jnp.float32) / 64

    def flat(helpers: Any) -> dict[str, np.ndarray]:
        first, second = (wide(helpers[f"Linear_{n}"]) for n in (0, 1))
        return {"A": first["kernel"], "a": first["bias"], "B": second["kernel"], "b": second["bias"]}

    network, trainer = Network(init, apply, lambda key, x: pixels(x), pixels), every_trainer.build("waal(alpha=0.3)")
    keys = keys_for(jnp.uint32(0), jnp.int32(0))
    state, key = engine.init(network, trainer, RECIPE, (2, 2, 1), keys), keys.step
    rng = np.random.default_rng(9)
    x, y = rng.integers(0, 100, (2 * B, 2, 2, 1), np.uint8), rng.integers(0, CLASSES, B).astype(np.int32)
    batch = Batch(*map(jnp.asarray, (x[:B], y, x[B:])))
    step = jax.jit(partial(engine.train_step, network, trainer, RECIPE))
    after = step(state, batch, key, jnp.int32(1), jnp.int32(PER_EPOCH), jnp.float32(0.2))
    drawn = draws(jax.random.fold_in(key, 1), B)
    loss, net, critic = reference.step(
        wide(state.variables["params"]), flat(state.variables["helpers"]), x.reshape(2 * B, -1) / 64, y,
        judged=wide(drawn.judged), penalised=wide(drawn.penalised), share=wide(drawn.share), gamma=0.25, alpha=0.3,
        weight=5, rate=RECIPE.learning_rate, decay=RECIPE.weight_decay,
    )  # fmt: skip
    yield "waal: loss", "f32", off(after.loss, loss), TF32
    yield "waal: network after a step", "f32", furthest([wide(after.variables["params"])], [net]), TF32
    yield "waal: critic after a step", "f32", furthest([flat(after.variables["helpers"])], [critic]), TF32


def semisupervised(text: str, case: Any) -> Iterator[Check]:
    """One with a small perceptron, whose gradients are finite differences."""
    import perceptron
    from reference import semisupervised as slow

    network, trainer, key = perceptron.network(), every_trainer.build(text), jax.random.key(11)
    recipe, shape = trainer.recipe(RECIPE), (perceptron.SIDE, perceptron.SIDE, 1)
    state = engine.init(network, trainer, recipe, shape, keys_for(jnp.uint32(0), jnp.int32(0)))
    batch = perceptron.batch(B, B * trainer.unlabelled)
    step = jax.jit(partial(engine.train_step, network, trainer, recipe))
    after = step(state, batch, key, jnp.int32(STEP), jnp.int32(PER_EPOCH), jnp.float32(0.1))
    params, labels = wide(state.variables["params"]), np.eye(perceptron.CLASSES)[np.asarray(batch.y)]
    loss = case(network, batch, params, labels, jax.random.split(jax.random.fold_in(key, STEP)))

    def decays(leaf: np.ndarray) -> bool:
        return leaf.ndim > 1 or not recipe.decay_kernels_only

    moved = {
        name: params[name] - recipe.learning_rate * (g + recipe.weight_decay * decays(params[name]) * params[name])
        for name, g in slow.gradient(loss, params).items()
    }
    name = text.split("(")[0]
    yield f"{name}: loss", "f32", off(after.loss, loss(params)), F32
    yield f"{name}: weights after a step", "f32", furthest([wide(after.variables["params"])], [moved]), F32


def mixmatch(network: Network, batch: Batch, params: Any, labels: np.ndarray, keys: jax.Array) -> Any:
    """The loss as a function of the parameters."""
    from reference import semisupervised as slow

    views, _, share, partner, _ = jax.random.split(keys[1], 5)
    both = wide(network.augment(views, jnp.concatenate([batch.unlabelled] * 2)))
    first, second, x = both[:B], both[B:], wide(network.augment(keys[0], batch.x))
    order = np.asarray(jax.random.permutation(partner, 3 * B))
    guessed, shares = slow.guess(params, first, second, 0.5), wide(losses.mixing_shares(share, 0.75, 3 * B))
    weight = 100 * STEP / PER_EPOCH / 200
    return lambda params: slow.mixmatch(params, x, labels, first, second, guessed, shares, order, weight)


def fixmatch(network: Network, batch: Batch, params: Any, labels: np.ndarray, keys: jax.Array) -> Any:
    """Likewise."""
    from reference import semisupervised as slow

    weak, crop, strong, _ = jax.random.split(keys[1], 4)
    cropped = network.weak(crop, batch.unlabelled)
    distorted = jax.jit(jax.vmap(randaugment))(jax.random.split(strong, len(cropped)), cropped)
    x, weakly, strongly = wide(
        (network.augment(keys[0], batch.x), network.augment(weak, batch.unlabelled), network.normalise(distorted))
    )
    guessed = slow.softmax(slow.logits_of(params, np.concatenate([x, weakly, strongly])))[B : B + len(weakly)]
    return lambda params: slow.fixmatch(params, x, labels, weakly, strongly, guessed, 0.9, 2.0)
