from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from rich.console import Console

from engine.live_progress import LiveProgress, make_progress
from engine.progress import GenerationSummary, LogProgress, Progress, SilentProgress

SUMMARY = GenerationSummary(
    generation=1,
    generations=3,
    births=64,
    best=487.25,
    mean=12.5,
    elite=1234.6,
    median=-0.25,
    births_per_s=12.34,
)


class Clock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)


@pytest.fixture
def live(console: Console, clock: Clock) -> Iterator[LiveProgress]:
    view = LiveProgress(console, clock, refresh_per_second=0)
    yield view
    view.close()


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def lines(view: LiveProgress, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(view.render())
    return [line.rstrip() for line in written(console).splitlines()]


def report(view: Progress, clock: Clock) -> None:
    with closing(view):
        view.phase("teachers", 4)
        clock.now += 5
        view.advance(4, "teacher 3")
        view.phase("states")
        clock.now += 60
        view.workers(3, 4)
        for generation in (1, 2):
            view.phase("breeding", 64)
            clock.now += 4000
            view.advance(64)
            view.generation(replace(SUMMARY, generation=generation))
        view.note("node [red]alpha was lost")
    view.close()


def test_a_log_has_a_line_per_phase_generation_and_note(clock: Clock) -> None:
    stream = io.StringIO()
    report(LogProgress(stream, clock), clock)
    fitness = "best 487.2, elite 1234.6, mean 12.5, median -0.2, 64 births, 12.3/s"
    assert stream.getvalue().splitlines() == [
        "[0:00:00] teachers (4)",
        "[0:00:05] states",
        "[0:01:05] breeding (64)",
        f"[1:07:45] generation 1/3: {fitness}, 2:13:20 left",
        f"[2:14:25] generation 2/3: {fitness}, 1:06:40 left",
        "[2:14:25] node [red]alpha was lost",
    ]


def test_silence_is_silent(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    report(SilentProgress(), clock)
    assert capsys.readouterr() == ("", "")


def test_generations_and_notes_stay_above_the_live_view(
    live: LiveProgress, console: Console, clock: Clock
) -> None:
    report(live, clock)
    text = written(console)
    assert "[1:07:45] gen 1/3  best 487.2  elite 1234.6  mean 12.5  median -0.2\n" in text
    assert "[2:14:25] node [red]alpha was lost" in text


def test_the_live_view_shows_phase_generations_fitness_and_workers(
    live: LiveProgress, clock: Clock
) -> None:
    assert lines(live)[0].startswith("starting")
    live.phase("breeding", 64)
    clock.now += 10
    live.advance(64)
    live.generation(SUMMARY)
    live.workers(3, 4)
    clock.now += 5
    live.advance(32, "slerp")
    phase, generations, fitness, facts = lines(live)
    assert phase.startswith("breeding")
    assert phase.endswith("32/64  6.4/s")
    assert generations.startswith("generations")
    assert generations.endswith("1/3")
    assert fitness == "best 487.2  elite 1234.6  mean 12.5  median -0.2"
    # two generations of 10 s are left, 5 s of which have passed
    assert facts == "elapsed 0:00:15  left 0:00:15  workers 3/4 busy  slerp"


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_live_view_fits_the_terminal(live: LiveProgress, clock: Clock, width: int) -> None:
    live.phase("breeding", 100_000)
    clock.now += 1
    live.advance(99_999, "a detail that is long " * 10)
    live.generation(replace(SUMMARY, best=-123456.7, mean=-123456.7, elite=-123456.7))
    live.advance(99_999)
    live.workers(1000, 1000)
    shown = lines(live, width)
    assert len(shown) == 4
    assert all(len(line) <= width for line in shown)


def test_before_the_first_generation_the_phase_tells_the_time_left(
    live: LiveProgress, clock: Clock
) -> None:
    live.phase("students", 32)
    assert "left -:--:--" in lines(live)[-1]
    clock.now += 30
    live.advance(8)
    assert lines(live)[0].endswith("8/32  16.0/min")
    assert "left 0:01:30" in lines(live)[-1]


def test_students_do_not_predict_the_duration_of_breeding(live: LiveProgress, clock: Clock) -> None:
    live.phase("students", 32)
    clock.now += 500
    live.generation(replace(SUMMARY, generation=0))
    live.phase("breeding", 64)
    assert "left -:--:--" in lines(live)[-1]
    clock.now += 10
    live.generation(SUMMARY)
    assert "left 0:00:20" in lines(live)[-1]


def test_a_generation_without_scores_shows_dashes(live: LiveProgress) -> None:
    live.generation(replace(SUMMARY, best=None, mean=None, elite=float("nan"), median=None))
    assert lines(live)[2] == "best -  elite -  mean -  median -"


def test_an_unknown_rate_is_a_dash(clock: Clock) -> None:
    stream = io.StringIO()
    LogProgress(stream, clock).generation(replace(SUMMARY, births_per_s=float("nan")))
    assert "64 births, -, " in stream.getvalue()


def test_the_view_suits_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(make_progress(io.StringIO()), LogProgress)
    assert isinstance(make_progress(Terminal(), quiet=True), SilentProgress)
    with closing(make_progress(Terminal())) as view:
        assert isinstance(view, LiveProgress)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_progress(Terminal()), LogProgress)


def test_the_view_that_refreshes_itself_ends_cleanly(clock: Clock) -> None:
    terminal = Terminal()
    console = Console(file=terminal, force_terminal=True, width=80)
    report(LiveProgress(console, clock), clock)
    assert terminal.getvalue().count("\x1b[?25l") == terminal.getvalue().count("\x1b[?25h") == 1
