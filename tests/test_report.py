"""Tables and plots of journals in every state a journal can be in."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import journals
import numpy as np
import pytest
from PIL import Image

from jaxdal import report
from jaxdal.journal import SECONDS, Journal

POOL = 200


class Terminal(io.StringIO):
    """A file that takes itself for a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def header(seeds: list[int]) -> dict[str, Any]:
    config = {"dataset": "npz:/tmp/$my_data$", "strategy": "margin", "model": "lenet", "pool": POOL, "seeds": seeds}
    return {"format": 1, "config": config, "environment": {}}


def line(seed: int, round_: int, **changes: Any) -> dict[str, Any]:
    order = np.random.default_rng(seed).permutation(POOL).tolist()
    return {
        "seed": seed,
        "round": round_,
        "labelled": 10 + 10 * round_,
        "accuracy": 0.5 + 0.1 * round_ + 0.01 * seed,
        "accuracy_best": None,
        "seconds": dict.fromkeys(SECONDS, 0.5) | {"train": 1.0 + seed},
        "runs_at_once": 1,
        "picks": order[10 + 10 * round_ : 20 + 10 * round_],
        **({"initial": order[:10]} if round_ == 0 else {}),
        **changes,
    }


def dead(seed: int, round_: int) -> dict[str, Any]:
    return {"seed": seed, "round": round_, "labelled": 10 + 10 * round_, "diverged": {"step": 37}}


EMPTY: list[list[dict[str, Any]]] = []
PARTIAL = [[line(0, 0), line(1, 0), line(2, 0)]]
FULL = [[line(seed, round_) for seed in range(3)] for round_ in range(3)]
DIVERGED = [FULL[0], [line(0, 1), dead(1, 1), line(2, 1)], [line(0, 2), line(2, 2)]]
AT_ONCE = [[dead(0, 0), line(1, 0), line(2, 0)], [line(1, 1), line(2, 1)]]
NONE_LEFT = [[dead(seed, 0) for seed in range(3)]]
STATES = [EMPTY, PARTIAL, FULL, DIVERGED, AT_ONCE, NONE_LEFT]


def test_summary_is_the_mean_over_the_seeds_that_live() -> None:
    rows = report.summary(DIVERGED)
    assert [(row.round, row.labelled, row.runs) for row in rows] == [(0, 10, 3), (1, 20, 2), (2, 30, 2)]
    np.testing.assert_allclose([row.accuracy for row in rows], [0.51, 0.61, 0.71], rtol=1e-12)
    expected = [np.std([0.0, 0.01, 0.02], ddof=1), np.std([0.0, 0.02], ddof=1), np.std([0.0, 0.02], ddof=1)]
    np.testing.assert_allclose([row.deviation for row in rows], expected, rtol=1e-9)
    assert [row.seconds["train"] for row in rows] == [2.0, 2.0, 2.0]
    assert tuple(rows[0].seconds) == SECONDS
    assert report.summary(NONE_LEFT) == []


def test_summary_of_one_seed_has_no_deviation() -> None:
    (row,) = report.summary([[line(0, 0)]])
    assert row.deviation is None
    assert row.accuracy_best is None
    (row,) = report.summary([[line(0, 0, accuracy_best=0.6), line(1, 0, accuracy_best=0.8)]])
    assert row.accuracy_best == pytest.approx(0.7)
    (row,) = report.summary([[line(0, 0, accuracy_best=0.6), line(1, 0)]])
    assert row.accuracy_best is None


@pytest.mark.parametrize("groups", STATES)
def test_table_is_plain_and_aligned_where_no_terminal_reads_it(groups: list[Any], monkeypatch: Any) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    file = io.StringIO()
    report.print_table(header([0, 1, 2]), groups, file)
    text = file.getvalue()
    title, names, *rest = text.splitlines()
    assert title == "npz:/tmp/$my_data$ · margin · lenet · 3 seeds"
    assert names.split() == ["round", "labels", "accuracy", "s.d.", "best", *SECONDS]
    assert not any(ord(char) < 32 and char != "\n" for char in text)
    rows = rest[: len(report.summary(groups))]
    assert {len(row) for row in rows} <= {len(names)}
    for seed, round_ in [(one["seed"], one["round"]) for group in groups for one in group if "diverged" in one]:
        assert f"seed {seed} diverged in round {round_} at step 37" in text


def test_table_says_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_table(header([0, 1, 2]), FULL[:1])
    text = capsys.readouterr().out
    assert text.splitlines()[2].split() == ["0", "10", "51.00", "1.00", "-", "2.00", *["0.50"] * 4]
    assert "together" not in text
    report.print_table(header([0, 1]), [[line(0, 0, runs_at_once=2), line(1, 0, runs_at_once=2)]])
    assert "of 2 runs trained together" in capsys.readouterr().out
    report.print_table(header([0, 1]), EMPTY)
    assert "no finished round yet" in capsys.readouterr().out


