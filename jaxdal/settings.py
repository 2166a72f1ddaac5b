"""What an experiment is: flags, presets and the data set's row, resolved into plain numbers before anything runs."""

import hashlib
import inspect
import json
import math
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdal import data, likeness, models, naming, strategies, trainers
from jaxdal.budgets import Budget, budget
from jaxdal.calls import blamed, unknown
from jaxdal.errors import InputError
from jaxdal.files import at_home
from jaxdal.plan import steps_per_epoch
from jaxdal.types import Dataset, Recipe, Signal, Strategy

PRECISIONS = ("auto", "f32", "bf16")


class Preset(NamedTuple):
    """A protocol: what the paper's text leaves open."""

    as_published: bool  # mirror images wherever the published runs did, or only where a mirror image keeps its label
    clamp: float | None  # of every gradient element
    standard_net: bool  # the standard ResNet-18 (64-512) in place of the published, thin one (16-128)


PRESETS = {
    "paper": Preset(as_published=True, clamp=0.1, standard_net=False),
    "clean": Preset(as_published=False, clamp=None, standard_net=True),
}


# Not keys of a journal's configuration.
APART = ("budget", "recipe", "per_epoch", "usual_epochs", "pack_multiple", "own_trainer")


class Settings(NamedTuple):
    """All that decides the numbers of an experiment."""

    dataset: str
    strategy: str
    trainer: str
    model: str
    preset: str
    seeds: tuple[int, ...]
    budget: Budget
    recipe: Recipe
    per_epoch: tuple[int, ...]  # training steps of an epoch, for each round
    usual_epochs: int  # those of the data set, whatever this experiment has
    precision: str  # "f32" or "bf16", of the convolutions
    flip: bool
    crop: int  # pixels of padding
    mean: tuple[float, ...]
    std: tuple[float, ...]
    eval_every: int  # epochs; 0: after the last one only
    pack: int  # most runs at once on a device
    pack_multiple: int  # of how many runs packs had best be; decides speed alone
    pool: int
    test: int
    num_classes: int
    fingerprint: str  # of the images and labels
    own_code: str  # digest of a model that is not jaxdal's, "" if it is
    own_trainer: str  # likewise

    @property
    def steps(self) -> list[int]:
        """Training steps of each round."""
        return [self.recipe.epochs * per_epoch for per_epoch in self.per_epoch]

    def config(self) -> dict[str, Any]:
        """Return `config` of the journal's first line: two experiments with the same one are the same experiment."""
        flat = {**self._asdict(), **self.budget._asdict(), **self.recipe._asdict()}
        flat["trainer"] = naming.with_code(self.trainer, self.own_trainer)
        return {key: value for key, value in flat.items() if key not in APART and (value or key != "own_code")}

    def training(self, strategy: Strategy) -> dict[str, Any]:
        """Return what decides round 0: all but the strategy, unless it changes how training is done."""
        plain = trainers.build(self.trainer, self.preset)
        wrapped = strategy.wrap(plain) is not plain
        return self.config() | {"strategy": self.strategy if wrapped else None}


