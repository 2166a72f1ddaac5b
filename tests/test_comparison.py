"""Which journals are compared, which runs are missing, and what the tables and the page say of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from journals import BETTER, RANDOM, SECONDS, judged, write

from jaxdal import comparison, page, report, verdicts
from jaxdal.comparison import read
from jaxdal.errors import InputError
from jaxdal.strategies import STRATEGIES, build


def states(experiment: comparison.Experiment) -> dict[tuple[str, int], str]:
    return {(run.method, run.seed): run.state for run in experiment.runs.itertuples()}


def test_api_from_files_is_the_one_of_hand(tmp_path: Path) -> None:
    write(tmp_path / "r", RANDOM)
    write(tmp_path / "b", BETTER, strategy="badge", lines={"per_class_accuracy": [0.25, 0.75, None]})
    (verdict,) = judged(tmp_path)
    row = verdict.table.loc["badge"]
    assert row["api"] == pytest.approx(3 * (4 + 0.1) / 4)
    assert row["api_without_round_0"] == pytest.approx(4.1)
    assert row["api_sd"] == pytest.approx(3 / 4 * 0.1)
    assert (row["n"], row["pairs"], row["verdict"]) == (3, 3, "better")
    assert pd.isna(row["api_best"])  # nothing was evaluated in between
    assert pd.isna(row["api_balanced"])  # random's journal does not have it
    assert row["final_balanced"] == pytest.approx(50)
    shown = verdicts.verdict_table(verdict)
    assert [row[shown.columns.index("balanced")] for row in shown.rows] == ["50.00 ± 0.00", "–"]
    assert verdict.experiment.methods == ["random", "badge"]
    assert verdict.ranks.ranks.to_dict() == {"badge": 1.0, "random": 2.0}
    assert verdict.penalties.loc["badge", "random"] == 0.75


def test_best_and_balanced_accuracy_have_their_own_api(tmp_path: Path) -> None:
    told = {"accuracy_best": 0.9, "per_class_accuracy": [0.5, 0.7]}
    write(tmp_path / "r", RANDOM, lines=told)
    write(tmp_path / "b", BETTER, strategy="badge", lines={"accuracy_best": 0.95, "per_class_accuracy": [0.5, 0.8]})
    (verdict,) = judged(tmp_path)
    assert verdict.table.loc["badge", "api_best"] == pytest.approx(5)
    assert verdict.table.loc["badge", ["api_balanced", "api_balanced_sd"]].to_list() == pytest.approx([5, 0])


def test_the_worst_class_of_every_round(tmp_path: Path) -> None:
    """Of classes that have test images; a journal that does not tell has none, and a page of such journals no table."""
    write(tmp_path / "r", RANDOM)
    assert "Worst class" not in page.render(read([tmp_path]), judged(tmp_path), "x")
    write(tmp_path / "b", BETTER, strategy="badge", lines={"per_class_accuracy": [0.75, None, 0.125, 0.5]})
    write(tmp_path / "m", {0: BETTER[0][:2]}, strategy="margin", lines={"per_class_accuracy": [0.0, 1.0]})
    assert report.main([str(tmp_path)]) == 0
    rounds = pd.read_csv(tmp_path / "report_rounds.csv").set_index("method")["accuracy_worst"]
    assert rounds["badge"].to_list() == [0.125] * 12
    assert rounds["margin"].to_list() == [0.0] * 2
    assert rounds["random"].isna().all()
    (verdict,) = judged(tmp_path)
    rows = {row[0]: row[1:] for row in verdicts.accuracy_table(verdict.experiment, "accuracy_worst").rows}
    cells = ["12.50 ± 0.00"] * 4
    assert rows == {"random": ["–"] * 4, "badge": cells, "margin": [*["0.00 (n=1)"] * 2, "–", "–"]}
    text = (tmp_path / "report.html").read_text()
    assert text.count("<h3>Worst class against labels</h3>") == 1
    assert text.count("<td>12.50 ± 0.00</td>") == 4


@pytest.mark.parametrize(("folder", "method", "told"), [
    ("mixmatch_mirror_cpu", "ssl_diff2aug_direct", [93.7, 97.5, 97.6, 97.2, 97.5]),
    ("mixmatch_mirror_cpu", "ssl_diff2aug_kmeans", [93.7, 96.5, 96.7, 96.7, 96.6]),
    ("mnist_cpu", "ssl_diff2aug_direct", [84.8, 52.7, 35.0, 0.0, 92.5]),
    ("mnist_cpu", "ssl_diff2aug_kmeans", [84.8, 63.9, 6.0, 0.7, 81.6]),
])  # fmt: skip
def test_worst_digits_of_results_md(folder: str, method: str, told: list[float]) -> None:
    found = read([Path(__file__).parent.parent / "experiments/results" / folder]).experiments
    rounds = pd.concat(one.rounds for one in found if one.labels == [1200, 3600, 6000, 8400, 10800])
    own = rounds[rounds["method"].str.startswith(method) & rounds["seed"].isin([0, 1, 2])]
    worst = own.groupby("labelled")["accuracy_worst"].min()
    written = (Path(__file__).parent.parent / "RESULTS.md").read_text()
    assert all(f", {share:.1f} |" in written for share in told)
    assert [f"{100 * share:.1f}" for share in worst] == [f"{share:.1f}" for share in told]


def test_api_pairs_the_seeds_that_both_finished(tmp_path: Path) -> None:
    """Seed 1, the better one, diverged in the last round: it is in no number, its other rounds neither."""
    write(tmp_path / "r", RANDOM)
    write(tmp_path / "d", {0: RANDOM[0], 1: [0.9, 0.9, 0.9, None]}, strategy="margin")
    write(tmp_path / "b", {2: BETTER[2], 1: BETTER[1]}, strategy="badge")
    (verdict,) = judged(tmp_path)
    assert verdict.table.loc["margin", ["pairs", "api"]].to_list() == [1, 0]
    assert verdict.table.loc["badge", "pairs"] == 2
    assert verdict.table.loc["badge", "api"] == pytest.approx(3 * (4 + 0.15) / 4)


# Rows of the paper's Table 3: API in percentage points on MNIST (10 rounds) and CIFAR-10 (13 rounds).
TABLE_3 = {
    "badge": (1.84, 1.89), "least_confidence": (1.40, 1.95), "coreset": (-1.15, 0.95), "learning_loss": (-2.32, -2.38),
    "ssl_consistency": (3.39, 5.83), "vaal": (-0.34, -0.49),
}  # fmt: skip


@pytest.mark.parametrize(("column", "rounds"), [(0, 10), (1, 13)])
def test_rows_of_table_3_from_curves_made_up_for_them(column: int, rounds: int, tmp_path: Path) -> None:
    """Five seeds and gains that grow from 0: round 0 counts, so that leaving it out gives N / (N - 1) times as much."""
    shape = np.arange(rounds) / np.arange(rounds).mean()  # mean 1, 0 in round 0
    wobble = [0.004, -0.004, 0.002, -0.002, 0.0]  # seeds differ, their mean does not
    base = {seed: 0.6 + 0.2 * np.linspace(0, 1, rounds) + 0.01 * seed for seed in range(5)}
    budget = {"n_start": 10, "n_query": 5, "n_end": 5 + 5 * rounds}
    write(tmp_path / "random", {seed: curve.tolist() for seed, curve in base.items()}, **budget)
    for method, published in TABLE_3.items():
        curves = {seed: (base[seed] + shape * published[column] / 100 + wobble[seed]).tolist() for seed in base}
        write(tmp_path / method, curves, strategy=method, trainer=build(method).trainer, **budget)
    (one,) = read([tmp_path]).experiments
    table = verdicts.measure(one)
    for method, published in TABLE_3.items():
        assert f"{table.loc[method, 'api']:.2f}" == f"{published[column]:.2f}"
        without = published[column] * rounds / (rounds - 1)
        assert table.loc[method, "api_without_round_0"] == pytest.approx(without, abs=1e-9)


def test_seeds_of_several_journals_are_merged(tmp_path: Path) -> None:
    write(tmp_path / "a", {0: RANDOM[0]})
    write(tmp_path / "deep" / "er" / "b", {2: RANDOM[2], 1: RANDOM[1]}, pack=5, eval_every=1)
    (one,) = read([tmp_path]).experiments
    assert states(one) == {("random", seed): "complete" for seed in range(3)}
    assert one.curves("random").to_numpy().tolist() == [RANDOM[seed] for seed in range(3)]


def test_missing_partial_and_diverged_runs_are_kept_in_sight(tmp_path: Path) -> None:
    write(tmp_path / "r", RANDOM)
    write(tmp_path / "p", {seed: shares[:2] for seed, shares in RANDOM.items()}, strategy="margin")
    write(tmp_path / "d", {0: BETTER[0], 1: [0.5, None], 2: BETTER[2]}, strategy="badge")
    write(tmp_path / "m", {0: BETTER[0]}, strategy="entropy")
    (tmp_path / "e").mkdir()
    header = (tmp_path / "r" / "journal.jsonl").read_bytes().split(b"\n")[0].replace(b'"random"', b'"coreset"')
    (tmp_path / "e" / "journal.jsonl").write_bytes(header + b"\n")
    (verdict,) = judged(tmp_path)
    one = verdict.experiment
    found = states(one)
    assert [found["margin", seed] for seed in range(3)] == ["partial"] * 3
    assert [found["badge", seed] for seed in range(3)] == ["complete", "diverged", "complete"]
    assert [found["entropy", seed] for seed in range(3)] == ["complete", "missing", "missing"]
    assert [found["coreset", seed] for seed in range(3)] == ["partial"] * 3
    table = verdict.table
    assert table.loc["badge", "n"] == 2
    assert table.loc["badge", "verdict"] in ("better", "not told apart")
    assert table.loc["margin", "verdict"] == "n/a, no finished pair"
    assert table.loc["entropy", "verdict"] == "n/a, 1 seed"
    assert sorted(verdict.ranks.left_out) == ["badge", "coreset", "entropy", "margin"]
    cells = {row[3]: row for row in verdicts.gap_table(one).rows}
    assert cells["badge"][:3] == ["diverged", "1", "the loss was not finite in round 1 at step 7"]
    assert cells["margin"][:3] == ["partial", "0, 1, 2", "2 of 4 rounds: still running, or stopped"]
    assert cells["entropy"][:2] == ["missing", "1, 2"]
    accuracy = {row[0]: row for row in verdicts.accuracy_table(one).rows}
    assert accuracy["margin"][1].endswith("(n=3)")
    assert accuracy["margin"][3] == "–"
    rows = [row[0] for row in verdicts.verdict_table(verdict).rows]
    assert sorted(rows) == sorted(one.methods)


def test_copies_that_agree_are_one_run(tmp_path: Path) -> None:
    write(tmp_path / "a", {0: RANDOM[0][:2]})
    write(tmp_path / "b", {0: RANDOM[0]})
    (one,) = read([tmp_path, tmp_path / "b", tmp_path]).experiments
    assert states(one) == {("random", 0): "complete"}
    assert len(one.rounds) == 4
    assert one.runs.loc[0, "told"] == "2 journals agree"


def test_copies_that_disagree_are_in_no_number(tmp_path: Path) -> None:
    write(tmp_path / "r", RANDOM)
    write(tmp_path / "a", BETTER, strategy="badge")
    other = [*BETTER[1][:2], BETTER[1][2] + 0.01, BETTER[1][3]]
    write(tmp_path / "b", {1: other}, strategy="badge")
    (verdict,) = judged(tmp_path)
    one = verdict.experiment
    assert states(one)["badge", 1] == "in conflict"
    assert one.finished("badge") == [0, 2]
    (row,) = verdicts.gap_table(one).rows
    assert row[2] == "accounts disagree from round 2 on: in no number below"
    assert row[4] == f"{tmp_path / 'a'}, {tmp_path / 'b'}"


def test_foreign_and_damaged_journals_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "r", RANDOM)
    for name, text in (("foreign", '{"level": "info"}\n'), ("empty", ""), ("later", '{"format": 2}\n')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "journal.jsonl").write_text(text)
    found = read([tmp_path])
    assert len(found.experiments) == 1
    assert sorted(path.parent.name for path in found.unreadable) == ["empty", "foreign", "later"]
    assert report.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err.count("journal.jsonl") == 3
    text = (tmp_path / "out" / "report.html").read_text()
    assert all(str(path) in text for path in found.unreadable)
    with pytest.raises(InputError, match="does not begin"):
        read([tmp_path / "foreign"])


def test_a_report_that_cannot_be_written_ends_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "r", RANDOM)
    (tmp_path / "file").write_text("")
    assert report.main([str(tmp_path), "--out", str(tmp_path / "file" / "out")]) == 2
    told = f"{tmp_path / 'file' / 'out'}: Not a directory (--out=DIR puts a report elsewhere)\n"
    assert capsys.readouterr().err == told


def test_nothing_below_random_sampling_is_marked_as_best(tmp_path: Path) -> None:
    worse = {seed: [share - 0.01 for share in shares] for seed, shares in RANDOM.items()}
    for at, (epochs, badge) in enumerate([(1, BETTER), (2, worse)]):
        write(tmp_path / f"r{at}", RANDOM, epochs=epochs)
        write(tmp_path / f"b{at}", badge, strategy="badge", epochs=epochs)
    assert len(verdicts.with_api(judged(tmp_path))) == 2
    table = verdicts.overview(judged(tmp_path))
    assert [cell.startswith("+") for cell in table.rows[0][1:]] == [True, False]
    assert table.marks == {(0, 1): "best"}


def test_what_differs_is_not_compared_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a", RANDOM)
    write(tmp_path / "b", BETTER, strategy="badge", epochs=6)
    experiments = read([tmp_path]).experiments
    assert [one.methods for one in experiments] == [["random"], ["badge"]]
    assert comparison.differing([one.config for one in experiments]) == {"epochs": [5, 6]}
    assert experiments[1].title == "digits · lenet · paper · epochs=6"
    (_, alone) = (verdicts.judge(one) for one in experiments)
    assert alone.table.loc["badge", "verdict"] == "n/a, no random sampling"
    assert "No journal has random sampling" in verdicts.caveats(alone.experiment, alone.table)[0]
    report.compare([tmp_path], tmp_path / "out", "")
    for text in (capsys.readouterr().out, (tmp_path / "out" / "report.html").read_text()):
        assert "API on all experiments" not in text, "of which none has an API"


def test_another_trainer_may_change_the_optimiser(tmp_path: Path) -> None:
    write(tmp_path / "r", RANDOM)
    write(tmp_path / "s", BETTER, trainer="mixmatch", clamp=None, learning_rate=0.03)
    write(tmp_path / "t", BETTER, strategy="later", trainer="later_trainer", clamp=None)
    (one,) = read([tmp_path]).experiments
    assert one.methods == ["random", "random + mixmatch", "later"]
    assert one.baseline == "random"
    assert one.config["learning_rate"] == 0.1
    write(tmp_path / "u", BETTER, trainer="mixmatch", clamp=None, learning_rate=0.01)
    (one,) = read([tmp_path]).experiments
    assert one.methods == [
        "random", "random + mixmatch (learning_rate=0.03)", "later", "random + mixmatch (learning_rate=0.01)",
    ]  # fmt: skip


def test_a_trainer_of_ones_own_is_compared_and_its_versions_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path / "r", RANDOM)
    write(tmp_path / "a", BETTER, strategy="margin", trainer="mine, code 8b69edff")
    write(tmp_path / "b", BETTER, strategy="margin", trainer="mine, code 00000000")
    (one,) = read([tmp_path]).experiments
    assert one.methods == ["random", "margin + mine, code 8b69edff", "margin + mine, code 00000000"]
    assert one.baseline == "random"


def test_of_a_strategy_of_ones_own_the_trainer_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every process alike, whether or not it knows the strategy."""
    write(tmp_path / "r", RANDOM)
    write(tmp_path / "a", BETTER, strategy="mine(share=1), code 8b69edff", trainer="mixmatch")
    write(tmp_path / "b", BETTER, strategy="other, code 00000000")
    told = ["random", "mine(share=1) + mixmatch", "other"]
    assert read([tmp_path]).experiments[0].methods == told
    monkeypatch.setitem(STRATEGIES, "mine", lambda share: build("ssl_random"))
    assert read([tmp_path]).experiments[0].methods == told