def test_table_names_the_classes_that_are_known_least(capsys: pytest.CaptureFixture[str]) -> None:
    named = header([0, 1]) | {"class_names": ["stop", "yield", "bend", "never tested", "bump"]}
    shares = [[0.5, 0.75, 0.25, None, 1.0], [0.25, 0.5, 0.5, None, 1.0]]
    last = [line(seed, 1, per_class_accuracy=share) for seed, share in enumerate(shares)]
    groups = [[line(seed, 0, per_class_accuracy=[0.0] * 5) for seed in range(2)], last]
    report.print_table(named, groups)
    told = "lowest accuracy in the last round: bend 37.50, stop 37.50, yield 62.50"
    assert capsys.readouterr().out.splitlines()[-1] == told
    report.print_table(header([0, 1]), groups)
    told = "lowest accuracy in the last round: class 0 37.50, class 2 37.50, class 1 62.50"
    assert capsys.readouterr().out.splitlines()[-1] == told
    for head, rounds in ((header([0, 1]), FULL), (named, FULL), (named, NONE_LEFT), (named, EMPTY)):
        report.print_table(head, rounds)
        assert "lowest" not in capsys.readouterr().out


@pytest.mark.parametrize("groups", STATES)
def test_table_on_a_terminal(groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    file = Terminal()
    one = header([0, 1, 2])
    one["config"]["dataset"] = "npz:[bold]x[/nonsense]"  # a path is not markup
    report.print_table(one, groups, file)
    text = file.getvalue()
    assert "npz:[bold]x[/nonsense]" in text
    assert "compile" in text  # nothing cut off at 80 columns
    assert "…" not in text


@pytest.mark.parametrize("groups", [*STATES, [[line(0, 0)]], [[line(0, 0)], [line(0, 1)]]])
def test_plot_is_a_picture_of_the_promised_size(groups: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "accuracy.png"
    report.plot(header([0, 1, 2]), groups, path)
    with Image.open(path) as image:
        assert image.size == (1200, 800)
        assert image.format == "PNG"
    assert list(tmp_path.iterdir()) == [path]


def test_plot_draws_the_numbers() -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    report.draw(axes, header([0, 1, 2]), DIVERGED)
    drawn = {str(curve.get_label()): curve for curve in axes.lines}
    mean = drawn["mean of 3 seeds"]
    np.testing.assert_allclose(np.asarray(mean.get_xdata(), float), [10, 20, 30])
    np.testing.assert_allclose(np.asarray(mean.get_ydata(), float), [0.51, 0.61, 0.71])
    cross = drawn["seed 1 diverged in round 1, step 37"]
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (10, 0.51)
    band = axes.collections[0].get_paths()[0].vertices
    deviation = np.std([0.0, 0.01, 0.02], ddof=1)
    assert band[:, 1].min() == pytest.approx(0.51 - deviation)
    legend = axes.get_legend()
    assert legend is not None
    assert len([text for text in legend.get_texts() if "each seed" in text.get_text()]) == 1
    (top,) = axes.child_axes
    axes.figure.draw_without_rendering()
    np.testing.assert_allclose(top.get_xlim(), np.asarray(axes.get_xlim()) / POOL)


def test_plot_has_no_band_where_one_seed_is_left() -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    report.draw(axes, header([0, 1]), [[line(0, 0), line(1, 0)], [line(0, 1), line(1, 1)], [line(0, 2), dead(1, 2)]])
    corners = np.concatenate([path.vertices for path in axes.collections[0].get_paths()])
    assert corners[:, 0].max() == 20, "its last round is at 30 labels"


def test_cold_start_loads_no_plotting_library() -> None:
    program = "import sys, jaxdal.report; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_command_prints_and_draws_one_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Journal.start(tmp_path / "a", header([0, 1, 2])["config"], {}) as book:
        for group in DIVERGED:
            book.append(group)
    assert report.main([str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out.count("3 seeds") == 1
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"accuracy.png", "journal.jsonl"}


def test_command_compares_where_there_are_journals_below(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journals.write(tmp_path, {0: [0.5, 0.6, 0.7, 0.8]})
    journals.write(tmp_path / "margin", {0: [0.5, 0.7, 0.8, 0.9]}, strategy="margin")
    assert report.main([str(tmp_path)]) == 0
    assert "margin" in capsys.readouterr().out
    assert (tmp_path / "report.html").exists()
    assert not (tmp_path / "accuracy.png").exists()
    assert report.main([str(tmp_path / "margin" / "journal.jsonl")]) == 0
    assert (tmp_path / "margin" / "accuracy.png").exists()


def test_command_refuses_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        report.main([])
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err
    for folder in (tmp_path, tmp_path / "absent"):
        assert report.main([str(folder)]) == 2
        assert capsys.readouterr().err == f"{folder} has no journal.jsonl in or below it\n"
    (tmp_path / "journal.jsonl").write_text(json.dumps({"format": 2, "config": {}, "environment": {}}) + "\n")
    assert report.main([str(tmp_path)]) == 2
    assert "format 2" in capsys.readouterr().err
