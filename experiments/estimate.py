"""How long runs will take on one H100: arithmetic on measured speeds, not a measurement.

Speeds are those of small programs on one NVIDIA H100 80GB, several runs packed. Thin ResNet-18, 32x32, bf16: 240,000
training images a second; a MixMatch step takes 2.07 times as long a labelled image (14 minutes for CIFAR-10's 97 M);
LeNet 2.2 M a second; the standard ResNet-18, alone, 56,000. Assumed and not measured: MixMatch costs LeNet as much
more, WAAL costs as much as MixMatch, images of 64x64 four times those of 32x32, a network of one's own as much as the
thin ResNet-18. Selection, evaluation and compilation come on top.
"""

from collections.abc import Sequence

from experiments.plans import Run, trainer_of
from experiments.records import resolved

IMAGES_PER_SECOND = {"lenet": 2.2e6, "resnet18_thin": 240e3, "resnet18": 56e3}
UNLABELLED = 2.07  # times as long for a step that has unlabelled images too


def hours(runs: Sequence[Run]) -> float:
    """Hours of training of all runs together."""
    seconds: dict[Run, float] = {}
    for run in runs:
        one = run._replace(seed=0)
        if one not in seconds:
            seconds[one] = _seconds(one)
    return sum(seconds[run._replace(seed=0)] for run in runs) / 3600


def told(hours: float) -> str:
    """So many hours in words; of less than one, minutes."""
    if hours >= 1:
        return f"{hours:.1f} hours"
    minutes = round(60 * hours)
    if minutes == 0 < hours:
        return "less than a minute"
    return f"{minutes} minute{'' if minutes == 1 else 's'}"


def _seconds(run: Run) -> float:
    settings = resolved(run)
    images = sum(settings.steps) * settings.recipe.batch
    size = 4 if run.dataset == "tiny_imagenet" else 1
    factor = UNLABELLED if trainer_of(run).unlabelled else 1.0
    return images * size * factor / IMAGES_PER_SECOND.get(settings.model, IMAGES_PER_SECOND["resnet18_thin"])
