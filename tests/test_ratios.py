"""The table of ratios, of made-up results: what is read, what is refused, what is left empty."""

import json
import re
import sys
from pathlib import Path

import journals
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # the benchmarks are not part of the package

from benchmarks import on_gpu, queueing, ratios, train_ssl_step

CARD = "1 x NVIDIA H100 80GB HBM3 (gpu)"
TITLE = "Training step: resnet18_thin, in turns of 256 steps"
PACKED = {"what": "jaxdal, 4 packed", "batch": 256, "runs": 4, "cpu ms": 4.0, "images/s": 240_000.0}
ALONE = {"what": "jaxdal", "batch": 256, "runs": 1, "cpu ms": 2.0, "images/s": 110_000.0}
RIVALS = [
    {"what": "torch, as commonly written", "batch": 256, "runs": 1, "cpu ms": 9.0, "images/s": 30_000.0},
    {"what": "torch, bf16 channels_last compiled", "batch": 256, "runs": 1, "cpu ms": 2.0, "images/s": 100_000.0},
    {"what": "torch, behind a DataLoader", "batch": 256, "runs": 1, "cpu ms": 9.0, "images/s": 12_000.0},
]


def write(folder: Path, name: str, title: str, rows: list, date: str = "2026-11-27T08:00+00:00", device: str = CARD):
    folder.mkdir(parents=True, exist_ok=True)
    about = {"device": device, "date": date, "commit": "abc", "command": f"python -m benchmarks.{name} --some=flags"}
    (folder / f"{name}.json").write_text(json.dumps({**about, "tables": {title: rows}}))


def tables(folder: Path) -> tuple[dict, list]:
    """-> rows of targets by name and target, rows beside rivals."""
    first, second, _ = ratios.main([f"--results={folder}", f"--experiments={folder}"]).values()
    return {(row["what"], row["target"]): row for row in first}, second


def test_targets_and_rivals_of_one_run(tmp_path, capsys):
    write(tmp_path / "h100/train_step", "train_step", TITLE, [ALONE, PACKED, *RIVALS])
    found, beside = tables(tmp_path)
    reached = {"... against the best PyTorch": (2.4, "yes"), "... as commonly written": (8, "yes")}
    reached |= {"... behind a DataLoader": (20, "yes"), "one run alone against the best PyTorch": (1.1, "yes")}
    for (what, target), row in found.items():
        if what in reached:
            assert (row["ratio"], row["met"]) == (pytest.approx(reached[what][0]), reached[what][1]), target
            assert (row["device"], row["commit"], row["from"]) == (CARD, "abc", "h100/train_step/train_step.json")
    assert found["thin ResNet-18, batch 256, packed", ">= 240,000 images/s"]["ours"] == "240,000 images/s"
    assert found["... the next mark", ">= 500,000 images/s"]["met"] == "no"
    assert found["badge, 10,000 picks of 1.28 M x 512", "<= 10 s"]["ours"] is None, "not measured"
    assert [row["ratio"] for row in beside] == [8, 2.4, 20], "the best of ours"
    assert {row["by cpu"] for row in beside} == {None}, "processor seconds say nothing about a card"
    assert f"| {CARD} |" in capsys.readouterr().out


def test_two_runs_make_no_ratio(tmp_path):
    write(tmp_path / "h100/first", "train_step", TITLE, [ALONE, PACKED])
    write(tmp_path / "h100/second", "train_step", TITLE, RIVALS, date="2026-11-27T08:01+00:00")
    found, beside = tables(tmp_path)
    assert found["... against the best PyTorch", ">= 2.3x"]["ratio"] is None
    assert found["thin ResNet-18, batch 256, packed", ">= 240,000 images/s"]["met"] == "yes", "needs one side only"
    assert beside == []
    theirs, ours = ratios.runs(tmp_path)
    with pytest.raises(ValueError, match="two runs make no ratio"):
        ratios.ratio(ratios.figure(ours, ALONE, "images/s"), ratios.figure(theirs, RIVALS[0], "images/s"))


def test_the_newest_of_a_device_counts(tmp_path):
    write(tmp_path / "h100/b", "train_step", TITLE, [PACKED | {"images/s": 99.0}], date="2026-01-01T00:00+00:00")
    write(tmp_path / "h100/a", "train_step", TITLE, [PACKED])
    write(tmp_path / "h200/a", "train_step", TITLE, [PACKED], device="1 x NVIDIA H200 (gpu)")
    titles = [row for row in ratios.targets(ratios.runs(tmp_path), tmp_path) if row["target"].startswith(">= 240")]
    assert sorted(row["device"] for row in titles) == [CARD, "1 x NVIDIA H200 (gpu)"]
    assert {row["ours"] for row in titles} == {"240,000 images/s"}


