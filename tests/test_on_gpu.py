"""The queue for a lent accelerator, with a clock of its own and small programs: not what it measures."""

import json
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # the benchmarks are not part of the package

from benchmarks import merging, on_gpu, queueing
from benchmarks.queueing import Item, Notes, collect, pack, work
from jaxdal import journal


class World:
    """A clock that goes on while commands run, and commands that take as long as they say, unless they are ended."""

    def __init__(self) -> None:
        self.time, self.started = 0.0, []

    def clock(self) -> float:
        """What time it is."""
        return self.time

    def start(self, command: list[str], log: Path, seconds: float) -> int | None:
        """Let time pass as `queueing.run` would."""
        name, takes, code = command
        self.started.append(name)
        self.time += min(float(takes), seconds)
        return int(code) if float(takes) <= seconds else None

    def call(self, items: list[Item], out: Path, seconds: float, **options) -> list[str]:
        """Work for so long; -> what was started."""
        self.started.clear()
        work(items, out, options.pop("data", ()), self.time + seconds, start=self.start, clock=self.clock, **options)
        return list(self.started)


def item(name: str, takes: float, code: int = 0, **options) -> Item:
    return Item(name, (name, str(takes), str(code)), **options)


def statuses(items: list[Item], out: Path) -> list[str]:
    return [Notes(out).of(one)["status"] for one in items]


def test_what_is_done_is_skipped_and_a_failure_stops_nobody(tmp_path):
    world, items = World(), [item("a", 10), item("b", 5, code=1), item("c", 20)]
    assert world.call(items, tmp_path, 600) == ["a", "b", "c"]
    assert statuses(items, tmp_path) == ["done", "failed", "done"]
    assert world.call(items, tmp_path, 600) == []
    assert world.call(items, tmp_path, 600, retry=True) == ["b"]
    changed = [item("a", 11), *items[1:]]
    assert world.call(changed, tmp_path, 600) == ["a"], "another command is another item"


def test_it_stops_in_time_and_fills_the_end_with_what_can_be_continued(tmp_path):
    world = World()
    items = [item("first", 400), item("second", 100)]
    items += [item("long", 300, continues=True), item("more", 10, continues=True)]
    assert world.call(items, tmp_path, 540) == ["first", "long"], "there is no time for the second"
    assert world.time <= 540
    assert statuses(items, tmp_path) == ["done", "waiting", "stopped", "waiting"]
    assert world.call(items, tmp_path, 540) == ["second", "long", "more"]
    assert statuses(items, tmp_path) == ["done"] * 4


def test_what_took_too_long_waits_for_a_longer_call(tmp_path):
    world, items = World(), [item("slow", 900), item("quick", 100)]
    assert world.call(items, tmp_path, 540) == ["slow"]
    assert world.call(items, tmp_path, 540) == ["quick"], "it would not be finished this time either"
    assert world.call(items, tmp_path, 540) == []
    assert world.call(items, tmp_path, 1200) == ["slow"]
    assert statuses(items, tmp_path) == ["done", "done"]


def test_items_wait_for_their_data(tmp_path, capsys):
    world, items = World(), [item("needy", 1, data="mnist", continues=True), item("other", 1)]
    assert world.call(items, tmp_path, 540) == ["other"]
    assert "needy: waits for mnist.npz" in capsys.readouterr().out
    assert world.call(items, tmp_path, 540, data=("mnist",)) == ["needy"]


def test_processes_are_ended_and_started_again(tmp_path, monkeypatch):
    """A program that waits for a file, which is not there in the first call."""
    monkeypatch.setattr(queueing, "LEAST", 0)
    monkeypatch.setattr(queueing, "GRACE", 0.5)
    program = (
        "import os, pathlib, sys, time\n"
        "while not pathlib.Path(sys.argv[1], 'ready').exists(): time.sleep(0.05)\n"
        "print(os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'])\n"
    )
    items = [Item("half", ("-c", program, "{folder}"), continues=True), Item("wrong", ("-c", "1 / 0"), continues=True)]
    work(items[:1], tmp_path, (), queueing.now() + 1)
    assert statuses(items, tmp_path) == ["stopped", "waiting"]
    (items[0].folder(tmp_path) / "ready").touch()
    work(items, tmp_path, (), queueing.now() + 60)
    assert statuses(items, tmp_path) == ["done", "failed"]
    assert (tmp_path / "logs/half.txt").read_text() == "false\n"
    assert "ZeroDivisionError" in (tmp_path / "logs/wrong.txt").read_text()


def test_parts_of_a_file_come_call_after_call(tmp_path):
    arrays = {"train_images": np.random.default_rng(0).integers(0, 256, (30, 8, 8), np.uint8)}
    np.savez(tmp_path / "cifar10.npz", **arrays)
    content = (tmp_path / "cifar10.npz").read_bytes()
    carry, kept = tmp_path / "carry", tmp_path / "kept"
    for letters, part in {"ab": content[900:1800], "aa": content[:900], "ac": content[1800:]}.items():
        assert collect(None, kept, ["cifar10", "mnist"]) == []
        carry.mkdir()  # of a call
        (carry / f"cifar10.npz.part-{letters}").write_bytes(part)
        found = collect(carry, kept, ["cifar10", "mnist"])
        shutil.rmtree(carry)
    assert found == ["cifar10"]
    assert [path.name for path in kept.iterdir()] == ["cifar10.npz"]
    with np.load(kept / "cifar10.npz") as joined:
        np.testing.assert_array_equal(joined["train_images"], arrays["train_images"])