def test_an_experiment_that_was_extended_counts_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    longer = {"random": [0.5, 0.6, 0.7, 0.8], "margin": [0.5, 0.7, 0.8, 0.9]}
    for name, curve in longer.items():
        write(tmp_path / "short" / name, {0: curve[:3], 1: curve[:3]}, strategy=name, n_end=30)
        write(tmp_path / "long" / name, {0: curve, 1: curve}, strategy=name)
    found = read([tmp_path])
    (one,) = found.experiments
    assert one.labels == [10, 20, 30, 40]
    write(tmp_path / "begun", {0: longer["margin"][:3], 1: longer["margin"][:3]}, strategy="margin")
    begun = read([tmp_path / "short" / "margin", tmp_path / "begun"]).experiments
    assert sorted(len(each.labels) for each in begun) == [3, 4], "the end of the shorter one is in no other yet"
    short, long = (f"digits · lenet · paper · n_end={n_end}" for n_end in (30, 40))
    assert found.remarks == [f"{short} is the beginning of {long}, and left out here"]
    report.compare([tmp_path], tmp_path / "out", "command")
    assert found.remarks[0] in capsys.readouterr().err
    assert found.remarks[0] in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert len(read([tmp_path / "short", tmp_path / "long" / "margin"]).experiments) == 2, "random has not gone on"
    write(tmp_path / "short" / "margin2", {0: [0.5, 0.4, 0.3], 1: [0.5, 0.7, 0.8]}, strategy="margin(a=1)", n_end=30)
    assert len(read([tmp_path]).experiments) == 2
    write(tmp_path / "long" / "margin2", {0: [0.5, 0.41, 0.3, 0.9], 1: [0.5, 0.7, 0.8, 0.9]}, strategy="margin(a=1)")
    assert len(read([tmp_path]).experiments) == 2, "it went another way"


