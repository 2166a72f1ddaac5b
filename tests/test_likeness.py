"""Networks and trainers of one's own are told apart by their code, in every process alike."""

import contextlib
import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxdal
from jaxdal import InputError, likeness, models, settings, trainers
from jaxdal.types import Dataset

MODEL = """
from typing import Any
import flax.linen as nn
import jax.numpy as jnp
from jaxdal.types import Model

WIDTH = 8


class Net(nn.Module):
    num_classes: int
    width: int = 3

    @nn.compact
    def __call__(self, x):
        features = jnp.tanh(nn.Dense(WIDTH)(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.num_classes)(features), features


def mine(image_shape, num_classes, dtype):
    net = Net(num_classes)

    def init(key):
        return {**net.init(key, jnp.zeros((1, *image_shape))), "batch_stats": {}}

    def apply(variables, x, *, train=False, dropout_key=None, chunks=1):
        logits, features = net.apply({"params": variables["params"]}, x)
        return logits, {"features": features, "batch_stats": {}}

    return Model(init, apply)
"""


def written(folder: Path, name: str, text: str, function: str = "mine") -> Any:
    """A function of a module of this text."""
    (folder / f"{name}.py").write_text(text)
    importlib.invalidate_caches()
    sys.modules.pop(name, None)
    return getattr(importlib.import_module(name), function)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that modules are imported from, without files of compiled code, which would outlive a change."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


def test_a_change_anywhere_in_a_model_shows(folder: Path) -> None:
    first = likeness.of_rows(written(folder, "net", MODEL))
    assert likeness.of_rows(written(folder, "net", f"# a remark\n{MODEL}")) == first
    changes = [("WIDTH = 8", "WIDTH = 9"), ("tanh", "sin"), ("width: int = 3", "width: int = 4"), ("(1, *", "(2, *")]
    digests = {likeness.of_rows(written(folder, "net", MODEL.replace(*change))) for change in changes}
    assert len(digests - {first}) == len(changes)
    code = "import net; from jaxdal import likeness; print(likeness.of_rows(net.mine))"
    written(folder, "net", MODEL)
    told = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == first, "another process says the same"


MODULE = """
import dataclasses
import enum
import pathlib
import re
from functools import partial

import jax
import flax.linen as nn
import numpy as np
import optax

import other

NUMBER = 1


def inner(x):
    return x + NUMBER


lifted, bound, compiled = jax.vmap(inner), partial(inner, 2), jax.jit(inner)


class Level(enum.Enum):
    LOW = "low"

    def weight(self):
        return 4


level, optimiser, sets = Level.LOW, optax.adam(1e-3), {frozenset("abc"), frozenset("def")}
pattern, path = re.compile("a+"), pathlib.Path("b/c")


class Base:
    def deep(self):
        return 1


class Buyer(Base):
    share = 0.5

    @property
    def half(self):
        return 2

    @staticmethod
    def still():
        return 3

    def helper(self, x):
        return x * 4

    def choose(self, x):
        return self.helper(x) + self.half

    def __call__(self, x):
        return x - 5


@dataclasses.dataclass(frozen=True)
class Options:
    draws: int = 6


class Slotted:
    __slots__ = ("size",)

    def __init__(self):
        self.size = 7


class Net(nn.Module):
    width: int = 8

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.width)(x)


def made(kind):
    buyer, options, slotted, net = Buyer(), Options(), Slotted(), Net(9)
    lists = [[10], 11]

    def nested(x):
        return (lambda y: inner(y))(x)

    return {
        "nested": nested, "vmap": lambda x: lifted(x), "partial": lambda x: bound(x), "jit": lambda x: compiled(x),
        "method": buyer.choose, "object": lambda x: buyer(x), "other": lambda x: other.score(x),
        "options": lambda x: options, "slots": lambda x: slotted, "net": lambda x: net, "lists": lambda x: lists,
        "range": lambda x, r=range(12): r, "enum": lambda x: level, "optax": lambda x: optimiser,
        "sets": lambda x: sets, "pattern": lambda x: pattern, "path": lambda x: path,
    }[kind]
"""
CHANGES = {
    "nested": ["NUMBER = 1", "x + NUMBER"], "vmap": ["NUMBER = 1", "x + NUMBER", "vmap(inner"], "jit": ["x + NUMBER"],
    "partial": ["x + NUMBER", "partial(inner, 2"], "method": ["return 1", "return 2", "return 3", "x * 4", "0.5"],
    "object": ["x - 5"], "options": ["draws: int = 6"], "slots": ["size = 7"], "lists": ["[10], 11"],
    "range": ["range(12"], "net": ["width: int = 8", "Net(9", "Dense(self.width"], "other": [],
    "enum": ['"low"', "return 4"], "optax": ["1e-3"], "sets": ['"def"'], "pattern": ["a+"], "path": ["b/c"],
}  # fmt: skip
OTHERWISE = {
    "NUMBER = 1": "NUMBER = 1.0", "x + NUMBER": "x - NUMBER", "vmap(inner": "vmap(inner, in_axes=1",
    "partial(inner, 2": "partial(inner, 3", "x * 4": "x * 40", "x - 5": "x - 50", "0.5": "0.25", "Net(9": "Net(90",
    "draws: int = 6": "draws: int = 60", "size = 7": "size = 70", "[10], 11": "[10, 11]", "range(12": "range(13",
    "width: int = 8": "width: int = 80", "Dense(self.width": "Dense(1 + self.width", "return 1": "return 10",
    '"low"': '"high"', "1e-3": "1e-2", '"def"': '"deg"', "a+": "a*", "b/c": "b/d",
    "return 2": "return 20", "return 3": "return 30",
    "return 4": "return 40",
}  # fmt: skip


