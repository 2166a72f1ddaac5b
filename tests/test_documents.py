"""The code in documents does what they say."""

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdal import data, models, report, settings, strategies, trainers
from jaxdal.errors import InputError
from jaxdal.types import Signal

DOCS = Path(__file__).parent.parent / "docs"
LINKING = sorted(path for below in ("*", "docs/*", "[be]*/README") for path in DOCS.parent.glob(f"{below}.md"))


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)", document.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", LINKING, ids=lambda path: str(path.relative_to(DOCS.parent)))
def test_links_lead_somewhere(document):
    for file, section in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", document.read_text()):
        there = document.parent / file if file else document
        assert there.exists(), file
        assert not section or section in anchors(there), f"{file}#{section}"


def test_every_file_of_the_package_has_its_place_in_the_architecture():
    told = (DOCS / "architecture.md").read_text()
    files = {path.name for path in (DOCS.parent / "jaxdal").glob("*.py")} - {"__init__.py"}
    assert {name for name in files if f"`{name}`" not in told} == set()


def test_a_strategy_a_network_and_a_trainer_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "MODELS", {**models.MODELS})  # rows that the document adds go with the test
    monkeypatch.setattr(trainers, "TRAINERS", {**trainers.TRAINERS})
    text = "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / "extending.md").read_text(), flags=re.DOTALL))
    (tmp_path / "mine.py").write_text(text)
    space: dict[str, Any] = {"__name__": "mine"}
    exec(compile(text, str(tmp_path / "mine.py"), "exec"), space)
    names = [result.header["config"]["strategy"] for result in space["results"]]
    assert names[:3] == ["random", "badge", "bald"]
    assert re.fullmatch(r"calm_centres\(candidates=150, patience=0.5\), code [0-9a-f]{8}", names[3])
    for result in space["results"]:
        assert re.fullmatch(r"smooth\(share=0.05\), code [0-9a-f]{8}", result.header["config"]["trainer"])
        assert len(result.groups) == 2
        assert result.groups[-1][0]["accuracy"] > 0.5
    assert report.main(["runs/mine"]) == 0
    name = "calm_centres(candidates=150, patience=0.5) + smooth(share=0.05)"
    assert f">{name}<" in (tmp_path / "runs" / "mine" / "report.html").read_text()
    rules = settings.resolve(
        "digits", data.load("digits"), space["calm_centres"](candidates=3), n_query="20%", n_end="25%"
    )
    known = np.where(np.arange(rules.pool) % 3 > 0, 0, -1).astype(np.int32)  # fewer unknown ones than candidates
    probs, features = jnp.full((rules.pool, 10), 0.1), jnp.zeros((rules.pool, 4))
    picks, _ = space["calm_centres"](candidates=3).select(None, known, 287, jnp.zeros(rules.pool), probs, features)
    assert len(set(picks.tolist())) == 287
    assert (known[np.asarray(picks)] < 0).all(), "also where all are alike"


def test_signals_are_where_the_document_says() -> None:
    found = []
    for cell in re.findall(r"^\| (.*`) \| f32\[N", (DOCS / "extending.md").read_text(), flags=re.MULTILINE):
        called, _, home = cell.partition(", from ")
        module = importlib.import_module(home.strip("`") or "jaxdal.signals")
        found += [getattr(module, name) for name in re.findall(r"`(?:signals\.)?(\w+)", called)]
    assert all(isinstance(signal if isinstance(signal, Signal) else signal(), Signal) for signal in found)
    assert len(found) == 6


# What each method is.

METHODS = (DOCS / "methods.md").read_text()
LIBRARIES = {
    "scikit-activeml": "skactiveml", "scikit-learn": "sklearn", "scipy": "scipy", "PyTorch": "torch", "Pillow": "PIL",
}  # fmt: skip


def entries(text: str) -> list[tuple[str, str]]:
    """Headings that are names, with what is said below them, up to the next heading."""
    return re.findall(r"^### `(\w+)`.*?\n\n(.*?)(?=^##|\Z)", text, flags=re.DOTALL | re.MULTILINE)


STRATEGY_ENTRIES, TRAINER_ENTRIES = map(entries, METHODS.split("\n## Trainers\n"))


def test_every_strategy_and_every_trainer_has_an_entry():
    assert sorted(name for name, _ in STRATEGY_ENTRIES) == sorted(strategies.STRATEGIES)
    assert sorted(name for name, _ in TRAINER_ENTRIES) == sorted(trainers.TRAINERS)


@pytest.mark.parametrize(("name", "said"), STRATEGY_ENTRIES + TRAINER_ENTRIES)
def test_an_entry_names_what_there_is(name, said):
    """Its tests, the libraries that these import, and words with which each of its lines begins."""
    lines = re.split(r"^- ", said, flags=re.MULTILINE)[1:]
    begins = [re.match(r"\*\*(Buys|Minimises|Checked by|The comparison|Measured)", line)[1] for line in lines]
    assert begins[1:3] == ["Checked by", "The comparison"]
    assert begins[3:] in ([], ["Measured"])
    files = [DOCS.parent / path for path in re.findall(r"`(tests/[\w/]+\.py)`", lines[1])]
    assert files
    imports = [line for path in files for line in path.read_text().splitlines() if "import" in line]
    for library, module in LIBRARIES.items():
        if library in lines[1]:
            assert any(re.search(rf"\b{module}\b", line) for line in imports), library


def test_options_can_be_given():
    """Those of an entry are its own; the calls at the end are of a strategy or of a trainer."""
    for build, parts in ((strategies.build, STRATEGY_ENTRIES), (trainers.build, TRAINER_ENTRIES)):
        for name, said in parts:
            for options in re.findall(r"`(\w+=[^`]+)`", said):
                build(f"{name}({options})")
    calls = re.findall(r"`(\w+\([^`]*\))`", METHODS.split("\n## To get the comparison's rule\n")[1])
    assert len(calls) == 17
    for call in calls:
        assert can_be_built(call, strategies.build) or can_be_built(call, trainers.build), call


def can_be_built(call: str, build: Callable[[str], object]) -> bool:
    try:
        build(call)
    except InputError:
        return False
    return True


def test_files_are_there():
    paths = re.findall(r"`(tests/[\w/]+\.py)`", METHODS)
    assert len(set(paths)) > 30
    for path in paths:
        assert (DOCS.parent / path).is_file(), path
    assert len(re.findall(r"RESULTS\.md#([\w-]+)\)", METHODS)) == 5
