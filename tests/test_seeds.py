"""Methods that have finished different seeds, five and three of them: what tables, tests and figures make of it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from journals import judged, write
from planned import write as publish

from experiments import case, command, drawing, fig2, fig7, table3, table4, table5
from experiments.plans import PLANS, Options
from jaxdal import page, report, verdicts
from jaxdal.comparison import read

FIVE = {seed: [0.5, 0.6, 0.7, 0.8 + 0.01 * seed] for seed in range(5)}
ABOVE = {seed: [one + 0.02 + 0.001 * seed**2 for one in curve] for seed, curve in FIVE.items()}
THREE = {seed: [one + 0.01 * seed for one in FIVE[seed]] for seed in range(3)}


def test_five_and_three_seeds_beside_each_other(tmp_path: Path) -> None:
    """Three seeds tell less than five, and means over all of a method's seeds do not pair."""
    for name, curves in (("random", FIVE), ("badge", ABOVE), ("margin", THREE)):
        write(tmp_path / name, curves, strategy=name)
    (verdict,) = judged(tmp_path)
    assert verdict.table["pairs"].dropna().to_dict() == {"badge": 5, "margin": 3}
    shown = verdicts.verdict_table(verdict)
    assert {row[0]: row[1] for row in shown.rows} == {"badge": "5/5", "margin": "3/5", "random": "5/5"}
    notes = " ".join(shown.notes)
    assert "n = 3 to 5 paired seeds. A paired t-test with n = 3 finds an effect of 3.26 standard deviations in" in notes
    assert "with n = 5 one of 1.68, before correction: the power is low" in notes
    assert "With n = 3 or 5, Wilcoxon's test cannot give a p below 0.25 or 0.0625" in notes
    assert "Methods have finished different seeds" in notes
    assert "Without a rank, since a seed is missing: margin." in notes
    told = "Finished seeds are not the same. random, badge: 0, 1, 2, 3, 4; margin: 0, 1, 2."
    assert told in verdicts.accuracy_table(verdict.experiment).notes
    told_alone = "Runs that were alone are not of the same seeds. random, badge: 0, 1, 2, 3, 4; margin: 0, 1, 2. Ratios"
    assert any(note.startswith(told_alone) for note in verdicts.cost_table(verdict).notes)
    assert f"{told} Of fewer seeds in common, less is significant." in page.render(read([tmp_path]), [verdict], "x")


def test_more_seeds_of_a_method_than_of_random_sampling(tmp_path: Path) -> None:
    """The n of an API is that of its pairs."""
    random = {seed: FIVE[seed] for seed in range(3)}
    for name, curves in (("random", random), ("badge", ABOVE), ("margin", {0: ABOVE[0]})):
        write(tmp_path / name, curves, strategy=name)
    (verdict,) = judged(tmp_path)
    shown = verdicts.verdict_table(verdict)
    assert {row[0]: row[1] for row in shown.rows} == {"badge": "5/5, 3 paired", "margin": "1/5", "random": "3/5"}
    assert "n = 1 to 3 paired seeds. A paired t-test with n = 3 finds an effect of 3.26" in " ".join(shown.notes)
    assert "n = 5, 3 paired<" in page.render(read([tmp_path]), [verdict], "x")
    told = "API, tests, labels saved and ranks are of those that random sampling has finished too, final accuracy"
    assert told in " ".join(shown.notes)
    assert verdict.ranks.blocks == 3


def test_who_has_no_rank_is_named(tmp_path: Path) -> None:
    """Margin lacks an experiment, badge a seed of the second one; and in the third, random sampling lacks all."""
    for name, curves, epochs in (
        ("random", FIVE, 5), ("badge", ABOVE, 5), ("margin", FIVE, 5), ("random", FIVE, 6), ("badge", THREE, 6),
        ("random", {0: FIVE[0][:2]}, 7), ("badge", {0: FIVE[0]}, 7),
    ):  # fmt: skip
        write(tmp_path / f"{name} {epochs}", curves, strategy=name, epochs=epochs)
    found = judged(tmp_path)
    text = page.render(read([tmp_path]), found, "x")
    assert "Left out, since an experiment or a seed is missing: badge, margin." in text
    notes = [" ".join(verdicts.verdict_table(one).notes) for one in found]
    assert sorted(one.partition("Without a rank, since a seed is missing: ")[2] for one in notes) == [
        "", "badge.", "random, badge."
    ]  # fmt: skip


