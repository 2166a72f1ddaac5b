"""What tables and figures say of journals made by hand, and of nothing; and four of them in small, end to end."""

import importlib

import journals
import numpy as np
import pandas as pd
import pytest
from planned import CURVE, note, run_of, write

from experiments import case, command, drawing, fig2, fig3, fig5, plans, published, runs, table2, table3, table4, table5
from experiments.plans import PLANS, Options
from experiments.records import Records
from experiments.reporting import accuracy_is, key
from experiments.sweeps import finished, panels, report
from jaxdal import journal


def test_what_is_pooled_over_precisions_or_images_is_said(tmp_path):
    curves = {0: [0.1, 0.2], 1: [0.1, 0.2]}
    for share in ("20%", None):
        plan = PLANS["fig5"](Options(("digits",), scale="smoke", seeds=(0, 1)))
        for run in (run for run in plan if run.pool_share == share):
            curve = {run.seed: [0.1 + 0.1 * at for at in range(run.budget.rounds)]}
            different = {"precision": "bf16"} if (share, run.seed) == (None, 1) else {}
            images = f"{share} of {run.seed}" if share else "all"
            name = f"{share} {run.strategy} {run.seed}"
            folder = write(tmp_path / name, run, curve, fingerprint=images, **different)
            note(folder, **({"pool_share": share, "pool_seed": run.seed} if share else {}))
    (full,) = PLANS["table2"](Options(("digits",), scale="half", seeds=(0,)))
    for seed, images in enumerate(("0123456789", "abcdefghij")):
        write(tmp_path / f"full {seed}", full._replace(seed=seed), {seed: curves[seed][:1]}, fingerprint=images)
    flags = ["--datasets=digits", "--seeds=0,1", f"--results={tmp_path}", "--norun"]
    assert command.main("table2", "", table2.render, [*flags, "--scale=half"]) == 0
    told = "- digits: runs of different images (fingerprints 01234567, abcdefgh) are shown as one."
    assert told in (tmp_path / "reports" / "table2.md").read_text()
    assert command.main("fig5", "", fig5.render, [*flags, "--scale=smoke"]) == 0
    told = "- digits: runs of different precision (f32, bf16) are shown as one."
    assert told in (tmp_path / "reports" / "fig5.md").read_text(), "shares of a pool are other images for each seed"
    assert command.main("fig5", "", fig5.render, [*flags[:1], "--seeds=0", *flags[2:], "--scale=smoke"]) == 0
    assert "shown as one" not in (tmp_path / "reports" / "fig5.md").read_text()


def test_means_of_figure_5_are_those_of_pairs(tmp_path):
    """Seed 1 has no SSLRandom: its higher accuracy is in no mean."""
    accuracies = {("ssl_random", 0): 0.5, ("ssl_diff2aug_direct", 0): 0.6, ("ssl_diff2aug_direct", 1): 0.8}
    for run in PLANS["fig5"](Options(("digits",), scale="half", seeds=(0, 1))):
        if not run.pool_share and (run.strategy, run.seed) in accuracies:
            accuracy = accuracies[run.strategy, run.seed]
            write(tmp_path / f"{run.strategy} {run.seed}", run, {run.seed: [accuracy] * run.budget.rounds})
    flags = ["--datasets=digits", "--scale=half", "--seeds=0,1", f"--results={tmp_path}", "--norun"]
    assert command.main("fig5", "", fig5.render, flags) == 0
    text = (tmp_path / "reports" / "fig5.md").read_text()
    assert "| digits | 100% | 1,295 | 215 | 60.00 | 50.00 | +10.00 | 1/2 |" in text


