"""Launchers with small commands: one job, the script that Slurm would run, and a local Ray cluster."""

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from planned import run_of, write

sys.path.insert(0, str(Path(__file__).parent.parent))  # the experiments are not part of the package

from experiments import command, launchers, published, runs, table3
from experiments import options as flags
from experiments.launchers import LAUNCHERS, Job, attempt, described, launch, log_of
from experiments.plans import PLANS
from experiments.records import Records
from jaxdal import InputError

ROOT = Path(__file__).parent.parent
ODD = [
    "",
    "two words",
    "a \"b\" 'c'",
    "$HOME `id` $(id)",
    "back\\slash",
    "*",
    "é",
    "#",
    "JOBS",
    "line\nbreak",
    "a;b&c|d>e",
]
KILL_PARENT = "os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)"


def says(name: str, text: str, code: int = 0) -> Job:
    return Job(name, ("-c", f"import sys; print({text!r}); sys.exit({code})"))


def gone(pid: int) -> bool:
    """Does a process end within some seconds? One that nobody waits for is left as a zombie."""
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def tried(job: Job, out: Path) -> launchers.End:
    out.mkdir(exist_ok=True)
    (out / "logs").mkdir(exist_ok=True)
    return attempt(job.argv, os.getcwd(), log_of(job, out), {"OF_THE_JOB": "carried"})


def test_a_job_leaves_its_output_and_says_how_it_ended(tmp_path):
    job = says("a/b (c=1)", "no such data", 2)
    code, seconds, said = tried(job, tmp_path)
    assert (code, said) == (2, "no such data\n")
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["a%2Fb (c=1).log"]
    told = described((code, 3.2, said), log_of(job, tmp_path))
    assert told == f"failed with exit code 2 after 3 s, see {log_of(job, tmp_path)}\n    no such data"
    good = Job(job.name, ("-c", "import os; print(os.environ['OF_THE_JOB'])"))
    code, seconds, said = tried(good, tmp_path)
    assert (code, said, seconds > 0) == (0, "carried\n", True)
    assert log_of(job, tmp_path).read_text() == "no such data\ncarried\n"
    assert described((0, 3.2, said), log_of(job, tmp_path)) == "done after 3 s"


def test_a_failure_shows_only_what_it_said_itself(tmp_path):
    assert 1000 < len(tried(says("one", "x" * 9000 + "END OF FIRST", 1), tmp_path)[2]) < 3000
    end = tried(Job("one", ("-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")), tmp_path)
    assert "END OF FIRST" not in end[2]
    assert "ended by SIGKILL" in described(end, tmp_path)


def test_jobs_run_in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("import sys; print(sys.argv[1:])")
    assert tried(Job("odd", ("-m", "mine", *ODD)), Path("out"))[0] == 0
    assert (tmp_path / "out/logs/odd.log").read_text() == f"{ODD}\n"


def test_an_interrupt_ends_the_job(tmp_path):
    code = "import os, signal, time; print(os.getpid()); os.kill(os.getppid(), signal.SIGINT); time.sleep(60)"
    job = Job("sleeps", ("-c", code))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            tried(job, tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert gone(int(log_of(job, tmp_path).read_text()))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_no_job_outlives_a_killed_launcher(tmp_path):
    log = tmp_path / "log"
    argv = ("-c", f"import os, signal, time; print(os.getpid(), flush=True); {KILL_PARENT}")
    code = f"from experiments.launchers import *; attempt({argv!r}, '.', Path({str(log)!r}), {{}})"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert gone(int(log.read_text()))


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_nothing_left_is_a_success(launcher, tmp_path):
    assert launch([], launcher, tmp_path / "out") == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("jobs", "launcher", "options", "message"),
    [
        ([says("a", "")], "condor", {}, "There is no launcher 'condor': choose from slurm, ray."),
        ([says("a", ""), says("a", "")], "slurm", {}, "Several jobs are called 'a'."),
        ([says("a", "")], "ray", {"gpus": 1.5}, "share of one GPU or whole GPUs, not 1.5"),
        ([says("a", "")], "slurm", {"gpus": -1}, "share of one GPU or whole GPUs, not -1"),
        ([says("a", "")], "slurm", {"gpus": 0.5}, "Slurm gives whole GPUs, not 0.5."),
        ([says("a", "")], "slurm", {"sbatch": "--a\n--b"}, "Options of sbatch are one line."),
    ],
)
def test_what_cannot_be(jobs, launcher, options, message, tmp_path):
    with pytest.raises(InputError) as caught:
        launch(jobs, launcher, tmp_path, **options)
    assert message in str(caught.value)


