"""`--plugins`: strategies, models and trainers of one's own in the command, in tables, and in the jobs of launchers."""

import argparse
import contextlib
import importlib
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest
from absl.testing import flagsaver

sys.path.insert(0, str(Path(__file__).parent.parent))  # the experiments are not part of the package

from experiments import command as tables
from experiments import grid, records, runs, table1, table3
from experiments import options as of_tables
from experiments.plans import PLANS, Options, of_pool
from experiments.records import Records
from jaxdal import InputError, journal, likeness, main, plugins, strategies
from jaxdal.strategies import STRATEGIES
from jaxdal.trainers import TRAINERS

README = Path(__file__).parent.parent / "experiments" / "README.md"
(MINE,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
# The methods that it adds to those of the document: of a trainer of its own, and semi-supervised ones.
MORE = """
from jaxdal import models
from jaxdal.strategies import random
from jaxdal.trainers import TRAINERS, mixmatch, supervised
from jaxdal.models import MODELS

TRAINERS |= {"plain": lambda: supervised(), "pooled": lambda: mixmatch()}
STRATEGIES["mine_plain"] = lambda: mine()._replace(trainer="plain")
STRATEGIES["mine_pooled"] = lambda: mine()._replace(trainer="pooled")
STRATEGIES["mine_mixed"] = lambda: mine()._replace(trainer="mixmatch")
MODELS["small"] = lambda *rest: models.build("lenet", *rest)
"""
SMALL = ("--datasets=digits", "--scale=smoke")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, where Python looks for modules after all others; rows and modules go with the test."""
    monkeypatch.chdir(tmp_path)
    before = [*sys.path], {*sys.modules}
    with contextlib.ExitStack() as tables:
        for rows in plugins.TABLES.values():
            tables.enter_context(mock.patch.dict(rows))
        yield tmp_path
    sys.path[:] = before[0]
    for name in {*sys.modules} - before[1]:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def written(name: str, text: str = MINE) -> str:
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    importlib.invalidate_caches()  # Python may have looked into the folder a moment ago
    return name


def forget() -> None:
    """As in another process."""
    sys.modules.pop("mine", None)
    for rows in plugins.TABLES.values():
        for name in [name for name, row in rows.items() if getattr(row, "__module__", None) == "mine"]:
            del rows[name]
    records._expected.cache_clear()
    importlib.invalidate_caches()


def refusal(*names: str) -> str:
    with pytest.raises(InputError) as error:
        plugins.load(names)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_is_a_module_like_any_other(folder):
    (folder / "below").mkdir()
    written("below/helps.py", "SHARE = 2\n")
    written("below/mine.py", MINE + "\nimport helps\nwith open('times', 'a') as file:\n    file.write('x')\n")
    plugins.load(["below/mine.py"])
    plugins.load([f"{folder}/below/mine.py", "mine"])
    assert Path("times").read_text() == "x", "once"
    mine = importlib.import_module("mine")
    assert STRATEGIES["mine"] is mine.mine
    assert pickle.loads(pickle.dumps(mine.mine)) is mine.mine
    assert sys.path[-1] == f"{folder}/below", "nothing else is found there that was found elsewhere before"
    assert strategies.build("mine(share=0.5)").trainer == "supervised"


def test_a_method_has_one_digest_wherever_it_lies(folder, monkeypatch):
    written("mine.py")
    monkeypatch.syspath_prepend(folder)
    plugins.load(["mine"])
    before = likeness.of_rows(STRATEGIES["mine"])
    sys.path.remove(str(folder))
    Path("mine.py").rename(written("elsewhere/mine.py", ""))
    forget()
    plugins.load(["elsewhere/mine.py"])
    assert likeness.of_rows(STRATEGIES["mine"]) == before


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("nowhere", "", "there is no module 'nowhere' in {folder} or elsewhere on Python's path (PYTHONPATH"),
        ("no.where", "", "there is no module 'no' in {folder} or"),
        ("nowhere.py", "", "there is no file {folder}/nowhere.py"),
        ("below/nowhere", "", "a plugin is the name of a module or a file NAME.py"),
        ("", "", "it cannot be imported: ValueError: Empty module name"),
        ("own-method.py", "x = 1", "no module can be called 'own-method': letters, digits and _ can be in a name"),
        ("random.py", "x = 1", "another module is called 'random' ("),
        ("__main__.py", "x = 1", "another module is called '__main__' ("),
        ("new.py", "\nx = 1\ny =", "it cannot be imported: SyntaxError: invalid syntax ({folder}/new.py, line 3)"),
        ("new.py", "\nimport no_such", "ModuleNotFoundError: No module named 'no_such' ({folder}/new.py, line 2)"),
        ("new.py", "def f():\n    1 / 0\n\n\nf()", "ZeroDivisionError: division by zero ({folder}/new.py, line 2)"),
        ("new.py", "import sys\nsys.exit(3)", "it cannot be imported: SystemExit: 3 ({folder}/new.py, line 2)"),
        ("new.py", "import json\njson.loads('')", "value: line 1 column 1 (char 0) ({folder}/new.py, line 2)"),
        ("new.py", "raise ValueError('a\\nb')", "it cannot be imported: ValueError: a b ({folder}/new.py, line 1)"),
        ("new.py", "from jaxdal import strategies\nstrategies.build('badgee')", "did you mean 'badge'? "),
        ("new.py", MINE + "\nSTRATEGIES['badge'] = mine", "STRATEGIES has a row 'badge' already: give the new one"),
        ("new.py", MINE + "\nSTRATEGIES['own'] = mine()", "STRATEGIES['own'] is no function that makes one, but S"),
        ("new.py", MINE + "\nSTRATEGIES['o-n'] = mine", "STRATEGIES['o-n']: letters, digits and _ can be in a name"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_a_sentence(folder, name, text, told):
    if text:
        written(name, text)
    said = refusal(name)
    assert said.startswith(f"--plugins={name}: ")
    assert told.format(folder=folder) in said


def test_an_interrupt_is_none(folder):
    with pytest.raises(KeyboardInterrupt):
        plugins.load([written("new.py", "raise KeyboardInterrupt")])


def command(*arguments: str) -> int | str | None:
    with flagsaver.flagsaver():
        try:
            return main.main(main._parse(["main", *arguments]))
        except SystemExit as end:
            return end.code


def test_the_command_has_strategies_trainers_and_models_of_ones_own(folder, capsys):
    written("mine.py", MINE + MORE)
    flags = ["--plugins=mine.py", "--epochs=1", "--n_end=10%", "--workdir=out", "--model=small", "--trainer=plain"]
    assert command(*flags, "--strategy=mine(share=0.5)") == 0
    config = journal.read(Path("out"))[0]["config"]
    digest = likeness.of_rows(STRATEGIES["mine"])
    assert config["strategy"] == f"mine(share=0.5), code {digest}"
    assert (config["model"], config["trainer"].partition(", ")[0]) == ("small", "plain")
    assert command(*flags, "--strategy=mine(share=0.5)") == 0, "the same command goes on"
    capsys.readouterr()
    Path("mine.py").unlink()
    for name in ("mine", "below/mine.py"):
        forget()
        assert command(f"--plugins={name}") == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith(f"jaxdal: --plugins={name}: there is no ")


def options(*names: str, scale: str = "smoke") -> Options:
    return Options(datasets=("digits",), scale=scale, strategies=names)


def parsed(flags: list[str]) -> argparse.Namespace:
    return of_tables.parse(of_tables.parser("x", None), flags)


def test_tables_have_methods_of_ones_own(folder, capsys):
    """From the file that Slurm gets to the report, without a cluster."""
    written("mine.py", MINE + MORE)
    own = "mine(share=0.5),mine_plain"
    flags = ["--plugins=mine.py", *SMALL, f"--strategies=random,{own}", "--results=out"]
    assert runs.main(["--plan=table3", *flags, "--launcher=slurm"]) == 0
    out, err = capsys.readouterr()
    assert out == f"sbatch {folder}/out/array.sbatch\n"
    script = (folder / "out" / "array.sbatch").read_text()
    told = ": {} digits 71+71..213, seeds 0: {}; less than a minute on one H100 (estimate)\n"
    (first, second) = runs.groups(PLANS["table3"](options("random", "mine(share=0.5)", "mine_plain")), Records(folder))
    for index, (key, names) in enumerate([(first.key, "random, mine(share=0.5)"), (second.key, "mine_plain")]):
        assert f"# {index}{told.format(key, names)}" in script
        assert f"  {index}{told.format(key, names)}" in err
    lines = (folder / "out" / "jobs.txt").read_text().splitlines()
    assert len(lines) == 2
    assert all(" -m experiments.runs --plan=table3 --plugins=mine.py --datasets=digits " in line for line in lines)

    jobs = runs.jobs([first, second], parsed(flags), ["table3"])
    for job in jobs:
        assert job.argv[-1] == f"--only={job.name}"
        assert runs.main(job.argv[2:]) == 0
    assert tables.main("table3", table3.__doc__, table3.render, [*flags, "--norun"]) == 0
    text = (folder / "out" / "reports" / "table3.md").read_text()
    assert "Runs: 3 of 3 complete." in text
    digests = {name: likeness.of_rows(table[name]) for table, name in ((STRATEGIES, "mine"), (TRAINERS, "plain"))}
    assert f"Not jaxdal's own: mine(share=0.5), code {digests['mine']}; mine_plain, code " in text
    assert f"; plain, code {digests['plain']}." in text
    for name in ("mine(share=0.5)", "mine_plain"):
        assert re.search(rf"\| {re.escape(name)}( ★)? \| SAL \| \S*[+−]\d+\.\d\d\S* \(–\) \|", text), text
    table = pd.read_csv(folder / "out" / "reports" / "table3.csv", comment="#").set_index("method")
    assert list(table.index) == ["random", "mine(share=0.5)", "mine_plain"]
    assert (table["n"] == 1).all()

    written("mine.py", MINE.replace("probs, 2)", "-probs, 2)") + MORE)  # another method, which has no run yet
    forget()
    capsys.readouterr()
    assert runs.main(["--plan=table3", *flags, "--list"]) == 0
    assert "1 complete, 2 missing in all\nto do: less than a minute of training" in capsys.readouterr().out


def test_methods_of_ones_own_are_counted_by_what_trains_them(folder):
    plugins.load([written("mine.py", MINE + MORE)])
    kinds = {name: grid.kind(name) for name in ("mine", "mine_plain", "mine_pooled", "mine_mixed")}
    assert kinds == {"mine": "SAL", "mine_plain": "SAL", "mine_pooled": "SSAL", "mine_mixed": "SSAL"}
    plan = {run.strategy: run for run in PLANS["table3"](options(*kinds, scale="cpu"))}
    assert {name: of_pool(run) for name, run in plan.items()} == {
        "random": False, "mine": False, "mine_plain": False, "mine_pooled": True, "mine_mixed": True
    }  # fmt: skip
    assert {plan[name].epochs for name in ("mine", "mine_plain")} == {20}
    assert {plan[name].epochs for name in ("mine_pooled", "mine_mixed")} == {4}
    assert (plan["mine_pooled"].trainer, plan["mine_mixed"].trainer) == (None, "mixmatch(average=0.99, ramp_epochs=20)")
    assert table1.render(Options(), [], Records(folder)).table.rows[0][1] == "21", "those of jaxdal"


@pytest.mark.parametrize("order", [1, -1])
def test_names_are_looked_up_when_plugins_are_there(folder, order, capsys):
    written("mine.py", MINE + MORE)
    given = parsed(["--plugins=mine.py", "--strategies=mine*,badge"][::order])
    assert given.strategies == ("mine", "mine_plain", "mine_pooled", "mine_mixed", "badge")
    flags = ["--scale=smoke", "--results=out", "--list"]
    assert tables.main("table3", "", table3.render, ["--plugins=nowhere", *flags]) == 2
    assert capsys.readouterr().err.startswith("--plugins=nowhere: there is no module 'nowhere' in ")


def test_modules_are_found_in_the_current_folder(folder):
    written("mine.py")
    words = [sys.executable, "-m", "jaxdal.main", "--plugins=mine", "--strategy=mine", "--epochs=0"]
    environment = {**os.environ, "PYTHONPATH": str(README.parent.parent)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == "jaxdal: --epochs=0 is less than 1\n", "and not that there is no such strategy"