def test_supervised_runs_with_another_optimiser_are_another_experiment(tmp_path: Path) -> None:
    write(tmp_path / "a", RANDOM)
    write(tmp_path / "b", BETTER, learning_rate=0.05)
    write(tmp_path / "c", BETTER, strategy="badge", learning_rate=0.05)
    write(tmp_path / "d", BETTER, trainer="mixmatch")  # whose experiment is it?
    experiments = read([tmp_path]).experiments
    assert [one.methods for one in experiments] == [["random"], ["random", "badge"], ["random + mixmatch"]]
    assert len({one.title for one in experiments}) == 3
    assert experiments[2].title.endswith("trainer=mixmatch · learning_rate=0.1")


def test_rounds_come_from_the_budget_not_from_what_was_seen(tmp_path: Path) -> None:
    """10 % to 70 % by 5 % are 13 rounds, whatever floating point makes of it: 12 rounds are not complete."""
    shares = np.linspace(0.5, 0.8, 13).tolist()
    write(tmp_path / "a", {0: shares, 1: shares}, n_start=20, n_query=10, n_end=140)
    write(tmp_path / "b", {0: shares[:12], 1: shares[:12]}, strategy="badge", n_start=20, n_query=10, n_end=140)
    (one,) = read([tmp_path]).experiments
    assert one.labels == list(range(20, 141, 10))
    assert set(states(one).values()) == {"complete", "partial"}
    assert one.runs["told"].to_list()[2] == "12 of 13 rounds: still running, or stopped"