def resolve(
    dataset: str | Dataset, images: Dataset, strategy: str | Strategy, *, platform: str = "cpu",
    trainer: str | None = None, model: str | None = None, preset: str = "paper", seeds: Sequence[int] = (0,),
    n_start: str | int | None = None, n_query: str | int | None = None, n_end: str | int | None = None,
    epochs: int | None = None, batch: int | None = None, learning_rate: float | None = None, eval_every: int = 0,
    precision: str = "auto", pack: int = 0, mirror: bool | None = None, crop: int | None = None,
    mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
    milestones: Sequence[float] | None = None, fingerprint: str | None = None,
) -> Settings:  # fmt: skip
    """Settle every number; what is None comes from the preset and the data set. fingerprint: if it is known already.

    Raises:
        InputError: a name is unknown, or a number does not fit.
    """
    check_names(strategy, trainer, model, preset, precision)
    chosen = strategies.build(strategy) if isinstance(strategy, str) else strategy
    trainer = trainer or chosen.trainer
    training = chosen.wrap(trainers.build(trainer, preset))
    name = dataset if isinstance(dataset, str) else "arrays"
    info, rules = data.info(name, images), PRESETS[preset]
    model = model or (info.model.removesuffix("_thin") if rules.standard_net else info.model)
    net = models.build(model, images.train_x.shape[1:], images.num_classes)  # refuses unknown names and unfit shapes
    if precision == "auto":
        # Networks without a convolution of XLA's (LeNet) are bound by latency, not by arithmetic: nothing is gained.
        precision = "f32" if platform == "cpu" or net.cpu_loop else "bf16"
    epochs, batch, crop = _at_least("epochs", epochs, 1), _at_least("batch", batch, 2), _at_least("crop", crop, 0)
    eval_every, pack = _at_least("eval_every", eval_every, 0) or 0, _at_least("pack", pack, 0) or 0
    if learning_rate is not None and not (_is_number(learning_rate) and 0 < learning_rate < float("inf")):
        raise InputError(f"--learning_rate={learning_rate} is not a positive number")
    multiple = net.pack_multiple if pack == 0 else 1
    if pack == 0:
        pack = net.cpu_pack if platform == "cpu" else net.pack
    pool = images.train_y.shape[0]
    labels = budget(
        info.n_start if n_start is None else n_start, info.n_query if n_query is None else n_query,
        info.n_end if n_end is None else n_end, pool,
    )  # fmt: skip
    if name in data.TABLE:
        batch, rate = batch or info.batch, info.learning_rate
    else:
        batch, rate = _for_own_images(info, batch, labels.n_start)
    recipe = training.recipe(
        Recipe(epochs or info.epochs, batch, learning_rate=rate, milestones=info.milestones, clamp=rules.clamp)
    )
    if milestones is not None:
        recipe = recipe._replace(milestones=_milestones(milestones))
    if learning_rate is not None:
        recipe = recipe._replace(learning_rate=float(learning_rate))
    per_epoch = tuple(steps_per_epoch(training.epoch(count, pool), batch) for count in labels.labels)
    if recipe.epochs * max(per_epoch) >= 2**31:
        raise InputError(f"--epochs={recipe.epochs} is more than can be counted: {max(per_epoch)} steps each")
    flip = info.published_flip if rules.as_published else images.mirror
    return Settings(
        dataset=name, strategy=naming.of_strategy(strategy), trainer=trainer, model=model, preset=preset,
        seeds=_seeds(seeds), budget=labels, recipe=recipe,
        per_epoch=per_epoch, usual_epochs=info.epochs, precision=precision,
        flip=flip if mirror is None else _yes_or_no("mirror", mirror), crop=info.padding if crop is None else crop,
        mean=_per_channel("mean", mean, info.mean), std=_per_channel("std", std, info.std),
        eval_every=eval_every, pack=pack, pack_multiple=multiple, pool=pool, test=images.test_y.shape[0],
        num_classes=images.num_classes, fingerprint=fingerprint or data.fingerprint(images),
        own_code=likeness.of_rows(models.MODELS[model]),
        own_trainer=likeness.of_rows(trainers.TRAINERS[naming.row(trainer)]),
    )  # fmt: skip


def _for_own_images(info: data.Info, batch: int | None, n_start: int) -> tuple[int, float]:
    """Batch, smaller for few labels unless it is stated, and learning rate, which follows its square root."""
    if batch is None:
        batch = info.batch
        while batch > 16 and n_start < 4 * batch:
            batch //= 2  # several steps an epoch, however few the labels
    rate, size = info.learning_rate, float(info.batch)
    while size > batch:  # in halves, so that a batch has one rate, be it stated or chosen
        less = min(2, size / batch)
        size, rate = size / less, rate / math.sqrt(less)
    return batch, rate


def told(settings: Settings, images: Dataset) -> str:
    """What own images are and what they are trained with, in the words of the flags that change it."""
    height, width, channels = images.train_x.shape[1:]
    recipe, budget = settings.recipe, settings.budget
    mean, std = (",".join(f"{value:.4f}" for value in values) for values in (settings.mean, settings.std))
    return (
        f"{settings.dataset}: {settings.pool:,} training and {settings.test:,} test images of {height} x {width} x "
        f"{channels}, {settings.num_classes} classes; trained with --mean={mean} --std={std} "
        f"--{'' if settings.flip else 'no'}mirror --crop={settings.crop} --model={settings.model} "
        f"--batch={recipe.batch} --learning_rate={recipe.learning_rate:.3g} --epochs={recipe.epochs} "
        f"--milestones={','.join(f'{share:.3g}' for share in recipe.milestones)} "
        f"--n_start={budget.n_start} --n_query={budget.n_query} --n_end={budget.n_end}"
    )


