"""What a run reports to, and the plain lines that a log shows of it."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TextIO

from engine.formatting import decimals_for, format_duration, format_number, format_rate

Clock = Callable[[], float]

_RECENT = 5  # generations whose mean duration predicts the next ones


@dataclass(frozen=True, slots=True)
class GenerationSummary:
    """What one generation came to; fitness values are None where nothing was scored.

    Attributes:
        generation: Its number; students are generation 0.
        generations: Number of the last generation of the run.
        births: Births of this generation.
        best: Highest fitness of the generation's births.
        mean: Mean fitness of the generation's births.
        elite: Mean fitness of the elites.
        median: Median fitness of the generation's births.
        births_per_s: Births per second of this generation; None where it is not known.
    """

    generation: int
    generations: int
    births: int
    best: float | None
    mean: float | None
    elite: float | None
    median: float | None
    births_per_s: float | None


class Progress(Protocol):
    """What the run reports to; use it in ``contextlib.closing``."""

    def phase(self, name: str, total: int | None = None) -> None:
        """Begin a phase, or begin counting anew within the same one.

        Args:
            name: For example ``teachers``, ``states``, ``students``, ``breeding``, ``champion``.
            total: What :meth:`advance` counts up to: per generation while breeding. None where
                it is unknown.
        """

    def advance(self, n: int = 1, detail: str = "") -> None:
        """Count ``n`` more units of the phase; ``detail`` says what is being done."""

    def generation(self, summary: GenerationSummary) -> None:
        """End a generation; the count of the phase starts at zero again."""

    def workers(self, busy: int, total: int) -> None:
        """Tell how many workers there are and how many are at work."""

    def note(self, text: str) -> None:
        """Tell the user one thing in one line, such as a lost node."""

    def close(self) -> None:
        """End the view and leave the terminal as it was; closing twice is harmless."""


class SilentProgress:
    """Shows nothing."""

    def phase(self, name: str, total: int | None = None) -> None:
        """Ignore it."""

    def advance(self, n: int = 1, detail: str = "") -> None:
        """Ignore it."""

    def generation(self, summary: GenerationSummary) -> None:
        """Ignore it."""

    def workers(self, busy: int, total: int) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""

    def close(self) -> None:
        """Do nothing."""


class LogProgress:
    """Writes one plain line per phase, generation and note.

    Args:
        stream: Where to write.
        clock: Seconds from any origin.
    """

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        self._stream = stream
        self._timing = Timing(clock)

    def phase(self, name: str, total: int | None = None) -> None:
        """Write the name of a phase that begins."""
        if self._timing.begin(name, total):
            self._line(name if total is None else f"{name} ({total})")

    def advance(self, n: int = 1, detail: str = "") -> None:
        """Count silently."""
        self._timing.done += n

    def generation(self, summary: GenerationSummary) -> None:
        """Write what the generation came to."""
        self._timing.end_generation(summary)
        left = self._timing.left()
        self._line(_describe(summary) + ("" if left is None else f", {format_duration(left)} left"))

    def workers(self, busy: int, total: int) -> None:
        """Ignore it: it changes too often for a log."""

    def note(self, text: str) -> None:
        """Write the note."""
        self._line(text)

    def close(self) -> None:
        """Do nothing: every line is on its way already."""

    def _line(self, text: str) -> None:
        print(f"[{format_duration(self._timing.elapsed())}] {text}", file=self._stream, flush=True)


class Timing:
    """Counts and clocks that both views share."""

    def __init__(self, clock: Clock) -> None:
        self.name = ""
        self.total: int | None = None
        self.done = 0
        self._clock = clock
        self._start = self._count_start = self._generation_start = clock()
        self._durations: deque[float] = deque(maxlen=_RECENT)
        self._generations_left: int | None = None

    def begin(self, name: str, total: int | None) -> bool:
        """Start counting; tell whether the phase is another one than before."""
        changed = name != self.name
        if changed or self.done:
            self._count_start = self._clock()
        if self._generations_left is None:
            self._generation_start = self._count_start
        self.name, self.total, self.done = name, total, 0
        return changed

    def end_generation(self, summary: GenerationSummary) -> None:
        """Start counting the next generation."""
        now = self._clock()
        if summary.generation > 0:  # students are distilled, which tells nothing about breeding
            if summary.births_per_s is not None:
                self._durations.append(now - self._generation_start)
            self._generations_left = summary.generations - summary.generation
        self._count_start = self._generation_start = now
        self.done = 0

    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    def rate(self) -> float | None:
        """Units per second since counting began."""
        seconds = self._clock() - self._count_start
        return self.done / seconds if self.done and seconds > 0 else None

    def left(self) -> float | None:
        """Expected seconds to the end of the last generation, or else of the phase."""
        now = self._clock()
        if self._generations_left and self._durations:
            mean = math.fsum(self._durations) / len(self._durations)
            return max(0.0, mean * self._generations_left - (now - self._generation_start))
        if self.total and self.done:
            return (now - self._count_start) / self.done * max(0, self.total - self.done)
        return None


def _describe(summary: GenerationSummary) -> str:
    return (
        f"generation {summary.generation}/{summary.generations}: "
        f"{describe_fitness(summary, ', ')}, "
        f"{summary.births} births, {format_rate(summary.births_per_s)}"
    )


def describe_fitness(summary: GenerationSummary, between: str) -> str:
    """Return the fitness values of a generation by name, ``between`` two of them."""
    values = {
        "best": summary.best,
        "elite": summary.elite,
        "mean": summary.mean,
        "median": summary.median,
    }
    decimals = decimals_for(value for value in values.values() if value is not None)
    return between.join(
        f"{name} {format_number(value, decimals)}" for name, value in values.items()
    )