def finished(out: Path, speed: float, accuracy: float) -> Path:
    """A queue's folder with a benchmark, an experiment and two strategies of a table."""
    folder = out / "benchmarks/step"
    folder.mkdir(parents=True)
    rows = [
        {"what": "jaxdal", "runs": 2, "ms/step": 9.0, "images/s": speed},
        {"what": "torch", "runs": 1, "images/s": 10.0},
    ]
    where = {"device": "1 x NVIDIA H100 80GB HBM3 (gpu)", "tables": {"Steps": rows}}
    (folder / "step.json").write_text(json.dumps(where))
    (folder / "step.md").write_text("a table")
    notes = {"step": {"status": "done"}}
    for workdir in (out / "experiments/learning", out / "paper/mnist/margin", out / "paper/mnist/random"):
        config = {"pool": 8, "seeds": [0]}
        environment = {"devices": ["NVIDIA H100 80GB HBM3"], "jax": "0.0"}
        with journal.Journal.start(workdir, config, environment) as lines:
            for round_ in range(2):
                seconds = dict.fromkeys(journal.SECONDS, 2.0)
                line = {"seed": 0, "round": round_, "labelled": 2 + round_, "accuracy": accuracy}
                bought = {"picks": []} if round_ else {"initial": [0, 1], "picks": [5]}
                lines.append([{**line, **bought, "seconds": seconds, "runs_at_once": 1, "class_counts": [1, 1]}])
        (workdir / "inside" / "deep").mkdir(parents=True)
        (workdir / "inside" / "deep" / "weights.json").write_text("{}")
    notes |= {"learning": {"status": "done"}, "half": {"status": "stopped"}}
    (out / "experiments/half").mkdir()
    (out / "experiments/half/journal.jsonl").write_text("half")
    (out / "paper/reports").mkdir()
    (out / "paper/reports/table3.md").write_text("a table")
    (out / "state.json").write_text(json.dumps(notes))
    return out


def test_merging_and_comparing(tmp_path):
    """Small files of what is done, by device; new figures over committed ones."""
    repository, device = tmp_path / "repository", "nvidia_h100_80gb_hbm3"
    first = finished(tmp_path / "first", 100.0, 0.5)
    assert {row["committed"] for row in merging.compare(first, repository)} == {None}
    places = merging.merge(first, repository)
    kept = {f"benchmarks/results/{device}/step/step.{kind}" for kind in ("json", "md")}
    of_paper = ("mnist/margin/journal.jsonl", "mnist/random/journal.jsonl", "reports/table3.md")
    kept |= {
        f"experiments/results/{device}/{name}"
        for name in ("learning/journal.jsonl", *(f"paper/{one}" for one in of_paper))
    }
    assert {str(place) for place in places} == kept
    assert {str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file()} == kept
    rows = merging.compare(finished(tmp_path / "second", 150.0, 0.25), repository)
    ratios = {(row["item"], row["row"], row["figure"]): row["now / committed"] for row in rows}
    assert ratios["step", "jaxdal 2", "images/s"] == 1.5
    assert ratios["step", "torch 1", "images/s"] == 1
    assert ratios["paper/mnist/margin", "3", "accuracy %"] == 0.5
    assert ratios["paper/mnist/margin", "3", "train s"] == 1


def test_the_archive_is_small_and_enough_to_continue(tmp_path, capsys, monkeypatch):
    out = finished(tmp_path / "out", 100.0, 0.5)
    (out / "data").mkdir()
    (out / "data/mnist.npz").write_bytes(b"data")
    pack(out, tmp_path / "queue.tar.gz")
    with tarfile.open(tmp_path / "queue.tar.gz") as archive:
        names = set(archive.getnames())
    assert {"state.json", "benchmarks/step/step.json", "experiments/half/journal.jsonl"} <= names
    assert {"paper/mnist/margin/journal.jsonl", "paper/reports/table3.md"} <= names
    assert not any("inside" in name or "data" in name for name in names)
    monkeypatch.setattr(merging.merge, "__defaults__", (tmp_path / "repository",))
    on_gpu.main([f"--merge={tmp_path / 'queue.tar.gz'}"])
    assert "merged 6 files" in capsys.readouterr().out


def test_the_list_is_complete_and_in_order():
    items = on_gpu.everything()
    names = [one.name for one in items]
    assert len(set(names)) == len(names)
    assert names[0] == "portability"
    place = {
        name: names.index(name)
        for name in ("train_step", "select_coreset", "learning_mnist", "table3_mnist", "fig4_mnist", "table3_gtsrb")
    }
    assert list(place.values()) == sorted(place.values())
    benchmarks = Path(on_gpu.__file__).parent
    for path in benchmarks.glob("select_*.py"):
        assert path.stem in names, "its docstring has a command that ends in `# one GPU`"
    assert names[-1] == "mnist_fixmatch"
    for one in items:
        assert not any(part.startswith("--out=") and part != "--out={folder}" for part in one.command)


@pytest.mark.parametrize("name", ["train_step", "rounds"])
def test_options_of_the_list_are_known(name):
    """The commands in docstrings are commands: flags that a benchmark does not have would cost time on the card."""
    source = (Path(on_gpu.__file__).parent / f"{name}.py").read_text() + "--out"
    for one in on_gpu.everything():
        if one.name.startswith(name):
            for part in one.command[2:]:
                flag = part.split("=")[0].removeprefix("--").removeprefix("no-")
                assert f'"--{flag}"' in source or f'"{flag}"' in source, part
