"""What journals say is complete, what is grouped, continued and reported; and one table and figure in small."""

import importlib
import json
import sys
import types
from pathlib import Path

import journals
import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # the experiments are not part of the package

from experiments import all as everything
from experiments import (
    case,
    command,
    drawing,
    fig2,
    fig3,
    fig5,
    fig8,
    launchers,
    published,
    runs,
    table2,
    table3,
    table4,
    table5,
)
from experiments.plans import PLANS, Options, Run
from experiments.records import Records, resolved
from jaxdal.comparison import COMPLETE, CONFLICT, DIVERGED, MISSING, PARTIAL

GRID = Options(datasets=("digits",), scale="half", strategies=("badge", "margin"), seeds=(0, 1))
CURVE = [0.5, 0.6, 0.7]  # the three rounds of the grid on digits at half scale
FLAGS = ["--datasets=digits", "--scale=half", "--strategies=badge,margin", "--seeds=0,1"]


def grid(**options) -> list[Run]:
    return PLANS["table3"](GRID._replace(**options))


def run_of(strategy: str, seed: int = 0) -> Run:
    return next(run for run in grid(strategies=(strategy,), seeds=(seed,)) if run.strategy == strategy)


def write(folder: Path, run: Run, curves: dict, **changed) -> Path:
    """A journal of a planned run, with the accuracies of each seed."""
    config = {key: value for key, value in resolved(run).config().items() if key != "seeds"}
    return journals.write(folder, curves, **config | changed)


@pytest.fixture
def trained(monkeypatch):
    """Journals are written in place of training; -> what was asked for. A strategy in `broken` cannot be trained."""
    calls: list[dict] = []

    def together(dataset, names, workdirs, results, options):
        calls.append({"dataset": dataset, "names": list(names), "workdirs": list(workdirs), **options})
        if set(names) & together.broken:
            raise RuntimeError(f"no {', '.join(sorted(set(names) & together.broken))}")
        seeds = options["seeds"]
        for name, folder in zip(names, workdirs, strict=True):
            run = Run(
                dataset, name, seeds[0], options["n_start"], options["n_query"], options["n_end"], options["epochs"],
                options["preset"], options["trainer"], options["eval_every"], pool_share=options.get("pool_share"),
            )  # fmt: skip
            if not (folder / "journal.jsonl").exists():
                rounds = run.budget.rounds
                first = 0.12 if "direct" in name else 0.1
                write(folder, run, {seed: [first + 0.1 * at for at in range(rounds)] for seed in seeds})
                if run.pool_share:
                    note(folder, pool_share=run.pool_share, pool_seed=options["pool_seed"])
        return []

    together.broken = set()
    monkeypatch.setattr(runs, "run_together", together)
    monkeypatch.setattr("jaxdal.main.cache_programs", lambda: None)
    return types.SimpleNamespace(calls=calls, together=together)


def note(folder: Path, **notes) -> None:
    """Add notes to the first line of a journal."""
    first, rest = (folder / "journal.jsonl").read_text().split("\n", 1)
    (folder / "journal.jsonl").write_text(json.dumps(json.loads(first) | notes) + "\n" + rest)


def main(tmp_path: Path, *more: str) -> int:
    return runs.main(["--plan=table3", *FLAGS, f"--results={tmp_path}", *more])


def test_states(tmp_path):
    assert run_of("badge").budget.labels == [71, 213, 355]
    write(tmp_path / "a", run_of("badge"), {0: CURVE[:2], 1: CURVE[:2], 2: [0.5, None]})
    records = Records(tmp_path)
    states = [records.state(run_of("badge", seed)) for seed in range(4)]
    assert [state for state, _ in states] == [PARTIAL, PARTIAL, DIVERGED, MISSING]
    assert states[0][1] == "2 of 3 rounds"
    assert records.state(run_of("margin"))[0] == MISSING
    write(tmp_path / "b", run_of("badge"), {0: CURVE, 7: CURVE})
    assert Records(tmp_path).state(run_of("badge"))[0] == COMPLETE, "the journal that got furthest"


