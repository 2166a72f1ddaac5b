"""The numbers of a comparison, each written out with NumPy, and the words and cells made of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from journals import RANDOM, SECONDS, judged, write
from scipy import stats

from jaxdal import caveats, verdicts
from jaxdal.comparison import disagreement, read
from jaxdal.verdicts import number, p_value, saved, seconds, spread

OURS = {0: [0.5, 0.66, 0.7, 0.86], 1: [0.52, 0.60, 0.79, 0.84], 2: [0.51, 0.69, 0.74, 0.85]}


def told(share: float) -> dict[str, object]:
    return {"accuracy_best": share, "per_class_accuracy": [share, share - 0.2]}


def some(folder: Path) -> verdicts.Verdict:
    """Random sampling and two methods; three seeds in journals of their own, which differ in what their lines say."""
    for seed, of_random in RANDOM.items():
        for name, curves, share in (("random", of_random, 0.8), ("badge", OURS[seed], 0.85 + 0.01 * seed)):
            write(folder / f"{name}{seed}", {seed: curves}, strategy=name, lines=told(share))
    write(folder / "m", {seed: [x - 0.01 * seed for x in curve] for seed, curve in RANDOM.items()}, strategy="margin")
    (verdict,) = judged(folder)
    return verdict


def test_every_number_by_hand(tmp_path: Path) -> None:
    row = some(tmp_path).table.loc["badge"]
    ours, base = (100 * np.array(list(curves.values())) for curves in (OURS, RANDOM))
    gain = (ours - base).mean(1)
    area = (ours[:, 0] / 2 + ours[:, 1] + ours[:, 2] + ours[:, 3] / 2) / 3
    low, high = stats.t.interval(0.95, 2, gain.mean(), stats.sem(gain))
    expected = {
        "n": 3, "seeds": 3, "pairs": 3,
        "final": ours[:, -1].mean(), "final_sd": ours[:, -1].std(ddof=1), "aubc": area.mean(),
        "aubc_sd": area.std(ddof=1), "final_balanced": 76, "final_balanced_sd": 1,
        "api": gain.mean(), "api_sd": gain.std(ddof=1), "api_low": low, "api_high": high,
        "api_without_round_0": (ours - base)[:, 1:].mean(), "api_best": 6, "api_best_sd": 1,
        "api_balanced": 6, "api_balanced_sd": 1, "p_t": stats.ttest_1samp(gain, 0).pvalue, "p_wilcoxon": 0.25,
    }  # fmt: skip
    assert row[list(expected)].astype(float).to_dict() == pytest.approx(expected)
    need = np.interp(81, ours.mean(0), [10, 20, 30, 40])  # 81 %: where random sampling ends
    assert row["labels_saved"] == pytest.approx(40 - need)
    assert row["labels_saved_share"] == pytest.approx(100 * (40 - need) / 40)


def test_what_one_seed_or_one_round_lacks_has_no_mean(tmp_path: Path) -> None:
    (one,) = read([some(tmp_path).experiment.sources[0].folder.parent])[0]
    at = one.rounds.index[(one.rounds["method"] == "badge") & (one.rounds["seed"] == 1)]
    for rows in (at, at[1:2]):
        rounds = one.rounds.copy()
        rounds.loc[rows, ["accuracy_best", "accuracy_balanced"]] = np.nan
        row = verdicts.measure(one._replace(rounds=rounds)).loc["badge"]
        keys = ["api_best", "api_best_sd", "api_balanced", "api_balanced_sd"]
        assert row[keys].isna().all()
        assert row[["final_balanced", "final_balanced_sd"]].isna().all() == (len(rows) > 1)
        assert row["api"] > 0


def test_worse_than_random_sampling_is_called_so(tmp_path: Path) -> None:
    write(tmp_path / "r", RANDOM)
    less = {seed: [share - 0.05 - 0.001 * seed for share in curve] for seed, curve in RANDOM.items()}
    write(tmp_path / "b", less, strategy="badge")
    (verdict,) = judged(tmp_path)
    assert verdict.table["verdict"].to_dict() == {"random": "the baseline", "badge": "worse"}
    assert verdicts.verdict_table(verdict).marks == {(0, 3): "worse"}, "the best API is not above zero"
    assert verdicts.overview([verdict]).marks == {}


def test_seconds_are_those_of_finished_runs_beside_random_sampling(tmp_path: Path) -> None:
    def lines(train: float) -> dict[str, object]:
        return {"seconds": SECONDS | {"train": train}}

    for seed, train in enumerate((4.0, 6.0, 8.0)):
        write(tmp_path / f"r{seed}", {seed: RANDOM[seed]}, lines=lines(train))
    write(tmp_path / "b", {seed: RANDOM[seed] for seed in (0, 1)}, strategy="badge", lines=lines(10.5))
    write(tmp_path / "x", {2: RANDOM[2][:2]}, strategy="badge", lines=lines(1000.0))
    (verdict,) = judged(tmp_path)
    costs = verdict.costs
    assert costs.loc["random", ["train", "cost", "cost_sd", "n"]].to_list() == pytest.approx([6, 7.5, 2, 3])
    assert costs.loc["badge", ["train", "cost", "n"]].to_list() == pytest.approx([10.5, 12, 2])
    ratios = costs.loc["badge", ["ratio", "selection_ratio", "train_ratio"]]
    assert ratios.to_list() == pytest.approx([12 / 7.5, 1.5 / 7.5, 10.5 / 7.5])
    shown = verdicts.verdict_table(verdict)
    gaps = [shown.rows[row][:2] for (row, column), mark in shown.marks.items() if (column, mark) == (1, "gap")]
    assert gaps == [["badge", "2/3"]]
    rows = {row[0]: row[1:] for row in verdicts.accuracy_table(verdict.experiment).rows}
    assert rows["badge"] == ["51.00 ± 1.00 (n=3)", "61.00 ± 1.00 (n=3)", "71.00 ± 1.41", "80.50 ± 0.71"]
    assert not any("n=" in cell for cell in rows["random"])
    other = verdict.experiment._replace(labels=[*verdict.experiment.labels, 50])
    assert [row[-1] for row in verdicts.accuracy_table(other).rows] == ["–", "–"], "nobody was so far"


def test_accounts_of_a_run_agree_in_all_but_seconds() -> None:
    lines = [{"round": at, "labelled": 10 + at, "accuracy": 0.5, "picks": [at], "seconds": {}} for at in range(4)]
    lines[0]["initial"] = [7]
    assert disagreement([lines, [line | {"seconds": {"train": 1.0}} for line in lines[:2]]]) is None
    changes = {"labelled": 9, "accuracy": 0.6, "initial": [8], "picks": [5], "diverged": {"step": 3}}
    for key, other in changes.items():
        for first in (0, 2):
            again = [*lines[:first], *(line | {key: other} for line in lines[first:])]
            assert disagreement([lines[:3], again]) == first, key


def test_rounds_say_how_many_runs_shared_their_seconds(tmp_path: Path) -> None:
    write(tmp_path / "r", RANDOM)
    write(tmp_path / "b", OURS, strategy="badge", lines={"runs_at_once": 6, "selected_at_once": 2, "lanes": 3})
    (verdict,) = judged(tmp_path)
    rounds = verdict.experiment.rounds.groupby("method")[["runs_at_once", "selected_at_once", "lanes", "devices"]]
    assert rounds.max().loc["badge"].to_list() == rounds.min().loc["badge"].to_list() == [6, 2, 3, 1]
    assert rounds.max().loc["random"].to_list() == [1, 1, 1, 1]


def test_blocks_of_ranks_are_the_seeds_of_random_sampling(tmp_path: Path) -> None:
    write(tmp_path / "r", {seed: RANDOM[seed] for seed in (0, 1)})
    write(tmp_path / "b", OURS, strategy="badge")
    (verdict,) = judged(tmp_path)
    frame = verdicts.scores([verdict.experiment])
    assert [seed for seed, _ in frame.index] == [0, 1]
    assert frame["badge"].to_list() == pytest.approx([np.mean(OURS[0]), np.mean(OURS[1])])
    assert verdict.ranks.blocks == 2


def test_up_to_five_pairs_are_too_few_for_wilcoxon() -> None:
    told = ["With n = 5, Wilcoxon's test cannot give a p below 0.0625, whatever the data."]
    assert caveats._power([5, 6])[1:] == told
    assert caveats._power([6, 9])[1:] == []


def test_cells() -> None:
    assert [number(value, "+.2f") for value in (1.234, -1.234, -1e-15, None, float("nan"), "x")] == [
        "+1.23", "−1.23", "+0.00", "–", "–", "–",
    ]  # fmt: skip
    assert [seconds(value) for value in (12.345, 0.1, 0.0999)] == ["12.35", "0.10", "0.0999"]
    assert [spread(1.0, 0.5), spread(1.0, float("nan")), spread(None, 0.5)] == ["1.00 ± 0.50", "1.00", "–"]
    assert [p_value(0.0123, 0.004), p_value(0.0004, 0.0001), p_value(0.001, 0.0006), p_value(None, 0.1)] == [
        "0.012 (0.004)", "<0.001 (<0.001)", "0.001 (0.001)", "n/a",
    ]  # fmt: skip
    rows = [pd.Series({"labels_saved": n, "labels_saved_share": p}) for n, p in ((1234.4, 12.6), (-7.0, -0.4))]
    assert [saved(row) for row in rows] == ["+1,234 (+13 %)", "−7 (+0 %)"]


def test_marks_of_the_overview(tmp_path: Path) -> None:
    """Best in a column, above zero everywhere; of a method that is missing somewhere nobody knows the latter."""
    for place, dataset in enumerate(("mnist", "gtsrb")):
        for name, gain in {"random": 0.0, "badge": 0.02, "margin": (0.03, -0.01)[place], "coreset": 0.01}.items():
            if name == "coreset" and place:
                continue
            curves = {seed: [share + gain for share in curve] for seed, curve in RANDOM.items()}
            write(tmp_path / dataset / name, curves, strategy=name, dataset=dataset)
    table = verdicts.overview(verdicts.with_api(judged(tmp_path)))
    rows = {row[0]: at for at, row in enumerate(table.rows)}
    assert set(rows) == {"badge", "margin", "coreset"}
    datasets = [column.split(" ")[0] for column in table.columns[1:]]
    assert table.marks == {
        (rows["badge"], 0): "better",
        (rows["badge"], 1 + datasets.index("gtsrb")): "best",
        (rows["margin"], 1 + datasets.index("mnist")): "best",
    }
    assert table.rows[rows["coreset"]][1 + datasets.index("gtsrb")] == "–"
