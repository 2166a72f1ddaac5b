"""The command: a small one that works, and one sentence and exit code 2 for every input that cannot work."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np
import pytest
from absl import logging
from absl.testing import flagsaver
from compiling import STRICT, heard
from conftest import CACHE
from PIL import Image

from jaxdal import Dataset, InputError, OutOfMemoryError, cluster, environment, journal, loop, main
from jaxdal.data import local
from jaxdal.engine import Engine

SMALL = ["--seeds=4,2-2", "--n_start=40", "--n_query=10", "--n_end=50", "--epochs=2", "--batch=16"]


class Ended(NamedTuple):
    """How a command ended."""

    code: Any
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command without a process of its own, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(CACHE))  # or the command chooses the user's own
    monkeypatch.setattr(environment, "_commit", lambda: "somebody may commit while tests run")

    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        with flagsaver.flagsaver():
            try:
                code: Any = main.main(main._parse(["main", *arguments]))
            except SystemExit as end:
                code = end.code
        return Ended(code, *capsys.readouterr())

    return run


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(command: Command, *arguments: str) -> str:
    """The sentence of a command that is refused before anything is compiled or written."""
    before = everything(Path())
    heard.clear()
    ended = command(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert re.fullmatch(r"jaxdal: .+\n", ended.err), f"one line, not {ended.err!r}"
    assert not heard
    assert everything(Path()) == before
    return ended.err.removeprefix("jaxdal: ").rstrip("\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        # names, with the nearest match
        ("--dataset=digit", "unknown dataset 'digit': did you mean digits?"),
        ("--dataset=npz:", "unknown dataset 'npz:'"),
        ("--dataset=npz:nowhere.npz", "there is no file nowhere.npz"),
        ("--strategy=margn", "unknown strategy 'margn': did you mean 'margin'?"),
        ("--strategy=margin(power=2)", "strategy 'margin(power=2)': got an unexpected keyword argument 'power'"),
        ("--strategy=__import__('os').remove('x')", "is neither a name nor a call"),
        ("--trainer=supervized", "unknown trainer 'supervized': did you mean 'supervised'?"),
        ("--model=lenett", "'lenett'"),
        ("--preset=papr", "unknown preset 'papr': did you mean 'paper'?"),
        ("--precision=bf17", "unknown precision 'bf17': did you mean 'bf16'?"),
        ("--epoch=3", "Unknown command line flag 'epoch'. Did you mean: epochs ?"),
        ("margin", "unexpected argument 'margin'"),
        ("--dataset=folder:nowhere", "nowhere does not exist"),
        ("--dataset=folder:~nouser/photos", "~nouser/photos does not exist"),
        ("--dataset=npz:~nouser/own.npz", "there is no file ~nouser/own.npz"),
        ("--dataset=~nouser/own.npz", "unknown dataset '~nouser/own.npz': did you mean npz:~nouser/own.npz?"),
        ("--dataset=foldr:x", "unknown dataset 'foldr:x': did you mean folder:PATH?"),
        ("--dataset=own/own.npz", "unknown dataset 'own/own.npz': did you mean npz:own/own.npz?"),
        ("--dataset=..", "unknown dataset '..': did you mean folder:..?"),
        ("--image_size=8", "--image_size is for folder:PATH and tfds:NAME, not for digits"),
        ("--dataset=folder:x --image_size=0", "--image_size=0 is less than 1"),
        ("--skip_broken", "--skip_broken is for folder:PATH and tfds:NAME, not for digits"),
        ("--test_share=10%", "--test_share is for folder:PATH and tfds:NAME, not for digits"),
        # budgets; digits have 1438 training images
        ("--n_start=30% --n_end=20%", "--n_start=30% (431 images) is beyond --n_end=20% (287 images)"),
        ("--n_end=1439", "--n_end=1439 is 1439 images, more than the pool of 1438"),
        ("--n_end=100.1%", "more than the pool of 1438"),
        ("--n_start=0", "--n_start=0 is 0 images of a pool of 1438: at least one is needed"),
        ("--n_query=0", "--n_query=0 is 0 images"),
        ("--n_query=-5", "--n_query=-5 is -5 images"),
        ("--n_query=0.01%", "--n_query=0.01% is 0 images"),
        ("--n_start=ten", "--n_start=ten is neither a count such as 500 nor a share such as 10%"),
        ("--n_end=nan%", "--n_end=nan% is neither"),
        ("--n_query=60%", "--n_query=60% (862 images) does not fit between --n_start=5% (71) and --n_end=25% (359)"),
        # numbers
        ("--seeds=1,2,1", "--seeds: 1 is there twice"),
        ("--seeds=1,b", "--seeds=1,b are not whole numbers with commas between them, or ranges such as 0-4"),
        ("--seeds=0,4-2", "--seeds=0,4-2: no seed is in 4-2"),
        ("--seeds=0,,1", "are not whole numbers"),
        ("--seeds=1.5", "are not whole numbers"),
        ("--seeds=-1", "--seeds: -1 is not in 0..4294967295"),
        ("--seeds=4294967296", "4294967296 is not in"),
        ("--seeds=", "--seeds names no seed"),
        ("--epochs=0", "--epochs=0 is less than 1"),
        ("--epochs=two", "--epochs=two: invalid literal"),
        ("--batch=1", "--batch=1 is less than 2"),
        ("--eval_every=-1", "--eval_every=-1 is less than 0"),
        ("--pack=-1", "--pack=-1 is less than 0"),
        ("--learning_rate=0", "--learning_rate=0.0 is not a positive number"),
        ("--learning_rate=-0.1", "--learning_rate=-0.1 is not a positive number"),
        ("--learning_rate=nan", "--learning_rate=nan is not a positive number"),
        ("--crop=-1", "--crop=-1 is less than 0"),
        ("--mean=0.1,0.2", "--mean=0.1,0.2: the images have 1 channels"),
        ("--milestones=0.8,0.5", "--milestones=0.8,0.5 are not ascending shares of the epochs"),
        ("--mean=130", "--mean=130.0 is not between 0 and 1: pixels are scaled to that range"),
        ("--std=0", "--std=0.0 is not between 0 and 1"),
        ("--std=nan", "--std=nan is not between 0 and 1"),
        ("--std=wide", "--std=wide are not numbers"),
        ("--pool_bytes=100", "the 92,032 bytes of the training images do not fit into --pool_bytes=100, nor"),
        ("--pool_bytes=92031 --strategy=mcadl", "and strategy 'mcadl' looks at all of them at once"),
        ("--pool_bytes=92031 --strategy=vaal", "and strategy 'vaal' looks at all of them at once"),
        ("--workdir=", "--workdir= names no folder"),
        ("--extend=", "--extend= names no folder"),
        ("--extend=nowhere", "--extend=nowhere: nowhere/journal.jsonl cannot be read: No such file or directory."),
        ("--checkpoint_seconds=-1", "--checkpoint_seconds=-1.0 is not a number of seconds"),
        ("--checkpoint_seconds=nan", "--checkpoint_seconds=nan is not a number of seconds"),
    ],
)
def test_input_that_is_refused(command: Command, arguments: str, told: str) -> None:
    assert told in refusal(command, *arguments.split())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"train_images": np.zeros((40, 8, 8))}, "training images must be uint8 with values 0..255, got float64"),
        ({"train_images": np.zeros((40, 64), np.uint8)}, "training images must have the shape [N, height, width"),
        ({"test_images": np.zeros((8, 9, 9), np.uint8)}, "are [8, 8, 1] but test images are [9, 9, 1]"),
        ({"train_labels": np.arange(39) % 4}, "there are 40 training images but 39 training labels"),
        ({"train_labels": np.arange(40) % 4 - 1}, "training labels must lie in 0..3 for 4 classes, found -1"),
        ({"test_labels": np.full(8, 4)}, "test labels must lie in 0..3 for 4 classes, found 4"),
        ({"test_labels": np.zeros(8)}, "test labels must be integers, got float64"),
        ({"test_labels": np.asarray([None] * 8)}, "holds pickled Python objects, which are never read"),
    ],
)
def test_arrays_that_are_refused(command: Command, change: dict[str, np.ndarray], told: str) -> None:
    arrays = {
        "train_images": np.zeros((40, 8, 8), np.uint8), "train_labels": np.arange(40) % 4,
        "test_images": np.zeros((8, 8, 8), np.uint8), "test_labels": np.arange(8) % 4,
        "class_names": np.asarray(["north", "east", "south", "west"]),
    }  # fmt: skip
    np.savez("own.npz", **{**arrays, **change})
    assert told in refusal(command, "--dataset=npz:own.npz")


class Finished(NamedTuple):
    """A command that ran in a process of its own."""

    folder: Path  # with blobs.npz, and the workdir "out"
    process: "subprocess.CompletedProcess[str]"


def save_npz(path: str | Path, images: Dataset) -> None:
    arrays = dict(zip(local.KEYS, (images.train_x, images.train_y, images.test_x, images.test_y), strict=True))
    np.savez(path, **arrays)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, blobs: Dataset) -> Finished:
    """What a small command leaves behind when a user starts it, without the settings of these tests."""
    folder = tmp_path_factory.mktemp("command")
    save_npz(folder / "blobs.npz", blobs)
    own = ("XLA_FLAGS", "JAX_PLATFORMS", "JAX_DISABLE_MOST_OPTIMIZATIONS")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    environment |= {"JAX_COMPILATION_CACHE_DIR": str(CACHE), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, *STRICT, "-m", "jaxdal.main", "--dataset=npz:blobs.npz", "--workdir=out", *SMALL]
    process = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    return Finished(folder, process)


def test_a_small_command_works(finished: Finished) -> None:
    _, out, err = process = Ended(finished.process.returncode, finished.process.stdout, finished.process.stderr)
    assert process.code == 0, err
    header, groups = journal.read(finished.folder / "out")
    assert header["config"]["seeds"] == [4, 2]
    assert [[line["labelled"] for line in group] for group in groups] == [[40, 40], [50, 50]]

    *table, path, picture = out.splitlines()
    assert (path, picture) == ("out/journal.jsonl", "out/accuracy.png")
    assert [line.split()[:2] for line in table[1:4]] == [["round", "labels"], ["0", "40"], ["1", "50"]]
    mean = 100 * sum(line["accuracy"] for line in groups[1]) / 2
    assert table[3].split()[2] == f"{mean:.2f}"
    with Image.open(finished.folder / picture) as image:
        assert (image.format, image.size) == ("PNG", (1200, 800))
        assert len(image.convert("L").getcolors()) > 20, "something is drawn"

    # Not a terminal: plain lines, one per round at least, and nothing that a library has to say about itself.
    assert not re.search(r"[^\x20-\x7e\n·±]", out + err)
    assert [line.partition(",")[0] for line in err.splitlines() if "accuracy" in line] == ["round 0/1", "round 1/1"]
    introduction, *rounds = [line for line in err.splitlines() if not re.match(r"W\d{4} ", line)]
    assert introduction.startswith("npz:blobs.npz: 200 training and 80 test images of 8 x 8 x 1, 4 classes; trained")
    assert all(line.startswith("round ") for line in rounds), err


def test_libraries_talk_only_if_asked_to() -> None:
    with flagsaver.flagsaver():
        main._parse(["main"])
        assert main.FLAGS.verbosity == logging.WARNING
        assert not main.FLAGS["verbosity"].using_default_value, "app.run would make it INFO"
    with flagsaver.flagsaver():
        main._parse(["main", "--verbosity=1"])
        assert main.FLAGS.verbosity == logging.DEBUG


@pytest.fixture
def again(command: Command, finished: Finished) -> Command:
    """The same command with further flags, in a copy of the folder."""
    shutil.copytree(finished.folder, Path(), dirs_exist_ok=True)
    return lambda *more: command("--dataset=npz:blobs.npz", "--workdir=out", *SMALL, *more)


def test_another_configuration_is_refused(again: Command) -> None:
    told = refusal(again, "--epochs=3", "--strategy=entropy")
    assert "these keys differ:" in told
    assert "epochs (2 there, 3 now)" in told
    assert 'strategy ("badge" there, "entropy" now)' in told
    assert "batch" not in told
    told = refusal(again, "--seeds=4,2,7")
    assert "seeds ([4,2] there, [4,2,7] now)" in told
    for n_end, way in (("40", "or give those of there"), ("60", "with --extend=DIR it goes on from there")):
        assert refusal(again, f"--n_end={n_end}").endswith(f"{n_end} now). Try another --workdir; {way}.")


def test_other_images_are_refused(again: Command, blobs: Dataset) -> None:
    save_npz("blobs.npz", blobs._replace(train_x=255 - blobs.train_x))
    assert "fingerprint (" in refusal(again)


def test_a_damaged_journal_is_refused(again: Command) -> None:
    path = Path("out") / journal.NAME
    header, first, *rest = whole = path.read_bytes().splitlines(keepends=True)
    for damaged, told in [
        ([header, first[:50] + b"\n", *rest], "line 2 is damaged"),
        ([header, first.replace(b'"picks":[', b'"picks":[999,'), *rest], "line 2 has picks outside the pool of 200"),
        ([header, *rest], "line 3 is of round 1 where round 0 belongs"),
        ([b"something else\n", *whole], "does not begin with the first line of a journal"),
    ]:
        path.write_bytes(b"".join(damaged))
        assert told in refusal(again)


def test_a_workdir_that_cannot_be_one_is_refused(command: Command) -> None:
    Path("file").write_text("mine")
    assert "file/journal.jsonl cannot be opened for writing" in refusal(command, "--workdir=file")


def test_a_workdir_that_is_in_use_is_refused(again: Command) -> None:
    header, _ = journal.read(Path("out"))
    with journal.Journal.start(Path("out"), header["config"], header["environment"]):
        assert "is in use by another process" in refusal(again)


def test_a_loss_that_is_not_finite_is_named_and_stays_on_record(command: Command, blobs: Dataset) -> None:
    save_npz("blobs.npz", blobs)
    arguments = ["--dataset=npz:blobs.npz", *SMALL, "--learning_rate=1e30"]
    ended = command(*arguments)
    assert ended.code == 2
    (workdir,) = Path("runs").iterdir()
    _, groups = journal.read(workdir)
    stopped = journal.diverged(groups)
    assert stopped.keys() == {4, 2}
    assert len(groups) == 1, "there is nobody to play round 1"
    named = ", ".join(f"seed {seed} in round 0 at step {stopped[seed][1]}" for seed in (4, 2))
    assert ended.err.splitlines()[-1] == f"jaxdal: the loss was not finite: {named}"
    assert (workdir / "accuracy.png").exists()

    kept = (workdir / journal.NAME).read_bytes()
    heard.clear()
    assert command(*arguments).code == 2
    assert not heard, "nothing is trained"
    assert (workdir / journal.NAME).read_bytes() == kept


def test_the_other_runs_of_a_diverged_one_are_said_to_be_complete(again: Command) -> None:
    """The journal of a pack in which one seed stopped in its last round (test_resume.py makes a real one)."""
    path = Path("out") / journal.NAME
    *lines, _last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines) + b'{"seed":2,"round":1,"labelled":50,"diverged":{"step":7}}\n')
    ended = again()
    assert ended.code == 2
    assert ended.err == "jaxdal: the loss was not finite: seed 2 in round 1 at step 7; the other runs are complete\n"


@pytest.mark.parametrize("words", ["jaxdal.main --help", "jaxdal.report out --out=told"])
def test_whoever_reads_the_output_may_stop(finished: Finished, words: str) -> None:
    """As `| head` does: all that is to be written is written, nothing is said, and it is no failure."""
    line = f"set -o pipefail; PYTHONUNBUFFERED=1 {sys.executable} -m {words} | true"  # flushed before all is said
    done = subprocess.run(["bash", "-c", line], cwd=finished.folder, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (finished.folder / "told" / "report.html").exists() == ("report" in words)


def test_ctrl_c_is_one_sentence(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "run_together", mock.Mock(side_effect=KeyboardInterrupt))
    assert command() == Ended(130, "", "jaxdal: stopped; start the same command again: it continues\n")


def test_exhausted_memory_is_one_sentence(command: Command, blobs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    save_npz("blobs.npz", blobs)
    full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes.\nand a page more")
    monkeypatch.setattr(Engine, "advance", mock.Mock(side_effect=full))
    for count, batch in enumerate([[], ["--batch=8"]], 1):  # which it says, and that there will be another folder
        ended = command("--dataset=npz:blobs.npz", "--model=tiny", *SMALL, *batch)
        assert (ended.code, ended.out) == (2, "")
        told = ended.err.splitlines()[-1]
        assert told.startswith("jaxdal: a device ran out of memory while training one run: RESOURCE_EXHAUSTED: Out of ")
        assert " allocating 7 bytes. Try a smaller --batch: that is another experiment" in told
        assert "Traceback" not in ended.err
        assert len(list(Path("runs").iterdir())) == count


def test_exhausted_memory_of_one_process_of_several(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends at once, as for any error: the others may wait for it."""
    monkeypatch.setenv(cluster.LIFELINE, "0")
    for name in ("_follow_parent", "_connect"):
        monkeypatch.setattr(cluster, name, mock.Mock())
    monkeypatch.setattr(os, "_exit", mock.Mock(side_effect=sys.exit))
    monkeypatch.setattr(loop, "run_together", mock.Mock(side_effect=OutOfMemoryError("a device ran out of memory.")))
    assert command("--distributed") == Ended(2, "", "jaxdal: a device ran out of memory.\n")
    os._exit.assert_called_once_with(2)


def test_python_callers_get_the_same_sentence(blobs: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'margin'"):
        loop.run(blobs, "margn", workdir=tmp_path / "out")
    assert not (tmp_path / "out").exists()