def test_a_sweep_ends_with_the_last_round_of_runs_that_finished(tmp_path):
    curves = {0: [0.5, 0.9, 0.8], 1: [0.5, 0.6, 0.7], 2: [0.5, 0.99]}
    own = [run_of("badge", seed) for seed in curves]
    for run in own:
        write(tmp_path / str(run.seed), run, {run.seed: curves[run.seed]}, lines={"accuracy_best": 0.95})
    found = finished(own, records := Records(tmp_path), "accuracy")
    assert found["seed"].to_list() == [0, 1]
    assert found["final"].to_list() == pytest.approx([80, 70])
    assert found["mean_of_rounds"].to_list() == pytest.approx([220 / 3, 60])
    assert found["labelled"].to_list() == [own[0].budget.labels[-1]] * 2
    assert finished(own, records, "accuracy_best")["final"].to_list() == [95, 95]
    shown = report("", panels(own, "n_start"), records, "accuracy", [])
    assert shown.table.rows[0][5:] == ["75.00 ± 7.07", "66.67", "2/3"]
    assert shown.data["x"].to_list() == pytest.approx([100 * own[0].n_start / plans.SIZES["digits"].pool] * 2)


def test_figure_5_says_where_nothing_is_left_to_choose(tmp_path):
    assert command.main("fig5", "", fig5.render, [f"--results={tmp_path}", "--norun"]) == 0
    text = (tmp_path / "reports" / "fig5.md").read_text()
    assert "- CIFAR-10: of 20% of the pool nothing is left unlabelled after the last query, so that the gap" in text


def test_published_rows_come_out_of_curves_made_up_for_them(tmp_path):
    """Ten rounds of MNIST, gains that grow from 0 in round 0: each cell is the published one, and so is Table 5."""
    methods = ("badge", "coreset", "waal", "ssl_diff2aug_direct", "ssl_random")
    shape = np.arange(10) / np.arange(10).mean()
    for run in PLANS["table3"](Options(("mnist",), methods, (0,))):
        gain = (published.API[run.strategy]["mnist"] or 0) / 100
        curves = {seed: (0.8 + 0.01 * np.arange(10) + 0.001 * seed + gain * shape).tolist() for seed in (0, 1)}
        write(tmp_path / run.strategy, run, curves)
    options = [
        f"--results={tmp_path}",
        "--datasets=mnist",
        f"--strategies={','.join(methods)}",
        "--seeds=0,1",
        "--norun",
    ]
    assert command.main("table3", "", table3.render, options) == 0
    text = (tmp_path / "reports" / "table3.md").read_text()
    for row in (
        "| RandomSampling | SAL | +0.00 (+0.00) |",
        "| BadgeSampling ★ | SAL | **+1.84 ± 0.00 (+1.84)** |",
        "| CoreSet | SAL | −1.15 ± 0.00 (−1.15) |",
        "| WAAL ★ | SSAL | +3.00 ± 0.00 (+3.00) |",
        "| SSLDiff2AugDirect ★ | SSAL | **+3.49 ± 0.00 (+3.49)** |",
        "| SSLRandom ★ | SSAL | +1.68 ± 0.00 (+1.68) |",
        "- MNIST: of 5 published methods, 5 lie on the published side of random; mean absolute difference 0.00 points, "
        "rank correlation 1.00 (Spearman).",
    ):
        assert row in text
    table = pd.read_csv(tmp_path / "reports" / "table3.csv", comment="#").set_index("method")
    np.testing.assert_allclose(table["api"].drop("random"), table["published_api"].drop("random"))
    np.testing.assert_allclose(table["api_without_round_0"], table["api"] * 10 / 9)
    assert command.main("table5", "", table5.render, options) == 0
    row = pd.read_csv(tmp_path / "reports" / "table5.csv", comment="#").iloc[0]
    assert (row["images_per_class"], row["pairs"]) == (6000, 2)
    assert row["ratio"] == pytest.approx(3.49 / 1.68)
    assert row["published"] == 2.07


def test_options_do_not_change_what_kind_of_method_it_is(tmp_path):
    for place, strategy in enumerate(("random", "badge", "ssl_consistency(views=5)")):
        write(tmp_path / strategy, run_of(strategy), {0: [one + 0.1 * place for one in CURVE]})
    flags = ["--datasets=digits", "--scale=half", "--seeds=0", f"--results={tmp_path}", "--norun"]
    flags.append("--strategies=badge,ssl_consistency(views=5)")
    assert command.main("table3", "", table3.render, flags) == 0
    text = (tmp_path / "reports" / "table3.md").read_text()
    assert "| BadgeSampling ★ | SAL | **+10.00 (–)** |" in text
    assert "| ssl_consistency(views=5) ★ | SSAL | **+20.00 (–)** |" in text


