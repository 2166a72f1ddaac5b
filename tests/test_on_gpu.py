"""The queue for a rented accelerator, with a clock of its own and small programs: not what it measures."""

import json
import os
import shutil
import sys
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # the benchmarks are not part of the package

from benchmarks import merging, on_gpu, queueing
from benchmarks.queueing import Item, Notes, collect, pack, work
from experiments import launchers
from jaxdal import environment, journal


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


def test_what_another_device_or_other_code_did_is_not_done(tmp_path):
    world, items = World(), [item("a", 10)]
    for here in (
        {"device": "H100", "source": "1"},
        {"device": "H200", "source": "1"},
        {"device": "H200", "source": "2"},
    ):
        assert world.call(items, tmp_path, 600, here=here) == ["a"]
        assert world.call(items, tmp_path, 600, here=here) == []
    assert Notes(tmp_path, {"device": "H100"}).of(items[0])["status"] == "waiting"
    assert Notes(tmp_path).of(items[0])["status"] == "done", "a list of what was done asks for no device"


def test_an_item_may_need_more_or_less_time_than_others(tmp_path):
    world = World()
    items = [item("long", 1, least=400), item("usual", 1), item("short", 1, least=50)]
    assert world.call(items, tmp_path, 100) == ["short"]
    assert world.call(items, tmp_path, 300) == ["usual"]
    assert world.call(items, tmp_path, 420) == ["long"]


def answer(device: str, checkpoints: str | None = None, code: int = 0):
    """A stand-in for the process that asks JAX; -> of `queueing.run`."""

    def run(command, log: Path, seconds: float) -> int:
        log.write_text("what it printed")
        if code == 0:
            told = {"device": device, "versions": "jax 0", "commit": "abc", "checkpoints": checkpoints}
            Path(command[-1]).write_text(json.dumps(told))
        return code

    return run


