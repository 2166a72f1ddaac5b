"""A sweep that is started again: the packs that its journals were begun with."""

import sys
import types
from pathlib import Path

import jax
from planned import CURVE, write

sys.path.insert(0, str(Path(__file__).parent.parent))  # the experiments are not part of the package

from experiments import runs
from experiments.plans import PLANS, Options
from experiments.records import Records


def test_what_is_continued_is_cut_into_the_packs_that_it_had(tmp_path, monkeypatch):
    """Ten runs of the thin ResNet in packs of 4, 4 and 2: the journal says 5, which as a flag would give two of 5."""
    asked = []
    monkeypatch.setattr(runs, "run_together", lambda *given: asked.append(given[-1]["pack"]) or [])
    plan = PLANS["table3"](Options(("cifar10",), ("badge",), tuple(range(5)), "half"))
    badge = next(run for run in plan if run.strategy == "badge")
    write(tmp_path / "old", badge, dict.fromkeys(range(5), CURVE[:1]), pack=5)
    (group,) = runs.groups(plan, Records(tmp_path))
    assert [(member.run.strategy, bool(member.record)) for member in group.members] == [
        ("random", False), ("badge", True)
    ]  # fmt: skip
    for platform in ("gpu", "cpu"):
        monkeypatch.setattr(jax, "devices", lambda platform=platform: [types.SimpleNamespace(platform=platform)])
        runs.train(group, group.members, tmp_path, None)
    assert asked == [0, 5], "on a CPU, where 0 is another number, as the journal has it, or it would be refused"