def test_cost_is_of_runs_alone_and_relative_to_random(tmp_path: Path) -> None:
    write(tmp_path / "r", RANDOM)
    write(tmp_path / "b", BETTER, strategy="badge", lines={"seconds": SECONDS | {"train": 8.0, "compile": 99.0}})
    write(tmp_path / "p", BETTER, strategy="margin", lines={"runs_at_once": 3})
    (verdict,) = judged(tmp_path)
    table = verdict.costs
    assert table.loc["random", ["selection", "train", "cost", "ratio"]].to_list() == pytest.approx([1.5, 4, 5.5, 1])
    assert table.loc["badge", ["cost", "ratio"]].to_list() == pytest.approx([9.5, 9.5 / 5.5])
    assert table.loc["badge", ["selection_ratio", "train_ratio"]].to_list() == pytest.approx([1.5 / 5.5, 8 / 5.5])
    assert pd.isna(table.loc["margin", "cost"])
    assert table.loc["margin", "shared_cost"] == pytest.approx(5.5 / 3)
    cells = {row[0]: row for row in verdicts.cost_table(verdict).rows}
    assert cells["badge"][7:10] == ["1.73", "0.27", "1.45"]
    assert cells["margin"][1:10] == ["0", *["–"] * 8]
    assert cells["margin"][10] == "3 (3 at once)"
    assert verdicts.cost_table(verdict).columns[6:10] == ["Cost", "× random", "of it selection", "of it training"]


