"""`--distributed`: how one of several processes starts, and how it ends if another one is gone.

JAX finds the cluster (Slurm, Open MPI, GKE, TPU pods) and watches it: when a process dies, its coordination service
aborts all others in the middle of C++, where no Python code can speak to the user. So the command runs as the child of
a process that does nothing but wait, and then says what happened.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator

import jax

from jaxdal.errors import InputError, OutOfMemoryError

LIFELINE = "JAXDAL_LIFELINE"  # names, for the child, the pipe that closes when its parent is gone
AGAIN = "Start the same command in all processes again: it goes on after the last finished round or checkpoint."


def is_child() -> bool:
    """Tell whether this process is to do the work."""
    return LIFELINE in os.environ


def supervise() -> int:
    """Run this very command as a child: -> its exit code, 128 + the signal if one ended it."""
    lifeline, held = os.pipe()
    environment = os.environ | {LIFELINE: str(lifeline)}
    command = [sys.executable, *sys.orig_argv[1:]]
    child = subprocess.Popen(command, env=environment, pass_fds=[lifeline], start_new_session=True)
    os.close(lifeline)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: child.send_signal(number))
    code = child.wait()
    os.close(held)
    told = None
    if code == -signal.SIGABRT:
        told = (
            "this process was ended by JAX, as it says above, because another one died or could not be reached; "
            "the output of that one tells why"
        )
    elif code == 1:
        told = "this process stopped at the error above, and the others stop with it, or have stopped before"
    elif code < 0:
        told = f"this process was ended by {signal.Signals(-code).name}, and the others end with it"
    if told:
        print(f"jaxdal: {told}. {AGAIN}", file=sys.stderr, flush=True)
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def member(heartbeat: int) -> Iterator[None]:
    """Be one of the processes, for a block of code.

    heartbeat: seconds after which the others take a silent process for dead. What is raised within ends the process at
    once, but for refused input, which all processes refuse: an orderly end would wait for the others, who wait for it.
    Its exit code is 2 where a device ran out of memory, which is one sentence, and 1 after any other error.

    Raises:
        InputError: there is no cluster.
    """
    threading.Thread(target=_follow_parent, args=[int(os.environ[LIFELINE])], daemon=True).start()
    try:
        try:
            _connect(heartbeat)
            yield
        except (InputError, SystemExit):
            raise
        except KeyboardInterrupt:
            os._exit(128 + signal.SIGINT)
        except OutOfMemoryError as error:  # not 1: the same command would run out of it again
            print(f"jaxdal: {error}", file=sys.stderr, flush=True)
            os._exit(2)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    finally:
        sys.stdout.flush()


def _connect(heartbeat: int) -> None:
    jax.config.update("jax_enable_preemption_service", False)  # else SIGTERM is noted and the process goes on
    count, own = (_number(name) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"))
    try:
        jax.distributed.initialize(  # which itself reads JAX_COORDINATOR_ADDRESS
            num_processes=count, process_id=own, heartbeat_timeout_seconds=heartbeat
        )
    except ValueError as error:
        raise InputError(
            f"--distributed finds no cluster ({error}); start it with srun, mpirun or on a TPU pod, or set "
            "JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from None


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    try:
        return None if text is None else int(text)
    except ValueError:
        raise InputError(f"{name}={text} is not a whole number") from None


def _follow_parent(lifeline: int) -> None:
    """End this process when its parent is gone: the pipe is never written to."""
    os.read(lifeline, 1)
    os._exit(1)
