"""The benchmarks at toy size: that they run, and that their arithmetic is right. Not their figures."""

import argparse
import json
import sys
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # the benchmarks are not part of the package

from benchmarks import (
    convolution_forms,
    profile_step,
    rounds,
    select_cluster_margin,
    selecting,
    streaming,
    timing,
    train_ssl_step,
    train_step,
)
from jaxdal import Result
from jaxdal.journal import Journal

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed: pip install -e '.[bench]'")
TOY = ["--batch=4", "--runs=1,2", "--steps=2", "--repeats=2", "--pool=32", "--labels=16"]


def test_training_step_of_packs(tmp_path, capsys):
    report = train_step.main([*TOY, "--model=lenet", "--rivals=none", f"--out={tmp_path}"])
    (rows,) = report.tables.values()
    assert [(row["what"], row["runs"], row["batch"]) for row in rows] == [("jaxdal", 1, 4), ("jaxdal, 2 packed", 2, 4)]
    for row in rows:
        assert 0 < row["least ms"] <= row["ms/step"]
        assert row["images/s"] == pytest.approx(1000 * 4 * row["runs"] / row["ms/step"], rel=1e-3)
        assert row["compile s"] > 0
    saved = json.loads((tmp_path / "train_step.json").read_text())
    assert saved["tables"] == report.tables
    assert (tmp_path / "train_step.md").read_text().count("| jaxdal") == 2
    first = capsys.readouterr().out.split("\n\n")[0]
    for word in ("date:", "device:", "versions:", "command:", "jax ", "load:"):
        assert word in first


class Runner:
    """Something that takes steps until it breaks, or diverges."""

    def __init__(self, breaks: float = np.inf, diverges: bool = False) -> None:
        self.taken, self.breaks, self.diverges = 0, breaks, diverges

    def steps(self, count: int) -> None:
        """Take some."""
        self.taken += 1
        if self.taken > self.breaks:
            raise RuntimeError("out of memory")

    def finite(self) -> bool:
        """Did it not diverge?"""
        return not self.diverges


def test_a_bad_contender_costs_its_own_row(tmp_path, capsys):
    """And whatever is there when a benchmark is ended is saved, and says how far it is."""
    runners = {"well": Runner(), "late": Runner(breaks=1), "astray": Runner(diverges=True)}
    makers = {what: partial(train_step.Contender, what, 1, "f32", None, one) for what, one in runners.items()}
    makers = {"missing": partial(int, "no module of that name"), **makers}
    options = argparse.Namespace(steps=2, batch=4, repeats=3)
    report, told, saved = timing.Report("step", {}), [], []

    def found():
        for rows, far in train_step.measured(options, makers):
            yield rows, far
            told.append(far)
            saved.append(json.loads((tmp_path / "step.json").read_text()))

    train_step.publish(report, "Steps", found(), str(tmp_path))
    names = [[row["what"] for row in one["tables"]["Steps"]] for one in saved]
    assert names == [[], ["well"], ["well", "late"], ["well", "late"], ["well"], ["well"]]
    assert [one["partial"] for one in saved] == told
    assert told[1] == "2 of 4, measured once"
    assert told[-1] == "turn 3 of 3"
    whole = json.loads((tmp_path / "step.json").read_text())
    assert "partial" not in whole
    assert whole["tables"] == report.tables == saved[-1]["tables"]
    errors = capsys.readouterr().err
    for reason in ("missing: ValueError", "late: RuntimeError: out of memory", "astray: ArithmeticError: it diverged"):
        assert f"left out: {reason}" in errors
    with pytest.raises(SystemExit):
        train_step.publish(report, "Steps", train_step.measured(options, {"astray": makers["astray"]}), None)


def test_picks_of_the_first_call_are_checked_and_not_made_again():
    options = argparse.Namespace(k=2, labelled=1, repeats=1, rivals="none", n=3, d=1, classes=2, out=None)
    calls = []

    def pick():
        calls.append(1)
        return [1, 2]

    selecting.contest("select_x", [], options, [selecting.Contender("jaxdal", pick, 1.0, [1, 2])], 1)
    assert len(calls) == 1
    with pytest.raises(SystemExit, match="wrong picks"):
        selecting.contest("select_x", [], options, [selecting.Contender("jaxdal", pick, 1.0, [0, 2])], 1)