def test_fewer_passes_over_the_pool_are_compared_with_epochs_of_the_labelled_images(tmp_path):
    """As the plan of scale cpu says; and only there are they the method's runs."""
    methods = ("random", "ssl_random", "waal")
    for place, run in enumerate(PLANS["table3"](Options(("digits",), methods, (0,), scale="cpu"))):
        write(tmp_path / run.strategy, run, {0: [one + 0.1 * place for one in CURVE]})
    flags = ["--datasets=digits", "--seeds=0", f"--results={tmp_path}", "--norun", f"--strategies={','.join(methods)}"]
    assert command.main("table3", "", table3.render, [*flags, "--scale=cpu"]) == 0
    text = (tmp_path / "reports" / "table3.md").read_text()
    epochs = "epochs digits 20, digits 4 over the pool where unlabelled images are seen"
    assert f"{epochs}; digits mixmatch(average=0.99, ramp_epochs=20); " in text
    assert "| SSLRandom ★ | SSAL | +10.00 (–) |" in text
    assert "| WAAL ★ | SSAL | **+20.00 (–)** |" in text
    assert command.main("table3", "", table3.render, [*flags, "--scale=half"]) == 0
    assert "| SSLRandom | SSAL | – (–) |" in (tmp_path / "reports" / "table3.md").read_text()


def test_best_accuracy_has_a_deviation_and_is_not_what_is_tested(tmp_path):
    for place, strategy in enumerate(("random", "badge")):
        curves = {seed: [one + 0.01 * place * (seed + 1) for one in CURVE] for seed in (0, 1)}
        write(tmp_path / strategy, run_of(strategy), curves, eval_every=1, lines={"accuracy_best": 0.8 + 0.1 * place})
    flags = ["--datasets=digits", "--scale=half", "--seeds=0,1", f"--results={tmp_path}", "--norun"]
    assert command.main("table3", "", table3.render, [*flags, "--strategies=badge", "--best"]) == 0
    text = (tmp_path / "reports" / "table3.md").read_text()
    assert "| BadgeSampling ★ | SAL | **+10.00 ± 0.00 (–)** |" in text
    for best, column, told in ((True, "accuracy_best", "the best of all"), (False, "accuracy", "that of the last")):
        assert key(Options(best=best)) == column
        assert accuracy_is(Options(best=best)).startswith(f"accuracy is {told}")
    assert "told apart from random (accuracy of the last epoch, paired t-test, Holm): none." in text


def test_a_method_without_company_costs_what_it_took(tmp_path):
    """Of one seed, WAAL is the only run of its program: it is in the row of those trained together, undivided."""
    for strategy, runs_at_once, train in (("random", 2, 4.0), ("margin", 2, 6.0), ("waal", 1, 8.0)):
        where = {"devices": ["H100" if strategy == "waal" else "cpu"]}
        lines = {"runs_at_once": runs_at_once, "seconds": journals.SECONDS | {"train": train}}
        write(tmp_path / strategy, run_of(strategy), {0: CURVE}, lines=lines, environment=where)
    flags = ["--datasets=digits", "--scale=half", "--seeds=0", f"--results={tmp_path}", "--norun"]
    assert command.main("table4", "", table4.render, [*flags, "--strategies=margin,waal"]) == 0
    text = (tmp_path / "reports" / "table4.md").read_text()
    assert f"| SAL, together | {7.5 / 5.5:.2f} (of 1) |" in text
    assert f"| SAL with random sampling, together | {(1 + 7.5 / 5.5) / 2:.2f} (of 2) |" in text
    assert f"| SSAL, together | {9.5 / 2.75:.2f} (of 1) |" in text
    assert "- digits, together: no other run was trained with those of waal: their seconds are undivided." in text
    assert "- digits, together: The journals come from different devices (H100; cpu): do not compare seconds." in text


def test_methods_of_table_5_and_figure_8():
    """As sections 5.2 and A.3 of the paper have them."""
    full = Options(("cifar10",), seeds=(0,))
    assert [run.strategy for run in PLANS["table5"](full)] == ["random", "ssl_random", "ssl_diff2aug_direct"]
    five = {"badge", "least_confidence", "core_gcn", "cluster_margin", "bald"}
    assert {run.strategy for run in plans.fig8a(full)} == {run.strategy for run in plans.fig8b(full)} == five