@pytest.mark.parametrize("kind", CHANGES)
def test_what_a_function_is_made_with(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "other.py").write_text("def score(x):\n    return x + 1\n")
    module = sys.modules[written(folder, "parts", MODULE, "made").__module__]
    first = likeness.of_rows(module.made(kind))
    if kind in ("vmap", "jit", "partial"):
        jax.block_until_ready(module.made(kind)(np.ones(3)) if kind != "partial" else module.inner(1))
    assert likeness.of_rows(module.made(kind)) == first, "another object of the same, after use"
    found = [first]
    for change in CHANGES[kind]:
        assert MODULE.count(change) == 1
        found.append(
            likeness.of_rows(written(folder, "parts", MODULE.replace(change, OTHERWISE[change]), "made")(kind))
        )
    if kind == "other":
        monkeypatch.delitem(sys.modules, "other")
        (folder / "other.py").write_text("def score(x):\n    return x + 10\n")
        found.append(likeness.of_rows(written(folder, "parts", MODULE, "made")(kind)))
    assert len(set(found)) == len(found) > 1


def test_another_process_says_the_same(folder: Path) -> None:
    (folder / "other.py").write_text("def score(x):\n    return x + 1\n")
    made = written(folder, "parts", MODULE, "made")
    code = "import sys, parts; from jaxdal import likeness; "
    code += "print(*(likeness.of_rows(parts.made(kind)) for kind in sys.argv[1:]))"
    command = [sys.executable, "-c", code, *CHANGES]
    told = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert told.stdout.split() == [likeness.of_rows(made(kind)) for kind in CHANGES]
    assert len(set(told.stdout.split())) == len(CHANGES)


USE = "scores.score(x)"
IMPORTING = {
    "dotted": f"import own.parts.scores\n\ndef f(x):\n    return own.parts.{USE}\n",
    "alias": f"from own.parts import scores\n\ndef f(x):\n    return {USE}\n",
    "within": "def f(x):\n    from own.parts.scores import score\n    return score(x)\n",
    "module within": f"def f(x):\n    from own.parts import scores\n    return (lambda y: {USE})(x)\n",
    "dotted within": "def f(x):\n    def g(x):\n        import own.parts.scores\n"
    f"        return own.parts.{USE}\n    return g(x)\n",
    "relative": "def f(x):\n    from .parts.scores import score\n    return score(x)\n",
    "of two, of which one is not there": "def f(x):\n    import nowhere.at_all\n"
    f"    from own.parts import scores\n    return {USE}\n",
}  # fmt: skip


@pytest.mark.parametrize("kind", IMPORTING)
def test_code_in_a_module_of_ones_own_shows_however_it_is_imported(kind: str, folder: Path) -> None:
    """And says the same before and after it was used for the first time."""
    package = folder / "own" / "parts"
    package.mkdir(parents=True)
    for path in (package, package.parent):
        (path / "__init__.py").touch()
    (package.parent / "using.py").write_text(IMPORTING[kind])
    digests = []
    for number in (1, 2):
        (package / "scores.py").write_text(f"def score(x):\n    return x + {number}\n")
        for name in [name for name in sys.modules if name.partition(".")[0] == "own"]:
            del sys.modules[name]
        importlib.invalidate_caches()
        function = importlib.import_module("own.using").f
        digests.append(likeness.of_rows(function))
        with contextlib.suppress(ModuleNotFoundError):
            assert function(1) == 1 + number
        assert likeness.of_rows(function) == digests[-1]
    assert digests[0] != digests[1]


