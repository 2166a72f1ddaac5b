"""Programs compiled for devices that are not there: for a CPU here; for others where the plugins are installed."""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # the benchmarks are not part of the package

from benchmarks import deviceless, hlo, profile_step, train_step
from benchmarks.programs import Bench, Program

ROOT = Path(__file__).parent.parent
TOY = ["--model=lenet", "--pool=32", "--labels=16", "--k=4", "--batch=4", "--runs=1"]
PLUGINS = {"h100": ("jax_cuda13_plugin", "jax_cuda12_plugin"), "v5e": ("libtpu",)}


def test_a_step_is_counted(tmp_path):
    flags = ["--target=cpu", "--programs=train", "--trainers=supervised", "--strategies=margin"]
    report = deviceless.main([*TOY, *flags, f"--out={tmp_path / 'out'}", f"--text={tmp_path / 'text'}"])
    ((row,),) = report.tables.values()
    assert (row["target"], row["program"], row["note"]) == ("cpu", "supervised; 1 run", "")
    assert json.loads((tmp_path / "out/deviceless.json").read_text())["tables"].popitem()[1] == [row]
    (kept,) = (tmp_path / "text").iterdir()
    found = hlo.kernels(kept.read_text(), depth=1)
    sizes = [size for _, size in found]
    assert len(hlo.kernels(kept.read_text())) > row["kernels"] == len(sizes)
    assert row["in loops"] == sum(one.depth > 1 for one, _ in found)
    assert row["under 0.1 MB"] == sum(size < 100_000 for size in sizes) < len(sizes)
    assert row["MB between kernels"] == pytest.approx(sum(sizes) / 1e6, rel=1e-3)
    assert row["MB held"] > row["MB in between"] > 0


def test_the_step_is_that_which_trains(monkeypatch):
    """What goes to the compiler from shapes alone is, to the letter, what `profile_step` counts and runs."""
    monkeypatch.setitem(train_step.PROTOCOL, "tiny", "mnist")
    images, rules = train_step.arrays("mnist", 32), {"n_start": 16, "n_query": 1, "n_end": 16, "batch": 4}
    bench = Bench(images, jax.devices()[:1], model="tiny", seeds=range(2), **rules)
    options = argparse.Namespace(model="tiny", labels=16, batch=4, precision="auto")
    real = train_step.Ours(train_step.rules_for(options, images, 2), images)
    order = real.lab.engine._batches(real.keys, real.known, np.int32(0))
    there, depth = profile_step.lowered_step(real.lab, real.state, real.keys, real.known, order)
    here, same = bench.step()
    assert (same, here.as_text()) == (depth, there.as_text())


def test_scoring_and_selection():
    """Two runs: each strategy's choice and what it has to know, whose sizes are known."""
    flags = ["--target=cpu", "--programs=score,select", "--strategies=random,least_confidence,margin"]
    scored, selected = deviceless.main([*TOY, *flags, "--runs=2"]).tables.values()
    assert [row["program"] for row in scored] == [
        "a chunk for least_confidence, margin; 2 runs", "joining chunks for least_confidence, margin; 2 runs",
    ]  # fmt: skip
    assert scored[1]["MB between kernels"] == pytest.approx(2 * (2 * 32 * 10 * 4) / 1e6)
    assert [row["program"] for row in selected] == [
        f"{name}; 2 runs" for name in ("random", "least_confidence", "margin")
    ]
    for row in selected[1:]:
        assert row["MB held"] >= 2 * 32 * (10 + 1) * 4 / 1e6  # probabilities, and what is known


def test_choices_from_signals_alone():
    (rows,) = deviceless.main(
        ["--target=cpu", "--programs=large", "--large=margin,coreset", "--sizes=600,7,3,5"]
    ).tables.values()
    margin, coreset = rows
    assert margin["MB held"] >= 600 * 3 * 4 / 1e6
    assert coreset["MB held"] >= 600 * (7 + 1) * 4 / 1e6
    assert 0 < coreset["in loops"] < coreset["kernels"]


def test_what_fails_has_a_row(capsys):
    """Whether it is refused before it is compiled or in the compiler."""
    flags = ["--target=cpu", "--programs=large", "--large=cluster_margin,random", "--sizes=100001,1,3,5"]
    (rows,) = deviceless.main(flags).tables.values()
    refused, chosen = rows
    assert refused["note"].startswith("does not compile: InputError: ")
    assert "100,000" in refused["note"]
    assert chosen["kernels"] > 0
    assert "1 of 2: cpu, cluster_margin" in capsys.readouterr().err


def test_more_than_a_device_has(monkeypatch):
    product = Program("product", lambda: (jax.jit(jnp.dot).lower(*[jax.ShapeDtypeStruct((8, 8), np.float32)] * 2), 0))
    assert deviceless.row_of("cpu", product, 1, None)["note"] == ""
    cpu = deviceless.TARGETS["cpu"]._replace(memory=3 * 8 * 8 * 4 - 1)
    monkeypatch.setitem(deviceless.TARGETS, "cpu", cpu)
    row = deviceless.row_of("cpu", product, 1, None)
    assert (row["MB held"], row["note"]) == (768 / 1e6, "more than a device has")


def test_several_devices():
    """A run that has two devices holds half of its signals on each, and joins their chunks without sending any."""
    flags = ["--target=cpu", "--programs=score", "--strategies=margin"]
    (alone,), (both,) = (
        [
            row
            for row in deviceless.main([*TOY, *flags, f"--devices={count}"]).tables.popitem()[1]
            if "joi" in row["program"]
        ]
        for count in (1, 2)
    )
    assert "kB sent" not in alone
    assert both["kB sent"] == 0
    assert both["MB held"] == pytest.approx(alone["MB held"] / 2)


@pytest.mark.parametrize(("target", "package"), [("h100", "jax[cuda13]"), ("v5e", "libtpu")])
def test_without_the_plugin(target, package, monkeypatch, capsys):
    def missing(*_, **__):
        raise NotImplementedError("topology not implemented for cuda\nmore")

    monkeypatch.setattr(deviceless.topologies, "get_topology_desc", missing)
    with pytest.raises(SystemExit) as stopped:
        deviceless.main([*TOY, f"--target={target}"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert f"--target={target}: this JAX" in said
    assert "cannot compile for it: NotImplementedError: topology not implemented for cuda\n" in said
    assert "pip install" in said
    assert package in said


def test_more_devices_than_there_are(capsys):
    with pytest.raises(SystemExit) as stopped:
        deviceless.main([*TOY, "--target=cpu", "--devices=9"])
    assert stopped.value.code == 2
    assert "8 devices, not --devices=9" in capsys.readouterr().err


@pytest.mark.parametrize("target", PLUGINS)
def test_with_the_plugin(target, tmp_path):
    """In a process of its own, with none of the settings of these tests."""
    if not any(importlib.util.find_spec(name) for name in PLUGINS[target]):
        pytest.skip(f"no plugin for {target}: pip install {deviceless.TARGETS[target].needs}")
    flags = [f"--target={target}", "--programs=select", "--strategies=margin", f"--out={tmp_path}"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    command = [sys.executable, "-m", "benchmarks.deviceless", *TOY, *flags]
    subprocess.run(command, cwd=ROOT, env=clean, check=True, timeout=600)
    ((row,),) = json.loads((tmp_path / "deviceless.json").read_text())["tables"].values()
    assert (row["target"], row["note"]) == (target, "")
    assert row["kernels"] > 0
    assert row["MB held"] >= 32 * (10 + 1) * 4 / 1e6
