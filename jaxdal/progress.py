"""What the user sees while a command runs: a bar on a terminal, plain lines anywhere else."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any, TextIO

import rich.progress
from rich.console import Console

EVERY = 10.0  # seconds between plain lines inside a round
REDRAW = 0.1  # seconds between states of the bar


class Progress:
    """Rounds, epochs, images per second and time left; a context manager that writes to stderr.

    Work is counted in steps of single runs: round r takes steps_per_round[r] x runs of them. Time left is their number
    times the latest cost of one, plus what a round takes besides (scoring, selection, evaluation); compilation, which
    happens in the first round only, does not enter it.
    """

    def __init__(
        self, steps_per_round: Sequence[int], images_per_step: int, runs: int = 1, *, first_round: int = 0,
        epochs: int | None = None, question: int | None = None, quiet: bool = False, stream: TextIO | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """question: the only round is that of `ask`, which has this number there."""
        self._work = [steps * runs for steps in steps_per_round]
        self._images, self._epochs, self._quiet, self._now = images_per_step, epochs, quiet, now
        self._stream, self._question = sys.stderr if stream is None else stream, question
        self._round, self._labelled, self._done = first_round, 0, 0
        self._began = self._first = self._latest = self._printed = self._shown = now()
        self._first_done = 0  # steps at the end of the round's first chunk, which may have had to compile
        self._before = False  # whether some of the round's steps were not done by this process
        self._step_cost: float | None = None  # seconds
        self._round_cost = 0.0  # seconds besides its steps
        self._bar: rich.progress.Progress | None = None
        if not quiet and self._stream.isatty():
            console = Console(file=self._stream, highlight=False)
            if not console.is_dumb_terminal:
                self._bar = _bar(console, now)
                self._task = self._bar.add_task("", total=sum(self._work), completed=sum(self._work[:first_round]))

    def __enter__(self) -> "Progress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar:
            self._bar.stop()

    def start_round(self, round_: int, labelled: int) -> None:
        """A round begins."""
        self._round, self._labelled, self._done, self._first_done, self._before = round_, labelled, 0, 0, False
        self._began = self._first = self._latest = self._printed = self._now()
        self._show()

    def advance(self, steps: int, before: bool = False) -> None:
        """So many more steps of single runs are done. before: by another process, be it this command's or not."""
        self._latest = self._now()
        self._done += steps
        self._before |= before
        if before or not self._first_done:
            self._first, self._first_done = self._latest, self._done
        elif self._latest > self._first:
            self._step_cost = (self._latest - self._first) / (self._done - self._first_done)
        if self._latest - self._shown >= REDRAW:
            self._show()
        if not self._quiet and not self._bar and self._latest - self._printed >= EVERY:
            self._printed = self._latest
            self._print(self._status())

    def note(self, text: str) -> None:
        """Tell the user something that even a quiet command must not hide."""
        self._print(text)

    def end_round(
        self, groups: Mapping[str, Sequence[dict[str, Any]]], compiling: float = 0.0, training: float | None = None
    ) -> None:
        """A round is finished. groups: strategy -> journal lines.

        compiling: seconds of it that do not come again; training: seconds of its steps, if they are known. Both with
        those of another process, of which the clock here knows nothing.
        """
        took = self._now() - self._began
        whole = max(0.0, took - compiling)
        work = self._work[self._round]
        if self._done == self._first_done and self._done:  # a single chunk, between whose steps nothing was measured
            spent = whole if training is None else training if self._before else min(training, whole)
            self._step_cost = spent / self._done
        self._round_cost = max(0.0, whole - work * (self._step_cost or 0.0))
        self._done = work
        self._show()
        if not self._quiet:
            self._print(f"{self._place()}: {_result(groups)}, {_time(took)}, {self._left()}")

    def seconds_left(self) -> float | None:
        """Seconds until the last round is finished; None before anything could be measured."""
        if self._step_cost is None:
            return None
        rounds = len(self._work) - self._round
        done = self._done == self._work[self._round]
        steps = sum(self._work[self._round :]) - self._done
        return steps * self._step_cost + max(0, rounds - done) * self._round_cost

    def _place(self) -> str:
        number = (
            f"round {self._round}/{len(self._work) - 1}" if self._question is None else f"question {self._question}"
        )
        return f"{number}, {self._labelled} labels"

    def _status(self) -> str:
        share = self._done / max(1, self._work[self._round])
        unit = f"{share:.0%} of the steps"
        if self._epochs is not None:
            unit = f"epoch {min(self._epochs, int(share * self._epochs) + 1)}/{self._epochs}"
        speed = f"{self._images / self._step_cost:,.0f} images/s" if self._step_cost else "- images/s"
        return f"{self._place()}: {unit}, {speed}, {self._left()}"

    def _left(self) -> str:
        left = self.seconds_left()
        return f"{'-' if left is None else _time(left)} left"

    def _show(self) -> None:
        if self._bar:
            completed = sum(self._work[: self._round]) + self._done
            self._shown = self._now()
            self._bar.update(self._task, completed=completed, description=self._status(), refresh=True)

    def _print(self, text: str) -> None:
        if self._bar:
            self._bar.console.print(text, markup=False, soft_wrap=True)
        else:
            print(text, file=self._stream, flush=True)


def _bar(console: Console, now: Callable[[], float]) -> rich.progress.Progress:
    """A bar that is drawn only when told to: no thread beside the one that trains."""
    columns = (rich.progress.TextColumn("{task.description}", markup=False), rich.progress.BarColumn(bar_width=None))
    return rich.progress.Progress(
        *columns, console=console, auto_refresh=False, transient=True, expand=True, get_time=now
    )


def _result(groups: Mapping[str, Sequence[dict[str, Any]]]) -> str:
    """The accuracy of a round, with its standard deviation where several runs have one; of several, worst and best."""
    found = {}
    for name, group in groups.items():
        accuracies = [100 * line["accuracy"] for line in group if "diverged" not in line]
        if accuracies:
            spread = f" ± {stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
            found[mean(accuracies), name] = f"{mean(accuracies):.2f}{spread} %"
    if not found:
        return "every run diverged"
    if len(set(found.values())) == 1:  # one strategy, or the round that all share
        return f"accuracy {next(iter(found.values()))}"
    told = [f"{text} ({name})" for (_, name), text in sorted(found.items())]
    return f"accuracy {told[0]} to {told[-1]}"


def _time(seconds: float) -> str:
    """1:02:03, 2:03, 27 s or 2.1 s."""
    if seconds < 59.5:
        return f"{seconds:.{1 if seconds < 9.95 else 0}f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
