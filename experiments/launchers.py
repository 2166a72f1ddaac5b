"""Where the commands of a sweep run, if not here: as an array of Slurm, or on a Ray cluster.

Every job is one command of Python that skips what is complete and continues where it was stopped. So a launcher need
not know what a job does, and starting a sweep again is always right. Jobs run in the current folder and leave their
output in OUT/logs/NAME.log. That folder, OUT and the results must be on a file system that all machines share.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from jaxdal.cost import now
from jaxdal.errors import InputError

GRACE = 10.0  # seconds that a job has to end in when it is told to
TAIL = 2000  # bytes of a failed job's output that are shown
RETRIES = 5  # of a job that Ray lost with its machine; one that fails by itself is not tried again
CARRIED = re.compile(r"PYTHONPATH|TFDS_DATA_DIR|XDG_CACHE_HOME|JAXDAL_COMMIT|(JAX|XLA)_\w+")  # what Ray's workers get


class Job(NamedTuple):
    """A command: what follows the name of the Python interpreter."""

    name: str
    argv: tuple[str, ...]
    told: str = ""  # what it does, for people


End = tuple[int, float, str]  # of a job: exit code, seconds, and the last that it said


class Options(NamedTuple):
    """What a launcher may be told."""

    sbatch: str = ""  # options of sbatch, as on its command line
    submit: bool = False  # run sbatch, too
    address: str | None = None  # of a Ray cluster; None: $RAY_ADDRESS, else one that runs here, else a new one here
    gpus: float | None = None  # of a job; None: one (with Ray, none if the cluster has none)


def launch(
    jobs: Sequence[Job], launcher: str, out: Path, *, sbatch: str = "", submit: bool = False,
    address: str | None = None, gpus: float | None = None,
) -> int:  # fmt: skip
    """Run jobs, or write the file that does: -> exit code, 0 if all succeeded (`slurm`: if it is written or submitted).

    out: the folder of logs. A job that fails ends no other. Raises InputError: an unknown launcher, two jobs of one
    name, impossible numbers of GPUs, no Ray, no cluster, no sbatch.
    """
    if launcher not in LAUNCHERS:
        raise InputError(f"There is no launcher {launcher!r}: choose from {', '.join(LAUNCHERS)}.")
    names = [job.name for job in jobs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"Several jobs are called {twice[0]!r}.")
    if gpus is not None and (gpus < 0 or (gpus > 1 and gpus % 1)):
        raise InputError(f"A job takes a share of one GPU or whole GPUs, not {gpus:g}.")
    if not jobs:
        _tell("Nothing is left to run.")
        return 0
    (out / "logs").mkdir(parents=True, exist_ok=True)
    return LAUNCHERS[launcher](jobs, out.resolve(), Options(sbatch, submit, address, gpus))


def slurm(jobs: Sequence[Job], out: Path, options: Options) -> int:
    """Write OUT/array.sbatch, a job array, and OUT/jobs.txt, its commands for whatever else reads such a list."""
    if "\n" in options.sbatch:
        raise InputError("Options of sbatch are one line.")
    # What is imported here is to be found there, whatever shell submits it: the folder is that of `cd` below.
    path = [f"PYTHONPATH={os.environ['PYTHONPATH']}"] if os.environ.get("PYTHONPATH") else []
    python = ["env", *path, sys.executable] if path else [sys.executable]
    lines = [f"{_quoted(*python, *job.argv)} >>{_quoted(str(log_of(job, out)))} 2>&1" for job in jobs]
    (out / "jobs.txt").write_text("".join(f"{line}\n" for line in lines))
    script = out / "array.sbatch"
    script.write_text(_script(lines, [_described(job) for job in jobs], out, options))
    submission = ["sbatch", str(script)]
    _tell("\n".join(f"  {index}: {_described(job)}" for index, job in enumerate(jobs)))
    if not options.submit:
        one = len(jobs) == 1
        _tell(f"{_count(len(jobs), 'job')} {'is' if one else 'are'} written. To submit {'it' if one else 'them'}:")
        print(shlex.join(submission), flush=True)
        return 0
    try:
        return subprocess.run(submission, check=False).returncode
    except FileNotFoundError:
        raise InputError(f"There is no sbatch here. Where Slurm is: {shlex.join(submission)}") from None


def on_ray(jobs: Sequence[Job], out: Path, options: Options) -> int:
    """One task of Ray for each job: it waits for its GPUs, and is tried again elsewhere if its machine is lost."""
    try:
        import ray
    except ImportError:
        raise InputError("--launcher=ray needs Ray: pip install -e '.[ray]'.") from None
    mine = not ray.is_initialized()
    if mine:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a cluster that is started here
        try:
            ray.init(address=options.address, logging_level="warning")
        except (ConnectionError, ValueError) as error:
            raise InputError(f"No Ray cluster answers at {options.address or 'the default address'}: {error}") from None
    # Workers need not be able to import this module: they get the function itself.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    there = ray.cluster_resources()
    gpus = options.gpus if options.gpus is not None else min(1.0, there.get("GPU", 0.0))
    environ = {name: value for name, value in os.environ.items() if CARRIED.fullmatch(name)}
    if 0 < gpus < 1:  # JAX would take most of the memory of a card that it shares
        environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    _tell(
        f"Ray: {_count(there.get('CPU', 0), 'CPU')}, {_count(there.get('GPU', 0), 'GPU')}; {_count(len(jobs), 'job')} "
        f"with {_count(gpus, 'GPU')}{' each' if len(jobs) > 1 else ''}. "
        f"Its machines must share {os.getcwd()} and {out}."
    )
    _tell("\n".join(f"  {_described(job)}" for job in jobs))
    remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(attempt)
    failed = []
    waiting = {
        remote.options(name=job.name).remote(job.argv, os.getcwd(), log_of(job, out), environ): job for job in jobs
    }
    try:
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            job = waiting.pop(done)
            try:
                end = ray.get(done)
                told, good = described(end, log_of(job, out)), not end[0]
            except ray.exceptions.RayError as error:  # lost too often, or no folder of ours where it ran
                told, good = f"failed: {getattr(error, 'cause', error)}", False
            _tell(f"[{len(jobs) - len(waiting)}/{len(jobs)}] {job.name}: {told}")
            failed += [job.name] * (not good)
    finally:
        for left in waiting:
            ray.cancel(left, force=True)
        if mine:
            ray.shutdown()
    if failed:
        told = f"{len(failed)} of {_count(len(jobs), 'job')} failed: {', '.join(failed)}."
        _tell(f"{told} The same command tries {'it' if len(failed) == 1 else 'them'} again.")
    return int(bool(failed))


def attempt(argv: Sequence[str], folder: str, log: Path, environ: Mapping[str, str]) -> End:
    """Run Python in a folder, its output to the end of `log`; environ: variables beside those of this process."""
    # Two processes must not write one result, so none outlives whoever would start it again.
    leash = ["setpriv", "--pdeathsig", "KILL"] if sys.platform == "linux" and shutil.which("setpriv") else []
    with log.open("ab") as file:
        start, begin = file.tell(), now()
        child = subprocess.Popen(
            [*leash, sys.executable, *argv], cwd=folder, env={**os.environ, "PYTHONUNBUFFERED": "1", **environ},
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            code, seconds = child.wait(), now() - begin
        finally:  # after Ctrl-C; nothing, if it has ended
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(GRACE)
            child.kill()
            child.wait()
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - TAIL))
        return code, seconds, file.read().decode(errors="replace")


def log_of(job: Job, out: Path) -> Path:
    """Where the output of a job goes: different names, different files."""
    return out / "logs" / f"{quote(job.name, safe='(),=+ ')}.log"


def _described(job: Job) -> str:
    """A job on one line."""
    return " ".join([job.name, *job.told.split()])


def _count(number: float, what: str) -> str:
    """So many, in words."""
    return f"{number:g} {what}{'' if number == 1 else 's'}"


def _script(lines: Sequence[str], contents: Sequence[str], out: Path, options: Options) -> str:
    """The text of array.sbatch, with the commands in it: Slurm keeps a copy, which no later sweep can change.

    contents: a line for each command, for people.

    Slurm's own messages, such as why it ended a job, go to OUT/logs/slurm-INDEX.log. A job that is requeued continues.
    """
    gpus = 1 if options.gpus is None else options.gpus
    if gpus % 1:
        raise InputError(f"Slurm gives whole GPUs, not {gpus:g}.")
    asked = re.search(r"(^|\s)(--gres|--gpus|-G)", options.sbatch)
    said = re.sub(r'(["\\])', r"\\\1", str(out / "logs").replace("%", "%%"))
    heads = [
        "--job-name=jaxdal",
        f"--array=0-{len(lines) - 1}",
        *([] if asked or not gpus else [f"--gres=gpu:{gpus:g}"]),
        "--requeue",
        "--open-mode=append",
        f'--output="{said}/slurm-%a.log"',
        *([options.sbatch] if options.sbatch else []),  # the last word is the user's
    ]
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH {head}" for head in heads),
            *(f"# {index}: {content}" for index, content in enumerate(contents)),
            "set -euo pipefail",
            f"cd -- {_quoted(os.getcwd())}",
            "mapfile -t jobs <<'JOBS'",
            *lines,
            "JOBS",
            'eval "exec ${jobs[$SLURM_ARRAY_TASK_ID]}"',
            "",
        ]
    )


def _quoted(*words: str) -> str:
    """Words for a shell, on one line."""
    return shlex.join(words).replace("\n", "'$'\\n''")


def described(end: End, log: Path) -> str:
    """How a job ended, in words."""
    code, seconds, said = end
    if not code:
        return f"done after {seconds:.0f} s"
    how = f"failed with exit code {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"
    return "\n    ".join([f"{how} after {seconds:.0f} s, see {log}", *said.splitlines()])


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


LAUNCHERS: dict[str, Callable[[Sequence[Job], Path, Options], int]] = {"slurm": slurm, "ray": on_ray}