def test_journals_that_disagree_are_in_no_number_and_trained_by_nobody(tmp_path, trained):
    for strategy in ("random", "margin"):
        write(tmp_path / strategy, run_of(strategy), {0: CURVE, 1: CURVE})
    one = write(tmp_path / "one", run_of("badge"), {0: CURVE, 1: CURVE})
    other = write(tmp_path / "other", run_of("badge"), {1: [0.5, 0.61]})
    records = Records(tmp_path)
    assert [records.state(run_of("badge", seed))[0] for seed in (0, 1)] == [COMPLETE, CONFLICT]
    assert len(records.frame(grid())) == 5 * len(CURVE)
    experiment, _ = records.experiment(grid())
    assert experiment is not None
    assert experiment.finished("badge") == [0]
    assert command.main("table3", "", table3.render, [*FLAGS, f"--results={tmp_path}", "--norun"]) == 0
    text = (tmp_path / "reports" / "table3.md").read_text()
    told = f"journals disagree from round 1 on, so it is in no number: {one}, {other}"
    assert f"- in conflict ({told}), digits 71+142..359, seeds 1: badge." in text
    assert "Runs: 5 of 6 complete, 1 in conflict." in text
    assert main(tmp_path) == 0
    assert not trained.calls


def test_what_is_pooled_over_precisions_or_images_is_said(tmp_path):
    curves = {0: [0.1, 0.2], 1: [0.1, 0.2]}
    for share in ("20%", None):
        plan = PLANS["fig5"](Options(("digits",), scale="smoke", seeds=(0, 1)))
        for run in (run for run in plan if run.pool_share == share):
            curve = {run.seed: [0.1 + 0.1 * at for at in range(run.budget.rounds)]}
            different = {"precision": "bf16"} if (share, run.seed) == (None, 1) else {}
            folder = write(
                tmp_path / f"{share} {run.strategy} {run.seed}",
                run,
                curve,
                fingerprint=f"{share} of {run.seed}" if share else "all",
                **different,
            )
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


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, True),
        ({"pack": 3, "precision": "bf16", "fingerprint": "elsewhere"}, True),
        ({"eval_every": 1}, True),
        ({"eval_every": 5}, False),
        ({"epochs": 21}, False),
        ({"learning_rate": 0.01}, False),
        ({"trainer": "mixmatch"}, False),
        ({"preset": "clean"}, False),
        ({"decay_kernels_only": True}, False),
        ({"n_query": 71}, False),
        ({"dataset": "mnist"}, False),
        ({"pool": 1400}, False),
    ],
)
def test_only_the_same_experiment_counts(tmp_path, changed, found):
    curve = [*CURVE, 0.8, 0.9] if "n_query" in changed else CURVE
    write(tmp_path / "a", run_of("badge"), {0: curve}, **changed)
    records = Records(tmp_path)
    assert (records.of(run_of("badge")) is not None) == found
    best = run_of("badge")._replace(eval_every=1)
    assert (records.of(best) is not None) == (changed == {"eval_every": 1}), "best accuracies were asked for"


def test_a_journal_from_before_an_option_was_there_counts(tmp_path):
    folder = write(tmp_path / "a", run_of("badge"), {0: CURVE})
    first, rest = (folder / "journal.jsonl").read_text().split("\n", 1)
    header = json.loads(first)
    assert header["config"].pop("decay_kernels_only") is False
    (folder / "journal.jsonl").write_text(json.dumps(header) + "\n" + rest)
    assert Records(tmp_path).state(run_of("badge"))[0] == COMPLETE


def test_runs_alone_are_a_world_of_their_own(tmp_path):
    write(tmp_path / "alone" / "a", run_of("badge"), {0: CURVE}, pack=1)
    alone = run_of("badge")._replace(pack=1)
    assert Records(tmp_path).state(run_of("badge"))[0] == MISSING
    assert Records(tmp_path).state(alone)[0] == COMPLETE
    (group,) = runs.groups([alone._replace(seed=1)], Records(tmp_path))
    assert runs.workdir(group.members[0], tmp_path).is_relative_to(tmp_path / "alone")


def test_what_is_trained_alike_is_one_group(tmp_path):
    names = ("badge", "learning_loss", "waal", "ssl_random", "vaal", "ssl_consistency")
    found = runs.groups(grid(strategies=names), Records(tmp_path))
    assert [[member.run.strategy for member in group.members] for group in found] == [
        ["random", "badge", "vaal"], ["learning_loss"], ["waal"], ["ssl_random", "ssl_consistency"]
    ]  # fmt: skip
    assert {member.seeds for group in found for member in group.members} == {(0, 1)}
    assert len({group.key for group in found}) == 4
    pieces = runs.groups(grid(strategies=names), Records(tmp_path), together=2)
    assert [len(group.members) for group in pieces] == [2, 1, 1, 1, 2]
    assert len({group.key for group in pieces}) == 5
    folders = [runs.workdir(member, tmp_path) for group in found for member in group.members]
    assert len(set(folders)) == 7


