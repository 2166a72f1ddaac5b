"""Progress: plain where nobody looks at a terminal, and an honest guess of the time left."""

import io
from typing import Any

import pytest

from jaxdal.progress import EVERY, Progress


class Terminal(io.StringIO):
    """A file that takes itself for a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


class World:
    """A clock and a machine: a step of a run costs 0.1 s, a round 5 s besides, compilation 20 s once."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        """The clock."""
        return self.time

    def play(self, progress: Progress, round_: int, steps: int, runs: int, chunk: int, compiles: bool = False) -> None:
        """One round, as the loop plays it."""
        progress.start_round(round_, 10 * round_ + 10)
        self.time += 20.0 * compiles
        for done in range(0, steps, chunk):
            part = min(chunk, steps - done)
            self.time += 0.1 * part * runs
            progress.advance(part * runs)
        self.time += 5.0
        progress.end_round({"margin": group(runs)}, 20.0 * compiles)


def group(runs: int, died: int = 0) -> list[dict[str, Any]]:
    common = {"round": 0, "labelled": 10, "runs_at_once": runs}
    dead = [{"seed": seed, "round": 0, "labelled": 10, "diverged": {"step": 3}} for seed in range(died)]
    return dead + [{**common, "seed": seed, "accuracy": 0.5 + seed / 100} for seed in range(died, runs)]


def plain(stream: io.StringIO) -> list[str]:
    """The lines that were written, without any control character."""
    text = stream.getvalue()
    assert not any(ord(char) < 32 and char != "\n" for char in text)
    return text.splitlines()


def test_one_plain_line_per_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    stream, world = io.StringIO(), World()
    with Progress([10, 20, 30], 64, 2, stream=stream, now=world.now) as progress:
        for round_, steps in enumerate([10, 20, 30]):
            world.play(progress, round_, steps, 2, chunk=5)
    assert plain(stream) == [
        "round 0/2, 10 labels: accuracy 50.50 ± 0.71 %, 7.0 s, 20 s left",
        "round 1/2, 20 labels: accuracy 50.50 ± 0.71 %, 9.0 s, 11 s left",
        "round 2/2, 30 labels: accuracy 50.50 ± 0.71 %, 11 s, 0.0 s left",
    ]


def test_a_long_round_speaks_now_and_then() -> None:
    stream, world = io.StringIO(), World()
    with Progress([1000], 64, 1, epochs=50, stream=stream, now=world.now) as progress:
        world.play(progress, 0, 1000, 1, chunk=10)
    lines = plain(stream)
    assert len(lines) == 100.0 / EVERY + 1
    assert lines[0] == "round 0/0, 10 labels: epoch 6/50, 640 images/s, 1:30 left"
    assert lines[-2].startswith("round 0/0, 10 labels: epoch 50/50, ")
    assert "accuracy 50.00 %" in lines[-1]


@pytest.mark.parametrize("chunk", [3, 10, 1000])
@pytest.mark.parametrize("first_round", [0, 2])
def test_time_left_follows_growing_rounds(chunk: int, first_round: int) -> None:
    world, steps = World(), [10, 100, 200, 300, 400]
    with Progress(steps, 64, 3, first_round=first_round, stream=io.StringIO(), now=world.now) as progress:
        assert progress.seconds_left() is None
        for round_ in range(first_round, 5):
            world.play(progress, round_, steps[round_], 3, chunk, compiles=round_ == first_round)
            left = progress.seconds_left()
            true = sum(0.3 * count + 5 for count in steps[round_ + 1 :])
            assert left is not None
            if chunk < steps[round_]:
                assert left == pytest.approx(true)
            else:  # one chunk: the round's fixed costs are taken for steps
                assert true <= left <= 3 * true
        assert left == 0.0


def test_time_left_inside_a_round() -> None:
    world = World()
    with Progress([100, 200], 64, 1, stream=io.StringIO(), now=world.now) as progress:
        progress.start_round(0, 10)
        world.time += 50.0  # compiling
        progress.advance(10)
        assert progress.seconds_left() is None
        world.time += 1.0
        progress.advance(10)
        assert progress.seconds_left() == pytest.approx(28.0)


def test_what_an_interrupted_process_did_costs_nothing_now() -> None:
    world = World()
    with Progress([100, 100], 64, 1, stream=io.StringIO(), now=world.now) as progress:
        progress.start_round(0, 10)
        progress.advance(80, before=True)
        world.time += 2.0
        progress.advance(20)
        assert progress.seconds_left() == pytest.approx(10.0)
        progress.end_round({"margin": group(1)}, compiling=1e6)  # seconds of the process that was killed
        assert progress.seconds_left() == pytest.approx(10.0)


def test_a_round_that_another_command_has_trained_tells_what_the_next_will_take() -> None:
    """Not that nothing is left: its 100 steps, and 30 s of compilation, took that command 10 s and this one nothing."""
    stream, world = io.StringIO(), World()
    with Progress([100, 400], 64, stream=stream, now=world.now) as progress:
        progress.start_round(0, 10)
        world.time += 2.0
        progress.advance(60, before=True)
        world.time += 1.0
        progress.advance(40, before=True)  # the second of two packs
        world.time += 5.0
        progress.end_round({"margin": group(1)}, compiling=30.0, training=10.0)
        assert progress.seconds_left() == pytest.approx(40.0)
    assert plain(stream) == ["round 0/1, 10 labels: accuracy 50.00 %, 8.0 s, 40 s left"]


def test_a_round_of_one_chunk_knows_what_training_took() -> None:
    """5 s besides the steps are not those of the steps, of which later rounds have more."""
    world = World()
    with Progress([100, 400, 400], 64, stream=io.StringIO(), now=world.now) as progress:
        progress.start_round(0, 10)
        world.time += 10.0
        progress.advance(100)
        world.time += 5.0
        progress.end_round({"margin": group(1)}, training=10.0)
        assert progress.seconds_left() == pytest.approx(2 * (40.0 + 5.0))


def test_a_clock_that_stands_still() -> None:
    stream = io.StringIO()
    with Progress([4, 4], 64, stream=stream, now=lambda: 0.0) as progress:
        for round_ in range(2):
            progress.start_round(round_, 10)
            progress.advance(2)
            progress.advance(2)
            progress.end_round({"margin": group(1)})
    assert [line.rpartition(", ")[2] for line in plain(stream)] == ["- left", "- left"]


def test_rounds_that_ended_early_are_whole() -> None:
    stream, world = io.StringIO(), World()
    with Progress([100, 100], 64, 2, stream=stream, now=world.now) as progress:
        progress.start_round(0, 10)
        progress.advance(20)
        progress.note("seed 0 diverged [bold]")
        progress.end_round({"margin": group(2, died=2)})
        progress.start_round(1, 10)  # no step at all
        progress.end_round({"margin": group(2, died=1)})
    lines = plain(stream)
    assert lines[0] == "seed 0 diverged [bold]"
    assert "every run diverged" in lines[1]
    assert "accuracy 51.00 %" in lines[2]


def test_quiet_still_tells_what_went_wrong() -> None:
    for stream in (io.StringIO(), Terminal()):
        world = World()
        with Progress([1000], 64, quiet=True, stream=stream, now=world.now) as progress:
            world.play(progress, 0, 1000, 1, chunk=10)
            progress.note("seed 0 diverged")
        assert stream.getvalue() == "seed 0 diverged\n"


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream, world = Terminal(), World()
    with Progress([10, 20], 64, 2, epochs=5, stream=stream, now=world.now) as progress:
        for round_, steps in enumerate([10, 20]):
            world.play(progress, round_, steps, 2, chunk=5)
        progress.note("seed 0 diverged [bold]")
    text = stream.getvalue()
    assert "\x1b[" in text
    assert "epoch 3/5, 640 images/s" in text
    assert "round 1/1, 20 labels: accuracy 50.50 ± 0.71 %" in text
    assert "seed 0 diverged [bold]" in text
    assert text.rstrip("\n").endswith("\x1b[?25h") or "\x1b[?25h" in text  # the cursor is back


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream, world = Terminal(), World()
    with Progress([10], 64, stream=stream, now=world.now) as progress:
        world.play(progress, 0, 10, 1, chunk=5)
    assert len(plain(stream)) == 1