def test_a_digest_runs_nothing_that_was_not_asked_for(folder: Path) -> None:
    """Of a branch that is not taken, say: own scripts, and packages that take long, or a GPU's memory."""
    inner = folder / "own" / "inner"
    inner.mkdir(parents=True)
    for path in (inner, inner.parent):
        (path / "__init__.py").touch()
    imports = ("from .. import script", "from ..common import g", "import sklearn.svm")
    branch = "".join(f"        {line}\n" for line in (*imports, "return g(x)"))
    (inner / "using.py").write_text(f"def f(x):\n    if x:\n{branch}    return x\n")
    for script in (folder / "script.py", inner.parent / "script.py"):
        script.write_text("raise SystemExit(f'{__name__} was run')\n")
    digests = []
    for text in ("return x", "return x  # a remark", "return x + 1"):
        (inner.parent / "common.py").write_text(f"def g(x):\n    {text}\n")
        program = "import sys, own.inner.using as u; from jaxdal import likeness; before = {*sys.modules}; "
        program += "print(likeness.of_rows(u.f), 'sklearn' in {*sys.modules} - before)"
        done = subprocess.run([sys.executable, "-Bc", program], cwd=folder, capture_output=True, text=True, check=True)
        digest, imported = done.stdout.split()
        assert imported == "False"
        digests.append(digest)
    assert digests[0] == digests[1] != digests[2]


def test_a_package_without_a_file_of_its_own_counts(folder: Path) -> None:
    (folder / "spread").mkdir()
    (folder / "user.py").write_text("import spread.parts\n\ndef f(x):\n    return spread.parts.g(x)\n")
    digests = set()
    for number in (1, 2):
        (folder / "spread" / "parts.py").write_text(f"def g(x):\n    return x + {number}\n")
        for name in [name for name in sys.modules if name.partition(".")[0] in ("spread", "user")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        digests.add(likeness.of_rows(importlib.import_module("user").f))
    assert len(digests) == 2


def test_many_modules_that_name_each_other_are_walked_once(folder: Path) -> None:
    names = [f"m{number}" for number in range(12)]
    for name in names:
        (folder / f"{name}.py").write_text("".join(f"import {other}\n" for other in names))
    (folder / "hub.py").write_text(f"import m0\n\ndef f(x):\n    return m0.{'.'.join(names)}\n")
    assert likeness.of_rows(importlib.import_module("hub").f)


def test_modules_that_name_each_other_end(folder: Path) -> None:
    (folder / "one.py").write_text("import two\n\ndef f(x):\n    return two.one.two.g(x)\n")
    (folder / "two.py").write_text("import one\n\ndef g(x):\n    return x + 1\n")
    first = likeness.of_rows(importlib.import_module("one").f)
    for name in ("one", "two"):
        sys.modules.pop(name)
    (folder / "two.py").write_text("import one\n\ndef g(x):\n    return x + 2\n")
    importlib.invalidate_caches()
    assert likeness.of_rows(importlib.import_module("one").f) != first


def test_functions_that_name_each_other_are_walked_once(folder: Path) -> None:
    text = "".join(f"def f{i}(x):\n    return {' + '.join(f'f{j}(x)' for j in range(40))}\n" for i in range(40))
    assert likeness.of_rows(written(folder, "many", text, "f0"))


def test_a_set_whose_members_name_it_ends(folder: Path) -> None:
    text = "ALL = set()\n\ndef mine(x):\n    return x + len(ALL)\n\nALL.add(mine)\n"
    first = likeness.of_rows(written(folder, "loop", text))
    assert likeness.of_rows(written(folder, "loop", text.replace("x + len", "x - len"))) != first


def test_what_is_jaxdals_has_none() -> None:
    for model in (models.lenet, models.resnet18, models.resnet18_thin):
        assert likeness.of_rows(model, *trainers.TRAINERS.values()) == ""


def test_a_changed_model_does_not_continue_a_journal(
    folder: Path, blobs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {
        "workdir": folder / "run", "n_start": 20, "n_query": 10, "n_end": 30, "epochs": 1, "batch": 16, "quiet": True,
        "model": "mine", "devices": jax.devices()[:1],
    }  # fmt: skip
    monkeypatch.setitem(models.MODELS, "mine", written(folder, "net", MODEL))
    header = jaxdal.run(blobs, "random", **options).header
    assert header["config"]["own_code"] == likeness.of_rows(models.MODELS["mine"])
    assert jaxdal.run(blobs, "random", **options).header == header
    monkeypatch.setitem(models.MODELS, "mine", written(folder, "net", MODEL.replace("tanh", "sin")))
    with pytest.raises(InputError, match=r"another configuration.*own_code"):
        jaxdal.run(blobs, "random", **options)


def test_a_trainer_of_ones_own_has_its_digest_in_its_name(
    folder: Path, blobs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(text: str) -> Any:
        monkeypatch.setitem(trainers.TRAINERS, "mine", written(folder, "training", text))
        rules = settings.resolve("arrays", blobs, "random", n_start=20, n_query=10, n_end=30, trainer="mine")
        assert rules.trainer == "mine"
        assert "own_code" not in rules.config()
        return rules.config()["trainer"]

    text = "from jaxdal import trainers\n\n\ndef mine(weight=1):\n    return trainers.build('supervised')\n"
    name = told(text)
    assert re.fullmatch("mine, code [0-9a-f]{8}", name)
    assert told(text) == name != told(text.replace("=1", "=2"))