def test_different_seeds_and_no_random_sampling(tmp_path: Path) -> None:
    for name, curves in (("badge", FIVE), ("margin", THREE)):
        write(tmp_path / name, curves, strategy=name)
    (verdict,) = judged(tmp_path)
    (told,) = (note for note in verdicts.verdict_table(verdict).notes if "different seeds" in note)
    assert told.startswith("Methods have finished different seeds: final accuracy, balanced and AUBC are of all of a ")


def test_seconds_of_as_many_but_different_seeds_do_not_pair(tmp_path: Path) -> None:
    """Both methods have finished both seeds, but others of them were alone."""
    for name, alone in (("random", 0), ("badge", 1)):
        for seed in (0, 1):
            curves, lines = {seed: FIVE[seed]}, {"runs_at_once": 1 if seed == alone else 2}
            write(tmp_path / f"{name} {seed}", curves, strategy=name, lines=lines)
    (verdict,) = judged(tmp_path)
    notes = verdicts.cost_table(verdict).notes
    for told in (
        "Runs that were alone are not of the same seeds. random: 0; badge: 1. Ratios are of means over these, not of "
        "pairs.",
        "Runs that were trained together are not of the same seeds. random: 1; badge: 0. Ratios are of means over "
        "these, not of pairs.",
    ):
        assert told in notes


def test_equal_seeds_need_no_words(tmp_path: Path) -> None:
    for name, curves in (("random", FIVE), ("badge", ABOVE)):
        write(tmp_path / name, curves, strategy=name)
    (verdict,) = judged(tmp_path)
    told = [*verdicts.verdict_table(verdict).notes, *verdicts.accuracy_table(verdict.experiment).notes]
    assert not any("same seeds" in note for note in verdicts.cost_table(verdict).notes)
    assert not any("different seeds" in note or "Finished seeds" in note or "rank" in note for note in told)
    assert any("A paired t-test with n = 5 finds an effect of 1.68 standard deviations in 80 %" in one for one in told)