def test_a_device_for_each_run_is_alone_and_several_for_one_are_told(tmp_path: Path) -> None:
    write(tmp_path / "r", RANDOM, lines={"runs_at_once": 4, "lanes": 1})
    write(tmp_path / "b", BETTER, strategy="badge", lines={"devices": 4})
    (verdict,) = judged(tmp_path)
    assert verdict.costs["cost"].to_list() == pytest.approx([5.5, 5.5])
    (note,) = verdicts.other_devices(verdict.experiment)
    assert note.startswith("Not all runs were split over as many devices (1, 4)")


def test_seconds_of_different_devices_are_not_compared(tmp_path: Path) -> None:
    write(tmp_path / "r", RANDOM)
    write(tmp_path / "b", BETTER, strategy="badge", environment={"devices": ["H100", "H100"]})
    (verdict,) = judged(tmp_path)
    assert any("different devices (H100; cpu)" in note for note in verdicts.cost_table(verdict).notes)
    assert not any("split over" in note for note in verdicts.cost_table(verdict).notes)
    assert "2 × H100" in page.render(read([tmp_path]), [verdict], "x")


@pytest.mark.parametrize("seeds", [1, 3])
def test_small_samples_are_said_to_be_small(seeds: int, tmp_path: Path) -> None:
    write(tmp_path / "r", {seed: RANDOM[seed] for seed in range(seeds)})
    write(tmp_path / "b", {seed: BETTER[seed] for seed in range(seeds)}, strategy="badge")
    (verdict,) = judged(tmp_path)
    notes = " ".join(verdicts.verdict_table(verdict).notes)
    if seeds == 1:
        assert verdict.table.loc["badge", "verdict"] == "n/a, 1 seed"
        assert verdicts.verdict_table(verdict).rows[0][4:6] == ["n/a", "n/a"]
        assert "need two seeds" in notes
    else:
        assert "the power is low" in notes
        assert "cannot give a p below 0.25" in notes