def test_kernels_of_a_trace_are_timed_per_step(tmp_path):
    product = jax.jit(lambda x: jnp.tanh(x @ x))
    x = np.ones((64, 64), np.float32)
    trainee = argparse.Namespace(steps=lambda count: jax.block_until_ready([product(x) for _ in range(count)]))
    product(x).block_until_ready()
    found = profile_step.traced(trainee, tmp_path)
    assert found
    assert all(us > 0 for us, _ in found.values())
    assert {calls for _, calls in found.values()} == {1.0}, "by the number of steps"


def test_forms_of_a_packed_convolution(monkeypatch):
    monkeypatch.setattr(convolution_forms, "COPIES", 2)
    flags = ["--channels=128", "--batch=1", "--runs=4", "--repeats=1"]
    (rows,) = convolution_forms.main(flags).tables.values()
    assert [row["form"] for row in rows] == list(convolution_forms.forms(4))
    for row in rows:
        assert row["us"] == pytest.approx(sum(value for name, value in row.items() if name.startswith("us ")), rel=1e-2)
    assert len(convolution_forms.forms(1)) == 3
    every = convolution_forms.forms(4)
    wrong = every["block-diagonal"]._replace(back=lambda x: 2 * convolution_forms.apart(x, 4))
    monkeypatch.setattr(convolution_forms, "forms", lambda runs: {"right": every["one by one"], "wrong": wrong})
    with pytest.raises(AssertionError, match="wrong, forward: off by"):
        convolution_forms.main(flags)


def test_streaming():
    trained, scored = streaming.main([*TOY, "--runs=2", "--pool_bytes=13000"]).tables.values()
    for rows, images in [(trained, 2 * 4 * 2), (scored, 2 * 32)]:
        assert [(row["what"], row["runs"]) for row in rows] == [("resident", 2), ("streamed", 2)]
        for row in rows:
            assert row["images/s"] == pytest.approx(images / row["seconds"], rel=1e-3)
            assert row["x resident"] == pytest.approx(row["images/s"] / rows[0]["images/s"], rel=1e-3)
    assert trained[0]["GB/s"] is None
    assert trained[1]["GB/s"] == pytest.approx(trained[1]["images/s"] * 28 * 28 / 1e9, rel=1e-3)
    assert scored[1]["GB/s"] == pytest.approx(scored[1]["images/s"] / 2 * 28 * 28 / 1e9, rel=1e-3), "once for both"


@needs_torch
def test_table_with_a_rival():
    (rows,) = train_step.main([*TOY, "--model=lenet", "--rivals=eager", "--runs=2"]).tables.values()
    assert [row["what"] for row in rows] == ["jaxdal, 2 packed", train_step.RIVALS["eager"]]
    assert rows[-1]["x eager"] == 1
    assert rows[0]["x eager"] == pytest.approx(rows[0]["images/s"] / rows[-1]["images/s"], rel=1e-3)


def test_rounds(tmp_path):
    small = ["--n_start=20", "--n_query=10", "--n_end=40", "--epochs=1", "--batch=8", "--seeds=0,1"]
    report = rounds.main(
        ["--dataset=synthetic", "--pool=60", "--model=lenet", *small, "--no-starts", f"--out={tmp_path}"]
    )
    rows, (whole,) = report.tables.values()
    assert [row["labels"] for row in rows] == [20, 30, 40]
    assert [row["compile"] > 0 for row in rows] == [True, False, False]
    assert rows[-1]["selection %"] is None, "the last round selects nothing"
    assert whole["train"] == pytest.approx(sum(row["train"] for row in rows), rel=1e-3)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["rounds.json", "rounds.md"], "no journals stay"
    assert not {"partial", "continued"} & json.loads((tmp_path / "rounds.json").read_text()).keys()


