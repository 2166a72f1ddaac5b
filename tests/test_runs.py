"""What journals say is complete, what is grouped, launched and continued, and what fails."""

import json
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planned import CURVE, FLAGS, GRID, grid, note, run_of, write

sys.path.insert(0, str(Path(__file__).parent.parent))  # the experiments are not part of the package

from experiments import all as everything
from experiments import command, fig5, fig8, launchers, runs, table3
from experiments.plans import PLANS, Options, Run
from experiments.records import Records
from jaxdal.comparison import COMPLETE, CONFLICT, DIVERGED, MISSING, PARTIAL


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
    monkeypatch.setattr("jaxdal.commands.cache_programs", lambda: None)
    return types.SimpleNamespace(calls=calls, together=together)


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


def test_jobs_that_were_submitted_find_their_groups(tmp_path):
    """Keys of commit 37387c6, when runs had no options of their own."""
    options = Options(datasets=("mnist",))
    of = [runs.groups(PLANS["table5"](one), Records(tmp_path)) for one in (options, options._replace(batch=64))]
    keys = [[group.key for group in groups] for groups in of]
    assert keys[0] == ["b9424f6572", "d524799c89"]
    assert not {*keys[0]} & {*keys[1]}
    assert [of[0][0].name, of[1][0].name] == [
        f"mnist 1200+1200..12000{way}, seeds 0,1,2,3,4" for way in ("", ", batch 64")
    ]


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