def tasks(script: Path, count: int, folder: Path) -> list[int]:
    """Run the script as Slurm does for each index of the array, in any folder; -> exit codes."""
    return [
        subprocess.run(
            ["bash", str(script)], cwd=folder, env={**os.environ, "SLURM_ARRAY_TASK_ID": str(index)}, check=False
        ).returncode
        for index in range(count)
    ]


def test_slurm_runs_every_job_as_it_was_given(tmp_path, monkeypatch, capfd):
    home, elsewhere, out = tmp_path / "it's $HOME", tmp_path / "elsewhere", tmp_path / 'out "1" #2 3%4'
    home.mkdir()
    elsewhere.mkdir()
    (home / "mine.py").write_text("import json, sys; print(json.dumps(sys.argv[1:]))")
    monkeypatch.chdir(home)
    jobs = [Job("all / of 'them'", ("-m", "mine", *ODD)), says("fails", "no", 3), Job("c", ("-m", "mine", "--x={a,b}"))]
    assert launch(jobs, "slurm", out, sbatch="--partition=long --time=8:00:00") == 0
    script = out / "array.sbatch"
    assert capfd.readouterr().out == f"sbatch {shlex.quote(str(script))}\n"
    assert len((out / "jobs.txt").read_text().splitlines()) == 3

    copy = elsewhere / "slurm_script"  # what Slurm keeps, whatever is written later
    copy.write_text(script.read_text())
    assert launch(jobs[2:], "slurm", out) == 0
    subprocess.run(["bash", "-n", str(copy)], check=True)
    assert tasks(copy, 3, elsewhere) == [0, 3, 0]
    assert capfd.readouterr().out.count("\n") == 1, "all that jobs say is in their logs"
    assert json.loads(log_of(jobs[0], out).read_text()) == ODD
    assert log_of(jobs[1], out).read_text() == "no\n"
    assert json.loads(log_of(jobs[2], out).read_text()) == ["--x={a,b}"]

    assert tasks(script, 1, elsewhere) == [0]  # a requeued one goes on in its log
    assert log_of(jobs[2], out).read_text() == '["--x={a,b}"]\n' * 2
    lines = (out / "jobs.txt").read_text().splitlines()  # and each line is a command for any shell
    assert subprocess.run(["sh", "-c", *lines], check=False).returncode == 0
    assert log_of(jobs[2], out).read_text() == '["--x={a,b}"]\n' * 3


def test_jobs_of_slurm_have_the_path_of_modules_and_say_what_they_do(tmp_path, monkeypatch, capfd):
    for name in ("here", "my modules"):
        (tmp_path / name).mkdir()
    (tmp_path / "my modules" / "mine.py").write_text("print('found')")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PYTHONPATH", f"../my modules:{tmp_path}")
    job = Job("one", ("-m", "mine"), "badge,\n#SBATCH --wrong; 3 minutes")
    assert launch([job], "slurm", tmp_path / "out") == 0
    monkeypatch.delenv("PYTHONPATH")
    script = tmp_path / "out" / "array.sbatch"
    assert tasks(script, 1, tmp_path) == [0]
    assert log_of(job, tmp_path / "out").read_text() == "found\n"
    assert "\n# 0: one badge, #SBATCH --wrong; 3 minutes\nset -euo pipefail\n" in script.read_text()
    assert capfd.readouterr().err == "  0: one badge, #SBATCH --wrong; 3 minutes\n1 job is written. To submit it:\n"
    assert launch([job, says("other", "")], "slurm", tmp_path / "out") == 0
    assert capfd.readouterr().err.endswith("  1: other\n2 jobs are written. To submit them:\n")


def heads(out: Path, **options) -> list[list[str]]:
    """What sbatch reads of the script: it takes quotes, backslashes and # as a shell does."""
    assert launch([says("a", ""), says("b", "")], "slurm", out, **options) == 0
    lines = (out / "array.sbatch").read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    found = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]
    assert lines[1 : 1 + len(found)] == [f"#SBATCH {line}" for line in found], "sbatch reads up to the first command"
    return [shlex.split(line, comments=True) for line in found]