def test_later_seeds_are_added_and_nothing_is_replaced(tmp_path, trained):
    assert main(tmp_path) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("journal.jsonl")}
    assert [call["seeds"] for call in trained.calls] == [[0, 1]]
    assert trained.calls[0]["names"] == ["random", "badge", "margin"]
    assert main(tmp_path) == 0
    assert len(trained.calls) == 1, "all is complete"
    assert main(tmp_path, "--seeds=0-3") == 0
    assert [call["seeds"] for call in trained.calls] == [[0, 1], [2, 3]]
    after = {path: path.read_bytes() for path in tmp_path.rglob("journal.jsonl")}
    assert len(after) == 6
    assert before.items() <= after.items()
    records = Records(tmp_path)
    assert {records.state(run)[0] for run in grid(seeds=(0, 1, 2, 3))} == {COMPLETE}
    experiment, told = records.experiment(grid(seeds=(1, 2)))
    assert experiment is not None
    assert not told
    assert experiment.seeds == [1, 2], "the seeds of the plan, whatever else a journal has"
    assert experiment.methods == ["random", "badge", "margin"]


def test_a_seed_that_a_journal_has_is_continued_there_with_all_of_its_seeds(tmp_path, trained):
    folder = write(tmp_path / "old", run_of("badge"), {0: CURVE[:1], 5: CURVE[:1]}, pack=7, precision="bf16")
    found = runs.groups(grid(), Records(tmp_path))
    keys = {group.key for group in found}
    assert main(tmp_path) == 0
    by = {(tuple(call["names"]), tuple(call["seeds"])): call for call in trained.calls}
    assert set(by) == {(("random", "margin"), (0, 1)), (("badge",), (0, 5)), (("badge",), (1,))}
    continued = by[("badge",), (0, 5)]
    assert continued["workdirs"] == [folder]
    assert (continued["precision"], continued["pack"]) == ("bf16", 7), "as the journal has it, or it would be refused"
    assert by[("badge",), (1,)]["precision"] == "auto"
    assert {group.key for group in runs.groups(grid(), Records(tmp_path))} == keys


def test_keys_do_not_depend_on_what_is_done(tmp_path, trained):
    plan = grid(strategies=("badge", "ssl_random", "ssl_consistency"))
    before = runs.groups(plan, Records(tmp_path))
    write(tmp_path / "digits" / "x", run_of("badge"), {0: CURVE, 1: CURVE})
    write(tmp_path / "digits" / "y", run_of("ssl_random"), {0: CURVE[:1], 1: CURVE[:1]})
    after = runs.groups(plan, Records(tmp_path))
    assert [group.key for group in before] == [group.key for group in after]
    assert [group.state for group in before] == ["missing", "missing"]
    assert [group.state for group in after] == ["partly done", "partly done"]
    assert main(tmp_path, "--strategies=badge,ssl_random,ssl_consistency", f"--only={after[1].key}") == 0
    assert [call["names"] for call in trained.calls] == [["ssl_random", "ssl_consistency"]]
    assert [group.state for group in runs.groups(plan, Records(tmp_path))] == ["partly done", "partly done"]


def test_a_failure_stops_nobody_and_is_reported(tmp_path, trained, capsys):
    trained.together.broken = {"margin"}
    assert main(tmp_path, "--strategies=margin,badge,ssl_random") == 1
    error = capsys.readouterr().err
    assert "digits 71+142..359, seeds 0,1: margin: RuntimeError: no margin (all of it: " in error
    assert "again: python -m experiments.runs" in error
    tried = [call["names"] for call in trained.calls]
    assert tried == [["random", "margin", "badge"], ["random"], ["margin"], ["badge"], ["ssl_random"]]
    records = Records(tmp_path)
    states = {run.strategy: records.state(run)[0] for run in grid(strategies=("margin", "badge", "ssl_random"))}
    assert states == {"random": COMPLETE, "margin": MISSING, "badge": COMPLETE, "ssl_random": COMPLETE}
    assert main(tmp_path, "--strategies=margin,badge,ssl_random", "--list") == 0
    told = capsys.readouterr().out
    assert "partly done, failed" in told
    assert "margin: 2 missing" in told
    assert "6 complete, 2 missing in all" in told
    flags = ["--datasets=digits", "--scale=half", "--seeds=0,1", f"--results={tmp_path}", "--norun"]
    assert command.main("table3", "", table3.render, [*flags, "--strategies=margin,badge"]) == 0
    text = (tmp_path / "reports" / "table3.md").read_text()
    assert "- missing (no journal), digits 71+142..359, seeds 0, 1: margin." in text
    assert "digits 71+142..359, seeds 0,1: margin: RuntimeError: no margin (all of it: " in text
    trained.together.broken = set()
    assert main(tmp_path, "--strategies=margin,badge,ssl_random") == 0
    assert trained.calls[-1]["names"] == ["random", "margin", "badge"], "what is complete keeps its place"
    assert not list((tmp_path / "failed").iterdir())
    assert command.main("table3", "", table3.render, [*flags, "--strategies=margin,badge"]) == 0
    assert "RuntimeError" not in (tmp_path / "reports" / "table3.md").read_text()