def test_rounds_that_are_ended_are_in_the_tables_and_go_on(tmp_path, monkeypatch):
    """As in the middle of a long round: the tables are there before the command ends, and whatever ends it."""
    monkeypatch.setattr(rounds, "EVERY", 0.01)
    run_together, append, played = rounds.jaxdal.run_together, Journal.append, []
    table = tmp_path / "rounds.json"

    def saved(*parts: str) -> bool:
        return table.exists() and json.loads(table.read_text())["partial"] == ", ".join(parts)

    def stopping(book, group):
        append(book, group)
        played.append(group[0]["round"])
        if len(played) == 3:
            for _ in range(3000):
                if saved("margin: 2 rounds", "entropy: 1 rounds"):
                    raise KeyboardInterrupt
                time.sleep(0.01)
            pytest.fail("nothing was saved")

    command = [
        "--dataset=synthetic", "--pool=60", "--model=lenet", "--n_start=20", "--n_query=10", "--n_end=40", "--epochs=1",
        "--batch=8", "--strategy=margin,entropy", "--no-starts", f"--out={tmp_path}",
    ]  # fmt: skip
    monkeypatch.setattr(rounds, "source", lambda: "of this test")
    monkeypatch.setattr(Journal, "append", stopping)
    with pytest.raises(KeyboardInterrupt):
        rounds.main(command)
    assert played == [0, 0, 1]
    stopped = json.loads(table.read_text())["tables"]
    assert [len(rows) for rows in stopped.values()] == [2, 1, 2]

    other = ["--seeds=1", *command]
    monkeypatch.setattr(rounds.jaxdal, "run_together", lambda *_, workdirs, **__: pytest.fail(str(workdirs.exists())))
    with pytest.raises(pytest.fail.Exception, match="False"):
        rounds.main(other)  # another command begins in a folder of its own
    monkeypatch.setattr(rounds.jaxdal, "run_together", run_together)
    report = rounds.main(command)
    assert played == [0, 0, 1, 1, 2, 2], "what is in the journals is not played again"
    whole = json.loads(table.read_text())
    assert whole["continued"] == "margin: 2 rounds, entropy: 1 rounds"
    assert "partial" not in whole
    assert [len(rows) for rows in whole["tables"].values()] == [3, 3, 2]
    assert whole["tables"] == report.tables
    for title, rows in list(stopped.items())[:2]:
        assert whole["tables"][title][: len(rows)] == rows
    assert not (tmp_path / "unfinished").exists()


def test_rounds_of_several_strategies(monkeypatch):
    """A table each, of one command; of a pack that strategies share, each has its runs' share."""
    config = {"epochs": 2, "batch": 8, "pool": 100}
    spent = {"train": 4.0, "infer": 0.5, "select": 0.5, "eval": 0.1, "compile": 0.0}
    line = {"round": 0, "labelled": 20, "runs_at_once": 4, "selected_at_once": 2, "seconds": spent, "picks": [1]}
    result = Result(Path(), {"config": config}, [[line] * 2])
    monkeypatch.setattr(rounds.jaxdal, "run_together", lambda dataset, strategies, **_: [result] * len(strategies))
    tables = rounds.main(["--strategy=margin,bald(draws=5, seed=1)", "--no-starts"]).tables
    first, second, whole = tables.values()
    assert [title.split(";")[0] for title in tables][1] == "Rounds: digits, bald(draws=5, seed=1)"
    assert first == second
    assert (first[0]["train"], first[0]["infer"], first[0]["selection %"]) == (2, 0.5, pytest.approx(100 / 3, rel=1e-3))
    assert [row["strategy"] for row in whole] == ["margin", "bald(draws=5, seed=1)"]


def test_round_of_two_packs():
    """Seconds are those of a pack; a round of two packs took both."""
    config = {"epochs": 2, "batch": 8, "pool": 100}
    spent = {"train": 3.0, "infer": 0.5, "select": 0.5, "eval": 0.1, "compile": 0.0}
    line = {"round": 1, "labelled": 20, "runs_at_once": 2, "seconds": spent, "picks": [1]}
    row = rounds.round_row(config, [line] * 4)
    assert row["train"] == 6
    assert row["train images/s"] == pytest.approx(4 * 2 * 2 * 8 / 6, rel=1e-3)
    assert row["score images/s"] == pytest.approx(4 * 100 / 1, rel=1e-3)
    assert row["selection %"] == pytest.approx(25)