def test_nothing_is_started_where_jax_finds_no_accelerator(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(on_gpu, "work", lambda *_, **__: pytest.fail("started"))
    for given, reason in [(answer("1 x cpu (cpu)"), "(cpu)"), (answer("", code=1), "what it printed")]:
        monkeypatch.setattr(on_gpu, "run", given)
        with pytest.raises(SystemExit) as stopped:
            on_gpu.main([f"--out={tmp_path}"])
        assert stopped.value.code == 2
        assert reason in capsys.readouterr().out


def test_without_checkpoints_there_are_no_experiments(tmp_path, monkeypatch):
    """And without data, a call that starts nothing has nothing to compare."""
    for trouble in (None, "ValueError: Orbax"):
        monkeypatch.setattr(on_gpu, "run", answer("1 x NVIDIA H100 80GB HBM3 (gpu)", trouble))
        started = []
        monkeypatch.setattr(on_gpu, "work", lambda items, *_, started=started, **__: started.extend(items))
        on_gpu.main([f"--out={tmp_path}", "--only=learning_mnist,portability"])
        names = [one.name for one in started]
        assert names == (["portability"] if trouble else ["portability", "learning_mnist"])


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


def test_a_benchmark_that_keeps_its_rounds_goes_on(tmp_path):
    world, items = World(), [item("slow", 900, keeps=True)]
    assert world.call(items, tmp_path, 540) == ["slow"]
    assert world.call(items, tmp_path, 100) == [], "but with time enough to do something"
    assert world.call(items, tmp_path, 540) == ["slow"]
    assert statuses(items, tmp_path) == ["stopped"]
    listed = {one.name: one for one in on_gpu.benchmarks()}
    assert [name for name, one in listed.items() if one.keeps] == ["rounds", "rounds_2"]
    kept = items[0].folder(tmp_path) / "unfinished/digest/margin"
    kept.mkdir(parents=True)
    for name in ("journal.jsonl", "memory_0.npz", "weights.bin"):
        (kept / name).touch()
    assert [path.name for path in queueing.small_files(tmp_path)][:2] == ["journal.jsonl", "memory_0.npz"]
    assert kept / "weights.bin" not in queueing.small_files(tmp_path)


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


@pytest.mark.parametrize(("visible", "used"), [(None, "0"), ("3,5", "3"), ("GPU-8932f937", "GPU-8932f937"), ("", "")])
def test_of_several_gpus_one_is_measured(tmp_path, monkeypatch, visible, used):
    """What is measured is kept under the name of the card, whose figures are those of one."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    log = tmp_path / "logs" / "log.txt"
    log.parent.mkdir()
    assert queueing.run(("-c", "import os; print(repr(os.environ['CUDA_VISIBLE_DEVICES']))"), log, 60) == 0
    assert log.read_text() == f"{used!r}\n"


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


def test_what_was_stopped_is_merged_as_far_as_it_is(tmp_path):
    out = finished(tmp_path / "out", 100.0, 0.5)
    (out / "state.json").unlink()  # of a queue that was killed before it wrote any
    assert len(merging.merge(out, tmp_path / "repository")) == 6


def test_compiled_programs_come_in_parts_the_newest_first(tmp_path, monkeypatch):
    monkeypatch.setattr(queueing, "PART", 12_000)
    out, archive = tmp_path / "out", tmp_path / "back/queue.tar.gz"
    (out / "programs").mkdir(parents=True)
    for age, (name, size) in enumerate({"b": 3000, "a": 3000, "huge": 20_000, **dict.fromkeys("cdefg", 4000)}.items()):
        (out / f"programs/{name}-cache").write_bytes(bytes(size))
        os.utime(out / f"programs/{name}-cache", (1000 - age, 1000 - age))
    (out / "programs/a-atime").write_bytes(b"")
    pack(out, archive)
    names = []
    for path in sorted(archive.parent.glob("programs-*.tar")):
        with tarfile.open(path) as part:
            names.append([Path(name).name[0] for name in part.getnames()])
            part.extractall(tmp_path / "again", filter="data")
    assert names == [["b", "a"], ["c"], ["d"]], "three parts, and what is too large in none"
    assert (tmp_path / "again/programs/a-cache").read_bytes() == bytes(3000)


def test_a_copy_of_a_checkout_can_be_told_its_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXDAL_COMMIT", "abc")
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "jaxdal/environment.py"))
    assert environment.describe(jax.devices())["commit"] == "abc"
    monkeypatch.delenv("JAXDAL_COMMIT")
    assert environment.describe(jax.devices())["commit"] is None
    assert launchers.CARRIED.fullmatch("JAXDAL_COMMIT"), "by a worker of Ray as well"
    assert not launchers.CARRIED.fullmatch("JAXDAL_LIFELINE"), "which is of one process and its child"


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
        for name in (
            "train_step", "train_ssl_step", "select_coreset", "select_kmeans", "learning_mnist", "rounds",
            "select_adversarial_bim", "learning_cifar10_end", "profile_step", "streaming", "table3_mnist",
            "fig4_mnist", "table3_gtsrb",
        )
    }  # fmt: skip
    assert list(place.values()) == sorted(place.values())
    benchmarks = Path(on_gpu.__file__).parent
    for path in benchmarks.glob("select_*.py"):
        assert path.stem in names, "its docstring has a command that ends in `# one GPU`"
    assert names[-1] == "mnist_fixmatch"
    for one in items:
        assert not any(part.startswith("--out=") and part != "--out={folder}" for part in one.command)


def test_toy_queue(tmp_path, capsys):
    """The whole way in small: ask for a device, run a benchmark, pack."""
    archive = tmp_path / "queue.tar.gz"
    on_gpu.main(["--toy", "--only=select_coreset", f"--out={tmp_path / 'out'}", f"--archive={archive}"])
    told = capsys.readouterr().out
    assert "select_coreset: done after" in told
    assert "| cpu" in told, "new figures beside the committed ones"
    with tarfile.open(archive) as small:
        assert {"device.json", "state.json", "benchmarks/select_coreset/select_coreset.json"} <= set(small.getnames())
    with tarfile.open(tmp_path / "programs-0.tar") as programs:
        assert any(name.startswith("programs/jit_select") for name in programs.getnames())