@pytest.mark.parametrize(("name", "field"), [("fig4", "n_start"), ("fig6", "n_query")])
def test_a_sweep_has_a_panel_for_every_data_set(name, field):
    runs = PLANS[name](Options(("digits", "cifar10"), scale="half"))
    digits, cifar = panels(runs, field)
    assert [(panel.title, panel.field) for panel in (digits, cifar)] == [("digits", field), ("CIFAR-10", field)]
    assert digits.runs + cifar.runs == runs
    assert {run.dataset for run in digits.runs} == {"digits"}


def test_the_way_of_a_run_is_text_in_a_table(tmp_path):
    run = run_of("random")._replace(way=(("model", "lenet"), ("mirror", False)))
    write(tmp_path, run, {0: CURVE})
    frame = Records(tmp_path).frame([run])
    assert len(frame) == len(CURVE)
    assert set(frame["way"]) == {"model lenet, mirror False"}


def test_no_two_methods_look_alike():
    looks = [drawing.style(place) for place in range(30)]
    assert len({(one["color"], one["marker"]) for one in looks}) == 30


@pytest.mark.parametrize("name", PLANS)
def test_every_command_reports_before_anything_has_run(tmp_path, name):
    module = importlib.import_module(f"experiments.{name}")
    assert f"\n    python -m experiments.{name}" in module.__doc__, "a file opens with its command"
    assert "Published" in module.__doc__
    plan = PLANS[name](Options())
    assert ("on one H100 (estimate" in module.__doc__) == bool(plan)
    assert command.main(name, module.__doc__, module.render, [f"--results={tmp_path}", "--norun"]) == 0
    text = (tmp_path / "reports" / f"{name}.md").read_text()
    if plan:
        assert f"Runs: 0 of {len(plan)} complete, {len(plan)} missing." in text
        assert not any(f"| {dataset} |" in text for dataset in published.DATASETS), "data sets have the paper's names"
        assert "- missing (no journal), " in text
    assert (tmp_path / "reports" / f"{name}.png").exists() == name.startswith("fig")


def test_measures_of_picks():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 2, 2, 1), np.uint8)
    probs = rng.dirichlet(np.ones(3), 6).astype(np.float32)
    found = case.Signals(rng.normal(size=(6, 4)).astype(np.float32), probs, rng.random(6).astype(np.float32))
    rows = np.array([1, 3, 4])
    told = case.measures(rows, found, images, rows)
    pairs = [(1, 3), (1, 4), (3, 4)]
    pixels = images.reshape(6, -1) / 255
    expected = {
        "diversity": np.mean([np.linalg.norm(found.features[i] - found.features[j]) for i, j in pairs]),
        "diversity_pixels": np.mean([np.linalg.norm(pixels[i] - pixels[j]) for i, j in pairs]),
        "uncertainty": np.mean([1 - max(probs[i]) for i in rows]),
        "inconsistency": np.mean([found.variance[i] for i in rows]),
    }
    assert told == pytest.approx(expected, rel=1e-6)


def test_a_table_and_a_figure_end_to_end(tmp_path):
    options = ["--scale=smoke", f"--results={tmp_path}"]
    assert command.main("table3", "", table3.render, [*options, "--strategies=random"]) == 0
    text = (tmp_path / "reports" / "table3.md").read_text()
    assert "Scale smoke: does it work? The numbers mean nothing." in text
    assert "| RandomSampling | SAL | +0.00 (–) |" in text
    assert "1 of 1 complete" in text

    assert command.main("fig2", "", fig2.render, [*options, "--strategies=random"]) == 0
    table = pd.read_csv(tmp_path / "reports" / "fig2.csv", comment="#")
    assert len(table) == 1
    row = table.iloc[0]
    assert 0 < row["uncertainty"] < 1
    assert row["pool_diversity"] > 0
    assert row["pool_inconsistency"] >= 0
    assert 0 <= row["accuracy"] <= 100
    flags = [*options, "--strategies=random", "--map=pca", "--norun"]
    assert command.main("fig3", "", fig3.render, flags, fig3.flag) == 0
    points = pd.read_csv(tmp_path / "reports" / "fig3.csv", comment="#")
    assert len(points) == 1438, "all of a small pool"
    assert points["random"].sum() == 15
    for kind in ("png", "svg", "md"):
        for name in ("fig2", "fig3"):
            assert (tmp_path / "reports" / f"{name}.{kind}").stat().st_size > 500
    (kept,) = tmp_path.rglob("measures_seed_0.json")
    for path in tmp_path.rglob("weights"):
        path.rename(path.with_name("taken away"))
    before = kept.read_bytes()
    assert command.main("fig2", "", fig2.render, [*options, "--strategies=random", "--norun"]) == 0
    again = pd.read_csv(tmp_path / "reports" / "fig2.csv", comment="#")
    pd.testing.assert_frame_equal(table, again)
    assert kept.read_bytes() == before


