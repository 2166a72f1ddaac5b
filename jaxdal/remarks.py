"""What a command says before it starts: about the images, about the strategy, about the training."""

import sys
from collections.abc import Sequence
from pathlib import Path

from jaxdal import data, hosts, settings, trainers
from jaxdal.checkpoint import weights_path
from jaxdal.journal import Group
from jaxdal.types import Dataset, Strategy


def on_images(images: Dataset, rules: settings.Settings, quiet: bool) -> None:
    """Say what own images are and what is suspicious, of the budget too."""
    if not quiet and rules.dataset not in data.TABLE:
        _say(settings.told(rules, images))
    for remark in data.remarks(images):
        _say(f"{rules.dataset}: {remark}")
    budget = rules.budget
    if budget.n_query <= 2 * (budget.n_end - budget.labels[-1]):
        _say(f"--n_end={budget.n_end}: the last query ends at {budget.labels[-1]}, another would go beyond")


def on_strategy(rules: settings.Settings, strategy: Strategy) -> None:
    """Warn where a strategy compares views of an image, and there is but one."""
    for signal in strategy.needs:
        if signal.unaugmented and not (rules.crop or rules.flip):
            _say(f"{rules.strategy}: no image is augmented (--crop=0 --nomirror), so that {signal.unaugmented}")


def on_training(rules: settings.Settings, strategy: Strategy) -> None:
    """Warn of an average of mostly first weights, of a loss that hardly counts, of images compared with themselves."""
    trainer = strategy.wrap(trainers.build(rules.trainer, rules.preset))
    average = trainer.average or 0.0
    if (start := average ** min(rules.steps)) > 0.05:
        told = f"after the {min(rules.steps)} steps of the shortest round, {start:.0%} of the average are first weights"
        _say(f"--trainer={rules.trainer}: {told}; try average=0.99, or more epochs")
    epochs, usual, ramp = rules.recipe.epochs, rules.usual_epochs, trainer.ramp
    if epochs < min(ramp, usual):
        told = f"its second loss grows over {ramp:g} epochs and ends at {epochs / ramp:.0%} of its weight"
        known = f"{min(usual / ramp, 1):.0%} with the data set's --epochs={usual}"
        _say(f"--trainer={rules.trainer}: {told}, {known}; try ramp_epochs={ramp * epochs / usual:.3g}")
    if trainer.unaugmented and not (rules.crop or rules.flip):
        _say(f"--trainer={rules.trainer}: no image is augmented (--crop=0 --nomirror), so that {trainer.unaugmented}")


def on_weights(folder: Path, groups: Sequence[Group], extends: str | None) -> None:
    """Say which finished rounds have no networks here, which --save_weights asks for and nothing trains again."""
    live = [(line["seed"], line["round"]) for group in groups for line in group if "diverged" not in line]
    missing = {round_ for seed, round_ in live if not weights_path(folder, seed, round_).exists()}
    if missing:
        rounds, way = ", ".join(map(str, sorted(missing))), f"look in {extends}" if extends else "try another --workdir"
        _say(f"{folder}: no networks are kept of rounds that were finished before ({rounds}): {way}")


def _say(sentence: str) -> None:
    if hosts.first():
        print(sentence, file=sys.stderr, flush=True)
