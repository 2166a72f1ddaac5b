"""Whole experiments beside DeepAL's: what is handed to both, and what is read of both; a fake stands for each."""

import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from absl.testing import flagsaver

sys.path.insert(0, str(Path(__file__).parent.parent))  # the benchmarks are not part of the package

from benchmarks import deepal
from jaxdal import main

# Fails as torchvision would, if its files are not there; tells its accuracies among other things.
RIVAL = """
import struct, sys
head = open("data/MNIST/MNIST/raw/train-images-idx3-ubyte", "rb").read(16)
assert struct.unpack(">4i", head) == (2051, 30, 28, 28), head
print(sys.argv[1:])
for number, accuracy in enumerate((0.25, 0.5, 0.75)):
    print(f"Round {number}")
    print(f"Round {number} testing accuracy: {accuracy}")
"""


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        f"{part}_{what}": rng.integers(0, 10, (size, *shape), np.uint8)
        for part, size in (("train", 30), ("test", 7))
        for what, shape in (("images", (28, 28, 1)), ("labels", ()))
    }
    np.savez(tmp_path / "mnist.npz", **arrays, class_names=np.asarray(list("0123456789")))
    return arrays


def test_files_of_torchvision(images, tmp_path):
    deepal.keep_for_torchvision(images, tmp_path)
    raw = tmp_path / "data" / "MNIST" / "MNIST" / "raw"
    assert len(list(raw.iterdir())) == 4
    data = (raw / "t10k-images-idx3-ubyte").read_bytes()
    assert struct.unpack(">4i", data[:16]) == (2051, 7, 28, 28)
    np.testing.assert_array_equal(np.frombuffer(data[16:], np.uint8), images["test_images"].ravel())
    data = (raw / "train-labels-idx1-ubyte").read_bytes()
    assert struct.unpack(">2i", data[:8]) == (2049, 30)
    np.testing.assert_array_equal(np.frombuffer(data[8:], np.uint8), images["train_labels"])


def test_both_sides_and_their_ratio(images, tmp_path, monkeypatch, capsys):
    asked, real = [], deepal.timed

    def timed(command, folder, environ):
        """DeepAL's stand-in is run; of ours the flags are looked at."""
        if "jaxdal.main" not in command:
            _, _, told = real(command, folder, environ)
            return 6.0, 9.0, told
        with flagsaver.flagsaver():  # the flags are those of the process
            flags = main.FLAGS
            flags(command[command.index("jaxdal.main") :])
            assert (flags.model, flags.batch, flags.learning_rate, flags.epochs) == ("lenet", 64, 0.01, 10)
            assert (flags.mirror, flags.crop, flags.mean, flags.std) == (False, 0, ["0.1307"], ["0.3081"])
            asked.append((flags.strategy, flags.n_start, flags.n_query, flags.n_end))
            dataset, workdir = flags.dataset, Path(flags.workdir)
        with np.load(dataset.removeprefix("npz:")) as cut:
            assert len(cut["train_images"]) == 30
        lines = [{"config": {}}, *({"round": number, "accuracy": number / 4} for number in (1, 2, 3))]
        workdir.mkdir()
        (workdir / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return (2.0, 3.0, "") if workdir.name.endswith("warm") else (4.0, 5.0, "")

    monkeypatch.setattr(deepal, "timed", timed)
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone" / "demo.py").write_text(RIVAL)
    flags = [f"--rival={tmp_path}/clone", f"--data={tmp_path}/mnist.npz", "--n_init=4", "--n_query=5", "--rounds=2"]
    report = deepal.main([*flags, "--strategies=kmeans", f"--out={tmp_path}/out"])
    assert asked == [("kmeans(max_iter=300)", "4", "5", "14")] * 2
    assert report.where["rival"].startswith("DeepAL unknown commit; ")
    assert f"numpy {np.__version__}" in report.where["rival"]
    (rows,) = report.tables.values()
    assert [(row["what"], row["x ours"], row["x ours by cpu"]) for row in rows] == [
        ("jaxdal, cold", 2.0, rounded(5 / 3)), ("jaxdal, warm", 1.0, 1.0), ("DeepAL", 3.0, 3.0),
    ]  # fmt: skip
    assert {(row["first %"], row["last %"]) for row in rows} == {(25.0, 75.0)}
    assert json.loads((tmp_path / "out" / "deepal.json").read_text())["tables"] == report.tables
    (tmp_path / "clone" / "demo.py").write_text("raise SystemExit('no CUDA')")
    (rows,) = deepal.main([*flags, "--strategies=random,bald"]).tables.values()
    assert [row["strategy"] for row in rows] == ["random", "random", "bald", "bald"], "what fails costs its own row"
    told = capsys.readouterr().err
    assert "DeepAL, bald: RuntimeError" in told
    assert "no CUDA" in told
    with pytest.raises(RuntimeError, match="3 accuracies, not 4"):
        deepal.main([*flags[:-1], "--rounds=3", "--strategies=random"])


def test_a_failure_is_told(tmp_path):
    with pytest.raises(RuntimeError, match="so it ends"):
        deepal.timed([sys.executable, "-c", "raise SystemExit('so it ends')"], tmp_path, {})
    with pytest.raises(SystemExit):
        deepal.main(["--data=x.npz", "--strategies=adversarial_bim"])


def rounded(value):
    return pytest.approx(value, rel=1e-4)