def test_a_broken_journal_is_named(tmp_path, capsys):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "journal.jsonl").write_text("what is this?\n")
    assert main(tmp_path, "--list") == 0
    assert "bad" in capsys.readouterr().out


def test_shares_of_a_pool_are_a_journal_for_each_seed(tmp_path, trained):
    flags = ["--plan=fig5", "--datasets=digits", "--scale=half", "--seeds=0,1", f"--results={tmp_path}"]
    assert runs.main(flags) == 0
    shares = [(call.get("pool_share"), call.get("pool_seed"), call["seeds"]) for call in trained.calls]
    assert shares[:2] == [("20%", 0, [0]), ("20%", 1, [1])]
    assert shares[-1] == (None, None, [0, 1])
    assert len(shares) == 4 * 2 + 1
    assert {call["n_start"] for call in trained.calls} == {143}
    records = Records(tmp_path)
    plan = PLANS["fig5"](Options(datasets=("digits",), scale="half", seeds=(0, 1)))
    assert {records.state(run)[0] for run in plan} == {COMPLETE}
    assert runs.main(flags) == 0
    assert len(trained.calls) == 9
    assert command.main("fig5", "", fig5.render, flags[1:]) == 0
    table = pd.read_csv(tmp_path / "reports" / "fig5.csv", comment="#")
    assert len(table) == 5 * 3 * 2, "shares, rounds, seeds"
    assert sorted(table["share"].unique()) == [20, 40, 60, 80, 100]
    np.testing.assert_allclose(table["gap"], 2)
    text = (tmp_path / "reports" / "fig5.md").read_text()
    assert "| digits | 40% | 432 | 215 | 22.00 | 20.00 | +2.00 ± 0.00 | 2/2 |" in text


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


def test_figure_5_says_where_nothing_is_left_to_choose(tmp_path):
    assert command.main("fig5", "", fig5.render, [f"--results={tmp_path}", "--norun"]) == 0
    text = (tmp_path / "reports" / "fig5.md").read_text()
    assert "- CIFAR-10: of 20% of the pool nothing is left unlabelled after the last query, so that the gap" in text


def test_a_sweep_takes_the_last_round_of_finished_runs(tmp_path, trained):
    flags = ["--datasets=digits", "--scale=half", "--seeds=0,1", f"--results={tmp_path}"]
    assert command.main("fig8", "", fig8.render, [*flags, "--strategies=badge"]) == 0
    before = pd.read_csv(tmp_path / "reports" / "fig8.csv", comment="#")
    assert len(before) == (5 + 4) * 2
    runs_of = {tuple(run.budget): run for run in PLANS["fig8"](GRID._replace(strategies=("badge",)))}
    for row in before.itertuples():
        rounds = runs_of[row.n_start, row.n_query, row.n_end].budget.rounds
        assert row.final == pytest.approx(10 + 10 * (rounds - 1))
        assert row.mean_of_rounds == pytest.approx(10 + 5 * (rounds - 1))
    (one,) = [path for path in tmp_path.rglob("journal.jsonl") if '"n_query":576' in path.read_text()]
    lines = one.read_text().splitlines(keepends=True)
    one.write_text("".join(lines[:3]))  # the first line, and round 0 of both seeds
    assert command.main("fig8", "", fig8.render, [*flags, "--strategies=badge", "--norun"]) == 0
    after = pd.read_csv(tmp_path / "reports" / "fig8.csv", comment="#")
    assert len(after) == len(before) - 2
    text = (tmp_path / "reports" / "fig8.md").read_text()
    assert "- partial (1 of 2 rounds), digits 143+576..719, seeds 0, 1: badge." in text
    assert "| (b) digits, by query size | BadgeSampling | 40.1 % (576) | 2 | 719 | – | – | 0/2 |" in text