def test_slurm_is_asked_for_what_jobs_need(tmp_path):
    out = tmp_path / 'a "b" #c 100%'
    found = [option for line in heads(out, sbatch="--partition=long --time=8:00:00") for option in line]
    assert "--array=0-1" in found
    assert "--gres=gpu:1" in found
    assert "--requeue" in found
    assert f'--output={out.parent}/a "b" #c 100%%/logs/slurm-%a.log' in found
    assert found[-2:] == ["--partition=long", "--time=8:00:00"], "the last word is the user's"
    assert ["--gres=gpu:4"] in heads(out, gpus=4)
    for options in ({"gpus": 0}, {"sbatch": "--gpus-per-node=a100:1"}, {"sbatch": "-t 60 -G 2"}):
        assert "gres" not in str(heads(out, **options))
    assert ["--gres=gpu:1"] in heads(out, sbatch="--time=1-00 --comment=--gpus")


def test_slurm_submits_only_when_asked_to(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(InputError, match="There is no sbatch here"):
        launch([says("a", "")], "slurm", tmp_path / "out", submit=True)
    fake, told = tmp_path / "bin/sbatch", tmp_path / "told"
    fake.write_text(f'#!/bin/sh\necho "$@" >{told}\nexit 7\n')
    fake.chmod(0o755)
    assert launch([says("a", "")], "slurm", tmp_path / "out") == 0
    assert not told.exists()
    assert launch([says("a", "")], "slurm", tmp_path / "out", submit=True) == 7
    assert told.read_text() == f"{tmp_path}/out/array.sbatch\n"


METHODS = ",".join([*published.SAL, "entropy", *published.SSAL])  # of each kind, an even number that are trained alike


def asked(out: Path, *more: str) -> tuple[list[runs.Group], list[Job]]:
    """The groups of a command, and its jobs."""
    given = flags.parse(flags.parser("x", None), [f"--strategies={METHODS}", f"--results={out}", "--scale=half", *more])
    found = runs.of_command(PLANS["table3"](flags.options(given)), Records(out), given)
    return found, runs.jobs(found, given, ["table3"])


@pytest.mark.parametrize(
    ("dataset", "more", "sizes"),
    [
        ("mnist", (), [5, 5, 4, 1, 1, 4]),  # LeNet: 32 at once, five seeds of six methods
        ("mnist", ("--seeds=0",), [14, 1, 1, 4]),
        ("mnist", ("--gpus=2",), [7, 7, 1, 1, 4]),
        ("mnist", ("--gpus=0",), [1] * 20),  # 8 at once on a CPU
        ("mnist", ("--pack=1",), [1] * 20),  # alone
        ("mnist", ("--together=3",), [3, 3, 3, 3, 2, 1, 1, 3, 1]),
        ("cifar10", (), [1] * 20),  # thin ResNet-18: 4 or 5 at once
        ("cifar10", ("--seeds=0,1",), [*[2] * 7, 1, 1, 2, 2]),
    ],
)
def test_a_job_trains_as_many_runs_as_its_device_does_with_profit(tmp_path, dataset, more, sizes):
    found, jobs = asked(tmp_path, f"--datasets={dataset}", "--launcher=slurm", *more)
    assert [len(group.members) for group in found] == sizes
    assert [job.name for job in jobs] == [group.key for group in found]
    for group, job in [(found[0], jobs[0]), (found[-1], jobs[-1])]:
        names = ", ".join(member.run.strategy for member in group.members)
        assert re.fullmatch(rf"{dataset} \d\S*, seeds [\d,]+: {names}; .+ on one H100 \(estimate\)", job.told)
        assert job.argv[-1] == f"--only={group.key}"
        again, _ = asked(tmp_path, *job.argv[4:])
        assert [one for one in again if one.key == group.key] == [group], "a job finds its group, without a launcher"


def test_a_job_has_its_key_and_its_methods_whatever_is_done(tmp_path):
    more = ("--datasets=digits", "--seeds=0,1", "--launcher=ray", "--together=5")
    before, _ = asked(tmp_path, *more)
    for name in ("random", "albl"):
        write(tmp_path / name, run_of(name), {0: [0.5, 0.6, 0.7], 1: [0.5, 0.6, 0.7]})
    after, jobs = asked(tmp_path, *more)
    assert [group.key for group in after] == [group.key for group in before]
    assert jobs[0].told.startswith("digits 71+142..359, seeds 0,1: adversarial_bim, bald, badge; less than a minute ")


def test_what_failed_in_a_job_is_told_without_a_launcher(tmp_path, monkeypatch):
    more = ("--datasets=digits", "--seeds=0,1")
    (first, second, *_), _ = asked(tmp_path, *more, "--launcher=slurm", "--together=7")
    note = tmp_path / "failed" / f"{second.key}.txt"
    note.parent.mkdir()
    note.write_text("digits: badge\nTraceback\nValueError: no\n")
    arguments = [f"--strategies={METHODS}", f"--results={tmp_path}", "--scale=half", *more, "--norun"]
    assert command.main("table3", "", table3.render, arguments) == 0
    text = (tmp_path / "reports" / "table3.md").read_text()
    assert f"- Failed: {second.key}  digits: badge: ValueError: no (all of it: " in text
    monkeypatch.setattr(runs, "run_together", lambda *_: [])
    for group in first, asked(tmp_path, *more)[0][0]:  # the other half; all of them here
        assert note.exists()
        assert runs.work([group], tmp_path) == []
    assert not note.exists()


def test_ray_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[ray\]'"):
        launch([says("a", "")], "ray", tmp_path)


ON_RAY = """
import sys
from pathlib import Path
import ray
from experiments import launchers
from experiments.launchers import Job

jobs = [Job(name, ("-c", "import os, signal, sys, time\\n" + code)) for name, code in eval(sys.argv[2]).items()]
launchers.RETRIES = 1
ray.init(num_cpus=2, include_dashboard=False, logging_level="warning")
code = launchers.launch(jobs, "ray", Path(sys.argv[1]))
assert ray.is_initialized(), "a cluster of somebody else is left alone"
ray.shutdown()
sys.exit(code + 10)
"""


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the optional extra 'ray'")
def test_ray_reports_failures_and_repeats_what_was_lost(tmp_path, monkeypatch):
    """In a process of its own: Ray forks, which JAX, if it is loaded, warns of."""
    marker = tmp_path / "marker"
    lost_once = (
        f"p = {str(marker)!r}\nif os.path.exists(p): print('again'); sys.exit()\nopen(p, 'w').write(str(os.getpid()))"
    )
    jobs = {
        "good": "print(os.environ['JAX_TEST_OF_LAUNCHERS'], os.getcwd(), os.environ.get('CUDA_VISIBLE_DEVICES'))",
        "bad": "print('no such data'); sys.exit(2)",
        "lost once": f"{lost_once}\n{KILL_PARENT}",
        "lost always": f"print('try', flush=True); {KILL_PARENT}",
        "no log": "",
        "late": "print('late')",
    }
    monkeypatch.setenv("JAX_TEST_OF_LAUNCHERS", "carried")
    log_of(Job("no log", ()), tmp_path / "out").mkdir(parents=True)
    command = [sys.executable, "-c", ON_RAY, str(tmp_path / "out"), repr(jobs)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 11, done.stderr
    assert "Ray: 2 CPUs, 0 GPUs; 6 jobs with 0 GPUs each." in done.stderr
    assert "bad: failed with exit code 2" in done.stderr
    assert "\n    no such data\n" in done.stderr
    assert "lost always: failed: " in done.stderr
    assert "no log: failed: [Errno 21] Is a directory" in done.stderr
    for name in ("good", "lost once", "late"):
        assert f"] {name}: done after" in done.stderr
    failed = done.stderr.split("3 of 6 jobs failed: ")[1].split(".")[0]
    assert sorted(failed.split(", ")) == ["bad", "lost always", "no log"]
    logs = {name: log_of(Job(name, ()), tmp_path / "out").read_text() for name in jobs if name != "no log"}
    assert logs["good"].startswith(f"carried {ROOT} ")
    assert logs["lost once"] == "again\n"
    assert logs["lost always"] == "try\ntry\n"
    assert gone(int(marker.read_text())), "what was lost has ended before it is tried again"