def check_names(
    strategy: str | Strategy, trainer: str | None = None, model: str | None = None, preset: str = "paper",
    precision: str = "auto", *, beside: Iterable[str] = (), **more: Any,
) -> None:  # fmt: skip
    """Refuse names that are in no table; it needs no images, so that a slip need not wait for them.

    beside: names of options that the caller has besides, to be named to whoever misspells one.

    Raises:
        InputError: a name is unknown, be it of an option, or a value is none of what can be named.
    """
    chosen = strategies.build(strategy) if isinstance(strategy, str) else strategy
    if not isinstance(chosen, Strategy):
        if isinstance(strategy, list | tuple):
            raise InputError("a strategy is a name or a jaxdal.Strategy; jaxdal.run_together takes several")
        call = "; call it, if it makes one" if callable(strategy) else ""
        raise InputError(f"a strategy is a name or a jaxdal.Strategy, and {strategy!r} is neither{call}")
    if not isinstance(chosen.needs, tuple | list) or not all(isinstance(one, Signal) for one in chosen.needs):
        raise InputError("what a strategy needs is a tuple of signals, such as (signals.probs,)")
    for part in ("select", "memory", "wrap"):
        if not callable(getattr(chosen, part)):
            raise InputError(f"{part} of a strategy is a function, and not {getattr(chosen, part)!r}")
    for flag, value in (("trainer", trainer), ("model", model)):
        if not isinstance(value, str | None):
            raise InputError(f"{flag}={value!r} is no name; {flag}s of one's own are added to a table: README.md")
    for flag, value in (("preset", preset), ("precision", precision)):
        if not isinstance(value, str):
            raise InputError(f"{flag}={value!r} is no name")
    for option in more:
        if option not in OPTIONS or option in INTERNAL:
            raise unknown("option", option, {*OPTIONS, *beside} - INTERNAL)
    if preset in PRESETS:  # else refused below
        plain = trainers.build(trainer or chosen.trainer, preset)
        with blamed("wrap(trainer) of a strategy"):
            chosen.wrap(plain)
    tables: dict[str, Collection[str]] = {"model": models.MODELS, "preset": PRESETS, "precision": PRECISIONS}
    for (what, table), name in zip(tables.items(), (model, preset, precision), strict=True):
        if name is not None and name not in table:
            raise unknown(what, name, table)


OPTIONS = tuple(inspect.signature(resolve).parameters)[3:]  # without data set, images and strategy
INTERNAL = {"platform", "fingerprint", "options"}  # which nobody is to give to run or ask


def default_workdir(settings: Settings) -> Path:
    """Return a folder of its own for every configuration, so that the same command continues and another starts."""
    digest = hashlib.sha256(json.dumps(settings.config(), sort_keys=True).encode()).hexdigest()[:8]
    words = f"{Path(settings.dataset.replace(':', '-')).stem}-{naming.parted(settings.strategy)[0]}"
    short = naming.folder(words).encode()[:180].decode(errors="ignore")  # file systems allow 255 bytes
    return Path("runs") / f"{short}-{digest}"


def folders(given: Sequence[str | Path] | str | Path | None, every: Sequence[Settings], what: str) -> list[Path]:
    """Return a folder for each strategy. given: these, or one above all of them, or None. what: their name.

    Raises:
        InputError: there are more strategies or fewer.
    """
    if given is None:
        return [default_workdir(rules) for rules in every]
    if isinstance(given, str | Path):
        return [at_home(given) / naming.folder(rules.strategy) for rules in every]
    if len(given) != len(every):
        raise InputError(f"there are {len(given)} {what} for {len(every)} strategies")
    return [at_home(folder) for folder in given]


def _at_least(flag: str, value: int | None, least: int) -> int | None:
    """The value as Python's own number, which is what a journal can hold."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputError(f"--{flag}={value!r} is not a whole number")
    if value < least:
        raise InputError(f"--{flag}={value} is less than {least}")
    return int(value)


def _yes_or_no(flag: str, value: object) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{flag}={value!r} is neither True nor False")
    return bool(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _numbers(flag: str, given: Sequence[float], what: str) -> str:
    """How a list of numbers was given; refuse what is none."""
    if not np.iterable(given) or not all(map(_is_number, given)):
        raise InputError(f"--{flag}={given} is no list of numbers, {what}")
    return f"--{flag}={','.join(map(str, given))}"


def _per_channel(flag: str, given: Sequence[float] | None, measured: Sequence[float]) -> tuple[float, ...]:
    """Mean or standard deviation of each channel, of pixels scaled to 0..1."""
    if given is None:
        return tuple(measured)
    told = _numbers(flag, given, "one for each channel")
    if len(given) != len(measured):
        raise InputError(f"{told}: the images have {len(measured)} channels")
    if not all(0 <= value <= 1 for value in given) or (flag == "std" and 0 in given):
        raise InputError(f"{told} is not between 0 and 1: pixels are scaled to that range")
    return tuple(map(float, given))


def _milestones(given: Sequence[float]) -> tuple[float, ...]:
    """Shares of the epochs, in order."""
    told = _numbers("milestones", given, "such as 0.5,0.8")
    if not all(0 < share < 1 for share in given) or list(given) != sorted(given):
        raise InputError(f"{told} are not ascending shares of the epochs, such as 0.5,0.8")
    return tuple(map(float, given))


def _seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    if not np.iterable(seeds):
        raise InputError(f"--seeds={seeds} is no list of seeds: one seed is ({seeds},)")
    if len(seeds) == 0:  # it may be an array
        raise InputError("--seeds names no seed")
    for seed in seeds:
        if not isinstance(seed, int | np.integer):
            raise InputError(f"--seeds: {seed} is not a whole number")
        if not 0 <= seed < 2**32:
            raise InputError(f"--seeds: {seed} is not in 0..4294967295")
        if list(seeds).count(seed) > 1:
            raise InputError(f"--seeds: {seed} is there twice")
    return tuple(map(int, seeds))