def test_a_share_of_the_pool_and_all_labels_end_to_end(tmp_path, monkeypatch):
    """MixMatch on the smallest pool of Figure 5, which it buys up, and Table 2."""
    monkeypatch.setattr(plans, "SHARES", ("20%",))
    options = ["--scale=smoke", f"--results={tmp_path}"]
    assert command.main("fig5", "", fig5.render, [*options, "--strategies=ssl_random"]) == 0
    (folder,) = (path.parent for path in tmp_path.rglob("journal.jsonl"))
    header, _ = journal.read(folder)
    assert (header["config"]["trainer"], header["config"]["pool"]) == ("mixmatch", 287)
    table = pd.read_csv(tmp_path / "reports" / "fig5.csv", comment="#")
    assert table["ssl_random"].between(0, 100).all()
    assert list(table["labelled"]) == [143, 215, 287]
    text = (tmp_path / "reports" / "fig5.md").read_text()
    assert "1 of 1 complete" in text
    assert "- digits: of 20% of the pool nothing is left unlabelled after the last query" in text

    assert command.main("table2", "", table2.render, options) == 0
    text = (tmp_path / "reports" / "table2.md").read_text()
    assert "| digits | 10 | 1,438/359 | lenet |" in text
    assert "1 of 1 complete" in text


def test_a_report_shows_what_is_missing_and_what_failed(tmp_path, monkeypatch):
    trained: list = []
    monkeypatch.setattr(runs, "run_together", lambda *given, **_: trained.append(given) or [])
    options = ["--datasets=digits", "--scale=half", "--seeds=0,1", f"--results={tmp_path}", "--norun"]
    write(tmp_path / "r", run_of("random"), {0: CURVE, 1: CURVE})
    write(tmp_path / "b", run_of("badge"), {0: [0.5, 0.63, 0.73], 1: [0.5, 0.63, 0.76]})
    write(tmp_path / "m", run_of("margin"), {0: [0.5, None], 1: [0.4, 0.5, 0.6]})
    assert command.main("table3", "", table3.render, [*options, "--strategies=badge,margin,entropy"]) == 0
    assert not trained
    text = (tmp_path / "reports" / "table3.md").read_text()
    assert "| BadgeSampling ★ | SAL | **+2.50 ± 0.71 (–)** |" in text
    assert "| margin | SAL | −10.00, 1 of 2 seeds (–) |" in text
    assert "| entropy | SAL | – (–) |" in text
    assert "- missing (no journal), digits 71+142..359, seeds 0, 1: entropy." in text
    assert "- diverged (the loss was not finite in round 1), digits 71+142..359, seeds 0: margin." in text
    assert "Runs: 5 of 8 complete, 1 diverged, 2 missing. Trained on cpu, jax 0.10.2, commit 0123456789ab;" in text
    assert "scale half; preset paper; seeds 0, 1; epochs digits 20; accuracy is that of the last epoch" in text
    table = pd.read_csv(tmp_path / "reports" / "table3.csv", comment="#").set_index("method")
    assert list(table.index) == ["random", "badge", "margin", "entropy"]
    assert table.loc["badge", "api"] == pytest.approx(2.5)
    assert table.loc["badge", "published_api"] != table.loc["badge", "published_api"], "none for digits"
