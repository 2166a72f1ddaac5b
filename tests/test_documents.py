"""The code in documents does what they say."""

import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdal import data, models, report, settings, trainers

DOCS = Path(__file__).parent.parent / "docs"


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
    assert ">calm_centres(candidates=150, patience=0.5)<" in (tmp_path / "runs" / "mine" / "report.html").read_text()
    rules = settings.resolve(
        "digits", data.load("digits"), space["calm_centres"](candidates=3), n_query="20%", n_end="25%"
    )
    known = np.where(np.arange(rules.pool) % 3 > 0, 0, -1).astype(np.int32)  # fewer unknown ones than candidates
    probs, features = jnp.full((rules.pool, 10), 0.1), jnp.zeros((rules.pool, 4))
    picks, _ = space["calm_centres"](candidates=3).select(None, known, 287, jnp.zeros(rules.pool), probs, features)
    assert len(set(picks.tolist())) == 287
    assert (known[np.asarray(picks)] < 0).all(), "also where all are alike"