def test_seconds_and_processor_seconds(tmp_path):
    """Of selections, the shorter is the faster; of MixMatch, the share of a supervised step is what is asked."""
    picks = [{"what": "jaxdal", "s": 2.0, "cpu s": 1.0}, {"what": "scikit-activeml", "s": 6.0, "cpu s": 5.0}]
    write(tmp_path / "cpu/c", "select_coreset", "select_coreset: 100 picks", picks, device="1 x cpu (cpu)")
    steps = [{"what": f"jaxdal, {one}", "batch": 256, "runs": 1, "cpu ms": 1.0, "images/s": 5e5 / ms, "ms/step": ms}
             for one, ms in [("supervised", 2.0), ("mixmatch", 5.0)]]  # fmt: skip
    write(tmp_path / "h100/m", "train_ssl_step", "MixMatch step: resnet18_thin, in turns", steps)
    starts = [{"start": "cold", "seconds": 11.0, "compile": 5.0}, {"start": "warm", "seconds": 6.0, "compile": 1.0}]
    write(tmp_path / "cpu/r", "rounds", "python -m jaxdal.main: seconds", starts, device="1 x cpu (cpu)")
    found, (beside,) = tables(tmp_path)
    assert (beside["ratio"], beside["by cpu"]) == (3, 5)
    row = found["MixMatch step against a supervised one, thin ResNet-18", "<= 2.2x"]
    assert (row["ratio"], row["met"]) == (2.5, "no")
    assert found["default command, cold start on a CPU", "<= 60 s"]["ours"] == "11.0 s"


def test_the_two_queries_of_cluster_margin_have_rivals_of_their_own(tmp_path):
    size = {"rows": 50_000, "width": 128}
    first = [{"what": "jaxdal", **size, "s": 4.0, "cpu s": 1.0}, {"what": "torch, all distances", **size, "s": 6.0}]
    later = [{"what": "jaxdal", **size, "s": 0.01}, {"what": "torch, by sorting", **size, "s": 0.02}]
    write(tmp_path / "h100/c", "select_cluster_margin", "-", [])
    place = tmp_path / "h100/c/select_cluster_margin.json"
    queries = {
        f"Cluster-Margin, {query} query: 1 pick": rows for query, rows in {"first": first, "later": later}.items()
    }
    place.write_text(json.dumps({**json.loads(place.read_text()), "tables": queries}))
    found, beside = tables(tmp_path)
    row = found["cluster_margin, 50,000 x 128", "<= 5 s"]
    assert (row["ours"], row["met"]) == ("4.00 s", "yes"), "the first query has the target"
    assert found["cluster_margin, 50,000 x 512", "<= 15 s"]["ours"] is None
    assert [(row["rival"], row["ratio"]) for row in beside] == [
        ("6.00 s (torch, all distances)", 1.5), ("0.0200 s (torch, by sorting)", 2)
    ]  # fmt: skip


def test_mixmatch_is_compared_with_mixmatch(tmp_path):
    rates = {"jaxdal, supervised": 900.0, "jaxdal, mixmatch": 300.0}
    rates |= dict(zip(train_ssl_step.RIVALS.values(), (100.0, 200.0, 50.0), strict=True))
    steps = [{"what": what, "batch": 64, "runs": 1, "images/s": rate} for what, rate in rates.items()]
    write(tmp_path / "h100/m", "train_ssl_step", "MixMatch step: lenet, in turns", steps)
    _, beside = tables(tmp_path)
    assert [row["ratio"] for row in beside] == [3, 1.5, 6]


def test_a_crowded_machine_misses_no_target(tmp_path):
    starts = [{"start": "cold", "seconds": 99.0}]
    write(tmp_path, "rounds", "python -m jaxdal.main: seconds", starts, device="1 x cpu (cpu)")
    place = tmp_path / "rounds.json"
    for load, met in {"15.0 16.5 15.5": "busy machine", "1.5 2.0 2.0": "no"}.items():
        content = {**json.loads(place.read_text()), "machine": "AMD EPYC, 2 cores, Linux", "load": load}
        place.write_text(json.dumps(content))
        found, _ = tables(tmp_path)
        assert found["default command, cold start on a CPU", "<= 60 s"]["met"] == met


