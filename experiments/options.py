"""The flags that all tables and figures have in common."""

import argparse
import fnmatch
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ParamSpec

from experiments.launchers import LAUNCHERS
from experiments.plans import PLANS, SIZES, WAY, Options, Run
from experiments.scales import SCALES
from jaxdal import calls, plugins, settings, strategies
from jaxdal.errors import InputError

Arguments = ParamSpec("Arguments")


def parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """A parser of the common flags."""
    made = argparse.ArgumentParser(
        prog=program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    _add_plugins(made)
    add("--datasets", type=datasets, help="commas between them (default: those of the paper)")
    add("--strategies", type=names, help="names, perhaps with options, and commas between them (default: the paper's)")
    add("--seeds", type=seeds, help="commas between them, or 0-4 (default: the scale's)")
    add("--scale", choices=SCALES, default="full", help="experiments/scales.py says what they are")
    add("--preset", choices=settings.PRESETS, default="paper")
    add("--points", choices=("ends", "all"), help="of sweeps, Figures 4 to 6 and 8 (default: the scale's)")
    add("--model", help="another network than the data set's: a name, of --plugins too (jaxdal.main --model)")
    add("--batch", type=int, help="labelled images of a step (default: the data set's)")
    add("--learning_rate", type=float, help="the first one (default: the data set's)")
    add("--nomirror", dest="mirror", action="store_false", default=None, help="train on no image from left to right "
        "(the preset paper does, digits and signs too)")  # fmt: skip
    add("--best", action="store_true", help="also the best accuracy of all test epochs, as published: slow")
    add("--pack", type=int, choices=(0, 1), default=0, help="1: runs alone, for honest seconds, below RESULTS/alone")
    add("--results", type=Path, help="where journals and reports are (default: runs/paper, half, cpu or smoke)")
    add("--data_dir", help="where the data sets are, as of jaxdal.main")
    add("--launcher", choices=("local", *LAUNCHERS), default="local", help="where runs go: experiments/README.md")
    add("--sbatch", default="", help="of --launcher=slurm: options of sbatch")
    add("--submit", action="store_true", help="of --launcher=slurm: run sbatch, too")
    add("--address", help="of --launcher=ray: where the cluster is")
    add("--gpus", type=float, help="of --launcher=slurm and ray: GPUs of a job (default: 1)")
    add("--together", type=together, help="most methods that are trained as one program; 0: no limit (default: none "
        "here, and as many as a device trains at once with profit in a job of a launcher)")  # fmt: skip
    add("--only", type=lambda text: text.split(","), help="keys of groups, as --list prints them")
    add("--list", action="store_true", help="print what there is and what is missing, and run nothing")
    return made


def parse(made: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The flags, those too that follow from others.

    Raises:
        InputError: a plugin cannot be imported.
    """
    early = argparse.ArgumentParser(prog=made.prog, add_help=False)
    _add_plugins(early)
    plugins.load(early.parse_known_args(arguments)[0].plugins)  # before strategies are looked up
    given = made.parse_args(arguments)
    given.results = given.results or Path("runs", SCALES[given.scale].folder)
    return given


def _add_plugins(parser: argparse.ArgumentParser) -> None:
    more = "modules of your own, or files NAME.py, with rows of STRATEGIES and TRAINERS, and commas between them"
    parser.add_argument("--plugins", type=lambda text: text.split(","), default=[], help=more)


def told_of_bad_input(main: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """Let a command end with a sentence and exit code 2, as the commands of the package do."""

    @functools.wraps(main)
    def command(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except InputError as error:
            print(error, file=sys.stderr)
            return 2

    return command


def options(given: argparse.Namespace) -> Options:
    """What a plan may know."""
    return Options(**{name: getattr(given, name) for name in Options._fields if hasattr(given, name)})


def planned(given: argparse.Namespace, which: Sequence[str]) -> list[Run]:
    """The runs of some tables and figures, each once."""
    return list(dict.fromkeys(run for name in which for run in PLANS[name](options(given))))


def told(given: argparse.Namespace) -> list[str]:
    """The common flags as text, but those that choose where and which part of the plan."""
    flags = []
    for name in ("plugins", "datasets", "strategies", "seeds"):
        value = getattr(given, name)
        flags += [f"--{name}={','.join(map(str, value))}"] if value else []
    flags += [f"--{name}={getattr(given, name)}" for name in ("scale", "preset", "pack", "results")]
    rest = {name: getattr(given, name) for name in (*WAY, "points")}
    flags += ["--nomirror"] if rest.pop("mirror") is False else []
    flags += [f"--{name}={value}" for name, value in rest.items() if value is not None]
    flags += ["--best"] if given.best else []
    return [*flags, *([f"--data_dir={given.data_dir}"] if given.data_dir else [])]


def datasets(text: str) -> tuple[str, ...]:
    """Names with commas between them."""
    found = tuple(dict.fromkeys(text.split(",")))
    for name in found:
        if name not in SIZES:
            raise argparse.ArgumentTypeError(f"unknown data set {name!r}: there are {', '.join(SIZES)}")
    return found


def names(text: str) -> tuple[str, ...]:
    """Strategies, perhaps by a pattern of names such as ssl_*; commas within brackets belong to options."""
    found: list[str] = []
    for name in calls.names(text):
        found += fnmatch.filter(strategies.STRATEGIES, name) or [name]
    try:
        for name in found:
            settings.check_names(name)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return tuple(dict.fromkeys(found))


def seeds(text: str) -> tuple[int, ...]:
    """Numbers and ranges, each seed once."""
    try:
        found = dict.fromkeys(calls.seeds(text))
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not found:
        raise argparse.ArgumentTypeError("no seed is named")
    return tuple(found)


def together(text: str) -> int:
    """How many methods."""
    count = int(text)
    if count < 0:
        raise argparse.ArgumentTypeError(f"{count} is less than 0")
    return count


def plans(text: str) -> list[str]:
    """Names of tables and figures; "all" are all."""
    found = list(PLANS) if text == "all" else text.split(",")
    for name in found:
        if name not in PLANS:
            raise argparse.ArgumentTypeError(f"unknown plan {name!r}: there are {', '.join(PLANS)}")
    return found