def test_what_is_missing_is_printed_before_any_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "r", FIVE)
    write(tmp_path / "m", THREE, strategy="margin")
    write(tmp_path / "other", {0: FIVE[0][:2]}, epochs=6)
    assert report.main([str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert told.index("Not complete: 2 of 10 runs") < told.index("Verdicts:") < told.index("Cost:")
    assert told.index("Not complete: 1 of 1 runs") < told.index("Verdicts:"), "those of all experiments"


def planned(results: Path, seeds: dict[str, tuple[int, ...]]) -> list[str]:
    """Journals of Table 3 on digits; each method is 2 points above the one before, and more in higher seeds."""
    flags = ["--datasets=digits", "--seeds=0-4", f"--strategies={','.join(seeds)}", f"--results={results}", "--norun"]
    for place, run in enumerate(PLANS["table3"](Options(("digits",), tuple(seeds), (0,)))):
        gain = 0.02 * place * np.arange(run.budget.rounds)
        curves = {seed: (0.5 + (1 + seed) * gain / 4).tolist() for seed in seeds[run.strategy]}
        publish(results / run.strategy, run, curves)
    return flags


def test_table_3_says_of_how_many_seeds_a_cell_is(tmp_path: Path) -> None:
    for name, of_random, count in (("a", range(5), "3 to 5"), ("b", range(3), "3")):
        seeds = {"random": tuple(of_random), "badge": (0, 1, 2, 3, 4), "margin": (0, 1, 2)}
        assert command.main("table3", "", table3.render, planned(tmp_path / name, seeds)) == 0
        text = (tmp_path / name / "reports" / "table3.md").read_text()
        assert f"- digits: {count} paired seeds; told apart" in text
        (badge,) = (line for line in text.splitlines() if line.startswith("| BadgeSampling"))
        (margin,) = (line for line in text.splitlines() if line.startswith("| margin"))
        assert ", 3 of 5 seeds (–)" in margin
        assert (", 3 of 5 seeds (–)" in badge) == (name == "b"), "two of its seeds have no partner"
        assert "- ★: above random sampling on every data set of the table" in text


def test_table_5_divides_means_of_the_same_seeds(tmp_path: Path) -> None:
    seeds = {"random": (0, 1, 2, 3, 4), "ssl_random": (0, 1, 2, 3, 4), "ssl_diff2aug_direct": (0, 1, 2)}
    flags = planned(tmp_path, seeds)
    assert command.main("table5", "", table5.render, [flag for flag in flags if "strategies" not in flag]) == 0
    row = pd.read_csv(tmp_path / "reports" / "table5.csv", comment="#").iloc[0]
    assert row["pairs"] == 3
    assert row["ratio"] == pytest.approx(2), "in each of the three seeds; SSLRandom is higher in the other two"


def test_figure_7_says_of_which_seeds_curves_are(tmp_path: Path) -> None:
    seeds = {"random": (0, 1, 2, 3, 4), "badge": (0, 1, 2, 3, 4), "margin": (0, 1, 2)}
    assert command.main("fig7", "", fig7.render, planned(tmp_path, seeds)) == 0
    text = (tmp_path / "reports" / "fig7.md").read_text()
    found = [line.split(" | ")[1::4] for line in text.splitlines() if line.startswith("| digits")]
    assert found == [["RandomSampling", "5/5"], ["BadgeSampling", "5/5"], ["margin", "3/5"]]
    assert "- digits: Finished seeds are not the same. random, badge: 0, 1, 2, 3, 4; margin: 0, 1, 2." in text


def test_table_4_says_that_seconds_do_not_pair(tmp_path: Path) -> None:
    seeds = {"random": (0, 1, 2, 3, 4), "margin": (0, 1, 2)}
    assert command.main("table4", "", table4.render, planned(tmp_path, seeds)) == 0
    text = (tmp_path / "reports" / "table4.md").read_text()
    assert "margin: 0, 1, 2. Ratios are of means over these, not of pairs." in text


def test_table_4_says_of_which_packs_shared_seconds_are(tmp_path: Path) -> None:
    """A half of two runs' seconds and an eighth of eight runs' differ without any doing of the method."""
    methods = {"random": {0: 2, 1: 2}, "badge": {0: 8, 1: 8}, "margin": {0: 2, 1: 1}}
    for run in PLANS["table3"](Options(("digits",), tuple(methods), (0, 1))):
        curve, lines = [0.5] * run.budget.rounds, {"runs_at_once": methods[run.strategy][run.seed]}
        publish(tmp_path / f"{run.strategy} {run.seed}", run, {run.seed: curve}, lines=lines)
    flags = ["--datasets=digits", "--seeds=0,1", f"--strategies={','.join(methods)}", f"--results={tmp_path}"]
    assert command.main("table4", "", table4.render, [*flags, "--norun"]) == 0
    text = (tmp_path / "reports" / "table4.md").read_text()
    assert "Runs at once: random, margin: 2; badge: 8. An even share depends on that, and so do ratios" in text
    assert "- digits, together: runs of margin that were alone are left out." in text
    assert "trained together are not of the same seeds. random, badge: 0, 1; margin: 0. Ratios" in text


def test_figure_2_counts_the_network_of_a_seed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of seed 1 only one of two strategies has run; and its picks were never measured."""
    accuracies = {("ssl_random", 0): 0.5, ("ssl_consistency", 0): 0.5, ("ssl_random", 1): 0.8}
    for run in PLANS["fig2"](Options(("digits",), ("ssl_random", "ssl_consistency"), (0, 1))):
        if accuracy := accuracies.get((run.strategy, run.seed)):
            publish(tmp_path / f"{run.strategy} {run.seed}", run, {run.seed: [accuracy, 0.9]})
    told = {kind: dict.fromkeys(case.MEASURES, 1.0) for kind in ("picks", "pool")}
    monkeypatch.setattr(case.Case, "measured", lambda self, record, seed: told if seed == 0 else None)
    flags = ["--datasets=digits", "--strategies=ssl_random,ssl_consistency", "--seeds=0,1", f"--results={tmp_path}"]
    assert command.main("fig2", "", fig2.render, [*flags, "--norun"]) == 0
    lines = (tmp_path / "reports" / "fig2.md").read_text().splitlines()
    ends = [line.split(" | ")[-2:] for line in lines if line.startswith("| digits")]
    assert ends == [["90.00 ± 0.00", "2 (1 measured) |"], ["90.00", "1 |"], ["65.00", "2 (1 measured) |"]]


def test_one_seed_among_points_of_several_has_no_bar() -> None:
    """A bar of length 0 would say that seeds agree."""
    _, (axes,) = drawing.panels(["one"])
    table = pd.DataFrame({"x": [1, 2, 2, 3, 3], "y": [0.5, 0.6, 0.7, 0.8, 0.8]})
    drawing.spread_line(axes, table, "x", "y", "name", 0)
    (bars,) = axes.collections
    drawn = [line[:, 1].tolist() for line in bars.get_segments() if len(line)]  # what is NaN has no ends
    assert drawn == [pytest.approx([0.65 - 0.005**0.5, 0.65 + 0.005**0.5]), [0.8, 0.8]]