def test_other_launchers_get_a_job_for_each_group(tmp_path, trained, monkeypatch):
    launched: list = []

    def launch(jobs, launcher, out, **options):
        launched.append((jobs, launcher, out, options))
        return 3

    monkeypatch.setattr(launchers, "launch", launch)
    flags = ("--launcher=slurm", "--gpus=2", "--sbatch=--time=8:00:00", "--strategies=badge,ssl_random")
    assert main(tmp_path, *flags) == 1, "the launcher's code is not 0"
    ((jobs, launcher, out, options),) = launched
    assert (launcher, out) == ("slurm", tmp_path)
    assert options == {"sbatch": "--time=8:00:00", "submit": False, "address": None, "gpus": 2.0}
    assert [one.name for one in jobs] == [
        group.key for group in runs.groups(grid(strategies=("badge", "ssl_random")), Records(tmp_path))
    ]
    assert not trained.calls
    for one in jobs:
        assert one.argv[:2] == ("-m", "experiments.runs")
        assert runs.main(one.argv[2:]) == 0
    assert [call["names"] for call in trained.calls] == [["random", "badge"], ["ssl_random"]]
    assert main(tmp_path, "--launcher=slurm", "--strategies=badge,ssl_random") == 0
    assert len(launched) == 1, "nothing is left to launch"


def test_all_tables_and_figures_are_launched_together(tmp_path, trained, monkeypatch, capsys):
    launched: list = []
    monkeypatch.setattr(launchers, "launch", lambda jobs, *_, **__: launched.append(jobs) or 0)
    for name in set(PLANS) - {"table1", "table5", "fig4"}:  # three of them are slow enough
        monkeypatch.delitem(PLANS, name)
    flags = ["--scale=smoke", f"--results={tmp_path}"]
    assert everything.main([*flags, "--launcher=slurm"]) == 0
    (jobs,) = launched
    assert len(jobs) == 2 + 2, "supervised and semi-supervised; two starts"
    for one in jobs:
        assert runs.main(one.argv[2:]) == 0
    assert len(trained.calls) == 4
    assert everything.main(flags) == 0
    assert len(trained.calls) == 4, "nothing is left to do"
    for name in PLANS:
        text = (tmp_path / "reports" / f"{name}.md").read_text()
        assert " missing" not in text
        assert f"`python -m experiments.{name} " in text
    capsys.readouterr()
    assert everything.main([*flags, "--list"]) == 0
    assert "5 complete in all" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--only=nokey", "No group has the key nokey: --list prints those that there are."),
        ("--launcher=ray", "--launcher=ray needs Ray: pip install -e '.[ray]'."),
    ],
)
def test_bad_input_is_a_sentence(flag, message, tmp_path, trained, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    flags = ["--scale=smoke", f"--results={tmp_path}", flag]
    assert runs.main(["--plan=table3", *flags]) == 2
    assert command.main("table3", "", table3.render, flags) == 2
    assert everything.main(flags) == 2
    assert capsys.readouterr().err == f"{message}\n" * 3
    assert not trained.calls


def test_a_table_lists_its_groups(tmp_path, trained, capsys):
    assert command.main("table3", "", table3.render, [*FLAGS, f"--results={tmp_path}", "--list"]) == 0
    told = capsys.readouterr().out
    assert "6 missing in all" in told
    assert not trained.calls
    assert not (tmp_path / "reports").exists()
    key = told.split()[0]
    assert command.main("table3", "", table3.render, [*FLAGS, f"--results={tmp_path}", f"--only={key}"]) == 0
    assert len(trained.calls) == 1


def test_a_report_shows_what_is_missing_and_what_failed(tmp_path, trained):
    options = ["--datasets=digits", "--scale=half", "--seeds=0,1", f"--results={tmp_path}", "--norun"]
    write(tmp_path / "r", run_of("random"), {0: CURVE, 1: CURVE})
    write(tmp_path / "b", run_of("badge"), {0: [0.5, 0.63, 0.73], 1: [0.5, 0.63, 0.76]})
    write(tmp_path / "m", run_of("margin"), {0: [0.5, None], 1: [0.4, 0.5, 0.6]})
    assert command.main("table3", "", table3.render, [*options, "--strategies=badge,margin,entropy"]) == 0
    assert not trained.calls
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


def test_best_accuracy_has_a_deviation_and_is_not_what_is_tested(tmp_path):
    for place, strategy in enumerate(("random", "badge")):
        curves = {seed: [one + 0.01 * place * (seed + 1) for one in CURVE] for seed in (0, 1)}
        write(tmp_path / strategy, run_of(strategy), curves, eval_every=1, lines={"accuracy_best": 0.8 + 0.1 * place})
    flags = ["--datasets=digits", "--scale=half", "--seeds=0,1", f"--results={tmp_path}", "--norun"]
    assert command.main("table3", "", table3.render, [*flags, "--strategies=badge", "--best"]) == 0
    text = (tmp_path / "reports" / "table3.md").read_text()
    assert "| BadgeSampling ★ | SAL | **+10.00 ± 0.00 (–)** |" in text
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


@pytest.mark.usefixtures("quick_compilation")
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
