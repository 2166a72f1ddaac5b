"""The commands on the queue's list are commands: what a program does not know would cost time on a rented card.

Their options are parsed as the programs do it, and names in them looked up. Nothing is run.
"""

import argparse
import functools
import importlib.util
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # neither benchmarks nor experiments are part of the package

from benchmarks import on_gpu
from benchmarks.train_step import RIVALS
from experiments import options as flags
from experiments.plans import PLANS
from jaxdal import calls, data, settings, strategies, trainers
from jaxdal.errors import InputError
from jaxdal.models import MODELS

LISTED = [*on_gpu.everything(), *on_gpu.toy()]
PARSE = """
import importlib, json, sys
from absl import flags
FLAGS, told = flags.FLAGS, []
module = importlib.import_module(sys.argv[1])
for command in json.loads(sys.argv[2]):
    for name in FLAGS:
        FLAGS[name].unparse()
    try:
        rest = FLAGS([sys.argv[1], *command])
        told.append({"rest": rest[1:], **{flag.name: flag.value for flag in FLAGS.get_flags_for_module(module)}})
    except flags.Error as error:
        told.append({"error": str(error)})
print(json.dumps(told))
"""
TABLES = {  # option -> what its names may be
    "dataset": {*data.TABLE, "synthetic"},
    "model": MODELS,
    "precision": settings.PRECISIONS,
    "parts": ("kernels", "training", "rounds"),
    "rivals": {*RIVALS, "auto", "none", "all", "device"},
}
BUILT = {
    "strategy": strategies.build, "strategies": strategies.build, "trainer": trainers.build, "trainers": trainers.build,
}  # fmt: skip
WRONG = [  # a flag, or a name
    ("benchmarks.train_step", "--run=1,4", "--step=3", "--modle=lenet"),
    ("benchmarks.train_step", "--model=lennet"),
    ("benchmarks.train_step", "--rivals=eagre"),
    ("benchmarks.train_ssl_step", "--trainers=supervised,mixmach"),
    ("benchmarks.portability", "--parts=kernel"),
    ("benchmarks.rounds", "--strategy=margin,badge(pacs=5)"),
    ("benchmarks.rounds", "--dataset=synthetik"),
    ("experiments.table3", "--dataset=mnits"),
    ("experiments.table3", "--datasets=mnist", "--strategies=coresett"),
    ("experiments.table3", "--datasets=mnist", "--seeds=0-4", "--data=carry", "--folder=x"),
    ("experiments.check_learning", "--check=mnist"),
    ("experiments.check_learning", "--checks=mnist,cifar10_strat"),
    ("jaxdal.main", "--dataset=mnist", "--seed=0"),
    ("jaxdal.main", "--dataset=mnist", "seeds=0"),
    ("jaxdal.main", "--dataset=mnits"),
    ("jaxdal.main", "--strategy=random", "--trainer=fixmach"),
    ("jaxdal.main", "--epochs=many"),
]


class Understood(Exception):  # noqa: N818
    """Raised where a program would begin."""


class Misunderstood(Exception):  # noqa: N818
    """What a program would say, or a name that it does not know."""


def by_argparse(module: str, arguments: tuple[str, ...], patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Start a program as a command, up to the end of its parser: -> its options."""
    parse = argparse.ArgumentParser.parse_args

    def parse_only(self, args=None, namespace=None):
        raise Understood(parse(self, args, namespace))

    with patch.context() as here:
        here.setattr(argparse.ArgumentParser, "parse_args", parse_only)
        here.setattr(sys, "argv", [module, *arguments])
        here.delitem(sys.modules, module, raising=False)  # of which runpy would warn
        try:
            runpy.run_module(module, run_name="__main__")
        except Understood as understood:
            return vars(understood.args[0])
        except SystemExit as end:
            raise Misunderstood(f"it ends with {end.code}") from None
    raise AssertionError(f"{module} parsed nothing")


@functools.cache
def by_absl(module: str) -> dict[tuple[str, ...], dict[str, Any]]:
    """All commands of a module, in a process of its own: two modules may have flags of one name."""
    mine = [command[1:] for command in commands() if command[0] == module]
    done = subprocess.run(
        [sys.executable, "-c", PARSE, module, json.dumps(mine)], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    return dict(zip(mine, json.loads(done.stdout), strict=True))


def commands() -> list[tuple[str, ...]]:
    """Module and arguments of all that is tested here."""
    places = {"folder": "F", "data": "D", "out": "O"}
    return [*(tuple(part.format(**places) for part in one.command[1:]) for one in LISTED), *WRONG]


def understood(command: tuple[str, ...], patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the options of a command; raises Misunderstood, or InputError, if it would not run."""
    module, *rest = command
    source = Path(importlib.util.find_spec(module).origin).read_text()
    options = by_absl(module)[tuple(rest)] if "from absl import" in source else by_argparse(module, tuple(rest), patch)
    if "error" in options or options.get("rest"):
        raise Misunderstood(options.get("error") or f"unexpected {options['rest']}")
    for option in [name for name in (*TABLES, *BUILT) if options.get(name) is not None]:
        value = options[option]
        for name in calls.names(value) if isinstance(value, str) else value:
            if option in BUILT:
                BUILT[option](name)
            elif name not in TABLES[option]:
                raise Misunderstood(f"--{option}={name}")
    return options


@pytest.mark.parametrize(("one", "command"), list(zip(LISTED, commands(), strict=False)), ids=lambda one: one[0])
def test_commands_of_the_list_are_understood(one, command, monkeypatch):
    options = understood(command, monkeypatch)
    name = command[0].removeprefix("experiments.")
    if name in PLANS:
        assert PLANS[name](flags.options(argparse.Namespace(**options))), "it has something to do"
    if one.data:
        assert options["data_dir"] == "D"
    places = {"O/paper"} if name in PLANS else {"F"}
    assert places & {str(options.get(key)) for key in ("out", "results", "workdir")}, "results go where they are kept"


@pytest.mark.parametrize("command", WRONG, ids=" ".join)
def test_misspelt_commands_are_not(command, monkeypatch, capsys):
    with pytest.raises((Misunderstood, InputError)):
        understood(command, monkeypatch)