def test_run_measures_what_is_missing(tmp_path, monkeypatch):
    """With a stand-in for the benchmarks, which are started once and whose results are copied to the device's place."""
    program = (
        f"import json, pathlib; pathlib.Path('{{folder}}/step.json').write_text(json.dumps({{'device': '{CARD}'}}))"
    )
    command = ("-c", program.replace("{'device'", "{{'device'").replace("HBM3 (gpu)'}", "HBM3 (gpu)'}}"))
    monkeypatch.setattr(ratios, "needed", lambda platform: [queueing.Item("step", command)])
    ratios.run_missing(tmp_path / "results", tmp_path / "keep", 3600)
    assert (tmp_path / "results/nvidia_h100_80gb_hbm3/step/step.json").exists()


def test_every_target_has_a_benchmark_that_measures_it():
    known = {path.stem for path in Path(ratios.__file__).parent.glob("*.py")}
    assert {target.name for target in ratios.TARGETS} <= known
    commands = [" ".join(item.command) for item in on_gpu.benchmarks()]
    for target in ratios.TARGETS:
        assert any(f"benchmarks.{target.name} " in one and re.search(target.command, one) for one in commands), (
            target.what
        )
    assert [item.command[1] for item in ratios.needed("gpu")]
    for item in ratios.needed("cpu"):
        assert item.command[1].removeprefix("benchmarks.") in known


def test_a_share_is_that_of_its_own_strategy(tmp_path):
    """Of a command that runs several; compilation counts in all of them."""
    rows = {
        name: [{"round": n, "runs": 4, "selection %": share, "compile": 0.5} for n in (0, 1)]
        for name, share in {"margin": 1.0, "badge": 5.0}.items()
    }
    write(tmp_path / "h100/rounds", "rounds", "-", [])
    content = json.loads((tmp_path / "h100/rounds/rounds.json").read_text())
    content["command"] = "python -m benchmarks.rounds --dataset=synthetic --strategy=margin,badge --epochs=150"
    content["tables"] = {f"Rounds: synthetic, {name}; seconds per stage": rows[name] for name in rows}
    (tmp_path / "h100/rounds/rounds.json").write_text(json.dumps(content))
    found, _ = tables(tmp_path)
    for name, ours, met in [("margin", "1.00 %", "yes"), ("badge", "5.00 %", "no"), ("coreset", None, None)]:
        row = found[f"share of scoring + selection in a round, {name}", "<= 4 %"]
        assert (row["ours"], row["met"]) == (ours, met)
    assert found["compilation after the first round", "<= 0 s"]["ours"] == "1.00 s"


def test_a_partial_table_is_shown_and_measured_again(tmp_path, monkeypatch):
    write(tmp_path / "cpu/step", "train_step", TITLE, [ALONE], device="1 x cpu (cpu)")
    path, started = tmp_path / "cpu/step/train_step.json", []
    monkeypatch.setattr(ratios, "needed", lambda platform: [queueing.Item("step", ())])
    monkeypatch.setattr(ratios, "work", lambda items, *_: started.append([item.name for item in items]))
    for partial in ({}, {"partial": "turn 2 of 5"}):
        path.write_text(json.dumps(json.loads(path.read_text()) | partial))
        ratios.run_missing(tmp_path, tmp_path / "keep", 60)
    assert started == [[], ["step"]]
    assert ratios.sources(ratios.runs(tmp_path), tmp_path)[0]["partial"] == "turn 2 of 5"


def test_minutes_of_a_run_in_a_pack(tmp_path):
    """13 rounds of packs of 4: 13 s of training and evaluation and 1.5 s of selection, for all four."""
    for name, at_once, trainer in [("margin", 4, "supervised"), ("badge", 1, "supervised"), ("ssl", 4, "mixmatch")]:
        told = {"strategy": name, "trainer": trainer, "n_query": 5, "n_end": 70}
        folder = tmp_path / "card/paper/cifar10" / name
        journals.write(folder, {0: [0.5] * 13}, lines={"runs_at_once": at_once}, **told)
    ((_, minutes, count),) = ratios.run_times(tmp_path)
    assert (60 * minutes, count) == (pytest.approx(13 * 14.5 / 4), 1)


def test_the_seconds_of_a_column_are_counted_once(tmp_path):
    """Two strategies of five seeds train as ten runs and share round 0: 13 s a pack, 1.5 s to choose for five."""
    curves = {seed: [0.5] * 10 for seed in range(5)}
    for name in ("random", "margin"):
        folder = tmp_path / "card/paper/mnist" / name
        at_once = {"runs_at_once": 10, "selected_at_once": 5}
        journals.write(folder, curves, lines=at_once, strategy=name, n_query=5, n_end=55)
    ((run, minutes, methods),) = ratios.column_times(tmp_path)
    assert (run.device, methods) == ("cpu", 2)
    assert 60 * minutes == pytest.approx((100 - 5) * 13 / 10 + 100 * 1.5 / 5)