def test_starts_are_cold_then_warm(tmp_path, monkeypatch):
    """With a stand-in for the command, which finds the cache empty once and notes what it found."""
    (tmp_path / "stand_in.py").write_text(
        "import json, os, pathlib, sys\n"
        "workdir = pathlib.Path(sys.argv[1].removeprefix('--workdir='))\n"
        "cache = pathlib.Path(os.environ['XDG_CACHE_HOME'], 'jaxdal')\n"
        "spent = dict(train=1, infer=0, select=0, eval=0, compile=0 if cache.exists() else 9)\n"
        "cache.mkdir(exist_ok=True)\n"
        "workdir.mkdir()\n"
        "lines = [{'format': 1}, {'seconds': spent}, {'seconds': spent}]\n"
        "(workdir / 'journal.jsonl').write_text('\\n'.join(map(json.dumps, lines)))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    found = [([*rows], far) for rows, far in rounds.starts([], module="stand_in")]
    assert [far for _, far in found] == ["1 of 2 starts", "2 of 2 starts"]
    cold, warm = found[-1][0]
    assert found[0][0] == [cold], "a table that is saved before the second start"
    assert (cold["start"], cold["compile"], cold["train"]) == ("cold", 18, 2)
    assert (warm["start"], warm["compile"]) == ("warm", 0)
    assert min(cold["seconds"], warm["seconds"]) > 0


def test_numbers_keep_three_digits():
    cells = {1234.5: "1,234", 16.04: "16.0", 0.01234: "0.0123", 0.0: "0.00", 3.14e-7: "3.1e-07", 100_000.0: "100,000"}
    assert {value: timing.cell(value) for value in cells} == cells
    assert timing.cell(None) == "-"
    assert timing.markdown([{"a": "x", "b": 1.0}]).splitlines()[1] == "|---|-----:|"


def test_mixmatch_steps_beside_supervised_ones():
    toy = [option for option in TOY if not option.startswith("--runs")]
    rival = [] if find_spec("torch") is None else ["torch, mixmatch as commonly written"]
    report = train_ssl_step.main([*toy, "--model=lenet", f"--rivals={'eager' if rival else 'none'}"])
    (rows,) = report.tables.values()
    assert [row["what"] for row in rows] == ["jaxdal, supervised", "jaxdal, mixmatch", *rival]
    assert rows[0]["x supervised"] == 1
    assert rows[1]["x supervised"] == pytest.approx(rows[1]["ms/step"] / rows[0]["ms/step"], rel=1e-3)
    if rival:
        assert "x eager" not in rows[0], "MixMatch is no rival of a supervised step"
        assert rows[1]["x eager"] == pytest.approx(rows[1]["images/s"] / rows[2]["images/s"], rel=1e-3)


def test_cluster_margin_beside_its_rivals():
    torch = find_spec("torch") is not None
    report = select_cluster_margin.main(["--rows=150", "--width=32", "--picks=5", "--repeats=1"])
    first, later = report.tables.values()
    libraries = ["scipy linkage, clustering alone", "scikit-learn, clustering alone"]
    assert [row["what"] for row in first] == ["jaxdal", *["torch on cpu, all distances in memory"] * torch, *libraries]
    assert [row["what"] for row in later] == ["jaxdal", *["torch on cpu, by sorting"] * torch]
    assert first[0]["compile s"] > 0
    for row in (*first, *later):
        assert (row["rows"], row["width"], row["picks"]) == (150, 32, 5)
        assert row["s"] >= row["least s"] > 0


@needs_torch
def test_cluster_margin_times_no_rival_that_does_something_else(monkeypatch, capsys):
    options = ["--rows=150", "--width=32", "--picks=5", "--repeats=1", "--rivals=device"]
    monkeypatch.setattr(select_cluster_margin.InTorch, "clusters", lambda self: np.arange(150))
    tables = select_cluster_margin.main(options).tables.values()
    assert [[row["what"] for row in rows] for rows in tables] == [["jaxdal"], ["jaxdal", "torch on cpu, by sorting"]]
    assert "left out: torch on cpu, all distances in memory: ArithmeticError: other clusters" in capsys.readouterr().err
    monkeypatch.setattr(select_cluster_margin.InTorch, "_picks", lambda self, cluster, draws=None: np.arange(5))
    with pytest.raises(SystemExit, match="other picks"):
        select_cluster_margin.main(options)
